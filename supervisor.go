package main

// This file is the state machine of hotwrap: generations, workers, restarts, deadlines.
//
// Its rules:
//   - One goroutine, run, owns every fact here; everybody else only posts events.
//   - It touches the world only through the functions of world, and none of them may block.
//   - A deadline is a field, looked at again after every event: no timer acts by itself, so a late one
//     can never act on the wrong run. run keeps one timer, for the nearest.
//   - Wish and fact are apart: a request changes what is wanted, only events change a state.
//   - state is plain data: what snapshot writes is all there is.
//
// Generation: starting → ready (on trial) → serving → draining → gone, or failed.
// Worker: starting → ready → stopping → killing → exited.

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"
)

const (
	pendingMost = 256                    // requests that may wait for the next restart
	secondINT   = 500 * time.Millisecond // an INT sooner than this after the first is the same key press (npm sends two)
)

// Exit statuses of hotwrap that are not the program's own (GNU coreutils' timeout and env use the same).
const (
	statusNotReady = 124 // the first generation was not ready in time
	statusFailed   = 125 // hotwrap itself failed or was called wrongly
	statusNoExec   = 126 // the program cannot be executed
	statusNotFound = 127 // the program is not there
)

// stopping is an ordered stop under way.
type stopping struct {
	Cause    string    `json:"cause"`
	Since    instant   `json:"since"`
	Delay    instant   `json:"delay,omitempty"`    // serve on until then
	Requests []request `json:"requests,omitempty"` // answered at the very end
	Late     bool      `json:"late,omitempty"`     // somebody did not end in time
	Parked   bool      `json:"parked,omitempty"`   // new connections wait for the next hotwrap
	INT      instant   `json:"int,omitempty"`      // of the first SIGINT
}

// state is every fact that the supervisor owns; plain data, so that snapshot can write it.
type state struct {
	Generations []*generation `json:"generations"`         // oldest first, the gone left out
	Numbers     int           `json:"numbers"`             // generations so far
	Serials     int           `json:"serials"`             // workers so far
	Wanted      int           `json:"wanted"`              // workers of one generation
	Restart     *restart      `json:"restart,omitempty"`   // the one under way
	Pending     []request     `json:"pending,omitempty"`   // answered by the next generation, all together
	Stop        *stopping     `json:"stop,omitempty"`      // an ordered stop
	Ending      bool          `json:"ending,omitempty"`    // hotwrap ends when the last worker is gone
	Status      int           `json:"status"`              // with this status
	Helped      bool          `json:"helped,omitempty"`    // looks need the program's own user id
	Hinted      []string      `json:"hinted,omitempty"`    // listeners of its own that the program was named for
	Heartbeat   instant       `json:"heartbeat,omitempty"` // the next word for hotwrap's own watchdog
	Extend      instant       `json:"extend,omitempty"`    // the next word for a manager that waits for us
	Rebuild     rebuilding    `json:"rebuild"`
	Hooks       hooking       `json:"hooks"`
	Past        []past        `json:"past,omitempty"`     // what served before and can be gone back to, oldest first
	Verdicts    []verdict     `json:"verdicts,omitempty"` // the last of them, oldest first
	Tally       tally         `json:"tally"`
	Adopts      bool          `json:"adopts,omitempty"`   // the program binds by itself
	Learned     []learned     `json:"learned,omitempty"`  // listeners that it brought
	Unserved    []string      `json:"unserved,omitempty"` // listeners that it was named for not watching
	Reexec      *reexecution  `json:"reexec,omitempty"`   // hotwrap is being replaced
	Asked       int           `json:"asked,omitempty"`    // times that another hotwrap was asked to take over
}

// supervisor owns all state; only run and what it calls may touch it.
type supervisor struct {
	state
	leaving bool                        // run ends, and another hotwrap goes on
	dead    []int                       // reaped in this very step, not all acted on yet: their pids are nobody's
	replies map[string][]chan<- verdict // who waits for the verdict on a request, by its id
	limits  limits
	world   world
}

