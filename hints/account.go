package hints

import (
	"maps"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

// Amount is how much of something a node keeps for a target.
type Amount struct {
	Count  int
	Bytes  int64     // as stored, about
	Oldest time.Time // about, and never too late; zero if there is nothing
}

// entryOverhead is about what the store needs for an entry beside its key.
const entryOverhead = 64

// size is about how many bytes an entry takes in the store.
func size(key kv.Key) int64 { return int64(len(key.Bucket) + len(key.Name) + entryOverhead) }

func (a *Amount) add(bytes int64, since time.Time) {
	a.Count++
	a.Bytes += bytes
	if a.Oldest.IsZero() || since.Before(a.Oldest) {
		a.Oldest = since
	}
}

// account is how much each target is owed. Its zero value is empty.
type account struct {
	amounts map[kv.NodeID]Amount
	total   int64 // bytes
}

func (a *account) add(m Missed) {
	if a.amounts == nil {
		a.amounts = make(map[kv.NodeID]Amount)
	}
	amount := a.amounts[m.Target]
	amount.add(size(m.Key), m.Since)
	a.amounts[m.Target] = amount
	a.total += size(m.Key)
}

// remove takes out one of the entries that were added.
func (a *account) remove(m Missed) {
	amount := a.amounts[m.Target]
	amount.Count--
	amount.Bytes -= size(m.Key)
	a.total -= size(m.Key)
	if amount.Count > 0 {
		a.amounts[m.Target] = amount
		return
	}
	delete(a.amounts, m.Target)
}

// aged corrects the time of the oldest entry of a target.
func (a *account) aged(target kv.NodeID, oldest time.Time) {
	if amount, ok := a.amounts[target]; ok {
		amount.Oldest = oldest
		a.amounts[target] = amount
	}
}

// targets lists whoever is owed something, sorted.
func (a *account) targets() []kv.NodeID { return slices.Sorted(maps.Keys(a.amounts)) }
