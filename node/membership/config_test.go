package membership

import (
	"bytes"
	"strings"
	"testing"
)

type noPeers struct{}

func (noPeers) LoadPeers() ([]byte, error) { return nil, nil }
func (noPeers) SavePeers([]byte) error     { return nil }

func validConfig() Config {
	return Config{
		Name: "n1", ID: 1, Incarnation: 1,
		Bind: "127.0.0.1:0", PeerAddress: "127.0.0.1:7947",
		Weight: 1,
		Secret: []byte(strings.Repeat("s", MinSecret)),
		Random: func() uint64 { return 4 },
		Peers:  noPeers{},
	}
}

func TestConfigIsValidated(t *testing.T) {
	for _, c := range []struct {
		name   string
		change func(*Config)
		want   string // part of the error; empty: none
	}{
		{"as it is", func(*Config) {}, ""},
		{"no randomness", func(c *Config) { c.Random = nil }, "Random"},
		{"no place for peers", func(c *Config) { c.Peers = nil }, "Peers"},
		{"short secret", func(c *Config) { c.Secret = c.Secret[1:] }, "openssl rand -hex 32"},
		{"bind to a name", func(c *Config) { c.Bind = "localhost:7946" }, "use an IP address and a port"},
		{"bind without a port", func(c *Config) { c.Bind = "127.0.0.1" }, "use an IP address and a port"},
		{"advertise everything", func(c *Config) { c.Advertise = "0.0.0.0:7946" }, "at which the other nodes reach this one"},
		{"advertise a name", func(c *Config) { c.Advertise = "host:7946" }, "at which the other nodes reach this one"},
		{"advertise an address", func(c *Config) { c.Advertise = "192.0.2.1:0" }, ""},
		{"seed without a port", func(c *Config) { c.Seeds = []string{"host"} }, `seed "host"`},
		{"seed with a bad port", func(c *Config) { c.Seeds = []string{"host:70000"} }, `seed "host:70000"`},
		{"seeds by name and address", func(c *Config) { c.Seeds = []string{"host:1", "[::1]:7946"} }, ""},
		{"name with a slash", func(c *Config) { c.Name = "a/b" }, `name "a/b"`},
		{"no name", func(c *Config) { c.Name = "" }, `name ""`},
		{"no id", func(c *Config) { c.ID = 0 }, "node id 0"},
		{"no peer address", func(c *Config) { c.PeerAddress = "" }, "host:port"},
		{"bad zone", func(c *Config) { c.Zone = "rack 1" }, `zone "rack 1"`},
		{"owns nothing", func(c *Config) { c.Weight = 0 }, ""},
		{"bootstrap of none", func(c *Config) { c.Bootstrap, c.Partitions = true, 8 }, "say how many nodes"},
		{"bootstrap of odd partitions", func(c *Config) { c.Bootstrap, c.Expect, c.Partitions = true, 1, 100 }, "power of two"},
		{"bootstrap", func(c *Config) { c.Bootstrap, c.Expect, c.Partitions = true, 1, 64 }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			cfg := validConfig()
			c.change(&cfg)
			err := cfg.validate()
			if c.want == "" && err != nil || c.want != "" && (err == nil || !strings.Contains(err.Error(), c.want)) {
				t.Errorf("validate() = %v, want %q", err, c.want)
			}
		})
	}
}

func TestGossipKey(t *testing.T) {
	one, err := gossipKey([]byte("one"))
	if err != nil {
		t.Fatal(err)
	}
	same, _ := gossipKey([]byte("one"))
	two, _ := gossipKey([]byte("two"))
	if len(one) != 32 || !bytes.Equal(one, same) || bytes.Equal(one, two) || bytes.Contains(one, []byte("one")) {
		t.Errorf("keys %x, %x, %x", one, same, two)
	}
}
