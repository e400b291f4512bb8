package main

// This file proves hooks without processes, in the fake world of supervisor_test.go: which there are, in what
// order, what they are told, and that every one ends.

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// allHooks is one hook for each event.
var allHooks = func() (all []hookSpec) {
	for _, ev := range hookEvents {
		all = append(all, hookSpec{ev, "true"})
	}
	return all
}()

// hook starts one in the fake world. It may do so after the stop, but there is one at a time.
func (f *fakeWorld) hook(_ string, k hook) (int, error) {
	if f.living() != nil {
		f.fatalf("hook %v begins beside another", k)
	}
	if k.Image != nil && !f.pins[k.Image.Exe] {
		f.fatalf("hook %v has an image that was let go", k)
	}
	if f.spawnErr != nil {
		return 0, f.spawnErr
	}
	f.pids++
	f.procs = append(f.procs, &fakeProcess{pid: f.pids, spawned: f.clock(), hook: true})
	f.hooked = append(f.hooked, k)
	return f.pids, nil
}

// living is the hook that runs; nil if none does.
func (f *fakeWorld) living() *fakeProcess {
	for _, p := range f.procs {
		if p.hook && !p.dead {
			return p
		}
	}
	return nil
}

// hookLate tells whether a hook may be killed: its limit is over, or that of hotwrap's end.
func (f *fakeWorld) hookLate(p *fakeProcess, now instant) bool {
	return now.since(p.spawned) >= hookLimit ||
		f.ending != 0 && now.since(f.ending) >= min(hookLimit, f.s.limits.stopTimeout)
}

// checkHooks asserts what always holds: a hook has a limit, and hotwrap does not end before it.
func (f *fakeWorld) checkHooks() {
	if f.s.Ending && f.ending == 0 {
		f.ending = f.clock()
	}
	p, h := f.living(), &f.s.Hooks
	switch {
	case p == nil:
	case f.s.done():
		f.fatalf("hotwrap ends before hook %d", p.pid)
	case h.PID != p.pid || h.Deadline == 0 || !slices.Contains(f.s.deadlines(), h.Deadline):
		f.fatalf("hook %d has no limit", p.pid)
	}
	if len(h.Queue) > hooksWaiting || len(h.Queue) > 0 && h.PID == 0 {
		f.fatalf("%d hooks wait for nothing", len(h.Queue))
	}
}

// endHook ends the hook that runs; the supervisor hears of it when it reaps.
func (f *fakeWorld) endHook(status exitStatus) {
	if p := f.living(); p != nil {
		f.die(p, status)
	}
}

// endHooks lets every hook end well, and those that follow.
func (f *fakeWorld) endHooks() {
	for f.living() != nil {
		f.endHook(exitStatus{})
		f.step(event{kind: evChild})
	}
}

// restart goes through to the predecessor's end.
func (f *fakeWorld) restart() {
	f.ask(askRestart, "SIGHUP")
	f.serve()
	f.advance(f.s.limits.bake)
	f.surveyed()
	f.obey()
}

// hookedUp is a world whose first generation serves, with hooks for these events; their runs have ended.
func hookedUp(t *testing.T, l limits, events ...hookEvent) *fakeWorld {
	for _, ev := range events {
		l.hooks = append(l.hooks, hookSpec{ev, "true"})
	}
	f := started(t, l)
	f.endHooks()
	f.hooked = nil
	return f
}

// wantHooks fails unless these began, in this order: "ready 2".
func (f *fakeWorld) wantHooks(want ...string) {
	f.t.Helper()
	var got []string
	for _, k := range f.hooked {
		got = append(got, fmt.Sprintf("%s %d", k.Event, k.Generation))
	}
	if !slices.Equal(got, want) {
		f.fatalf("hooks were %q, want %q", got, want)
	}
}

