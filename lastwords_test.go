package main

import (
	"bytes"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"unicode/utf8"
)

func TestRing(t *testing.T) {
	for size := 1; size <= 3*tailMost; size += 7919 {
		r := &ring{}
		var all []byte
		for i := 0; len(all) < 3*tailMost; i++ {
			b := append(bytes.Repeat([]byte{'a' + byte(i%26)}, size-1), '\n')
			all = append(all, b...)
			r.write(b)
		}
		want := all[len(all)-tailMost:]
		if cut := bytes.IndexByte(want, '\n') + 1; cut < len(want) {
			want = want[cut:]
		}
		if got := r.text(); !bytes.Equal(got, want) {
			t.Errorf("lines of %d: got %d bytes, want %d", size, len(got), len(want))
		}
	}
	r := &ring{}
	r.write([]byte("a\nb\n"))
	if got := string(r.text()); got != "a\nb\n" {
		t.Errorf("got %q", got)
	}
	var none *ring
	none.write([]byte("a"))
	if got := none.text(); got != nil {
		t.Errorf("got %q", got)
	}
}

// Who asks gets what was written before that, even if nobody had read it yet.
func TestTailIsFresh(t *testing.T) {
	r := newLogFile(t, config{})
	stdout, stderr := r.start(1, 1)
	for i := range 200 {
		emit(t, stdout, fmt.Sprintf("out %d\n", i))
		emit(t, stderr, fmt.Sprintf("err %d\n", i))
		got := r.tail(1)
		if len(got) != 2*(i+1) || !slices.Contains(got, fmt.Sprintf("out %d", i)) || !slices.Contains(got, fmt.Sprintf("err %d", i)) {
			t.Fatalf("after %d: %q", i, got[max(0, len(got)-4):])
		}
	}
	emit(t, stderr, "panic: unfinished")
	stderr.Close()
	if got := r.tail(1); got[len(got)-1] != "panic: unfinished" {
		t.Errorf("got %q", got[len(got)-1])
	}
}

// The last eight that ended are remembered, and all that live.
func TestTailsKept(t *testing.T) {
	r := newLogFile(t, config{})
	const workers = 30
	for serial := 1; serial <= workers; serial++ {
		stdout, stderr := r.start(serial, 1)
		emit(t, stdout, fmt.Sprintf("I am %d\n", serial))
		if serial%2 == 0 {
			stdout.Close()
			stderr.Close()
			r.gone(serial)
			r.gone(serial) // once is enough
		}
	}
	for serial := 0; serial <= workers+1; serial++ {
		var want []string
		if serial > 0 && serial <= workers && (serial%2 == 1 || serial > workers-2*endedKept) {
			want = []string{fmt.Sprintf("I am %d", serial)}
		}
		if got := r.tail(serial); !slices.Equal(got, want) {
			t.Errorf("%d: %q, want %q", serial, got, want)
		}
	}
}

