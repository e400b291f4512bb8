package main

// This file keeps a build that writes into its own sources from starting itself for ever.
//
// Nobody can tell who wrote a file, so its rules are:
//   - What changes while no build is under way is an edit, and starts one.
//   - What changes during a build starts the next one (which cancels it), as an edit would have to. If it
//     changes during that one too, it may be the build's own: the build is left in peace, and one more
//     follows after a pause, so that an edit is not lost. What changes in that one as well is made by the build.
//   - A new file whose kind is not among the sources is made by the build, at once.
//   - What is made by the build and changes outside of one was edited after all; but that is believed only once.
//   - So each file can cause a few builds and no more.

import (
	"maps"
	"path"
	"slices"
	"time"
)

const (
	buildTail   = time.Second     // a build's last writes may be seen so long after its end
	buildsMost  = 3               // builds that a file changes in are too many for edits
	buildsPause = 2 * time.Second // before the one that decides
)

// buildWindow is the time of one build: from what started it to its end, or to what cancelled it.
type buildWindow struct {
	open    bool
	end     time.Time         // of the last one
	began   map[string]string // what has changed in it: content before
	counted map[string]bool   // what changed in the last one
	created bool              // there are files that never were
	fresh   int               // builds in a row that made such files
	late    time.Time         // when to build once more, zero not
	wish    []change          // because of these
}

// judge decides about changes among the sources.
func (t *fileTree) judge(now time.Time, list []change) {
	win := &t.window
	tail := !win.open && now.Before(win.end.Add(buildTail))
	start := false
	for _, c := range list {
		l := t.leaves[c.name]
		switch {
		case win.open || tail:
			start = t.during(c, l) && win.open || start
		case l.output && l.forced:
		default:
			l.forced = l.forced || l.output
			l.output, l.builds, start = false, 0, true
		}
	}
	switch {
	case start:
		t.count()
		t.build(list)
	case tail:
		t.closeWindow(now)
	}
}

// during takes in what changed during a build; true if it looks like an edit.
func (t *fileTree) during(c change, l *leaf) bool {
	win := &t.window
	_, again := win.began[c.name]
	never := c.from == "" && l.builds == 0 && !again
	switch {
	case l.output:
		return false
	case never && !t.known(c.name):
		t.made(c.name, l)
		return false
	case !again:
		win.began[c.name] = c.from
	}
	if never {
		win.created = true
		l.builds = win.fresh
	}
	return l.builds == 0
}

// known tells whether there are sources of a file's kind.
func (t *fileTree) known(name string) bool {
	for other, l := range t.leaves {
		if other != name && !l.output && l.hash != "" && path.Ext(other) == path.Ext(name) {
			return true
		}
	}
	return false
}

func (t *fileTree) made(name string, l *leaf) {
	l.output = true
	t.w.say(verbose("%q is made by the build", name).end("its changes start no other"))
}

// build tells that the sources have changed; a new build begins with that.
func (t *fileTree) build(list []change) {
	win := &t.window
	win.open, win.late, win.wish = true, time.Time{}, nil
	win.began, win.counted = map[string]string{}, map[string]bool{}
	t.tell(list)
}

// buildAgain builds once more: the pause has passed without an edit.
func (t *fileTree) buildAgain() { t.build(t.window.wish) }

// count notes in what changed during a build that it did, once for each build.
func (t *fileTree) count() {
	win := &t.window
	for name := range win.began {
		if !win.counted[name] {
			t.leaves[name].builds++
			win.counted[name] = true
		}
	}
	if win.created {
		win.fresh++
	} else if win.open {
		win.fresh = 0
	}
	win.created = false
}

// closeWindow ends a build: what else it changed is its own, or is built once more.
func (t *fileTree) closeWindow(now time.Time) {
	win := &t.window
	t.count()
	var edits, doubts []change
	for _, name := range slices.Sorted(maps.Keys(win.began)) {
		l := t.leaves[name]
		c := change{name: name, from: win.began[name], to: l.hash, size: max(l.sig.size, 0)}
		switch {
		case l.output:
		case l.builds >= buildsMost:
			t.made(name, l)
		case c.from == c.to:
		case l.builds == 1:
			edits = append(edits, c)
		default:
			doubts = append(doubts, c)
		}
	}
	if win.open {
		win.end = now
	}
	win.open, win.began = false, map[string]string{}
	switch {
	case len(edits) > 0:
		t.build(append(edits, doubts...))
	case len(doubts) > 0:
		win.late, win.wish = now.Add(buildsPause), doubts
	}
}

// built is told that the last build has ended: its files are complete, so nothing is waited for.
func (t *fileTree) built(now time.Time) {
	win := &t.window
	win.open = true
	t.changed = t.differ(t.scan())
	list, ok := t.read()
	t.calm()
	if !ok {
		t.again(now)
	}
	for _, c := range list {
		_ = t.during(c, t.leaves[c.name])
	}
	t.closeWindow(now)
}
