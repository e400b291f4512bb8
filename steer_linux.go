package main

// This file steers: each generation has sockets of its own on the same TCP addresses, and the kernel is told which of
// them gets a new connection. What cannot be steered, unix sockets and datagrams above all, is shared.
//
// Its rules:
//   - A socket is closed only when its generation is gone, and never the last one of an address: what waits in that one
//     is for the next generation.
//   - A set that no generation uses is the spare; the next generation gets it with all that waits in it.

import (
	"errors"
	"maps"
	"slices"

	"golang.org/x/sys/unix"
)

// socketSet is what one generation, or several that do not overlap, have of the listeners.
type socketSet struct {
	ls      []*listener
	members []*member // nil where the listener is shared
	own     []*own    // nil where its program did not bind it
	users   int
	quit    chan struct{} // ends the waiting of the watch's goroutine
	unwatch func()
}

// steered is the traffic of groups.
type steered struct {
	base   []*listener // as the command line has them
	groups []*group    // nil: shared
	sets   map[int]*socketSet
	spare  *socketSet // nil: every set has its generation
	target *socketSet // where most new connections go
	shares map[int]int
	probe  aim  // while one is asked
	stale  bool // not every group has these yet
	spoilt spoiltFunc
	fixed  *sharedTraffic // what is not steered
	learns bool           // what the first generation binds is a listener
	holds  bool           // clients are let in later
	closed bool           // only what draining generations had is asked for yet
	cut    int            // connections that were closed since that was asked for last
}

// newTraffic steers what can be steered of ls, unless it is to be shared; notes say what cannot, and why.
func newTraffic(ls []*listener, share, learns bool) (t traffic, notes []message) {
	if share {
		return &sharedTraffic{listeners: ls}, nil
	}
	s := &steered{base: ls, groups: make([]*group, len(ls)), sets: map[int]*socketSet{}, fixed: &sharedTraffic{}, learns: learns}
	first := s.emptySet()
	known := listeningOn(tcpPorts(ls))
	for i, l := range ls {
		if l.network == "tcp" {
			g, err := newGroup(l, l.lent, known)
			if err == nil {
				s.groups[i], first.members[i] = g, g.members[0]
				continue
			}
			notes = append(notes, warning("%v; old and new share its queue during a restart", err))
		}
		s.fixed.listeners = append(s.fixed.listeners, l)
	}
	s.target, s.spare = first, first
	return s, notes
}

// emptySet has every listener shared.
func (s *steered) emptySet() *socketSet {
	return &socketSet{ls: slices.Clone(s.base), members: make([]*member, len(s.base)), own: make([]*own, len(s.base))}
}

func (s *steered) open(generation, like int) error {
	if set := s.sets[like]; like != 0 && set != nil {
		set.users++
		s.sets[generation] = set
		return nil
	}
	set := s.spare
	if set == nil {
		var err error
		if set, err = s.newSet(); err != nil {
			return err
		}
	}
	s.spare, set.users = nil, 1
	s.sets[generation] = set
	return nil
}

// newSet opens one more socket of each address. None gets a connection yet.
func (s *steered) newSet() (*socketSet, error) {
	set := s.emptySet()
	err := s.enlist(set)
	if err == nil {
		if err = s.watchSet(set); err != nil {
			s.leave(set)
		}
	}
	if err != nil {
		return nil, err
	}
	return set, nil
}

// enlist opens a set's sockets, all or none. It is looked once for all of them who else listens.
func (s *steered) enlist(set *socketSet) (err error) {
	for i, g := range s.groups {
		if g == nil || err != nil {
			continue
		}
		var m *member
		if m, err = g.enlist(); err == nil {
			set.put(s.base[i], i, m)
		}
	}
	known := s.listening()
	for _, g := range s.groups {
		if g != nil && err == nil {
			err = g.alone(known)
		}
	}
	for i, m := range set.members {
		switch {
		case m == nil:
		case err != nil:
			s.groups[i].dismiss(m)
		default:
			s.groups[i].settle(known)
		}
	}
	return err
}

// listening is who listens on the ports that are steered.
func (s *steered) listening() *listening {
	ports := portSet{}
	for _, g := range s.groups {
		if g != nil {
			ports[g.at.Port()] = true
		}
	}
	return listeningOn(ports)
}

// put makes m the socket of one address.
func (set *socketSet) put(base *listener, i int, m *member) {
	l := *base
	l.fd, l.inode, l.lent, l.watch = m.fd, m.inode, m.lent, nil
	set.ls[i], set.members[i] = &l, m
}

func (s *steered) sockets(generation int) []*listener {
	if set := s.sets[generation]; set != nil {
		return set.ls
	}
	return s.target.ls
}

// each are the sets, each once.
func (s *steered) each() (sets []*socketSet) {
	if s.spare != nil {
		sets = append(sets, s.spare)
	}
	for _, number := range slices.Sorted(maps.Keys(s.sets)) {
		if set := s.sets[number]; !slices.Contains(sets, set) {
			sets = append(sets, set)
		}
	}
	return sets
}

func (s *steered) all() []*listener {
	all := slices.Clone(s.fixed.listeners)
	for _, set := range s.each() {
		all = append(all, set.steered()...)
	}
	return all
}

// steered are the set's own sockets. One that went with a hotwrap that was killed has no descriptor.
func (set *socketSet) steered() (ls []*listener) {
	for i, l := range set.ls {
		if set.members[i] != nil && l.fd >= 0 {
			ls = append(ls, l)
		}
	}
	return ls
}

