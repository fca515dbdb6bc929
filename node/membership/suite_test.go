package membership_test

import (
	"testing"

	"github.com/starling-kv/starling/node/membership"
	"github.com/starling-kv/starling/node/membership/membershiptest"
)

func TestDiskInMemory(t *testing.T) {
	t.Run("journal", func(t *testing.T) {
		d := new(membershiptest.Disk)
		membershiptest.TestJournal(t, func(*testing.T) membership.Journal { return d })
	})
	t.Run("binder", func(t *testing.T) {
		d := new(membershiptest.Disk)
		membershiptest.TestBinder(t, func(*testing.T) membership.Binder { return d })
	})
}
