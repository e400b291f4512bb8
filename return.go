package main

// This file is how a hotwrap goes on with the workers of another one that was killed: they serve on as the predecessor,
// and a restart replaces them at once by children of its own.
//
// Its rules:
//   - A stop that was under way is over: who is started is to serve. What had been told to finish is a predecessor that drains.
//   - What only the dead one could finish has failed: a restart under way, what waited for a hook or a build.
//   - TTIN and TTOU hold as long as --workers is the same.
//   - Deadlines go on: the clock is the machine's. Where it is behind that of the dead one (another time namespace,
//     time_namespaces(7)), none is further away than the limit it came from.

import (
	"io"
	"os"
	"slices"
	"time"
)

// legacy is what a hotwrap that was killed has left.
type legacy struct {
	w       *written
	orphans *orphans
	sockets *hunt  // of the orphans
	name    string // of that hotwrap
	path    string // of the file that tells of them
}

// ended tells whether it had let go of its listeners, or parked them: it was stopping.
func (l *legacy) ended() bool { return l.w.Closed || l.w.State.parked() }

// recover goes on with the state of a hotwrap that was killed.
func (s *supervisor) recover(st state, killed provenance) {
	s.state = st
	now := s.world.now()
	if s.Stop != nil { // what had its stop signal finishes, and nothing comes back
		s.Restart = nil
		for _, g := range s.Generations {
			g.Fallback = false
		}
	}
	s.Stop, s.Ending, s.Status, s.Reexec = nil, false, 0, nil
	s.Helped, s.Heartbeat, s.Extend = false, 0, 0
	if killed.Workers != s.limits.workers || s.Wanted < 1 || s.Wanted > workersMost {
		s.Wanted = s.limits.workers
	}
	s.clamp(now)
	if s.limits.heartbeat > 0 {
		s.Heartbeat = now
	}
	for _, g := range s.Generations {
		g.Check = 0
		for _, w := range g.Workers {
			w.Needs &^= needExec // who would have told is gone
		}
		g.Inherited = true
		s.sayRecovered(g, killed)
	}
	if s.Wanted != s.limits.workers {
		s.say(info("%s wanted, as by the hotwrap that was killed", count(s.Wanted, "worker")))
	}
	for _, g := range slices.Clone(s.Generations) {
		s.resume(g, now)
	}
	if s.Restart != nil {
		s.cutShort(now)
	}
	s.giveUpUnwritten()
	s.requested(event{request: request{Ask: askRestart, Cause: "return"}})
}

// cutShort ends the restart that was under way.
func (s *supervisor) cutShort(now instant) {
	r := s.Restart
	r.Canary.PID = 0
	g := s.generation(r.Successor)
	switch {
	case g == nil || g.State != genStarting && g.State != genReady:
	case r.Predecessor == 0 && len(g.Workers) > 0: // whether it serves by now, who was killed has not written: nobody else does
		s.answerAll(r.Requests, failed, g, "hotwrap was killed")
		g.State, g.Deadline, g.Served, g.Serves, s.Restart = genServing, 0, true, now, nil
	default:
		g.Busy = false
		s.say(info("generation %d is given up: the hotwrap that started it was killed", g.Number))
		s.abandon(g, failed, "hotwrap was killed")
	}
}

// giveUpUnwritten has those finish of which only their processes told.
func (s *supervisor) giveUpUnwritten() {
	for _, g := range slices.Clone(s.Generations) {
		switch {
		case g.State != genStarting && g.State != genReady:
		case s.Restart != nil && s.Restart.Successor == g.Number:
		default:
			g.State = genFailed
			s.dismissAll(g)
		}
	}
}

// within has an instant that is to come be no further away than limit; none stays none.
func (t *instant) within(now instant, limit time.Duration) { *t = min(*t, now.add(limit)) }

// clamp brings what another hotwrap's clock says within what can be by ours.
func (s *supervisor) clamp(now instant) {
	for _, g := range s.Generations {
		limit := max(s.limits.readyTimeout, s.limits.bake)
		if g.State == genDraining {
			limit = g.Deadline.since(g.Drain)
		}
		g.Deadline.within(now, limit)
		g.Observe.within(now, limit/observePart)
		g.Surveyed.within(now, surveyLimit)
		g.Report.within(now, g.Period)
		g.Glance.within(now, glanceLongest)
		g.Ask.within(now, urlAgain)
		for _, past := range []*instant{&g.Started, &g.Drain, &g.Emptied, &g.Serves} {
			past.within(now, 0)
		}
		for i := range g.Slots {
			g.Slots[i].Start.within(now, backoffMost)
		}
		for _, w := range g.Workers {
			s.clampWorker(w, now)
		}
	}
}

func (s *supervisor) clampWorker(w *worker, now instant) {
	limit := s.limits.drainTimeout
	if w.State == workerStarting {
		limit = s.limits.readyTimeout
	}
	w.Limit.within(now, limit)
	w.Look.within(now, max(w.Pause, lookAfter))
	w.Alive.within(now, s.aliveLong())
	w.Watchdog.within(now, w.Beat)
	w.Again.within(now, killPatience)
	w.Goad.within(now, goadAfter)
	w.Search.within(now, searchLimit)
	w.Started.within(now, 0)
	w.Ready.within(now, 0)
}

// clearing tells whether a successor that the dead hotwrap had begun is still to end: it may have sockets that nobody wrote
// down, which are a stranger's until then.
func (s *supervisor) clearing() bool {
	return slices.ContainsFunc(s.Generations, func(g *generation) bool {
		return g.Inherited && g.State == genFailed && len(g.Workers) > 0
	})
}

// sayRecovered tells of one generation.
func (s *supervisor) sayRecovered(g *generation, killed provenance) {
	if len(g.Workers) == 0 {
		return
	}
	m := info("generation %d taken over from a hotwrap that was killed", g.Number).with("pid", g.Workers[0].PID)
	if n := len(g.Workers); n > 1 {
		m = m.with("workers", n)
	}
	m = m.with("hotwrap", killed.PID)
	switch g.State {
	case genServing:
		s.say(m.tell(upReady))
	case genDraining:
		s.say(m.end("it drains"))
	case genStarting, genReady, genFailed, genGone:
		s.say(m.end("it never served"))
	}
	for _, w := range g.Workers {
		if w.Adopted {
			s.say(info("generation %d can bind and listen no more (ENOSYS): the hotwrap that did it for it was killed", g.Number).end("its successor can"))
			return
		}
	}
}

// resume reads on what a worker writes that another hotwrap has begun to read.
func (o *outputs) resume(serial, generation int, files [2]*os.File) {
	if o.own != nil {
		o.own.began(serial)
	}
	var streams []*outStream
	for i, file := range files {
		if file == nil {
			continue
		}
		if o.tails == nil { // this one has no place for it, but the worker must not wait for ever
			go func() {
				_, _ = io.Copy(io.Discard, file)
				_ = file.Close()
			}()
			continue
		}
		s := o.stream(i, generation)
		s.file = file
		streams = append(streams, s)
	}
	if o.tails != nil {
		o.tails.begin(serial, streams)
	}
}
