package membership

import (
	"bytes"
	"errors"
	"net"
	"slices"
	"strings"
	"testing"

	"github.com/hashicorp/memberlist"
	"pgregory.net/rapid"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
)

var (
	genClusterID = rapid.Custom(func(t *rapid.T) (id ring.ClusterID) {
		copy(id[:], rapid.SliceOfN(rapid.Byte(), 16, 16).Draw(t, "cluster"))
		return id
	})
	genMetadata = rapid.Custom(func(t *rapid.T) metadata {
		m := metadata{
			id:          kv.NodeID(rapid.Uint64Min(1).Draw(t, "id")),
			incarnation: rapid.Uint64().Draw(t, "incarnation"),
			cluster:     genClusterID.Draw(t, "cluster"),
			weight:      rapid.Uint32().Draw(t, "weight"),
			peerAddress: rapid.StringN(0, -1, 200).Draw(t, "peer"),
			clientURL:   rapid.StringN(0, -1, 200).Draw(t, "client"),
			zone:        rapid.StringN(0, -1, ring.MaxNameLen).Draw(t, "zone"),
			bootstraps:  rapid.Bool().Draw(t, "bootstraps"),
			leaving:     rapid.Bool().Draw(t, "leaving"),
		}
		if m.cluster != (ring.ClusterID{}) {
			m.digest = rapid.Uint64().Draw(t, "digest")
		}
		return m
	})
	genBinding = rapid.Custom(func(t *rapid.T) binding {
		return binding{
			name:        rapid.StringN(0, -1, ring.MaxNameLen).Draw(t, "name"),
			id:          kv.NodeID(rapid.Uint64().Draw(t, "id")),
			incarnation: rapid.Uint64().Draw(t, "incarnation"),
		}
	})
)

func TestMetadataSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		m := genMetadata.Draw(t, "metadata")
		got, err := decodeMetadata(m.encode())
		if err != nil || got != m {
			t.Fatalf("decoded %+v, %v; want %+v", got, err, m)
		}
	})
}

// The bytes are spoken between versions: a change of them is a new version.
func TestMetadataBytes(t *testing.T) {
	m := metadata{
		id: 0xa1, incarnation: 7, cluster: ring.ClusterID{1, 2}, digest: 9, weight: 3,
		peerAddress: "h:1", clientURL: "u", zone: "z", leaving: true,
	}
	want := "\x01\x02" + "\x00\x00\x00\x00\x00\x00\x00\xa1" + "\x00\x00\x00\x00\x00\x00\x00\x07" +
		"\x01\x02" + strings.Repeat("\x00", 14) + "\x00\x00\x00\x00\x00\x00\x00\x09" + "\x00\x00\x00\x03" + "\x03h:1" + "\x01u" + "\x01z"
	if got := string(m.encode()); got != want {
		t.Errorf("encoded %q, want %q", got, want)
	}
}

func TestMetadataRefused(t *testing.T) {
	good := metadata{id: 1, peerAddress: "h:1"}
	for _, c := range []struct {
		name   string
		change func(b []byte) []byte
		want   error
	}{
		{"nothing", func([]byte) []byte { return nil }, wire.ErrShort},
		{"another version", func(b []byte) []byte { b[0] = 2; return b }, errVersion},
		{"unknown flag", func(b []byte) []byte { b[1] = 0x80; return b }, wire.ErrBadValue},
		{"no node id", func(b []byte) []byte { clear(b[2:10]); return b }, errNoNodeID},
		{"digest without a cluster", func(b []byte) []byte { b[41] = 1; return b }, wire.ErrBadValue},
		{"cut off", func(b []byte) []byte { return b[:len(b)-1] }, wire.ErrShort},
		{"more behind", func(b []byte) []byte { return append(b, 0) }, wire.ErrTrailing},
	} {
		t.Run(c.name, func(t *testing.T) {
			if m, err := decodeMetadata(c.change(good.encode())); !errors.Is(err, c.want) {
				t.Errorf("decoded %+v, %v; want %v", m, err, c.want)
			}
		})
	}
}

