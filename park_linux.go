package main

// This file has new connections wait while no hotwrap runs, in sockets that somebody keeps: our service manager, in its store, or
// as its own.
//
// Its rules:
//   - They wait in a socket of its own for each address, so that no program that is to end gets one any more; where the manager has
//     one of its own, as of a .socket unit, in that, since any other would go with us.
//   - Whoever has that one gets them until he closes it; it stays all the same.

import "slices"

// nobody is the number of a generation that never is.
const nobody = -1

func (s *steered) park() (whole bool, err error) {
	set := &socketSet{ls: slices.Clone(s.target.ls), members: slices.Clone(s.target.members), own: make([]*own, len(s.base)), users: 1}
	whole = slices.ContainsFunc(s.groups, func(g *group) bool { return g != nil })
	for i, g := range s.groups {
		if g == nil {
			continue
		}
		m := g.lent()
		if m == nil {
			if m, err = g.open(); err != nil {
				return false, err
			}
		}
		m.left = false
		whole = whole && m != s.target.members[i]
		set.put(s.base[i], i, m)
	}
	s.sets[nobody] = set
	_, err = s.route(map[int]int{nobody: 1})
	return whole, err
}

// lent is the member that somebody else goes on with; nil if there is none.
func (g *group) lent() *member {
	if i := slices.IndexFunc(g.members, func(m *member) bool { return m.lent }); i >= 0 {
		return g.members[i]
	}
	return nil
}
