package coordinator

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
)

var errBadValue = errors.New("the value does not match its checksum")

// source is a node that may have an external value.
type source struct {
	id      kv.NodeID
	standIn bool
}

// sources are the nodes that answered with v live, this node first, then the
// owners that were not heard.
func (col collection) sources(v kv.Version, self kv.NodeID) []source {
	var list []source
	unheard := slices.DeleteFunc(col.plan.owners(col.plan.n), col.plan.down)
	for _, r := range col.replies {
		if r.err != nil {
			continue
		}
		unheard = slices.DeleteFunc(unheard, func(id kv.NodeID) bool { return id == r.from })
		switch s := (source{r.from, r.from != r.owner}); {
		case !r.Record.Holds(v.Dot):
		case r.from == self:
			list = slices.Insert(list, 0, s)
		default:
			list = append(list, s)
		}
	}
	for _, id := range unheard {
		list = append(list, source{id: id})
	}
	return list
}

// delivery is what one source answered.
type delivery struct {
	from source
	data []byte
	err  error
}

// external fetches the bytes of v. The next source is asked when one fails or
// is late; an older value is never returned in place of v.
func (c *Coordinator) external(ctx context.Context, key kv.Key, col collection, v kv.Version) ([]byte, error) {
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	sources := col.sources(v, c.Self)
	inbox := make(chan delivery, len(sources))
	open := 0
	askNext := func() {
		if len(sources) > 0 {
			c.askValue(ctx, col.plan, key, v, sources[0], inbox)
			sources, open = sources[1:], open+1
		}
	}
	patience := late(ctx)
	timer := c.timer(patience)
	defer c.recycle(timer)
	var failed []kv.Failure
	for askNext(); open > 0; {
		select {
		case d := <-inbox:
			if d.err == nil {
				return d.data, nil
			}
			if stale := col.plan.newer(d.err); stale != nil {
				return nil, stale
			}
			failed = append(failed, kv.Failure{Node: col.plan.name(d.from.id), Reason: brief(d.err)})
			open--
			askNext()
		case <-timer.C:
			if len(inbox) == 0 {
				askNext()
			}
			timer.Reset(patience)
		case <-ctx.Done():
			if len(inbox) == 0 {
				return nil, undelivered(col, v, kv.CodeTimeout, failed)
			}
		}
	}
	return nil, errors.Join(errAgain, undelivered(col, v, unreachedCode(ctx), failed))
}

func (c *Coordinator) askValue(ctx context.Context, p plan, key kv.Key, v kv.Version, from source, inbox chan<- delivery) {
	ok := c.spawn(func() {
		data, err := send(p, func(f Fence) ([]byte, error) {
			return c.Replicas.Value(ctx, from.id, ValueRequest{
				Fence: f, Key: key, StandIn: from.standIn,
				Dot: v.Dot, Length: v.Value.Length, Checksum: v.Value.Checksum,
			})
		})
		if err == nil && (uint64(len(data)) != v.Value.Length || kv.Checksum(data) != v.Value.Checksum) {
			err = errBadValue
		}
		inbox <- delivery{from, data, err}
	})
	if !ok {
		inbox <- delivery{from: from, err: errClosed}
	}
}

func undelivered(col collection, v kv.Version, code kv.Code, failed []kv.Failure) error {
	return &kv.Error{
		Code: code, N: col.plan.n, R: col.tally.need, Failed: failed, RetryAfter: time.Second,
		Message: fmt.Sprintf("no owner could deliver the value of %d bytes: %s", v.Value.Length, names(failed)),
	}
}
