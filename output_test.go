package main

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"path/filepath"
	"regexp"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const outputPatience = 20 * time.Second

// outputRun is outputs with the messages that they have for the supervisor.
type outputRun struct {
	*outputs
	t      *testing.T
	events chan event
	path   string
}

func newLogFile(t *testing.T, cfg config) *outputRun {
	t.Helper()
	if cfg.logFile == "" {
		cfg.logFile = filepath.Join(t.TempDir(), "app.log")
	}
	events := make(chan event, 64)
	o := newOutputs(&cfg, nil, events)
	if err := o.openFile(cfg.logFile); err != nil {
		t.Fatal(err)
	}
	r := &outputRun{outputs: o, t: t, events: events, path: cfg.logFile}
	t.Cleanup(func() { r.end() })
	return r
}

// end is what hotwrap does at its end.
func (r *outputRun) end() []message {
	limit, cancel := context.WithTimeout(context.Background(), outputPatience)
	defer cancel()
	return append(r.finish(limit), r.close(limit)...)
}

func (r *outputRun) start(serial, generation int) (stdout, stderr *os.File) {
	r.t.Helper()
	ends, err := r.begin(serial, generation, -1, -1)
	if err != nil {
		r.t.Fatal(err)
	}
	stdout, stderr = os.NewFile(uintptr(ends[0]), "stdout"), os.NewFile(uintptr(ends[1]), "stderr")
	r.t.Cleanup(func() { stdout.Close(); stderr.Close() })
	return stdout, stderr
}

// await waits for a message that begins so.
func (r *outputRun) await(text string) message {
	r.t.Helper()
	for {
		select {
		case ev := <-r.events:
			if strings.HasPrefix(ev.message.String(), text) {
				return ev.message
			}
		case <-time.After(outputPatience):
			r.t.Fatalf("nothing said that begins with %q", text)
		}
	}
}

func emit(t *testing.T, f *os.File, text string) {
	t.Helper()
	if _, err := f.WriteString(text); err != nil {
		t.Error(err)
	}
}

