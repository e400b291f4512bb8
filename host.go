package main

// This file is the world as it really is: it gives the supervisor its functions, and turns signals,
// notices, looks and reports into its events.
//
// Its rules:
//   - What the supervisor's goroutine calls here returns at once; what takes time runs in a goroutine
//     that gets copies, touches no state, and answers with an event.
//   - Every goroutine that posts is a source: stop ends it and hands back what it had not posted yet.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// source is one goroutine that posts events.
type source struct {
	quit chan struct{}
	left chan []event
}

// newSource runs read, which calls post for each event until post returns false.
func newSource(events chan<- event, read func(quit <-chan struct{}, post func(event) bool)) *source {
	s := &source{quit: make(chan struct{}), left: make(chan []event, 1)}
	go func() {
		var left []event
		read(s.quit, func(ev event) bool {
			select {
			case events <- ev:
				return true
			case <-s.quit:
				left = append(left, ev)
				return false
			}
		})
		s.left <- left
	}()
	return s
}

// stop ends the goroutine; afterwards it posts nothing. What it had read but not posted is returned.
func (s *source) stop() []event {
	close(s.quit)
	return <-s.left
}

// host is the real world. Its fields belong to the supervisor's goroutine.
type host struct {
	program  *program
	traffic  traffic
	limits   limits
	events   chan event
	out      *outputs
	done     chan struct{} // closed when the supervisor has returned: late answers go nowhere
	printer  *printer
	upward   *upward
	store    *fdStore   // nil: our service manager keeps nothing
	unit     *unitFile  // nil: we are no unit, or nobody says what is in it
	notify   *notifyDir // nil: workers cannot speak
	ears     map[int]ears
	lookers  chan struct{} // holds one for each look under way
	tty      int           // /dev/tty, held to learn of its hang-up; -1 none
	nohup    bool          // HUP was ignored at start
	unkey    func() []event
	watcher  *watcher
	hub      *hub
	place    *instance // nil: no command reaches this hotwrap
	control  *control
	http     net.Listener // of --http; nil none
	pidFile  *pidFile     // nil: none
	wipe     bool         // -c: clear the screen
	closed   bool         // the listeners are: hotwrap is stopping
	parked   bool         // new connections wait for the next hotwrap
	permits  permits
	deprives bool      // it was said that adopted programs have no_new_privs
	target   *readyAt  // of --ready URL; nil none
	self     string    // where hotwrap was found; "" it is not known
	since    time.Time // when it was started, also before a re-exec
	before   []byte    // the state that was taken over, as it was written
	caught   chan os.Signal
	signals  *source
	kept     *stateFile // nil: the state is not kept
	orphans  *orphans   // workers that are not our children
	others   bool       // what there is is for the next hotwrap of this name to go on with
	legacy   *legacy    // what a hotwrap that was killed has left; nil: nothing
}

func newHost(p *printer, events chan event, out *outputs, nohup bool) *host {
	return &host{
		events: events, out: out, done: make(chan struct{}), ears: map[int]ears{}, lookers: make(chan struct{}, looksAtOnce),
		printer: p, nohup: nohup, tty: -1, closed: true, hub: newHub(),
	}
}

// setUp makes everything that cfg asks for: all of it, or an error.
func (h *host) setUp(cfg *config) error {
	environ := os.Environ()
	if err := h.settleIn(cfg, environ); err != nil {
		return err
	}
	if err := h.listen(cfg, environ); err != nil {
		return err
	}
	h.limit(cfg, environ)
	if err := h.recoverWorkers(); err != nil {
		return err
	}
	if l := cfg.unshared(h.program.listeners); l != nil {
		h.say(info("restarts do not overlap: two readers of %q would split its datagrams; --no-overlap=false lets them", l.name))
	}
	if err := h.answerHTTP(cfg.http); err != nil {
		return err
	}
	if err := h.watch(cfg, nil); err != nil {
		return err
	}
	if err := h.readyToAdopt(cfg); err != nil {
		return err
	}
	h.openNotify(environ)
	h.warnOfUnit(environ)
	return h.pidFile.publish()
}

