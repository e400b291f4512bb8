package main

// This file is the SO_REUSEPORT group of one TCP address: a socket for each generation, and a program in the kernel that
// says which of them gets a new connection (socket(7), SO_ATTACH_REUSEPORT_CBPF).
//
//   - The kernel keeps the sockets in an array and the program names an index in it: one that listens goes to its end, one
//     that stops leaves a hole that the last takes (net/core/sock_reuseport.c). group mirrors the array, so nobody but
//     group may listen on, shut down or close a member.
//   - An index beyond the end is replaced by a hash over all members. So a member goes only if no index that is aimed at
//     moves, or if a single one is left; else it stays, getting nothing, until the next one listens. That programs may let
//     theirs go at any time, guards_linux.go takes care of.
//   - SO_REUSEPORT is off until the second socket comes, so that nobody else can bind the address, and on ever after: the
//     kernel's port remembers it, and a stranger of the same user who then binds would take every connection from a
//     socket that has it off, but gets none in a group whose program names another.
//   - The supervisor's goroutine owns it. Nothing here waits.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

// maxShares is how many members may be aimed at. A program's size is bounded by net.core.optmem_max, 20 KiB on old kernels.
const maxShares = 60

// Of linux/filter.h: negative offsets stand for the network header, and for what is not in the packet.
const (
	netOffset = 1<<32 - 0x100000 // SKF_NET_OFF
	adOffset  = 1<<32 - 0x1000   // SKF_AD_OFF
	adRandom  = 56               // SKF_AD_RANDOM
)

// member is one listening socket of a group. Programs have duplicates of it.
type member struct {
	fd      int // hotwrap's own, close-on-exec
	inode   uint64
	backlog int
	plain   bool // it speaks plain TCP: a program can be attached through those only, but holds for MPTCP sockets too
	lent    bool // somebody else goes on with it after us, as systemd does: it is never shut down
	left    bool // it is to go as soon as the array permits
	guard   bool // it drops every packet, and has left from the beginning
	vague   bool // it and others like it have their places, but which of them has which is not known
}

// share is what part of the new connections a member gets, of the sum of all weights.
type share struct {
	to     *member
	weight int
}

// group is the SO_REUSEPORT group of one address, in one network namespace.
type group struct {
	addr     string // as shown
	at       netip.AddrPort
	bind     unix.Sockaddr
	family   int
	backlog  int
	uid      uint32 // the kernel takes sockets of one user only
	v6only   bool
	device   int // index of the network interface, 0: any
	nonblock bool
	options  []socketOption

	members []*member // as in the kernel's array
	shares  []share
	probed  *member           // gets what comes from probe
	probe   netip.AddrPort    // the zero value: nothing does
	program []unix.SockFilter // what the kernel has
}

// makeSteerable gives a TCP socket that is bound and does not listen yet a group of its own, so that a program can be
// attached at any time later. It must not be shared yet: a second socket prepared like this cannot join the first. Where
// the kernel refuses, the socket is a plain one.
func makeSteerable(fd int) {
	if setReuse(fd, true) == nil {
		_ = attach(fd, returnIndex(0))
		_ = setReuse(fd, false) // or the bind of anybody else's would succeed
	}
}

// newGroup makes l's listening socket, which is the group's from now on, its first member; all connections go there. A
// lent one is somebody else's too (systemd's, fd:N): it never leaves. The error says why l cannot be steered.
func newGroup(l *listener, lent bool, known *listening) (*group, error) {
	g, err := describeGroup(l)
	if err == nil {
		g.members[0].lent = lent
		err = g.foreign(known)
	}
	if err == nil {
		err = g.rehearse()
	}
	if err == nil {
		err = g.begin()
	}
	if err != nil {
		return nil, fmt.Errorf("cannot steer %q: %w", l.addr, err)
	}
	return g, nil
}

