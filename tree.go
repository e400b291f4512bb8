package main

// This file watches trees: templates, scripts, configuration, and the sources of --build.
//
// Its rules:
//   - The content of each file decides; a file whose stat did not change is not read again.
//   - A tree is a directory, the files of one that a glob names, a single file, or nothing yet.
//   - What is not there is no change while all of it is gone: it is on its way.

import (
	"errors"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"github.com/bmatcuk/doublestar/v4"
	"github.com/fsnotify/fsnotify"
)

const (
	hashMost = 512 << 20       // bytes of a tree that are read at the start, and of one file ever; the rest is known by its stat
	readMost = 20_000          // files that are
	treeMost = 100_000         // files and directories of a tree; there are no more
	busyMost = 5 * time.Second // a data file may be held open for writing for good, or written all the time
)

// leaf is one file of a tree.
type leaf struct {
	sig      signature
	hash     string // "" it is not there (any more)
	fresh    bool   // it never was before
	strange  bool   // it is new since a build, and of a kind that no source had
	builds   int    // in a row in which it changed
	tails    int    // or after which
	edited   bool   // outside of a build
	output   bool   // taken as made by the build
	born     bool   // it is new since a build, so that it stays made by it
	believed bool   // was taken as made by the build when it was edited, and no build has left it alone since
}

// fileTree is a watched tree.
type fileTree struct {
	settling
	w       *watcher
	name    string // as shown
	root    string // logical, absolute
	glob    string // for paths below root, "" all
	depth   int    // of directories to look into, -1 all
	exts    []string
	script  string                 // watched beside exts
	written bool                   // only what people write: no hidden directories
	sources bool                   // of --build: without what git ignores
	code    bool                   // what an interpreter runs: the program itself, which a build may write
	own     func() (string, error) // the program's file, which is no source
	ignore  []string

	mine    []string // the program's file, by its logical and its real path
	real    string   // root without symlinks
	file    bool     // root is a file
	leaves  map[string]*leaf
	budget  int64                   // bytes to be read before something changes
	rules   map[string][]ignoreRule // of each directory that is watched, by real path
	links   map[place]bool          // on the way to root and to what symlinks in it lead to
	changed map[string]signature    // sampled; size -1: gone
	at      time.Time               // of the sample
	gone    bool
	owed    map[string]change // of code, to be told when a build has succeeded
	window  buildWindow       // of sources
}

// learn takes what lies there now as known.
func (t *fileTree) learn() {
	t.leaves, t.depth, t.budget = map[string]*leaf{}, -1, hashMost
	t.window = buildWindow{open: true, first: true, changed: map[string]bool{}, doubts: map[string]change{}}
	if t.glob != "" && !strings.Contains(t.glob, "**") {
		t.depth = strings.Count(t.glob, "/")
	}
	for name, sig := range t.scan() {
		t.learnFile(name, sig)
	}
}

func (t *fileTree) learnFile(name string, sig signature) {
	l := &leaf{sig: sig, hash: "unknown"}
	if sig.size <= t.budget && len(t.leaves) < readMost {
		t.budget -= sig.size
		l.hash = t.w.disk.content(t.full(name))
	}
	t.leaves[name] = l
}

func (t *fileTree) full(name string) string {
	if t.file {
		return t.root
	}
	return filepath.Join(t.root, name)
}

// scan finds the files of the tree, and where to watch.
func (t *fileTree) scan() map[string]signature {
	found := map[string]signature{}
	t.rules, t.file = map[string][]ignoreRule{}, false
	t.links = map[place]bool{}
	t.trace(t.root)
	t.findOwn()
	sig, err := t.w.disk.stat(t.root)
	if err != nil {
		return found
	}
	if !sig.regular() && !sig.dir() { // to open a fifo would wait for its writer
		return found
	}
	if !sig.dir() {
		if t.file = true; !t.isOwn("") {
			found[filepath.Base(t.root)] = sig
		}
		return found
	}
	if t.real, err = filepath.EvalSymlinks(t.root); err != nil {
		return found
	}
	t.walk("", t.given(), found)
	return found
}

// findOwn finds the program's file, which is no source of it.
func (t *fileTree) findOwn() {
	t.mine = nil
	if t.own == nil {
		return
	}
	if own, err := t.own(); err == nil {
		t.mine = append(t.mine, own)
		if real, err := filepath.EvalSymlinks(own); err == nil {
			t.mine = append(t.mine, real)
		} else if dir, err := filepath.EvalSymlinks(filepath.Dir(own)); err == nil { // it is not there yet
			t.mine = append(t.mine, filepath.Join(dir, filepath.Base(own)))
		}
	}
}

