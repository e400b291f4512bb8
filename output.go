package main

// This file takes the program's standard output and error through hotwrap, where --log-file or --capture asks for it.
//
// Its rules:
//   - Not asked for, there is no pipe and no goroutine: the program inherits what hotwrap has.
//   - Only whole lines go on. What a process leaves unfinished is finished by what follows, or by its end.
//   - One goroutine reads each pipe; who wants to know what is in it now, says so and is answered.
//   - A pipe belongs to one worker. What outlives the worker and holds it is read on, and waited for by nobody.
//   - Carried to another hotwrap, no line is lost, doubled or torn: what has been read goes along, what has not waits in the
//     pipes.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lineMost  = 64 << 10    // bytes of a line; a longer one goes on in several
	lineRoom  = 4 << 10     // bytes that a pipe's reader begins with; it takes more when the pipe is full
	drainMost = 1 << 20     // bytes read for one answer: as much as a pipe ever holds (pipe(7), pipe-max-size)
	endLimit  = time.Second // for what is in the pipes when hotwrap ends
)

// outputs is what becomes of the output of all workers.
type outputs struct {
	stamp  bool
	events chan<- event
	path   string          // --log-file, absolute
	to     [2]*destination // of stdout and stderr; nil: inherited
	tails  *tails          // nil: the same
	own    *ownStderr      // where its last lines are to be found then
}

// newOutputs prepares what cfg asks for, but opens no file: see openFile.
func newOutputs(cfg *config, environ []string, events chan<- event) *outputs {
	o := &outputs{stamp: cfg.logStamp, events: events}
	switch {
	case cfg.capture:
		o.tails = newTails()
		o.capture(1, 2)
	case cfg.logFile == "":
		o.own = newOwnStderr(2, isJournal(getenv(environ, "JOURNAL_STREAM")))
	}
	return o
}

// capture lets lines go to hotwrap's own descriptors. If both are the same file, one destination is
// enough, and keeps their lines apart.
func (o *outputs) capture(stdout, stderr int) {
	o.to[0] = newDestination("standard output", "", o.stamp, o.events)
	o.to[0].run(stdout)
	o.to[1] = o.to[0]
	if !sameTarget(stdout, stderr) {
		o.to[1] = newDestination("standard error", "", o.stamp, o.events)
		o.to[1].run(stderr)
	}
}

func sameTarget(a, b int) bool {
	var x, y unix.Stat_t
	return unix.Fstat(a, &x) == nil && unix.Fstat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// openFile opens --log-file, if there is one.
func (o *outputs) openFile(name string) error {
	if name == "" {
		return nil
	}
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot find the current directory: %v", err)
	}
	o.path = filepathFrom(dir, name)
	fd, err := openLog(o.path)
	if err != nil {
		return &execError{
			text: fmt.Sprintf("cannot open log file %q: %v", o.path, err), code: statusFailed, cause: err, hint: logFileHint(o.path, err),
		}
	}
	o.tails = newTails()
	d := newDestination(fmt.Sprintf("log file %q", o.path), o.path, o.stamp, o.events)
	d.run(fd)
	o.to = [2]*destination{d, d}
	return nil
}

