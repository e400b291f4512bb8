package main

// This file is what the supervisor does when the watch finds something new: a restart that a newer
// build may overtake, and --build before it.
//
// Its rules: the newest wins, but a stream of builds cannot starve every candidate; a build that failed
// is not tried again until the file changes; a file that cannot be executed yet is no failure; a program
// that is already what serves is not started again.

import (
	"cmp"
	"errors"
	"fmt"
	"slices"
	"syscall"
	"time"
)

const (
	overtakenMost  = 3                     // candidates in a row that a newer build may stop
	notYetFirst    = 50 * time.Millisecond // after a start that met a file not ready to be executed
	notYetMost     = time.Second
	notYetPatience = 10 // such starts in a row, then it is a failure like any other
	notYetSay      = 5  // the wait after so many has its line
)

// rebuilding is what the supervisor knows of watch and --build.
type rebuilding struct {
	PID       int     `json:"pid,omitempty"`       // of the --build run
	Number    int     `json:"number,omitempty"`    // of the build that the watch asked for last
	Failed    bool    `json:"failed,omitempty"`    // the last one that ended
	Began     instant `json:"began,omitempty"`     // when it began
	Again     bool    `json:"again,omitempty"`     // sources changed since: it is being stopped for another
	Overtaken int     `json:"overtaken,omitempty"` // candidates in a row that were stopped for a newer build
	Bad       string  `json:"bad,omitempty"`       // the build that failed last
	Look      instant `json:"look,omitempty"`      // when the watch looks again at a file that was not ready
	NotYet    int     `json:"not_yet,omitempty"`   // starts in a row that met such a file
	Tried     string  `json:"tried,omitempty"`     // the build that the last of them was asked for
}

// changed takes what the watch found.
func (s *supervisor) changed(t trigger) {
	switch {
	case s.Ending:
	case t.sources:
		s.build(t)
	case s.building(t) && (t.program || s.Numbers == 0): // the build may write more, and may fail yet
		s.say(verbose("%s; the build goes on", t))
		if t.program {
			s.world.runs("") // so that it is told again when the build is over
		}
	case t.program && s.Rebuild.Bad != "" && t.to == s.Rebuild.Bad && !t.stuck:
		s.say(info("%s is build %s again, which failed before; HUP tries it all the same", t.name, t.to))
		s.overtake(t, nil)
	case t.program && s.serves(t.to) && (!t.owed || s.Rebuild.NotYet == 0):
		s.say(verbose("%s is build %s again, which serves", t.name, t.to))
		s.overtake(t, nil)
	default:
		if !t.program {
			t.to = ""
		}
		if g := s.serving(); t.owed && g != nil && g.Image != nil {
			t.from = g.Image.Build
		}
		s.overtake(t, &request{Ask: askRestart, Cause: "watch", Watch: t.String(), Build: t.to})
	}
}

// building tells whether a change may be the work of a build that is under way, or of one that has failed
// since it was found.
func (s *supervisor) building(t trigger) bool {
	return s.Rebuild.PID != 0 || s.Rebuild.Failed && t.build != s.Rebuild.Number
}

// serves tells whether the serving generation is of a build, and not given up.
func (s *supervisor) serves(build string) bool {
	g := s.serving()
	return g != nil && g.Image != nil && g.Image.Build == build && !s.gaveUp(g)
}

// overtake lets a newer build stop the candidate of an older one, and asks for its own restart, if
// it is to have one.
func (s *supervisor) overtake(t trigger, r *request) {
	if r == nil {
		s.dropBuilds()
	} else {
		s.pend(*r)
	}
	c := s.candidate()
	byWatch := c != nil && !slices.ContainsFunc(s.Restart.Requests, func(q request) bool {
		return q.Watch == "" || r == nil && q.Build == "" // somebody wants this one whatever the program is
	})
	switch {
	case c == nil:
		s.next()
	case t.program && c.Image != nil && c.Image.Build == t.to: // it is what the candidate was started from
		s.unask(t.to)
	case byWatch && s.Restart.Predecessor != 0 && s.Rebuild.Overtaken < overtakenMost:
		s.Rebuild.Overtaken++
		s.say(info("generation %d stopped for a newer build", c.Number).tell(upReady)) // there may be no restart after it
		s.abandon(c, superseded, "a newer build took its place")
	}
}

// unask drops what the watch has asked for because the program changed, if the last such build is started already.
func (s *supervisor) unask(build string) {
	wanted := ""
	for _, r := range s.Pending {
		wanted = cmp.Or(r.Build, wanted)
	}
	if build == wanted {
		s.dropBuilds()
	}
}

// dropBuilds leaves requests that want a start whatever the program is.
func (s *supervisor) dropBuilds() {
	s.Pending = slices.DeleteFunc(s.Pending, func(r request) bool { return r.Build != "" })
}

// candidate is the generation that is getting ready, or on trial; nil if none is.
func (s *supervisor) candidate() *generation {
	if s.Restart == nil {
		return nil
	}
	if g := s.generation(s.Restart.Successor); g != nil && (g.State == genStarting || g.State == genReady) {
		return g
	}
	return nil
}

