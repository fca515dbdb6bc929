package coordinator

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

var epoch = time.UnixMilli(1_700_000_000_000)

// desk assigns writes to one record, as a replica does.
type desk struct {
	reap   uint64
	record kv.Record
	minted vclock.Actor
	issued uint64
}

func (d *desk) mint() vclock.Actor {
	d.minted++
	return d.minted
}

func (d *desk) id(at time.Time) kv.WriteID {
	d.issued++
	return kv.NewWriteID(at, func() uint64 { return d.issued << 2 })
}

// assign runs in at a time, and keeps the record if it succeeds.
func (d *desk) assign(in intent, at time.Time) (assignment, error) {
	in.n = max(in.n, 3)
	in.Key = key
	a, err := assign(in, Held{Record: d.record, Boot: 1, Reap: d.reap, Standing: true}, d.mint, at)
	if err == nil {
		d.record = a.record
	}
	return a, err
}

func (d *desk) must(t *testing.T, in intent) assignment {
	t.Helper()
	a, err := d.assign(in, epoch)
	if err != nil {
		t.Fatal(err)
	}
	return a
}

func (d *desk) values(at time.Time) []string {
	visible, _ := d.record.Visible(at)
	list := make([]string, 0, len(visible))
	for _, v := range visible {
		list = append(list, string(v.Value.Inline))
	}
	slices.Sort(list)
	return list
}

func value(s string) intent { return intent{Put: Put{Value: []byte(s)}, fresh: true} }

func TestAssignCaps(t *testing.T) {
	var d desk
	for i := range SiblingsMax {
		d.must(t, value(strconv.Itoa(i)))
	}
	before := d.record
	_, err := d.assign(value("one more"), epoch)
	var e *kv.Error
	if !errors.As(err, &e) || e.Code != kv.CodeTooManySiblings || e.Outcome != kv.NotApplied ||
		!strings.Contains(e.Message, "b/k has 100 siblings") {
		t.Errorf("sibling %d: %v", SiblingsMax+1, err)
	}
	// One that replaces another is let through, also above the cap, which repair
	// does not know.
	var other desk
	other.minted = 1000
	other.must(t, value("from elsewhere"))
	d.record = before.Merge(other.record)
	in := value("in place of one")
	in.Token.Seen = other.record.Clock
	d.must(t, in)
	in = value("in place of all")
	in.Token.Seen = d.record.Clock
	if d.must(t, in); len(d.record.Live) != 1 {
		t.Errorf("%d siblings are left", len(d.record.Live))
	}
}

func TestAssignObjectBytes(t *testing.T) {
	var d desk
	big := intent{Put: Put{Value: make([]byte, ObjectBytes/2)}, fresh: true}
	d.must(t, big)
	d.must(t, big)
	_, err := d.assign(value("x"), epoch)
	var e *kv.Error
	if !errors.As(err, &e) || e.Code != kv.CodeTooLarge || e.Outcome != kv.NotApplied {
		t.Errorf("over the limit: %v", err)
	}
	in := value("x")
	in.Token.Seen = d.record.Clock
	d.must(t, in)
}

func TestAssignSibling(t *testing.T) {
	var d desk
	in := intent{Put: Put{Value: []byte("v"), ContentType: "a/b", Meta: []kv.Meta{{Name: "m"}}, WriteID: d.id(epoch)}, n: 5}
	a := d.must(t, in)
	got := a.record.Live[0].Value
	if got.Kind != kv.KindValue || got.N != 5 || a.record.NMax != 5 || got.Stamp.Time() != epoch || got.External || got.Length != 1 ||
		got.Checksum != kv.Checksum(in.Value) || got.WriteID != in.WriteID || got.ContentType != "a/b" || len(got.Meta) != 1 {
		t.Errorf("%+v", got)
	}
	in = intent{Put: Put{Value: make([]byte, kv.InlineLimit+1)}, fresh: true}
	a = d.must(t, in)
	if v := a.record.Live[1].Value; !v.External || v.Inline != nil || v.Stamp <= got.Stamp {
		t.Errorf("large: %+v", v)
	}
	in = intent{Put: Put{Value: make([]byte, kv.InlineLimit)}, fresh: true}
	if v := d.must(t, in).record.Live[2].Value; v.External {
		t.Errorf("just small enough: %+v", v)
	}
	v := d.must(t, intent{Put: Put{Tombstone: true}, fresh: true}).record.Live[3].Value
	if v.Kind != kv.KindTombstone || v.External || v.Length != 0 {
		t.Errorf("tombstone: %+v", v)
	}
	if a.record.NMax != 5 {
		t.Errorf("n_max fell to %d", a.record.NMax)
	}
}

