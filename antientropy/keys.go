package antientropy

import (
	"context"
	"errors"
	"fmt"
	"slices"
)

// settleKeys compares the keys at the places and heals those that differ.
func (e *exchange) settleKeys(ctx context.Context, list []place) error {
	for len(list) > 0 {
		found, rest, err := e.look(ctx, list, looksFound)
		if err != nil {
			return err
		}
		list = rest
		if e.eager {
			err = e.take(ctx, found)
		} else {
			err = e.lookAgain(ctx, found)
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// lookAgain heals what still differs after a while: the rest were writes under
// way.
func (e *exchange) lookAgain(ctx context.Context, list []discord) error {
	if len(list) == 0 {
		return nil
	}
	if err := sleep(ctx, e.SecondLook); err != nil {
		return err
	}
	if err := e.refresh(list); err != nil {
		return err
	}
	var lasting []discord
	for len(list) > 0 {
		n := batchOfDiscords(list)
		held, err := e.askHeld(ctx, list[:n])
		if err != nil {
			return err
		}
		for _, d := range list[:n] {
			if d.lasts(held) {
				lasting = append(lasting, d)
			}
		}
		list = list[n:]
	}
	return e.heal(ctx, e.chosen(lasting))
}

// askHeld asks which of the digests of both sides the peer holds by now.
func (e *exchange) askHeld(ctx context.Context, list []discord) (func(uint64) bool, error) {
	parts := listings(list)
	reply, err := e.askKeys(ctx, true, parts)
	if err != nil {
		return nil, err
	}
	unknown := make(map[uint64]bool)
	for i, c := range reply {
		for _, at := range c.Unknown {
			if int(at) < len(parts[i].Digests) {
				unknown[parts[i].Digests[at]] = true
			}
		}
	}
	return func(digest uint64) bool { return !unknown[digest] }, nil
}

// askKeys asks about listings and returns an answer for each.
func (e *exchange) askKeys(ctx context.Context, held bool, parts []Listing) ([]Contrast, error) {
	reply, err := ask(ctx, e, e.Peers.Keys, KeysRequest{Fence: e.fence(), Held: held, Parts: parts})
	if err == nil {
		err = e.meet(reply.Refusal, reply.Starts)
	}
	if err == nil && len(reply.Parts) != len(parts) {
		err = fmt.Errorf("%w: %d parts where %d were asked for", errBadMessage, len(reply.Parts), len(parts))
	}
	return reply.Parts, err
}

// chosen leaves out the keys of which nobody asked that they be healed.
func (e *exchange) chosen(list []discord) []discord {
	return slices.DeleteFunc(list, func(d discord) bool {
		if e.bucket == "" || d.key.Bucket == e.bucket {
			return false
		}
		e.note(d.at.part.Partition, left)
		return true
	})
}

// look asks the peer which keys differ, place by place until enough are found;
// rest are the places that are left.
func (e *exchange) look(ctx context.Context, list []place, enough int) (found []discord, rest []place, err error) {
	for len(list) > 0 && len(found) < enough {
		n := batch(list)
		some, err := e.lookOnce(ctx, list[:n])
		if err != nil {
			return nil, nil, err
		}
		found, list = append(found, some...), list[n:]
	}
	return found, list, nil
}

func (e *exchange) lookOnce(ctx context.Context, list []place) ([]discord, error) {
	parts := make([]Listing, len(list))
	own := make([][]Entry, len(list))
	for i, p := range list {
		var err error
		if own[i], err = e.entries(p); err != nil {
			return nil, err
		}
		parts[i] = listing(p.part, own[i])
	}
	reply, err := e.askKeys(ctx, false, parts)
	if err != nil {
		return nil, err
	}
	var found []discord
	for i, c := range reply {
		found = append(found, discords(list[i], own[i], c)...)
		if c.Cut {
			e.note(list[i].part.Partition, unfinished)
		}
	}
	return found, nil
}

// entries returns what this node holds at a place, by digest.
func (e *exchange) entries(p place) ([]Entry, error) {
	var own []Entry
	err := scanPart(e.Local, p.part, p.least, func(entry Entry) { own = append(own, entry) })
	if errors.Is(err, ErrDamaged) {
		e.Suspect(p.part.Partition, p.part.Leaf)
		err = nil
	}
	slices.SortFunc(own, compareEntries)
	return own, err
}
