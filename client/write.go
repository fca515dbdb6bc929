package client

import (
	"context"
	"fmt"
	"net/http"

	"github.com/starling-kv/starling/kv"
)

// maxRounds bounds how often [Client.Update] reads again.
const maxRounds = 16

// Put stores v under key. It replaces what w.Context has seen, or, without one,
// what a read of the key sees just before.
func (c *Client) Put(ctx context.Context, key kv.Key, v Value, w Write) (Written, error) {
	w, err := c.withContext(ctx, key, w)
	if err != nil && !IsNotFound(err) {
		return Written{}, err
	}
	return c.put(ctx, key, v, w)
}

func (c *Client) put(ctx context.Context, key kv.Key, v Value, w Write) (Written, error) {
	req := c.write("put", http.MethodPut, key, w)
	req.body = v.Data
	setHeader(req.header, "Content-Type", v.ContentType)
	for name, value := range v.Meta {
		req.header.Set(headerMeta+name, value)
	}
	return c.send(ctx, req)
}

// Delete removes what w.Context has seen of key, or, without one, what a read of
// the key sees just before. If that read finds no value, it returns an error for
// which [IsNotFound] holds.
func (c *Client) Delete(ctx context.Context, key kv.Key, w Write) (Written, error) {
	w, err := c.withContext(ctx, key, w)
	if err != nil {
		return Written{}, err
	}
	return c.send(ctx, c.write("delete", http.MethodDelete, key, w))
}

// Update reads key, calls change with what it holds and stores what that
// returns in its place. If somebody else wrote in between, change is called
// again with what is there then, so that of its results only the last is stored,
// and once. The condition behind this narrows races, it does not lock: two
// updates may still leave siblings, which the next call of change gets to merge.
//
// An error of change ends the update and is returned as it is.
func (c *Client) Update(ctx context.Context, key kv.Key, change func(Object) (Value, error), w Write) (Written, error) {
	w.Blind, w.Overwrite = false, false
	for round := 1; ; round++ {
		o, err := c.Get(ctx, key, w.reading())
		if err != nil && !IsNotFound(err) {
			return Written{}, err
		}
		w.Context, w.IfMatch, w.IfNoneMatch = o.Context, o.ETag, ""
		if err != nil {
			w.Context, w.IfMatch, w.IfNoneMatch = ContextOf(err), "", "*"
		}
		v, err := change(o)
		if err != nil {
			return Written{}, err
		}
		done, err := c.put(ctx, key, v, w)
		if CodeOf(err) != kv.CodePrecondition || OutcomeOf(err) != kv.NotApplied || round == maxRounds {
			return done, err
		}
		if err := c.sleep(ctx, c.backoff(course{attempts: round})); err != nil {
			return Written{}, fmt.Errorf("update %s: %w", key, err)
		}
	}
}

// withContext returns w with the context that it lacks. The error of a key that
// has no value comes with the context of its absence.
func (c *Client) withContext(ctx context.Context, key kv.Key, w Write) (Write, error) {
	if w.Context != "" || w.Blind || w.Overwrite {
		return w, nil
	}
	s, err := c.Head(ctx, key, w.reading())
	w.Context = s.Context
	if err != nil {
		w.Context = ContextOf(err)
		err = fmt.Errorf("read the context first: %w", err)
	}
	return w, err
}

// write makes a request of w, under the write id that stays with its attempts.
func (c *Client) write(op, method string, key kv.Key, w Write) request {
	if w.WriteID.IsZero() {
		w.WriteID = kv.NewWriteID(c.cfg.Now(), c.cfg.Random)
	}
	header := http.Header{}
	setHeader(header, headerContext, w.Context)
	setHeader(header, headerWriteID, w.WriteID.String())
	setHeader(header, "If-Match", w.IfMatch)
	setHeader(header, "If-None-Match", w.IfNoneMatch)
	return request{
		op: op, method: method, key: key, query: w.query(), header: header,
		deadline: deadline(w.Timeout), write: w.WriteID,
	}
}

func (c *Client) send(ctx context.Context, req request) (Written, error) {
	ans, err := c.do(ctx, req)
	if err != nil {
		return Written{}, err
	}
	return ans.written(req.write), nil
}

func setHeader(h http.Header, name, value string) {
	if value != "" {
		h.Set(name, value)
	}
}