// notYet tells whether a watched program's file cannot be executed for now: somebody is still writing
// it, most likely. The watch then looks again, soon and then less so.
func (s *supervisor) notYet(g *generation, err error) bool {
	var errno syscall.Errno
	if !s.limits.watch || !errors.As(err, &errno) {
		return false
	}
	switch errno {
	case syscall.ETXTBSY, syscall.EACCES, syscall.ENOENT, syscall.ENOEXEC:
	default:
		return false
	}
	others := slices.ContainsFunc(s.Restart.Requests, func(r request) bool { return r.Watch == "" }) // who want an answer now
	if g.Number == 1 || others || s.Rebuild.NotYet >= notYetPatience {
		s.Rebuild.NotYet, s.Rebuild.Tried = 0, ""
		s.world.stuck()
		return false
	}
	pause := min(notYetFirst<<s.Rebuild.NotYet, notYetMost)
	s.Rebuild.NotYet++
	s.Rebuild.Look, s.Rebuild.Tried = s.world.now().add(pause), s.Restart.Requests[len(s.Restart.Requests)-1].Build
	say := verbose
	if s.Rebuild.NotYet == notYetSay {
		say = info
	}
	m := say("generation %d not started yet: %v; looking again in %s", g.Number, err, brief(pause))
	if s.Restart.Predecessor != 0 {
		m = m.tell(upReady)
	}
	s.say(m)
	s.world.runs("")
	s.abandon(g, superseded, "the file is not ready to be executed")
	return true
}

// fresh is how a start is told: one that tries again what was not ready has been told before.
func (s *supervisor) fresh() func(format string, args ...any) message {
	if rs := s.Restart.Requests; s.Rebuild.Tried != "" && len(rs) > 0 && rs[len(rs)-1].Build == s.Rebuild.Tried {
		return verbose
	}
	return info
}

// waits ends a start without a predecessor: on a terminal hotwrap waits for the next build then.
func (s *supervisor) waits(text string) {
	s.say(failure("%s; waiting for the next build", text))
}

// build runs --build; a run that is under way is stopped first, since what it builds is stale.
func (s *supervisor) build(t trigger) {
	s.Rebuild.Number = t.build
	switch {
	case s.Rebuild.PID == 0:
		s.world.clear()
		s.say(info("%s changed; building", t.what))
		s.startBuild()
	case !s.Rebuild.Again:
		s.world.clear()
		s.Rebuild.Again = true
		s.say(info("%s changed; the build starts again", t.what))
		s.killCommand(s.Rebuild.PID)
	}
}

func (s *supervisor) startBuild() {
	pid, err := s.world.build()
	s.Rebuild.PID, s.Rebuild.Began, s.Rebuild.Again = pid, s.world.now(), false
	if err != nil {
		s.buildOver(true)
		s.buildFailed(fmt.Sprintf("cannot run --build: %v", err), statusFailed)
	}
}

// buildOver tells the watch that a build has ended by itself.
func (s *supervisor) buildOver(failed bool) {
	s.Rebuild.PID, s.Rebuild.Failed = 0, failed
	s.world.built(s.Rebuild.Number, failed)
}

// buildEnded takes the end of --build: the first start, if that waited for it, or a look whether the
// program is another now.
func (s *supervisor) buildEnded(status exitStatus) {
	took, group := brief(s.world.now().since(s.Rebuild.Began)), s.Rebuild.PID
	if s.Rebuild.PID = 0; !s.world.empty(group) { // what runs on would write as if somebody edited
		s.say(verbose("ended what the build has left running"))
		s.world.kill(group, syscall.SIGKILL)
	}
	switch {
	case s.Ending:
	case s.Rebuild.Again:
		s.startBuild()
	case !status.ok():
		s.buildOver(true)
		s.buildFailed(fmt.Sprintf("the build failed: %s after %s", status, took), status.shell())
	default:
		s.say(verbose("built").with("took", took))
		s.buildOver(false)
		if s.Numbers == 0 {
			rs := append(s.Pending, request{Ask: askRestart, Cause: "start"})
			s.Pending = nil
			s.begin(rs)
		} else {
			s.world.watchAgain()
		}
	}
}

// buildFailed says that what serves goes on, and since when it does: so nobody debugs the old program
// for the new one. Before the first start there is nothing to go on with.
func (s *supervisor) buildFailed(text string, status int) {
	g := s.serving()
	if s.Numbers == 0 {
		s.answerAll(s.Pending, failed, nil, text)
		s.Pending = nil
	}
	switch {
	case g != nil:
		s.say(warning("%s; generation %d serves on, since %s ago", text, g.Number, brief(s.world.now().since(g.Started))))
	case s.limits.wait:
		s.waits(text)
	case s.Numbers == 0:
		s.say(failure("%s", text))
		s.leave(status)
	default:
		s.say(warning("%s", text))
	}
}

// stopBuild ends --build: what it would make is wanted no more.
func (s *supervisor) stopBuild() {
	s.killCommand(s.Rebuild.PID)
}

// size writes a file's length for people.
func size(n int64) string {
	switch {
	case n < 10_000:
		return fmt.Sprintf("%d bytes", n)
	case n < 1_000_000:
		return fmt.Sprintf("%d kB", n/1000)
	default:
		return fmt.Sprintf("%.1f MB", float64(n)/1e6)
	}
}

// String says what changed: "myapp changed (a1b2c3 → d4e5f6, 8.4 MB)".
func (t trigger) String() string {
	switch {
	case t.program && t.to == "": // nobody may read it
		return fmt.Sprintf("%s changed (%s)", t.name, size(t.size))
	case t.program && t.from != "" && t.from == t.to:
		return fmt.Sprintf("%s is back (%s, %s)", t.name, t.to, size(t.size))
	case t.program && t.from != "":
		return fmt.Sprintf("%s changed (%s → %s, %s)", t.name, t.from, t.to, size(t.size))
	case t.program:
		return fmt.Sprintf("%s changed (%s, %s)", t.name, t.to, size(t.size))
	case t.what != "":
		return t.what + " changed"
	default:
		return t.name + " changed"
	}
}
