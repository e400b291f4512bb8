package main

// This file is the written form of the traffic: listeners, groups and sets as plain data, and all made again from that.
//
// Its rules:
//   - It says all that the kernel does not tell again: above all the order of a group's sockets, and whose each is.
//   - To carry changes nothing: whoever carries goes on with the same, should nobody come after.
//   - The first field of what is in a list tells its elements apart.

import (
	"fmt"
	"io/fs"
	"net/netip"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// carriedTraffic is a traffic.
type carriedTraffic struct {
	Shared    bool              `json:"shared,omitempty"`    // all listeners are; then there is nothing but them
	Listeners []carriedListener `json:"listeners,omitempty"` // in the program's order, those that it brought too
	Groups    []*carriedGroup   `json:"groups,omitempty"`    // in the same order; null: shared
	Sets      []carriedSet      `json:"sets,omitempty"`
	Shares    map[int]int       `json:"shares,omitempty"` // by generation
	Probe     netip.AddrPort    `json:"probe,omitzero"`   // what comes from there
	Probed    int               `json:"probed,omitempty"` // goes to this generation
	Stale     bool              `json:"stale,omitempty"`  // not every group has these yet
	Learns    bool              `json:"learns,omitempty"` // what the first generation binds is a listener
	Holds     bool              `json:"holds,omitempty"`  // clients are let in later
	Closed    bool              `json:"closed,omitempty"`
	Cut       int               `json:"cut,omitempty"` // connections, of which nothing was said yet
}

// carriedListener is one address.
type carriedListener struct {
	Name    string       `json:"name"`
	Network string       `json:"network"`
	Addr    string       `json:"addr"`
	FD      int          `json:"fd"` // of a shared one, else -1
	Inode   uint64       `json:"inode,omitempty"`
	Pin     int          `json:"pin"` // -1: any number
	Lent    bool         `json:"lent,omitempty"`
	Kept    bool         `json:"kept,omitempty"` // by our service manager
	Backlog int          `json:"backlog,omitempty"`
	File    *carriedPath `json:"file,omitempty"`
	Dropped uint32       `json:"dropped,omitempty"`
	Fixed   bool         `json:"fixed,omitempty"` // it is not steered
}

// carriedPath is the path of a unix socket.
type carriedPath struct {
	Path     string      `json:"path"`
	Kind     int         `json:"kind"`
	Backlog  int         `json:"backlog"`
	NonBlock bool        `json:"non_block,omitempty"`
	Mode     fs.FileMode `json:"mode"`
	UID      int         `json:"uid"` // as the next, -1: as created
	GID      int         `json:"gid"`
	Hidden   string      `json:"hidden,omitempty"` // the hard link
	Device   uint64      `json:"device,omitempty"` // as the next, of what was bound there
	Inode    uint64      `json:"inode,omitempty"`
}

// carriedGroup is the SO_REUSEPORT group of one address. Its members are numbered in the order of the kernel's array;
// behind those are the ones that are in it no more.
type carriedGroup struct {
	Addr     string          `json:"addr"`
	At       netip.AddrPort  `json:"at"`
	Family   int             `json:"family"`
	Backlog  int             `json:"backlog"`
	UID      uint32          `json:"uid"`
	V6Only   bool            `json:"v6only,omitempty"`
	Device   int             `json:"device,omitempty"`
	NonBlock bool            `json:"non_block,omitempty"`
	Options  []carriedOption `json:"options,omitempty"`
	Members  []carriedMember `json:"members"`
	Gone     int             `json:"gone,omitempty"` // so many, at the end, are not in the array
	Shares   []carriedShare  `json:"shares"`
	Probe    netip.AddrPort  `json:"probe,omitzero"`
	Probed   int             `json:"probed"` // index of the member; -1 none

	moved  bool // some have gone since that was written: the order is a guess
	unsure bool // and may be wrong
}

// carriedOption is a socket option that is not as in a new socket.
type carriedOption struct {
	Name   string `json:"name"`
	Number int    `json:"number,omitempty"`
	Text   string `json:"text,omitempty"`
}

// carriedMember is one socket of a group.
type carriedMember struct {
	Inode   uint64 `json:"inode"`
	FD      int    `json:"fd"`
	Backlog int    `json:"backlog,omitempty"`
	Plain   bool   `json:"plain,omitempty"`
	Lent    bool   `json:"lent,omitempty"`
	Left    bool   `json:"left,omitempty"`
	Guard   bool   `json:"guard,omitempty"`
	Vague   bool   `json:"vague,omitempty"`
}

type carriedShare struct {
	To     int `json:"to"` // index of the member
	Weight int `json:"weight"`
}

// carriedSet is what one generation has, or several that do not overlap, or the next one.
type carriedSet struct {
	Number      int           `json:"number"`
	Generations []int         `json:"generations,omitempty"` // none: it is the spare
	Target      bool          `json:"target,omitempty"`      // where most new connections go
	Members     []int         `json:"members"`               // by listener, index in its group; -1: shared
	Own         []*carriedOwn `json:"own,omitempty"`         // by listener; null: its program did not bind it
}

// carriedOwn is a socket that a program bound itself.
type carriedOwn struct {
	Inode      uint64         `json:"inode"`
	FD         int            `json:"fd"`
	Listens    bool           `json:"listens,omitempty"`
	Generation int            `json:"generation"`
	At         netip.AddrPort `json:"at"`
	Only       bool           `json:"only,omitempty"`
}

func (t *sharedTraffic) carry(b *baggage) carriedTraffic {
	c := carriedTraffic{Shared: true}
	for _, l := range t.listeners {
		c.Listeners = append(c.Listeners, l.carry(b))
	}
	return c
}

// carry is a listener with its own descriptor.
func (l *listener) carry(b *baggage) carriedListener {
	c := carriedListener{
		Name: l.name, Network: l.network, Addr: l.addr, FD: b.keep(l.fd), Inode: l.inode, Pin: l.pin, Lent: l.lent,
		Kept: l.kept, Backlog: l.backlog, Dropped: l.dropped, Fixed: true,
	}
	if l.file != nil {
		c.File = l.file.carry()
	}
	return c
}

func (c carriedListener) restore() *listener {
	l := &listener{
		name: c.Name, network: c.Network, addr: c.Addr, fd: c.FD, inode: c.Inode, pin: c.Pin, lent: c.Lent,
		kept: c.Kept, backlog: c.Backlog, dropped: c.Dropped,
	}
	if c.File != nil {
		l.file = c.File.restore()
	}
	return l
}

func (f *socketFile) carry() *carriedPath {
	c := &carriedPath{
		Path: f.path, Kind: f.kind, Backlog: f.backlog, NonBlock: f.nonblock, Mode: f.mode, UID: f.uid, GID: f.gid, Hidden: f.hidden,
	}
	if f.made != nil {
		c.Device, c.Inode = fileNumbers(f.made)
	}
	return c
}

// restore knows what was bound again by either of its names.
func (c *carriedPath) restore() *socketFile {
	f := &socketFile{
		path: c.Path, kind: c.Kind, backlog: c.Backlog, nonblock: c.NonBlock, mode: c.Mode, uid: c.UID, gid: c.GID, hidden: c.Hidden,
	}
	for _, name := range []string{c.Path, c.Hidden} {
		info, err := os.Lstat(name)
		if err != nil || info.Mode().Type() != fs.ModeSocket {
			continue
		}
		if device, inode := fileNumbers(info); device == c.Device && inode == c.Inode {
			f.made = info
		}
	}
	return f
}

// restoreTraffic makes a traffic again whose descriptors are open here, and the listeners in the program's order. sure is called
// when all of it is there, before anything is changed.
func restoreTraffic(c carriedTraffic, sure func([]*listener) error) (traffic, []*listener, error) {
	for _, l := range c.Listeners {
		if l.FD < 0 {
			continue
		}
		if err := isSocket(l.FD, l.Inode); err != nil {
			return nil, nil, fmt.Errorf("cannot go on with listener %q: %w", l.Name, err)
		}
	}
	if !c.Shared {
		return restoreSteered(c, sure)
	}
	t := &sharedTraffic{}
	for _, l := range c.Listeners {
		t.listeners = append(t.listeners, l.restore())
	}
	return t, slices.Clone(t.listeners), sure(t.listeners)
}

// isSocket is an error if a descriptor is not that socket.
func isSocket(fd int, inode uint64) error {
	now, err := socketInode(fd)
	if err == nil && now != inode {
		err = fmt.Errorf("descriptor %d is another socket", fd)
	}
	return err
}

// fileNumbers are the device and the inode of a file.
func fileNumbers(info fs.FileInfo) (device, inode uint64) {
	if sys, ok := info.Sys().(*syscall.Stat_t); ok {
		device, inode = uint64(sys.Dev), sys.Ino //nolint:unconvert // their types differ between systems
	}
	return device, inode
}

// recoverTraffic makes the traffic again of a hotwrap that was killed. find takes a socket back from who has it still, by
// its inode, once for each. Whatever it took is closed if there is an error. Who listens beside those that are written must
// not be there any more when sure, which is called once all of it is had, is through: nothing can be said of what place they
// have.
func recoverTraffic(c carriedTraffic, find func(inode uint64) (fd int, ok bool), sure func([]*listener) error) (traffic, []*listener, error) {
	f := &finder{find: find, found: map[uint64]int{}}
	c, err := c.recovered(f)
	if err == nil {
		var t traffic
		var ls []*listener
		if t, ls, err = restoreTraffic(c, sure); err == nil {
			return t, ls, nil
		}
	}
	for _, fd := range f.found {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	return nil, nil, err
}

// restored are the listeners as they are written, for who looks at addresses.
func (c carriedTraffic) restored() (ls []*listener) {
	for _, l := range c.Listeners {
		ls = append(ls, l.restore())
	}
	return ls
}

// inodes are the sockets that are written.
func (c carriedTraffic) inodes() map[uint64]bool {
	all := map[uint64]bool{}
	for _, l := range c.Listeners {
		all[l.Inode] = true
	}
	for _, g := range c.Groups {
		if g == nil {
			continue
		}
		for _, m := range g.Members {
			all[m.Inode] = true
		}
	}
	for _, set := range c.Sets {
		for _, own := range set.Own {
			if own != nil {
				all[own.Inode] = true
			}
		}
	}
	return all
}

// finder asks once for each socket.
type finder struct {
	find  func(inode uint64) (int, bool)
	found map[uint64]int
}

// fd is -1 where nobody has the socket any more.
func (f *finder) fd(inode uint64) int {
	fd, known := f.found[inode]
	if !known {
		var ok bool
		if fd, ok = f.find(inode); !ok {
			fd = -1
		}
		f.found[inode] = fd
	}
	return fd
}

// errNobodyHas is a listener whose socket has gone from the machine.
func errNobodyHas(l carriedListener) error {
	return fmt.Errorf("cannot take listener %q back: no process has the socket on %s any more", l.Name, l.Addr)
}

// recovered is c with the descriptors that are found, and without what is gone.
func (c carriedTraffic) recovered(f *finder) (carriedTraffic, error) {
	c.Listeners = slices.Clone(c.Listeners)
	for i := range c.Listeners {
		l := &c.Listeners[i]
		if !l.Fixed {
			continue
		}
		if l.FD = f.fd(l.Inode); l.FD < 0 {
			return c, errNobodyHas(*l)
		}
	}
	if c.Shared {
		return c, nil
	}
	c.Probe, c.Probed = netip.AddrPort{}, 0 // its port was the dead one's
	return c.recoveredGroups(f)
}
