package main

// This file is what there is to know of a generation and its workers, and the words for it: plain
// data, changed only by the supervisor, written out whole by snapshot.
//
// Generation: starting → ready (on trial) → serving → draining → gone, or failed.
// Worker: starting → ready → stopping → killing → exited.

import (
	"fmt"
	"math/bits"
	"net/netip"
	"slices"
	"strings"
	"syscall"
	"time"
)

// genState is where a generation stands; a user sees these words.
type genState string

const (
	genStarting genState = "starting" // its workers are not all ready yet
	genReady    genState = "ready"    // on trial: its predecessor is still warm
	genServing  genState = "serving"
	genDraining genState = "draining" // replaced, or stopped: finishing what is in flight
	genFailed   genState = "failed"   // never served: its workers are being stopped
	genGone     genState = "gone"
)

// workerState is where one process stands.
type workerState string

const (
	workerStarting workerState = "starting"
	workerReady    workerState = "ready"
	workerStopping workerState = "stopping" // it has the stop signal, or its leader is dead and the group lingers
	workerKilling  workerState = "killing"  // it has KILL
	workerExited   workerState = "exited"
)

// needs is what a worker still lacks to be ready; none left means ready.
type needs uint8

const (
	needExec   needs = 1 << iota // the shim has become the program
	needTold                     // it says so itself
	needWatch                    // it watches its listeners
	needAlive                    // it has lived long enough
	needAnswer                   // its generation answers on the --ready URL
)

func (n needs) String() string {
	names := [...]string{"exec", "word", "accept", "time", "answer"}
	var lacks []string
	for ; n != 0; n &= n - 1 {
		lacks = append(lacks, names[bits.TrailingZeros8(uint8(n))])
	}
	return strings.Join(lacks, "+")
}

// worker is one process of a generation. Its serial is never reused: an event that carries the serial
// of a worker that is no more finds nobody.
type worker struct {
	Serial    int           `json:"serial"`
	Slot      int           `json:"slot"`
	PID       int           `json:"pid"`
	Group     int           `json:"group"`             // its process group
	Main      int           `json:"main,omitempty"`    // another process that it named its main one (MAINPID)
	Adopted   bool          `json:"adopted,omitempty"` // hotwrap does its bind and listen
	State     workerState   `json:"state"`
	Wants     needs         `json:"wants"` // needs at the start
	Needs     needs         `json:"needs"`
	Started   instant       `json:"started"`
	Ready     instant       `json:"ready,omitempty"`
	Alive     instant       `json:"alive,omitempty"`    // needAlive is met then
	Look      instant       `json:"look,omitempty"`     // the next look at it
	Pause     time.Duration `json:"pause,omitempty"`    // from that look to the one after it
	Beat      time.Duration `json:"beat,omitempty"`     // it promised a WATCHDOG=1 this often
	Watchdog  instant       `json:"watchdog,omitempty"` // the next must have come by then
	Again     instant       `json:"again,omitempty"`    // KILL was not enough until now
	Reaped    bool          `json:"reaped,omitempty"`   // its leader is dead; the group, or the word about exec, is awaited
	Limit     instant       `json:"limit,omitempty"`    // KILL: a respawn that is not ready, one that was told alone to finish, a group that outlived its leader
	Status    exitStatus    `json:"status"`
	ExecErr   string        `json:"exec_error,omitempty"`
	ExecCode  int           `json:"exec_code,omitempty"` // hotwrap's exit status for that
	ExecErrno int           `json:"exec_errno,omitempty"`
	Watched   []string      `json:"watched,omitempty"`   // listeners that it was seen to watch
	Blame     string        `json:"blame,omitempty"`     // why hotwrap ended it, if not in order
	Server    int           `json:"server,omitempty"`    // the process that serves, behind launchers
	Habit     int           `json:"habit,omitempty"`     // the stop signal of what it was seen to run, where that has one of its own
	Asked     int           `json:"asked,omitempty"`     // it was told to finish, the launchers before it were not
	Goad      instant       `json:"goad,omitempty"`      // they are then: it has ended, and they have not
	Strays    []int         `json:"strays,omitempty"`    // groups of what left its group, and outlived its leader
	Elsewhere []string      `json:"elsewhere,omitempty"` // where it listens, which is none of the listeners
	Withheld  string        `json:"withheld,omitempty"`  // who did not hand the listeners on, and to whom
	Search    instant       `json:"search,omitempty"`    // they are looked for until then
	Searched  bool          `json:"searched,omitempty"`  // they were, or are being
	Says      string        `json:"says,omitempty"`      // its last STATUS=
	Closed    bool          `json:"closed,omitempty"`    // told to finish, it has let go of all listeners
	Word      string        `json:"word,omitempty"`      // by which way it said that it is ready
	Pipes     [2]uint64     `json:"pipes,omitzero"`      // inodes of the pipes to which it writes its output; 0: none
}

