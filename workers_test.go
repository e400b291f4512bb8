package main

// This file proves what the machine does with several workers: batches of a restart, the way back, one more or fewer.

import (
	"fmt"
	"slices"
	"syscall"
	"testing"
	"time"
)

// resize asks for one worker more or fewer.
func (f *fakeWorld) resize(more int) {
	f.resizes++
	f.step(event{kind: evRequest, request: request{ID: fmt.Sprintf("resize %d", f.resizes), Ask: askWorkers, More: more, Cause: "SIGTTIN"}})
}

// checkWorkers asserts that no more run than --surge permits: of the serving generation and its successor, what
// finishes from earlier restarts and what a failed one keeps left out.
func (f *fakeWorld) checkWorkers() {
	r := f.s.Restart
	if r == nil || !r.Plan.Overlap || r.Predecessor == 0 {
		return
	}
	running, slots := 0, 0
	for _, g := range f.s.Generations {
		if g.Number != r.Predecessor && g.Number != r.Successor {
			continue
		}
		slots = max(slots, len(g.Slots))
		for _, w := range g.Workers {
			if w.Slot < len(g.Slots) && (!w.Reaped || g.yielded(w)) {
				running++
			}
		}
	}
	if back := f.wayBack(); !back && running > slots+r.Plan.Batch {
		f.fatalf("%d workers run, %d and %d more are permitted", running, slots, r.Plan.Batch)
	}
}

// wayBack tells whether a worker of the predecessor is dying while the next runs in its slot already.
func (f *fakeWorld) wayBack() bool {
	p := f.s.serving()
	if p == nil {
		return false
	}
	seen := map[int]bool{}
	for _, w := range p.Workers {
		if seen[w.Slot] {
			return true
		}
		seen[w.Slot] = true
	}
	return false
}

// bring brings every starting worker to ready.
func (f *fakeWorld) bring() {
	f.prepared(nil)
	for _, g := range slices.Clone(f.s.Generations) {
		for _, w := range slices.Clone(g.Workers) {
			if w.Needs&needExec != 0 {
				f.step(event{kind: evExec, serial: w.Serial})
			}
			if w.State == workerStarting {
				f.advance(lookFirst)
				for len(f.looking) > 0 {
					f.looked(sight{watched: f.s.limits.listeners})
				}
			}
		}
	}
}

// several is a world whose first generation serves with n workers; surge is --surge.
func several(t *testing.T, n, surge int) *fakeWorld {
	l := defaultLimits()
	l.workers, l.surge = n, surge
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.bring()
	f.want("1 serving")
	return f
}

// wantWorkers fails unless the workers' states are, as "generation/slot state", oldest generation first.
func (f *fakeWorld) wantWorkers(want ...string) {
	f.t.Helper()
	var got []string
	for _, g := range f.s.Generations {
		for _, w := range g.Workers {
			got = append(got, fmt.Sprintf("%d/%d %s", g.Number, w.Slot, w.State))
		}
	}
	if !slices.Equal(got, want) {
		f.fatalf("workers are\n %q, want\n %q", got, want)
	}
}

// crash ends a worker by itself.
func (f *fakeWorld) crash(number, slot int) {
	f.t.Helper()
	for _, w := range f.s.generation(number).Workers {
		if w.Slot == slot {
			f.die(f.proc(w.PID), exitStatus{Signal: syscall.SIGSEGV})
			f.step(event{kind: evChild})
			return
		}
	}
	f.fatalf("generation %d has no worker %d", number, slot)
}

// TestBatches: with --surge 2, four workers are replaced two by two, each two after the two before them ended.
func TestBatches(t *testing.T) {
	f := several(t, 4, 2)
	f.ask(askRestart, "SIGHUP")
	f.bring()
	f.wantWorkers("1/0 ready", "1/1 ready", "1/2 ready", "1/3 ready", "2/0 ready", "2/1 ready")
	f.advance(time.Second) // of bake
	f.wantWorkers("1/0 stopping", "1/1 stopping", "1/2 ready", "1/3 ready", "2/0 ready", "2/1 ready")
	f.obey()
	f.wantWorkers("1/2 ready", "1/3 ready", "2/0 ready", "2/1 ready", "2/2 starting", "2/3 starting")
	if f.answers["1"] != "" {
		f.fatalf("a verdict before the last batch: %s", f.answers["1"])
	}
	f.bring()
	f.want("1 serving", "2 ready")
	f.advance(time.Second)
	if f.answers["1"] != promoted {
		f.fatalf("verdict %q", f.answers["1"])
	}
	f.surveyed()
	f.obey()
	f.wantWorkers("2/0 ready", "2/1 ready", "2/2 ready", "2/3 ready")
	f.wantSaid("generation 2 starting pid=105 workers=4", "generation 2 has 2 of 4 workers ready; baking 1s", "generation 2 ready workers=4",
		"generation 2 serving; generation 1 draining", "generation 1 gone")
}

