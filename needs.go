package main

// This file decides when a worker is ready: what it must show, what it says, what a look at it saw.
//
// Its rules: a successor must show what its predecessor showed; a message counts only if it comes from
// the worker's own tree; where nothing can be seen, its word is enough, or that it lives.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	astrayAfter  = 2 * time.Second // from a start to the warning that the program listens elsewhere
	launcherHint = "launcher"      // among what was hinted at
	blockingHint = "blocking"
)

// wants is what a new worker of g must show. A successor must do what its predecessor was seen to do.
func (s *supervisor) wants(g *generation, slot int) needs {
	told, listens := s.mustTell(g, slot), len(s.listeners()) > 0 && !g.Blind
	switch s.limits.ready {
	case readyAlive:
		return needExec | needAlive
	case readyNotify, readyFD:
		told = true
	case readyAuto, readyURL:
	}
	n := needExec
	if s.limits.ready == readyURL && g.State == genStarting { // one that is started again has to serve, whatever it answers
		n |= needAnswer
	}
	if told {
		n |= needTold
	}
	if must, _ := s.mustWatch(g, slot); listens && len(must) > 0 {
		n |= needWatch
	}
	if n == needExec {
		n |= needAlive
	}
	return n
}

// model is the generation whose behaviour g must match: itself once it has served, else its predecessor.
func (s *supervisor) model(g *generation) *generation {
	if g.State == genServing || g.State == genDraining {
		return g
	}
	if s.Restart != nil {
		return s.generation(s.Restart.Predecessor)
	}
	return nil
}

// mustTell tells whether the worker of a slot must say that it is ready: because its model's does. Where there is none
// to compare with, because any other does.
func (s *supervisor) mustTell(g *generation, i int) bool {
	m := s.model(g)
	if s.limits.ready != readyAuto || m == nil {
		return false
	}
	if sl := m.proved(i); sl != nil {
		return sl.Told
	}
	return slices.ContainsFunc(m.Slots, func(sl slot) bool { return sl.Told })
}

// mustWatch lists the listeners that the worker of a slot must watch: those that its model's does. Where there is
// none to compare with, any one will do: of those that the model's other workers watch, for the first generation of all.
func (s *supervisor) mustWatch(g *generation, i int) (names []string, any bool) {
	m := s.model(g)
	if m == nil {
		return s.listeners(), true
	}
	if sl := m.proved(i); sl != nil {
		return sl.Watched, false
	}
	return m.Watched, true
}

// settled is called whenever a need of w was met: with none left the worker is ready, and with its
// last worker the generation.
func (s *supervisor) settled(g *generation, w *worker) {
	if w.State != workerStarting || w.Needs != 0 || w.Reaped {
		return
	}
	now := s.world.now()
	w.State, w.Ready, w.Limit = workerReady, now, 0
	g.Slots[w.Slot].Proved = true
	w.Look = now.add(lookAfter)
	s.world.refresh()
	switch g.State {
	case genStarting:
		s.batchSettled(g, w)
	case genServing:
		text := g.who(w) + " ready"
		if len(g.Slots) == 1 {
			text += " again"
		}
		s.say(info("%s", text).with("pid", w.PID).with("after", now.since(w.Started)).with("by", w.by()))
		s.steer()
		s.fit()
	case genReady, genDraining, genFailed, genGone: // starting workers there are being stopped
	}
}

// executed hears from the shim: it has become the program, or it could not.
func (s *supervisor) executed(ev event) {
	g, w := s.worker(ev.serial)
	if w == nil || w.Needs&needExec == 0 { // gone, or known
		return
	}
	w.Needs &^= needExec
	if ev.err != nil {
		w.ExecErr, w.ExecCode = ev.err.Error(), execStatus(ev.err)
		var errno syscall.Errno
		if errors.As(ev.err, &errno) {
			w.ExecErrno = int(errno)
		}
	}
	if w.Reaped { // its end was heard first
		s.ended(g, w)
		return
	}
	if ev.err != nil || w.State != workerStarting {
		return
	}
	if g.State == genStarting && !slices.ContainsFunc(g.Workers, func(w *worker) bool { return w.Needs&needExec != 0 }) {
		g.Stage = stageReady
	}
	now := s.world.now()
	s.mayAsk(g, w)
	if w.Needs&needAlive != 0 {
		w.Alive = now.add(s.aliveLong())
	}
	if w.Needs&needWatch != 0 {
		w.Look = now.add(lookFirst)
	}
	s.settled(g, w) // its own word may have come first
}

