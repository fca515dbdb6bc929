package skeleton

import (
	"bytes"
	"fmt"
	"io"
	"net"
	"net/http"
	"strings"
	"sync"
	"testing"
	"time"

	"go.uber.org/goleak"

	"github.com/starling-kv/starling/node/storage"
	"github.com/starling-kv/starling/node/storage/memory"
)

// fasthttp's pool of workers looks whether it was stopped every ten seconds.
func TestMain(m *testing.M) {
	goleak.VerifyTestMain(m, goleak.IgnoreAnyFunction("github.com/valyala/fasthttp.(*workerPool).Start.func2"))
}

func listen(t *testing.T) net.Listener {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	return l
}

type trio struct {
	nodes   []*Node
	engines []storage.Engine
	clients []string
}

func startTrio(t *testing.T) *trio {
	t.Helper()
	c := &trio{}
	peers := make([]net.Listener, 0, replicas)
	for range replicas {
		peers = append(peers, listen(t))
	}
	for i, peer := range peers {
		var others []string
		for j, other := range peers {
			if j != i {
				others = append(others, other.Addr().String())
			}
		}
		client, engine := listen(t), memory.New().Open()
		n, err := Start(Config{Client: client, Peer: peer, Others: others, Engine: engine})
		if err != nil {
			t.Fatal(err)
		}
		c.nodes, c.engines = append(c.nodes, n), append(c.engines, engine)
		c.clients = append(c.clients, "http://"+client.Addr().String())
	}
	for _, n := range c.nodes {
		select {
		case <-n.ready:
		case <-time.After(10 * time.Second):
			t.Fatal("not ready")
		}
	}
	return c
}

func (c *trio) close(t *testing.T) {
	t.Helper()
	for _, n := range c.nodes {
		if err := n.Close(); err != nil {
			t.Error(err)
		}
		if err := n.Wait(); err != nil && !strings.Contains(err.Error(), "EOF") && !strings.Contains(err.Error(), "reset") {
			t.Error(err) // the others' links end as this node closes
		}
	}
}

func ask(t *testing.T, method, url, body string) (int, string) {
	t.Helper()
	req, err := http.NewRequest(method, url, strings.NewReader(body))
	if err != nil {
		t.Fatal(err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	defer resp.Body.Close()
	b, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatal(err)
	}
	return resp.StatusCode, string(b)
}

// Every write reaches all replicas, and every node answers with some of them.
func TestThreeNodes(t *testing.T) {
	c := startTrio(t)
	defer http.DefaultClient.CloseIdleConnections()
	var writers sync.WaitGroup
	const each = 50
	for w := range 6 {
		writers.Go(func() {
			for i := range each {
				url := fmt.Sprintf("%s%s%d-%d?sync=%v", c.clients[w%3], prefix, w, i, i%2 == 0)
				if status, _ := ask(t, http.MethodPut, url, strings.Repeat("v", i)); status != http.StatusNoContent {
					t.Errorf("PUT: %d", status)
				}
			}
		})
	}
	writers.Wait()
	// Not all three may have it yet, but two do, and two are asked.
	for _, client := range c.clients {
		if status, body := ask(t, http.MethodGet, client+prefix+"1-7", ""); status != http.StatusOK || body != "vvvvvvv" {
			t.Errorf("GET: %d %q", status, body)
		}
	}
	if status, _ := ask(t, http.MethodGet, c.clients[1]+prefix+"nobody", ""); status != http.StatusNotFound {
		t.Errorf("GET of nothing: %d", status)
	}
	if status, _ := ask(t, http.MethodGet, c.clients[1]+"/elsewhere", ""); status != http.StatusNotFound {
		t.Errorf("GET of another path: %d", status)
	}
	http.DefaultClient.CloseIdleConnections()
	// The third replica of a write may still be at it.
	deadline := time.Now().Add(10 * time.Second)
	for _, e := range c.engines {
		for w := range 6 {
			for i := range each {
				key := fmt.Appendf(nil, "%d-%d", w, i)
				for {
					value, err := e.Get(key)
					if err == nil && bytes.Equal(value, bytes.Repeat([]byte("v"), i)) {
						break
					}
					if time.Now().After(deadline) {
						t.Fatalf("%s is not on all replicas: %q, %v", key, value, err)
					}
					<-time.After(time.Millisecond)
				}
			}
		}
	}
	c.close(t)
}

func TestBadConfig(t *testing.T) {
	if _, err := Start(Config{Others: []string{"one"}}); err == nil {
		t.Error("a node with one other was started")
	}
}

func TestEcho(t *testing.T) {
	l, server := listen(t), NewEcho()
	ended := make(chan error, 1)
	go func() { ended <- server.Serve(l) }()
	url := "http://" + l.Addr().String() + prefix
	if status, _ := ask(t, http.MethodPut, url+"k1", "value"); status != http.StatusNoContent {
		t.Errorf("PUT: %d", status)
	}
	if status, body := ask(t, http.MethodGet, url+"k1", ""); status != http.StatusOK || len(body) != echoSmall {
		t.Errorf("GET: %d, %d bytes", status, len(body))
	}
	if status, body := ask(t, http.MethodGet, url+"l1", ""); status != http.StatusOK || len(body) != echoLarge {
		t.Errorf("GET of a large value: %d, %d bytes", status, len(body))
	}
	http.DefaultClient.CloseIdleConnections()
	if err := server.Shutdown(); err != nil {
		t.Error(err)
	}
	if err := <-ended; err != nil {
		t.Error(err)
	}
}
