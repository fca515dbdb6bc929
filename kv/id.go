package kv

import (
	"fmt"
	"strconv"
)

// NodeID names one life of one data directory: 64 random bits, drawn when the
// directory is initialised and refused for ever once the node is replaced. It
// is not the operator's name for the node, which a layout binds to it.
type NodeID uint64

// String returns the id as sixteen hexadecimal digits.
func (id NodeID) String() string { return fmt.Sprintf("%016x", uint64(id)) }

// ParseNodeID reads what [NodeID.String] writes.
func ParseNodeID(s string) (NodeID, error) {
	if len(s) != 16 {
		return 0, fmt.Errorf("node id %q: want 16 hexadecimal digits", s)
	}
	v, err := strconv.ParseUint(s, 16, 64)
	if err != nil {
		return 0, fmt.Errorf("node id %q: want 16 hexadecimal digits", s)
	}
	return NodeID(v), nil
}

// MarshalText writes the id as sixteen hexadecimal digits.
func (id NodeID) MarshalText() ([]byte, error) { return []byte(id.String()), nil }

// UnmarshalText reads what [NodeID.MarshalText] writes.
func (id *NodeID) UnmarshalText(b []byte) error {
	v, err := ParseNodeID(string(b))
	if err != nil {
		return err
	}
	*id = v
	return nil
}
