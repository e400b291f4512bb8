package main

import (
	"fmt"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"github.com/fsnotify/fsnotify"
)

// beginPaths watches paths below a fresh directory that prepare fills.
func beginPaths(t *testing.T, prepare func(dir string), paths ...string) *lookout {
	t.Helper()
	h := beginWatch(t, func(cfg *watchConfig) {
		prepare(cfg.dir)
		cfg.paths = paths
		cfg.ignore = []string{"*.log", "views/static/"}
	}, nil)
	h.hears("watching ")
	return h
}

func (h *lookout) wantsWhat(what string) trigger {
	h.t.Helper()
	g := h.next()
	if g.what != what || g.program {
		h.t.Fatalf("told %+v, want %q", g, what)
	}
	return g
}

func TestWatchTree(t *testing.T) {
	h := beginPaths(t, func(dir string) {
		write(t, dir+"/views/a.html", []byte("a"))
		write(t, dir+"/views/part/b.html", []byte("b"))
		write(t, dir+"/views/static/c.css", []byte("c"))
	}, "views")
	v := h.dir + "/views"
	write(t, v+"/a.html", []byte("A"))
	if g := h.wantsWhat("a.html"); g.path != v+"/a.html" || g.to != hashOf(t, []byte("A")) || g.from != hashOf(t, []byte("a")) || g.size != 1 {
		t.Errorf("told %+v", g)
	}
	write(t, v+"/new/deep/d.html", []byte("d")) // a new directory
	h.wantsWhat("new/deep/d.html")
	write(t, v+"/new/deep/d.html", []byte("D")) // is watched
	h.wantsWhat("new/deep/d.html")
	placeFile(t, v+"/part/b.html", []byte("B"))
	write(t, v+"/a.html", []byte("2"))
	h.wantsWhat("2 files")
	for _, name := range []string{"x.log", ".a.html.swp", "a.html~", "static/c.css", ".git/index", ".cache/y"} { // no news
		write(t, v+"/"+name, []byte("noise"))
	}
	must(t, os.Chtimes(v+"/a.html", time.Now(), time.Now()))
	stall(300 * time.Millisecond)
	must(t, os.RemoveAll(v+"/new"))
	h.wantsWhat("new/deep/d.html")
	must(t, os.Rename(v+"/part", v+"/moved"))
	h.wantsWhat("2 files")
}

func TestWatchTreeSwapped(t *testing.T) {
	h := beginPaths(t, func(dir string) {
		write(t, dir+"/1/a.html", []byte("a"))
		must(t, os.Symlink("1", dir+"/views"))
	}, "views")
	write(t, h.dir+"/2/a.html", []byte("A"))
	must(t, os.Symlink("2", h.dir+"/views.new"))
	must(t, os.Rename(h.dir+"/views.new", h.dir+"/views"))
	h.wantsWhat("a.html")
	must(t, os.RemoveAll(h.dir+"/2"))
	h.hears("is gone")
	write(t, h.dir+"/2/a.html", []byte("3"))
	h.wantsWhat("a.html")
}

// A Kubernetes volume changes by a symlink in the middle of the way to each file.
func TestWatchTreeVolume(t *testing.T) {
	h := beginPaths(t, func(dir string) {
		write(t, dir+"/etc/..2024_01/tls.crt", []byte("a"))
		must(t, os.Symlink("..2024_01", dir+"/etc/..data"))
		must(t, os.Symlink("..data/tls.crt", dir+"/etc/tls.crt"))
	}, "etc")
	etc := h.dir + "/etc"
	for i, content := range []string{"b", "c"} {
		release := fmt.Sprintf("..2024_1%d", i)
		write(t, filepath.Join(etc, release, "tls.crt"), []byte(content))
		must(t, os.Symlink(release, etc+"/..data_tmp"))
		must(t, os.Rename(etc+"/..data_tmp", etc+"/..data"))
		if g := h.wantsWhat("tls.crt"); g.to != hashOf(t, []byte(content)) {
			t.Errorf("told %+v", g)
		}
	}
}

