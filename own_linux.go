package main

// This file puts the sockets that programs bind by themselves into the places of those that their generation was given.
//
// Its rules:
//   - The first socket that a generation binds to an address stays the program's own: it is bound, and listens, by
//     hotwrap's duplicate of it, since a program may have it in an epoll already. Who binds the address again in that
//     generation, another worker or one started again, gets that one socket.
//   - What is nobody's listener is left to the kernel, with the program's own rights.

import (
	"errors"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// own is the socket that a generation bound to one address itself.
type own struct {
	fd         int // hotwrap's duplicate of it
	inode      uint64
	listens    bool
	generation int            // that bound it first
	at         netip.AddrPort // and to what
	only       bool           // IPV6_V6ONLY
}

// is tells whether a bind is for the same address.
func (o *own) is(c *call) bool { return o.at == c.addr && o.only == c.only }

// adopt does a bind or listen of a generation's program where it is for one of the listeners; else the kernel does it.
func (s *steered) adopt(generation int, c *call) adopted {
	set := s.sets[generation]
	switch {
	case set == nil:
		c.pass()
		return adopted{}
	case c.op == callListen:
		return s.adoptListen(set, c)
	}
	i := s.meant(c)
	if i < 0 {
		c.pass()
		return s.beyond(c)
	}
	l, o := set.ls[i], set.own[i]
	if g := s.groups[i]; g != nil && c.protocol == unix.IPPROTO_MPTCP && !g.owns(c.fd) {
		c.done(unix.EADDRINUSE) // it cannot be made one of the group's user; Go tries plain TCP then
		return adopted{}
	}
	switch {
	case c.inode == l.inode || o != nil && c.inode == o.inode: // it was interrupted, and calls again
		c.done(0)
	case o != nil && o.is(c):
		s.give(c, o.fd)
	case o != nil && o.generation == generation:
		c.pass() // one more address, of another family as a rule; it is learned when it listens
	case o != nil:
		c.done(unix.EADDRINUSE)
		return adopted{l: l, err: elsewhere(c, l)}
	case s.groups[i] == nil:
		if l.file != nil {
			_, _ = l.restorePath() // it was removed to be bound anew
		}
		s.give(c, l.fd)
		return adopted{l: l, listens: l.datagram()}
	default:
		return s.adoptBind(generation, set, i, c)
	}
	return adopted{}
}

// give hands a generation's socket to one more of its processes. That waits for the thread that is to have it, which may
// be kept from running.
func (s *steered) give(c *call, fd int) {
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		c.done(errnoOf(err))
		return
	}
	go func() {
		defer unix.Close(own)
		if c.give(own) != nil {
			c.done(unix.EADDRINUSE)
		}
	}()
}

// meant finds the listener that a bind is for, -1 if none: the very address, or else one that covers it.
func (s *steered) meant(c *call) int {
	covering := -1
	for i, l := range s.base {
		switch {
		case l.network != c.network:
		case !l.inet():
			if l.addr == c.path || l.addr == absolutePath(c.pid, c.path) {
				return i
			}
		case l.addr == c.addr.String():
			return i
		case covering < 0 && s.gets(i, c.addr):
			covering = i
		}
	}
	return covering
}

// beyond is about a bind that no listener is for: it may ask for more than one gives.
func (s *steered) beyond(c *call) adopted {
	for _, l := range s.base {
		if at, err := netip.ParseAddrPort(l.addr); err == nil && l.network == c.network && at.Port() == c.addr.Port() && covers(c.addr.Addr(), at.Addr()) {
			return adopted{l: l, err: fmt.Errorf("it asks for %s, which is more than it is given: -l :%d", c.addr, at.Port())}
		}
	}
	return adopted{}
}

// gets tells whether what comes to an address comes to the listener of that index.
func (s *steered) gets(i int, to netip.AddrPort) bool {
	at, err := netip.ParseAddrPort(s.base[i].addr)
	if err != nil || at.Port() != to.Port() || s.groups[i] != nil && s.groups[i].v6only && to.Addr().Unmap().Is4() {
		return false
	}
	return covers(at.Addr(), to.Addr())
}

