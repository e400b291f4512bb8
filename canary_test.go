package main

// This file proves --ready URL and the canary without processes, in the fake world of supervisor_test.go: what is asked
// when, who gets which share, and that whatever goes wrong ends in one verdict and with the predecessor.

import (
	"errors"
	"fmt"
	"maps"
	"net/http"
	"net/http/httptest"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// probe is asked by the supervisor: for one that is on trial, one at a time, never past the limit.
func (f *fakeWorld) probe(g *generation, patience time.Duration) {
	if g.State != genStarting && g.State != genReady {
		f.fatalf("generation %d is asked, which is %s", g.Number, g.State)
	}
	if slices.Contains(f.probing, g.Number) {
		f.fatalf("generation %d is asked twice at once", g.Number)
	}
	if patience <= 0 || patience > urlPatience || !g.Answered && g.Deadline != 0 && f.clock().add(patience) > g.Deadline {
		f.fatalf("generation %d is asked for %s", g.Number, patience)
	}
	f.probing = append(f.probing, g.Number)
}

// probed answers the oldest ask.
func (f *fakeWorld) probed(good bool, text string) {
	if len(f.probing) == 0 {
		return
	}
	n := f.probing[0]
	f.probing = f.probing[1:]
	f.step(event{kind: evProbe, number: n, answer: urlAnswer{good: good, text: text}})
}

// runCheck starts a --canary-check.
func (f *fakeWorld) runCheck(string, hook) (int, error) {
	pid, err := f.start(0, 0, true)
	if err == nil {
		f.checks = append(f.checks, pid)
	}
	return pid, err
}

// askCanary posts a request for one that wants an answer.
func (f *fakeWorld) askCanary(steps []canaryStep, check bool) {
	reply := make(chan verdict, 1)
	f.replies = append(f.replies, reply)
	f.asked = append(f.asked, fmt.Sprint(len(f.asked)+1))
	r := request{ID: f.asked[len(f.asked)-1], Ask: askRestart, Cause: "hotwrap restart", Canary: steps}
	if check {
		r.CanaryCheck = "true"
	}
	f.step(event{kind: evRequest, request: r, reply: reply})
}

// checkShares asserts what always holds: everything goes to who serves, but for the share of a canary.
func (f *fakeWorld) checkShares() {
	if g, t := f.s.canaryStep(); g != nil {
		if want := map[int]int{f.s.Restart.Predecessor: canaryWhole - t.Share, g.Number: t.Share}; !maps.Equal(f.shares, want) {
			f.fatalf("the shares are %v, want %v", f.shares, want)
		}
	}
	for number := range f.shares {
		if g := f.s.generation(number); g != nil && g.State == genDraining && !g.Served {
			f.fatalf("generation %d was a canary and gets connections", number)
		}
	}
	r := f.s.Restart
	for _, pid := range f.checks {
		if !f.proc(pid).dead && (r == nil || r.Canary.PID != pid) {
			f.fatalf("check %d is left behind", pid)
		}
	}
	if g, _ := f.s.canaryStep(); g != nil && g.Deadline == 0 && r.Canary.Limit == 0 && f.s.warm() {
		f.fatalf("a step of the canary never ends")
	}
	if r != nil && r.Canary.PID != 0 && (r.Canary.Limit == 0 || f.proc(r.Canary.PID) == nil) {
		f.fatalf("a check of the canary has no limit")
	}
}

// steeredUp is a world whose first generation serves, and gets what it is given.
func steeredUp(t *testing.T, l limits) *fakeWorld {
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.routes = routed{steered: true, alone: true}
	f.s.start()
	f.serve()
	f.want("1 serving")
	return f
}

// drained lets whoever drains be looked at, and end.
func (f *fakeWorld) drained() {
	for range 3 {
		f.surveyed()
		f.advance(glanceAgain)
	}
	f.obey()
}

var twoSteps = []canaryStep{{10, time.Minute}, {100, 5 * time.Minute}}

// canaried is a world whose second generation is in the first step of a canary.
func canaried(t *testing.T, l limits, check bool) *fakeWorld {
	f := steeredUp(t, l)
	f.askCanary(twoSteps, check)
	f.serve()
	f.advance(l.bake)
	f.want("1 serving", "2 ready")
	f.wantSaid("generation 2 ready", "baking 1s", "generation 2 gets 1% for 1m")
	f.wantShares(map[int]int{1: 990, 2: 10})
	return f
}

func (f *fakeWorld) wantShares(want map[int]int) {
	f.t.Helper()
	if !maps.Equal(f.shares, want) {
		f.fatalf("the shares are %v, want %v", f.shares, want)
	}
}

// verdict is the one on the request of that number.
func (f *fakeWorld) verdict(n int) verdict {
	f.t.Helper()
	select {
	case v := <-f.replies[n-1]:
		return v
	default:
		f.fatalf("request %d has no verdict", n)
		return verdict{}
	}
}

// checked ends the check that runs.
func (f *fakeWorld) checked(status exitStatus) {
	f.t.Helper()
	p := f.proc(f.s.Restart.Canary.PID)
	if p == nil {
		f.fatalf("no check runs")
	}
	f.die(p, status)
	f.step(event{kind: evChild})
}

// TestCanary: share after share, then the switch; who asked hears of the end only.
func TestCanary(t *testing.T) {
	f := canaried(t, defaultLimits(), false)
	f.advance(time.Minute - time.Millisecond)
	f.wantShares(map[int]int{1: 990, 2: 10})
	f.advance(time.Millisecond)
	f.wantSaid("generation 2 gets 10% for 5m")
	f.wantShares(map[int]int{1: 900, 2: 100})
	if f.answers["1"] != "" {
		f.fatalf("verdict %q before the end", f.answers["1"])
	}
	f.advance(5 * time.Minute)
	f.want("1 draining", "2 serving")
	f.wantShares(map[int]int{2: 1})
	f.drained()
	f.want("2 serving")
	if v := f.verdict(1); v.Result != promoted || v.Generation != 2 {
		f.fatalf("verdict %+v", v)
	}
}

// TestCanaryFails: whatever goes wrong, everything goes to the predecessor at once, and the successor has the time of any
// predecessor to finish what it serves.
func TestCanaryFails(t *testing.T) {
	cases := map[string]struct {
		check bool
		bad   func(f *fakeWorld)
		says  string
		ended bool // the successor
	}{
		"dies":        {false, func(f *fakeWorld) { f.exit(exitStatus{Signal: syscall.SIGSEGV}) }, "died of SIGSEGV after 1.1s, during the canary", true},
		"check fails": {true, func(f *fakeWorld) { f.checked(exitStatus{Code: 3}) }, "--canary-check exited 3, during the canary", false},
		"check hangs": {true, func(f *fakeWorld) { f.advance(15 * time.Second) }, "--canary-check did not end within 15s, during the canary", false},
		"check fails later": {true, func(f *fakeWorld) {
			f.checked(exitStatus{})
			f.advance(10 * time.Second)
			f.checked(exitStatus{Code: 1})
		}, "--canary-check exited 1, during the canary", false},
		"check fails at the end": {true, func(f *fakeWorld) {
			f.checked(exitStatus{})
			f.advance(time.Minute)
			f.checked(exitStatus{Code: 1})
		}, "--canary-check exited 1, during the canary", false},
		"check cannot be run": {true, func(f *fakeWorld) {
			f.checked(exitStatus{})
			f.spawnErr = errors.New("cannot fork: no")
			f.advance(time.Minute)
			f.spawnErr = nil
		}, "cannot run --canary-check: cannot fork: no", false},
		"next share cannot be routed": {false, func(f *fakeWorld) {
			f.routeErr = errors.New("cannot attach")
			f.advance(time.Minute)
			f.routeErr = nil
		}, "cannot give it 10% of the connections: cannot attach", false},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := canaried(t, defaultLimits(), c.check)
			before := f.s.serving().Workers[0].PID
			c.bad(f)
			f.wantShares(map[int]int{1: 1})
			f.wantSaid("generation 2 failed: " + c.says + "; generation 1 serves on")
			if v := f.verdict(1); v.Result != failed || v.Stage != stageCanary || v.Reason != c.says || v.Serving != 1 {
				f.fatalf("verdict %+v", v)
			}
			if !c.ended {
				f.want("1 serving", "2 draining")
				if p := f.procs[1]; p.stopped != 0 {
					f.fatalf("the successor is told to stop before its connections are looked at")
				}
				f.surveyed()
				f.wantSaid("generation 2 draining, 0 connections, up to 30s")
			}
			f.drained()
			f.want("1 serving")
			if f.s.serving().Workers[0].PID != before || f.procs[0].stopped != 0 {
				f.fatalf("the predecessor has noticed")
			}
			f.askCanary(twoSteps[:1], false) // the next may go as well as any
			f.serve()
			f.advance(time.Second)
			f.advance(time.Minute)
			f.want("1 draining", "3 serving")
		})
	}
}

