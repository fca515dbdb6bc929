package bench

import (
	"context"
	"errors"
	"math/rand/v2"
	"time"
)

// worker is one connection at work.
type worker struct {
	*load

	id    int
	conn  Conn // nil while there is none
	rng   *rand.Rand
	rec   *recorder
	key   []byte
	token []byte
	saw   Counts // of the request under way
}

func (l *load) worker(i int, conn Conn) *worker {
	return &worker{
		load: l, id: i, conn: conn, rec: l.recorders[i],
		rng: rand.New(rand.NewPCG(l.Seed, uint64(i))),
	}
}

// run sends requests until the load has ended, and closes the connection. Ctx
// ends some time after the load.
func (w *worker) run(ctx context.Context) {
	defer w.hangUp()
	if w.Rate > 0 {
		w.runOpen(ctx)
		return
	}
	for now := time.Now(); now.Before(w.end) && ctx.Err() == nil; {
		now = w.request(ctx, now, now)
	}
}

// runOpen sends each request when it is due, or as soon after as the
// connection is free; a client without patience leaves out those that it is too
// late for.
func (w *worker) runOpen(ctx context.Context) {
	s := schedule{start: w.start, rate: w.Rate, connections: int64(w.Connections), index: int64(w.id)}
	total := s.until(w.end)
	for i := int64(0); i < total; i++ {
		if w.Patience > 0 {
			i += w.giveUp(s, i, min(total, s.until(time.Now().Add(-w.Patience))))
		}
		if i == total {
			return
		}
		due := s.due(i)
		if !sleepUntil(ctx, due) {
			w.rec.unsent(total - i)
			return
		}
		w.request(ctx, due, time.Now())
	}
}

// giveUp counts the requests from i until first as given up, and returns how
// many they are. Those of the warm-up do not count.
func (w *worker) giveUp(s schedule, i, first int64) int64 {
	if first <= i {
		return 0
	}
	w.rec.givenUp(max(0, first-max(i, s.until(w.from))))
	return first - i
}

// request carries out one operation and returns when it ended.
func (w *worker) request(ctx context.Context, due, sent time.Time) time.Time {
	op := w.Workload.next(w.rng)
	w.saw = Counts{}
	err := w.connect(ctx)
	if err == nil {
		err = w.carryOut(op)
	}
	end := time.Now()
	w.rec.done(op, due, sent, end, w.saw, err)
	if err != nil && !isStatus(err) {
		w.hangUp()
	}
	return end
}

func isStatus(err error) bool {
	_, ok := errors.AsType[*StatusError](err)
	return ok
}

// connect dials again after the connection was lost, at most every few
// milliseconds.
func (w *worker) connect(ctx context.Context) (err error) {
	if w.conn != nil {
		return nil
	}
	sleepUntil(ctx, time.Now().Add(redialPause))
	w.conn, err = w.Dial(ctx, w.id)
	return err
}

func (w *worker) hangUp() {
	if w.conn != nil {
		_ = w.conn.Close()
		w.conn = nil
	}
}

func (w *worker) carryOut(op Operation) error {
	if op == Insert {
		return w.insert()
	}
	key := w.chooser.next(w.rng, w.acknowledged())
	w.key = appendKey(w.key[:0], w.Set, key, w.KeySize)
	switch op {
	case Modify:
		if err := w.read(key); err != nil {
			return err
		}
		return w.write(key)
	case Update:
		return w.write(key)
	case Read, Insert:
	}
	return w.read(key)
}

// acknowledged returns how many keys there are, without the newest, which may
// still be on their way: a connection has one under way at most.
func (w *worker) acknowledged() int64 {
	return max(w.Keys, w.size.Load()-int64(w.Connections))
}

func (w *worker) insert() error {
	w.key = appendKey(w.key[:0], w.Set, w.size.Add(1)-1, w.KeySize)
	_, err := w.conn.Put(w.key, w.value(), nil)
	return err
}

func (w *worker) read(key int64) error {
	a, err := w.conn.Get(w.key)
	if err != nil {
		return err
	}
	if !a.Found {
		w.saw.Missing++
	}
	if w.Tokens != nil && a.Token != nil {
		w.Tokens.put(key, a.Token, true) // a read shows all siblings
	}
	return nil
}

// write writes the key, with its token if tokens are kept. A key of which not
// all is known is read before.
func (w *worker) write(key int64) error {
	if w.Tokens == nil {
		_, err := w.conn.Put(w.key, w.value(), nil)
		return err
	}
	var ok bool
	if w.token, ok = w.Tokens.get(w.token[:0], key); !ok {
		w.saw.Resolving++
		a, err := w.conn.Get(w.key)
		if err != nil {
			return err
		}
		w.token = append(w.token[:0], a.Token...)
	}
	a, err := w.conn.Put(w.key, w.value(), w.token)
	if err != nil {
		return err
	}
	if a.Siblings > 1 {
		w.saw.Conflicts++
	}
	w.Tokens.put(key, a.Token, a.Siblings <= 1)
	return nil
}

// value is a part of the random bytes, another for each write.
func (w *worker) value() []byte {
	at := w.rng.IntN(len(w.values) - w.ValueSize)
	return w.values[at : at+w.ValueSize]
}