func content(t *testing.T, path string) string {
	t.Helper()
	text, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// Whatever the pieces in which a program writes, whole lines come out, byte for byte.
func TestOutputPieces(t *testing.T) {
	long := strings.Repeat("0123456789abcdef", 3*lineMost/16)
	for name, c := range map[string]struct {
		pieces []string
		want   string
	}{
		"whole":      {[]string{"a\nb\n"}, "a\nb\n"},
		"torn":       {[]string{"a", "b\nc", "\n", "\n", "d\ne", "f"}, "ab\nc\n\nd\nef\n"},
		"unfinished": {[]string{"no newline"}, "no newline\n"},
		"nothing":    {nil, ""},
		"binary":     {[]string{"\x00\xff\xfe\r\n\x1b[31m\r", "\xc3", "\xa4\n"}, "\x00\xff\xfe\r\n\x1b[31m\r\xc3\xa4\n"},
		"long": {
			[]string{"a\n", long[:70000], long[70000:] + "b\nc\n"},
			"a\n" + long[:lineMost] + "\n" + long[lineMost:2*lineMost] + "\n" + long[2*lineMost:] + "\nb\nc\n",
		},
		"the longest": {[]string{long[:lineMost-1], "\n"}, long[:lineMost-1] + "\n"},
	} {
		t.Run(name, func(t *testing.T) {
			r := newLogFile(t, config{})
			stdout, stderr := r.start(1, 1)
			for _, text := range c.pieces {
				emit(t, stderr, text)
			}
			stderr.Close()
			stdout.Close()
			if said := r.end(); len(said) > 0 {
				t.Error(said)
			}
			if got := content(t, r.path); got != c.want {
				t.Errorf("got %d bytes %.200q, want %d bytes %.200q", len(got), got, len(c.want), c.want)
			}
		})
	}
}

// The stamp is the time of a line's first byte, and its generation.
func TestOutputStamp(t *testing.T) {
	r := newLogFile(t, config{logStamp: true})
	stdout, stderr := r.start(1, 12)
	began := time.Now()
	emit(t, stdout, "begun ")
	_ = r.tail(1) // it was read
	between := time.Now()
	time.Sleep(2 * time.Millisecond) // stamps are not finer than that
	emit(t, stdout, "and finished\nnext\n")
	stdout.Close()
	stderr.Close()
	r.end()
	lines := strings.Split(content(t, r.path), "\n")
	form := regexp.MustCompile(`^(\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z) 12 (begun and finished|next)$`)
	var times []time.Time
	for _, line := range lines[:len(lines)-1] {
		found := form.FindStringSubmatch(line)
		if found == nil {
			t.Fatalf("got %q", line)
		}
		at, err := time.Parse(time.RFC3339Nano, found[1])
		if err != nil {
			t.Fatal(err)
		}
		times = append(times, at)
	}
	if len(times) != 2 || times[0].Before(began.Truncate(time.Millisecond)) || times[0].After(between) || times[1].Before(between.Truncate(time.Millisecond)) {
		t.Errorf("began %v, between %v, got %v", began, between, times)
	}
}

// What was written before a rotation is in the old file, also what nobody had read from the pipe yet.
func TestOutputReopen(t *testing.T) {
	r := newLogFile(t, config{})
	stdout, stderr := r.start(1, 1)
	const rounds = 100
	for i := range rounds {
		emit(t, stdout, fmt.Sprintf("out %d\ntorn ", i))
		emit(t, stderr, fmt.Sprintf("err %d\n", i))
		if err := os.Rename(r.path, fmt.Sprintf("%s.%d", r.path, i)); err != nil {
			t.Fatal(err)
		}
		if !r.reopen("SIGUSR1") {
			t.Fatal("no log file")
		}
		r.await("log file")
		emit(t, stdout, "line\n")
	}
	stdout.Close()
	stderr.Close()
	r.end()
	for i := range rounds {
		got := strings.Split(content(t, fmt.Sprintf("%s.%d", r.path, i)), "\n")
		want := []string{"", fmt.Sprintf("err %d", i), fmt.Sprintf("out %d", i), "torn line"}
		if i == 0 {
			want = want[:3]
		}
		slices.Sort(got)
		if !slices.Equal(got, want) {
			t.Fatalf("file %d: got %q, want %q", i, got, want)
		}
	}
	if got := content(t, r.path); got != "torn line\n" {
		t.Errorf("the last file has %q", got)
	}
}

// Without a new file the old one goes on, and a warning says so.
func TestOutputReopenFails(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "logs")
	if err := os.Mkdir(dir, 0o700); err != nil {
		t.Fatal(err)
	}
	r := newLogFile(t, config{logFile: filepath.Join(dir, "app.log")})
	stdout, _ := r.start(1, 1)
	emit(t, stdout, "one\n")
	if err := os.Rename(dir, dir+".away"); err != nil {
		t.Fatal(err)
	}
	r.reopen("SIGUSR1")
	if m := r.await("cannot open log file"); m.level != levelWarning || !strings.HasSuffix(m.String(), "no such file or directory by=SIGUSR1; the old one is written on") {
		t.Errorf("said %q", m)
	}
	emit(t, stdout, "two\n")
	r.end()
	if got := content(t, filepath.Join(dir+".away", "app.log")); got != "one\ntwo\n" {
		t.Errorf("got %q", got)
	}
}

// A file that is cut off where it stands is written on from its new end.
func TestOutputCutOff(t *testing.T) {
	r := newLogFile(t, config{})
	stdout, _ := r.start(1, 1)
	emit(t, stdout, strings.Repeat("before\n", 1000))
	written := func(n int) {
		t.Helper()
		for until := time.Now().Add(outputPatience); len(content(t, r.path)) < n; time.Sleep(time.Millisecond) {
			if time.Now().After(until) {
				t.Fatal("not written")
			}
		}
	}
	written(7000)
	if err := os.Truncate(r.path, 0); err != nil {
		t.Fatal(err)
	}
	emit(t, stdout, "after\n")
	written(6)
	if got := content(t, r.path); got != "after\n" {
		t.Errorf("got %q", got)
	}
}

