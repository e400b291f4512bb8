package main

// This file is what hotwrap says of itself: GET /status, and the table that a person sees.
//
// Its rules:
//   - It works on a copy of the state, away from the supervisor's goroutine; looks at the kernel come after it.
//   - Fields are only ever added. Times are RFC 3339 in UTC, durations are seconds.
//   - Values of the environment are in none of it.
//   - The table reads what any version wrote: what it does not find it leaves out, what it prints it cleans.

import (
	"cmp"
	"fmt"
	"math"
	"runtime"
	"slices"
	"time"
)

const holdersShown = 20 // connections of a draining generation that are named

// facts is what the state does not hold, and only the host knows.
type facts struct {
	name, version string
	pid, uid      int
	argv          []string
	dir           string
	since         time.Time
	self          string         // where hotwrap was found; "" it is not known
	listeners     []listener     // copies: a repair changes the inode
	numbers       []int          // their descriptors in the program
	lost          map[string]int // lines that nobody could be told, by what they were for: log, events
}

// instanceState is how hotwrap is; a user sees these words.
type instanceState string

const (
	instanceStarting instanceState = "starting" // nothing serves yet, or not any more, and something is on its way
	instanceServing  instanceState = "serving"
	instanceStopping instanceState = "stopping"
	instanceFailed   instanceState = "failed" // nothing serves
)

// identity is which hotwrap this is: GET /, and the first event of a stream.
type identity struct {
	Name       string        `json:"name"`
	PID        int           `json:"pid"`
	Version    string        `json:"version"`
	UID        int           `json:"uid"`
	Program    []string      `json:"program"`
	Dir        string        `json:"dir"`
	Since      string        `json:"since"`
	Generation int           `json:"generation"` // that serves; 0 none
	State      instanceState `json:"state"`
}

// statusView is GET /status.
type statusView struct {
	identity
	Time        string           `json:"time"`
	Generations []generationView `json:"generations"`
	Listeners   []listenerView   `json:"listeners"`
	Restart     *restartView     `json:"restart,omitempty"`
	Pending     []requestView    `json:"pending,omitempty"` // answered by the restart after this one
	Building    float64          `json:"building,omitempty"`
	Stop        *stopView        `json:"stop,omitempty"`
	Rollback    *buildView       `json:"rollback,omitempty"` // what a rollback would go back to
	Wanted      int              `json:"wanted"`             // workers of one generation
	Crashes     int              `json:"crashes"`            // of all generations that ever served
	Verdicts    []verdictView    `json:"verdicts"`           // newest first
	Newer       string           `json:"newer,omitempty"`    // where another hotwrap lies than the one that runs
}

type generationView struct {
	Generation  int          `json:"generation"`
	State       genState     `json:"state"`
	Age         float64      `json:"age"`
	Ready       float64      `json:"ready,omitempty"`  // how long it took
	Serves      float64      `json:"serves,omitempty"` // since when
	Build       string       `json:"build,omitempty"`
	Path        string       `json:"path,omitempty"`
	Pinned      string       `json:"pinned,omitempty"`
	Cause       string       `json:"cause"`
	Workers     []workerView `json:"workers"`
	Slots       []slotView   `json:"slots,omitempty"` // those with failures
	Crashes     int          `json:"crashes"`
	Connections *int         `json:"connections,omitempty"` // missing where it cannot be seen
	Share       *float64     `json:"share,omitempty"`       // of the new connections; missing where whoever accepts first gets them
	Drain       *drainView   `json:"drain,omitempty"`
}

type workerView struct {
	PID     int         `json:"pid"`
	Slot    int         `json:"slot"`
	State   workerState `json:"state"`
	Age     float64     `json:"age"`
	Memory  uint64      `json:"memory,omitempty"` // bytes, of its whole tree
	Says    string      `json:"says,omitempty"`
	Watches []string    `json:"watches,omitempty"` // listeners
	Main    int         `json:"main,omitempty"`    // the process that it named its main one
	tree    []int
}

// slotView is a worker's place whose workers keep failing.
type slotView struct {
	Slot     int     `json:"slot"`
	Failures int     `json:"failures"` // in a row
	Next     float64 `json:"next,omitempty"`
	Over     bool    `json:"over,omitempty"` // it is not filled again
}

