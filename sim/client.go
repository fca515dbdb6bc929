package sim

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"time"

	"github.com/starling-kv/starling/coordinator"
	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/vclock"
)

// client does its operations one after the other. All of it but the calls of
// nodes runs on the gate's goroutine.
type client struct {
	w     *world
	index int
	ops   []Op
	held  map[int][]heldToken // by key, the oldest first
}

// heldToken is a context as a client got it, and what it stands for.
type heldToken struct {
	text      string
	etag      uint64
	must, may ids
	floor     ids // what an answer under this floor must reflect
}

// attempt is one try of one operation at one node.
type attempt struct {
	client  *client
	record  *record
	process *process
	tries   int
	doubt   bool // an earlier try may have been applied
	sent    heldToken
	put     coordinator.Put
	over    bool
}

// answer is what came of an attempt.
type answer struct {
	got  coordinator.Got
	done coordinator.PutDone
	err  error
}

var (
	errDown    = errors.New("connection refused")
	errGone    = errors.New("connection lost")
	errNoToken = errors.New("nothing to delete: the client has no context")
)

// refusals come before anything was asked of a node's coordinator.
var refusals = []error{
	errDown, errNoToken, vclock.ErrTokenExpired, vclock.ErrTokenForeign, vclock.ErrTokenForged, vclock.ErrTokenMalformed,
}

// next schedules the client's next operation.
func (c *client) next() {
	if len(c.ops) == 0 {
		c.w.idle()
		return
	}
	o := c.ops[0]
	c.ops = c.ops[1:]
	c.begin(&attempt{client: c, record: c.w.history.records[o.ID]}, c.w.zero+o.At, o.Node)
}

// grain is for how many operations there is a moment of their own in two
// thousandths of a millisecond.
const grain = 1024

// begin schedules a try at a node. Each begins at a moment of its own, so that
// its timers do.
func (c *client) begin(a *attempt, at time.Duration, node int) {
	at = max(at, c.w.gate.now())
	at += 2*grain - at%(2*grain) + time.Duration(a.record.ID%grain)*2 + 1
	m := c.w.machines[node]
	c.w.gate.schedule(at, fmt.Sprintf("client %d #%d try %d at %s", c.index, a.record.ID, a.tries, m.name), func() {
		if until, ok := c.w.net.paused(m.id); ok {
			c.begin(a, until, node)
			return
		}
		a.send(m)
	})
}

// send makes the request of the node.
func (a *attempt) send(m *machine) {
	w, r := a.client.w, a.record
	if r.begin == 0 {
		r.begin, r.since = w.history.moment(), w.gate.now()
		a.prepare()
	}
	a.process, a.over = m.process, false
	if a.process == nil {
		a.finish(answer{err: errDown})
		return
	}
	if r.Kind == Delete && a.sent.text == "" {
		a.finish(answer{err: errNoToken})
		return
	}
	token, err := a.token()
	if err != nil {
		a.finish(answer{err: err})
		return
	}
	a.process.attempts[a] = true
	p, tries := a.process, a.tries
	run := a.request(token)
	ends := func(ans answer) {
		if p.endpoint.dead.Load() { // the client has been told; when a dead process ends means nothing
			return
		}
		w.gate.post(fmt.Sprintf("end of #%d try %d", r.ID, tries), func(uint64) { a.deliver(m, p, ans) })
	}
	w.requests.Go(func() { ends(run(p.Coordinator())) })
}

// deliver brings the answer of a node that still lives.
func (a *attempt) deliver(m *machine, p *process, ans answer) {
	w := a.client.w
	w.gate.schedule(w.net.leaving(m.id, uint64(a.record.ID)), fmt.Sprintf("end of #%d try %d", a.record.ID, a.tries), func() {
		switch _, paused := w.net.paused(m.id); {
		case !p.attempts[a]: // the process ended, and the client was told
		case paused:
			a.deliver(m, p, ans)
		default:
			a.finish(ans)
		}
	})
}

