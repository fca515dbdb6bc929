package transport_test

import (
	"context"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/tls"
	"crypto/x509"
	"math/big"
	"net"
	"sync"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
)

var secret = []byte("a secret of the cluster, random elsewhere")

// cluster starts TCP transports on loopback that know each other's addresses.
type cluster struct {
	tb   testing.TB
	opts transport.Options // copied into each node that starts

	mu    sync.Mutex
	addrs map[kv.NodeID]string
	lives map[kv.NodeID]uint64
}

func newCluster(tb testing.TB) *cluster {
	tb.Helper()
	c := &cluster{tb: tb, addrs: make(map[kv.NodeID]string), lives: make(map[kv.NodeID]uint64)}
	c.opts.Secret = secret
	c.opts.Resolve = c.resolve
	c.opts.Rand = func() float64 { return 0.5 }
	return c
}

func (c *cluster) resolve(id kv.NodeID) (string, bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	addr, ok := c.addrs[id]
	return addr, ok
}

func (c *cluster) setAddr(id kv.NodeID, addr string) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.addrs[id] = addr
	c.lives[id]++
}

func (c *cluster) join(id kv.NodeID, h transport.Handler) transport.Transport {
	return c.start(id, h, "127.0.0.1:0", nil)
}

// start starts a node that listens on addr; change may change its options.
func (c *cluster) start(id kv.NodeID, h transport.Handler, addr string, change func(*transport.Options)) *transport.TCP {
	c.tb.Helper()
	listener, err := net.Listen("tcp", addr)
	if err != nil {
		c.tb.Fatal(err)
	}
	c.setAddr(id, listener.Addr().String())
	opts := c.opts
	opts.Listener, opts.Handler = listener, h
	hello := c.hello(id)
	opts.Local = func() transport.Hello { return hello }
	if change != nil {
		change(&opts)
	}
	tr, err := transport.NewTCP(opts)
	if err != nil {
		c.tb.Fatal(err)
	}
	return closing(c.tb, tr)
}

func (c *cluster) hello(id kv.NodeID) transport.Hello {
	c.mu.Lock()
	defer c.mu.Unlock()
	return transport.Hello{Cluster: [16]byte{1, 2, 3}, Node: id, Name: "node-" + id.String(), Incarnation: c.lives[id]}
}

var echoing = transport.HandlerFunc(func(_ context.Context, req *transport.Request) { req.Reply(req.Body) })

// within returns a context for one step of a test.
func within(tb testing.TB, d time.Duration) context.Context {
	tb.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), d)
	tb.Cleanup(cancel)
	return ctx
}

// selfSigned returns configurations for mutual TLS with one certificate.
func selfSigned(t *testing.T) (dial, listen *tls.Config) {
	t.Helper()
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		t.Fatal(err)
	}
	template := &x509.Certificate{
		SerialNumber: big.NewInt(1),
		NotBefore:    time.Now().Add(-time.Hour), NotAfter: time.Now().Add(time.Hour),
		IsCA: true, BasicConstraintsValid: true,
		DNSNames: []string{"starling"},
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, &key.PublicKey, key)
	if err != nil {
		t.Fatal(err)
	}
	pool := x509.NewCertPool()
	parsed, err := x509.ParseCertificate(der)
	if err != nil {
		t.Fatal(err)
	}
	pool.AddCert(parsed)
	certs := []tls.Certificate{{Certificate: [][]byte{der}, PrivateKey: key}}
	return &tls.Config{RootCAs: pool, Certificates: certs, ServerName: "starling"},
		&tls.Config{ClientCAs: pool, Certificates: certs, ClientAuth: tls.RequireAndVerifyClientCert}
}