// drainView is what a draining generation waits for.
type drainView struct {
	For     float64      `json:"for"`
	Left    float64      `json:"left"` // until KILL; 0: it is on its way
	Holders []holderView `json:"holders,omitempty"`
}

type holderView struct {
	Peer string  `json:"peer"`
	Idle float64 `json:"idle"`
}

type listenerView struct {
	Name    string `json:"name"`
	Network string `json:"network"`
	Address string `json:"address"`
	FD      int    `json:"fd"`              // in the program
	Queue   *int   `json:"queue,omitempty"` // connections that nobody has accepted yet; missing where it cannot be seen
	Limit   *int   `json:"queue_limit,omitempty"`
}

// restartView is the restart under way.
type restartView struct {
	Generation  int           `json:"generation"` // the successor
	Predecessor int           `json:"predecessor,omitempty"`
	Stage       stage         `json:"stage,omitempty"`
	Begun       int           `json:"begun,omitempty"` // workers that were started so far
	For         float64       `json:"for"`
	Left        float64       `json:"left,omitempty"` // of the stage, where it has a limit
	Requests    []requestView `json:"requests,omitempty"`
}

type requestView struct {
	ID      string  `json:"id,omitempty"`
	Ask     ask     `json:"ask"`
	By      string  `json:"by"`
	Who     string  `json:"who,omitempty"`
	Message string  `json:"message,omitempty"`
	Waits   float64 `json:"waits"`
}

type stopView struct {
	By    string  `json:"by"`
	For   float64 `json:"for"`
	Delay float64 `json:"delay,omitempty"` // it serves on for so long
}

type buildView struct {
	Generation int    `json:"generation"`
	Build      string `json:"build"`
	Path       string `json:"path"`
}

// verdictView is the answer to a request, as clients see it.
type verdictView struct {
	ID           string   `json:"id"`
	Ask          ask      `json:"ask"`
	By           string   `json:"by"`
	Who          string   `json:"who,omitempty"`
	UID          *int     `json:"uid,omitempty"`
	Message      string   `json:"message,omitempty"`
	Result       result   `json:"result"`
	Generation   int      `json:"generation,omitempty"`
	Build        string   `json:"build,omitempty"`
	Path         string   `json:"path,omitempty"`
	Predecessor  int      `json:"predecessor,omitempty"`
	Serving      int      `json:"serving"` // 0: nothing serves
	ServingBuild string   `json:"serving_build,omitempty"`
	Again        int      `json:"again,omitempty"` // nothing serves, but this one is being started again
	Stage        stage    `json:"stage,omitempty"`
	Reason       string   `json:"reason,omitempty"`
	Status       string   `json:"status,omitempty"`
	PID          int      `json:"pid,omitempty"`
	Pids         []int    `json:"pids,omitempty"`
	Exit         int      `json:"exit"`
	At           string   `json:"at"`
	Took         float64  `json:"took"`
	Waited       float64  `json:"waited"`
	Ready        float64  `json:"ready,omitempty"`
	Output       []string `json:"output,omitempty"`
	OutputFrom   string   `json:"output_from,omitempty"`
	OutputHint   string   `json:"output_hint,omitempty"`
}

// inSeconds writes a duration for JSON, to the millisecond; what has passed already is 0.
func inSeconds(d time.Duration) float64 {
	return math.Round(max(d, 0).Seconds()*1000) / 1000
}

// passed is how long ago t was, in seconds; 0 if it is none.
func passed(t, now instant) float64 {
	if t == 0 {
		return 0
	}
	return inSeconds(now.since(t))
}

// left is how long it is until t, in seconds; 0 if it is none.
func left(t, now instant) float64 {
	if t == 0 {
		return 0
	}
	return inSeconds(t.since(now))
}

