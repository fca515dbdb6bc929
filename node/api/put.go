package api

import (
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// put answers PUT of a key.
func (s *Server) put(x *exchange) error {
	if err := s.room(x); err != nil {
		return err
	}
	c, err := s.newCall(x, writeParams)
	if err != nil {
		return err
	}
	// A body that has not come yet is not taken in while there is no room.
	if !x.bodyIsHere() && s.requests.tight(x.began) {
		return s.tooMany()
	}
	value, err := x.readBody(s.limits.ValueBytes)
	if err != nil {
		return err
	}
	x.received = len(value)
	done, err := s.write(x, &c, coordinator.Put{Value: value, ContentType: c.contentType, Meta: c.meta, TTL: c.params.ttl})
	if err != nil {
		return err
	}
	c.answerWrite(x, done)
	return nil
}

// remove answers DELETE of a key. To delete what one has not seen takes the
// word overwrite: a delete without a context would silently leave siblings.
func (s *Server) remove(x *exchange) error {
	if err := s.room(x); err != nil {
		return err
	}
	c, err := s.newCall(x, writeParams)
	if err != nil {
		return err
	}
	if c.params.ttl != 0 {
		return badRequest("parameter ttl: a delete does not expire: put a value with a ttl")
	}
	if !c.hasContext && !c.params.overwrite && !c.ifMatch.given {
		return &kv.Error{
			Code: kv.CodeContextRequired,
			Message: "a delete needs to know what it deletes: read the key and send the " + headerContext +
				" of that answer, name the value by If-Match, or say overwrite=true to delete whatever is there",
		}
	}
	done, err := s.write(x, &c, coordinator.Put{Tombstone: true})
	if err != nil {
		return err
	}
	c.answerWrite(x, done)
	return nil
}

// answerWrite answers a write that reached its count: 204, with the context
// for the client's next request on the key.
func (c *call) answerWrite(x *exchange, done coordinator.PutDone) {
	x.setStatus(fasthttp.StatusNoContent)
	c.setContext(x, done.Token)
	if done.ETag != 0 { // the client knows all that the key holds
		setETag(x, done.ETag)
	}
	if done.Siblings > 1 {
		x.setHeader(headerSiblings, strconv.Itoa(done.Siblings))
	}
	if !c.writeID.IsZero() {
		x.setHeader(headerWriteID, c.writeID.String())
	}
	if len(done.Acked) > 0 {
		x.setHeader(headerAcked, strings.Join(done.Acked, ", "))
	}
	if len(done.Hinted) > 0 {
		x.setHeader(headerHinted, strings.Join(done.Hinted, ", "))
	}
}
