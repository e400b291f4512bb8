package main

// This file listens to the person at the terminal while hotwrap watches: r⏎ restarts, q⏎ quits.
//
// Its rules: the terminal's settings are not touched, so a key counts with its newline; in the background
// hotwrap does not read, what is typed there is another's; and in front again it goes on.

import (
	"bytes"
	"time"

	"golang.org/x/sys/unix"
)

// keysAgain is when input that lies there for another is looked at again, and then after twice as long each
// time: hotwrap may be in front by then, of which nothing tells.
const keysAgain = 50 * time.Millisecond

// newKeys is the source of what is typed; stop is its own, as it must end a wait. It hands back what was read and not posted;
// what has not been read waits in the terminal, for the next hotwrap too.
func newKeys(events chan<- event) (stop func() []event, err error) {
	typing, err := openTyping()
	if err != nil {
		return nil, err
	}
	src := newSource(events, func(_ <-chan struct{}, post func(event) bool) {
		buf := make([]byte, 256)
		for pause := time.Duration(0); ; {
			fresh, ok := typing.wait(pause)
			if !ok {
				return
			}
			n, others := readKeys(buf)
			for ; n > 0; n, others = readKeys(buf) {
				for _, line := range bytes.Fields(buf[:n]) {
					if ev, known := keyed(string(line)); known {
						ok = post(ev) && ok
					}
				}
				if !ok {
					return
				}
			}
			switch {
			case !others:
				pause = 0
			case fresh:
				pause = keysAgain
			default:
				pause = min(2*pause, time.Hour)
			}
		}
	})
	return func() []event {
		typing.close()
		return src.stop()
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

// readKeys reads a line, if there is one for hotwrap now. others tells that what is there is for another.
func readKeys(buf []byte) (n int, others bool) {
	fds := []unix.PollFd{{Fd: 0, Events: unix.POLLIN}}
	if n, err := unix.Poll(fds, 0); err != nil || n == 0 || fds[0].Revents != unix.POLLIN {
		return 0, false
	}
	allow := refuseTTIN() // we may be sent to the background before the read
	defer allow()
	if front, err := unix.IoctlGetInt(0, unix.TIOCGPGRP); err != nil || front != unix.Getpgrp() {
		return 0, err == nil
	}
	n, _ = unix.Read(0, buf)
	return max(n, 0), false
}
