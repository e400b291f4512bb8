//go:build !linux

package main

// This file stands in for what of a process's launch only Linux has.

import (
	"os"

	"golang.org/x/sys/unix"
)

// selfPath is hotwrap's own file, by its path at start.
var selfPath, _ = os.Executable()

const (
	openPin      = unix.O_RDONLY
	canRunPinned = false // no execveat: a replaced executable is gone
	canDie       = false // no PDEATHSIG
)

func becomeSubreaper() {}

func isProc(int) bool { return false }
