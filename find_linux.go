package main

// This file is what only Linux can say of other instances: who listens anywhere, and what another mount namespace has.

import (
	"fmt"
	"os"
	"path/filepath"

	"golang.org/x/sys/unix"
)

const canListSockets = true

// boundSockets lists the control sockets in the network namespace of a process, which is given by its directory in /proc.
// Each path is as its own process calls it.
func boundSockets(proc string) (paths []string) {
	eachLine(proc+"/net/unix", func(line string) bool {
		if s, ok := parseUnixRow(line); ok && s.listening && isControlPath(s.path) {
			paths = append(paths, s.path)
		}
		return len(paths) < contactsMost
	})
	return paths
}

// otherRoot is the root directory of a process as we reach it; "" where it is ours.
func otherRoot(pid int) string {
	if pid <= 0 {
		return ""
	}
	root := fmt.Sprintf("/proc/%d/root", pid)
	ours, err1 := os.Readlink("/proc/self/ns/mnt")
	its, err2 := os.Readlink(fmt.Sprintf("/proc/%d/ns/mnt", pid))
	here, err3 := os.Stat("/")
	there, err4 := os.Stat(root)
	if err1 != nil || err2 != nil || err3 != nil || err4 != nil || ours == its && os.SameFile(here, there) {
		return "" // it is ours, or closed to us
	}
	return root
}

// shortPath makes a path of a socket short enough for connect(2), if it is too long. done is called afterwards.
func shortPath(path string) (short string, done func()) {
	if len(path) <= maxSockPath {
		return path, func() {}
	}
	fd, err := unix.Open(filepath.Dir(path), unix.O_PATH|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return path, func() {}
	}
	return fmt.Sprintf("/proc/self/fd/%d/%s", fd, filepath.Base(path)), func() { _ = unix.Close(fd) }
}
