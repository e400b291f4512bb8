package main

// This file proves the state machine without processes: a fake world that records, tables and the fake
// clock of synctest for what must happen when, and FuzzStep for what must hold always.

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"
	"syscall"
	"testing"
	"testing/synctest"
	"time"
)

// fakeProcess is one process of the fake world.
type fakeProcess struct {
	pid, serial, number int
	spawned, stopped    instant // stopped: when it had its stop signal
	orphaned            instant // when its leader died and left the group
	dead, reaped        bool
	lingers             bool // its group outlives it
	leader              int  // of a server behind a launcher: the launcher; it is in its group
	strays              bool // of a launcher: what it started is in a group of its own
	check               bool
	hook                bool
}

// fakeWorld is the world that a supervisor under test sees.
type fakeWorld struct {
	t         *testing.T
	s         *supervisor
	clock     func() instant
	pids      int
	procs     []*fakeProcess
	preparing []int          // generations whose image is awaited
	olds      map[int]string // of them, those that go back: to which build
	looking   []int          // serials
	surveying []int          // generations
	searching []int          // serials
	deaths    []death
	said      []message
	answers   map[string]result
	asked     []string     // request IDs that want an answer
	pins      map[int]bool // images that are pinned, by their descriptor
	pinned    int
	opened    map[int]bool // generations that have sockets
	shares    map[int]int  // of the new connections
	routes    routed       // how far a route holds
	has       remains      // what a survey finds
	stranded  int          // connections that wait for whoever ended
	replies   []chan verdict
	resizes   int
	ordered   bool         // KILL was asked for
	beating   map[int]bool // serials whose watchdog is armed
	spawnErr  error
	disk      string  // the build that lies on disk
	hooked    []hook  // that have begun
	ending    instant // when hotwrap began to end
	lost      bool    // the state was read back: nobody waits for a reply any more
	reloading bool    // RELOADING without its READY
	routeErr  error   // a share that is not all cannot be routed
	checks    []int   // processes of --canary-check
	probing   []int   // generations whose --ready URL is being asked
	asking    int     // the new hotwrap whether it can take over: the number of that
	kept      int     // re-execs that did not come about
}

func newFakeWorld(t *testing.T, l limits, clock func() instant) *fakeWorld {
	f := &fakeWorld{t: t, clock: clock, answers: map[string]result{}, opened: map[int]bool{}, has: remains{known: true}, pins: map[int]bool{}, olds: map[int]string{}, beating: map[int]bool{}, pids: 100, disk: "abc"}
	f.s = &supervisor{limits: l, world: f.world()}
	return f
}

func (f *fakeWorld) onDisk(g *generation) diskState {
	if g.Image != nil && g.Image.Build != f.disk {
		return diskOther
	}
	return diskSame
}

func (f *fakeWorld) world() world {
	return world{
		now:     f.clock,
		prepare: f.prepare,
		check:   func(g *generation) (int, error) { return f.start(g.Number, 0, true) },
		spawn:   func(g *generation, w *worker) (int, error) { return f.start(g.Number, w.Serial, false) },
		disk:    f.onDisk,
		reap:    f.reap,
		look:    func(_ *generation, w *worker, _ bool) { f.looking = append(f.looking, w.Serial) },
		survey:  func(g *generation) { f.surveying = append(f.surveying, g.Number) },
		signal:  f.signal,
		kill:    f.kill,
		empty:   f.empty,
		search:  f.search,
		owns:    f.owns,
		halted:  func(int) bool { return false },
		route:   f.route, open: f.open, left: func(*generation) int { return f.stranded },
		probe: f.probe, unaim: func(uint16) {}, canary: f.runCheck,
		refresh: func() {}, promote: func(*generation) {}, repair: func(string) bool { return false }, forget: func(*worker) {},
		release: f.release, closing: func() bool { return false }, alive: func() {}, extend: func(time.Duration) {}, clear: func() {}, reopen: func(string) {},
		hook: f.hook, pin: func(*image) *image { return f.pin() },
		build: func() (int, error) { return f.start(0, 0, true) }, propose: f.propose, built: func(int, bool) {}, runs: func(string) {}, stuck: func() {}, watchAgain: func() {},
		answer: f.answer,
		say:    f.say,
	}
}

func (f *fakeWorld) fatalf(format string, args ...any) {
	f.t.Helper()
	var log strings.Builder
	for _, m := range f.said {
		fmt.Fprintf(&log, "  %s\n", m)
	}
	text, _ := f.s.snapshot()
	f.t.Fatalf("%s\nstate: %s\nlog:\n%s", fmt.Sprintf(format, args...), text, log.String())
}

func (f *fakeWorld) start(number, serial int, check bool) (int, error) {
	if f.s.Ending {
		f.fatalf("generation %d starts a process after the stop", number)
	}
	if f.spawnErr != nil {
		return 0, f.spawnErr
	}
	f.pids++
	f.procs = append(f.procs, &fakeProcess{pid: f.pids, serial: serial, number: number, spawned: f.clock(), check: check})
	return f.pids, nil
}

func (f *fakeWorld) proc(pid int) *fakeProcess {
	for _, p := range f.procs {
		if p.pid == pid {
			return p
		}
	}
	return nil
}

func (f *fakeWorld) reap() []death {
	all := f.deaths
	f.deaths = nil
	for _, d := range all {
		f.proc(d.pid).reaped = true
	}
	return all
}

// die ends a process; the supervisor hears of it when it reaps.
func (f *fakeWorld) die(p *fakeProcess, status exitStatus) {
	if p.dead {
		return
	}
	p.dead = true
	if server := f.serverOf(p.pid); p.lingers || server != nil && !server.dead {
		p.orphaned = f.clock()
	}
	f.deaths = append(f.deaths, death{p.pid, status})
}

func (f *fakeWorld) empty(group int) bool {
	p := f.proc(group)
	server := f.serverOf(group)
	return p.dead && !p.lingers && (server == nil || server.dead)
}

// serverOf is the server behind a launcher, in its group.
func (f *fakeWorld) serverOf(leader int) *fakeProcess {
	for _, p := range f.procs {
		if p.leader == leader && !f.proc(leader).strays {
			return p
		}
	}
	return nil
}

// strayOf is the server that a launcher started in a group of its own.
func (f *fakeWorld) strayOf(leader int) *fakeProcess {
	for _, p := range f.procs {
		if p.leader == leader && f.proc(leader).strays && !p.dead {
			return p
		}
	}
	return nil
}

// owns tells whether a process is the worker's and still there; those that are no process here were made up by a test.
func (f *fakeWorld) owns(w *worker, n notice) bool {
	p := f.proc(n.pid)
	return p == nil || p.leader == 0 || p.leader == w.Group && !p.dead
}

func (f *fakeWorld) search(_ *generation, w *worker, _ map[int]bool) bool {
	if f.strayOf(w.Group) == nil {
		return false
	}
	f.searching = append(f.searching, w.Serial)
	return true
}

// searched answers the oldest search.
func (f *fakeWorld) searched() {
	if len(f.searching) == 0 {
		return
	}
	serial := f.searching[0]
	f.searching = f.searching[1:]
	var groups []int
	if _, w := f.s.worker(serial); w != nil {
		if p := f.strayOf(w.Group); p != nil {
			groups = append(groups, p.pid)
		}
	}
	f.step(event{kind: evStrays, serial: serial, groups: groups})
}

// launched puts a server behind the newest worker, which a look then sees; strays: it left the group.
func (f *fakeWorld) launched(strays bool) {
	w := f.newest()
	if w == nil || w.Server != 0 || f.proc(w.Group).dead || f.serverOf(w.Group) != nil || f.strayOf(w.Group) != nil {
		return
	}
	f.pids++
	f.proc(w.Group).strays = strays
	f.procs = append(f.procs, &fakeProcess{pid: f.pids, serial: w.Serial, number: f.proc(w.Group).number, spawned: f.clock(), leader: w.Group})
	f.step(event{kind: evLook, serial: w.Serial, sight: sight{watched: f.s.limits.listeners, server: f.pids}})
}

