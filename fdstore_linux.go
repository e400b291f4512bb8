package main

// This file is what only Linux tells of a socket that came back from the store.

import (
	"encoding/binary"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Of struct unix_diag_req, linux/unix_diag.h.
const (
	unixDiagShowFile = 0x2 // UDIAG_SHOW_VFS
	unixDiagFile     = 1   // UNIX_DIAG_VFS: inode and device of the file, 32 bits each
)

// sameKind tells whether fd is the kind of socket that s would open. What else differs can be set again.
func (s listenSpec) sameKind(fd int) bool {
	protocol, err := protocolOf(fd)
	if err != nil || protocol != s.protocol() {
		return false
	}
	if domain, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN); err != nil || domain == unix.AF_INET6 && v6Only(fd) != s.ipv6Only() {
		return false
	}
	device, _ := unix.GetsockoptString(fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	return device == s.device
}

// setOptionsAgain sets the options that may be set at any time, also those back that are not asked for.
func (s listenSpec) setOptionsAgain(fd int) {
	off := s
	if s.tcp() {
		for _, o := range []struct {
			wanted        bool
			level, option int
		}{
			{s.deferAccept, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT},
			{s.nodelay, unix.IPPROTO_TCP, unix.TCP_NODELAY},
			{s.fastopen, unix.IPPROTO_TCP, unix.TCP_FASTOPEN},
		} {
			if n, err := unix.GetsockoptInt(fd, o.level, o.option); err == nil && n != 0 && !o.wanted {
				_ = unix.SetsockoptInt(fd, o.level, o.option, 0)
			}
		}
	}
	off.device = "" // it has that one
	_ = off.setLinuxOptions(fd, unix.AF_INET, s.queue())
	if s.rcvbuf > 0 {
		_ = setReceiveBuffer(fd, s.rcvbuf)
	}
}

// clientsWaiting is how many have connected to a listener that nobody serves.
func clientsWaiting(l *listener) int {
	if l.network != "tcp" {
		return 0
	}
	return waiting(l.fd)
}

// boundThere tells whether the file at a unix socket's path is that socket's own.
func boundThere(l *listener) bool {
	info, err := os.Lstat(l.addr)
	if err != nil {
		return false
	}
	st, ok := info.Sys().(*syscall.Stat_t)
	inode, known := socketFileOf(l.inode)
	return ok && known && inode == uint32(st.Ino)
}

// socketFileOf is the inode of the file that a unix socket is bound to, its lower 32 bits.
func socketFileOf(socket uint64) (inode uint32, known bool) {
	le := binary.NativeEndian
	b := make([]byte, unix.SizeofNlMsghdr+24)
	le.PutUint32(b, uint32(len(b)))
	le.PutUint16(b[4:], unix.SOCK_DIAG_BY_FAMILY)
	le.PutUint16(b[6:], unix.NLM_F_REQUEST|unix.NLM_F_DUMP)
	b[16] = unix.AF_UNIX
	le.PutUint32(b[20:], ^uint32(0))
	le.PutUint32(b[28:], unixDiagShowFile)
	_ = askDiag(b, func(b []byte) (bool, error) {
		done, err := eachDiag(b, func(payload []byte) {
			if len(payload) < unixDiagMessage || uint64(le.Uint32(payload[4:])) != socket {
				return
			}
			for at := payload[unixDiagMessage:]; len(at) >= 4; {
				size := int(le.Uint16(at))
				if size < 4 || size > len(at) {
					return
				}
				if le.Uint16(at[2:]) == unixDiagFile && size >= 12 {
					inode, known = le.Uint32(at[4:]), true
				}
				at = at[min(len(at), (size+3)&^3):]
			}
		})
		return done || known, err
	})
	return inode, known
}

// alone tells whether no other process is left in our control group: none of an earlier hotwrap's programs, that is.
func alone() bool {
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return false
	}
	_, group, ok := strings.Cut(string(text), "0::") // of the second version; the first has none for all of a unit
	if group, _, _ = strings.Cut(group, "\n"); !ok {
		return false
	}
	for _, root := range []string{"/sys/fs/cgroup", "/sys/fs/cgroup/unified"} {
		if pids, err := os.ReadFile(filepath.Join(root, group, "cgroup.procs")); err == nil {
			return slices.Equal(strings.Fields(string(pids)), []string{strconv.Itoa(os.Getpid())})
		}
	}
	return false
}
