package main

// This file makes the listeners: it opens or inherits the sockets, mends and closes them.
//
//   - Raw numbers only: os.File and package net set or clear O_NONBLOCK on the description that all generations share.
//   - All or nothing: if one bind fails, none stays.

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

// listener is a bound socket that the supervisor keeps.
type listener struct {
	name    string // as in LISTEN_FDNAMES
	network string // tcp udp unix unixgram unixpacket
	addr    string // as shown: 127.0.0.1:8080, [::]:8080, /run/a.sock, @abstract
	fd      int    // close-on-exec here; never in an os.File
	inode   uint64
	pin     int  // the number wanted in the program, -1: the next free one from 3
	lent    bool // whoever handed it to hotwrap has it too, and goes on with it afterwards

	backlog int
	file    *socketFile  // the path, if we made it
	kept    bool         // our service manager keeps it while we are gone: its path stays
	watch   *listenWatch // where it is watched
	dropped uint32       // datagrams that it had no room for, when that was asked last
}

func (l *listener) datagram() bool { return l.network == "udp" || l.network == "unixgram" }

// drops are the datagrams that l had no room for since it was asked last.
func (l *listener) drops() int {
	if l.network != "udp" {
		return 0
	}
	before := l.dropped
	l.dropped = droppedBy(l.fd)
	return int(l.dropped - before)
}

func (l *listener) stream() bool { return !l.datagram() }
func (l *listener) inet() bool   { return l.network == "tcp" || l.network == "udp" }

// host is the address without its port, an IPv6 one without brackets; of a unix socket the path.
func (l *listener) host() string {
	if host, _, err := net.SplitHostPort(l.addr); err == nil && l.inet() {
		return host
	}
	return l.addr
}

// port is empty for a unix socket.
func (l *listener) port() string {
	if _, port, err := net.SplitHostPort(l.addr); err == nil && l.inet() {
		return port
	}
	return ""
}

// family is the address family as EINHORN_FD_FAMILY_n has it.
func (l *listener) family() string {
	switch {
	case !l.inet():
		return "AF_UNIX"
	case strings.Contains(l.host(), ":"):
		return "AF_INET6"
	default:
		return "AF_INET"
	}
}

// openListeners opens all specs or none, and returns the inherited ones ahead of them.
func openListeners(specs []listenSpec, inherited []*listener) ([]*listener, error) {
	ls := slices.Clone(inherited)
	for _, s := range specs {
		l, err := s.open()
		if err == nil {
			ls = append(ls, l)
			err = s.collision(l, ls[:len(ls)-1])
		}
		if err != nil {
			closeListeners(ls[len(inherited):])
			return nil, fmt.Errorf("cannot listen on %q: %w", s.address(), err)
		}
	}
	nameListeners(specs, ls[len(inherited):], inherited)
	return ls, nil
}

// collision finds what checkListens could not see: the names of inherited sockets, and one socket given twice.
func (s listenSpec) collision(l *listener, others []*listener) error {
	for _, o := range others {
		switch {
		case o.inode == l.inode:
			return fmt.Errorf("it already is the listener on %q", o.addr)
		case s.name != "" && o.name == s.name:
			return fmt.Errorf("the name %q belongs to an inherited socket", s.name)
		}
	}
	return nil
}

// plannedListeners are what openListeners will return, with their names and pins only: nothing is opened.
func plannedListeners(specs []listenSpec, inherited []*listener) []*listener {
	ls := slices.Clone(inherited)
	for _, s := range specs {
		l := &listener{addr: s.path, pin: int(s.pin)}
		if !s.ours() { // it is open already, and named after its port
			if given, err := takeSocket(s.source); err == nil {
				l.network, l.addr = given.network, given.addr
			}
		}
		ls = append(ls, l)
	}
	nameListeners(specs, ls[len(inherited):], inherited)
	return ls
}

// nameListeners gives the opened ls their names: first the given ones, then defaults that are still free.
func nameListeners(specs []listenSpec, ls, inherited []*listener) {
	taken := map[string]bool{}
	for _, l := range inherited {
		taken[l.name] = true
	}
	for _, s := range specs {
		taken[s.name] = true
	}
	for i, s := range specs {
		name := s.name
		if name == "" {
			name = s.defaultName(ls[i])
			for base, n := name, 2; taken[name]; n++ {
				name = fmt.Sprintf("%s-%d", base, n)
			}
		}
		taken[name] = true
		ls[i].name = name
	}
}

