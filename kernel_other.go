//go:build !linux

package main

// This file says what cannot be seen where there is no /proc: see kernel_linux.go for what each look means.

import (
	"fmt"
	"net/netip"
	"runtime"

	"golang.org/x/sys/unix"
)

type view struct {
	pids    []int
	holds   map[uint64]bool
	watches map[uint64]bool
	watcher int
	blind   string
	denied  bool
}

type holder struct {
	pid     int
	command string
}

// socketInode returns the inode of a socket; 0 on systems whose sockets have none.
func socketInode(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("cannot look at descriptor %d: %w", fd, err)
	}
	if uint32(st.Mode)&unix.S_IFMT != unix.S_IFSOCK {
		return 0, fmt.Errorf("cannot look at descriptor %d: not a socket", fd)
	}
	return st.Ino, nil
}

// cpus is how many CPUs hotwrap may use.
func cpus() int { return runtime.NumCPU() }

// procAlive reports whether a process exists; one that has ended and is not reaped does.
func procAlive(pid int) bool { return pid > 0 && unix.Kill(pid, 0) != unix.ESRCH }

// tree returns the process alone: its descendants cannot be seen.
func tree(pid int) []int {
	if !procAlive(pid) {
		return nil
	}
	return []int{pid}
}

func look(pid int, _ []uint64) view {
	return view{
		pids: tree(pid), holds: map[uint64]bool{}, watches: map[uint64]bool{},
		blind: "processes cannot be looked into on " + runtime.GOOS,
	}
}

// groupEmpty reports whether no process is left in a group; EPERM means one of another user's.
func groupEmpty(pgid int) bool { return pgid <= 1 || unix.Kill(-pgid, 0) == unix.ESRCH }

// ownsTree knows no descendants.
func ownsTree(root, pid int) bool { return root == pid }

// serverOf knows no descendants.
func serverOf(leader, _ int) (pid int, behind launcherSeen) { return leader, launcherSeen{} }

// runningName is not known.
func runningName(int) string { return "" }

// strays cannot be found.
func strays(map[int]bool) []int { return nil }

func holders([]int, map[uint64]string) []int { return nil }

func stamped(int) bool { return true }

func deprived([]int, map[uint64]string) (by, who string) { return "", "" }

func straysOf([]int, string, map[uint64]string) []int { return nil }

func procState(int) (state byte, ppid, pgrp int, start uint64, ok bool) { return 0, 0, 0, 0, false }

func otherListeners([]int, []uint64) []string { return nil }

func pollers([]int, []uint64) map[uint64]int { return nil }

func cgroupProcesses() (most uint64, full bool) { return 0, false }

func connections([]int, []*listener) []connection { return nil }

func remainsOf([]int, []*listener) remains { return remains{} }

type listenQueue struct {
	waiting, limit int
	known          bool
}

func listenQueues(ls []*listener) []listenQueue { return make([]listenQueue, len(ls)) }

func portHolder(string, netip.AddrPort) (holder, bool) { return holder{}, false }

func pathHolder(string) (holder, bool) { return holder{}, false }

func memoryUse([]int) uint64 { return 0 }

func accepted([]int, []*listener) map[uint64]int { return nil }

func memoryRoom() (room uint64, where string, ok bool) { return 0, "", false }

func oomScoreAdj(int) (int, error) {
	return 0, fmt.Errorf("oom_score_adj is not available on %s", runtime.GOOS)
}

func setOOMScoreAdj(int, int) error {
	return fmt.Errorf("oom_score_adj is not available on %s", runtime.GOOS)
}
