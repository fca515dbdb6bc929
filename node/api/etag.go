package api

import (
	"bytes"
	"slices"
	"strconv"
)

// etags is the value of If-Match or If-None-Match: any value at all, or a list.
// Tags that no answer of ours ever carried are read and forgotten: they match
// nothing.
type etags struct {
	given bool
	any   bool
	list  []uint64 // not nil if given
}

const etagDigits = 16

// add reads one header line: '*', or entity tags between commas (RFC 9110,
// section 13.1). A weak tag counts only where comparison may be weak.
func (e *etags) add(value []byte, weak bool) error {
	if e.list == nil {
		e.list = []uint64{}
	}
	first := !e.given
	e.given = true
	rest := bytes.Trim(value, " \t")
	if bytes.Equal(rest, []byte("*")) {
		e.any = true
		if !first {
			return badRequest("'*' stands alone in If-Match and If-None-Match")
		}
		return nil
	}
	if e.any || len(rest) == 0 {
		return badRequest("If-Match and If-None-Match hold either '*' or a list of quoted tags")
	}
	for {
		tag, isWeak, after, ok := cutTag(rest)
		if !ok {
			return badRequest("If-Match and If-None-Match hold '*', or tags in quotes between commas, as ETag gives them")
		}
		if id, ok := parseTag(tag); ok && (weak || !isWeak) {
			e.list = append(e.list, id)
		}
		if rest = skipSpace(after); len(rest) == 0 {
			return nil
		}
		if rest[0] != ',' {
			return badRequest("tags in If-Match and If-None-Match stand between commas")
		}
		rest = skipSpace(rest[1:])
	}
}

// matches reports whether the value with the given tag, if there is one, is
// among those named.
func (e *etags) matches(tag uint64, exists bool) bool {
	if !exists {
		return false
	}
	return e.any || slices.Contains(e.list, tag)
}

// cutTag takes one entity tag off the front of b.
func cutTag(b []byte) (tag []byte, weak bool, rest []byte, ok bool) {
	if b, weak = bytes.CutPrefix(b, []byte("W/")); len(b) == 0 || b[0] != '"' {
		return nil, false, nil, false
	}
	tag, rest, ok = bytes.Cut(b[1:], []byte{'"'})
	if bytes.ContainsAny(tag, " \t") {
		return nil, false, nil, false
	}
	return tag, weak, rest, ok
}

func parseTag(b []byte) (uint64, bool) {
	if len(b) != etagDigits || bytes.ContainsAny(b, "ABCDEF") {
		return 0, false
	}
	id, err := strconv.ParseUint(string(b), 16, 64)
	return id, err == nil
}

// appendETag appends a strong entity tag.
func appendETag(dst []byte, id uint64) []byte {
	return append(appendHex(append(dst, '"'), id), '"')
}

// appendHex appends sixteen hexadecimal digits.
func appendHex(dst []byte, v uint64) []byte {
	const digits = "0123456789abcdef"
	for shift := 60; shift >= 0; shift -= 4 {
		dst = append(dst, digits[v>>shift&15])
	}
	return dst
}

func skipSpace(b []byte) []byte { return bytes.TrimLeft(b, " \t") }