func TestMetadataOfANode(t *testing.T) {
	for _, c := range []struct {
		name string
		m    metadata
		ok   bool
	}{
		{"least", metadata{peerAddress: "h:1"}, true},
		{"all", metadata{peerAddress: "[::1]:7947", clientURL: "https://kv.example:8700", zone: "rack-1"}, true},
		{"no peer address", metadata{}, false},
		{"peer address without a port", metadata{peerAddress: "h"}, false},
		{"peer address with port 0", metadata{peerAddress: "h:0"}, false},
		{"peer address with a newline", metadata{peerAddress: "h\n:1"}, false},
		{"client URL that runs a script", metadata{peerAddress: "h:1", clientURL: "javascript:alert(1)"}, false},
		{"client URL with a blank", metadata{peerAddress: "h:1", clientURL: "http://h/ x"}, false},
		{"zone with a slash", metadata{peerAddress: "h:1", zone: "a/b"}, false},
	} {
		if err := c.m.check(); (err == nil) != c.ok {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}

func TestAddressOfANode(t *testing.T) {
	for _, c := range []struct {
		ip   net.IP
		port uint16
		ok   bool
	}{
		{net.IPv4(10, 0, 0, 1).To4(), 7946, true},
		{net.IPv6loopback, 7946, true},
		{net.IPv4zero.To4(), 7946, false},
		{net.IPv4allrouter.To4(), 7946, false},
		{net.IPv4(10, 0, 0, 1), 0, false},
		{net.IP("garbage"), 7946, false},
		{nil, 7946, false},
	} {
		if err := checkAddress(&memberlist.Node{Addr: c.ip, Port: c.port}); (err == nil) != c.ok {
			t.Errorf("%v port %d: %v", c.ip, c.port, err)
		}
	}
}

func FuzzMetadata(f *testing.F) {
	f.Add(metadata{id: 1, cluster: ring.ClusterID{1}, digest: 2, peerAddress: "h:1", bootstraps: true}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		m, err := decodeMetadata(b)
		if err == nil && !bytes.Equal(m.encode(), b) {
			t.Errorf("%q has another encoding, %q", b, m.encode())
		}
	})
}

func TestStateSurvives(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		s := sharedState{
			sender:  genBinding.Draw(t, "sender"),
			cluster: genClusterID.Draw(t, "cluster"),
			digest:  rapid.Uint64().Draw(t, "digest"),
			live:    rapid.SliceOfN(genBinding, 0, 20).Draw(t, "live"),
			view:    rapid.SliceOf(rapid.Byte()).Draw(t, "view"),
		}
		got, err := decodeState(s.encode())
		same := got.sender == s.sender && got.cluster == s.cluster && got.digest == s.digest &&
			slices.Equal(got.live, s.live) && bytes.Equal(got.view, s.view)
		if err != nil || !same {
			t.Fatalf("decoded %+v, %v; want %+v", got, err, s)
		}
	})
}

func TestStateRefused(t *testing.T) {
	if _, err := decodeState(make([]byte, maxStateLen+1)); !errors.Is(err, wire.ErrTooLarge) {
		t.Errorf("a state over the limit: %v", err)
	}
	if _, err := decodeState([]byte{stateEncoding + 1}); !errors.Is(err, errVersion) {
		t.Errorf("a state of another version: %v", err)
	}
	if _, err := decodeState([]byte{stateEncoding, 1, 'n'}); !errors.Is(err, wire.ErrShort) {
		t.Errorf("a state cut off: %v", err)
	}
}

func FuzzState(f *testing.F) {
	f.Add(sharedState{sender: binding{"n1", 1, 2}, live: []binding{{"n1", 1, 2}, {"n2", 3, 4}}, view: []byte("view")}.encode())
	f.Fuzz(func(t *testing.T, b []byte) {
		s, err := decodeState(b)
		if err == nil && !bytes.Equal(s.encode(), b) {
			t.Errorf("%q has another encoding, %q", b, s.encode())
		}
	})
}

func TestPeersSurvive(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		peers := make([]Peer, rapid.IntRange(0, 5).Draw(t, "peers"))
		for i := range peers {
			name := rapid.StringN(0, -1, ring.MaxNameLen).Draw(t, "name")
			peers[i] = newPeer(name, "10.0.0.1:7946", genMetadata.Draw(t, "metadata"))
		}
		got, err := decodePeers(appendPeers(nil, peers))
		if err != nil || len(got) != len(peers) {
			t.Fatalf("decoded %+v, %v; want %+v", got, err, peers)
		}
		for i, want := range peers {
			// Of what changes all the time nothing is kept.
			want.State, want.ViewDigest, want.bootstraps = Dead, 0, false
			if got[i] != want {
				t.Fatalf("decoded %+v, want %+v", got[i], want)
			}
		}
	})
}

func FuzzPeers(f *testing.F) {
	f.Add(appendPeers(nil, []Peer{newPeer("n1", "10.0.0.1:7946", metadata{id: 1, peerAddress: "h:1"})}))
	f.Fuzz(func(t *testing.T, b []byte) {
		peers, err := decodePeers(b)
		if err == nil && len(peers) > maxLive {
			t.Errorf("%d peers", len(peers))
		}
	})
}

func TestMetadataHasRoom(t *testing.T) {
	cfg := validConfig()
	cfg.PeerAddress = strings.Repeat("h", 200) + ":7947"
	cfg.ClientURL = "http://" + strings.Repeat("h", 200) + ":8700"
	if err := cfg.validate(); err != nil {
		t.Errorf("long names of hosts: %v", err)
	}
	cfg.ClientURL += "/" + strings.Repeat("h", 60)
	if err := cfg.validate(); err == nil || !strings.Contains(err.Error(), "bytes too long together") {
		t.Errorf("names of hosts beyond %d bytes of metadata: %v", memberlist.MetaMaxSize, err)
	}
}
