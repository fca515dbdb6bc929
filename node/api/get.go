package api

import (
	"time"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// typeUnknown is the content type of values that were given none.
const typeUnknown = "application/octet-stream"

// get answers GET and HEAD of a key: its value, all its siblings, or 404.
func (s *Server) get(x *exchange) error {
	if err := s.room(x); err != nil {
		return err
	}
	c, err := s.newCall(x, readParams)
	if err != nil {
		return err
	}
	got, err := s.read(x, &c)
	if err != nil {
		return err
	}
	if err := c.preconditions(got); err != nil {
		return err
	}
	if err := x.hold(heldBy(got)); err != nil {
		return err
	}
	switch {
	case len(got.Values) == 0:
		return c.absent(got)
	case c.ifNoneMatch.matches(got.ETag, true):
		x.setStatus(fasthttp.StatusNotModified)
	case len(got.Values) > 1:
		c.answerSiblings(x, got.Values)
	default:
		answerValue(x, got.Values[0])
	}
	c.setContext(x, got.Token)
	setETag(x, got.ETag)
	return nil
}

// preconditions judges If-Match of a read.
func (c *call) preconditions(got coordinator.Got) error {
	if !c.ifMatch.given || c.ifMatch.matches(got.ETag, len(got.Values) > 0) {
		return nil
	}
	return &kv.Error{
		Code: kv.CodePrecondition, Message: "the key holds something else than If-Match names", Context: c.seal(got.Token),
	}
}

// absent tells of a key without a value. What is known of it goes along: a
// write that carries the context replaces the delete.
func (c *call) absent(got coordinator.Got) error {
	e := &kv.Error{Code: kv.CodeNotFound, Message: "the key has no value", Context: c.seal(got.Token)}
	if got.Deleted {
		e.Message = "the key was deleted"
	}
	return e
}

// heldBy is the memory that the values take until they are sent.
func heldBy(got coordinator.Got) (n int) {
	for _, v := range got.Values {
		n += len(v.Data)
	}
	return n
}

// timeMillis is RFC 3339 with milliseconds.
const timeMillis = "2006-01-02T15:04:05.000Z07:00"

func answerValue(x *exchange, v coordinator.Value) {
	s := v.Value
	x.answerBytes(fasthttp.StatusOK, contentType(s), v.Data)
	if x.isHead() {
		x.http.Response.Header.SetContentLength(int(s.Length))
	}
	var buf [64]byte
	x.setHeaderBytes(headerChecksum, appendChecksum(buf[:0], s.Checksum))
	x.setHeaderBytes(fasthttp.HeaderLastModified, fasthttp.AppendHTTPDate(buf[:0], s.Stamp.Time()))
	if s.Expires != 0 {
		x.setHeaderBytes(headerExpires, time.UnixMilli(s.Expires).UTC().AppendFormat(buf[:0], timeMillis))
	}
	for _, m := range s.Meta {
		x.http.Response.Header.Set(headerMeta+m.Name, m.Value)
	}
}

func contentType(s kv.Sibling) string {
	if s.ContentType == "" {
		return typeUnknown
	}
	return s.ContentType
}

func setETag(x *exchange, id uint64) {
	var buf [etagDigits + 2]byte
	x.setHeaderBytes(fasthttp.HeaderETag, appendETag(buf[:0], id))
}

// appendChecksum appends the checksum of a value as header fields give it.
func appendChecksum(dst []byte, sum uint64) []byte {
	return appendHex(append(dst, "xxh64:"...), sum)
}
