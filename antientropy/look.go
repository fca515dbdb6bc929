package antientropy

import (
	"cmp"
	"math/bits"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/merkle"
	"github.com/starling-kv/starling/vclock"
)

// Everything here is pure: from what two nodes said of their trees and leaves,
// where they differ.

// site is a leaf in which the trees of this node and its peer differ.
type site struct {
	share

	leaf  uint8
	here  int // records here, when the site was found
	there int // about as many are at the peer
}

// partRecords is how many records a listing holds at most, if their number is
// as it was when the site was found; four times as many fit into a message.
const partRecords = maxDigests / 4

// places cuts the site into what can be listed at once.
func (s site) places() []place {
	records := max(s.here, s.there)
	slicing := uint8(0)
	if records > partRecords {
		slicing = min(maxBits, uint8(bits.Len(uint(records/partRecords))))
	}
	out := make([]place, 1<<slicing)
	for i := range out {
		part := Part{Partition: s.partition, Leaf: s.leaf, Bits: slicing, Index: uint32(i)}
		out[i] = place{part: part, least: s.least, records: records >> slicing}
	}
	return out
}

// canvass is one partition on its way down the trees.
type canvass struct {
	share

	window Window
	count  uint64         // of the peer's records
	mine   merkle.Tree    // of this node, as of when the peer was compared with
	theirs merkle.Summary // the nodes beneath the peer's root
	inner  []uint8        // where they differ from this node's
}

// newCanvass compares the nodes beneath the roots.
func newCanvass(s share, w Window, mine merkle.Tree, d Difference) canvass {
	return canvass{share: s, window: w, count: d.Count, mine: mine, theirs: d.Inner, inner: w.of(mine.Inner()).Diff(d.Inner)}
}

// filled returns the leaves, rising, that are not empty at the peer, as far as
// the inner nodes tell, as if all were empty here.
func (c *canvass) filled() []site {
	var sites []site
	for leaf := range merkle.Leaves {
		if c.theirs[leaf/merkle.Fanout] != 0 {
			sites = append(sites, site{share: c.share, leaf: uint8(leaf), there: c.perLeaf()})
		}
	}
	return sites
}

// perLeaf is how many records the peer has in a leaf, about.
func (c *canvass) perLeaf() int { return int((c.count + merkle.Leaves - 1) / merkle.Leaves) }

// sites returns the leaves that differ, rising, given the peer's children of
// the inner nodes that differ, in their order.
func (c *canvass) sites(children []merkle.Summary) []site {
	var out []site
	for n, i := range c.inner {
		for _, at := range c.window.of(c.mine.Children(i)).Diff(children[n]) {
			leaf := i*merkle.Fanout + at
			out = append(out, site{c.share, leaf, int(c.mine[leaf].Count), c.perLeaf()})
		}
	}
	return out
}

// batchOfTrees returns of how many of the partitions one message asks for the
// leaves: at least one.
func batchOfTrees(list []canvass) int {
	asked := 0
	for i := range list {
		if asked += len(list[i].inner); i > 0 && asked > childrenAsked {
			return i
		}
	}
	return len(list)
}

// batchOfLeaves returns how many of the sites one call streams: at least one.
func batchOfLeaves(sites []site) int {
	records := 0
	for i, s := range sites {
		if records += s.there; i > 0 && records > streamRecords {
			return i
		}
	}
	return len(sites)
}

// samePartition returns how many of the sites, from the first on, are in its
// partition.
func samePartition(sites []site) int {
	for i, s := range sites {
		if s.partition != sites[0].partition {
			return i
		}
	}
	return len(sites)
}

// listing is what is told of entries, which are sorted. One that has outgrown a
// message is cut: what is not told of seems to differ, is pulled, and is found
// to be held.
func listing(p Part, own []Entry) Listing {
	own = own[:min(len(own), maxDigests)]
	l := Listing{Part: p, Digests: make([]uint64, len(own))}
	for i, e := range own {
		l.Digests[i] = e.Digest
	}
	return l
}

