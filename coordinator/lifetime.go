package coordinator

import (
	"context"
	"sync/atomic"
	"time"
)

// lifetime is the context of all calls of a write. It may outlive the request,
// to which it owes its deadline, and ends with the last of its users.
type lifetime struct {
	ctx    context.Context //nolint:containedctx // of several calls, not of one
	cancel context.CancelFunc
	users  atomic.Int32
}

// begin begins it with one user.
func (l *lifetime) begin(parent context.Context, deadline time.Time) {
	l.ctx, l.cancel = context.WithDeadline(parent, deadline)
	l.users.Store(1)
}

func (l *lifetime) enter() { l.users.Add(1) }

func (l *lifetime) leave() {
	if l.users.Add(-1) == 0 {
		l.cancel()
	}
}