// A write's token covers what it found only if that is no value of others which
// a reader would be shown: not a tombstone, nor what has expired.
func TestTokenAfterWrite(t *testing.T) {
	soon := value("for now")
	soon.TTL = time.Minute
	for _, c := range []struct {
		name   string
		before intent
		at     time.Time
		covers bool
	}{
		{"a value", value("old"), epoch, false},
		{"a tombstone", intent{Put: Put{Tombstone: true}, fresh: true}, epoch, true},
		{"a value before its time", soon, epoch.Add(time.Minute - time.Millisecond), false},
		{"a value that has expired", soon, epoch.Add(time.Minute), true},
	} {
		var d desk
		first := d.must(t, c.before)
		second, err := d.assign(value("new"), c.at)
		if err != nil {
			t.Fatal(err)
		}
		seen := second.token.Seen
		if got := seen.Covers(first.dot) && seen.Covers(second.dot); got != c.covers || !got && len(seen) > 0 {
			t.Errorf("beside %s: seen is %v", c.name, seen)
		}
		next := value("next")
		next.Token = second.token
		if _, err := d.assign(next, c.at); err != nil {
			t.Fatal(err)
		}
		if got := d.values(c.at); (len(got) == 1) != c.covers {
			t.Errorf("beside %s: a write and the next of its chain leave %v", c.name, got)
		}
	}
}

// External values come along under their dots, the write's own under its new
// one; those that the record held before are not asked for.
func TestAssignmentBlobs(t *testing.T) {
	var d desk
	large := func(b byte) intent {
		return intent{Put: Put{Value: slices.Repeat([]byte{b}, kv.InlineLimit+1)}, fresh: true}
	}
	first := d.must(t, large('a'))
	second := d.must(t, large('b'))
	old := first.record
	blobs, err := second.blobs(old, newBlobs(large('b')))
	if err != nil || len(blobs) != 1 || blobs[0].Dot != second.dot || blobs[0].Data[0] != 'b' {
		t.Errorf("its own: %v, %v", blobs, err)
	}
	_, err = second.blobs(kv.Record{}, newBlobs(large('b')))
	var missing *MissingBlobsError
	if !errors.As(err, &missing) || !slices.Equal(missing.Dots, []vclock.Dot{first.dot}) {
		t.Errorf("another's: %v", err)
	}
	given := append(newBlobs(large('b')), kv.Blob{Dot: first.dot, Data: large('a').Value})
	if blobs, err = second.blobs(kv.Record{}, given); err != nil || len(blobs) != 2 || blobs[0].Data[0] != 'a' || blobs[1].Data[0] != 'b' {
		t.Errorf("both: %v, %v", blobs, err)
	}
}

