package main

import (
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// kernelDeadline ends a test that waits for something that never comes.
const kernelDeadline = 20 * time.Second

// seeUntil takes looks until one pleases.
func seeUntil[T any](t *testing.T, what string, see func() T, pleases func(T) bool) T {
	t.Helper()
	for end := time.Now().Add(kernelDeadline); ; runtime.Gosched() {
		got := see()
		if pleases(got) {
			return got
		}
		if time.Now().After(end) {
			t.Fatalf("never seen: %s; last look: %+v", what, got)
		}
	}
}

func TestSocketInode(t *testing.T) {
	var pair [2]int
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	copy(pair[:], fds[:])
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	a, err := socketInode(pair[0])
	if err != nil {
		t.Fatal(err)
	}
	b, err := socketInode(pair[1])
	if err != nil {
		t.Fatal(err)
	}
	if runtime.GOOS == "linux" && (a == 0 || a == b) {
		t.Errorf("inodes %d and %d of two sockets", a, b)
	}

	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	if inode, err := socketInode(int(null.Fd())); err == nil || !strings.Contains(err.Error(), "not a socket") {
		t.Errorf("socketInode of /dev/null = %d, %v", inode, err)
	}
	if _, err := socketInode(-1); err == nil {
		t.Error("no error for descriptor -1")
	}
}

// TestGroupAndTreeEnd: a group is empty, and a tree gone, when the last process is reaped; not before, not later.
func TestGroupAndTreeEnd(t *testing.T) {
	cmd := exec.Command("cat")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	pid := cmd.Process.Pid
	if groupEmpty(pid) {
		t.Error("the group is empty while its leader lives")
	}
	if got := tree(pid); !slices.Equal(got, []int{pid}) {
		t.Errorf("tree = %v, want the leader %d alone", got, pid)
	}
	if !ownsTree(pid, pid) || ownsTree(pid, os.Getpid()) {
		t.Error("ownsTree: want the process itself, and not its parent")
	}
	_ = stdin.Close()
	if err := cmd.Wait(); err != nil {
		t.Error(err)
	}
	if !groupEmpty(pid) {
		t.Error("the group is not empty after its only process was reaped")
	}
	if got := tree(pid); got != nil {
		t.Errorf("tree of a process that is gone = %v", got)
	}
	if v := look(pid, []uint64{1}); len(v.pids) != 0 || v.holds[1] || v.watches[1] {
		t.Errorf("look at a process that is gone = %+v", v)
	}
	if groupEmpty(os.Getpid()) && groupEmpty(unix.Getpgrp()) {
		t.Error("our own group is empty")
	}
}

func TestBlindElsewhere(t *testing.T) {
	v := look(os.Getpid(), []uint64{1})
	if (v.blind == "") != (runtime.GOOS == "linux") {
		t.Errorf("blind = %q on %s", v.blind, runtime.GOOS)
	}
	if v.watches[1] || v.holds[1] || !slices.Contains(v.pids, os.Getpid()) {
		t.Errorf("look = %+v", v)
	}
}
