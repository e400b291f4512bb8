package main

// These tests play --build and the watch to the state machine.

import (
	"errors"
	"slices"
	"testing"
)

// bench is a supervisor with --build whose generation 1 serves, unless it is told not to.
type bench struct {
	*fakeWorld
	cleared int
	told    []int // builds that the watch was told to have ended
	again   int   // programs that it is to tell again
}

func newBench(t *testing.T) *bench {
	l := defaultLimits()
	l.watch, l.build, l.bake = true, true, 0
	b := &bench{fakeWorld: newFakeWorld(t, l, func() instant { return 1 })}
	b.s.world.clear = func() { b.cleared++ }
	b.s.world.built = func(number int, _ bool) { b.told = append(b.told, number) }
	b.s.world.runs = func(build string) {
		if build == "" {
			b.again++
		}
	}
	return b
}

// source tells of a change among the sources.
func (b *bench) source(number int) {
	b.step(event{kind: evChanged, trigger: trigger{what: "main.go", sources: true, build: number}})
}

// program tells of a new one, found when the watch knew of the end of a build.
func (b *bench) program(to string, ended int) {
	b.disk = to
	b.step(event{kind: evChanged, trigger: trigger{name: "app", to: to, program: true, build: ended}})
}

func (b *bench) template() {
	b.step(event{kind: evChanged, trigger: trigger{what: "index.html"}})
}

func (b *bench) wantCleared(want int) {
	b.t.Helper()
	if b.cleared != want {
		b.fatalf("cleared the screen %d times, want %d", b.cleared, want)
	}
}

// The screen is cleared when a build begins because of a change, and not at the start that follows.
func TestBuildClears(t *testing.T) {
	b := newBench(t)
	b.s.start()
	b.exit(exitStatus{})
	b.serve()
	b.wantCleared(0)
	b.source(1)
	b.wantCleared(1)
	b.source(2)
	b.wantCleared(2)
	b.step(event{kind: evChild}) // the first has been killed
	b.exit(exitStatus{})
	b.program("new", 2)
	b.want("1 serving", "2 starting")
	b.wantCleared(2)
	b.serve()
	b.want("1 draining", "2 serving")
	b.surveyed()
	b.obey()
	b.template() // needs no build
	b.wantCleared(3)
	if !slices.Equal(b.told, []int{0, 2}) {
		b.fatalf("told that builds %v have ended", b.told)
	}
}

// A program that was found while the build that has failed was running is none to be started.
func TestBuildFailedProgram(t *testing.T) {
	b := newBench(t)
	b.s.start()
	b.exit(exitStatus{})
	b.serve()
	b.source(1)
	b.exit(exitStatus{Code: 1})
	b.program("bad", 0) // found before the watch knew
	b.want("1 serving")
	if b.again != 1 {
		b.fatalf("the watch is to tell %d times again", b.again)
	}
	b.program("by hand", 1)
	b.want("1 serving", "2 starting")
}

// What generation 1 is started from asks for no other, whether it was found before that was prepared or not.
func TestBuildFirstProgram(t *testing.T) {
	b := newBench(t)
	b.s.start()
	b.exit(exitStatus{})
	b.program("abc", -1)
	b.serve()
	b.want("1 serving")
	if len(b.s.Pending) > 0 {
		b.fatalf("a restart is pending")
	}
}

// A program that is taken back leaves a restart alone that a template has asked for.
func TestBuildTemplateKept(t *testing.T) {
	b := newBench(t)
	b.s.start()
	b.exit(exitStatus{})
	b.serve()
	b.template()
	b.want("1 serving", "2 starting")
	b.program("abc", 0)
	b.want("1 serving", "2 starting")
	b.prepared(nil)
	b.exec()
	b.template() // pending, or in the place of 2
	b.program("abc", 0)
	b.serve()
	b.surveyed()
	b.obey()
	b.serve()
	if g := b.s.serving(); g.Number != 3 {
		b.fatalf("generation %d serves", g.Number)
	}
}

// What a build leaves running in its group ends with it.
func TestBuildLeftover(t *testing.T) {
	b := newBench(t)
	b.s.start()
	b.procs[0].lingers = true
	b.exit(exitStatus{})
	if b.procs[0].lingers {
		b.fatalf("something of the build lives on")
	}
	b.serve()
	b.want("1 serving")
}

// A build that cannot run has ended, too: the watch must not wait for it.
func TestBuildCannotRun(t *testing.T) {
	b := newBench(t)
	b.s.start()
	b.exit(exitStatus{})
	b.serve()
	b.spawnErr = errors.New("no memory")
	b.source(1)
	b.wantSaid("cannot run --build: no memory; generation 1 serves on")
	if !slices.Equal(b.told, []int{0, 1}) {
		b.fatalf("told that builds %v have ended", b.told)
	}
}

func TestTriggerString(t *testing.T) {
	for want, g := range map[string]trigger{
		"app changed (a → b, 12 kB)": {from: "a", to: "b", program: true},
		"app changed (b, 12 kB)":     {to: "b", program: true},
		"app changed (12 kB)":        {from: "a", program: true},
		"app is back (b, 12 kB)":     {from: "b", to: "b", program: true},
		"3 files changed":            {what: "3 files"},
	} {
		if g.name, g.size = "app", 12_000; g.String() != want {
			t.Errorf("got %q, want %q", g, want)
		}
	}
}
