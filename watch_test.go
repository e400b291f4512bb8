package main

// These tests watch real files: small writers do what the tools of the field were measured to do.

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/fsnotify/fsnotify"
	"golang.org/x/sys/unix"
)

// script is a small executable; the text tells one from the other.
func script(text string) []byte { return []byte("#!/bin/sh\necho " + text + "\n") }

func hashOf(t *testing.T, content []byte) string {
	t.Helper()
	file := filepath.Join(t.TempDir(), "content")
	write(t, file, content)
	hash, _ := contentOf(file, nil)
	return hash
}

func write(t *testing.T, file string, content []byte) {
	t.Helper()
	must(t, os.MkdirAll(filepath.Dir(file), 0o755))
	must(t, os.WriteFile(file, content, 0o755))
}

// place puts content at file as rename(2) does.
func placeFile(t *testing.T, file string, content []byte) {
	t.Helper()
	write(t, file+".new", content)
	must(t, os.Rename(file+".new", file))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// stall is what a slow writer does between two writes.
func stall(d time.Duration) { <-time.NewTimer(d).C }

// lookout is a watcher under test, and what it posted.
type lookout struct {
	*watcher
	t    *testing.T
	dir  string
	app  string
	news chan watchNews
	said []string
}

func beginWatch(t *testing.T, change func(cfg *watchConfig), open func() (*fsnotify.Watcher, error)) *lookout {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	h := &lookout{t: t, dir: dir, app: filepath.Join(dir, "app"), news: make(chan watchNews)}
	cfg := watchConfig{program: []string{"./app"}, dir: dir, debounce: 100 * time.Millisecond}
	cfg.find = func() (string, error) { return h.app, nil }
	if change != nil {
		change(&cfg)
	}
	h.start(cfg, open)
	return h
}

func (h *lookout) start(cfg watchConfig, open func() (*fsnotify.Watcher, error)) {
	h.t.Helper()
	if open == nil {
		open = fsnotify.NewWatcher
	}
	over := make(chan struct{})
	var err error
	h.watcher, err = startWatchOn(cfg, nil, realDisk(), open, func(n watchNews) bool {
		select {
		case h.news <- n:
			return true
		case <-over:
			return false
		}
	})
	must(h.t, err)
	h.t.Cleanup(func() {
		close(over)
		h.stop()
	})
}

// beginApp watches an executable with content "one" at path, which may lead through symlinks.
func beginApp(t *testing.T, path string, prepare func(dir string)) *lookout {
	t.Helper()
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	h := &lookout{t: t, dir: dir, app: filepath.Join(dir, path), news: make(chan watchNews)}
	if prepare != nil {
		prepare(dir)
	} else {
		write(t, h.app, script("one"))
	}
	h.start(watchConfig{
		program: []string{h.app}, dir: dir, debounce: 100 * time.Millisecond, watchProgram: true,
		find: func() (string, error) { return h.app, nil },
	}, nil)
	h.runs(hashOf(t, script("one")))
	h.hears("watching ")
	return h
}

// next awaits the next trigger.
func (h *lookout) next() trigger {
	h.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case n := <-h.news:
			if n.trigger != nil {
				return *n.trigger
			}
			h.said = append(h.said, n.say.String())
		case <-limit.C:
			h.t.Fatalf("nothing was told; said: %q", h.said)
		}
	}
}

// hears awaits a line.
func (h *lookout) hears(part string) {
	h.t.Helper()
	limit := time.NewTimer(patience)
	defer limit.Stop()
	for {
		select {
		case n := <-h.news:
			if n.trigger != nil {
				h.t.Fatalf("told %+v while waiting for %q", *n.trigger, part)
			}
			h.said = append(h.said, n.say.String())
			if strings.Contains(n.say.String(), part) {
				return
			}
		case <-limit.C:
			h.t.Fatalf("never said %q; said: %q", part, h.said)
		}
	}
}