func TestAssignIDs(t *testing.T) {
	const minute = time.Minute
	for _, tt := range []struct {
		name    string
		before  func(d *desk) kv.WriteID
		at      time.Duration
		fresh   bool
		value   string
		code    kv.Code
		outcome kv.Outcome
		after   []string
	}{
		{"new", (*desk).now, 0, false, "v", "", "", []string{"v"}},
		{"at the end of the window", (*desk).now, WriteIDWindow, false, "v", "", "", []string{"v"}},
		{"after it", (*desk).now, WriteIDWindow + time.Millisecond, false, "v", kv.CodeWriteIDExpired, kv.NotApplied, nil},
		{"of the near future", (*desk).now, -minute, false, "v", "", "", []string{"v"}},
		{"of the future", (*desk).now, -3 * minute, false, "v", kv.CodeWriteIDExpired, kv.NotApplied, nil},
		{"repeated", (*desk).once, minute, false, "first", "", "", []string{"first"}},
		{"repeated after the window, still known", (*desk).once, 3 * minute, false, "first", "", "", []string{"first"}},
		{"repeated with another value", (*desk).once, minute, false, "other", kv.CodeWriteIDReused, kv.NotApplied, []string{"first"}},
		{"repeated after it was replaced", (*desk).replaced, minute, false, "first", "", "", []string{"second"}},
		{"pushed out by later ones", (*desk).pushedOut, 0, false, "first", kv.CodeWriteIDExpired, kv.Unknown, []string{"last"}},
		{"older than what is remembered, and new", (*desk).late, 0, true, "v", "", "", []string{"last", "v"}},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d desk
			in := value(tt.value)
			in.WriteID = tt.before(&d)
			in.fresh = tt.fresh
			_, err := d.assign(in, epoch.Add(tt.at))
			var e *kv.Error
			if tt.code == "" && err != nil || tt.code != "" && (!errors.As(err, &e) || e.Code != tt.code || e.Outcome != tt.outcome) {
				t.Errorf("%v, want %q and %q", err, tt.code, tt.outcome)
			}
			if got := d.values(epoch.Add(tt.at)); !slices.Equal(got, tt.after) {
				t.Errorf("values %q, want %q", got, tt.after)
			}
		})
	}
}

func (d *desk) write(s string, id kv.WriteID, seen vclock.Clock) {
	in := value(s)
	in.WriteID, in.Token.Seen = id, seen
	if _, err := d.assign(in, epoch); err != nil {
		panic(err)
	}
}

// now issues an id.
func (d *desk) now() kv.WriteID { return d.id(epoch) }

// once writes under an id.
func (d *desk) once() kv.WriteID {
	id := d.id(epoch)
	d.write("first", id, nil)
	return id
}

// replaced does, and another write replaces it.
func (d *desk) replaced() kv.WriteID {
	id := d.once()
	d.write("second", kv.WriteID{}, d.record.Clock)
	return id
}

// pushedOut does, and later writes make the record forget the id.
func (d *desk) pushedOut() kv.WriteID {
	id := d.once()
	for i := range kv.MaxIDs {
		d.write(strconv.Itoa(i), d.id(epoch.Add(time.Second)), d.record.Clock)
	}
	d.write("last", kv.WriteID{}, d.record.Clock)
	return id
}

// late returns an id that was never used and lies before those remembered.
func (d *desk) late() kv.WriteID {
	d.pushedOut()
	return d.id(epoch.Add(-time.Second))
}

// Two clocks must agree that an id is old before it is forgotten.
func TestAssignForgetsByTwoClocks(t *testing.T) {
	const year = 365 * 24 * time.Hour
	for _, tt := range []struct {
		name   string
		now    time.Time // at the replica
		issued time.Time // zero: a write without an id
		kept   bool
	}{
		{"soon after", epoch.Add(time.Second), epoch.Add(time.Second), true},
		{"long after", epoch.Add(year), epoch.Add(year), false},
		{"the replica's clock is ahead", epoch.Add(writeIDMemory + time.Second), epoch.Add(WriteIDWindow + 2*time.Second), true},
		{"the replica's clock is ahead, no id", epoch.Add(year), time.Time{}, true},
	} {
		t.Run(tt.name, func(t *testing.T) {
			var d desk
			id := d.once()
			in := value("later")
			if !tt.issued.IsZero() {
				in.WriteID = d.id(tt.issued)
			}
			a, err := d.assign(in, tt.now)
			if err != nil {
				t.Fatal(err)
			}
			if kept := len(a.record.Attempts(id)) > 0; kept != tt.kept {
				t.Errorf("id kept: %v, want %v", kept, tt.kept)
			}
		})
	}
}