// TestHookOrder: hooks come in the order of what happened, one at a time, and say how things were then.
func TestHookOrder(t *testing.T) {
	l := defaultLimits()
	l.hooks = allHooks
	f := started(t, l)
	f.restart()
	f.wantHooks("ready 1") // it still runs: the others wait, the restart did not
	f.want("2 serving")
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	f.obey()
	f.endHooks()
	f.wantHooks("ready 1", "switch 1", "ready 2", "switch 2", "drained 1", "stop 2", "drained 2")
	first, second := f.procs[0].pid, f.hooked[2].PID
	for i, want := range []hook{
		{Event: hookReady, Generation: 1, PID: first},
		{Event: hookSwitch, Generation: 1, PID: first},
		{Event: hookReady, Generation: 2, PID: second, Predecessor: 1},
		{Event: hookSwitch, Generation: 2, PID: second, Predecessor: 1},
		{Event: hookDrained, Generation: 1, PID: first, Status: "SIGTERM"},
		{Event: hookStop, Generation: 2, PID: second},
		{Event: hookDrained, Generation: 2, PID: second, Status: "SIGTERM"},
	} {
		want.Spec, want.Build, want.Image = slices.Index(hookEvents, want.Event), "abc", f.hooked[i].Image
		if got := f.hooked[i]; got != want || got.PID == 0 {
			t.Errorf("hook was %+v, want %+v", got, want)
		}
	}
	if !f.s.done() || len(f.pins) > 0 {
		f.fatalf("done %v, pins left %v", f.s.done(), f.pins)
	}
}

// TestHookLead: another process that carries on for the first worker is what a hook is told of.
func TestHookLead(t *testing.T) {
	f := hookedUp(t, defaultLimits(), hookDrained)
	f.pids++
	other := &fakeProcess{pid: f.pids, serial: 1, number: 1, spawned: f.clock()}
	f.procs = append(f.procs, other)
	f.step(event{kind: evNotice, serial: 1, notice: notice{mainPID: other.pid, by: "notify"}})
	f.die(f.procs[0], exitStatus{})
	f.step(event{kind: evChild})
	f.restart()
	f.wantHooks("drained 1")
	if f.hooked[0].PID != other.pid {
		f.fatalf("told of pid %d, not %d", f.hooked[0].PID, other.pid)
	}
}

// TestHookFailed: "failed" is what somebody must look at: a successor that failed, a program that was given up;
// not a crash that was mended, nor what was stopped in order.
func TestHookFailed(t *testing.T) {
	cases := map[string]struct {
		respawn respawnPolicy
		do      func(f *fakeWorld)
		reason  string // "" none
		status  string
	}{
		"exits": {respawnAlways, func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.prepared(nil)
			f.exec()
			f.exit(exitStatus{Code: 7})
		}, "exited 7 after 0s, before ready", "7"},
		"dies": {respawnAlways, func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.serve()
			f.exit(exitStatus{Signal: syscall.SIGSEGV})
		}, "died of SIGSEGV after 50ms, while baking", "SIGSEGV"},
		"hangs": {respawnAlways, func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.prepared(nil)
			f.exec()
			f.advance(time.Minute)
		}, `not ready after 1m; it did not say READY=1, which its predecessor did; nobody serves "web"`, ""},
		"is missing": {respawnAlways, func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.prepared(cannotStart("./app", syscall.ENOENT))
		}, `cannot start "./app": no such file or directory`, ""},
		"is superseded": {respawnAlways, func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.prepared(nil)
			f.ask(askStop, "SIGTERM")
		}, "", ""},
		"crashes once": {respawnAlways, func(f *fakeWorld) { f.exit(exitStatus{Code: 3}) }, "", ""},
		"crashes on": {respawnAlways, func(f *fakeWorld) {
			for range 10 {
				f.exit(exitStatus{Code: 3})
				f.advance(backoffMost)
				f.exec()
			}
		}, "exited 3 after 0s; 10 in a row, giving up", "3"},
		"is not started again":      {respawnNever, func(f *fakeWorld) { f.exit(exitStatus{Code: 3}) }, "exited 3 after 50ms; not started again", "3"},
		"ends well, and that is it": {respawnOnFailure, func(f *fakeWorld) { f.exit(exitStatus{}) }, "", ""},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := defaultLimits()
			l.respawn = c.respawn
			f := hookedUp(t, l, hookFailed)
			c.do(f)
			switch {
			case c.reason == "" && len(f.hooked) == 0:
			case c.reason == "" || len(f.hooked) != 1:
				f.fatalf("hooks were %+v", f.hooked)
			case f.hooked[0].Reason != c.reason || f.hooked[0].Status != c.status:
				f.fatalf("told %q and status %q", f.hooked[0].Reason, f.hooked[0].Status)
			}
		})
	}
}

