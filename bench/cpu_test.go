package bench

import (
	"os"
	"testing"
	"time"
)

func TestParseStat(t *testing.T) {
	const line = "42 (a) b (c) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 8 20 0 9 0 1 2 3"
	if got, err := parseStat([]byte(line)); err != nil || got != 3*time.Second {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "42 (a) S", "42 (a) S 1 42 42 0 -1 4194304 100 0 0 0 x 50 7"} {
		if got, err := parseStat([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func TestParseBusy(t *testing.T) {
	const text = "cpu  100 20 30 9999 888 40 10 0 0 0\ncpu0 1 2 3 4 5 6 7\n"
	if got, err := parseBusy([]byte(text)); err != nil || got != 2*time.Second {
		t.Errorf("got %v, %v", got, err)
	}
	for _, bad := range []string{"", "cpu 1 2 3", "intr 1 2 3 4 5 6 7 8", "cpu a b c d e f g"} {
		if got, err := parseBusy([]byte(bad)); err == nil {
			t.Errorf("%q: %v", bad, got)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add([]byte("42 (a) S 1 42 42 0 -1 4194304 100 0 0 0 250 50 7 8"))
	f.Fuzz(func(_ *testing.T, b []byte) {
		_, _ = parseStat(b)
		_, _ = parseBusy(b)
	})
}

func TestCPUMeter(t *testing.T) {
	if _, err := os.Stat("/proc/self/stat"); err != nil {
		t.Skip("there is no /proc")
	}
	var m cpuMeter
	m.begin([]int{os.Getpid()})
	m.finish()
	if !m.ok || m.spent.servers < 0 || m.spent.all < m.spent.servers {
		t.Errorf("%+v", m)
	}
	m.begin([]int{os.Getpid(), 1 << 30})
	if m.finish(); m.ok {
		t.Error("a process that is not there was measured")
	}
}
