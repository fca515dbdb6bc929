package ring

import (
	"cmp"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/internal/wire"
)

// Limits of a [View].
const (
	MaxActive  = 1024    // active layouts
	MaxRetired = 1 << 20 // retired layouts
)

// ErrViewFull is matched by the error of a change that would take a view over
// [MaxActive] or [MaxRetired].
var ErrViewFull = errors.New("too many layouts in the view: " +
	"let the pending layout changes complete first, removing nodes that will not return")

// ErrUnknownLayout is matched by the error of a change to a layout that the
// view does not know.
var ErrUnknownLayout = errors.New("layout not in the view")

// ClusterError refuses what belongs to another cluster.
type ClusterError struct {
	Want, Got ClusterID
}

func (e *ClusterError) Error() string {
	return fmt.Sprintf("this is cluster %s, got a layout of cluster %s: clusters never merge; check the seed addresses", e.Want, e.Got)
}

// View is what a node knows of its cluster's layouts: those that it knows, and
// those of them that are retired. It only ever grows, by [View.Merge], so that
// nodes which exchange views come to agree without a leader. Of a retired
// layout it keeps the hash alone.
//
// The zero View knows nothing and belongs to no cluster yet. Views are
// immutable values: what changes one returns another.
type View struct {
	cluster ClusterID
	active  []*Layout // newest first, see compareAge
	retired []Hash    // ascending; none is the hash of an active layout
	digest  uint64
}

// newView puts the view of the given parts, which it may reorder, in order.
func newView(cluster ClusterID, known []*Layout, retired []Hash) (View, error) {
	slices.SortFunc(retired, compareHash)
	retired = slices.Compact(retired)
	known = slices.DeleteFunc(known, func(l *Layout) bool {
		_, gone := slices.BinarySearchFunc(retired, l.hash, compareHash)
		return gone
	})
	slices.SortFunc(known, compareAge)
	known = slices.CompactFunc(known, func(a, b *Layout) bool { return a.hash == b.hash })
	if len(known) > MaxActive || len(retired) > MaxRetired {
		return View{}, fmt.Errorf("%w (%d active, %d retired)", ErrViewFull, len(known), len(retired))
	}
	v := View{cluster: cluster, active: slices.Clip(known), retired: slices.Clip(retired)}
	v.digest = v.sum()
	return v, nil
}

// compareAge orders layouts newest first: by version, then by hash.
func compareAge(a, b *Layout) int {
	if c := cmp.Compare(b.version, a.version); c != 0 {
		return c
	}
	return compareHash(b.hash, a.hash)
}

// sum computes the digest: 0 for the zero View.
func (v View) sum() uint64 {
	if v.cluster == (ClusterID{}) {
		return 0
	}
	b := make([]byte, 0, len(v.cluster)+8+len(Hash{})*(len(v.active)+len(v.retired)))
	b = append(b, v.cluster[:]...)
	b = binary.BigEndian.AppendUint64(b, uint64(len(v.active)))
	for _, l := range v.active {
		b = append(b, l.hash[:]...)
	}
	for _, h := range v.retired {
		b = append(b, h[:]...)
	}
	return xxhash.Sum64(b)
}

// Cluster returns the cluster whose layouts these are; zero if the view knows
// nothing.
func (v View) Cluster() ClusterID { return v.cluster }

// Active returns the layouts that are known and not retired, in which every
// request must find its replicas: the newest first, that is, by falling
// version, then falling hash. The slice is shared: read only.
func (v View) Active() []*Layout { return v.active }

// Retired returns the hashes of the retired layouts, ascending. The slice is
// shared: read only.
func (v View) Retired() []Hash { return v.retired }

// Knows reports whether the view holds the layout of this hash, active or
// retired.
func (v View) Knows(h Hash) bool {
	return v.isRetired(h) || slices.ContainsFunc(v.active, func(l *Layout) bool { return l.hash == h })
}

func (v View) isRetired(h Hash) bool {
	_, ok := slices.BinarySearchFunc(v.retired, h, compareHash)
	return ok
}

// Digest is the fence that every message between peers carries: equal digests
// mean equal views, save for a chance of 2^-64 for two that differ.
func (v View) Digest() uint64 { return v.digest }

