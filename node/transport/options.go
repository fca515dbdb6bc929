package transport

import (
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"net"
	"time"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// DefaultMaxBody is the default of [Options.MaxBody].
const DefaultMaxBody = 32 << 20

// minSecret is the least length of a cluster secret, in bytes: whoever records
// a handshake can try secrets at leisure.
const minSecret = 16

// Options say how a [TCP] transport talks. All fields without a stated default
// must be set.
type Options struct {
	// Listener accepts the other nodes' connections. The transport closes it.
	Listener net.Listener
	Handler  Handler
	// Secret is shared by the nodes of a cluster: 16 bytes or more, random.
	Secret []byte
	// Local returns what this node says of itself, anew for each handshake: the
	// cluster is joined, and the view learnt, while the node runs.
	Local func() Hello
	// Resolve returns the address at which a node listens, and false if none is
	// known.
	Resolve func(kv.NodeID) (addr string, ok bool)
	// Admit refuses a node by an error, which that node is shown. It sees only
	// nodes that have proven the secret, on either end of a connection, and must
	// not block. Default: everyone who knows the secret.
	Admit func(Hello) error
	// Rand returns uniform numbers in [0, 1), for the jitter of redials. It is
	// called by one goroutine at a time.
	Rand func() float64

	// DialTLS and ListenTLS wrap connections in TLS, if set. Set both, on all
	// nodes.
	DialTLS, ListenTLS *tls.Config
	// Dial makes a connection. Default: net.Dialer.
	Dial func(ctx context.Context, network, addr string) (net.Conn, error)
	// Log default: none.
	Log *zap.Logger

	// MaxBody bounds the body of a call or a reply, in bytes. Default 32 MiB.
	MaxBody int
	// MaxCalls bounds the calls in flight to one node. Default 8192.
	MaxCalls int
	// MaxServing bounds the requests of one connection that are being served;
	// those beyond are refused as busy. Default 8192.
	MaxServing int
	// MaxQueued bounds the bytes of one connection that wait to be written, and
	// likewise those of the requests being served. Default 64 MiB, or room for
	// one frame of MaxBody if that is more.
	MaxQueued int

	// PingEvery is the time without a frame after which a ping is sent, 1 s by
	// default, and DeadAfter the time without a byte after which a connection is
	// given up, 5 s by default. A connection that takes no byte is given up as
	// late.
	PingEvery, DeadAfter time.Duration
	// DialTimeout bounds a connection attempt, HandshakeTimeout the handshake
	// after it. Default 2 s each.
	DialTimeout, HandshakeTimeout time.Duration
	// RedialMin and RedialMax bound the time between two attempts to reach a node,
	// which doubles from one to the other, jittered. Default 50 ms and 2 s. While
	// a node answers attempts, if only to refuse them, it is not more than 500 ms.
	RedialMin, RedialMax time.Duration
}

// complete sets the defaults, or says what is missing.
func (o *Options) complete() error {
	switch {
	case o.Listener == nil, o.Handler == nil, o.Local == nil, o.Resolve == nil, o.Rand == nil:
		return errors.New("transport options: Listener, Handler, Local, Resolve and Rand must be set")
	case len(o.Secret) < minSecret:
		return fmt.Errorf("transport options: secret of %d bytes: give it %d or more, random", len(o.Secret), minSecret)
	case (o.DialTLS == nil) != (o.ListenTLS == nil):
		return errors.New("transport options: set both DialTLS and ListenTLS, or neither")
	case len(o.Local().Name) > maxName:
		return fmt.Errorf("transport options: node name of %d bytes: at most %d", len(o.Local().Name), maxName)
	}
	if o.Log == nil {
		o.Log = zap.NewNop()
	}
	if o.Dial == nil {
		o.Dial = new(net.Dialer).DialContext
	}
	preset(&o.MaxBody, DefaultMaxBody)
	preset(&o.MaxCalls, 8192)
	preset(&o.MaxServing, 8192)
	preset(&o.MaxQueued, 64<<20)
	o.MaxQueued = max(o.MaxQueued, o.MaxBody+frameExtra)
	preset(&o.PingEvery, time.Second)
	preset(&o.DeadAfter, 5*time.Second)
	preset(&o.DialTimeout, 2*time.Second)
	preset(&o.HandshakeTimeout, 2*time.Second)
	preset(&o.RedialMin, 50*time.Millisecond)
	preset(&o.RedialMax, 2*time.Second)
	return nil
}

func preset[T int | time.Duration](field *T, value T) {
	if *field <= 0 {
		*field = value
	}
}

// silentTicks returns DeadAfter in ping intervals, rounded up.
func (o *Options) silentTicks() int {
	return int((o.DeadAfter + o.PingEvery - 1) / o.PingEvery)
}
