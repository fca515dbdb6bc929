package membership_test

import (
	"errors"
	"fmt"
	"slices"
	"sync"
	"testing"

	"pgregory.net/rapid"

	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/membership/membershiptest"
	"github.com/starling-kv/starling/ring"
)

var ours, theirs = ring.ClusterID{1}, ring.ClusterID{2}

// layout makes a layout with one member, which tells it from others.
func layout(t *testing.T, cluster ring.ClusterID, version uint64, member string) *ring.Layout {
	t.Helper()
	l, err := ring.Compute(cluster, version, []ring.Member{{ID: 1, Name: member, Address: "h:1", Weight: 1}}, 1, nil)
	if err != nil {
		t.Fatal(err)
	}
	return l
}

func viewOf(t *testing.T, layouts ...*ring.Layout) (v ring.View) {
	t.Helper()
	for _, l := range layouts {
		var err error
		if v, err = v.With(l); err != nil {
			t.Fatal(err)
		}
	}
	return v
}

func openViews(t *testing.T, d *membershiptest.Disk) *membership.Views {
	t.Helper()
	v, err := membership.OpenViews(d, d)
	if err != nil {
		t.Fatal(err)
	}
	return v
}

func TestLearn(t *testing.T) {
	d := new(membershiptest.Disk)
	v := openViews(t, d)
	if v.Current().Digest() != 0 || v.Durable().Digest() != 0 {
		t.Error("a new node knows a layout")
	}
	var heard []uint64
	v.OnChange(func(now ring.View) { heard = append(heard, now.Digest()) })

	one, two := layout(t, ours, 1, "one"), layout(t, ours, 2, "two")
	for _, in := range []ring.View{{}, viewOf(t, one), viewOf(t, two), viewOf(t, one)} {
		if err := v.Learn(in); err != nil {
			t.Fatal(err)
		}
	}
	both := viewOf(t, one, two)
	if v.Current().Digest() != both.Digest() || v.Durable().Digest() != both.Digest() {
		t.Error("the view is not the union of what was learnt")
	}
	if want := []uint64{viewOf(t, one).Digest(), both.Digest()}; !slices.Equal(heard, want) {
		t.Errorf("heard of %x, want each change once: %x", heard, want)
	}
	if cluster, bound := v.Cluster(); !bound || cluster != ours {
		t.Errorf("bound to %s", cluster)
	}
	if again := openViews(t, d); again.Durable().Digest() != both.Digest() || again.Current().Digest() != both.Digest() {
		t.Error("the view is not there after a restart")
	}
}

func TestLearnRefusesAnotherCluster(t *testing.T) {
	d := new(membershiptest.Disk)
	v := openViews(t, d)
	if err := d.Bind(ours); err != nil {
		t.Fatal(err)
	}
	var foreign *ring.ClusterError
	if err := v.Learn(viewOf(t, layout(t, theirs, 1, "x"))); !errors.As(err, &foreign) || foreign.Want != ours || foreign.Got != theirs {
		t.Errorf("Learn returned %v", err)
	}
	if stored(t, d) != nil || v.Current().Digest() != 0 {
		t.Error("the foreign view was stored")
	}
}

// The fence rises with the commit, and the word of it is given after the sync.
func TestViewIsInForceBeforeItIsDurable(t *testing.T) {
	d := new(membershiptest.Disk)
	v := openViews(t, d)
	in := viewOf(t, layout(t, ours, 1, "one"))
	synced := false
	d.Sync = func() error {
		synced = true
		if v.Current().Digest() != in.Digest() {
			t.Error("a write that is committed next would not be judged by the layout")
		}
		if v.Durable().Digest() != 0 {
			t.Error("the layout counts as durable before its sync")
		}
		return nil
	}
	if err := v.Learn(in); err != nil || !synced {
		t.Fatalf("Learn returned %v, synced: %t", err, synced)
	}
}

