package membership

import (
	"testing"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
	"go.uber.org/zap/zaptest/observer"
)

func TestListLines(t *testing.T) {
	for _, c := range []struct {
		line  string
		level zapcore.Level
		text  string
		from  string
	}{
		{"[DEBUG] memberlist: Stream connection from=127.0.0.1:1234\n", zapcore.DebugLevel, "Stream connection", "127.0.0.1:1234"},
		{"[INFO] memberlist: Suspect n3 has failed, no acks received\n", zapcore.InfoLevel, "Suspect n3 has failed, no acks received", ""},
		{"[ERR] memberlist: failed to receive: no keys from=10.0.0.9:1\n", zapcore.WarnLevel, "failed to receive: no keys", "10.0.0.9:1"},
		{"[WARN] memberlist: Refuting a suspect message (from: n3)\n", zapcore.DebugLevel, "Refuting a suspect message (from: n3)", ""},
		{"[ERR] memberlist: Conflicting address for n2. Mine: x", zapcore.DebugLevel, "Conflicting address for n2. Mine: x", ""},
		{"Err: Could not set the deadline", zapcore.InfoLevel, "Err: Could not set the deadline", ""},
		{"[OTHER] what", zapcore.InfoLevel, "[OTHER] what", ""},
		{"", zapcore.InfoLevel, "", ""},
	} {
		core, logs := observer.New(zapcore.DebugLevel)
		if _, err := (logLine{zap.New(core)}).Write([]byte(c.line)); err != nil {
			t.Fatal(err)
		}
		e := logs.All()[0]
		from, _ := e.ContextMap()["from"].(string)
		if e.Level != c.level || e.Message != c.text || from != c.from {
			t.Errorf("%q logged as %s %q from %q", c.line, e.Level, e.Message, from)
		}
	}
}

func TestListLinesAreSampled(t *testing.T) {
	core, logs := observer.New(zapcore.DebugLevel)
	l := newListLog(zap.New(core))
	for range 100 {
		l.Print("[WARN] memberlist: the same from=elsewhere")
	}
	l.Print("[WARN] memberlist: another")
	if n := logs.Len(); n != 3 {
		t.Errorf("%d lines logged, want 2 of 100 and 1", n)
	}
}

func TestRefusalsAreLoggedOnceAMinute(t *testing.T) {
	var l ledger
	now := time.Unix(0, 0)
	note := func(after time.Duration, name string, reason Reason, want bool) {
		t.Helper()
		if got := l.note(now.Add(after), refuse(reason, name, "")); got != want {
			t.Errorf("after %v, %s for %s: logged %t", after, name, reason, got)
		}
	}
	note(0, "a", TakenName, true)
	note(time.Second, "a", TakenName, false)
	note(time.Second, "a", ForeignCluster, true)
	note(time.Second, "b", TakenName, true)
	note(time.Minute, "a", TakenName, true)
	for i := range 10 * maxRefusals {
		l.note(now, refuse(TakenName, string(rune('a'+i)), ""))
	}
	if len(l.logged) > maxRefusals {
		t.Errorf("%d refusals kept", len(l.logged))
	}
}