// TestCanaryChecks: a check runs at the start of each step, then every 10 s or fifth of it, and at its end.
func TestCanaryChecks(t *testing.T) {
	f := steeredUp(t, defaultLimits())
	f.askCanary([]canaryStep{{10, 20 * time.Second}, {100, time.Minute}}, true)
	f.serve()
	f.advance(time.Second)
	began := f.clock()
	var got []string
	known := 0
	for f.s.Restart != nil {
		if c := f.s.Restart.Canary; c.PID != 0 && c.PID != known {
			known = c.PID
			_, step := f.s.canaryStep()
			got = append(got, fmt.Sprintf("%s@%s", percent(step.Share), f.clock().since(began)))
			f.checked(exitStatus{})
		} else {
			f.advance(500 * time.Millisecond)
		}
	}
	want := "1%@0s 1%@4s 1%@8s 1%@12s 1%@16s 1%@20s 10%@20s 10%@30s 10%@40s 10%@50s 10%@1m0s 10%@1m10s 10%@1m20s"
	if strings.Join(got, " ") != want {
		f.fatalf("checks were %q, want %q", got, want)
	}
	f.want("1 draining", "2 serving")
}

// TestCanarySlowCheck: one that is under way when a step ends is waited for, and one more is begun.
func TestCanarySlowCheck(t *testing.T) {
	f := steeredUp(t, defaultLimits())
	f.askCanary([]canaryStep{{10, 5 * time.Second}}, true)
	f.serve()
	f.advance(time.Second)
	f.advance(5 * time.Second)
	f.want("1 serving", "2 ready")
	f.checked(exitStatus{})
	f.want("1 serving", "2 ready")
	f.checked(exitStatus{})
	f.want("1 draining", "2 serving")
}

