package main

// This file is how workers and generations end: by themselves, and by drain, stop and KILL.
//
// Its rules: a worker is gone when its leader is reaped and its group is empty; what ends without an
// order is a crash, and is started again from its own generation's pin; KILL comes only after a limit
// or an order.

import (
	"fmt"
	"slices"
	"syscall"
	"time"
)

// exited takes the end of one process.
func (s *supervisor) exited(d death) {
	if d.pid == s.Rebuild.PID {
		s.buildEnded(d.status)
		return
	}
	if d.pid == s.Hooks.PID {
		s.hookEnded(d.status)
		return
	}
	if s.Reexec != nil && d.pid == s.Reexec.PID {
		s.Reexec.PID = 0 // what it had to say comes by another way
		return
	}
	if s.Restart != nil && d.pid == s.Restart.Canary.PID {
		s.canaryChecked(d.status)
		return
	}
	for _, g := range s.Generations {
		if g.Check == d.pid {
			s.checked(g, d.status)
			return
		}
		for _, w := range g.Workers {
			if w.PID == d.pid && !w.Reaped {
				s.leaderGone(g, w, d.status)
				return
			}
		}
	}
}

// sweep finds the groups that have emptied since their leader died.
func (s *supervisor) sweep() {
	for _, g := range slices.Clone(s.Generations) {
		for _, w := range slices.Clone(g.Workers) {
			if !w.Reaped || w.Needs&needExec != 0 {
				continue
			}
			if s.over(g, w) {
				s.gone(g, w)
			} else if w.State == workerStopping && w.Asked != 0 {
				s.tellRest(g, w)
			}
		}
	}
}

// checked takes the end of --check.
func (s *supervisor) checked(g *generation, status exitStatus) {
	g.Check = 0
	switch g.State {
	case genStarting:
		if status.ok() {
			s.launch(g)
		} else {
			s.fail(g, "--check "+status.String(), statusFailed)
		}
	case genFailed:
		s.emptied(g)
	case genReady, genServing, genDraining, genGone: // a check ends before any of these
	}
}

// leaderGone notes that a worker's leader was reaped. What that means waits for the word about its
// exec, which comes by another way, and may come later.
func (s *supervisor) leaderGone(g *generation, w *worker, status exitStatus) {
	if w.Main != 0 && w.Main != w.PID && s.world.owns(w, notice{pid: w.Main, uid: -1}) {
		w.PID, w.Main = w.Main, 0 // it said who carries on; as a subreaper hotwrap is its parent now
		if w.Slot == 0 {
			g.Lead = w.PID
		}
		return
	}
	w.Reaped, w.Status, g.Status = true, status, status
	if w.State == workerStarting || w.State == workerReady {
		g.Fallen = &fallen{PID: w.PID, Serial: w.Serial, Status: status}
	}
	if w.Needs&needExec == 0 {
		s.ended(g, w)
	}
}

// ended acts on a worker whose leader is dead. Others of its group are told to stop, once.
func (s *supervisor) ended(g *generation, w *worker) {
	was := w.State
	w.Look, w.Alive, w.Watchdog, w.Goad = 0, 0, 0, 0
	switch {
	case s.over(g, w):
		w.State = workerExited
	case was != workerKilling:
		w.State = workerStopping
		if g.State != genDraining && (was != workerStopping || w.Limit == 0) { // else it has a limit already
			w.Limit = s.world.now().add(s.limits.drainTimeout)
		}
		s.tellRest(g, w)
	}
	switch was {
	case workerStarting, workerReady:
		s.died(g, w)
	case workerStopping, workerKilling:
		if w.Blame != "" {
			g.Fallen = &fallen{PID: w.PID, Serial: w.Serial, Status: w.Status}
			s.died(g, w)
		}
	case workerExited:
	}
	if w.State == workerExited {
		s.gone(g, w)
	}
}

// tellRest gives what is left of a worker's group its stop signal, but for a server that had it before its launcher
// ended: to many a second one means "at once".
func (s *supervisor) tellRest(g *generation, w *worker) {
	if w.Asked != 0 && s.world.owns(w, notice{pid: w.Asked, uid: -1}) {
		return
	}
	w.Asked = 0
	s.kill(w, g.stopSignal(w))
	s.kill(w, syscall.SIGCONT)
}

