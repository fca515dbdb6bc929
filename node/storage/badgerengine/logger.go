package badgerengine

import (
	"errors"
	"fmt"
	"strings"
	"sync"
	"sync/atomic"

	"go.uber.org/zap"
)

// logger gives badger's messages to zap. What badger thinks worth an info is of
// no use to an operator, so it is one level lower here.
//
// Some of the messages are all that badger says about a failing disk: it tries
// a flush or a compaction that failed again for ever, and meanwhile a commit
// that waits for either waits for ever too. Others are all that it says about a
// change of its write-ahead logs. Both go to alarm as well.
type logger struct {
	log   *zap.SugaredLogger
	alarm *alarm
}

// fatal are the beginnings of the messages that end all writing.
var fatal = []string{
	"error flushing memtable to disk", // db.go, flushMemtable
	"While running doCompact",         // levels.go, runCompactor
	"cannot start subcompaction",      // levels.go, compactBuildTables
}

// memtableFull begins the message that badger gives when a memtable is full, before it
// makes the next one and its log (db.go, ensureRoomForWrite). It is why
// [logs.follow] misses none; a badger that words it otherwise fails
// TestSyncCoversOlderLogs.
const memtableFull = "Flushing memtable, "

func newLogger(l *zap.Logger, a *alarm) logger {
	if l == nil {
		l = zap.NewNop()
	}
	return logger{log: l.Sugar(), alarm: a}
}

func (l logger) Errorf(format string, args ...any) {
	l.judge(format, args)
	l.log.Errorf(strings.TrimSpace(format), args...)
}

func (l logger) Warningf(format string, args ...any) {
	l.judge(format, args)
	l.log.Warnf(strings.TrimSpace(format), args...)
}

func (l logger) Infof(format string, args ...any) {
	l.log.Debugf(strings.TrimSpace(format), args...)
}

// Debugf drops badger's own debug messages, which come for each transaction.
func (l logger) Debugf(format string, _ ...any) {
	if strings.HasPrefix(format, memtableFull) {
		l.alarm.full.Store(true)
	}
}

func (l logger) judge(format string, args []any) {
	for _, beginning := range fatal {
		if strings.HasPrefix(format, beginning) {
			message := fmt.Sprintf(format, args...)
			// The cause comes last, after pages about the compaction.
			if i := strings.LastIndex(message, "err: "); i >= 0 {
				message = beginning + ": " + message[i+len("err: "):]
			}
			l.alarm.raise(errors.New(strings.TrimSpace(message)))
		}
	}
}

// alarm is raised once, when badger's background work fails.
type alarm struct {
	once   sync.Once
	raised chan struct{}
	cause  error // readable once raised

	full atomic.Bool // a memtable was, since this was last reset
}

func newAlarm() *alarm { return &alarm{raised: make(chan struct{})} }

func (a *alarm) raise(cause error) {
	a.once.Do(func() {
		a.cause = cause
		close(a.raised)
	})
}

// err returns why the alarm was raised, nil if it was not.
func (a *alarm) err() error {
	select {
	case <-a.raised:
		return a.cause
	default:
		return nil
	}
}