// TestHookFirstFails: hotwrap does not end before the hooks about its end have.
func TestHookFirstFails(t *testing.T) {
	l := defaultLimits()
	l.hooks = allHooks
	f := newFakeWorld(t, l, func() instant { return 1 })
	f.s.start()
	f.prepared(nil)
	f.exec()
	f.exit(exitStatus{Code: 7})
	if f.s.done() {
		f.fatalf("hotwrap ends before its hooks")
	}
	f.endHooks()
	f.wantHooks("failed 1", "stop 0")
	if !f.s.done() || f.s.Status != 7 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestHookNotBuilt: a build that fails before the first start ends hotwrap, with a hook for that.
func TestHookNotBuilt(t *testing.T) {
	l := defaultLimits()
	l.build, l.hooks = true, allHooks
	f := newFakeWorld(t, l, func() instant { return 1 })
	f.spawnErr = errors.New("cannot fork: no")
	f.s.world.hook = func(_ string, k hook) (int, error) {
		f.spawnErr = nil
		return f.hook("", k)
	}
	f.s.start()
	f.wantHooks("stop 0")
	f.endHooks()
	if !f.s.done() {
		f.fatalf("hotwrap does not end")
	}
}

// TestHookLimit: a hook that hangs is killed, said once, and the next has its turn; one that KILL does not end is
// waited for no longer.
func TestHookLimit(t *testing.T) {
	f := hookedUp(t, defaultLimits(), hookReady, hookSwitch)
	f.restart()
	f.wantHooks("ready 2")
	f.advance(hookLimit - f.clock().since(f.living().spawned) - 1)
	if f.living() == nil {
		f.fatalf("killed too early")
	}
	f.advance(1)
	f.step(event{kind: evChild})
	f.wantHooks("ready 2", "switch 2")
	f.wantSaid(`hook "ready" did not end within 30s, killed hook=1 generation=2`)
	if i := slices.IndexFunc(f.said, func(m message) bool { return strings.Contains(m.head, "SIGKILL") }); i >= 0 {
		f.fatalf("its death is news: %s", f.said[i])
	}
	f.s.world.kill = func(int, syscall.Signal) {} // it is in state D
	last := f.living()
	f.advance(hookLimit)
	last.dead = true // as good as
	f.advance(killPatience)
	f.wantSaid(`hook "switch" is still there 5s after KILL`)
	if !f.s.Hooks.idle() {
		f.fatalf("it is waited for")
	}
}

// TestHookFails: what a hook ends with is said if it is no success; nothing else comes of it.
func TestHookFails(t *testing.T) {
	f := hookedUp(t, defaultLimits(), hookReady, hookReady)
	f.restart()
	f.advance(time.Second)
	f.endHook(exitStatus{Code: 3})
	f.step(event{kind: evChild})
	f.spawnErr = errors.New("cannot fork: no")
	f.restart()
	f.spawnErr = nil
	f.endHook(exitStatus{})
	f.step(event{kind: evChild})
	f.wantHooks("ready 2", "ready 2")
	f.wantSaid(`hook "ready" failed: exited 3 after 2s hook=1 generation=2`)
}

// TestHookCannotRun: a hook that cannot be started is said, and the next is tried.
func TestHookCannotRun(t *testing.T) {
	f := hookedUp(t, defaultLimits(), hookReady, hookSwitch)
	tries := 0
	f.s.world.hook = func(string, hook) (int, error) { tries++; return 0, errors.New("cannot fork: no") }
	f.restart()
	f.wantSaid(`cannot run hook "ready": cannot fork: no hook=1 generation=2`, `cannot run hook "switch"`)
	if tries != 2 || !f.s.Hooks.idle() {
		f.fatalf("%d tries", tries)
	}
}

// TestHookQueue: behind a hook that hangs, the newest wait, and one line says how many do not run.
func TestHookQueue(t *testing.T) {
	f := hookedUp(t, defaultLimits(), hookReady)
	for range 1 + hooksWaiting + 6 {
		f.restart()
		f.s.Hooks.Deadline = f.clock().add(hookLimit) // it is as slow as it likes
	}
	f.endHooks()
	if f.hooked[1].Generation != 2+1+6 || len(f.hooked) != 1+hooksWaiting {
		f.fatalf("%d ran, the second for generation %d", len(f.hooked), f.hooked[1].Generation)
	}
	n := 0
	for _, m := range f.said {
		if m.head == "6 hooks not run: more than 64 waited" {
			n++
		}
	}
	if n != 1 || len(f.pins) != pastKept+1 {
		f.fatalf("said %d times, %d images pinned", n, len(f.pins))
	}
}

// TestHookStop: hotwrap's end waits for hooks, but not for ever: a stop hook that hangs has as long as a worker, what waits behind
// it does not run then; nor after an order.
func TestHookStop(t *testing.T) {
	cases := map[string]struct {
		delay  time.Duration
		after  time.Duration // a hook that hangs is killed so long after the stop; 0: at once
		do     func(f *fakeWorld)
		want   []string
		status int
	}{
		"in time": {do: func(f *fakeWorld) { f.ask(askStop, "SIGTERM") }, after: 20 * time.Second, want: []string{"stop 1"}},
		"the delay is a hook's": {delay: 7 * time.Second, do: func(f *fakeWorld) {
			f.ask(askStop, "SIGTERM")
			f.wantHooks("stop 1")
			f.want("1 serving")
		}, after: 27 * time.Second, want: []string{"stop 1"}},
		"but no more than any hook has": {delay: 17 * time.Second, do: func(f *fakeWorld) { f.ask(askStop, "SIGTERM") }, after: hookLimit, want: []string{"stop 1", "drained 1"}},
		"INT twice": {do: func(f *fakeWorld) {
			f.ask(askStop, "SIGINT")
			f.advance(secondINT)
			f.ask(askStop, "SIGINT")
			f.step(event{kind: evChild})
		}, want: []string{"stop 1"}, status: 137},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := defaultLimits()
			l.stopDelay = c.delay
			f := hookedUp(t, l, hookStop, hookDrained)
			c.do(f)
			if c.after > 0 {
				f.advance(c.delay)
				f.surveyed()
				f.obey()
				f.want()
				f.advance(c.after - c.delay - 1)
				if f.living() == nil || f.s.done() {
					f.fatalf("the hook has ended: %v", f.hooked)
				}
				f.advance(1)
				f.step(event{kind: evChild}) // the one that hung
				f.endHooks()
			}
			f.wantHooks(c.want...)
			if !f.s.done() || f.s.Status != c.status || len(f.pins) > 0 {
				f.fatalf("done %v, status %d, images pinned: %v", f.s.done(), f.s.Status, f.pins)
			}
		})
	}
}