// settleIn makes all that no client can see yet: hotwrap's name and place among others.
func (h *host) settleIn(cfg *config, environ []string) error {
	h.self, h.since = ownPath(os.Args[0], environ), time.Now()
	var err error
	if h.upward, err = openUpward(environ); err != nil {
		h.say(warning("the service manager cannot be told anything: %v", err))
	}
	if h.program, err = newProgram(cfg, environ); err != nil {
		return err
	}
	if err := h.out.openFile(cfg.logFile); err != nil {
		return err
	}
	becomeSubreaper()
	if err := h.takePlace(cfg, environ); err != nil {
		return err
	}
	h.tty, _ = unix.Open("/dev/tty", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC, 0)
	h.pidFile, err = openPIDFile(cfg.pidFile)
	return err
}

// openNotify makes the directory in which workers say that they are ready, unless it was taken over.
func (h *host) openNotify(environ []string) {
	if h.notify != nil {
		return
	}
	uid, gid := h.program.owner()
	var err error
	if h.notify, err = openNotifyDir(environ, uid, gid); err != nil {
		h.say(warning("the program cannot say that it is ready: %v", err))
	}
}

// warnOfUnit names the lines that our systemd unit lacks.
func (h *host) warnOfUnit(environ []string) {
	if h.unit == nil {
		return
	}
	n := unitNeeds{told: h.upward != nil, room: h.unit.room(environ)}
	if h.place != nil {
		n.place = h.place.path
	}
	runtime, _, _ := strings.Cut(getenv(environ, "RUNTIME_DIRECTORY"), ":")
	for _, l := range h.program.listeners {
		if l.lent {
			continue
		}
		n.sockets++
		n.inRuntime = n.inRuntime || l.file != nil && runtime != "" && strings.HasPrefix(l.file.path, runtime+"/")
	}
	if lacks := h.unit.lacks(n); len(lacks) > 0 {
		h.say(warning("%s lacks %s", h.unit.name, strings.Join(lacks, ", ")))
	}
}

// limit sets what the supervisor is told once, now that the listeners are there.
func (h *host) limit(cfg *config, environ []string) {
	h.limits = cfg.limits(h.program.listeners)
	if h.target != nil {
		h.limits.readyURL = h.target.url.String()
	}
	h.limits.unsteered = h.unsteered(environ)
	h.limits.heartbeat = watchdogInterval(environ)
	h.limits.extend = extendInterval(h.upward, h.limits.heartbeat)
}

// answerHTTP opens what --http asks for.
func (h *host) answerHTTP(addr string) (err error) {
	if addr == "" {
		return nil
	}
	if h.http, err = listenHTTP(addr); err != nil {
		return fmt.Errorf("cannot listen on %q for --http: %w", addr, causeOf(err))
	}
	h.say(info("answering on http://%s", h.http.Addr()))
	return nil
}

// newProgram resolves what of the command line holds for every generation.
func newProgram(cfg *config, environ []string) (*program, error) {
	p := &program{
		argv: cfg.program, base: environ, envFile: cfg.envFile, env: cfg.env, check: cfg.check,
		build: cfg.build, stopSignal: cfg.stopSignal.sig, ownStdin: cfg.stdin, die: cfg.die, readyFD: -1,
	}
	if cfg.ready.mode == readyFD {
		p.readyFD = cfg.ready.fd
	}
	var err error
	if p.ackFD, err = ackNumber(cfg.env, p.readyFD); err != nil {
		return nil, err
	}
	cwd, err := os.Getwd() // $PWD, so by its logical name, where that is true
	if err != nil {
		return nil, fmt.Errorf("cannot find the current directory: %v", err)
	}
	p.dir = filepathFrom(cwd, cfg.dir)
	if cfg.user != "" {
		if p.user, err = lookUpUser(cfg.user); err != nil {
			return nil, usage("--user %q: %v", cfg.user, err)
		}
	}
	if p.null, err = unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return nil, fmt.Errorf("cannot open %s: %v", os.DevNull, err)
	}
	return p, nil
}

// plan checks, before anything is bound, that the program can have the listeners which there are going to be.
func (p *program) plan(cfg *config, planned []*listener) error {
	if err := p.number(planned); err != nil {
		return err
	}
	if err := p.checkPlaceholders(); err != nil {
		return err
	}
	if cfg.ready.mode == readyURL {
		return p.planReady(cfg.ready.url, cfg.listens, p.listeners)
	}
	return nil
}

