package kv

import (
	"bytes"
	"slices"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/vclock"
)

const boot = 7

var never time.Time

// idOf is the n-th id, issued n milliseconds after 1970.
func idOf(n int) WriteID {
	return NewWriteID(time.UnixMilli(int64(n)), func() uint64 { return 0 })
}

func value(text string, id WriteID) Sibling {
	return Sibling{Kind: KindValue, N: 3, WriteID: id, Inline: []byte(text), Length: uint64(len(text)), Checksum: Checksum([]byte(text))}
}

// by gives the same actor each time it is asked.
func by(a vclock.Actor) func() vclock.Actor { return func() vclock.Actor { return a } }

// put writes under the given actor.
func put(r Record, s Sibling, seen vclock.Clock, actor vclock.Actor) Record {
	r.Mine = Mine{actor, boot}
	next, _ := r.Put(s, seen, boot, nil, never)
	return next
}

func shown(r Record) []string {
	values, _ := r.Visible(time.UnixMilli(0))
	out := make([]string, len(values))
	for i, v := range values {
		out[i] = string(v.Value.Inline)
	}
	return out
}

// TestRetryAtAnotherReplica: the answer to the first attempt at replica 1 was
// lost, and the client tried again at replica 2.
func TestRetryAtAnotherReplica(t *testing.T) {
	var empty Record
	first := put(empty, value("v", idOf(1)), nil, 1)
	second := put(empty, value("v", idOf(1)), nil, 2)
	both := first.Merge(second)
	if got := shown(both); !slices.Equal(got, []string{"v"}) {
		t.Errorf("both attempts show as %q, want one value", got)
	}
	if got := both.Attempts(idOf(1)); !slices.Equal(got, []vclock.Dot{{Actor: 1, Counter: 1}, {Actor: 2, Counter: 1}}) {
		t.Errorf("attempts %v", got)
	}
	if first.Attempts(idOf(2)) != nil {
		t.Error("attempts at a write that never was")
	}

	// Another client read the first attempt alone and wrote over it.
	over := put(first, value("w", idOf(2)), first.Clock, 1)
	for name, r := range map[string]Record{
		"write, then retry": over.Merge(second),
		"retry, then write": second.Merge(over),
		"both, then write":  both.Merge(over),
		"retried again":     put(over.Merge(second), value("v", idOf(1)), nil, 3),
		"retried there":     put(over, value("v", idOf(1)), nil, 1),
	} {
		if got := shown(r); !slices.Equal(got, []string{"w"}) {
			t.Errorf("%s: shows %q, want what replaced it alone", name, got)
		}
	}

	deleted := put(first, Sibling{Kind: KindTombstone, N: 3}, first.Clock, 1).Merge(second)
	if values, gone := deleted.Visible(never); len(values) != 0 || !gone {
		t.Errorf("a retry brought %v back after a delete", values)
	}
}

// TestVisible looks at one record at several times.
func TestVisible(t *testing.T) {
	second := time.Unix(1, 0)
	r := Record{}
	expiring := func(text string, at int64) Sibling {
		s := value(text, WriteID{})
		s.Expires = at
		return s
	}
	r = put(r, value("stays", WriteID{}), nil, 1)
	r = put(r, expiring("a second", second.UnixMilli()), nil, 1)
	r = put(r, expiring("two seconds", 2*second.UnixMilli()), nil, 1)
	for _, tt := range []struct {
		now  time.Time
		want int
	}{
		{second.Add(-time.Millisecond), 3},
		{second, 2}, // at the instant itself it has expired
		{second.Add(time.Second), 1},
	} {
		if values, deleted := r.Visible(tt.now); len(values) != tt.want || deleted {
			t.Errorf("at %v: %d values, deleted %v, want %d", tt.now, len(values), deleted, tt.want)
		}
	}
	r = put(r, Sibling{Kind: KindTombstone}, nil, 1)
	if values, deleted := r.Visible(second.Add(time.Hour)); len(values) != 1 || !deleted {
		t.Errorf("a tombstone beside a value: %v, deleted %v", values, deleted)
	}
}

func TestETag(t *testing.T) {
	var empty Record
	tag := func(r Record) uint64 {
		values, _ := r.Visible(time.UnixMilli(0))
		return ETag(values)
	}
	a, b := value("a", idOf(1)), value("b", idOf(2))
	ab := put(put(empty, a, nil, 1), b, nil, 2)
	ba := put(put(empty, b, nil, 1), a, nil, 2)
	if tag(ab) != tag(ba) {
		t.Error("differs by which replica took which write")
	}
	if want := Checksum(slices.Concat(a.WriteID[:], b.WriteID[:])); tag(ab) != want {
		t.Errorf("%x, want the hash of both ids, %x", tag(ab), want)
	}
	if retried := put(empty, a, nil, 0xfff).Merge(ab); tag(retried) != tag(ab) {
		t.Error("differs by which attempts are known")
	}
	if tag(ab) == tag(put(empty, a, nil, 1)) {
		t.Error("does not change with a sibling")
	}
	anonymous := put(empty, value("a", WriteID{}), nil, 1)
	if tag(anonymous) == tag(put(anonymous, value("a", WriteID{}), anonymous.Clock, 1)) {
		t.Error("does not change with a write that has no id")
	}
	if tag(anonymous) != tag(anonymous.Merge(put(anonymous, Sibling{Kind: KindTombstone}, nil, 2))) {
		t.Error("changes with what is not shown")
	}
}

