package main

// This file is what can be asked of hotwrap, and the answers: requests, verdicts, and the memory of both.
//
// Its rules: each request gets exactly one verdict; asking again with the same id is the same request,
// so a client that lost its connection loses nothing; what is remembered is bounded.

import (
	"slices"
	"strconv"
	"syscall"
	"time"
)

const verdictsKept = 50

// ask is what a request asks for.
type ask string

const (
	askRestart  ask = "restart"
	askRollback ask = "rollback" // start what served before, from its pins
	askStop     ask = "stop"     // TERM, INT, QUIT: drain and exit
	askKill     ask = "kill"     // stop, and KILL all that is left
	askSignal   ask = "signal"   // to the workers
	askReopen   ask = "reopen"   // log files
	askReexec   ask = "reexec"   // hotwrap itself
	askWorkers  ask = "workers"  // one more or fewer
)

// request is one wish from outside; each gets exactly one verdict.
type request struct {
	ID          string         `json:"id"`    // the client's own, or a number that the supervisor gives it
	Ask         ask            `json:"ask"`   // what
	Cause       string         `json:"cause"` // by which way: "SIGHUP", "hotwrap restart"
	Who         string         `json:"who,omitempty"`
	UID         int            `json:"uid"` // of who asked, where Who is known
	Message     string         `json:"message,omitempty"`
	Canary      []canaryStep   `json:"canary,omitempty"` // askRestart
	CanaryCheck string         `json:"canary_check,omitempty"`
	Watch       string         `json:"watch,omitempty"`  // what the watch found, if it asked
	Build       string         `json:"build,omitempty"`  // that is to be started from it, if it is the program
	Signal      syscall.Signal `json:"signal,omitempty"` // askSignal
	More        int            `json:"more,omitempty"`   // askWorkers: 1 or -1
	Asked       instant        `json:"asked,omitempty"`
}

// joins tells whether q can be answered by the same generation as r.
func (r request) joins(q request) bool {
	return r.Ask == q.Ask && slices.Equal(r.Canary, q.Canary) && r.CanaryCheck == q.CanaryCheck
}

// result is how a request ended.
type result string

const (
	promoted   result = "promoted"
	failed     result = "failed"
	superseded result = "superseded"
	stopped    result = "stopped"
	signalled  result = "signalled"
	reexeced   result = "reexeced" // hotwrap itself was replaced
)

// stage is how far a successor has come; a verdict on a failure names it.
type stage string

const (
	stagePrepare stage = "prepare" // its files are found and pinned
	stageCheck   stage = "check"   // --check
	stageStart   stage = "start"   // fork and exec
	stageReady   stage = "ready"   // it runs, and is waited for
	stageBake    stage = "bake"    // it was ready, and must live on
	stageCanary  stage = "canary"  // it has a share of the new connections
)

// verdict is the answer to one request. Times are the supervisor's own.
type verdict struct {
	Request      request       `json:"request"`
	Result       result        `json:"result"`
	Generation   int           `json:"generation,omitempty"` // that carried it
	Build        string        `json:"build,omitempty"`
	Path         string        `json:"path,omitempty"`
	Predecessor  int           `json:"predecessor,omitempty"`
	Serving      int           `json:"serving,omitempty"` // the generation that serves now
	ServingBuild string        `json:"serving_build,omitempty"`
	Again        int           `json:"again,omitempty"` // nothing serves, but this one is being started again
	Stage        stage         `json:"stage,omitempty"`
	Reason       string        `json:"reason,omitempty"`
	Status       string        `json:"status,omitempty"` // of the worker that ended: "1", "SIGSEGV"
	PID          int           `json:"pid,omitempty"`    // of the first worker, or the one that ended
	Serial       int           `json:"serial,omitempty"` // of that worker
	Exit         int           `json:"exit,omitempty"`   // what hotwrap's own exit status is, or would be
	Pids         []int         `json:"pids,omitempty"`   // that were signalled
	At           instant       `json:"at"`
	Began        instant       `json:"began,omitempty"` // when its generation was begun
	Ready        time.Duration `json:"ready,omitempty"` // from that until it was ready
}

