package main

// This file keeps what programs do to their sockets from moving the one that serves in its group.
//
// Its rules:
//   - A program may shut down its socket at any time, and then the last of the array takes the hole before hotwrap knows.
//     So behind the last one that is aimed at there are always as many as may go like that: guards, where it needs more.
//     Of two, one is left, which gets everything.
//   - A guard drops every packet. Nothing is ever aimed at one, and no index is beyond the end; so no client meets one.
//   - Where several moved in an order that cannot be known, they were guards: they are vague, and none of them gives its
//     place to another than a guard, until one alone is left.

import (
	"slices"

	"golang.org/x/sys/unix"
)

// maxVague is how many places may be kept by guards of which it is not known who has which: in front of the one that serves
// they are lost for all others.
const maxVague = 8

// dummy makes a socket that listens and drops every packet.
func (g *group) dummy() (int, error) {
	fd, err := g.socket()
	if err != nil {
		return -1, err
	}
	if err = attachTo(fd, unix.SO_ATTACH_FILTER, dropAll); err == nil {
		err = g.admit(fd)
	}
	if err == nil {
		err = unix.Listen(fd, 1)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// keepGuard makes a dummy, which listens by now, the last member. If it cannot, it closes it: the last moves nobody.
func (g *group) keepGuard(fd int) error {
	m, _, err := newMember(fd, 1)
	if err != nil {
		unix.Close(fd)
		return err
	}
	m.left, m.guard = true, true
	g.members = append(g.members, m)
	return nil
}

// guard opens the guards that are missing. Without them all is right until two programs shut their sockets down at once.
func (g *group) guard() {
	for g.lacking() > 0 {
		fd, err := g.dummy()
		if err == nil && len(g.lost()) > 0 { // before or after it: without it, the order is as if it had never come
			_ = unix.Shutdown(fd, unix.SHUT_RD)
			unix.Close(fd)
			if err = g.look(); err == nil {
				continue
			}
		}
		if err == nil {
			err = g.keepGuard(fd)
		}
		if err != nil {
			return
		}
	}
}

// relieve has a guard be the plain socket that the group needs, in the place of one that has left: a program may hold that one
// for longer than hotwrap lives, and nobody would accept what came to it then.
func (g *group) relieve() {
	for i, m := range g.members {
		if !m.left || m.guard || m.lent || !g.anchors(i) {
			continue
		}
		fd, err := g.dummy()
		if err == nil && len(g.lost()) > 0 { // without it, the order is as if it had never come; it is tried again
			_ = unix.Shutdown(fd, unix.SHUT_RD)
			unix.Close(fd)
			return
		}
		if err == nil {
			_ = g.keepGuard(fd)
		}
		return
	}
}

// lost are the members that do not listen any more. The kernel takes one from the array first and has it not listen then, both
// under its lock, which an option waits for.
func (g *group) lost() (lost []*member) {
	for _, m := range g.members {
		if len(g.members) > 1 {
			_ = setReuse(m.fd, true) // as it is
		}
		if !accepting(m.fd) {
			lost = append(lost, m)
		}
	}
	return lost
}

// lacking is how many guards are missing; less than none are too many. Whoever is not aimed at by a share may go: the one
// that is probed, too, whose place must not move either.
func (g *group) lacking() int {
	mayGo, aimed := 0, -1
	for i, m := range g.members {
		if !m.left && !slices.ContainsFunc(g.shares, func(s share) bool { return s.to == m }) {
			mayGo++
		}
		if g.aimedAt(m) {
			aimed = i
		}
	}
	lacks := mayGo - (len(g.members) - 1 - aimed)
	if len(g.members) <= 2 || aimed < 0 {
		return min(lacks, 0)
	}
	return lacks
}

// lackingWithout is what would be missing without one.
func (g *group) lackingWithout(i int) int {
	less := group{members: slices.Clone(g.members), shares: g.shares, probe: g.probe, probed: g.probed}
	less.members[i] = less.members[len(less.members)-1]
	less.members = less.members[:len(less.members)-1]
	return less.lacking()
}

// next is the member that is to be closed next, of those that have left; -1 none may go. Guards are the last.
func (g *group) next() int {
	last := len(g.members) - 1
	may := func(i int) bool {
		m := g.members[i]
		return m.left && g.removable(i) && (!m.vague || g.members[last].guard) && g.lackingWithout(i) <= max(0, g.lacking())
	}
	for i, m := range g.members {
		if !m.guard && may(i) {
			return i
		}
	}
	if last >= 0 && g.members[last].guard && may(last) {
		return last
	}
	for i, m := range g.members {
		if m.guard && may(i) {
			return i
		}
	}
	return -1
}

// fill has m, which came last and which no program has yet, take the place of one that has left, before the last one that
// is aimed at: there such a place could not be had otherwise.
func (g *group) fill() {
	last := len(g.members) - 1
	for i, m := range g.members[:max(0, last)] {
		if m.left && !m.vague && g.removable(i) && slices.ContainsFunc(g.members[i+1:], g.aimedAt) {
			g.withdraw(m)
			unix.Close(m.fd)
			return
		}
	}
}

// lose does in the mirror what the kernel has done when some members went. It is false if who took whose place cannot be
// known, and matters.
func (g *group) lose(lost []*member) bool {
	gone := func(m *member) bool { return slices.Contains(lost, m) }
	left := len(g.members) - len(lost)
	movers := slices.DeleteFunc(slices.Clone(g.members[left:]), gone) // those in the places that are no more
	g.members = g.members[:left:left]
	exact := len(movers) <= 1 && !slices.ContainsFunc(lost, func(m *member) bool { return m.vague })
	known := exact || !slices.ContainsFunc(movers, func(m *member) bool { return !m.guard })
	for i, m := range g.members {
		if gone(m) {
			g.members[i], movers = movers[0], movers[1:]
			g.members[i].vague = g.members[i].vague || !exact
		}
	}
	vague := 0
	for _, m := range g.members {
		if m.vague {
			vague++
		}
	}
	return known && vague <= maxVague
}

// clear has the one that alone is left of the vague ones be certain.
func (g *group) clear() {
	vague := func(m *member) bool { return m.vague }
	if i := slices.IndexFunc(g.members, vague); i >= 0 && !slices.ContainsFunc(g.members[i+1:], vague) {
		g.members[i].vague = false
	}
}