// TestHookLimits: where the loop is late, and a hook's limit has passed as well as that of them all, it is still named.
func TestHookLimits(t *testing.T) {
	f := hookedUp(t, defaultLimits(), hookReady, hookSwitch)
	f.restart()
	f.wantHooks("ready 2")
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	f.advance(time.Millisecond)
	f.obey()
	f.want()
	f.advance(hookLimit)
	f.wantSaid(`hook "ready" did not end within 31s, killed hook=1 generation=2`)
	f.wantSaid("1 hook not run: hotwrap ends")
	f.wantHooks("ready 2")
}

// TestHookLate: a hook that runs when the stop begins has no more time than the stop has; and all hooks together have
// no more than that once the last worker is gone.
func TestHookLate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l := defaultLimits()
		l.hooks = []hookSpec{{hookReady, "hangs"}, {hookSwitch, "hangs"}, {hookStop, "hangs"}}
		f := newFakeWorld(t, l, func() instant { return instant(time.Second).add(time.Since(began)) })
		f.s.start()
		f.prepared(nil)
		f.exec()
		f.tell()
		time.Sleep(time.Second)
		f.step(event{kind: evTime})
		f.looked(sight{watched: l.listeners})
		f.want("1 serving")
		time.Sleep(5 * time.Second)
		events := make(chan event)
		kill := f.s.world.kill
		var killed []time.Duration
		f.s.world.kill = func(group int, sig syscall.Signal) {
			killed = append(killed, time.Since(began))
			kill(group, sig)
			go func() { events <- event{kind: evChild} }()
		}
		f.ask(askStop, "SIGTERM")
		f.surveyed()
		time.Sleep(10 * time.Second)
		f.obey()
		if status := f.s.run(events, nil); status != 0 {
			f.fatalf("status %d", status)
		}
		// Stopped after 6 s, empty after 16 s: the first hook has until 26 s, the others until 36 s.
		want := []time.Duration{26 * time.Second, 36 * time.Second}
		if !slices.Equal(killed, want) {
			f.fatalf("killed after %v, want %v", killed, want)
		}
		f.wantHooks("ready 1", "switch 1")
		f.wantSaid("1 hook not run: hotwrap ends")
	})
}