// TestCanaryAborted: a rollback and a stop end a canary; the predecessor serves on after the first.
func TestCanaryAborted(t *testing.T) {
	t.Run("rollback", func(t *testing.T) {
		f := canaried(t, defaultLimits(), true)
		f.ask(askRestart, "SIGHUP")
		f.wantSaid("the restart waits for the canary of generation 2 by=SIGHUP; hotwrap rollback aborts that")
		f.ask(askRollback, "hotwrap rollback")
		f.wantShares(map[int]int{1: 1})
		if v := f.verdict(1); v.Result != superseded || v.Reason != "the canary was aborted, by hotwrap rollback" {
			f.fatalf("verdict %+v", v)
		}
		if v := f.verdict(2); v.Result != superseded {
			f.fatalf("verdict on the restart that waited: %+v", v)
		}
		v := f.verdict(3)
		view := viewVerdict(v, f.clock(), time.Now())
		if v.Result != promoted || v.Generation != 1 || v.Serving != 1 || view.words() != "generation 1 serves (build abc): the canary was aborted" {
			f.fatalf("verdict %+v: %s", v, view.words())
		}
		f.drained()
		f.want("1 serving")
		if f.s.Numbers != 2 || f.s.Tally.Completed != 1 {
			f.fatalf("%d generations, %d completed", f.s.Numbers, f.s.Tally.Completed)
		}
	})
	t.Run("rollback while it starts", func(t *testing.T) {
		f := steeredUp(t, defaultLimits())
		f.askCanary(twoSteps, false)
		f.prepared(nil)
		f.exec()
		f.ask(askRollback, "hotwrap rollback")
		f.obey()
		f.want("1 serving")
		if v := f.verdict(2); v.Result != promoted || f.answers["1"] != superseded {
			f.fatalf("verdict %+v, %v", v, f.answers)
		}
	})
	t.Run("stop", func(t *testing.T) {
		f := canaried(t, defaultLimits(), true)
		f.ask(askStop, "SIGTERM")
		f.wantShares(map[int]int{1: 1})
		f.drained()
		if !f.s.done() || f.s.Status != 0 || f.answers["1"] != stopped {
			f.fatalf("done %v, status %d, verdicts %v", f.s.done(), f.s.Status, f.answers)
		}
	})
	t.Run("the predecessor dies", func(t *testing.T) { // and comes back: the successor has not proved yet what it is to
		f := canaried(t, defaultLimits(), true)
		f.die(f.procs[0], exitStatus{Signal: syscall.SIGSEGV})
		f.step(event{kind: evChild})
		f.want("1 serving", "2 ready")
		if f.answers["1"] != "" {
			f.fatalf("verdicts %v", f.answers)
		}
	})
	t.Run("the predecessor dies for good", func(t *testing.T) {
		l := defaultLimits()
		l.respawn = respawnNever
		f := canaried(t, l, true)
		f.die(f.procs[0], exitStatus{Signal: syscall.SIGSEGV})
		f.step(event{kind: evChild})
		f.want("2 serving")
		f.wantShares(map[int]int{2: 1})
		if f.answers["1"] != promoted {
			f.fatalf("verdicts %v", f.answers)
		}
	})
}