// TestMine: an actor goes on only in the record, on the replica and in the boot
// that minted it.
func TestMine(t *testing.T) {
	for _, tt := range []struct {
		name string
		mine Mine
		boot uint64
		want Mine
	}{
		{"same boot", Mine{1, boot}, boot, Mine{1, boot}},
		{"next boot", Mine{1, boot}, boot + 1, Mine{9, boot + 1}},
		{"earlier boot", Mine{1, boot}, boot - 1, Mine{9, boot - 1}},
		{"void", Mine{}, boot, Mine{9, boot}},
		{"void, boot zero", Mine{}, 0, Mine{9, 0}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			r := Record{Mine: tt.mine}
			r.Clock = vclock.Clock{{Actor: 1, Counter: 4}}
			next, dot := r.Put(value("v", WriteID{}), nil, tt.boot, by(9), never)
			want := vclock.Dot{Actor: tt.want.Actor, Counter: r.Clock.Counter(tt.want.Actor) + 1}
			if next.Mine != tt.want || dot != want {
				t.Errorf("mine %v, dot %v, want %v, %v", next.Mine, dot, tt.want, want)
			}
			if r.Mine != tt.mine {
				t.Error("the operand changed")
			}
		})
	}
}

func TestReused(t *testing.T) {
	mine := put(Record{}, value("v", WriteID{}), nil, 1)
	ahead := put(mine, value("w", WriteID{}), nil, 1)
	for _, tt := range []struct {
		name string
		r, o Record
		boot uint64
		want bool
	}{
		{"equal", mine, mine, boot, false},
		{"behind", ahead, mine, boot, false},
		{"ahead by another actor", mine, put(mine, value("w", WriteID{}), nil, 2), boot, false},
		{"ahead by mine", mine, ahead, boot, true},
		{"ahead by mine of an earlier boot", mine, ahead, boot + 1, false},
		{"ahead, and mine void", Record{}, ahead, boot, false},
	} {
		if got := tt.r.Reused(tt.o, tt.boot); got != tt.want {
			t.Errorf("%s: %v, want %v", tt.name, got, tt.want)
		}
	}
}

// TestCoversForgotten: this replica has forgotten a write by its id and so
// still shows its retry; another remembers that it was replaced. Their clocks
// are equal, and a merge must still happen.
func TestCoversForgotten(t *testing.T) {
	var empty Record
	first := put(empty, value("v", idOf(1)), nil, 1)
	over := put(first, value("w", idOf(2)), first.Clock, 1)
	retry := put(empty, value("v", idOf(1)), nil, 2)
	remembers := over.Merge(retry)
	forgot, _ := over.forget(time.UnixMilli(2)).Put(value("v", idOf(1)), nil, boot+1, by(2), never)
	if !slices.Equal(shown(forgot), []string{"w", "v"}) || !slices.Equal(shown(remembers), []string{"w"}) {
		t.Fatalf("shown: %q and %q", shown(forgot), shown(remembers))
	}
	if !forgot.Clock.Equal(remembers.Clock) || forgot.Covers(remembers) || remembers.Covers(forgot) {
		t.Errorf("each must take something from the other: %v, %v", forgot.Covers(remembers), remembers.Covers(forgot))
	}
	if got := shown(forgot.Merge(remembers)); !slices.Equal(got, []string{"w"}) {
		t.Errorf("together they show %q", got)
	}
}

// TestForgetsInOrder: ids leave by age or by number, the oldest first, and the
// floor says up to which.
func TestForgetsInOrder(t *testing.T) {
	var r Record
	for n := 1; n <= MaxIDs+3; n++ {
		r = put(r, value("v", idOf(n)), r.Clock, 1)
	}
	if len(r.IDs) != MaxIDs || r.IDFloor != idOf(3) || r.IDs[0].ID != idOf(4) {
		t.Errorf("%d ids from %v, floor %v, want %d from %v", len(r.IDs), r.IDs[0].ID, r.IDFloor, MaxIDs, idOf(4))
	}
	r, _ = r.Put(value("v", WriteID{}), r.Clock, boot, by(1), time.UnixMilli(100))
	if r.IDFloor != idOf(99) || r.IDs[0].ID != idOf(100) {
		t.Errorf("floor %v and first %v, want those of %v and %v", r.IDFloor, r.IDs[0].ID, idOf(99), idOf(100))
	}
	r, _ = r.Put(value("v", idOf(50)), r.Clock, boot, by(1), never)
	if r.Attempts(idOf(50)) != nil {
		t.Error("an id below the floor was remembered")
	}
	r, _ = r.Put(value("v", idOf(MaxIDs+4)), r.Clock, boot, by(1), time.UnixMilli(1000))
	if len(r.IDs) != 0 || r.IDFloor != idOf(MaxIDs+4) {
		t.Errorf("%d ids left, floor %v", len(r.IDs), r.IDFloor)
	}
}

