package storage

// damagedPrefix begins the names of the store's own facts that a leaf of the
// trees was made anew: partition u16, leaf u8 follow. Such a fact goes with the
// commit that hides the damage: from then on nothing else on the disk tells of
// it, and what takes the place of a lost record need not be all that it held.
const damagedPrefix = "damaged/"

func damagedAddress(partition uint16, leaf uint8) address {
	return address{space: spaceStore, name: damagedPrefix + string([]byte{byte(partition >> 8), byte(partition), leaf})}
}

// Damaged calls fn with each leaf that was made anew from what could be read, in
// this life or an earlier one, since [Store.Trust] of it.
func (s *Store) Damaged(fn func(partition uint16, leaf uint8)) error {
	from, to := prefixRange(append([]byte{byte(spaceStore)}, damagedPrefix...))
	asItIs := func(payload []byte) ([]byte, error) { return payload, nil }
	return scan(s, from, to, asItIs, func(at address, _ []byte) error {
		if name := at.name[len(damagedPrefix):]; len(name) == 3 {
			fn(uint16(name[0])<<8|uint16(name[1]), name[2])
		}
		return nil
	})
}

// Trust forgets that a leaf was made anew, in its turn among the updates. If that
// fails the next start knows of it again, which does no harm.
func (s *Store) Trust(partition uint16, leaf uint8) error {
	forget := func([]byte) ([]byte, error) { return nil, nil }
	return s.queue.put(task{
		run:  func(r *round) (bool, error) { return r.applyEntry(damagedAddress(partition, leaf), forget) },
		done: func(error) {},
	})
}

// noteDamaged adds to the round that a leaf is made anew.
func (r *round) noteDamaged(partition uint16, leaf uint8) {
	key := damagedAddress(partition, leaf).bytes()
	note := planFact(key, []byte{}, reference{}, r.s.opts.Random)
	r.batch.add(note.entry...)
	r.made.keep(key, note.next)
}
