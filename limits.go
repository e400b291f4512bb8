package main

// This file is about the limits that a system sets on processes, descriptors and environments: it names the
// one that an error stands for, and keeps hotwrap itself alive at the first.

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	threadsKept = 12       // more than hotwrap was ever seen to use
	looksAtOnce = 4        // each may be in a system call, and so on a thread of its own
	maxVariable = 32 << 12 // bytes of one variable with its name and final NUL: MAX_ARG_STRLEN, execve(2)
)

// keepThreads makes threads ahead of need, and leaves them to the runtime, which never ends one. The runtime ends
// the whole process when it wants one more and cannot have it, because the user or the cgroup has as many processes as
// it may: a program that forks without end must not take hotwrap with it. It returns when all are there.
func keepThreads() {
	there, enough := make(chan struct{}), make(chan struct{})
	for range threadsKept {
		go func() {
			runtime.LockOSThread()
			there <- struct{}{}
			<-enough // until then it has its thread for itself
			runtime.UnlockOSThread()
		}()
	}
	for range threadsKept {
		<-there
	}
	close(enough)
}

// limitError is an error with the limit that it stands for.
type limitError struct {
	error
	limit string
}

func (e *limitError) Error() string { return e.error.Error() + " (" + e.limit + ")" }
func (e *limitError) Unwrap() error { return e.error }

// limitedStart adds to an error of fork or exec the limit that it stands for, if it does. EAGAIN means a limit there
// only: fork(2), execve(2). hotwrap starts itself as a shim, so of its own file ENOENT means that there is no /proc.
func limitedStart(err error) error {
	if _, gone := os.Stat(selfPath); gone != nil && errors.Is(err, syscall.ENOENT) {
		return fmt.Errorf("%w: %q is not there (mount /proc)", err, selfPath)
	}
	if errors.Is(err, syscall.EAGAIN) {
		if limit := processLimit(); limit != "" {
			return &limitError{err, limit}
		}
	}
	return limited(err)
}

// limited adds to an error the limit on files that it stands for, if it does, once.
func limited(err error) error {
	var limit string
	var named *limitError
	switch {
	case errors.As(err, &named):
	case errors.Is(err, syscall.EMFILE):
		var most unix.Rlimit
		if unix.Getrlimit(unix.RLIMIT_NOFILE, &most) == nil {
			limit = fmt.Sprintf("at most %d open files, RLIMIT_NOFILE", most.Cur)
		}
	case errors.Is(err, syscall.ENFILE):
		limit = "the machine's limit on open files"
	}
	if limit == "" {
		return err
	}
	return &limitError{err, limit}
}

// processLimit names the limit that keeps more processes from being started; "" where none is known. Threads count.
func processLimit() string {
	if most, full := cgroupProcesses(); full {
		return fmt.Sprintf("at most %d processes in the cgroup, pids.max", most)
	}
	var most unix.Rlimit
	if unix.Getrlimit(unix.RLIMIT_NPROC, &most) != nil || most.Cur >= 1<<31 {
		return ""
	}
	return fmt.Sprintf("at most %d processes of one user, RLIMIT_NPROC", most.Cur)
}

// tooLong adds to E2BIG what is too long, if it is one variable.
func tooLong(err error, env []string) error {
	if !errors.Is(err, syscall.E2BIG) {
		return err
	}
	for _, kv := range env {
		if len(kv) >= maxVariable {
			key, _, _ := strings.Cut(kv, "=")
			return fmt.Errorf("%w (%s has %d bytes, a variable may have %d)", err, key, len(kv), maxVariable-1)
		}
	}
	return err
}
