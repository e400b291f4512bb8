package main

// This file is what the host looks up for the supervisor: what a worker watches and holds, whose a message is, what a
// draining generation still has open.
//
// Its rules: a look runs in a goroutine, on copies, and answers with an event; at most a few run at once.

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// wanted are the listeners of a generation by inode; a copy, for goroutines.
func (h *host) wanted(g *generation) map[uint64]string {
	names := map[uint64]string{}
	for _, l := range h.traffic.sockets(g.Number) {
		names[l.inode] = l.name
	}
	return names
}

func inodesOf(wanted map[uint64]string) []uint64 {
	var inodes []uint64
	for inode := range wanted {
		inodes = append(inodes, inode)
	}
	return inodes
}

// look sees what a worker watches. Root without CAP_SYS_PTRACE (Docker's default) cannot look into
// another user's process, but a helper with that user's id can.
func (h *host) look(g *generation, w *worker, helped bool) {
	serial, pid, last, wanted := w.Serial, w.PID, w.State == workerReady, h.wanted(g)
	starting, slow := w.State == workerStarting, w.Pause >= lookElsewhere
	inodes := inodesOf(wanted)
	see := func() view { return look(pid, inodes) }
	if helped && h.program.user != nil {
		see = h.program.lookAsUser(pid, inodes)
	}
	chosen, ls := h.program.stopSignal != 0, h.listeners(g)
	var names, shared map[uint64]string
	if last {
		names, shared = h.blocking(g)
	}
	go func() {
		h.lookers <- struct{}{}
		defer func() { <-h.lookers }()
		v := see()
		if starting && slow && len(v.watches) < len(wanted) {
			v.busy(accepted(v.pids, ls))
		}
		seen := sightOf(v, wanted)
		switch {
		case v.watcher != 0:
			seen.serves(pid, v.watcher, chosen)
		case starting:
			seen.by, seen.deprived = deprived(v.pids, wanted)
		}
		if last || starting && slow { // a list of all that listens on this machine
			seen.others = elsewhereThan(ls, otherListeners(v.pids, inodes))
		}
		if v.watcher != 0 && len(names) > 0 {
			seen.stalling(v, names, shared)
		}
		if seen.by != "" && len(seen.others) > 0 && len(otherListeners(holders(v.pids, wanted), inodes)) > 0 {
			seen.by = "" // who listens elsewhere has them: it is no launcher
		}
		h.post(event{kind: evLook, serial: serial, sight: seen})
	}()
}

// serves tells of who watches in the worker of pid; chosen: nobody asks for its stop signal.
func (s *sight) serves(pid, watcher int, chosen bool) {
	s.server, s.behind = serverOf(pid, watcher)
	if !chosen {
		s.stop = int(stopSignalOf(runningName(s.server)))
	}
	s.stamped = s.behind.name == "" || stamped(watcher)
}

// elsewhereThan leaves out the addresses of listeners: a program may have bound one of them while it was looked at.
func elsewhereThan(ls []*listener, addrs []string) []string {
	return slices.DeleteFunc(addrs, func(addr string) bool {
		return slices.ContainsFunc(ls, func(l *listener) bool { return l.addr == addr })
	})
}

// busy takes listeners from which a process has accepted for watched ones.
func (v *view) busy(by map[uint64]int) {
	for inode, pid := range by {
		if v.watches == nil {
			v.watches = map[uint64]bool{}
		}
		v.watches[inode] = true
		v.watcher = cmp.Or(v.watcher, pid)
	}
}

// listeners are copies of a generation's, for goroutines: a repair changes the inode.
func (h *host) listeners(g *generation) (ls []*listener) {
	for _, l := range h.traffic.sockets(g.Number) {
		ls = append(ls, &listener{name: l.name, network: l.network, addr: l.addr, inode: l.inode})
	}
	return ls
}

// blocking are the listeners of a generation on which accept waits, by inode, as their descriptions are at this moment: many
// programs set O_NONBLOCK by themselves. shared are those that no other generation has a socket of its own for.
func (h *host) blocking(g *generation) (names, shared map[uint64]string) {
	names, shared = map[uint64]string{}, map[uint64]string{}
	if h.closed {
		return names, shared
	}
	for i, l := range h.traffic.sockets(g.Number) {
		flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0)
		if err != nil || l.datagram() || flags&unix.O_NONBLOCK != 0 {
			continue
		}
		names[l.inode] = l.name
		if !h.traffic.steers(i) {
			shared[l.inode] = l.name
		}
	}
	return names, shared
}

