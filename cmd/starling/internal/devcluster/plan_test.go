package devcluster

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestLayout(t *testing.T) {
	nodes := Plan{Nodes: 12, Zones: 3, PortBase: DefaultPortBase}.Layout()
	first := Node{Name: "n1", Zone: "z1", Listen: "127.0.0.1:8701", Admin: "127.0.0.1:8801", Peer: "127.0.0.1:8901", Gossip: "127.0.0.1:9001"}
	last := Node{Name: "n12", Zone: "z3", Listen: "127.0.0.1:8712", Admin: "127.0.0.1:8812", Peer: "127.0.0.1:8912", Gossip: "127.0.0.1:9012"}
	if nodes[0] != first || nodes[11] != last {
		t.Errorf("got %+v and %+v", nodes[0], nodes[11])
	}
	if zone := (Plan{Nodes: 1, PortBase: 1}).Layout()[0].Zone; zone != "" {
		t.Errorf("zone %q without zones", zone)
	}
}

func TestPortsNeverMeet(t *testing.T) {
	seen := map[string]string{}
	for _, n := range (Plan{Nodes: MaxNodes, PortBase: DefaultPortBase}).Layout() {
		for _, a := range []string{n.Listen, n.Admin, n.Peer, n.Gossip} {
			if seen[a] != "" {
				t.Fatalf("%s belongs to %s and %s", a, seen[a], n.Name)
			}
			seen[a] = n.Name
		}
	}
}

func TestValidate(t *testing.T) {
	tests := []struct {
		plan Plan
		want string
	}{
		{Plan{Nodes: 5, PortBase: 8700}, ""},
		{Plan{Nodes: 99, Zones: 99, PortBase: 65136}, ""},
		{Plan{PortBase: 8700}, "--nodes 0"},
		{Plan{Nodes: 100, PortBase: 8700}, "use 1 to 99"},
		{Plan{Nodes: 2, Zones: 3, PortBase: 8700}, "--zones 3"},
		{Plan{Nodes: 2, Zones: -1, PortBase: 8700}, "--zones -1"},
		{Plan{Nodes: 5}, "--port-base 0"},
		{Plan{Nodes: 5, PortBase: 65231}, "use 1 to 65230"},
	}
	for _, tt := range tests {
		err := tt.plan.Validate()
		if (err == nil) != (tt.want == "") || err != nil && !strings.Contains(err.Error(), tt.want) {
			t.Errorf("%+v: %v, want %q", tt.plan, err, tt.want)
		}
	}
}

func TestCheckPorts(t *testing.T) {
	nodes := freePlan(t, 3).Layout()
	for network, address := range map[string]string{"tcp": nodes[1].Peer, "udp": nodes[2].Gossip} {
		stop := occupy(t, network, address)
		err := CheckPorts(t.Context(), nodes)
		stop()
		if err == nil || !strings.Contains(err.Error(), address) || !strings.Contains(err.Error(), "in use") ||
			!strings.Contains(err.Error(), "--port-base") {
			t.Errorf("%s %s in use: %v", network, address, err)
		}
	}
	if err := CheckPorts(t.Context(), nodes); err != nil {
		t.Error(err)
	}
}

func occupy(t *testing.T, network, address string) func() {
	t.Helper()
	if network == "udp" {
		l, err := net.ListenPacket(network, address)
		if err != nil {
			t.Fatal(err)
		}
		return func() { l.Close() }
	}
	l, err := net.Listen(network, address)
	if err != nil {
		t.Fatal(err)
	}
	return func() { l.Close() }
}

func TestHomeStartsTheSameClusterAgain(t *testing.T) {
	dir, plan := filepath.Join(t.TempDir(), "deep", "home"), Plan{Nodes: 2, Zones: 2, PortBase: 8700}
	first, err := OpenHome(dir, plan)
	if err != nil {
		t.Fatal(err)
	}
	secret, err := os.ReadFile(first.Secret())
	if err != nil || len(strings.TrimSpace(string(secret))) != 64 {
		t.Fatalf("secret of %d characters, %v", len(secret), err)
	}
	if info, err := os.Stat(first.Secret()); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("secret: mode %v, %v", info.Mode(), err)
	}
	if err := os.WriteFile(first.Log("n2"), []byte("started\n"), 0o600); err != nil {
		t.Error(err)
	}
	again, err := OpenHome(dir, plan)
	if err != nil || again != first {
		t.Fatalf("second time: %+v, %v", again, err)
	}
	if kept, err := os.ReadFile(again.Secret()); err != nil || string(kept) != string(secret) {
		t.Errorf("the secret has changed, %v", err)
	}
	if err := again.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(again.Log("n2")); err != nil {
		t.Errorf("closing took what was to be kept: %v", err)
	}
}

func TestHomeRefuses(t *testing.T) {
	plan := Plan{Nodes: 2, PortBase: 8700}
	write := func(name, text string) func(string) error {
		return func(dir string) error { return os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600) }
	}
	tests := []struct {
		name    string
		prepare func(dir string) error
		want    string
	}{
		{
			"another number of nodes", write("cluster.json", `{"nodes":5,"zones":0,"port_base":8700}`),
			"started with --nodes 5 --port-base 8700: start it with the same, or choose another --dir",
		},
		{"other zones", write("cluster.json", `{"nodes":2,"zones":2,"port_base":8700}`), "--nodes 2 --port-base 8700 --zones 2"},
		{"other ports", write("cluster.json", `{"nodes":2,"zones":0,"port_base":9700}`), "--port-base 9700"},
		{"a damaged plan", write("cluster.json", `{"nodes":`), "cluster.json"},
		{"files of somebody", write("thesis.txt", "x"), "something else"},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			if err := tt.prepare(dir); err != nil {
				t.Fatal(err)
			}
			if _, err := OpenHome(dir, plan); err == nil || !strings.Contains(err.Error(), tt.want) || !strings.Contains(err.Error(), "--dir") {
				t.Errorf("%v, want %q", err, tt.want)
			}
		})
	}
	if _, err := OpenHome("/dev/null/home", plan); err == nil {
		t.Error("a home below a file")
	}
}

func TestTemporaryHomeIsRemoved(t *testing.T) {
	h, err := OpenHome("", Plan{Nodes: 1, PortBase: 8700})
	if err != nil {
		t.Fatal(err)
	}
	if err := h.Close(); err != nil {
		t.Error(err)
	}
	if _, err := os.Stat(h.Path); !os.IsNotExist(err) {
		t.Errorf("still there: %v", err)
	}
}