// wants awaits a trigger for this content of the program, and no other before it.
func (h *lookout) wants(content []byte) {
	h.t.Helper()
	if g, want := h.next(), hashOf(h.t, content); g.to != want || !g.program {
		h.t.Fatalf("told %+v, want build %s", g, want)
	} else {
		h.runs(g.to)
	}
}

// wantsNoMore shows that nothing else is told: what comes next is a change made now.
func (h *lookout) wantsNoMore() {
	h.t.Helper()
	last := script(fmt.Sprint("last ", time.Now().UnixNano()))
	placeFile(h.t, h.app, last)
	h.wants(last)
}

func TestWatchWriters(t *testing.T) {
	two := script(strings.Repeat("two ", 1000))
	half := len(two) / 2
	tests := []struct {
		name  string
		write func(t *testing.T, app string)
	}{
		{"rename", func(t *testing.T, app string) { placeFile(t, app, two) }},
		{"unlink and create", func(t *testing.T, app string) {
			must(t, os.Remove(app))
			write(t, app, two)
		}},
		{"hard link", func(t *testing.T, app string) {
			write(t, app+".d", two)
			must(t, os.Remove(app))
			must(t, os.Link(app+".d", app))
		}},
		{"in place", func(t *testing.T, app string) { write(t, app, two) }},
		{"stalling 150ms", func(t *testing.T, app string) { slowly(t, app, two, 150*time.Millisecond) }},
		{"stalling 700ms", func(t *testing.T, app string) { slowly(t, app, two, 700*time.Millisecond) }},
		{"opened again for each chunk, chmod last", func(t *testing.T, app string) {
			must(t, os.Remove(app))
			for chunk := range slices.Chunk(two, 1+len(two)/4) {
				f, err := os.OpenFile(app, os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o644)
				must(t, err)
				_, err = f.Write(chunk)
				must(t, err)
				must(t, f.Close())
				stall(250 * time.Millisecond)
			}
			must(t, os.Chmod(app, 0o755))
		}},
		{"mmap", func(t *testing.T, app string) {
			must(t, os.Remove(app))
			f, err := os.OpenFile(app, os.O_CREATE|os.O_RDWR, 0o755)
			must(t, err)
			must(t, f.Truncate(int64(len(two))))
			stall(300 * time.Millisecond)
			mem, err := unix.Mmap(int(f.Fd()), 0, len(two), unix.PROT_WRITE, unix.MAP_SHARED)
			must(t, err)
			must(t, f.Close())
			copy(mem, two[:half])
			stall(300 * time.Millisecond)
			copy(mem[half:], two[half:])
			must(t, unix.Munmap(mem))
		}},
		{"renamed before it is closed", func(t *testing.T, app string) {
			f, err := os.OpenFile(app+".tmp", os.O_CREATE|os.O_WRONLY, 0o755)
			must(t, err)
			_, err = f.Write(two[:half])
			must(t, err)
			must(t, os.Rename(app+".tmp", app))
			stall(200 * time.Millisecond)
			_, err = f.Write(two[half:])
			must(t, err)
			must(t, f.Close())
		}},
		{"rsync --inplace", func(t *testing.T, app string) {
			must(t, os.WriteFile(app, make([]byte, len(two)), 0o755)) // the same size from here on
			f, err := os.OpenFile(app, os.O_RDWR, 0)
			must(t, err)
			for at := 0; at < len(two); at += 1000 {
				_, err = f.WriteAt(two[at:min(at+1000, len(two))], int64(at))
				must(t, err)
				stall(50 * time.Millisecond)
			}
			must(t, f.Close())
			must(t, os.Chtimes(app, time.Unix(1e9, 0), time.Unix(1e9, 0)))
		}},
		{"directory removed and made", func(t *testing.T, app string) {
			must(t, os.RemoveAll(filepath.Dir(app)))
			must(t, os.Mkdir(filepath.Dir(app), 0o755))
			write(t, app, two)
		}},
		{"directory swapped", func(t *testing.T, app string) {
			dir := filepath.Dir(app)
			write(t, filepath.Join(dir+".new", "app"), two)
			must(t, os.Rename(dir, dir+".old"))
			must(t, os.Rename(dir+".new", dir))
		}},
		{"gone for a while", func(t *testing.T, app string) {
			must(t, os.RemoveAll(filepath.Dir(app)))
			stall(300 * time.Millisecond)
			write(t, app, two)
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := beginApp(t, "bin/app", nil)
			done := make(chan struct{})
			go func() {
				defer close(done)
				tt.write(t, h.app)
			}()
			h.wants(two)
			<-done
			h.wantsNoMore()
			placeFile(t, h.app, script("one")) // the place is still watched
			h.wants(script("one"))
		})
	}
}