// stalling adds which of the blocking listeners are in an epoll: who is woken and comes too late waits in accept.
func (s *sight) stalling(v view, names, shared map[uint64]string) {
	for inode, n := range pollers(v.pids, inodesOf(names)) {
		s.polled = append(s.polled, names[inode])
		s.rivals = s.rivals || n > 1
		s.shared = s.shared || shared[inode] != ""
	}
	slices.Sort(s.polled)
	s.poller = runningName(v.watcher)
}

func sightOf(v view, wanted map[uint64]string) sight {
	s := sight{blind: v.blind, denied: v.denied}
	for inode, name := range wanted {
		s.holds = s.holds || v.holds[inode]
		if v.watches[inode] {
			s.watched = append(s.watched, name)
		}
	}
	slices.Sort(s.watched)
	return s
}

// search looks for what a worker whose leader has ended left behind outside its group: setsid, su and their like put
// what they start into another. As a rule hotwrap has no child that it does not know, and then there is nothing.
func (h *host) search(g *generation, w *worker, known map[int]bool) bool {
	pids := strays(known)
	e := h.ears[w.Serial]
	if len(pids) == 0 || e.notify == nil {
		return false
	}
	serial, line, wanted := w.Serial, "NOTIFY_SOCKET="+e.notify.path, h.wanted(g)
	go func() { h.post(event{kind: evStrays, serial: serial, groups: straysOf(pids, line, wanted)}) }()
	return true
}

// connection is an open connection of a worker.
type connection struct {
	peer string        // "10.0.3.7:51234"; "unix" where it has no name
	idle time.Duration // since the last byte either way; 0 also where that is unknown
	busy bool          // bytes wait on either side, or the client is owed an answer
}

const unixPeer = "unix" // a connection whose other end has no name

const quietAfter = time.Second // a client's next request is this near when its last answer has just gone out

// quiet tells whether nothing is lost when the program closes the connection now.
func (c connection) quiet() bool { return !c.busy && c.idle >= quietAfter }

// remains are the TCP connections that a predecessor still has. Of unix sockets nothing is in it: their queues are
// shared with the successor, and the kernel does not know how long a connection is idle.
type remains struct {
	open     []connection     // accepted
	mixed    bool             // open has those of others too, the successor's above all: we may not look into a process
	queued   int              // not accepted yet
	halfOpen []netip.AddrPort // clients in a handshake with any listener on these ports, the successor's as well
	known    bool             // false: there may be more, or the times are missing, and an empty list proves nothing
	cost     time.Duration    // of this look: it grows with the connections, also the successor's
}

// busy counts the connections that are not quiet, of those that tell.
func (r remains) busy() (n int) {
	for _, c := range r.open {
		if c.peer != unixPeer && !c.quiet() {
			n++
		}
	}
	return n
}

// survey counts the connections of a generation.
func (h *host) survey(g *generation) {
	number, ls := g.Number, h.listeners(g)
	var leaders []int
	for _, w := range g.Workers {
		leaders = append(leaders, w.PID)
	}
	go func() {
		var pids []int
		for _, pid := range leaders {
			pids = append(pids, tree(pid)...)
		}
		has := remainsOf(pids, ls)
		has.open = append(has.open, unixOf(pids, ls)...)
		slices.SortFunc(has.open, func(a, b connection) int { return cmp.Compare(a.idle, b.idle) })
		h.post(event{kind: evSurvey, number: number, has: has})
	}()
}

// unixOf are the open connections of unix sockets, which the drain does not wait for.
func unixOf(pids []int, ls []*listener) []connection {
	ls = slices.DeleteFunc(ls, (*listener).inet)
	if len(ls) == 0 {
		return nil
	}
	return connections(pids, ls)
}

// owns tells whether the sender of a notice belongs to the worker: it is in its tree, or in its group
// since what lay between has ended, or it is gone and had its user's id.
func (h *host) owns(w *worker, n notice) bool {
	if n.pid == 0 {
		return true // this system does not tell senders; the socket is the worker's own
	}
	if ownsTree(w.PID, n.pid) {
		return true
	}
	if _, _, group, _, alive := procState(n.pid); alive {
		return group == w.Group
	}
	return n.uid >= 0 && n.uid == h.program.uid()
}

// halted tells whether a process is stopped (state T: a debugger, SIGSTOP, SIGTTIN).
func halted(pid int) bool {
	state, _, _, _, ok := procState(pid)
	return ok && (state == 'T' || state == 't')
}