// absolutePath is a path of a process as everybody may say it.
func absolutePath(pid int, path string) string {
	if filepath.IsAbs(path) || path == "" || path[0] == '@' {
		return path
	}
	dir, _ := os.Readlink("/proc/" + strconv.Itoa(pid) + "/cwd")
	return filepath.Join(dir, path)
}

// adoptBind binds the program's own socket.
func (s *steered) adoptBind(generation int, set *socketSet, i int, c *call) adopted {
	var err error
	if s.groups[i].like(c) {
		err = s.groups[i].admit(c.fd)
	} else {
		err = s.moveTo(set, i, c)
	}
	if err != nil {
		c.done(errnoOf(err))
		return adopted{l: set.ls[i], err: err}
	}
	set.own[i] = &own{fd: c.keep(), inode: c.inode, generation: generation, at: c.addr, only: c.only}
	c.done(0)
	return adopted{}
}

// like tells whether a socket would be one of the group at the address that it asks for.
func (g *group) like(c *call) bool {
	return c.addr == g.at && c.only == g.v6only && deviceOf(c.fd) == g.device
}

// errnoOf is what a program is told of an error.
func errnoOf(err error) syscall.Errno {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return unix.EADDRINUSE
}

// elsewhere is a program that binds another address than the generation before it, which the kernel would not have beside
// that one.
func elsewhere(c *call, l *listener) error {
	return fmt.Errorf("it asks for %s, and its predecessor has %s: stop hotwrap, and start it anew", c.addr, l.addr)
}

// errLent is a program that binds another address than it is to have, where that is not hotwrap's to give up.
var errLent = errors.New("it is another address than that of the socket that hotwrap was handed")

// moveTo gives up the address of a listener for the one that the first generation binds, of those that it covers: the
// kernel would not have both.
func (s *steered) moveTo(set *socketSet, i int, c *call) error {
	if len(s.each()) > 1 {
		return elsewhere(c, s.base[i])
	}
	g := s.groups[i]
	if s.base[i].lent {
		return errLent
	}
	s.cut += waiting(set.ls[i].fd)
	for _, m := range g.members {
		_ = unix.Shutdown(m.fd, unix.SHUT_RD) // the program may have inherited it
	}
	g.close()
	l := *s.base[i]
	l.fd, l.inode, l.watch = -1, 0, nil // its watch is over the one before
	s.base[i].fd, s.base[i].inode = -1, 0
	set.ls[i], set.members[i], s.groups[i] = &l, nil, nil
	sa, err := sockaddr(c.addr)
	if err == nil {
		err = s.rewatch(set)
	}
	if err == nil {
		err = unix.SetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1) // it still is bound, then
	}
	if err == nil {
		err = unix.Bind(c.fd, sa)
	}
	if err == nil {
		makeSteerable(c.fd)
		return nil
	}
	if again := s.reopen(set, i, g); again != nil {
		err = fmt.Errorf("%w; and what it was given cannot be had again: %v", err, again)
	}
	return err
}

// reopen takes the address of a listener again that its program could not bind.
func (s *steered) reopen(set *socketSet, i int, g *group) error {
	fd, err := g.socket()
	if err != nil {
		return err
	}
	if err = unix.Bind(fd, g.bind); err == nil {
		makeSteerable(fd)
		err = unix.Listen(fd, g.backlog)
	}
	if err != nil {
		unix.Close(fd)
		return err
	}
	return errors.Join(s.begin(set, i, fd), s.rewatch(set))
}

// begin makes fd, which listens, the only socket of an address.
func (s *steered) begin(set *socketSet, i, fd int) error {
	l, err := takeSocket(fd)
	if err != nil {
		return err
	}
	s.base[i].fd, s.base[i].inode, s.base[i].addr, s.base[i].lent = fd, l.inode, l.addr, false
	set.ls[i], set.members[i] = s.base[i], nil
	g, err := newGroup(s.base[i], false, nil)
	if err != nil {
		return err
	}
	s.groups[i], set.members[i], s.stale = g, g.members[0], true
	return nil
}

