package main

import (
	"fmt"
	"maps"
	"math/rand/v2"
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
	if g := h.wantsWhat("a.html"); g.to != hashOf(t, []byte("A")) || g.from != hashOf(t, []byte("a")) || g.size != 1 {
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

// byHand is a watcher of the tree at dir that does nothing by itself: the test has its events and its clock.
func byHand(t *testing.T, dir string) *watcher {
	t.Helper()
	return armedByHand(watchConfig{
		program: []string{"./app"}, dir: dir, paths: []string{"."}, debounce: 100 * time.Millisecond,
		find: func() (string, error) { return dir + "/app", nil },
	})
}

func armedByHand(c watchConfig) *watcher {
	w := newWatcher(c, realDisk())
	w.disk.add = func(string) error { return nil }
	w.disk.remove = w.disk.add
	w.choose()
	w.arm(time.Now())
	w.rest()
	w.kept = nil
	return w
}

// rest does all that is due, each at its time.
func (w *watcher) rest() {
	for at := w.deadline(); !at.IsZero(); at = w.deadline() {
		w.due(at)
	}
}

// wantKept wants this to have been told or said, and nothing else.
func wantKept(t *testing.T, w *watcher, want ...string) {
	t.Helper()
	var got []string
	for _, n := range w.kept {
		if n.trigger != nil {
			got = append(got, n.trigger.String())
		} else {
			got = append(got, n.say.String())
		}
	}
	if !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// What has no event is found all the same: a file made before its new directory was watched, or one whose event
// was lost while others settled.
func TestWatchTreeUnheard(t *testing.T) {
	dir := t.TempDir()
	w := byHand(t, dir)
	w.disk.add = func(name string) error {
		write(t, name+"/late", []byte("x"))
		return nil
	}
	now := time.Now()
	write(t, dir+"/new/early", []byte("x"))
	w.heard(fsnotify.Event{Name: dir + "/new", Op: fsnotify.Create}, now)
	w.rest()
	wantKept(t, w, "2 files changed")

	dir = t.TempDir()
	w = byHand(t, dir)
	write(t, dir+"/early", []byte("x"))
	w.heard(fsnotify.Event{Name: dir + "/early", Op: fsnotify.Create}, now)
	w.due(w.deadline())
	write(t, dir+"/late", []byte("x"))
	w.lost(fsnotify.ErrEventOverflow)
	w.rest()
	wantKept(t, w, "2 files changed")
}

// When many watched directories go, not all of the others are asked for at each.
func TestWatchTreeRemoved(t *testing.T) {
	const dirs = 200
	dir := t.TempDir()
	for i := range dirs {
		must(t, os.Mkdir(fmt.Sprintf("%s/%d", dir, i), 0o755))
	}
	w := byHand(t, dir)
	stats := 0
	w.disk.stat = func(path string) (signature, error) {
		stats++
		return statFile(path)
	}
	for i := range dirs {
		name := fmt.Sprintf("%s/%d", dir, i)
		must(t, os.Remove(name))
		now := time.Now()
		w.heard(fsnotify.Event{Name: name, Op: fsnotify.Remove}, now)
		w.due(now)
	}
	if w.rest(); stats > 10*dirs {
		t.Errorf("%d looks at %d directories", stats, dirs)
	}
	if len(w.armed) != 3 { // the tree's, and two above
		t.Errorf("%d directories are watched", len(w.armed))
	}
}

// In the root directory events have names with two slashes.
func TestWatchRoot(t *testing.T) {
	const dir = "/usr" // as /app in a container
	w := armedByHand(watchConfig{
		program: []string{dir + "/app"}, dir: "/", paths: []string{"/*.none"}, watchProgram: true, debounce: time.Second,
		find: func() (string, error) { return dir + "/app", nil },
	})
	if w.heard(fsnotify.Event{Name: "//a.none", Op: fsnotify.Create}, time.Now()); w.deadline().IsZero() {
		t.Error("a file there is not heard of")
	}
	if w.heard(fsnotify.Event{Name: "/" + dir, Op: fsnotify.Remove}, time.Now()); !w.stale[dir] {
		t.Error("a watched directory there may go unnoticed")
	}
}

// A file that is written all the time holds up what else changes, which has a line.
func TestWatchTreeRestless(t *testing.T) {
	dir := t.TempDir()
	w := byHand(t, dir)
	now := time.Now()
	write(t, dir+"/edit", []byte("x"))
	w.heard(fsnotify.Event{Name: dir + "/edit", Op: fsnotify.Create}, now)
	for i := range 200 {
		now = now.Add(40 * time.Millisecond)
		write(t, dir+"/app.out", fmt.Append(nil, i))
		w.heard(fsnotify.Event{Name: dir + "/app.out", Op: fsnotify.Write}, now)
		w.due(now)
	}
	w.rest()
	wantKept(t, w, `waiting for ".": app.out changes all the time; -i GLOB leaves it out`, "2 files changed")
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
	t       *testing.T
	dir     string
	w       *watcher
	events  chan fsnotify.Event
	told    chan trigger
	made    []string                 // taken as made by the build
	build   func(s *workshop, n int) // what the nth build writes after a third of its time
	later   func(s *workshop, n int) // and half a second after its end
	took    time.Duration
	number  int // of the build that is under way, as the watcher counts
	builds  int
	ended   int       // builds that were not cancelled
	edited  time.Time // the last edit
	began   time.Time // the build that is under way
	current time.Time // when the last build began that was not cancelled
}

func newWorkshop(t *testing.T, dir string, build func(s *workshop, n int)) *workshop {
	s := &workshop{
		t: t, dir: dir, events: make(chan fsnotify.Event, 100), told: make(chan trigger), build: build, took: time.Second,
		later: func(*workshop, int) {},
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
		if n.say != nil {
			if name, _, ok := strings.Cut(n.say.String(), " changed in every build"); ok {
				s.made = append(s.made, name)
			}
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

// save writes as somebody does whose edit must not be lost.
func (s *workshop) save(name, text string) {
	s.write(name, text)
	s.edited = time.Now()
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
	var write, done, later <-chan time.Time
	for {
		select {
		case g := <-s.told:
			s.builds++
			s.number, s.began = g.build, time.Now()
			write, done = time.NewTimer(s.took/3).C, time.NewTimer(s.took).C
		case <-write:
			s.build(s, s.builds)
		case <-done:
			write, done, later = nil, nil, time.NewTimer(buildTail/2).C
			s.ended++
			s.current = s.began
			s.w.built(buildEnd{number: s.number, at: time.Now()})
		case <-later:
			s.later(s, s.builds)
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

// check wants a number of builds since an earlier one, and that the last began after the last edit.
func (s *workshop) check(what string, since, want int) {
	s.t.Helper()
	if got := s.builds - since; got != want {
		s.t.Errorf("%s: %d builds, want %d", what, got, want)
	}
	if s.current.Before(s.edited) {
		s.t.Errorf("%s: the last build began %v before the last edit", what, s.edited.Sub(s.current))
	}
}

func TestSources(t *testing.T) {
	const ms, sec = time.Millisecond, time.Second
	none := func(*workshop, int) {}
	stamp := func(s *workshop, n int) { s.write("gen.go", fmt.Sprint("gen", n)) }
	edit := func(s *workshop) map[time.Duration]func() {
		return map[time.Duration]func(){sec: func() { s.save("main.go", "2") }}
	}
	// saves are edits of one file, the first while no build runs.
	saves := func(n int, every time.Duration, name string) func(s *workshop) map[time.Duration]func() {
		return func(s *workshop) map[time.Duration]func() {
			edits := map[time.Duration]func(){}
			for i := range n {
				edits[sec+time.Duration(i)*every] = func() { s.save(name, fmt.Sprint("save", i)) }
			}
			return edits
		}
	}
	also := func(edits map[time.Duration]func(), at time.Duration, edit func()) map[time.Duration]func() {
		edits[at] = edit
		return edits
	}
	tests := []struct {
		name   string
		build  func(s *workshop, n int)
		later  func(s *workshop, n int)
		edits  func(s *workshop) map[time.Duration]func()
		builds int
		ended  int    // of them
		again  int    // builds of one more edit, later
		made   string // what was taken as made by the build, in order
	}{
		{name: "an edit", build: none, edits: edit, builds: 1, ended: 1, again: 1},
		{name: "a touch", build: none, edits: func(s *workshop) map[time.Duration]func() {
			return map[time.Duration]func(){sec: func() { s.write("main.go", "1") }}
		}, builds: 0, ended: 0, again: 1},
		{
			name: "the program itself", build: func(s *workshop, n int) { s.write("app", fmt.Sprint(n)) },
			edits: edit, builds: 1, ended: 1, again: 1,
		},
		{
			name: "a build that touches its sources", build: func(s *workshop, _ int) {
				text, _ := os.ReadFile(s.dir + "/main.go")
				s.write("main.go", string(text))
			},
			edits: edit, builds: 1, ended: 1, again: 1,
		},
		{
			name: "a formatter", build: func(s *workshop, _ int) { s.write("main.go", "formatted") },
			edits: edit, builds: 2, ended: 1, again: 2,
		},
		{
			name: "a new file of another kind", build: func(s *workshop, _ int) { s.write("out.o", "o") },
			edits: edit, builds: 2, ended: 2, again: 1,
		},
		{
			name: "two of them", build: func(s *workshop, _ int) { s.write("out.o", "o"); s.write("lib.o", "o") },
			edits: edit, builds: 2, ended: 2, again: 1,
		},
		{
			name: "one with the time in it", build: func(s *workshop, n int) { s.write("out.o", fmt.Sprint(n)) },
			edits: edit, builds: 6, ended: 6, again: 1, made: "out.o",
		},
		{
			name: "a generator with the time in its output", build: stamp,
			edits: edit, builds: 6, ended: 3, again: 1, made: "gen.go",
		},
		{
			name: "which writes a while after the build", build: none, later: stamp,
			edits: edit, builds: 12, ended: 12, again: 1, made: "gen.go gen.go",
		},
		{
			name: "a generator that writes the same", build: func(s *workshop, _ int) { s.write("gen.go", "2") },
			edits: edit, builds: 2, ended: 1, again: 1,
		},
		{
			name: "a new name each time", build: func(s *workshop, n int) { s.write(fmt.Sprintf("tmp%d.go", n), "x") },
			edits: edit, builds: 6, ended: 3, again: 1, made: "tmp5.go",
		},
		{
			name: "a new name each time, and the last one removed", build: func(s *workshop, n int) {
				if n > 1 {
					s.remove(fmt.Sprintf("tmp%d.go", n-1))
				}
				s.write(fmt.Sprintf("tmp%d.go", n), "x")
			},
			edits: edit, builds: 6, ended: 3, again: 1, made: "2 files",
		},
		{
			name: "two files in turn", build: func(s *workshop, n int) { s.write([]string{"gen.go", "lib.go"}[n%2], fmt.Sprint("gen", n)) },
			edits: edit, builds: 11, ended: 5, again: 2,
			made: "lib.go gen.go",
		},
		{
			name: "a generated file removed and made", build: func(s *workshop, n int) { s.remove("gen.go"); stamp(s, n) },
			edits: edit, builds: 6, ended: 3, again: 1, made: "gen.go",
		},
		{name: "an edit during the build", build: none, edits: func(s *workshop) map[time.Duration]func() {
			return also(edit(s), sec+600*ms, func() { s.save("lib.go", "2") })
		}, builds: 2, ended: 1, again: 1},
		{name: "an edit as the build ends", build: none, edits: func(s *workshop) map[time.Duration]func() {
			return also(edit(s), 2*sec+100*ms, func() { s.save("lib.go", "2") })
		}, builds: 2, ended: 2, again: 1},
		{name: "an edit right after the build", build: none, edits: func(s *workshop) map[time.Duration]func() {
			return also(edit(s), 2*sec+101*ms, func() { s.save("main.go", "3") })
		}, builds: 2, ended: 2, again: 1},
		{name: "a new source during the build", build: none, edits: func(s *workshop) map[time.Duration]func() {
			return also(edit(s), sec+600*ms, func() { s.save("new.go", "2") })
		}, builds: 2, ended: 1, again: 1},
		{name: "one of a new kind", build: none, edits: func(s *workshop) map[time.Duration]func() {
			return also(edit(s), sec+600*ms, func() { s.save("go.sum", "2") })
		}, builds: 2, ended: 2, again: 1},
		{name: "one saved by rename during the build", build: none, edits: func(s *workshop) map[time.Duration]func() {
			edits := also(edit(s), sec+600*ms, func() { s.remove("lib.go") })
			return also(edits, sec+630*ms, func() { s.save("lib.go", "2") })
		}, builds: 2, ended: 1, again: 1},
		{name: "one as the build ends", build: none, edits: func(s *workshop) map[time.Duration]func() {
			edits := also(edit(s), 2*sec+80*ms, func() { s.remove("lib.go") })
			return also(edits, 2*sec+110*ms, func() { s.save("lib.go", "2") })
		}, builds: 2, ended: 2, again: 1},
		{name: "there and back during the build", build: none, edits: func(s *workshop) map[time.Duration]func() {
			edits := also(edit(s), sec+400*ms, func() { s.write("lib.go", "2") })
			return also(edits, sec+700*ms, func() { s.save("lib.go", "1") })
		}, builds: 3, ended: 1, again: 1},
		{name: "four quick saves", build: none, edits: saves(4, 400*ms, "main.go"), builds: 4, ended: 1, again: 1},
		{name: "five quick saves", build: none, edits: saves(5, 400*ms, "main.go"), builds: 5, ended: 2, again: 1},
		{name: "an editor that saves by itself", build: none, edits: saves(40, 700*ms, "main.go"), builds: 28, ended: 7, again: 1},
		{
			name: "which also has the time generated", build: stamp, edits: saves(40, 700*ms, "main.go"),
			builds: 33, ended: 9, again: 1, made: "gen.go",
		},
		{
			name: "a generated file edited by hand", build: stamp, edits: func(s *workshop) map[time.Duration]func() {
				return also(edit(s), 30*sec, func() { s.save("gen.go", "mine") })
			}, builds: 12, ended: 6, again: 1, made: "gen.go gen.go",
		},
		{
			name: "which is believed once", build: stamp, edits: func(s *workshop) map[time.Duration]func() {
				edits := also(edit(s), 30*sec, func() { s.save("gen.go", "mine") })
				return also(edits, 60*sec, func() { s.write("gen.go", "mine, too") })
			}, builds: 12, ended: 6, again: 1, made: "gen.go gen.go",
		},
		{
			name: "and again once a build has left it alone", build: func(s *workshop, n int) {
				if n != 13 {
					stamp(s, n)
				}
			}, edits: func(s *workshop) map[time.Duration]func() {
				edits := also(edit(s), 30*sec, func() { s.save("gen.go", "mine") })
				also(edits, 50*sec, func() { s.save("main.go", "3") })
				also(edits, 60*sec, func() { s.save("gen.go", "mine, too") })
				return also(edits, 80*sec, func() { s.save("gen.go", "mine at last") })
			}, builds: 25, ended: 13, again: 1, made: "gen.go gen.go gen.go gen.go",
		},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			dir := t.TempDir()
			synctest.Test(t, func(t *testing.T) {
				s := newWorkshop(t, dir, tt.build)
				if tt.later != nil {
					s.later = tt.later
				}
				s.w.built(buildEnd{}) // the first build
				s.run(2*time.Second, nil)
				s.run(2*time.Minute, tt.edits(s))
				s.check("at first", 0, tt.builds)
				if s.ended != tt.ended {
					t.Errorf("%d builds ran to their end, want %d", s.ended, tt.ended)
				}
				if made := strings.Join(s.made, " "); made != tt.made {
					t.Errorf("%q taken as made by the build, want %q", made, tt.made)
				}
				first := s.builds
				s.run(2*time.Minute, map[time.Duration]func(){0: func() { s.save("main.go", "last") }})
				s.check("one more edit", first, tt.again)
				s.w.stop()
			})
		})
	}
}

// A build that has ended while another was asked for is not the end of that one.
func TestSourcesLateEnd(t *testing.T) {
	dir := t.TempDir()
	synctest.Test(t, func(t *testing.T) {
		s := newWorkshop(t, dir, nil)
		s.w.built(buildEnd{})
		s.save("main.go", "2")
		if g := <-s.told; g.build != 1 {
			t.Errorf("asked for build %d", g.build)
		}
		s.w.built(buildEnd{})
		synctest.Wait()
		s.w.stop()
		if win := s.w.sources.window; !win.open || win.ending {
			t.Errorf("the build has ended")
		}
	})
}

// Whatever a build writes among its sources: a few builds, and the last one begins after the last edit. Only what
// was taken as made by the build, and said to be, may be edited in vain, and only while one runs.
func TestSourcesRandom(t *testing.T) {
	sources := []string{"main.go", "main.go", "main.go", "lib.go", "new.go", "new.sql"}
	for seed := range uint64(100) {
		r := rand.New(rand.NewPCG(seed, 0))
		kind := r.IntN(5)
		build := func(s *workshop, n int) {
			switch kind {
			case 0:
				s.write("gen.go", fmt.Sprint(n))
			case 1:
				s.write("out.o", fmt.Sprint(n))
			case 2:
				s.write([]string{"gen.go", "gen2.go"}[r.IntN(2)], fmt.Sprint(n))
			case 3:
				if r.IntN(2) == 0 {
					s.write("gen.go", fmt.Sprint(n))
				}
			}
		}
		dir := t.TempDir()
		synctest.Test(t, func(t *testing.T) {
			s := newWorkshop(t, dir, build)
			s.took = time.Duration(50+r.IntN(3000)) * time.Millisecond
			s.w.built(buildEnd{}) // the first build
			edits := map[time.Duration]func(){}
			for i := range 1 + r.IntN(12) {
				name := sources[r.IntN(len(sources))]
				edits[time.Duration(500+r.IntN(15_000))*time.Millisecond] = func() { s.save(name, fmt.Sprint("edit", i)) }
			}
			s.run(4*time.Minute, edits)
			vain := slices.ContainsFunc(s.made, func(name string) bool { return slices.Contains(sources, name) })
			if s.current.Before(s.edited) && !vain {
				t.Errorf("seed %d, kind %d: the last build began before the last edit; taken as made: %v", seed, kind, s.made)
			}
			if most := 3*len(edits) + 12; s.builds > most {
				t.Errorf("seed %d, kind %d: %d builds of %d edits", seed, kind, s.builds, len(edits))
			}
			s.w.stop()
		})
	}
}
