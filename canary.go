package main

// This file is the canary: a ready successor gets a share of the new connections, step by step, before it gets all.
//
// Its rules:
//   - Whatever goes wrong, everything goes to the predecessor again at once, and nobody whom the successor serves is cut off.
//   - Who asked gets one verdict, at the very end: a canary is a restart that takes longer.
//   - What is looked at, is looked at from the beginning of each step to its end.

import (
	"errors"
	"fmt"
	"runtime"
	"strconv"
	"strings"
	"time"
)

const (
	canaryMost   = 20               // steps
	canaryWhole  = 1000             // shares are per mille
	canaryEvery  = 10 * time.Second // from one --canary-check to the next, at most
	canaryPart   = 5                // and at most that part of a step
	canarySlack  = 5 * time.Second  // that a check may take longer than from one to the next
	commandMost  = 4000             // bytes of --canary-check
	canaryFormat = "it is PERCENT%:TIME, as 5%:2m, and more steps after a comma"
)

// canaryStep is one step of a canary: so much for so long.
type canaryStep struct {
	Share int           `json:"share"` // of the new connections, per mille
	Time  time.Duration `json:"time"`
}

// canaryRun is how far a restart has come with a step of its canary.
type canaryRun struct {
	PID   int     `json:"pid,omitempty"` // of the --canary-check that runs
	Began instant `json:"began,omitempty"`
	Limit instant `json:"limit,omitempty"` // it has failed then
	Next  instant `json:"next,omitempty"`  // the next begins
	Over  bool    `json:"over,omitempty"`  // the step's time is
	Last  bool    `json:"last,omitempty"`  // the one that runs began after that
}

// parseCanary reads --canary.
func parseCanary(text string) (steps []canaryStep, err error) {
	if strings.TrimSpace(text) == "" {
		return nil, errors.New(canaryFormat)
	}
	before := 0
	for part := range strings.SplitSeq(text, ",") {
		step, err := parseStep(strings.TrimSpace(part))
		if err != nil {
			return nil, err
		}
		if step.Share <= before {
			return nil, fmt.Errorf("%q: each step gets more than the one before it, which had %s", part, percent(before))
		}
		before = step.Share
		steps = append(steps, step)
	}
	if len(steps) > canaryMost {
		return nil, fmt.Errorf("%d steps are the most", canaryMost)
	}
	return steps, nil
}

func parseStep(text string) (step canaryStep, err error) {
	share, lasts, both := strings.Cut(text, ":")
	number, marked := strings.CutSuffix(share, "%")
	if !both || !marked {
		return step, fmt.Errorf("%q: %s", text, canaryFormat)
	}
	whole, tenth, dotted := strings.Cut(number, ".")
	if !allDigits(whole) || dotted && !allDigits(tenth) || len(whole) > 3 {
		return step, fmt.Errorf("%q is no share, as 5%% or 0.5%%", share)
	}
	if len(tenth) > 1 {
		return step, fmt.Errorf("%q: a share has one decimal at most", share)
	}
	step.Share, _ = strconv.Atoi(whole + (tenth + "0")[:1])
	if step.Share == 0 || step.Share >= canaryWhole {
		return step, fmt.Errorf("%q: a share is above 0%% and below 100%%", share)
	}
	var d duration
	if err := d.Set(lasts); err != nil {
		return step, fmt.Errorf("%q: %v", lasts, err)
	}
	if step.Time = d.d; step.Time == 0 {
		return step, fmt.Errorf("%q: a step takes time", text)
	}
	return step, nil
}

// checkCommand tells whether a --canary-check can be one.
func checkCommand(text string) error {
	switch {
	case len(text) > commandMost:
		return fmt.Errorf("the check is over %d bytes", commandMost)
	case strings.Contains(text, "\x00"):
		return errors.New("the check has a zero byte")
	}
	return nil
}

// percent writes a share: 5%, 0.5%.
func percent(share int) string {
	return strconv.FormatFloat(float64(share)*100/canaryWhole, 'f', -1, 64) + "%"
}

