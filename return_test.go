package main

// This file proves what becomes of a state that a hotwrap goes on with which came after the death of another.

import (
	"reflect"
	"testing"
	"time"
)

// farAway has every instant of v, and what it leads to, set to at.
func farAway(v reflect.Value, at instant) {
	switch v.Kind() {
	case reflect.Pointer:
		if !v.IsNil() {
			farAway(v.Elem(), at)
		}
	case reflect.Slice:
		for i := range v.Len() {
			farAway(v.Index(i), at)
		}
	case reflect.Struct:
		for i := range v.NumField() {
			if v.Field(i).CanSet() {
				farAway(v.Field(i), at)
			}
		}
	default:
		if v.Type() == reflect.TypeFor[instant]() {
			v.SetInt(int64(at))
		}
	}
}

// A state that tells of times far in the future, by a clock that was ahead of ours, has no deadline further away than its limit.
func TestReturnClockBehind(t *testing.T) {
	const now, ahead = instant(time.Hour), instant(100 * time.Hour)
	l := limits{
		workers: 1, readyTimeout: time.Minute, drainTimeout: 30 * time.Second, bake: time.Second, overlap: true,
		respawn: respawnAlways, respawnMost: 10,
	}
	for _, state := range []genState{genStarting, genReady, genServing, genDraining, genFailed} {
		for _, workers := range []workerState{workerStarting, workerReady, workerStopping, workerKilling} {
			g := &generation{
				Number: 1, State: state, Slots: make([]slot, 1), Period: reportFirst, Image: &image{Build: "abc"},
				Workers: []*worker{{Serial: 1, PID: 101, Group: 101, State: workers, Pause: lookFirst, Beat: time.Second}},
			}
			farAway(reflect.ValueOf(g), ahead)
			if state == genDraining {
				g.Deadline = ahead.add(20 * time.Second)
			}
			f := newFakeWorld(t, l, func() instant { return now })
			f.procs = append(f.procs, &fakeProcess{pid: 101, serial: 1, number: 1})
			f.s.recover(stateOfOne(g), provenance{})
			for _, at := range f.s.deadlines() {
				if at > now.add(time.Minute) {
					t.Errorf("%s, %s: something is due in %v", state, workers, at.since(now))
				}
			}
			if left := g.Deadline.since(now); state == genDraining && left != 20*time.Second {
				t.Errorf("a drain of 20s ends in %v", left)
			}
			if w := g.Workers[0]; w.State == workerStopping && w.Limit.since(now) != l.drainTimeout {
				t.Errorf("a worker that was told to stop has %v", w.Limit.since(now))
			}
			if g.Started > now || g.Drain > now || g.Workers[0].Started > now {
				t.Errorf("%s, %s: something began in the future", state, workers)
			}
		}
	}
}

// A clock that has gone on takes nothing away from what is left, and none stays none.
func TestReturnClockRight(t *testing.T) {
	const now = instant(time.Hour)
	w := &worker{Serial: 1, PID: 101, State: workerStopping, Limit: now.add(7 * time.Second), Started: now - 5}
	g := &generation{Number: 1, State: genDraining, Drain: now.add(-20 * time.Second), Deadline: now.add(10 * time.Second), Workers: []*worker{w}}
	want, wantWorker := *g, *w
	f := newFakeWorld(t, limits{drainTimeout: 30 * time.Second}, func() instant { return now })
	f.s.state = stateOfOne(g)
	f.s.clamp(now)
	if !reflect.DeepEqual(*g, want) || !reflect.DeepEqual(*w, wantWorker) {
		t.Errorf("%+v became %+v", want, *g)
	}
}

func stateOfOne(g *generation) state {
	return state{Generations: []*generation{g}, Numbers: g.Number, Serials: 1}
}
