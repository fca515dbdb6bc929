package api

import (
	"context"
	"encoding/json"
	"errors"
	"math"
	"strconv"
	"time"

	"github.com/valyala/fasthttp"
	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// Codes of faults that HTTP itself can have, beside those of package kv.
const (
	codeBadRequest         = kv.CodeBadRequest
	codeNoRoute    kv.Code = "no_route"           // nothing is served under this path
	codeMethod     kv.Code = "method_not_allowed" // the path is served, but not with this method
	codeTooSlow    kv.Code = "too_slow"           // the client sends or takes its bytes too slowly
	codeMediaType  kv.Code = "unsupported_media"  // the body is encoded in a way that is not kept
)

// httpError is a refusal by this package whose status its code does not imply.
type httpError struct {
	status  int
	code    kv.Code
	message string
	allow   string // the methods of the path, for a 405
}

func (e *httpError) Error() string { return string(e.code) + ": " + e.message }

func badRequest(message string) error { return &kv.Error{Code: kv.CodeBadRequest, Message: message} }

// badHead refuses a request whose end is not certain: the connection is closed
// after the answer.
func badHead(message string) error {
	return &httpError{status: fasthttp.StatusBadRequest, code: codeBadRequest, message: message}
}

func headTooLarge(message string) error {
	return &httpError{
		status: fasthttp.StatusRequestHeaderFieldsTooLarge, code: kv.CodeTooLarge,
		message: "the head of the request is too large: " + message,
	}
}

func tooLarge(message string) error { return &kv.Error{Code: kv.CodeTooLarge, Message: message} }

func notReady(message string) error {
	return &kv.Error{Code: kv.CodeNotReady, Message: message, RetryAfter: time.Second}
}

func overloaded(message string) error {
	return &kv.Error{Code: kv.CodeOverloaded, Message: message + ": try again later", RetryAfter: time.Second}
}

var errTooSlow = &httpError{
	status: fasthttp.StatusRequestTimeout, code: codeTooSlow, message: "the request came in too slowly",
}

// statuses maps what a client is told to the status that says it in HTTP.
var statuses = map[kv.Code]int{
	kv.CodeBadRequest:      fasthttp.StatusBadRequest,
	kv.CodeBadContext:      fasthttp.StatusBadRequest,
	kv.CodeContextExpired:  fasthttp.StatusBadRequest,
	kv.CodeNotFound:        fasthttp.StatusNotFound,
	kv.CodePrecondition:    fasthttp.StatusPreconditionFailed,
	kv.CodeContextRequired: fasthttp.StatusPreconditionRequired,
	kv.CodeTooLarge:        fasthttp.StatusRequestEntityTooLarge,
	kv.CodeTooManySiblings: fasthttp.StatusConflict,
	kv.CodeWriteIDExpired:  fasthttp.StatusConflict,
	kv.CodeWriteIDReused:   fasthttp.StatusConflict,
	kv.CodeOverloaded:      fasthttp.StatusServiceUnavailable,
	kv.CodeQuorumUnreached: fasthttp.StatusServiceUnavailable,
	kv.CodeNotReady:        fasthttp.StatusServiceUnavailable,
	kv.CodeTimeout:         fasthttp.StatusGatewayTimeout,
	kv.CodeStale:           fasthttp.StatusGatewayTimeout,
	kv.CodeDiskFull:        fasthttp.StatusInsufficientStorage,
	kv.CodeInternal:        fasthttp.StatusInternalServerError,
}

// fail answers the exchange with err, in place of anything answered so far.
func (s *Server) fail(x *exchange, err error) {
	status, e := s.explain(x, err)
	x.resetAnswer()
	if h := (*httpError)(nil); errors.As(err, &h) && h.allow != "" {
		x.setHeader(fasthttp.HeaderAllow, h.allow)
	}
	if e.Context != "" {
		x.setHeader(headerContext, e.Context)
	}
	if e.WriteID != "" {
		x.setHeader(headerWriteID, e.WriteID)
	}
	if status == fasthttp.StatusServiceUnavailable && e.RetryAfter == 0 {
		e.RetryAfter = time.Second
	}
	if e.RetryAfter > 0 {
		x.setHeader(fasthttp.HeaderRetryAfter, strconv.Itoa(int(math.Ceil(e.RetryAfter.Seconds()))))
	}
	x.answerJSON(status, e)
}

// explain turns any error into a status and what the client is told, which is
// a copy that may be changed.
func (s *Server) explain(x *exchange, err error) (int, kv.Error) {
	var e kv.Error
	var status int
	known, protocol := (*kv.Error)(nil), (*httpError)(nil)
	switch {
	case errors.As(err, &known):
		e, status = *known, statuses[known.Code]
	case errors.As(err, &protocol):
		e, status = kv.Error{Code: protocol.code, Message: protocol.message}, protocol.status
	case errors.Is(err, context.DeadlineExceeded):
		e = kv.Error{Code: kv.CodeTimeout, Message: "the time given ran out"}
	case errors.Is(err, context.Canceled):
		e = kv.Error{Code: kv.CodeNotReady, Message: "the node is shutting down: ask another"}
	default:
		e = kv.Error{Code: kv.CodeInternal, Message: "an internal error, logged as request " + s.logFault(x, err)}
	}
	if status == 0 {
		status = statuses[e.Code]
	}
	if status == 0 {
		status = fasthttp.StatusInternalServerError
	}
	if x.isWrite() && e.Outcome == "" {
		e.Outcome = x.outcome()
	}
	if e.WriteID == "" && !x.writeID.IsZero() {
		e.WriteID = x.writeID.String()
	}
	return status, e
}

// logFault logs an error that is nobody's but ours, under a number by which
// the client's report and the log find each other.
func (s *Server) logFault(x *exchange, err error) string {
	id := strconv.FormatUint(s.faults.Add(1), 10)
	s.log.Error("request failed",
		zap.String("request", id), zap.ByteString("method", x.method()),
		zap.ByteString("target", x.target()), zap.Error(err))
	return id
}

// appendJSON appends v as one line. What is encoded here always can be.
func appendJSON(dst []byte, v any) []byte {
	b, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	return append(append(dst, b...), '\n')
}
