package main

// This file is the world as it really is: it gives the supervisor its functions, and turns signals,
// notices, looks and reports into its events.
//
// Its rules:
//   - What the supervisor's goroutine calls here returns at once; what takes time runs in a goroutine
//     that gets copies, touches no state, and answers with an event.
//   - Every goroutine that posts is a source: stop ends it and hands back what it had not posted yet.

import (
	"cmp"
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"slices"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	oomRaise     = 200  // added to a candidate's oom_score_adj: if memory runs out, it goes first
	memoryMargin = 1.25 // a successor may need this much more than its predecessor has now
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
func (s *source) stop() []event { //nolint:unparam // whether it still matters, the caller knows
	close(s.quit)
	return <-s.left
}

// ears are the sources of one worker.
type ears struct {
	notify *notifySocket
	pipe   func() []notice // stops the --ready fd=N pipe
	acks   func() []notice // stops the EINHORN_SOCK_FD socket
	report *os.File        // closing it ends the report's source
}

// host is the real world. Its fields belong to the supervisor's goroutine.
type host struct {
	program *program
	traffic traffic
	limits  limits
	events  chan event
	out     *outputs
	done    chan struct{} // closed when the supervisor has returned: late answers go nowhere
	printer *printer
	upward  *upward
	notify  *notifyDir // nil: workers cannot speak
	ears    map[int]ears
	lookers chan struct{} // holds one for each look under way
	tty     int           // /dev/tty, held to learn of its hang-up; -1 none
	nohup   bool          // HUP was ignored at start
	unwatch func()
	unkey   func()
	watcher *watcher
	hub     *hub
	place   *instance // nil: no command reaches this hotwrap
	control *control
	http    net.Listener // of --http; nil none
	pidFile *pidFile     // nil: none
	wipe    bool         // -c: clear the screen
	closed  bool         // the listeners are: hotwrap is stopping
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
	if h.pidFile, err = openPIDFile(cfg.pidFile); err != nil {
		return err
	}
	if err := h.listen(cfg, environ); err != nil {
		return err
	}
	h.limits = cfg.limits(h.program.listeners)
	if l := cfg.unshared(h.program.listeners); l != nil {
		h.say(info("restarts do not overlap: two readers of %q would split its datagrams; --no-overlap=false lets them", l.name))
	}
	h.limits.heartbeat = watchdogInterval(environ)
	if cfg.http != "" {
		if h.http, err = listenHTTP(cfg.http); err != nil {
			return fmt.Errorf("cannot listen on %q for --http: %w", cfg.http, causeOf(err))
		}
		h.say(info("answering on http://%s", h.http.Addr()))
	}
	uid, gid := h.program.owner()
	if err := h.watch(cfg); err != nil {
		return err
	}
	if h.notify, err = openNotifyDir(environ, uid, gid); err != nil {
		h.say(warning("the program cannot say that it is ready: %v", err))
	}
	return h.pidFile.publish()
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

// listen takes over and opens the sockets, and watches over them.
func (h *host) listen(cfg *config, environ []string) error {
	p := h.program
	handed, err := inheritListeners(environ)
	if err != nil {
		return err
	}
	if err := p.number(plannedListeners(cfg.listens, handed)); err != nil {
		return err // before anything is bound
	}
	if err := p.checkPlaceholders(); err != nil {
		return err
	}
	ls, err := openListeners(cfg.listens, handed)
	if err != nil {
		return err
	}
	h.closed, h.traffic = false, sharedTraffic{ls}
	if err := p.number(ls); err != nil {
		return err
	}
	h.introduce()
	if n := listenFDS(p.numbers); missesListeners(p.numbers, n) {
		h.say(warning("LISTEN_FDS tells of %s only: descriptor %d, the next, is none", count(n, "listener"), firstListenFD+n))
	}
	h.unwatch, err = watchListeners(p.listeners, func(l *listener) { h.post(event{kind: evSpoilt, name: l.name}) })
	if err != nil {
		h.say(warning("nobody watches over the listeners: %v", err))
	}
	return nil
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
		version: versionText(), pid: os.Getpid(), uid: os.Geteuid(), since: time.Now(),
		argv: h.program.argv, dir: h.program.dir, numbers: h.program.numbers,
	}
	if h.place != nil {
		f.name = h.place.name
	}
	h.control = newControl(h.post, h.hub, f)
	h.control.lastWords = h.out.lastWords
	if h.place != nil {
		h.control.serve(h.place.listener, h.place.group, false)
	}
	if h.http != nil {
		h.control.serve(h.http, -1, true)
	}
}

// watch starts what -w asks for.
func (h *host) watch(cfg *config) error {
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
	h.watcher, err = startWatch(c, func(n watchNews) bool {
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
	if h.unwatch != nil {
		h.unwatch()
	}
	if h.watcher != nil {
		h.watcher.stop()
	}
	if h.unkey != nil {
		h.unkey()
	}
	h.closing()
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
		look: h.look, survey: h.survey, signal: signalOne, kill: signalGroup, empty: groupEmpty,
		owns: h.owns, halted: halted, route: h.traffic.route, refresh: h.refresh, promote: h.promote,
		search: h.search, repair: h.repair, forget: h.forget, release: h.release, closing: h.closing,
		answer: h.answer, say: h.say, alive: func() { h.upward.watchdog() },
		facts: h.facts, hook: h.hook, pin: (*image).forHook,
		build: h.build, built: h.built, runs: h.runs, stuck: h.stuck, watchAgain: h.watchAgain, clear: h.clear,
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

// facts is what is known beside the supervisor's state.
func (h *host) facts() stateCopy {
	c := stateCopy{lost: h.printer.lost}
	for _, l := range h.program.listeners {
		c.listeners = append(c.listeners, *l)
	}
	return c
}

// answer tells those who listen of a verdict; who asked for it has it already.
func (h *host) answer(v verdict) { h.hub.verdict(viewVerdict(v, clock(), time.Now())) }

// --- starts

// prepare pins the image of a generation, and looks once more at its predecessor, which must be matched.
// An old image, if given, is pinned once more instead.
func (h *host) prepare(g, predecessor *generation, old *image) {
	for _, l := range h.open() {
		_ = l.drops() // what the predecessor did not read in time is its own
	}
	number, overlap := g.Number, h.limits.overlap
	var pids, serials []int
	var like *image
	if predecessor != nil {
		like = predecessor.Image
		for _, w := range predecessor.Workers {
			if w.State == workerReady {
				pids, serials = append(pids, w.PID), append(serials, w.Serial)
			}
		}
	}
	wanted := h.wanted()
	resolve := func() (*image, error) { return h.program.resolve(number, like) }
	if old != nil {
		img, err := old.again(number)
		resolve = func() (*image, error) {
			if err == nil {
				err = img.intact()
			}
			return img, err
		}
	}
	go func() {
		for i, pid := range pids {
			v := look(pid, inodesOf(wanted))
			h.post(event{kind: evLook, serial: serials[i], sight: sightOf(v, wanted)})
		}
		img, err := resolve()
		ev := event{kind: evPrepared, number: number, image: img, err: limited(err)}
		if err == nil && overlap {
			ev.warnings = memoryWarnings(pids)
		}
		if !h.post(ev) && img != nil {
			img.unpin()
		}
	}()
}

// memoryWarnings compares what the predecessor uses with what is left for a second one like it.
func memoryWarnings(pids []int) []string {
	if len(pids) == 0 {
		return nil
	}
	var all []int
	for _, pid := range pids {
		all = append(all, tree(pid)...)
	}
	use := memoryUse(all)
	room, where, ok := memoryRoom()
	if !ok || !crowded(use, room) {
		return nil
	}
	return []string{fmt.Sprintf("the predecessor uses %s, %s has %s left; if both do not fit, use --no-overlap",
		megabytes(use), where, megabytes(room))}
}

// crowded tells whether a second one like that which uses use may not fit into room.
func crowded(use, room uint64) bool { return float64(use)*memoryMargin > float64(room) }

func megabytes(n uint64) string { return strconv.FormatUint(n>>20, 10) + " MB" }

// check runs --check as the program would be run, but nothing tells it of sockets: it has none.
func (h *host) check(g *generation) (int, error) {
	return h.program.startShell(h.program.check, g.Image.Dir, inherited(g.Image.environ(nil)))
}

// build runs --build in the program's directory as it is now; its output is hotwrap's own.
func (h *host) build() (int, error) {
	dir, err := unix.Open(h.program.dir, openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot enter directory %q: %w", h.program.dir, err)
	}
	defer unix.Close(dir)
	return h.program.startShell(h.program.build, dir, inherited(h.program.base))
}

// hook runs a --hook like --check. Where its generation has no image, its directory may be what hangs: then
// it is a shell that goes there, not hotwrap.
func (h *host) hook(command string, k hook) (int, error) {
	p := h.program
	told := append(k.environ(), p.address()...)
	if k.Image != nil {
		return p.startShell(command, k.Image.Dir, apply(inherited(k.Image.environ(nil)), told))
	}
	root, err := unix.Open("/", openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot open /: %v", err)
	}
	defer unix.Close(root)
	env := apply(p.own(), p.expandAll(p.env))
	return p.startShell("cd -- "+quoted(p.dir)+" || exit\n"+command, root, apply(env, told))
}

// clear wipes the terminal and its scrollback before a build or a start that a change asked for, with -c.
func (h *host) clear() {
	if h.wipe {
		_, _ = os.Stderr.WriteString("\x1b[H\x1b[2J\x1b[3J")
	}
}

// start is spawn; where that fails for a limit, the error names it.
func (h *host) start(g *generation, w *worker) (int, error) {
	pid, err := h.spawn(g, w)
	return pid, limited(err)
}

// spawn starts one worker of g and listens to it.
func (h *host) spawn(g *generation, w *worker) (int, error) {
	serial, img := w.Serial, g.Image
	uid, gid := h.program.owner()
	output, err := h.out.begin(serial, g.Number, uid, gid)
	if err != nil {
		return 0, err
	}
	defer closeEnds(output)
	l := launch{ready: -1, ack: -1, output: output, sockets: h.traffic.sockets(g.Number, w.Slot), env: []string{"HOTWRAP_WORKER=" + strconv.Itoa(w.Slot), "EINHORN_CHILD_INDEX=" + strconv.Itoa(w.Slot)}}
	e, err := h.listenTo(serial, &l)
	if err != nil {
		h.out.gone(serial)
		return 0, err
	}
	pid, err := h.program.start(img, l)
	_ = unix.Close(l.report)
	for _, fd := range []int{l.ready, l.ack} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	if err != nil {
		h.close(e)
		h.out.gone(serial)
		return 0, err
	}
	h.ears[serial] = e
	report := e.report
	go func() {
		err := readReport(report, img)
		_ = report.Close()
		h.post(event{kind: evExec, serial: serial, err: err})
	}()
	if g.State == genStarting && g.Number > 1 {
		if own, err := oomScoreAdj(os.Getpid()); err == nil {
			_ = setOOMScoreAdj(pid, min(own+oomRaise, 1000))
		}
	}
	return pid, nil
}

// listenTo opens the ways by which one worker can speak, and adds their other ends to its launch.
func (h *host) listenTo(serial int, l *launch) (e ears, err error) {
	hear := func(n notice, quit <-chan struct{}) bool {
		select {
		case h.events <- event{kind: evNotice, serial: serial, notice: n}:
			return true
		case <-quit:
			return false
		}
	}
	if h.notify != nil {
		if e.notify, err = h.notify.listen(hear); err != nil && !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			if err = h.moveNotify(); err == nil {
				e.notify, err = h.notify.listen(hear)
			}
		}
		if err != nil {
			return e, err
		}
		l.env = append(l.env, "NOTIFY_SOCKET="+e.notify.path, "EINHORN_SOCK_PATH="+e.notify.ackPath)
	}
	if h.limits.ready == readyFD {
		if l.ready, e.pipe, err = openReadyPipe(hear); err != nil {
			h.close(e)
			return e, err
		}
	}
	if h.program.ackFD >= 0 {
		if l.ack, e.acks, err = openAckSocket(hear); err != nil {
			h.close(e)
			_ = unix.Close(l.ready) // no harm if it is none
			return e, err
		}
	}
	if e.report, l.report, err = openPipe("report"); err != nil {
		h.close(e)
		_ = unix.Close(l.ready) // no harm if they are none
		_ = unix.Close(l.ack)
	}
	return e, err
}

// moveNotify makes a new directory for the workers' sockets: somebody cleaned the old one away.
func (h *host) moveNotify() error {
	uid, gid := h.program.owner()
	next, err := openNotifyDir(h.program.base, uid, gid)
	if err != nil {
		return err
	}
	h.notify.close()
	h.notify = next
	return nil
}

// disk tells what lies on disk where g's program was found.
func (h *host) disk(g *generation) diskState { return g.Image.disk(h.program.dir) }

// promote lets g be killed for memory no sooner than anybody else: its processes had a raised score
// while they were on trial.
func (h *host) promote(g *generation) {
	h.sayDrops()
	own, err := oomScoreAdj(os.Getpid())
	if err != nil || g.Number == 1 {
		return
	}
	var pids []int
	for _, w := range g.Workers {
		pids = append(pids, w.PID)
	}
	go func() {
		for _, pid := range pids {
			for _, p := range tree(pid) {
				_ = setOOMScoreAdj(p, own)
			}
		}
	}()
}

// sayDrops tells of the datagrams that came while nobody read, and found no room.
func (h *host) sayDrops() {
	for _, l := range h.open() {
		if n := l.drops(); n > 0 && !h.limits.overlap {
			h.say(warning("%s to %q lost in the gap: its receive buffer was full; rcvbuf= makes room", count(n, "datagram"), l.name))
		}
	}
}

// forget ends the sources of a worker that is gone.
func (h *host) forget(w *worker) {
	h.close(h.ears[w.Serial])
	delete(h.ears, w.Serial)
	h.out.gone(w.Serial)
}

// reopen opens the log file anew.
func (h *host) reopen(by string) {
	if !h.out.reopen(by) {
		h.say(verbose("no log file to reopen").with("by", by))
	}
}

// close ends sources. What they had read of a worker that is no more concerns nobody.
func (h *host) close(e ears) {
	if e.notify != nil {
		_ = e.notify.stop()
	}
	if e.pipe != nil {
		_ = e.pipe()
	}
	if e.acks != nil {
		_ = e.acks()
	}
	if e.report != nil {
		_ = e.report.Close()
	}
}

func (h *host) release(g *generation) {
	h.traffic.release(g.Number)
	if g.Image != nil {
		g.Image.unpin()
	}
}

// --- the watch, if there is one

func (h *host) built(number int, failed bool) {
	if h.watcher != nil {
		h.watcher.built(buildEnd{number: number, at: time.Now(), failed: failed})
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

// --- looks

// wanted are the listeners by inode; a copy, for goroutines.
func (h *host) wanted() map[uint64]string {
	names := map[uint64]string{}
	for _, l := range h.program.listeners {
		names[l.inode] = l.name
	}
	return names
}

func inodesOf(wanted map[uint64]string) []uint64 {
	var inodes []uint64
	for inode := range wanted {
		inodes = append(inodes, inode)
	}
	return inodes
}

// look sees what a worker watches. Root without CAP_SYS_PTRACE (Docker's default) cannot look into
// another user's process, but a helper with that user's id can.
func (h *host) look(w *worker, helped bool) {
	serial, pid, last, wanted := w.Serial, w.PID, w.State == workerReady, h.wanted()
	starting, slow := w.State == workerStarting, w.Pause >= lookElsewhere
	see := func() view { return look(pid, inodesOf(wanted)) }
	if helped && h.program.user != nil {
		see = h.program.lookAsUser(pid, inodesOf(wanted))
	}
	chosen, ls := h.program.stopSignal != 0, h.listeners()
	go func() {
		h.lookers <- struct{}{}
		v := see()
		if starting && slow && len(v.watches) < len(wanted) {
			v.busy(accepted(v.pids, ls))
		}
		<-h.lookers
		seen := sightOf(v, wanted)
		switch {
		case v.watcher != 0:
			seen.server, seen.behind = serverOf(pid, v.watcher)
			if !chosen {
				seen.stop = int(stopSignalOf(runningName(seen.server)))
			}
			seen.stamped = seen.behind.name == "" || stamped(v.watcher)
		case starting:
			seen.by, seen.deprived = deprived(v.pids, wanted)
		}
		if last || starting && slow { // a list of all that listens on this machine
			seen.others = otherListeners(v.pids, inodesOf(wanted))
		}
		if seen.by != "" && len(seen.others) > 0 && len(otherListeners(holders(v.pids, wanted), inodesOf(wanted))) > 0 {
			seen.by = "" // who listens elsewhere has them: it is no launcher
		}
		h.post(event{kind: evLook, serial: serial, sight: seen})
	}()
}

// busy takes listeners from which a process has accepted for watched ones.
func (v *view) busy(by map[uint64]int) {
	for inode, pid := range by {
		if v.watches == nil {
			v.watches = map[uint64]bool{}
		}
		v.watches[inode] = true
		v.watcher = cmp.Or(v.watcher, pid)
	}
}

// listeners are copies, for goroutines: a repair changes the inode.
func (h *host) listeners() (ls []*listener) {
	for _, l := range h.program.listeners {
		ls = append(ls, &listener{name: l.name, network: l.network, addr: l.addr, inode: l.inode})
	}
	return ls
}

func sightOf(v view, wanted map[uint64]string) sight {
	s := sight{blind: v.blind, denied: v.denied}
	for inode, name := range wanted {
		s.holds = s.holds || v.holds[inode]
		if v.watches[inode] {
			s.watched = append(s.watched, name)
		}
	}
	slices.Sort(s.watched)
	return s
}

// search looks for what a worker whose leader has ended left behind outside its group: setsid, su and their like put
// what they start into another. As a rule hotwrap has no child that it does not know, and then there is nothing.
func (h *host) search(w *worker, known []int) bool {
	pids := strays(known)
	e := h.ears[w.Serial]
	if len(pids) == 0 || e.notify == nil {
		return false
	}
	serial, line, wanted := w.Serial, "NOTIFY_SOCKET="+e.notify.path, h.wanted()
	go func() { h.post(event{kind: evStrays, serial: serial, groups: straysOf(pids, line, wanted)}) }()
	return true
}

// survey counts the connections of a generation.
func (h *host) survey(g *generation) {
	number, ls := g.Number, h.listeners()
	var leaders []int
	for _, w := range g.Workers {
		leaders = append(leaders, w.PID)
	}
	go func() {
		var pids []int
		for _, pid := range leaders {
			pids = append(pids, tree(pid)...)
		}
		open := connections(pids, ls)
		slices.SortFunc(open, func(a, b connection) int { return cmp.Compare(a.idle, b.idle) })
		h.post(event{kind: evSurvey, number: number, open: open})
	}()
}

// owns tells whether the sender of a notice belongs to the worker: it is in its tree, or in its group
// since what lay between has ended, or it is gone and had its user's id.
func (h *host) owns(w *worker, n notice) bool {
	if n.pid == 0 {
		return true // this system does not tell senders; the socket is the worker's own
	}
	if ownsTree(w.PID, n.pid) {
		return true
	}
	if _, _, group, _, alive := procState(n.pid); alive {
		return group == w.Group
	}
	return n.uid >= 0 && n.uid == h.program.uid()
}

// halted tells whether a process is stopped (state T: a debugger, SIGSTOP, SIGTTIN).
func halted(pid int) bool {
	state, _, _, _, ok := procState(pid)
	return ok && (state == 'T' || state == 't')
}

// --- signals

func signalOne(pid int, sig syscall.Signal)     { _ = unix.Kill(pid, sig) }
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

// open are the listeners that hotwrap still holds.
func (h *host) open() []*listener {
	if h.closed {
		return nil
	}
	return h.program.listeners
}

// refresh gives every listener its own backlog back, which programs change by their own listen().
func (h *host) refresh() {
	for _, l := range h.open() {
		if err := l.refresh(); err != nil {
			h.say(warning("cannot set the backlog of %s: %v", l.name, err))
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
		what, err := l.repair()
		switch {
		case err != nil:
			h.say(warning("listener %q is broken: %v", name, err))
		case what != "":
			h.say(warning("listener %q was spoilt: %s", name, what))
		}
		replaced = replaced || l.inode != inode
	}
	return replaced
}

// closing lets balancers see refusals once the program closes its copies.
func (h *host) closing() {
	if !h.closed {
		h.closed = true
		closeSockets(h.program.listeners)
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
