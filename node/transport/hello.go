package transport

import (
	"crypto/hkdf"
	"crypto/hmac"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

// The protocol versions that this build speaks. Two nodes use the newest that
// both speak.
const (
	oldestProtocol uint16 = 1
	newestProtocol uint16 = 1
)

// maxName bounds the name in a hello, in bytes.
const maxName = 255

// Hello is what a node says of itself when a connection is made.
type Hello struct {
	// Cluster names the cluster that the node is of. Zero: none yet; such a node
	// has nobody to talk to.
	Cluster     [16]byte
	Node        kv.NodeID
	Name        string // the operator's name; cut at 255 bytes
	Incarnation uint64
	View        uint64 // digest of the layouts that the node knows
}

func (h Hello) peer() Peer { return Peer{ID: h.Node, Name: h.Name, Incarnation: h.Incarnation} }

// hello is a Hello as it travels.
type hello struct {
	Hello
	oldest, newest uint16    // protocol versions
	want           kv.NodeID // who the sender believes it talks to
	link           uint64    // joins the lanes of one link
	lane           uint8
	nonce          [32]byte // fresh, so that no proof serves twice
}

var helloMagic = [4]byte{'S', 'T', 'R', 'L'}

var errMagic = errors.New("not a Starling node")

// encode writes the hello. Later versions append fields: a decoder ignores what
// follows those that it knows, and versions come first, so that any version
// can say which side is too old.
func (h hello) encode() []byte {
	dst := helloMagic[:4:4]
	dst = binary.BigEndian.AppendUint16(dst, h.oldest)
	dst = binary.BigEndian.AppendUint16(dst, h.newest)
	dst = wire.AppendBytes(dst, h.Cluster[:])
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.Node))
	dst = wire.AppendString(dst, h.Name[:min(len(h.Name), maxName)])
	dst = binary.BigEndian.AppendUint64(dst, h.Incarnation)
	dst = binary.BigEndian.AppendUint64(dst, h.View)
	dst = binary.BigEndian.AppendUint64(dst, uint64(h.want))
	dst = binary.BigEndian.AppendUint64(dst, h.link)
	dst = append(dst, h.lane)
	return wire.AppendBytes(dst, h.nonce[:])
}

// decodeHello reads what encode wrote. If it fails behind the versions, it
// returns them with the error.
func decodeHello(b []byte) (hello, error) {
	var h hello
	r := wire.NewReader(b)
	if r.Uint32() != binary.BigEndian.Uint32(helloMagic[:]) {
		return h, errMagic
	}
	h.oldest, h.newest = r.Uint16(), r.Uint16()
	if r.Err() == nil && h.newest < h.oldest {
		r.Fail(wire.ErrBadValue)
	}
	fixed(r, h.Cluster[:])
	h.Node = kv.NodeID(r.Uint64())
	h.Name = r.String(maxName)
	h.Incarnation = r.Uint64()
	h.View = r.Uint64()
	h.want = kv.NodeID(r.Uint64())
	h.link = r.Uint64()
	h.lane = r.Byte()
	fixed(r, h.nonce[:])
	if err := r.Err(); err != nil {
		return hello{oldest: h.oldest, newest: h.newest}, fmt.Errorf("hello: %w", err)
	}
	return h, nil
}

// fixed reads bytes of which there must be len(dst).
func fixed(r *wire.Reader, dst []byte) {
	b := r.Bytes(len(dst))
	if r.Err() == nil && len(b) != len(dst) {
		r.Fail(wire.ErrBadValue)
	}
	copy(dst, b)
}

// Reason says why a handshake was refused.
type Reason uint8

// The reasons of a [*HandshakeError]. They travel: values are never reused.
const (
	ReasonMalformed   Reason = 1 // what came is no handshake of ours
	ReasonVersion     Reason = 2 // no protocol version in common
	ReasonNoCluster   Reason = 3 // one side has joined no cluster yet
	ReasonCluster     Reason = 4 // the two are of different clusters
	ReasonOwnID       Reason = 5 // both have one node id
	ReasonWrongNode   Reason = 6 // another node than the one that was dialled
	ReasonSecret      Reason = 7 // the cluster secrets differ
	ReasonNotAdmitted Reason = 8 // the layout does not admit the node
	ReasonTimeout     Reason = 9 // too slow; never travels
)

