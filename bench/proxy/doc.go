// Package proxy stands between a node and the nodes that dial it, and slows or
// loses the frames of their links: the faults of a peer that is neither well nor
// gone ("gray failure", Huang et al., HotOS 2017). The nodes know nothing of it.
package proxy
