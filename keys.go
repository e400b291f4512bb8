package main

// This file listens to the person at the terminal while hotwrap watches: r⏎ restarts, q⏎ quits.
//
// Its rules: the terminal's settings are not touched, so a key counts with its newline; and in the
// background hotwrap does not read at all, which would stop it (SIGTTIN).

import (
	"bytes"
	"os"

	"golang.org/x/sys/unix"
)

// newKeys is the source of what is typed; stop is its own, since a read of a terminal cannot be ended
// but by another descriptor.
func newKeys(events chan<- event) (stop func(), err error) {
	r, w, err := os.Pipe()
	if err != nil {
		return nil, err
	}
	wake := int(r.Fd())
	src := newSource(events, func(_ <-chan struct{}, post func(event) bool) {
		buf := make([]byte, 256)
		for {
			n, ok := readKeys(wake, buf)
			if !ok {
				return
			}
			for _, line := range bytes.Fields(buf[:n]) {
				if ev, ok := keyed(string(line)); ok && !post(ev) {
					return
				}
			}
		}
	})
	return func() {
		_ = w.Close()
		_ = src.stop()
		_ = r.Close()
	}, nil
}

// keyed is what a line asks for.
func keyed(line string) (event, bool) {
	switch line {
	case "r":
		return event{kind: evRequest, request: request{Ask: askRestart, Cause: "r"}}, true
	case "q":
		return event{kind: evRequest, request: request{Ask: askStop, Cause: "q"}}, true
	}
	return event{}, false
}

// readKeys waits for a line; not ok means that no more will come.
func readKeys(wake int, buf []byte) (n int, ok bool) {
	for {
		fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}, {Fd: int32(wake), Events: unix.POLLIN}}
		_, err := unix.Poll(fds, -1)
		switch {
		case err == unix.EINTR:
			continue
		case err != nil || fds[1].Revents != 0 || fds[0].Revents&unix.POLLIN == 0:
			return 0, false
		}
		front, err := unix.IoctlGetInt(0, unix.TIOCGPGRP)
		if err != nil || front != unix.Getpgrp() {
			return 0, false
		}
		n, err := unix.Read(0, buf)
		if err == unix.EINTR {
			continue
		}
		return n, err == nil && n > 0
	}
}