// TestCanaryRefused: where there cannot be one, that is the verdict, and nothing is started.
func TestCanaryRefused(t *testing.T) {
	cases := map[string]struct {
		change func(l *limits)
		want   string
	}{
		"no overlap":  {func(l *limits) { l.overlap = false }, "no canary: without overlap there is nobody beside the successor"},
		"not steered": {func(l *limits) { l.unsteered = `listener "a" is unix` }, `no canary: listener "a" is unix`},
		"none serves": {func(l *limits) { l.watch, l.wait = true, true }, "no canary: no generation serves"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := defaultLimits()
			c.change(&l)
			f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
			f.s.start()
			if l.wait {
				f.prepared(errors.New("no"))
			} else {
				f.serve()
			}
			numbers := f.s.Numbers
			f.askCanary(twoSteps, false)
			if v := f.verdict(1); v.Result != failed || v.Reason != c.want || f.s.Numbers != numbers {
				f.fatalf("verdict %+v, %d generations", v, f.s.Numbers)
			}
		})
	}
}

// TestCanaryDisplaces: a canary and a plain restart are not the same, so the one does not answer for the other.
func TestCanaryDisplaces(t *testing.T) {
	f := steeredUp(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.ask(askRestart, "SIGHUP")
	f.askCanary(twoSteps, false)
	if f.answers["2"] != superseded {
		f.fatalf("a canary joins a plain restart: %v", f.answers)
	}
	f.askCanary(twoSteps, false)
	f.askCanary(twoSteps, true)
	if f.answers["2"] != superseded || f.answers["3"] != superseded || f.answers["4"] != superseded || f.answers["5"] != "" {
		f.fatalf("verdicts %v", f.answers)
	}
}

// TestCanaryWorkers: with --surge all workers of the successor start for a canary, which is said once.
func TestCanaryWorkers(t *testing.T) {
	l := defaultLimits()
	l.workers, l.surge = 3, 1
	f := startedAll(t, l)
	for n := range 2 {
		f.askCanary(twoSteps[:1], false)
		f.prepared(nil)
		if g := f.s.candidate(); len(g.Workers) != 3 {
			f.fatalf("%d workers start", len(g.Workers))
		}
		f.readyAll()
		f.advance(time.Second)
		f.wantShares(map[int]int{2*n + 1: 990, 2*n + 2: 10})
		f.ask(askRollback, "x")
		if n == 0 {
			f.drained()
			f.askCanary(twoSteps[:1], false)
			f.prepared(nil)
			f.readyAll()
			f.advance(time.Second)
			f.advance(time.Minute)
			f.drained()
			f.want("3 serving")
		}
	}
	said := 0
	for _, m := range f.said {
		if strings.Contains(m.String(), "--surge is not for a canary") {
			said++
		}
	}
	if said != 1 {
		f.fatalf("said %d times", said)
	}
}

// readyAll brings every worker of the newest generation to ready.
func (f *fakeWorld) readyAll() {
	g := f.s.Generations[len(f.s.Generations)-1]
	for _, w := range slices.Clone(g.Workers) {
		f.step(event{kind: evExec, serial: w.Serial})
	}
	for g.State == genStarting {
		f.advance(lookLongest)
		for len(f.looking) > 0 {
			f.looked(sight{watched: f.s.limits.listeners})
		}
	}
}

func startedAll(t *testing.T, l limits) *fakeWorld {
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.routes = routed{steered: true, alone: true}
	f.s.start()
	f.prepared(nil)
	f.readyAll()
	f.want("1 serving")
	return f
}

// TestParseCanary: what is understood, and in which words the rest is refused.
func TestParseCanary(t *testing.T) {
	for text, want := range map[string]string{
		"5%:2m":                          "5%:2m0s",
		"1%:1m,10%:5m":                   "1%:1m0s,10%:5m0s",
		"0.5%:30, 5.0%:1m30s ,99.9%:1ms": "0.5%:30s,5%:1m30s,99.9%:1ms",
		"":                               canaryFormat,
		"5%":                             `"5%": ` + canaryFormat,
		"5:2m":                           `"5:2m": ` + canaryFormat,
		"5%:2m,":                         `"": ` + canaryFormat,
		"x%:2m":                          `"x%" is no share, as 5% or 0.5%`,
		"-5%:2m":                         `"-5%" is no share, as 5% or 0.5%`,
		"5.%:2m":                         `"5.%" is no share, as 5% or 0.5%`,
		"5.25%:2m":                       `"5.25%": a share has one decimal at most`,
		"0%:2m":                          `"0%": a share is above 0% and below 100%`,
		"0.0%:2m":                        `"0.0%": a share is above 0% and below 100%`,
		"100%:2m":                        `"100%": a share is above 0% and below 100%`,
		"1000%:2m":                       `"1000%" is no share, as 5% or 0.5%`,
		"10%:2m,10%:3m":                  `"10%:3m": each step gets more than the one before it, which had 10%`,
		"5%:soon":                        `"soon": it is not a time such as 30s, 1m30s or 500ms`,
		"5%:-1s":                         `"-1s": it is not a time such as 30s, 1m30s or 500ms`,
		"5%:0":                           `"5%:0": a step takes time`,
		strings.Join(steps(21), ","):     "20 steps are the most",
		strings.Join(steps(20), ","):     strings.Join(steps(20), ","),
	} {
		got, err := parseCanary(text)
		said := canaryText(got)
		if err != nil {
			said = err.Error()
		}
		if said != want {
			t.Errorf("%q: %q, want %q", text, said, want)
		}
	}
}

func steps(n int) (texts []string) {
	for i := range n {
		texts = append(texts, fmt.Sprintf("%d%%:1s", i+1))
	}
	return texts
}

// urlLimits are those of a program with --ready URL.
func urlLimits() limits {
	l := defaultLimits()
	l.ready, l.readyURL = readyURL, "http://127.0.0.1:8080/healthz"
	return l
}

// answers gives one answer after another, each when it is asked for.
func (f *fakeWorld) answersURL(good bool, n int, text string) {
	f.t.Helper()
	for range n {
		for len(f.probing) == 0 {
			var at instant
			for _, g := range f.s.Generations {
				at = max(at, g.Ask)
			}
			if at == 0 {
				f.fatalf("nobody asks")
			}
			f.advance(at.since(f.clock()))
		}
		f.probed(good, text)
	}
}

// servedURL is a world whose first generation has shown by its answers that it serves.
func servedURL(t *testing.T, l limits) *fakeWorld {
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.routes = routed{steered: true, alone: true}
	f.s.start()
	f.prepared(nil)
	f.exec()
	f.advance(lookFirst)
	f.looked(sight{watched: l.listeners})
	f.want("1 starting")
	f.answersURL(true, urlGood, "")
	f.want("1 serving")
	f.wantSaid("generation 1 ready pid=101 after=24ms by=answer")
	return f
}

// TestReadyURL: three good answers in a row, asked from exec on, and no word of the program in their place.
func TestReadyURL(t *testing.T) {
	l := urlLimits()
	l.bake = 10 * time.Second
	f := servedURL(t, l)
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.exec()
	f.tell()
	f.advance(lookFirst)
	f.looked(sight{watched: f.s.limits.listeners})
	f.answersURL(true, urlGood-1, "")
	f.answersURL(false, 1, "answered 500")
	f.answersURL(true, urlGood-1, "")
	f.want("1 serving", "2 starting")
	f.answersURL(true, 1, "")
	f.want("1 serving", "2 ready")
	f.answersURL(false, urlBad-1, "answered 500")
	f.answersURL(true, 1, "")
	f.advance(l.bake)
	f.want("1 draining", "2 serving")
	f.drained()
	f.exit(exitStatus{Code: 1}) // one that is started again is not asked
	f.exec()
	f.advance(lookFirst)
	for len(f.looking) > 0 {
		f.looked(sight{watched: f.s.limits.listeners})
	}
	f.wantSaid("generation 2 ready again")
}

// TestReadyURLPauses: asks are a quarter further apart each time, up to a limit.
func TestReadyURLPauses(t *testing.T) {
	l := urlLimits()
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.prepared(nil)
	f.exec()
	if len(f.probing) != 0 {
		f.fatalf("asked before anybody waits for connections")
	}
	f.advance(lookFirst)
	f.looked(sight{watched: l.listeners})
	var got []time.Duration
	for range 20 {
		f.probed(false, "answered 503")
		at := f.s.Generations[0].Ask
		got = append(got, at.since(f.clock()).Round(time.Millisecond/10))
		f.advance(at.since(f.clock()))
	}
	f.probed(false, "answered 503")
	f.advance(f.s.Generations[0].Deadline.since(f.clock()) - time.Second) // the last ask ends with the limit
	if got[0] != urlFirst || got[1] != urlFirst*5/4 || got[19] != urlLongest || !slices.IsSorted(got) {
		f.fatalf("pauses %v", got)
	}
}

// TestReadyURLFails: the verdict has the last answer; the predecessor serves on.
func TestReadyURLFails(t *testing.T) {
	const url = "http://127.0.0.1:8080/healthz"
	looked := func(f *fakeWorld) {
		f.prepared(nil)
		f.exec()
		f.advance(lookFirst)
		f.looked(sight{watched: f.s.limits.listeners})
	}
	serve := func(f *fakeWorld) {
		looked(f)
		f.answersURL(true, urlGood, "")
		f.want("1 serving", "2 ready")
	}
	cases := map[string]struct {
		bad   func(f *fakeWorld)
		stage stage
		says  string
	}{
		"bad answers": {func(f *fakeWorld) {
			looked(f)
			f.answersURL(false, 9, `answered 503 Service Unavailable: "db down"`)
			f.probed(false, "")
			f.advance(time.Minute)
		}, stageReady, "not ready after 1m; " + url + ` answered 503 Service Unavailable: "db down"`},
		"no answer": {func(f *fakeWorld) { looked(f); f.advance(time.Minute) }, stageReady, "not ready after 1m; " + url + " did not answer"},
		"nobody serves": {func(f *fakeWorld) {
			f.prepared(nil)
			f.exec()
			f.answersURL(false, 1, "did not answer: connection refused")
			f.advance(time.Minute)
		}, stageReady, "not ready after 1m; " + url + ` did not answer: connection refused; nobody serves "web"`},
		"while baking": {func(f *fakeWorld) { serve(f); f.answersURL(false, urlBad, "answered 500") }, stageBake, url + " answered 500, while baking"},
		"canary": {func(f *fakeWorld) {
			serve(f)
			f.answersURL(true, 10, "")
			f.answersURL(false, urlBad, "answered 500")
		}, stageCanary, url + " answered 500, during the canary"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			l := urlLimits()
			l.bake = 5 * time.Second
			f := servedURL(t, l)
			f.askCanary([]canaryStep{{50, time.Minute}}, false)
			c.bad(f)
			if v := f.verdict(1); v.Result != failed || v.Reason != c.says || v.Stage != c.stage {
				f.fatalf("verdict %+v, want %q", v, c.says)
			}
			f.drained()
			f.want("1 serving")
			f.wantShares(map[int]int{1: 1})
		})
	}
}

