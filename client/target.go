package client

import (
	"fmt"
	"maps"
	"net/http"
	"net/url"
	"slices"
	"strings"
	"unicode"

	"github.com/starling-kv/starling/kv"
)

const upperHex = "0123456789ABCDEF"

// Escape percent-encodes a key's name for the path of a URL: all bytes but the
// unreserved ones of RFC 3986 and '/'. Where a segment is empty, "." or "..", a
// proxy might tidy it away, so that dots and slashes are encoded too.
func Escape(name string) string {
	tame := !slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool {
		return s == "" || s == "." || s == ".."
	})
	var b strings.Builder
	for _, c := range []byte(name) {
		if plain(c) || tame && (c == '.' || c == '/') {
			b.WriteByte(c)
			continue
		}
		b.Write([]byte{'%', upperHex[c>>4], upperHex[c&0xf]})
	}
	return b.String()
}

func plain(c byte) bool {
	return 'a' <= c && c <= 'z' || 'A' <= c && c <= 'Z' || '0' <= c && c <= '9' || c == '-' || c == '_' || c == '~'
}

// fieldMarks are what names of header fields may hold besides letters and
// digits (RFC 9110, section 5.6.2).
const fieldMarks = "!#$%&'*+-.^_`|~"

func notToken(r rune) bool {
	return r > unicode.MaxASCII || !plain(byte(r)) && !strings.ContainsRune(fieldMarks, r)
}

// target returns the URL of key at the endpoint base. Path and RawPath agree, so
// that net/http sends RawPath as it is.
func target(base *url.URL, key kv.Key, query string) *url.URL {
	prefix := "/kv/" + key.Bucket + "/"
	u := *base
	u.Path = prefix + key.Name
	u.RawPath = prefix + Escape(key.Name)
	u.RawQuery = query
	return &u
}

// parseEndpoint reads the base URL of a node.
func parseEndpoint(s string) (*url.URL, error) {
	u, err := url.Parse(s)
	switch {
	case err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "":
		return nil, fmt.Errorf("endpoint %q: write it as http://host:port", s)
	case u.Path != "" && u.Path != "/" || u.RawQuery != "" || u.Fragment != "" || u.User != nil:
		return nil, fmt.Errorf("endpoint %q: write no more than http://host:port", s)
	}
	return &url.URL{Scheme: u.Scheme, Host: u.Host}, nil
}

// validHeader reports a field that HTTP cannot carry, before an attempt is made
// of it.
func validHeader(h http.Header) error {
	for _, name := range slices.Sorted(maps.Keys(h)) {
		if strings.ContainsFunc(name, notToken) {
			return fmt.Errorf("header field %q: use letters, digits and %s in names", name, fieldMarks)
		}
		if strings.ContainsFunc(h.Get(name), func(r rune) bool { return r < ' ' || r == 0x7f }) {
			return fmt.Errorf("header field %s: %q holds control characters, which HTTP cannot carry: encode it", name, h.Get(name))
		}
	}
	return nil
}