// aliveLong is how long being alive must last to count as ready.
func (s *supervisor) aliveLong() time.Duration {
	if s.limits.ready == readyAlive {
		return s.limits.readyAlive
	}
	return aliveEnough
}

// noticed takes one message of a worker. It counts if the sender belongs to the worker.
func (s *supervisor) noticed(ev event) {
	g, w := s.worker(ev.serial)
	if w == nil {
		return
	}
	n := ev.notice
	if n.by != "fd" && !s.world.owns(w, n) {
		s.say(verbose("ignored a message to generation %d from a stranger", g.Number).with("pid", n.pid))
		return
	}
	now := s.world.now()
	if n.status != "" && n.status != w.Says {
		w.Says = n.status
		s.say(verbose("generation %d says %q", g.Number, n.status))
	}
	if n.by == "notify" && n.mainPID > 0 && s.world.owns(w, notice{pid: n.mainPID, uid: -1}) {
		w.Main = n.mainPID
	}
	if n.extend > 0 {
		s.extend(g, w, now.add(n.extend))
	}
	s.beat(w, n, now)
	if n.ready {
		s.told(g, w, n.by)
	}
}

// extend moves the limit for getting ready, never nearer.
func (s *supervisor) extend(g *generation, w *worker, to instant) {
	switch {
	case w.State != workerStarting:
	case g.State == genStarting:
		g.Deadline = max(g.Deadline, to)
	case w.Limit != 0:
		w.Limit = max(w.Limit, to)
	}
}

// beat arms or feeds a worker's watchdog: it opts in by its first WATCHDOG=1.
func (s *supervisor) beat(w *worker, n notice, now instant) {
	if n.watchdogUSec > 0 {
		w.Beat = n.watchdogUSec
	}
	if w.State != workerStarting && w.State != workerReady {
		return
	}
	if n.watchdogTrigger {
		w.Watchdog = now
	} else if n.watchdog && w.Beat > 0 {
		w.Watchdog = now.add(w.Beat)
	}
}

// told takes a worker's word that it is ready, where its word is what was asked for.
func (s *supervisor) told(g *generation, w *worker, by string) {
	switch s.limits.ready {
	case readyAlive, readyURL:
		return
	case readyFD:
		if by != "fd" {
			return
		}
	case readyNotify, readyAuto:
		if by == "fd" {
			return
		}
	}
	w.Word = by
	if sl := g.slot(w.Slot); sl != nil {
		sl.Told = true
	}
	if w.State != workerStarting {
		return
	}
	if w.Needs&needAlive != 0 { // it was only waited for because nothing better was known
		w.Wants |= needTold
	}
	w.Needs &^= needTold | needAlive
	w.Alive = 0
	if w.Look != 0 {
		w.Look = s.world.now() // whoever says so watches by now
	}
	s.settled(g, w)
}

// looked takes what a look at a worker saw.
func (s *supervisor) looked(ev event) {
	g, w := s.worker(ev.serial)
	if w == nil {
		return
	}
	w.Watched = append(w.Watched, lacking(ev.sight.watched, w.Watched)...)
	g.Watched = append(g.Watched, lacking(ev.sight.watched, g.Watched)...)
	if sl := g.slot(w.Slot); sl != nil {
		sl.Watched = append(sl.Watched, lacking(ev.sight.watched, sl.Watched)...)
	}
	if w.Server = cmp.Or(ev.sight.server, w.Server); w.Server == w.PID {
		w.Server = 0
	}
	w.Habit = cmp.Or(ev.sight.stop, w.Habit)
	s.launched(ev.sight)
	switch w.State {
	case workerStarting:
		s.lookedStarting(g, w, ev.sight)
	case workerReady:
		s.hints(g, ev.sight)
	case workerStopping:
		s.lookedClosing(w, ev.sight)
	case workerKilling, workerExited:
	}
}

// once tells whether this is spoken of for the first time.
func (s *supervisor) once(what string) bool {
	if slices.Contains(s.Hinted, what) {
		return false
	}
	s.Hinted = append(s.Hinted, what)
	return true
}

// launched warns, once, of what stands between hotwrap and a server.
func (s *supervisor) launched(see sight) {
	name := see.behind.name
	if name == "" || s.Adopts || !s.once(launcherHint) {
		return
	}
	switch {
	case slices.Contains(inits, name):
		s.say(warning("%s stands between hotwrap and the program", name).end("%s", see.behind.remedy))
	case !see.stamped:
		s.say(warning("%s stands between hotwrap and the program, so LISTEN_PID is not the program's", name).end("%s", see.behind.remedy))
	}
}