// canaryText writes steps as parseCanary reads them.
func canaryText(steps []canaryStep) string {
	var texts []string
	for _, step := range steps {
		texts = append(texts, percent(step.Share)+":"+step.Time.String())
	}
	return strings.Join(texts, ",")
}

// unsteered says why new connections cannot be given to one generation and kept from another; "" if they can, for all
// that is known before there are listeners.
func unsteered(environ []string) string {
	switch {
	case runtime.GOOS != "linux":
		return "it is not available on " + runtime.GOOS
	case shares(environ):
		return "HOTWRAP_SHARE lets whoever accepts first serve"
	}
	return ""
}

// unsteered is the same once there are.
func (h *host) unsteered(environ []string) string {
	if why := unsteered(environ); why != "" {
		return why
	}
	if h.permits.steering != nil {
		return h.permits.steering.Error()
	}
	for i, l := range h.program.listeners {
		if !h.traffic.steers(i) {
			return fmt.Sprintf("listener %q (%s) cannot be steered", l.name, l.network)
		}
	}
	return ""
}

// --- before

// unfit says why a request for a canary cannot be met, whatever runs; "" if it can.
func (s *supervisor) unfit(r request) string {
	switch {
	case len(r.Canary) == 0:
		return ""
	case !s.limits.overlap:
		return "without overlap there is nobody beside the successor"
	case s.limits.unsteered != "":
		return s.limits.unsteered
	}
	if p := s.serving(); p != nil && !p.Alone { // it has no listener, or brought some that cannot be
		return "not all listeners can be steered"
	}
	return ""
}

// refuseCanary answers those whose canary cannot be.
func (s *supervisor) refuseCanary(rs []request, reason string) {
	reason = "no canary: " + reason
	s.say(warning("%s", reason).with("by", rs[0].by()))
	s.answerAll(rs, failed, nil, reason)
	s.next()
}

// canaryTrials are the stages of a plan for a canary.
func (s *supervisor) canaryTrials(steps []canaryStep) (trials []trial) {
	for _, step := range steps {
		trials = append(trials, trial{Kind: trialCanary, Limit: step.Time, Share: step.Share})
	}
	if len(steps) > 0 && s.limits.surge > 0 && s.once("surge") {
		s.say(info("--surge is not for a canary: all %s of the successor start", count(s.Wanted, "worker")))
	}
	return trials
}

// --- while it runs

// canary tells whether the restart under way is one with a canary that can be given up for its predecessor.
func (s *supervisor) canary() bool {
	return s.Restart != nil && len(s.Restart.Requests) > 0 && len(s.Restart.Requests[0].Canary) > 0 && s.candidate() != nil && s.warm()
}

// step is the step of a canary that a successor is in; nil if it is in none.
func (s *state) canaryStep() (*generation, *trial) {
	r := s.Restart
	if r == nil || r.Stage >= len(r.Plan.Trials) {
		return nil, nil
	}
	if g, t := s.generation(r.Successor), &r.Plan.Trials[r.Stage]; g != nil && g.State == genReady && g.Stage == stageCanary {
		return g, t
	}
	return nil, nil
}

// sayWaits says that a restart waits for the one before it; for a canary that may be long.
func (s *supervisor) sayWaits(r request) {
	m := verbose("the %s waits for the one before it", r.Ask)
	if s.canary() {
		m = info("the %s waits for the canary of generation %d", r.Ask, s.Restart.Successor).end("hotwrap rollback aborts that")
	}
	s.say(m.with("by", r.by()))
}

// enterStep lets g have its share.
func (s *supervisor) enterStep(g *generation, t trial) {
	g.Stage, s.Restart.Canary = stageCanary, canaryRun{}
	g.Deadline = s.world.now().add(t.Limit)
	if err := s.share(s.shares()); err != nil {
		s.fail(g, fmt.Sprintf("cannot give it %s of the connections: %v", percent(t.Share), err), statusFailed)
		return
	}
	s.say(info("generation %d gets %s for %s", g.Number, percent(t.Share), brief(t.Limit)).tell(upReady).about(hapCanary, g.Number))
	s.checkCanary(g)
}

