package main

// This file is how a generation that was replaced, or is to end, finishes what it has: who gets the new connections
// instead of it, how long it is left alone, when it gets its stop signal, what is said of it.
//
// Its rules:
//   - With sockets of its own a predecessor is looked at until nothing waits for it and nobody is owed an answer, and
//     only then told to stop; for a part of its limit at most. So a program may die of its stop signal on the spot.
//   - With shared sockets that would never end, since it gets new connections until it is told: it is told at once.
//   - KILL comes at the limit, which counts from the switch, or from the signal where that comes first.

import (
	"fmt"
	"net/netip"
	"slices"
	"time"
)

const (
	observePart    = 4                      // a predecessor finishes undisturbed for a quarter of its limit at the most
	handshakeLimit = 4 * time.Second        // a half-open connection of before the switch is waited for: SYN-ACKs are sent again after 1 s and 3 s (tcp(7))
	glanceAgain    = time.Millisecond       // from a look that saw nothing to the one that confirms it
	glanceFirst    = 10 * time.Millisecond  // from one look to the next
	glanceLongest  = 250 * time.Millisecond // it grows by a quarter each time
	glanceCost     = 10                     // and is so many times as long as a look takes
	rescuesMost    = 3                      // a predecessor that died is started again so often for what waits for it
)

// drain lets g finish what is in flight, for limit at the most. Its connections are counted first:
// the log says how many, before the stop signal changes it.
func (s *supervisor) drain(g *generation, limit time.Duration) {
	now := s.world.now()
	g.State, g.Drain, g.Emptied = genDraining, now, 0
	g.Deadline = now.add(limit)
	g.Period = reportFirst
	g.Report = now.add(g.Period)
	for i := range g.Slots {
		g.Slots[i].Start = 0
	}
	g.Observe, g.Glance, g.HalfOpen, g.Still = 0, 0, nil, false
	if s.steered(g) {
		g.Observe, g.Pause = now.add(limit/observePart), glanceFirst
	}
	if len(g.Workers) > 0 {
		s.ask(g, surveyStop)
	}
	s.emptied(g)
}

// steered tells whether g has sockets of its own, and others get what is new: then what it has comes to an end.
func (s *supervisor) steered(g *generation) bool {
	if s.parked() {
		return !g.Fallback
	}
	next := s.serving()
	return next != nil && next != g && next.Steered && !g.Fallback && !s.Ending
}

// parked tells whether hotwrap stops and new connections wait for the next one.
func (s *state) parked() bool { return s.Stop != nil && s.Stop.Parked }

// observe tells whether g is left alone for now, and looked at again: it has something to finish, and time.
func (s *supervisor) observe(g *generation, has remains) bool {
	now := s.world.now()
	if g.Observe <= now || !has.known || s.Ending && !s.parked() {
		g.Observe = 0
		return false
	}
	if now.since(g.Drain) >= handshakeLimit {
		g.HalfOpen = nil
	}
	g.HalfOpen = slices.DeleteFunc(g.HalfOpen, func(client netip.AddrPort) bool { return !slices.Contains(has.halfOpen, client) })
	switch still := len(g.HalfOpen) == 0 && has.queued == 0 && has.busy() == 0; {
	case still && g.Still:
		g.Observe = 0
		return false
	case still: // what was accepted in the very moment of a look is not in it: a second one must say the same
		g.Still, g.Pause = true, glanceAgain
	case g.Still:
		g.Still, g.Pause = false, glanceFirst
	}
	pause := max(g.Pause, glanceCost*has.cost)
	if g.Still {
		pause = g.Pause
	}
	g.Glance = min(now.add(pause), g.Observe)
	g.Pause = min(g.Pause+g.Pause/4, glanceLongest)
	return true
}

// stopWorkers tells all of g to finish.
func (s *supervisor) stopWorkers(g *generation) {
	g.Observe, g.Glance = 0, 0
	for _, w := range slices.Clone(g.Workers) {
		s.stopWorker(g, w)
	}
	s.watchClosing(g)
}

// rescue starts a predecessor once more, from its pin, that has ended while connections wait for it alone.
func (s *supervisor) rescue(g *generation) bool {
	if s.Ending || g.Fallback || g.Deadline == 0 || g.Rescues >= rescuesMost || s.serving() == g {
		return false
	}
	n := s.world.left(g)
	if n == 0 {
		return false
	}
	g.Rescues++
	w, err := s.spawn(g, 0)
	if err != nil {
		s.say(warning("generation %d cannot be started again for %s that it has not taken: %v", g.Number, count(n, "connection"), err))
		return false
	}
	w.Limit = g.Deadline
	now := s.world.now()
	g.Observe, g.Pause = g.Deadline.add(-g.Deadline.since(now)/observePart), glanceFirst
	g.Glance = now.add(g.Pause)
	s.say(info("generation %d is started again for %s that it has not taken", g.Number, count(n, "connection")).with("pid", w.PID))
	return true
}

// shares are the parts of the new connections: all of them the serving generation's, but in a restart by batches, and
// while a failed one's workers serve on, by how many workers each has there.
func (s *state) shares() map[int]int {
	p := s.serving()
	if p == nil {
		return nil
	}
	if g, t := s.canaryStep(); g != nil {
		return map[int]int{p.Number: canaryWhole - t.Share, g.Number: t.Share}
	}
	shares := map[int]int{}
	if r := s.Restart; r != nil {
		if g := s.generation(r.Successor); g != nil && g.State == genStarting && p.replaced() > 0 {
			shares[g.Number], shares[p.Number] = p.replaced(), len(p.Slots)-p.replaced()
		}
	}
	for _, g := range s.Generations {
		for _, w := range g.Workers {
			if s.needed(g, w) {
				shares[g.Number]++
				shares[p.Number] = p.readyWorkers()
			}
		}
	}
	if len(shares) == 0 {
		shares[p.Number] = 1
	}
	return shares
}