// kill signals everything that is left of a worker whose leader may have ended.
func (s *supervisor) kill(w *worker, sig syscall.Signal) {
	for _, group := range append([]int{w.Group}, w.Strays...) {
		if group == w.Group && !w.Reaped && !slices.Contains(s.dead, w.PID) || !s.world.empty(group) {
			s.world.kill(group, sig)
		}
	}
}

// over tells whether nothing is left of a worker whose leader has ended, also of what left its group: that is looked
// for when the group is empty, since until then some may yet leave it.
func (s *supervisor) over(g *generation, w *worker) bool {
	w.Strays = slices.DeleteFunc(w.Strays, s.world.empty)
	if len(w.Strays) > 0 || !s.world.empty(w.Group) {
		return false
	}
	if !w.Searched {
		w.Searched = true
		if s.world.search(g, w, s.groups()) {
			w.Search = s.world.now().add(searchLimit)
		}
	}
	return w.Search == 0
}

// groups are all process groups that are accounted for.
func (s *supervisor) groups() map[int]bool {
	known := map[int]bool{s.Rebuild.PID: true, s.Hooks.PID: true}
	if s.Reexec != nil {
		known[s.Reexec.PID] = true
	}
	if s.Restart != nil {
		known[s.Restart.Canary.PID] = true
	}
	for _, g := range s.Generations {
		known[g.Check] = true
		for _, w := range g.Workers {
			known[w.Group] = true
			for _, group := range w.Strays {
				known[group] = true
			}
		}
	}
	return known
}

// strayed takes what a search for the rest of a worker found.
func (s *supervisor) strayed(ev event) {
	if g, w := s.worker(ev.serial); w != nil && w.Search != 0 {
		s.found(g, w, ev.groups)
	}
}

// found goes on with the end of a worker: what had left its group is told to finish too, or killed where it was.
func (s *supervisor) found(g *generation, w *worker, groups []int) {
	groups = slices.DeleteFunc(groups, s.world.empty) // since they were seen
	w.Search, w.Strays = 0, groups
	for _, group := range groups {
		if w.State == workerKilling {
			s.world.kill(group, syscall.SIGKILL)
			continue
		}
		s.world.kill(group, g.stopSignal(w))
		s.world.kill(group, syscall.SIGCONT)
	}
	if len(groups) > 0 {
		s.say(verbose("generation %d left processes behind its launcher", g.Number).with("groups", groups))
	}
	s.sweep()
}

// died acts on a worker that ended without an order.
func (s *supervisor) died(g *generation, w *worker) {
	switch g.State {
	case genStarting:
		if w.ExecErr != "" {
			if !s.notYet(g, syscall.Errno(w.ExecErrno)) {
				s.failWorker(g, w, w.notStarted(), w.ExecCode)
			}
			return
		}
		if s.retry(g, w) {
			return
		}
		advice := s.advice(g)
		s.failWorker(g, w, w.obituary(s.world.now())+s.fellWhen(w)+s.withheld(g, w), w.exitCode())
		s.hintAt(advice)
	case genReady:
		s.failWorker(g, w, w.obituary(s.world.now())+g.meanwhile(), w.exitCode())
	case genServing:
		s.crashed(g, w)
	case genDraining, genFailed, genGone: // it was to go anyhow
	}
}

// gone forgets a worker of which nothing is left.
func (s *supervisor) gone(g *generation, w *worker) {
	w.State = workerExited
	g.Workers = slices.DeleteFunc(g.Workers, func(o *worker) bool { return o == w })
	s.world.forget(w)
	s.emptied(g)
	s.roomMade()
}