// A reader that waits for a slow destination does not hold up who asks.
func TestTailDoesNotWait(t *testing.T) {
	r := newLogFile(t, config{})
	stuck := newDestination("nowhere", "", false, nil) // nobody runs it
	r.to[0] = stuck
	stdout, _ := r.start(1, 1)
	emit(t, stdout, "one\n")
	for len(r.tail(1)) == 0 { // until the reader is stuck with it
	}
	emit(t, stdout, "two\n")
	if got, want := r.tail(1), []string{"one"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
	r.to[0] = r.to[1]
	close(stuck.over)
	for !slices.Equal(r.tail(1), []string{"one", "two"}) {
	}
}

func TestPlainLines(t *testing.T) {
	for _, c := range []struct{ text, want string }{
		{"a\tb", "a\tb"},
		{"\x1b[1;31mred\x1b[0m \x1b]0;title\x07done\r", "red done"},
		{"bad \xff byte\x00\x07", "bad \ufffd byte"},
		{"turned \u202eback\u2028", "turned back"},
		{strings.Repeat("ä", 300), strings.Repeat("ä", 250)},
		{strings.Repeat("x", 499) + "ä", strings.Repeat("x", 499)},
		{"\x1b[", "["},
	} {
		got := plainLines([]string{c.text})
		if len(got) != 1 || got[0] != c.want || len(got[0]) > wordMost || !utf8.ValidString(got[0]) {
			t.Errorf("%q: got %q, want %q", c.text, got, c.want)
		}
	}
	var many []string
	for i := range 50 {
		many = append(many, fmt.Sprint(i))
	}
	if got := plainLines(many); !slices.Equal(got, many[30:]) {
		t.Errorf("got %q", got)
	}
}

func TestLastWordsCaptured(t *testing.T) {
	r := newLogFile(t, config{})
	stdout, _ := r.start(1, 1)
	emit(t, stdout, "\x1b[31mcannot connect to the database\x1b[0m\n")
	lines, from, hint := r.lastWords(1, 4398)
	if !slices.Equal(lines, []string{"cannot connect to the database"}) || from != r.path || hint != "" {
		t.Errorf("%q from %q, hint %q", lines, from, hint)
	}
	if lines, _, _ := r.lastWords(2, 4398); len(lines) > 0 {
		t.Errorf("nobody's: %q", lines)
	}
}

// Without capture the last lines come from the file that standard error is, from where it ended when the worker was started.
func TestLastWordsFromFile(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("no /proc")
	}
	path := filepath.Join(t.TempDir(), "err.log")
	f, err := os.OpenFile(path, os.O_CREATE|os.O_WRONLY|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	o := &outputs{own: newOwnStderr(int(f.Fd()), true)} // a file, whatever JOURNAL_STREAM says
	ask := func(serial int, want ...string) {
		t.Helper()
		lines, from, hint := o.lastWords(serial, 4398)
		if !slices.Equal(lines, want) || from != path || hint != "" {
			t.Errorf("%d: %.300q from %q, hint %q, want %.300q", serial, lines, from, hint, want)
		}
	}
	emit(t, f, "an earlier run\nhotwrap: listening\n")
	o.own.began(1)
	ask(1)
	emit(t, f, "one\nhotwrap: generation 1 ready\ntwo\n")
	ask(1, "one", "two")
	o.own.began(2)
	emit(t, f, "three\nunfinished")
	ask(1, "one", "two", "three", "unfinished")
	ask(2, "three", "unfinished")

	emit(t, f, "\n"+strings.Repeat(strings.Repeat("x", 999)+"\n", 100)+"end\n")
	lines, _, _ := o.lastWords(1, 1)
	if len(lines) != wordsMost || lines[wordsMost-1] != "end" || len(lines[0]) != wordMost {
		t.Errorf("%d lines, the last %q", len(lines), lines[len(lines)-1])
	}

	if err := os.Truncate(path, 0); err != nil {
		t.Fatal(err)
	}
	emit(t, f, "after it was cut off\n")
	ask(2, "after it was cut off")

	for serial := 3; serial < 40; serial++ {
		o.own.began(serial)
		o.own.gone(serial)
	}
	if lines, from, _ := o.lastWords(3, 1); lines != nil || from != "" {
		t.Errorf("forgotten: %q from %q", lines, from)
	}
	m := <-o.own.marks
	if len(m.Size) != 2+endedKept || len(m.Ended) != endedKept {
		t.Errorf("%d marks, %d ended", len(m.Size), len(m.Ended))
	}
}

func TestLastWordsElsewhere(t *testing.T) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	fd := int(null.Fd())
	lines, from, hint := (&outputs{own: newOwnStderr(fd, true)}).lastWords(1, 4398)
	if lines != nil || from != "journal" || hint != "journalctl _PID=4398 -n 20 --no-pager" {
		t.Errorf("journal: %q, %q, %q", lines, from, hint)
	}
	lines, from, hint = (&outputs{own: newOwnStderr(fd, false)}).lastWords(1, 4398)
	if lines != nil || from != "" || hint != "" {
		t.Errorf("nowhere: %q, %q, %q", lines, from, hint)
	}
}
