package main

// This file finds what a hotwrap that was killed had started and not written down: nobody else would ever end it, and on a shared
// socket it would serve for ever.
//
// Its rules:
//   - Only what that hotwrap has started, by its environment, and no other hotwrap's. Anybody can have such an environment, so
//     only processes of its users.
//   - A worker of a generation that is written with others has that one's fate.
//   - Any other was to be a successor. Where it has a client, it was switched to: it finishes, and gets no more of them.

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"hotwrap/shim"
)

// offspring is a process that a hotwrap has started, or that came of one.
type offspring struct {
	pid    int
	start  uint64
	number int  // of the generation
	slot   int  // of the worker
	leads  bool // it is the worker itself, or still its shim
}

// startedBy are the processes that the hotwrap of that state and control socket has started, as far as nobody else tells of them.
func (w *written) startedBy(control string, others map[int]bool) (all []offspring) {
	users := w.Who.users()
	for _, pid := range allPids() {
		_, _, _, start, ok := procState(pid) // before what is read of it: who has that start when it is killed is who was read of
		if !ok || start < w.Who.Start || others[pid] || !besideUs(pid) {
			continue
		}
		env, err := readProc(fmt.Sprintf("/proc/%d/environ", pid), maxText)
		if err != nil {
			continue
		}
		pairs := strings.Split(string(env), "\x00")
		number, _ := strconv.Atoi(getenv(pairs, "HOTWRAP_GENERATION"))
		if number == 0 || !slices.Contains(pairs, "HOTWRAP_CONTROL="+control) || !users[userOf(pid)] {
			continue
		}
		slot, err := strconv.Atoi(getenv(pairs, "HOTWRAP_WORKER"))
		leads := err == nil && slot >= 0 && slot < workersMost && (getenv(pairs, "LISTEN_PID") == strconv.Itoa(pid) || isShim(pid))
		all = append(all, offspring{pid: pid, start: start, number: number, slot: slot, leads: leads})
	}
	return all
}

// users are those that a process of that hotwrap can have: its own, the program's, and what the known workers made of it.
func (who provenance) users() map[int]bool {
	all := map[int]bool{who.UID: true, who.User: true}
	for _, pid := range who.alive() {
		all[userOf(pid)] = true
	}
	delete(all, -1)
	return all
}

// userOf is the real uid of a process (proc_pid_status(5)), which its files in /proc need not have; -1 if it is gone.
func userOf(pid int) int {
	text, err := readProc(fmt.Sprintf("/proc/%d/status", pid), maxText)
	uid, ok := lineValue(text, "Uid:")
	if err != nil || !ok {
		return -1
	}
	return int(uid)
}

// isShim tells whether a process is to become a program, and has not yet.
func isShim(pid int) bool {
	line, err := readProc(fmt.Sprintf("/proc/%d/cmdline", pid), maxText)
	args := bytes.SplitN(line, []byte{0}, 3)
	return err == nil && len(args) > 1 && string(args[1]) == shim.Mark
}

// controlOf is the control socket that a hotwrap of that name has told its program of.
func (h *host) controlOf(name string) string {
	return filepath.Join(filepath.Dir(h.place.path), name+socketSuffix)
}

// complete adds the workers that nobody has written down to the generations that others of theirs are written of, or that served
// by them alone.
func (h *host) complete(w *written, path string) {
	if w.Who.Boot != bootID() {
		return
	}
	theirs := map[int]bool{} // what known workers have started is no worker
	for _, leader := range w.Who.alive() {
		for _, pid := range tree(leader) {
			theirs[pid] = true
		}
	}
	for _, p := range w.startedBy(h.controlOf(nameOfState(path)), ofOthers(path)) {
		g := w.State.generation(p.number)
		if _, written := w.Who.Born[p.pid]; written || !p.leads || theirs[p.pid] || g == nil || len(g.Workers) == 0 && g.State != genServing {
			continue
		}
		w.add(g, p, workerReady)
	}
}

// add has a process be a worker of g.
func (w *written) add(g *generation, p offspring, state workerState) {
	w.State.Serials++
	for len(g.Slots) <= p.slot {
		g.Slots = append(g.Slots, slot{})
	}
	g.Workers = append(g.Workers, &worker{Serial: w.State.Serials, Slot: p.slot, PID: p.pid, Group: p.pid, State: state})
	w.Who.Born[p.pid] = p.start
}

