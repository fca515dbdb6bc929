package client

import (
	"context"
	"net/http"

	"github.com/starling-kv/starling/kv"
)

// Get returns the value of key, or all its siblings. A key without a value is
// an error for which [IsNotFound] holds.
func (c *Client) Get(ctx context.Context, key kv.Key, r Read) (Object, error) {
	ans, err := c.do(ctx, read("get", http.MethodGet, key, r))
	if err != nil {
		return Object{}, err
	}
	return ans.object()
}

// Head returns what is known of key without its value. A key without a value is
// an error for which [IsNotFound] holds.
func (c *Client) Head(ctx context.Context, key kv.Key, r Read) (Summary, error) {
	ans, err := c.do(ctx, read("head", http.MethodHead, key, r))
	if err != nil {
		return Summary{}, err
	}
	return ans.summary(), nil
}

func read(op, method string, key kv.Key, r Read) request {
	header := http.Header{}
	setHeader(header, "Accept", typeJSON) // of a list of siblings; a single value comes as it is
	setHeader(header, headerContext, r.Context)
	return request{op: op, method: method, key: key, query: r.query(), header: header, deadline: deadline(r.Timeout)}
}