// TestReadyURLWorkers: any worker's answer is that of all; a batch that starts later need not wait for one.
func TestReadyURLWorkers(t *testing.T) {
	l := urlLimits()
	l.workers, l.surge = 2, 1
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	all := func() {
		for f.s.Restart != nil {
			g := f.s.candidate()
			for _, w := range g.Workers {
				f.step(event{kind: evExec, serial: w.Serial})
			}
			if g.Ask != 0 && len(f.probing) == 0 {
				f.advance(g.Ask.since(f.clock()))
			}
			f.probed(true, "")
			f.advance(lookLongest)
			for len(f.looking) > 0 {
				f.looked(sight{watched: l.listeners})
			}
			f.obey()
		}
		f.drained()
	}
	f.s.start()
	f.prepared(nil)
	all()
	f.want("1 serving")
	f.wantSaid("generation 1 ready workers=2", "by=answer")
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	all()
	f.want("2 serving")
	f.wantSaid("generation 2 has 1 of 2 workers ready", "generation 2 ready workers=2")
}

// TestCanaryShown: status, its table and the metrics say who gets which share, where shares there are.
func TestCanaryShown(t *testing.T) {
	f := canaried(t, defaultLimits(), false)
	show := func(steered bool) (v statusView, table, numbers string) {
		var drawn, exposed strings.Builder
		f.s.serving().Steered = steered
		v = makeStatus(&f.s.state, f.clock(), time.Now(), facts{})
		if err := writeStatus(&drawn, compactJSON(v), 0); err != nil {
			t.Fatal(err)
		}
		if err := writeMetrics(&exposed, v, f.s.Tally, facts{}); err != nil {
			t.Fatal(err)
		}
		return v, drawn.String(), exposed.String()
	}
	v, table, numbers := show(true)
	if *v.Generations[0].Share != 0.99 || *v.Generations[1].Share != 0.01 || v.Restart.Stage != stageCanary || v.Restart.Left != 60 {
		t.Errorf("shares %v, %v, %+v", *v.Generations[0].Share, *v.Generations[1].Share, v.Restart)
	}
	if !strings.Contains(table, "SHARE") || !strings.Contains(table, "  99%") || !strings.Contains(table, "  1%") {
		t.Errorf("the table is\n%s", table)
	}
	if !strings.Contains(numbers, "\nhotwrap_generation_share{generation=\"2\"} 0.01\n") {
		t.Errorf("the metrics are\n%s", numbers)
	}
	if _, table, numbers := show(false); strings.Contains(table, "SHARE") || strings.Contains(numbers, "generation_share") {
		t.Errorf("shares where there are none:\n%s%s", table, numbers)
	}
	f.advance(time.Minute)
	f.advance(5 * time.Minute)
	if v, table, _ := show(true); strings.Contains(table, "SHARE") || *v.Generations[0].Share != 0 || *v.Generations[1].Share != 1 {
		t.Errorf("after the switch:\n%s", table)
	}
}

