package coordinator

import (
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// Limits on what client writes may make of one key. Repair is never limited.
const (
	SiblingsWarn  = 25       // logged and counted from here
	SiblingsMax   = 100      // writes that would add one more are refused
	ObjectBytes   = 16 << 20 // all live values of a key together
	WriteIDWindow = 2 * time.Minute
	// writeIDMemory is how long records remember ids: the window, and again as
	// much for clocks that differ.
	writeIDMemory = 2 * WriteIDWindow
)

// intent is a write on its way to be given a dot.
type intent struct {
	Put
	n int
	// collected is what a read quorum holds, where a condition needs it.
	collected kv.Record
	// complete says that all n owners are in collected.
	complete bool
}

// assignment is what a write made of the local record.
type assignment struct {
	record kv.Record
	dot    vclock.Dot
	token  vclock.Token
	// repeated says that an earlier attempt had already been given dot.
	repeated bool
}

// assign decides what the write makes of the record old. It is called inside
// the one read-modify-write in which a dot is given; an error leaves the
// record as it is, and is true as not_applied unless it says otherwise.
func assign(in intent, old kv.Record, boot uint64, mint func() vclock.Actor, now time.Time) (assignment, error) {
	base := old.Merge(in.collected)
	if dots := base.Attempts(in.WriteID); len(dots) > 0 && !in.WriteID.IsZero() {
		return repeat(in, base, dots[0])
	}
	if err := checkIssued(in.WriteID, now); err != nil {
		return assignment{}, err
	}
	values, _ := base.Visible(now)
	if err := in.judge(values); err != nil {
		return assignment{}, err
	}
	s := sibling(in, base, now)
	next, dot := base.Put(s, in.supersedes(base), boot, mint, now.Add(-writeIDMemory))
	if err := checkObject(in.Key, base, next); err != nil {
		return assignment{}, err
	}
	return assignment{record: next, dot: dot, token: tokenAfter(in.Token, next)}, nil
}

// supersedes is the clock of what the write replaces. A write whose condition
// named the values that are there has seen them.
func (in intent) supersedes(base kv.Record) vclock.Clock {
	if in.Overwrite || in.Condition.IfMatch != nil || in.Condition.IfMatchAny || in.Condition.IfAbsent {
		return in.Token.Seen.Merge(base.Clock)
	}
	return in.Token.Seen
}

// judge returns the refusal if the condition does not hold of values.
func (in intent) judge(values []kv.Version) error {
	c := in.Condition
	tag := kv.ETag(values)
	var failed string
	switch {
	case c.IfMatchAny && len(values) == 0:
		failed = "If-Match: * asks for a value, and the key has none"
	case c.IfMatch != nil && (len(values) == 0 || !slices.Contains(c.IfMatch, tag)):
		failed = "the key holds something else than If-Match names"
	case c.IfAbsent && len(values) > 0:
		failed = "the key holds a value, and If-None-Match: * asks for none"
	case c.IfNoneMatch != nil && len(values) > 0 && slices.Contains(c.IfNoneMatch, tag):
		failed = "the key holds what If-None-Match excludes"
	default:
		return nil
	}
	e := &kv.Error{Code: kv.CodePrecondition, Message: failed + ": read the key again", Outcome: kv.NotApplied}
	if !in.WriteID.IsZero() && !in.complete {
		// An owner that was not heard may hold an earlier attempt of this write.
		e.Outcome = kv.Unknown
	}
	return e
}

// repeat answers an attempt after the first with what the first was given.
func repeat(in intent, base kv.Record, dot vclock.Dot) (assignment, error) {
	at := slices.IndexFunc(base.Live, func(v kv.Version) bool { return v.Dot == dot })
	if at >= 0 && !sameWrite(in, base.Live[at].Value) {
		return assignment{}, &kv.Error{
			Code: kv.CodeWriteIDReused, Outcome: kv.NotApplied,
			Message: "the write id already named another value of this key: use a new id for a new write",
		}
	}
	base.NMax = max(base.NMax, uint8(in.n))
	return assignment{record: base, dot: dot, token: tokenAfter(in.Token, base), repeated: true}, nil
}

func sameWrite(in intent, s kv.Sibling) bool {
	return (s.Kind == kv.KindTombstone) == in.Tombstone && s.Checksum == kv.Checksum(in.Value) && s.Length == uint64(len(in.Value))
}

func checkIssued(id kv.WriteID, now time.Time) error {
	if id.IsZero() || now.Sub(id.Issued()) <= WriteIDWindow {
		return nil
	}
	return &kv.Error{
		Code: kv.CodeWriteIDExpired, Outcome: kv.NotApplied,
		Message: fmt.Sprintf("the write id was issued more than %v ago, so this attempt cannot be told from a new write: "+
			"read the key to see whether an earlier attempt was applied, then write under a new id", WriteIDWindow),
	}
}

// checkObject refuses writes that pile up siblings; one that leaves fewer or as
// many as there were is always let through, so that a key can be resolved.
func checkObject(key kv.Key, old, next kv.Record) error {
	if len(next.Live) > max(SiblingsMax, len(old.Live)) {
		return &kv.Error{
			Code: kv.CodeTooManySiblings, Outcome: kv.NotApplied,
			Message: fmt.Sprintf("%v has %d siblings: read it and write the merged value with the context of that read", key, len(old.Live)),
		}
	}
	if next.Bytes() > max(ObjectBytes, old.Bytes()) {
		return &kv.Error{
			Code: kv.CodeTooLarge, Outcome: kv.NotApplied,
			Message: fmt.Sprintf("the siblings of %v would exceed %d bytes together: read it and write the merged value "+
				"with the context of that read", key, ObjectBytes),
		}
	}
	return nil
}

// tokenAfter is the token of an answer to a write: reads must reflect the whole
// record, but the client has only seen its own value, unless that is all there is.
func tokenAfter(sent vclock.Token, r kv.Record) vclock.Token {
	t := vclock.Token{Seen: sent.Seen, Floor: r.Clock.Merge(sent.Floor)}
	if len(r.Live) == 1 {
		t.Seen = r.Clock
	}
	return t
}

func sibling(in intent, base kv.Record, now time.Time) kv.Sibling {
	s := kv.Sibling{
		Kind: kv.KindValue, N: uint8(in.n),
		Stamp: base.LatestStamp().Next(now), WriteID: in.WriteID,
		ContentType: in.ContentType, Meta: in.Meta,
		Length: uint64(len(in.Value)), Checksum: kv.Checksum(in.Value),
	}
	switch {
	case in.Tombstone:
		s.Kind = kv.KindTombstone
	case len(in.Value) > kv.InlineLimit:
		s.External = true
	default:
		s.Inline = in.Value
	}
	return s
}
