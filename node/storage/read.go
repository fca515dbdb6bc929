package storage

import (
	"bytes"
	"errors"
	"fmt"

	"github.com/cespare/xxhash/v2"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// Get returns the record in slot, the zero Record if there is none. That there
// is none is what this disk says; whether it counts is for the caller to know.
// Damage is [ErrCorrupt]. The record is the caller's.
func (s *Store) Get(slot kv.Slot) (kv.Record, error) {
	if err := checkKey(slot.Key); err != nil {
		return kv.Record{}, err
	}
	at := slotAddress(slot)
	r, _, _, err := s.record(at, at.bytes())
	return r, err
}

// record returns the record stored at, whose key is given, its encoding as it is
// stored, and, if it has parts, where they are. A copy of it will do.
func (s *Store) record(at address, key []byte) (kv.Record, []byte, reference, error) {
	if at.space != spaceRecord {
		return s.readRecord(at, key)
	}
	if payload, ok := s.cache.get(key); ok {
		r, err := decodeRecord(payload)
		return r, payload, reference{}, err
	}
	commits := s.cache.look(key)
	r, payload, ref, err := s.readRecord(at, key)
	if err == nil {
		s.cache.found(key, commits, payload, ref)
	}
	return r, payload, ref, err
}

// readRecord is record without the cache.
func (s *Store) readRecord(at address, key []byte) (kv.Record, []byte, reference, error) {
	payload, ref, err := s.load(at, key)
	if err != nil || payload == nil {
		return kv.Record{}, nil, reference{}, err
	}
	r, err := decodeRecord(payload)
	if err != nil {
		return kv.Record{}, nil, reference{}, s.report(at, err)
	}
	return r, payload, ref, nil
}

func decodeRecord(payload []byte) (kv.Record, error) {
	r, err := kv.DecodeLocal(payload)
	if err != nil {
		return kv.Record{}, fmt.Errorf("%w: %w", ErrCorrupt, err)
	}
	return r, nil
}

// Value returns the external value that the record in slot holds under dot,
// with the length in bytes and the checksum that the record states.
// [ErrNotFound] says that the value was replaced since the record was read:
// read it again. If the record still holds the value, its disk lost it. The
// bytes are the caller's.
func (s *Store) Value(slot kv.Slot, dot vclock.Dot, length, checksum uint64) ([]byte, error) {
	at := valueAddress(slot, dot)
	data, err := readPieces(s.engine, at, length)
	if err == nil && xxhash.Sum64(data) != checksum {
		err = fmt.Errorf("%w: checksum %016x where the record states %016x", ErrCorrupt, xxhash.Sum64(data), checksum)
	}
	if err != nil {
		return nil, s.report(at, err)
	}
	return data, nil
}

// ScanPartition calls fn with every record of a partition, in the order of its
// storage keys, as they were at one moment; a record of more than 256 KiB may
// be newer. Damaged records are left out; if there are any, the error after the
// last call of fn is [ErrCorrupt]. An error of fn ends the scan and is returned
// as it is. The record is fn's to keep.
func (s *Store) ScanPartition(partition uint16, fn func(kv.Key, kv.Record) error) error {
	from, to := partitionRange(partition)
	return scan(s, from, to, decodeRecord, func(at address, r kv.Record) error { return fn(at.slot.Key, r) })
}

// ScanHints calls fn with every hint that is held for a node, with the same
// promises as [Store.ScanPartition].
func (s *Store) ScanHints(target kv.NodeID, fn func(kv.Slot, kv.Record) error) error {
	from, to := targetRange(spaceHint, target)
	return scan(s, from, to, decodeRecord, func(at address, r kv.Record) error { return fn(at.slot, r) })
}

// GetMeta returns the fact stored under name, nil if there is none. The bytes
// are the caller's.
func (s *Store) GetMeta(name string) ([]byte, error) {
	payload, _, err := s.meta(name)
	return payload, err
}

func (s *Store) meta(name string) ([]byte, reference, error) {
	at := metaAddress(name)
	return s.load(at, at.bytes())
}

// ScanMeta calls fn with every fact whose name begins with prefix, in the order
// of names, with the same promises as [Store.ScanPartition].
func (s *Store) ScanMeta(prefix string, fn func(name string, value []byte) error) error {
	from, to := metaRange(prefix)
	asItIs := func(payload []byte) ([]byte, error) { return payload, nil }
	return scan(s, from, to, asItIs, func(at address, value []byte) error { return fn(at.name, value) })
}

// load returns the payload stored at, nil if there is none. A part that is
// missing was deleted by a writer that replaced the entry, which is then read
// again; if the entry is still the same, it is damaged.
func (s *Store) load(at address, key []byte) ([]byte, reference, error) {
	var before []byte
	for {
		envelope, err := s.engine.Get(key)
		if errors.Is(err, ErrNotFound) {
			return nil, reference{}, nil
		}
		if err != nil {
			return nil, reference{}, s.report(at, err)
		}
		payload, ref, err := unsealEntry(s.engine, key, envelope)
		switch {
		case err == nil:
			return payload, ref, nil
		case !errors.Is(err, ErrNotFound):
			return nil, reference{}, s.report(at, err)
		case bytes.Equal(envelope, before):
			return nil, reference{}, s.report(at, fmt.Errorf("%w: a part is missing", ErrCorrupt))
		}
		before = envelope
	}
}

// scan calls fn with every entry between from and to that can be decoded. If
// there are others, the error after the last call of fn is [ErrCorrupt].
func scan[T any](s *Store, from, to []byte, decode func([]byte) (T, error), fn func(address, T) error) error {
	d, err := scanReadable(s, from, to, decode, fn)
	if err != nil {
		return err
	}
	return d.err()
}

// damage is what a scan left out.
type damage struct {
	entries int
	first   error
}

func (d damage) err() error {
	if d.entries == 0 {
		return nil
	}
	return fmt.Errorf("%d damaged entries were left out, the first: %w", d.entries, d.first)
}

// scanReadable calls fn with every entry between from and to that can be
// decoded and counts the others. An error says that the scan did not reach to.
func scanReadable[T any](s *Store, from, to []byte, decode func([]byte) (T, error), fn func(address, T) error) (damage, error) {
	var d damage
	err := s.engine.Scan(from, to, func(key, envelope []byte) error {
		at, payload, err := s.entry(key, envelope)
		if payload == nil && err == nil {
			return nil // removed since the scan began
		}
		var value T
		if err == nil {
			value, err = decode(payload)
		}
		switch {
		case err == nil:
			return fn(at, value)
		case !errors.Is(err, ErrCorrupt):
			return err
		case d.entries == 0:
			d.first = err
		}
		d.entries++
		return nil
	})
	return d, err
}

// entry takes apart what a scan found under key.
func (s *Store) entry(key, envelope []byte) (address, []byte, error) {
	at, err := parseAddress(key)
	if err != nil {
		return at, nil, s.report(at, fmt.Errorf("%w: %w", ErrCorrupt, err))
	}
	payload, _, err := unsealEntry(s.engine, key, envelope)
	switch {
	case errors.Is(err, ErrNotFound): // its parts were replaced since the scan began
		payload, _, err = s.load(at, key)
		return at, payload, err
	case err != nil:
		return at, nil, s.report(at, err)
	}
	return at, payload, nil
}

// report names the address in an error and counts damage.
func (s *Store) report(at address, err error) error {
	if errors.Is(err, ErrCorrupt) || errors.Is(err, ErrFormat) {
		s.counts.corrupt.Add(1)
	}
	return fmt.Errorf("%v: %w", at, err)
}