// 100,000 lines of overlapping generations, over rotations: each is there once, whole, and in order.
func TestOutputEveryLineOnce(t *testing.T) {
	const generations, rotations = 10, 25
	for stamp, lines := range map[bool]int{false: 5000, true: 500} {
		r := newLogFile(t, config{logStamp: stamp})
		rotate := make(chan struct{})
		var rotated sync.WaitGroup
		files := 0
		rotated.Go(func() {
			for range rotate {
				if err := os.Rename(r.path, fmt.Sprintf("%s.%d", r.path, files)); err != nil {
					t.Error(err)
				}
				files++
				r.reopen("SIGUSR1")
				r.await("log file")
			}
		})
		var workers sync.WaitGroup
		for g := range generations {
			stdout, stderr := r.start(g, g)
			var streams sync.WaitGroup
			for i, f := range []*os.File{stdout, stderr} {
				streams.Go(func() { writeTorn(t, f, fmt.Sprintf("<%d.%d", g, i), lines) })
			}
			workers.Go(func() {
				streams.Wait()
				r.gone(g)
			})
			if g%2 == 1 {
				workers.Wait()
			}
			for range rotations / generations {
				rotate <- struct{}{}
			}
		}
		workers.Wait()
		close(rotate)
		rotated.Wait()
		if said := r.end(); len(said) > 0 {
			t.Error(said)
		}
		var all strings.Builder
		for i := range files {
			all.WriteString(content(t, fmt.Sprintf("%s.%d", r.path, i)))
		}
		all.WriteString(content(t, r.path))
		checkLines(t, all.String(), 2*generations, lines)
	}
}

// writeTorn writes numbered lines in pieces that end anywhere.
func writeTorn(t *testing.T, f *os.File, name string, lines int) {
	defer f.Close()
	var text bytes.Buffer
	for i := range lines {
		fmt.Fprintf(&text, "%s %d %s>\n", name, i, strings.Repeat("x", i%200))
	}
	text.Truncate(text.Len() - 1) // the last one is ended by the end
	random := rand.New(rand.NewPCG(1, uint64(lines)))
	for text.Len() > 0 {
		if _, err := f.Write(text.Next(1 + random.IntN(3000))); err != nil {
			t.Error(err)
			return
		}
	}
}

func checkLines(t *testing.T, text string, streams, lines int) {
	t.Helper()
	form := regexp.MustCompile(`^(?:\S+Z \d+ )?<(\d+\.\d+) (\d+) (x*)>$`)
	next := map[string]int{}
	for line := range strings.SplitSeq(strings.TrimSuffix(text, "\n"), "\n") {
		found := form.FindStringSubmatch(line)
		if found == nil {
			t.Fatalf("torn: %q", line)
		}
		i, _ := strconv.Atoi(found[2])
		if next[found[1]] != i || len(found[3]) != i%200 {
			t.Fatalf("stream %s: line %d comes where %d should: %q", found[1], i, next[found[1]], line)
		}
		next[found[1]]++
	}
	if len(next) != streams {
		t.Errorf("%d streams, want %d", len(next), streams)
	}
	for name, n := range next {
		if n != lines {
			t.Errorf("stream %s has %d lines, want %d", name, n, lines)
		}
	}
}

// What outlives its worker and holds the pipes holds up nothing, and is still read.
func TestOutputLeftBehind(t *testing.T) {
	r := newLogFile(t, config{})
	stdout, stderr := r.start(1, 1)
	emit(t, stdout, "worker\nunfinished")
	r.gone(1)
	if got, want := r.tail(1), []string{"worker", "unfinished"}; !slices.Equal(got, want) {
		t.Errorf("the tail is %q, want %q", got, want)
	}
	emit(t, stderr, "grandchild\n")
	if got := r.tail(1); !slices.Contains(got, "grandchild") {
		t.Errorf("the tail is %q", got)
	}
	emit(t, stdout, "its last words")
	if said := r.end(); len(said) > 0 {
		t.Error(said)
	}
	if got, want := content(t, r.path), "worker\nunfinished\ngrandchild\nits last words\n"; got != want {
		t.Errorf("got %q, want %q", got, want)
	}
	if _, err := stdout.WriteString("x"); err != nil && runtime.GOOS == "linux" {
		t.Errorf("who outlives hotwrap cannot write any more: %v", err)
	}
}