func (s *steered) route(shares map[int]int) (routed, error) {
	has := func(g *group) bool { return g != nil }
	r := routed{steered: slices.ContainsFunc(s.groups, has)}
	r.alone = r.steered && !slices.Contains(s.groups, nil)
	if !s.stale && maps.Equal(shares, s.shares) {
		return r, nil
	}
	s.shares = maps.Clone(shares)
	return r, s.steer()
}

func (s *steered) aim(to aim) error {
	if !s.stale && to == s.probe {
		return nil
	}
	s.probe = to
	err := s.steer()
	if err != nil {
		s.probe = aim{}
	}
	return err
}

func (s *steered) unaim(port uint16) {
	if port != 0 && s.probe.from.Port() == port && !s.closed {
		_ = s.aim(aim{}) // who serves is as it was
	}
}

// steer aims every group at who is to get the new connections, and the probe.
func (s *steered) steer() error {
	s.unhold()
	for i, g := range s.groups {
		if g == nil {
			continue
		}
		if err := g.aim(s.sharesOf(s.shares, i), s.probe.from, s.member(s.probe.generation, i)); err != nil {
			s.stale = true // those before it have the new ones
			return err
		}
	}
	s.stale = false
	most := 0
	for _, number := range slices.Sorted(maps.Keys(s.shares)) {
		if set := s.sets[number]; set != nil && s.shares[number] > most {
			s.target, most = set, s.shares[number]
		}
	}
	return nil
}

func (s *steered) steers(i int) bool { return i < len(s.groups) && s.groups[i] != nil }

// member is a generation's socket of one address; nil none.
func (s *steered) member(generation, i int) *member {
	if set := s.sets[generation]; set != nil {
		return set.members[i]
	}
	return nil
}

// sharesOf are the shares of one address: a set that several generations use has that of all.
func (s *steered) sharesOf(shares map[int]int, i int) (of []share) {
	for _, number := range slices.Sorted(maps.Keys(shares)) {
		if set := s.sets[number]; set != nil && shares[number] > 0 {
			of = append(of, share{set.members[i], shares[number]})
		}
	}
	if len(of) == 0 { // they stay where they went
		of = []share{{s.target.members[i], 1}}
	}
	return of
}

// relisten goes by whether somebody shut the socket down: then it has lost its place in the group.
func (s *steered) relisten(l *listener) error {
	if l.network != "tcp" || accepting(l.fd) {
		return l.refresh()
	}
	for _, set := range s.each() {
		if i := slices.Index(set.ls, l); i >= 0 && set.members[i] != nil {
			return s.groups[i].again(set.members[i], l.backlog)
		}
	}
	return l.refresh()
}

// left counts what waits for a generation that has its sockets for itself.
func (s *steered) left(generation int) (n int) {
	set := s.sets[generation]
	if set == nil || set.users > 1 || s.closed {
		return 0
	}
	for i, m := range set.members {
		if m != nil {
			n += waiting(set.ls[i].fd)
		}
	}
	return n
}

// waiting is how many connections wait to be accepted: on a listener tcpi_unacked is the length of that queue.
func waiting(fd int) int {
	info, err := unix.GetsockoptTCPInfo(fd, unix.IPPROTO_TCP, unix.TCP_INFO)
	if err != nil || info.State != tcpListen {
		return 0
	}
	return int(info.Unacked)
}

func (s *steered) release(generation int) (cut int) {
	set := s.sets[generation]
	if set == nil {
		return 0
	}
	if s.probe.generation == generation {
		s.unaim(s.probe.from.Port())
	}
	cut = s.left(generation)
	delete(s.sets, generation)
	delete(s.shares, generation)
	switch set.users--; {
	case set.users > 0 || s.closed:
		return 0
	case set == s.target:
		if s.spare != nil {
			s.leave(s.spare)
		}
		s.unhold()
		s.spare = set
		return 0
	}
	s.leave(set)
	return cut
}

// leave closes what a set has of its own.
func (s *steered) leave(set *socketSet) {
	set.stop()
	set.closeOwn()
	known := s.listening()
	for i, m := range set.members {
		if m != nil {
			_ = s.groups[i].leave(m, known) // if it stays, it is closed at the end
		}
	}
}

// closeOwn closes what its program has bound and does not listen on.
func (set *socketSet) closeOwn() {
	for _, o := range set.own {
		if o != nil && !o.listens {
			unix.Close(o.fd)
		}
	}
}

// watch looks on while programs have the sockets: those that are there, and those that come.
func (s *steered) watch(spoilt spoiltFunc) error {
	s.spoilt = spoilt
	err := s.fixed.watch(spoilt)
	for _, set := range s.each() {
		err = errors.Join(err, s.watchSet(set))
	}
	return err
}

func (s *steered) watchSet(set *socketSet) (err error) {
	if s.spoilt == nil {
		return nil
	}
	set.quit = make(chan struct{})
	set.unwatch, err = watchListeners(set.steered(), func(l *listener) { s.spoilt(l, set.quit) })
	return err
}

// rewatch goes on with the sockets that the set has now.
func (s *steered) rewatch(set *socketSet) error {
	set.stop()
	return s.watchSet(set)
}

func (set *socketSet) stop() {
	if set.unwatch != nil {
		close(set.quit)
		set.unwatch()
		set.unwatch = nil
	}
}

func (s *steered) unwatch() {
	s.fixed.unwatch()
	for _, set := range s.each() {
		set.stop()
	}
}

func (s *steered) close() {
	s.unhold()
	s.closed = true
	s.fixed.close()
	for _, set := range s.each() {
		set.closeOwn()
	}
	for _, g := range s.groups {
		if g != nil {
			g.close()
		}
	}
}
