package api

import (
	"context"
	"errors"
	"fmt"
	"time"

	"github.com/prometheus/client_golang/prometheus"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/vclock"
)

// KV carries requests out. Their errors are [kv.Error] values, which the client
// is told as they are; any other error is reported as internal and logged.
//
// A context ends when the server is closed; the timeout of the request, or the
// default, is the implementation's to keep. It may go on using what a request
// points to after it has returned.
type KV interface {
	Get(ctx context.Context, g coordinator.Get) (coordinator.Got, error)
	Put(ctx context.Context, p coordinator.Put) (coordinator.PutDone, error)
}

// Options say what a [Server] works with. All fields but Limits and Late are
// needed.
type Options struct {
	KV        KV
	Inspector Inspector
	Repairs   Repairs
	// Keyring returns the keyring of the cluster, or nil while its id is not yet
	// known: requests on keys are then refused as not ready.
	Keyring func() *vclock.Keyring
	// Registry takes the metrics of this package and is what /metrics shows.
	Registry *prometheus.Registry
	Log      *zap.Logger
	Limits   Limits
	// Late, if set, returns how late timers fire at the moment, on average: from
	// one millisecond on, fewer requests are let in at once. It is called often.
	Late func() time.Duration
}

// Limits bound what clients can make a node hold. A zero field takes its
// default.
type Limits struct {
	// ValueBytes is the size of the largest value. Default 4 MiB.
	ValueBytes int
	// Requests is how many requests on keys are under way at once, at most; more
	// are refused with 503. While the machine does not keep up, it is fewer, but
	// 32 are always let in. As many again wait a moment for room. Default 1024.
	Requests int
	// HeldBytes bounds the memory of bodies that are being received or sent, save
	// the first 8 KiB of each, and of heads, save the first 4 KiB: what does not
	// fit is refused with 503. It must hold two of the largest values, and all
	// siblings of a key. Default 48 MiB, or three of the largest values.
	HeldBytes int
	// Connections is how many connections of clients are open at once, over both
	// ports; more are refused with 503. Default 8192.
	Connections int
	// IdleTimeout is how long a connection may stay without a request. Default
	// 2 min.
	IdleTimeout time.Duration
	// HeadTimeout is how long a head may take to come in. Default 10 s.
	HeadTimeout time.Duration
	// Grace is the time that the transfer of a body may take beyond what it
	// takes at MinRate. Default 10 s.
	Grace time.Duration
	// MinRate is the least rate, in bytes a second, at which a client must send
	// and take bodies. Default 64 KiB/s.
	MinRate int
}

func (l Limits) withDefaults() (Limits, error) {
	setDefault(&l.ValueBytes, 4<<20)
	setDefault(&l.Requests, 1024)
	setDefault(&l.HeldBytes, max(48<<20, 3*l.ValueBytes))
	setDefault(&l.Connections, 8<<10)
	setDefault(&l.IdleTimeout, 2*time.Minute)
	setDefault(&l.HeadTimeout, 10*time.Second)
	setDefault(&l.Grace, 10*time.Second)
	setDefault(&l.MinRate, 64<<10)
	if min(l.ValueBytes, l.Requests, l.HeldBytes, l.Connections, l.MinRate) < 0 || min(l.IdleTimeout, l.HeadTimeout, l.Grace) < 0 {
		return l, errors.New("api: a limit is negative: use zero for its default")
	}
	if least := max(2*l.ValueBytes, coordinator.ObjectBytes); l.HeldBytes < least {
		return l, fmt.Errorf("api: HeldBytes is %d, too little to answer every request: set it to %d or more", l.HeldBytes, least)
	}
	return l, nil
}

func setDefault[T int | time.Duration](field *T, value T) {
	if *field == 0 {
		*field = value
	}
}

// transfer is how long n bytes of a body may take on the wire.
func (l Limits) transfer(n int) time.Duration {
	return l.Grace + time.Duration(n)*time.Second/time.Duration(l.MinRate)
}

func (o Options) check() error {
	switch {
	case o.KV == nil:
		return errors.New("api: Options.KV is not set")
	case o.Inspector == nil:
		return errors.New("api: Options.Inspector is not set")
	case o.Repairs == nil:
		return errors.New("api: Options.Repairs is not set")
	case o.Keyring == nil:
		return errors.New("api: Options.Keyring is not set")
	case o.Registry == nil:
		return errors.New("api: Options.Registry is not set")
	case o.Log == nil:
		return errors.New("api: Options.Log is not set")
	}
	return nil
}
