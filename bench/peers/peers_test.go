package peers

import (
	"fmt"
	"net"
	"path/filepath"
	"testing"

	"github.com/starling-kv/starling/bench"
)

// freePorts returns the first of ten ports that nobody listens on.
func freePorts(t *testing.T) int {
	t.Helper()
	for first := 21000; first < 30000; first += 10 {
		if free(first) {
			return first
		}
	}
	t.Fatal("no free ports")
	return 0
}

func free(first int) bool {
	for port := first; port < first+10; port++ {
		l, err := net.Listen("tcp", fmt.Sprintf("127.0.0.1:%d", port))
		if err != nil {
			return false
		}
		l.Close()
	}
	return true
}

// Every store that is installed starts, takes a write, returns it after a
// restart, and stops.
func TestStores(t *testing.T) {
	dir := t.TempDir()
	at := func(name string) Place { return Place{Dir: filepath.Join(dir, name), Port: freePorts(t)} }
	for _, system := range []func() bench.System{
		func() bench.System { return Etcd(t.Context(), at("etcd"), false, "") },
		func() bench.System { return Etcd(t.Context(), at("unsafe"), true, filepath.Join(dir, "memory")) },
		func() bench.System { return Redis(t.Context(), at("redis"), "everysec") },
		func() bench.System { return NATS(t.Context(), at("nats"), false) },
		func() bench.System { return NATS(t.Context(), at("always"), true) },
	} {
		s := system()
		t.Run(s.Name, func(t *testing.T) {
			if s.Missing != "" {
				t.Skip(s.Missing)
			}
			if testing.Short() {
				t.Skip("takes seconds")
			}
			for life := range 2 {
				use(t, s, life > 0)
			}
		})
	}
}

func use(t *testing.T, s bench.System, there bool) {
	t.Helper()
	instance, err := s.Start(t.Context())
	if err != nil {
		t.Fatal(err)
	}
	defer func() {
		if err := instance.Stop(); err != nil {
			t.Error(err)
		}
	}()
	if len(instance.PIDs()) != nodes {
		t.Errorf("processes %v", instance.PIDs())
	}
	for i := range nodes {
		c, err := instance.Dial(s.Variants[0], false)(t.Context(), i)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		key := fmt.Appendf(nil, "k%d", i)
		if a, err := c.Get(key); err != nil || a.Found != there {
			t.Errorf("first read over connection %d: %+v, %v", i, a, err)
		}
		if _, err := c.Put(key, []byte("value"), nil); err != nil {
			t.Errorf("write over connection %d: %v", i, err)
		}
	}
}