// defaultName is the port as it was written, or the base name of the path in the characters that a name may have.
func (s listenSpec) defaultName(l *listener) string {
	switch {
	case s.port != "":
		return s.port
	case l.inet():
		return l.port()
	}
	return strings.Map(func(r rune) rune {
		if checkListenName(string(r)) != nil {
			return '_'
		}
		return r
	}, strings.TrimPrefix(filepath.Base(l.addr), "@"))
}

// open makes the listener of s, without a name.
func (s listenSpec) open() (*listener, error) {
	switch {
	case s.back != nil:
		return s.back, nil
	case s.network == "fd":
		return s.openGiven()
	case s.inet():
		return s.openInet()
	default:
		return s.openUnix()
	}
}

// newListener describes fd, which is closed if that fails.
func (s listenSpec) newListener(fd int, file *socketFile) (*listener, error) {
	l, err := takeSocket(fd)
	if err != nil {
		if file != nil {
			file.remove()
		}
		unix.Close(fd)
		return nil, err
	}
	l.pin, l.file = int(s.pin), file
	if s.backlog > 0 {
		l.backlog = s.backlog
	}
	return l, nil
}

// openInet opens a tcp or udp socket. Port 0 is resolved and then bound explicitly: a socket that the kernel gave a port
// to comes back on another one when it has to listen again.
func (s listenSpec) openInet() (*listener, error) {
	at, err := s.resolve()
	if err != nil {
		return nil, err
	}
	for try, chosen := 1, at; ; try++ {
		if at.Port() == 0 {
			if chosen, err = s.choosePort(at); err != nil {
				return nil, err
			}
		}
		fd, err := s.bindInet(chosen)
		switch {
		case err == nil:
			return s.newListener(fd, nil)
		case errors.Is(err, unix.EADDRINUSE) && at.Port() == 0 && try < portTries:
		case errors.Is(err, unix.EADDRINUSE):
			return nil, inUse(portHolder(s.transport(), chosen))
		case errors.Is(err, unix.EACCES) && chosen.Port() < 1024:
			return nil, fmt.Errorf("%w (a port below 1024 needs root or CAP_NET_BIND_SERVICE)", err)
		default:
			return nil, err
		}
	}
}

// resolve looks host and port up, as net.Listen does: of many addresses the first IPv4 one.
func (s listenSpec) resolve() (netip.AddrPort, error) {
	var at netip.AddrPort
	hostport := net.JoinHostPort(s.host, s.port)
	if s.tcp() {
		a, err := net.ResolveTCPAddr(s.network, hostport)
		if err != nil {
			return at, err
		}
		at = a.AddrPort()
	} else {
		a, err := net.ResolveUDPAddr(s.network, hostport)
		if err != nil {
			return at, err
		}
		at = a.AddrPort()
	}
	switch {
	case at.Addr().IsValid():
		return netip.AddrPortFrom(at.Addr().Unmap(), at.Port()), nil
	case strings.HasSuffix(s.network, "4"), !s.ipv6Only() && !hasDualStack():
		return netip.AddrPortFrom(netip.IPv4Unspecified(), at.Port()), nil
	default:
		return netip.AddrPortFrom(netip.IPv6Unspecified(), at.Port()), nil
	}
}

// hasDualStack tells whether [::] can be bound and takes IPv4 clients too.
func hasDualStack() bool {
	fd, err := (listenSpec{network: "udp"}).bindInet(netip.AddrPortFrom(netip.IPv6Unspecified(), 0))
	if err == nil {
		unix.Close(fd)
	}
	return err == nil
}

// choosePort returns at with a port that is free now.
func (s listenSpec) choosePort(at netip.AddrPort) (netip.AddrPort, error) {
	fd, err := s.bindInet(at)
	if err != nil {
		return at, err
	}
	defer unix.Close(fd)
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return at, err
	}
	return netip.AddrPortFrom(at.Addr(), addrPort(sa).Port()), nil
}