// TestForgettingConverges writes to one key under more ids than it remembers,
// at replicas that forget at different times. What each remembers then depends
// on the order of messages, but once all have heard of all they are equal.
func TestForgettingConverges(t *testing.T) {
	var full Record
	issued := 0
	next := func() WriteID { issued++; return idOf(issued) }
	for range MaxIDs - 5 {
		full = put(full, value("v", next()), full.Clock, 100)
	}
	prelude := issued
	rapid.Check(t, func(t *rapid.T) {
		issued = prelude
		replicas := []Record{full, full, {}}
		for i := range replicas {
			replicas[i].Mine = Mine{}
		}
		replica := rapid.IntRange(0, len(replicas)-1)
		write := func(t *rapid.T, id WriteID) {
			i := replica.Draw(t, "at")
			var seen vclock.Clock
			if rapid.Bool().Draw(t, "having seen") {
				seen = replicas[i].Clock
			}
			forget := time.UnixMilli(int64(rapid.IntRange(0, issued).Draw(t, "forget")))
			replicas[i], _ = replicas[i].Put(value("v", id), seen, boot, by(vclock.Actor(i+1)), forget)
		}
		t.Repeat(map[string]func(*rapid.T){
			"write": func(t *rapid.T) {
				for range rapid.IntRange(1, 5).Draw(t, "writes") {
					write(t, next())
				}
			},
			"retry": func(t *rapid.T) {
				write(t, idOf(rapid.IntRange(max(1, issued-10), issued).Draw(t, "id")))
			},
			"hear": func(t *rapid.T) {
				i, j := replica.Draw(t, "to"), replica.Draw(t, "from")
				checkCovers(t, replicas[i], replicas[j])
				replicas[i] = replicas[i].Merge(replicas[j])
			},
			"": func(t *rapid.T) {
				for _, r := range replicas {
					if len(r.IDs) > MaxIDs || len(r.IDs) > 0 && r.IDs[0].ID.Compare(r.IDFloor) <= 0 {
						t.Fatalf("%d ids, floor %v", len(r.IDs), r.IDFloor)
					}
				}
			},
		})
		exchange := func() {
			for i := range replicas {
				for j := range replicas {
					replicas[i] = replicas[i].Merge(replicas[j])
				}
			}
		}
		exchange()
		exchange()
		for _, r := range replicas {
			if !bytes.Equal(encoded(r), encoded(replicas[0])) || !r.Covers(replicas[0]) {
				t.Fatalf("still differ after two exchanges:\n%+v\n%+v", r, replicas[0])
			}
		}
	})
}

func TestSums(t *testing.T) {
	var r Record
	if !r.Absent() || r.Bytes() != 0 || r.LatestStamp() != 0 {
		t.Error("the zero record is not absent and empty")
	}
	a, b := value("12345", WriteID{}), value("123", WriteID{})
	a.Stamp, b.Stamp = 20, 10
	r = put(put(r, a, nil, 1), b, nil, 1)
	if r.Absent() || r.Bytes() != 8 || r.LatestStamp() != 20 {
		t.Errorf("absent %v, %d bytes, stamp %d, want 8 and 20", r.Absent(), r.Bytes(), r.LatestStamp())
	}
}

func TestHLC(t *testing.T) {
	now := time.UnixMilli(1_700_000_000_123)
	h := HLC(0).Next(now)
	if !h.Time().Equal(now) {
		t.Errorf("time %v, want %v", h.Time(), now)
	}
	for name, tt := range map[string]struct {
		now  time.Time
		want time.Time
	}{
		"clock stands":    {now, now},
		"clock goes back": {now.Add(-time.Hour), now},
		"clock goes on":   {now.Add(time.Hour), now.Add(time.Hour)},
		"before 1970":     {time.UnixMilli(-1), now},
	} {
		if next := h.Next(tt.now); next <= h || !next.Time().Equal(tt.want) {
			t.Errorf("%s: %v after %v, time %v, want %v", name, next, h, next.Time(), tt.want)
		}
	}
	if next := HLC(5).Next(time.UnixMilli(-1)); next != 6 {
		t.Errorf("before 1970: %v after 5, want 6", next)
	}
}
