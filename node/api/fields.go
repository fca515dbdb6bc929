package api

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// Header fields of our own. A request may carry the first two and any number
// of metadata fields; one that carries another of this family is refused,
// because a misspelt context would be a write without one.
const (
	headerContext  = "X-Starling-Context"
	headerWriteID  = "X-Starling-Write-Id"
	headerMeta     = "X-Starling-Meta-"
	headerFamily   = "X-Starling-"
	headerSiblings = "X-Starling-Siblings"
	headerAcked    = "X-Starling-Acked"
	headerHinted   = "X-Starling-Hinted"
	headerChecksum = "X-Starling-Checksum"
	headerExpires  = "X-Starling-Expires"
	headerDot      = "X-Starling-Dot"
	headerSibling  = "X-Starling-Sibling"
)

// Limits of what a client may store beside a value, in bytes.
const (
	maxMetaBytes   = 8 << 10 // all metadata, names and values
	maxContentType = 1 << 10
)

// fields are the header fields of a request on a key.
type fields struct {
	context     string
	hasContext  bool
	writeID     kv.WriteID
	contentType string
	meta        []kv.Meta // sorted by name
	ifMatch     etags
	ifNoneMatch etags
	accept      []byte // valid until the answer
}

// readFields reads the header fields of a request on a key; write says that it
// changes the key.
func readFields(h *fasthttp.RequestHeader, write bool) (fields, error) {
	var f fields
	for name, value := range h.All() {
		if err := f.read(name, value, write); err != nil {
			return fields{}, err
		}
	}
	return f, f.settleMeta()
}

// read takes in one field, whose name fasthttp has normalised.
func (f *fields) read(name, value []byte, write bool) error {
	switch string(name) {
	case fasthttp.HeaderAccept:
		f.accept = value
	case fasthttp.HeaderIfMatch:
		return f.ifMatch.add(value, false)
	case fasthttp.HeaderIfNoneMatch:
		return f.ifNoneMatch.add(value, true)
	case fasthttp.HeaderContentType, fasthttp.HeaderContentEncoding, fasthttp.HeaderContentRange, fasthttp.HeaderIfUnmodifiedSince:
		if write {
			return f.entity(string(name), value)
		}
	default:
		if bytes.HasPrefix(name, []byte(headerFamily)) {
			return f.own(name, value)
		}
	}
	return nil
}

// entity takes in a field that says something about the body of a write.
func (f *fields) entity(name string, value []byte) error {
	switch {
	case name == fasthttp.HeaderContentEncoding && !bytes.EqualFold(value, []byte("identity")):
		return &httpError{
			status: fasthttp.StatusUnsupportedMediaType, code: codeMediaType,
			message: "values are kept as they are sent, and Content-Encoding is not kept: leave it out and say it in X-Starling-Meta-Encoding",
		}
	case name == fasthttp.HeaderContentRange:
		return badRequest("a value is written whole: Content-Range is not known here")
	case name == fasthttp.HeaderIfUnmodifiedSince:
		return badRequest("a date is too coarse to guard a write: use If-Match with an ETag, or the context of a read")
	case name == fasthttp.HeaderContentType:
		if len(value) > maxContentType {
			return tooLarge(fmt.Sprintf("Content-Type has at most %d bytes", maxContentType))
		}
		f.contentType = string(value)
	}
	return nil
}

// own takes in a field of Starling's own.
func (f *fields) own(name, value []byte) error {
	if meta, ok := bytes.CutPrefix(name, []byte(headerMeta)); ok {
		if len(meta) == 0 {
			return badRequest("a metadata field needs a name after " + headerMeta)
		}
		f.meta = append(f.meta, kv.Meta{Name: strings.ToLower(string(meta)), Value: string(value)})
		return nil
	}
	switch string(name) {
	case headerContext:
		if f.hasContext {
			return badRequest(headerContext + " is given twice")
		}
		f.context, f.hasContext = string(value), true
	case headerWriteID:
		return f.setWriteID(value)
	default:
		return badRequest(fmt.Sprintf("unknown header %s: known in requests are %s, %s and %s*", name, headerContext, headerWriteID, headerMeta))
	}
	return nil
}

func (f *fields) setWriteID(value []byte) error {
	if !f.writeID.IsZero() {
		return badRequest(headerWriteID + " is given twice")
	}
	id, err := kv.ParseWriteID(string(value))
	if err != nil {
		return badRequest(headerWriteID + ": " + err.Error())
	}
	f.writeID = id
	return nil
}

// settleMeta sorts the metadata and checks what can be said of it as a whole.
func (f *fields) settleMeta() error {
	slices.SortFunc(f.meta, kv.CompareMeta)
	size := 0
	for i, m := range f.meta {
		if i > 0 && f.meta[i-1].Name == m.Name {
			return badRequest(headerMeta + m.Name + " is given twice")
		}
		size += len(m.Name) + len(m.Value)
	}
	if size > maxMetaBytes {
		return tooLarge(fmt.Sprintf("metadata has at most %d bytes, names and values together, this has %d", maxMetaBytes, size))
	}
	return nil
}

// condition is what must hold for a write.
func (f *fields) condition() coordinator.Condition {
	c := coordinator.Condition{IfMatchAny: f.ifMatch.any, IfAbsent: f.ifNoneMatch.any}
	if !c.IfMatchAny {
		c.IfMatch = f.ifMatch.list
	}
	if !c.IfAbsent {
		c.IfNoneMatch = f.ifNoneMatch.list
	}
	return c
}
