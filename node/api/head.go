package api

import (
	"bytes"
	"strconv"
	"strings"

	"github.com/valyala/fasthttp"
)

// Limits of a request's head, which is the request line and the header fields.
const (
	// maxHeadBytes has room for a context token of 64 KiB, the longest key with
	// every byte percent-encoded, and the metadata.
	maxHeadBytes = 96 << 10
	// maxHeadLines bounds what a parsed head costs: a field takes four bytes on
	// the wire and a hundred in memory.
	maxHeadLines = 256
	maxMethod    = 16
)

// chunkedLength is the length of a body that comes in chunks.
const chunkedLength = -1

// framing is what a head says about where its request ends and the next may
// begin. The two sides of a connection must never disagree about it, so a head
// that other software could read differently is refused, whatever the RFCs
// would let a server make of it.
type framing struct {
	length int64 // of the body in bytes, or chunkedLength
	expect bool  // the client waits for "100 Continue" before it sends the body
	last   bool  // the client wants the connection closed after the answer
	old    bool  // HTTP/1.0
}

// headScanner finds the end of a head that arrives in pieces. It looks at each
// byte once, so that a head which comes byte by byte costs no more than one
// that comes at once.
type headScanner struct {
	seen, line, lines int // bytes examined, start of the current line, lines ended
}

// end returns the length of the head at the front of b, or 0 while b does not
// hold all of it. In later calls b may only have grown.
func (s *headScanner) end(b []byte) (int, error) {
	if len(b) > 0 && !isUpper(b[0]) {
		return 0, badHead("a request begins with a method in capital letters")
	}
	for {
		i := bytes.IndexByte(b[s.seen:], '\n')
		if i < 0 {
			s.seen = len(b)
			return 0, nil
		}
		i += s.seen
		if b[i-1] != '\r' {
			return 0, badHead("a line of the head ends in a bare line feed: end it in CR LF")
		}
		if i-1 == s.line {
			return i + 1, nil
		}
		if s.lines++; s.lines > maxHeadLines {
			return 0, headTooLarge("it has more than " + strconv.Itoa(maxHeadLines) + " lines")
		}
		s.seen, s.line = i+1, i+1
	}
}

// parseHead reads a complete head, from the request line to the empty line.
func parseHead(b []byte) (framing, error) {
	line, rest, _ := bytes.Cut(b, crlf)
	f, err := parseRequestLine(line)
	if err != nil {
		return framing{}, err
	}
	p := headParser{framing: f}
	for {
		line, rest, _ = bytes.Cut(rest, crlf)
		if len(line) == 0 {
			return p.finish()
		}
		if err := p.field(line); err != nil {
			return framing{}, err
		}
	}
}

func parseRequestLine(line []byte) (framing, error) {
	method, rest, _ := bytes.Cut(line, space)
	if len(method) == 0 || len(method) > maxMethod || !all(method, isUpper) {
		return framing{}, badHead("a method has 1 to " + strconv.Itoa(maxMethod) + " capital letters, such as GET")
	}
	target, version, _ := bytes.Cut(rest, space)
	switch {
	case len(target) == 0 || target[0] != '/':
		return framing{}, badHead("the request target must be a path that begins with '/', not a whole URL, an authority or '*'")
	case !all(target, isTarget):
		return framing{}, badHead("the request target holds a control character: percent-encode it")
	case string(version) == "HTTP/1.1":
		return framing{}, nil
	case string(version) == "HTTP/1.0":
		return framing{old: true, last: true}, nil
	case isVersion(version):
		return framing{}, &httpError{status: fasthttp.StatusHTTPVersionNotSupported, code: codeBadRequest, message: "use HTTP/1.1"}
	}
	return framing{}, badHead("a request line is a method, a target and HTTP/1.1, with one space between them")
}

// isVersion holds for HTTP/1.1 and for what it might have been.
func isVersion(b []byte) bool {
	return len(b) == len("HTTP/1.1") && bytes.HasPrefix(b, []byte("HTTP/")) && b[6] == '.'
}

// headParser gathers what the fields of a head say about framing.
type headParser struct {
	framing

	hosts, types                    int
	hasLength, isChunked, hasExpect bool
}