// reasonNames are in the order of the reasons; 0 is a reason of a later version.
var reasonNames = [...]string{
	"other", "malformed", "version", "no_cluster", "cluster", "own_id", "wrong_node", "secret", "not_admitted", "timeout",
}

// String returns the reason as the label of a metric.
func (r Reason) String() string {
	if int(r) >= len(reasonNames) {
		return reasonNames[0]
	}
	return reasonNames[r]
}

// HandshakeError says why two nodes did not come to talk. It matches
// [ErrHandshake].
type HandshakeError struct {
	Reason Reason
	Text   string // for people: names both sides and the remedy
	Remote bool   // the other side refused, in its words
}

// Error names the reason, who refused, and the text.
func (e *HandshakeError) Error() string {
	if e.Remote { // quoted: it came from outside
		return fmt.Sprintf("%v by the other node (%v): %q", ErrHandshake, e.Reason, e.Text)
	}
	return fmt.Sprintf("%v (%v): %s", ErrHandshake, e.Reason, e.Text)
}

// Unwrap returns [ErrHandshake].
func (*HandshakeError) Unwrap() error { return ErrHandshake }

func refuse(r Reason, format string, args ...any) error {
	return &HandshakeError{Reason: r, Text: fmt.Sprintf(format, args...)}
}

// judgeVersion is judge for a hello of which nothing but the versions may be
// readable.
func judgeVersion(self, other hello) error {
	const text = "node %v speaks protocol %d to %d, its peer %d to %d: upgrade %s"
	switch {
	case other.newest < self.oldest:
		return refuse(ReasonVersion, text, self.Node, self.oldest, self.newest, other.oldest, other.newest, "the peer")
	case self.newest < other.oldest:
		return refuse(ReasonVersion, text, self.Node, self.oldest, self.newest, other.oldest, other.newest, self.Node)
	}
	return nil
}

// judge decides whether two nodes fit, from what each says of itself; nothing
// is proven yet. Both sides judge by it.
func judge(self, other hello) error {
	if err := judgeVersion(self, other); err != nil {
		return err
	}
	none := [16]byte{}
	switch {
	case self.Cluster == none:
		return refuse(ReasonNoCluster, "node %v has joined no cluster yet", self.Node)
	case other.Cluster == none:
		return refuse(ReasonNoCluster, "node %v has joined no cluster yet", other.Node)
	case other.Cluster != self.Cluster:
		return refuse(ReasonCluster, "node %v is of cluster %x, node %v of cluster %x; clusters never merge",
			self.Node, self.Cluster, other.Node, other.Cluster)
	case other.Node == self.Node:
		return refuse(ReasonOwnID, "both ends are node %v: an address leads back to its node, or a data directory was copied", self.Node)
	case other.Node != self.want:
		return refuse(ReasonWrongNode, "dialled node %v, but node %v answered: its address is out of date", self.want, other.Node)
	case other.want != self.Node:
		return refuse(ReasonWrongNode, "node %v was dialled, but this is node %v: the address is out of date", other.want, self.Node)
	}
	return nil
}

// role keeps a proof of one side from being sent back as one of the other.
type role string

const (
	roleDialler  role = "dialler"
	roleAccepter role = "accepter"
)

// proofKey derives the key of proofs from the cluster secret (HKDF, RFC 5869),
// which serves other purposes under other labels.
func proofKey(secret []byte) ([]byte, error) {
	return hkdf.Key(sha256.New, secret, nil, "starling node transport v1", sha256.Size)
}

// prove binds the key to both hellos, nonces included, and to the prover's role.
func prove(key []byte, r role, dialler, accepter []byte) []byte {
	mac := hmac.New(sha256.New, key)
	said := wire.AppendBytes(wire.AppendBytes(nil, dialler), accepter)
	mac.Write(wire.AppendString(nil, string(r)))
	mac.Write(said)
	return mac.Sum(nil)
}
