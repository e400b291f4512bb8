// This file is what only Linux can do with a listener: some options, the look at its health, the watch over it.

package main

import (
	"errors"
	"fmt"
	"os"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// newSocket opens a socket that no exec inherits. It is blocking unless nonblock, and nobody changes that afterwards:
// the flag belongs to the description that all generations share.
func newSocket(family, kind, protocol int, nonblock bool) (int, error) {
	kind |= unix.SOCK_CLOEXEC
	if nonblock {
		kind |= unix.SOCK_NONBLOCK
	}
	return unix.Socket(family, kind, protocol)
}

// protocol is the last argument of socket(2). It names TCP, never 0 or Go's default of MPTCP: nginx compares SO_PROTOCOL.
func (s listenSpec) protocol() int {
	switch {
	case s.transport() == "udp":
		return unix.IPPROTO_UDP
	case s.mptcp:
		return unix.IPPROTO_MPTCP
	default:
		return unix.IPPROTO_TCP
	}
}

// setLinuxOptions sets the options that go before bind(2).
func (s listenSpec) setLinuxOptions(fd, family, backlog int) error {
	level, freebind := unix.IPPROTO_IP, unix.IP_FREEBIND
	if family == unix.AF_INET6 {
		level, freebind = unix.IPPROTO_IPV6, unix.IPV6_FREEBIND
	}
	for _, o := range []struct {
		on                 bool
		name               string
		level, opt, number int
	}{
		{s.freebind, "freebind", level, freebind, 1},
		{s.deferAccept, "defer", unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT, 1},
		{s.fastopen, "fastopen", unix.IPPROTO_TCP, unix.TCP_FASTOPEN, backlog}, // its queue is as long as the other
		{s.nodelay, "nodelay", unix.IPPROTO_TCP, unix.TCP_NODELAY, 1},          // what is accepted inherits it
	} {
		if o.on {
			if err := unix.SetsockoptInt(fd, o.level, o.opt, o.number); err != nil {
				return fmt.Errorf("cannot set %q: %w", o.name, err)
			}
		}
	}
	if s.device != "" {
		if err := unix.BindToDevice(fd, s.device); err != nil {
			return fmt.Errorf("cannot use device %q: %w", s.device, err)
		}
	}
	return nil
}

// setReceiveBuffer lets so many bytes wait in a socket. Without CAP_NET_ADMIN there may be no more than a sysctl says, and
// setsockopt(2) cuts silently what is more; it doubles what it takes, for its own bookkeeping (socket(7)).
func setReceiveBuffer(fd, size int) error {
	if unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUFFORCE, size) == nil {
		return nil
	}
	if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF, size); err != nil {
		return err
	}
	got, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_RCVBUF)
	if err == nil && got/2 < size {
		err = fmt.Errorf("it may have %d bytes at most: raise net.core.rmem_max", got/2)
	}
	return err
}

// droppedBy is how many datagrams a socket had no room for, ever: SO_MEMINFO, Linux 4.12. The eight numbers before it are
// as long as those before Lost in tcp_info, for which package unix has a call.
func droppedBy(fd int) uint32 {
	info, err := unix.GetsockoptTCPInfo(fd, unix.SOL_SOCKET, unix.SO_MEMINFO)
	if err != nil {
		return 0
	}
	return info.Lost
}

// bindClosed binds fd to a path that nobody may connect to yet: the mode of the new file is the mode of the socket's own
// inode less the umask (unix_bind_bsd in net/unix/af_unix.c), and a umask would be the whole process's.
func bindClosed(fd int, path string) error {
	if err := unix.Fchmod(fd, 0); err != nil {
		return err
	}
	err := unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	return errors.Join(err, unix.Fchmod(fd, 0o777))
}

// madeFile is a socket's file, held by a descriptor: its name may lead to another meanwhile.
type madeFile struct{ fd int }

func openMade(path string) (madeFile, error) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	return madeFile{fd}, err
}

func (m madeFile) close() { _ = unix.Close(m.fd) }

// is tells whether it is that file.
func (m madeFile) is(made os.FileInfo) bool {
	var st unix.Stat_t
	sys, ok := made.Sys().(*syscall.Stat_t)
	return ok && unix.Fstat(m.fd, &st) == nil && st.Ino == sys.Ino && st.Dev == sys.Dev
}

func (m madeFile) chown(uid, gid int) error {
	return unix.Fchownat(m.fd, "", uid, gid, unix.AT_EMPTY_PATH)
}

// chmod goes by /proc: fchmod(2) takes no O_PATH descriptor, and fchmodat2(2) is of Linux 6.6.
func (m madeFile) chmod(mode uint32) error {
	return unix.Chmod("/proc/self/fd/"+strconv.Itoa(m.fd), mode)
}

// moveDescriptor closes from and puts its socket on the number to, in place of what was there.
func moveDescriptor(from, to int) error {
	err := unix.Dup3(from, to, unix.O_CLOEXEC)
	unix.Close(from)
	return err
}