// With returns the view that also knows l. It fails with a [*ClusterError] if
// l belongs to another cluster and with [ErrViewFull].
func (v View) With(l *Layout) (View, error) {
	return v.Merge(View{cluster: l.cluster, active: []*Layout{l}})
}

// Retire returns the view in which the layout of the given hash is retired. It
// fails with [ErrUnknownLayout] if the view does not know it, and with
// [ErrViewFull].
func (v View) Retire(h Hash) (View, error) {
	if !v.Knows(h) {
		return View{}, fmt.Errorf("retire %s: %w", h, ErrUnknownLayout)
	}
	return v.Merge(View{cluster: v.cluster, retired: []Hash{h}})
}

// Merge returns the view that knows whatever either knows. It is commutative,
// associative and idempotent: what one has retired is retired in the union, be
// it active in the other. It fails with a [*ClusterError] if the views belong
// to different clusters and with [ErrViewFull].
func (v View) Merge(other View) (View, error) {
	if v.cluster == (ClusterID{}) {
		v.cluster = other.cluster
	}
	if other.cluster != (ClusterID{}) && other.cluster != v.cluster {
		return View{}, &ClusterError{Want: v.cluster, Got: other.cluster}
	}
	return newView(v.cluster, slices.Concat(v.active, other.active), slices.Concat(v.retired, other.retired))
}

// Contains reports whether merging other would teach v nothing: v knows every
// layout of other, and as retired those that other has retired.
func (v View) Contains(other View) bool {
	for _, l := range other.active {
		if !v.Knows(l.hash) {
			return false
		}
	}
	return !slices.ContainsFunc(other.retired, func(h Hash) bool { return !v.isRetired(h) })
}

// The encoding of a view, canonical:
//
//	byte      version of the encoding, 1
//	16 bytes  cluster
//	varint    count of active layouts, then newest first each:
//	          varint length, encoding of the layout
//	varint    count of retired layouts, then by ascending hash each: 16 bytes
const viewEncoding = 1

// Append appends the canonical encoding of the view to dst.
func (v View) Append(dst []byte) []byte {
	dst = append(dst, viewEncoding)
	dst = append(dst, v.cluster[:]...)
	dst = binary.AppendUvarint(dst, uint64(len(v.active)))
	for _, l := range v.active {
		dst = wire.AppendBytes(dst, l.Append(nil))
	}
	return appendHashes(dst, v.retired)
}

// DecodeView reads what [View.Append] writes, and nothing else; it verifies
// every layout as [DecodeLayout] does.
func DecodeView(b []byte) (View, error) {
	v, err := decodeView(wire.NewReader(b))
	if err != nil {
		return View{}, fmt.Errorf("decode view: %w", err)
	}
	return v, nil
}

func decodeView(r *wire.Reader) (View, error) {
	if v := r.Byte(); v != viewEncoding && r.Err() == nil {
		return View{}, fmt.Errorf("%w (version %d)", ErrEncoding, v)
	}
	cluster := ClusterID(read16(r))
	known := make([]*Layout, r.Count(1, MaxActive))
	for i := range known {
		l, err := DecodeLayout(r.Bytes(maxLayoutLen))
		if err := cmp.Or(r.Err(), err); err != nil {
			return View{}, err
		}
		if l.cluster != cluster {
			return View{}, &ClusterError{Want: cluster, Got: l.cluster}
		}
		known[i] = l
	}
	retired := readHashes(r, MaxRetired)
	if err := r.Close(); err != nil {
		return View{}, err
	}
	return canonicalView(cluster, known, retired)
}

// canonicalView returns the view of the given parts if they are in order.
func canonicalView(cluster ClusterID, known []*Layout, retired []Hash) (View, error) {
	v, err := newView(cluster, slices.Clone(known), slices.Clone(retired))
	if err != nil {
		return View{}, err
	}
	if !slices.Equal(v.active, known) || !slices.Equal(v.retired, retired) {
		return View{}, fmt.Errorf("layouts out of order or twice: %w", wire.ErrBadValue)
	}
	if cluster == (ClusterID{}) && len(known)+len(retired) > 0 {
		return View{}, fmt.Errorf("layouts of no cluster: %w", wire.ErrBadValue)
	}
	return v, nil
}
