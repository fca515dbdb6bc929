package transport

import (
	"errors"
	"fmt"
	"sync"
)

// serving are the requests of one connection that have no answer yet.
type serving struct {
	mu    sync.Mutex
	open  map[uint64]*Request
	bytes int // of their bodies
}

// add registers a request, unless the bounds are reached. An id that is being
// served already makes no sense.
func (s *serving) add(req *Request, maxOpen, maxBytes int) (full bool, err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	switch {
	case s.open[req.id] != nil:
		return false, fmt.Errorf("%w: request %d twice", errFrameKind, req.id)
	case len(s.open) >= maxOpen || s.bytes+req.size > maxBytes:
		return true, nil
	}
	s.open[req.id] = req
	s.bytes += req.size
	return false, nil
}

func (s *serving) get(id uint64) *Request {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.open[id]
}

func (s *serving) remove(req *Request) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.open, req.id)
	s.bytes -= req.size
}

// onRequest takes the frames that a dialler sends.
func (t *TCP) onRequest(l *lane, f frame) error {
	switch f.kind {
	case kindPing:
		return nil
	case kindRequest:
		return t.serve(l, f)
	case kindCancel:
		if req := l.serving.get(f.id); req != nil {
			req.ctx.End()
		}
		return nil
	default:
		return fmt.Errorf("%w: kind %d from a dialler", errFrameKind, f.kind)
	}
}

// serve hands a request to the handler. Over the bounds, and while the link or
// the transport ends, it is declined unseen.
func (t *TCP) serve(l *lane, f frame) error {
	req := newRequest(l.link.ctx, l.frames.arrived.Add(f.left()), l.link.remote, f.method, f.take())
	req.id, req.via = f.id, l
	full, err := l.serving.add(req, t.opts.MaxServing, t.opts.MaxQueued)
	switch {
	case err != nil:
		return err
	case full:
		t.count.busy.Add(1)
		l.decline(f.id, refusedBusy, "too many requests are being served")
		return nil
	case t.ending(l.link):
		req.Refuse(ErrClosed.Error())
		return nil
	}
	t.opts.Handler.Handle(&req.ctx, req)
	return nil
}

func (t *TCP) ending(k *link) bool { return t.ctx.Err() != nil || k.ctx.Err() != nil }

// reply answers a request of this lane; a large reply takes the bulk lane.
func (l *lane) reply(req *Request, body []byte) {
	l.serving.remove(req)
	if len(body) > l.link.limits.MaxBody {
		l.decline(req.id, refusedTooBig, "")
		return
	}
	_, err := l.link.laneFor(len(body), l).out.add(header{kind: kindReply, id: req.id}, body)
	if errors.Is(err, ErrQueueFull) {
		l.link.count.refused.Add(1)
		l.decline(req.id, refusedDropped, "")
	}
}

// refuse answers a request of this lane without a reply.
func (l *lane) refuse(req *Request, r refusal, text string) {
	l.serving.remove(req)
	l.link.count.busy.Add(1)
	l.decline(req.id, r, text)
}

func (l *lane) decline(id uint64, r refusal, text string) {
	_ = l.out.addShort(header{kind: kindRefuse, id: id}, appendRefusal(nil, r, text)) // a caller that is gone needs none
}
