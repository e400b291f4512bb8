package main

// This file keeps a build that writes into its own sources from starting itself for ever, and loses no edit.
//
// Nobody can tell who wrote a file, so its rules are:
//   - What changes while no build is under way is an edit, and starts one.
//   - What changes during a build starts the next one, which cancels it, as an edit would have to. A file that
//     has done so three times in a row may be written by the build: now that is left in peace, and one more
//     follows after a pause in which nothing was edited. What changes in that one as well is made by the build;
//     yet another follows, since all of it may have been edits, and from then on its changes start none.
//   - A build in which no source changed ends the row: each file counts from zero, and what was taken as made by
//     the build is a source again if this one left it alone. What was never edited outside of a build keeps its
//     doubts: it may be written whenever its own sources change, and is to cancel no more than three builds.
//   - What is made by the build and changes outside of one was edited after all; but that is believed only
//     once before a build leaves it alone.
//   - Files that never were may have another name each time, so they count together. One whose kind no source
//     has cancels nothing; if the first build makes it, it is made by the build until it is edited.
//   - So each change from outside can cause a few builds and no more, and the last begins after the last edit of a source.

import (
	"maps"
	"path"
	"slices"
	"time"
)

const (
	buildTail   = time.Second     // a build's last writes may be seen so long after its end
	cancelsMost = 3               // builds in a row that the same file may cancel
	buildsPause = 2 * time.Second // before a build that decides
)

// buildWindow is the time of one build: from what started it to its end and a tail, or to what cancelled it.
type buildWindow struct {
	number  int               // of the build that was asked for last; the first one is 0
	open    bool              // it has not ended
	ending  bool              // it has, but what it wrote last has not settled
	first   bool              // none has ended by itself before
	decides bool              // it began after a pause: what changes in it is its own
	tail    time.Time         // its end; zero: there is none, or it is over
	changed map[string]bool   // in it; "" is a file that never was
	doubts  map[string]change // of files that may be the build's: to be built once more
	late    time.Time         // when to do so, zero not
	news    leaf              // counts for the files that never were
}

// judge decides about changes among the sources, the first of which came at since.
func (t *fileTree) judge(now, since time.Time, list []change) {
	win := &t.window
	inside := win.running() || since.Before(win.tail)
	var edits, made []change
	for _, c := range list {
		l := t.leaves[c.name]
		switch {
		case l.output && (win.open || l.believed):
			win.changed[c.name] = true
		case l.output, !inside:
			*l = leaf{sig: l.sig, hash: l.hash, edited: true, believed: l.output || l.believed}
			edits = append(edits, c)
		case t.during(c, l):
			edits = append(edits, c)
		case win.decides && !l.output && l.count() > cancelsMost+1:
			l.output, l.born = true, l.fresh
			win.news.output = win.news.output || l.fresh
			made = append(made, c)
		}
	}
	for _, c := range list {
		t.leaves[c.name].fresh = false
	}
	t.sayMade(made)
	switch {
	case len(edits) > 0:
		t.build(edits, false)
	case !win.running() && len(win.doubts) > 0:
		win.late = now.Add(buildsPause)
	}
}

// running tells whether what changes now may be the last build's.
func (win *buildWindow) running() bool { return win.open || win.ending }

// during takes in what changed during a build; false if that may be the build's own.
func (t *fileTree) during(c change, l *leaf) bool {
	win := &t.window
	if !l.fresh {
		win.count(c.name, l)
	} else {
		win.count("", &win.news)
		win.changed[c.name], l.builds, l.tails = true, win.news.builds, win.news.tails
		l.strange = !t.known(c.name)
		if win.news.output || win.first && l.strange {
			l.output, l.born = true, true
			t.w.say(verbose("%q is made by the build", c.name).end("its changes start no other"))
			return false
		}
	}
	if !l.strange && l.count() <= cancelsMost {
		return true
	}
	win.doubts[c.name] = c
	return false
}

// count notes a change of a file during a build or in its tail, once for each build.
func (win *buildWindow) count(name string, l *leaf) {
	switch {
	case win.changed[name]:
	case win.running():
		l.builds++
	default: // by somebody who saves again, most likely: this has cancelled nothing
		l.tails++
	}
	win.changed[name] = true
}

func (l *leaf) count() int { return max(l.builds, l.tails) }

// known tells whether there are sources of a file's kind.
func (t *fileTree) known(name string) bool {
	for other, l := range t.leaves {
		if !l.output && !l.fresh && l.hash != "" && path.Ext(other) == path.Ext(name) {
			return true
		}
	}
	return false
}

func (t *fileTree) sayMade(list []change) {
	if len(list) == 0 {
		return
	}
	what := count(len(list), "file")
	if len(list) == 1 {
		what = list[0].name
	}
	t.w.say(info("%s changed in every build of a row: taken as made by it", what).
		end("if so, -i GLOB spares these builds; if not, save it again while no build runs"))
}

// build tells that the sources have changed; a new build begins with that.
func (t *fileTree) build(list []change, decides bool) {
	win := &t.window
	win.number++
	win.open, win.ending, win.decides, win.tail, win.late = true, false, decides, time.Time{}, time.Time{}
	win.changed, win.doubts = map[string]bool{}, map[string]change{}
	t.tell(list)
}

// built is told that a build has ended by itself. What it wrote last of the sources settles first, as somebody may
// be saving them.
func (t *fileTree) built(number int, now time.Time) {
	win := &t.window
	if number != win.number {
		return // another one was asked for since
	}
	for name, sig := range t.differ() { // what is made by the build is complete
		if l := t.leaves[name]; l != nil && l.output && t.take(name, sig) {
			win.changed[name] = true
		}
	}
	win.open, win.ending = false, true
	t.again(now)
	t.look(now)
}

// closeWindow ends a build whose files have settled.
func (t *fileTree) closeWindow(now time.Time) {
	win := &t.window
	win.ending, win.first, win.tail = false, false, now.Add(buildTail)
	if len(win.doubts) > 0 {
		win.late = now.Add(buildsPause)
	}
}

// windowDue builds once more when the pause has passed without an edit, and ends a row of builds.
func (t *fileTree) windowDue(now time.Time) {
	win := &t.window
	if at := win.late; !at.IsZero() && !at.After(now) {
		t.build(slices.SortedFunc(maps.Values(win.doubts), byName), true)
	}
	if at := win.tail; !at.IsZero() && !at.After(now) {
		win.tail = time.Time{}
		if win.late.IsZero() {
			t.endRow()
		}
	}
}

// endRow lets what the last build left alone count anew.
func (t *fileTree) endRow() {
	win := &t.window
	for name, l := range t.leaves {
		if !win.changed[name] {
			l.leftAlone()
		}
	}
	if !win.changed[""] {
		win.news = leaf{}
	}
}

func (l *leaf) leftAlone() {
	l.output, l.believed, l.tails = l.born, false, 0
	if l.builds = min(l.builds, cancelsMost); l.edited {
		l.builds = 0
	}
}
