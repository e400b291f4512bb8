package main

import (
	"context"
	"errors"
	"net"
	"net/netip"
	"os"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// connectHalf connects, but hears nothing of the answer: the handshake stays half-open until finish is called, and then
// waits for the other side to repeat itself, a second or so.
func connectHalf(addr string) (finish func() (net.Conn, error), err error) {
	to, err := netip.ParseAddrPort(addr)
	if err != nil || !to.Addr().Is4() {
		return nil, errors.Join(err, errors.ErrUnsupported)
	}
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_NONBLOCK|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	deaf := []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}} // of each packet, 0 bytes
	err = unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, unix.SO_ATTACH_FILTER, &unix.SockFprog{Len: 1, Filter: &deaf[0]})
	if err == nil {
		err = unix.Connect(fd, &unix.SockaddrInet4{Addr: to.Addr().As4(), Port: int(to.Port())})
	}
	if !errors.Is(err, unix.EINPROGRESS) {
		return nil, errors.Join(err, unix.Close(fd))
	}
	name, err := unix.Getsockname(fd)
	if err != nil {
		return nil, errors.Join(err, unix.Close(fd))
	}
	own := netip.AddrPortFrom(to.Addr(), uint16(name.(*unix.SockaddrInet4).Port))
	for end := time.Now().Add(patience); !handshakes([]*listener{{network: "tcp", addr: addr}})[own]; runtime.Gosched() {
		if time.Now().After(end) {
			return nil, errors.Join(errors.New("no handshake is half-open"), unix.Close(fd))
		}
	}
	return func() (net.Conn, error) {
		file := os.NewFile(uintptr(fd), "half")
		defer file.Close()
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0); err != nil {
			return nil, err
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLOUT}}, int(patience.Milliseconds()))
		if err != nil || n == 0 {
			return nil, errors.Join(err, os.ErrDeadlineExceeded)
		}
		if errno, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ERROR); errno != 0 {
			return nil, unix.Errno(errno)
		}
		return net.FileConn(file)
	}, nil
}

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

// exchange swaps two names at one stroke, renameat2(2).
func exchange(a, b string) {
	_ = unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
