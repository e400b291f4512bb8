//go:build !linux

package main

// This file is for systems that do not name who sends to a notify socket.

import (
	"golang.org/x/sys/unix"
)

const notifyFlags = unix.MSG_DONTWAIT

var notifyOOB = unix.CmsgSpace(4 * maxPassed)

// prepareNotify has nothing to do: the mode of the path is set after bind, and nobody is asked who sends.
func prepareNotify(int) error { return nil }

func sender([]unix.SocketControlMessage) (pid, uid int) { return 0, -1 }

func unmappedOwner(uint32) bool { return false }