// isOwn tells whether a file of the tree is the program's.
func (t *fileTree) isOwn(name string) bool {
	if t.file {
		return slices.Contains(t.mine, t.root)
	}
	return slices.Contains(t.mine, filepath.Join(t.real, name))
}

// given are the rules that hold for all of the tree: what git ignores, and -i.
func (t *fileTree) given() []ignoreRule {
	var rules []ignoreRule
	if t.sources {
		rules = gitRules(t.real)
	}
	for _, line := range t.ignore {
		line, negate := strings.CutPrefix(line, "!")
		for base, pattern := range t.meant(line) {
			if r, ok := parseIgnore(base, pattern); ok {
				r.negate = negate
				rules = append(rules, r)
			}
		}
	}
	return rules
}

// meant is what -i says, by the directory that it is relative to. A slash, leading or not, is that of the tree
// or of the program's directory, as in gitignore(5); but a path that lies in one of them as it stands is meant so.
func (t *fileTree) meant(line string) map[string]string {
	dir, err := filepath.EvalSymlinks(t.w.cfg.dir)
	if err != nil {
		dir = t.real
	}
	for _, at := range [][2]string{{t.root, t.real}, {t.real, t.real}, {t.w.cfg.dir, dir}, {dir, dir}} {
		if rest, ok := below(at[0], line); ok && rest != "" && filepath.IsAbs(line) {
			return map[string]string{at[1]: "/" + rest}
		}
	}
	if rest, ok := strings.CutPrefix(line, "./"); ok {
		line = "/" + rest
	}
	patterns := map[string]string{t.real: line}
	if strings.Contains(strings.TrimRight(line, "/"), "/") {
		patterns[dir] = line
	}
	return patterns
}

// walk adds what is in one directory.
func (t *fileTree) walk(rel string, rules []ignoreRule, found map[string]signature) {
	dir := filepath.Join(t.real, rel)
	if rel != "" && kernelMade(dir) { // some of these files never end
		return
	}
	entries, err := os.ReadDir(dir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		t.w.sayOnce(warning("cannot watch %q: %v", dir, errors.Unwrap(err)))
	}
	if t.sources {
		rules = append(slices.Clip(rules), readIgnore(filepath.Join(dir, ".gitignore"), dir)...)
	}
	t.rules[dir] = rules
	for _, e := range entries {
		if len(found)+len(t.rules) >= treeMost {
			t.w.sayOnce(warning("cannot watch all of %q: it has more than %d files and directories", t.root, treeMost).end("-i leaves out"))
			return
		}
		name := path.Join(rel, e.Name())
		full := filepath.Join(dir, e.Name())
		switch {
		case t.out(dir, e.Name(), e.IsDir(), rules):
		case e.IsDir():
			if t.depth < 0 || strings.Count(name, "/") < t.depth {
				t.walk(name, rules, found)
			}
		case !t.wants(name):
		case e.Type()&fs.ModeSymlink != 0:
			t.trace(full)
			fallthrough
		default:
			if sig, err := t.w.disk.stat(full); err == nil && sig.regular() {
				found[name] = sig
			}
		}
	}
}

// trace watches the way of a symlink: a Kubernetes volume changes by one in the middle of it.
func (t *fileTree) trace(file string) {
	list, _ := t.w.disk.chain(file)
	for _, p := range list {
		if _, known := t.rules[p.dir]; !known {
			t.links[p] = true
		}
	}
}

// out tells whether a name is left out.
func (t *fileTree) out(dir, name string, isDir bool, rules []ignoreRule) bool {
	full := filepath.Join(dir, name)
	switch {
	case leftAbout(name), slices.Contains(versionDirs, name):
		return true
	case ignored(rules, full, isDir):
		return true
	case isDir:
		return !t.sources && name[0] == '.' || madeDir(dir, name) || t.written && name == "tmp"
	}
	return false
}

// wants tells whether a file that is not left out belongs to the tree.
func (t *fileTree) wants(name string) bool {
	switch {
	case t.isOwn(name):
		return false
	case t.glob != "":
		ok, _ := doublestar.Match(t.glob, name)
		return ok
	case t.exts != nil:
		return slices.Contains(t.exts, path.Ext(name)) || t.full(name) == t.script
	}
	return true
}

// deadline is that of the next look; while nothing settles, that of what a build has left to be done.
func (t *fileTree) deadline() time.Time {
	win := &t.window
	switch {
	case !t.next.IsZero():
		return t.next
	case win.tail.IsZero():
		return win.late
	}
	return win.tail // a pause is longer
}