// slowly writes in place through one descriptor.
func slowly(t *testing.T, app string, content []byte, pause time.Duration) {
	f, err := os.OpenFile(app, os.O_WRONLY|os.O_TRUNC, 0)
	must(t, err)
	for chunk := range slices.Chunk(content, 1+len(content)/4) {
		_, err = f.Write(chunk)
		must(t, err)
		stall(pause)
	}
	must(t, f.Close())
}

func TestWatchNothingNew(t *testing.T) {
	one := script("one")
	tests := []struct {
		name  string
		write func(t *testing.T, app string)
	}{
		{"touch", func(t *testing.T, app string) { must(t, os.Chtimes(app, time.Now(), time.Now())) }},
		{"older mtime", func(t *testing.T, app string) { must(t, os.Chtimes(app, time.Unix(1, 0), time.Unix(1, 0))) }},
		{"identical bytes in place", func(t *testing.T, app string) { write(t, app, one) }},
		{"identical bytes by rename", func(t *testing.T, app string) { placeFile(t, app, one) }},
		{"chmod", func(t *testing.T, app string) {
			must(t, os.Chmod(app, 0o644))
			must(t, os.Chmod(app, 0o755))
		}},
		{"1, 2, 1", func(t *testing.T, app string) {
			write(t, app, script("two"))
			write(t, app, one)
		}},
		{"other names", func(t *testing.T, app string) {
			write(t, app+"-go-tmp-umask", nil)
			must(t, os.Remove(app+"-go-tmp-umask"))
		}},
	}
	for _, tt := range tests {
		t.Run(tt.name, func(t *testing.T) {
			t.Parallel()
			h := beginApp(t, "bin/app", nil)
			tt.write(t, h.app)
			stall(200 * time.Millisecond)
			h.wantsNoMore()
		})
	}
}

