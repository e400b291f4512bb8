package main

import (
	"context"
	"os"

	"golang.org/x/sys/unix"
)

// processEnd returns a channel that is closed when the process has ended, unless ctx ends first.
// A pidfd can be waited for without being the parent: pidfd_open(2).
func processEnd(ctx context.Context, pid int) <-chan struct{} {
	end := make(chan struct{})
	fd, err := unix.PidfdOpen(pid, unix.PIDFD_NONBLOCK) // so that the poller takes it; Linux 5.10
	if err != nil {
		close(end) // it is not there any more
		return end
	}
	file := os.NewFile(uintptr(fd), "pidfd")
	stop := context.AfterFunc(ctx, func() { file.Close() })
	go func() {
		defer file.Close()
		defer stop()
		raw, err := file.SyscallConn()
		if err != nil {
			return
		}
		err = raw.Read(func(fd uintptr) bool {
			n, _ := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, 0)
			return n > 0
		})
		if err == nil {
			close(end)
		}
	}()
	return end
}