// endUnwritten ends successors that the dead hotwrap had begun and not written down. Those finish that have a client, for they had
// been switched to, on a disk that was too slow to tell of it; and those that may have one any moment, on a shared socket.
func (h *host) endUnwritten(l *legacy) {
	w, ls, spared := l.w, l.w.Traffic.restored(), map[int]bool{}
	shares := w.Traffic.Shared || slices.ContainsFunc(w.Traffic.Listeners, func(c carriedListener) bool { return c.Fixed })
	known := w.State.Numbers
	for _, p := range w.startedBy(h.controlOf(l.name), ofOthers(l.path)) {
		_, written := w.Who.Born[p.pid]
		g := w.State.generation(p.number)
		if written || spared[p.pid] || p.number <= known && (!p.leads || g != nil && len(g.Workers) > 0) {
			continue
		}
		w.State.Numbers = max(w.State.Numbers, p.number)
		if n := len(connections(tree(p.pid), ls)); (n > 0 || shares) && p.leads && l.orphans.open(p.pid, p.start) == nil {
			for _, pid := range tree(p.pid) {
				spared[pid] = true
			}
			silence(p.pid, ls, w.Traffic.inodes())
			h.say(warning("generation %d was not written down, and has %s", p.number, count(n, "connection")).with("pid", p.pid).end("it finishes"))
			w.addCandidate(g, p)
			continue
		}
		h.say(info("generation %d is ended: the hotwrap that started it was killed before it wrote that down", p.number).with("pid", p.pid))
		endNow(p.pid, p.start)
	}
}

// addCandidate has a process be a worker of a generation that never served, as far as anybody knows.
func (w *written) addCandidate(g *generation, p offspring) {
	if g == nil {
		g = &generation{Number: p.number, State: genStarting, Cause: "unknown"}
		w.State.Generations = append(w.State.Generations, g)
	}
	w.add(g, p, workerStarting)
	if s := w.State.serving(); s != nil && s.Image != nil && g.Image == nil {
		g.Workers[len(g.Workers)-1].Habit = int(s.Image.StopSignal)
	}
}

// besideUs tells whether a process lives in our namespaces: in a container the same path is another's.
func besideUs(pid int) bool {
	for _, kind := range []string{"pid", "mnt"} {
		theirs, err := os.Readlink(fmt.Sprintf("/proc/%d/ns/%s", pid, kind))
		if ours, mine := os.Readlink("/proc/self/ns/" + kind); err != nil || mine != nil || ours != theirs {
			return false
		}
	}
	return true
}

// ofOthers are the processes of which other states tell, and what they have started.
func ofOthers(path string) map[int]bool {
	all := map[int]bool{}
	for _, other := range statesBeside(path) {
		w, err := readStateFile(other)
		if err != nil || w == nil {
			continue
		}
		for _, leader := range w.Who.alive() {
			for _, pid := range tree(leader) {
				all[pid] = true
			}
		}
	}
	return all
}

// silence shuts down what a process listens on, where those listeners are, and is none of the known sockets.
func silence(pid int, ls []*listener, known map[uint64]bool) {
	ports := tcpPorts(ls)
	t, err := huntIn([]int{pid})
	if err != nil || len(ports) == 0 {
		return
	}
	for _, s := range inetSockets(unix.IPPROTO_TCP, tcpListen, ports) {
		if s.inode == 0 || known[s.inode] || !slices.ContainsFunc(ls, func(l *listener) bool { return l.meets(s.local) }) {
			continue
		}
		if fd, ok := t.find(s.inode); ok {
			_ = unix.Shutdown(fd, unix.SHUT_RD)
			_ = unix.Close(fd)
		}
	}
}

// meets tells whether who listens at a gets what comes to l too.
func (l *listener) meets(a netip.AddrPort) bool {
	addr, err := netip.ParseAddr(l.host())
	return err == nil && l.port() == strconv.Itoa(int(a.Port())) && addrsOverlap(addr, a.Addr())
}

// endNow kills the process that had this pid from start on, and waits for its end for a moment.
func endNow(pid int, start uint64) {
	if fd := pidfdOf(pid, start); fd >= 0 {
		_ = unix.PidfdSendSignal(fd, unix.SIGKILL, nil, 0)
		awaitEnd(fd)
	}
}

// pidfdOf is a handle of the process that had this pid from start on; -1 if that is gone.
func pidfdOf(pid int, start uint64) int {
	fd, err := unix.PidfdOpen(pid, 0)
	if err != nil {
		return -1
	}
	if _, _, _, since, ok := procState(pid); !ok || since != start { // asked after it was opened: it is the same from here on
		_ = unix.Close(fd)
		return -1
	}
	return fd
}

// awaitEnd waits for a moment, and closes the handle.
func awaitEnd(fd int) {
	_, _ = unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(searchLimit.Milliseconds()))
	_ = unix.Close(fd)
}

// allPids are the processes of this machine, or container.
func allPids() (all []int) {
	_ = eachNumber("/proc", func(_, pid int) bool {
		all = append(all, pid)
		return len(all) < maxScan
	})
	return all
}