// A file may lie elsewhere.
func TestWatchTreeLink(t *testing.T) {
	h := beginPaths(t, func(dir string) {
		write(t, dir+"/shared/a.html", []byte("a"))
		must(t, os.MkdirAll(dir+"/views", 0o755))
		must(t, os.Symlink("../shared/a.html", dir+"/views/a.html"))
	}, "views")
	placeFile(t, h.dir+"/shared/a.html", []byte("b"))
	h.wantsWhat("a.html")
}

func TestWatchFile(t *testing.T) {
	h := beginPaths(t, func(dir string) { write(t, dir+"/tls.crt", []byte("a")) }, "tls.crt")
	placeFile(t, h.dir+"/tls.crt", []byte("b"))
	h.wantsWhat("tls.crt")
	must(t, os.Remove(h.dir+"/tls.crt"))
	h.hears("is gone")
	write(t, h.dir+"/tls.crt", []byte("c"))
	h.wantsWhat("tls.crt")
}

func TestWatchGlob(t *testing.T) {
	h := beginPaths(t, func(dir string) {
		write(t, dir+"/conf/a.yml", []byte("a"))
		write(t, dir+"/conf/deep/b.yml", []byte("b"))
	}, "conf/**/*.yml")
	write(t, h.dir+"/conf/other.txt", []byte("noise"))
	write(t, h.dir+"/conf/deep/b.yml", []byte("B"))
	h.wantsWhat("deep/b.yml")
	write(t, h.dir+"/conf/new/c.yml", []byte("c"))
	h.wantsWhat("new/c.yml")
}

func TestWatchMissing(t *testing.T) {
	for _, name := range []string{"etc/app.conf", "etc/*.conf"} {
		h := beginWatch(t, func(cfg *watchConfig) { cfg.paths = []string{name} }, nil)
		h.hears(name)
		write(t, h.dir+"/etc/app.conf", []byte("a"))
		h.wantsWhat("app.conf")
		write(t, h.dir+"/etc/app.conf", []byte("b"))
		h.wantsWhat("app.conf")
	}
}

func TestWatchManyFiles(t *testing.T) {
	dir := t.TempDir()
	for i := range 10_000 {
		write(t, fmt.Sprintf("%s/src/%d/%d.go", dir, i%100, i), []byte(fmt.Sprint("package p", i)))
	}
	began := time.Now()
	h := beginWatch(t, func(cfg *watchConfig) { cfg.dir, cfg.paths = dir, []string{"src"} }, nil)
	if took := time.Since(began); took > 5*time.Second { // a fraction of a second without the race detector
		t.Errorf("it took %v to start", took)
	}
	t.Logf("started in %v", time.Since(began))
	h.hears("watching 10000 files")
	write(t, dir+"/src/7/7.go", []byte("package q"))
	h.wantsWhat("7/7.go")
}

