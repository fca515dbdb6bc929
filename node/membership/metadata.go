package membership

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/url"
	"strconv"
	"strings"

	"github.com/hashicorp/memberlist"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

// metadata is what a node says of itself in every announcement. It has one
// size for the life of a process, checked at start: nothing that changes is of
// variable length.
//
//	byte      version of the encoding, 1
//	byte      flags
//	8 bytes   node id
//	8 bytes   incarnation
//	16 bytes  cluster; zero: bound to none
//	8 bytes   digest of the view; zero: knows no layout
//	4 bytes   weight
//	string    peer address
//	string    client URL
//	string    zone
type metadata struct {
	id          kv.NodeID
	incarnation uint64
	cluster     ring.ClusterID
	digest      uint64
	weight      uint32
	peerAddress string
	clientURL   string
	zone        string
	bootstraps  bool // was told to make a cluster, and has none
	leaving     bool // is stopping on purpose
}

const (
	metadataEncoding = 1

	flagBootstraps = 1 << 0
	flagLeaving    = 1 << 1
	knownFlags     = flagBootstraps | flagLeaving
)

var (
	errNoNodeID = errors.New("node id 0 stands for no node")
	errVersion  = errors.New("unknown encoding version: one of the two nodes runs a Starling of another generation")
)

func (m metadata) encode() []byte {
	var flags byte
	if m.bootstraps {
		flags |= flagBootstraps
	}
	if m.leaving {
		flags |= flagLeaving
	}
	dst := []byte{metadataEncoding, flags}
	dst = binary.BigEndian.AppendUint64(dst, uint64(m.id))
	dst = binary.BigEndian.AppendUint64(dst, m.incarnation)
	dst = append(dst, m.cluster[:]...)
	dst = binary.BigEndian.AppendUint64(dst, m.digest)
	dst = binary.BigEndian.AppendUint32(dst, m.weight)
	dst = wire.AppendString(dst, m.peerAddress)
	dst = wire.AppendString(dst, m.clientURL)
	return wire.AppendString(dst, m.zone)
}

// decodeMetadata reads what encode writes and refuses anything else.
func decodeMetadata(b []byte) (metadata, error) {
	r := wire.NewReader(b)
	if v := r.Byte(); v != metadataEncoding && r.Err() == nil {
		r.Fail(fmt.Errorf("%w (%d)", errVersion, v))
	}
	flags := r.Byte()
	m := metadata{
		bootstraps:  flags&flagBootstraps != 0,
		leaving:     flags&flagLeaving != 0,
		id:          kv.NodeID(r.Uint64()),
		incarnation: r.Uint64(),
		cluster:     readClusterID(r),
		digest:      r.Uint64(),
		weight:      r.Uint32(),
		peerAddress: r.String(memberlist.MetaMaxSize),
		clientURL:   r.String(memberlist.MetaMaxSize),
		zone:        r.String(ring.MaxNameLen),
	}
	switch {
	case flags&^knownFlags != 0, m.cluster == (ring.ClusterID{}) && m.digest != 0:
		r.Fail(wire.ErrBadValue)
	case m.id == 0:
		r.Fail(errNoNodeID)
	}
	if err := r.Close(); err != nil {
		return metadata{}, fmt.Errorf("node metadata: %w", err)
	}
	return m, nil
}

func readClusterID(r *wire.Reader) (id ring.ClusterID) {
	binary.BigEndian.PutUint64(id[:8], r.Uint64())
	binary.BigEndian.PutUint64(id[8:], r.Uint64())
	return id
}

// check refuses what a layout could not contain, or people could not be shown.
func (m metadata) check() error {
	switch {
	case !isHostPort(m.peerAddress):
		return fmt.Errorf("peer address %q: use host:port", m.peerAddress)
	case m.clientURL != "" && !isURL(m.clientURL):
		return fmt.Errorf("client URL %q: use http://host:port or https://host:port", m.clientURL)
	case m.zone != "" && !isName(m.zone):
		return fmt.Errorf("zone %q: use at most %d of A-Z a-z 0-9 . _ -", m.zone, ring.MaxNameLen)
	}
	return nil
}

// isName reports whether a layout could bear the name.
func isName(s string) bool {
	const allowed = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	return s != "" && len(s) <= ring.MaxNameLen && strings.Trim(s, allowed) == ""
}

func isHostPort(s string) bool {
	host, port, err := net.SplitHostPort(s)
	return err == nil && host != "" && isPort(port) && isVisible(s)
}

func isPort(s string) bool {
	n, err := strconv.ParseUint(s, 10, 16)
	return err == nil && n > 0
}

func isURL(s string) bool {
	u, err := url.Parse(s)
	return err == nil && (u.Scheme == "http" || u.Scheme == "https") && u.Host != "" && isVisible(s)
}

// isVisible reports whether s is all ASCII that takes ink.
func isVisible(s string) bool {
	return !strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' })
}
