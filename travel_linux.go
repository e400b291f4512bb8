package main

// This file carries what is steered, and makes it again.
//
// Its rule: the kernel has the sockets in one order for the group, and that is carried; its program is attached anew.

import (
	"errors"
	"fmt"
	"maps"
	"net/netip"
	"slices"

	"golang.org/x/sys/unix"
)

func (s *steered) carry(b *baggage) carriedTraffic {
	c := carriedTraffic{
		Shares: maps.Clone(s.shares), Probe: s.probe.from, Probed: s.probe.generation, Stale: s.stale,
		Learns: s.learns, Holds: s.holds, Closed: s.closed, Cut: s.cut,
	}
	sets, members := s.each(), make([][]*member, len(s.groups))
	for i, l := range s.base {
		carried, g := *l, s.groups[i]
		carriedFixed := slices.Contains(s.fixed.listeners, l)
		if !carriedFixed {
			carried.fd, carried.inode = -1, 0 // each set has its own
		}
		cl := carried.carry(b)
		cl.Fixed = carriedFixed
		c.Listeners = append(c.Listeners, cl)
		if g == nil {
			c.Groups = append(c.Groups, nil)
			continue
		}
		members[i] = g.known(sets, i)
		c.Groups = append(c.Groups, g.carry(b, members[i]))
	}
	for n, set := range sets {
		c.Sets = append(c.Sets, s.carrySet(b, n, set, members))
	}
	return c
}

// known are the members of a group, and behind those the ones that are not in the array any more, but in a set or aimed at.
func (g *group) known(sets []*socketSet, i int) []*member {
	all := slices.Clone(g.members)
	add := func(m *member) {
		if m != nil && !slices.Contains(all, m) {
			all = append(all, m)
		}
	}
	for _, set := range sets {
		add(set.members[i])
	}
	for _, s := range g.shares {
		add(s.to)
	}
	add(g.probed)
	return all
}

func (g *group) carry(b *baggage, members []*member) *carriedGroup {
	c := &carriedGroup{
		Addr: g.addr, At: g.at, Family: g.family, Backlog: g.backlog, UID: g.uid, V6Only: g.v6only, Device: g.device,
		NonBlock: g.nonblock, Gone: len(members) - len(g.members), Probe: g.probe, Probed: slices.Index(members, g.probed),
	}
	for _, o := range g.options {
		c.Options = append(c.Options, carriedOption{o.name, o.number, o.text})
	}
	for _, m := range members {
		c.Members = append(c.Members, carriedMember{m.inode, b.keep(m.fd), m.backlog, m.plain, m.lent, m.left, m.guard, m.vague})
	}
	for _, s := range g.shares {
		c.Shares = append(c.Shares, carriedShare{slices.Index(members, s.to), s.weight})
	}
	return c
}

func (s *steered) carrySet(b *baggage, number int, set *socketSet, members [][]*member) carriedSet {
	c := carriedSet{Number: number, Target: set == s.target}
	for _, g := range slices.Sorted(maps.Keys(s.sets)) {
		if s.sets[g] == set {
			c.Generations = append(c.Generations, g)
		}
	}
	for i, m := range set.members {
		at := -1
		if m != nil {
			at = slices.Index(members[i], m)
		}
		c.Members = append(c.Members, at)
		var own *carriedOwn
		if o := set.own[i]; o != nil {
			own = &carriedOwn{o.inode, b.keep(o.fd), o.listens, o.generation, o.at, o.only}
		}
		c.Own = append(c.Own, own)
	}
	return c
}

// errCarried is a written form that does not agree with itself.
var errCarried = errors.New("what is written of the sockets does not agree with itself")

func restoreSteered(c carriedTraffic, sure func([]*listener) error) (traffic, []*listener, error) {
	s := &steered{
		sets: map[int]*socketSet{}, shares: maps.Clone(c.Shares), probe: aim{c.Probe, c.Probed}, stale: c.Stale,
		fixed: &sharedTraffic{}, learns: c.Learns, holds: c.Holds, closed: c.Closed, cut: c.Cut,
	}
	if len(c.Groups) != len(c.Listeners) {
		return nil, nil, errCarried
	}
	members := make([][]*member, len(c.Groups))
	for i, carried := range c.Listeners {
		l := carried.restore()
		s.base = append(s.base, l)
		if carried.Fixed {
			s.fixed.listeners = append(s.fixed.listeners, l)
		}
		var g *group
		if c.Groups[i] != nil {
			var err error
			if g, members[i], err = c.Groups[i].restore(); err != nil {
				return nil, nil, fmt.Errorf("cannot go on with listener %q: %w", l.name, err)
			}
		}
		s.groups = append(s.groups, g)
	}
	for _, set := range c.Sets {
		if err := s.restoreSet(set, members); err != nil {
			return nil, nil, err
		}
	}
	if s.target == nil {
		return nil, nil, errCarried
	}
	ls := slices.Clone(s.base)
	if err := sure(ls); err != nil {
		return nil, nil, err
	}
	if err := s.resume(c.Groups); err != nil {
		s.closeGuards(c.Groups)
		return nil, nil, err
	}
	return s, ls, nil
}