func compareEntries(a, b Entry) int {
	return cmp.Or(cmp.Compare(a.Digest, b.Digest), compareKeys(a.Key, b.Key))
}

// discord is a key whose records differ.
type discord struct {
	at    place // where its digests were compared
	key   kv.Key
	here  uint64 // digest of this node's record; zero: it has none
	there uint64 // of the peer's; zero: it has none, or did not say

	mine, theirs vclock.Clock // none: not known

	taken bool // this node holds all that the peer does
	given bool // the peer holds all that this node does
}

// place is a part in which keys are compared.
type place struct {
	part    Part
	least   uint8 // the smallest n_max that is compared
	records int   // how many it held, about, on the side that has more
}

// discords returns the keys in which own, sorted by digest, differs from what
// the peer says of its records, sorted by key.
func discords(at place, own []Entry, c Contrast) []discord {
	out := make([]discord, 0, len(c.Unknown)+len(c.Extra))
	for _, i := range c.Unknown {
		if int(i) < len(own) {
			out = append(out, discord{at: at, key: own[i].Key, here: own[i].Digest, mine: own[i].Clock})
		}
	}
	for _, e := range c.Extra {
		out = append(out, discord{at: at, key: e.Key, there: e.Digest, theirs: e.Clock})
	}
	slices.SortStableFunc(out, func(a, b discord) int { return compareKeys(a.key, b.key) })
	return joined(out)
}

// joined makes one of two neighbours that speak of one key.
func joined(list []discord) []discord {
	out := list[:0]
	for _, d := range list {
		if n := len(out); n > 0 && out[n-1].key == d.key {
			out[n-1] = out[n-1].with(d)
			continue
		}
		out = append(out, d)
	}
	return out
}

// with returns what d and e, one from each side, say of the key together.
func (d discord) with(e discord) discord {
	if e.here != 0 {
		d.here, d.mine = e.here, e.mine
	}
	if e.there != 0 {
		d.there, d.theirs = e.there, e.theirs
	}
	return d
}

// behind reports that the peer has, by the clocks, seen nothing that this node
// has not: there is nothing to take. Should it hold more all the same, as a
// larger n_max, its record differs still when it was given this node's.
func (d discord) behind() bool {
	return len(d.theirs) > 0 && d.mine.Dominates(d.theirs) && !d.theirs.Dominates(d.mine)
}

// batch returns how many of the places fit into one message: at least one.
func batch(list []place) int {
	records := 0
	for i, p := range list {
		if records += p.records; i > 0 && (i == looksParts || records > looksRecords) {
			return i
		}
	}
	return len(list)
}

// lasts reports whether the records differ still, when d.here is what this node
// holds by now and held tells of digests whether the peer holds them: it holds
// what it held before, and not what is here.
func (d discord) lasts(held func(uint64) bool) bool {
	if d.here == 0 && d.there == 0 || d.here == d.there {
		return false
	}
	return (d.there == 0 || held(d.there)) && (d.here == 0 || !held(d.here))
}

// listings returns the digests of both sides, place by place.
func listings(list []discord) []Listing {
	var out []Listing
	for i, d := range list {
		if i == 0 || list[i-1].at != d.at {
			out = append(out, Listing{Part: d.at.part})
		}
		l := &out[len(out)-1]
		for _, digest := range []uint64{d.here, d.there} {
			if digest != 0 {
				l.Digests = append(l.Digests, digest)
			}
		}
	}
	for _, l := range out {
		slices.Sort(l.Digests)
	}
	return out
}

// batchOfDiscords returns how many of the discords one message asks about again:
// all of some places, and at least those of one.
func batchOfDiscords(list []discord) int {
	places := 1
	for i := 1; i < len(list); i++ {
		if list[i].at == list[i-1].at {
			continue
		}
		if places++; places > looksParts || i > looksRecords {
			return i
		}
	}
	return len(list)
}

func compareKeys(a, b kv.Key) int {
	return cmp.Or(cmp.Compare(a.Bucket, b.Bucket), cmp.Compare(a.Name, b.Name))
}
