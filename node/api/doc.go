// Package api is the HTTP face of a node: the key-value interface for clients
// on the data port, and on a port of its own what an operator may look into.
// It translates between HTTP and the coordinator and decides nothing about
// data. DESIGN.md beside this file lists routes, parameters, headers and
// status codes, and says why connections are served the way they are.
package api
