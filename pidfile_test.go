package main

// This file proves that a pid file is one hotwrap's at a time, however they come and go; what is in it, and when,
// testdata/script/pidfile_*.txtar show.

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
)

// TestPIDFileOne: locks belong to open files, so goroutines can be the hotwraps here. A lock file that its holder
// removes while another waits at its door must not let two in.
func TestPIDFileOne(t *testing.T) {
	name := filepath.Join(t.TempDir(), "web.pid")
	want := strconv.Itoa(os.Getpid()) + "\n"
	var holders, turns atomic.Int32
	var all sync.WaitGroup
	for range 8 {
		all.Go(func() {
			for range 300 {
				p, err := openPIDFile(name)
				if err != nil {
					if !strings.Contains(err.Error(), "of another hotwrap") {
						t.Error(err)
					}
					continue
				}
				if n := holders.Add(1); n != 1 {
					t.Errorf("%d hold it", n)
				}
				if err := p.publish(); err != nil {
					t.Error(err)
				}
				if text, err := os.ReadFile(name); string(text) != want {
					t.Errorf("it holds %q, %v", text, err)
				}
				turns.Add(1)
				holders.Add(-1)
				p.remove()
			}
		})
	}
	all.Wait()
	if left, _ := filepath.Glob(filepath.Join(filepath.Dir(name), "*")); turns.Load() == 0 || len(left) > 0 {
		t.Errorf("%d turns, left behind: %v", turns.Load(), left)
	}
}

// TestPIDFileLinked: a lock file that is a hard link to another is not written to, in a directory where others may make one.
func TestPIDFileLinked(t *testing.T) {
	dir := t.TempDir()
	const text = "root:x:0:0:\n"
	victim := filepath.Join(dir, "victim")
	if err := os.WriteFile(victim, []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Link(victim, filepath.Join(dir, ".web.pid.hotwrap-lock")); err != nil {
		t.Fatal(err)
	}
	p, err := openPIDFile(filepath.Join(dir, "web.pid"))
	p.remove()
	if now, _ := os.ReadFile(victim); err == nil || string(now) != text {
		t.Errorf("%v, and the other file holds %q", err, now)
	}
}