// step lets one event act. It is the table of the machine: the switch is on the event, each handler
// switches on all states.
func (s *supervisor) step(ev event) {
	switch ev.kind {
	case evTime:
		s.sweep() // the end of one that is not our child is told by no signal
	case evRequest:
		s.requested(ev)
	case evAwait:
		s.awaited(ev)
	case evLeft:
		s.left(ev)
	case evCopy:
		s.copied(ev)
	case evPrepared:
		s.prepared(ev)
	case evExec:
		s.executed(ev)
	case evNotice:
		s.noticed(ev)
	case evLook:
		s.looked(ev)
	case evStrays:
		s.strayed(ev)
	case evSurvey:
		s.surveyed(s.generation(ev.number), ev.has)
	case evProbe:
		s.probed(ev)
	case evProposed:
		s.proposed(ev.number, ev.err)
	case evChild:
		s.buried(ev.ended...)
	case evKept: // the host's own
	case evCall:
		s.called(ev)
	case evSay:
		s.say(ev.message)
	case evChanged:
		s.changed(ev.trigger)
	case evSpoilt:
		s.spoilt(ev.name)
	}
	s.due()
}

// spoilt mends a listener that a program has shut down or taken away. Nobody serves the new socket yet, hence a restart.
func (s *supervisor) spoilt(name string) {
	if s.world.repair(name) && !s.Ending {
		s.askedRestart(request{Ask: askRestart, Cause: "repair"})
	}
}

// buried acts on all that have ended since, those too of which no wait tells.
func (s *supervisor) buried(others ...death) {
	deaths := append(s.world.reap(), others...)
	for _, d := range deaths {
		s.dead = append(s.dead, d.pid)
	}
	for _, d := range deaths {
		s.exited(d)
	}
	s.dead = nil
	s.sweep()
}

// done tells whether everything that was started has ended and hotwrap may go.
func (s *supervisor) done() bool {
	return s.Ending && len(s.Generations) == 0 && s.Rebuild.PID == 0 && s.Hooks.idle()
}

// start begins the first generation.
func (s *supervisor) start() {
	s.Wanted = s.limits.workers
	if s.limits.heartbeat > 0 {
		s.Heartbeat = s.world.now()
	}
	if s.limits.build {
		s.startBuild()
		s.nextHook()
		return
	}
	s.begin([]request{{Ask: askRestart, Cause: "start"}})
}

func (s *supervisor) requested(ev event) {
	r, again := s.taken(ev)
	if again {
		return
	}
	switch r.Ask {
	case askRestart, askRollback:
		if r.Ask == askRollback && s.canary() {
			s.abortCanary(r)
			return
		}
		s.askedRestart(r)
	case askSignal:
		s.signalWorkers(r)
	case askStop:
		s.askedStop(r)
	case askKill:
		s.askedStop(r)
		s.killAll()
	case askReopen:
		s.world.reopen(r.Cause)
		s.answer(r, signalled, nil, "")
	case askWorkers:
		s.resize(r)
	case askReexec:
		s.askedReexec(r)
	}
}

// askedAgain takes one more request to stop. It changes nothing, but for an INT that is not the echo of the first: that
// one kills.
func (s *supervisor) askedAgain(r request) {
	if len(s.Stop.Requests) < pendingMost {
		s.Stop.Requests = append(s.Stop.Requests, r)
	} else {
		s.answer(r, failed, nil, fmt.Sprintf("%s wait already", count(pendingMost, "request")))
	}
	switch {
	case r.Cause != "SIGINT":
	case s.Stop.INT == 0:
		s.Stop.INT = s.world.now()
	case s.world.now().since(s.Stop.INT) >= secondINT:
		s.killAll()
	}
}

// askedStop ends everything in order.
func (s *supervisor) askedStop(r request) {
	if s.Stop != nil {
		s.askedAgain(r)
		return
	}
	now := s.world.now()
	if !s.Ending {
		s.hook(hookStop, s.serving(), "")
	}
	s.Stop, s.Ending = &stopping{Cause: r.Cause, Since: now, Requests: []request{r}}, true
	s.Extend = 0
	if r.Cause == "SIGINT" {
		s.Stop.INT = now
	}
	if s.limits.stopDelay > 0 && s.serving() != nil {
		s.Stop.Delay = now.add(s.limits.stopDelay)
	}
	if s.Reexec != nil {
		s.stay("hotwrap is stopping")
	}
	if n := len(s.Pending); n > 0 {
		s.say(info("%s that waited will not come: hotwrap is stopping", count(n, "restart")))
	}
	s.stopBuild()
	s.answerAll(s.Pending, stopped, nil, "hotwrap is stopping")
	s.Pending = nil
	if r := s.Restart; r != nil {
		if g := s.generation(r.Successor); g != nil { // else it failed already, and its predecessor still ends
			s.abandon(g, stopped, "hotwrap is stopping")
		}
	}
	if s.Stop.Delay != 0 {
		s.say(info("stopping in %s", brief(s.limits.stopDelay)).with("by", r.by()).tell(upStopping).about(hapStopping, 0))
	} else {
		s.say(info("stopping").with("by", r.by()).tell(upStopping).about(hapStopping, 0))
		s.stopAll()
	}
}

