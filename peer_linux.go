package main

// This file asks the kernel who is at the other end of a unix socket: unix(7), SO_PEERCRED and SO_PEERGROUPS (Linux 4.13).

import (
	"net"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callerOf is who connected, or for a client who listens, as of that moment.
func callerOf(conn *net.UnixConn) caller {
	p := caller{uid: -1, gid: -1}
	raw, err := conn.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
		if err != nil {
			return
		}
		p = caller{uid: int(cred.Uid), gid: int(cred.Gid), pid: int(cred.Pid), known: true, groups: peerGroups(int(fd))}
	})
	return p
}

// peerGroups are the supplementary groups of the peer, the first 1,024 of them.
func peerGroups(fd int) []int {
	ids := make([]uint32, 1024)
	length := uint32(len(ids) * 4) //nolint:gosec // 4,096
	_, _, errno := unix.Syscall6(unix.SYS_GETSOCKOPT, uintptr(fd), unix.SOL_SOCKET, unix.SO_PEERGROUPS,
		uintptr(unsafe.Pointer(&ids[0])), uintptr(unsafe.Pointer(&length)), 0) //nolint:gosec // getsockopt(2) wants the address
	if errno != 0 {
		return nil
	}
	var groups []int
	for _, id := range ids[:length/4] {
		groups = append(groups, int(id))
	}
	return groups
}