// signal is the stop signal to one worker: it must be alive, and another be ready in its slot, or an order behind it.
func (f *fakeWorld) signal(pid int, sig syscall.Signal) {
	p := f.proc(pid)
	if p == nil || p.reaped {
		f.fatalf("%v sent to %d, which was reaped", sig, pid)
	}
	if sig == syscall.SIGCONT {
		return
	}
	if p.stopped != 0 {
		f.fatalf("%d told to stop twice", pid)
	}
	p.stopped = f.clock()
	if server := f.serverOf(pid); server != nil && server.stopped != 0 {
		return // the launcher, whose server is told already
	}
	if g, w := f.s.worker(p.serial); !f.mayStop(g, w) {
		f.fatalf("%d of generation %d told to stop, nobody else serves its slot", pid, p.number)
	}
}

// mayStop tells whether a worker may be told to stop: it never served, it has a substitute, it is one too many, or the
// substitute died by itself.
func (f *fakeWorld) mayStop(g *generation, w *worker) bool {
	s := f.s.serving()
	if w.Ready == 0 || f.s.Ending || g.Fallback || s == nil {
		return true
	}
	if w.Slot >= f.s.Wanted {
		for i := range f.s.Wanted {
			if !slices.ContainsFunc(f.s.Generations, func(o *generation) bool { return o.serves(i) }) {
				return false
			}
		}
		return true
	}
	if w.Slot >= len(s.Slots) {
		return true
	}
	if slices.ContainsFunc(f.s.Generations, func(o *generation) bool { return o.serves(w.Slot) }) {
		return true
	}
	sl := s.Slots[w.Slot]
	return sl.Over || s != g && sl.Failures > 0 && g.State != genFailed
}

// kill reaches a group, which may have outlived its leader. KILL needs a deadline or an order.
func (f *fakeWorld) kill(group int, sig syscall.Signal) {
	p := f.proc(group)
	if p == nil || p.reaped && f.empty(group) {
		f.fatalf("%v sent to group %d, of which nothing is left", sig, group)
	}
	server := f.serverOf(group)
	if sig != syscall.SIGKILL {
		f.tellGroup(p, server, sig)
		return
	}
	now, l := f.clock(), f.s.limits
	least := min(l.drainTimeout, l.stopTimeout)
	late := p.stopped != 0 && now.since(p.stopped) >= least-surveyLimit ||
		server != nil && server.stopped != 0 && now.since(server.stopped) >= least-surveyLimit ||
		p.orphaned != 0 && now.since(p.orphaned) >= least ||
		now.since(p.spawned) >= l.readyTimeout
	if g := f.s.generation(p.number); g != nil && g.Drain != 0 && p.stopped != 0 && now.since(g.Drain) >= least {
		late = true // it counts from the switch
	}
	if p.hook {
		late = f.hookLate(p, now)
	}
	if _, w := f.s.worker(p.serial); p.leader != 0 && w != nil && w.State == workerKilling {
		late = true // the rest of one that is being killed
	}
	if !late && !f.ordered && !f.beating[p.serial] && !p.check {
		f.fatalf("KILL to %d without a deadline or an order", group)
	}
	p.lingers = false
	if server != nil {
		f.die(server, exitStatus{Signal: syscall.SIGKILL})
	}
	f.die(p, exitStatus{Signal: syscall.SIGKILL})
}

// tellGroup is the stop signal to what a launcher left behind: once to a server, whichever way it comes.
func (f *fakeWorld) tellGroup(p, server *fakeProcess, sig syscall.Signal) {
	if p.leader != 0 {
		server = p
	}
	if server == nil || server.dead || sig == syscall.SIGCONT {
		return
	}
	if server.stopped != 0 && server != p { // one that left the group may have been told by its pid
		f.fatalf("the server %d told to stop twice", server.pid)
	}
	server.stopped = f.clock()
}

// release lets go of an image; twice would close somebody else's descriptor.
func (f *fakeWorld) release(g *generation) {
	if g.Image == nil {
		return
	}
	if !f.pins[g.Image.Exe] {
		f.fatalf("image %d is released, but not pinned", g.Image.Exe)
	}
	delete(f.pins, g.Image.Exe)
}

// route takes shares of generations that have sockets; whoever serves has some.
func (f *fakeWorld) route(shares map[int]int) (routed, error) {
	if len(shares) > 1 && f.routeErr != nil {
		return f.routes, f.routeErr
	}
	sum := 0
	for number, share := range shares {
		if sum += share; !f.opened[number] {
			f.fatalf("generation %d gets connections and has no sockets", number)
		}
	}
	if sum == 0 {
		f.fatalf("nobody gets the connections")
	}
	f.shares = maps.Clone(shares)
	return f.routes, nil
}

func (f *fakeWorld) open(g *generation, like int) error {
	if f.opened[g.Number] || like != 0 && !f.opened[like] {
		f.fatalf("generation %d gets sockets twice, or those of none (%d)", g.Number, like)
	}
	f.opened[g.Number] = true
	return nil
}

func (f *fakeWorld) answer(v verdict) {
	if v.Request.ID == "" {
		return
	}
	if r, ok := f.answers[v.Request.ID]; ok {
		f.fatalf("request %s has two verdicts: %s and %s", v.Request.ID, r, v.Result)
	}
	f.answers[v.Request.ID] = v.Result
}

func (f *fakeWorld) say(m message) {
	f.said = append(f.said, m)
	switch m.up {
	case upReloading:
		f.reloading = true
	case upReady, upStopping:
		f.reloading = false
	case upStatus:
	}
}

// check asserts what always holds.
func (f *fakeWorld) check() {
	f.checkHooks()
	count := map[genState]int{}
	for _, g := range f.s.Generations {
		count[g.State]++
		if g.State == genStarting && !g.Busy && !g.Held && g.Deadline == 0 && f.s.Restart.Phase != batchYielding {
			f.fatalf("generation %d starts without a limit", g.Number)
		}
		if g.State == genDraining && g.Deadline == 0 && g.Survey != surveyKill && !slices.ContainsFunc(g.Workers, func(w *worker) bool { return w.Again != 0 }) &&
			len(g.Workers) > 0 {
			f.fatalf("generation %d drains without a limit", g.Number)
		}
	}
	if count[genServing] > 1 || count[genStarting]+count[genReady] > 1 {
		f.fatalf("too many generations in one state: %v", count)
	}
	for _, g := range f.s.Generations {
		for _, w := range g.Workers {
			if w.State == workerReady && w.Limit != 0 {
				f.fatalf("worker %d is ready and will be killed", w.Serial)
			}
		}
	}
	f.checkWorkers()
	f.checkShares()
	for _, at := range f.s.deadlines() {
		if at.due(f.clock()) && at.since(f.s.world.now()) < 0 {
			f.fatalf("a deadline stays due: run would spin")
		}
	}
	first := f.s.Numbers == 0 && f.s.Rebuild.PID != 0 // the build before the first start
	if len(f.s.Pending) > 0 && f.s.Restart == nil && !f.s.Ending && !f.s.announcing() && !first {
		f.fatalf("requests wait for nothing")
	}
	counting := slices.ContainsFunc(f.s.Generations, func(g *generation) bool { return g.Survey == surveyStop })
	if f.reloading && f.s.Restart == nil && !f.s.Ending && !counting { // READY is said with the count
		f.fatalf("the service manager waits for READY")
	}
}

// ask posts a request that wants an answer.
func (f *fakeWorld) ask(what ask, cause string) {
	reply := make(chan verdict, 1)
	f.replies = append(f.replies, reply)
	f.asked = append(f.asked, fmt.Sprint(len(f.asked)+1))
	if what == askKill || cause == "SIGINT" {
		f.ordered = true
	}
	f.step(event{kind: evRequest, request: request{ID: f.asked[len(f.asked)-1], Ask: what, Cause: cause}, reply: reply})
}