// TestCanaryBody: what a client may ask for over the control socket; the group has no command run.
func TestCanaryBody(t *testing.T) {
	owner, member := caller{uid: os.Geteuid(), known: true}, caller{uid: 4711, known: true}
	for _, c := range []struct {
		body wishBody
		who  caller
		code int
		want string
	}{
		{wishBody{}, member, http.StatusOK, ""},
		{wishBody{Canary: "5%:2m"}, member, http.StatusOK, "5%:2m0s"},
		{wishBody{Canary: "5%:2m", CanaryCheck: "true"}, owner, http.StatusOK, "5%:2m0s"},
		{wishBody{Canary: "5%:2m", CanaryCheck: "true"}, member, http.StatusForbidden, "have no command run"},
		{wishBody{CanaryCheck: "true"}, owner, http.StatusBadRequest, "canary_check is for a canary"},
		{wishBody{Canary: "5"}, owner, http.StatusBadRequest, canaryFormat},
		{wishBody{Canary: "5%:2m", CanaryCheck: "a\x00b"}, owner, http.StatusBadRequest, "a zero byte"},
		{wishBody{Canary: "5%:2m", CanaryCheck: strings.Repeat("x", commandMost+1)}, owner, http.StatusBadRequest, "over 4000 bytes"},
	} {
		w, q := httptest.NewRecorder(), request{}
		ok := c.body.trial(w, &q, c.who)
		if ok != (c.code == http.StatusOK) || w.Code != c.code {
			t.Errorf("%+v: %v, %d", c.body, ok, w.Code)
		}
		if said := w.Body.String() + canaryText(q.Canary); !strings.Contains(said, c.want) {
			t.Errorf("%+v: %q, want %q", c.body, said, c.want)
		}
	}
}