// emptied forgets a generation that is over once nothing of it is left.
func (s *supervisor) emptied(g *generation) {
	if len(g.Workers) > 0 || g.Check != 0 {
		return
	}
	switch g.State {
	case genStarting, genReady, genServing, genGone:
		return
	case genDraining:
		if g.Survey == surveyStop {
			s.surveyed(g, remains{})
		}
		if s.rescue(g) {
			return
		}
		if g.Emptied == 0 {
			g.Emptied, g.Deadline, g.Report = s.world.now(), 0, 0
		}
		if g.Fallback && !s.Ending {
			s.replace(g)
			return
		}
		s.detail(info("generation %d gone", g.Number).with("status", g.Status.short()).
			with("drained", g.Emptied.since(g.Drain)).about(hapDrained, g.Number))
		if g.Served { // it was no canary
			s.hook(hookDrained, g, "")
		}
	case genFailed:
		s.say(verbose("generation %d gone", g.Number))
	}
	s.conclude(g)
}

// conclude takes a generation of which nothing is left out of the state, and lets happen what waited for that.
func (s *supervisor) conclude(g *generation) {
	g.State = genGone
	s.Generations = slices.DeleteFunc(s.Generations, func(o *generation) bool { return o == g })
	s.retire(g)
	s.handover()
	if s.Restart != nil && s.Restart.Successor == g.Number {
		if p := s.generation(s.Restart.Predecessor); p != nil && p.Fallback {
			s.replace(p)
		}
	}
	if g.Inherited {
		s.next()
	}
}

// replace goes on after a stop without overlap: p has ended, now its successor starts, or, if that
// one has failed and is gone, p again.
func (s *supervisor) replace(p *generation) {
	if len(p.Workers) > 0 {
		return
	}
	if s.Ending {
		p.Fallback = false
		s.Restart = nil
		s.emptied(p)
		return
	}
	g := s.generation(s.Restart.Successor)
	switch {
	case g == nil:
		s.revive(p)
	case g.Held:
		s.startBatch(g)
	}
}

// crashed starts a serving worker again, or gives it up; a successor that is ready anyway takes over.
func (s *supervisor) crashed(g *generation, w *worker) {
	now := s.world.now()
	if s.Ending {
		s.Status = w.exitCode()
		s.say(warning("%s %s; not started again, hotwrap is stopping", g.who(w), w.crash(now)).with("pid", w.PID))
		if s.Stop != nil && s.Stop.Delay != 0 && g.readyWorkers() == 0 {
			s.stopAll() // nobody serves any more: there is nothing to delay for
		}
		return
	}
	s.Tally.Crashes++
	g.Crashes++
	text := g.who(w) + " " + w.crash(now)
	if r := s.Restart; r != nil && g.readyWorkers() == 0 {
		next := s.generation(r.Successor)
		if next != nil && next.Stage == stageCanary && next.State == genReady {
			if s.again(g, w, text); s.gaveUp(g) { // it has proved less than it was to, but nobody else is left
				s.switchTo(next)
			}
			return
		}
		if next != nil && next.State == genReady {
			s.say(warning("%s; generation %d takes over", text, next.Number).with("pid", w.PID).about(hapCrashed, g.Number))
			s.switchTo(next)
			return
		}
	}
	s.again(g, w, text)
}

// again has the slot of a worker that crashed filled again, or gives it up. text is what happened.
func (s *supervisor) again(g *generation, w *worker, text string) {
	now, sl := s.world.now(), &g.Slots[w.Slot]
	if w.Ready != 0 && now.since(w.Ready) >= steadyTime {
		sl.Failures = 0
	}
	sl.Failures++
	if why := s.limits.over(sl, w); why != "" {
		sl.Over = true
		if s.limits.respawn == respawnAlways || !w.ok() {
			s.hook(hookFailed, g, w.crash(now)+"; "+why)
		}
		s.say(warning("%s; %s", text, why).with("pid", w.PID).about(hapCrashed, g.Number))
		if s.Restart == nil && s.gaveUp(g) {
			s.end(g)
		}
		return
	}
	pause := backoff(sl.Failures)
	sl.Start = now.add(pause)
	how := "started again"
	if pause > 0 {
		how = "started again in " + brief(pause)
	}
	how += " from " + s.origin(g)
	s.say(warning("%s; %s, try %d", text, how, sl.Failures).with("pid", w.PID).about(hapCrashed, g.Number))
}

// over tells why a slot is not filled again; "" when it is.
func (l limits) over(sl *slot, w *worker) string {
	switch l.respawn {
	case respawnNever:
		return "not started again"
	case respawnOnFailure:
		if w.ok() {
			return "not started again"
		}
	case respawnAlways:
	}
	if l.respawnMost > 0 && sl.Failures >= l.respawnMost {
		return fmt.Sprintf("%d in a row, giving up", sl.Failures)
	}
	return ""
}