func TestViewThatWasNotSynced(t *testing.T) {
	d := new(membershiptest.Disk)
	v := openViews(t, d)
	one, two := viewOf(t, layout(t, ours, 1, "one")), viewOf(t, layout(t, ours, 2, "two"))
	broken := errors.New("broken disk")
	d.Sync = func() error { return broken }
	if err := v.Learn(one); !errors.Is(err, membership.ErrViewNotDurable) || !errors.Is(err, broken) {
		t.Errorf("Learn returned %v", err)
	}
	d.Sync = nil // it seems well again; what it holds is not known
	for _, in := range []ring.View{one, two} {
		if err := v.Learn(in); !errors.Is(err, membership.ErrViewNotDurable) {
			t.Errorf("Learn returned %v after a failure", err)
		}
	}
	if v.Current().Digest() != one.Digest() || v.Durable().Digest() != 0 {
		t.Error("want the layout in force, and not durable")
	}
}

// Commits that return in another order than they were made leave the later one.
func TestDurableNeverGoesBack(t *testing.T) {
	d := new(membershiptest.Disk)
	v := openViews(t, d)
	one, two := viewOf(t, layout(t, ours, 1, "one")), viewOf(t, layout(t, ours, 2, "two"))
	first := true
	d.Sync = func() error {
		if first {
			first = false
			return v.Learn(two)
		}
		return nil
	}
	if err := v.Learn(one); err != nil {
		t.Fatal(err)
	}
	if v.Durable().Digest() != v.Current().Digest() || len(v.Durable().Active()) != 2 {
		t.Error("the durable view lacks a layout")
	}
}

func TestLearnConcurrently(t *testing.T) {
	rapid.Check(t, func(rt *rapid.T) {
		d := new(membershiptest.Disk)
		v := openViews(t, d)
		var all ring.View
		ins := make([]ring.View, rapid.IntRange(1, 8).Draw(rt, "layouts"))
		for i := range ins {
			in := viewOf(t, layout(t, ours, uint64(1+i/2), fmt.Sprintf("m%d", i)))
			ins[i] = in
			all, _ = all.Merge(in)
		}
		var done sync.WaitGroup
		for _, in := range ins {
			done.Go(func() {
				if err := v.Learn(in); err != nil || !v.Durable().Contains(in) {
					rt.Errorf("Learn returned %v, durable: %t", err, v.Durable().Contains(in))
				}
			})
		}
		done.Wait()
		if v.Durable().Digest() != all.Digest() || openViews(t, d).Current().Digest() != all.Digest() {
			rt.Error("not all that was learnt is there")
		}
	})
}

func TestOpenViews(t *testing.T) {
	view := viewOf(t, layout(t, ours, 1, "one")).Append(nil)
	for _, c := range []struct {
		name    string
		cluster ring.ClusterID // that the directory is bound to
		view    []byte
		ok      bool
	}{
		{name: "empty", ok: true},
		{name: "bound, no view yet", cluster: ours, ok: true},
		{name: "bound", cluster: ours, view: view, ok: true},
		{name: "view without its cluster", view: view, ok: true},
		{name: "view of another cluster", cluster: theirs, view: view},
		{name: "damaged view", cluster: ours, view: view[:len(view)-1]},
	} {
		t.Run(c.name, func(t *testing.T) {
			d := new(membershiptest.Disk)
			if err := d.Update(func([]byte) ([]byte, error) { return c.view, nil }); err != nil {
				t.Fatal(err)
			}
			if c.cluster != (ring.ClusterID{}) {
				if err := d.Bind(c.cluster); err != nil {
					t.Fatal(err)
				}
			}
			v, err := membership.OpenViews(d, d)
			if (err == nil) != c.ok {
				t.Fatalf("OpenViews returned %v", err)
			}
			if err == nil && v.Current().Digest() != 0 {
				if cluster, bound := v.Cluster(); !bound || cluster != ours {
					t.Errorf("bound to %s, want the cluster of the view", cluster)
				}
			}
		})
	}
}

func stored(t *testing.T, d *membershiptest.Disk) []byte {
	t.Helper()
	b, err := d.Load()
	if err != nil {
		t.Fatal(err)
	}
	return b
}