// listen takes over and opens the sockets, and watches over them.
func (h *host) listen(cfg *config, environ []string) error {
	p := h.program
	handed, back, err := inheritListeners(environ)
	if err != nil {
		return err
	}
	h.unit = readUnit(environ)
	h.store = openFDStore(h.upward, h.unit.room(environ), back)
	planned := plannedListeners(cfg.listens, handed)
	if err = p.plan(cfg, planned); err != nil {
		return err
	}
	if h.legacy = h.findLegacy(cfg); h.legacy != nil && h.recoverSockets(handed) {
		return h.watchOver(cfg)
	}
	specs := h.store.match(cfg.listens, planned)
	for _, m := range h.store.letGo() {
		h.say(m)
	}
	ls, err := openListeners(specs, handed)
	if err != nil {
		return err
	}
	h.closed, h.traffic = false, &sharedTraffic{listeners: ls} // until it is decided otherwise, also for the way out
	if err = p.number(ls); err != nil {
		return err
	}
	h.introduce()
	if err = h.direct(cfg, environ, ls); err != nil {
		return err
	}
	h.store.begin(ls)
	h.keep()
	if n := listenFDS(p.numbers); missesListeners(p.numbers, n) {
		h.say(warning("LISTEN_FDS tells of %s only: descriptor %d, the next, is none", count(n, "listener"), firstListenFD+n))
	}
	if err := h.traffic.watch(h.spoilt); err != nil {
		h.say(warning("nobody watches over the listeners: %v", err))
	}
	return nil
}

// direct decides how connections get to generations. What was asked for and cannot be had so is an error.
func (h *host) direct(cfg *config, environ []string, ls []*listener) error {
	share, learns := shares(environ), cfg.adopt == adoptAlways && len(ls) == 0
	if tcp := func(l *listener) bool { return l.network == "tcp" }; !share && (learns || slices.ContainsFunc(ls, tcp)) {
		h.permits.steering = steerable()
	}
	switch err := h.permits.needsSteering("--ready URL"); {
	case err != nil && cfg.ready.mode == readyURL:
		return err
	case err != nil && runtime.GOOS == "linux": // elsewhere nobody expects it
		for _, m := range h.permits.losses() {
			h.say(m)
		}
	}
	var notes []message
	h.traffic, notes = newTraffic(ls, share || h.permits.steering != nil, learns)
	for _, m := range notes {
		h.say(m)
	}
	if cfg.ready.mode == readyURL {
		return h.aimAt(cfg.ready.url)
	}
	return nil
}

// shares tells whether generations are to share the sockets of every listener, as they do where nothing can be steered.
func shares(environ []string) bool {
	share, _ := strconv.ParseBool(getenv(environ, "HOTWRAP_SHARE"))
	return share
}

// spoilt posts that a program may have spoilt a listener.
func (h *host) spoilt(l *listener, quit <-chan struct{}) {
	select {
	case h.events <- event{kind: evSpoilt, name: l.name}:
	case <-quit:
	case <-h.done:
	}
}

// introduce names the listeners. Those who listen to events come later, and find them in the status.
func (h *host) introduce() {
	var ms []message
	for i, l := range h.program.listeners {
		ms = append(ms, info("listening on %s %s as %q", l.network, l.addr, l.name).with("fd", h.program.numbers[i]))
	}
	h.printer.begin(ms)
	for _, m := range ms {
		h.upward.status(m.String())
	}
}

// takePlace takes a name and its control socket. Without a place for that hotwrap works all the same,
// but no command reaches it; a name that was asked for and is taken is an error.
func (h *host) takePlace(cfg *config, environ []string) error {
	var taken *takenError
	var wrong *usageError
	var err error
	h.place, err = openInstance(environ, defaultName(cfg.program, environ), cfg.name, cfg.controlGroup)
	switch {
	case errors.As(err, &taken), errors.As(err, &wrong):
		return err
	case err != nil:
		h.say(warning("%v; HUP and TERM work all the same", err))
		return nil
	}
	h.program.control = h.place.path
	if h.place.passed != "" {
		h.say(warning("cannot use $HOTWRAP_RUNTIME_DIR, %s; the control socket is %q", h.place.passed, h.place.path))
	}
	h.say(verbose("named %q", h.place.name).with("control", h.place.path))
	return nil
}