func (f *fakeWorld) step(ev event) {
	f.s.step(ev)
	f.s.step(event{kind: evTime}) // one deadline may have hidden another; run comes back at once then
	if f.s.leaving {
		f.depart()
	}
	f.check()
}

// propose has the new hotwrap asked.
func (f *fakeWorld) propose(_ *state, number int) (int, error) {
	f.asking = number
	return f.start(0, 0, true)
}

// proposed lets it answer.
func (f *fakeWorld) proposed(err error) {
	if f.asking > 0 {
		number := f.asking
		f.asking = 0
		f.step(event{kind: evProposed, number: number, err: err})
	}
}

// depart is what the host does at a re-exec: nothing that is being looked up comes back. Each third one is in vain.
func (f *fakeWorld) depart() {
	if f.s.occupied() {
		f.fatalf("leaves while something is half done")
	}
	f.looking, f.surveying, f.searching, f.probing = nil, nil, nil, nil
	f.roundTrip()
	refused := ""
	if f.kept++; f.kept%3 == 0 {
		refused = "cannot execute"
	}
	f.s.arrived("1.0", refused, f.clock())
}

func (f *fakeWorld) prepare(g, _ *generation, old *image) {
	f.preparing = append(f.preparing, g.Number)
	if old != nil {
		if !f.pins[old.Exe] {
			f.fatalf("goes back to an image that is not pinned any more")
		}
		f.olds[g.Number] = old.Build
	}
}

// prepared answers the oldest wish for an image.
func (f *fakeWorld) prepared(err error) {
	if len(f.preparing) == 0 {
		return
	}
	n := f.preparing[0]
	f.preparing = f.preparing[1:]
	ev := event{kind: evPrepared, number: n, err: err}
	if err == nil {
		ev.image = f.pin()
		if old, ok := f.olds[n]; ok {
			ev.image.Build = old
		}
	}
	f.step(ev)
}

// pin makes an image of what lies on disk.
func (f *fakeWorld) pin() *image {
	f.pinned++
	f.pins[f.pinned] = true
	return &image{Exe: f.pinned, Build: f.disk, Path: "/app", StopSignal: syscall.SIGTERM, Argv: []string{"app"}}
}

// looked answers the oldest look.
func (f *fakeWorld) looked(see sight) {
	if len(f.looking) == 0 {
		return
	}
	serial := f.looking[0]
	f.looking = f.looking[1:]
	f.step(event{kind: evLook, serial: serial, sight: see})
}

func (f *fakeWorld) surveyed() {
	if len(f.surveying) == 0 {
		return
	}
	n := f.surveying[0]
	f.surveying = f.surveying[1:]
	f.step(event{kind: evSurvey, number: n, has: f.has})
}

// newest is the worker started last; nil if it is gone.
func (f *fakeWorld) newest() *worker {
	_, w := f.s.worker(f.s.Serials)
	return w
}

// serve brings the newest worker to ready by exec and a look.
func (f *fakeWorld) serve() {
	f.prepared(nil)
	f.step(event{kind: evExec, serial: f.s.Serials})
	f.step(event{kind: evNotice, serial: f.s.Serials, notice: notice{ready: true, by: "notify"}})
	for range 100 {
		if w := f.newest(); w == nil || w.State != workerStarting {
			return
		}
		f.advance(lookLongest)
		f.looked(sight{watched: f.s.limits.listeners})
	}
	f.fatalf("the newest worker never got ready")
}

// advance lets time pass; only for worlds with a clock of their own.
func (f *fakeWorld) advance(d time.Duration) {
	now := f.clock()
	f.clock = func() instant { return now.add(d) }
	f.s.world.now = f.clock
	f.step(event{kind: evTime})
}

// obey lets every process that has its stop signal end.
func (f *fakeWorld) obey() {
	for _, p := range f.procs {
		if p.stopped != 0 || p.orphaned != 0 && f.serverOf(p.pid) == nil {
			p.lingers = false
			f.die(p, exitStatus{Signal: syscall.SIGTERM})
		}
	}
	f.step(event{kind: evChild})
}

func defaultLimits() limits {
	return limits{
		workers: 1, ready: readyAuto, readyTimeout: 60 * time.Second, bake: time.Second, drainTimeout: 30 * time.Second,
		stopTimeout: 20 * time.Second, respawn: respawnAlways, respawnMost: 10, overlap: true, listeners: []string{"web"},
	}
}

// started is a world whose first generation serves.
func started(t *testing.T, l limits) *fakeWorld {
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.serve()
	if f.s.serving() == nil {
		f.fatalf("the first generation does not serve")
	}
	return f
}

// wantSaid fails unless a line with each of the texts was said, in this order.
func (f *fakeWorld) wantSaid(texts ...string) {
	f.t.Helper()
	rest := f.said
	for _, text := range texts {
		i := slices.IndexFunc(rest, func(m message) bool { return strings.Contains(m.String(), text) })
		if i < 0 {
			f.fatalf("never said (in this order): %q", text)
		}
		rest = rest[i:]
	}
}

// want fails unless the states are, oldest generation first.
func (f *fakeWorld) want(states ...string) {
	f.t.Helper()
	var got []string
	for _, g := range f.s.Generations {
		got = append(got, fmt.Sprintf("%d %s", g.Number, g.State))
	}
	if !slices.Equal(got, states) {
		f.fatalf("generations are %q, want %q", got, states)
	}
}

func TestRestart(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.serve()
	f.want("1 serving", "2 ready") // bakes
	f.advance(time.Second)
	f.want("1 draining", "2 serving")
	if f.answers["1"] != promoted {
		f.fatalf("verdict %q", f.answers["1"])
	}
	f.surveyed()
	f.obey()
	f.want("2 serving")
	f.wantSaid("generation 2 starting", "generation 2 ready", "generation 2 serving; generation 1 draining, 0 connections, up to 30s",
		"generation 1 gone status=SIGTERM")
}

// TestBadSuccessor: whatever a successor does wrong before the switch, the predecessor serves on with
// the same process, and the next restart is free to go.
func TestBadSuccessor(t *testing.T) {
	cases := map[string]struct {
		bad  func(f *fakeWorld)
		says string
	}{
		"missing":            {func(f *fakeWorld) { f.prepared(cannotStart("./app", syscall.ENOENT)) }, `cannot start "./app": no such file`},
		"cannot fork":        {func(f *fakeWorld) { f.spawnErr = errors.New("cannot fork: no"); f.prepared(nil); f.spawnErr = nil }, "cannot fork: no"},
		"cannot exec":        {func(f *fakeWorld) { f.prepared(nil); f.badExec(true) }, `cannot start "./app": exec format error`},
		"cannot exec, late":  {func(f *fakeWorld) { f.prepared(nil); f.badExec(false) }, `cannot start "./app": exec format error`},
		"exits":              {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.exit(exitStatus{Code: 7}) }, "exited 7 after 0s, before ready"},
		"exits 0":            {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.exit(exitStatus{}) }, "exited 0 after 0s, before ready"},
		"hangs":              {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.advance(time.Minute) }, `not ready after 1m; it did not say READY=1, which its predecessor did; nobody serves "web"`},
		"dies while baking":  {func(f *fakeWorld) { f.serve(); f.exit(exitStatus{Signal: syscall.SIGSEGV}) }, "died of SIGSEGV after 50ms, while baking"},
		"watchdog":           {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.missBeat() }, "missed its watchdog"},
		"serves not the web": {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.tell(); f.advance(time.Minute) }, `not ready after 1m; nobody serves "web"`},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := started(t, defaultLimits())
			before := f.s.serving().Workers[0].PID
			f.ask(askRestart, "SIGHUP")
			c.bad(f)
			f.wantSaid("generation 2 failed: "+c.says, "")
			f.obey()
			f.want("1 serving")
			if f.answers["1"] != failed || f.s.serving().Workers[0].PID != before {
				f.fatalf("verdict %q, pid %d, before %d", f.answers["1"], f.s.serving().Workers[0].PID, before)
			}
			f.ask(askRestart, "SIGHUP")
			f.serve()
			f.advance(time.Second)
			f.surveyed()
			f.obey()
			f.want("3 serving")
		})
	}
}