// Nothing asked for costs nothing.
func TestOutputInherited(t *testing.T) {
	before := runtime.NumGoroutine()
	o := newOutputs(&config{}, nil, nil)
	if err := o.openFile(""); err != nil {
		t.Fatal(err)
	}
	ends, err := o.begin(1, 1, -1, -1)
	if err != nil || ends != [2]int{} || o.reopen("SIGUSR1") || o.voice(os.Stderr) != os.Stderr || len(o.ignore()) > 0 {
		t.Errorf("ends %v, %v", ends, err)
	}
	o.gone(1)
	if said := append(o.finish(context.Background()), o.close(context.Background())...); len(said) > 0 {
		t.Error(said)
	}
	if n := runtime.NumGoroutine(); n > before {
		t.Errorf("%d goroutines more", n-before)
	}
}

// A program finds blocking pipes, and nobody else has them.
func TestOutputPipe(t *testing.T) {
	r := newLogFile(t, config{})
	stdout, stderr := r.start(1, 1)
	for _, f := range []*os.File{stdout, stderr} {
		fd := f.Fd()
		flags, err := unix.FcntlInt(fd, unix.F_GETFL, 0)
		if err != nil || flags&unix.O_NONBLOCK != 0 {
			t.Errorf("flags %#o, %v", flags, err)
		}
		if flags, err := unix.FcntlInt(fd, unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor flags %#o, %v", flags, err)
		}
	}
	if st, err := os.Stat(r.path); err != nil || st.Mode().Perm() != 0o600 {
		t.Errorf("mode %v, %v", st.Mode(), err)
	}
}

func TestLogFileErrors(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o600); err != nil {
		t.Fatal(err)
	}
	for name, want := range map[string]string{
		"none/app.log": "no such file or directory|mkdir -p " + dir + "/none",
		"":             "is a directory|name a file",
		"fifo":         "|it is a fifo that nobody reads",
	} {
		o := newOutputs(&config{logFile: "x"}, nil, nil)
		err := o.openFile(dir + "/" + name)
		cause, hint, _ := strings.Cut(want, "|")
		if err == nil || execStatus(err) != statusFailed || !strings.Contains(err.Error(), cause) || !strings.HasPrefix(remedyFor(err), hint) {
			t.Errorf("%q: %v, hint %q", name, err, remedyFor(err))
		}
	}
}

// Both streams of the program go to one file as one, and hotwrap's own messages are in line.
func TestOutputCapture(t *testing.T) {
	read, write2, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	fd := int(write2.Fd())
	other, err := unix.Dup(fd)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan event, 64)
	r := &outputRun{outputs: &outputs{events: events, tails: newTails()}, t: t, events: events}
	r.capture(fd, other)
	if r.to[0] != r.to[1] {
		t.Error("one pipe is two destinations")
	}
	const streams, lines = 4, 500
	text := make(chan string, 1)
	go func() {
		all, _ := io.ReadAll(read)
		text <- string(all)
	}()
	var writers sync.WaitGroup
	for g := range streams / 2 {
		stdout, stderr := r.start(g, g)
		writers.Go(func() { writeTorn(t, stdout, fmt.Sprintf("<%d.0", g), lines) })
		writers.Go(func() { writeTorn(t, stderr, fmt.Sprintf("<%d.1", g), lines) })
	}
	voice := r.voice(nil)
	for range 100 {
		fmt.Fprintln(voice, "hotwrap: says something")
	}
	writers.Wait()
	r.end()
	write2.Close()
	unix.Close(other)
	got := <-text
	if n := len(regexp.MustCompile(`(?m)^hotwrap: says something$`).FindAllString(got, -1)); n != 100 {
		t.Errorf("%d messages, want 100", n)
	}
	checkLines(t, strings.ReplaceAll(got, "hotwrap: says something\n", ""), streams, lines)
}

