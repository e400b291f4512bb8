package main

// This file is about generations of several workers: a restart that replaces a few of them at a time, the way back
// when it fails half-way, and one worker more or fewer.
//
// Its rules:
//   - No slot loses its ready worker by order before another generation's worker is ready in it.
//   - At most N workers and a batch (--surge) run in a restart; who still finishes from an earlier one is not counted.
//   - What happens to one worker touches no other.

import (
	"fmt"
	"slices"
)

const workersMost = 4096 // more is a slip of the finger: even trivial programs would need a pid and a descriptor table each

// batchPhase is how far a restart has come with the batch of workers that it replaces.
type batchPhase string

const (
	batchStarting batchPhase = "starting"
	batchBaking   batchPhase = "baking"
	batchYielding batchPhase = "yielding" // the predecessor's workers of the same slots finish
)

// startBatch starts the next workers of a successor.
func (s *supervisor) startBatch(g *generation) {
	r := s.Restart
	r.Phase, g.Held, g.Stage = batchStarting, false, stageStart
	if err := s.openFor(g); err != nil {
		s.fail(g, err.Error(), statusFailed)
		return
	}
	g.Deadline = s.world.now().add(s.limits.readyTimeout)
	for range min(r.Plan.Batch, len(g.Slots)-r.Begun) {
		w, err := s.spawn(g, r.Begun)
		if err != nil {
			s.failWorker(g, w, err.Error(), execStatus(err))
			return
		}
		if r.Begun == 0 {
			s.sayStarting(g, w)
		}
		r.Begun++
	}
}

// openFor gives a successor its sockets, before its first worker. Without overlap, and where nothing of the predecessor
// serves just now, they are the predecessor's: what waits is for whoever comes.
func (s *supervisor) openFor(g *generation) error {
	r := s.Restart
	switch {
	case r.Begun > 0:
		return nil
	case r.Plan.Overlap && (r.Predecessor == 0 || s.generation(r.Predecessor).readyWorkers() > 0):
		return s.world.open(g, 0)
	}
	return s.world.open(g, r.Predecessor)
}

// sayStarting says that the first worker of a generation was started.
func (s *supervisor) sayStarting(g *generation, w *worker) {
	m := s.fresh()("generation %d starting", g.Number).with("pid", w.PID)
	if n := len(g.Slots); n > 1 {
		m = m.with("workers", n)
	}
	s.detail(m.with("build", g.Image.Build).with("path", g.Image.Path).with("by", g.Cause).about(hapStarting, g.Number))
}

// failWorker fails a generation because of one worker, which is named where there are several.
func (s *supervisor) failWorker(g *generation, w *worker, reason string, status int) {
	if len(g.Slots) > 1 {
		reason = fmt.Sprintf("worker %d: %s", w.Slot, reason)
	}
	s.fail(g, reason, status)
}

// fellWhen says how far a successor had come when a worker of it died.
func (s *supervisor) fellWhen(w *worker) string {
	replaced := 0
	if p := s.generation(s.Restart.Predecessor); p != nil {
		replaced = p.replaced()
	}
	switch {
	case w.Ready == 0:
		return ", before ready"
	case s.Restart.Phase == batchBaking:
		return ", while baking"
	case replaced == 0:
		return ", before the others were ready"
	}
	return fmt.Sprintf(", with %s replaced", count(replaced, "worker"))
}

// batchSettled goes on once all workers that were started are ready: with the last batch the generation is.
func (s *supervisor) batchSettled(g *generation, w *worker) {
	r := s.Restart
	if g.readyWorkers() < r.Begun {
		return
	}
	if r.Begun == len(g.Slots) {
		s.generationReady(g, w)
		return
	}
	g.Stage = stageBake
	text := fmt.Sprintf("generation %d has %d of %d workers ready", g.Number, r.Begun, len(g.Slots))
	bake := r.Plan.bake()
	if bake == 0 || !s.warm() {
		s.say(info("%s", text).about(hapBatch, g.Number))
		s.makeRoom(g)
		return
	}
	s.say(info("%s", text).end("baking %s", brief(bake)).about(hapBatch, g.Number))
	r.Phase, g.Deadline = batchBaking, s.world.now().add(bake)
}

// makeRoom lets the predecessor's workers finish whose slots the successor serves now. The next batch waits for their
// end: together they would be more than --surge permits.
func (s *supervisor) makeRoom(g *generation) {
	r := s.Restart
	r.Phase, g.Deadline = batchYielding, 0
	if p := s.generation(r.Predecessor); p != nil {
		for i := range p.Slots[:min(r.Begun, len(p.Slots))] {
			p.Slots[i].Yielded, p.Slots[i].Start, p.Slots[i].Over = true, 0, false
		}
		s.steer()
		for _, w := range slices.Clone(p.Workers) {
			if p.yielded(w) {
				s.dismiss(p, w)
			}
		}
	}
	s.roomMade()
}