// adoptListen has a socket listen that was bound before: that is when its generation can be reached by it.
func (s *steered) adoptListen(set *socketSet, c *call) adopted {
	i := slices.IndexFunc(set.own, func(o *own) bool { return o != nil && o.inode == c.inode })
	switch at := slices.IndexFunc(set.ls, func(l *listener) bool { return l.inode == c.inode }); {
	case at >= 0 && (i < 0 || set.own[i].listens):
		l := set.ls[at]
		err := s.relisten(l)
		c.done(errnoOrNone(err))
		return adopted{l: l, listens: err == nil && s.groups[at] == nil}
	case i >= 0:
		return s.ownListen(set, i, c)
	case c.network == "tcp" && len(s.each()) == 1 && (s.learns || s.hasPort(c.addr.Port())):
		return s.learn(set, c)
	}
	c.pass()
	return adopted{}
}

func errnoOrNone(err error) syscall.Errno {
	if err == nil {
		return 0
	}
	return errnoOf(err)
}

// ownListen puts the program's socket in the place of the one that its generation was given.
func (s *steered) ownListen(set *socketSet, i int, c *call) adopted {
	o := set.own[i]
	before, g := set.members[i], s.groups[i]
	var err error
	if g == nil { // it has moved to an address of its own
		if err = unix.Listen(o.fd, s.base[i].backlog); err == nil {
			err = s.begin(set, i, o.fd)
		}
	} else {
		var m *member
		if m, err = g.listen(o.fd, s.base[i].backlog); err == nil {
			set.put(s.base[i], i, m)
		}
	}
	if err != nil {
		c.done(errnoOf(err))
		return adopted{l: set.ls[i], err: err}
	}
	o.listens, s.stale = true, true
	if len(s.shares) > 0 {
		err = s.steer()
	} else if g != nil && set == s.target {
		err = g.aim([]share{{set.members[i], 1}}, netip.AddrPort{}, nil)
	}
	if g != nil && before != nil {
		s.cut += waiting(before.fd)
		err = errors.Join(err, g.leave(before, nil))
	}
	err = errors.Join(err, s.rewatch(set))
	c.done(0)
	cut := s.cut
	s.cut = 0
	return adopted{l: set.ls[i], listens: true, cut: cut, err: err}
}

// learn takes a socket for a listener that the first generation has bound without any having been asked for.
func (s *steered) learn(set *socketSet, c *call) adopted {
	makeSteerable(c.fd)
	if err := unix.Listen(c.fd, systemBacklog()); err != nil {
		c.done(errnoOf(err))
		return adopted{err: err}
	}
	l := &listener{network: c.network, addr: c.addr.String(), fd: c.keep(), inode: c.inode, pin: -1, backlog: systemBacklog()}
	l.name = s.freeName(l.port())
	g, err := newGroup(l, false, nil)
	if err != nil {
		s.fixed.listeners = append(s.fixed.listeners, l)
	}
	s.base, s.groups = append(s.base, l), append(s.groups, g)
	var m *member
	if g != nil {
		m = g.members[0]
	}
	set.ls, set.members, set.own = append(set.ls, l), append(set.members, m), append(set.own, &own{fd: l.fd, inode: l.inode, listens: true, at: c.addr, only: c.only})
	err = errors.Join(err, s.rewatch(set))
	c.done(0)
	return adopted{l: l, listens: true, learned: true, err: err}
}

// hasPort tells whether a listener is on that port, at another address.
func (s *steered) hasPort(port uint16) bool {
	return slices.ContainsFunc(s.base, func(l *listener) bool { return l.network == "tcp" && l.port() == strconv.Itoa(int(port)) })
}

// freeName is a name that no listener has.
func (s *steered) freeName(base string) string {
	name := base
	for n := 2; slices.ContainsFunc(s.base, func(l *listener) bool { return l.name == name }); n++ {
		name = base + "-" + strconv.Itoa(n)
	}
	return name
}

// hold has clients try again, who come before the program has a socket of its own: what they found now would be closed.
func (s *steered) hold(generation int) {
	set := s.sets[generation]
	if set == nil || set != s.target || s.shares != nil {
		return
	}
	s.holds = true
	for i, m := range set.members {
		if m != nil && !m.lent && set.own[i] == nil { // who lent one has it for others, too
			_ = attachTo(m.fd, unix.SO_ATTACH_FILTER, dropAll)
		}
	}
}

// unhold lets clients in again, where a program uses what it was given after all.
func (s *steered) unhold() {
	if !s.holds {
		return
	}
	s.holds = false
	for _, set := range s.each() {
		for _, m := range set.members {
			if m != nil {
				_ = unix.SetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			}
		}
	}
}
