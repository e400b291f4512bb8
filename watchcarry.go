package main

// This file carries what the watch knows into the next hotwrap: what is known of each file, so that what changes while
// nobody watches is found, and what was told is not told again.

import "time"

// carriedWatch is a watcher that was stopped.
type carriedWatch struct {
	Program *carriedExecutable `json:"program,omitempty"`
	Trees   []carriedTree      `json:"trees,omitempty"`
	Told    map[string]string  `json:"told,omitempty"`
	Orders  []carriedOrder     `json:"orders,omitempty"` // that it did not get to
	Ended   int                `json:"ended"`
	Started bool               `json:"started,omitempty"`
}

// carriedOrder is one command to the watcher.
type carriedOrder struct {
	Kind   commandKind `json:"kind"`
	Build  string      `json:"build,omitempty"`
	Number int         `json:"number,omitempty"`
	At     time.Time   `json:"at,omitzero"`
	Failed bool        `json:"failed,omitempty"`
}

// carriedSignature is in the order of signature's fields.
type carriedSignature [6]int64

type carriedExecutable struct {
	Path    string           `json:"path,omitempty"`
	Sig     carriedSignature `json:"sig"`
	Refused carriedSignature `json:"refused"`
	Disk    string           `json:"disk,omitempty"`
	Dealt   bool             `json:"dealt,omitempty"`
	Proved  bool             `json:"proved,omitempty"`
	Told    string           `json:"told,omitempty"`
	Owed    bool             `json:"owed,omitempty"`
	Stuck   bool             `json:"stuck,omitempty"`
	Build   string           `json:"build,omitempty"`
	Before  string           `json:"before,omitempty"`
	Gone    bool             `json:"gone,omitempty"`
}

// carriedTree is of the same tree if root, glob and kinds of files are.
type carriedTree struct {
	Root    string                   `json:"root"`
	Glob    string                   `json:"glob,omitempty"`
	Sources bool                     `json:"sources,omitempty"`
	Code    bool                     `json:"code,omitempty"`
	Files   map[string]carriedLeaf   `json:"files,omitempty"`
	Owed    map[string]carriedChange `json:"owed,omitempty"`
	Window  carriedWindow            `json:"window"`
}

type carriedLeaf struct {
	Sig      carriedSignature `json:"sig"`
	Hash     string           `json:"hash,omitempty"`
	Fresh    bool             `json:"fresh,omitempty"`
	Strange  bool             `json:"strange,omitempty"`
	Builds   int              `json:"builds,omitempty"`
	Tails    int              `json:"tails,omitempty"`
	Edited   bool             `json:"edited,omitempty"`
	Output   bool             `json:"output,omitempty"`
	Born     bool             `json:"born,omitempty"`
	Believed bool             `json:"believed,omitempty"`
}

type carriedChange struct {
	Name string `json:"name"`
	From string `json:"from,omitempty"`
	To   string `json:"to,omitempty"`
	Size int64  `json:"size,omitempty"`
}

type carriedWindow struct {
	Number  int                      `json:"number"`
	Open    bool                     `json:"open,omitempty"`
	Ending  bool                     `json:"ending,omitempty"`
	First   bool                     `json:"first,omitempty"`
	Decides bool                     `json:"decides,omitempty"`
	Tail    time.Time                `json:"tail,omitzero"`
	Changed map[string]bool          `json:"changed,omitempty"`
	Doubts  map[string]carriedChange `json:"doubts,omitempty"`
	Late    time.Time                `json:"late,omitzero"`
	News    carriedLeaf              `json:"news"`
}

func (s signature) carry() carriedSignature {
	return carriedSignature{int64(s.dev), int64(s.ino), s.size, s.mtime, s.ctime, int64(s.mode)} //nolint:gosec // it comes back as it was
}

func (c carriedSignature) restore() signature {
	return signature{uint64(c[0]), uint64(c[1]), c[2], c[3], c[4], uint32(c[5])} //nolint:gosec // it was one
}

