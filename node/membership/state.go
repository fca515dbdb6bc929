package membership

import (
	"encoding/binary"
	"fmt"
	"slices"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// maxStateLen bounds the state that one node hands another, in bytes: four
// layouts of the largest size. memberlist stops at 20 MiB, its own list of up
// to 700 bytes a node included.
const maxStateLen = 12 << 20

// maxViewLen leaves room beside the view for all else.
const maxViewLen = maxStateLen - 128*maxLive

// sharedState is what two nodes tell each other when they meet, beside what
// memberlist exchanges by itself.
//
//	byte      version of the encoding, 1
//	entry     the sender
//	16 bytes  cluster that the sender is bound to; zero: none
//	8 bytes   digest of the sender's view
//	varint    count of live nodes, then each an entry
//	bytes     encoded view, to the end; empty: none, or too large
//
// An entry is a string, the name, 8 bytes of node id and 8 of incarnation.
type sharedState struct {
	sender  binding
	cluster ring.ClusterID
	digest  uint64
	live    []binding // who the sender believes is alive, itself included
	view    []byte    // not decoded: mostly the receiver has it already
}

// binding says which life of which node goes under a name.
type binding struct {
	name        string
	id          kv.NodeID
	incarnation uint64
}

// lists reports whether the sender knows this life of a node. If not, it has
// refused the node, or takes it for dead, or still for what it was before.
func (s sharedState) lists(b binding) bool { return slices.Contains(s.live, b) }

func bindings(peers []Peer) []binding {
	bs := make([]binding, len(peers))
	for i, p := range peers {
		bs[i] = p.binding()
	}
	return bs
}

const (
	stateEncoding = 1
	maxLive       = 2 * ring.MaxMembers // spares are alive too
)

func (s sharedState) encode() []byte {
	dst := make([]byte, 0, len(s.view)+128*(len(s.live)+1))
	dst = append(dst, stateEncoding)
	dst = appendBinding(dst, s.sender)
	dst = append(dst, s.cluster[:]...)
	dst = binary.BigEndian.AppendUint64(dst, s.digest)
	dst = binary.AppendUvarint(dst, uint64(len(s.live)))
	for _, b := range s.live {
		dst = appendBinding(dst, b)
	}
	return append(dst, s.view...)
}

func appendBinding(dst []byte, b binding) []byte {
	dst = wire.AppendString(dst, b.name)
	dst = binary.BigEndian.AppendUint64(dst, uint64(b.id))
	return binary.BigEndian.AppendUint64(dst, b.incarnation)
}

// decodeState reads what encode writes. The view shares b's storage.
func decodeState(b []byte) (sharedState, error) {
	r := wire.NewReader(b)
	if len(b) > maxStateLen {
		r.Fail(wire.ErrTooLarge)
	}
	if v := r.Byte(); v != stateEncoding && r.Err() == nil {
		r.Fail(fmt.Errorf("%w (%d)", errVersion, v))
	}
	s := sharedState{sender: readBinding(r), cluster: readClusterID(r), digest: r.Uint64()}
	const least = 1 + 8 + 8 // bytes of an entry with an empty name
	n := r.Count(least, maxLive+1)
	for i := 0; i < n && r.Err() == nil; i++ {
		s.live = append(s.live, readBinding(r))
	}
	s.view = r.Rest()
	if err := r.Err(); err != nil {
		return sharedState{}, fmt.Errorf("gossip state: %w", err)
	}
	return s, nil
}

func readBinding(r *wire.Reader) binding {
	return binding{name: r.String(ring.MaxNameLen), id: kv.NodeID(r.Uint64()), incarnation: r.Uint64()}
}
