package api

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"mime"
	"mime/multipart"
	"net/http/httputil"
	"strings"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
)

// cart is a key with three siblings: one with all that a sibling can have, one
// with nothing, and one that is not text.
func cart(t *testing.T) coordinator.Got {
	t.Helper()
	id := mustWriteID(t, testID)
	return got(
		value(1, `["milk"]`, typed(typeJSON), withMeta(kv.Meta{Name: "device", Value: "phone"}), func(s *kv.Sibling) { s.WriteID = id }),
		value(2, ""),
		value(3, "\xff\r\n--sibling--\r\n"),
	)
}

// dump is an answer as it is on the wire, but for its date.
func dump(t *testing.T, a answer) string {
	t.Helper()
	a.Header.Del("Date")
	a.Body = io.NopCloser(strings.NewReader(a.body))
	b, err := httputil.DumpResponse(a.Response, true)
	if err != nil {
		t.Fatal(err)
	}
	return string(b)
}

func TestSiblings(t *testing.T) {
	for _, c := range []struct{ name, method, accept string }{
		{"siblings.multipart", "GET", "*/*"},
		{"siblings.json", "GET", "application/json"},
		{"siblings.head", "HEAD", "*/*"},
	} {
		t.Run(c.name, func(t *testing.T) {
			n := start(t, answering(cart(t)))
			a := n.do(c.method, "/kv/b/k", "", "Accept: "+c.accept)
			if a.status != 300 || a.Header.Get(headerSiblings) != "3" || a.Header.Get("Vary") != "Accept" {
				t.Errorf("%d %v", a.status, a.Header)
			}
			golden(t, c.name, dump(t, a))
		})
	}
}

// TestMultipartIsRead: a stock reader finds every sibling, whole.
func TestMultipartIsRead(t *testing.T) {
	want := cart(t)
	a := start(t, answering(want)).do("GET", "/kv/b/k", "")
	_, params, err := mime.ParseMediaType(a.Header.Get("Content-Type"))
	if err != nil {
		t.Fatal(err)
	}
	r := multipart.NewReader(strings.NewReader(a.body), params["boundary"])
	for _, v := range want.Values {
		part, err := r.NextRawPart()
		if err != nil {
			t.Fatal(err)
		}
		body, err := io.ReadAll(part)
		if err != nil || !bytes.Equal(body, v.Data) {
			t.Errorf("%q, %v, want %q", body, err, v.Data)
		}
		if part.Header.Get(headerDot) != v.Dot.String() || part.Header.Get("Content-Type") != contentType(v.Value) {
			t.Errorf("%v", part.Header)
		}
	}
	if _, err := r.NextRawPart(); err != io.EOF {
		t.Error("a part too many: ", err)
	}
}

func TestJSONIsRead(t *testing.T) {
	want := cart(t)
	a := start(t, answering(want)).do("GET", "/kv/b/k", "", "Accept: application/json")
	var read struct {
		Siblings []jsonSibling `json:"siblings"`
	}
	if err := json.Unmarshal([]byte(a.body), &read); err != nil || len(read.Siblings) != 3 {
		t.Fatalf("%v: %s", err, a.body)
	}
	for i, s := range read.Siblings {
		if !bytes.Equal(s.Value, want.Values[i].Data) || s.Dot != want.Values[i].Dot.String() {
			t.Errorf("%d: %+v", i, s)
		}
	}
}

// TestBoundaryOccursNowhere: also not if a value holds the boundary that would
// have been chosen first.
func TestBoundaryOccursNowhere(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		values := []coordinator.Value{value(1, "a"), value(2, "b"), value(3, "c")}
		first := boundaryFor(values)
		at := rapid.IntRange(0, 2).Draw(t, "at")
		// The checksum stays, as if somebody had found a value that fits.
		values[at].Data = []byte(rapid.StringN(0, 9, -1).Draw(t, "before") + first + rapid.StringN(0, 9, -1).Draw(t, "after"))
		second := boundaryFor(values)
		if first == second || bytes.Contains(values[at].Data, []byte(second)) {
			t.Fatalf("%q, then %q for %q", first, second, values[at].Data)
		}
	})
}

func TestPrefersJSON(t *testing.T) {
	for accept, want := range map[string]bool{
		"":                        false,
		"*/*":                     false,
		"application/*":           false,
		"application/json":        true,
		"APPLICATION/JSON":        true,
		"application/json;q=0":    false,
		"application/json; q=0.5": true,
		"application/json;q=0.5, multipart/mixed": false,
		"application/json, multipart/mixed":       false,
		"multipart/mixed;q=0.1,application/json":  true,
		"text/html, application/json;v=1;q=0.3":   true,
		"application/json;q=x":                    false,
		"application/json;q=NaN":                  false,
		"application/jsonp":                       false,
	} {
		if got := prefersJSON([]byte(accept)); got != want {
			t.Errorf("%q: %v", accept, got)
		}
	}
}

// TestManySiblingsToOldClient: HTTP/1.0 knows no chunks, so the end of the
// connection ends the answer.
func TestManySiblingsToOldClient(t *testing.T) {
	w := start(t, answering(cart(t))).dial()
	w.send("GET /kv/b/k HTTP/1.0\r\nAccept: application/json\r\n\r\n")
	a := w.read("GET")
	if a.status != 300 || !a.Close || !json.Valid([]byte(a.body)) || fmt.Sprint(a.TransferEncoding) != "[]" {
		t.Errorf("%d close=%v %v %q", a.status, a.Close, a.TransferEncoding, a.body)
	}
}