func TestIgnore(t *testing.T) {
	tests := []struct {
		rules string // lines of /src/.gitignore
		path  string // below /src; a directory ends in a slash
		want  bool
	}{
		{"*.o", "a.o", true},
		{"*.o", "deep/a.o", true},
		{"*.o", "a.c", false},
		{"/a.o", "a.o", true},
		{"/a.o", "deep/a.o", false},
		{"doc/*.txt", "doc/a.txt", true},
		{"doc/*.txt", "doc/deep/a.txt", false},
		{"doc/*.txt", "deep/doc/a.txt", false},
		{"bin/", "bin/", true},
		{"bin/", "bin", false},
		{"bin/", "deep/bin/", true},
		{"/bin/", "deep/bin/", false},
		{"*.log !keep.log", "a.log", true},
		{"*.log !keep.log", "keep.log", false},
		{"!keep.log *.log", "keep.log", true},
		{"**/foo", "foo", true},
		{"**/foo", "a/b/foo", true},
		{"a/**/b", "a/b", true},
		{"a/**/b", "a/x/y/b", true},
		{"a/**", "a/x", true},
		{"a/**", "a/", false},
		{"#a", "#a", false},
		{`\#a`, "#a", true},
		{`\!a`, "!a", true},
		{"[ab].c", "a.c", true},
		{"[!ab].c", "a.c", false},
		{"[!ab].c", "c.c", true},
		{"a?c", "abc", true},
		{"{a,b}", "a", false},
		{"{a,b}", "{a,b}", true},
		{"*", "a", true},
		{"/* !/keep", "a", true},
		{"/* !/keep", "keep", false},
		{"[", "[", false},
	}
	for _, tt := range tests {
		var rules []ignoreRule
		for line := range strings.FieldsSeq(tt.rules) {
			if r, ok := parseIgnore("/src", line); ok {
				rules = append(rules, r)
			}
		}
		file, dir := strings.CutSuffix(tt.path, "/")
		if got := ignored(rules, "/src/"+file, dir); got != tt.want {
			t.Errorf("%q, %q: got %v", tt.rules, tt.path, got)
		}
	}
}

// What -i says is below the tree or the program's directory; a path that lies there as it stands is meant so.
func TestIgnoreOption(t *testing.T) {
	base := t.TempDir()
	must(t, os.Symlink(base, base+"/alias"))
	const all = "cache/a lib/cache/b lib/x x"
	for line, want := range map[string]string{
		"none":                           all,
		"/":                              all,
		"cache":                          "lib/x x",
		"/cache":                         "lib/cache/b lib/x x",
		"./cache":                        "lib/cache/b lib/x x",
		"/tree/cache":                    "lib/cache/b lib/x x", // below the program's directory
		"tree/cache":                     "lib/cache/b lib/x x",
		"/lib/cache/":                    "cache/a lib/x x",
		base + "/tree/cache":             "lib/cache/b lib/x x",
		base + "/alias/tree/lib/*":       "cache/a x",
		base + "/cache":                  all, // another's
		base + "/tree/x":                 "cache/a lib/cache/b lib/x",
		"x !/lib/x":                      "cache/a lib/cache/b lib/x",
		"x !" + base + "/alias/tree/x":   "cache/a lib/cache/b x",
		"/home/someone/tree/cache":       all,
		filepath.Dir(base) + "/*/tree/x": all,
	} {
		for _, name := range strings.Fields(all) {
			write(t, base+"/tree/"+name, nil)
		}
		w := newWatcher(watchConfig{
			program: []string{"./app"}, dir: base + "/alias", paths: []string{"tree"}, ignore: strings.Fields(line),
			find: func() (string, error) { return base + "/app", nil },
		}, realDisk())
		w.choose()
		if got := targetsOf(w); got != want {
			t.Errorf("-i %q: got %q, want %q", line, got, want)
		}
	}
}

// asGit compares what is watched with what git sees.
func asGit(t *testing.T, dir, src string) {
	t.Helper()
	cmd := exec.Command("git", "ls-files", "-z", "--others", "--exclude-standard")
	cmd.Dir = filepath.Join(dir, src)
	out, err := cmd.Output()
	must(t, err)
	want := strings.Split(strings.TrimSuffix(string(out), "\x00"), "\x00")
	slices.Sort(want)
	w := newWatcher(watchConfig{
		program: []string{"./app"}, dir: dir, src: src, build: true, find: func() (string, error) { return dir + "/app", nil },
	}, realDisk())
	w.choose()
	if got := slices.Sorted(maps.Keys(w.sources.leaves)); !slices.Equal(got, want) {
		t.Errorf("%s: got %q, want %q", src, got, want)
	}
}