// backoff is the pause before the respawn that follows failure n of a row.
func backoff(n int) time.Duration {
	if n <= 1 {
		return 0
	}
	return min(backoffFirst<<min(n-2, 20), backoffMost)
}

// gaveUp tells whether nothing of g runs and nothing of it will be started again.
func (s *supervisor) gaveUp(g *generation) bool {
	return !slices.ContainsFunc(g.Slots, func(sl slot) bool { return !sl.Over })
}

// killCommand ends --check or --build, with all that it started; 0 is none.
func (s *supervisor) killCommand(pid int) {
	if pid != 0 && !slices.Contains(s.dead, pid) {
		s.world.kill(pid, syscall.SIGKILL)
	}
}

// leave ends hotwrap with a status, once everything has ended.
func (s *supervisor) leave(status int) {
	if !s.Ending {
		s.hook(hookStop, s.serving(), "")
	}
	s.Ending, s.Status = true, status
	s.stopBuild()
}

// end ends hotwrap with the status of g, which serves no more.
func (s *supervisor) end(g *generation) {
	if s.limits.wait {
		s.waits(fmt.Sprintf("generation %d is not started again", g.Number))
	} else {
		s.leave(g.Status.shell())
		s.answerAll(s.Pending, stopped, nil, fmt.Sprintf("generation %d is not started again, hotwrap ends", g.Number))
		s.Pending = nil
	}
	s.drain(g, s.limits.stopTimeout)
}

// stopWorker tells one worker to finish, once: to many servers a second signal means "at once".
func (s *supervisor) stopWorker(g *generation, w *worker) {
	switch w.State {
	case workerStarting, workerReady:
		w.State = workerStopping
		w.Look, w.Alive, w.Watchdog, w.Limit = 0, 0, 0, 0
		if w.Reaped || slices.Contains(s.dead, w.PID) {
			return // only the word about its exec is awaited
		}
		to := s.target(w)
		if to != w.PID && to == w.Server {
			w.Asked, w.Look, w.Pause = to, s.world.now().add(lookFirst), lookFirst
		}
		sig := g.stopSignal(w)
		if w.Needs&needExec != 0 {
			sig = syscall.SIGTERM // it still is the shim, to which the program's own signal means nothing
		}
		s.world.signal(to, sig)
		s.world.signal(to, syscall.SIGCONT)
	case workerStopping, workerKilling, workerExited:
	}
}

// target is who of a worker gets signals: the process that it named its main one, the server behind launchers, or its
// leader. Not one that is gone: its pid may be another's.
func (s *supervisor) target(w *worker) int {
	for _, pid := range []int{w.Main, w.Server} {
		if pid != 0 && s.world.owns(w, notice{pid: pid, uid: -1}) {
			return pid
		}
	}
	return w.PID
}

func (s *supervisor) killGeneration(g *generation) {
	g.Deadline, g.Report = 0, 0
	g.Survey, g.Surveyed = surveyNone, 0
	if s.Stop != nil {
		s.late()
	}
	s.killCommand(g.Check)
	for _, w := range g.Workers {
		s.killWorker(w)
	}
}

func (s *supervisor) killWorker(w *worker) {
	switch w.State {
	case workerStarting, workerReady, workerStopping, workerKilling:
		w.State = workerKilling
		w.Look, w.Alive, w.Watchdog, w.Limit, w.Goad = 0, 0, 0, 0, 0
		w.Again = s.world.now().add(killPatience)
		s.kill(w, syscall.SIGKILL)
	case workerExited:
	}
}

// respawn starts the next worker of a serving generation's slot.
func (s *supervisor) respawn(g *generation, i int) {
	g.Slots[i].Start = 0
	if s.Ending {
		return
	}
	w, err := s.spawn(g, i)
	if err == nil {
		w.Limit = s.world.now().add(s.limits.readyTimeout)
		return
	}
	s.crashed(g, &worker{Slot: i, Started: s.world.now(), ExecErr: err.Error()})
}
