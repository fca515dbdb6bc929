//go:build race

package ring

// underRace is true under the race detector, which has nothing to find here and
// makes large tables slow.
const underRace = true
