//go:build !linux

// This file is bind_linux.go for the other systems: what cannot be had there, and its plain replacement.

package main

import (
	"os"

	"golang.org/x/sys/unix"
)

// newSocket opens a socket that no exec inherits. macOS cannot do that in one call, and need not: who opens sockets is
// who forks.
func newSocket(family, kind, protocol int, nonblock bool) (int, error) {
	fd, err := unix.Socket(family, kind, protocol)
	if err != nil {
		return -1, err
	}
	unix.CloseOnExec(fd)
	if nonblock {
		_ = unix.SetNonblock(fd, true)
	}
	return fd, nil
}

func (s listenSpec) protocol() int {
	if s.transport() == "udp" {
		return unix.IPPROTO_UDP
	}
	return unix.IPPROTO_TCP
}

// setLinuxOptions has nothing to set: parseListen refused them.
func (s listenSpec) setLinuxOptions(int, int, int) error { return nil }

// makeSteerable does nothing: no program can be attached here.
func makeSteerable(int) {}

// setReceiveBuffer lets so many bytes wait in a socket.
func setReceiveBuffer(fd, size int) error {
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size)
}

// droppedBy is unknown here.
func droppedBy(int) uint32 { return 0 }

// bindClosed binds fd to a path that nobody may connect to yet. Only a umask can do that here.
func bindClosed(fd int, path string) error {
	old := unix.Umask(0o777)
	defer unix.Umask(old)
	return unix.Bind(fd, &unix.SockaddrUnix{Name: path})
}

// madeFile is a socket's file by its name: none can be opened here. A symlink in its place is not followed.
type madeFile struct{ path string }

func openMade(path string) (madeFile, error) { return madeFile{path}, nil }

func (m madeFile) close() {}

func (m madeFile) is(made os.FileInfo) bool {
	now, err := os.Lstat(m.path)
	return err == nil && os.SameFile(now, made)
}

func (m madeFile) chown(uid, gid int) error { return unix.Lchown(m.path, uid, gid) }

func (m madeFile) chmod(mode uint32) error {
	return unix.Fchmodat(unix.AT_FDCWD, m.path, mode, unix.AT_SYMLINK_NOFOLLOW)
}

func moveDescriptor(from, to int) error {
	err := unix.Dup2(from, to)
	unix.CloseOnExec(to)
	unix.Close(from)
	return err
}

func wasShutDown(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd)}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&unix.POLLHUP != 0
}

func protocolOf(int) (int, error) { return 0, nil }

func backlogOf(int) int { return 0 }

type listenWatch struct{}

func (*listenWatch) add(*listener) error { return nil }

func (*listenWatch) remove(*listener) {}

// watchListeners watches nothing here: what is spoilt shows after the next ready.
func watchListeners([]*listener, func(*listener)) (stop func(), err error) {
	return func() {}, nil
}
