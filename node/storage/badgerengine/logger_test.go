package badgerengine

import (
	"strings"
	"testing"

	"go.uber.org/zap"
	"go.uber.org/zap/zaptest/observer"
)

func TestLoggerLevels(t *testing.T) {
	core, seen := observer.New(zap.DebugLevel)
	l := newLogger(zap.New(core), newAlarm())
	l.Errorf("error %d\n", 1)
	l.Warningf("warning %d", 2)
	l.Infof("info %d", 3)
	l.Debugf("debug %d", 4)
	want := []struct {
		level   string
		message string
	}{{"error", "error 1"}, {"warn", "warning 2"}, {"debug", "info 3"}}
	if seen.Len() != len(want) {
		t.Fatalf("%d messages, want %d", seen.Len(), len(want))
	}
	for i, e := range seen.All() {
		if e.Level.String() != want[i].level || e.Message != want[i].message {
			t.Errorf("message %d is %v %q, want %+v", i, e.Level, e.Message, want[i])
		}
	}
	newLogger(nil, newAlarm()).Errorf("to nobody")
}

func TestAlarm(t *testing.T) {
	a := newAlarm()
	l := newLogger(nil, a)
	l.Warningf("Block cache might be too small. Metrics: %s\n", "x")
	l.Errorf("unable to do something else")
	if err := a.err(); err != nil {
		t.Fatalf("raised by %v", err)
	}
	l.Errorf("error flushing memtable to disk: %v, retrying", "input/output error")
	l.Warningf("While running doCompact: %v\n", "another")
	if err := a.err(); err == nil || !strings.Contains(err.Error(), "input/output error") {
		t.Errorf("raised by %v, want the first cause", err)
	}
}
