package ring

import (
	"cmp"
	"errors"
	"fmt"
	"strconv"
	"strings"

	"github.com/starling-kv/starling/kv"
)

// ErrInvalid is matched by every error about what a layout was asked to
// contain; the message says what to change.
var ErrInvalid = errors.New("invalid layout")

// State is what the operator says of a member. It has no part in placement: a
// member owns whatever its state.
type State byte

// States of a member.
const (
	StateActive State = iota // to be tried
	StateDown                // the operator took it down: owns, but is not to be tried
)

// String returns "active" or "down".
func (s State) String() string {
	switch s {
	case StateActive:
		return "active"
	case StateDown:
		return "down"
	}
	return "State(" + strconv.Itoa(int(s)) + ")"
}

// Member is one node's place in a layout.
type Member struct {
	ID      kv.NodeID // not zero; unique
	Name    string    // [A-Za-z0-9._-]{1,64}; unique
	Address string    // host:port at which peers reach it; unique
	Zone    string    // [A-Za-z0-9._-]{0,64}; what fails together; those without one share one
	Weight  uint32    // its load in proportion to the others'; 0 owns nothing
	State   State
}

func compareID(m Member, id kv.NodeID) int { return cmp.Compare(m.ID, id) }

func byID(a, b Member) int { return cmp.Compare(a.ID, b.ID) }

func invalid(format string, args ...any) error {
	return fmt.Errorf("%w: "+format, append([]any{ErrInvalid}, args...)...)
}

// checkMembers verifies members, which are sorted by id.
func checkMembers(members []Member) error {
	if len(members) == 0 {
		return invalid("no members: name at least one")
	}
	if len(members) > MaxMembers {
		return invalid("%d members: at most %d are supported", len(members), MaxMembers)
	}
	names := make(map[string]kv.NodeID, len(members))
	addresses := make(map[string]string, len(members))
	for i, m := range members {
		if err := m.check(); err != nil {
			return err
		}
		if i > 0 && m.ID == members[i-1].ID {
			return invalid("members %q and %q have the same node id %s: give each node its own data directory", members[i-1].Name, m.Name, m.ID)
		}
		if other, dup := names[m.Name]; dup {
			return invalid("nodes %s and %s are both named %q: rename one, or remove the node that is gone", other, m.ID, m.Name)
		}
		if other, dup := addresses[m.Address]; dup {
			return invalid("members %q and %q have the same address %s: give each its own host or port", other, m.Name, m.Address)
		}
		names[m.Name], addresses[m.Address] = m.ID, m.Name
	}
	if ownersOf(members) == 0 {
		return invalid("every member has weight 0, so nobody would own data: give at least one a weight of 1 or more")
	}
	return nil
}

// check verifies a member by itself.
func (m Member) check() error {
	if m.Name == "" || !isName(m.Name) {
		return invalid("node %s: name %q: use 1 to %d of A-Z a-z 0-9 . _ -", m.ID, m.Name, MaxNameLen)
	}
	if m.ID == 0 {
		return invalid("member %q: node id 0 stands for no node: draw a random one", m.Name)
	}
	if !isName(m.Zone) {
		return invalid("member %q: zone %q: use at most %d of A-Z a-z 0-9 . _ -", m.Name, m.Zone, MaxNameLen)
	}
	if !isAddress(m.Address) {
		return invalid("member %q: address %q: use host:port with a port from 1 to 65535, an IPv6 host in brackets", m.Name, m.Address)
	}
	if m.State > StateDown {
		return invalid("member %q: unknown state %d: use %d (active) or %d (down)", m.Name, m.State, StateActive, StateDown)
	}
	return nil
}

// isName reports whether s consists of at most MaxNameLen permitted bytes.
func isName(s string) bool {
	if len(s) > MaxNameLen {
		return false
	}
	for i := range len(s) {
		c := s[i]
		alnum := '0' <= c && c <= '9' || 'A' <= c && c <= 'Z' || 'a' <= c && c <= 'z'
		if !alnum && c != '.' && c != '_' && c != '-' {
			return false
		}
	}
	return true
}

// isAddress reports whether s is host:port, without asking whether it exists.
func isAddress(s string) bool {
	colon := strings.LastIndexByte(s, ':')
	if colon < 1 || len(s) > MaxAddressLen {
		return false
	}
	host, port := s[:colon], s[colon+1:]
	if inner, ok := strings.CutPrefix(host, "["); ok {
		host, ok = strings.CutSuffix(inner, "]")
		if !ok || !strings.Contains(host, ":") {
			return false
		}
	} else if strings.Contains(host, ":") {
		return false
	}
	for i := range len(host) {
		if c := host[i]; c <= ' ' || c > '~' || strings.IndexByte("[]/@?#\"\\", c) >= 0 {
			return false
		}
	}
	n, err := strconv.ParseUint(port, 10, 16)
	return err == nil && n > 0 && port == strconv.FormatUint(n, 10)
}

// ownersOf counts the members that can own something.
func ownersOf(members []Member) int {
	n := 0
	for _, m := range members {
		if m.Weight > 0 {
			n++
		}
	}
	return n
}

func checkPartitions(n int) error {
	if n < 1 || n > MaxPartitions || n&(n-1) != 0 {
		return invalid("%d partitions: use a power of two from 1 to %d, 64 or more for each node the cluster may grow to", n, MaxPartitions)
	}
	return nil
}