// ignore is what the watch need not look at: the log file is nobody's source.
func (o *outputs) ignore() []string {
	if o.path == "" {
		return nil
	}
	return []string{strings.NewReplacer(`\`, `\\`, `*`, `\*`, `?`, `\?`, `[`, `\[`, ` `, `\ `).Replace(filepath.Base(o.path))}
}

// logFileHint is what to do about a log file that cannot be opened; "" where that is not known.
func logFileHint(path string, err error) string {
	switch {
	case errors.Is(err, unix.ENOENT):
		return "mkdir -p " + filepath.Dir(path)
	case errors.Is(err, unix.EACCES), errors.Is(err, unix.EPERM):
		return fmt.Sprintf("hotwrap writes it as user id %d, whatever --user is: let that one write there", os.Geteuid())
	case errors.Is(err, unix.EISDIR):
		return "name a file in that directory"
	case errors.Is(err, unix.ENXIO):
		return "it is a fifo that nobody reads, or a socket; --capture writes to hotwrap's own standard output"
	}
	return ""
}

// voice is where hotwrap's own messages go: to stderr, but in line with what else goes there.
func (o *outputs) voice(stderr io.Writer) io.Writer {
	if o.path == "" && o.to[1] != nil {
		return o.to[1]
	}
	return stderr
}

// begin opens the pipes of a new worker and begins to read them. Their other ends are for the worker
// alone: the caller closes them after the fork. 0 stands for what hotwrap has itself.
// The pipes belong to the program's user, who may open /dev/stdout; -1 leaves them as they are.
func (o *outputs) begin(serial, generation, uid, gid int) (ends [2]int, err error) {
	if o.own != nil {
		o.own.began(serial)
	}
	if o.tails == nil {
		return ends, nil
	}
	var streams []*outStream
	for i := range ends {
		s := o.stream(i, generation)
		if s.file, ends[i], err = openPipe("output"); err != nil {
			closeEnds(ends)
			for _, s := range streams {
				_ = s.file.Close()
			}
			return [2]int{}, err
		}
		ends[i] = readAndWritten(ends[i])
		if uid >= 0 {
			_ = unix.Fchown(ends[i], uid, gid)
		}
		streams = append(streams, s)
	}
	o.tails.begin(serial, streams)
	return ends, nil
}

// stream is a reader of one of a worker's two.
func (o *outputs) stream(number, generation int) *outStream {
	s := &outStream{to: o.to[number], tails: o.tails, orders: make(chan order, 1), full: true, number: number, generation: generation}
	if o.stamp {
		s.mark = " " + strconv.Itoa(generation) + " "
	}
	return s
}

// closeEnds closes hotwrap's copies of what begin returned.
func closeEnds(ends [2]int) {
	for _, fd := range ends {
		if fd > 0 {
			_ = unix.Close(fd)
		}
	}
}

// gone is told when nothing is left of a worker.
func (o *outputs) gone(serial int) {
	if o.own != nil {
		o.own.gone(serial)
	}
	if o.tails != nil {
		o.tails.gone(serial)
	}
}

// reopen opens the log file anew, after what was written before. It tells whether there is one.
func (o *outputs) reopen(by string) bool {
	if o.path == "" || o.tails == nil {
		return false
	}
	d := o.to[0] // which is let go of meanwhile, if hotwrap ends
	o.tails.reopen(func() { d.order(item{reopen: by}) })
	return true
}

// finish takes in what is in the pipes, after which nothing more is read, and ends the log file. It returns what
// there is to say about that.
func (o *outputs) finish(limit context.Context) []message {
	if o.tails == nil {
		return nil
	}
	select {
	case <-o.tails.end():
	case <-limit.Done():
	}
	if o.path == "" {
		return nil // hotwrap's own last words are still to come
	}
	return o.close(limit)
}

// close writes what waits for the destinations, and ends them.
func (o *outputs) close(limit context.Context) (said []message) {
	to := o.to
	o.to = [2]*destination{}
	for i, d := range to {
		if d == nil || i == 1 && d == to[0] {
			continue
		}
		lost := make(chan int, 1)
		d.order(item{end: lost})
		select {
		case n := <-lost:
			if n > 0 {
				said = append(said, warning("the last lines for %s are lost", d.name).with("lost", n))
			}
		case <-limit.Done():
			said = append(said, warning("the last lines for %s are lost: %s", d.name, d.unread))
		}
	}
	return said
}

// order is something that a reader does once it has read what is in its pipe now.
type order struct {
	flush bool // an unfinished line is one now
	last  bool // then end
	halt  bool // or end where it is, for another hotwrap to go on
	round *round
}

// outStream reads one pipe of a worker.
type outStream struct {
	file   *os.File
	to     *destination
	tails  *tails
	mark   string // what stands between the time and the line; "": neither
	orders chan order

	number, generation int // 0 stdout, 1 stderr; of whom

	held  []byte    // read, but no whole line yet; this and the next two are its own goroutine's
	since time.Time // when that began
	full  bool      // the last read took all that there was room for
	halts bool      // it was ordered to

	worker *tailed // these belong to tails
	queue  []order // the first is under way
	halted bool
}

// run reads until nobody holds the other end any more, or it is told to end. A deadline in the past
// interrupts it: there is an order.
func (s *outStream) run() {
	for more := true; more; {
		n, err := s.file.Read(s.room())
		s.take(n)
		switch {
		case err == nil:
		case errors.Is(err, os.ErrDeadlineExceeded):
			more = s.obey()
		default:
			more = false
		}
	}
	if s.halts {
		s.tails.do <- func() { s.tails.done(s) }
		return
	}
	s.flush()
	_ = s.file.Close()
	s.tails.do <- func() { s.tails.over(s) }
}

// obey follows the order that has come; false means that there is no more to read.
func (s *outStream) obey() bool {
	_ = s.file.SetReadDeadline(time.Time{}) // first: the next order comes only after this one is done
	o := <-s.orders
	if s.halts = o.halt; s.halts {
		return false
	}
	more := s.drain() && !o.last
	if o.flush {
		s.flush()
	}
	if more {
		s.tails.do <- func() { s.tails.done(s) }
	}
	return more
}

// drain reads what is in the pipe now; false means that nobody holds the other end any more.
func (s *outStream) drain() bool {
	conn, err := s.file.SyscallConn()
	if err != nil {
		return false
	}
	for total := 0; total < drainMost; {
		var n int
		var failed error
		room := s.room()
		if err := conn.Control(func(fd uintptr) { n, failed = unix.Read(int(fd), room) }); err != nil {
			return false
		}
		switch {
		case failed == unix.EINTR:
		case failed != nil:
			return failed == unix.EAGAIN
		case n == 0:
			return false
		default:
			s.take(n)
			total += n
		}
	}
	return true
}

// room is where the next bytes go. It grows with the speed of the program.
func (s *outStream) room() []byte {
	if s.full && cap(s.held) < lineMost {
		s.held = append(make([]byte, 0, min(max(4*cap(s.held), lineRoom), lineMost)), s.held...)
	}
	return s.held[len(s.held):cap(s.held)]
}

// take passes on the lines that n more bytes in room complete.
func (s *outStream) take(n int) {
	if n <= 0 {
		return
	}
	from := len(s.held)
	s.held = s.held[:from+n]
	s.full = len(s.held) == cap(s.held)
	now := time.Now()
	if from == 0 {
		s.since = now
	}
	if end := bytes.LastIndexByte(s.held[from:], '\n'); end >= 0 {
		end += from + 1
		s.pass(bytes.Clone(s.held[:end]), now)
		s.held = s.held[:copy(s.held, s.held[end:])]
		s.since = now
	} else if len(s.held) == lineMost {
		s.flush()
	}
}

// flush passes on an unfinished line.
func (s *outStream) flush() {
	if len(s.held) > 0 {
		s.pass(append(bytes.Clone(s.held), '\n'), s.since)
		s.held = s.held[:0]
	}
}

// pass hands on whole lines: to the worker's tail at once, then to where they go, which may take a while.
func (s *outStream) pass(text []byte, now time.Time) {
	s.tails.do <- func() { s.worker.ring.write(text) }
	if s.mark != "" {
		s.to.send(s.stamped(text, now))
	} else {
		s.to.send(text) // of which the tail only reads, and the queue appends to the end
	}
}

// stamped puts the time and the generation before each line; the first may have begun before now.
func (s *outStream) stamped(text []byte, now time.Time) []byte {
	prefix := s.since.UTC().Format(stampForm) + s.mark
	out := make([]byte, 0, len(text)+bytes.Count(text, newline)*len(prefix))
	for line := range bytes.Lines(text) {
		out = append(append(out, prefix...), line...)
		prefix = now.UTC().Format(stampForm) + s.mark
	}
	return out
}

// --- on to another hotwrap

// carriedOutputs is all of it on its way.
type carriedOutputs struct {
	Path  string                `json:"path,omitempty"`
	To    []*carriedDestination `json:"to,omitempty"` // one where both go to the same
	Tails carriedTails          `json:"tails,omitzero"`
	Marks *marks                `json:"marks,omitempty"`
}

// carry ends the readers and writers, what they have left to do goes along. Nothing may be said through voice any more.
// Without baggage it is what a death leaves.
func (o *outputs) carry(b *baggage, limit context.Context) carriedOutputs {
	if o == nil {
		return carriedOutputs{}
	}
	c := carriedOutputs{Path: o.path, Marks: o.own.carry()}
	if b == nil || o.tails == nil {
		return c
	}
	select {
	case <-o.tails.halt():
	case <-limit.Done(): // one waits for a destination, which drops lines by now
	}
	for _, d := range o.places() {
		d.halt(limit)
		c.To = append(c.To, d.carry(b))
	}
	c.Tails = o.tails.carry(b)
	return c
}

// places are the destinations, each once.
func (o *outputs) places() []*destination {
	if o.to[0] == o.to[1] {
		return o.to[:1]
	}
	return o.to[:]
}

// restoreOutputs is newOutputs and openFile for what was carried; nothing is read or written before start.
func restoreOutputs(cfg *config, environ []string, events chan<- event, c carriedOutputs) (*outputs, error) {
	o := &outputs{stamp: cfg.logStamp, events: events, path: c.Path}
	switch {
	case len(c.To) == 0 && !cfg.capture && cfg.logFile == "":
		o = newOutputs(cfg, environ, events)
		o.own.restore(c.Marks)
		return o, nil
	case len(c.To) == 0, c.Path != "" && c.To[0].FD == 0:
		return nil, errors.New("cannot go on with the program's output: its destination did not come along")
	case c.Path != "":
		d := newDestination(fmt.Sprintf("log file %q", c.Path), c.Path, o.stamp, events)
		unix.CloseOnExec(c.To[0].FD)
		d.restore(c.To[0].FD, c.To[0])
		o.to = [2]*destination{d, d}
	default:
		for i, name := range []string{"standard output", "standard error"} {
			if o.to[1] = o.to[0]; i < len(c.To) {
				o.to[i] = newDestination(name, "", o.stamp, events)
				o.to[i].restore(1+i, c.To[i])
			}
		}
	}
	o.tails = newTails()
	return o, o.tails.restore(o, c.Tails)
}

// start goes on with what was restored.
func (o *outputs) start() {
	if o.tails == nil {
		return
	}
	for _, d := range o.places() {
		d.start()
	}
	o.tails.start()
}