func (p *headParser) field(line []byte) error {
	name, value, found := bytes.Cut(line, colon)
	switch {
	case line[0] == ' ' || line[0] == '\t':
		return badHead("a header field is continued on a second line: write it on one")
	case !found || len(name) == 0 || !all(name, isToken):
		return badHead("a header field is a name, a colon without space before it, and a value")
	case !all(value, isValue):
		return badHead("the value of a header field holds a control character")
	}
	return p.known(name, bytes.Trim(value, " \t"))
}

// known judges the fields on which framing or identity rest. The names are
// ASCII, so that folding is harmless.
func (p *headParser) known(name, value []byte) error {
	is := func(s string) bool { return len(name) == len(s) && bytes.EqualFold(name, []byte(s)) }
	switch {
	case is("Content-Length"):
		return p.contentLength(value)
	case is("Transfer-Encoding"):
		return p.transferEncoding(value)
	case is("Host"):
		if p.hosts++; p.hosts > 1 || len(value) == 0 || bytes.ContainsAny(value, " \t/\\@?#,") {
			return badHead("one Host header names one host")
		}
	case is("Content-Type"):
		if p.types++; p.types > 1 {
			return badHead("Content-Type is given twice")
		}
	case is("Connection"):
		p.last = p.last || listHas(value, "close")
	case is("Expect"):
		return p.expectation(value)
	case is("Trailer"):
		return badHead("trailers after a body in chunks are not taken")
	}
	return nil
}

func (p *headParser) contentLength(value []byte) error {
	n, err := strconv.ParseUint(string(value), 10, 63)
	if err != nil || p.hasLength {
		return badHead("one Content-Length gives the length of the body as a decimal number")
	}
	p.hasLength, p.length = true, int64(n)
	return nil
}

func (p *headParser) transferEncoding(value []byte) error {
	if p.isChunked || p.old || !bytes.EqualFold(value, []byte("chunked")) {
		return badHead("the only transfer encoding is one chunked, in HTTP/1.1")
	}
	p.isChunked = true
	return nil
}

func (p *headParser) expectation(value []byte) error {
	if p.hasExpect || !bytes.EqualFold(value, []byte("100-continue")) {
		return &httpError{
			status: fasthttp.StatusExpectationFailed, code: codeBadRequest,
			message: "the only expectation that can be met is one 100-continue",
		}
	}
	p.hasExpect = true
	return nil
}

func (p *headParser) finish() (framing, error) {
	switch {
	case p.hasLength && p.isChunked:
		return framing{}, badHead("Content-Length and Transfer-Encoding contradict each other: send one of them")
	case p.hosts == 0 && !p.old:
		return framing{}, badHead("HTTP/1.1 asks for a Host header")
	}
	if p.isChunked {
		p.length = chunkedLength
	}
	p.expect = p.hasExpect && !p.old && p.length != 0
	return p.framing, nil
}

var (
	crlf  = []byte("\r\n")
	space = []byte(" ")
	colon = []byte(":")
)

// listHas reports whether a comma-separated list holds a word, in any case.
func listHas(list []byte, word string) bool {
	for item := range bytes.SplitSeq(list, []byte(",")) {
		if bytes.EqualFold(bytes.Trim(item, " \t"), []byte(word)) {
			return true
		}
	}
	return false
}

// all reports whether every byte of b is of a kind.
func all(b []byte, is func(byte) bool) bool {
	for _, c := range b {
		if !is(c) {
			return false
		}
	}
	return true
}

func isUpper(c byte) bool { return 'A' <= c && c <= 'Z' }

// isTarget holds for what a request target is made of here: more than RFC 3986
// allows, because all of these bytes are good in keys and none is ambiguous.
func isTarget(c byte) bool { return c > ' ' && c != 0x7f }

// isValue holds for what RFC 9110 allows in the value of a field.
func isValue(c byte) bool { return c >= ' ' && c != 0x7f || c == '\t' }

// isToken holds for what RFC 9110 allows in the name of a field.
func isToken(c byte) bool {
	return isAlphanumeric(c) || strings.IndexByte("!#$%&'*+-.^_`|~", c) >= 0
}

func isAlphanumeric(c byte) bool {
	return 'a' <= c && c <= 'z' || isUpper(c) || '0' <= c && c <= '9'
}
