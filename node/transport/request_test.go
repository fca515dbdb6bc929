package transport

import (
	"context"
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

// Whatever handles a request learns from its context that it is over.
func TestRequestContextEnds(t *testing.T) {
	for name, end := range map[string]func(req *Request, lose context.CancelFunc){
		"reply":      func(req *Request, _ context.CancelFunc) { req.Reply(nil) },
		"refusal":    func(req *Request, _ context.CancelFunc) { req.Refuse("") },
		"connection": func(_ *Request, lose context.CancelFunc) { lose() },
		"budget":     func(*Request, context.CancelFunc) { time.Sleep(time.Minute) },
	} {
		synctest.Test(t, func(t *testing.T) {
			parent, lose := context.WithCancel(t.Context())
			defer lose()
			req, _ := aRequest(parent, time.Minute)
			if err := req.ctx.Err(); err != nil {
				t.Errorf("%s: over before its end: %v", name, err)
			}
			end(req, lose)
			if err := req.ctx.Err(); err == nil {
				t.Errorf("%s: not over", name)
			}
			<-req.ctx.Done()
		})
	}
}