// answers tells whether v is on what r asks for: an id may have been another request's. Who only awaits takes any.
func (v verdict) answers(r request) bool {
	return r.Ask == "" || viewAsk(r.Ask) == viewAsk(v.Request.Ask)
}

// tally counts over hotwrap's whole life.
type tally struct {
	Requests  int            `json:"requests,omitempty"` // that came without an id of their own
	Verdicts  map[result]int `json:"verdicts,omitempty"` // on restarts and rollbacks
	Crashes   int            `json:"crashes,omitempty"`  // of serving workers
	Buckets   []int          `json:"buckets,omitempty"`  // restarts that took at most that of tallyBounds
	Took      time.Duration  `json:"took,omitempty"`     // all of them together
	Completed int            `json:"completed,omitempty"`
}

// tallyBounds are the histogram's upper bounds, in seconds: from a trivial program to one that boots for minutes.
var tallyBounds = [...]float64{0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10, 30, 60, 120, 300}

// add counts one verdict on a restart, and how long its generation took, if it had one.
func (t *tally) add(v verdict) {
	if t.Verdicts == nil {
		t.Verdicts, t.Buckets = map[result]int{}, make([]int, len(tallyBounds))
	}
	t.Verdicts[v.Result]++
	if v.Result != promoted {
		return
	}
	took := v.At.since(v.Began)
	t.Completed++
	t.Took += took
	for i, bound := range tallyBounds {
		if took.Seconds() <= bound {
			t.Buckets[i]++
		}
	}
}

// taken gives a request an id and a time. It is answered here if it was asked before.
func (s *supervisor) taken(ev event) (r request, again bool) {
	r = ev.request
	r.Asked = s.world.now()
	if r.ID == "" {
		s.Tally.Requests++
		r.ID = strconv.Itoa(s.Tally.Requests)
	}
	if ev.reply == nil {
		return r, false
	}
	if s.given(r.ID, ev.reply) {
		return r, true
	}
	again = s.waitsFor(r.ID)
	s.await(r.ID, ev.reply)
	return r, again
}

// given answers at once where the request of that id has its verdict.
func (s *supervisor) given(id string, reply chan<- verdict) bool {
	i := slices.IndexFunc(s.Verdicts, func(v verdict) bool { return v.Request.ID == id })
	if i >= 0 {
		reply <- s.Verdicts[i]
	}
	return i >= 0
}

// await lets reply hear of the verdict on the request of that id.
func (s *supervisor) await(id string, reply chan<- verdict) {
	if s.replies == nil {
		s.replies = map[string][]chan<- verdict{}
	}
	s.replies[id] = append(s.replies[id], reply)
}

// left forgets a client that waits no more: else those who come and go would pile up while a restart takes its time.
func (s *supervisor) left(ev event) {
	for id, waiting := range s.replies {
		waiting = slices.DeleteFunc(waiting, func(reply chan<- verdict) bool { return reply == ev.reply })
		if s.replies[id] = waiting; len(waiting) == 0 {
			delete(s.replies, id)
		}
	}
}

// waitsFor tells whether a request with that id has no verdict yet.
func (s *supervisor) waitsFor(id string) bool {
	is := func(r request) bool { return r.ID == id }
	return slices.ContainsFunc(s.Pending, is) || s.Restart != nil && slices.ContainsFunc(s.Restart.Requests, is) ||
		s.Stop != nil && slices.ContainsFunc(s.Stop.Requests, is) || s.Reexec != nil && slices.ContainsFunc(s.Reexec.Requests, is)
}

