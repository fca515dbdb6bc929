// Package sim runs whole clusters of the production code in virtual time: many
// nodes in one process, over a simulated network, simulated disks and clocks,
// through crashes and all that goes wrong in between. One seed is one history,
// for ever. Checkers that keep their own account of what clients saw judge it.
//
// README.md says what is simulated and what is not, and how to replay a seed.
package sim
