package main

// This file tries what doctor reads of Linux.

import (
	"os"
	"slices"
	"testing"
)

func TestParseLimit(t *testing.T) {
	text := []byte("Limit                     Soft Limit           Hard Limit           Units     \n" +
		"Max open files            1024                 524288               files     \n" +
		"Max processes             unlimited            unlimited            processes \n" +
		"Max file locks            odd\n")
	for name, want := range map[string]struct {
		n           uint64
		limited, ok bool
	}{
		"Max open files": {1024, true, true}, "Max processes": {0, false, true}, "Max file locks": {0, true, false}, "Max nothing": {},
	} {
		n, limited, ok := parseLimit(text, name)
		if n != want.n || ok != want.ok || ok && limited != want.limited {
			t.Errorf("%s: %d %v %v", name, n, limited, ok)
		}
	}
}

func TestWholeMap(t *testing.T) {
	for text, want := range map[string]bool{
		"         0          0 4294967295\n": true, "0 1000 1\n": false, "0 0 65536\n": false, "0 1000 1\n1 100000 65536\n": false, "": false,
	} {
		if wholeMap([]byte(text)) != want {
			t.Errorf("%q: not %v", text, want)
		}
	}
}

// TestPatient: what is started to be looked at can be looked at, and ends.
func TestPatient(t *testing.T) {
	for _, pinned := range []bool{true, false} {
		c, err := newPatient(nil, pinned)
		if err != nil {
			t.Fatal(err)
		}
		pid := c.pid
		if v := look(pid, []uint64{c.inode}); !v.holds[c.inode] {
			t.Errorf("pinned %v: %+v", pinned, v)
		}
		c.end()
		if procAlive(pid) {
			t.Errorf("pinned %v: process %d is still there", pinned, pid)
		}
	}
}

// TestExamineLeavesNothing: neither files nor processes; a directory that was there stays.
func TestExamineLeavesNothing(t *testing.T) {
	run := t.TempDir()
	if err := os.Chmod(run, 0o700); err != nil {
		t.Fatal(err)
	}
	before := childrenOf(os.Getpid())
	x := &examination{environ: []string{"HOTWRAP_RUNTIME_DIR=" + run}}
	x.examine()
	if len(x.found) < 15 {
		t.Errorf("only %d findings", len(x.found))
	}
	for _, child := range childrenOf(os.Getpid()) {
		if !slices.Contains(before, child) {
			t.Errorf("process %d was left", child)
		}
	}
	if left, err := os.ReadDir(run); err != nil || len(left) > 0 {
		t.Errorf("%q holds %v, %v", run, left, err)
	}
}