// prepare settles, at the first try, what all tries send.
func (a *attempt) prepare() {
	r, c := a.record, a.client
	if held := c.held[r.Key]; len(held) > 0 {
		switch r.Context {
		case LastContext:
			a.sent = held[len(held)-1]
		case OldContext:
			a.sent = held[r.ID%len(held)]
		case NoContext:
		}
	}
	r.must, r.may, r.floor = a.sent.must, a.sent.may, a.sent.floor
	r.replacesAll = r.Condition != Always
	a.put = coordinator.Put{
		Key: c.w.key(r.Key), Options: r.options(), Tombstone: r.Kind == Delete, Value: r.value(), ContentType: "text/plain",
		Overwrite: r.Condition == Overwrite, TTL: r.TTL,
	}
	if r.Kind == Delete {
		a.put.Value, a.put.ContentType = nil, ""
	}
	switch r.Condition {
	case IfMatch:
		a.put.Condition.IfMatch = []uint64{a.sent.etag}
	case IfAbsent:
		a.put.Condition.IfAbsent = true
	case Always, Overwrite:
	}
	if r.WriteID {
		r.writeID = r.issue(c.w.plan.Seed, time.Now())
		a.put.WriteID = r.writeID
	}
}

func (o Op) options() coordinator.Options {
	out := coordinator.Options{
		N: o.N, R: coordinator.Exactly(o.R), W: coordinator.Exactly(o.W), Sloppy: o.Sloppy, Timeout: o.Timeout,
	}
	if o.Async {
		out.Durability = coordinator.DurabilityAsync
	}
	if o.HedgeAll {
		out.Hedge = coordinator.HedgeAll
	}
	return out
}

// token opens the context that the client sends, at the node.
func (a *attempt) token() (vclock.Token, error) {
	if a.sent.text == "" {
		return vclock.Token{}, nil
	}
	key := a.client.w.key(a.record.Key)
	return a.process.tokens.Open(a.sent.text, key.Bucket, key.Name)
}

func (a *attempt) request(token vclock.Token) func(*coordinator.Coordinator) answer {
	r := a.record
	if r.Kind == Read {
		get := coordinator.Get{Key: a.put.Key, Options: r.options(), Floor: token.Floor, FloorReap: token.Reap}
		return func(c *coordinator.Coordinator) (ans answer) {
			ans.got, ans.err = c.Get(context.Background(), get)
			return ans
		}
	}
	put := a.put
	put.Token = token
	return func(c *coordinator.Coordinator) (ans answer) {
		ans.done, ans.err = c.Put(context.Background(), put)
		return ans
	}
}

// finish takes the end of one try, and goes on: with another, or with the next
// operation.
func (a *attempt) finish(ans answer) {
	w, r := a.client.w, a.record
	p := a.process
	if p != nil {
		delete(p.attempts, a)
	}
	outcome, code := judge(r.Op, ans.err)
	a.doubt = a.doubt || outcome == Unknown
	if r.Retry && outcome != OK && a.tries < 3 && ans.err != errNoToken { //nolint:errorlint // never wrapped
		a.tries++
		a.client.begin(a, w.gate.now()+50*time.Millisecond, (r.Node+a.tries)%len(w.machines))
		return
	}
	if outcome == Failed && a.doubt {
		outcome = Unknown
	}
	r.outcome, r.code, r.end = outcome, code, w.history.moment()
	if outcome == OK {
		a.accept(p, ans)
	}
	w.gate.notef("#%d %s %s %v", r.ID, r.outcome, r.code, r.result.list())
	w.ended(r)
	a.client.next()
}

// judge says what is known after an error.
func judge(o Op, err error) (Outcome, kv.Code) {
	var e *kv.Error
	switch {
	case err == nil:
		return OK, ""
	case errors.Is(err, errGone):
		return Unknown, "lost"
	case errors.As(err, &e):
		if o.Kind == Read || e.Outcome == kv.NotApplied {
			return Failed, e.Code
		}
		return Unknown, e.Code
	case slices.ContainsFunc(refusals, func(r error) bool { return errors.Is(err, r) }):
		return Failed, "refused"
	}
	return Unknown, "other"
}

