package membership

import (
	"encoding/binary"
	"fmt"
	"time"

	"github.com/hashicorp/memberlist"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/ring"
)

// The encoding of the peers that outlast a restart:
//
//	byte      version of the encoding, 1
//	varint    count, then each:
//	          string name, string gossip address, bytes metadata
const peersEncoding = 1

// appendPeers leaves out what changes all the time, so that the encoding
// changes only with what is needed to find the peers again.
func appendPeers(dst []byte, peers []Peer) []byte {
	dst = append(dst, peersEncoding)
	dst = binary.AppendUvarint(dst, uint64(len(peers)))
	for _, p := range peers {
		dst = wire.AppendString(dst, p.Name)
		dst = wire.AppendString(dst, p.Address)
		dst = wire.AppendBytes(dst, metadata{
			id:          p.ID,
			incarnation: p.Incarnation,
			cluster:     p.Cluster,
			weight:      p.Weight,
			peerAddress: p.PeerAddress,
			clientURL:   p.ClientURL,
			zone:        p.Zone,
		}.encode())
	}
	return dst
}

// decodePeers reads what appendPeers writes. All are dead until they are met.
func decodePeers(b []byte) ([]Peer, error) {
	r := wire.NewReader(b)
	if v := r.Byte(); v != peersEncoding && r.Err() == nil {
		r.Fail(fmt.Errorf("%w (%d)", errVersion, v))
	}
	n := r.Count(3, maxLive)
	var peers []Peer
	for i := 0; i < n && r.Err() == nil; i++ {
		name, address := r.String(ring.MaxNameLen), r.String(ring.MaxAddressLen)
		m, err := decodeMetadata(r.Bytes(memberlist.MetaMaxSize))
		if err != nil {
			r.Fail(err)
		}
		p := newPeer(name, address, m)
		p.State = Dead
		peers = append(peers, p)
	}
	if err := r.Close(); err != nil {
		return nil, fmt.Errorf("stored peers: %w", err)
	}
	return peers, nil
}

// loadPeers returns the peers that were known before this start. A node that
// cannot read them goes by its seeds.
func (g *Gossip) loadPeers() []Peer {
	b, err := g.cfg.Peers.LoadPeers()
	if err == nil && len(b) > 0 {
		var peers []Peer
		if peers, err = decodePeers(b); err == nil {
			return peers
		}
	}
	if err != nil {
		g.log.Warn("the addresses of the other nodes could not be read: going by the seeds", zap.Error(err))
	}
	return nil
}

// saveInterval is the least time between two saves.
const saveInterval = time.Second

// savePeers keeps the stored peers up to date, until Close and once more then.
func (g *Gossip) savePeers() {
	saved := ""
	save := func() {
		now := string(appendPeers(nil, g.others()))
		if now == saved {
			return
		}
		if err := g.cfg.Peers.SavePeers([]byte(now)); err != nil {
			g.log.Warn("the addresses of the other nodes could not be saved", zap.Error(err))
			return
		}
		saved = now
	}
	for {
		select {
		case <-g.ctx.Done():
			save()
			return
		case <-g.peersChanged:
			save()
		}
		select {
		case <-g.ctx.Done():
		case <-time.After(saveInterval):
		}
	}
}

// others returns the peers without this node.
func (g *Gossip) others() []Peer {
	var others []Peer
	for _, p := range g.table.roster().peers {
		if p.Name != g.cfg.Name {
			others = append(others, p)
		}
	}
	return others
}
