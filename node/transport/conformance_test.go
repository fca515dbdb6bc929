package transport_test

import (
	"testing"
	"testing/synctest"

	"go.uber.org/goleak"

	"github.com/starling-kv/starling/kv"
	"github.com/starling-kv/starling/node/transport"
	"github.com/starling-kv/starling/node/transport/transporttest"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func TestNetworkConforms(t *testing.T) {
	transporttest.Run(t, inProcess)
}

// In a bubble time is virtual, and a wait that is no wait on a channel shows.
func TestNetworkConformsInVirtualTime(t *testing.T) {
	for _, c := range transporttest.Cases() {
		t.Run(c.Name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) { c.Run(t, inProcess(t)) })
		})
	}
}

func inProcess(t *testing.T) transporttest.Join {
	t.Helper()
	network := transport.NewNetwork()
	return func(id kv.NodeID, h transport.Handler) transport.Transport {
		return closing(t, network.Join(id, h))
	}
}

// closing closes a transport when the test ends.
func closing[T transport.Transport](tb testing.TB, tr T) T {
	tb.Helper()
	tb.Cleanup(func() {
		if err := tr.Close(); err != nil {
			tb.Errorf("close: %v", err)
		}
	})
	return tr
}

func TestTCPConforms(t *testing.T) {
	transporttest.Run(t, func(t *testing.T) transporttest.Join {
		t.Helper()
		return newCluster(t).join
	})
}

func TestTCPConformsOverTLS(t *testing.T) {
	dial, listen := selfSigned(t)
	transporttest.Run(t, func(t *testing.T) transporttest.Join {
		t.Helper()
		c := newCluster(t)
		c.opts.DialTLS, c.opts.ListenTLS = dial, listen
		return c.join
	})
}
