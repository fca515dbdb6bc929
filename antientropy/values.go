package antientropy

import (
	"context"
	"errors"
	"slices"

	"go.uber.org/zap"

	"github.com/starling-kv/starling/kv"
)

// lostValue is a value that a record refers to, and that this disk does not have
// as it was.
type lostValue struct {
	key     kv.Key
	version kv.Version
}

// checkValues reads the values of a leaf and fetches those that the disk has
// lost. Trees do not cover them: a record that is the same everywhere may lack
// its value here. What no other owner gives is tried again as a suspect.
func (x *Exchanger) checkValues(ctx context.Context, id leafID) {
	var lost []lostValue
	checked, err := x.Values.CheckValues(id.partition, id.leaf, func(k kv.Key, v kv.Version) { lost = append(lost, lostValue{k, v}) })
	where := []zap.Field{zap.Uint16("partition", id.partition), zap.Uint8("leaf", id.leaf)}
	if err != nil {
		x.Log.Warn("the values of a leaf could not be checked", append(where, zap.Error(err))...)
	}
	healed := 0
	for _, v := range lost {
		about := append(slices.Clone(where), zap.Stringer("key", v.key), zap.Stringer("dot", v.version.Dot))
		if err := x.fetchValue(ctx, id.partition, v); err != nil {
			x.Log.Error("the disk has lost a value, and no other owner could give it; it is tried again: see to the disk",
				append(about, zap.Error(err))...)
			continue
		}
		healed++
		x.Log.Warn("the disk had lost a value; it was fetched from another owner: see to the disk", about...)
	}
	x.counts.values(checked, len(lost), healed)
	if healed < len(lost) && ctx.Err() == nil {
		x.Suspect(id.partition, id.leaf)
	}
}

// errNoOwner says that there is nobody to ask for a value.
var errNoOwner = errors.New("no other owner is connected")

// fetchValue asks the other owners, one after the other, until one gives it.
func (x *Exchanger) fetchValue(ctx context.Context, partition uint16, v lostValue) error {
	err := errNoOwner
	for _, id := range x.surveyor.territory(x.View()).owners(partition) {
		if id == x.Self || !x.Peers.Connected(id) {
			continue
		}
		if err = x.pullValue(ctx, id, v); err == nil || ctx.Err() != nil {
			return err
		}
	}
	return err
}

func (x *Exchanger) pullValue(ctx context.Context, from kv.NodeID, v lostValue) error {
	ctx, cancel := context.WithTimeout(ctx, moveTimeouts*x.Timeout)
	defer cancel()
	return x.Values.PullValue(ctx, from, v.key, v.version)
}
