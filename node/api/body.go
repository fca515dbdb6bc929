package api

import (
	"errors"
	"fmt"
	"io"
	"net/http/httputil"
	"os"
	"time"
)

// readBody reads the whole body of the request, at most limit bytes, into
// memory that belongs to the caller from then on.
func (x *exchange) readBody(limit int) ([]byte, error) {
	length := x.framing.length
	if length > int64(limit) {
		return nil, valueTooLarge(limit)
	}
	if err := x.invite(); err != nil {
		return nil, err
	}
	if length == chunkedLength {
		return x.readChunks(limit)
	}
	// Room is made for what has come, and a little more: to promise much and to
	// send little must cost little.
	first := min(length, max(freeBytes, int64(x.conn.in.Buffered())))
	b, err := x.collect(&io.LimitedReader{R: x.conn.in, N: length}, int(first), int(length))
	if err == nil && int64(len(b)) < length {
		err = errHangup
	}
	x.synced = err == nil
	return b, err
}

// bodyIsHere reports whether all of the body has been received.
func (x *exchange) bodyIsHere() bool {
	return x.framing.length >= 0 && x.framing.length <= int64(x.conn.in.Buffered())
}

// invite tells a client that waits for it to send the body.
func (x *exchange) invite() error {
	if !x.framing.expect || x.conn.in.Buffered() > 0 {
		return nil
	}
	if _, err := io.WriteString(x.conn, "HTTP/1.1 100 Continue\r\n\r\n"); err != nil {
		return errHangup
	}
	return nil
}

// readChunks reads a body in chunks. Trailers are not expected by anything
// here, and refused.
func (x *exchange) readChunks(limit int) ([]byte, error) {
	b, err := x.collect(httputil.NewChunkedReader(x.conn.in), min(freeBytes, limit+1), limit+1)
	if err != nil {
		return nil, err
	}
	if len(b) > limit {
		return nil, valueTooLarge(limit)
	}
	var end [2]byte
	if _, err := io.ReadFull(x.conn.in, end[:]); err != nil {
		return nil, readError(err)
	}
	if string(end[:]) != "\r\n" {
		return nil, badHead("trailers after a body in chunks are not taken")
	}
	x.synced = true
	return b, nil
}

// collect reads from r until its end or until most bytes have come, beginning
// with room for first. The client must keep up the least rate; what is held
// counts against the budget.
func (x *exchange) collect(r io.Reader, first, most int) ([]byte, error) {
	if err := x.hold(first); err != nil {
		return nil, err
	}
	b := make([]byte, 0, first)
	began := time.Now()
	for len(b) < most {
		if len(b) == cap(b) {
			grown := min(2*cap(b), most)
			if err := x.hold(grown - cap(b)); err != nil {
				return nil, err
			}
			b = append(make([]byte, 0, grown), b...)
		}
		if x.conn.in.Buffered() < cap(b)-len(b) {
			if err := x.conn.SetReadDeadline(began.Add(x.server.limits.transfer(len(b)))); err != nil {
				return nil, errHangup
			}
		}
		n, err := r.Read(b[len(b):cap(b)])
		b = b[:len(b)+n]
		switch {
		case errors.Is(err, io.EOF):
			return b, nil
		case err != nil:
			return nil, readError(err)
		}
	}
	return b, nil
}

// errHangup says that the client has gone: there is nobody to answer.
var errHangup = errors.New("the client hung up")

// readError tells a slow client from one that has gone and one that makes no
// sense.
func readError(err error) error {
	var faulty interface{ Timeout() bool }
	switch {
	case errors.Is(err, os.ErrDeadlineExceeded):
		return errTooSlow
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF), errors.As(err, &faulty):
		return errHangup
	}
	return badHead("the body in chunks is malformed: " + err.Error())
}

func valueTooLarge(limit int) error {
	return tooLarge(fmt.Sprintf("a value has at most %d bytes here: part it over several keys, or raise the limit of the nodes", limit))
}
