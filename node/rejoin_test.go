package node

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest"

	"github.com/starling-kv/starling/node/membership"
)

// endOf starts a node whose name belongs to another, and returns it closed, with
// what ended it.
func endOf(t *testing.T, cfg Config) (*Node, error) {
	t.Helper()
	n, err := Start(t.Context(), cfg, zaptest.NewLogger(t, zaptest.Level(zap.FatalLevel)))
	if err != nil {
		t.Fatal(err)
	}
	failed := n.Wait()
	if _, ok := errors.AsType[*membership.IdentityError](failed); !ok {
		t.Errorf("the node ended with %v", failed)
	}
	return n, errors.Join(failed, n.Close())
}

// TestRejoinWaitsForTheHolder: as long as a member lives, no empty directory
// takes its place, wherever it is.
func TestRejoinWaitsForTheHolder(t *testing.T) {
	nodes := startCluster(t, 3)
	cfg := configOf(t, 2, 3, []string{nodes[0].gossip.Address(), nodes[1].gossip.Address()})
	cfg.RejoinEmpty = true
	n, failed := endOf(t, cfg)
	if err := n.Rejoin(failed); !errors.Is(err, ErrHolderAlive) {
		t.Fatalf("the place of a live member is taken: %v", err)
	}
	if n.dir.Identity().Node == nodes[2].ID() {
		t.Error("the directory belongs to the live member")
	}

	if err := nodes[2].Close(); err != nil {
		t.Fatal(err)
	}
	ctx := t.Context()
	poll := time.NewTicker(50 * time.Millisecond)
	defer poll.Stop()
	for nodes[0].gossip.Alive(nodes[2].ID()) || nodes[1].gossip.Alive(nodes[2].ID()) {
		select {
		case <-poll.C:
		case <-ctx.Done():
			t.Fatal("the others do not notice that a member has left")
		}
	}
	n, failed = endOf(t, cfg)
	if err := n.Rejoin(failed); err != nil {
		t.Fatalf("the place of a member that is gone: %v", err)
	}
	waitReady(t, startNode(t, cfg))
}

// TestRejoinRefuses: what was not asked for, and what is not empty.
func TestRejoinRefuses(t *testing.T) {
	nodes := startCluster(t, 1)
	taken := &membership.IdentityError{Name: "n1", ID: 1, HeldBy: 2, Source: "the layout"}
	n := nodes[0]
	if err := n.Rejoin(taken); !errors.Is(err, taken) || strings.Contains(err.Error(), "empty directory can") {
		t.Errorf("without rejoin-empty: %v", err)
	}
	n.cfg.RejoinEmpty = true
	if err := n.Rejoin(taken); !errors.Is(err, taken) || !strings.Contains(err.Error(), "only an empty directory can") {
		t.Errorf("a directory with records: %v", err)
	}
	if err := n.Rejoin(os.ErrClosed); !errors.Is(err, os.ErrClosed) {
		t.Errorf("another end: %v", err)
	}
	if _, err := os.Stat(filepath.Join(n.cfg.Dir, "STARLING")); err != nil {
		t.Error(err)
	}
}
