package main

import (
	"slices"
	"testing"
	"testing/synctest"
	"time"
)

// A manager is told to wait on at once where a start, a restart or a stop begins, again before it gives up, never for longer than
// hotwrap's own limits run, and no more when they have run out or nothing is waited for.
func TestExtend(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := defaultLimits()
		l.extend, l.readyTimeout, l.drainTimeout, l.stopTimeout = 10*time.Second, 45*time.Second, 25*time.Second, 25*time.Second
		began := time.Now()
		f := newFakeWorld(t, l, func() instant { return instant(time.Since(began) + 1) })
		var said []time.Duration // when, then what
		f.s.world.extend = func(d time.Duration) {
			said = append(said, time.Since(began).Truncate(time.Second), d.Truncate(time.Second))
		}
		pass := func(d time.Duration) {
			for end := time.Now().Add(d); time.Now().Before(end); {
				time.Sleep(time.Second)
				f.s.step(event{kind: evTime})
			}
		}
		expect := func(what string, want ...time.Duration) {
			t.Helper()
			for i := range want {
				want[i] *= time.Second
			}
			if !slices.Equal(said, want) {
				t.Errorf("%s: said %v, want %v", what, said, want)
			}
			said = nil
		}
		f.s.start()
		f.s.step(event{kind: evTime})
		pass(44 * time.Second)
		expect("a start that takes long", 0, 30, 10, 30, 20, 30, 30, 20, 40, 10)
		pass(40 * time.Second)
		expect("one that is over")
	})
}