// slot is the place of one worker in its generation, over all its respawns.
type slot struct {
	Failures int      `json:"failures,omitempty"` // in a row
	Start    instant  `json:"start,omitempty"`    // when its next worker starts
	Over     bool     `json:"over,omitempty"`     // --respawn gave it up
	Yielded  bool     `json:"yielded,omitempty"`  // to the successor's worker, while a restart is under way
	Proved   bool     `json:"proved,omitempty"`   // a worker of it was ready, so the next must show what that one did
	Told     bool     `json:"told,omitempty"`     // its workers say READY=1, so a successor's must
	Watched  []string `json:"watched,omitempty"`  // listeners that they were seen to watch, so a successor's must
}

// fallen is a worker that ended without an order.
type fallen struct {
	PID    int        `json:"pid"`
	Serial int        `json:"serial"`
	Status exitStatus `json:"status"`
}

// survey is why a draining generation's connections are being looked up; the next step waits for it.
type survey string

const (
	surveyNone   survey = ""
	surveyStop   survey = "stop"   // then the stop signal
	surveyQuiet  survey = "quiet"  // then the stop signal, if nothing is left to finish
	surveyReport survey = "report" // then a line in the log
	surveyKill   survey = "kill"   // then KILL
)

// generation is one version of the program as it was when started.
type generation struct {
	Number     int              `json:"generation"`
	State      genState         `json:"state"`
	Cause      string           `json:"cause"`
	Image      *image           `json:"image,omitempty"`
	Started    instant          `json:"started"`
	Deadline   instant          `json:"deadline,omitempty"` // starting: not ready in time, or a batch has baked; ready: end of this trial; draining: KILL
	Busy       bool             `json:"busy,omitempty"`     // its image is being prepared
	Check      int              `json:"check,omitempty"`    // pid of --check while it runs
	Held       bool             `json:"held,omitempty"`     // prepared, but waits for its predecessor's end (--no-overlap)
	Fallback   bool             `json:"fallback,omitempty"` // stopped for a successor, started again if that one fails
	Watched    []string         `json:"watched,omitempty"`  // listeners that any of its workers was seen to watch
	Blind      bool             `json:"blind,omitempty"`    // it could not be looked into
	Slots      []slot           `json:"slots"`
	Workers    []*worker        `json:"workers,omitempty"`
	Lead       int              `json:"lead,omitempty"`      // pid of the first worker, also when that is gone
	Drain      instant          `json:"drain,omitempty"`     // when the drain began
	Emptied    instant          `json:"emptied,omitempty"`   // and when it was over: without overlap it is kept for longer
	Adopted    bool             `json:"adopted,omitempty"`   // what its next workers bind is adopted
	Steered    bool             `json:"steered,omitempty"`   // new connections were steered to it, away from others
	Shared     bool             `json:"shared,omitempty"`    // a part of them was, before it served
	Alone      bool             `json:"alone,omitempty"`     // all of them
	Observe    instant          `json:"observe,omitempty"`   // draining: it is not told to stop before then, if it has something to finish
	Still      bool             `json:"still,omitempty"`     // the last look saw nothing left to finish
	Glance     instant          `json:"glance,omitempty"`    // the next look at what it has
	Pause      time.Duration    `json:"pause,omitempty"`     // from that to the one after it
	HalfOpen   []netip.AddrPort `json:"half_open,omitempty"` // clients whose handshake was under way at the switch
	Rescues    int              `json:"rescues,omitempty"`   // started again for what waited
	Survey     survey           `json:"survey,omitempty"`    // what the running survey is for
	Surveyed   instant          `json:"surveyed,omitempty"`
	Report     instant          `json:"report,omitempty"` // the next "still draining"
	Period     time.Duration    `json:"period,omitempty"` // from that to the one after it
	Status     exitStatus       `json:"status"`           // of the worker that ended last
	Stage      stage            `json:"stage,omitempty"`  // how far it has come
	Exit       int              `json:"exit,omitempty"`   // failed: what hotwrap's own exit status would be
	Fallen     *fallen          `json:"fallen,omitempty"` // the worker that failed it, if one did
	ReadyAfter time.Duration    `json:"ready_after,omitempty"`
	Served     bool             `json:"served,omitempty"`    // it was switched to
	Serves     instant          `json:"serves,omitempty"`    // since when
	Crashes    int              `json:"crashes,omitempty"`   // of its workers, while it served
	Handed     bool             `json:"handed,omitempty"`    // no other generation holds a listener
	Ask        instant          `json:"ask,omitempty"`       // its --ready URL is asked then
	AskPause   time.Duration    `json:"ask_pause,omitempty"` // from the answer to the next ask
	Asking     bool             `json:"asking,omitempty"`    // it is being asked
	Good       int              `json:"good,omitempty"`      // good answers in a row
	Bad        int              `json:"bad,omitempty"`       // bad ones
	Answered   bool             `json:"answered,omitempty"`  // there were enough good ones: it is ready, as far as this goes
	Inherited  bool             `json:"inherited,omitempty"` // another hotwrap started it, and was killed
	Answer     string           `json:"answer,omitempty"`    // the last that was not good
}

