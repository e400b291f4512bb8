//go:build !linux

package main

// This file says that a program's own bind and listen cannot be done for it: only Linux can.

import (
	"errors"
	"net/netip"
	"syscall"
)

type callOp int

const (
	callBind callOp = iota
	callListen
)

func (callOp) String() string { return "" }

// call is never made here.
type call struct {
	op       callOp
	pid, fd  int
	inode    uint64
	network  string
	addr     netip.AddrPort
	path     string
	only     bool
	protocol int
	device   string
	backlog  int
	err      error
}

func (*call) keep() int          { return -1 }
func (*call) done(syscall.Errno) {}
func (*call) pass()              {}
func (*call) give(int) error     { return errOnlyLinux }
func (*call) valid() bool        { return false }

type (
	adoption        struct{}
	carriedAdoption struct{}
)

func (*adoption) start()                          {}
func (*adoption) stop()                           {}
func (*adoption) hush() []*call                   { return nil }
func (*adoption) isOver() bool                    { return true }
func (*adoption) carry(*baggage) *carriedAdoption { return nil }

func restoreAdoption(carriedAdoption, func(*call, <-chan struct{}) bool) (*adoption, error) {
	return nil, errOnlyLinux
}

var errOnlyLinux = errors.New("only Linux can do a program's bind and listen for it")

func openAdoption(func(*call, <-chan struct{}) bool) (*adoption, int, error) {
	return nil, -1, errOnlyLinux
}
func adoptable() error              { return errOnlyLinux }
func adoptableAs(*credential) error { return errOnlyLinux }
func adoptionDeprives() bool        { return false }
func notWatchable(err error) error  { return err }