// viewVerdict words a verdict for clients. now and wall are the same moment.
func viewVerdict(v verdict, now instant, wall time.Time) verdictView {
	r := v.Request
	view := verdictView{
		ID: r.ID, Ask: viewAsk(r.Ask), By: r.Cause, Who: r.Who, Message: r.Message, Result: v.Result, Generation: v.Generation,
		Build: v.Build, Path: v.Path, Predecessor: v.Predecessor, Serving: v.Serving, ServingBuild: v.ServingBuild, Again: v.Again,
		Stage: v.Stage, Reason: v.Reason, Status: v.Status, PID: v.PID, Pids: v.Pids, Exit: v.Exit,
		At: wallTime(wall.Add(-now.since(v.At))), Ready: inSeconds(v.Ready),
	}
	if r.Who != "" {
		view.UID = &r.UID
	}
	began := v.Began
	if began == 0 {
		began = v.At // nothing was begun for it
	}
	view.Took = passed(began, v.At)
	view.Waited = passed(r.Asked, began)
	return view
}

// viewAsk is what clients asked for: a stop at once is a stop.
func viewAsk(a ask) ask {
	if a == askKill {
		return askStop
	}
	return a
}

// String is a verdict in a few words.
func (v verdictView) String() string {
	text := fmt.Sprintf("%s %s", v.Ask, v.Result)
	if v.Generation != 0 {
		text += fmt.Sprintf(", generation %d", v.Generation)
	}
	if v.Reason != "" {
		text += ": " + v.Reason
	}
	return text
}

// serves tells whether new connections are served: status -q.
func (v statusView) serves() bool { return v.State == instanceServing }

// makeIdentity says which hotwrap this is, and how it is.
func makeIdentity(st *state, f facts) identity {
	who := identity{
		Name: f.name, PID: f.pid, Version: f.version, UID: f.uid, Program: f.argv, Dir: f.dir,
		Since: wallTime(f.since), State: stateOf(st),
	}
	if g := st.serving(); g != nil {
		who.Generation = g.Number
	}
	return who
}

// stateOf sums up how an instance is.
func stateOf(st *state) instanceState {
	if st.Ending {
		return instanceStopping
	}
	state := instanceFailed
	if st.Restart != nil || st.Rebuild.PID != 0 || st.Numbers == 0 {
		state = instanceStarting
	}
	for _, g := range st.Generations {
		if g.State != genServing {
			continue
		}
		for _, w := range g.Workers {
			switch w.State {
			case workerReady:
				return instanceServing
			case workerStarting:
				state = instanceStarting
			case workerStopping, workerKilling, workerExited:
			}
		}
		if slices.ContainsFunc(g.Slots, func(sl slot) bool { return sl.Start != 0 }) {
			state = instanceStarting
		}
	}
	return state
}

// makeStatus says all that the state holds. now and wall are the same moment.
func makeStatus(st *state, now instant, wall time.Time, f facts) statusView {
	v := statusView{
		identity: makeIdentity(st, f), Time: wallTime(wall), Generations: []generationView{}, Listeners: []listenerView{},
		Pending: viewRequests(st.Pending, now), Building: passed(st.Rebuild.Began, now), Wanted: st.Wanted, Crashes: st.Tally.Crashes,
		Rollback: viewRollback(st), Verdicts: []verdictView{},
	}
	if st.Rebuild.PID == 0 {
		v.Building = 0
	}
	for _, g := range st.Generations {
		v.Generations = append(v.Generations, viewGeneration(g, now))
	}
	v.shareOut(st)
	for i, l := range f.listeners {
		v.Listeners = append(v.Listeners, listenerView{Name: l.name, Network: l.network, Address: l.addr, FD: f.numbers[i]})
	}
	if r := st.Restart; r != nil {
		v.Restart = &restartView{
			Generation: r.Successor, Predecessor: r.Predecessor, Begun: r.Begun, For: passed(r.Began, now), Requests: viewRequests(r.Requests, now),
		}
		if g := st.generation(r.Successor); g != nil {
			v.Restart.Stage, v.Restart.Left = g.Stage, left(g.Deadline, now)
		}
	}
	if st.Stop != nil {
		v.Stop = &stopView{By: st.Stop.Cause, For: passed(st.Stop.Since, now), Delay: left(st.Stop.Delay, now)}
		if len(st.Stop.Requests) > 0 {
			v.Stop.By = st.Stop.Requests[0].by()
		}
	}
	for _, verdict := range slices.Backward(st.Verdicts) {
		v.Verdicts = append(v.Verdicts, viewVerdict(verdict, now, wall))
	}
	return v
}