// describeGroup reads once what every further socket must be like. A program may change its own later.
func describeGroup(l *listener) (*group, error) {
	if l.network != "tcp" || !accepting(l.fd) {
		return nil, errors.New("it is not a listening TCP socket")
	}
	m, uid, err := newMember(l.fd, l.backlog)
	if err != nil {
		return nil, err
	}
	g := &group{addr: l.addr, backlog: l.backlog, uid: uid, family: unix.AF_INET, members: []*member{m}, shares: []share{{m, 1}}}
	if g.bind, err = unix.Getsockname(l.fd); err != nil {
		return nil, err
	}
	g.at = addrPort(g.bind)
	if _, ok := g.bind.(*unix.SockaddrInet6); ok {
		g.family = unix.AF_INET6
	}
	g.v6only, g.device = v6Only(l.fd), deviceOf(l.fd)
	flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0)
	g.nonblock = flags&unix.O_NONBLOCK != 0
	return g, err
}

// newMember describes fd; uid is whose it is for the kernel.
func newMember(fd, backlog int) (m *member, uid uint32, err error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return nil, 0, err
	}
	protocol, err := protocolOf(fd)
	return &member{fd: fd, inode: st.Ino, backlog: backlog, plain: protocol == unix.IPPROTO_TCP}, st.Uid, err
}

// rehearse makes one more socket, unbound, and closes it: what it is refused, no further one would get. That also shows
// which options a new socket does not have by itself; no others are set, since that would freeze those that adapt.
func (g *group) rehearse() error {
	fd, err := newSocket(g.family, unix.SOCK_STREAM, unix.IPPROTO_TCP, g.nonblock)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	g.options = optionsBeyond(g.members[0].fd, fd)
	return g.equip(fd)
}

// begin attaches the program for one socket. A socket that was bound without SO_REUSEPORT has no place for it until
// another one joins: one that drops every packet (whoever meets it tries again) and goes again at once. Beside one of
// MPTCP it stays.
func (g *group) begin() error {
	plain := g.members[0].plain
	if plain {
		if err := g.steer(); !errors.Is(err, unix.EINVAL) {
			return err
		}
	}
	// Connections inherit these: without them, an open one would keep the next socket from the address.
	if err := unix.SetsockoptInt(g.members[0].fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1); err != nil {
		return err
	}
	fd, err := g.dummy()
	if err != nil {
		return err
	}
	if !plain {
		return g.anchor(fd)
	}
	defer unix.Close(fd)
	return g.steer()
}

// anchor keeps a plain socket in the group, which gets nothing: without one no program could be attached.
func (g *group) anchor(fd int) error {
	err := g.keepGuard(fd)
	if err == nil {
		err = g.steer()
	}
	return err
}

// open makes one more socket, which listens and gets no connection until it is aimed at.
func (g *group) open() (*member, error) {
	m, err := g.enlist()
	if err != nil {
		return nil, err
	}
	if err := g.alone(nil); err != nil {
		g.dismiss(m)
		return nil, err
	}
	g.settle(nil)
	return m, nil
}

// settle gives the one that came last its place, now that all who listen are known.
func (g *group) settle(known *listening) {
	g.fill()
	g.guard()
	_ = g.bury(known) // what cannot go yet is tried again
}

// enlist is open up to where it is looked who else listens.
func (g *group) enlist() (*member, error) {
	fd, err := g.socket()
	if err != nil {
		return nil, fmt.Errorf("cannot open another socket for %q: %w", g.addr, err)
	}
	if err = g.admit(fd); err == nil {
		var m *member
		if m, err = g.join(fd, g.backlog); err == nil {
			return m, nil
		}
	}
	unix.Close(fd)
	return nil, err
}

// alone is an error if somebody else listens on the address.
func (g *group) alone(known *listening) error {
	if err := g.foreign(known); err != nil {
		return fmt.Errorf("cannot listen on %q: %w", g.addr, err)
	}
	return nil
}

// dismiss closes the one that came last: it leaves no hole.
func (g *group) dismiss(m *member) {
	g.withdraw(m)
	unix.Close(m.fd)
}

