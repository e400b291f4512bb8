package main

// This file is what hotwrap can go back to: the images of the generations that served before, still pinned.
//
// Its rules: the last few are kept, descriptors and environment and all; going back is a restart like
// any other, of its own number; what lies on disk stays as it is, and the log says so.

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

const pastKept = 3

// past is a generation that served and is gone, or that drains.
type past struct {
	Number int    `json:"generation"`
	Image  *image `json:"image"`
}

// retire keeps the image of a generation that served and is gone now.
func (s *supervisor) retire(g *generation) {
	if g.Image == nil || s.Ending || !g.Served {
		s.world.release(g)
		return
	}
	s.Past = append(s.Past, past{g.Number, g.Image})
	slices.SortFunc(s.Past, func(a, b past) int { return a.Number - b.Number })
	s.world.release(&generation{Number: g.Number, Served: true})
	for len(s.Past) > pastKept {
		s.world.release(&generation{Image: s.Past[0].Image})
		s.Past = slices.Delete(s.Past, 0, 1)
	}
}

// letGo lets go of all that is kept: hotwrap ends.
func (s *supervisor) letGo() {
	for _, p := range s.Past {
		s.world.release(&generation{Image: p.Image})
	}
	s.Past = nil
}

// before is what served before: the last of another build than the one that serves, else simply the last,
// whose environment may have been another. Its image is nil when there is none.
func (s *state) before() past {
	all := slices.Clone(s.Past)
	for _, g := range s.Generations {
		if g.State == genDraining && g.Served && g.Image != nil {
			all = append(all, past{g.Number, g.Image})
		}
	}
	slices.SortFunc(all, func(a, b past) int { return b.Number - a.Number })
	if g := s.serving(); g != nil && g.Image != nil {
		if i := slices.IndexFunc(all, func(p past) bool { return !p.Image.sameBuild(g.Image) }); i >= 0 {
			return all[i]
		}
	}
	if len(all) == 0 {
		return past{}
	}
	return all[0]
}

// refuseRollback answers those who want to go back where nothing is kept.
func (s *supervisor) refuseRollback(rs []request) {
	const reason = "no generation served before this one"
	s.say(warning("no rollback: %s", reason).with("by", rs[0].by()))
	s.answerAll(rs, failed, nil, reason)
	s.next()
}

// origin says what a worker that crashed is started again from.
func (s *supervisor) origin(g *generation) string {
	build := "build " + g.Image.Build
	switch s.world.disk(g) {
	case diskSame:
	case diskOther:
		build += " (not the newer one on disk)"
	case diskNothing:
		build += " (which is gone from disk)"
	case diskRuns:
		build = "what lies on disk now: its own script was replaced"
	}
	return build
}

// sayDisk says what a generation that was gone back to has to do with what lies on disk.
func (s *supervisor) sayDisk(g *generation) {
	switch s.world.disk(g) {
	case diskOther:
		s.say(hint("the disk still holds another build than generation %d; the next restart starts that one", g.Number))
	case diskNothing:
		s.say(hint("nothing lies at %q now: restarts fail until a build does", g.Image.Path))
	case diskSame, diskRuns:
		if g.Image.Pinned == pinnedDir {
			s.say(hint("generation %d runs the files that are on disk now: "+
				"only the directory of a script is pinned, so give each release one of its own", g.Number))
		}
	}
}

// sameBuild tells whether two images are one build: the same content at the same place.
func (img *image) sameBuild(o *image) bool {
	return img.Build == o.Build && img.Path == o.Path && img.real == o.real
}

// again pins an image once more, for a new generation: program, arguments and environment are the old ones.
func (img *image) again(number int) (*image, error) {
	again := *img
	again.Exe, again.Dir = -1, -1
	for _, pin := range []struct{ from, to *int }{{&img.Exe, &again.Exe}, {&img.Dir, &again.Dir}} {
		fd, err := unix.FcntlInt(uintptr(*pin.from), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			again.unpin()
			return nil, fmt.Errorf("cannot pin %q again: %w", img.Path, err)
		}
		*pin.to = fd
	}
	again.env = slices.Clone(img.env)
	for _, key := range []string{"HOTWRAP_GENERATION", "SERVER_STARTER_GENERATION"} {
		again.env = setenv(again.env, key, fmt.Sprint(number))
	}
	return &again, nil
}

// intact tells whether what would run is still what ran: a script is opened by its name, and what nobody runs any more
// can be written to, by whatever link to it is left. It reads the file, so never on the supervisor's goroutine.
func (img *image) intact() error {
	path, _ := img.run()
	name, what := path, "the script "
	switch {
	case img.script:
	case canRunPinned: // the pin is what runs, wherever it lies by now (proc(5))
		path, name, what = "/proc/self/fd/"+strconv.Itoa(img.Exe), img.real, ""
	default:
		what = ""
	}
	if build, _ := contentOf(path, nil); build == img.Build {
		return nil
	}
	fate := "was overwritten"
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		fate = "is gone"
	}
	return fmt.Errorf("cannot go back to build %s: %s%q %s", img.Build, what, name, fate)
}
