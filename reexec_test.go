package main

// This file proves when hotwrap is replaced, without another hotwrap: that nothing is half done then, and that who asked hears of it.

import (
	"errors"
	"slices"
	"testing"
	"time"
)

// result is what the request asked n-th was answered; "" not yet.
func (f *fakeWorld) result(n int) result { return f.answers[f.asked[n]] }

func TestReexec(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askReexec, "SIGUSR2")
	f.ask(askReexec, "hotwrap reexec") // the same one
	f.proposed(nil)
	f.wantSaid("asking the new hotwrap", "re-executed", "the program was not restarted")
	if f.result(0) != reexeced || f.result(1) != reexeced || f.s.Reexec != nil || f.kept != 1 {
		t.Errorf("answered %q and %q after %d re-execs", f.result(0), f.result(1), f.kept)
	}
	f.want("1 serving")
}

// TestReexecRefused keeps this hotwrap, and its restart under way.
func TestReexecRefused(t *testing.T) {
	for name, refuse := range map[string]func(f *fakeWorld){
		"by its own word": func(f *fakeWorld) { f.proposed(errors.New("too old")) },
		"mute":            func(f *fakeWorld) { f.advance(reexecPatience) },
	} {
		t.Run(name, func(t *testing.T) {
			f := started(t, defaultLimits())
			f.ask(askReexec, "SIGUSR2")
			refuse(f)
			f.wantSaid("cannot re-exec", "this hotwrap goes on")
			if f.result(0) != failed || f.kept != 0 || f.s.Reexec != nil {
				t.Errorf("answered %q after %d re-execs", f.result(0), f.kept)
			}
		})
	}
}

// TestReexecStopped: a stop that comes meanwhile is what happens, before a new hotwrap is asked or after.
func TestReexecStopped(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askReexec, "SIGUSR2")
	f.ask(askStop, "SIGTERM")
	f.ask(askReexec, "hotwrap reexec")
	f.wantSaid("not re-executed: hotwrap is stopping", "not re-executed: hotwrap is stopping")
	if f.result(0) != stopped || f.result(2) != stopped || f.kept != 0 || f.s.Reexec != nil {
		t.Errorf("answered %q and %q after %d re-execs", f.result(0), f.result(2), f.kept)
	}
}

// TestReexecWaits is asked for while a worker is between fork and exec.
func TestReexecWaits(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.ask(askReexec, "SIGUSR2")
	f.proposed(nil)
	f.prepared(nil)
	if f.kept != 0 {
		t.Fatal("left while a worker was being started")
	}
	f.step(event{kind: evExec, serial: f.s.Serials})
	if f.kept != 1 || f.result(1) != reexeced {
		t.Fatalf("answered %q after %d re-execs", f.result(1), f.kept)
	}
	f.step(event{kind: evNotice, serial: f.s.Serials, notice: notice{ready: true, by: "notify"}})
	if f.looked(sight{watched: f.s.limits.listeners}); f.newest().State != workerReady {
		t.Error("the look was not asked for again")
	}
	f.advance(time.Second)
	f.want("1 draining", "2 serving")
	if f.result(0) != promoted {
		t.Errorf("the restart was answered %q", f.result(0))
	}
}

// TestReexecStuck does not wait for ever.
func TestReexecStuck(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.ask(askReexec, "SIGUSR2")
	f.proposed(nil)
	f.advance(reexecPatience)
	if f.result(1) != failed || f.kept != 0 {
		t.Errorf("answered %q after %d re-execs", f.result(1), f.kept)
	}
	f.wantSaid("cannot re-exec: a generation has been starting for 10s")
}

// TestReexecAsksAgain is in the middle of a survey, a search and an ask of the URL.
func TestReexecAsksAgain(t *testing.T) {
	l := defaultLimits()
	l.bake = 0
	f := started(t, l)
	f.ask(askRestart, "SIGHUP")
	f.serve()
	if len(f.surveying) != 1 {
		t.Fatalf("%d surveys under way", len(f.surveying))
	}
	f.ask(askReexec, "SIGUSR2")
	f.proposed(nil)
	if !slices.Equal(f.surveying, []int{1}) {
		t.Errorf("surveyed again: %v", f.surveying)
	}
}
