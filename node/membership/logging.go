package membership

import (
	"log"
	"strings"
	"time"

	"go.uber.org/zap"
	"go.uber.org/zap/zapcore"
)

// memberlist logs lines such as
//
//	[WARN] memberlist: Refuting a suspect message (from: n3)
//
// through the standard logger. logLine passes them to zap.
type logLine struct{ log *zap.Logger }

// newListLog returns the logger for memberlist. A line that repeats is logged
// a few times in ten seconds: what a foreign node or a cut provokes comes with
// every probe.
func newListLog(to *zap.Logger) *log.Logger {
	sampled := to.WithOptions(zap.WrapCore(func(core zapcore.Core) zapcore.Core {
		return zapcore.NewSamplerWithOptions(core, 10*time.Second, 2, 1000)
	}))
	return log.New(logLine{sampled}, "", 0)
}

var listLevels = map[string]zapcore.Level{
	"DEBUG": zapcore.DebugLevel,
	"INFO":  zapcore.InfoLevel,
	"WARN":  zapcore.WarnLevel,
	"ERR":   zapcore.WarnLevel, // of another node, or of the network: nothing here is broken
	"ERROR": zapcore.WarnLevel,
}

// Routine are the beginnings of lines that say nothing to an operator: they
// come in the course of things, or say again what this package says better.
var routine = []string{
	"Conflicting address for",
	"Failed fallback TCP ping",
	"Failed push/pull merge",
	"Failed to send UDP",
	"Failed to send gossip",
	"Failed to send indirect UDP ping",
	"Got ping for unexpected node",
	"Push/Pull with",
	"Refuting",
	"ignoring alive message",
}

// Write logs one line.
func (l logLine) Write(b []byte) (int, error) {
	level, text := parseListLine(string(b))
	// What differs from line to line becomes a field, so that the rest repeats.
	text, from, _ := strings.Cut(text, " from=")
	if entry := l.log.Check(level, text); entry != nil {
		if from != "" {
			entry.Write(zap.String("from", from))
		} else {
			entry.Write()
		}
	}
	return len(b), nil
}

func parseListLine(line string) (zapcore.Level, string) {
	line = strings.TrimSpace(line)
	level := zapcore.InfoLevel
	if tag, rest, ok := strings.Cut(line, "]"); ok && strings.HasPrefix(tag, "[") {
		if known, ok := listLevels[tag[1:]]; ok {
			level, line = known, strings.TrimSpace(rest)
		}
	}
	line = strings.TrimPrefix(line, "memberlist: ")
	for _, start := range routine {
		if strings.HasPrefix(line, start) {
			level = zapcore.DebugLevel
		}
	}
	return level, line
}