func TestWatchSymlinks(t *testing.T) {
	link := func(t *testing.T, to, name string) { // ln -sfn, mv -T
		must(t, os.Symlink(to, name+".new"))
		must(t, os.Rename(name+".new", name))
	}
	releases := func(dir string) {
		write(t, dir+"/releases/1/app", script("one"))
		must(t, os.Symlink("releases/1", dir+"/current"))
	}
	t.Run("current", func(t *testing.T) {
		h := beginApp(t, "current/app", releases)
		write(t, h.dir+"/releases/2/app", script("two"))
		link(t, "releases/2", h.dir+"/current")
		h.wants(script("two"))
		placeFile(t, h.dir+"/releases/2/app", script("three")) // later edits inside the new release
		h.wants(script("three"))
	})
	t.Run("removed and made (busybox ln)", func(t *testing.T) {
		h := beginApp(t, "current/app", releases)
		write(t, h.dir+"/releases/2/app", script("two"))
		must(t, os.Remove(h.dir+"/current"))
		must(t, os.Symlink("releases/2", h.dir+"/current"))
		h.wants(script("two"))
	})
	t.Run("to an empty release", func(t *testing.T) {
		h := beginApp(t, "current/app", releases)
		must(t, os.Mkdir(h.dir+"/releases/2", 0o755))
		link(t, h.dir+"/releases/2", h.dir+"/current")
		stall(400 * time.Millisecond)
		write(t, h.dir+"/releases/2/app", script("two"))
		h.wants(script("two"))
	})
	t.Run("there and back in 40ms", func(t *testing.T) {
		h := beginApp(t, "current/app", releases)
		write(t, h.dir+"/releases/2/app", script("two"))
		link(t, "releases/2", h.dir+"/current")
		stall(40 * time.Millisecond)
		link(t, "releases/1", h.dir+"/current")
		stall(200 * time.Millisecond)
		link(t, "releases/2", h.dir+"/current")
		placeFile(t, h.app, script("three"))
		h.wants(script("three"))
	})
	t.Run("..data", func(t *testing.T) {
		h := beginApp(t, "app", func(dir string) {
			write(t, dir+"/..2024_01/app", script("one"))
			must(t, os.Symlink("..2024_01", dir+"/..data"))
			must(t, os.Symlink("..data/app", dir+"/app"))
		})
		write(t, h.dir+"/..2024_02/app", script("two"))
		link(t, "..2024_02", h.dir+"/..data")
		must(t, os.RemoveAll(h.dir+"/..2024_01"))
		h.wants(script("two"))
	})
}

// Events of other names must not put off the program's.
func TestWatchStorm(t *testing.T) {
	h := beginApp(t, "bin/app", nil)
	quit, done := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(done)
		for i := 0; ; i++ {
			select {
			case <-quit:
				return
			default:
				_ = os.WriteFile(fmt.Sprintf("%s/bin/noise%d", h.dir, i%10), nil, 0o644)
			}
		}
	}()
	placeFile(t, h.app, script("two"))
	h.wants(script("two"))
	write(t, h.app, script("three"))
	h.wants(script("three"))
	close(quit)
	<-done
}

// When the kernel's queue overflows, everything is looked at.
func TestWatchOverflow(t *testing.T) {
	h := beginApp(t, "bin/app", nil)
	placeFile(t, h.app, script("two")) // its trigger is not taken: the watcher stands still
	stall(300 * time.Millisecond)
	for i := range 20_000 { // the queue has 16384 (fs.inotify.max_queued_events)
		must(t, os.Chmod(h.app, 0o700|os.FileMode(i&1)))
	}
	placeFile(t, h.app, script("three"))
	h.wants(script("two"))
	h.wants(script("three"))
}

func TestWatchWithoutEvents(t *testing.T) {
	for name, err := range map[string]error{"max_user_instances": unix.EMFILE, "permitted": unix.EPERM} {
		h := beginWatch(t, func(cfg *watchConfig) {
			write(t, filepath.Join(cfg.dir, "app"), script("one"))
		}, func() (*fsnotify.Watcher, error) { return nil, err })
		h.hears("watching ")
		h.hears(name)
		h.runs(hashOf(t, script("one")))
		write(t, h.app, script("two"))
		h.wants(script("two"))
	}
}

// A directory may be beyond a limit on its own.
func TestWatchAddFails(t *testing.T) {
	for err, words := range map[error]string{unix.ENOSPC: "max_user_watches", unix.EACCES: "permission denied"} {
		dir := t.TempDir()
		app := filepath.Join(dir, "app")
		write(t, app, script("one"))
		d, news := realDisk(), make(chan watchNews)
		h := &lookout{t: t, dir: dir, app: app, news: news}
		h.watcher = newWatcher(watchConfig{
			program: []string{app}, dir: dir, debounce: 100 * time.Millisecond, find: func() (string, error) { return app, nil },
		}, d)
		h.disk.add = func(string) error { return err }
		h.disk.remove = func(string) error { return nil }
		h.choose()
		h.arm(time.Now())
		quit := make(chan struct{})
		go h.run(func(n watchNews) bool {
			select {
			case news <- n:
				return true
			case <-quit:
				return false
			}
		})
		h.hears("watching ")
		h.hears(words)
		placeFile(t, app, script("two"))
		h.wants(script("two"))
		close(quit)
		h.stop()
	}
}

