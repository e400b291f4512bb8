package main

// This file keeps the last lines of each worker, for the verdict on a failure and for status: those that passed through
// hotwrap, or else where they are to be found.
//
// Its rules:
//   - One goroutine owns the tails of captured output; who wants something of it sends a function and is answered.
//   - Nobody waits long for an answer, and what is kept is bounded.
//   - What is shown to people is plain text: valid UTF-8, no control characters but tabs.

import (
	"bytes"
	"errors"
	"fmt"
	"maps"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"
)

const (
	tailMost   = 64 << 10               // bytes kept of a worker
	endedKept  = 8                      // workers that ended, and are remembered
	wordsMost  = 20                     // lines that are shown
	wordMost   = 500                    // bytes of each
	tailWithin = 250 * time.Millisecond // what is in the pipes when somebody asks is read within that, or left out
)

// lastWords are the last lines of a worker: at most 20, each at most 500 bytes. from says where they come
// from, hint how to see them where hotwrap cannot. Any goroutine may ask.
func (o *outputs) lastWords(serial, pid int) (lines []string, from, hint string) {
	switch {
	case o.tails != nil && o.path != "":
		return plainLines(o.tail(serial)), o.path, ""
	case o.tails != nil:
		return plainLines(o.tail(serial)), "capture", ""
	case o.own != nil:
		return o.own.lastWords(serial, pid)
	}
	return nil, "", ""
}

// tail is the last 64 KiB of what a worker wrote, as lines, if it passed through hotwrap. Any goroutine may ask.
func (o *outputs) tail(serial int) []string {
	if o.tails == nil {
		return nil
	}
	t, reply := o.tails, make(chan []byte, 2)
	t.do <- func() { t.tell(serial, reply) }
	limit := time.NewTimer(tailWithin)
	defer limit.Stop()
	select {
	case text := <-reply:
		return splitLines(text)
	case <-limit.C: // a reader waits for a slow destination
	}
	t.do <- func() { reply <- t.workers[serial].text() }
	return splitLines(<-reply)
}

func splitLines(text []byte) []string {
	if len(text) == 0 {
		return nil
	}
	return strings.Split(strings.TrimSuffix(string(text), "\n"), "\n")
}

// colours are what programs write to terminals besides text: ECMA-48's CSI and OSC.
var colours = sync.OnceValue(func() *regexp.Regexp {
	return regexp.MustCompile(`\x1b(\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(\x07|\x1b\\)?)`)
})

// plainLines are the last few lines as they can be shown anywhere.
func plainLines(all []string) (lines []string) {
	for _, line := range all[max(0, len(all)-wordsMost):] {
		lines = append(lines, oneLine(colours().ReplaceAllString(line, ""), wordMost, '\t'))
	}
	return lines
}

// tails owns the last lines of all workers, and the order of what is asked of their readers. Its fields
// belong to the goroutine that runs what comes through do.
type tails struct {
	do      chan func()
	workers map[int]*tailed
	ended   []int                   // serials of those that are no more, oldest first
	open    map[*outStream]struct{} // every pipe that somebody holds
}

// tailed is one worker. Nobody is remembered as nil.
type tailed struct {
	ring    *ring // nil: forgotten
	streams []*outStream
}

// round is one thing asked of several readers: then runs when the last of them has done it.
type round struct {
	left int
	then func()
}

func newTails() *tails {
	t := &tails{do: make(chan func()), workers: map[int]*tailed{}, open: map[*outStream]struct{}{}}
	go t.run()
	return t
}

func (t *tails) run() {
	for f := range t.do {
		f()
	}
}

// begin takes a worker in and starts its readers.
func (t *tails) begin(serial int, streams []*outStream) {
	t.do <- func() {
		w := &tailed{ring: &ring{}, streams: streams}
		t.workers[serial] = w
		for _, s := range streams {
			s.worker = w
			t.open[s] = struct{}{}
			go s.run()
		}
	}
}

// gone is told when a worker is no more: what it left unfinished is finished.
func (t *tails) gone(serial int) {
	t.do <- func() {
		w := t.workers[serial]
		if w == nil || slices.Contains(t.ended, serial) {
			return
		}
		t.ask(w.streams, order{flush: true}, func() {})
		t.ended = append(t.ended, serial)
		if len(t.ended) > endedKept {
			t.workers[t.ended[0]].ring = nil
			delete(t.workers, t.ended[0])
			t.ended = t.ended[1:]
		}
	}
}

// reopen runs then once everything that is in the pipes now has been read. It does not wait.
func (t *tails) reopen(then func()) {
	t.do <- func() { t.ask(t.all(), order{}, then) }
}

// end ends all readers; the channel is closed when they have.
func (t *tails) end() <-chan struct{} {
	ended := make(chan struct{})
	t.do <- func() { t.ask(t.all(), order{flush: true, last: true}, func() { close(ended) }) }
	return ended
}

