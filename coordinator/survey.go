package coordinator

import (
	"cmp"
	"context"
	"slices"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/readrepair"
)

// Survey asks the first n owners of a key in every active layout what they hold,
// for who repairs what differs. Owners that do not answer in good time are left
// out. ctx must carry a deadline.
func (c *Coordinator) Survey(ctx context.Context, key kv.Key, n int) (replies []readrepair.Reply, err error) {
	err = c.restarting(ctx, key, n, func(p plan) error {
		col, err := c.askWidely(ctx, p, query{key: key})
		replies = replies[:0]
		for _, r := range col.replies {
			if r.err == nil {
				replies = append(replies, readrepair.Reply{From: r.from, Record: r.Record, Standing: r.Standing, Reap: r.Reap})
			}
		}
		slices.SortFunc(replies, func(a, b readrepair.Reply) int { return cmp.Compare(a.From, b.From) })
		return err
	})
	return replies, err
}
