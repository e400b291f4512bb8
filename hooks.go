package main

// This file runs --hook: commands of the user for what happens to generations.
//
// Its rules:
//   - One at a time, in the order of what happened: a registry never hears that a generation is gone
//     before it hears of its successor.
//   - Nothing waits for a hook but the end of hotwrap, and that not for ever.
//   - A hook runs like --check, in the directory and environment of the generation that it is about,
//     also if that one is gone by the time of its turn.

import (
	"errors"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	hooksWaiting = 64               // then the oldest is dropped
	hookLimit    = 30 * time.Second // for one hook; then KILL
)

// hookEvent is what a hook is for; a user writes these words.
type hookEvent string

const (
	hookReady   hookEvent = "ready"   // a generation has become ready
	hookSwitch  hookEvent = "switch"  // it serves from now on
	hookFailed  hookEvent = "failed"  // it failed before that, or was given up after
	hookDrained hookEvent = "drained" // one that served is gone
	hookStop    hookEvent = "stop"    // hotwrap begins to end
)

var hookEvents = []hookEvent{hookReady, hookSwitch, hookFailed, hookDrained, hookStop}

// hookSpec is one --hook.
type hookSpec struct {
	event   hookEvent
	command string
}

// hookValues is --hook, which may be repeated.
type hookValues struct{ specs *[]hookSpec }

func (v hookValues) Set(text string) error {
	event, command, _ := strings.Cut(text, "=")
	if !slices.Contains(hookEvents, hookEvent(event)) || strings.TrimSpace(command) == "" {
		return errors.New("it is EVENT=COMMAND, and EVENT is ready, switch, failed, drained or stop")
	}
	*v.specs = append(*v.specs, hookSpec{hookEvent(event), command})
	return nil
}
func (v hookValues) String() string { return "" }

// hook is one run of a command, with what it is told: how things were when it happened.
type hook struct {
	Spec        int       `json:"spec"` // which --hook, from 0
	Event       hookEvent `json:"event"`
	Generation  int       `json:"generation,omitempty"` // whom it is about; 0 nobody, as for the rest
	PID         int       `json:"pid,omitempty"`        // of its first worker
	Build       string    `json:"build,omitempty"`
	Predecessor int       `json:"predecessor,omitempty"`
	Reason      string    `json:"reason,omitempty"`
	Status      string    `json:"status,omitempty"` // of the worker that ended last
	Image       *image    `json:"image,omitempty"`  // its own pin of directory and environment
}

// hooking is what the supervisor knows of hooks.
type hooking struct {
	Queue    []hook  `json:"queue,omitempty"`   // the oldest first
	Dropped  int     `json:"dropped,omitempty"` // too many waited
	PID      int     `json:"pid,omitempty"`     // of the one that runs
	Running  hook    `json:"running,omitzero"`  // that one
	Began    instant `json:"began,omitempty"`
	Deadline instant `json:"deadline,omitempty"` // KILL; after that, it is waited for no more
	Killed   bool    `json:"killed,omitempty"`
	End      instant `json:"end,omitempty"`  // all workers are gone: hotwrap ends then at the latest
	Over     bool    `json:"over,omitempty"` // no more hooks
}

// idle tells whether no hook runs or waits.
func (h *hooking) idle() bool { return h.PID == 0 && len(h.Queue) == 0 }

// environ is what a hook is told; what does not apply is not set.
func (k hook) environ() []string {
	number := func(n int) string {
		if n == 0 {
			return ""
		}
		return strconv.Itoa(n)
	}
	return []string{
		"HOTWRAP_EVENT=" + string(k.Event), "HOTWRAP_GENERATION=" + number(k.Generation), "HOTWRAP_PID=" + number(k.PID),
		"HOTWRAP_BUILD=" + k.Build, "HOTWRAP_PREDECESSOR=" + number(k.Predecessor),
		"HOTWRAP_REASON=" + k.Reason, "HOTWRAP_STATUS=" + k.Status,
	}
}

// address is how a hook finds this hotwrap.
func (p *program) address() []string {
	if p.control == "" {
		return nil
	}
	return []string{"HOTWRAP_CONTROL=" + p.control, "HOTWRAP_NAME=" + strings.TrimSuffix(filepath.Base(p.control), socketSuffix)}
}

// forHook is what a hook needs of an image that may be let go before its turn; nil if that cannot be had.
func (img *image) forHook() *image {
	dir, err := unix.FcntlInt(uintptr(img.Dir), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil
	}
	return &image{Exe: -1, Dir: dir, env: img.env, set: img.set}
}

// hook lets the hooks of an event wait for their turn. g is whom it is about; nil: nobody.
func (s *supervisor) hook(event hookEvent, g *generation, reason string) {
	h := &s.Hooks
	for i, spec := range s.limits.hooks {
		if spec.event != event || h.Over {
			continue
		}
		k := hook{Spec: i, Event: event, Reason: reason}
		if g != nil {
			s.inform(&k, g)
		}
		if len(h.Queue) == hooksWaiting {
			h.Dropped++
			s.discard(h.Queue[:1])
			h.Queue = slices.Delete(h.Queue, 0, 1)
		}
		h.Queue = append(h.Queue, k)
	}
}

