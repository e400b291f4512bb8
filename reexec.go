package main

// This file is how hotwrap replaces itself by a newer one, in place: the program and its clients notice nothing.
//
// Its rules:
//   - The new hotwrap is asked first, as a process of its own, whether it can take over; refused or failed, everything
//     stays as it was, and who asked is told why.
//   - Nothing is half done at the exec: no worker is between fork and exec, no call of a program is open. What was being
//     looked up is asked for again afterwards.
//   - Only the supervisor decides when; how is the host's.

import (
	"slices"
	"time"
)

// reexecPatience is how long the new hotwrap may take to say whether it can take over, and then how long what must not be
// interrupted may take.
const reexecPatience = 10 * time.Second

// reexecution is a re-exec that was asked for.
type reexecution struct {
	Requests []request `json:"requests"`
	Number   int       `json:"number"`           // of this ask: an answer to another one is none
	PID      int       `json:"pid,omitempty"`    // of the new hotwrap, while it is asked
	Agreed   bool      `json:"agreed,omitempty"` // it can take over
	Deadline instant   `json:"deadline"`
}

// askedReexec asks the hotwrap that lies on disk whether it can take over.
func (s *supervisor) askedReexec(r request) {
	switch {
	case s.Ending:
		s.say(info("not re-executed: hotwrap is stopping").with("by", r.by()))
		s.answer(r, stopped, nil, "hotwrap is stopping")
		return
	case s.Reexec != nil && len(s.Reexec.Requests) >= pendingMost:
		s.answer(r, failed, nil, count(pendingMost, "request")+" wait already")
		return
	case s.Reexec != nil:
		s.Reexec.Requests = append(s.Reexec.Requests, r)
		return
	}
	s.Asked++
	s.Reexec = &reexecution{Requests: []request{r}, Number: s.Asked, Deadline: s.world.now().add(reexecPatience)}
	s.say(verbose("asking the new hotwrap").with("by", r.by()))
	pid, err := s.world.propose(&s.state, s.Asked)
	if err != nil {
		s.stay(err.Error())
		return
	}
	s.Reexec.PID = pid
}

// proposed takes the new hotwrap's answer.
func (s *supervisor) proposed(number int, err error) {
	switch {
	case s.Reexec == nil || s.Reexec.Agreed || s.Reexec.Number != number:
	case err != nil:
		s.stay(err.Error())
	default:
		s.Reexec.PID, s.Reexec.Agreed = 0, true
		s.Reexec.Deadline = s.world.now().add(reexecPatience)
	}
}

// dueReexec leaves as soon as nothing is half done.
func (s *supervisor) dueReexec(now instant) {
	r := s.Reexec
	switch {
	case r == nil, s.leaving: // it is decided
	case r.Agreed && !s.occupied():
		s.leaving = true
	case !r.Deadline.due(now):
	case r.Agreed:
		s.stay("a generation has been starting for " + brief(reexecPatience))
	default:
		s.stay("the new hotwrap does not answer")
	}
}

// occupied tells whether something is half done that no other hotwrap could finish.
func (s *supervisor) occupied() bool {
	return slices.ContainsFunc(s.Generations, func(g *generation) bool {
		return g.Busy || slices.ContainsFunc(g.Workers, func(w *worker) bool { return w.Needs&needExec != 0 })
	})
}

// stay goes on with this hotwrap, and says why. Of one that has left already only the requests are answered.
func (s *supervisor) stay(reason string) {
	r := s.Reexec
	s.Reexec = nil
	s.killCommand(r.PID)
	res := failed
	switch {
	case s.Ending:
		res = stopped
		s.say(info("not re-executed: %s", reason))
	case !s.leaving:
		s.say(warning("cannot re-exec: %s", reason).end("this hotwrap goes on, and the program was not touched"))
	}
	s.answerAll(r.Requests, res, nil, reason)
}

// arrived goes on in a new process image with the state of the one before, which has stopped to listen at left. refused is
// why it is the old one all the same.
func (s *supervisor) arrived(from, refused string, left instant) {
	now := s.world.now()
	r := s.Reexec
	switch {
	case r == nil: // a stop came in the last moment
	case refused != "":
		s.stay(refused)
	default:
		s.Reexec = nil
		m := info("re-executed").with("version", versionText()).with("before", from)
		if left != 0 {
			m = m.with("after", now.since(left))
		}
		s.say(m.with("by", r.Requests[0].by()).end("the program was not restarted").about(hapReexec, 0))
		for _, q := range r.Requests {
			s.answer(q, reexeced, nil, "")
		}
	}
	for _, g := range slices.Clone(s.Generations) {
		s.resume(g, now)
	}
	s.buried()
	s.due()
}

// resume asks again for what was being looked up of a generation.
func (s *supervisor) resume(g *generation, now instant) {
	if g.Survey != surveyNone {
		s.ask(g, g.Survey)
	}
	if g.Asking {
		g.Asking, g.Ask = false, now
	}
	for _, w := range slices.Clone(g.Workers) {
		if w.Search != 0 && !s.world.search(g, w, s.groups()) {
			w.Search = now // found nothing, then
		}
		switch w.State {
		case workerStarting:
			if w.Needs&needExec != 0 { // who would have told is gone
				s.executed(event{serial: w.Serial})
			}
			if w.Needs&needWatch != 0 {
				w.Look = now
			}
		case workerStopping:
			if !w.Closed {
				w.Look = now
			}
		case workerReady, workerKilling, workerExited:
		}
	}
}