// admit lets clients in. It comes after the first generation was begun, which does not wait for it.
func (h *host) admit() {
	f := facts{
		version: versionText(), pid: os.Getpid(), uid: os.Geteuid(), since: h.since, self: h.self,
		argv: h.program.argv, dir: h.program.dir,
	}
	if h.place != nil {
		f.name = h.place.name
	}
	h.control = newControl(h.postUntil, h.hub, f)
	h.control.lastWords = h.out.lastWords
	if h.place != nil {
		h.control.serve(h.place.listener, h.place.group, false)
	}
	if h.http != nil {
		h.control.serve(h.http, -1, true)
	}
}

// watch starts what -w asks for.
func (h *host) watch(cfg *config, before *carriedWatch) error {
	if !cfg.watch.on {
		return nil
	}
	p := h.program
	h.wipe = cfg.clear && isTerminal(2)
	env := apply(inherited(p.base), p.expandAll(p.env))
	c := watchConfig{
		program: p.expandAll(p.argv), dir: p.dir, paths: cfg.watch.paths, watchProgram: cfg.watch.program,
		search: searched(env), src: cfg.src, build: cfg.build != "", ignore: append(h.out.ignore(), cfg.ignore...), debounce: cfg.debounce.d,
	}
	c.find = func() (string, error) { return p.find(c.program[0], env) }
	_, err := c.find()
	h.limits.wait = h.limits.wait && (err == nil || len(c.search) > 0) // else there is nothing to wait for
	h.watcher, err = startWatch(c, before, func(n watchNews) bool {
		if n.say != nil && !h.post(event{kind: evSay, message: *n.say}) {
			return false
		}
		return n.trigger == nil || h.post(event{kind: evChanged, trigger: *n.trigger})
	})
	if err != nil {
		return fmt.Errorf("cannot watch: %w", err)
	}
	if cfg.terminal && !cfg.stdin {
		h.unkey, err = newKeys(h.events)
	}
	return err
}

// fail says why hotwrap cannot start.
func (h *host) fail(err error) {
	h.say(failure("%v", limited(err)))
	if text := remedyFor(err); text != "" {
		h.say(hint("%s", text))
	}
}

// shut gives everything back; done is closed before it.
func (h *host) shut() {
	if h.others {
		h.printer.close()
		return
	}
	if h.traffic != nil {
		h.traffic.unwatch()
	}
	if h.watcher != nil {
		h.watcher.stop()
	}
	if h.unkey != nil {
		_ = h.unkey()
	}
	h.giveUp()
	if h.program != nil {
		removePaths(h.program.listeners)
	}
	if h.notify != nil {
		h.notify.close()
	}
	if h.control != nil {
		h.control.close()
		h.hub = nil // what is said from here on nobody listens to
	}
	h.forgetState()
	if h.place != nil {
		h.place.release()
	}
	h.pidFile.remove() // nothing of hotwrap's is left now that the next one could meet
	limit, cancel := context.WithTimeout(context.Background(), endLimit)
	defer cancel()
	for _, m := range h.out.finish(limit) {
		h.say(m)
	}
	_ = h.upward.close()
	h.printer.close()
	_ = h.out.close(limit)
}

// world gives the supervisor its functions.
func (h *host) world() world {
	return world{
		now: clock, prepare: h.prepare, check: h.check, spawn: h.start, disk: h.disk, reap: reapAll,
		look: h.look, survey: h.survey, signal: h.signal, kill: h.kill, empty: h.empty,
		owns: h.owns, halted: halted, open: h.openFor, route: h.route, left: h.left, probe: h.probe, unaim: h.unaim, canary: h.hook,
		adoptable: h.adoptable, adopt: h.adopt, pass: (*call).pass, nameOf: h.nameOf, refresh: h.refresh, promote: h.promote,
		search: h.search, repair: h.repair, forget: h.forget, release: h.release, closing: h.closing,
		answer: h.answer, say: h.say, alive: func() { h.upward.watchdog() }, extend: func(d time.Duration) { h.upward.extend(d) },
		facts: h.facts, hook: h.hook, pin: (*image).forHook,
		build: h.build, propose: h.propose, built: h.built, runs: h.runs, stuck: h.stuck, watchAgain: h.watchAgain, clear: h.clear,
		reopen: h.reopen,
	}
}

// clock is CLOCK_MONOTONIC: on Linux it stands still while the machine sleeps, and so do deadlines.
func clock() instant {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return instant(ts.Nano())
}

