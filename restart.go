package main

// This file is one restart, from the request to the verdict: the candidate, its trials, the switch, and the way back.
//
// Its rules:
//   - There is one restart at a time; requests that come meanwhile wait for the next, together.
//   - A plan is data, and advance walks it: nothing else decides what comes next.
//   - Until the switch the predecessor serves and notices nothing, and each failure before it leads to abandon.

import (
	"fmt"
	"slices"
	"time"
)

// trial is one stage that a ready successor must survive before the switch.
type trial struct {
	Kind  trialKind     `json:"kind"`
	Limit time.Duration `json:"limit"`
	Share int           `json:"share,omitempty"` // trialCanary: of the new connections, per mille
}

type trialKind string

const (
	trialBake   trialKind = "bake"   // live on beside the warm predecessor
	trialCanary trialKind = "canary" // with a share of the new connections
)

// plan is one restart as data; advance walks it.
type plan struct {
	Overlap bool    `json:"overlap"` // the successor starts before the predecessor stops
	Batch   int     `json:"batch"`   // workers replaced at once
	Trials  []trial `json:"trials,omitempty"`
}

// restart is the one restart under way; the very first start is one too, without a predecessor.
type restart struct {
	Plan        plan       `json:"plan"`
	Stage       int        `json:"stage"` // index of the trial that the ready successor is in
	Requests    []request  `json:"requests"`
	Successor   int        `json:"successor"`
	Predecessor int        `json:"predecessor,omitempty"`
	Began       instant    `json:"began"`
	Begun       int        `json:"begun,omitempty"` // slots of the successor whose worker was started
	Phase       batchPhase `json:"phase,omitempty"` // of the batch that was started last
	Canary      canaryRun  `json:"canary,omitzero"` // in the step that it is in
}

// askedRestart starts a restart, or lets the request wait for the next one: requests that wait
// together share a generation, one that asks for something else displaces them.
func (s *supervisor) askedRestart(r request) {
	switch {
	case s.Ending:
		s.say(info("no restart: hotwrap is stopping").with("by", r.Cause))
		s.answer(r, stopped, nil, "hotwrap is stopping")
	case s.unfit(r) != "":
		s.refuseCanary([]request{r}, s.unfit(r))
	case len(s.Pending) >= pendingMost:
		s.answer(r, failed, nil, fmt.Sprintf("%s wait already", count(pendingMost, "request")))
	case r.Ask == askRestart && s.firstBuild():
		s.pend(r)
		s.say(verbose("the restart waits for the build").with("by", r.by()))
	case s.Restart == nil && !s.announcing() && !s.clearing():
		s.begin([]request{r})
	default:
		s.pend(r)
		s.sayWaits(r)
	}
}

// firstBuild tells whether --build runs before the first start.
func (s *supervisor) firstBuild() bool { return s.Numbers == 0 && s.Rebuild.PID != 0 }

// pend lets a request wait for the next generation, in the place of those that ask for something else.
func (s *supervisor) pend(r request) {
	if len(s.Pending) > 0 && !s.Pending[0].joins(r) {
		s.answerAll(s.Pending, superseded, nil, fmt.Sprintf("a %s took its place, by %s", r.Ask, r.by()))
		s.Pending = nil
	}
	s.Pending = append(s.Pending, r)
}

