package main

// These tests let fake files and a fake kernel go through what writers were measured to do, on a fake clock.

import (
	"errors"
	"strings"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

const msec = time.Millisecond

// fakeFile is one executable as the watcher sees it.
type fakeFile struct {
	sync.Mutex
	sig     signature
	gone    bool
	word    kernelWord
	header  headerWord
	content string
	linked  bool // it lies behind a symlink
}

// the changes that writers make
func (f *fakeFile) put(content string) { // rename(2)
	f.sig.ino++
	f.sig.ctime += 1000
	f.sig.mtime = f.sig.ctime - 500
	f.content, f.gone = content, false
}

func (f *fakeFile) write(content string) { // in place
	f.sig.ctime += 1000
	f.sig.mtime = f.sig.ctime
	f.content = content
}

func (f *fakeFile) chmod(mode uint32) {
	f.sig.ctime += 1000
	f.sig.mode = 0o100000 | mode
}

func (f *fakeFile) disk() disk {
	locked := func(get func()) {
		f.Lock()
		defer f.Unlock()
		get()
	}
	return disk{
		stat: func(path string) (sig signature, err error) {
			locked(func() {
				if sig = f.sig; f.gone || path != "/srv/app" {
					err = errors.New("no such file")
				}
			})
			return sig, err
		},
		word: func(string, bool) (word kernelWord) {
			locked(func() {
				if word = f.word; word == wordFree && f.sig.mode&0o111 == 0 {
					word = wordNoExec
				}
			})
			return word
		},
		header:  func(string, int64) (word headerWord) { locked(func() { word = f.header }); return word },
		content: func(string) (text string) { locked(func() { text = f.content }); return text },
		chain: func(string) ([]place, error) {
			return []place{{dir: "/srv", name: "app", file: true}, {dir: "/srv", name: "link"}, {dir: "/", name: "srv"}}, nil
		},
		slow:   func(string) string { return "" },
		add:    func(string) error { return nil },
		remove: func(string) error { return nil },
	}
}

// scene is one fake program under watch.
type scene struct {
	*fakeFile
	w      *watcher
	events chan fsnotify.Event
	errors chan error
	start  time.Time
	log    []string // triggers "350ms a→b", lines "say …"
	times  []time.Duration
}

func newScene(t *testing.T) *scene {
	f := &fakeFile{content: "one", word: wordFree, sig: signature{ino: 7, size: 1000, mtime: 500, ctime: 1000, mode: 0o100755}}
	s := &scene{fakeFile: f, events: make(chan fsnotify.Event), errors: make(chan error), start: time.Now()}
	s.w = newWatcher(watchConfig{
		program: []string{"app"}, dir: "/srv", debounce: 100 * msec, find: func() (string, error) { return "/srv/app", nil },
	}, f.disk())
	s.w.events, s.w.errors = s.events, s.errors
	s.w.choose()
	s.w.arm(time.Now())
	go s.w.run(func(n watchNews) bool {
		s.Lock()
		defer s.Unlock()
		if n.trigger != nil {
			s.log = append(s.log, n.trigger.from+"→"+n.trigger.to)
			s.times = append(s.times, time.Since(s.start))
		} else if n.say.level != levelVerbose {
			s.log = append(s.log, n.say.String())
		}
		return true
	})
	s.w.runs("one")
	t.Cleanup(s.w.stop)
	synctest.Wait()
	s.log = nil
	s.start = time.Now()
	return s
}

// at lets time pass until then, changes the file, and sends events.
func (s *scene) at(then time.Duration, change func(), ops ...fsnotify.Op) {
	time.Sleep(then - time.Since(s.start))
	s.Lock()
	if change != nil {
		change()
	}
	s.Unlock()
	name := "/srv/app"
	if s.linked {
		name = "/srv/link"
	}
	for _, op := range ops {
		s.events <- fsnotify.Event{Name: name, Op: op}
	}
}

func TestSettle(t *testing.T) {
	const created, written, changed, removed = fsnotify.Create, fsnotify.Write, fsnotify.Chmod, fsnotify.Remove
	tests := []struct {
		name       string
		play       func(s *scene)
		want       string
		from, most time.Duration // when the last trigger comes; 0: not looked at
	}{
		{"rename", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
		}, "one→two", 0, 15 * msec},
		{"rename without the kernel's word", func(s *scene) {
			s.at(0, func() { s.put("two"); s.word = wordNone }, created)
		}, "one→two", 100 * msec, 110 * msec},
		{"copy of a large file: silent for three seconds, and closed without an event", func(s *scene) {
			s.at(0, func() { s.write("torn"); s.sig.size, s.word = 0, wordBusy }, written)
			for i := range 30 {
				s.at(time.Duration(i)*100*msec, func() { s.sig.size += 10; s.write("torn") })
			}
			s.at(3000*msec, func() { s.write("two") }, written)
			s.at(3400*msec, func() { s.word = wordFree })
		}, `waiting for "app": still being written; one→two`, 3400 * msec, 3550 * msec},
		{"writer that stalls 150ms", func(s *scene) {
			for i := range 16 {
				s.at(time.Duration(i)*150*msec, func() { s.write("torn"); s.word = wordBusy }, written)
			}
			s.at(2300*msec, func() { s.write("two") }, written)
			s.at(2350*msec, func() { s.word = wordFree })
		}, `waiting for "app": still being written; one→two`, 2400 * msec, 2550 * msec},
		{"writer that stalls 700ms", func(s *scene) {
			s.at(0, func() { s.write("torn"); s.word = wordBusy }, written)
			s.at(700*msec, func() { s.write("torn") }, written)
			s.at(1400*msec, func() { s.write("two"); s.word = wordFree }, written)
		}, "one→two", 1500 * msec, 1550 * msec},
		{"opened again for each chunk, chmod last", func(s *scene) {
			s.at(0, func() { s.put("torn"); s.sig.mtime = s.sig.ctime; s.chmod(0o644) }, created, written)
			for i := range 8 {
				s.at(time.Duration(i+1)*400*msec, func() { s.write("torn") }, written)
			}
			s.at(3300*msec, func() { s.content = "two"; s.chmod(0o755) }, changed)
		}, `waiting for "app" to become executable; one→two`, 3300 * msec, 3410 * msec},
		{"opened again for each chunk, executable all the time", func(s *scene) {
			s.at(0, func() { s.put("torn"); s.sig.mtime = s.sig.ctime; s.header = headerBroken }, created, written)
			for i := range 8 {
				s.at(time.Duration(i+1)*400*msec, func() { s.write("torn") }, written)
			}
			s.at(3300*msec, func() { s.write("two"); s.header = headerWhole }, written)
		}, `waiting for "app": a part of it is missing; one→two`, 3400 * msec, 3500 * msec},
		{"opened again for each chunk, and the first looks complete", func(s *scene) {
			s.at(0, func() { s.put("torn"); s.sig.mtime = s.sig.ctime }, created)
			s.at(50*msec, func() { s.write("two") }, written)
		}, "one→two", 150 * msec, 160 * msec},
		{"linked through mmap: no event for the stores", func(s *scene) {
			s.at(0, func() { s.put("torn"); s.sig.size, s.word = 0, wordBusy }, removed, created)
			s.at(500*msec, func() { s.write("torn"); s.sig.size = 900 }, written, written)
			s.at(580*msec, func() { s.content = "torn more" })
			s.at(660*msec, func() { s.content, s.word = "two", wordFree })
		}, "one→two", 660 * msec, 770 * msec},
		{"renamed before it is closed (lld)", func(s *scene) {
			s.at(0, func() { s.put("two"); s.word = wordBusy }, removed, created)
			s.at(9*msec, func() { s.word = wordFree })
		}, "one→two", 9 * msec, 110 * msec},
		{"renamed before it is closed, late", func(s *scene) {
			s.at(0, func() { s.put("torn"); s.word = wordBusy }, created)
			s.at(300*msec, func() { s.write("two"); s.word = wordFree })
		}, "one→two", 300 * msec, 460 * msec},
		{"rsync --inplace: the size never changes", func(s *scene) {
			for i := range 33 {
				s.at(time.Duration(i)*20*msec, func() { s.write("torn"); s.word = wordBusy }, written)
			}
			s.at(660*msec, func() { s.write("two"); s.word = wordFree; s.chmod(0o755) }, written, changed)
		}, "one→two", 760 * msec, 800 * msec},
		{"unlink and create, same inode number, older mtime", func(s *scene) {
			s.at(0, func() { s.gone = true }, removed)
			s.at(2*msec, func() { s.put("torn"); s.sig.ino, s.sig.mtime, s.word = 7, 3, wordBusy }, created)
			s.at(10*msec, func() { s.content, s.word = "two", wordFree }, written)
		}, "one→two", 110 * msec, 150 * msec},
		{"same size, other bytes, mtime of the source", func(s *scene) {
			s.at(0, func() { s.write("two"); s.sig.mtime = 2 }, written, changed)
		}, "one→two", 100 * msec, 110 * msec},
		{"gcc: mode 0644 until after close", func(s *scene) {
			s.at(0, func() { s.gone = true }, removed)
			s.at(1*msec, func() { s.put("torn"); s.word = wordBusy; s.chmod(0o644) }, created)
			s.at(13*msec, func() { s.write("two"); s.word = wordFree }, written)
			s.at(19*msec, func() { s.chmod(0o755) }, changed)
		}, "one→two", 113 * msec, 130 * msec},
		{"gcc: the link fails and the file is gone", func(s *scene) {
			s.at(0, func() { s.gone = true }, removed)
			s.at(1*msec, func() { s.put("torn") }, created)
			s.at(3*msec, func() { s.gone = true }, removed)
			s.at(60*time.Second, func() { s.put("two") }, created)
		}, `"app" is gone; what serves since 4s ago goes on; one→two`, 60000 * msec, 60020 * msec},
		{"gone and back", func(s *scene) {
			s.at(0, func() { s.gone = true }, removed)
			s.at(10*time.Second, func() { s.gone = false }, created)
		}, `"app" is gone; what serves since 4s ago goes on; "app" is back`, 0, 0},
		{"touch", func(s *scene) {
			s.at(0, func() { s.write("one") }, changed)
		}, "", 0, 0},
		{"identical bytes", func(s *scene) {
			s.at(0, func() { s.put("one") }, created)
		}, "", 0, 0},
		{"chmod -x and +x", func(s *scene) {
			s.at(0, func() { s.chmod(0o644) }, changed)
			s.at(300*msec, func() { s.chmod(0o755) }, changed)
		}, "", 0, 0},
		{"1, 2, 1 in place", func(s *scene) {
			s.at(0, func() { s.write("two") }, written)
			s.at(40*msec, func() { s.write("one") }, written)
		}, "", 0, 0},
		{"1, 2, 1 by a symlink", func(s *scene) {
			s.linked = true
			old := s.sig
			s.at(0, func() { s.put("two") }, created)
			s.at(40*msec, func() { s.sig, s.content = old, "one" }, created)
		}, "", 0, 0},
		{"1, 2, 1 by a symlink, after a long wait", func(s *scene) {
			s.linked = true
			s.at(0, func() { s.chmod(0o644) }, changed)
			old := s.sig
			s.at(10*time.Second, func() { s.put("two"); s.chmod(0o755) }, created)
			s.at(10040*msec, func() { s.sig, s.content = old, "one"; s.chmod(0o755) }, created)
		}, `waiting for "app" to become executable`, 0, 0},
		{"1, 2, 1 by rename, at once", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(4*msec, func() { s.put("one") }, created)
		}, "", 0, 0},
		{"swapped symlink, told as a write", func(s *scene) {
			s.linked = true
			s.at(0, func() { s.put("two") }, written)
		}, "one→two", 100 * msec, 110 * msec},
		{"swapped to an empty release, filled later", func(s *scene) {
			s.linked = true
			s.at(0, func() { s.gone = true }, created)
			s.linked = false
			s.at(400*msec, func() { s.put("torn"); s.sig.mtime = s.sig.ctime; s.word = wordBusy }, created)
			s.at(410*msec, func() { s.write("two"); s.word = wordFree }, written)
		}, "one→two", 510 * msec, 550 * msec},
		{"two builds 250ms apart", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(250*msec, func() { s.put("three") }, created)
		}, "one→two; two→three", 250 * msec, 265 * msec},
		{"chatter cannot hide a build", func(s *scene) {
			s.at(0, func() { s.put("two"); s.word = wordNone }, created)
			for i := range 100 {
				s.at(time.Duration(i)*50*msec, func() { s.chmod(0o755) }, changed)
			}
		}, "one→two", 2000 * msec, 2110 * msec},
		{"but writing is no chatter", func(s *scene) {
			for i := range 100 {
				s.at(time.Duration(i)*50*msec, func() { s.write("torn") }, written)
			}
			s.at(5000*msec, func() { s.write("two") }, written)
		}, "one→two", 5100 * msec, 5110 * msec},
		{"a foreign format is believed after a while", func(s *scene) {
			s.at(0, func() { s.put("two"); s.header = headerOdd }, created)
		}, `waiting for "app": it begins with neither an ELF header nor #!; one→two`, 5000 * msec, 5110 * msec},
		{"what is cut short never is", func(s *scene) {
			s.at(0, func() { s.put("torn"); s.header = headerBroken }, created)
			s.at(30*time.Second, func() { s.put("two"); s.header = headerWhole }, created)
		}, `waiting for "app": a part of it is missing; one→two`, 30000 * msec, 30110 * msec},
		{"chmod of what could not be executed", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(50*msec, func() { s.w.runs("two"); s.w.cannotRun() })
			s.at(300*msec, func() { s.chmod(0o755) }, changed)
		}, "one→two; one→two", 400 * msec, 410 * msec},
		{"but no look without a change, and not once another runs", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(50*msec, func() { s.w.runs("two"); s.w.cannotRun() })
			s.at(60*msec, func() { s.w.look() })
			s.at(70*msec, func() { s.w.runs("two") })
			s.at(300*msec, func() { s.chmod(0o755) }, changed)
		}, "one→two", 0, 0},
		{"a copy that was killed, then made anew", func(s *scene) {
			s.at(0, func() { s.write("torn"); s.header, s.word = headerBroken, wordBusy }, written)
			s.at(7*time.Second, func() { s.write("torn") }, written)
			s.at(7100*msec, func() { s.word = wordFree })
			s.at(11*time.Second, func() { s.put("two"); s.header = headerWhole }, created)
		}, `waiting for "app": still being written; one→two`, 11000 * msec, 11110 * msec},
		{"a start that came too early", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(50*msec, func() { s.w.runs("two"); s.w.runs("") })
			s.at(100*msec, func() { s.w.look() })
		}, "one→two; one→two", 100 * msec, 120 * msec},
		{"a rollback is not undone by a touch", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(50*msec, func() { s.w.runs("two") })
			s.at(60*msec, func() { s.w.runs("one") })
			s.at(70*msec, func() { s.w.look() })
			s.at(300*msec, func() { s.write("two") }, changed)
		}, "one→two", 0, 0},
		{"back again before the candidate starts", func(s *scene) {
			s.at(0, func() { s.put("two") }, created)
			s.at(200*msec, func() { s.put("one") }, created)
		}, "one→two; two→one", 0, 0},
		{"a build that nobody told of", func(s *scene) { // HUP right after the rename
			s.at(0, func() { s.put("two") }, created)
			s.at(1*msec, func() { s.w.runs("two") })
		}, "", 0, 0},
		{"overflow", func(s *scene) {
			s.at(0, func() { s.put("two") }, changed)
			s.at(300*msec, func() { s.put("three") })
			s.errors <- fsnotify.ErrEventOverflow
		}, "one→two; two→three", 300 * msec, 420 * msec},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				s := newScene(t)
				s.at(2*time.Second, nil)
				s.start = time.Now()
				tt.play(s)
				time.Sleep(time.Minute)
				synctest.Wait()
				s.Lock()
				defer s.Unlock()
				if got := strings.Join(s.log, "; "); got != tt.want {
					t.Errorf("got %q at %v, want %q", got, s.times, tt.want)
				} else if last := append([]time.Duration{0}, s.times...)[len(s.times)]; tt.most > 0 && (last < tt.from || last > tt.most) {
					t.Errorf("told after %v, want %v to %v", last, tt.from, tt.most)
				}
				if at := s.w.deadline(); !at.IsZero() {
					t.Errorf("a timer is left, %v after the end", time.Since(at))
				}
			})
		})
	}
}