// gitHome is a repository, and a home for git and for hotwrap.
func gitHome(t *testing.T) (dir, home string) {
	t.Helper()
	if _, err := exec.LookPath("git"); err != nil {
		t.Skip("no git")
	}
	home, dir = t.TempDir(), t.TempDir()
	t.Setenv("HOME", home)
	t.Setenv("XDG_CONFIG_HOME", "")
	t.Setenv("GIT_CONFIG_NOSYSTEM", "1")
	must(t, exec.Command("git", "init", "-q", dir).Run())
	return dir, home
}

// The sources are what git would see as such.
func TestSourcesAsGit(t *testing.T) {
	dir, _ := gitHome(t)
	for name, content := range map[string]string{
		"main.go": "", "app": "", "a.log": "", "keep.log": "", "sub/b.log": "", "sub/c.go": "", "sub/gen/x.go": "", "sub/deep/gen/y.go": "",
		"target/z": "", "target/keep": "", ".env": "", ".cargo/config.toml": "", "local/secret": "", "sub/trailing ": "", "sub/sp": "",
		".gitignore":     "/app\n*.log\n!keep.log\n# comment\n\n/target/*\n!/target/keep\n",
		"sub/.gitignore": "/gen/\n!b.log\nsp  \n",
	} {
		write(t, filepath.Join(dir, name), []byte(content))
	}
	write(t, dir+"/.git/info/exclude", []byte("local/\n"))
	asGit(t, dir, ".")
	asGit(t, dir, "sub")
}

// What the user's own configuration of git ignores is no source either; the repository's word counts more.
func TestSourcesAsGitUser(t *testing.T) {
	dir, home := gitHome(t)
	for _, name := range []string{"main.go", "app", "a.own", "keep.own", "a.xdg", "a.set", "a.here", "a.repo", "sub/a.own", "sub/a.here"} {
		write(t, filepath.Join(dir, name), []byte("x"))
	}
	write(t, dir+"/.gitignore", []byte("/app\n!keep.own\n"))
	write(t, dir+"/.git/info/exclude", []byte("/a.here\n"))
	write(t, home+"/.config/git/ignore", []byte("*.own\n"))
	asGit(t, dir, ".")
	t.Setenv("XDG_CONFIG_HOME", home+"/xdg")
	asGit(t, dir, ".")
	write(t, home+"/xdg/git/ignore", []byte("*.xdg\n"))
	asGit(t, dir, ".")
	write(t, home+"/xdg/git/config", []byte("[core]\n\texcludesfile = "+home+"/xdg/git/set # a comment\n"))
	write(t, home+"/xdg/git/set", []byte("*.set\n"))
	asGit(t, dir, ".")
	write(t, home+"/.gitconfig", []byte("[core \"x\"]\nexcludesFile=/no\n[Core] ExcludesFile = \"~/my own;#\" ; so\n[user]\nexcludesFile=/no\n"))
	write(t, home+"/my own;#", []byte("*.own\n"))
	asGit(t, dir, "sub")
	must(t, exec.Command("git", "-C", dir, "config", "core.excludesFile", home+"/repo").Run())
	write(t, home+"/repo", []byte("a.repo\n"))
	asGit(t, dir, ".")
}

// A worktree has a file where the repository is, and shares what that excludes; a submodule has its own.
func TestSourcesAsGitElsewhere(t *testing.T) {
	dir, _ := gitHome(t)
	git := func(args ...string) {
		t.Helper()
		cmd := exec.Command("git", append([]string{"-C", dir, "-c", "user.name=a", "-c", "user.email=a@b"}, args...)...)
		if out, err := cmd.CombinedOutput(); err != nil {
			t.Fatalf("%v: %v\n%s", args, err, out)
		}
	}
	git("commit", "-q", "--allow-empty", "-m", "first")
	git("worktree", "add", "-q", dir+"/tree")
	write(t, dir+"/.git/info/exclude", []byte("*.log\napp\n"))
	for _, name := range []string{"tree/a.log", "tree/app", "tree/sub/b.log", "tree/sub/main.go"} {
		write(t, filepath.Join(dir, name), []byte("x"))
	}
	asGit(t, dir+"/tree", ".")
	asGit(t, dir+"/tree", "sub")
	must(t, exec.Command("git", "init", "-q", "--separate-git-dir="+dir+"/elsewhere", dir+"/module").Run())
	write(t, dir+"/elsewhere/info/exclude", []byte("*.tmp\napp\n"))
	for _, name := range []string{"a.log", "app", "b.tmp"} {
		write(t, filepath.Join(dir, "module", name), []byte("x"))
	}
	asGit(t, dir+"/module", ".")
}

