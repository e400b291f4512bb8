package main

// This file waits for keys on Linux, without reading them: what is typed in the background is another's.

import (
	"errors"
	"os"
	"runtime"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// typing is an epoll over the terminal that tells of new input only: nothing else says that hotwrap is in
// front again (fg need not send CONT), and input that another has yet to read must not wake us for ever.
type typing struct {
	file *os.File
	raw  syscall.RawConn
}

func openTyping() (*typing, error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return nil, err
	}
	_ = unix.SetNonblock(epoll, true) // so it waits in Go's poller
	t := &typing{file: os.NewFile(uintptr(epoll), "epoll")}
	if err := unix.EpollCtl(epoll, unix.EPOLL_CTL_ADD, 0, &unix.EpollEvent{Events: unix.EPOLLIN | unix.EPOLLET}); err != nil {
		_ = t.file.Close()
		return nil, err
	}
	t.raw, err = t.file.SyscallConn()
	return t, err
}

// wait returns when something was typed (fresh) or the pause is over, 0 none; not ok: nobody wants to know any more.
func (t *typing) wait(pause time.Duration) (fresh, ok bool) {
	limit := time.Time{}
	if pause > 0 {
		limit = time.Now().Add(pause)
	}
	_ = t.file.SetReadDeadline(limit)
	err := t.raw.Read(func(epoll uintptr) bool {
		n, _ := unix.EpollWait(int(epoll), make([]unix.EpollEvent, 1), 0)
		return n > 0
	})
	return err == nil, err == nil || errors.Is(err, os.ErrDeadlineExceeded)
}

func (t *typing) close() { _ = t.file.Close() }

// refuseTTIN makes a read from the background fail (EIO) instead of sending TTIN, until allow is called. It
// is for this thread alone: to be sent TTIN means something.
func refuseTTIN() (allow func()) {
	var set, old unix.Sigset_t
	set.Val[0] = 1 << (unix.SIGTTIN - 1)
	runtime.LockOSThread()
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, &set, &old)
	return func() {
		_ = unix.PthreadSigmask(unix.SIG_SETMASK, &old, nil)
		runtime.UnlockOSThread()
	}
}
