package main

// This file watches files, and tells when what is watched is really new and really complete.
//
// Its rules:
//   - One goroutine, run, owns every fact here. It only posts; what is asked of it waits in a queue.
//   - Directories are watched, never files, and by their real paths: a watch on a file is lost at the first
//     rename, a symlink has no events but in its own directory, and fsnotify merges two paths of one directory.
//   - Any event only says "look again"; what is true is asked of the file. No kind of event is left out:
//     chmod is the last step of gcc and unzip, a Kubernetes swap may come as a write.
//   - A quiet time alone proves nothing (a copy of a large file is silent for seconds): size, kernel and
//     header must agree, and the content decides.
//   - While nothing happens nothing runs: no timer is set, but where a file system sends no events.

import (
	"errors"
	"maps"
	"path/filepath"
	"slices"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

const (
	settleMost   = 2 * time.Second        // chatter that writes nothing cannot put off a look for longer
	foreignWait  = 5 * time.Second        // for a header that may be foreign (binfmt_misc) or not there yet
	waitingSay   = 2 * time.Second        // a wait or an absence this long has its line
	recheckFirst = 25 * time.Millisecond  // close(2) has no event in fsnotify: while somebody writes, ask so often,
	recheckMost  = 100 * time.Millisecond // at most this far apart
	pollEvery    = time.Second            // where events cannot be trusted
	pollShare    = 50                     // a poll may take one part in so many of the time
	searchMost   = 64                     // directories of PATH in which a missing program is awaited
	vouchedPart  = 10                     // of the quiet time is enough for a file that the kernel vouches for
)

// trigger is one change that is over and complete.
type trigger struct {
	name     string
	from, to string // short content hashes, "" unknown
	size     int64
	program  bool   // the executable itself: to is its build
	owed     bool   // a start from it was put off
	stuck    bool   // it could not be executed before: its mode may be another
	sources  bool   // what --build builds from
	build    int    // the number of the one that sources ask for; else of the last one known to have ended
	what     string // of a tree: "views/a.html", "3 files"
}

// watchNews is what the watcher posts: one of the two.
type watchNews struct {
	trigger *trigger
	say     *message
}

// watchConfig is what to watch.
type watchConfig struct {
	program      []string               // argv, placeholders expanded
	find         func() (string, error) // resolves argv[0] anew each time, to its logical path
	search       []string               // directories of PATH, for a program without a slash
	dir          string                 // the program's, logical, absolute
	paths        []string               // of --watch=PATH; none: the program
	watchProgram bool                   // bare -w was given
	src          string                 // sources below it, "" = dir
	build        bool                   // --build was given
	ignore       []string               // -i GLOB
	debounce     time.Duration
}

// signature is what stat(2) tells of a file. It is compared with !=: an mtime may go back (mv, tar, rsync -a),
// and an inode number comes back at once.
type signature struct {
	dev, ino     uint64
	size         int64
	mtime, ctime int64 // ns
	mode         uint32
}

func (s signature) regular() bool { return s.mode&unix.S_IFMT == unix.S_IFREG }
func (s signature) dir() bool     { return s.mode&unix.S_IFMT == unix.S_IFDIR }

// calm leaves out what a chmod changes.
func (s signature) calm() signature {
	s.ctime, s.mode = 0, 0
	return s
}

// kernelWord is what the kernel says of a file that is about to be run or read.
type kernelWord int

const (
	wordNone   kernelWord = iota // it cannot tell
	wordFree                     // nobody writes it
	wordBusy                     // somebody has it open for writing
	wordNoExec                   // it may not be executed
)

// headerWord is what a program's header says of it.
type headerWord int

const (
	headerWhole  headerWord = iota
	headerOdd               // it is of no known format, or not there yet
	headerBroken            // there must be more of the file
)

// disk is what the watcher needs of files, so that tests can be the files.
type disk struct {
	stat    func(path string) (signature, error) // of what a symlink leads to
	word    func(path string, program bool) kernelWord
	header  func(path string, size int64) headerWord // whether it agrees with the size
	content func(path string) string                 // short hash
	chain   func(path string) ([]place, error)
	slow    func(dir string) string // why events from there cannot be trusted, "" they can
	add     func(dir string) error
	remove  func(dir string) error
}

// place is one name in one directory whose events matter; "" is every name.
type place struct {
	dir, name string
	file      bool // the name is the watched file itself, not a link or a directory on the way to it
}

// target is one thing that is watched.
type target interface {
	places() []place
	heard(path string, op fsnotify.Op, at place, now time.Time)
	again(now time.Time) // anything may have happened
	poll(now time.Time)  // there may have been no event
	look(now time.Time)
	deadline() time.Time // of the next look, zero none
}

// interest is who wants to hear of a name.
type interest struct {
	target target
	place  place
}

// armed is what a watched directory was when its watch began.
type armed struct {
	slow     string // why its events cannot be trusted, "" they can
	dev, ino uint64
}

// command is one thing that the supervisor tells the watcher.
type command struct {
	kind  commandKind
	build string   // tellRuns
	ended buildEnd // tellBuilt
}

// buildEnd is how a build ended by itself.
type buildEnd struct {
	number int
	at     time.Time
	failed bool
}

type commandKind int

const (
	tellRuns commandKind = iota
	tellStuck
	tellLook
	tellBuilt
)

// watcher watches. Its fields belong to run, but for the channels.
type watcher struct {
	cfg      watchConfig
	disk     disk
	post     func(watchNews) bool // before run: keeps it for then
	commands chan []command
	quit     chan struct{}
	done     chan struct{}
	events   <-chan fsnotify.Event
	errors   <-chan error
	close    func() error

	targets []target
	program *executable // nil: not watched
	sources *fileTree   // nil: no --build
	spots   map[string][]interest
	armed   map[string]armed  // watched directories
	stale   map[string]bool   // directories whose watch may be gone or belong to another by now
	failed  map[string]string // directories that cannot be watched: why
	warned  map[string]bool   // lines that were said once
	told    map[string]string // of files in trees: the content that was told last
	blind   string            // why there are no events at all
	polls   time.Time         // the next poll, zero none
	pause   time.Duration     // between polls
	kept    []watchNews       // from before run
	ended   int               // the last build known to have ended; -1 none
	started bool              // a generation was started
	over    bool              // post has said so
}

// startWatch begins to watch. What happens after it has returned is noticed; post is called from the
// watcher's goroutine only.
func startWatch(cfg watchConfig, before *carriedWatch, post func(watchNews) bool) (*watcher, error) {
	return startWatchOn(cfg, before, realDisk(), fsnotify.NewWatcher, post)
}

// startWatchOn begins with what lies there, or goes on with what was known before.
func startWatchOn(cfg watchConfig, before *carriedWatch, d disk, open func() (*fsnotify.Watcher, error), post func(watchNews) bool) (*watcher, error) {
	w := newWatcher(cfg, d)
	fs, err := open()
	if err != nil {
		w.blind = limitOf(err)
		w.disk.add = func(string) error { return nil }
		w.disk.remove = w.disk.add
	} else {
		w.events, w.errors, w.close = fs.Events, fs.Errors, fs.Close
		w.disk.add, w.disk.remove = fs.Add, fs.Remove
	}
	w.choose()
	w.arm(time.Now())
	if before != nil {
		w.restore(*before)
	}
	go w.run(post)
	return w, nil
}

func newWatcher(cfg watchConfig, d disk) *watcher {
	w := &watcher{
		cfg: cfg, disk: d, commands: make(chan []command, 1),
		quit: make(chan struct{}), done: make(chan struct{}), close: func() error { return nil },
		spots: map[string][]interest{}, armed: map[string]armed{}, stale: map[string]bool{},
		failed: map[string]string{}, warned: map[string]bool{}, told: map[string]string{}, pause: pollEvery, ended: -1,
	}
	w.post = func(n watchNews) bool {
		w.kept = append(w.kept, n)
		return true
	}
	return w
}

// stop ends the watcher; afterwards nothing is posted. A post that is under way must be taken or refused.
func (w *watcher) stop() {
	close(w.quit)
	<-w.done
}

// runs tells that a generation is started from this build: it is what a change is compared with now. ""
// tells that what was told could not be started, as the file was not ready: it is told again once it is.
func (w *watcher) runs(build string) { w.tell(command{kind: tellRuns, build: build}) }

// cannotRun tells that the program could not be executed: the next change is told, even if it is of the mode alone.
func (w *watcher) cannotRun() { w.tell(command{kind: tellStuck}) }

// look asks for a look at the program now.
func (w *watcher) look() { w.tell(command{kind: tellLook}) }

// built tells that a build has ended by itself.
func (w *watcher) built(end buildEnd) { w.tell(command{kind: tellBuilt, ended: end}) }

// tell queues a command. It never blocks, as only one goroutine calls it.
func (w *watcher) tell(c command) {
	var list []command
	select {
	case list = <-w.commands:
	default:
	}
	w.commands <- append(list, c)
}

// run is the watcher's goroutine.
func (w *watcher) run(post func(watchNews) bool) {
	defer close(w.done)
	defer func() { _ = w.close() }()
	w.post = post
	for _, n := range w.kept {
		w.send(n)
	}
	timer := time.NewTimer(0)
	defer timer.Stop()
	for !w.over {
		if at := w.deadline(); at.IsZero() {
			timer.Stop()
		} else {
			timer.Reset(max(time.Until(at), 0))
		}
		select {
		case ev, ok := <-w.events:
			if !ok {
				w.events = nil
				continue
			}
			w.heard(ev, time.Now())
		case err, ok := <-w.errors:
			if !ok {
				w.errors = nil
				continue
			}
			w.lost(err)
		case list := <-w.commands:
			for _, c := range list {
				w.obey(c, time.Now())
			}
		case <-timer.C:
		case <-w.quit:
			return
		}
		w.due(time.Now())
	}
}

// deadline is the nearest of all.
func (w *watcher) deadline() time.Time {
	at := w.polls
	for _, t := range w.targets {
		if d := t.deadline(); !d.IsZero() && (at.IsZero() || d.Before(at)) {
			at = d
		}
	}
	return at
}

// due does what is due, and watches where the targets are by then.
func (w *watcher) due(now time.Time) {
	if !w.polls.IsZero() && !w.polls.After(now) {
		for _, t := range w.targets {
			t.poll(now)
		}
		w.pause = max(pollEvery, pollShare*time.Since(now))
		w.polls = now.Add(w.pause)
	}
	looked := false
	for _, t := range w.targets {
		if at := t.deadline(); !at.IsZero() && !at.After(now) && !w.over {
			t.look(now)
			looked = true
		}
	}
	if looked { // also by whose watch is stale: rm -r must not arm at each directory
		w.arm(now)
	}
}

// heard passes an event on to who is interested in the name.
func (w *watcher) heard(ev fsnotify.Event, now time.Time) {
	ev.Name = filepath.Clean(ev.Name) // "//name" is in the root
	dir, name := filepath.Split(ev.Name)
	dir = filepath.Clean(dir)
	own := w.spots[ev.Name]
	if len(own) > 0 && ev.Has(fsnotify.Remove|fsnotify.Rename|fsnotify.Create) {
		w.stale[ev.Name] = true
		for _, i := range own {
			i.target.heard(ev.Name, ev.Op, place{dir: dir, name: name}, now)
		}
	}
	for _, i := range w.spots[dir] {
		if i.place.name == name || i.place.name == "" {
			i.target.heard(ev.Name, ev.Op, i.place, now)
		}
	}
}

// lost is an error of the events: when the queue has overflowed, anything may have happened.
func (w *watcher) lost(err error) {
	now := time.Now()
	if !errors.Is(err, fsnotify.ErrEventOverflow) {
		w.say(verbose("file events: %v", err))
	}
	for dir := range w.armed {
		w.stale[dir] = true
	}
	for _, t := range w.targets {
		t.again(now)
	}
}

func (w *watcher) obey(c command, now time.Time) {
	p := w.program
	switch c.kind {
	case tellRuns:
		w.started = true
		if p != nil {
			p.started(c.build, now)
		}
	case tellStuck:
		if p != nil {
			p.told, p.stuck = "", true
		}
	case tellLook:
		if p != nil {
			p.again(now)
			p.next, p.refused = now, signature{}
		}
	case tellBuilt:
		w.buildOver(c.ended, now)
	}
}

// buildOver takes the end of a build. What it has left of the watched files counts from here, if nothing was
// started yet; the program of one that failed is nothing to be started.
func (w *watcher) buildOver(end buildEnd, now time.Time) {
	w.ended = end.number
	if w.program != nil && end.failed {
		w.program.refuse()
	}
	if w.sources != nil {
		w.sources.built(end.number, now)
	}
	for _, target := range w.targets {
		switch t, ok := target.(*fileTree); {
		case !ok || t.sources:
		case !w.started:
			t.baseline(end.at, now)
		case t.code:
			t.buildOver(end.failed, now)
		}
	}
}

// building tells whether a build is under way, or was asked for.
func (w *watcher) building() bool { return w.sources != nil && w.sources.window.open }

// arm watches the directories that matter now, and no others.
func (w *watcher) arm(now time.Time) {
	spots := map[string][]interest{}
	for _, t := range w.targets {
		for _, p := range t.places() {
			if i := (interest{t, p}); !slices.Contains(spots[p.dir], i) {
				spots[p.dir] = append(spots[p.dir], i)
			}
		}
	}
	w.spots = spots
	w.disarm()
	clear(w.failed)
	for dir, list := range spots {
		if _, ok := w.armed[dir]; ok {
			continue
		}
		err, at := w.disk.add(dir), now
		switch {
		case err == nil: // it may have changed before the watch was there
			sig, _ := w.disk.stat(dir)
			w.armed[dir] = armed{w.disk.slow(dir), sig.dev, sig.ino}
		case errors.Is(err, unix.ENOENT) || errors.Is(err, unix.ENOTDIR): // it went just now
			at = now.Add(recheckMost)
		default:
			w.failed[dir] = limitOf(err)
			continue
		}
		for _, i := range list {
			i.target.again(at)
		}
	}
	w.choosePolling(now)
}

// disarm watches no more what does not matter, and what has become another directory.
func (w *watcher) disarm() {
	for dir, was := range w.armed {
		sig, err := w.disk.stat(dir)
		other := err == nil && (sig.dev != was.dev || sig.ino != was.ino) // as a mount over it is
		if w.spots[dir] == nil || w.stale[dir] || other {
			_ = w.disk.remove(dir) // it may be gone already
			delete(w.armed, dir)
		}
	}
	clear(w.stale)
}

// choosePolling looks at times where events cannot be had or trusted, and only there.
func (w *watcher) choosePolling(now time.Time) {
	why := w.blind
	if why != "" {
		w.sayOnce(warning("cannot watch files: %s", why).end("looking at them once a second"))
	}
	for cause, dirs := range w.causes() {
		why = cause
		m := warning("cannot watch %q: %s", dirs[0], cause)
		if n := len(dirs) - 1; n > 0 && w.warned[cause] {
			continue
		} else if n > 0 { // a limit that was met: one line for all of them
			w.warned[cause] = true
			m = warning("cannot watch %q and %d more: %s", dirs[0], n, cause)
		}
		w.sayOnce(m.end("looking there once a second"))
	}
	for _, a := range w.armed {
		if kind := a.slow; kind != "" {
			why = kind
			w.sayOnce(info("changes in %s may come without events", kind).end("looking there once a second"))
		}
	}
	switch {
	case why == "":
		w.polls = time.Time{}
	case w.polls.IsZero():
		w.polls = now.Add(w.pause)
	}
}

// causes are the directories that cannot be watched, by the reason.
func (w *watcher) causes() map[string][]string {
	list := map[string][]string{}
	for _, dir := range slices.Sorted(maps.Keys(w.failed)) {
		list[w.failed[dir]] = append(list[w.failed[dir]], dir)
	}
	return list
}

// limitOf words why something cannot be watched, by the limit's name where it is one.
func limitOf(err error) string {
	switch {
	case errors.Is(err, unix.EMFILE):
		return "too many open files (sysctl fs.inotify.max_user_instances, or ulimit -n)"
	case errors.Is(err, unix.ENOSPC):
		return "too many watches (sysctl fs.inotify.max_user_watches)"
	}
	return err.Error()
}

// send posts, unless the watcher was stopped.
func (w *watcher) send(n watchNews) {
	select {
	case <-w.quit:
		w.over = true
	default:
		w.over = w.over || !w.post(n)
	}
}

func (w *watcher) say(m message) { w.send(watchNews{say: &m}) }

// sayOnce says a line that would only repeat itself.
func (w *watcher) sayOnce(m message) {
	if text := m.String(); !w.warned[text] {
		w.warned[text] = true
		w.say(m)
	}
}

// alone tells whether the program is all that is watched, so that no other change can belong to its own.
func (w *watcher) alone() bool {
	n := len(w.targets)
	if w.sources != nil {
		n--
	}
	return n == 1
}