// workshop is a source tree under --build, on a fake clock but with real files; builds are played.
type workshop struct {
	t      *testing.T
	dir    string
	w      *watcher
	events chan fsnotify.Event
	told   chan trigger
	build  func(s *workshop, n int) // what the nth build writes before it ends
	took   time.Duration
	builds int
	ended  int // builds that were not cancelled
	seen   map[string]string
}

func newWorkshop(t *testing.T, dir string, build func(s *workshop, n int)) *workshop {
	s := &workshop{
		t: t, dir: dir, events: make(chan fsnotify.Event, 100), told: make(chan trigger), build: build, took: time.Second,
		seen: map[string]string{},
	}
	for name, text := range map[string]string{"main.go": "1", "gen.go": "1", "lib.go": "1", "README.md": "1"} {
		s.write(name, text)
	}
	for len(s.events) > 0 {
		<-s.events
	}
	s.w = newWatcher(watchConfig{
		program: []string{"./app"}, dir: dir, build: true, debounce: 100 * time.Millisecond,
		find: func() (string, error) { return dir + "/app", nil },
	}, realDisk())
	s.w.disk.add = func(string) error { return nil }
	s.w.disk.remove = s.w.disk.add
	s.w.events = s.events
	s.w.choose()
	s.w.arm(time.Now())
	go s.w.run(func(n watchNews) bool {
		if n.trigger != nil && n.trigger.sources {
			s.told <- *n.trigger
		}
		return true
	})
	return s
}

func (s *workshop) write(name, text string) {
	file := filepath.Join(s.dir, name)
	_, err := os.Lstat(file)
	write(s.t, file, []byte(text))
	op := fsnotify.Write
	if err != nil {
		op = fsnotify.Create
	}
	s.events <- fsnotify.Event{Name: file, Op: op}
}

func (s *workshop) remove(name string) {
	must(s.t, os.Remove(filepath.Join(s.dir, name)))
	s.events <- fsnotify.Event{Name: filepath.Join(s.dir, name), Op: fsnotify.Remove}
}

// run lets time pass, and builds as the supervisor would: the newest change cancels a build. edits happen at
// their times.
func (s *workshop) run(d time.Duration, edits map[time.Duration]func()) {
	end := time.NewTimer(d)
	var at []<-chan time.Time
	times := slices.Sorted(maps.Keys(edits))
	for _, t := range times {
		at = append(at, time.NewTimer(t).C)
	}
	at = append(at, nil)
	next := 0
	var write, done <-chan time.Time
	begin := func() {
		s.builds++
		for _, name := range []string{"main.go", "lib.go", "new.go"} { // what this build sees
			text, _ := os.ReadFile(filepath.Join(s.dir, name))
			s.seen[name] = string(text)
		}
		write, done = time.NewTimer(s.took/3).C, time.NewTimer(s.took).C
	}
	for {
		select {
		case <-s.told:
			begin()
		case <-write:
			s.build(s, s.builds)
		case <-done:
			write, done = nil, nil
			s.ended++
			s.w.built()
		case <-at[next]:
			edits[times[next]]()
			next++
		case <-end.C:
			if done != nil {
				s.t.Errorf("a build is under way after %v", d)
			}
			return
		}
	}
}