func (f *fakeWorld) exec() { f.step(event{kind: evExec, serial: f.s.Serials}) }
func (f *fakeWorld) tell() {
	f.step(event{kind: evNotice, serial: f.s.Serials, notice: notice{ready: true, by: "notify"}})
}

// exit ends the newest worker.
func (f *fakeWorld) exit(status exitStatus) {
	f.die(f.procs[len(f.procs)-1], status)
	f.step(event{kind: evChild})
}

// badExec reports an exec error before or after the death of the shim.
func (f *fakeWorld) badExec(first bool) {
	serial := f.s.Serials
	ev := event{kind: evExec, serial: serial, err: cannotStart("./app", syscall.ENOEXEC)}
	if first {
		f.step(ev)
	}
	f.exit(exitStatus{Code: statusNoExec})
	if !first {
		f.step(ev)
	}
}

// TestEndedEarly: a process that was killed before it became the program is no fault of a limit.
func TestEndedEarly(t *testing.T) {
	f := started(t, defaultLimits())
	early := cannotStart("./app", errors.New(endedEarly+" (at most 60 processes of one user, RLIMIT_NPROC)"))
	for status, reason := range map[exitStatus]string{
		{Signal: syscall.SIGKILL}: `cannot start "./app": its process died of SIGKILL before it became the program`,
		{Code: 2}:                 early.Error(), // the Go runtime found no thread
	} {
		f.ask(askRestart, "SIGHUP")
		f.prepared(nil)
		f.step(event{kind: evExec, serial: f.s.Serials, err: early})
		f.exit(status)
		if v := f.s.Verdicts[len(f.s.Verdicts)-1]; v.Result != failed || v.Reason != reason {
			t.Errorf("%v: %s: %q, want %q", status, v.Result, v.Reason, reason)
		}
	}
	f.want("1 serving")
}

func (f *fakeWorld) missBeat() {
	f.beating[f.s.Serials] = true
	f.step(event{kind: evNotice, serial: f.s.Serials, notice: notice{watchdog: true, watchdogUSec: time.Second}})
	f.advance(time.Second)
	f.step(event{kind: evChild})
}

// TestPending: requests made during a restart share the next one; a stop answers all.
func TestPending(t *testing.T) {
	f := started(t, defaultLimits())
	for range 10 {
		f.ask(askRestart, "SIGHUP")
	}
	f.serve()
	f.advance(time.Second)
	f.surveyed()
	if f.s.Numbers != 3 {
		f.fatalf("%d generations, want 3", f.s.Numbers)
	}
	f.serve()
	f.advance(time.Second)
	f.surveyed()
	for _, id := range f.asked {
		if f.answers[id] != promoted {
			f.fatalf("request %s: %q", id, f.answers[id])
		}
	}
	f.want("1 draining", "2 draining", "3 serving") // a restart never waits for a drain
	f.ask(askRestart, "SIGHUP")
	f.ask(askRestart, "SIGHUP")
	f.ask(askStop, "SIGTERM")
	if f.answers["11"] != stopped || f.answers["12"] != stopped {
		f.fatalf("verdicts %q %q", f.answers["11"], f.answers["12"])
	}
	f.ask(askRestart, "SIGHUP")
	if f.answers["14"] != stopped {
		f.fatalf("a restart after the stop: %q", f.answers["14"])
	}
}

// TestFirstFails: the first generation has nothing to fall back to, so hotwrap ends with its status.
func TestFirstFails(t *testing.T) {
	cases := map[string]struct {
		bad  func(f *fakeWorld)
		want int
	}{
		"missing":        {func(f *fakeWorld) { f.prepared(cannotStart("./app", syscall.ENOENT)) }, 127},
		"not executable": {func(f *fakeWorld) { f.prepared(cannotStart("./app", syscall.EACCES)) }, 126},
		"garbage":        {func(f *fakeWorld) { f.prepared(nil); f.badExec(true) }, 126},
		"exits 7":        {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.exit(exitStatus{Code: 7}) }, 7},
		"exits 0":        {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.exit(exitStatus{}) }, 1},
		"dies":           {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.exit(exitStatus{Signal: syscall.SIGSEGV}) }, 139},
		"hangs":          {func(f *fakeWorld) { f.prepared(nil); f.exec(); f.advance(time.Minute); f.obey() }, 124},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := newFakeWorld(t, defaultLimits(), func() instant { return 1 })
			f.s.start()
			c.bad(f)
			if !f.s.done() || f.s.Status != c.want {
				f.fatalf("done %v, status %d, want %d", f.s.done(), f.s.Status, c.want)
			}
		})
	}
}

// TestCrash: a serving worker that dies is started again in its own generation, first at once, then
// with longer and longer pauses, and the tenth time in a row ends hotwrap with its status.
func TestCrash(t *testing.T) {
	f := started(t, defaultLimits())
	var pauses []time.Duration
	for n := 1; ; n++ {
		f.exit(exitStatus{Code: 3})
		if n == 10 {
			break
		}
		g := f.s.serving()
		if g == nil || g.Number != 1 {
			f.fatalf("generation 1 does not serve")
		}
		if at := g.Slots[0].Start; at != 0 {
			pauses = append(pauses, at.since(f.clock()))
			f.advance(at.since(f.clock()))
		} else {
			pauses = append(pauses, 0)
		}
		f.exec()
	}
	ms := time.Millisecond
	want := []time.Duration{0, 100 * ms, 200 * ms, 400 * ms, 800 * ms, 1600 * ms, 3200 * ms, 6400 * ms, 12800 * ms}
	if !slices.Equal(pauses, want) {
		f.fatalf("pauses %v, want %v", pauses, want)
	}
	if !f.s.done() || f.s.Status != 3 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
	f.wantSaid("exited 3 after", "started again from build abc, try 1", "10 in a row, giving up")
}

// TestSteady: failures count only in a row.
func TestSteady(t *testing.T) {
	f := started(t, defaultLimits())
	for range 30 {
		f.serve()
		f.advance(steadyTime)
		f.exit(exitStatus{Code: 3})
	}
	f.want("1 serving")
}

// TestPredecessorDies: a successor on trial takes over at once from a predecessor that died.
func TestPredecessorDies(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.serve()
	f.want("1 serving", "2 ready")
	f.die(f.procs[0], exitStatus{Signal: syscall.SIGSEGV})
	f.step(event{kind: evChild})
	f.want("2 serving")
	f.wantSaid("generation 1 crashed (SIGSEGV)", "generation 2 takes over")
}

// TestNoOverlap: the predecessor ends first, and is started again if the successor fails.
func TestNoOverlap(t *testing.T) {
	l := defaultLimits()
	l.overlap = false
	f := started(t, l)
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.want("1 draining", "2 starting")
	if f.s.Serials != 1 {
		f.fatalf("the successor was started before its predecessor's end")
	}
	f.surveyed()
	f.obey()
	if f.s.Serials != 2 {
		f.fatalf("the successor was not started")
	}
	f.exec()
	f.exit(exitStatus{Code: 9})
	f.want("1 serving")
	f.wantSaid("generation 2 failed: exited 9", "generation 1 is started again")
	f.serve()
	f.wantSaid("generation 1 ready again")
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.surveyed()
	f.obey()
	if v := makeStatus(&f.s.state, f.clock(), time.Now(), facts{}); v.Generations[0].Drain != nil {
		f.fatalf("generation %d has ended, and drains", v.Generations[0].Generation)
	}
	f.advance(l.drainTimeout + time.Second) // the successor takes long; the predecessor has ended
	f.serve()
	f.advance(time.Second)
	f.want("3 serving")
	f.wantSaid("generation 1 gone status=SIGTERM drained=0s")
	for _, m := range f.said {
		if text := m.String(); strings.Contains(text, "did not end") || strings.Contains(text, "still draining") {
			f.fatalf("said %q", text)
		}
	}
}