func (t *fileTree) places() []place {
	list := slices.Collect(maps.Keys(t.links))
	for dir := range t.rules {
		list = append(list, place{dir: dir})
	}
	return list
}

// heard takes only what can be a change of the tree: what is left out must not wake anybody up twice.
func (t *fileTree) heard(file string, op fsnotify.Op, at place, now time.Time) {
	if at.name == "" && !t.concerns(file) {
		return
	}
	t.stir(op, false, t.w.cfg.debounce, now)
	t.changed = nil
	if !t.said && now.Sub(t.since) >= busyMost {
		t.said = true
		t.w.say(info("waiting for %q: %s changes all the time", t.name, filepath.Base(file)).end("-i GLOB leaves it out"))
	}
}

// concerns tells whether an event in one of the tree's directories matters.
func (t *fileTree) concerns(file string) bool {
	dir, name := filepath.Split(file)
	dir = filepath.Clean(dir)
	_, isDir := t.rules[file]
	link := false
	if info, err := os.Lstat(file); err == nil {
		isDir, link = info.IsDir(), info.Mode()&fs.ModeSymlink != 0
	}
	if t.sources && name == ".gitignore" {
		return true
	}
	rel, ok := below(t.real, file)
	return ok && !t.out(dir, name, isDir, t.rules[dir]) && (isDir || link || t.wants(rel))
}

func (t *fileTree) again(now time.Time) {
	t.settling.again(now)
	t.changed = nil // it lacks what came without an event
}

func (t *fileTree) poll(now time.Time) {
	if t.next.IsZero() && len(t.differ()) > 0 {
		t.stir(fsnotify.Write, false, t.w.cfg.debounce, now)
		t.changed = nil
	}
}

// differ finds what is not as it was. What the rules hide or show since is no change.
func (t *fileTree) differ() map[string]signature {
	before, changed := t.rules, map[string]signature{}
	found := t.scan()
	for name, sig := range found {
		l := t.leaves[name]
		switch {
		case l == nil && t.hidden(name, before):
			t.learnFile(name, sig)
		case l == nil || l.sig != sig:
			changed[name] = sig
		}
	}
	for name, l := range t.leaves {
		_, ok := found[name]
		switch {
		case ok:
		case t.hidden(name, t.rules):
			delete(t.leaves, name)
		case l.hash != "":
			changed[name] = signature{size: -1}
		}
	}
	return changed
}

// hidden tells whether a file is left out by the rules of the directories on the way to it.
func (t *fileTree) hidden(name string, rules map[string][]ignoreRule) bool {
	for dir, rest, deeper := t.real, name, true; deeper; {
		list, watched := rules[dir]
		if !watched {
			return false
		}
		name, rest, deeper = strings.Cut(rest, "/")
		if t.out(dir, name, deeper, list) {
			return true
		}
		dir = filepath.Join(dir, name)
	}
	return false
}

// look does what is due.
func (t *fileTree) look(now time.Time) {
	switch {
	case t.next.IsZero():
		t.windowDue(now)
	case !t.next.After(now):
		t.settle(now)
	}
	if t.window.ending && t.next.IsZero() {
		t.closeWindow(now)
	}
}

// settle is one step of settling.
func (t *fileTree) settle(now time.Time) {
	t.next = time.Time{}
	quiet := t.w.cfg.debounce
	if t.changed == nil {
		t.changed, t.at = t.differ(), now
		if len(t.changed) == 0 {
			t.calm()
			return
		}
		if t.absent(now) {
			return
		}
		t.next = t.at.Add(quiet / 2)
		if at := t.quietAt(quiet); at.After(t.next) {
			t.next = at
		}
		return
	}
	if at := t.quietAt(quiet); now.Before(at) {
		t.next = at
		return
	}
	if !t.sampled(now) {
		return
	}
	list, ok := t.read()
	if !ok { // it has changed meanwhile
		t.changed = nil
		t.later(now)
		return
	}
	since := t.since
	t.calm()
	t.settled(now, since, list)
}

// sampled tells whether what has changed is now as it was before, and nobody writes it.
func (t *fileTree) sampled(now time.Time) bool {
	for name, sig := range t.changed {
		after, err := t.w.disk.stat(t.full(name))
		if err != nil {
			after = signature{size: -1}
		}
		if after != sig {
			t.changed = nil
			t.later(now)
			return false
		}
		if sig.size >= 0 && now.Sub(t.since) < busyMost && t.w.disk.word(t.full(name), false) == wordBusy {
			t.later(now)
			return false
		}
	}
	return true
}