// bindInet opens a socket at an address; if that is tcp and has a port, it listens.
func (s listenSpec) bindInet(at netip.AddrPort) (fd int, err error) {
	family, kind := unix.AF_INET, unix.SOCK_STREAM
	if at.Addr().Is6() {
		family = unix.AF_INET6
	}
	if !s.tcp() {
		kind = unix.SOCK_DGRAM
	}
	backlog := s.queue()
	sa, err := sockaddr(at)
	if err != nil {
		return -1, err
	}
	if fd, err = newSocket(family, kind, s.protocol(), s.nonblock); err != nil {
		return -1, err
	}
	if err = s.setOptions(fd, family, backlog); err == nil {
		err = unix.Bind(fd, sa)
	}
	if err == nil && s.tcp() && at.Port() != 0 {
		makeSteerable(fd)
		err = unix.Listen(fd, backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// setOptions sets what goes before bind(2). SO_REUSEADDR is for tcp alone: it passes over connections in TIME_WAIT, but
// lets anybody share a udp port.
func (s listenSpec) setOptions(fd, family, backlog int) error {
	if family == unix.AF_INET6 {
		only := 0
		if s.ipv6Only() {
			only = 1
		}
		if err := unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only); err != nil {
			return err
		}
	}
	if s.tcp() {
		if err := unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
			return err
		}
	}
	if s.rcvbuf > 0 {
		if err := setReceiveBuffer(fd, s.rcvbuf); err != nil {
			return fmt.Errorf("cannot set %q: %w", "rcvbuf", err)
		}
	}
	return s.setLinuxOptions(fd, family, backlog)
}

// queue is the backlog that s gets.
func (s listenSpec) queue() int {
	if s.backlog > 0 {
		return s.backlog
	}
	return systemBacklog()
}

// systemBacklog is the longest queue that the system allows.
func systemBacklog() int {
	text, err := os.ReadFile("/proc/sys/net/core/somaxconn")
	if n, nerr := strconv.Atoi(strings.TrimSpace(string(text))); err == nil && nerr == nil {
		return n
	}
	return unix.SOMAXCONN
}

// sockaddr turns an address round for bind(2).
func sockaddr(at netip.AddrPort) (unix.Sockaddr, error) {
	if at.Addr().Is4() {
		return &unix.SockaddrInet4{Port: int(at.Port()), Addr: at.Addr().As4()}, nil
	}
	sa := &unix.SockaddrInet6{Port: int(at.Port()), Addr: at.Addr().As16()}
	if zone := at.Addr().Zone(); zone != "" {
		device, err := net.InterfaceByName(zone)
		if err != nil {
			return nil, fmt.Errorf("no network interface %q", zone)
		}
		sa.ZoneId = uint32(device.Index)
	}
	return sa, nil
}

// addrPort is what getsockname(2) says of an IP socket.
func addrPort(sa unix.Sockaddr) netip.AddrPort {
	switch sa := sa.(type) {
	case *unix.SockaddrInet4:
		return netip.AddrPortFrom(netip.AddrFrom4(sa.Addr), uint16(sa.Port))
	case *unix.SockaddrInet6:
		ip := netip.AddrFrom16(sa.Addr)
		if device, err := net.InterfaceByIndex(int(sa.ZoneId)); sa.ZoneId != 0 && err == nil {
			ip = ip.WithZone(device.Name)
		}
		return netip.AddrPortFrom(ip, uint16(sa.Port))
	}
	return netip.AddrPort{}
}

// openGiven takes a duplicate of a descriptor that is open here. Neither gets into a program by itself.
func (s listenSpec) openGiven() (*listener, error) {
	fd, err := unix.FcntlInt(uintptr(s.source), unix.F_DUPFD_CLOEXEC, firstListenFD)
	if errors.Is(err, unix.EBADF) {
		return nil, errors.New("it is not open")
	}
	if err != nil {
		return nil, err
	}
	l, err := s.newListener(fd, nil)
	if err != nil {
		return nil, err
	}
	l.lent = true
	if s.source >= firstListenFD {
		unix.CloseOnExec(s.source)
	}
	return l, nil
}

// inheritListeners takes the sockets that a service manager passes in LISTEN_FDS, sd_listen_fds(3), and apart from them what was
// in its store. There are none if LISTEN_PID or LISTEN_PIDFDID names another process. O_NONBLOCK stays as it is.
func inheritListeners(environ []string) (handed, back []*listener, err error) {
	n, err := inheritedCount(environ)
	if n == 0 || err != nil {
		return nil, nil, err
	}
	names := slices.Repeat([]string{""}, n)
	if text, ok := lookupEnv(environ, "LISTEN_FDNAMES"); ok {
		names = strings.Split(text, ":")
	}
	if len(names) != n {
		return nil, nil, fmt.Errorf("cannot take the sockets of LISTEN_FDS: LISTEN_FDNAMES has %d names for %d", len(names), n)
	}
	for i, name := range names {
		fd := firstListenFD + i
		if strings.HasPrefix(name, storePrefix) {
			back = append(back, takeBack(fd, name))
			continue
		}
		if len(name) > maxListenName || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' }) {
			return nil, nil, fmt.Errorf("cannot take the sockets of LISTEN_FDS: LISTEN_FDNAMES has the bad name %q", name)
		}
		if name == "" { // legal, but a list of one such name is an empty one, which clients take for an error
			name = "unknown"
		}
		l, err := takeSocket(fd)
		if err != nil {
			return nil, nil, fmt.Errorf("cannot take descriptor %d (%q) of LISTEN_FDS: %w", fd, name, err)
		}
		unix.CloseOnExec(fd)
		l.name, l.lent = name, true
		handed = append(handed, l)
	}
	return handed, back, nil
}