// replaced is r after hotwrap was replaced by another.
func (r *outputRun) replaced(cfg config) *outputRun {
	r.t.Helper()
	limit, cancel := context.WithTimeout(context.Background(), outputPatience)
	defer cancel()
	b := &baggage{}
	c := r.carry(b, limit)
	moved := execed(r.t, b, func() {
		for s := range r.tails.open {
			s.file.Close()
		}
		for _, d := range r.places() {
			if d.path != "" {
				unix.Close(d.writer.fd)
			}
			unix.Close(d.wake[0])
			unix.Close(d.wake[1])
		}
	})
	events := make(chan event, 64)
	o, err := restoreOutputs(&cfg, nil, events, through(r.t, c, moved))
	if err != nil {
		r.t.Fatal(err)
	}
	close(r.tails.do)
	r.outputs = &outputs{}
	return &outputRun{outputs: o, t: r.t, events: events, path: r.path}
}

// TestOutputCarried: no line is lost, doubled or torn, however often hotwrap is replaced while the program writes; what a
// worker said last is known afterwards, and a rotation goes on.
func TestOutputCarried(t *testing.T) {
	cfg := config{logStamp: true, logFile: filepath.Join(t.TempDir(), "app.log")}
	r := newLogFile(t, cfg)
	stdout, stderr := r.start(3, 7)
	const lines = 20_000
	var writers sync.WaitGroup
	for k, f := range []*os.File{stdout, stderr} {
		writers.Go(func() {
			for i := range lines {
				text := fmt.Sprintf("%c line %d %s.\n", 'a'+k, i, strings.Repeat("x", i%300))
				for piece := range slices.Chunk([]byte(text), 1+i%170) {
					emit(t, f, string(piece))
				}
			}
			emit(t, f, "unfinished")
		})
	}
	done := make(chan struct{})
	go func() { writers.Wait(); close(done) }()
	files, fds := []string{cfg.logFile}, 0
	for i := 0; i < 50 || !isClosed(done); i++ {
		if i%10 == 5 {
			files = append(files, fmt.Sprintf("%s.%d", cfg.logFile, i))
			if err := os.Rename(cfg.logFile, files[len(files)-1]); err != nil {
				t.Fatal(err)
			}
			r.reopen("test")
			r.await("log file")
		}
		_ = r.tail(3)
		r = r.replaced(cfg)
		r.outputs.start()
		if n := openDescriptors(t); fds == 0 {
			fds = n
		} else if n > fds+4 {
			t.Fatalf("%d descriptors after %d times, %d at first", n, i, fds)
		}
	}
	words, from, _ := r.lastWords(3, 0)
	if from != cfg.logFile || len(words) != wordsMost || !strings.Contains(words[wordsMost-1], fmt.Sprintf(" line %d ", lines-1)) {
		t.Errorf("last words from %q: %q", from, words)
	}
	stdout.Close()
	stderr.Close()
	r.end()
	var next [2]int
	form := regexp.MustCompile(`^\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z 7 ([ab]) line (\d+) (x*)\.$`)
	unfinished, all := 0, ""
	for _, name := range append(files[1:], files[0]) {
		all += content(t, name)
	}
	for line := range strings.Lines(all) {
		line = strings.TrimSuffix(line, "\n")
		if strings.HasSuffix(line, " 7 unfinished") {
			unfinished++
			continue
		}
		found := form.FindStringSubmatch(line)
		if found == nil {
			t.Fatalf("torn: %q", line)
		}
		k := found[1][0] - 'a'
		if found[2] != strconv.Itoa(next[k]) || len(found[3]) != next[k]%300 {
			t.Fatalf("%q instead of line %d", line, next[k])
		}
		next[k]++
	}
	if next != [2]int{lines, lines} || unfinished != 2 {
		t.Errorf("%v lines and %d unfinished", next, unfinished)
	}
}