// socket makes a socket like the first one was.
func (g *group) socket() (int, error) {
	fd, err := newSocket(g.family, unix.SOCK_STREAM, unix.IPPROTO_TCP, g.nonblock)
	if err != nil {
		return -1, err
	}
	if err := g.equip(fd); err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// equip gives a socket of ours the options and the owner of the first one.
func (g *group) equip(fd int) error {
	for _, o := range g.options {
		if err := o.set(fd); err != nil {
			return fmt.Errorf("its option %s cannot be given to another socket: %w", o.name, err)
		}
	}
	return g.own(fd)
}

// own makes a socket belong to the group's user, since the kernel lets no others into a group.
func (g *group) own(fd int) error {
	_, uid, err := newMember(fd, 0)
	if err != nil || uid == g.uid {
		return err
	}
	if err := unix.Fchown(fd, int(g.uid), -1); err != nil {
		return fmt.Errorf("it belongs to user %d, and another socket does not: %w", g.uid, err)
	}
	return nil
}

// owns tells whether a socket belongs to the group's user.
func (g *group) owns(fd int) bool {
	_, uid, err := newMember(fd, 0)
	return err == nil && uid == g.uid
}

// admit binds a socket, ours or a program's, to the group's address.
func (g *group) admit(fd int) error {
	err := g.fits(fd)
	if err == nil {
		err = g.own(fd)
	}
	if err == nil {
		err = g.share()
	}
	if err == nil {
		err = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	}
	if err == nil {
		err = setReuse(fd, true)
	}
	if err == nil {
		err = unix.Bind(fd, g.bind)
	}
	if err != nil {
		return fmt.Errorf("cannot bind another socket to %q: %w", g.addr, err)
	}
	return nil
}

// fits tells whether the kernel would put a socket into this group and not beside it.
func (g *group) fits(fd int) error {
	family, err := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	if err != nil {
		return err
	}
	protocol, err := protocolOf(fd)
	switch {
	case err != nil:
		return err
	case family != g.family:
		return errors.New("it is of another address family")
	case protocol != unix.IPPROTO_TCP && protocol != unix.IPPROTO_MPTCP:
		return errors.New("it does not speak TCP")
	case v6Only(fd) != g.v6only:
		return errors.New("they differ in IPV6_V6ONLY")
	case deviceOf(fd) != g.device:
		return errors.New("they are bound to different network interfaces")
	}
	return nil
}

// share turns SO_REUSEPORT on, for good.
func (g *group) share() error {
	for _, m := range g.members {
		if err := setReuse(m.fd, true); err != nil {
			return err
		}
	}
	return nil
}

// listen makes an admitted socket a member: it is the group's now, unless there is an error. An error also is that
// somebody else listens on the address.
func (g *group) listen(fd, backlog int) (*member, error) {
	m, err := g.join(fd, backlog)
	if err != nil {
		return nil, err
	}
	if err := g.alone(nil); err != nil {
		g.withdraw(m)
		return nil, err
	}
	g.settle(nil)
	return m, nil
}

// join is listen up to where it is looked who else does.
func (g *group) join(fd, backlog int) (*member, error) {
	m, _, err := newMember(fd, backlog)
	if err == nil {
		err = g.enter(m)
	}
	if err != nil {
		return nil, fmt.Errorf("cannot listen on %q: %w", g.addr, err)
	}
	return m, nil
}

// enter lets m listen, at the end of the array.
func (g *group) enter(m *member) error {
	for {
		err := g.look()
		switch {
		case err != nil:
		case len(g.members) == 0: // the kernel's group went with its last socket
			makeSteerable(m.fd)
			g.program = returnIndex(0)
		default:
			err = g.steer() // or an index beyond the end would be that of m
		}
		if err == nil {
			err = unix.Listen(m.fd, m.backlog)
		}
		if err != nil {
			return err
		}
		if len(g.lost()) == 0 {
			g.members = append(g.members, m)
			return nil
		}
		_ = unix.Shutdown(m.fd, unix.SHUT_RD) // before or after those that went: now the order is as if it had never come
	}
}

// again lets a member listen again that a program has shut down. It had lost its place in the array.
func (g *group) again(m *member, backlog int) error {
	err := g.look()
	if err == nil && !slices.Contains(g.members, m) {
		m.backlog = backlog
		err = g.enter(m)
	}
	if err == nil {
		err = g.steer()
	}
	if err != nil {
		return fmt.Errorf("cannot listen again on %q: %w", g.addr, err)
	}
	g.guard()
	_ = g.bury(nil) // what cannot go yet is tried again
	return nil
}

// look takes from the mirror what a program has shut down; unless that is all, what is left is aimed at anew.
func (g *group) look() error {
	lost := g.lost()
	if len(lost) == 0 {
		return nil
	}
	known := g.lose(lost)
	if len(g.members) == 0 {
		return nil
	}
	if len(g.members) > 1 && (!known || g.foreign(nil) != nil) {
		if err := g.reorder(); err != nil {
			return err
		}
	}
	return g.steer()
}

// reorder makes the order known when it cannot be known in which order others went from the array: all but one go, and
// listen anew. What waits in their queues is lost, instead of every connection that is to come. One that is aimed at stays,
// unless there is a lent one.
func (g *group) reorder() error {
	rest := slices.Clone(g.members)
	slices.SortStableFunc(rest, func(a, b *member) int { // guards last
		switch {
		case a.guard == b.guard:
			return 0
		case b.guard:
			return -1
		}
		return 1
	})
	for _, m := range rest {
		m.vague = false
	}
	stays := max(0, slices.IndexFunc(rest, g.aimedAt))
	if i := slices.IndexFunc(rest, func(m *member) bool { return m.lent }); i >= 0 {
		stays = i
	}
	g.members = []*member{rest[stays]}
	rest = slices.Delete(rest, stays, stays+1)
	for _, m := range rest {
		_ = unix.Shutdown(m.fd, unix.SHUT_RD)
	}
	for _, aimed := range []bool{true, false} {
		for _, m := range rest {
			if g.aimedAt(m) != aimed {
				continue
			}
			if err := errors.Join(g.steer(), unix.Listen(m.fd, m.backlog)); err != nil {
				return err
			}
			g.members = append(g.members, m)
		}
	}
	return nil
}

// aim sends the new connections to members by their weights, and those from a source port to a member of their own, if
// there is one: whoever asks from there is not a client.
func (g *group) aim(shares []share, probe netip.AddrPort, probed *member) error {
	shares = slices.DeleteFunc(slices.Clone(shares), func(s share) bool { return s.weight == 0 })
	if err := g.look(); err != nil {
		return fmt.Errorf("cannot steer %q: %w", g.addr, err)
	}
	targets := slices.Clone(shares)
	if probe.IsValid() {
		targets = append(targets, share{probed, 1})
	}
	switch {
	case len(shares) == 0 || len(shares) > maxShares:
		return fmt.Errorf("cannot steer %q: %d shares", g.addr, len(shares))
	case slices.ContainsFunc(targets, func(s share) bool {
		return s.weight < 0 || s.to == nil || s.to.left || !slices.Contains(g.members, s.to)
	}):
		return fmt.Errorf("cannot steer %q: a share is for a socket that does not listen", g.addr)
	}
	before, from, to := g.shares, g.probe, g.probed
	g.shares, g.probe, g.probed = shares, probe, probed
	g.guard()
	if err := g.steer(); err != nil {
		g.shares, g.probe, g.probed = before, from, to
		return fmt.Errorf("cannot steer %q: %w", g.addr, err)
	}
	_ = g.bury(nil) // what cannot go yet is tried again
	return nil
}

// steer attaches the program for the array as it is now, unless the kernel has it. Where all sockets left are of MPTCP, as
// Go's are, one of ours comes beside them: the one that was there went with a hotwrap that was killed.
func (g *group) steer() error {
	program := g.assemble()
	if len(program) == 0 || slices.Equal(program, g.program) {
		return nil
	}
	at := slices.IndexFunc(g.members, func(m *member) bool { return m.plain })
	if at < 0 {
		fd, err := g.dummy()
		if err == nil {
			err = g.keepGuard(fd)
		}
		if err != nil {
			return fmt.Errorf("none of its sockets speaks plain TCP: %w", err)
		}
		at = len(g.members) - 1
	}
	if err := attach(g.members[at].fd, program); err != nil {
		return err
	}
	g.program = program
	return nil
}

// leave lets a member go that is not aimed at, and closes it: at once or, where that would send connections astray, when
// the array permits it. What waits in its queue then is reset.
func (g *group) leave(m *member, known *listening) error {
	if g.aimedAt(m) {
		return fmt.Errorf("cannot close a socket of %q: connections are aimed at it", g.addr)
	}
	m.left = true
	if err := g.look(); err != nil {
		return fmt.Errorf("cannot steer %q: %w", g.addr, err)
	}
	if !slices.Contains(g.members, m) { // a program has shut it down before
		if !m.lent {
			unix.Close(m.fd)
		}
	}
	return g.bury(known)
}

// bury closes the members that have left, as far as the array permits it.
func (g *group) bury(known *listening) error {
	g.relieve()
	if g.next() < 0 {
		return nil
	}
	if err := g.foreign(known); err != nil { // a stranger in the array could take the hole
		return fmt.Errorf("cannot close a socket of %q: %w", g.addr, err)
	}
	for i := g.next(); i >= 0; i = g.next() { // what has moved may permit another one
		m := g.members[i]
		g.withdraw(m)
		unix.Close(m.fd)
	}
	if err := g.steer(); err != nil {
		return fmt.Errorf("cannot steer %q: %w", g.addr, err)
	}
	return nil
}

// removable tells whether a member can go without a connection to a wrong one before the next program is attached: the
// last one, which leaves no hole; any, if the one that takes its place is not aimed at, or if just one is left.
func (g *group) removable(i int) bool {
	last := len(g.members) - 1
	if g.members[i].lent || g.anchors(i) {
		return false
	}
	return (i == last || last == 1 || !g.aimedAt(g.members[last]))
}

// anchors tells whether a member is the only one of plain TCP beside others that are not.
func (g *group) anchors(i int) bool {
	plain := 0
	for _, m := range g.members {
		if m.plain {
			plain++
		}
	}
	return g.members[i].plain && plain == 1 && len(g.members) > 1
}

// withdraw takes a member out of the array. Closing it would not do: a program may have a duplicate.
func (g *group) withdraw(m *member) {
	_ = unix.Shutdown(m.fd, unix.SHUT_RD)
	lost := g.lost()
	if len(lost) == 1 {
		g.remove(slices.Index(g.members, m))
		return
	}
	if !g.lose(lost) { // some went at the same time
		_ = g.reorder()
	}
	_ = g.steer()
}

// remove does in the mirror what the kernel does in the array.
func (g *group) remove(i int) {
	last := len(g.members) - 1
	if g.members[i].vague && i < last {
		g.members[last].vague = true // it has the place of one of them
	}
	g.members[i] = g.members[last]
	g.members = g.members[:last]
	g.clear()
}

// aimedAt tells whether new connections go to m.
func (g *group) aimedAt(m *member) bool {
	return slices.ContainsFunc(g.shares, func(s share) bool { return s.to == m }) || g.probe.IsValid() && g.probed == m
}

// close ends the group for us. Who has duplicates of its sockets goes on with them.
func (g *group) close() {
	for _, m := range g.members {
		unix.Close(m.fd)
	}
	g.members = nil
}

// foreign is an error if anybody else listens on an address that overlaps; known is what was looked up, nil: it looks. The
// kernel refuses none of those who have SO_REUSEPORT, even of other users where the family differs, and they would take
// connections unnoticed.
func (g *group) foreign(known *listening) error {
	if known == nil {
		known = listeningOn(portSet{g.at.Port(): true})
	}
	wanted := map[uint64]bool{}
	for _, s := range known.at(g.at.Port()) {
		own := slices.ContainsFunc(g.members, func(m *member) bool { return m.inode == s.inode })
		if !own && s.inode != 0 && g.overlaps(s) {
			wanted[s.inode] = true
		}
	}
	if len(wanted) == 0 {
		return nil
	}
	return inUse(holderOf(wanted))
}

// overlaps tells whether some connections could go to the group and to s.
func (g *group) overlaps(s inetSocket) bool {
	v4, other := g.at.Addr().Unmap().Is4(), s.local.Addr().Unmap().Is4()
	switch {
	case s.device != 0 && g.device != 0 && s.device != g.device:
		return false
	case g.v6only && other, s.v6only && v4:
		return false
	}
	return addrsOverlap(g.at.Addr(), s.local.Addr())
}

// assemble is the program for the aim: the probe's port, then a random number among the shares. What a program has shut
// down gets none. If that is all, there is no program: nothing would be right until one of those listens again.
func (g *group) assemble() (p []unix.SockFilter) {
	index := func(m *member) uint32 { return uint32(slices.Index(g.members, m)) }
	shares := slices.DeleteFunc(slices.Clone(g.shares), func(s share) bool { return !slices.Contains(g.members, s.to) })
	if len(shares) == 0 {
		return nil
	}
	if g.probe.IsValid() && slices.Contains(g.members, g.probed) {
		p = append(p, ifFrom(g.probe)...)
		p = append(p, returnIndex(index(g.probed))...)
	}
	total, sum := 0, 0
	for _, s := range shares {
		total += s.weight
	}
	if len(shares) > 1 {
		p = append(p, unix.SockFilter{Code: unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, K: adOffset + adRandom})
	}
	for i, s := range shares {
		sum += s.weight
		if i < len(shares)-1 {
			below := uint32(float64(sum) / float64(total) * (math.MaxUint32 + 1))
			p = append(p, unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JGE | unix.BPF_K, Jt: 1, K: below})
		}
		p = append(p, returnIndex(index(s.to))...)
	}
	return p
}