// withWatch is a world whose first generation serves and whose program is watched.
func withWatch(t *testing.T) *fakeWorld {
	l := defaultLimits()
	l.watch = true
	return started(t, l)
}

// TestOvertake: a newer build stops the candidate of an older one, but not for ever; what serves
// already, and what has failed already, is not started again.
func TestOvertake(t *testing.T) {
	f := withWatch(t)
	for n := range 3 {
		f.disk = fmt.Sprintf("build%d", n)
		f.changed()
		f.prepared(nil)
		f.exec()
	}
	f.want("1 serving", "2 failed", "3 failed", "4 starting")
	f.obey()
	f.disk = "build3"
	f.changed()
	f.prepared(nil)
	f.want("1 serving", "4 failed", "5 starting")
	f.disk = "build4"
	f.changed() // the fourth in a row waits
	f.want("1 serving", "4 failed", "5 starting")
	f.serve()
	f.advance(time.Second)
	f.surveyed()
	f.serve()
	f.advance(time.Second)
	f.surveyed()
	f.surveyed()
	f.obey()
	f.want("6 serving")

	f.changed() // the same again
	f.want("6 serving")
	f.disk = "bad"
	f.changed()
	f.prepared(nil)
	f.exec()
	f.exit(exitStatus{Code: 1})
	f.changed() // it has failed
	f.want("6 serving")
	f.wantSaid("build bad again, which failed before")
	f.ask(askRestart, "SIGHUP") // but an order may try
	f.want("6 serving", "8 starting")
}

// TestBackAndForth: a change that is taken back while its candidate starts leaves what serves alone.
func TestBackAndForth(t *testing.T) {
	f := withWatch(t)
	f.disk = "new"
	f.changed()
	f.prepared(nil)
	f.exec()
	f.disk = "abc"
	f.changed()
	f.obey()
	f.want("1 serving")
	if f.s.Numbers != 2 {
		f.fatalf("%d generations", f.s.Numbers)
	}
}

// TestNotYet: a file that cannot be executed yet is no failure, until it has been one for long.
func TestNotYet(t *testing.T) {
	f := withWatch(t)
	again := 0
	f.s.world.watchAgain = func() {
		again++
		f.s.step(event{kind: evChanged, trigger: trigger{name: "app", to: "new", program: true}})
	}
	f.disk = "new"
	f.changed()
	for range notYetPatience {
		f.prepared(cannotStart("./app", syscall.ETXTBSY))
		f.advance(notYetMost)
	}
	if again != notYetPatience {
		f.fatalf("looked again %d times", again)
	}
	stuck := 0
	f.s.world.stuck = func() { stuck++ }
	f.prepared(cannotStart("./app", syscall.ETXTBSY))
	f.wantSaid(`failed: cannot start "./app": text file busy`)
	f.want("1 serving")
	shown := f.said[:0:0]
	for _, m := range f.said {
		if m.level != levelVerbose && strings.Contains(m.String(), "app changed") {
			shown = append(shown, m)
		}
	}
	if stuck != 1 || len(shown) != 1 {
		f.fatalf("the watch was told %d times, a change was shown %d times", stuck, len(shown))
	}
}

// TestStuck: what could not be executed is tried again once it has changed in any way.
func TestStuck(t *testing.T) {
	f := withWatch(t)
	stuck := 0
	f.s.world.stuck = func() { stuck++ }
	f.disk = "new"
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.badExec(true)
	f.wantSaid("generation 2 failed: ")
	if stuck != 1 {
		f.fatalf("the watch was told %d times", stuck)
	}
	f.step(event{kind: evChanged, trigger: trigger{name: "app", to: "new", program: true, stuck: true}})
	f.serve()
	f.advance(time.Second)
	f.want("1 draining", "3 serving")
}

// TestToldFirst: the word of a program may be heard before the word that it runs.
func TestToldFirst(t *testing.T) {
	l := defaultLimits()
	l.ready, l.listeners = readyNotify, nil
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.prepared(nil)
	f.tell()
	f.want("1 starting")
	f.exec()
	f.want("1 serving")
}

// TestWaits: at a terminal a program that fails at first is waited for.
func TestWaits(t *testing.T) {
	l := defaultLimits()
	l.watch, l.wait = true, true
	f := newFakeWorld(t, l, func() instant { return 1 })
	f.s.start()
	f.prepared(cannotStart("./app", syscall.ENOENT))
	f.wantSaid("no such file or directory; waiting for the next build")
	if f.s.done() {
		f.fatalf("hotwrap ends")
	}
	f.disk = "new"
	f.changed()
	f.serve()
	f.want("2 serving")
}

// TestBuild: --build runs before the first start and at each change of a source; the newest change
// stops a running one; one that fails leaves what serves alone.
func TestBuild(t *testing.T) {
	l := defaultLimits()
	l.watch, l.build = true, true
	f := newFakeWorld(t, l, func() instant { return 1 })
	f.s.start()
	if len(f.preparing) != 0 {
		f.fatalf("started before it was built")
	}
	built := func(status exitStatus) { f.exit(status) }
	built(exitStatus{})
	f.serve()
	f.want("1 serving")
	source := event{kind: evChanged, trigger: trigger{what: "main.go", sources: true}}
	f.step(source)
	f.step(source) // the first run is killed
	f.step(event{kind: evChild})
	if len(f.procs) != 4 || !f.procs[2].dead {
		f.fatalf("%d processes", len(f.procs))
	}
	built(exitStatus{Code: 2})
	f.wantSaid("main.go changed; building", "the build starts again", "the build failed: exited 2", "generation 1 serves on")
	f.want("1 serving")
}

// TestStop: a stop drains, kills at its limit, and hotwrap's status says which it was.
func TestStop(t *testing.T) {
	cases := map[string]struct {
		do   func(f *fakeWorld)
		want int
	}{
		"in time": {func(f *fakeWorld) { f.ask(askStop, "SIGTERM"); f.surveyed(); f.obey() }, 0},
		"late": {func(f *fakeWorld) {
			f.ask(askStop, "SIGTERM")
			f.surveyed()
			f.advance(20 * time.Second)
			f.surveyed()
			f.step(event{kind: evChild})
		}, 137},
		"TERM again changes nothing": {func(f *fakeWorld) {
			f.ask(askStop, "SIGTERM")
			f.surveyed()
			f.advance(time.Second)
			f.ask(askStop, "SIGTERM")
			f.obey()
		}, 0},
		"INT twice at once": {func(f *fakeWorld) { f.ask(askStop, "SIGINT"); f.ask(askStop, "SIGINT"); f.surveyed(); f.obey() }, 0},
		"INT twice": {func(f *fakeWorld) {
			f.ask(askStop, "SIGINT")
			f.surveyed()
			f.advance(secondINT)
			f.ask(askStop, "SIGINT")
			f.step(event{kind: evChild})
		}, 137},
		"TERM, then the first INT": {func(f *fakeWorld) {
			f.ask(askStop, "SIGTERM")
			f.surveyed()
			f.advance(secondINT)
			f.ask(askStop, "SIGINT")
			f.obey()
		}, 0},
		"while starting": {func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.prepared(nil)
			f.exec()
			f.ask(askStop, "SIGTERM")
			f.surveyed()
			f.obey()
		}, 0},
		"while preparing": {func(f *fakeWorld) {
			f.ask(askRestart, "SIGHUP")
			f.ask(askStop, "SIGTERM")
			f.surveyed()
			f.obey()
			f.prepared(nil)
		}, 0},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			f := started(t, defaultLimits())
			c.do(f)
			if !f.s.done() || f.s.Status != c.want {
				f.fatalf("done %v, status %d, want %d", f.s.done(), f.s.Status, c.want)
			}
		})
	}
}

