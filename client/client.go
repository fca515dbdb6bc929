package client

import (
	"errors"
	"math/rand/v2"
	"net"
	"net/http"
	"time"
)

// Config are the choices of a [Client]. What is zero has a default.
type Config struct {
	// Attempts bounds how often one request is tried, over all endpoints; 8 if 0.
	Attempts int
	// OnRetry is told of every failed attempt that another one follows. It may
	// be called by several goroutines at once.
	OnRetry func(err error)
	// Transport carries the requests; if nil, one of the client's own.
	Transport http.RoundTripper
	// Now is the clock, and Random 64 random bits, for write ids and jitter.
	Now    func() time.Time
	Random func() uint64
}

const (
	defaultAttempts = 8
	dialTimeout     = 3 * time.Second
	idleTimeout     = 90 * time.Second
	idlePerHost     = 64
)

// Client speaks to a cluster. It is safe for concurrent use.
type Client struct {
	cfg  Config
	pool *pool
	http *http.Client
}

// New returns a client of the nodes at endpoints, each as http://host:port.
// Close it to free its connections.
func New(endpoints []string, c Config) (*Client, error) {
	if len(endpoints) == 0 {
		return nil, errors.New("no endpoint is given: name at least one node, as http://host:port")
	}
	p := &pool{}
	for _, s := range endpoints {
		base, err := parseEndpoint(s)
		if err != nil {
			return nil, err
		}
		p.endpoints = append(p.endpoints, &endpoint{base: base})
	}
	c = c.withDefaults()
	stay := func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }
	return &Client{cfg: c, pool: p, http: &http.Client{Transport: c.Transport, CheckRedirect: stay}}, nil
}

// Close frees idle connections. Requests under way end by their own deadlines.
func (c *Client) Close() { c.http.CloseIdleConnections() }

func (c Config) withDefaults() Config {
	if c.Attempts == 0 {
		c.Attempts = defaultAttempts
	}
	if c.OnRetry == nil {
		c.OnRetry = func(error) {}
	}
	if c.Transport == nil {
		c.Transport = newTransport()
	}
	if c.Now == nil {
		c.Now = time.Now
	}
	if c.Random == nil {
		c.Random = rand.Uint64
	}
	return c
}

func newTransport() *http.Transport {
	return &http.Transport{
		Proxy:               http.ProxyFromEnvironment,
		DialContext:         (&net.Dialer{Timeout: dialTimeout}).DialContext,
		TLSHandshakeTimeout: dialTimeout,
		IdleConnTimeout:     idleTimeout,
		MaxIdleConnsPerHost: idlePerHost,
		DisableCompression:  true, // values are handed out as they are stored
	}
}
