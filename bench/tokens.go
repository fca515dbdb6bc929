package bench

import (
	"encoding/binary"
	"sync"
)

// Tokens keeps the context token of every key's last answer, from whichever
// connection, as an application would that hands it on. It is one block of
// memory without pointers, so that a million of them cost the garbage collector
// nothing. It is safe for concurrent use.
type Tokens struct {
	slot    int
	arena   []byte // keys slots: flags, length in 2 bytes, token
	stripes [256]sync.Mutex
}

const (
	// MaxToken bounds what is kept of a token, in bytes. A key whose token is
	// longer is read before each write.
	MaxToken   = 509
	tokenSlot  = MaxToken + tokenHead
	tokenHead  = 3
	tokenKnown = 1
)

// NewTokens returns a table of so many keys, all of them unknown. It takes 512
// bytes a key, as far as keys are used.
func NewTokens(keys int64) *Tokens {
	return &Tokens{slot: tokenSlot, arena: make([]byte, keys*tokenSlot)}
}

// get appends the token of a key. Ok is false if the key must be read first:
// nothing is known of it, or not all that it holds.
func (t *Tokens) get(dst []byte, key int64) (token []byte, ok bool) {
	slot, unlock := t.lock(key)
	if slot == nil {
		return dst, false
	}
	defer unlock()
	if slot[0] != tokenKnown {
		return dst, false
	}
	n := binary.LittleEndian.Uint16(slot[1:])
	return append(dst, slot[tokenHead:tokenHead+n]...), true
}

// put keeps the token of an answer; whole says that it covers all siblings.
func (t *Tokens) put(key int64, token []byte, whole bool) {
	slot, unlock := t.lock(key)
	if slot == nil {
		return
	}
	defer unlock()
	slot[0] = 0
	if !whole || len(token) > MaxToken {
		return
	}
	slot[0] = tokenKnown
	binary.LittleEndian.PutUint16(slot[1:], uint16(len(token)))
	copy(slot[tokenHead:], token)
}

// lock returns the slot of a key, nil if it has none.
func (t *Tokens) lock(key int64) (slot []byte, unlock func()) {
	at := key * int64(t.slot)
	if at >= int64(len(t.arena)) {
		return nil, nil
	}
	mu := &t.stripes[key%int64(len(t.stripes))]
	mu.Lock()
	return t.arena[at : at+int64(t.slot)], mu.Unlock
}
