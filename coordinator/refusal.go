package coordinator

import (
	"cmp"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"time"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/ring"
	"github.com/starling-kv/starling/vclock"
)

// The ways a request between nodes can be refused, as the first byte of an
// encoded error.
const (
	errorStale    = 1 // then the refusing node's view
	errorNotOwner = 2
	errorClient   = 3 // then the pause before a retry in ms, and a kv.Error as JSON
	errorOther    = 4 // then a text
	errorBlobs    = 5 // then the dots
	errorReap     = 6 // then the refusing node's number
)

// AppendError appends the encoding of an error that a node answers with.
func AppendError(dst []byte, err error) []byte {
	var stale *StaleViewError
	var client *kv.Error
	var missing *MissingBlobsError
	var reap *StaleReapError
	switch {
	case errors.As(err, &reap):
		return binary.AppendUvarint(append(dst, errorReap), reap.Number)
	case errors.As(err, &missing):
		dst = append(dst, errorBlobs)
		for _, d := range missing.Dots {
			dst = vclock.AppendDot(dst, d)
		}
		return dst
	case errors.As(err, &stale):
		return stale.View.Append(append(dst, errorStale))
	case errors.Is(err, ErrNotOwner):
		return append(dst, errorNotOwner)
	case errors.As(err, &client):
		text, jsonErr := json.Marshal(client)
		if jsonErr == nil {
			dst = binary.AppendUvarint(append(dst, errorClient), uint64(max(0, client.RetryAfter.Milliseconds())))
			return append(dst, text...)
		}
	}
	return append(append(dst, errorOther), err.Error()...)
}

// DecodeError reads what [AppendError] writes. Refusals that promise that
// nothing was done are marked so for [NotRun].
func DecodeError(b []byte) error {
	rd := wire.NewReader(b)
	switch kind := rd.Byte(); kind {
	case errorStale:
		v, err := ring.DecodeView(rd.Rest())
		if err != nil {
			return fmt.Errorf("stale view: %w", err)
		}
		return MarkNotRun(&StaleViewError{View: v})
	case errorNotOwner:
		return MarkNotRun(ErrNotOwner)
	case errorReap:
		reap := &StaleReapError{Number: rd.Uvarint()}
		if err := rd.Close(); err != nil {
			return fmt.Errorf("stale reap number: %w", err)
		}
		return MarkNotRun(reap)
	case errorBlobs:
		missing := new(MissingBlobsError)
		for rd.Len() > 0 && len(missing.Dots) < maxBlobs {
			missing.Dots = append(missing.Dots, vclock.ReadDot(rd))
		}
		if err := rd.Close(); err != nil {
			return fmt.Errorf("missing values: %w", err)
		}
		return MarkNotRun(missing)
	case errorClient:
		return decodeClientError(rd)
	default:
		return errors.New(string(rd.Rest()))
	}
}

func decodeClientError(rd *wire.Reader) error {
	pause := rd.Uvarint()
	e := new(kv.Error)
	if err := cmp.Or(rd.Err(), json.Unmarshal(rd.Rest(), e)); err != nil {
		return fmt.Errorf("undecodable error of a peer: %w", err)
	}
	e.RetryAfter = time.Duration(min(pause, uint64(MaxTimeout/time.Millisecond))) * time.Millisecond
	return e
}