// TestStuckCarried: what waits for a reader that does not read goes along, whole and in order, and is written when it does.
func TestStuckCarried(t *testing.T) {
	read, to, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	events := make(chan event, 64)
	d := newDestination("standard output", "", false, events)
	d.run(int(to.Fd()))
	const lines = 5000 // more than the pipe holds, less than the queue
	for i := range lines {
		d.send(fmt.Appendf(nil, "line %d %s.\n", i, strings.Repeat("x", 30+i%2*5000*(i%100/99))))
	}
	for range 10 {
		began := time.Now()
		d.halt(t.Context())
		if took := time.Since(began); took > 5*haltAfter {
			t.Errorf("it took %v", took)
		}
		c := through(t, d.carry(&baggage{}), nil)
		d = newDestination("standard output", "", false, events)
		d.restore(int(to.Fd()), c)
		d.start()
	}
	go func() {
		lost := make(chan int, 1)
		d.order(item{end: lost})
		<-lost
		to.Close()
	}()
	text, err := io.ReadAll(read)
	if err != nil {
		t.Fatal(err)
	}
	i := 0
	for line := range strings.Lines(string(text)) {
		if want := fmt.Sprintf("line %d %s.\n", i, strings.Repeat("x", 30+i%2*5000*(i%100/99))); line != want {
			t.Fatalf("%.60q instead of line %d", line, i)
		}
		i++
	}
	if i != lines {
		t.Errorf("%d lines", i)
	}
}

// TestFullCarried: a line that a full disk has cut off, and what was lost, are made good by the next hotwrap.
func TestFullCarried(t *testing.T) {
	path := filepath.Join(t.TempDir(), "app.log")
	fd, err := openLog(path)
	if err != nil {
		t.Fatal(err)
	}
	events := make(chan event, 64)
	d := newDestination("the disk", path, false, events)
	room := 10
	d.write = func(to int, b []byte) (int, error) {
		if room == 0 {
			return -1, unix.ENOSPC
		}
		n, err := unix.Write(to, b[:min(room, len(b))])
		room -= n
		return n, err
	}
	d.run(fd)
	d.send([]byte("line 0.\nline 1.\nline 2.\n"))
	if ev := <-events; !strings.Contains(ev.message.String(), "no space left") {
		t.Errorf("said: %v", ev.message)
	}
	d.halt(t.Context())
	c := through(t, d.carry(&baggage{}), nil)
	next := newDestination("the disk", path, false, events)
	next.restore(fd, c)
	next.start()
	next.send([]byte("line 3.\n"))
	if ev := <-events; !strings.Contains(ev.message.String(), "is written to again") {
		t.Errorf("said: %v", ev.message)
	}
	lost := make(chan int, 1)
	next.order(item{end: lost})
	<-lost
	if got, want := content(t, path), "line 0.\nline 1.\nhotwrap: 1 line lost: no space left on device\nline 3.\n"; got != want {
		t.Errorf("%q, want %q", got, want)
	}
}

// TestCarriedEnd: a reader that could not be halted in time finds the end of its pipe before the exec, or has found it just
// before: what is carried does not depend on what it closes.
func TestCarriedEnd(t *testing.T) {
	tails, b := newTails(), &baggage{}
	defer close(tails.do)
	var files []*os.File
	for range 2 {
		read, write, err := os.Pipe()
		if err != nil {
			t.Fatal(err)
		}
		write.Close()
		files = append(files, read)
		tails.open[&outStream{file: read, worker: &tailed{}}] = struct{}{}
	}
	files[0].Close()
	c := tails.carry(b)
	files[1].Close()
	if len(c.Streams) != 1 || !slices.Equal(b.fds, []int{c.Streams[0].FD}) {
		t.Fatalf("carried %+v with %v", c.Streams, b.fds)
	}
	if _, err := unix.FcntlInt(uintptr(c.Streams[0].FD), unix.F_GETFD, 0); err != nil {
		t.Errorf("what was carried is closed: %v", err)
	}
	_ = unix.Close(c.Streams[0].FD)
}
