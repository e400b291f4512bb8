package main

// This file is how a hotwrap goes on with the workers of another one that was killed: they serve on as the predecessor,
// and a restart replaces them at once by children of its own.
//
// Its rules:
//   - What only the dead one could finish has failed: a restart under way, what waited for a hook or a build.
//   - Deadlines go on: the clock is the machine's.

import (
	"io"
	"os"
	"slices"
)

// legacy is what a hotwrap that was killed has left.
type legacy struct {
	w       *written
	orphans *orphans
	sockets *hunt  // of the orphans
	path    string // of the file that tells of them
}

// inherit goes on with the state of a hotwrap that was killed.
func (s *supervisor) inherit(st state, killed provenance) {
	s.state = st
	now := s.world.now()
	s.Stop, s.Ending, s.Status, s.Reexec = nil, false, 0, nil
	s.Wanted, s.Helped, s.Heartbeat = s.limits.workers, false, 0
	if s.limits.heartbeat > 0 {
		s.Heartbeat = now
	}
	for _, g := range s.Generations {
		g.Check = 0
		for _, w := range g.Workers {
			w.Needs &^= needExec // who would have told is gone
		}
		g.Inherited = true
		s.sayInherited(g, killed)
	}
	for _, g := range slices.Clone(s.Generations) {
		s.resume(g, now)
	}
	if r := s.Restart; r != nil {
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
	s.requested(event{request: request{Ask: askRestart, Cause: "return"}})
}

// clearing tells whether a successor that the dead hotwrap had begun is still to end: it may have sockets that nobody wrote
// down, which are a stranger's until then.
func (s *supervisor) clearing() bool {
	return slices.ContainsFunc(s.Generations, func(g *generation) bool {
		return g.Inherited && g.State == genFailed && len(g.Workers) > 0
	})
}

// sayInherited tells of one generation.
func (s *supervisor) sayInherited(g *generation, killed provenance) {
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