// TestHookOption: EVENT=COMMAND, and an error that lists the events.
func TestHookOption(t *testing.T) {
	cases := map[string]hookSpec{
		"switch=./register.sh up":  {hookSwitch, "./register.sh up"},
		"stop=A=1 ./leave, please": {hookStop, "A=1 ./leave, please"},
		"started=true":             {},
		"switch":                   {},
		"switch=":                  {},
		"switch= ":                 {},
		"=true":                    {},
		"SWITCH=true":              {},
	}
	for text, want := range cases {
		var got []hookSpec
		err := hookValues{&got}.Set(text)
		if want.command == "" {
			for _, ev := range hookEvents {
				if err == nil || !strings.Contains(err.Error(), string(ev)) {
					t.Errorf("%q: %v", text, err)
				}
			}
			continue
		}
		if err != nil || len(got) != 1 || got[0] != want {
			t.Errorf("%q is %v, %v", text, got, err)
		}
	}
}

// TestHookVariable: commands have blanks, so $HOTWRAP_HOOK has one in each line.
func TestHookVariable(t *testing.T) {
	cfg, err := parseArgs([]string{"--", "true"}, []string{"HOTWRAP_HOOK=switch=echo a b\nstop=echo c\n"})
	if err != nil || !slices.Equal(cfg.hooks, []hookSpec{{hookSwitch, "echo a b"}, {hookStop, "echo c"}}) {
		t.Errorf("%v, %v", cfg, err)
	}
}

// TestHookTold: what a hook is told of a build is no --build for a hotwrap that it starts.
func TestHookTold(t *testing.T) {
	told := hook{Event: hookSwitch, Build: "abc"}.environ()
	cfg, err := parseArgs([]string{"--", "true"}, told)
	if err != nil || cfg.build != "" {
		t.Errorf("--build is %q, %v", cfg.build, err)
	}
	if left := inherited(told); len(left) > 0 {
		t.Errorf("its program inherits %q", left)
	}
}

// TestHookDocs: docs/hooks.md has every event, and every variable.
func TestHookDocs(t *testing.T) {
	text, err := os.ReadFile("docs/hooks.md")
	if err != nil {
		t.Fatal(err)
	}
	names := []string{"HOTWRAP_NAME", "HOTWRAP_CONTROL"}
	for _, kv := range (hook{}).environ() {
		name, _, _ := strings.Cut(kv, "=")
		names = append(names, name)
	}
	for _, ev := range hookEvents {
		names = append(names, string(ev))
	}
	for _, name := range names {
		if !strings.Contains(string(text), "\n| `"+name+"` |") {
			t.Errorf("docs/hooks.md has no row for %s", name)
		}
	}
}