// A file whose file system sends no events is looked at once a second, and only then.
func TestWatchSlowFileSystem(t *testing.T) {
	dir := t.TempDir()
	app := filepath.Join(dir, "app")
	write(t, app, script("one"))
	w := newWatcher(watchConfig{program: []string{app}, dir: dir, find: func() (string, error) { return app, nil }}, realDisk())
	w.disk.add = func(string) error { return nil }
	w.disk.remove = w.disk.add
	w.disk.slow = func(string) string { return "NFS" }
	w.choose()
	w.arm(time.Now())
	if w.polls.IsZero() {
		t.Error("it is not looked at")
	}
	w.disk.slow = func(string) string { return "" }
	clear(w.armed)
	w.arm(time.Now())
	if !w.polls.IsZero() {
		t.Error("it is looked at though there are events")
	}
	last := w.kept[len(w.kept)-1]
	if text := last.say.String(); !strings.Contains(text, "NFS") {
		t.Errorf("said %q", text)
	}
}

func TestChain(t *testing.T) {
	dir, err := filepath.EvalSymlinks(t.TempDir())
	must(t, err)
	write(t, dir+"/releases/9/bin/app", nil)
	must(t, os.Symlink("releases/9", dir+"/current"))
	must(t, os.Symlink(dir+"/current/bin/../bin/app", dir+"/run"))
	must(t, os.Symlink("loop", dir+"/loop"))
	up := place{dir: filepath.Dir(dir), name: filepath.Base(dir)}
	tests := []struct {
		path string
		want []place
		ok   bool
	}{
		{"/releases/9/bin/app", []place{{dir + "/releases/9/bin", "app", true}, {dir + "/releases/9", "bin", false}}, true},
		{"/current/bin/app", []place{
			{dir, "current", false}, {dir + "/releases/9/bin", "app", true}, {dir + "/releases/9", "bin", false},
		}, true},
		{"/run", []place{
			{dir, "run", false}, {dir, "current", false}, {dir + "/releases/9/bin", "app", true}, {dir + "/releases/9", "bin", false},
		}, true},
		{"/current/lib/app", []place{
			{dir, "current", false}, {dir + "/releases/9", "lib", true}, {dir + "/releases", "9", false},
		}, false},
		{"/missing/bin/app", []place{{dir, "missing", true}, up}, false},
	}
	for _, tt := range tests {
		got, err := chainOf(dir + tt.path)
		if !slices.Equal(got, tt.want) || (err == nil) != tt.ok {
			t.Errorf("%s: got %v, %v; want %v", tt.path, got, err, tt.want)
		}
	}
	if _, err := chainOf(dir + "/loop"); !errors.Is(err, unix.ELOOP) {
		t.Errorf("loop: %v", err)
	}
}

func TestHeaderOf(t *testing.T) {
	elf, err := os.ReadFile("/proc/self/exe")
	if err != nil {
		t.Skip("no /proc")
	}
	tests := []struct {
		name    string
		content []byte
		want    headerWord
	}{
		{"script", script("one"), headerWhole},
		{"script cut in its first line", []byte("#!/bin/s"), headerOdd},
		{"script without one", []byte("exec ./app\n"), headerOdd},
		{"ELF", elf, headerWhole},
		{"ELF cut in the header", elf[:60], headerBroken},
		{"ELF cut in the middle", elf[:40<<10], headerBroken},
		{"zeros", make([]byte, 4096), headerOdd},
		{"nothing", nil, headerOdd},
	}
	for _, tt := range tests {
		file := filepath.Join(t.TempDir(), "file")
		write(t, file, tt.content)
		if got := headerOf(file, int64(len(tt.content))); got != tt.want {
			t.Errorf("%s: got %v", tt.name, got)
		}
	}
}

