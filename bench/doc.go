// Package bench is the room for the load benchmark: a cluster under load, and
// its comparison with other stores. Nothing of it is built yet; README.md says
// what can be measured today.
package bench
