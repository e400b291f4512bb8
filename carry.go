package main

// This file is the written form of all that hotwrap is, for another hotwrap that goes on in its place.
//
// Its rules:
//   - A room carries what it has as plain data, and is made again from that; carrying destroys nothing.
//   - The form is versioned both ways: what a reader does not know it hands on as it came, what it misses is zero.
//   - Values of the environment are in it only where it stays in memory.

import (
	"encoding/json"
	"fmt"
	"slices"
	"time"

	"golang.org/x/sys/unix"
)

// writtenVersion is raised when an older reader would understand what is written wrongly; a mere new field does not.
const writtenVersion = 1

// baggage is what goes along in a re-exec beside the written form: descriptors, under their numbers. nil: nothing does, for
// what is written is all that a death leaves.
type baggage struct{ fds []int }

// keep notes that a descriptor is to survive, and returns it; one that is none is left out.
func (b *baggage) keep(fd int) int {
	if b != nil && fd >= 0 && !slices.Contains(b.fds, fd) {
		b.fds = append(b.fds, fd)
	}
	return fd
}

// written is a whole hotwrap. A re-exec carries all of it and restores it; a death leaves some of it, the legacy, and the next
// hotwrap recovers what that tells of.
type written struct {
	Version int                 `json:"version"`
	Hotwrap string              `json:"hotwrap"` // who wrote it
	Args    []string            `json:"args"`    // the command line, argv[0] too
	Self    string              `json:"self"`    // where hotwrap was found
	Since   time.Time           `json:"since"`   // when it was started
	Left    carriedLeft         `json:"left_at,omitzero"`
	State   state               `json:"state"`
	Images  []carriedImage      `json:"images,omitempty"` // in the order of state.images
	Traffic carriedTraffic      `json:"traffic,omitzero"`
	Closed  bool                `json:"closed,omitempty"` // the listeners are: hotwrap is stopping
	Store   carriedStore        `json:"store,omitzero"`
	Notify  carriedNotify       `json:"notify,omitzero"`
	Ears    map[int]carriedEars `json:"ears,omitempty"` // of workers, by their serials
	Outputs carriedOutputs      `json:"outputs,omitzero"`
	Place   carriedInstance     `json:"place,omitzero"`
	PIDFile carriedPIDFile      `json:"pid_file,omitzero"`
	HTTP    int                 `json:"http,omitempty"` // descriptor of --http; 0 none
	Watch   carriedWatch        `json:"watch,omitzero"`
	Said    carriedSaid         `json:"said,omitzero"`
	Kept    []int               `json:"kept,omitempty"`    // all descriptors that came along
	Back    int                 `json:"back,omitempty"`    // of them, the executable of who wrote it: the way back
	Orphans map[int]uint64      `json:"orphans,omitempty"` // workers that are not our children: when they started
	Who     *provenance         `json:"who,omitempty"`     // on disk: who wrote it, and of what

	text []byte   // it was read from: what of it nobody here knows is handed on
	late []string // numbers of signals that came when nobody could act on them
}

// takenOver is a hotwrap that another one goes on with.
type takenOver struct {
	*written
	memory  int    // descriptor of the written form
	refused string // why it is the one that wrote it all the same
}

// leftAt is when who wrote it stopped its sources; 0 if that one has not said.
func (w *written) leftAt() instant {
	if w.Left.By != w.Hotwrap {
		return 0
	}
	return w.Left.At
}

// strandedError is that hotwrap can neither go on nor back.
type strandedError struct{ error }

// carriedLeft is when its sources were stopped, and who says so: an older hotwrap hands on what it does not know.
type carriedLeft struct {
	At instant `json:"at"`
	By string  `json:"by"`
}

// carriedSaid is what is said once only.
type carriedSaid struct {
	Deprives bool `json:"deprives,omitempty"`
	Lost     int  `json:"lost,omitempty"` // lines of the log
	NoHup    bool `json:"nohup,omitempty"`
}

// carriedImage is what the state has not of an image.
type carriedImage struct {
	Real   string        `json:"real,omitempty"`
	Script bool          `json:"script,omitempty"`
	Advice carriedAdvice `json:"advice,omitzero"`
	Stat   unix.Stat_t   `json:"stat,omitzero"`
	Place  directory     `json:"place,omitzero"`
	Env    []string      `json:"env,omitempty"`
	Set    []string      `json:"set,omitempty"`
}

type carriedAdvice struct {
	Launcher string `json:"launcher,omitempty"`
	Closes   bool   `json:"closes,omitempty"`
	Locks    bool   `json:"locks,omitempty"`
	Remedy   string `json:"remedy,omitempty"`
}

// images are all that the state has, in an order of their own.
func (s *state) images() (all []*image) {
	add := func(img *image) {
		if img != nil {
			all = append(all, img)
		}
	}
	for _, g := range s.Generations {
		add(g.Image)
	}
	for _, k := range s.Hooks.Queue {
		add(k.Image)
	}
	for _, p := range s.Past {
		add(p.Image)
	}
	return all
}

func (img *image) carry(b *baggage) carriedImage {
	b.keep(img.Exe)
	b.keep(img.Dir)
	a := img.advice
	return carriedImage{
		Real: img.real, Script: img.script, Advice: carriedAdvice{a.launcher, a.closes, a.locks, a.remedy},
		Stat: img.stat, Place: directoryOf(img.Dir), Env: img.env, Set: img.set,
	}
}

func (c carriedImage) restore(img *image) {
	a := c.Advice
	img.real, img.script, img.advice = c.Real, c.Script, advice{a.Launcher, a.Closes, a.Locks, a.Remedy}
	img.stat, img.place, img.env, img.set = c.Stat, c.Place, c.Env, c.Set
}

// encode writes w, with what who wrote it before knew and we do not.
func (w *written) encode(before []byte) ([]byte, error) {
	text, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	return graft(text, before, w)
}

// decode reads what encode wrote. With an error comes what is needed to go back to who wrote it, if that can be read.
func decode(text []byte) (*written, error) {
	var head struct {
		Version int      `json:"version"`
		Hotwrap string   `json:"hotwrap"`
		Args    []string `json:"args"`
		Kept    []int    `json:"kept"`
		Back    int      `json:"back"`
	}
	err := json.Unmarshal(text, &head)
	least := &written{Args: head.Args, Kept: head.Kept, Back: head.Back}
	if err != nil {
		return least, fmt.Errorf("cannot read the state: %w", err)
	}
	if head.Version < 1 || head.Version > writtenVersion {
		return least, fmt.Errorf("cannot read the state: hotwrap %s wrote version %d, hotwrap %s knows %d", head.Hotwrap, head.Version, versionText(), writtenVersion)
	}
	w := &written{text: text}
	if err := json.Unmarshal(text, w); err != nil {
		return least, fmt.Errorf("cannot read the state: %w", err)
	}
	for i, img := range w.State.images() {
		if i < len(w.Images) {
			w.Images[i].restore(img)
		}
	}
	return w, nil
}
