package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// lostLine is what stands for lines that are not there.
var lostLine = regexp.MustCompile(`^hotwrap: (\d+) lines? lost: (.+)$`)

// tallyLines checks that a text has whole lines "line N" in order, and returns how many are there and how many were said to be lost.
func tallyLines(t *testing.T, text string) (there, lost int) {
	t.Helper()
	if text == "" {
		return 0, 0
	}
	last := -1
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		if found := lostLine.FindStringSubmatch(line); found != nil {
			n, _ := strconv.Atoi(found[1])
			lost += n
			continue
		}
		var n int
		if _, err := fmt.Sscanf(line, "line %d", &n); err != nil || !strings.HasSuffix(line, ".") || n <= last {
			t.Fatalf("torn or out of order after line %d: %q", last, line)
		}
		if lost+there != n {
			t.Fatalf("%q comes after %d lines and %d lost", line, there, lost)
		}
		last = n
		there++
	}
	return there, lost
}

// A reader that is stuck does not block the program, nor hotwrap's own messages. When it reads again, every line
// is there or counted.
func TestStuckReader(t *testing.T) {
	t.Run("the program's", func(t *testing.T) { stuckReader(t, false, false) })
	t.Run("its own", func(t *testing.T) { stuckReader(t, true, false) })
	t.Run("until the end", func(t *testing.T) { stuckReader(t, false, true) })
}

func stuckReader(t *testing.T, own, atEnd bool) {
	read, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	events := make(chan event, 64)
	r := &outputRun{outputs: &outputs{events: events, tails: newTails()}, t: t, events: events}
	d := newDestination("standard output", "", false, events)
	d.slow = 50 * time.Millisecond
	d.run(int(to.Fd()))
	r.to = [2]*destination{d, d}
	stdout, stderr := r.start(1, 1)
	stderr.Close()
	const lines = 100_000
	done := make(chan struct{})
	go func() {
		defer close(done)
		defer stdout.Close()
		for i := range lines {
			text := fmt.Sprintf("line %d %s.\n", i, strings.Repeat("x", 30))
			if own {
				_, err = d.Write([]byte(text))
			} else {
				_, err = stdout.WriteString(text)
			}
			if err != nil {
				t.Error(err)
			}
		}
	}()
	select {
	case <-done:
	case <-time.After(outputPatience):
		t.Fatal("the program is blocked")
	}
	if m := r.await("cannot write to standard output: nobody reads it"); m.level != levelWarning {
		t.Errorf("said %q", m)
	}
	text, untold := make(chan string, 1), make(chan int, 1)
	if atEnd {
		r.finish(context.Background())
		r.to = [2]*destination{}
		d.order(item{end: untold})
	}
	go func() {
		all, _ := io.ReadAll(read)
		text <- string(all)
	}()
	if atEnd {
		if n := <-untold; n > 0 {
			t.Errorf("%d lost untold", n)
		}
	} else {
		r.await("standard output is written to again lost=")
	}
	if said := r.end(); len(said) > 0 {
		t.Error(said)
	}
	to.Close()
	there, lost := tallyLines(t, <-text)
	if there+lost != lines || lost == 0 || there < queueMost/45 {
		t.Errorf("%d lines and %d lost, want %d in all", there, lost, lines)
	}
}

// A reader that is only slow loses nothing.
func TestSlowReader(t *testing.T) {
	read, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	events := make(chan event, 64)
	d := newDestination("standard output", "", false, events)
	d.run(int(to.Fd()))
	const lines = 60_000
	go func() {
		for i := range lines {
			d.send(fmt.Appendf(nil, "line %d %s.\n", i, strings.Repeat("x", 30)))
		}
		lost := make(chan int, 1)
		d.order(item{end: lost})
		<-lost
		to.Close()
	}()
	var text bytes.Buffer
	for {
		time.Sleep(time.Millisecond)
		if n, err := io.CopyN(&text, read, 16<<10); n == 0 || err != nil {
			break
		}
	}
	if there, lost := tallyLines(t, text.String()); there != lines || lost != 0 {
		t.Errorf("%d lines and %d lost, want %d", there, lost, lines)
	}
}