func (s *supervisor) lookedStarting(g *generation, w *worker, see sight) {
	now := s.world.now()
	switch {
	case len(s.unwatched(g, w)) == 0:
		w.Needs &^= needWatch
		s.mayAsk(g, w)
		s.settled(g, w)
	case see.denied && !s.Helped:
		s.Helped = true
		w.Look = now
	case see.blind != "":
		w.Needs &^= needWatch
		s.mayAsk(g, w)
		if !g.Blind {
			g.Blind = true
			s.say(warning("generation %d cannot be seen accepting: %s; its word, or %s alive, is enough",
				g.Number, see.blind, brief(aliveEnough)))
		}
		if w.Wants&(needTold|needAnswer) == 0 {
			w.Wants = needExec | needAlive
			w.Needs |= needAlive
			w.Alive = now.add(aliveEnough)
		}
		s.settled(g, w)
	default:
		w.Look = now.add(w.Pause)
		w.Pause = min(w.Pause+w.Pause/4, lookLongest)
		switch {
		case see.by != "":
			w.Withheld = see.by + " passed none of its descriptors on to " + see.deprived
		case len(see.others) > 0: // by one that has them
			w.Withheld = ""
		}
		if len(see.others) > 0 { // it may have ended while it was looked at: what was seen still says why
			w.Elsewhere = see.others
		}
		s.astray(g, w, now)
	}
}

// astray warns of a program that listens elsewhere and not where it should, long before that is an error.
func (s *supervisor) astray(g *generation, w *worker, now instant) {
	if text := s.elsewhere(g, w); text != "" && now.since(w.Started) >= astrayAfter && s.once(text) {
		s.say(warning("generation %d is not ready: %s", g.Number, text))
	}
}

// elsewhere says where w listens, if it does, and where it should.
func (s *supervisor) elsewhere(g *generation, w *worker) string {
	lacks := s.unwatched(g, w)
	if w.Needs&needWatch == 0 || len(lacks) == 0 || len(w.Elsewhere) == 0 {
		return ""
	}
	var should []string
	for _, name := range lacks {
		if i := slices.Index(s.listeners(), name); i >= 0 && i < len(s.addresses()) {
			should = append(should, s.addresses()[i])
		}
	}
	const shown = 3
	var there []string
	for _, addr := range w.Elsewhere[:min(len(w.Elsewhere), shown)] {
		there = append(there, shortAddr(addr, "*"))
	}
	return fmt.Sprintf("it listens on %s, not on %s", strings.Join(there, ", "), strings.Join(should[:min(len(should), shown)], ", "))
}

// shortAddr writes an address as a person does; all stands for every address of the machine.
func shortAddr(addr, all string) string {
	for _, any := range []string{"[::]", "0.0.0.0"} {
		if port, ok := strings.CutPrefix(addr, any+":"); ok {
			return all + ":" + port
		}
	}
	return addr
}

// withheld says what is certain about descriptors that did not reach the program.
func (s *supervisor) withheld(g *generation, w *worker) string {
	if s.model(g) != nil || s.Adopts || len(s.listeners()) == 0 || len(w.Watched) > 0 || g.Image == nil {
		return ""
	}
	if a := g.Image.advice; a.closes {
		return "; " + a.launcher + " passes no descriptors on, so the program has no listener"
	}
	return ""
}

// advice is what to do about a generation that fails: what stands before the program is to blame, or how it is used.
func (s *supervisor) advice(g *generation) string {
	at := slices.IndexFunc(g.Workers, func(w *worker) bool { return len(w.Watched) == 0 })
	if g.Image == nil || len(s.listeners()) == 0 || at < 0 {
		return ""
	}
	w, a := g.Workers[at], g.Image.advice
	switch {
	case s.Adopts, s.model(g) != nil && !a.locks:
		return ""
	case a.closes || a.locks:
		return a.remedy
	case w.Withheld != "":
		return w.Withheld + ": if that is the program, start it without the other"
	case a.launcher != "":
		return "behind " + a.launcher + " LISTEN_PID is not the program's: " + a.remedy
	case len(w.Elsewhere) > 0:
		return "a program must accept on the descriptor it is given: LISTEN_FDS, or {fd} among its arguments"
	case w.Reaped && w.Status.Code != 0:
		return "if it found its address in use: hotwrap holds it, and gives it to the program as a descriptor: LISTEN_FDS, or {fd} among its arguments" + s.orAdopted()
	}
	return ""
}

// orAdopted is the other way, where it was not gone already.
func (s *supervisor) orAdopted() string {
	if s.limits.adopt == adoptAlways {
		return ""
	}
	return "; or --adopt always"
}