// absent tells whether all of it is gone: that is no change, but worth a line.
func (t *fileTree) absent(now time.Time) bool {
	if _, err := t.w.disk.stat(t.root); err == nil {
		t.gone = false
		return false
	}
	t.changed = nil
	if t.gone {
		t.settling = settling{}
		return true
	}
	t.sayAt()
	if t.long(now) {
		t.settling, t.gone = settling{}, true
		t.w.say(warning("%q is gone", t.name).end("waiting for it to come back"))
	}
	return true
}

// baseline takes what was there at a time as known, since nothing was started from what was there before.
func (t *fileTree) baseline(at, now time.Time) {
	for name, sig := range t.differ() {
		if sig.ctime > at.UnixNano() || !t.take(name, sig) {
			t.again(now)
		}
	}
	t.changed = nil
}

// take takes a file as it is now; false if it is changing.
func (t *fileTree) take(name string, sig signature) bool {
	hash := ""
	if sig.size >= 0 {
		hash = t.content(name, sig)
		if after, err := t.w.disk.stat(t.full(name)); err != nil || after != sig {
			return false
		}
	}
	if t.leaves[name] == nil {
		t.leaves[name] = &leaf{}
	}
	t.leaves[name].sig, t.leaves[name].hash = sig, hash
	return true
}

func (t *fileTree) calm() { t.settling, t.changed, t.gone = settling{}, nil, false }

func byName(a, b change) int { return strings.Compare(a.name, b.name) }

// change is a file whose content is not what it was.
type change struct {
	name     string
	from, to string // "" was not there, is not there
	size     int64
}

// content is a file's hash; of a large one only its stat counts.
func (t *fileTree) content(name string, sig signature) string {
	if sig.size > hashMost {
		return "unknown"
	}
	return t.w.disk.content(t.full(name))
}

// read takes in what has changed, and finds what differs in content; false if that is changing still.
func (t *fileTree) read() ([]change, bool) {
	hashes := map[string]string{}
	for name, sig := range t.changed {
		if sig.size < 0 {
			continue
		}
		hashes[name] = t.content(name, sig)
		if after, err := t.w.disk.stat(t.full(name)); err != nil || after != sig {
			return nil, false
		}
	}
	var list []change
	for _, name := range slices.Sorted(maps.Keys(t.changed)) {
		sig, l := t.changed[name], t.leaves[name]
		if l == nil {
			l = &leaf{fresh: true}
			t.leaves[name] = l
		}
		c := change{name: name, from: l.hash, to: hashes[name], size: max(sig.size, 0)}
		l.sig, l.hash = sig, c.to
		if c.from != c.to || c.to == "unknown" {
			list = append(list, c)
		}
	}
	return list, true
}

// settled decides about a change that is over.
func (t *fileTree) settled(now, since time.Time, list []change) {
	switch {
	case len(list) == 0:
		t.w.say(verbose("%q was touched, its content is the same", t.name))
	case t.sources:
		t.judge(now, since, list)
	case t.code && t.w.building(): // it may write more, and may fail yet
		t.owe(list)
	default:
		t.tell(list)
	}
}

// buildOver takes the end of a build: what it has left of the code is told, unless it failed or another is under way.
func (t *fileTree) buildOver(failed bool, now time.Time) {
	t.changed = t.differ()
	list, ok := t.read()
	t.calm()
	if !ok {
		t.again(now)
	}
	if t.owe(list); len(t.owed) > 0 && !failed && !t.w.building() {
		t.tell(slices.SortedFunc(maps.Values(t.owed), byName))
		t.owed = nil
	}
}

// owe keeps changes to be told later.
func (t *fileTree) owe(list []change) {
	if t.owed == nil {
		t.owed = map[string]change{}
	}
	for _, c := range list {
		if before, ok := t.owed[c.name]; ok {
			c.from = before.from
		}
		t.owed[c.name] = c
	}
}

// tell posts the change, but what another tree that holds the same file has told.
func (t *fileTree) tell(list []change) {
	if !t.sources {
		list = slices.DeleteFunc(list, func(c change) bool {
			before, known := t.w.told[t.full(c.name)]
			t.w.told[t.full(c.name)] = c.to
			return known && before == c.to && c.to != "unknown"
		})
	}
	if len(list) == 0 {
		return
	}
	g := &trigger{name: t.name, sources: t.sources, build: t.w.ended, what: count(len(list), "file")}
	if t.sources {
		g.build = t.window.number
	}
	if c := list[0]; len(list) == 1 {
		g.from, g.to, g.size, g.what = shown(c.from), shown(c.to), c.size, c.name
	}
	t.w.send(watchNews{trigger: g})
}