func TestAssignConditions(t *testing.T) {
	var empty, held, deleted desk
	tag := func(d desk) uint64 {
		visible, _ := d.record.Visible(epoch)
		return kv.ETag(visible)
	}
	held.must(t, value("a"))
	deleted.must(t, intent{Put: Put{Tombstone: true}, fresh: true})
	for _, tt := range []struct {
		name                 string
		c                    Condition
		empty, held, deleted bool
	}{
		{"none", Condition{}, true, true, true},
		{"if-match", Condition{IfMatch: []uint64{7, tag(held)}}, false, true, false},
		{"if-match of another", Condition{IfMatch: []uint64{7}}, false, false, false},
		{"if-match of nothing", Condition{IfMatch: []uint64{}}, false, false, false},
		{"if-match of the tag of no values", Condition{IfMatch: []uint64{tag(empty)}}, false, false, false},
		{"if-match any", Condition{IfMatchAny: true}, false, true, false},
		{"if-none-match", Condition{IfNoneMatch: []uint64{tag(held)}}, true, false, true},
		{"if-none-match of another", Condition{IfNoneMatch: []uint64{7}}, true, true, true},
		{"if-none-match of nothing", Condition{IfNoneMatch: []uint64{}}, true, true, true},
		{"if absent", Condition{IfAbsent: true}, true, false, true},
		{"both", Condition{IfMatch: []uint64{tag(held)}, IfNoneMatch: []uint64{tag(held)}}, false, false, false},
	} {
		for _, s := range []struct {
			d    desk
			want bool
		}{{empty, tt.empty}, {held, tt.held}, {deleted, tt.deleted}} {
			in := value("b")
			in.Condition = tt.c
			// What was collected is judged like what is held.
			for _, elsewhere := range []bool{false, true} {
				d := s.d
				if elsewhere {
					d.record, in.known.merged = kv.Record{}, s.d.record
				}
				_, err := d.assign(in, epoch)
				var e *kv.Error
				if met := err == nil; met != s.want || !met && (!errors.As(err, &e) || e.Code != kv.CodePrecondition || e.Outcome != kv.NotApplied) {
					t.Errorf("%s on %q: %v", tt.name, s.d.values(epoch), err)
				}
			}
		}
		// Only all owners can tell that an attempt under an id is the first.
		in := value("b")
		in.Condition, in.WriteID, in.fresh = tt.c, held.id(epoch), false
		for _, in.complete = range []bool{false, true} {
			d := held
			_, err := d.assign(in, epoch)
			var e *kv.Error
			if errors.As(err, &e) && (e.Outcome == kv.NotApplied) != in.complete {
				t.Errorf("%s: complete %v: %v", tt.name, in.complete, err)
			}
		}
	}
}

// shown is a token and the writes whose values its client was shown.
type shown struct {
	vclock.Token
	writes map[string]bool
}

