package api

import (
	"errors"
	"fmt"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// A call is a request on a key, understood.
type call struct {
	fields

	key     kv.Key
	params  keyParams
	keyring *vclock.Keyring
	token   vclock.Token
}

// newCall reads all of a request on a key but its body.
func (s *Server) newCall(x *exchange, known []param[keyParams]) (c call, err error) {
	if c.key, err = parseKey(x.path); err != nil {
		return c, err
	}
	if c.params, err = parseKeyParams(x.query, known); err != nil {
		return c, err
	}
	if c.fields, err = readFields(&x.http.Request.Header, x.isWrite()); err != nil {
		return c, err
	}
	x.writeID = c.writeID
	if c.keyring = s.keyring(); c.keyring == nil {
		return c, notReady("this node does not belong to a cluster yet: ask another, or see /readyz?verbose")
	}
	if c.hasContext {
		c.token, err = c.keyring.Open(c.context, c.key.Bucket, c.key.Name)
	}
	return c, contextError(err)
}

// contextError puts what is wrong with a token into words for the client.
func contextError(err error) error {
	switch {
	case err == nil:
		return nil
	case errors.Is(err, vclock.ErrTokenExpired):
		return &kv.Error{
			Code:    kv.CodeContextExpired,
			Message: "the context is too old to be verified: read the key again and use the context of that answer",
		}
	}
	return &kv.Error{
		Code:    kv.CodeBadContext,
		Message: fmt.Sprintf("%v: read the key again and use the context of that answer, for that key alone", err),
	}
}

// seal returns the text of a token for the key of the call, or "" for a token
// that says nothing.
func (c *call) seal(t vclock.Token) string {
	if len(t.Seen) == 0 && len(t.Floor) == 0 {
		return ""
	}
	return c.keyring.Seal(t, c.key.Bucket, c.key.Name)
}

func (c *call) setContext(x *exchange, t vclock.Token) {
	if text := c.seal(t); text != "" {
		x.setHeader(headerContext, text)
	}
}

// enter counts a request in that goes to the coordinator; leave counts it out.
func (s *Server) enter(x *exchange) error {
	if !s.requests.take(x.began) {
		return s.tooMany()
	}
	return nil
}

func (s *Server) leave() { s.requests.give() }

// room refuses a request on a key before anything else is done about it, if it
// would be refused anyway.
func (s *Server) room(x *exchange) error {
	if s.requests.full(x.began) {
		return s.tooMany()
	}
	return nil
}

// tooMany refuses a request because of the others. If many are refused, it takes
// its time.
func (s *Server) tooMany() error {
	s.metrics.shed("requests")
	if wait := s.refusals.wait(time.Now()); wait > 0 {
		timer := time.NewTimer(wait)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-s.base.Done():
		}
	}
	return errTooMany
}

var errTooMany = overloaded("as many requests are under way as this node keeps up with")

// read asks the coordinator for the key of the call.
func (s *Server) read(x *exchange, c *call) (coordinator.Got, error) {
	if err := s.enter(x); err != nil {
		return coordinator.Got{}, err
	}
	defer s.leave()
	return s.kv.Get(s.base, coordinator.Get{
		Key: c.key, Options: c.params.Options, Floor: c.token.Floor, FloorReap: c.token.Reap, Monotonic: c.params.monotonic, NoValues: x.isHead(),
	})
}

// write hands a write to the coordinator.
func (s *Server) write(x *exchange, c *call, p coordinator.Put) (coordinator.PutDone, error) {
	if err := s.enter(x); err != nil {
		return coordinator.PutDone{}, err
	}
	defer s.leave()
	p.Key, p.Options, p.Token, p.Overwrite = c.key, c.params.Options, c.token, c.params.overwrite
	p.WriteID, p.Condition = c.writeID, c.condition()
	x.attempted = true
	return s.kv.Put(s.base, p)
}
