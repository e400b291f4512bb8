package main

// This file is the options of sockets: which of them a group's further sockets must have, too.

import (
	"os"

	"golang.org/x/sys/unix"
)

// socketOption is an option that differs from what a new socket has.
type socketOption struct {
	name          string // as in setsockopt(2)
	level, option int
	isText        bool
	number        int
	text          string
}

// steeredOptions are those that a listener passes on to its connections, or that change what it accepts.
var steeredOptions = []socketOption{
	{name: "SO_BINDTODEVICE", level: unix.SOL_SOCKET, option: unix.SO_BINDTODEVICE, isText: true},
	{name: "SO_KEEPALIVE", level: unix.SOL_SOCKET, option: unix.SO_KEEPALIVE},
	{name: "SO_RCVBUF", level: unix.SOL_SOCKET, option: unix.SO_RCVBUF},
	{name: "SO_SNDBUF", level: unix.SOL_SOCKET, option: unix.SO_SNDBUF},
	{name: "SO_MARK", level: unix.SOL_SOCKET, option: unix.SO_MARK},
	{name: "SO_PRIORITY", level: unix.SOL_SOCKET, option: unix.SO_PRIORITY},
	{name: "IP_TOS", level: unix.IPPROTO_IP, option: unix.IP_TOS},
	{name: "IP_FREEBIND", level: unix.IPPROTO_IP, option: unix.IP_FREEBIND}, // of both families, as the next
	{name: "IP_TRANSPARENT", level: unix.IPPROTO_IP, option: unix.IP_TRANSPARENT},
	{name: "IPV6_V6ONLY", level: unix.IPPROTO_IPV6, option: unix.IPV6_V6ONLY},
	{name: "IPV6_TCLASS", level: unix.IPPROTO_IPV6, option: unix.IPV6_TCLASS},
	{name: "TCP_NODELAY", level: unix.IPPROTO_TCP, option: unix.TCP_NODELAY},
	{name: "TCP_DEFER_ACCEPT", level: unix.IPPROTO_TCP, option: unix.TCP_DEFER_ACCEPT},
	{name: "TCP_FASTOPEN", level: unix.IPPROTO_TCP, option: unix.TCP_FASTOPEN},
	{name: "TCP_KEEPIDLE", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPIDLE},
	{name: "TCP_KEEPINTVL", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPINTVL},
	{name: "TCP_KEEPCNT", level: unix.IPPROTO_TCP, option: unix.TCP_KEEPCNT},
	{name: "TCP_USER_TIMEOUT", level: unix.IPPROTO_TCP, option: unix.TCP_USER_TIMEOUT},
	{name: "TCP_CONGESTION", level: unix.IPPROTO_TCP, option: unix.TCP_CONGESTION, isText: true},
}

// optionsBeyond are the options in which fd differs from a plain new socket.
func optionsBeyond(fd, plain int) (options []socketOption) {
	for _, o := range steeredOptions {
		if there, ok := o.of(fd); ok {
			if here, _ := o.of(plain); there != here {
				options = append(options, there)
			}
		}
	}
	return options
}

// of reads the option of a socket. Not every kernel and family has each.
func (o socketOption) of(fd int) (socketOption, bool) {
	var err error
	if o.isText {
		o.text, err = unix.GetsockoptString(fd, o.level, o.option)
	} else {
		o.number, err = unix.GetsockoptInt(fd, o.level, o.option)
	}
	return o, err == nil
}

func (o socketOption) set(fd int) error {
	switch {
	case o.isText:
		return unix.SetsockoptString(fd, o.level, o.option, o.text)
	case o.level == unix.SOL_SOCKET && (o.option == unix.SO_RCVBUF || o.option == unix.SO_SNDBUF):
		return o.setBuffer(fd)
	default:
		return unix.SetsockoptInt(fd, o.level, o.option, o.number)
	}
}

// setBuffer sets half of what was read: the kernel doubles it, socket(7). What is more than the system's limit needs a
// privilege; without it, it is cut.
func (o socketOption) setBuffer(fd int) error {
	force := unix.SO_RCVBUFFORCE
	if o.option == unix.SO_SNDBUF {
		force = unix.SO_SNDBUFFORCE
	}
	if unix.SetsockoptInt(fd, o.level, force, o.number/2) == nil {
		return nil
	}
	return os.NewSyscallError("setsockopt", unix.SetsockoptInt(fd, o.level, o.option, o.number/2))
}
