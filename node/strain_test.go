package node

import (
	"context"
	"testing"
	"testing/synctest"
	"time"
)

func TestStrainOfAnIdleMachine(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var s strain
		ctx, cancel := context.WithTimeout(t.Context(), time.Second)
		defer cancel()
		s.run(ctx)
		if s.high() || s.late.Load() != 0 {
			t.Errorf("late by %v where timers are never late", time.Duration(s.late.Load()))
		}
		s.late.Store(int64(10 * time.Millisecond))
		if !s.high() {
			t.Error("timers that are late by 10 ms are no strain")
		}
	})
}
