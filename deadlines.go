package main

// This file is what the supervisor does when time has passed.
//
// Its rules:
//   - A deadline is a field of what it is about, 0 while there is none; due looks at each after every event.
//   - A deadline that is acted on is cleared or set anew at once, so that it acts once.
//   - deadlines knows them all: what it leaves out is seen late.

import (
	"slices"
	"syscall"
	"time"
)

const (
	lookFirst     = time.Millisecond       // from exec to the first look whether the listeners are watched
	lookLongest   = 50 * time.Millisecond  // looks get rarer up to this: a quarter more each time, so ready is seen within a quarter of the time it took
	lookElsewhere = 20 * time.Millisecond  // looks that are rarer also see where else a program listens
	lookClosing   = 30 * time.Second       // looks at a worker that drains get rarer up to this
	lookAfter     = 500 * time.Millisecond // from ready to the last look, which finds what was opened late
	aliveEnough   = time.Second            // alive for this long is ready where nothing else can be seen
	surveyLimit   = time.Second            // a drain does not wait longer than this to learn its connections
	reportFirst   = 15 * time.Second       // from the switch to the first "still draining"; then twice as long
	killPatience  = 5 * time.Second        // a worker still there so long after KILL is reported and killed again
	goadAfter     = time.Second            // from a server's end to the stop signal for the launcher that is still there
	searchLimit   = time.Second            // a worker's end does not wait longer than this to learn what it left behind
	steadyTime    = 10 * time.Second       // a worker ready for this long ends a row of failures
	backoffFirst  = 100 * time.Millisecond // before the second respawn of a row; the first is at once
	backoffMost   = 30 * time.Second
)

// instant is a time since the machine started (CLOCK_MONOTONIC), so that it means the same after a
// jump of the wall clock and in the next process image. Zero is "none".
type instant time.Duration

func (t instant) add(d time.Duration) instant { return t + instant(d) }

func (t instant) since(u instant) time.Duration { return time.Duration(t - u) }

func (t instant) due(now instant) bool { return t != 0 && t <= now }

//nolint:unparam // encoding.TextMarshaler has it so
func (t instant) MarshalText() ([]byte, error) { return []byte(time.Duration(t).String()), nil }

func (t *instant) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*t = instant(d)
	return err
}

// due acts on every deadline that has passed.
func (s *supervisor) due() {
	now := s.world.now()
	if s.Stop != nil && s.Stop.Delay.due(now) {
		s.stopAll()
	}
	if s.Rebuild.Look.due(now) {
		s.Rebuild.Look = 0
		s.world.watchAgain()
	}
	if s.Heartbeat.due(now) {
		s.Heartbeat = now.add(s.limits.heartbeat)
		s.world.alive()
	}
	s.dueCanary(now)
	for _, g := range slices.Clone(s.Generations) {
		s.dueGeneration(g, now)
		s.dueAsk(g, now)
		for _, w := range slices.Clone(g.Workers) {
			s.dueWorker(g, w, now)
		}
	}
	s.dueHooks(now)
	s.dueExtend(now)
	s.dueReexec(now)
	if s.done() {
		s.letGo()
		if s.Stop != nil {
			s.answerStop()
		}
	}
}

func (s *supervisor) dueGeneration(g *generation, now instant) {
	switch g.State {
	case genStarting:
		switch {
		case !g.Deadline.due(now):
		case s.Restart.Phase == batchBaking:
			s.makeRoom(g)
		default:
			advice := s.advice(g)
			s.fail(g, s.unready(g, now), statusNotReady)
			s.hintAt(advice)
		}
	case genReady:
		if g.Deadline.due(now) {
			s.trialOver(g)
		}
	case genServing:
		for i := range g.Slots {
			if g.Slots[i].Start.due(now) {
				s.respawn(g, i)
			}
		}
	case genDraining:
		s.dueDrain(g, now)
	case genFailed:
		s.relieve(g)
	case genGone:
	}
}

func (s *supervisor) dueDrain(g *generation, now instant) {
	switch {
	case g.Surveyed.due(now), (g.Survey == surveyStop || g.Survey == surveyQuiet) && g.Deadline.due(now): // no KILL before the stop signal
		s.surveyed(g, remains{})
	case g.Deadline.due(now):
		g.Deadline, g.Report = 0, 0
		s.ask(g, surveyKill)
	case g.Report.due(now):
		g.Report = 0
		if g.Survey == surveyNone {
			s.ask(g, surveyReport)
		} else {
			g.Report = now.add(glanceLongest)
		}
	case g.Glance.due(now):
		if g.Glance = 0; g.Survey == surveyNone {
			s.ask(g, surveyQuiet)
		} else {
			g.Glance = now.add(glanceLongest)
		}
	}
}

func (s *supervisor) dueWorker(g *generation, w *worker, now instant) {
	if w.Look.due(now) {
		w.Look = 0
		s.world.look(g, w, s.Helped)
	}
	if w.Alive.due(now) {
		w.Alive = 0
		w.Needs &^= needAlive
		s.settled(g, w)
	}
	if w.Watchdog.due(now) {
		w.Blame = "missed its watchdog"
		s.killWorker(w)
	}
	if w.Limit.due(now) {
		if w.State == workerStarting {
			w.Blame = "not ready after " + brief(now.since(w.Started))
		} else {
			s.overdue(g, w)
		}
		s.killWorker(w)
	}
	if w.Goad.due(now) {
		w.Goad, w.Asked = 0, 0
		s.world.signal(w.PID, syscall.SIGTERM) // a launcher's, whatever its server's own was
		s.world.signal(w.PID, syscall.SIGCONT)
	}
	if w.Search.due(now) {
		s.found(g, w, nil)
	}
	if w.Again.due(now) {
		s.say(warning("pid %d is still there %s after KILL", w.PID, brief(killPatience)))
		s.killWorker(w)
	}
}

// overdue says of one worker that it, or what it left behind, did not end in time.
func (s *supervisor) overdue(g *generation, w *worker) {
	what, limit := g.who(w), s.limits.drainTimeout
	if w.Reaped {
		what = "what " + what + " left behind"
	}
	if s.Stop != nil {
		limit = min(limit, s.limits.stopTimeout)
		s.late()
	}
	s.say(warning("%s did not end within %s, killed", what, brief(limit)))
}

// late notes that an ordered stop needed KILL.
func (s *supervisor) late() { s.Stop.Late, s.Status = true, 128+int(syscall.SIGKILL) }

// deadlines are all instants at which something is due.
func (s *supervisor) deadlines() []instant {
	all := []instant{s.Heartbeat, s.Extend, s.Rebuild.Look, s.Hooks.Deadline, s.Hooks.End}
	if s.Stop != nil {
		all = append(all, s.Stop.Delay)
	}
	if s.Reexec != nil {
		all = append(all, s.Reexec.Deadline)
	}
	if s.Restart != nil {
		all = append(all, s.Restart.Canary.Next, s.Restart.Canary.Limit)
	}
	for _, g := range s.Generations {
		all = append(all, g.Deadline, g.Surveyed, g.Report, g.Glance, g.Ask)
		for _, sl := range g.Slots {
			all = append(all, sl.Start)
		}
		for _, w := range g.Workers {
			all = append(all, w.Look, w.Alive, w.Watchdog, w.Limit, w.Again, w.Goad, w.Search)
		}
	}
	return slices.DeleteFunc(all, func(t instant) bool { return t == 0 })
}
