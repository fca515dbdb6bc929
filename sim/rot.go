package sim

import (
	"encoding/binary"
	"slices"

	"github.com/starling-kv/starling/kv"
)

// rot flips a bit on the disk: in the pages or the journal of the trees, or in a
// record or an external value that another node holds in the same form. What
// nobody else has would be lost, and a node's own facts are not looked after by
// others.
func (w *world) rot(f Fault, m *machine) {
	prefix, bit := []string{"t", "d", "r", "r", "v", "v"}[f.Seed%6], int(f.Seed>>16%(1<<16))
	switch {
	case f.Key != 0:
		w.rotRecord(f, m, bit)
	case prefix == "v" && w.rotValue(m, int(f.Seed>>8%8), bit):
	case prefix == "v", prefix == "r":
		w.rotRecord(f, m, bit)
	default:
		m.disk.Flip(prefix, int(f.Seed>>8%8), bit)
	}
}

// rotRecord spoils one of the records that rot may spoil: that of the key which
// is meant, if one is.
func (w *world) rotRecord(f Fault, m *machine, bit int) {
	own := w.records(m)
	for i := range own {
		n := (i + int(f.Seed>>8%8)) % len(own)
		for _, o := range w.machines {
			meant := f.Key == 0 || own[n].key == keyOf(f.Key-1)
			if meant && o != m && slices.Contains(w.records(o), own[n]) && m.disk.Flip("r", n, bit) {
				w.history.lossy(m.name, loss{owed: w.owed(m)})
				return
			}
		}
	}
}

// rotValue spoils one of the values that rot may spoil, the n-th first, and
// reports whether there is one.
func (w *world) rotValue(m *machine, n, bit int) bool {
	own := w.values(m)
	for i := range own {
		v := own[(i+n)%len(own)]
		held := slices.ContainsFunc(w.machines, func(o *machine) bool {
			return o != m && slices.ContainsFunc(w.values(o), func(other value) bool { return other.same(v) && o.delivers(other) })
		})
		if held && m.disk.Flip(v.prefix(), 0, bit) {
			w.valuesRot = true
			return true
		}
	}
	return false
}

// value is an external value of a node's own record.
type value struct {
	kv.Version

	slot kv.Slot
}

func (v value) same(o value) bool { return v.slot == o.slot && v.Dot == o.Dot }

// prefix is that of the storage keys of its pieces: see package storage.
func (v value) prefix() string {
	b := binary.BigEndian.AppendUint16([]byte{'v'}, v.slot.Partition)
	b = binary.BigEndian.AppendUint64(b, uint64(v.Dot.Actor))
	return string(binary.BigEndian.AppendUint64(b, v.Dot.Counter))
}

// delivers reports whether the disk has the value as it was.
func (m *machine) delivers(v value) bool {
	_, err := m.process.Store().Value(v.slot, v.Dot, v.Value.Length, v.Value.Checksum)
	return err == nil
}

// values lists the external values of a node's own records that can be read.
func (w *world) values(m *machine) []value {
	if m.process == nil {
		return nil
	}
	var out []value
	for p := range uint16(partitions) {
		_ = m.process.Store().ScanPartition(p, func(k kv.Key, r kv.Record) error { // of damaged ones nothing is known
			for _, v := range r.Live {
				if v.Value.External {
					out = append(out, value{v, kv.Slot{Partition: p, Key: k}})
				}
			}
			return nil
		})
	}
	return out
}

// digested is a key with the digest of its record.
type digested struct {
	key    kv.Key
	digest uint64
}

// records lists what a node holds of its own, in the order of its disk, up to
// what is damaged already.
func (w *world) records(m *machine) []digested {
	if m.process == nil {
		return nil
	}
	var out []digested
	for p := range uint16(partitions) {
		before := len(out)
		err := m.process.Store().ScanPartition(p, func(k kv.Key, r kv.Record) error {
			out = append(out, digested{k, kv.Digest(k, kv.AppendRecord(nil, r))})
			return nil
		})
		if err != nil {
			return out[:before]
		}
	}
	return out
}