// inform adds what is known of the generation that a hook is about.
func (s *supervisor) inform(k *hook, g *generation) {
	k.Generation, k.PID = g.Number, g.Lead
	if g.Image != nil {
		k.Build, k.Image = g.Image.Build, s.world.pin(g.Image)
	}
	if r := s.Restart; r != nil && r.Successor == g.Number {
		k.Predecessor = r.Predecessor
	}
	switch k.Event {
	case hookFailed:
		if g.Fallen != nil {
			k.Status = g.Fallen.Status.short()
		}
	case hookDrained:
		k.Status = g.Status.short()
	case hookReady, hookSwitch, hookStop:
	}
}

// discard lets go of hooks that are not run, or have their descriptors now.
func (s *supervisor) discard(list []hook) {
	for _, k := range list {
		if k.Image != nil {
			s.world.release(&generation{Image: k.Image})
		}
	}
}

// nextHook starts the hook whose turn it is.
func (s *supervisor) nextHook() {
	h := &s.Hooks
	for h.PID == 0 && len(h.Queue) > 0 {
		if h.Dropped > 0 {
			s.say(warning("%s not run: more than %d waited", count(h.Dropped, "hook"), hooksWaiting))
			h.Dropped = 0
		}
		k := h.Queue[0]
		h.Queue = slices.Delete(h.Queue, 0, 1)
		now := s.world.now()
		pid, err := s.world.hook(s.limits.hooks[k.Spec].command, k)
		s.discard([]hook{k})
		if err != nil {
			s.say(s.aboutHook(warning("cannot run hook %q: %v", k.Event, err), k))
			continue
		}
		k.Image = nil
		h.PID, h.Running, h.Began, h.Killed = pid, k, now, false
		h.Deadline = s.hookDeadline(now)
		s.say(s.aboutHook(verbose("hook %q begins", k.Event), k).with("pid", pid))
	}
}

// hookDeadline is when a hook that runs now must have ended: hotwrap's own end waits no longer than for a
// worker's.
func (s *supervisor) hookDeadline(now instant) instant {
	limit := now.add(hookLimit)
	if !s.Ending {
		return limit
	}
	from := now
	if s.Stop != nil {
		from = max(from, s.Stop.Delay)
	}
	limit = min(limit, from.add(s.limits.stopTimeout))
	if s.Hooks.End != 0 {
		limit = min(limit, s.Hooks.End)
	}
	return limit
}

// dueHooks ends what is late, and starts what is next.
func (s *supervisor) dueHooks(now instant) {
	h := &s.Hooks
	if s.Ending && !h.Over && h.End == 0 && len(s.Generations) == 0 && !h.idle() {
		h.End = s.hookDeadline(now)
	}
	if s.Ending && h.PID != 0 && !h.Killed {
		h.Deadline = min(h.Deadline, s.hookDeadline(now))
	}
	switch {
	case h.PID == 0 || !h.Deadline.due(now):
	case h.Killed:
		s.say(s.aboutHook(warning("hook %q is still there %s after KILL", h.Running.Event, brief(killPatience)), h.Running).with("pid", h.PID))
		h.PID, h.Deadline = 0, 0
	default:
		s.say(s.aboutHook(warning("hook %q did not end within %s, killed", h.Running.Event, brief(now.since(h.Began))), h.Running).with("pid", h.PID))
		s.killHook()
	}
	if h.End.due(now) {
		s.endHooks()
	}
	s.nextHook()
}

// hookEnded takes the end of the hook that runs.
func (s *supervisor) hookEnded(status exitStatus) {
	h := &s.Hooks
	took := brief(s.world.now().since(h.Began))
	switch {
	case h.Killed: // which was said
	case status.ok():
		s.say(s.aboutHook(verbose("hook %q ended after %s", h.Running.Event, took), h.Running))
	default:
		s.say(s.aboutHook(warning("hook %q failed: %s after %s", h.Running.Event, status, took), h.Running))
	}
	h.PID, h.Deadline, h.Killed = 0, 0, false
}

// aboutHook names the generation, and which hook it was where there are several. Its command is not told: it may
// hold a secret.
func (s *supervisor) aboutHook(m message, k hook) message {
	if len(s.limits.hooks) > 1 {
		m = m.with("hook", k.Spec+1)
	}
	if k.Generation != 0 {
		m = m.with("generation", k.Generation)
	}
	return m
}

// killHook ends the hook that runs, with all that it started.
func (s *supervisor) killHook() {
	h := &s.Hooks
	if h.PID != 0 && !h.Killed {
		s.killCommand(h.PID)
		h.Killed, h.Deadline = true, s.world.now().add(killPatience)
	}
}

// endHooks lets no hook run any more, nor begin.
func (s *supervisor) endHooks() {
	h := &s.Hooks
	if n := h.Dropped + len(h.Queue); n > 0 {
		s.say(warning("%s not run: hotwrap ends", count(n, "hook")))
	}
	s.discard(h.Queue)
	h.Queue, h.Dropped, h.End, h.Over = nil, 0, 0, true
	s.killHook()
}

// toldToHook tells whether an option's variable is not meant as such: hotwrap was started by a hook, which was told of
// a build, say.
func toldToHook(environ []string, option string) bool {
	return getenv(environ, "HOTWRAP_EVENT") != "" && (option == "build" || option == "name")
}

// quoted is text as one word for sh.
func quoted(text string) string { return "'" + strings.ReplaceAll(text, "'", `'\''`) + "'" }