// steer routes the new connections by the state as it is now.
func (s *supervisor) steer() {
	shares := s.shares()
	if shares == nil {
		return
	}
	if err := s.share(shares); err != nil {
		s.say(warning("%v", err))
	}
}

// share gives the new connections to generations; what was steered to one is its own from then on.
func (s *supervisor) share(shares map[int]int) error {
	to, err := s.world.route(shares)
	for number := range shares {
		if g := s.generation(number); g != nil && err == nil && to.steered {
			g.Shared = true
		}
	}
	return err
}

// ask starts a survey of g's connections; what it is for is done when the answer comes, or soon.
func (s *supervisor) ask(g *generation, what survey) {
	g.Survey, g.Surveyed = what, s.world.now().add(surveyLimit)
	s.world.survey(g)
}

// surveyed goes on with what a survey was for; with nothing if g is gone meanwhile.
func (s *supervisor) surveyed(g *generation, has remains) {
	if g == nil {
		return
	}
	what := g.Survey
	g.Survey, g.Surveyed = surveyNone, 0
	switch what {
	case surveyNone:
	case surveyStop:
		s.announce(g, has)
		s.handover()
		g.HalfOpen = has.halfOpen
		if !s.observe(g, has) {
			g.Deadline = s.world.now().add(g.Deadline.since(g.Drain)) // the limit counts from the signal
			s.stopWorkers(g)
		}
		s.next()
	case surveyQuiet:
		if !s.observe(g, has) {
			s.stopWorkers(g)
		}
	case surveyReport:
		g.Period *= 2
		g.Report = s.world.now().add(g.Period)
		s.say(info("generation %d still draining after %s: %s", g.Number,
			brief(s.world.now().since(g.Drain)), s.holdUp(g, has)))
	case surveyKill:
		m := warning("generation %d did not end within %s, killed: %s", g.Number,
			brief(s.world.now().since(g.Drain)), s.holdUp(g, has))
		if s.limits.wait { // in the dev loop an open event stream is nothing to warn of
			m.level = levelVerbose
		}
		s.say(m)
		s.killGeneration(g)
	}
}

// announce says that g drains, and for whom.
func (s *supervisor) announce(g *generation, has remains) {
	text := fmt.Sprintf("generation %d draining", g.Number)
	if has.known {
		text += ", " + count(len(has.open)+has.queued, "connection")
	}
	text += ", up to " + brief(time.Duration(g.Deadline-g.Drain))
	serving := s.serving()
	switch {
	case !g.Served: // it has been a canary
		s.say(info("%s", text))
	case serving != nil:
		s.detail(info("generation %d serving; %s", serving.Number, text).tell(upReady).about(hapSwitch, serving.Number))
	case g.Fallback:
		s.say(info("%s; then generation %d starts", text, s.Restart.Successor))
	default:
		s.say(info("%s", text))
	}
}

// watchClosing looks on while the workers of g, which were told to finish, let go of the listeners.
func (s *supervisor) watchClosing(g *generation) {
	for _, w := range g.Workers {
		if w.State == workerStopping && !w.Reaped {
			w.Look, w.Pause = s.world.now().add(lookFirst), lookFirst
		}
	}
}

// lookedClosing takes what a look at a worker saw that was told to finish. Looks get rarer by a quarter,
// so that a long drain costs next to nothing.
func (s *supervisor) lookedClosing(w *worker, see sight) {
	if see.blind == "" && !see.denied && !see.holds && !w.Closed {
		w.Closed = true
		s.handover()
	}
	switch {
	case w.Asked != 0 && !s.world.owns(w, notice{pid: w.Asked, uid: -1}):
		w.Goad = s.world.now().add(goadAfter) // its launcher ends by itself, or has something to clean up
		return
	case w.Asked == 0 && w.Closed:
		return
	}
	w.Look = s.world.now().add(w.Pause)
	w.Pause = min(w.Pause+w.Pause/4, lookClosing)
}

// handover tells, once for each serving generation, that no other holds a listener any more: every new
// connection reaches it.
func (s *supervisor) handover() {
	g := s.serving()
	if g == nil || g.Handed || s.announcing() {
		return
	}
	for _, o := range s.Generations {
		if !g.Alone && o != g && slices.ContainsFunc(o.Workers, func(w *worker) bool { return !w.Closed && w.State != workerExited }) {
			return
		}
	}
	g.Handed = true
	s.say(verbose("every new connection reaches generation %d", g.Number).about(hapHandover, g.Number))
}

// holdUp says what a drain waits for.
func (s *supervisor) holdUp(g *generation, has remains) string {
	text := "connections unknown"
	if has.known {
		text = nameConnections(has.open)
	}
	if has.queued > 0 {
		text += fmt.Sprintf(", %d not accepted", has.queued)
	}
	for _, w := range g.Workers {
		if !w.Reaped && s.world.halted(w.PID) {
			text += fmt.Sprintf("; pid %d is stopped (state T)", w.PID)
		}
	}
	return text
}
