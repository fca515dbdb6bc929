package storage

import (
	"encoding/binary"
	"errors"
	"fmt"

	"github.com/starling-kv/starling/internal/wire"
)

// startsAddress is where the count of starts is kept, with the schema.
var startsAddress = address{space: spaceStore, name: "starts"}

// Starts returns how often the store was opened, this time included, or what
// the count was raised to. It is durable: a store whose count falls was set
// back to an earlier state.
func (s *Store) Starts() uint64 { return s.starts.Load() }

// RaiseStarts makes [Store.Starts] at least to, durably: nil says that it is
// on disk. A node whose disk was set back goes on beyond what its peers know.
// It waits for its turn; the errors are those of [Store.Submit] and of a commit.
func (s *Store) RaiseStarts(to uint64) error {
	if err := s.space.admit(true); err != nil {
		return err
	}
	raise := func(old []byte) ([]byte, error) {
		if starts, err := parseStarts(old); err != nil || starts >= to {
			return old, err
		}
		return appendStarts(nil, to), nil
	}
	err := s.wait(task{sync: true, run: func(r *round) (bool, error) { return r.applyEntry(startsAddress, raise) }})
	if err != nil {
		return err
	}
	for {
		now := s.starts.Load()
		if now >= to || s.starts.CompareAndSwap(now, to) {
			return nil
		}
	}
}

// countStart counts this start durably, and with it checks that the directory
// is of a schema that this version knows.
func (s *Store) countStart() error {
	key := startsAddress.bytes()
	envelope, err := s.engine.Get(key)
	switch {
	case errors.Is(err, ErrNotFound):
	case err != nil:
		return err
	default:
		_, payload, err := unseal(key, envelope)
		if err != nil {
			return fmt.Errorf("%v: %w", startsAddress, err)
		}
		starts, err := parseStarts(payload)
		if err != nil {
			return fmt.Errorf("%v: %w", startsAddress, err)
		}
		s.starts.Store(starts)
	}
	s.starts.Add(1)
	var b Batch
	b.Set(key, seal(kindWhole, key, appendStarts(newEnvelope(16), s.Starts())))
	return s.engine.Commit(&b, true)
}

func appendStarts(dst []byte, starts uint64) []byte {
	return binary.AppendUvarint(binary.AppendUvarint(dst, schemaVersion), starts)
}

func parseStarts(payload []byte) (uint64, error) {
	r := wire.NewReader(payload)
	if v := r.Uvarint(); r.Err() == nil && v != schemaVersion {
		return 0, fmt.Errorf("%w: schema %d, this version knows %d: start the version that wrote it", ErrFormat, v, schemaVersion)
	}
	starts := r.Uvarint()
	if err := r.Close(); err != nil {
		return 0, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return starts, nil
}
