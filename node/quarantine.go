package node

import (
	"context"
	"errors"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/api"
	"github.com/starling-kv/starling/standing"
)

// errPageFull ends a scan.
var errPageFull = errors.New("the page is full")

// Quarantine implements [api.Repairs].
func (m *mending) Quarantine(ctx context.Context, after api.Place, limit int) (page []api.Quarantined, more bool, err error) {
	err = m.store.ScanQuarantineAfter(uint16(after.Partition), after.Key, func(slot kv.Slot, r kv.Record) error {
		if err := ctx.Err(); err != nil {
			return err
		}
		if len(page) == limit {
			return errPageFull
		}
		q, err := m.quarantined(slot, r)
		if err == nil {
			page = append(page, q)
		}
		return err
	})
	if errors.Is(err, errPageFull) {
		return page, true, nil
	}
	return page, false, err
}

// quarantined says of a record in quarantine since when and why it is there.
func (m *mending) quarantined(slot kv.Slot, r kv.Record) (api.Quarantined, error) {
	out := api.Quarantined{Place: api.Place{Partition: int(slot.Partition), Key: slot.Key}, Record: r}
	apart, err := m.repairs.setback.Quarantine(slot.Partition)
	if err != nil {
		return out, err
	}
	present, err := m.store.Get(kv.Slot{Partition: slot.Partition, Key: slot.Key})
	if err != nil {
		return out, err
	}
	out.Since, out.Why = apart.Since, m.reason(slot.Partition, r, present, apart.Number)
	return out, nil
}

// reason says why a record is in quarantine still, beside the present one of its
// key and with the reap number of the partition when it was put away.
func (m *mending) reason(partition uint16, quarantined, present kv.Record, then uint64) string {
	missing, _ := m.ledger.Sources(partition, repairPorts{m.Core}.Owners(partition, kv.MaxN))
	now := m.replica.Number(partition)
	switch {
	case len(missing) > 0 || m.repairs.setback.Judge(partition, quarantined, present, then, now) != standing.Keep:
		return api.QuarantineWaits
	case then != now:
		return api.QuarantineMaybeDeleted
	}
	return api.QuarantineNotOwner
}