// TestBatchUneven: a batch that does not divide the number of workers, and a drain that needs KILL.
func TestBatchUneven(t *testing.T) {
	f := several(t, 3, 2)
	f.ask(askRestart, "SIGHUP")
	f.bring()
	f.advance(time.Second)
	f.wantWorkers("1/0 stopping", "1/1 stopping", "1/2 ready", "2/0 ready", "2/1 ready")
	f.advance(30 * time.Second) // nobody obeys: KILL
	f.step(event{kind: evChild})
	f.wantWorkers("1/2 ready", "2/0 ready", "2/1 ready", "2/2 starting")
	f.wantSaid("worker 0 of generation 1 did not end within 30s, killed")
	f.bring()
	f.advance(time.Second)
	f.want("1 draining", "2 serving")
}

// TestBatchFails: what fails half-way goes back to N workers of the predecessor; those of the failed generation that
// serve go one by one as theirs come back.
func TestBatchFails(t *testing.T) {
	for name, bad := range map[string]func(f *fakeWorld){
		"exits":                func(f *fakeWorld) { f.exec(); f.exit(exitStatus{Code: 7}) },
		"one of those before":  func(f *fakeWorld) { f.crash(2, 0) },
		"is not ready in time": func(f *fakeWorld) { f.advance(time.Minute) },
	} {
		t.Run(name, func(t *testing.T) {
			f := several(t, 4, 2)
			f.ask(askRestart, "SIGHUP")
			f.bring()
			f.advance(time.Second)
			f.obey()
			bad(f)
			if f.answers["1"] != failed {
				f.fatalf("verdict %q", f.answers["1"])
			}
			f.wantSaid("generation 1 serves on, 2 of its 4 workers are started again")
			if name == "is not ready in time" {
				f.wantSaid("2 workers of 4 not ready after 1m (2, 3); does not serve \"web\"; generation 1")
			}
			kept := f.s.generation(2).readyWorkers()
			if name != "one of those before" && kept != 2 {
				f.fatalf("%d workers of the failed generation serve on until they are replaced", kept)
			}
			for range 2 {
				f.bring()
				f.obey()
			}
			f.want("1 serving")
			f.wantWorkers("1/2 ready", "1/3 ready", "1/0 ready", "1/1 ready")
			f.ask(askRestart, "SIGHUP") // the next is free to go
			for range 2 {
				f.bring()
				f.advance(time.Second)
				f.surveyed()
				f.obey()
			}
			f.want("3 serving")
		})
	}
}