// TestCrashInDelay: a worker that dies while the stop is delayed is not started again, and said; with
// nobody left to serve, the delay is over.
func TestCrashInDelay(t *testing.T) {
	l := defaultLimits()
	l.stopDelay = time.Hour
	f := started(t, l)
	f.ask(askStop, "SIGTERM")
	f.exit(exitStatus{Signal: syscall.SIGSEGV})
	f.wantSaid("stopping in 1h", "crashed (SIGSEGV)", "not started again, hotwrap is stopping")
	if !f.s.done() || f.s.Status != 139 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestReplacedListener: a socket that had to be replaced is served by nobody before a restart.
func TestReplacedListener(t *testing.T) {
	f := started(t, defaultLimits())
	f.s.world.repair = func(string) bool { return true }
	f.step(event{kind: evSpoilt, name: "web"})
	f.serve()
	f.advance(time.Second)
	f.surveyed()
	f.obey()
	f.want("2 serving")
}

// TestLingeringGroup: a worker is gone when its group is, and what its leader left behind is told to
// stop once, then killed at the limit.
func TestLingeringGroup(t *testing.T) {
	f := started(t, defaultLimits())
	f.procs[0].lingers = true
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	f.die(f.procs[0], exitStatus{Signal: syscall.SIGTERM})
	f.step(event{kind: evChild})
	f.want("1 draining")
	f.advance(20 * time.Second)
	f.surveyed()
	f.step(event{kind: evChild})
	if !f.s.done() || f.s.Status != 137 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestReadyAgain: the limit for a respawn to get ready ends when it is ready.
func TestReadyAgain(t *testing.T) {
	f := started(t, defaultLimits())
	f.exit(exitStatus{Code: 3})
	f.serve()
	w := f.newest()
	f.advance(f.s.limits.readyTimeout)
	if w.State != workerReady {
		f.fatalf("the worker that was started again is %s", w.State)
	}
}

// TestStopBetween: a stop finds the predecessor still draining for a successor that was given up already.
func TestStopBetween(t *testing.T) {
	l := defaultLimits()
	l.overlap, l.watch = false, true
	f := started(t, l)
	f.disk = "new"
	f.changed()
	f.prepared(nil)
	f.disk = "newer"
	f.changed()
	f.want("1 draining")
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	f.obey()
	if !f.s.done() || f.s.Status != 0 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestQuietEnd: the last of a group may be another process's child; then no signal tells of its end.
func TestQuietEnd(t *testing.T) {
	f := started(t, defaultLimits())
	f.procs[0].lingers = true
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	f.exit(exitStatus{})
	f.procs[0].lingers = false
	f.advance(20 * time.Second)
	if !f.s.done() || f.s.Status != 0 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestKillInDelay: an order to kill leaves nothing of the drain that it cuts short.
func TestKillInDelay(t *testing.T) {
	l := defaultLimits()
	l.stopDelay = 10 * time.Second
	f := started(t, l)
	f.ask(askStop, "SIGINT")
	f.advance(time.Second)
	f.ask(askStop, "SIGINT")
	f.surveyed()
	f.step(event{kind: evChild})
	if i := slices.IndexFunc(f.said, func(m message) bool { return strings.Contains(m.head, "up to") }); i >= 0 || !f.s.done() {
		f.fatalf("done %v, said %d", f.s.done(), i)
	}
}

// TestSlowSurvey: a drain that is over before its connections are counted begins with the stop signal all the same.
func TestSlowSurvey(t *testing.T) {
	l := defaultLimits()
	l.stopTimeout = 100 * time.Millisecond
	f := started(t, l)
	f.ask(askStop, "SIGTERM")
	f.advance(l.stopTimeout)
	if f.procs[0].stopped == 0 {
		f.fatalf("not told to stop")
	}
	f.obey()
	if !f.s.done() || f.s.Status != 0 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestHungFiles: a file system that hangs keeps neither the answer to a restart nor the stop.
func TestHungFiles(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.advance(time.Minute)
	f.wantSaid("generation 2 failed: its files could not be read within 1m; generation 1 serves on")
	f.ask(askRestart, "SIGHUP")
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	f.obey()
	if !f.s.done() || f.answers["1"] != failed || f.answers["2"] != stopped {
		f.fatalf("done %v, verdicts %v", f.s.done(), f.answers)
	}
	f.prepared(nil) // whenever it comes
}

// TestRevivedUnharmed: what was asked about a predecessor before it ended does not touch it once it is started again.
func TestRevivedUnharmed(t *testing.T) {
	l := defaultLimits()
	l.overlap = false
	f := started(t, l)
	f.ask(askRestart, "SIGHUP")
	f.prepared(nil)
	f.surveyed()
	f.advance(l.drainTimeout) // its connections are counted before KILL
	f.obey()
	f.exec()
	f.exit(exitStatus{Code: 9})
	f.want("1 serving")
	f.surveyed()
	if w := f.newest(); w == nil || w.State != workerStarting {
		f.fatalf("the predecessor is not started again")
	}
}

// TestGaveUp: a restart that waits is another chance for a program that was given up.
func TestGaveUp(t *testing.T) {
	l := defaultLimits()
	l.respawn = respawnNever
	f := started(t, l)
	f.ask(askRestart, "SIGHUP")
	f.exit(exitStatus{Code: 3})
	f.ask(askRestart, "SIGHUP")
	f.prepared(errors.New("no"))
	f.serve()
	if g := f.s.serving(); g == nil || g.Number != 3 {
		f.fatalf("generation 3 does not serve")
	}
}

// TestRollback: it goes back to the last other build, as an ordinary restart with a number and a verdict of
// its own; the watch does not bring back at once what lies on disk; only so many pins are kept.
func TestRollback(t *testing.T) {
	l := defaultLimits()
	l.bake, l.watch = 0, true
	f := started(t, l)
	var ran []string
	f.s.world.runs = func(build string) { ran = append(ran, build) }
	swap := func(what ask) {
		f.ask(what, string(what))
		f.serve()
		f.surveyed()
		f.obey()
	}
	swap(askRollback)
	f.want("1 serving")
	if f.answers["1"] != failed {
		f.fatalf("nothing served before, and the verdict is %q", f.answers["1"])
	}
	f.disk = "bad"
	swap(askRestart)
	swap(askRestart) // the same build once more
	f.want("3 serving")
	ran = nil
	swap(askRollback)
	f.want("4 serving")
	if build := f.s.serving().Image.Build; build != "abc" || f.answers["4"] != promoted || len(ran) > 0 {
		f.fatalf("went back to %q, verdict %q, the watch was told of %q", build, f.answers["4"], ran)
	}
	f.wantSaid("the disk still holds another build")
	swap(askRollback)
	if build := f.s.serving().Image.Build; build != "bad" {
		f.fatalf("went back once more to %q", build)
	}
	for n := range 10 {
		f.disk = fmt.Sprint("build", n)
		swap(askRestart)
		if len(f.pins) > pastKept+1 {
			f.fatalf("%d images are pinned", len(f.pins))
		}
	}
}

// TestRollbackDisplaces: a wish to go back takes the place of a restart that waits, which is told so.
func TestRollbackDisplaces(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.ask(askRestart, "SIGHUP")
	f.ask(askRollback, "hotwrap rollback")
	if f.answers["2"] != superseded {
		f.fatalf("the restart that waited: %q", f.answers["2"])
	}
	f.serve()
	f.advance(time.Second)
	f.surveyed()
	f.serve()
	f.advance(time.Second)
	if f.answers["1"] != promoted || f.answers["3"] != promoted {
		f.fatalf("verdicts %v", f.answers)
	}
}

// TestAgainById: who asks again with the id of a request gets its verdict, and starts nothing.
func TestAgainById(t *testing.T) {
	f := started(t, defaultLimits())
	ask := func() chan verdict {
		reply := make(chan verdict, 1)
		f.step(event{kind: evRequest, request: request{ID: "deploy42", Ask: askRestart}, reply: reply})
		return reply
	}
	first, second := ask(), ask()
	late := make(chan verdict, 1)
	f.step(event{kind: evAwait, request: request{ID: "deploy42"}, reply: late})
	f.serve()
	f.advance(time.Second)
	third := ask()
	for i, reply := range []chan verdict{first, second, late, third} {
		select {
		case v := <-reply:
			if v.Result != promoted || v.Generation != 2 || v.Predecessor != 1 || v.Serving != 2 {
				f.fatalf("client %d hears %+v", i, v)
			}
		default:
			f.fatalf("client %d hears nothing", i)
		}
	}
	if f.s.Numbers != 2 {
		f.fatalf("%d generations", f.s.Numbers)
	}
	unknown := make(chan verdict, 1)
	f.step(event{kind: evAwait, request: request{ID: "x"}, reply: unknown})
	if v := <-unknown; v.Result != "" {
		f.fatalf("an unknown id: %+v", v)
	}
}

// TestGaveUpForNothing: a generation that was given up while a newer build was tried ends hotwrap when
// that build is taken back.
func TestGaveUpForNothing(t *testing.T) {
	l := defaultLimits()
	l.watch, l.respawn = true, respawnNever
	f := started(t, l)
	f.disk = "bad"
	f.changed()
	f.prepared(nil)
	f.exec()
	f.die(f.proc(f.newest().PID), exitStatus{Code: 1})
	f.step(event{kind: evChild})
	f.want("1 serving")
	f.disk = "good"
	f.changed()
	f.prepared(nil)
	f.die(f.proc(f.s.serving().Workers[0].PID), exitStatus{Code: 3})
	f.step(event{kind: evChild})
	f.want("1 serving", "3 starting")
	f.disk = "bad"
	f.changed()
	f.exec()
	f.obey()
	if !f.s.done() || f.s.Status != 3 {
		f.fatalf("done %v, status %d", f.s.done(), f.s.Status)
	}
}

// TestGaveUpBuild: a build that was given up does not serve, so it is no reason to stop the candidate for nothing.
func TestGaveUpBuild(t *testing.T) {
	l := defaultLimits()
	l.watch, l.respawn = true, respawnNever
	f := started(t, l)
	f.disk = "new"
	f.changed()
	f.exit(exitStatus{Code: 3})
	f.disk = "abc"
	f.changed()
	f.prepared(nil) // of the candidate that was stopped
	f.serve()
	f.want("3 serving")
}

// TestRun: run acts exactly at its deadlines, on a clock that only synctest moves: the switch after the
// bake, KILL after an hour of drain.
func TestRun(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		began := time.Now()
		l := defaultLimits()
		l.drainTimeout = time.Hour
		f := newFakeWorld(t, l, func() instant { return instant(time.Second).add(time.Since(began)) })
		events := make(chan event)
		post := func(ev event) { go func() { events <- ev }() }
		said := map[string]time.Duration{} // by the goroutine of run only, until it has returned
		f.s.world.say = func(m message) { said[m.head] = time.Since(began) }
		f.s.world.survey = func(g *generation) { post(event{kind: evSurvey, number: g.Number, has: remains{known: true}}) }
		f.s.world.look = func(_ *generation, w *worker, _ bool) {
			post(event{kind: evLook, serial: w.Serial, sight: sight{watched: l.listeners}})
		}
		f.s.world.prepare = func(g, _ *generation, _ *image) {
			post(event{kind: evPrepared, number: g.Number, image: f.pin()})
		}
		f.s.world.spawn = func(g *generation, w *worker) (int, error) {
			post(event{kind: evExec, serial: w.Serial})
			return f.start(g.Number, w.Serial, false)
		}
		kill := f.s.world.kill
		f.s.world.kill = func(group int, sig syscall.Signal) { kill(group, sig); post(event{kind: evChild}) }
		f.s.start()
		status := make(chan int)
		go func() { status <- f.s.run(events, nil) }()
		time.Sleep(time.Minute)
		events <- event{kind: evRequest, request: request{Ask: askRestart, Cause: "SIGHUP"}}
		time.Sleep(2 * time.Hour)
		events <- event{kind: evRequest, request: request{Ask: askStop, Cause: "SIGTERM"}}
		if got := <-status; got != 128+int(syscall.SIGKILL) {
			f.fatalf("status %d", got)
		}
		restart := time.Minute + lookFirst
		for text, want := range map[string]time.Duration{
			"generation 2 ready": restart,
			"generation 2 serving; generation 1 draining, 0 connections, up to 1h": restart + l.bake,
			"generation 1 still draining after 15s: 0 connections":                 restart + l.bake + 15*time.Second,
			"generation 1 did not end within 1h, killed: 0 connections":            restart + l.bake + time.Hour,
			"generation 2 did not end within 20s, killed: 0 connections":           time.Minute + 2*time.Hour + 20*time.Second,
		} {
			if said[text] != want {
				t.Errorf("%q said at %v, want %v", text, said[text], want)
			}
		}
		if t.Failed() {
			t.Logf("said %v", said)
		}
	})
}

// FuzzStep drives the machine with any sequence of events and asserts what always holds; then it lets
// everything end well, and asserts that everything does: each request has one verdict, nothing is left.
func FuzzStep(f *testing.F) {
	f.Add([]byte{0, 0, 1, 2, 4, 165 + 32, 9, 0, 1, 2, 3, 4, 9, 6, 7, 4, 8, 9, 7, 14, 23})
	f.Add([]byte{0, 0, 1, 2, 5 + 7*32, 4, 9, 14, 6, 7, 23, 7})
	f.Add([]byte{4, 5, 1, 34, 66, 98, 2, 35, 67, 99, 4, 4, 4, 0, 1, 2, 34, 3, 35, 4, 4, 9, 6, 7, 15, 28, 60, 9})
	f.Add([]byte{0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15})
	f.Add([]byte{1, 0, 1, 4, 0, 16, 8, 2, 9, 3, 17, 18, 19, 20})
	f.Add([]byte{2, 0, 1, 1, 1, 4, 4, 2, 3, 9, 9, 9, 14, 15})
	f.Add([]byte{7, 1, 4, 0, 8, 2, 3, 1, 2, 4, 11, 9, 0, 2, 3, 4, 14, 14})
	f.Add([]byte{0, 192, 1, 2, 4, 160, 1, 2, 3, 4, 9, 9, 9, 26, 14, 6, 7})                                   // a canary that dies
	f.Add([]byte{0, 192, 1, 2, 4, 160, 1, 2, 3, 4, 9, 9, 31, 6, 7, 160, 1, 2, 3, 4, 9, 9, 23})               // aborted, stopped
	f.Add([]byte{0, 194, 1, 2, 34, 66, 4, 4, 4, 224, 1, 2, 34, 66, 3, 35, 67, 4, 4, 4, 9, 54, 9, 10, 9, 22}) // no share can be routed
	f.Add([]byte{0, 204, 1, 2, 4, 86, 8, 86, 8, 86, 160, 1, 2, 4, 86, 8, 86, 8, 86, 9, 118, 9, 118, 9, 118, 7, 6})
	f.Fuzz(func(t *testing.T, script []byte) {
		if len(script) < 2 || len(script) > 400 {
			return
		}
		l := defaultLimits()
		l.overlap = script[0]&1 == 0
		l.check = script[0]&2 != 0
		if script[0]&4 != 0 {
			l.bake = 0
		}
		if script[0]&8 != 0 {
			l.listeners = nil
		}
		if script[0]&16 != 0 {
			l.respawn = respawnOnFailure
		}
		if script[0]&32 != 0 {
			l.stopDelay = 2 * time.Second
		}
		l.workers, l.surge = 1+int(script[1])%3, int(script[1])/3%4
		routes := routed{steered: script[1]&64 != 0, alone: script[1]&192 == 192}
		l.hooks = allHooks
		l.watch = script[0]&64 != 0
		l.wait = l.watch && script[0]&128 != 0
		l.build = l.wait && l.check
		w := newFakeWorld(t, l, func() instant { return 1 })
		w.routes = routes
		w.s.start()
		for _, b := range script[2:] {
			if w.s.done() {
				break
			}
			w.play(b)
		}
		w.finish()
	})
}

// play lets one thing happen; the high bits choose whom it happens to.
func (f *fakeWorld) play(b byte) {
	which := int(b >> 5)
	living := slices.DeleteFunc(slices.Clone(f.procs), func(p *fakeProcess) bool { return p.dead || p.hook })
	var p *fakeProcess
	if len(living) > 0 {
		p = living[which%len(living)]
	}
	switch b & 31 {
	case 0:
		if which >= 5 {
			f.askCanary([]canaryStep{{10 * which, time.Second}, {500, 20 * time.Second}}[:which-5+min(1, 7-which)], which != 6)
		} else {
			f.ask(askRestart, "SIGHUP")
		}
	case 1:
		f.prepared(nil)
	case 2:
		f.step(event{kind: evExec, serial: f.s.Serials - which})
	case 3:
		f.step(event{kind: evNotice, serial: f.s.Serials - which, notice: notice{ready: true, by: "notify"}})
	case 4:
		f.looked(sight{watched: f.s.limits.listeners})
	case 5:
		if which >= 6 {
			f.launched(which == 7)
		}
		f.looked(sight{})
	case 6:
		f.has, f.stranded = remains{known: which != 3}, 0
		if which > 5 {
			f.has.open = []connection{{busy: true}}
		}
		if which == 4 {
			f.stranded = 1
		}
		f.surveyed()
		f.searched()
	case 7:
		f.obey()
	case 8:
		f.advance(lookLongest)
	case 9:
		f.advance(time.Second)
	case 10:
		f.advance(f.s.limits.drainTimeout)
	case 11:
		f.advance(f.s.limits.readyTimeout)
	case 12:
		f.prepared(errors.New("no"))
	case 13:
		f.step(event{kind: evExec, serial: f.s.Serials - which, err: cannotStart("app", syscall.ENOEXEC)})
	case 14, 15:
		if p != nil {
			f.die(p, exitStatus{Code: which})
			if b&31 == 14 {
				f.step(event{kind: evChild})
			}
		}
	case 16:
		if p != nil {
			p.lingers = true
		}
	case 17:
		f.looked(sight{blind: "no", denied: which&1 == 0})
	case 18:
		f.beating[f.s.Serials-which] = true
		f.step(event{kind: evNotice, serial: f.s.Serials - which, notice: notice{watchdog: true, watchdogUSec: time.Second, by: "notify"}})
	case 19:
		f.step(event{kind: evNotice, serial: f.s.Serials - which, notice: notice{extend: time.Minute, by: "notify"}})
	case 20:
		f.roundTrip()
	case 21:
		f.spawnErr = errors.New("cannot fork")
	case 22:
		switch which {
		case 0:
			f.spawnErr, f.routeErr = nil, nil
		case 1:
			f.routeErr = errors.New("cannot attach")
		default:
			f.probed(which&1 == 0, "answered 503")
		}
	case 23:
		f.ask(askStop, "SIGTERM")
	case 24:
		f.ask(askStop, "SIGINT")
	case 25:
		f.ask(askKill, "order")
	case 26:
		if which > 0 {
			f.endHook(exitStatus{Code: which - 1})
		}
		f.step(event{kind: evChild})
	case 30:
		switch {
		case which < 2:
			f.prepared(cannotStart("./app", syscall.ETXTBSY))
		case which < 5:
			f.ask(askReexec, "SIGUSR2")
		case which < 7:
			f.proposed(nil)
		default:
			f.proposed(errors.New("too old"))
		}
	case 28:
		if more := 1 - 2*(which&1); more < 0 || f.s.Wanted < 8 { // a restart one by one must end within finish's patience
			f.resize(more)
		}
	case 27:
		f.disk = fmt.Sprintf("build%d", which)
		f.changed()
	case 29:
		f.step(event{kind: evChanged, trigger: trigger{what: "main.go", sources: true}})
	case 31:
		f.ask(askRollback, "hotwrap rollback")
	}
}

// changed lets the watch find what lies on disk.
func (f *fakeWorld) changed() {
	f.step(event{kind: evChanged, trigger: trigger{name: "app", to: f.disk, program: true}})
}

// roundTrip goes on with what snapshot wrote.
func (f *fakeWorld) roundTrip() {
	text, err := f.s.snapshot()
	if err != nil {
		f.fatalf("cannot write the state: %v", err)
	}
	next := &supervisor{limits: f.s.limits, world: f.s.world} // who waits for a reply asks again
	if err := next.restore(text); err != nil {
		f.fatalf("cannot read the state: %v", err)
	}
	again, _ := next.snapshot()
	if string(again) != string(text) {
		f.fatalf("read back as %s", again)
	}
	f.s, f.lost = next, true
}

// finish lets everything go well from here, then stops, and asserts that everything ends.
func (f *fakeWorld) finish() {
	f.spawnErr, f.routeErr, f.has, f.stranded = nil, nil, remains{known: true}, 0
	for range 100 {
		f.settle()
	}
	if r := f.s.Restart; !f.s.done() && !f.s.Ending && (r != nil || len(f.s.Pending) > 0) {
		f.fatalf("a restart never ends")
	}
	if f.s.limits.wait && !f.s.Ending && f.s.serving() == nil {
		f.disk = "good"
		f.changed()
		for range 50 {
			f.settle()
		}
	}
	if !f.s.Ending && f.s.serving() == nil {
		f.fatalf("nobody serves in the end")
	}
	if g := f.s.serving(); g != nil && !f.s.Ending && f.s.gaveUp(g) && f.s.Restart == nil && f.s.Rebuild.Look == 0 {
		f.fatalf("generation %d was given up, and hotwrap stays", g.Number)
	}
	for _, g := range f.s.Generations {
		for i, sl := range g.Slots {
			if g.State == genServing && !f.s.Ending && !sl.Over && !g.serves(i) {
				f.fatalf("nobody serves slot %d of generation %d in the end", i, g.Number)
			}
		}
		if g.State == genServing && !f.s.Ending && len(g.Slots) != f.s.Wanted {
			f.fatalf("%d workers are wanted, generation %d has slots for %d", f.s.Wanted, g.Number, len(g.Slots))
		}
		if g.State == genFailed && g.readyWorkers() > 0 {
			f.fatalf("the failed generation %d serves in the end", g.Number)
		}
	}
	f.ask(askStop, "SIGTERM")
	for range 50 {
		f.settle()
	}
	if !f.s.done() {
		f.fatalf("hotwrap does not end")
	}
	for _, id := range f.asked {
		if _, ok := f.answers[id]; !ok {
			f.fatalf("request %s has no verdict", id)
		}
	}
	if len(f.pins) > 0 {
		f.fatalf("images stay pinned: %v", f.pins)
	}
	for i, reply := range f.replies {
		if len(reply) != 1 && !f.lost {
			f.fatalf("who asked for %s never hears of it", f.asked[i])
		}
	}
	for _, p := range f.procs {
		if !p.dead && (p.leader == 0 || !f.proc(p.leader).strays) { // a search that takes too long is given up
			f.fatalf("process %d is left behind", p.pid)
		}
	}
}

// settle answers everything that is awaited, well.
func (f *fakeWorld) settle() {
	f.prepared(nil)
	f.proposed(nil)
	for _, p := range f.procs {
		if p.check || p.hook {
			f.die(p, exitStatus{})
		}
	}
	f.step(event{kind: evChild})
	for _, g := range slices.Clone(f.s.Generations) {
		for _, w := range slices.Clone(g.Workers) {
			if w.ExecErr != "" { // the shim that could not
				f.die(f.proc(w.PID), exitStatus{Code: w.ExecCode})
			}
			f.step(event{kind: evExec, serial: w.Serial})
			f.step(event{kind: evNotice, serial: w.Serial, notice: notice{ready: true, by: "notify"}})
		}
	}
	for len(f.looking) > 0 {
		f.looked(sight{watched: f.s.limits.listeners})
	}
	for range urlGood {
		f.probed(true, "")
		f.advance(urlLongest)
	}
	for len(f.surveying) > 0 {
		f.surveyed()
	}
	for len(f.searching) > 0 {
		f.searched()
	}
	f.obey()
	f.advance(time.Second)
}
