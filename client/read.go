package client

import (
	"context"
	"net/http"

	"github.com/starling-kv/starling/kv"
)

// Get returns the value of key, or all its siblings. A key without a value is
// an error for which [IsNotFound] holds.
func (c *Client) Get(ctx context.Context, key kv.Key, o Options) (Object, error) {
	ans, err := c.do(ctx, read("get", http.MethodGet, key, o))
	if err != nil {
		return Object{}, err
	}
	return ans.object()
}

// Head returns what is known of key without its value. A key without a value is
// an error for which [IsNotFound] holds.
func (c *Client) Head(ctx context.Context, key kv.Key, o Options) (Summary, error) {
	ans, err := c.do(ctx, read("head", http.MethodHead, key, o))
	if err != nil {
		return Summary{}, err
	}
	return ans.summary(), nil
}

func read(op, method string, key kv.Key, o Options) request {
	header := http.Header{}
	header.Set("Accept", typeJSON) // of a list of siblings; a single value comes as it is
	return request{op: op, method: method, key: key, query: o.readQuery(), header: header, deadline: o.deadline()}
}
