package api

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"io"
	"slices"
	"strconv"
	"time"

	"github.com/cespare/xxhash/v2"
	"github.com/valyala/fasthttp"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// answerSiblings answers 300 with every value of the key, as multipart/mixed
// or, if the client prefers it, as JSON.
func (c *call) answerSiblings(x *exchange, values []coordinator.Value) {
	x.setHeader(headerSiblings, strconv.Itoa(len(values)))
	x.setHeader(fasthttp.HeaderVary, fasthttp.HeaderAccept)
	if prefersJSON(c.accept) {
		x.answerWith(fasthttp.StatusMultipleChoices, typeJSON, chunkedLength, func(w io.Writer) error {
			return writeJSONSiblings(w, values)
		})
		return
	}
	boundary := boundaryFor(values)
	heads := make([][]byte, len(values))
	length := len(closing(boundary))
	for i, v := range values {
		heads[i] = partHead(boundary, v)
		length += len(heads[i]) + len(v.Data) + len(crlf)
	}
	if x.isHead() {
		length = chunkedLength // the values were not fetched
	}
	x.answerWith(fasthttp.StatusMultipleChoices, "multipart/mixed; boundary="+boundary, length, func(w io.Writer) error {
		return writeParts(w, heads, values, boundary)
	})
}

func writeParts(w io.Writer, heads [][]byte, values []coordinator.Value, boundary string) error {
	for i, v := range values {
		for _, b := range [][]byte{heads[i], v.Data, crlf} {
			if _, err := w.Write(b); err != nil {
				return err
			}
		}
	}
	_, err := io.WriteString(w, closing(boundary))
	return err
}

func closing(boundary string) string { return "--" + boundary + "--\r\n" }

// boundaryFor returns a boundary that occurs in none of the values, whoever
// wrote them. It depends on all of them, so that nobody finds it to put it in.
func boundaryFor(values []coordinator.Value) string {
	var sums []byte
	for _, v := range values {
		sums = binary.BigEndian.AppendUint64(sums, v.Value.Checksum)
	}
	for {
		boundary := "sibling-" + string(appendHex(nil, xxhash.Sum64(sums)))
		if !slices.ContainsFunc(values, func(v coordinator.Value) bool { return bytes.Contains(v.Data, []byte(boundary)) }) {
			return boundary
		}
		sums = append(sums, 0)
	}
}

// partHead returns what stands before the bytes of one sibling.
func partHead(boundary string, v coordinator.Value) []byte {
	s := v.Value
	b := fmt.Appendf(nil, "--%s\r\nContent-Type: %s\r\nContent-Length: %d\r\n", boundary, contentType(s), len(v.Data))
	b = fmt.Appendf(b, "%s: %v\r\n%s: %016x\r\n", headerDot, v.Dot, headerSibling, siblingID(v))
	b = append(appendChecksum(append(b, headerChecksum+": "...), s.Checksum), crlf...)
	b = append(fasthttp.AppendHTTPDate(append(b, "Last-Modified: "...), s.Stamp.Time()), crlf...)
	if !s.WriteID.IsZero() {
		b = fmt.Appendf(b, "%s: %v\r\n", headerWriteID, s.WriteID)
	}
	for _, m := range s.Meta {
		b = fmt.Appendf(b, "%s%s: %s\r\n", headerMeta, m.Name, m.Value)
	}
	return append(b, crlf...)
}

// siblingID names a sibling: the ETag that the key would have if it were the
// only value.
func siblingID(v coordinator.Value) uint64 { return kv.ETag([]kv.Version{v.Version}) }

// jsonSibling is a sibling in the JSON form of a 300.
type jsonSibling struct {
	Sibling     string            `json:"sibling"`
	Dot         string            `json:"dot"`
	WriteID     string            `json:"write_id,omitempty"`
	Modified    time.Time         `json:"modified"`
	ContentType string            `json:"content_type,omitempty"`
	Meta        map[string]string `json:"meta,omitempty"`
	Length      uint64            `json:"length"`
	Checksum    string            `json:"checksum"`
	Value       []byte            `json:"value"` // base64
}

// writeJSONSiblings writes one sibling after the other, so that only one is in
// memory in its longer form.
func writeJSONSiblings(w io.Writer, values []coordinator.Value) error {
	separator := `{"siblings":[`
	for _, v := range values {
		s := v.Value
		line := appendJSON([]byte(separator), jsonSibling{
			Sibling: fmt.Sprintf("%016x", siblingID(v)), Dot: v.Dot.String(), WriteID: optional(s.WriteID),
			Modified: s.Stamp.Time().UTC(), ContentType: s.ContentType, Meta: metaMap(s.Meta),
			Length: s.Length, Checksum: string(appendChecksum(nil, s.Checksum)), Value: v.Data,
		})
		if _, err := w.Write(line); err != nil {
			return err
		}
		separator = ","
	}
	_, err := io.WriteString(w, "]}\n")
	return err
}

func optional(id kv.WriteID) string {
	if id.IsZero() {
		return ""
	}
	return id.String()
}

func metaMap(meta []kv.Meta) map[string]string {
	if len(meta) == 0 {
		return nil
	}
	m := make(map[string]string, len(meta))
	for _, f := range meta {
		m[f.Name] = f.Value
	}
	return m
}

// prefersJSON reports whether Accept names application/json and does not rate
// multipart/mixed as high. Wildcards leave the choice to us.
func prefersJSON(accept []byte) bool {
	asJSON, asParts := 0.0, 0.0
	for item := range bytes.SplitSeq(accept, []byte(",")) {
		name, params, _ := bytes.Cut(item, []byte(";"))
		switch name = bytes.Trim(name, " \t"); {
		case bytes.EqualFold(name, []byte(typeJSON)):
			asJSON = quality(params)
		case bytes.EqualFold(name, []byte("multipart/mixed")):
			asParts = quality(params)
		}
	}
	return asJSON > asParts
}

// quality reads the weight among the parameters of a media range.
func quality(params []byte) float64 {
	for p := range bytes.SplitSeq(params, []byte(";")) {
		name, value, _ := bytes.Cut(bytes.Trim(p, " \t"), []byte("="))
		if !bytes.EqualFold(name, []byte("q")) {
			continue
		}
		q, err := strconv.ParseFloat(string(value), 64)
		if err != nil || !(q >= 0 && q <= 1) {
			return 0
		}
		return q
	}
	return 1
}
