// Package peers runs other stores on this machine, beside which Starling is
// measured, and speaks with them as cheaply as it does with Starling: by hand
// over raw connections, since the client shares the processors with what is
// measured. Nothing of it is a client library: it knows the few requests of the
// benchmark.
package peers