// resume has the kernel know the aim of each group.
func (s *steered) resume(groups []*carriedGroup) error {
	for i, g := range s.groups {
		if g == nil {
			continue
		}
		if err := g.resume(groups[i].moved, groups[i].unsure); err != nil {
			return fmt.Errorf("cannot go on with listener %q: %w", s.base[i].name, err)
		}
	}
	return nil
}

// closeGuards closes what resume has added to the groups: there it would stay as long as this process lives.
func (s *steered) closeGuards(groups []*carriedGroup) {
	for i, g := range s.groups {
		for _, m := range g.news(groups[i]) {
			_ = unix.Shutdown(m.fd, unix.SHUT_RD)
			_ = unix.Close(m.fd)
		}
	}
}

// news are the members that are not written in c, the last first: so no other one moves.
func (g *group) news(c *carriedGroup) (news []*member) {
	if g == nil {
		return nil
	}
	for _, m := range slices.Backward(g.members) {
		if !slices.ContainsFunc(c.Members, func(w carriedMember) bool { return w.Inode == m.inode }) {
			news = append(news, m)
		}
	}
	return news
}

// resume has the kernel know the group's aim. A guess at its order is held against what is; where that cannot be asked for,
// and the guess may be wrong, the order is made certain.
func (g *group) resume(moved, unsure bool) error {
	err := g.look()
	if err == nil && moved && len(g.members) > 1 && (g.steer() != nil || g.confirm() != nil) && unsure {
		err = g.reorder()
	}
	if err == nil {
		err = g.steer()
	}
	g.guard()
	return err
}

// restoreMembers makes all members that are known.
func (c *carriedGroup) restoreMembers() (all []*member, err error) {
	for _, m := range c.Members {
		if m.FD >= 0 {
			if err := isSocket(m.FD, m.Inode); err != nil {
				return nil, err
			}
		}
		all = append(all, &member{
			fd: m.FD, inode: m.Inode, backlog: m.Backlog, plain: m.Plain, lent: m.Lent, left: m.Left, guard: m.Guard, vague: m.Vague,
		})
	}
	return all, nil
}

// restore makes a group, and all members that are known, in the order in which they are numbered.
func (c *carriedGroup) restore() (*group, []*member, error) {
	g := &group{
		addr: c.Addr, at: c.At, family: c.Family, backlog: c.Backlog, uid: c.UID, v6only: c.V6Only, device: c.Device,
		nonblock: c.NonBlock, probe: c.Probe,
	}
	var err error
	if g.bind, err = sockaddr(c.At); err != nil {
		return nil, nil, err
	}
	for _, carried := range c.Options {
		at := slices.IndexFunc(steeredOptions, func(o socketOption) bool { return o.name == carried.Name })
		if at < 0 {
			continue // of a newer hotwrap
		}
		o := steeredOptions[at]
		o.number, o.text = carried.Number, carried.Text
		g.options = append(g.options, o)
	}
	all, err := c.restoreMembers()
	if err != nil {
		return nil, nil, err
	}
	if c.Gone < 0 || c.Gone > len(all) {
		return nil, nil, errCarried
	}
	g.members = slices.Clone(all[:len(all)-c.Gone])
	for _, s := range c.Shares {
		if s.To < 0 || s.To >= len(all) {
			return nil, nil, errCarried
		}
		g.shares = append(g.shares, share{all[s.To], s.Weight})
	}
	if c.Probed >= 0 && c.Probed < len(all) {
		g.probed = all[c.Probed]
	}
	return g, all, nil
}

func (s *steered) restoreSet(c carriedSet, members [][]*member) error {
	set := s.emptySet()
	if len(c.Members) != len(s.base) || len(c.Own) != len(s.base) {
		return errCarried
	}
	for i, at := range c.Members {
		if at >= len(members[i]) {
			return errCarried
		}
		if o := c.Own[i]; o != nil {
			if err := isSocket(o.FD, o.Inode); err != nil {
				return fmt.Errorf("cannot go on with listener %q: %w", s.base[i].name, err)
			}
			set.own[i] = &own{fd: o.FD, inode: o.Inode, listens: o.Listens, generation: o.Generation, at: o.At, only: o.Only}
		}
		if at >= 0 {
			set.put(s.base[i], i, members[i][at])
		}
	}
	set.users = len(c.Generations)
	for _, number := range c.Generations {
		s.sets[number] = set
	}
	if set.users == 0 {
		s.spare = set
	}
	if c.Target {
		s.target = set
	}
	return nil
}