func (g *generation) readyWorkers() int {
	n := 0
	for _, w := range g.Workers {
		if w.State == workerReady {
			n++
		}
	}
	return n
}

// slot is the place of that index; nil where fewer are wanted by now, or there never were so many.
func (g *generation) slot(i int) *slot {
	if i >= len(g.Slots) {
		return nil
	}
	return &g.Slots[i]
}

// proved is that place if a worker of it was ready: the next must show what that one did. Else nil.
func (g *generation) proved(i int) *slot {
	if sl := g.slot(i); sl != nil && sl.Proved {
		return sl
	}
	return nil
}

// serves tells whether a ready worker is in that slot.
func (g *generation) serves(slot int) bool {
	return slices.ContainsFunc(g.Workers, func(w *worker) bool { return w.Slot == slot && w.State == workerReady })
}

// who names a worker for the log: where there is one only, by its generation.
func (g *generation) who(w *worker) string {
	if len(g.Slots) <= 1 {
		return fmt.Sprintf("generation %d", g.Number)
	}
	return fmt.Sprintf("worker %d of generation %d", w.Slot, g.Number)
}

// readyMode is --ready.
type readyMode string

const (
	readyAuto   readyMode = "auto"
	readyNotify readyMode = "notify"
	readyFD     readyMode = "fd"
	readyAlive  readyMode = "alive"
	readyURL    readyMode = "url"
)

// respawnPolicy is --respawn.
type respawnPolicy string

const (
	respawnAlways    respawnPolicy = "always"
	respawnOnFailure respawnPolicy = "on-failure"
	respawnNever     respawnPolicy = "never"
)

// ok tells whether the worker ended well.
func (w *worker) ok() bool { return w.Blame == "" && w.ExecErr == "" && w.Status.ok() }

// by names how the worker was seen to be ready.
func (w *worker) by() string {
	switch {
	case w.Wants&needAnswer != 0:
		return "answer"
	case w.Wants&needTold != 0 && w.Word == "fd":
		return "fd"
	case w.Wants&needTold != 0:
		return "notify"
	case w.Wants&needWatch != 0:
		return "accept"
	default:
		return "alive"
	}
}

// obituary says how a worker ended that was not told to.
func (w *worker) obituary(now instant) string {
	switch {
	case w.ExecErr != "":
		return w.notStarted()
	case w.Blame != "":
		return w.Blame
	default:
		return fmt.Sprintf("%s after %s", w.Status, brief(now.since(w.Started)))
	}
}

// notStarted says why a worker's process has not become the program. One that was killed before could not tell: no limit is
// to blame.
func (w *worker) notStarted() string {
	if head, _, early := strings.Cut(w.ExecErr, endedEarly); early && w.Status.Signal != 0 {
		return head + "its process " + w.Status.String() + " before it became the program"
	}
	return w.ExecErr
}

// crash words the end of a serving worker.
func (w *worker) crash(now instant) string {
	age := brief(now.since(w.Started))
	switch {
	case w.ExecErr != "" || w.Blame != "":
		return "crashed (" + w.obituary(now) + ")"
	case w.Status.ok():
		return "ended (status 0) after " + age
	case w.Status.Unknown:
		return "ended (how is not known) after " + age
	case w.Status.Signal != 0:
		return fmt.Sprintf("crashed (%s) after %s", w.Status.short(), age)
	default:
		return fmt.Sprintf("exited %d after %s", w.Status.Code, age)
	}
}

// exitCode is hotwrap's own exit status for a first generation that failed by this worker. An exit 0
// before ready is a failure too, so it cannot be passed on.
func (w *worker) exitCode() int {
	switch {
	case w.ExecCode != 0:
		return w.ExecCode
	case w.Status.ok():
		return 1
	default:
		return w.Status.shell()
	}
}

// beat is how often g's program was told to say WATCHDOG=1: WATCHDOG_USEC in its environment.
func (g *generation) beat() time.Duration {
	if g.Image == nil {
		return 0
	}
	return microseconds(getenv(g.Image.environ(nil), "WATCHDOG_USEC"))
}

// stopSignal is what tells a worker of g to finish: by what it was seen to run, else by the command line.
func (g *generation) stopSignal(w *worker) syscall.Signal {
	switch {
	case w.Habit != 0:
		return syscall.Signal(w.Habit)
	case g.Image != nil:
		return g.Image.StopSignal
	}
	return syscall.SIGTERM
}