func TestSources(t *testing.T) {
	const sec = time.Second
	none := func(*workshop, int) {}
	tests := []struct {
		name   string
		build  func(s *workshop, n int)
		edits  func(s *workshop) map[time.Duration]func()
		builds int               // at most
		again  int               // builds of one more edit, later
		seen   map[string]string // by the last build
	}{
		{"an edit", none, func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
		}, 1, 1, nil},
		{"a touch", none, func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){sec: func() { s.write("main.go", "1") }}
		}, 0, 1, nil},
		{
			"the program itself", func(s *workshop, n int) { s.write("app", fmt.Sprint(n)) },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
			}, 1, 1, nil,
		},
		{
			"a new file of another kind", func(s *workshop, n int) { s.write("out.o", fmt.Sprint(n)) },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
			}, 1, 1, nil,
		},
		{
			"a generator with the time in its output", func(s *workshop, n int) { s.write("gen.go", fmt.Sprint("gen", n)) },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
			}, 3, 1, nil,
		},
		{
			"a generator that writes the same", func(s *workshop, _ int) { s.write("gen.go", "2") },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
			}, 2, 1, nil,
		},
		{
			"a new name each time", func(s *workshop, n int) { s.write(fmt.Sprintf("tmp%d.go", n), "x") },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
			}, 3, 1, nil,
		},
		{"a new name each time, and the last one removed", func(s *workshop, n int) {
			if n > 1 {
				s.remove(fmt.Sprintf("tmp%d.go", n-1))
			}
			s.write(fmt.Sprintf("tmp%d.go", n), "x")
		}, func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
		}, 5, 1, nil},
		{
			"two files in turn", func(s *workshop, n int) { s.write([]string{"gen.go", "lib.go"}[n%2], fmt.Sprint("gen", n)) },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
			}, 6, 1, nil,
		},
		{"a generated file removed and made", func(s *workshop, n int) {
			s.remove("gen.go")
			s.write("gen.go", fmt.Sprint("gen", n))
		}, func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){sec: func() { s.write("main.go", "2") }}
		}, 3, 1, nil},
		{"an edit during the build", none, func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){
				sec:            func() { s.write("main.go", "2") },
				sec + sec*6/10: func() { s.write("lib.go", "2") },
			}
		}, 2, 1, map[string]string{"main.go": "2", "lib.go": "2"}},
		{"edits of one file during many builds", none, func(s *workshop) map[time.Duration]func() {
			edits := map[time.Duration]func(){}
			for i := range 40 { // an editor that saves by itself
				edits[sec+time.Duration(i)*700*time.Millisecond] = func() { s.write("main.go", fmt.Sprint("save", i)) }
			}
			return edits
		}, 40, 1, map[string]string{"main.go": "save39"}},
		{"a new source during the build", none, func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){
				sec:            func() { s.write("main.go", "2") },
				sec + sec*6/10: func() { s.write("new.go", "2") },
			}
		}, 2, 1, map[string]string{"main.go": "2", "new.go": "2"}},
		{
			"a generated file edited by hand", func(s *workshop, n int) { s.write("out.o", fmt.Sprint(n)) },
			func(s *workshop) map[time.Duration]func() {
				return map[time.Duration]func(){
					sec:      func() { s.write("main.go", "2") },
					10 * sec: func() { s.write("out.o", "mine") },
				}
			}, 4, 1, nil,
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := newWorkshop(t, dir, tt.build)
				s.w.built() // the first build
				s.run(2*time.Second, nil)
				s.run(2*time.Minute, tt.edits(s))
				if s.builds > tt.builds || tt.builds > 0 && s.builds == 0 {
					t.Errorf("%d builds, want %d", s.builds, tt.builds)
				}
				for name, want := range tt.seen {
					if got := s.seen[name]; got != want {
						t.Errorf("the last build saw %s as %q, want %q", name, got, want)
					}
				}
				first := s.builds
				s.run(2*time.Minute, map[time.Duration]func(){0: func() { s.write("main.go", "last") }})
				if got := s.builds - first; got != tt.again {
					t.Errorf("%d builds of one more edit, want %d", got, tt.again)
				}
				s.w.stop()
			})
		})
	}
}