// post hands an event to the supervisor, if it is still there.
func (h *host) post(ev event) bool {
	select {
	case h.events <- ev:
		return true
	case <-h.done:
		return false
	}
}

// postUntil is post for a source, which may be told to quit first.
func (h *host) postUntil(ev event, quit <-chan struct{}) bool {
	select {
	case h.events <- ev:
		return true
	case <-quit:
	case <-h.done:
	}
	return false
}

// say writes one line, and tells it upward.
func (h *host) say(m message) {
	h.printer.say(m)
	h.hub.tell(m, time.Now())
	text := m.String()
	switch m.up {
	case upReady:
		h.upward.ready(text)
	case upReloading:
		h.upward.reloading(text)
	case upStopping:
		h.upward.stopping(text)
	case upStatus:
		if m.level != levelVerbose {
			h.upward.status(text)
		}
	}
}

// keep has our service manager keep the sockets that new connections go to, and no others.
func (h *host) keep() {
	if h.traffic != nil && !h.closed {
		h.store.only(h.traffic.sockets(0))
	}
}

// facts is what is known beside the supervisor's state.
func (h *host) facts() stateCopy {
	c := stateCopy{lost: h.printer.lost, numbers: slices.Clone(h.program.numbers)}
	for _, l := range h.traffic.sockets(0) {
		c.listeners = append(c.listeners, *l)
	}
	return c
}

// answer tells those who listen of a verdict; who asked for it has it already.
func (h *host) answer(v verdict) { h.hub.verdict(viewVerdict(v, clock(), time.Now())) }

// reopen opens the log file anew.
func (h *host) reopen(by string) {
	if !h.out.reopen(by) {
		h.say(verbose("no log file to reopen").with("by", by))
	}
}

// --- the watch, if there is one

func (h *host) built(number int, failed bool) {
	if h.watcher != nil {
		h.watcher.built(buildEnd{number: number, at: time.Now(), failed: failed})
	}
}

// clear wipes the terminal and its scrollback before a build or a start that a change asked for, with -c.
func (h *host) clear() {
	if h.wipe {
		_, _ = os.Stderr.WriteString("\x1b[H\x1b[2J\x1b[3J")
	}
}

func (h *host) runs(build string) {
	if h.watcher != nil {
		h.watcher.runs(build)
	}
}

func (h *host) stuck() {
	if h.watcher != nil {
		h.watcher.cannotRun()
	}
}

func (h *host) watchAgain() {
	if h.watcher != nil {
		h.watcher.look()
	}
}

// --- signals

// empty tells whether nobody is left in a process group.
func (h *host) empty(group int) bool { return groupEmpty(group) || h.orphans.emptied(group) }

// signal sends one process a signal.
func (h *host) signal(pid int, sig syscall.Signal) {
	if !h.orphans.signal(pid, sig) {
		_ = unix.Kill(pid, sig)
	}
}

// kill signals a whole process group, if it still is the one of a worker.
func (h *host) kill(group int, sig syscall.Signal) {
	if !h.empty(group) {
		signalGroup(group, sig)
	}
}

func signalGroup(group int, sig syscall.Signal) { _ = unix.Kill(-group, sig) }

// heard turns one caught signal into what it asks for.
func (h *host) heard(sig os.Signal) (event, bool) {
	s, _ := sig.(syscall.Signal)
	r := request{Cause: signalName(s)}
	switch eventOf(sig) {
	case signalRestart:
		r.Ask = askRestart
		if h.hungUp() {
			r.Ask, r.Cause = askStop, "the terminal's end"
		}
	case signalStop:
		r.Ask = askStop
	case signalChild:
		return event{kind: evChild}, true
	case signalReopen:
		r.Ask = askReopen
	case signalReexec:
		r.Ask = askReexec
	case signalMore, signalFewer:
		if h.tty >= 0 { // it means a process in the background that reads or writes there
			return event{kind: evSay, message: verbose("%s does nothing at a terminal", r.Cause)}, true
		}
		r.Ask, r.More = askWorkers, 1
		if eventOf(sig) == signalFewer {
			r.More = -1
		}
	case signalDrop, signalNone:
		return event{}, false
	}
	return event{kind: evRequest, request: r}, true
}

