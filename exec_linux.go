package main

// This file holds what of a process's launch only Linux has.

import "golang.org/x/sys/unix"

const (
	selfPath     = "/proc/self/exe" // also when the file was replaced: the running one
	openPin      = unix.O_PATH
	canRunPinned = true
	canDie       = true
)

// becomeSubreaper makes orphans of the program hotwrap's children, so that their end is seen
// (PR_SET_CHILD_SUBREAPER, Linux 3.4).
func becomeSubreaper() { _ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) }

// isProc tells whether a directory is of /proc.
func isProc(fd int) bool {
	var st unix.Statfs_t
	return unix.Fstatfs(fd, &st) == nil && st.Type == unix.PROC_SUPER_MAGIC
}