// ifFrom goes on with the next instruction if the packet comes from that address and port, else with the one after. A
// socket of IPv6 gets packets of both versions.
func ifFrom(from netip.AddrPort) []unix.SockFilter {
	const v4Source, v6Source, v6Header = 12, 8, 40 // bytes; how long an IPv4 header is it says itself
	source, version := uint32(v4Source), uint32(4<<4)
	if from.Addr().Unmap().Is6() {
		source, version = v6Source, 6<<4
	}
	load := func(size uint16, at uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_LD | size | unix.BPF_ABS, K: netOffset + at}
	}
	is := func(value uint32) unix.SockFilter {
		return unix.SockFilter{Code: unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K, K: value}
	}
	p := []unix.SockFilter{
		load(unix.BPF_B, 0), {Code: unix.BPF_ALU | unix.BPF_AND | unix.BPF_K, K: 0xf0}, is(version),
	}
	for b := from.Addr().Unmap().AsSlice(); len(b) > 0; b = b[4:] {
		p = append(p, load(unix.BPF_W, source), is(binary.BigEndian.Uint32(b)))
		source += 4
	}
	if version == 6<<4 {
		p = append(p, load(unix.BPF_H, v6Header))
	} else {
		p = append(p, unix.SockFilter{Code: unix.BPF_LDX | unix.BPF_B | unix.BPF_MSH, K: netOffset},
			unix.SockFilter{Code: unix.BPF_LD | unix.BPF_H | unix.BPF_IND, K: netOffset})
	}
	p = append(p, is(uint32(from.Port())))
	for i := range p {
		if p[i].Code == unix.BPF_JMP|unix.BPF_JEQ|unix.BPF_K {
			p[i].Jf = uint8(len(p) - i) // beyond the instruction after the last
		}
	}
	return p
}

// dropAll is a program for SO_ATTACH_FILTER.
var dropAll = []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K}}

func returnIndex(i uint32) []unix.SockFilter {
	return []unix.SockFilter{{Code: unix.BPF_RET | unix.BPF_K, K: i}}
}

// attach puts a program on the group that fd is in. If fd is bound and does not listen, that is one of its own.
func attach(fd int, program []unix.SockFilter) error {
	return attachTo(fd, unix.SO_ATTACH_REUSEPORT_CBPF, program)
}

func attachTo(fd, option int, program []unix.SockFilter) error {
	return unix.SetsockoptSockFprog(fd, unix.SOL_SOCKET, option, &unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]})
}

func setReuse(fd int, on bool) error {
	value := 0
	if on {
		value = 1
	}
	return unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEPORT, value)
}

// v6Only is false for a socket of IPv4.
func v6Only(fd int) bool {
	n, err := unix.GetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
	return err == nil && n != 0
}

// deviceOf is the index of the network interface that a socket is bound to, 0 if none. Linux 5.1 tells.
func deviceOf(fd int) int {
	n, _ := unix.GetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_BINDTOIFINDEX)
	return n
}
