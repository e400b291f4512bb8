package main

import (
	"testing"
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