func TestAskKernel(t *testing.T) {
	file := filepath.Join(t.TempDir(), "app")
	write(t, file, script("one"))
	if got := askKernel(file, true); got == wordNone {
		t.Skip("this kernel cannot tell")
	}
	f, err := os.OpenFile(file, os.O_WRONLY, 0)
	must(t, err)
	for _, program := range []bool{true, false} {
		if got := askKernel(file, program); got != wordBusy {
			t.Errorf("being written: got %v", got)
		}
	}
	must(t, f.Close())
	for _, program := range []bool{true, false} {
		if got := askKernel(file, program); got != wordFree {
			t.Errorf("complete: got %v", got)
		}
	}
	must(t, os.Chmod(file, 0o644))
	if got := askKernel(file, true); got != wordNoExec {
		t.Errorf("not executable: got %v", got)
	}
}

// What --watch=PATH names may be, or hold, the program.
func TestChoosePath(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/app", script("one"))
	write(t, dir+"/a.html", nil)
	for path, want := range map[string]string{"app": "program", ".": "program a.html", "*": "program a.html", "a.html": "a.html", dir + "/app": "program"} {
		disk, read := realDisk(), map[string]int{}
		content := disk.content
		disk.content = func(path string) string {
			read[filepath.Base(path)]++
			return content(path)
		}
		w := newWatcher(watchConfig{
			program: []string{"./app"}, dir: dir, paths: []string{path}, find: func() (string, error) { return dir + "/app", nil },
		}, disk)
		w.choose()
		if got := targetsOf(w); got != want {
			t.Errorf("%s: got %q, want %q", path, got, want)
		}
		if read["a.html"] > 1 { // it may be a large tree
			t.Errorf("%s: a file was read %d times", path, read["a.html"])
		}
	}
}

// targetsOf names the targets: the program, and files of trees.
func targetsOf(w *watcher) string {
	var got []string
	for _, target := range w.targets {
		if tree, ok := target.(*fileTree); ok {
			got = append(got, slices.Sorted(maps.Keys(tree.leaves))...)
		} else {
			got = append(got, "program")
		}
	}
	return strings.Join(got, " ")
}

