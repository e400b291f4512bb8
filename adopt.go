package main

// This file is what the supervisor and the host do about programs that bind their listeners by themselves: when such a
// program is recognised, what is asked of the traffic for it, what is said of it.
//
// Its rules: programs that inherit their sockets pay nothing; what a program binds that is none of the listeners is the
// kernel's and its own business.

import (
	"errors"
	"fmt"
	"path/filepath"
	"strings"
	"syscall"
)

// adoptMode is --adopt.
type adoptMode string

const (
	adoptAuto   adoptMode = "auto"   // once it has failed without touching what it inherited
	adoptAlways adoptMode = "always" // from the start; without -l, what it binds first are the listeners
	adoptNever  adoptMode = "never"
)

func (m *adoptMode) Set(text string) error {
	switch adoptMode(text) {
	case adoptAuto, adoptAlways, adoptNever:
		*m = adoptMode(text)
		return nil
	}
	return errors.New("it is auto, always or never")
}

func (m *adoptMode) String() string { return string(*m) }

// learned is a listener that the program brought.
type learned struct {
	Name    string `json:"name"`
	Address string `json:"address"` // as a person writes it
}

// listeners are the names of all.
func (s *supervisor) listeners() []string {
	names := s.limits.listeners[:len(s.limits.listeners):len(s.limits.listeners)]
	for _, l := range s.Learned {
		names = append(names, l.Name)
	}
	return names
}

// addresses are theirs, in the same order.
func (s *supervisor) addresses() []string {
	addrs := s.limits.addresses[:len(s.limits.addresses):len(s.limits.addresses)]
	for _, l := range s.Learned {
		addrs = append(addrs, l.Address)
	}
	return addrs
}

// retry starts a worker of the first generation once more, adopted, that ended without touching a listener: that is what
// programs do that bind by themselves, since hotwrap has the address: they exit, behind a shell even with status 0, or abort (C++).
func (s *supervisor) retry(g *generation, w *worker) bool {
	if s.limits.adopt != adoptAuto || w.Adopted || s.Restart.Predecessor != 0 || len(g.Watched) > 0 || w.Ready != 0 ||
		w.ExecErr != "" || w.Blame != "" || w.Status.Signal != 0 && w.Status.Signal != syscall.SIGABRT ||
		len(s.listeners()) == 0 {
		return false
	}
	if err := s.world.adoptable(); err != nil {
		s.hintAt(fmt.Sprintf("if it binds its address by itself: that cannot be done for it here, %v; %s", err, takesOver(g.Image.Argv[0])))
		return false
	}
	s.say(verbose("generation %d did not use what it was given; started once more, and its bind is watched", g.Number).with("pid", w.PID))
	g.Adopted = true
	next, err := s.spawn(g, w.Slot)
	if err != nil {
		s.failWorker(g, next, err.Error(), execStatus(err))
	}
	return true
}

// takesOver is the one line by which a program takes its first listener over, in its language where that shows.
func takesOver(program string) string {
	line, ok := map[string]string{
		"node": "server.listen({ fd: 3 })", "nodejs": "server.listen({ fd: 3 })", "bun": "server.listen({ fd: 3 }) of node:http",
		"python": "socket.socket(fileno=3)", "ruby": "TCPServer.for_fd(3)", "perl": "IO::Socket::INET->new_from_fd(3, 'r+')",
	}[strings.TrimRight(filepath.Base(program), "0123456789.")]
	if !ok {
		return `what it is given is descriptor 3, in Go net.FileListener(os.NewFile(3, ""))`
	}
	return "it takes what it is given by " + line
}

// called has a bind or listen of a worker answered.
func (s *supervisor) called(ev event) {
	g, w := s.worker(ev.serial)
	if w == nil {
		s.world.pass(ev.call)
		return
	}
	name := s.world.nameOf(ev.call)
	a := s.world.adopt(g, ev.call)
	if a.l == nil {
		if a.err != nil {
			s.hintAt("what the program binds cannot be seen: " + a.err.Error())
		}
		return
	}
	addr := shortAddr(a.l.addr, "")
	if a.err != nil && s.once(fmt.Sprint(name, addr, a.err)) { // some try again and again
		s.say(warning("%q cannot have %s in generation %d: %v", name, addr, g.Number, a.err).with("pid", w.PID))
	}
	if a.learned {
		s.Learned = append(s.Learned, learned{a.l.name, addr})
	}
	if a.cut > 0 {
		s.say(warning("%s cut: they came before %q listened", count(a.cut, "connection"), name))
	}
	if !a.listens {
		return
	}
	s.Adopts = true
	if s.once("adopted " + a.l.name) {
		s.say(info("%q binds %s itself; adopted", name, addr).with("pid", w.PID))
	}
	s.listening(g, w)
}

// listening looks at a worker that has begun to listen on a socket of its own.
func (s *supervisor) listening(g *generation, w *worker) {
	if w.State != workerStarting {
		return
	}
	if w.Needs&needAnswer != 0 {
		s.startAsking(g)
	}
	if w.Needs&needAlive != 0 && s.limits.ready != readyAlive && !g.Blind { // nothing better was known
		w.Wants, w.Needs, w.Alive = w.Wants&^needAlive|needWatch, w.Needs&^needAlive|needWatch, 0
	}
	if w.Needs&needWatch != 0 && w.Needs&needExec == 0 {
		w.Look, w.Pause = s.world.now().add(lookFirst), lookFirst
	}
}

// --- the host's side

// adopt answers a call by the traffic.
func (h *host) adopt(g *generation, c *call) adopted {
	if c.err != nil {
		return adopted{err: c.err}
	}
	if h.closed {
		c.pass()
		return adopted{}
	}
	a := h.traffic.adopt(g.Number, c)
	if a.learned {
		ls := append(h.program.listeners[:len(h.program.listeners):len(h.program.listeners)], a.l)
		a.err = errors.Join(a.err, h.program.number(ls))
	}
	if a.listens && !h.deprives && adoptionDeprives() {
		h.deprives = true
		h.say(info("without CAP_SYS_ADMIN, setuid bits bring an adopted program and what it starts nothing (no_new_privs)"))
	}
	return a
}

// adoptable says why a program cannot be adopted here.
func (h *host) adoptable() error {
	if shares(h.program.base) {
		return errors.New("HOTWRAP_SHARE has all generations share their sockets")
	}
	if h.permits.steering != nil {
		return h.permits.steering
	}
	return adoptableAs(h.program.user)
}

// nameOf names who calls, or else the program.
func (h *host) nameOf(c *call) string {
	if name := runningName(c.pid); name != "" {
		return name
	}
	return filepath.Base(h.program.argv[0])
}

// readyToAdopt refuses what was asked for and cannot be had.
func (h *host) readyToAdopt(cfg *config) error {
	if cfg.adopt != adoptAlways {
		return nil
	}
	h.permits.adoption = h.adoptable()
	return h.permits.needsAdoption()
}

// openAdoption hears of what a worker binds.
func (h *host) openAdoption(serial int, e *ears, l *launch) (err error) {
	e.adoption, l.adopt, err = openAdoption(h.calls(serial))
	return err
}

// holdFor keeps clients out until the first adopted generation listens.
func (h *host) holdFor(g *generation) {
	if g.Adopted && !g.Served {
		h.traffic.hold(g.Number)
	}
}
