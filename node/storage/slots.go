package storage

import (
	"encoding/binary"

	"github.com/starling-kv/starling/kv"
)

// ScanSlots calls fn with every slot that holds a record or a hint, damaged or
// not, those in quarantine left out, as they were at one moment. An error of fn
// ends the scan and is returned as it is.
func (s *Store) ScanSlots(fn func(kv.Slot) error) error {
	for _, sp := range []space{spaceRecord, spaceHint} {
		from, to := prefixRange([]byte{byte(sp)})
		err := s.engine.Scan(from, to, func(key, _ []byte) error {
			at, err := parseAddress(key)
			if err != nil {
				return s.report(at, err)
			}
			if at.slot.Target == kv.Quarantine {
				return nil
			}
			return fn(at.slot)
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// ScanQuarantine calls fn with every record in quarantine of a partition, with
// the same promises as [Store.ScanPartition].
func (s *Store) ScanQuarantine(partition uint16, fn func(kv.Key, kv.Record) error) error {
	prefix, _ := targetRange(spaceHint, kv.Quarantine)
	from, to := prefixRange(binary.BigEndian.AppendUint16(prefix, partition))
	return scan(s, from, to, decodeRecord, func(at address, r kv.Record) error { return fn(at.slot.Key, r) })
}

// ScanQuarantineAfter calls fn with every record in quarantine of all
// partitions, ordered as in [Store.ScanPartition], that comes after the one of
// this partition and key, from the first if the key is zero. It makes the same
// promises.
func (s *Store) ScanQuarantineAfter(partition uint16, key kv.Key, fn func(kv.Slot, kv.Record) error) error {
	from, to := targetRange(spaceHint, kv.Quarantine)
	if key != (kv.Key{}) {
		if err := checkKey(key); err != nil {
			return err
		}
		after := slotAddress(kv.Slot{Target: kv.Quarantine, Partition: partition, Key: key})
		from = append(after.bytes(), 0)
	}
	return scan(s, from, to, decodeRecord, func(at address, r kv.Record) error { return fn(at.slot, r) })
}
