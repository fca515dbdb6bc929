package bench

import (
	"context"
	"errors"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

// fakeSystem takes a time for each request, one more for each when synced.
func fakeSystem(name string, takes time.Duration, events *[]string) System {
	return System{
		Name: name, Version: "1", Setting: "fake", Tokens: name == Starling,
		Variants: []Variant{{Name: VariantName(name, false)}, {Name: VariantName(name, true), Sync: true, WritesOnly: true}},
		Start: func(context.Context) (Instance, error) {
			*events = append(*events, "start "+name)
			return &fakeInstance{name, newFakeStore(takes), takes, events}, nil
		},
	}
}

type fakeInstance struct {
	name   string
	store  *fakeStore
	takes  time.Duration
	events *[]string
}

func (i *fakeInstance) Dial(v Variant, preload bool) Dial {
	takes := i.takes
	switch {
	case preload:
		takes = 0
		*i.events = append(*i.events, "fill "+i.name)
	case v.Sync:
		takes *= 2
	}
	i.store.takes = func() time.Duration { return takes }
	return i.store.dial
}

func (i *fakeInstance) PIDs() []int { return nil }

func (i *fakeInstance) Stop() error {
	*i.events = append(*i.events, "stop "+i.name)
	return nil
}

func testComparison(rows []Row, systems ...System) Comparison {
	return Comparison{
		Systems: systems, Rows: rows, Rounds: 2, Keys: 10, LargeKeys: 5, KeySize: 8, WarmUp: time.Second, Duration: time.Second,
		Say:     func(string) {},
		Preload: func(ctx context.Context, _ string, p Preload) error { return p.Run(ctx) },
	}
}

func TestCompare(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		c := testComparison(Rows(4)[:2],
			fakeSystem(Skeleton, time.Millisecond, &events), fakeSystem(Starling, 2*time.Millisecond, &events),
			System{Name: "absent", Missing: "apt-get install absent"})
		r, err := Compare(t.Context(), c)
		if err != nil {
			t.Fatal(err)
		}
		want := "start skeleton, fill skeleton, stop skeleton, start starling, fill starling, stop starling, " +
			"start skeleton, stop skeleton, start starling, stop starling"
		if got := strings.Join(events, ", "); got != want {
			t.Errorf("what happened: %s\nwant: %s", got, want)
		}
		if len(r.Rows) != 2 || len(r.Rows[0].Cells) != 2 || len(r.Rows[1].Cells) != 4 || r.Systems[2].Missing == "" {
			t.Fatalf("%+v", r)
		}
		reads, writes := r.Rows[0].Cells, r.Rows[1].Cells
		if !near(reads[0].Throughput, 4000) || !near(reads[1].OfSkeleton, 0.5) || !near(reads[0].StarlingOver, 0.5) || reads[0].Rounds != 2 {
			t.Errorf("reads: %+v", reads)
		}
		if writes[3].Variant != "starling sync" || !near(writes[3].Throughput, 1000) || !near(writes[3].OfSkeleton, 0.5) {
			t.Errorf("writes: %+v", writes)
		}
	})
}

// What was measured before a failure is told beside it.
func TestCompareFails(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		broken := System{
			Name: "broken", Variants: []Variant{{Name: "broken"}},
			Start: func(context.Context) (Instance, error) { return nil, errors.New("no disk") },
		}
		r, err := Compare(t.Context(), testComparison(Rows(4)[:1], fakeSystem(Skeleton, time.Millisecond, &events), broken))
		if err == nil || !strings.Contains(err.Error(), "round 1, broken: no disk") {
			t.Errorf("error %v", err)
		}
		if r == nil || len(r.Rows) != 1 || len(r.Rows[0].Cells) != 1 {
			t.Errorf("%+v", r)
		}
	})
}

// The large set has keys of its own, written only if a row uses it.
func TestCompareLargeValues(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var events []string
		s := fakeSystem(Starling, time.Millisecond, &events)
		s.Variants = s.Variants[:1]
		r, err := Compare(t.Context(), testComparison(Rows(4)[3:4], s))
		if err != nil || r.Rows[0].ValueSize != largeValue || len(r.Rows[0].Cells) != 1 {
			t.Errorf("%+v, %v", r, err)
		}
		if got := strings.Join(events, ", "); strings.Count(got, "fill") != 1 {
			t.Error(got)
		}
	})
}
