//go:build !linux

package main

// This file asks the kernel who is at the other end of a unix socket: LOCAL_PEERCRED, unix(4).

import (
	"net"

	"golang.org/x/sys/unix"
)

const solLocal = 0 // SOL_LOCAL, sys/un.h

// callerOf is who connected, or for a client who listens. It does not say the pid.
func callerOf(conn *net.UnixConn) caller {
	p := caller{uid: -1, gid: -1}
	raw, err := conn.SyscallConn()
	if err != nil {
		return p
	}
	_ = raw.Control(func(fd uintptr) {
		cred, err := unix.GetsockoptXucred(int(fd), solLocal, unix.LOCAL_PEERCRED)
		if err != nil {
			return
		}
		p = caller{uid: int(cred.Uid), known: true}
		for _, id := range cred.Groups[:min(int(cred.Ngroups), len(cred.Groups))] {
			p.groups = append(p.groups, int(id))
		}
		if len(p.groups) > 0 {
			p.gid = p.groups[0]
		}
	})
	return p
}
