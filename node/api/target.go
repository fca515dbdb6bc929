package api

import (
	"bytes"
	"fmt"
	"slices"
	"strings"

	"github.com/starling-kv/starling/kv"
)

// splitTarget parts a raw request target into path and query. Neither is
// decoded or tidied: a path is what the client sent.
func splitTarget(raw []byte) (path, query []byte, err error) {
	if bytes.IndexByte(raw, '#') >= 0 {
		return nil, nil, badRequest("the request target holds a '#': percent-encode it as %23")
	}
	path, query, _ = bytes.Cut(raw, []byte("?"))
	return path, query, nil
}

// parseKey reads bucket/key, where the key is all that follows the first slash,
// dots and slashes included. Both are percent-decoded exactly once, so that two
// paths name one key only if they decode to the same bytes.
func parseKey(path []byte) (kv.Key, error) {
	rawBucket, rawName, found := bytes.Cut(path, []byte("/"))
	if !found {
		return kv.Key{}, badRequest("the path names no key: it ends in {bucket}/{key}")
	}
	bucket, err := unescape(rawBucket)
	if err != nil {
		return kv.Key{}, err
	}
	name, err := unescape(rawName)
	if err != nil {
		return kv.Key{}, err
	}
	key := kv.Key{Bucket: bucket, Name: name}
	if err := key.Validate(); err != nil {
		if len(name) > kv.MaxKeyBytes {
			return kv.Key{}, tooLarge(err.Error())
		}
		return kv.Key{}, badRequest(err.Error())
	}
	return key, nil
}

// unescape decodes %XX once and takes everything else, a plus too, for itself.
func unescape(b []byte) (string, error) {
	if bytes.IndexByte(b, '%') < 0 {
		return string(b), nil
	}
	var out strings.Builder
	out.Grow(len(b))
	for i := 0; i < len(b); i++ {
		if b[i] != '%' {
			out.WriteByte(b[i])
			continue
		}
		high, low := hexDigit(b, i+1), hexDigit(b, i+2)
		if high < 0 || low < 0 {
			return "", badRequest(fmt.Sprintf(
				"bad percent-encoding %q: '%%' is followed by two hexadecimal digits, and a '%%' itself is written %%25",
				b[i:min(i+3, len(b))]))
		}
		out.WriteByte(byte(high<<4 | low))
		i += 2
	}
	return out.String(), nil
}

// hexDigit returns the value of the digit at b[i], or -1.
func hexDigit(b []byte, i int) int {
	if i >= len(b) {
		return -1
	}
	switch c := b[i]; {
	case '0' <= c && c <= '9':
		return int(c - '0')
	case 'a' <= c && c <= 'f':
		return int(c-'a') + 10
	case 'A' <= c && c <= 'F':
		return int(c-'A') + 10
	}
	return -1
}

// escape writes the name of a key as [parseKey] reads it: the form in which
// JSON shows keys, which may be any bytes. The unreserved characters of RFC 3986
// and slashes stay, unless a client that is given the path would tidy it up.
func escape(name string) string {
	const digits = "0123456789ABCDEF"
	untidy := slices.ContainsFunc(strings.Split(name, "/"), func(s string) bool { return s == "" || s == "." || s == ".." })
	var out strings.Builder
	for i := range len(name) {
		switch c := name[i]; {
		case isAlphanumeric(c), c == '-', c == '_', c == '~', !untidy && (c == '.' || c == '/'):
			out.WriteByte(c)
		default:
			out.Write([]byte{'%', digits[c>>4], digits[c&15]})
		}
	}
	return out.String()
}
