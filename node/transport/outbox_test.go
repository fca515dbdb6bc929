package transport

import (
	"bytes"
	"errors"
	"io"
	"sync"
	"testing"
)

// recorder is a connection that takes bytes, up to a number of them.
type recorder struct {
	mu     sync.Mutex
	got    []byte
	writes int
	most   int // 0: any number
}

var errCut = errors.New("cut")

func (r *recorder) Write(b []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.writes++
	n := len(b)
	if r.most > 0 {
		n = min(n, r.most-len(r.got))
	}
	r.got = append(r.got, b[:n]...)
	if n < len(b) {
		return n, errCut
	}
	return n, nil
}

func addAll(t *testing.T, o *outbox, sizes ...int) (ends []uint64) {
	t.Helper()
	for i, size := range sizes {
		end, err := o.add(header{kind: kindRequest, id: uint64(i + 1)}, make([]byte, size))
		if err != nil {
			t.Fatal(err)
		}
		ends = append(ends, end)
	}
	return ends
}

func TestOutboxKeepsOrderAndGathers(t *testing.T) {
	o := newOutbox(64 << 20)
	sizes := []int{1, 10, 100, bulkBody + 1, 2, 3, 4 * writeChunk, 0}
	ends := addAll(t, o, sizes...)
	o.finish()
	var to recorder
	if err := o.flush(&to); err != nil {
		t.Fatal(err)
	}
	if o.sent != ends[len(ends)-1] || o.sent != uint64(len(to.got)) {
		t.Errorf("sent %d, queued %d, written %d", o.sent, ends[len(ends)-1], len(to.got))
	}
	r := newFrameReader(bytes.NewReader(to.got), 8*writeChunk)
	for i, size := range sizes {
		if f, err := r.next(); err != nil || f.id != uint64(i+1) || len(f.body) != size {
			t.Fatalf("frame %d: %+v of %d bytes, error %v", i, f.header, len(f.body), err)
		}
	}
	// Each run of small frames goes in one write, a large frame in chunks.
	if want := 1 + 1 + 1 + 5 + 1; to.writes != want {
		t.Errorf("%d writes, want %d", to.writes, want)
	}
}

// Which frames left is what decides between "not run" and "may have run".
func TestOutboxKnowsWhatLeft(t *testing.T) {
	for most := 1; most < 3*(frameExtra+10); most++ {
		o := newOutbox(1 << 20)
		ends := addAll(t, o, 10, 10, 10)
		to := recorder{most: most}
		if err := o.flush(&to); !errors.Is(err, errCut) {
			t.Fatalf("cut after %d: %v", most, err)
		}
		r := newFrameReader(bytes.NewReader(to.got), 1<<20)
		for i, end := range ends {
			_, err := r.next()
			if arrived := err == nil; arrived != (end <= o.sent) {
				t.Errorf("cut after %d: frame %d arrived %v, sent %d of its %d", most, i, arrived, o.sent, end)
			}
		}
	}
}

func TestOutboxIsBounded(t *testing.T) {
	o := newOutbox(1000)
	addAll(t, o, 400, 400)
	if _, err := o.add(header{}, make([]byte, 400)); !errors.Is(err, ErrQueueFull) {
		t.Errorf("over the limit: %v", err)
	}
	if err := o.addShort(header{kind: kindPing}, nil); err != nil {
		t.Errorf("a short frame over the limit: %v", err)
	}
	o.finish()
	if err := o.flush(io.Discard); err != nil {
		t.Fatal(err)
	}
	if o.held != 0 {
		t.Errorf("%d bytes held after all were written", o.held)
	}
	if _, err := o.add(header{}, nil); !errors.Is(err, errOutboxClosed) {
		t.Errorf("after finish: %v", err)
	}
}

func TestOutboxClosedWritesNothing(t *testing.T) {
	o := newOutbox(1000)
	addAll(t, o, 1)
	o.close()
	o.finish()
	var to recorder
	if err := o.flush(&to); err != nil || len(to.got) > 0 {
		t.Errorf("wrote %d bytes, error %v", len(to.got), err)
	}
}

func TestOutboxKeepsNoLargeBuffer(t *testing.T) {
	o := newOutbox(64 << 20)
	for range 100 {
		addAll(t, o, bulkBody)
	}
	addAll(t, o, 2*bulkBody)
	o.finish()
	if err := o.flush(io.Discard); err != nil {
		t.Fatal(err)
	}
	if cap(o.spare) > keptBuffer {
		t.Errorf("keeps %d bytes", cap(o.spare))
	}
}