// carry is for a watcher that was stopped: its goroutine owns it before. nil carries nothing.
func (w *watcher) carry() carriedWatch {
	if w == nil {
		return carriedWatch{}
	}
	c := carriedWatch{Told: w.told, Ended: w.ended, Started: w.started}
	select {
	case list := <-w.commands:
		for _, o := range list {
			c.Orders = append(c.Orders, carriedOrder{o.kind, o.build, o.ended.number, o.ended.at, o.ended.failed})
		}
	default:
	}
	if p := w.program; p != nil {
		c.Program = &carriedExecutable{
			p.path, p.sig.carry(), p.refused.carry(), p.disk, p.dealt, p.proved, p.told, p.owed, p.stuck, p.build, p.before, p.gone,
		}
	}
	for _, target := range w.targets {
		if t, ok := target.(*fileTree); ok {
			c.Trees = append(c.Trees, t.carry())
		}
	}
	return c
}

// restore goes on with what was known: whatever is otherwise by now has changed since. It comes before run.
func (w *watcher) restore(c carriedWatch) {
	if c.Told != nil {
		w.told = c.Told
	}
	w.ended, w.started = c.Ended, c.Started
	for _, o := range c.Orders {
		w.tell(command{o.Kind, o.Build, buildEnd{o.Number, o.At, o.Failed}})
	}
	now := time.Now()
	if p, was := w.program, c.Program; p != nil && was != nil {
		p.path, p.sig, p.refused, p.disk, p.dealt, p.proved = was.Path, was.Sig.restore(), was.Refused.restore(), was.Disk, was.Dealt, was.Proved
		p.told, p.owed, p.stuck, p.build, p.before, p.gone = was.Told, was.Owed, was.Stuck, was.Build, was.Before, was.Gone
		p.again(now)
	}
	for _, target := range w.targets {
		t, ok := target.(*fileTree)
		for _, was := range c.Trees {
			if ok && t.root == was.Root && t.glob == was.Glob && t.sources == was.Sources && t.code == was.Code {
				t.restore(was)
				t.again(now)
			}
		}
	}
}

func (t *fileTree) carry() carriedTree {
	c := carriedTree{Root: t.root, Glob: t.glob, Sources: t.sources, Code: t.code, Files: map[string]carriedLeaf{}, Owed: carryChanges(t.owed)}
	for name, l := range t.leaves {
		c.Files[name] = l.carry()
	}
	win := t.window
	c.Window = carriedWindow{
		win.number, win.open, win.ending, win.first, win.decides, win.tail, win.changed, carryChanges(win.doubts), win.late, win.news.carry(),
	}
	return c
}

func (t *fileTree) restore(c carriedTree) {
	t.leaves, t.owed = map[string]*leaf{}, restoreChanges(c.Owed)
	for name, was := range c.Files {
		l := was.restore()
		t.leaves[name] = &l
	}
	win := c.Window
	t.window = buildWindow{win.Number, win.Open, win.Ending, win.First, win.Decides, win.Tail, win.Changed, restoreChanges(win.Doubts), win.Late, win.News.restore()}
	if t.window.changed == nil {
		t.window.changed = map[string]bool{}
	}
	if t.window.doubts == nil {
		t.window.doubts = map[string]change{}
	}
}

func (l *leaf) carry() carriedLeaf {
	return carriedLeaf{l.sig.carry(), l.hash, l.fresh, l.strange, l.builds, l.tails, l.edited, l.output, l.born, l.believed}
}

func (c carriedLeaf) restore() leaf {
	return leaf{c.Sig.restore(), c.Hash, c.Fresh, c.Strange, c.Builds, c.Tails, c.Edited, c.Output, c.Born, c.Believed}
}

func carryChanges(all map[string]change) map[string]carriedChange {
	carried := map[string]carriedChange{}
	for name, c := range all {
		carried[name] = carriedChange{c.name, c.from, c.to, c.size}
	}
	return carried
}

func restoreChanges(all map[string]carriedChange) map[string]change {
	if len(all) == 0 {
		return nil
	}
	restored := map[string]change{}
	for name, c := range all {
		restored[name] = change{c.Name, c.From, c.To, c.Size}
	}
	return restored
}