// TestCrashOfOne: the crash of one worker touches no other, also when it is given up; only the last one ends hotwrap.
func TestCrashOfOne(t *testing.T) {
	f := several(t, 2, 0)
	f.crash(1, 1)
	f.wantSaid("worker 1 of generation 1 crashed (SIGSEGV) after", "started again")
	f.wantWorkers("1/0 ready", "1/1 starting")
	f.bring()
	f.wantSaid("worker 1 of generation 1 ready")
	f.s.limits.respawn = respawnNever
	f.crash(1, 0)
	f.wantWorkers("1/1 ready")
	if f.s.Ending {
		f.fatalf("one of two workers ends hotwrap")
	}
	f.crash(1, 1)
	if !f.s.done() || f.s.Status != 128+int(syscall.SIGSEGV) {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestCrashWhileBaking: with one of two workers the predecessor still serves; with none its successor takes over.
func TestCrashWhileBaking(t *testing.T) {
	f := several(t, 2, 0)
	f.ask(askRestart, "SIGHUP")
	f.bring()
	f.crash(1, 0)
	f.want("1 serving", "2 ready")
	f.crash(1, 1)
	f.want("1 draining", "2 serving")
	f.wantSaid("worker 1 of generation 1 crashed (SIGSEGV)", "generation 2 takes over")
}

// TestResize: one worker more or fewer, at once or after the restart under way, never fewer than one.
func TestResize(t *testing.T) {
	f := several(t, 1, 0)
	f.resize(1)
	f.wantSaid("2 workers wanted by=SIGTTIN")
	f.wantWorkers("1/0 ready", "1/1 starting")
	f.bring()
	f.wantWorkers("1/0 ready", "1/1 ready")
	f.ask(askRestart, "SIGHUP")
	f.resize(-1)
	f.wantSaid("1 worker wanted by=SIGTTIN; after the restart")
	f.bring()
	f.wantWorkers("1/0 ready", "1/1 ready", "2/0 ready", "2/1 ready")
	f.advance(time.Second)
	f.surveyed()
	f.wantWorkers("1/0 stopping", "1/1 stopping", "2/0 ready", "2/1 stopping")
	f.obey()
	f.wantWorkers("2/0 ready")
	f.resize(-1)
	f.wantSaid("does nothing: one worker is the least")
	f.wantWorkers("2/0 ready")
}

// TestFewerWhileKilled: a worker that is being killed for its watchdog is one too many by then: it is no crash.
func TestFewerWhileKilled(t *testing.T) {
	f := several(t, 2, 0)
	serial := f.s.serving().Workers[1].Serial
	f.beating[serial] = true
	f.step(event{kind: evNotice, serial: serial, notice: notice{watchdog: true, watchdogUSec: time.Second, by: "notify"}})
	f.advance(time.Second) // KILL
	f.resize(-1)
	f.step(event{kind: evChild})
	f.wantWorkers("1/0 ready")
	if len(f.s.serving().Slots) != 1 || f.s.Tally.Crashes != 0 {
		f.fatalf("a crash of a worker that was to go")
	}
}

// TestSlotsModel: each worker must watch what its predecessor in the same slot did, no more and no less.
func TestSlotsModel(t *testing.T) {
	l := defaultLimits()
	l.workers, l.listeners = 2, []string{"web", "admin"}
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.prepared(nil)
	f.step(event{kind: evExec, serial: 1})
	f.step(event{kind: evExec, serial: 2})
	f.advance(lookFirst)
	f.looked(sight{watched: []string{"web", "admin"}}) // the first worker has the admin interface too
	f.looked(sight{watched: []string{"web"}})
	f.want("1 serving")
	f.looking = nil
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.step(event{kind: evExec, serial: 3})
	f.step(event{kind: evExec, serial: 4})
	f.looking = nil
	f.advance(lookFirst)
	f.looked(sight{watched: []string{"web"}})
	f.looked(sight{watched: []string{"web"}})
	f.want("1 serving", "2 starting")
	f.wantWorkers("1/0 ready", "1/1 ready", "2/0 starting", "2/1 ready")
}

// TestNoOverlapWorkers: without overlap all go, then all come; none comes for one that failed but all of the predecessor.
func TestNoOverlapWorkers(t *testing.T) {
	l := defaultLimits()
	l.workers, l.surge, l.overlap = 2, 1, false
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.bring()
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.surveyed()
	f.wantWorkers("1/0 stopping", "1/1 stopping")
	f.obey()
	f.wantWorkers("2/0 starting", "2/1 starting")
	f.step(event{kind: evExec, serial: 3})
	f.exec()
	f.exit(exitStatus{Code: 1})
	f.obey()
	f.want("1 serving")
	f.bring()
	f.wantWorkers("1/0 ready", "1/1 ready")
}

// TestFailedKept: the limit of a failed generation is for those that were told to finish, not for those that still
// serve; what one of these leaves behind has a limit of its own.
func TestFailedKept(t *testing.T) {
	f := several(t, 4, 2)
	f.ask(askRestart, "SIGHUP")
	f.bring()
	f.advance(time.Second)
	f.obey()
	for serial := 7; serial <= 8; serial++ {
		f.step(event{kind: evExec, serial: serial})
	}
	f.crash(2, 3)
	f.wantWorkers("1/2 ready", "1/3 ready", "1/0 starting", "1/1 starting", "2/0 ready", "2/1 ready", "2/2 stopping")
	f.advance(30 * time.Second)
	f.step(event{kind: evChild})
	f.wantWorkers("1/2 ready", "1/3 ready", "1/0 starting", "1/1 starting", "2/0 ready", "2/1 ready")
	f.proc(f.s.generation(2).Workers[0].PID).lingers = true
	f.crash(2, 0)
	f.wantWorkers("1/2 ready", "1/3 ready", "1/0 starting", "1/1 starting", "2/0 stopping", "2/1 ready")
	f.advance(29 * time.Second) // the predecessor's have a minute to get ready
	f.bring()
	f.wantWorkers("1/2 ready", "1/3 ready", "1/0 ready", "1/1 ready", "2/0 stopping", "2/1 stopping")
	f.advance(time.Second)
	f.step(event{kind: evChild})
	f.wantWorkers("1/2 ready", "1/3 ready", "1/0 ready", "1/1 ready", "2/1 stopping")
}

// TestFewerServe: when one fewer is wanted, the one too many serves on until all others do, who was given up among them too.
func TestFewerServe(t *testing.T) {
	for name, policy := range map[string]respawnPolicy{"given up": respawnNever, "in its pause": respawnAlways} {
		t.Run(name, func(t *testing.T) {
			f := several(t, 2, 0)
			f.s.limits.respawn = policy
			f.crash(1, 0)
			if policy == respawnAlways {
				f.exec()
				f.crash(1, 0)
			}
			f.resize(-1)
			f.obey()
			if !f.s.serving().serves(1) {
				f.fatalf("nobody serves")
			}
			f.advance(backoffFirst)
			f.bring()
			f.wantWorkers("1/1 stopping", "1/0 ready")
			f.obey()
			f.wantWorkers("1/0 ready")
		})
	}
}

// TestStopDelayHalfway: who serves in the middle of a restart serves on while --stop-delay runs; then all go.
func TestStopDelayHalfway(t *testing.T) {
	f := several(t, 4, 1)
	f.s.limits.stopDelay = 10 * time.Second
	f.ask(askRestart, "SIGHUP")
	for range 3 {
		f.bring()
		f.advance(time.Second)
		f.obey()
	}
	f.ask(askStop, "SIGTERM")
	f.wantWorkers("1/3 ready", "2/0 ready", "2/1 ready", "2/2 ready", "2/3 stopping")
	f.advance(10 * time.Second)
	f.surveyed()
	f.wantWorkers("1/3 stopping", "2/0 stopping", "2/1 stopping", "2/2 stopping", "2/3 stopping")
	f.bring()
	f.obey()
	if !f.s.done() || f.s.Status != 0 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestReviveKeepsWord: a predecessor that comes back, because its successor without overlap failed, is held to the word
// that it gave before.
func TestReviveKeepsWord(t *testing.T) {
	l := defaultLimits()
	l.overlap = false
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.prepared(nil)
	f.exec()
	f.tell()
	f.advance(lookFirst)
	f.looked(sight{watched: f.s.limits.listeners})
	f.want("1 serving")
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.surveyed()
	f.obey()
	f.exec()
	f.exit(exitStatus{Code: 1})
	f.obey()
	f.want("1 serving")
	if w := f.newest(); w.Wants&needTold == 0 {
		f.fatalf("its worker need not say READY=1 any more")
	}
}

// TestLimitOnce: a worker that makes room has --drain-timeout for itself and what it leaves behind together.
func TestLimitOnce(t *testing.T) {
	f := several(t, 2, 1)
	f.ask(askRestart, "SIGHUP")
	f.bring()
	f.advance(time.Second)
	f.advance(29 * time.Second)
	p := f.proc(f.s.generation(1).Workers[0].PID)
	p.lingers = true
	f.die(p, exitStatus{})
	f.step(event{kind: evChild})
	f.wantWorkers("1/0 stopping", "1/1 ready", "2/0 ready")
	f.advance(time.Second)
	f.step(event{kind: evChild})
	f.wantWorkers("1/1 ready", "2/0 ready", "2/1 starting")
}

// TestMoreMustTell: a worker more must say READY=1 where the others do.
func TestMoreMustTell(t *testing.T) {
	f := several(t, 1, 0)
	f.step(event{kind: evNotice, serial: 1, notice: notice{ready: true, by: "notify"}})
	f.resize(1)
	if w := f.newest(); w.Wants&needTold == 0 {
		f.fatalf("it need not")
	}
}