// listenToSignals posts what each signal asks for.
func (h *host) listenToSignals() {
	h.signals = newSource(h.events, func(quit <-chan struct{}, post func(event) bool) {
		for {
			select {
			case sig := <-h.caught:
				if ev, ok := h.heard(sig); ok && !post(ev) {
					return
				}
			case <-quit:
				return
			}
		}
	})
}

// hungUp tells whether a HUP came because the terminal is gone. nohup says to live on all the same.
func (h *host) hungUp() bool {
	if h.tty < 0 || h.nohup {
		return false
	}
	fds := []unix.PollFd{{Fd: int32(h.tty)}}
	n, err := unix.Poll(fds, 0)
	return err == nil && n > 0 && fds[0].Revents&unix.POLLHUP != 0
}

// --- listeners

// open are the sockets that hotwrap still holds.
func (h *host) open() []*listener {
	if h.closed {
		return nil
	}
	return h.traffic.all()
}

// openFor opens the sockets of a generation: of its own, or those of the one before it where they do not overlap.
func (h *host) openFor(g *generation, like int) error {
	return limited(h.traffic.open(g.Number, like))
}

// route says which generations get the new connections.
func (h *host) route(shares map[int]int) (routed, error) {
	if h.closed || h.parked {
		return routed{}, nil
	}
	return h.reroute(shares)
}

// reroute does so, with those who get the most in the store before, and what had the most until then out of it after.
func (h *host) reroute(shares map[int]int) (routed, error) {
	most, of := 0, 0
	for number, share := range shares {
		if share > of {
			most, of = number, share
		}
	}
	if of > 0 {
		h.store.add(h.traffic.sockets(most))
	}
	r, err := h.traffic.route(shares)
	h.keep()
	return r, err
}

// left counts the connections that wait for a generation alone.
func (h *host) left(g *generation) int {
	if h.closed {
		return 0
	}
	return h.traffic.left(g.Number)
}

// refresh gives every listener its own backlog back, which programs change by their own listen().
func (h *host) refresh() {
	for _, l := range h.open() {
		if err := h.traffic.relisten(l); err != nil {
			h.say(warning("cannot set the backlog of %s: %v", l.name, err))
		}
	}
}

// sayDrops tells of the datagrams that came while nobody read, and found no room.
func (h *host) sayDrops() {
	for _, l := range h.open() {
		if n := l.drops(); n > 0 && !h.limits.overlap {
			h.say(warning("%s to %q lost in the gap: its receive buffer was full; rcvbuf= makes room", count(n, "datagram"), l.name))
		}
	}
}

// repair mends what a program spoilt of a listener.
// It tells whether the socket is another now: then nobody serves it before a restart.
func (h *host) repair(name string) (replaced bool) {
	for _, l := range h.open() {
		if l.name != name {
			continue
		}
		inode := l.inode
		what, err := l.repair(h.traffic.relisten)
		switch {
		case err != nil:
			h.say(warning("listener %q is broken: %v", name, err))
		case what != "":
			h.say(warning("listener %q was spoilt: %s", name, what))
		}
		replaced = replaced || l.inode != inode
	}
	if replaced {
		h.keep()
	}
	return replaced
}

// closing lets balancers see refusals once the program closes its copies. Where our service manager keeps the sockets, clients wait
// for the next hotwrap instead, in sockets that no program has; parked tells that this is so of all that can be steered.
func (h *host) closing() (parked bool) {
	if h.store == nil {
		h.giveUp()
		return false
	}
	if h.closed || h.parked {
		return false
	}
	whole, err := h.traffic.park()
	if err != nil {
		h.say(warning("clients do not wait for the next hotwrap: %v", err))
		return false
	}
	h.keep()
	h.parked = true
	return whole
}

// giveUp closes the listeners.
func (h *host) giveUp() {
	if !h.closed {
		h.closed = true
		h.traffic.close()
	}
}

// traceTo writes each event and the state after it: what a bug report needs.
func traceTo(out io.Writer, s *supervisor) func(event) {
	began := time.Now()
	return func(ev event) {
		text, err := s.snapshot()
		_, _ = fmt.Fprintf(out, "hotwrap: trace: %s %s serial=%d number=%d err=%v state=%s %v\n",
			time.Since(began).Round(time.Microsecond), ev.kind, ev.serial, ev.number, ev.err, text, err)
	}
}
