package main

// This file is the border of the supervisor: what it is told once, what it may ask of the world, and what can happen.
//
// Its rules:
//   - No function of world blocks: what takes time answers with an event.
//   - Everything that happens is one event, and its kind says which of the fields count.

import (
	"syscall"
	"time"
)

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