func (s *supervisor) hintAt(text string) {
	if text != "" && s.once(text) {
		s.say(hint("%s", text))
	}
}

// unwatched lists the listeners that w must watch and was not seen to.
func (s *supervisor) unwatched(g *generation, w *worker) []string {
	must, any := s.mustWatch(g, w.Slot)
	if any && len(w.Watched) > 0 {
		return nil
	}
	return lacking(must, w.Watched)
}

// lacking are those of all that are not in have: there may be a thousand in both.
func lacking(all, have []string) (lacks []string) {
	had := make(map[string]bool, len(have))
	for _, name := range have {
		had[name] = true
	}
	for _, name := range all {
		if !had[name] {
			lacks = append(lacks, name)
		}
	}
	return lacks
}

// hints names what the last look at a ready worker found odd, once for each oddity.
func (s *supervisor) hints(g *generation, see sight) {
	for _, addr := range see.others {
		if s.Adopts && slices.Contains(s.addresses(), shortAddr(addr, "")) {
			continue // it bound that while it was looked at
		}
		if g.Watched == nil && see.blind == "" && len(s.listeners()) > 0 {
			s.hintAt(fmt.Sprintf("the program listens on %s, not on %s", shortAddr(addr, "*"), strings.Join(s.addresses(), ", ")))
		} else if s.limits.overlap && s.once(addr) {
			s.say(hint("generation %d also listens on %s; use -l NAME=%s or --no-overlap", g.Number, addr, addr))
		}
	}
	s.hintBlocking(g, see)
	if see.blind != "" || len(g.Watched) == 0 {
		return
	}
	for _, name := range lacking(lacking(s.listeners(), g.Watched), s.Unserved) {
		s.Unserved = append(s.Unserved, name)
		s.say(warning("generation %d does not serve listener %q", g.Number, name))
	}
}

// hintBlocking says that a worker may stand still: another one takes the connection for which both were woken.
func (s *supervisor) hintBlocking(g *generation, see sight) {
	several := see.rivals || len(g.Slots) > 1 || see.shared && s.limits.overlap && g.Number > 1
	if len(see.polled) > 0 && several && s.once(blockingHint) {
		s.say(hint("%q polls listener %q, which is blocking: a worker that loses the race for a connection waits in accept; use -l …,nonblock",
			see.poller, strings.Join(see.polled, ", ")))
	}
}

// unready says what a generation that was not ready in time still lacked.
func (s *supervisor) unready(g *generation, now instant) string {
	after := brief(now.since(g.Started))
	switch {
	case g.Busy:
		return "its files could not be read within " + after
	case g.Check != 0:
		return "--check did not end within " + after
	}
	var slow, lacks []string // the same of many workers is told once
	for _, w := range g.Workers {
		if w.State != workerStarting {
			continue
		}
		after = brief(now.since(w.Started))
		slow = append(slow, strconv.Itoa(w.Slot))
		if text := s.lacks(g, w); !slices.Contains(lacks, text) {
			lacks = append(lacks, text)
		}
	}
	text := "not ready after " + after
	if n := len(g.Slots); n > 1 {
		text = fmt.Sprintf("%s of %d not ready after %s", count(len(slow), "worker"), n, after) + " (" + strings.Join(slow, ", ") + ")"
	}
	return text + strings.Join(lacks, "")
}

// lacks says what a worker still lacked when it should have been ready.
func (s *supervisor) lacks(g *generation, w *worker) (text string) {
	text = s.withheld(g, w)
	if w.Needs&needTold != 0 {
		switch s.limits.ready {
		case readyFD:
			text += "; it wrote no newline to its descriptor"
		case readyAuto:
			text += "; it did not say READY=1, which its predecessor did"
		case readyNotify, readyAlive, readyURL:
			text += "; it did not say READY=1"
		}
	}
	if w.Needs&needAnswer != 0 && g.AskPause != 0 {
		text += "; " + s.lastAnswer(g)
	}
	if there := s.elsewhere(g, w); there != "" {
		text += "; " + there
	} else if lacks := s.unwatched(g, w); w.Needs&needWatch != 0 && len(lacks) > 0 {
		who := "nobody serves"
		if len(g.Slots) > 1 { // others may
			who = "does not serve"
		}
		text += fmt.Sprintf("; %s %q", who, strings.Join(lacks, ", "))
	}
	if s.world.halted(w.PID) {
		text += fmt.Sprintf("; pid %d is stopped (state T)", w.PID)
	}
	return text
}
