package main

// This file proves that every request gets its verdict, and that nobody else does.

import (
	"errors"
	"fmt"
	"slices"
	"strings"
	"testing"
	"time"
)

// TestAwaitSignalled: who asks for the verdict on a request that a signal made waits for it like anybody.
func TestAwaitSignalled(t *testing.T) {
	f := started(t, defaultLimits())
	f.step(event{kind: evRequest, request: request{Ask: askRestart, Cause: "SIGHUP"}})
	reply := make(chan verdict, 1)
	f.step(event{kind: evAwait, request: request{ID: f.s.Restart.Requests[0].ID}, reply: reply})
	f.serve()
	f.advance(lookLongest)
	f.advance(f.s.limits.bake)
	if len(reply) != 1 {
		f.fatalf("no verdict came")
	}
	if v := <-reply; v.Result != promoted || v.Request.Cause != "SIGHUP" {
		f.fatalf("the verdict is %+v", v)
	}
}

// TestGaveUpPending: hotwrap that ends because nothing is left to serve answers those who wait for the next restart.
func TestGaveUpPending(t *testing.T) {
	l := defaultLimits()
	l.bake, l.respawn = 0, respawnNever
	f := started(t, l)
	f.ask(askRestart, "SIGHUP")
	f.serve()
	f.want("1 draining", "2 serving")
	f.ask(askRestart, "hotwrap restart") // the line about the switch is still to come
	f.die(f.proc(f.newest().PID), exitStatus{Code: 7})
	f.step(event{kind: evChild})
	f.surveyed()
	f.obey()
	f.obey()
	if !f.s.done() || f.answers["2"] == "" {
		f.fatalf("done %v, the verdicts are %v", f.s.done(), f.answers)
	}
}

// TestWatchDisplaces: what the watch asks for takes the place of a rollback that waits, which is told so.
func TestWatchDisplaces(t *testing.T) {
	f := withWatch(t)
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.ask(askRollback, "hotwrap rollback")
	f.disk = "newer"
	f.changed()
	if f.answers["2"] != superseded {
		f.fatalf("the rollback that waited: %q", f.answers["2"])
	}
	f.serve()
	f.advance(f.s.limits.bake)
	f.surveyed()
	f.serve()
	f.advance(f.s.limits.bake)
	f.surveyed()
	if build := f.s.serving().Image.Build; build != "newer" {
		f.fatalf("build %q serves, the verdicts are %v", build, f.answers)
	}
}

// TestLeft: who waits no more is forgotten, and everybody else is answered.
func TestLeft(t *testing.T) {
	f := started(t, defaultLimits())
	stays := make(chan verdict, 1)
	for n := range 3 {
		reply := make(chan verdict, 1)
		f.step(event{kind: evRequest, request: request{ID: "deploy", Ask: askRestart}, reply: reply})
		if n == 1 {
			stays = reply
			continue
		}
		f.step(event{kind: evLeft, reply: reply})
	}
	if n := len(f.s.replies["deploy"]); n != 1 {
		f.fatalf("%d wait", n)
	}
	f.serve()
	f.advance(f.s.limits.bake)
	if len(stays) != 1 {
		f.fatalf("who stayed is not answered")
	}
}

// TestSignalNobody: where no worker runs, nobody is said to have been signalled.
func TestSignalNobody(t *testing.T) {
	f := newFakeWorld(t, defaultLimits(), func() instant { return instant(time.Hour) })
	f.s.start()
	f.ask(askSignal, "hotwrap signal")
	if f.answers["1"] != failed {
		f.fatalf("the verdict is %q", f.answers["1"])
	}
	if i := slices.IndexFunc(f.said, func(m message) bool { return strings.Contains(m.String(), "signal sent") }); i >= 0 {
		f.fatalf("it says %q", f.said[i])
	}
}

// TestVerdictsKept: the verdict on a restart is not pushed out by those on signals; of restarts the last are kept.
func TestVerdictsKept(t *testing.T) {
	f := started(t, defaultLimits())
	first := f.s.Verdicts[0]
	for i := range 2 * verdictsKept {
		f.step(event{kind: evRequest, request: request{ID: fmt.Sprintf("signal %d", i), Ask: askReopen, Cause: "SIGUSR1"}})
	}
	if n := len(f.s.Verdicts); n != verdictsKept || f.s.Verdicts[0].Request.Cause != first.Request.Cause {
		f.fatalf("%d verdicts, the first on %s", n, f.s.Verdicts[0].Request.Ask)
	}
	for range verdictsKept {
		f.ask(askRestart, "SIGHUP")
		f.prepared(errors.New("no"))
	}
	for _, v := range f.s.Verdicts {
		if v.Request.Ask != askRestart {
			f.fatalf("a verdict on %s is kept, one on a restart is not", v.Request.Ask)
		}
	}
}

// TestStopCrowd: whoever asks for the stop when too many wait for it hears so at once; the stop goes on.
func TestStopCrowd(t *testing.T) {
	f := started(t, defaultLimits())
	for range pendingMost + 1 {
		f.ask(askStop, "hotwrap stop")
	}
	last := fmt.Sprint(pendingMost + 1)
	if f.answers[last] != failed || len(f.s.Stop.Requests) != pendingMost {
		f.fatalf("verdict %q, %d wait", f.answers[last], len(f.s.Stop.Requests))
	}
	f.surveyed()
	f.obey()
	if !f.s.done() || f.answers["1"] != stopped {
		f.fatalf("done %v, verdict %q", f.s.done(), f.answers["1"])
	}
}
