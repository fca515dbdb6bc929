package transport

import (
	"context"
	"errors"
	"testing"
	"testing/synctest"
	"time"
)

// noting counts the answers that a request gives.
type noting struct{ replies, refusals int }

func (n *noting) reply(*Request, []byte)           { n.replies++ }
func (n *noting) refuse(*Request, refusal, string) { n.refusals++ }

func aRequest(parent context.Context, budget time.Duration) (*Request, *noting) {
	via := new(noting)
	req := newRequest(parent, time.Now().Add(budget), Peer{}, 1, nil)
	req.via = via
	return req, via
}

func TestOnlyTheFirstAnswerCounts(t *testing.T) {
	req, via := aRequest(t.Context(), time.Hour)
	req.Refuse("no")
	req.Reply(nil)
	req.Refuse("no")
	if via.replies != 0 || via.refusals != 1 {
		t.Errorf("answers: %+v", *via)
	}
}

// What ends a request's context must show however late, or never, the real
// context is made.
func TestRequestContextEnds(t *testing.T) {
	for _, test := range []struct {
		name string
		end  func(req *Request, lose context.CancelFunc)
		want error
	}{
		{"never", func(*Request, context.CancelFunc) {}, nil},
		{"reply", func(req *Request, _ context.CancelFunc) { req.Reply(nil) }, context.Canceled},
		{"refusal", func(req *Request, _ context.CancelFunc) { req.Refuse("") }, context.Canceled},
		{"cancel frame", func(req *Request, _ context.CancelFunc) { req.ctx.end() }, context.Canceled},
		{"connection", func(_ *Request, lose context.CancelFunc) { lose() }, context.Canceled},
		{"deadline", func(*Request, context.CancelFunc) { time.Sleep(time.Minute) }, context.DeadlineExceeded},
	} {
		for _, made := range []string{"early", "late", "only asked"} {
			synctest.Test(t, func(t *testing.T) {
				parent, lose := context.WithCancel(t.Context())
				defer lose()
				req, _ := aRequest(parent, time.Minute)
				if made == "early" {
					<-closedUnless(req.ctx.Done())
				}
				test.end(req, lose)
				synctest.Wait()
				if made == "late" {
					<-closedUnless(req.ctx.Done())
				}
				if err := req.ctx.Err(); !errors.Is(err, test.want) {
					t.Errorf("%s, context made %s: %v, want %v", test.name, made, err, test.want)
				}
				if test.want != nil {
					<-req.ctx.Done()
				}
				req.ctx.end()
			})
		}
	}
}

// closedUnless returns a closed channel; asking for c was the point.
func closedUnless(<-chan struct{}) <-chan struct{} {
	closed := make(chan struct{})
	close(closed)
	return closed
}

func TestRequestContextChildrenEndWithIt(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		req, _ := aRequest(t.Context(), time.Minute)
		child, cancel := context.WithTimeout(&req.ctx, time.Hour)
		defer cancel()
		if deadline, _ := child.Deadline(); !deadline.Equal(req.ctx.deadline) {
			t.Errorf("the child's deadline is %v", deadline)
		}
		req.Reply(nil)
		<-child.Done()
	})
}

func TestAPlainRequestMakesNoTimer(t *testing.T) {
	req, _ := aRequest(t.Context(), time.Hour)
	if err := req.ctx.Err(); err != nil || req.ctx.real != nil {
		t.Errorf("error %v, real context %v", err, req.ctx.real)
	}
	req.Reply(nil)
}