// begin starts the next generation for rs: it is prepared first, away from this goroutine.
func (s *supervisor) begin(rs []request) {
	now := s.world.now()
	var old *image
	if rs[0].Ask == askRollback {
		if old = s.before().Image; old == nil {
			s.refuseRollback(rs)
			return
		}
	}
	if len(rs[0].Canary) > 0 && s.serving() == nil {
		s.refuseCanary(rs, "no generation serves")
		return
	}
	s.Numbers++
	g := &generation{
		Number: s.Numbers, State: genStarting, Cause: rs[len(rs)-1].by(), Started: now,
		Deadline: now.add(s.limits.readyTimeout), // also for a file system that hangs
		Slots:    make([]slot, s.Wanted), Busy: true, Stage: stagePrepare,
	}
	g.Adopted = s.limits.adopt == adoptAlways || s.Adopts
	p := s.serving()
	s.Restart = &restart{Plan: s.plan(p != nil, rs[0].Canary), Requests: rs, Successor: g.Number, Began: now}
	if p != nil {
		s.Restart.Predecessor = p.Number
		s.say(verbose("restart begins").with("by", g.Cause).tell(upReloading))
		s.Extend = 0 // its time-out begins anew
	}
	s.Generations = append(s.Generations, g)
	if r := rs[len(rs)-1]; r.Watch != "" {
		if r.Build == "" || !s.limits.build { // else the build's output is there to be read
			s.world.clear()
		}
		s.say(s.fresh()("%s; starting %d", r.Watch, g.Number))
	}
	s.world.prepare(g, p, old)
}

// plan is how the next restart goes, or the first start, which replaces nothing.
func (s *supervisor) plan(replaces bool, canary []canaryStep) plan {
	p := plan{Overlap: s.limits.overlap, Batch: s.Wanted}
	if replaces && p.Overlap && s.limits.surge > 0 && len(canary) == 0 {
		p.Batch = min(s.limits.surge, s.Wanted)
	}
	if s.limits.bake > 0 {
		p.Trials = append(p.Trials, trial{Kind: trialBake, Limit: s.limits.bake})
	}
	p.Trials = append(p.Trials, s.canaryTrials(canary)...)
	return p
}

// bake is how long a successor must live on beside its warm predecessor; 0 not at all.
func (p plan) bake() time.Duration {
	for _, t := range p.Trials {
		if t.Kind == trialBake {
			return t.Limit
		}
	}
	return 0
}

// prepared goes on with a generation whose image is pinned: --check, then the start.
func (s *supervisor) prepared(ev event) {
	g := s.generation(ev.number)
	if g == nil { // abandoned while it was being prepared
		s.world.release(&generation{Number: ev.number, Image: ev.image})
		return
	}
	g.Image, g.Busy = ev.image, false
	if ev.err != nil {
		if !s.notYet(g, ev.err) {
			s.fail(g, ev.err.Error(), execStatus(ev.err))
			s.remedy(ev.err)
		}
		return
	}
	if s.Restart.Requests[0].Ask != askRollback { // else the watch would bring back at once what lies on disk
		s.world.runs(g.Image.Build)
	}
	s.unask(g.Image.Build)
	for _, text := range ev.warnings {
		s.say(warning("%s", text))
	}
	if !s.limits.check {
		s.launch(g)
		return
	}
	pid, err := s.world.check(g)
	if err != nil {
		s.fail(g, fmt.Sprintf("cannot run --check: %v", err), statusFailed)
		return
	}
	g.Check, g.Stage = pid, stageCheck
	g.Deadline = s.world.now().add(s.limits.readyTimeout)
	s.say(info("generation %d checking", g.Number).with("pid", pid).about(hapChecking, g.Number))
}

// launch starts the workers, after the predecessor's end if the plan knows no overlap.
func (s *supervisor) launch(g *generation) {
	g.Stage = stageStart
	p := s.generation(s.Restart.Predecessor)
	if !s.Restart.Plan.Overlap && p != nil {
		g.Held, p.Fallback, g.Deadline = true, true, 0
		s.drain(p, s.limits.drainTimeout)
		return
	}
	s.startBatch(g)
}

