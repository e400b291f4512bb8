package main

import (
	"errors"
	"os"
	"testing"
)

// TestPermitsLeaveNothing: neither descriptors nor threads.
func TestPermitsLeaveNothing(t *testing.T) {
	tryAll()
	fds, threads := entries(t, "/proc/self/fd"), entries(t, "/proc/self/task")
	for range 100 {
		tryAll()
	}
	if now := entries(t, "/proc/self/fd"); now > fds {
		t.Errorf("%d descriptors, %d before", now, fds)
	}
	if now := entries(t, "/proc/self/task"); now > threads+10 {
		t.Errorf("%d threads, %d before", now, threads)
	}
}

func entries(t *testing.T, dir string) int {
	t.Helper()
	list, err := os.ReadDir(dir)
	if err != nil {
		t.Fatal(err)
	}
	return len(list)
}

// TestPermitsWords: what is missing is one line each, with the remedy.
func TestPermitsWords(t *testing.T) {
	var all permits
	if all.needsSteering("--canary") != nil || all.needsAdoption() != nil || len(all.losses()) > 0 {
		t.Error("nothing is missing")
	}
	p := permits{steering: &missing{"no program", "Linux 4.6"}, adoption: errors.New("no seccomp")}
	if got, want := p.needsSteering("--canary").Error(), "--canary needs a socket of its own for each generation: no program: Linux 4.6"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	if got, want := p.needsAdoption().Error(), "--adopt always: cannot do the program's bind and listen: no seccomp"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
	ms := p.losses()
	want := []string{
		"all generations share their sockets, and clients may reach a successor before the switch; no program: Linux 4.6",
	}
	if len(ms) != len(want) {
		t.Fatalf("%d lines, want %d", len(ms), len(want))
	}
	for i, m := range ms {
		if m.String() != want[i] || m.level != levelWarning {
			t.Errorf("%s %q, want %q", m.level, m, want[i])
		}
	}
}

func BenchmarkPermits(b *testing.B) {
	for b.Loop() {
		tryAll()
	}
}

func BenchmarkSteerable(b *testing.B) {
	for b.Loop() {
		_ = steerable()
	}
}

// tryAll finds out everything.
func tryAll() { _, _, _ = steerable(), tablesReadable(), adoptableAs(nil) }