// recoveredGroups are the groups as they are in the kernel now, with the sets that have their sockets still.
func (c carriedTraffic) recoveredGroups(f *finder) (carriedTraffic, error) {
	if len(c.Groups) != len(c.Listeners) {
		return c, errCarried
	}
	c.Groups, c.Sets = slices.Clone(c.Groups), slices.Clone(c.Sets)
	for n := range c.Sets {
		set := &c.Sets[n]
		if len(set.Members) != len(c.Groups) || len(set.Own) != len(c.Groups) {
			return c, errCarried
		}
		set.Members, set.Own = slices.Clone(set.Members), slices.Clone(set.Own)
		for i, o := range set.Own {
			if o != nil {
				set.Own[i] = o.recovered(f)
			}
		}
	}
	for i, g := range c.Groups {
		if g == nil {
			continue
		}
		if err := c.recoverGroup(i, g, f); err != nil {
			return c, err
		}
	}
	// A spare was hotwrap's alone: the next generation gets sockets of its own.
	c.Sets = slices.DeleteFunc(c.Sets, func(set carriedSet) bool { return len(set.Generations) == 0 && !set.Target })
	return c, nil
}

func (o *carriedOwn) recovered(f *finder) *carriedOwn {
	found := *o
	if found.FD = f.fd(o.Inode); found.FD < 0 {
		return nil
	}
	return &found
}

// recoverGroup puts the group of one listener into the order that the kernel has now. Those that are gone stay known, at
// the end, without a descriptor.
func (c carriedTraffic) recoverGroup(i int, old *carriedGroup, f *finder) error {
	g, used, target := *old, map[int]bool{}, -1
	for _, set := range c.Sets {
		if at := set.Members[i]; at >= 0 && len(set.Generations) > 0 {
			used[at] = true
		}
		if set.Target {
			target = set.Members[i]
		}
	}
	if target < 0 || target >= len(g.Members) || g.Gone < 0 || g.Gone > len(g.Members) {
		return errCarried
	}
	fds := make([]int, len(g.Members))
	for at, m := range g.Members {
		fds[at] = f.fd(m.Inode)
	}
	if fds[target] < 0 {
		return errNobodyHas(c.Listeners[i])
	}
	order, sure := g.orderNow(fds, used)
	g.moved, g.unsure, g.Gone = true, !sure, len(g.Members)-len(order)
	for at := range g.Members {
		if !slices.Contains(order, at) {
			order = append(order, at)
		}
	}
	g.Members = nil
	for _, at := range order {
		m := old.Members[at]
		m.FD = fds[at]
		m.Left = m.Left || !used[at] && at != target // nobody uses it
		g.Members = append(g.Members, m)
	}
	g.aimAgain(order, fds, target)
	for n := range c.Sets {
		c.Sets[n].Members[i] = slices.Index(order, c.Sets[n].Members[i]) // -1 is in none
	}
	c.Groups[i] = &g
	return nil
}

// aimAgain has the shares of those that are there, by their new numbers.
func (c *carriedGroup) aimAgain(order, fds []int, target int) {
	before := c.Shares
	c.Shares, c.Probe, c.Probed = nil, netip.AddrPort{}, -1
	for _, s := range before {
		if s.To >= 0 && s.To < len(fds) && fds[s.To] >= 0 {
			c.Shares = append(c.Shares, carriedShare{slices.Index(order, s.To), s.Weight})
		}
	}
	if len(c.Shares) == 0 {
		c.Shares = []carriedShare{{slices.Index(order, target), 1}}
	}
}

// orderNow is what the kernel has made of the array, by the numbers of its members, and whether that is certain. What only
// the dead one had went in the reverse order of its descriptors: exit(2) hands them to a list of which the kernel takes the
// newest first (fput and task_work_run). What generations used went then, or later with their last process.
func (c *carriedGroup) orderNow(fds []int, used map[int]bool) (order []int, sure bool) {
	var alone, shared []int
	for at := range len(c.Members) - c.Gone {
		order = append(order, at)
		switch {
		case fds[at] >= 0:
		case used[at]:
			shared = append(shared, at)
		default:
			alone = append(alone, at)
		}
	}
	newestFirst := func(a, b int) int { return c.Members[b].FD - c.Members[a].FD }
	slices.SortFunc(alone, newestFirst)
	slices.SortFunc(shared, newestFirst)
	all := slices.Concat(alone, shared)
	first := without(order, all)
	sure = len(first) <= 1 || len(shared) <= 2 && !slices.ContainsFunc(c.Members, func(m carriedMember) bool { return m.Vague })
	slices.Reverse(shared)
	sure = sure && slices.Equal(first, without(order, slices.Concat(alone, shared)))
	slices.SortFunc(all, newestFirst)
	return first, sure && slices.Equal(first, without(order, all))
}

// without takes members out of an array one after the other, as the kernel does: the last takes the hole.
func without(order, gone []int) []int {
	order = slices.Clone(order)
	for _, at := range gone {
		last := len(order) - 1
		order[slices.Index(order, at)] = order[last]
		order = order[:last]
	}
	return order
}
