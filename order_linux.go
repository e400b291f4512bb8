package main

// This file asks the kernel for the order of a group, where that can only be guessed: after a hotwrap that was killed.
//
// Its rules:
//   - No program is told. What comes from a port of ours is aimed at one place, signed as no listener expects it (tcp(7),
//     TCP_MD5SIG): whoever has that place drops it and counts that, and a count is all that is looked at.
//   - Meanwhile clients go where the guess says, and where an answer says as soon as there is one.
//   - Others drop packets too. So an answer counts if one alone has dropped, twice running.

import (
	"errors"
	"slices"

	"golang.org/x/sys/unix"
)

const (
	orderTries = 20 // for one place
	orderWait  = 1  // ms, from a packet to one more look if nobody has dropped it yet
)

var errNoOrder = errors.New("the kernel cannot be asked for the order of the sockets")

// confirm makes the mirror what the array is, beginning with who is aimed at. An error is that nobody could be asked; what
// was known until then is so.
func (g *group) confirm() error {
	var sure []*member
	for len(sure) < len(g.members) {
		at := slices.IndexFunc(g.members, func(m *member) bool { return g.aimedAt(m) && !slices.Contains(sure, m) })
		if at < 0 {
			at = slices.IndexFunc(g.members, func(m *member) bool { return !slices.Contains(sure, m) })
		}
		inode, err := g.inodeAt(at)
		if err != nil {
			return err
		}
		is := slices.IndexFunc(g.members, func(m *member) bool { return m.inode == inode })
		if is < 0 || slices.Contains(sure, g.members[is]) {
			return errNoOrder // somebody else is in the group
		}
		g.members[at], g.members[is] = g.members[is], g.members[at]
		g.members[at].vague = false
		sure = append(sure, g.members[at])
	}
	return nil
}

// inodeAt is which socket has a place.
func (g *group) inodeAt(place int) (inode uint64, err error) {
	for range orderTries {
		before := inode
		if inode, err = g.askPlace(place); err != nil {
			return 0, err
		}
		if inode != 0 && inode == before {
			return inode, nil
		}
	}
	return 0, errNoOrder
}

// askPlace sends one packet there; the inode is 0 if it cannot be said who has got it.
func (g *group) askPlace(place int) (inode uint64, err error) {
	at := slices.IndexFunc(g.members, func(m *member) bool { return m.plain })
	if at < 0 {
		return 0, errNoOrder
	}
	fd, to, from, err := bindProbe(&listener{addr: g.at.String()})
	if err != nil {
		return 0, err
	}
	defer unix.Close(fd)
	if err := sign(fd, to); err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, g.steer()) }()
	g.program = nil
	if err := attach(g.members[at].fd, slices.Concat(ifFrom(from), returnIndex(uint32(place)), g.assemble())); err != nil {
		return 0, err
	}
	before := g.drops()
	if err := unix.Connect(fd, to); !errors.Is(err, unix.EINPROGRESS) {
		return 0, errNoOrder
	}
	return g.dropper(before)
}

// dropper is who alone has dropped packets since; 0 if several have.
func (g *group) dropper(before map[uint64]uint32) (inode uint64, err error) {
	for range orderTries {
		several := false
		for of, n := range g.drops() {
			if n != before[of] {
				inode, several = of, inode != 0
			}
		}
		switch {
		case several:
			return 0, nil
		case inode != 0:
			return inode, nil
		}
		_, _ = unix.Poll(nil, orderWait)
	}
	return 0, errNoOrder
}

// sign has a socket sign what it sends there.
func sign(fd int, to unix.Sockaddr) error {
	const key = "hotwrap"
	at := addrPort(to)
	sig := unix.TCPMD5Sig{Keylen: uint16(len(key))}
	copy(sig.Key[:], key)
	sig.Addr.Family = uint16(familyOf(at.Addr()))
	sig.Addr.Data[0], sig.Addr.Data[1] = byte(at.Port()>>8), byte(at.Port())
	offset := 2 // of the address in a sockaddr_in, behind the family; in a sockaddr_in6 there is flowinfo before it
	if at.Addr().Is6() {
		offset = 6
	}
	copy(sig.Addr.Data[offset:], at.Addr().AsSlice())
	return unix.SetsockoptTCPMD5Sig(fd, unix.IPPROTO_TCP, unix.TCP_MD5SIG, &sig)
}

// drops is how many packets each listening socket of the port has dropped.
func (g *group) drops() map[uint64]uint32 {
	drops := map[uint64]uint32{}
	for _, s := range listeningOn(portSet{g.at.Port(): true}).at(g.at.Port()) {
		drops[s.inode] = s.drops
	}
	return drops
}