// wasShutDown tells whether somebody shut a listener of the unix family down. SHUT_RD alone, which is enough to refuse every
// client, shows as POLLRDHUP only.
func wasShutDown(fd int) bool {
	p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLRDHUP}}
	n, err := unix.Poll(p, 0)
	return err == nil && n == 1 && p[0].Revents&(unix.POLLHUP|unix.POLLRDHUP) != 0
}

// protocolOf returns SO_PROTOCOL.
func protocolOf(fd int) (int, error) {
	return unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PROTOCOL)
}

// backlogOf returns the backlog of a TCP listener that was given to us, 0 where the kernel does not tell:
// on a listener tcpi_sacked is the limit of the accept queue.
func backlogOf(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil {
		return 0
	}
	return int(info.Sacked)
}

// listenWatch is an epoll of our own over the listeners, with an inotify in it over their paths. The owner of the
// listeners adds and removes; one goroutine reads.
type listenWatch struct {
	ls      []*listener
	epoll   int
	inotify int // -1: no path to watch
}

// watchListeners calls spoilt, from a goroutine of its own, each time a program may have spoilt a listener: shut it
// down, or touched its path. Traffic does not wake it. An error says what is not watched; stop must be called all the
// same, by the owner of ls. After stop no spoilt is called; it waits for one that is under way, which therefore must not
// wait for the caller of stop.
func watchListeners(ls []*listener, spoilt func(*listener)) (stop func(), err error) {
	epoll, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return func() {}, fmt.Errorf("cannot watch the listeners: %w", err)
	}
	// An epoll can be polled: so it waits in Go's poller, which needs O_NONBLOCK on it, and costs no thread.
	_ = unix.SetNonblock(epoll, true)
	file := os.NewFile(uintptr(epoll), "epoll")
	raw, err := file.SyscallConn()
	if err != nil {
		file.Close()
		return func() {}, fmt.Errorf("cannot watch the listeners: %w", err)
	}
	w := &listenWatch{ls: slices.Clone(ls), epoll: epoll, inotify: -1}
	for _, l := range w.ls {
		err = errors.Join(err, w.add(l))
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		// It ends with an error, when stop closes the file.
		_ = raw.Read(func(uintptr) bool { w.drain(spoilt); return false })
	}()
	return func() {
		for _, l := range w.ls {
			l.watch = nil
		}
		file.Close()
		<-done
		if w.inotify >= 0 {
			unix.Close(w.inotify)
		}
	}, err
}

// add watches l: its socket for a hang-up only (no event is asked for, so no client wakes us) and its file, by inode and
// not by directory, where strangers come and go.
func (w *listenWatch) add(l *listener) error {
	l.watch = w
	if l.stream() {
		event := unix.EpollEvent{Events: unix.EPOLLET, Fd: int32(slices.Index(w.ls, l))}
		if l.network != "tcp" {
			event.Events |= unix.EPOLLRDHUP // see wasShutDown
		}
		if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, l.fd, &event); err != nil {
			return fmt.Errorf("cannot watch listener %q: %w", l.addr, err)
		}
	}
	if l.file == nil {
		return nil
	}
	if err := w.addFile(l.file); err != nil {
		return fmt.Errorf("cannot watch %q: %w", l.file.path, err)
	}
	return nil
}

// addFile watches the inode of f: IN_ATTRIB comes when a link to it is made or goes.
func (w *listenWatch) addFile(f *socketFile) error {
	if w.inotify < 0 {
		fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
		if err != nil {
			return err
		}
		event := unix.EpollEvent{Events: unix.EPOLLIN, Fd: -1, Pad: int32(fd)}
		if err := unix.EpollCtl(w.epoll, unix.EPOLL_CTL_ADD, fd, &event); err != nil {
			unix.Close(fd)
			return err
		}
		w.inotify = fd
	}
	path := f.path
	if f.hidden != "" { // nobody knows that one
		path = f.hidden
	}
	_, err := unix.InotifyAddWatch(w.inotify, path, unix.IN_ATTRIB|unix.IN_MOVE_SELF|unix.IN_DONT_FOLLOW)
	return err
}

// remove ends the watch over l's socket. That over its old file ends with the inode.
func (w *listenWatch) remove(l *listener) {
	_ = unix.EpollCtl(w.epoll, unix.EPOLL_CTL_DEL, l.fd, nil)
}

// drain reports what there is, until nothing is left: Go's poller is edge-triggered.
func (w *listenWatch) drain(spoilt func(*listener)) {
	var events [16]unix.EpollEvent
	for {
		n, err := unix.EpollWait(w.epoll, events[:], 0)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if n <= 0 {
			return
		}
		for _, e := range events[:n] {
			if e.Fd >= 0 {
				spoilt(w.ls[e.Fd])
				continue
			}
			drainInotify(int(e.Pad))
			for _, l := range w.ls { // which one it was does not matter: a look at a sound one costs nothing
				if l.file != nil {
					spoilt(l)
				}
			}
		}
	}
}

// drainInotify reads and drops what there is.
func drainInotify(fd int) {
	var buf [4096]byte
	for {
		if n, err := unix.Read(fd, buf[:]); n <= 0 && !errors.Is(err, unix.EINTR) {
			return
		}
	}
}