// inheritedCount is LISTEN_FDS if it is meant for this process.
func inheritedCount(environ []string) (int, error) {
	number := func(key string) (n uint64, set bool, err error) {
		text := getenv(environ, key)
		if set = text != ""; set {
			if n, err = strconv.ParseUint(text, 10, 64); err != nil {
				err = fmt.Errorf("cannot read %s: %q is not a number", key, text)
			}
		}
		return n, set, err
	}
	pid, set, err := number("LISTEN_PID")
	if !set || err != nil || pid != uint64(os.Getpid()) {
		return 0, err
	}
	id, set, err := number("LISTEN_PIDFDID") // systemd 259
	if err != nil {
		return 0, err
	}
	if own, known := shim.PidfdID(); set && known && id != own {
		return 0, nil
	}
	n, _, err := number("LISTEN_FDS")
	if n > maxListenFD {
		return 0, fmt.Errorf("cannot read LISTEN_FDS: %d is too many", n)
	}
	return int(n), err
}

// takeSocket describes a socket that listens or takes datagrams; others are refused, not dropped: whoever passes them
// expects the program to get them.
func takeSocket(fd int) (*listener, error) {
	kind, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_TYPE)
	switch {
	case errors.Is(err, unix.EBADF):
		return nil, errors.New("it is not open")
	case err != nil:
		return nil, errors.New("it is not a socket, and only sockets are passed on")
	}
	sa, err := unix.Getsockname(fd)
	if err != nil {
		return nil, fmt.Errorf("its address is unknown: %w", err)
	}
	l := &listener{fd: fd, pin: -1, backlog: systemBacklog()}
	if l.network, l.addr, err = socketName(fd, kind, sa); err != nil {
		return nil, err
	}
	if _, err := unix.Getpeername(fd); err == nil {
		return nil, errors.New("it is a connection, not a listening socket (Accept=yes?)")
	}
	if l.stream() && !accepting(fd) {
		// Bound only, or shut down by an earlier program. Without a port listen(2) would choose one.
		if l.port() == "" || l.port() == "0" || unix.Listen(fd, l.backlog) != nil {
			return nil, errors.New("it does not listen")
		}
	}
	if backlog := backlogOf(fd); l.network == "tcp" && backlog > 0 {
		l.backlog = backlog
	}
	l.inode, err = socketInode(fd)
	return l, err
}

