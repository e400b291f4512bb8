//go:build !linux

package shim

// This file stands in for what of a process's start only Linux has.

import (
	"os/signal"
	"syscall"
)

func closeOnExecExcept(keep []int) error { return markOneByOne(keep) }

// dieWith cannot be had: there is no PDEATHSIG. --die-with-parent is refused before it comes to this.
func dieWith(int) error { return syscall.ENOSYS }

// tellOfBinds cannot be had: --adopt is refused before it comes to this.
func tellOfBinds(int) error { return syscall.ENOSYS }

// PidfdID is unknown: there are no pidfds.
func PidfdID() (uint64, bool) { return 0, false }

// resetSignals ends the catching of signals; one that was ignored at start stays ignored.
func resetSignals() { signal.Reset() }

func execute(_ int, path string, argv, env []string) error { return syscall.Exec(path, argv, env) }
