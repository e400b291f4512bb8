package main

// This file looks at what stands between hotwrap and a server: which process is the server where a launcher started
// it, who was not handed the sockets, and what a launcher that has ended left behind.

import (
	"bytes"
	"fmt"
	"os"
	"slices"

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

// serverOf finds the process that serves where launchers stand before it: the first below the leader that is none, on
// the way to the one that was seen watching; behind names the launcher. Without one it is the leader.
func serverOf(leader, watcher int) (pid int, behind string) {
	way := []int{watcher} // up to the leader
	for way[len(way)-1] != leader {
		s, ok := readStat(way[len(way)-1])
		if !ok || s.ppid <= 1 || len(way) > maxProcesses {
			return leader, ""
		}
		way = append(way, s.ppid)
	}
	slices.Reverse(way)
	for i, pid := range way[:min(len(way), chainMost)] {
		s, ok := readStat(pid)
		switch {
		case !ok || i == len(way)-1 && slices.Contains(between, s.name): // a shell that serves is no launcher
			return leader, ""
		case slices.Contains(between, s.name):
			behind = s.name
		case i > 0 && unix.Kill(pid, 0) != nil: // su made it another user's: it is the launcher that may signal it
			return leader, ""
		default:
			return pid, behind
		}
	}
	return leader, ""
}

// runningName is what a process runs now, whatever it was started as: the file's name, 15 bytes of it at the most.
func runningName(pid int) string {
	s, _ := readStat(pid)
	return s.name
}

// strays lists hotwrap's children that are in none of the known groups: what they descend from has ended.
func strays(known []int) (pids []int) {
	own := unix.Getpgrp()
	for _, pid := range childrenOf(os.Getpid()) {
		if s, ok := readStat(pid); ok && s.pgrp != own && !slices.Contains(known, s.pgrp) {
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

// holdsAny tells whether a process has one of the sockets open.
func holdsAny(pid int, sockets map[uint64]string) (holds bool) {
	_ = eachDescriptor(pid, func(_ int, link []byte) bool {
		if inode, ok := socketLink(link); ok && sockets[inode] != "" {
			holds = true
		}
		return !holds
	})
	return holds
}
