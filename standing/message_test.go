package standing

import (
	"bytes"
	"errors"
	"math"
	"reflect"
	"testing"
	"time"

	"github.com/starling-kv/starling/internal/wire"
	"github.com/starling-kv/starling/kv"
)

var announcements = []Announcement{
	{From: 1, History: History{Since: []Position{at(1, 0, 0)}}},
	{From: 2, History: History{Sure: at(3, 30, 300)}},
	{From: 3, History: History{Sure: at(3, 30, 0), Since: []Position{at(3, 30, 9), at(4, 40, 0), at(6, math.MaxUint64, 0)}}},
}

var answers = []Known{
	{},
	{Stored: true, By: Life{1, 2}},
	{Remembered: at(4, 40, 4), By: Life{math.MaxInt64, 7}},
}

func TestMessagesSurviveTheWire(t *testing.T) {
	for _, a := range announcements {
		if got, err := DecodeAnnouncement(a.Append(nil)); err != nil || !reflect.DeepEqual(got, a) {
			t.Errorf("%v became %v, %v", a, got, err)
		}
	}
	for _, k := range answers {
		if got, err := DecodeKnown(k.Append(nil)); err != nil || got != k {
			t.Errorf("%v became %v, %v", k, got, err)
		}
	}
}

func manyLives(n int) (many []Position) {
	for i := range n {
		many = append(many, at(uint64(i+1), 1, 0))
	}
	return many
}

func TestDecodersRefuse(t *testing.T) {
	good := announcements[2].Append(nil)
	for name, b := range map[string][]byte{
		"nothing":               {},
		"another version":       append([]byte{encoding + 1}, good[1:]...),
		"no sender":             Announcement{History: History{Since: []Position{at(1, 1, 0)}}}.Append(nil),
		"the quarantine":        Announcement{From: kv.Quarantine, History: History{Since: []Position{at(1, 1, 0)}}}.Append(nil),
		"no history":            Announcement{From: 1}.Append(nil),
		"lives out of order":    Announcement{From: 1, History: History{Since: []Position{at(2, 2, 0), at(2, 1, 0)}}}.Append(nil),
		"an end before sure":    Announcement{From: 1, History: History{Sure: at(5, 1, 1), Since: []Position{at(5, 2, 0)}}}.Append(nil),
		"a nonce without life":  Announcement{From: 1, History: History{Sure: at(0, 1, 0), Since: []Position{at(5, 2, 0)}}}.Append(nil),
		"a chapter of no life":  Announcement{From: 1, History: History{Sure: at(0, 0, 1), Since: []Position{at(5, 2, 0)}}}.Append(nil),
		"starts out of reach":   Announcement{From: 1, History: History{Sure: at(math.MaxUint64, 0, 0)}}.Append(nil),
		"too many lives":        Announcement{From: 1, History: History{Since: manyLives(maxSince + 1)}}.Append(nil),
		"bytes after the end":   append(bytes.Clone(good), 0),
		"a truncated announced": good[:len(good)-1],
	} {
		if a, err := DecodeAnnouncement(b); err == nil {
			t.Errorf("%s: became %v", name, a)
		}
	}
	if k, err := DecodeKnown(append(answers[1].Append(nil), 0)); !errors.Is(err, wire.ErrTrailing) {
		t.Errorf("bytes after the answer: %v, %v", k, err)
	}
}

func FuzzDecodeAnnouncement(f *testing.F) {
	for _, a := range announcements {
		f.Add(a.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if a, err := DecodeAnnouncement(b); err == nil && !bytes.Equal(a.Append(nil), b) {
			t.Errorf("%x is not what %v is encoded as", b, a)
		}
	})
}

func FuzzDecodeKnown(f *testing.F) {
	for _, k := range answers {
		f.Add(k.Append(nil))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if k, err := DecodeKnown(b); err == nil && !bytes.Equal(k.Append(nil), b) {
			t.Errorf("%x is not what %v is encoded as", b, k)
		}
	})
}

// FuzzDecodeFacts gives the same bytes to the decoders of all facts.
func FuzzDecodeFacts(f *testing.F) {
	for _, a := range announcements {
		f.Add(encodeHistory(a.History))
	}
	f.Add(encodePosition(at(4, 40, 4)))
	f.Add(encodeQuarantine(Quarantine{Number: 77}))
	f.Add(encodeQuarantine(Quarantine{Number: 77, Since: time.UnixMilli(1 << 40)}))
	f.Add(encodeFall(fall{epoch: 3, cause: CauseSetBack, since: time.UnixMilli(1 << 40), pending: true}))
	f.Add(encodeCatchup(catchup{epoch: 3, whole: true}))
	f.Add(encodeCatchup(catchup{epoch: 3, merged: []source{{id: 2, starts: 9, final: true}, {id: 5, starts: 1}}}))
	f.Fuzz(func(t *testing.T, b []byte) {
		same := func(err error, again []byte) {
			t.Helper()
			if err == nil && !bytes.Equal(again, b) {
				t.Errorf("%x is encoded as %x", b, again)
			}
		}
		h, err := decodeHistory(b)
		same(err, encodeHistory(h))
		p, err := decodePosition(b)
		same(err, encodePosition(p))
		q, err := decodeQuarantine(b)
		same(err, encodeQuarantine(q))
		fallen, err := decodeFall(b)
		same(err, encodeFall(fallen))
		c, err := decodeCatchup(b)
		same(err, encodeCatchup(c))
	})
}