// shareOut says who gets which part of the new connections, where that is hotwrap's doing.
func (v *statusView) shareOut(st *state) {
	if g := st.serving(); g == nil || !g.Steered {
		return
	}
	shares, sum := st.shares(), 0
	for _, share := range shares {
		sum += share
	}
	for i := range v.Generations {
		share := float64(shares[v.Generations[i].Generation]) / float64(max(sum, 1))
		v.Generations[i].Share = &share
	}
}

func viewRequests(rs []request, now instant) (views []requestView) {
	for _, r := range rs {
		views = append(views, requestView{
			ID: r.ID, Ask: r.Ask, By: r.Cause, Who: r.Who, Message: r.Message, Waits: passed(r.Asked, now),
		})
	}
	return views
}

// viewRollback is what a rollback would start.
func viewRollback(st *state) *buildView {
	p := st.before()
	if p.Image == nil || st.Ending {
		return nil
	}
	return &buildView{Generation: p.Number, Build: p.Image.Build, Path: p.Image.Path}
}

func viewGeneration(g *generation, now instant) generationView {
	v := generationView{
		Generation: g.Number, State: g.State, Age: passed(g.Started, now), Ready: inSeconds(g.ReadyAfter),
		Serves: passed(g.Serves, now), Cause: g.Cause, Workers: []workerView{}, Crashes: g.Crashes,
	}
	if g.Image != nil {
		v.Build, v.Path, v.Pinned = g.Image.Build, g.Image.Path, g.Image.Pinned
	}
	for _, w := range g.Workers {
		v.Workers = append(v.Workers, workerView{
			PID: w.PID, Slot: w.Slot, State: g.shown(w), Age: passed(w.Started, now), Says: w.Says, Watches: w.Watched, Main: w.Main,
		})
	}
	for i, sl := range g.Slots {
		if sl.Failures > 0 || sl.Over {
			v.Slots = append(v.Slots, slotView{Slot: i, Failures: sl.Failures, Next: left(sl.Start, now), Over: sl.Over})
		}
	}
	if g.State == genDraining && g.Emptied == 0 {
		v.Drain = &drainView{For: passed(g.Drain, now), Left: left(g.Deadline, now)}
	}
	return v
}

// finishing is not a state of the machine: only who looks from outside is to see the difference.
const finishing = "finishing"

// shown is a worker's state as a user sees it: one that is ready in a generation that drains serves what it has.
func (g *generation) shown(w *worker) workerState {
	if g.State == genDraining && w.State == workerReady {
		return workerState(finishing)
	}
	return w.State
}

// --- what only the kernel knows

// lookAround adds what a look at the kernel says: queues and open connections. It takes longer the more of them there are.
func (v *statusView) lookAround(f facts) {
	if runtime.GOOS != "linux" {
		return
	}
	if f.self != "" && !sameFile(f.self, selfPath) {
		v.Newer = f.self
	}
	var ls []*listener
	for i := range f.listeners {
		ls = append(ls, &f.listeners[i])
	}
	for i, q := range listenQueues(ls) {
		if q.known {
			v.Listeners[i].Queue = &q.waiting
			if q.limit > 0 {
				v.Listeners[i].Limit = &q.limit
			}
		}
	}
	for i := range v.Generations {
		v.Generations[i].lookAround(ls)
	}
}

func (g *generationView) lookAround(ls []*listener) {
	var pids []int
	for i := range g.Workers {
		w := &g.Workers[i]
		w.tree = tree(w.PID)
		pids = append(pids, w.tree...)
	}
	open := connections(pids, ls)
	n := len(open)
	g.Connections = &n
	if g.Drain == nil {
		return
	}
	slices.SortFunc(open, func(a, b connection) int { return cmp.Compare(a.idle, b.idle) })
	for _, c := range open[:min(n, holdersShown)] {
		g.Drain.Holders = append(g.Drain.Holders, holderView{c.peer, inSeconds(c.idle)})
	}
}

// weigh adds the memory of each worker's tree, which costs the kernel a walk through all of it.
func (v *statusView) weigh() {
	for _, g := range v.Generations {
		for i := range g.Workers {
			g.Workers[i].Memory = memoryUse(g.Workers[i].tree)
		}
	}
}