// A reader that is gone is a destination that cannot be written to, and no end of hotwrap.
func TestGoneReader(t *testing.T) {
	read, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	read.Close()
	defer to.Close()
	r := &outputRun{t: t, events: make(chan event, 64)}
	d := newDestination("standard output", "", false, r.events)
	d.run(int(to.Fd()))
	d.send([]byte("line 1.\n"))
	r.await("cannot write to standard output: broken pipe; lines of the program are dropped")
	d.send([]byte("line 2.\n"))
	lost := make(chan int, 1)
	d.order(item{end: lost})
	if n := <-lost; n != 2 {
		t.Errorf("%d lost, want 2", n)
	}
	d.send([]byte("too late\n")) // and nobody waits
}

// A full disk costs the lines that come meanwhile, and a line says how many.
func TestFullDisk(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /dev/full")
	}
	for _, stamp := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "app.log")
		if err := os.Symlink("/dev/full", path); err != nil {
			t.Fatal(err)
		}
		r := newLogFile(t, config{logFile: path, logStamp: stamp})
		stdout, stderr := r.start(1, 1)
		emit(t, stdout, "line 0.\n")
		if m := r.await("cannot write to log file"); m.level != levelWarning || !strings.Contains(m.String(), "no space left on device; lines of the program are dropped") {
			t.Errorf("said %q", m)
		}
		emit(t, stdout, "line 1.\nline 2.\nline")
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		r.reopen("SIGUSR1")
		r.await("log file")
		if m := r.await("log file"); !strings.HasSuffix(m.String(), "is written to again lost=3") {
			t.Errorf("said %q", m)
		}
		emit(t, stdout, " 3.\n")
		stdout.Close()
		stderr.Close()
		r.end()
		text := content(t, path)
		want := "hotwrap: 3 lines lost: no space left on device\nline 3.\n"
		if stamp {
			text = regexp.MustCompile(`(?m)^\S+Z (-|1) `).ReplaceAllString(text, "")
		}
		if text != want {
			t.Errorf("got %q, want %q", text, want)
		}
	}
}

