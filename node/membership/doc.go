// Package membership knows who is in the cluster: [Views] keeps the layouts
// that this node knows, durably, and [Gossip] says which nodes seem alive and
// where they are, spreads the layouts, and makes a cluster's first one.
//
// Ownership and liveness are kept apart. Only a layout says who owns what;
// gossip (hashicorp/memberlist, that is SWIM, Das et al. 2002, with Lifeguard,
// Dadgar et al. 2018) says who answers, may be wrong, and never takes anything
// from a node that is merely down. DESIGN.md gives the rules and their reasons.
//
// memberlist reads the real clock and the global source of randomness, so runs
// of this package do not replay from a seed. They do run in virtual time, in a
// testing/synctest bubble over the network of package membershiptest.
package membership
