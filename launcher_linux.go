package main

// This file looks at what stands between hotwrap and a server: which process is the server where a launcher started
// it, who was not handed the sockets, and what a launcher that has ended left behind.

import (
	"bytes"
	"cmp"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const chainMost = 16 // launchers behind one another

// between are launchers that stay while the program runs, and end by themselves when it has: what is sent to them does
// not reach it, or reaches it twice. By the names that the kernel has of them, 15 bytes at the most. Those that are
// made to pass signals on, as tini and dumb-init, are none: they may be told to make another of one.
var between = []string{
	"sh", "bash", "dash", "ash", "busybox", "zsh", "ksh", "mksh", "fish",
	"make", "gmake", "just", "go", "timeout", "flock", "setsid", "time", "strace", "unshare", "su", "runuser",
}

// serverOf finds the process that signals are for where launchers stand before the server: the first below the leader
// that is none, on the way to the one that was seen watching; behind is the last launcher. Without one it is the leader.
func serverOf(leader, watcher int) (pid int, behind launcherSeen) {
	way := []int{watcher} // up to the leader
	for way[len(way)-1] != leader {
		s, ok := readStat(way[len(way)-1])
		if !ok || s.ppid <= 1 || len(way) > maxProcesses {
			return leader, launcherSeen{}
		}
		way = append(way, s.ppid)
	}
	slices.Reverse(way)
	last := 0
	for i, pid := range way[:min(len(way), chainMost)] {
		s, ok := readStat(pid)
		switch {
		case !ok || i == len(way)-1 && standsBetween(pid, s): // a shell that serves is no launcher
			return leader, launcherSeen{}
		case slices.Contains(inits, s.name):
			return pid, launcherSeen{s.name, remedyOf(pid)}
		case standsBetween(pid, s):
			last = pid
			behind.name = s.name
		case i > 0 && unix.Kill(pid, 0) != nil: // su made it another user's: it is the launcher that may signal it
			return leader, launcherSeen{}
		case last != 0:
			behind.remedy = remedyOf(last)
			return pid, behind
		default:
			return leader, launcherSeen{}
		}
	}
	return leader, launcherSeen{}
}

// standsBetween tells whether a process is a launcher. A script has its own name, so its interpreter's counts too.
func standsBetween(pid int, s procStat) bool {
	exe, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return slices.Contains(between, s.name) || slices.Contains(between, filepath.Base(exe))
}

// remedyOf says what to write instead of a launcher, by its own command line.
func remedyOf(pid int) string {
	text, _ := readProc(fmt.Sprintf("/proc/%d/cmdline", pid), maxText)
	dir, _ := os.Readlink(fmt.Sprintf("/proc/%d/cwd", pid))
	return cmp.Or(advise(strings.Split(strings.TrimSuffix(string(text), "\x00"), "\x00"), dir).remedy, inGeneral)
}

// runningName is what a process runs now, whatever it was started as: the file's name, 15 bytes of it at the most.
func runningName(pid int) string {
	s, _ := readStat(pid)
	return s.name
}

// strays lists hotwrap's children that are in none of the known groups: what they descend from has ended. A leader's pid
// is its group's number, so as a rule nothing has to be read of any.
func strays(known map[int]bool) (pids []int) {
	own := unix.Getpgrp()
	for _, pid := range childrenOf(os.Getpid()) {
		if known[pid] {
			continue
		}
		if s, ok := readStat(pid); ok && s.pgrp != own && !known[s.pgrp] {
			pids = append(pids, pid)
		}
	}
	return pids
}

// straysOf picks the groups of those that were started for the worker with this line in its environment and still have
// a listener. Who has none was meant to stay: a daemon that the program started for others too.
func straysOf(pids []int, line string, listeners map[uint64]string) (groups []int) {
	for _, pid := range pids {
		env, err := readProc(fmt.Sprintf("/proc/%d/environ", pid), maxText)
		s, ok := readStat(pid)
		if err != nil || !ok || s.pgrp <= 1 || slices.Contains(groups, s.pgrp) || !bytes.Contains(env, []byte(line+"\x00")) {
			continue
		}
		for _, p := range tree(pid) {
			if holdsAny(p, listeners) {
				groups = append(groups, s.pgrp)
				break
			}
		}
	}
	return groups
}

// holdsAny tells whether a process has one of the sockets open, as far as it may be looked into.
func holdsAny(pid int, sockets map[uint64]string) (holds bool) {
	err := eachSocket(pid, func(inode uint64) bool {
		holds = sockets[inode] != ""
		return !holds
	})
	return holds || denies(err)
}

// holders are those that have one of the sockets open.
func holders(pids []int, sockets map[uint64]string) []int {
	return slices.DeleteFunc(slices.Clone(pids), func(pid int) bool { return !holdsAny(pid, sockets) })
}

// stamped tells whether LISTEN_PID in a process's environment is its own pid.
func stamped(pid int) bool {
	env, err := readProc(fmt.Sprintf("/proc/%d/environ", pid), maxText)
	return err == nil && bytes.Contains(append([]byte{0}, env...), fmt.Appendf(nil, "\x00LISTEN_PID=%d\x00", pid))
}

// deprived finds the process of a tree, leader first, that was not handed the sockets though its parent has them, on
// the way to the last process of all; by and who are the names of the two.
func deprived(pids []int, sockets map[uint64]string) (by, who string) {
	if len(pids) < 2 || len(sockets) == 0 {
		return "", ""
	}
	for pid := pids[len(pids)-1]; pid != pids[0] && !holdsAny(pid, sockets); {
		s, ok := readStat(pid)
		parent, ok2 := readStat(s.ppid)
		if !ok || !ok2 {
			return "", ""
		}
		by, who, pid = parent.name, cmp.Or(who, s.name), s.ppid
		if holdsAny(pid, sockets) {
			return by, who
		}
	}
	return "", ""
}