// TestAssignReplacesOnlyWhatWasShown has clients write with any tokens that
// they were ever given, repeat attempts and meet conditions, at replicas that
// hear of one another now and then. No write may replace a value that its client
// was not shown, no token may cover one, and no write may show twice or return.
func TestAssignReplacesOnlyWhatWasShown(t *testing.T) {
	rapid.Check(t, func(t *rapid.T) {
		desks := make([]desk, 3)
		for i := range desks {
			desks[i].minted = vclock.Actor(1000 * i)
		}
		anyDesk := func() *desk { return &desks[rapid.IntRange(0, 2).Draw(t, "replica")] }
		tokens := []shown{{}}
		anyToken := func() shown { return rapid.SampledFrom(tokens).Draw(t, "token") }
		used := map[string]intent{}       // by value
		dots := map[string][]vclock.Dot{} // that attempts were given
		gone := map[string]bool{}         // replaced by somebody to whom it was shown
		replaced := func(name string, by vclock.Clock) bool { return slices.ContainsFunc(dots[name], by.Covers) }

		write := func(d *desk, in intent, s shown) {
			old := d.record
			a, err := d.assign(in, epoch)
			if errors.Is(err, errUnseen) {
				in.searched, in.known.merged = true, desks[0].record.Merge(desks[1].record).Merge(desks[2].record)
				a, err = d.assign(in, epoch)
			}
			if err != nil {
				return
			}
			base := desk{record: old.Merge(in.known.merged)}
			before := base.values(epoch)
			name := string(in.Value)
			next := shown{Token: a.token, writes: map[string]bool{name: true}}
			maps.Copy(next.writes, s.writes)
			if in.Overwrite || in.Condition.IfMatch != nil {
				for _, v := range before {
					next.writes[v] = true
				}
			}
			tokens = append(tokens, next)
			dots[name] = append(dots[name], a.dot)
			if !a.token.Floor.Dominates(a.record.Clock) || !a.token.Floor.Dominates(in.Token.Floor) {
				t.Fatalf("the floor %v is below %v", a.token.Floor, a.record.Clock)
			}
			replaces := in.supersedes(base.record)
			if in.Overwrite || in.named() { // all was written when the id was issued
				replaces = replaces.Merge(base.record.Clock)
			}
			for v := range dots {
				if replaced(v, a.token.Seen) && !next.writes[v] && !gone[v] {
					t.Fatalf("the token after %q covers %q", name, v)
				}
				if a.repeated || v == name || !replaced(v, replaces) {
					continue
				}
				if !next.writes[v] && !gone[v] {
					t.Fatalf("%q replaced %q, which its client was not shown", name, v)
				}
				gone[v] = true
			}
			if a.repeated && !slices.Equal(before, d.values(epoch)) {
				t.Fatalf("attempt %q again: %q became %q", name, before, d.values(epoch))
			}
		}
		t.Repeat(map[string]func(*rapid.T){
			"read": func(*rapid.T) {
				d := anyDesk()
				s := shown{Token: vclock.Token{Seen: d.record.Clock, Floor: d.record.Clock}, writes: map[string]bool{}}
				for _, v := range d.values(epoch) {
					s.writes[v] = true
				}
				tokens = append(tokens, s)
			},
			"write": func(t *rapid.T) {
				d, s := anyDesk(), anyToken()
				in := value(fmt.Sprint("v", len(used)))
				in.Token, in.fresh = s.Token, false
				in.WriteID = desks[0].id(epoch)
				in.Overwrite = rapid.IntRange(0, 9).Draw(t, "overwrite") == 0
				if visible, _ := d.record.Visible(epoch); rapid.IntRange(0, 4).Draw(t, "condition") == 0 {
					in.Condition.IfMatch = []uint64{kv.ETag(visible)}
				}
				used[string(in.Value)] = in
				write(d, in, s)
			},
			"repeat": func(t *rapid.T) {
				if len(used) == 0 {
					t.Skip("nothing to repeat")
				}
				name := rapid.SampledFrom(slices.Sorted(maps.Keys(used))).Draw(t, "value")
				s := anyToken()
				in := used[name]
				in.Token, in.Condition = s.Token, Condition{}
				write(anyDesk(), in, s)
			},
			"hear": func(*rapid.T) {
				d := anyDesk()
				d.record = d.record.Merge(anyDesk().record)
			},
			"": func(t *rapid.T) {
				all := desk{record: desks[0].record.Merge(desks[1].record).Merge(desks[2].record)}
				seen := map[string]bool{}
				for _, v := range all.values(epoch) {
					if seen[v] || gone[v] {
						t.Fatalf("%q shows twice, or was replaced (%v) and came back", v, gone[v])
					}
					seen[v] = true
				}
			},
		})
	})
}