// socketName says the network and the address of a socket.
func socketName(fd, kind int, sa unix.Sockaddr) (network, addr string, err error) {
	const mptcp = 262 // IPPROTO_MPTCP; package unix has it for Linux only
	protocol, err := protocolOf(fd)
	if err != nil {
		return "", "", err
	}
	if local, ok := sa.(*unix.SockaddrUnix); ok {
		network = map[int]string{
			unix.SOCK_STREAM: "unix", unix.SOCK_DGRAM: "unixgram", unix.SOCK_SEQPACKET: "unixpacket",
		}[kind]
		return network, local.Name, nil
	}
	at := addrPort(sa)
	switch {
	case !at.IsValid():
		return "", "", errors.New("it is neither an IP nor a unix socket")
	case kind == unix.SOCK_STREAM && slices.Contains([]int{0, unix.IPPROTO_TCP, mptcp}, protocol):
		return "tcp", at.String(), nil
	case kind == unix.SOCK_DGRAM && slices.Contains([]int{0, unix.IPPROTO_UDP}, protocol):
		return "udp", at.String(), nil
	}
	return "", "", fmt.Errorf("it speaks neither tcp nor udp (protocol %d)", protocol)
}

// accepting tells whether a socket listens.
func accepting(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_ACCEPTCONN)
	return err == nil && n != 0
}

// closeListeners closes them, and removes the unix paths that are still ours and nobody's who keeps them.
func closeListeners(ls []*listener) {
	removePaths(ls)
	closeSockets(ls)
}

// closeSockets closes hotwrap's own descriptors only: programs may still hold theirs, and look at the path.
func closeSockets(ls []*listener) {
	for _, l := range ls {
		_ = unix.Close(l.fd)
	}
}

// removePaths removes the unix paths that are still ours, unless somebody keeps their sockets.
func removePaths(ls []*listener) {
	for _, l := range ls {
		if l.file != nil && !l.kept {
			l.file.remove()
		}
	}
}

// refresh listens again with our own backlog, which a program may have changed for all. Queued connections stay.
func (l *listener) refresh() error {
	if l.datagram() {
		return nil
	}
	if err := unix.Listen(l.fd, l.backlog); err != nil {
		return fmt.Errorf("cannot listen again on %q: %w", l.addr, err)
	}
	return nil
}

// repair mends what a program spoilt and says what that was; "" if nothing was wrong. It is cheap when nothing is.
// A new inode of l means that no running program has the socket: the next one gets it.
// relisten is how it listens again.
func (l *listener) repair(relisten func(*listener) error) (string, error) {
	done, err := "", error(nil)
	switch {
	case l.network == "tcp" && !accepting(l.fd):
		done, err = "was shut down: listening again", relisten(l)
	case l.network != "tcp" && l.stream() && wasShutDown(l.fd):
		// Nothing revives a unix listener after shutdown(2).
		done, err = "was shut down: replaced by a new socket", l.replace()
	case l.file != nil:
		done, err = l.restorePath()
	}
	if err != nil {
		return "", fmt.Errorf("cannot repair %q: %w", l.addr, err)
	}
	return done, nil
}

// fdNumbers says which number each listener gets in the program: the pinned ones theirs, the others the lowest free ones
// from 3 in their order. The taken are something else's.
func fdNumbers(ls []*listener, taken []int) ([]int, error) {
	owner := map[int]string{1: "the program's output", 2: "the program's errors"}
	for _, n := range taken {
		owner[n] = "something else"
	}
	for _, l := range ls {
		if l.pin < 0 {
			continue
		}
		if who, ok := owner[l.pin]; ok {
			return nil, fmt.Errorf("cannot pass %q as descriptor %d: that is %s", l.name, l.pin, who)
		}
		owner[l.pin] = strconv.Quote(l.name)
	}
	numbers := make([]int, len(ls))
	next := firstListenFD
	for i, l := range ls {
		if l.pin >= 0 {
			numbers[i] = l.pin
			continue
		}
		for owner[next] != "" {
			next++
		}
		numbers[i] = next
		next++
	}
	return numbers, nil
}

// listenFDS is LISTEN_FDS: how many numbers from 3 on, without a gap, are listeners. LISTEN_FDNAMES has as many names,
// in the order of the numbers.
func listenFDS(numbers []int) int {
	n := 0
	for slices.Contains(numbers, firstListenFD+n) {
		n++
	}
	return n
}

// missesListeners tells whether there are listeners beyond the first n numbers. Below 3 none is meant: that is inetd's way.
func missesListeners(numbers []int, n int) bool {
	return slices.ContainsFunc(numbers, func(fd int) bool { return fd >= firstListenFD+n })
}