// yielded tells whether w is in a slot that its successor serves.
func (g *generation) yielded(w *worker) bool {
	sl := g.slot(w.Slot)
	return sl != nil && sl.Yielded
}

// dismiss tells one worker to finish, within the drain limit. Whatever ends it now is no crash of its slot any more.
func (s *supervisor) dismiss(g *generation, w *worker) {
	w.Blame = ""
	if w.State == workerStarting || w.State == workerReady {
		s.stopWorker(g, w)
		w.Limit = s.world.now().add(s.limits.drainTimeout)
	}
}

// roomMade starts the next batch when the last worker that made room for it is gone.
func (s *supervisor) roomMade() {
	r := s.Restart
	if r == nil || r.Phase != batchYielding {
		return
	}
	if p := s.generation(r.Predecessor); p != nil && slices.ContainsFunc(p.Workers, p.yielded) {
		return
	}
	s.startBatch(s.generation(r.Successor))
}

// replaced counts the slots that g has yielded to its successor.
func (g *generation) replaced() (n int) {
	for _, sl := range g.Slots {
		if sl.Yielded {
			n++
		}
	}
	return n
}

// refill has those slots filled again: the successor failed.
func (s *supervisor) refill(p *generation) {
	for i := range p.Slots {
		if p.Slots[i].Yielded {
			p.Slots[i].Yielded, p.Slots[i].Failures, p.Slots[i].Start = false, 0, s.world.now()
		}
	}
}

// relieve tells the ready workers of a failed generation to finish, each when its slot is served without it. With the
// last of them the generation drains: connections that were steered to it wait for nobody else.
func (s *supervisor) relieve(g *generation) {
	needed := slices.ContainsFunc(g.Workers, func(w *worker) bool { return s.needed(g, w) })
	if g.Shared && !needed && g.readyWorkers() > 0 && !s.Ending {
		s.steer()
		s.drain(g, s.limits.drainTimeout)
		return
	}
	for _, w := range slices.Clone(g.Workers) {
		if w.State == workerReady && !s.needed(g, w) {
			s.dismiss(g, w)
		}
	}
}

// needed tells whether a ready worker of a failed generation serves on, until the one that is to serve in its slot does.
func (s *state) needed(g *generation, w *worker) bool {
	p := s.serving()
	delayed := s.Stop != nil && s.Stop.Delay != 0
	if g.State != genFailed || w.State != workerReady || p == nil || s.Ending && !delayed {
		return false
	}
	sl := p.slot(w.Slot)
	return sl != nil && (delayed || !sl.Yielded && !sl.Over) && !p.serves(w.Slot)
}

// resize notes that one worker more or fewer is wanted.
func (s *supervisor) resize(r request) {
	wanted, reason := s.Wanted+r.More, ""
	switch {
	case s.Ending:
		s.answer(r, stopped, nil, "hotwrap is stopping")
		return
	case wanted < 1:
		reason = "one worker is the least"
	case wanted > workersMost:
		reason = fmt.Sprintf("%d workers are the most", workersMost)
	}
	if reason != "" {
		s.say(warning("%s does nothing: %s", r.Cause, reason))
		s.answer(r, failed, nil, reason)
		return
	}
	s.Wanted = wanted
	m := info("%s wanted", count(wanted, "worker")).with("by", r.by())
	if s.Restart != nil {
		m = m.end("after the restart")
	}
	s.say(m)
	s.answer(r, signalled, nil, "")
	s.fit()
}

// othersServe tells whether those that stay serve, when fewer are wanted; who was given up among them is tried again.
func (s *supervisor) othersServe(g *generation) bool {
	all := true
	for i := range g.Slots[:s.Wanted] {
		if g.Slots[i].Over {
			g.Slots[i].Over, g.Slots[i].Failures, g.Slots[i].Start = false, 0, s.world.now()
		}
		all = all && g.serves(i)
	}
	return all
}

// fit gives the serving generation as many slots as are wanted, when no restart is under way. It is asked again when a
// worker has become ready: one too many serves until then.
func (s *supervisor) fit() {
	g := s.serving()
	if g == nil || s.Restart != nil || s.Ending {
		return
	}
	for len(g.Slots) < s.Wanted {
		g.Slots = append(g.Slots, slot{Start: s.world.now()})
	}
	if len(g.Slots) == s.Wanted || !s.othersServe(g) {
		return
	}
	g.Slots = g.Slots[:s.Wanted]
	for _, w := range slices.Clone(g.Workers) {
		if w.Slot >= s.Wanted {
			s.dismiss(g, w)
		}
	}
}
