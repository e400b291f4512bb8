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
	"syscall"
	"time"
)

const (
	lookFirst     = time.Millisecond       // from exec to the first look whether the listeners are watched
	lookLongest   = 50 * time.Millisecond  // looks get rarer up to this: a quarter more each time, so ready is seen within a quarter of the time it took
	lookElsewhere = 20 * time.Millisecond  // looks that are rarer also see where else a program listens
	lookClosing   = 30 * time.Second       // looks at a worker that drains get rarer up to this
	lookAfter     = 500 * time.Millisecond // from ready to the last look, which finds what was opened late
	aliveEnough   = time.Second            // alive for this long is ready where nothing else can be seen
	surveyLimit   = time.Second            // a drain does not wait longer than this to learn its connections
	reportFirst   = 15 * time.Second       // from the switch to the first "still draining"; then twice as long
	killPatience  = 5 * time.Second        // a worker still there so long after KILL is reported and killed again
	goadAfter     = time.Second            // from a server's end to the stop signal for the launcher that is still there
	searchLimit   = time.Second            // a worker's end does not wait longer than this to learn what it left behind
	pendingMost   = 256                    // requests that may wait for the next restart
	secondINT     = 500 * time.Millisecond // an INT sooner than this after the first is the same key press (npm sends two)
	steadyTime    = 10 * time.Second       // a worker ready for this long ends a row of failures
	backoffFirst  = 100 * time.Millisecond // before the second respawn of a row; the first is at once
	backoffMost   = 30 * time.Second
)

// Exit statuses of hotwrap that are not the program's own (GNU coreutils' timeout and env use the same).
const (
	statusNotReady = 124 // the first generation was not ready in time
	statusFailed   = 125 // hotwrap itself failed or was called wrongly
	statusNoExec   = 126 // the program cannot be executed
	statusNotFound = 127 // the program is not there
)

func (t instant) add(d time.Duration) instant   { return t + instant(d) }
func (t instant) since(u instant) time.Duration { return time.Duration(t - u) }
func (t instant) due(now instant) bool          { return t != 0 && t <= now }

//nolint:unparam // encoding.TextMarshaler has it so
func (t instant) MarshalText() ([]byte, error) { return []byte(time.Duration(t).String()), nil }

func (t *instant) UnmarshalText(text []byte) error {
	d, err := time.ParseDuration(string(text))
	*t = instant(d)
	return err
}

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

// limits is what the supervisor is told once, on the command line.
type limits struct {
	workers      int // of a generation, at the start
	surge        int // of them, how many more may run in a restart; 0 as many again
	ready        readyMode
	readyAlive   time.Duration // of --ready alive=DUR
	readyURL     string        // of --ready URL
	readyTimeout time.Duration
	bake         time.Duration
	drainTimeout time.Duration
	stopDelay    time.Duration
	stopTimeout  time.Duration
	respawn      respawnPolicy
	respawnMost  int // failures in a row that end it
	overlap      bool
	unsteered    string // why the new connections cannot be shared out; "" if they can
	check        bool
	hooks        []hookSpec
	adopt        adoptMode
	listeners    []string      // names
	addresses    []string      // of them, as a person writes them
	watch        bool          // somebody watches for builds
	wait         bool          // at a terminal: a program that fails at first is waited for
	build        bool          // --build runs before the first start
	heartbeat    time.Duration // hotwrap's own watchdog wants a word this often; 0 none
	extend       time.Duration // and a manager that waits for us; 0 none
}