// stopAll drains every generation within the stop limit.
func (s *supervisor) stopAll() {
	s.Stop.Delay = 0
	s.Stop.Parked = s.world.closing() || s.Stop.Parked
	limit := s.world.now().add(s.limits.stopTimeout)
	for _, g := range slices.Clone(s.Generations) {
		switch g.State {
		case genServing:
			s.drain(g, s.limits.stopTimeout)
		case genDraining:
			g.Deadline = min(g.Deadline, limit) // none stays none: KILL is on its way
			if g.Survey != surveyStop {
				s.stopWorkers(g)
			}
		case genFailed:
			s.relieve(g)
			for _, w := range g.Workers {
				w.Limit = min(w.Limit, limit) // none stays none: it has KILL
			}
		case genStarting, genReady, genGone: // abandoned before this, or no more
		}
	}
}

// killAll ends what is left at once, by order.
func (s *supervisor) killAll() {
	s.say(warning("killing all that is left"))
	s.endHooks()
	s.stopAll()
	for _, g := range slices.Clone(s.Generations) {
		s.killGeneration(g)
	}
}

// stateCopy is all that the supervisor's goroutine knows: who has it may take its time.
type stateCopy struct {
	text      []byte     // as snapshot writes it
	listeners []listener // as they are now: a repair changes them
	numbers   []int      // their descriptors in the program
	lost      int        // lines of the log
}

func (s *supervisor) copied(ev event) {
	c := s.world.facts()
	c.text, _ = s.snapshot()
	ev.copy <- c
}

// answerStop tells everybody who asked for the stop that it is over.
func (s *supervisor) answerStop() {
	reason := ""
	if s.Stop.Late {
		reason = "not everybody ended in time; what was left was killed"
	}
	for _, r := range s.Stop.Requests {
		v := verdict{Request: r, Result: stopped, Reason: reason, At: s.world.now(), Began: s.Stop.Since, Exit: s.Status}
		s.remember(v)
	}
	s.Stop.Requests = nil
}

// generation finds one by its number; nil when it is gone.
func (s *state) generation(number int) *generation {
	for _, g := range s.Generations {
		if g.Number == number {
			return g
		}
	}
	return nil
}

// worker finds one by its serial, with its generation; nil when it is gone.
func (s *state) worker(serial int) (*generation, *worker) {
	for _, g := range s.Generations {
		for _, w := range g.Workers {
			if w.Serial == serial {
				return g, w
			}
		}
	}
	return nil, nil
}

// serving finds the generation that serves; nil before the first is ready and while none overlaps.
func (s *state) serving() *generation {
	for _, g := range s.Generations {
		if g.State == genServing {
			return g
		}
	}
	return nil
}

func (s *supervisor) say(m message) { s.world.say(m) }

// detail is for lines that a person in the dev loop need not read: there one line says what changed,
// and one that it is ready.
func (s *supervisor) detail(m message) {
	if s.limits.wait && m.level == levelInfo {
		m.level = levelVerbose
	}
	s.say(m)
}

// remedy says what to do about an error, where it is known.
func (s *supervisor) remedy(err error) {
	if text := remedyFor(err); text != "" {
		s.say(hint("%s", text))
	}
}

// run owns s until everything has ended, and returns hotwrap's exit status, or until another hotwrap is to go on. seen, if
// not nil, is told each event after it acted.
func (s *supervisor) run(events <-chan event, seen func(event)) int {
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !s.done() && !s.leaving {
		timer.Stop()
		if all := s.deadlines(); len(all) > 0 {
			timer.Reset(slices.Min(all).since(s.world.now()))
		}
		ev := event{kind: evTime}
		select {
		case ev = <-events:
		case <-timer.C:
		}
		s.step(ev)
		if seen != nil {
			seen(ev)
		}
	}
	return s.Status
}

// snapshot writes the state; restore reads it back. It is the only written form there is. Unknown
// fields are ignored and missing ones have their zero value, so that versions may differ both ways.
func (s *supervisor) snapshot() ([]byte, error) { return json.Marshal(s.state) }

func (s *supervisor) restore(text []byte) error {
	s.state = state{}
	if err := json.Unmarshal(text, &s.state); err != nil {
		return fmt.Errorf("cannot read the state: %v", err)
	}
	return nil
}