// awaited is asked for the verdict on an earlier request; a result of "" is that nobody knows of it.
func (s *supervisor) awaited(ev event) {
	id := ev.request.ID
	switch {
	case s.given(id, ev.reply):
	case s.waitsFor(id):
		s.await(id, ev.reply)
	default:
		ev.reply <- verdict{}
	}
}

// answer gives a request its verdict. g is the generation that carried it, nil if none did.
func (s *supervisor) answer(r request, res result, g *generation, reason string) {
	v := verdict{Request: r, Result: res, Reason: reason, At: s.world.now()}
	if g != nil {
		s.describe(&v, g)
	}
	p := s.serving()
	if res == promoted {
		p = g
	}
	v.servedBy(p)
	if res == failed && p == nil {
		if i := slices.IndexFunc(s.Generations, func(g *generation) bool { return g.Fallback }); i >= 0 {
			v.Again = s.Generations[i].Number
		}
	}
	s.remember(v)
}

// servedBy adds who serves, if somebody does.
func (v *verdict) servedBy(g *generation) {
	if g == nil {
		return
	}
	v.Serving = g.Number
	if g.Image != nil {
		v.ServingBuild = g.Image.Build
	}
}

// describe adds what is known of the generation that carried a request.
func (s *supervisor) describe(v *verdict, g *generation) {
	v.Generation, v.Began, v.Ready = g.Number, g.Started, g.ReadyAfter
	if g.Image != nil {
		v.Build, v.Path = g.Image.Build, g.Image.Path
	}
	if s.Restart != nil && s.Restart.Successor == g.Number {
		v.Predecessor = s.Restart.Predecessor
	}
	if len(g.Workers) > 0 {
		v.PID, v.Serial = g.Workers[0].PID, g.Workers[0].Serial
	}
	if v.Result == failed {
		v.Stage, v.Exit = g.Stage, g.Exit
		if f := g.Fallen; f != nil {
			v.PID, v.Serial, v.Status = f.PID, f.Serial, f.Status.short()
		}
	}
}

// remember keeps a verdict, and hands it to who waits for it. Each of those channels has room for it. Those on restarts
// are kept for longer than those on signals, which may come every minute.
func (s *supervisor) remember(v verdict) {
	s.Verdicts = append(s.Verdicts, v)
	if len(s.Verdicts) > verdictsKept {
		oldest := max(0, slices.IndexFunc(s.Verdicts[:verdictsKept], func(v verdict) bool { return v.Result == signalled }))
		s.Verdicts = slices.Delete(s.Verdicts, oldest, oldest+1)
	}
	for _, reply := range s.replies[v.Request.ID] {
		reply <- v
	}
	delete(s.replies, v.Request.ID)
	s.world.answer(v)
}

// answerAll gives requests that share a generation their verdicts.
func (s *supervisor) answerAll(rs []request, res result, g *generation, reason string) {
	for _, r := range rs {
		s.answer(r, res, g, reason)
	}
	if n := len(s.Verdicts); n > 0 && len(rs) > 0 {
		s.Tally.add(s.Verdicts[n-1])
	}
}

// signalWorkers passes a signal on to every worker that runs.
func (s *supervisor) signalWorkers(r request) {
	v := verdict{Request: r, Result: signalled, At: s.world.now()}
	v.servedBy(s.serving())
	for _, g := range s.Generations {
		for _, w := range g.Workers {
			if !w.Reaped && w.Needs&needExec == 0 && !slices.Contains(s.dead, w.PID) {
				to := s.target(w)
				s.world.signal(to, r.Signal)
				v.Pids = append(v.Pids, to)
			}
		}
	}
	if len(v.Pids) == 0 {
		v.Result, v.Reason = failed, "no worker runs"
	} else {
		s.say(info("signal sent").with("signal", signalName(r.Signal)).with("pids", v.Pids).with("by", r.by()))
	}
	s.remember(v)
}

// by names who asked, for the log.
func (r request) by() string {
	if r.Who == "" {
		return r.Cause
	}
	return r.Cause + ", " + r.Who
}
