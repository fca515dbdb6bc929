package badgerengine

import "testing"

func TestReadersKeepWhatTheyNeed(t *testing.T) {
	r := newReaders(5)
	first, _ := r.enter()
	second, _ := r.enter()
	if first != 5 || second != 5 {
		t.Fatalf("reads see %d and %d, want 5", first, second)
	}
	if got := r.show(6); got != 5 {
		t.Errorf("oldest version in use is %d, want 5", got)
	}
	third, _ := r.enter()
	if third != 6 {
		t.Errorf("a later read sees %d, want 6", third)
	}
	r.leave(first)
	if got := r.show(7); got != 5 {
		t.Errorf("after one of two left it is %d, want 5", got)
	}
	r.leave(second)
	if got := r.show(8); got != 6 {
		t.Errorf("after both left it is %d, want 6", got)
	}
	r.leave(third)
	if got := r.show(9); got != 9 {
		t.Errorf("without reads it is %d, want 9", got)
	}
}

func TestReadersClose(t *testing.T) {
	r := newReaders(1)
	version, _ := r.enter()
	closed := make(chan bool)
	go func() { closed <- r.close() }()
	for ok := true; ok; { // until close has begun
		var v uint64
		if v, ok = r.enter(); ok {
			r.leave(v)
		}
	}
	select {
	case <-closed:
		t.Error("closed with a read under way")
	default:
	}
	r.leave(version)
	if !<-closed {
		t.Error("the first close says that it was not the first")
	}
	if r.close() {
		t.Error("the second close says that it was the first")
	}
}