// spawn starts the next worker of a slot, from the generation's own pin. With an error, it tells which worker it would be.
func (s *supervisor) spawn(g *generation, i int) (*worker, error) {
	now := s.world.now()
	s.Serials++
	w := &worker{Serial: s.Serials, Slot: i, Adopted: g.Adopted, State: workerStarting, Started: now, Pause: lookFirst, Beat: g.beat()}
	w.Wants = s.wants(g, i)
	if w.Needs = w.Wants; g.Answered {
		w.Needs &^= needAnswer
	}
	pid, err := s.world.spawn(g, w)
	if err != nil {
		return w, err
	}
	w.PID, w.Group = pid, pid
	if i == 0 {
		g.Lead = pid
	}
	g.Slots[i].Start = 0
	g.Workers = append(g.Workers, w)
	return w, nil
}

// generationReady begins the trial of a successor; the first generation serves at once.
func (s *supervisor) generationReady(g *generation, w *worker) {
	g.State, g.Deadline, g.Stage = genReady, 0, stageBake
	g.ReadyAfter = s.world.now().since(g.Started)
	s.hook(hookReady, g, "")
	m := info("generation %d ready", g.Number)
	if n := len(g.Slots); n == 1 {
		m = m.with("pid", w.PID)
	} else {
		m = m.with("workers", n)
	}
	m = m.with("after", g.ReadyAfter).with("by", w.by()).about(hapReady, g.Number)
	switch {
	case s.limits.wait:
		s.say(info("%d ready in %s", g.Number, brief(g.ReadyAfter)).tell(upReady).about(hapReady, g.Number))
	case s.Restart.Predecessor == 0:
		s.say(m.tell(upReady))
	case s.Restart.Plan.bake() > 0 && s.warm():
		s.say(m.end("baking %s", brief(s.limits.bake)))
	default:
		s.say(m)
	}
	s.advance()
}

// warm tells whether the predecessor could still take over: without it there is nothing to wait for.
func (s *supervisor) warm() bool {
	p := s.generation(s.Restart.Predecessor)
	return p != nil && (p.Fallback || p.readyWorkers() > 0)
}

// advance enters the trial that the plan has next, or makes the switch.
func (s *supervisor) advance() {
	r := s.Restart
	g := s.generation(r.Successor)
	if r.Stage >= len(r.Plan.Trials) || !s.warm() {
		s.switchTo(g)
		return
	}
	switch t := r.Plan.Trials[r.Stage]; t.Kind {
	case trialBake:
		g.Deadline = s.world.now().add(t.Limit)
	case trialCanary:
		s.enterStep(g, t)
	}
}

// switchTo makes g the serving generation and lets its predecessor go.
func (s *supervisor) switchTo(g *generation) {
	r := s.Restart
	p := s.generation(r.Predecessor)
	to, err := s.world.route(map[int]int{g.Number: 1})
	if err != nil && s.warm() {
		s.fail(g, err.Error(), statusFailed)
		return
	}
	g.stopAsking()
	s.endCanary()
	g.Steered, g.Alone = to.steered, to.alone
	g.State, g.Deadline, g.Served, g.Serves = genServing, 0, true, s.world.now()
	s.Rebuild.Overtaken, s.Rebuild.NotYet, s.Rebuild.Tried, s.Rebuild.Bad = 0, 0, "", ""
	s.world.promote(g)
	s.hook(hookSwitch, g, "")
	if r.Requests != nil && r.Requests[0].Ask == askRollback { // before the verdict, so that who asked sees it
		s.sayDisk(g)
	}
	s.answerAll(r.Requests, promoted, g, "")
	s.Restart = nil
	switch {
	case p == nil:
		s.say(verbose("generation %d serving", g.Number).about(hapSwitch, g.Number))
	case p.Fallback || len(p.Workers) == 0:
		s.say(info("generation %d serving", g.Number).tell(upReady).about(hapSwitch, g.Number))
		p.State, p.Fallback = genDraining, false
		if p.Drain == 0 { // it died before it was told to
			p.Drain, p.Deadline = s.world.now(), s.world.now().add(s.limits.drainTimeout)
		}
		s.emptied(p)
	default:
		s.drain(p, s.limits.drainTimeout)
	}
	s.handover()
	s.next()
}

