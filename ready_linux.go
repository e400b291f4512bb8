package main

// This file has the kernel name who sends to a notify socket.

import (
	"fmt"
	"os"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	notifyFlags = unix.MSG_DONTWAIT | unix.MSG_CMSG_CLOEXEC
	overflowUID = 65534 // /proc/sys/kernel/overflowuid, as it is everywhere
)

// notifyOOB is room for the credentials and every descriptor that a message can carry.
var notifyOOB = unix.CmsgSpace(unix.SizeofUcred) + unix.CmsgSpace(4*maxPassed)

// prepareNotify readies a socket before it is bound: the kernel is to name every sender, and bind(2) gives the path the
// mode that the socket has, so there is no moment in which others can send.
func prepareNotify(fd int) error {
	if err := unix.Fchmod(fd, socketMode); err != nil {
		return err
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_PASSCRED, 1)
}

// sender returns who sent a message: 0 and -1 if that cannot be known. A pid out of our PID namespace is 0.
func sender(controls []unix.SocketControlMessage) (pid, uid int) {
	for _, control := range controls {
		if cred, err := unix.ParseUnixCredentials(&control); err == nil {
			return int(cred.Pid), int(cred.Uid)
		}
	}
	return 0, -1
}

// unmappedOwner says whether uid is how user_namespaces(7) show an owner that has no uid in ours.
func unmappedOwner(uid uint32) bool {
	if uid != overflowUID {
		return false
	}
	ids, err := os.ReadFile("/proc/self/uid_map")
	return err == nil && !mapped(string(ids), uid)
}

// mapped says whether uid is within a range of a uid_map.
func mapped(ids string, uid uint32) bool {
	for line := range strings.Lines(ids) {
		var inside, outside, count uint64
		n, _ := fmt.Sscan(line, &inside, &outside, &count)
		if n == 3 && uint64(uid) >= inside && uint64(uid) < inside+count {
			return true
		}
	}
	return false
}
