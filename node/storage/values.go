package storage

import (
	"errors"
	"fmt"

	"github.com/starling-kv/starling/kv"
)

// CheckValues reads the external values of the records of a leaf, and calls lost
// with each that is damaged or missing while its record refers to it. checked is
// how many were read. Damaged records are left to [Store.CheckLeaf]. It is safe
// beside writes.
func (s *Store) CheckValues(partition uint16, leaf uint8, lost func(kv.Key, kv.Version)) (checked int, err error) {
	if s.LeafEmpty(partition, leaf) {
		return 0, nil
	}
	type external struct {
		key     kv.Key
		version kv.Version
	}
	var all []external
	err = s.ScanLeaf(partition, leaf, func(key kv.Key, r kv.Record, _ uint64) error {
		for _, v := range r.Live {
			if v.Value.External {
				all = append(all, external{key, v})
			}
		}
		return nil
	})
	if err != nil && !errors.Is(err, ErrCorrupt) {
		return 0, err
	}
	for i, e := range all {
		switch is, err := s.holdsValue(kv.Slot{Partition: partition, Key: e.key}, e.version); {
		case err != nil:
			return i, err
		case !is:
			lost(e.key, e.version)
		}
	}
	return len(all), nil
}

// holdsValue reports whether a value can be read that a record refers to. One
// that was replaced since counts as held.
func (s *Store) holdsValue(slot kv.Slot, v kv.Version) (bool, error) {
	_, err := s.Value(slot, v.Dot, v.Value.Length, v.Value.Checksum)
	if err == nil || !errors.Is(err, ErrNotFound) && !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrFormat) {
		return err == nil, err
	}
	r, err := s.Get(slot)
	switch {
	case errors.Is(err, ErrCorrupt):
		return true, nil // it is repaired as a whole
	case err != nil:
		return false, fmt.Errorf("value %v: %w", v.Dot, err)
	}
	return !holdsExternal(r, v.Dot), nil
}