// trialOver goes on when the time of a trial is over; the step of a canary waits for one more check.
func (s *supervisor) trialOver(g *generation) {
	r := s.Restart
	if _, t := s.canaryStep(); t != nil && r.Requests[0].CanaryCheck != "" {
		g.Deadline = 0
		r.Canary.Over, r.Canary.Next = true, 0
		if r.Canary.PID == 0 {
			s.checkCanary(g)
		}
		return
	}
	r.Stage++
	s.advance()
}

// canaryPause is from one check to the next.
func canaryPause(t *trial) time.Duration { return min(canaryEvery, t.Limit/canaryPart) }

// checkCanary runs --canary-check, if there is one.
func (s *supervisor) checkCanary(g *generation) {
	r := s.Restart
	_, t := s.canaryStep()
	if r.Requests[0].CanaryCheck == "" || t == nil {
		return
	}
	k := hook{Event: "canary", Generation: g.Number, PID: g.Lead, Build: g.Image.Build, Predecessor: r.Predecessor, Image: g.Image}
	pid, err := s.world.canary(r.Requests[0].CanaryCheck, k)
	if err != nil {
		s.fail(g, fmt.Sprintf("cannot run --canary-check: %v", err), statusFailed)
		return
	}
	now, c := s.world.now(), &r.Canary
	c.PID, c.Began, c.Next, c.Last = pid, now, 0, c.Over
	c.Limit = now.add(canaryPause(t) + canarySlack)
}

// canaryChecked takes the end of a check.
func (s *supervisor) canaryChecked(status exitStatus) {
	c := &s.Restart.Canary
	c.PID, c.Limit = 0, 0
	g, t := s.canaryStep()
	switch {
	case g == nil:
	case !status.ok():
		s.fail(g, "--canary-check "+status.String()+g.meanwhile(), statusFailed)
	case c.Last:
		s.Restart.Stage++
		s.advance()
	case c.Over:
		s.checkCanary(g)
	default:
		if c.Next = max(s.world.now(), c.Began.add(canaryPause(t))); c.Next >= g.Deadline {
			c.Next = 0 // the last one comes then
		}
	}
}

// dueCanary begins the check that is due, and fails one that takes too long.
func (s *supervisor) dueCanary(now instant) {
	g, t := s.canaryStep()
	if g == nil {
		return
	}
	c := &s.Restart.Canary
	switch {
	case c.Limit.due(now):
		s.fail(g, "--canary-check did not end within "+brief(canaryPause(t)+canarySlack)+g.meanwhile(), statusFailed)
	case c.Next.due(now):
		s.checkCanary(g)
	}
}

// endCanary ends what a canary needed, however it went.
func (s *supervisor) endCanary() {
	s.killCommand(s.Restart.Canary.PID)
	s.Restart.Canary = canaryRun{}
}

// abortCanary gives up the successor for its predecessor, which is all that a rollback could want.
func (s *supervisor) abortCanary(r request) {
	g, p := s.candidate(), s.generation(s.Restart.Predecessor)
	const reason = "the canary was aborted"
	s.answerAll(s.Pending, superseded, nil, fmt.Sprintf("a %s took its place, by %s", r.Ask, r.by()))
	s.Pending = nil
	s.say(info("generation %d stopped, %s; generation %d serves on", g.Number, reason, p.Number).with("by", r.by()).tell(upReady))
	s.abandon(g, superseded, reason+", by "+r.by())
	v := verdict{Request: r, Result: promoted, Reason: reason, Generation: p.Number, At: s.world.now()}
	if p.Image != nil {
		v.Build, v.Path = p.Image.Build, p.Image.Path
	}
	v.servedBy(p)
	s.remember(v)
}