// halt ends all readers where they are; the channel is closed when they have.
func (t *tails) halt() <-chan struct{} {
	ended := make(chan struct{})
	t.do <- func() {
		t.ask(t.all(), order{halt: true}, func() { close(ended) })
	}
	return ended
}

// tell answers with a worker's tail, after what is in its pipes now.
func (t *tails) tell(serial int, reply chan<- []byte) {
	w := t.workers[serial]
	if w == nil {
		reply <- nil
		return
	}
	t.ask(w.streams, order{}, func() { reply <- w.text() })
}

func (t *tails) all() []*outStream {
	var all []*outStream
	for s := range t.open {
		all = append(all, s)
	}
	return all
}

// ask gives an order to readers, those that are still there, and runs then when all have obeyed.
func (t *tails) ask(streams []*outStream, o order, then func()) {
	o.round = &round{left: 1, then: then}
	for _, s := range streams {
		if _, open := t.open[s]; !open {
			continue
		}
		o.round.left++
		if s.queue = append(s.queue, o); len(s.queue) == 1 {
			s.next()
		}
	}
	o.round.step()
}

// next hands the first order to the reader: one at a time, so that one interruption is for one order.
func (s *outStream) next() {
	s.orders <- s.queue[0]
	_ = s.file.SetReadDeadline(longAgo)
}

// done is told by a reader that has obeyed.
func (t *tails) done(s *outStream) {
	first := s.queue[0]
	s.halted = first.halt
	if s.queue = s.queue[1:]; len(s.queue) > 0 {
		s.next()
	}
	first.round.step()
}

// over is told by a reader that ends: nothing is left to obey.
func (t *tails) over(s *outStream) {
	delete(t.open, s)
	for _, o := range s.queue {
		o.round.step()
	}
	s.queue = nil
}

func (r *round) step() {
	if r.left--; r.left == 0 {
		r.then()
	}
}

func (w *tailed) text() []byte {
	if w == nil {
		return nil
	}
	return w.ring.text()
}

// ring keeps the last bytes of what is written to it. A nil *ring keeps nothing.
type ring struct {
	kept []byte
	at   int  // where the oldest byte is, once it is full
	over bool // something was overwritten: the first line may be a part
}

func (r *ring) write(b []byte) {
	if r == nil {
		return
	}
	r.over = r.over || len(r.kept)+len(b) > tailMost
	b = b[max(0, len(b)-tailMost):]
	fits := min(len(b), tailMost-len(r.kept))
	r.kept = append(r.kept, b[:fits]...)
	for b = b[fits:]; len(b) > 0; {
		n := copy(r.kept[r.at:], b)
		b, r.at = b[n:], (r.at+n)%tailMost
	}
}

// text is what is kept, without the rest of a first line that is not whole.
func (r *ring) text() []byte {
	if r == nil {
		return nil
	}
	text := append(bytes.Clone(r.kept[r.at:]), r.kept[:r.at]...)
	if r.over {
		text = wholeLines(text)
	}
	return text
}

// wholeLines leaves off the rest of a first line, unless that is all there is.
func wholeLines(text []byte) []byte {
	if _, after, _ := bytes.Cut(text, newline); len(after) > 0 {
		return after
	}
	return text
}

// carriedTails are the last lines of all workers and what is read of them, on their way to another hotwrap.
type carriedTails struct {
	Workers []carriedTail   `json:"workers,omitempty"` // those that ended first, the oldest first
	Streams []carriedStream `json:"streams,omitempty"`
}

type carriedTail struct {
	Serial int    `json:"serial"`
	Ended  bool   `json:"ended,omitempty"`
	Text   []byte `json:"text,omitempty"`
}

type carriedStream struct {
	FD         int       `json:"fd"`
	Serial     int       `json:"serial,omitempty"` // 0: of one that is forgotten
	Number     int       `json:"number,omitempty"`
	Generation int       `json:"generation,omitempty"`
	Held       []byte    `json:"held,omitempty"` // no whole line yet
	Since      time.Time `json:"since,omitzero"`
}

// carry is to be called when the readers have been halted. One that is not, after all, has what it read taken from it, and
// may find the end of its pipe and close it before the exec: what goes along is a descriptor that it does not know.
func (t *tails) carry(b *baggage) carriedTails {
	carried := make(chan carriedTails, 1)
	t.do <- func() {
		var c carriedTails
		serials := map[*tailed]int{}
		for _, serial := range t.ended {
			c.Workers = append(c.Workers, carriedTail{serial, true, t.workers[serial].text()})
		}
		for serial, w := range t.workers {
			if serials[w] = serial; !slices.Contains(t.ended, serial) {
				c.Workers = append(c.Workers, carriedTail{serial, false, w.text()})
			}
		}
		for s := range t.open {
			stream := carriedStream{Serial: serials[s.worker], Number: s.number, Generation: s.generation}
			if s.halted {
				stream.FD, stream.Held, stream.Since = b.number(s.file), s.held, s.since
			} else {
				stream.FD = b.double(s.file)
			}
			if stream.FD > 0 { // else it has closed it
				c.Streams = append(c.Streams, stream)
			}
		}
		carried <- c
	}
	return <-carried
}