// FuzzWriter: however writes fail, and after how many bytes, only whole lines come out, in order, and the
// rest is counted. Each byte is one write: how much it takes, and what it fails with.
func FuzzWriter(f *testing.F) {
	f.Add([]byte{255, 3, 128, 3, 0, 64, 200, 1, 1, 1, 130, 5, 255})
	f.Add([]byte{1, 128, 1, 128, 1, 128, 1, 128, 1, 128, 1, 128, 127, 127, 127})
	f.Add([]byte{9, 192, 9, 160, 9, 129, 9, 129, 40, 136, 50, 50, 170, 3, 3})
	null, err := os.OpenFile(os.DevNull, os.O_WRONLY, 0)
	if err != nil {
		f.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	f.Fuzz(func(t *testing.T, script []byte) {
		script = script[:min(len(script), 1000)]
		var out bytes.Buffer
		d := newDestination("test", "", false, nil)
		close(d.over) // nobody takes notes
		d.write = func(_ int, b []byte) (int, error) {
			if len(script) == 0 {
				return out.Write(b)
			}
			op := script[0]
			script = script[1:]
			switch {
			case op >= 224:
				return -1, unix.EINTR
			case op >= 208:
				return -1, unix.EAGAIN
			case op >= 128:
				return -1, unix.ENOSPC
			}
			return out.Write(b[:min(int(op)+1, len(b))])
		}
		w := &writer{d: d, fd: fd, regular: len(script)%2 == 0}
		n := 0
		for i := range 3 * (len(script) + 1) {
			var text []byte
			for range 1 + i%4 {
				text = fmt.Appendf(text, "line %d %s.\n", n, strings.Repeat("x", n%50))
				n++
			}
			w.put(text)
		}
		w.put(nil)
		there, lost := tallyLines(t, out.String())
		if w.lost != 0 || len(w.rest) != 0 || there+lost != n {
			t.Errorf("%d there, %d lost, %d and %q owed, want %d", there, lost, w.lost, w.rest, n)
		}
	})
}

// Lines of others that write to the same pipe are not torn: no write is larger than the pipe takes in one piece.
func TestPortion(t *testing.T) {
	line := strings.Repeat("x", 999) + "\n"
	long := strings.Repeat("y", 9999) + "\n"
	for _, c := range []struct {
		text    string
		regular bool
		want    int
	}{
		{line, false, 1000},
		{strings.Repeat(line, 10), false, 4000},
		{strings.Repeat(line, 10), true, 10_000},
		{long + line, false, 4096}, // this one can only be torn
		{line + long, false, 1000},
	} {
		w := &writer{regular: c.regular}
		if got := w.portion([]byte(c.text)); got != c.want {
			t.Errorf("portion of %d bytes: %d, want %d", len(c.text), got, c.want)
		}
	}
}

// A line that the old file has begun ends in the old file; where that cannot be, it is counted in the new one.
func TestReopenAfterCut(t *testing.T) {
	for _, full := range []bool{false, true} {
		path := filepath.Join(t.TempDir(), "app.log")
		fd, err := openLog(path)
		if err != nil {
			t.Fatal(err)
		}
		d := newDestination("test", path, false, nil)
		close(d.over) // nobody takes notes
		room := 10
		d.write = func(to int, b []byte) (int, error) {
			if to != fd {
				return unix.Write(to, b)
			}
			if room == 0 {
				return -1, unix.ENOSPC
			}
			n, err := unix.Write(to, b[:min(room, len(b))])
			room -= n
			return n, err
		}
		w := &writer{d: d, fd: fd, regular: true}
		w.put([]byte("line 0.\nline 1.\n"))
		if err := os.Rename(path, path+".old"); err != nil {
			t.Fatal(err)
		}
		wantOld, wantNew := "line 0.\nline 1.\n", "line 2.\n"
		if full {
			wantOld, wantNew = "line 0.\nli", "hotwrap: 1 line lost: no space left on device\nline 2.\n"
		} else {
			room = 100
		}
		w.reopen("SIGUSR1")
		w.put([]byte("line 2.\n"))
		if old, now := content(t, path+".old"), content(t, path); old != wantOld || now != wantNew {
			t.Errorf("full %v: old %q, new %q", full, old, now)
		}
		unix.Close(w.fd)
	}
}

// TestForeignLink: root's log does not go where the program's user has put a symlink to; root's own links are followed.
func TestForeignLink(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	dir := t.TempDir()
	victim, link := filepath.Join(dir, "victim"), filepath.Join(dir, "log", "app.log")
	if err := os.Mkdir(filepath.Dir(link), 0o755); err != nil { //nolint:gosec // as those of logs are
		t.Fatal(err)
	}
	for _, c := range []struct {
		dir, link int // owners
		want      error
	}{{0, 0, nil}, {0, 65534, errForeignLink}, {65534, 65534, errForeignLink}, {65534, 0, errForeignLink}} {
		_ = os.Remove(link)
		err := errors.Join(os.Symlink(victim, link), os.Lchown(link, c.link, -1), os.Chown(filepath.Dir(link), c.dir, -1))
		if err != nil {
			t.Fatal(err)
		}
		fd, err := openLog(link)
		if err == nil {
			_ = unix.Close(fd)
		}
		if !errors.Is(err, c.want) {
			t.Errorf("directory of %d, symlink of %d: %v, want %v", c.dir, c.link, err, c.want)
		}
		if _, err := os.Lstat(victim); (err == nil) != (c.want == nil) {
			t.Errorf("directory of %d, symlink of %d: the other file: %v", c.dir, c.link, err)
		}
		_ = os.Remove(victim)
	}
	fd, err := openLog("/dev/null")
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.Close(fd)
}