func TestChoose(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/app", []byte("\x7fELF"))
	write(t, dir+"/server.js", nil)
	write(t, dir+"/lib/a.js", nil)
	write(t, dir+"/lib/a.css", nil)
	write(t, dir+"/node_modules/x/index.js", nil)
	write(t, dir+"/web.py", []byte("#!/usr/bin/env python3\n"))
	write(t, dir+"/env/pyvenv.cfg", nil)
	write(t, dir+"/env/lib/x.py", nil)
	write(t, dir+"/env/bin/gunicorn", []byte("#!"+dir+"/env/bin/python3\n"))
	write(t, dir+"/.hidden/x.py", nil)
	write(t, dir+"/run.sh", nil)
	write(t, dir+"/bin/rails", []byte("#!/usr/bin/env ruby\n"))
	write(t, dir+"/config.rb", nil)
	write(t, dir+"/conf/web.env", nil)
	write(t, dir+"/.pyenv/shims/uvicorn", []byte("#!/bin/sh\n"))
	write(t, dir+"/tools/serve", []byte("#!/usr/bin/python3\n"))
	const js, py = "lib/a.js server.js", "*.py below "
	scripts := globOf(nodeFiles) + " below " + dir
	tests := []struct {
		path string
		args string
		want string // program and files
		says string
	}{
		{dir + "/app", "", "program", dir + "/app"},
		{"/usr/bin/node", "--inspect server.js", js, dir + "/server.js and " + scripts},
		{"/usr/bin/node", "-r ./node_modules/x/index.js lib/a.js", "a.js", dir + "/lib/a.js and " + globOf(nodeFiles) + " below " + dir + "/lib"},
		{"/usr/bin/python3.12", "-m web", "web.py", py + dir},
		{"/usr/bin/python3.12", "-m uvicorn web:app --env-file conf/web.env", "web.py", py + dir},
		{dir + "/web.py", "", "program", dir + "/web.py and " + py + dir},
		{dir + "/env/bin/gunicorn", "web:app", "web.py", py + dir},
		{"/bin/sh", "run.sh", "run.sh", dir + "/run.sh"},
		// what stands before it is seen through
		{"/usr/bin/env", "FOO=1 python3 web.py", "web.py", dir + "/web.py and " + py + dir},
		{"/usr/bin/env", "-u node ./web.py", "web.py", dir + "/web.py and " + py + dir},
		{"/usr/bin/timeout", "100 nice -n 5 node server.js", js, dir + "/server.js and " + scripts},
		{"/usr/bin/timeout", "100 ./app", "app", dir + "/app"},
		{"/bin/sh", "-c cd${IFS}x;exec${IFS}node", js, scripts},
		{"/bin/sh", "-c ./run.sh", "run.sh", dir + "/run.sh"},
		{"/home/me/.local/bin/uv", "run web.py", "web.py", dir + "/web.py and " + py + dir},
		{"/home/me/.local/bin/uv", "run uvicorn web:app", "web.py", py + dir},
		{"/usr/bin/npm", "start", js, scripts},
		{"/usr/bin/bundle", "exec puma", "config.rb", globOf(rubyFiles) + " below " + dir},
		{dir + "/.pyenv/shims/uvicorn", "web:app", "web.py", py + dir},
		// what is run from bin belongs to what is beside it; what is installed, to what is here
		{dir + "/bin/rails", "server", "program config.rb", dir + "/bin/rails and " + globOf(rubyFiles) + " below " + dir},
		{dir + "/tools/serve", "", "program web.py", dir + "/tools/serve and " + py + dir},
		// nobody knows
		{"/bin/sh", "-c sleep${IFS}9", "program", ""},
		{"/usr/bin/make", "run", "program", ""},
	}
	for _, tt := range tests {
		name := tt.path
		if tt.path == dir+"/tools/serve" {
			name = "serve"
		}
		words := append([]string{name}, strings.Fields(tt.args)...)
		for i := range words {
			words[i] = strings.ReplaceAll(words[i], "${IFS}", " ")
		}
		w := newWatcher(watchConfig{program: words, dir: dir, find: func() (string, error) { return tt.path, nil }}, realDisk())
		w.choose()
		if got := targetsOf(w); got != tt.want {
			t.Errorf("%s %s: got %q, want %q", tt.path, tt.args, got, tt.want)
		}
		said := w.kept[len(w.kept)-1].say.String()
		if want := "watching " + tt.says + "; --watch=PATH chooses"; tt.says != "" && said != want {
			t.Errorf("%s %s: said %q, want %q", tt.path, tt.args, said, want)
		}
		if unknown := strings.Contains(said, "is not known"); unknown != (tt.says == "") {
			t.Errorf("%s %s: said %q", tt.path, tt.args, said)
		}
	}
}

// Nobody means all of the machine: in the root directory it is the script alone, or the program.
func TestChooseRoot(t *testing.T) {
	dir := t.TempDir()
	write(t, dir+"/pyvenv.cfg", nil) // so the script is another's, and runs what is in the directory
	write(t, dir+"/bin/serve.py", nil)
	for script, want := range map[string]string{dir + "/bin/serve.py": "serve.py", "-m serve": "program"} {
		w := newWatcher(watchConfig{
			program: strings.Fields("python3 " + script), dir: "/", find: func() (string, error) { return "/usr/bin/python3", nil },
		}, realDisk())
		w.choose()
		if got := targetsOf(w); got != want {
			t.Errorf("%s: got %q, want %q", script, got[:min(len(got), 100)], want)
		}
	}
}
