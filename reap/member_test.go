package reap

import (
	"errors"
	"slices"
	"testing"
	"time"

	"github.com/starling-kv/starling/kv"
)

var (
	deleted = recordOf(draft{written: ago(50 * time.Hour)}, draft{deletes: true, written: ago(48 * time.Hour)})
	older   = recordOf(draft{written: ago(50 * time.Hour)})
	newer   = recordOf(draft{written: ago(50 * time.Hour)}, draft{deletes: true, written: ago(48 * time.Hour)}, draft{written: noon})
)

// desk is one member and a round that would reap its one key.
type desk struct {
	*host

	own, hint, quarantined kv.Slot
	req                    Request
}

func newDesk(t *testing.T) *desk {
	t.Helper()
	h := newCluster(t, 3).hosts[0]
	h.number[1] = 6
	key := keysOf(h.view, 1, 1)[0]
	return &desk{
		host: h, own: kv.Slot{Partition: 1, Key: key},
		hint:        kv.Slot{Target: 77, Partition: 1, Key: key},
		quarantined: kv.Slot{Target: kv.Quarantine, Partition: 1, Key: key},
		req: Request{View: h.view.Digest(), Partition: 1, Number: 7, Items: []Item{
			{Key: key, Digest: digest(key, deleted), Reaping: kv.Reaping{Drop: dots(2)}, Due: noon},
		}},
	}
}

func TestConfirm(t *testing.T) {
	for _, tt := range []struct {
		name   string
		set    func(*desk)
		want   bool
		number uint64
	}{
		{"nothing there", func(*desk) {}, true, 7},
		{"the record", func(d *desk) { d.records[d.own] = deleted }, true, 7},
		{"the record of another actor's", func(d *desk) {
			mine := deleted
			mine.Mine = kv.Mine{Actor: 2, Boot: 9}
			d.records[d.own] = mine
		}, true, 7},
		{"the record as a hint", func(d *desk) { d.records[d.hint] = deleted }, true, 7},
		{"an older one", func(d *desk) { d.records[d.own] = older }, false, 6},
		{"a newer one", func(d *desk) { d.records[d.own] = newer }, false, 6},
		{"an older hint", func(d *desk) { d.records[d.own], d.records[d.hint] = deleted, older }, false, 6},
		{"the record in quarantine", func(d *desk) { d.records[d.quarantined] = deleted }, false, 6},
		{"what cannot be read", func(d *desk) { d.damaged[d.own] = true }, false, 6},
		{"a clock that is behind", func(d *desk) { d.clock = func() time.Time { return ago(time.Millisecond) } }, false, 6},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			tt.set(d)
			got, err := d.member.Confirm(t.Context(), d.req)
			if err != nil || got.Refusal != 0 || !slices.Equal(got.Done, []bool{tt.want}) || got.Number != tt.number {
				t.Errorf("%+v, %v", got, err)
			}
			if d.number[1] != tt.number || d.number[0] != 0 {
				t.Errorf("numbers %v", d.number)
			}
		})
	}
}

// Of several items, each is judged by itself, and one confirmed is enough to
// raise the number.
func TestConfirmSome(t *testing.T) {
	d := newDesk(t)
	d.records[d.own] = newer
	other := d.req.Items[0]
	other.Key = keysOf(d.view, 1, 2)[1]
	d.req.Items = append(d.req.Items, other)
	got, err := d.member.Confirm(t.Context(), d.req)
	if err != nil || !slices.Equal(got.Done, []bool{false, true}) || d.number[1] != 7 {
		t.Errorf("%+v, %v, number %d", got, err, d.number[1])
	}
}

// The start of a member that is heard of meanwhile may be one whose disk was lost:
// it is told the number, or nothing was confirmed.
func TestConfirmWhileAMemberStarts(t *testing.T) {
	d := newDesk(t)
	d.records[d.own] = deleted
	d.raised = func() { d.lives++ }
	got, err := d.member.Confirm(t.Context(), d.req)
	if err != nil || got.Refusal != RefusedLives || got.Number != 7 || d.number[1] != 7 {
		t.Errorf("%+v, %v, number %d", got, err, d.number[1])
	}
}

func TestApply(t *testing.T) {
	d := newDesk(t)
	d.number[1] = 7
	d.records[d.own], d.records[d.hint], d.records[d.quarantined] = deleted, deleted, deleted
	got, err := d.member.Apply(t.Context(), d.req)
	if err != nil || !slices.Equal(got.Done, []bool{true}) || len(d.records) != 1 || d.records[d.quarantined].Absent() {
		t.Errorf("%+v, %v, left %v", got, err, d.records)
	}
	got, err = d.member.Apply(t.Context(), d.req)
	if err != nil || !slices.Equal(got.Done, []bool{false}) {
		t.Errorf("again: %+v, %v", got, err)
	}
	d.records[d.own], d.records[d.hint] = newer, older
	got, err = d.member.Apply(t.Context(), d.req)
	if err != nil || !slices.Equal(got.Done, []bool{false}) || len(d.records) != 3 {
		t.Errorf("what is not equal: %+v, %v, left %v", got, err, d.records)
	}
}

func TestRefusals(t *testing.T) {
	for _, tt := range []struct {
		name           string
		set            func(*desk)
		confirm, apply Refusal
	}{
		{"before", func(*desk) {}, 0, RefusedNumber},
		{"an equal number", func(d *desk) { d.number[1] = 7 }, RefusedNumber, 0},
		{"a higher number", func(d *desk) { d.number[1] = 8 }, RefusedNumber, 0},
		{"another view", func(d *desk) { d.req.View++ }, RefusedView, RefusedView},
		{"not in good standing", func(d *desk) { d.fallen = true }, RefusedStanding, RefusedStanding},
		{"another start of a member", func(d *desk) { d.lives++ }, RefusedLives, RefusedNumber},
	} {
		t.Run(tt.name, func(t *testing.T) {
			d := newDesk(t)
			d.records[d.own] = deleted
			tt.set(d)
			number := d.number[1]
			got, err := d.member.Apply(t.Context(), d.req)
			if err != nil || got.Refusal != tt.apply || got.Number != number || tt.apply != 0 && d.records[d.own].Absent() {
				t.Errorf("apply: %+v, %v", got, err)
			}
			got, err = d.member.Confirm(t.Context(), d.req)
			if err != nil || got.Refusal != tt.confirm || tt.confirm != 0 && d.number[1] != number {
				t.Errorf("confirm: %+v, %v", got, err)
			}
		})
	}
}

func TestMemberErrors(t *testing.T) {
	d := newDesk(t)
	d.req.Items[0].Key = keysOf(d.view, 0, 1)[0]
	if _, err := d.member.Confirm(t.Context(), d.req); !errors.Is(err, errMisplaced) {
		t.Errorf("a key of another partition: %v", err)
	}
	d = newDesk(t)
	d.failing = errDamaged
	if _, err := d.member.Confirm(t.Context(), d.req); !errors.Is(err, errDamaged) {
		t.Errorf("a store that fails: %v", err)
	}
}