// restore takes all of it over; nothing is read before start.
func (t *tails) restore(o *outputs, c carriedTails) error {
	for _, tail := range c.Workers {
		t.workers[tail.Serial] = &tailed{ring: &ring{kept: tail.Text}}
		if tail.Ended {
			t.ended = append(t.ended, tail.Serial)
		}
	}
	for _, stream := range c.Streams {
		s := o.stream(stream.Number, stream.Generation)
		if s.file = carriedFile(stream.FD, "output"); s.file == nil {
			return errors.New("cannot go on with a program's output: a pipe did not come along")
		}
		if s.worker = t.workers[stream.Serial]; s.worker == nil {
			s.worker = &tailed{}
		}
		s.worker.streams = append(s.worker.streams, s)
		s.held, s.since = stream.Held, stream.Since
		t.open[s] = struct{}{}
	}
	return nil
}

// start has the readers go on that were taken over.
func (t *tails) start() {
	t.do <- func() {
		for s := range t.open {
			go s.run()
		}
	}
}

// ownStderr is hotwrap's own standard error, which the program inherits: a file can be read back, the
// journal can be named.
type ownStderr struct {
	fd      int
	journal bool
	marks   chan marks // one value, which belongs to whoever took it out; nil: it is no file
}

// marks is how long the file was when each worker was started.
type marks struct {
	Size  map[int]int64 `json:"size,omitempty"`
	Ended []int         `json:"ended,omitempty"` // serials of those that are no more, oldest first
}

func (s *ownStderr) carry() *marks {
	if s == nil || s.marks == nil {
		return nil
	}
	m := <-s.marks
	c := marks{maps.Clone(m.Size), slices.Clone(m.Ended)}
	s.marks <- m
	return &c
}

// restore goes on with what was noted of the same file.
func (s *ownStderr) restore(c *marks) {
	if s == nil || s.marks == nil || c == nil || c.Size == nil {
		return
	}
	<-s.marks
	s.marks <- *c
}

func newOwnStderr(fd int, journal bool) *ownStderr {
	s := &ownStderr{fd: fd, journal: journal}
	if isRegular(fd) {
		s.marks = make(chan marks, 1)
		s.marks <- marks{Size: map[int]int64{}}
	}
	return s
}

func (s *ownStderr) began(serial int) {
	var st unix.Stat_t
	if s.marks == nil || unix.Fstat(s.fd, &st) != nil {
		return
	}
	m := <-s.marks
	m.Size[serial] = st.Size
	s.marks <- m
}

func (s *ownStderr) gone(serial int) {
	if s.marks == nil {
		return
	}
	m := <-s.marks
	if m.Ended = append(m.Ended, serial); len(m.Ended) > endedKept {
		delete(m.Size, m.Ended[0])
		m.Ended = m.Ended[1:]
	}
	s.marks <- m
}

func (s *ownStderr) lastWords(serial, pid int) (lines []string, from, hint string) {
	switch {
	case s.marks != nil:
		m := <-s.marks
		mark, known := m.Size[serial]
		s.marks <- m
		path, err := os.Readlink("/proc/self/fd/" + strconv.Itoa(s.fd))
		if !known || err != nil {
			return nil, "", ""
		}
		return plainLines(s.since(mark)), path, ""
	case s.journal && pid > 0:
		return nil, "journal", fmt.Sprintf("journalctl _PID=%d -n %d --no-pager", pid, wordsMost)
	}
	return nil, "", ""
}

// since reads back what was written after mark, 64 KiB from the end at the most, without hotwrap's own lines.
func (s *ownStderr) since(mark int64) []string {
	f, err := os.Open("/proc/self/fd/" + strconv.Itoa(s.fd)) // a description of its own: this one may be for writing only
	if err != nil {
		return nil
	}
	defer f.Close()
	st, err := f.Stat()
	if err != nil {
		return nil
	}
	if st.Size() < mark { // it was cut off meanwhile
		mark = 0
	}
	from := max(mark, st.Size()-tailMost)
	text := make([]byte, st.Size()-from)
	n, _ := f.ReadAt(text, from) // less, if it was cut off just now
	text = text[:n]
	if from > mark {
		text = wholeLines(text)
	}
	var lines []string
	for _, line := range splitLines(text) {
		if !strings.HasPrefix(line, "hotwrap: ") {
			lines = append(lines, line)
		}
	}
	return lines
}
