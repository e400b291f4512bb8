//go:build !linux

package main

// This file stands in for what of a process's start only Linux has.

import (
	"os"
	"os/signal"
	"syscall"

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

func closeOnExecExcept(keep []int) error { return markOneByOne(keep) }

// dieWith cannot be had: there is no PDEATHSIG. --die-with-parent is refused before it comes to this.
func dieWith(int) error { return syscall.ENOSYS }

// resetSignals ends the catching of signals; one that was ignored at start stays ignored.
func resetSignals() { signal.Reset() }

func execute(_ int, path string, argv, env []string) error { return syscall.Exec(path, argv, env) }