// accept notes what a good answer tells the client.
func (a *attempt) accept(p *process, ans answer) {
	if a.record.Kind == Read {
		a.acceptRead(p, ans.got)
		return
	}
	a.acceptWrite(p, ans.done)
}

func (a *attempt) acceptRead(p *process, got coordinator.Got) {
	w, r := a.client.w, a.record
	for _, v := range got.Values {
		id, err := idOfValue(v.Data)
		if err != nil || id >= len(w.history.records) || w.history.records[id] == nil {
			w.violatef("set", "#%d returned a value that nobody wrote: %.40q", r.ID, v.Data)
			continue
		}
		if r.result.has(id) {
			w.violatef("write id", "#%d returned the value of #%d twice", r.ID, id)
		}
		r.result = r.result.with(id)
		w.dot(r.Key, v.Dot, v.Value, fmt.Sprintf("read #%d", r.ID))
		w.expiry(r, w.history.records[id], v.Value)
	}
	r.deleted = got.Deleted
	must, may := w.history.context(r.Key, r.result, r.deleted)
	a.hold(p, got.Token, heldToken{etag: got.ETag, must: must, may: may, floor: r.result.union(r.floor)})
}

// expiry checks that a value is shown only while it lives, and that it lives for
// as long as it was written for.
func (w *world) expiry(read, write *record, s kv.Sibling) {
	began, wrote := w.gate.begun.Add(read.since).UnixMilli(), w.gate.begun.Add(write.since+write.TTL).UnixMilli()
	switch {
	case (s.Expires != 0) != (write.TTL != 0), s.Expires != 0 && w.plan.Ages && s.Expires < wrote:
		w.violatef("expiry", "#%d shows #%d, written for %v, as one that expires at %d", read.ID, write.ID, write.TTL, s.Expires)
	case s.Expires != 0 && w.plan.Ages && s.Expires <= began:
		w.violatef("expiry", "#%d shows #%d, which had expired %d ms before", read.ID, write.ID, began-s.Expires)
	}
}

func (a *attempt) acceptWrite(p *process, done coordinator.PutDone) {
	w, r := a.client.w, a.record
	r.acked, r.standIn = holders(done.Acked, done.Hinted)
	if nodes := slices.Compact(slices.Sorted(slices.Values(r.acked))); len(nodes) < r.W {
		w.violatef("quorum", "#%d was acknowledged with w=%d by no more than %v", r.ID, r.W, nodes)
	}
	w.give(r, done.Dot)
	if r.writeID.IsZero() {
		r.writeID = done.WriteID // given by the node that handed it on
	}
	t := heldToken{etag: done.ETag, must: r.must, may: r.may, floor: r.floor.with(r.ID)}
	// A value that expired once the write had its dot is one that the token does
	// not cover.
	if sole(r, done) && (!w.plan.Ages || done.Token.Seen.Covers(done.Dot)) {
		// The token stands for the write and for all that it found, which only
		// deletes can have been.
		_, may := w.history.context(r.Key, idsOf(r.ID), true)
		t.must, t.may = r.must.with(r.ID), may.union(r.may)
	}
	a.hold(p, done.Token, t)
}

// sole reports whether the write left no values of others beside its own.
func sole(r *record, done coordinator.PutDone) bool {
	own := kv.ETag([]kv.Version{{Dot: done.Dot, Value: kv.Sibling{WriteID: done.WriteID}}})
	return done.Siblings == 0 || r.Kind == Write && done.Siblings == 1 && done.ETag == own
}

func (a *attempt) hold(p *process, token vclock.Token, t heldToken) {
	key := a.client.w.key(a.record.Key)
	t.text = p.tokens.Seal(token, key.Bucket, key.Name)
	a.client.held[a.record.Key] = append(a.client.held[a.record.Key], t)
}
