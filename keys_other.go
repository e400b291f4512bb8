//go:build !linux

package main

// This file waits for keys where no epoll can: while input lies there for another, only the time tells.

import (
	"os"
	"time"

	"golang.org/x/sys/unix"
)

const typingMost = time.Second // between looks at input that is another's

// typing waits for input on the terminal, or for its own end.
type typing struct{ r, w *os.File }

func openTyping() (*typing, error) {
	r, w, err := os.Pipe()
	return &typing{r, w}, err
}

// wait returns when something was typed (fresh) or the pause is over, 0 none; not ok: nobody wants to know any more.
func (t *typing) wait(pause time.Duration) (fresh, ok bool) {
	fds := []unix.PollFd{{Fd: int32(t.r.Fd()), Events: unix.POLLIN}, {Fd: 0, Events: unix.POLLIN}}
	limit := -1
	if pause > 0 {
		fds, limit = fds[:1], int(min(pause, typingMost).Milliseconds())
	}
	for {
		_, err := unix.Poll(fds, limit)
		if err == unix.EINTR {
			continue
		}
		gone := len(fds) > 1 && fds[1].Revents&^unix.POLLIN != 0 // the terminal
		return pause == 0, err == nil && fds[0].Revents == 0 && !gone
	}
}

func (t *typing) close() { _ = t.w.Close() }

// refuseTTIN has nothing to offer here: TTIN is caught, so a read from the background is tried again.
func refuseTTIN() (allow func()) { return func() {} }
