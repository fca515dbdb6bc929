package bench

import (
	"context"
	"errors"
	"fmt"
	"sync/atomic"
	"time"

	"golang.org/x/sync/errgroup"
)

// Preload fills a store before it is measured.
type Preload struct {
	Keys        int64
	Set         byte // of the keys' names: DefaultSet
	KeySize     int  // bytes
	ValueSize   int  // bytes
	Overwrites  int  // how often each key is written once more, with the token of its last write
	Connections int
	Seed        uint64
	Tokens      *Tokens // takes the token of each key's last write; may be nil
	// Dial opens connections whose writes without a token replace whatever is
	// there.
	Dial Dial
	// Report, if set, is told how many writes are done, now and then; it is called
	// by many goroutines at once.
	Report func(done int64)
}

// reportEvery is the number of writes of one connection between two reports.
const reportEvery = 256

// Total is the number of writes.
func (p *Preload) Total() int64 { return p.Keys * int64(p.Overwrites+1) }

// Run writes all keys, in an order without pattern, as often as asked. It ends
// with the first error.
func (p *Preload) Run(ctx context.Context) error {
	stride := coprime(p.Keys)
	values := randomBytes(p.Seed)
	var done atomic.Int64
	for range p.Overwrites + 1 {
		workers, ctx := errgroup.WithContext(ctx)
		for i := range p.Connections {
			workers.Go(func() error { return p.share(ctx, i, stride, values, &done) })
		}
		if err := workers.Wait(); err != nil {
			return fmt.Errorf("preload: %w", err)
		}
	}
	return nil
}

// share writes every so many keys, those of connection i.
func (p *Preload) share(ctx context.Context, i int, stride int64, values []byte, done *atomic.Int64) error {
	conn, err := p.Dial(ctx, i)
	if err != nil {
		return err
	}
	defer func() { _ = conn.Close() }()
	var key, token []byte
	var unreported int64
	for nth := int64(i); nth < p.Keys; nth += int64(p.Connections) {
		if ctx.Err() != nil {
			return ctx.Err()
		}
		index := nth * stride % p.Keys
		key = appendKey(key[:0], p.Set, index, p.KeySize)
		at := int(mix(uint64(index)) % uint64(len(values)-p.ValueSize))
		if p.Tokens != nil {
			token, _ = p.Tokens.get(token[:0], index)
		}
		a, err := persist(ctx, func() (Answer, error) { return conn.Put(key, values[at:at+p.ValueSize], token) })
		if err != nil {
			return fmt.Errorf("write %s: %w", key, err)
		}
		if p.Tokens != nil {
			p.Tokens.put(index, a.Token, a.Siblings <= 1)
		}
		if unreported++; unreported == reportEvery && p.Report != nil {
			p.Report(done.Add(unreported))
			unreported = 0
		}
	}
	if done := done.Add(unreported); p.Report != nil {
		p.Report(done)
	}
	return nil
}

// refusals is how often in a row a write of a preload may be refused, and
// afterRefusal how long it waits then: a store may be busy with what came before.
const (
	refusals     = 50
	afterRefusal = 100 * time.Millisecond
)

// persist repeats a write that was refused.
func persist(ctx context.Context, put func() (Answer, error)) (Answer, error) {
	for tries := 1; ; tries++ {
		a, err := put()
		if _, refused := errors.AsType[*StatusError](err); !refused || tries == refusals {
			return a, err
		}
		select {
		case <-time.After(afterRefusal):
		case <-ctx.Done():
			return a, ctx.Err()
		}
	}
}

// coprime returns a stride that visits each of n places once before it returns
// to the first, far from one to the next.
func coprime(n int64) int64 {
	stride := max(1, n*6180/10000) // the golden ratio spreads evenly
	for gcd(stride, n) != 1 {
		stride++
	}
	return stride
}

func gcd(a, b int64) int64 {
	for b != 0 {
		a, b = b, a%b
	}
	return a
}
