//go:build !linux

package main

import (
	"context"
	"errors"
	"net"
	"os"

	"golang.org/x/sys/unix"
)

func connectHalf(string) (func() (net.Conn, error), error) { return nil, errors.ErrUnsupported }

// processEnd returns a channel that is closed when the process has ended: kqueue(2), EVFILT_PROC.
func processEnd(_ context.Context, pid int) <-chan struct{} {
	end := make(chan struct{})
	kq, err := unix.Kqueue()
	if err != nil {
		return end
	}
	var event unix.Kevent_t
	unix.SetKevent(&event, pid, unix.EVFILT_PROC, unix.EV_ADD|unix.EV_ONESHOT)
	event.Fflags = unix.NOTE_EXIT
	go func() {
		defer unix.Close(kq)
		defer close(end)
		for {
			// ESRCH: it is not there any more.
			_, err := unix.Kevent(kq, []unix.Kevent_t{event}, make([]unix.Kevent_t, 1), nil)
			if err != unix.EINTR {
				return
			}
		}
	}()
	return end
}

// exchange swaps two names, here not at one stroke.
func exchange(a, b string) {
	_ = os.Rename(a, a+".aside")
	_ = os.Rename(b, a)
	_ = os.Rename(a+".aside", b)
}
