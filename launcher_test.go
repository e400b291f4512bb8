package main

import (
	"os"
	"path/filepath"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestAdvise(t *testing.T) {
	dir := t.TempDir()
	for name, text := range map[string]string{
		"package.json":                  `{"scripts": {"start": "node server.js -p 1", "dev": "vite --host", "all": "A=1 node x.js & wait"}}`,
		"node_modules/.bin/vite":        "",
		"other/server.js":               "",
		"other/package.json":            "{}",
		"other/node_modules/.bin/serve": "",
	} {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(file, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for line, want := range map[string]string{
		"./app": "", "node server.js": "", "env A=1 ./app": "", "python3 -m x": "", "go": inGeneral,
		"sh|-c|app -x":                     `sh: write sh -c 'exec app -x'`,
		"env|A=1|/bin/sh|-c|app":           `sh: write /bin/sh -c 'exec app'`,
		"bash|-lc|cd x && app":             `bash: write bash -lc 'cd x && exec app'`,
		"sh|-c|cd x && exec app":           `sh: write sh -c 'cd x && exec app'`,
		"sh|-c|echo it''s on && app 'a b'": `sh: write sh -c 'echo it'\'''\''s on && exec app '\''a b'\'''`,
		"sh|-c|app; true":                  "sh: " + inGeneral + " in its text",
		"sh|-c|A=1 app":                    "sh: " + inGeneral + " in its text",
		"sh|-c|app >log":                   "sh: " + inGeneral + " in its text",
		"sh|-c":                            "sh: " + inGeneral + " in the script",
		"sh|-c|":                           "sh: " + inGeneral + " in its text",
		"sh|start.sh":                      "sh: " + inGeneral + " in the script",
		"npm|start":                        "npm, closes: write node server.js -p 1",
		"npm|--silent|start|--|-v":         "npm, closes: write node server.js -p 1 -v",
		"npm|run|dev":                      "npm, closes: write ./node_modules/.bin/vite --host",
		"yarn|dev|--port|80":               "yarn, closes: write ./node_modules/.bin/vite --host --port 80",
		"pnpm|run|all":                     "pnpm, closes: write what scripts.all of package.json runs, 'A=1 node x.js & wait', as sh -c with exec before the program",
		"npm|run|none":                     "npm, closes: start what it runs without it",
		"npm":                              "npm, closes: start what it runs without it",
		"npx|vite|--host|0.0.0.0":          "npx, closes: write ./node_modules/.bin/vite --host 0.0.0.0",
		"npm|exec|vite":                    "npm, closes: write ./node_modules/.bin/vite",
		"npx|none":                         "npx, closes: start what it runs without it",
		"go|run|.":                         "go: write --build 'go build -o app .' -w -- ./app",
		"go|run|-race|-tags|x|./cmd/a|-v":  "go: write --build 'go build -o app -race -tags x ./cmd/a' -w -- ./app -v",
		"go|run|a.go|b.go|c":               "go: write --build 'go build -o app a.go b.go' -w -- ./app c",
		"go|run|-race":                     "go: " + inGeneral,
		"go|run|-tags":                     "go: " + inGeneral,
		"go|run|-C|srv|.":                  "go: " + inGeneral,
		"go|run|-exec|sudo|.":              "go: " + inGeneral,
		"go|run|-exec=sudo|.":              "go: " + inGeneral,
		"go|run|-gcflags|all=-N|.|-x":      "go: write --build 'go build -o app -gcflags all=-N .' -w -- ./app -x",
		"bash|--norc|-c|app":               "bash: write bash --norc -c 'exec app'",
		"sh|-c|app 'a && b'":               "sh: " + inGeneral + " in its text",
		"sh|-c|! app":                      "sh: " + inGeneral + " in its text",
		"sudo|-u|web|app":                  "sudo, closes: leave it out: hotwrap --user USER does it",
		"su|web|-c|app":                    "su: leave it out: hotwrap --user USER does it",
		"flock|f|app":                      "flock, locks: leave it out: a successor overlaps its predecessor, and would wait for the lock",
		"/usr/bin/timeout|9|app":           "timeout: leave it out, or write hotwrap exec -- behind it",
		"tini|--|app":                      "tini: leave it out: hotwrap does what it is for",
	} {
		words := strings.Split(line, "|")
		if !strings.Contains(line, "|") && strings.Contains(line, " ") {
			words = strings.Fields(line)
		}
		if line == "go" {
			want = "go: " + want
		}
		a := advise(words, dir)
		got := a.launcher
		if a.closes {
			got += ", closes"
		}
		if a.locks {
			got += ", locks"
		}
		if got != "" {
			got += ": " + a.remedy
		}
		if got != want {
			t.Errorf("advise(%q) = %q, want %q", words, got, want)
		}
	}
	if got, want := advise([]string{"npm", "start"}, filepath.Join(dir, "other")).remedy, "write node server.js"; got != want {
		t.Errorf("npm's own default: %q, want %q", got, want)
	}
}

// behind lets the newest worker of a world be a launcher, with a server of its own.
func (f *fakeWorld) behind(pid int) {
	f.procs = append(f.procs, &fakeProcess{pid: pid, serial: f.s.Serials, number: f.s.Numbers})
	f.newest().Server = pid
	f.s.world.owns = func(_ *worker, n notice) bool { p := f.proc(n.pid); return p != nil && !p.dead }
}

func TestServerBehindLauncher(t *testing.T) {
	f := started(t, defaultLimits())
	f.behind(7)
	launcher := f.proc(f.newest().PID)
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	if f.proc(7).stopped == 0 || launcher.stopped != 0 {
		t.Fatalf("told to stop: server %v, launcher %v", f.proc(7).stopped, launcher.stopped)
	}
	f.advance(time.Second)
	f.looked(sight{holds: true})
	f.advance(time.Minute / 4)
	if launcher.stopped != 0 {
		t.Error("the launcher was told though its server is still there")
	}
	f.proc(7).dead = true
	f.looked(sight{holds: true})
	f.advance(goadAfter / 2)
	if launcher.stopped != 0 {
		t.Error("the launcher was told before it could end by itself")
	}
	f.advance(goadAfter / 2)
	if launcher.stopped == 0 {
		t.Error("a launcher that does not end was not told to")
	}
	f.obey()
	if !f.s.done() {
		t.Error("it goes on")
	}
}

func TestLauncherDiesBeforeServer(t *testing.T) {
	f := started(t, defaultLimits())
	f.behind(7)
	launcher := f.proc(f.newest().PID)
	var group []syscall.Signal
	f.s.world.kill = func(_ int, sig syscall.Signal) { group = append(group, sig) }
	f.ask(askStop, "SIGTERM")
	f.surveyed()
	launcher.lingers = true
	f.die(launcher, exitStatus{Signal: syscall.SIGKILL})
	f.step(event{kind: evChild})
	if len(group) != 0 {
		t.Errorf("a server that was told already got %v", group)
	}
	f.proc(7).dead = true
	f.step(event{kind: evChild})
	if len(group) != 2 || group[0] != syscall.SIGTERM {
		t.Errorf("what the server left behind got %v", group)
	}
	launcher.lingers = false
	f.step(event{kind: evChild})
	if !f.s.done() {
		t.Error("it goes on")
	}
}

func TestStrays(t *testing.T) {
	for name, found := range map[string]bool{"found": true, "not found in time": false} {
		t.Run(name, func(t *testing.T) {
			f := started(t, defaultLimits())
			w := f.newest()
			f.s.world.search = func(*generation, *worker, map[int]bool) bool { return true }
			f.ask(askStop, "SIGTERM")
			f.surveyed()
			f.die(f.proc(w.PID), exitStatus{})
			f.step(event{kind: evChild})
			if f.s.done() {
				t.Fatal("it did not wait for what the worker left behind")
			}
			if !found {
				f.advance(searchLimit)
				if !f.s.done() {
					t.Error("it waits for ever")
				}
				return
			}
			stray := &fakeProcess{pid: 9, number: 1}
			f.procs = append(f.procs, stray)
			var got []syscall.Signal
			f.s.world.kill = func(group int, sig syscall.Signal) {
				if group == 9 {
					got = append(got, sig)
				}
			}
			f.step(event{kind: evStrays, serial: w.Serial, groups: []int{9}})
			if len(got) != 2 || got[0] != syscall.SIGTERM {
				t.Errorf("the stray got %v", got)
			}
			f.advance(30 * time.Second)
			f.surveyed()
			if len(got) != 3 || got[2] != syscall.SIGKILL {
				t.Errorf("at the limit the stray got %v", got)
			}
			stray.dead = true
			f.step(event{kind: evChild})
			if !f.s.done() {
				t.Error("it goes on")
			}
		})
	}
}

func TestElsewhere(t *testing.T) {
	l := defaultLimits()
	l.addresses = []string{":80"}
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.prepared(nil)
	f.exec()
	f.tell()
	for range 100 {
		f.advance(lookLongest)
		f.looked(sight{others: []string{"[::]:81", "127.0.0.1:9"}})
	}
	f.wantSaid("generation 1 is not ready: it listens on *:81, 127.0.0.1:9, not on :80")
	f.advance(time.Minute)
	f.wantSaid("generation 1 failed: not ready after 1m5s; it listens on *:81, 127.0.0.1:9, not on :80",
		"a program must accept on the descriptor it is given: LISTEN_FDS, or {fd} among its arguments")
}

// TestStrayReaped: what a search found may have ended, and been reaped, before the supervisor hears of it.
func TestStrayReaped(t *testing.T) {
	f := several(t, 1, 0)
	w := f.s.serving().Workers[0]
	f.launched(true)
	stray := f.strayOf(w.Group)
	f.die(f.proc(w.Group), exitStatus{Code: 1})
	f.step(event{kind: evChild})
	f.die(stray, exitStatus{})
	f.step(event{kind: evChild})
	f.searching = nil
	f.step(event{kind: evStrays, serial: w.Serial, groups: []int{stray.pid}})
	if _, again := f.s.worker(w.Serial); again != nil {
		f.fatalf("its worker is still there")
	}
}

// TestStrayLeavesLate: what leaves the group of a launcher after that has ended is found too, and hotwrap waits for it.
func TestStrayLeavesLate(t *testing.T) {
	f := several(t, 1, 0)
	w := f.s.serving().Workers[0]
	f.s.limits.respawn = respawnNever
	f.launched(false)
	f.die(f.proc(w.Group), exitStatus{})
	f.step(event{kind: evChild})
	f.proc(w.Group).strays = true // setsid -f
	f.step(event{kind: evTime})
	if f.s.done() || len(f.searching) != 1 {
		f.fatalf("done %v, %d searches", f.s.done(), len(f.searching))
	}
	f.searched()
	f.obey()
	if !f.s.done() {
		f.fatalf("hotwrap does not end")
	}
}

// TestAdviceOnWhich: of several workers the advice is on one that was seen to watch nothing, not on the first.
func TestAdviceOnWhich(t *testing.T) {
	l := defaultLimits()
	l.workers = 2
	f := newFakeWorld(t, l, func() instant { return instant(time.Hour) })
	f.s.start()
	f.prepared(nil)
	f.step(event{kind: evExec, serial: 1})
	f.exec()
	f.step(event{kind: evLook, serial: 1, sight: sight{watched: l.listeners}})
	f.exit(exitStatus{Code: 1})
	f.wantSaid("worker 1: exited 1", "if it found its address in use")
}

// TestBlockingHint: a blocking listener in an epoll is spoken of once, and only if somebody else may take the connection.
func TestBlockingHint(t *testing.T) {
	polled := sight{polled: []string{"web"}, poller: "nginx"}
	for name, c := range map[string]struct {
		change       func(*sight)
		workers, say int
		restart      bool
	}{
		"alone":             {workers: 1},
		"rivals":            {workers: 1, say: 1, change: func(s *sight) { s.rivals = true }},
		"workers":           {workers: 2, say: 1},
		"accept, no epoll":  {workers: 2, change: func(s *sight) { s.polled = nil }},
		"shared, the first": {workers: 1, change: func(s *sight) { s.shared = true }},
		"shared":            {workers: 1, say: 1, restart: true, change: func(s *sight) { s.shared = true }},
		"steered":           {workers: 1, restart: true},
	} {
		l := defaultLimits()
		l.listeners = []string{"web"}
		f := started(t, l)
		g := f.s.serving()
		for range c.workers - 1 {
			g.Slots = append(g.Slots, slot{})
		}
		if c.restart {
			g.Number++
		}
		see := polled
		if c.change != nil {
			c.change(&see)
		}
		f.s.hints(g, see)
		f.s.hints(g, see)
		said := 0
		for _, m := range f.said {
			if m.level == levelHint && strings.HasPrefix(m.String(), `"nginx" polls listener "web", which is blocking: `) {
				said++
			}
		}
		if said != c.say {
			t.Errorf("%s: said %d times, want %d", name, said, c.say)
		}
	}
}