// world is what the supervisor needs of the world, so that tests can be the world. No function blocks:
// what takes time answers with an event.
type world struct {
	now        func() instant
	prepare    func(g, predecessor *generation, old *image)            // answers evPrepared; old: run that once more
	check      func(g *generation) (pid int, err error)                // answers evChild
	spawn      func(g *generation, w *worker) (pid int, err error)     // answers evExec, then evNotice
	disk       func(g *generation) diskState                           // what lies there where its program was found
	reap       func() []death                                          // all that ended since, strangers too
	adoptable  func() error                                            // why a program cannot be adopted here
	adopt      func(g *generation, c *call) adopted                    // answers a bind or listen
	pass       func(c *call)                                           // leaves it to the kernel
	nameOf     func(c *call) string                                    // who calls
	open       func(g *generation, like int) error                     // its sockets; like ≠ 0: those of that generation
	look       func(g *generation, w *worker, helped bool)             // answers evLook
	survey     func(g *generation)                                     // answers evSurvey
	signal     func(pid int, sig syscall.Signal)                       // one process
	kill       func(group int, sig syscall.Signal)                     // a whole process group
	empty      func(group int) bool                                    // nobody is left in it
	search     func(g *generation, w *worker, known map[int]bool) bool // what it left outside these groups; false: surely nothing; else answers evStrays
	owns       func(w *worker, n notice) bool                          // the sender is in the worker's tree
	halted     func(pid int) bool                                      // it is in state T
	route      func(shares map[int]int) (routed, error)                // generation → share of the new connections
	probe      func(g *generation, patience time.Duration)             // asks its --ready URL; answers evProbe
	unaim      func(port uint16)                                       // that ask is over
	canary     func(command string, k hook) (pid int, err error)       // --canary-check; answers evChild
	left       func(g *generation) int                                 // connections that wait for it and for nobody else
	refresh    func()                                                  // the listeners' own settings, after each ready
	promote    func(g *generation)                                     // it may live as long as anybody now (oom_score_adj)
	repair     func(name string) (replaced bool)                       // a listener that a program spoilt
	forget     func(w *worker)                                         // its sources end
	release    func(g *generation)                                     // its pins are let go
	closing    func() (parked bool)                                    // the stop has begun: balancers shall see refusals, or clients wait for the next hotwrap
	build      func() (pid int, err error)                             // runs --build; answers evChild
	propose    func(st *state, number int) (pid int, err error)        // asks the hotwrap that lies on disk to take over; answers evProposed
	hook       func(command string, k hook) (pid int, err error)       // answers evChild
	pin        func(img *image) *image                                 // once more, for a hook; nil if it cannot be
	built      func(number int, failed bool)                           // tells the watch that it ended by itself
	runs       func(build string)                                      // tells the watch what was started
	stuck      func()                                                  // tells it that the program cannot be executed
	watchAgain func()                                                  // asks the watch to look now
	clear      func()                                                  // clears the screen
	reopen     func(by string)                                         // the log file, if there is one
	alive      func()                                                  // hotwrap's own manager wants to hear that the loop runs
	extend     func(d time.Duration)                                   // and, while it waits, that it is to wait on for so long
	facts      func() stateCopy                                        // what is known beside the state
	answer     func(v verdict)                                         // a request has its verdict
	say        func(m message)                                         // one line, and the same upward
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

// eventKind is what happened.
type eventKind string

const (
	evTime     eventKind = "time"     // a deadline may be due
	evRequest  eventKind = "request"  // somebody asks
	evAwait    eventKind = "await"    // somebody asks for the verdict on an earlier request
	evLeft     eventKind = "left"     // somebody waits for a verdict no more
	evCopy     eventKind = "copy"     // somebody wants a copy of the state
	evPrepared eventKind = "prepared" // the image of a generation is pinned, or cannot be
	evExec     eventKind = "exec"     // a shim has become the program, or could not
	evNotice   eventKind = "notice"   // a worker speaks
	evLook     eventKind = "look"     // what a look at a worker saw
	evStrays   eventKind = "strays"   // what a worker left behind
	evSurvey   eventKind = "survey"   // a draining generation's connections
	evChild    eventKind = "child"    // a process ended
	evSay      eventKind = "say"      // a source has something for the log
	evChanged  eventKind = "changed"  // the watch found something new
	evSpoilt   eventKind = "spoilt"   // a listener may have been spoilt
	evCall     eventKind = "call"     // a worker binds or listens
	evProbe    eventKind = "probe"    // what came of an ask of the --ready URL
	evProposed eventKind = "proposed" // whether the new hotwrap can take over
	evKept     eventKind = "kept"     // the state was written
)

// event is one thing that happened; kind says which fields count.
type event struct {
	kind     eventKind
	request  request
	reply    chan<- verdict   // evRequest, evAwait, evLeft: has room for one; nil: nobody waits
	copy     chan<- stateCopy // evCopy: the same
	number   int              // evPrepared, evSurvey, evProbe: the generation
	serial   int              // evExec, evNotice, evLook, evStrays, evCall: the worker
	call     *call            // evCall
	image    *image           // evPrepared
	warnings []string         // evPrepared: to be said before the start
	err      error            // evPrepared, evExec, evProposed
	notice   notice
	sight    sight
	groups   []int     // evStrays
	has      remains   // evSurvey
	trigger  trigger   // evChanged
	message  message   // evSay
	name     string    // evSpoilt: the listener
	answer   urlAnswer // evProbe
	ended    []death   // evChild: of processes that are not our children
}

// sight is what a look at a worker saw.
type sight struct {
	watched  []string // names of listeners
	server   int      // who serves, where that is seen; behind is the launcher before it
	behind   launcherSeen
	stamped  bool     // it has its own pid in LISTEN_PID all the same
	by       string   // a process that did not hand the listeners on
	deprived string   // to this one
	stop     int      // the signal that stops what runs there, where that has one of its own
	holds    bool     // it has a descriptor of one at least
	denied   bool     // a helper with the program's own user id could see more
	others   []string // addresses of listening sockets that are not hotwrap's
	polled   []string // listeners on which accept waits, and which are in an epoll all the same
	poller   string   // who has them there
	rivals   bool     // more than one of its epolls has one
	shared   bool     // predecessors have the same ones
	blind    string   // why it cannot be relied on
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
		if g := s.generation(ev.number); g != nil {
			s.surveyed(g, ev.has)
		}
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
		if s.world.repair(ev.name) && !s.Ending {
			s.askedRestart(request{Ask: askRestart, Cause: "repair"}) // nobody serves the new socket yet
		}
	}
	s.due()
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

// bake is how long a successor must live on beside its warm predecessor; 0 not at all.
func (p plan) bake() time.Duration {
	for _, t := range p.Trials {
		if t.Kind == trialBake {
			return t.Limit
		}
	}
	return 0
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

// due acts on every deadline that has passed.
func (s *supervisor) due() {
	now := s.world.now()
	if s.Stop != nil && s.Stop.Delay.due(now) {
		s.stopAll()
	}
	if s.Rebuild.Look.due(now) {
		s.Rebuild.Look = 0
		s.world.watchAgain()
	}
	if s.Heartbeat.due(now) {
		s.Heartbeat = now.add(s.limits.heartbeat)
		s.world.alive()
	}
	s.dueCanary(now)
	for _, g := range slices.Clone(s.Generations) {
		s.dueGeneration(g, now)
		s.dueAsk(g, now)
		for _, w := range slices.Clone(g.Workers) {
			s.dueWorker(g, w, now)
		}
	}
	s.dueHooks(now)
	s.dueExtend(now)
	s.dueReexec(now)
	if s.done() {
		s.letGo()
		if s.Stop != nil {
			s.answerStop()
		}
	}
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

func (s *supervisor) dueGeneration(g *generation, now instant) {
	switch g.State {
	case genStarting:
		switch {
		case !g.Deadline.due(now):
		case s.Restart.Phase == batchBaking:
			s.makeRoom(g)
		default:
			advice := s.advice(g)
			s.fail(g, s.unready(g, now), statusNotReady)
			s.hintAt(advice)
		}
	case genReady:
		if g.Deadline.due(now) {
			s.trialOver(g)
		}
	case genServing:
		for i := range g.Slots {
			if g.Slots[i].Start.due(now) {
				s.respawn(g, i)
			}
		}
	case genDraining:
		s.dueDrain(g, now)
	case genFailed:
		s.relieve(g)
	case genGone:
	}
}

func (s *supervisor) dueDrain(g *generation, now instant) {
	switch {
	case g.Surveyed.due(now), (g.Survey == surveyStop || g.Survey == surveyQuiet) && g.Deadline.due(now): // no KILL before the stop signal
		s.surveyed(g, remains{})
	case g.Deadline.due(now):
		g.Deadline, g.Report = 0, 0
		s.ask(g, surveyKill)
	case g.Report.due(now):
		g.Report = 0
		if g.Survey == surveyNone {
			s.ask(g, surveyReport)
		} else {
			g.Report = now.add(glanceLongest)
		}
	case g.Glance.due(now):
		if g.Glance = 0; g.Survey == surveyNone {
			s.ask(g, surveyQuiet)
		} else {
			g.Glance = now.add(glanceLongest)
		}
	}
}

func (s *supervisor) dueWorker(g *generation, w *worker, now instant) {
	if w.Look.due(now) {
		w.Look = 0
		s.world.look(g, w, s.Helped)
	}
	if w.Alive.due(now) {
		w.Alive = 0
		w.Needs &^= needAlive
		s.settled(g, w)
	}
	if w.Watchdog.due(now) {
		w.Blame = "missed its watchdog"
		s.killWorker(w)
	}
	if w.Limit.due(now) {
		if w.State == workerStarting {
			w.Blame = "not ready after " + brief(now.since(w.Started))
		} else {
			s.overdue(g, w)
		}
		s.killWorker(w)
	}
	if w.Goad.due(now) {
		w.Goad, w.Asked = 0, 0
		s.world.signal(w.PID, syscall.SIGTERM) // a launcher's, whatever its server's own was
		s.world.signal(w.PID, syscall.SIGCONT)
	}
	if w.Search.due(now) {
		s.found(g, w, nil)
	}
	if w.Again.due(now) {
		s.say(warning("pid %d is still there %s after KILL", w.PID, brief(killPatience)))
		s.killWorker(w)
	}
}

// overdue says of one worker that it, or what it left behind, did not end in time.
func (s *supervisor) overdue(g *generation, w *worker) {
	what, limit := g.who(w), s.limits.drainTimeout
	if w.Reaped {
		what = "what " + what + " left behind"
	}
	if s.Stop != nil {
		limit = min(limit, s.limits.stopTimeout)
		s.late()
	}
	s.say(warning("%s did not end within %s, killed", what, brief(limit)))
}

// late notes that an ordered stop needed KILL.
func (s *supervisor) late() { s.Stop.Late, s.Status = true, 128+int(syscall.SIGKILL) }

// deadlines are all instants at which something is due.
func (s *supervisor) deadlines() []instant {
	all := []instant{s.Heartbeat, s.Extend, s.Rebuild.Look, s.Hooks.Deadline, s.Hooks.End}
	if s.Stop != nil {
		all = append(all, s.Stop.Delay)
	}
	if s.Reexec != nil {
		all = append(all, s.Reexec.Deadline)
	}
	if s.Restart != nil {
		all = append(all, s.Restart.Canary.Next, s.Restart.Canary.Limit)
	}
	for _, g := range s.Generations {
		all = append(all, g.Deadline, g.Surveyed, g.Report, g.Glance, g.Ask)
		for _, sl := range g.Slots {
			all = append(all, sl.Start)
		}
		for _, w := range g.Workers {
			all = append(all, w.Look, w.Alive, w.Watchdog, w.Limit, w.Again, w.Goad, w.Search)
		}
	}
	return slices.DeleteFunc(all, func(t instant) bool { return t == 0 })
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