// fail ends a generation that never served. Its predecessor does not notice.
func (s *supervisor) fail(g *generation, reason string, status int) {
	first := s.Restart.Predecessor == 0
	g.Exit = status
	s.hook(hookFailed, g, reason)
	text := fmt.Sprintf("generation %d failed: %s", g.Number, reason)
	if first && len(g.Workers) == 0 {
		text = reason // nothing ran: it is hotwrap that cannot start
	}
	p := s.generation(s.Restart.Predecessor)
	if g.Image != nil {
		s.Rebuild.Bad = g.Image.Build
	}
	switch {
	case first && s.limits.wait:
		s.waits(text)
	case first:
		s.leave(status)
		s.say(failure("%s", text).about(hapFailed, g.Number))
	case p != nil && p.Fallback:
		s.say(warning("%s; generation %d is started again", text, p.Number).tell(upReady).about(hapFailed, g.Number))
	case p != nil && p.readyWorkers() > 0:
		text = fmt.Sprintf("%s; generation %d serves on", text, p.Number)
		if n := p.replaced(); n > 0 {
			text += fmt.Sprintf(", %d of its %d workers are started again", n, len(p.Slots))
		}
		s.say(warning("%s", text).tell(upReady).about(hapFailed, g.Number))
	default:
		s.say(warning("%s", text).tell(upReady).about(hapFailed, g.Number))
	}
	s.abandon(g, failed, reason)
	if first && s.Ending {
		s.answerAll(s.Pending, failed, g, reason)
		s.Pending = nil
	}
}

// abandon stops a candidate that will not serve, and answers for it.
func (s *supervisor) abandon(g *generation, res result, reason string) {
	r := s.Restart
	g.State, g.Held, g.Deadline = genFailed, false, 0
	g.stopAsking()
	s.killCommand(g.Check)
	s.endCanary()
	p := s.generation(r.Predecessor)
	s.answerAll(r.Requests, res, g, reason)
	r.Requests = nil
	if p != nil && !s.Ending {
		s.refill(p)
	}
	s.steer()
	if p == nil || !p.Fallback {
		s.Restart = nil
	}
	s.dismissAll(g)
	s.next()
	lost := p != nil && p.State == genServing && s.gaveUp(p)
	if lost && s.Restart == nil && !s.Ending && s.Rebuild.Look == 0 { // nothing that comes may mend it
		s.end(p)
	}
}

// dismissAll tells the workers of a candidate to finish, those that are needed when they are needed no more.
func (s *supervisor) dismissAll(g *generation) {
	for _, w := range slices.Clone(g.Workers) {
		if w.State != workerReady {
			s.dismiss(g, w)
		}
	}
	s.relieve(g)
	s.emptied(g)
}

// announcing tells whether the line about the last switch is still to come: what follows must not
// overtake it, in the log nor upward.
func (s *supervisor) announcing() bool {
	return slices.ContainsFunc(s.Generations, func(g *generation) bool { return g.Survey == surveyStop })
}

// next starts the restart that waits, if nothing is in its way.
func (s *supervisor) next() {
	s.fit()
	if s.Restart != nil || s.Ending || len(s.Pending) == 0 || s.announcing() || s.clearing() {
		return
	}
	rs := s.Pending
	s.Pending = nil
	s.begin(rs)
}

// revive starts the predecessor again from its pin, after a successor that was not to overlap it failed.
func (s *supervisor) revive(p *generation) {
	now := s.world.now()
	s.Restart = nil
	p.State, p.Fallback, p.Deadline, p.Report, p.Drain = genServing, false, 0, 0, 0
	p.Survey, p.Surveyed = surveyNone, 0 // the answer may still come: it is about what has ended
	for i := range p.Slots {
		p.Slots[i].Start, p.Slots[i].Failures, p.Slots[i].Over, p.Slots[i].Yielded = now, 0, false, false
	}
	s.next()
}
