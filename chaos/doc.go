// Package chaos kills real processes: its tests run clusters of the built
// binary on loopback, write to them through the Go client, kill nodes with
// SIGKILL meanwhile, and check that no acknowledged write is lost and that no
// write which was reported as not applied is ever seen.
//
// Rounds and seed come from the environment: CHAOS_ROUNDS (default 1) and
// CHAOS_SEED (default: random, printed).
package chaos
