package coordinator

import (
	"context"
	"sync/atomic"
	"time"

	"github.com/starling-kv/starling/internal/deadline"
)

// lifetime is the context of all calls of a write. It may outlive the request,
// to which it owes its deadline, and ends with the last of its users.
type lifetime struct {
	ctx   context.Context // own
	own   deadline.Context
	users atomic.Int32
}

// begin begins it with one user.
func (l *lifetime) begin(parent context.Context, at time.Time) {
	l.own = deadline.Context{Parent: parent, At: at}
	l.ctx = &l.own
	l.users.Store(1)
}

func (l *lifetime) enter() { l.users.Add(1) }

func (l *lifetime) leave() {
	if l.users.Add(-1) == 0 {
		l.own.End()
	}
}
