package main

// This file is where the lines of the program go when they pass through hotwrap: a log file, or hotwrap's own
// standard output and error.
//
// Its rules:
//   - Two goroutines own a destination: one keeps the queue and always has time, one writes and may be stuck.
//   - Lines go in whole and come out whole, in order; a line that a full disk cut off is finished first of all.
//   - Who sends waits as long as something is taken at all. After that lines are dropped and counted, and a line
//     in their place says how many.
//   - Halted, it hands over what is not written yet. A write that may wait for a reader is waited for before it, so that it
//     can be called off: what was begun could not be handed over.

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	queueMost  = 1 << 20                // bytes that may wait for a destination
	batchMost  = 64 << 10               // bytes that are written at once
	pipeMost   = 4096                   // the same where others write too: PIPE_BUF, pipe(7)
	stuckAfter = 500 * time.Millisecond // a destination with a full queue that takes nothing for so long is stuck
	newsMost   = 8                      // messages about it that may wait for the supervisor
	newsPause  = 10 * time.Second       // from one complaint about failed writes to the next
	haltAfter  = 300 * time.Millisecond // for what waits to be written, before it is handed over to another hotwrap
	stampForm  = "2006-01-02T15:04:05.000Z"
)

// destination is one place that lines go to.
type destination struct {
	name   string // for people
	path   string // of a log file; "": it cannot be opened anew
	stamp  bool
	in     chan []byte   // whole lines; the receiver owns them
	orders chan item     // what must not wait
	work   chan item     // from the queue's goroutine to the writer's
	notes  chan message  // and back
	over   chan struct{} // closed when nothing more is taken
	events chan<- event  // of the supervisor
	write  func(fd int, b []byte) (int, error)
	slow   time.Duration // stuckAfter
	unread string        // what is wrong when it is stuck
	queue  *queue
	writer *writer
	wake   [2]int // a pipe that calls a write off; -1: there is none
}

// item is one thing for the writer to do.
type item struct {
	text   []byte     // write these lines
	reopen string     // or open the path anew: who asked for it
	end    chan<- int // or end, and say how many lines were lost untold; has room for one
	halt   *halt      // or end here, and go on in another hotwrap
}

// halt is the end of a destination's goroutines in this hotwrap.
type halt struct {
	flush  <-chan struct{} // closed when what waits need not be written here any more
	limit  <-chan struct{} // closed when the writer is not waited for any more
	writer chan struct{}   // closed by it as its last act
	queue  chan bool       // whether the writer has ended, from the queue's goroutine as its last act
}

func newDestination(name, path string, stamp bool, events chan<- event) *destination {
	return &destination{
		name: name, path: path, stamp: stamp, events: events,
		in: make(chan []byte), orders: make(chan item), work: make(chan item), notes: make(chan message),
		over: make(chan struct{}), write: unix.Write, slow: stuckAfter, wake: [2]int{-1, -1},
	}
}

// run starts to write to fd.
func (d *destination) run(fd int) {
	d.writer, d.queue = &writer{d: d, fd: fd}, &queue{d: d}
	d.start()
}

// start lets the goroutines begin, or go on with what another hotwrap has begun.
func (d *destination) start() {
	w, q := d.writer, d.queue
	w.regular, d.unread = isRegular(w.fd), "nobody reads it"
	if w.regular {
		d.unread = "the disk takes nothing"
	}
	if wake, theirs, err := openWake(); err == nil { // else nothing is called off
		d.wake = [2]int{wake, theirs}
	}
	q.timer = time.NewTimer(d.slow)
	if q.size < queueMost || q.stuck {
		q.timer.Stop()
	}
	go q.run()
	go w.run()
}

// openWake makes a pipe that nothing is read from.
func openWake() (read, write int, err error) {
	var fds [2]int
	syscall.ForkLock.RLock() // darwin has no pipe2
	if err = syscall.Pipe(fds[:]); err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	return fds[0], fds[1], err
}

// halt ends the goroutines; what is not written yet stays in the queue. One that is stuck in a write on a disk is given up:
// what it has is taken for not written, for a line twice is better than none.
func (d *destination) halt(limit context.Context) {
	flush, cancel := context.WithTimeout(limit, haltAfter)
	defer cancel()
	wait, cancel := context.WithTimeout(context.Background(), 2*haltAfter)
	defer cancel()
	h := &halt{flush: flush.Done(), limit: wait.Done(), writer: make(chan struct{}), queue: make(chan bool, 1)}
	d.order(item{halt: h})
	select {
	case ended := <-h.queue:
		if ended {
			<-h.writer
			d.queue.items = slices.Concat(d.writer.undone, d.queue.items)
		}
	case <-d.over:
	}
}

// send hands lines over; afterwards they are not the sender's any more.
func (d *destination) send(text []byte) {
	select {
	case d.in <- text:
	case <-d.over:
	}
}

// Write is for hotwrap's own messages, which must not tear the lines of the program.
func (d *destination) Write(text []byte) (int, error) {
	d.send(bytes.Clone(text))
	return len(text), nil
}

// order hands over what is no line.
func (d *destination) order(it item) {
	select {
	case d.orders <- it:
	case <-d.over:
	}
}

// lost is the line that stands for lines which are not there.
func (d *destination) lost(n int, cause string) []byte {
	text := fmt.Sprintf("hotwrap: %s lost: %s\n", count(n, "line"), cause)
	if d.stamp {
		text = time.Now().UTC().Format(stampForm) + " - " + text
	}
	return []byte(text)
}

// complaint says that lines are being dropped.
func (d *destination) complaint(cause string) message {
	return warning("cannot write to %s: %s", d.name, cause).end("lines of the program are dropped")
}

// works says that this is over.
func (d *destination) works(lost int) message {
	return warning("%s is written to again", d.name).with("lost", lost)
}

// queue is what waits for a destination. It belongs to its own goroutine.
type queue struct {
	d     *destination
	items []item
	size  int  // bytes of text in them
	stuck bool // nothing is put in before half of it is gone
	lost  int  // lines, since it is stuck
	news  []message
	timer *time.Timer     // runs while it is full: then it is stuck
	given item            // to the writer last
	late  <-chan struct{} // a halt takes too long
}

// run ends with an item that says so.
func (q *queue) run() {
	d := q.d
	defer q.timer.Stop()
	for {
		in := d.in
		if q.size >= queueMost && !q.stuck {
			in = nil
		}
		work, first := q.first()
		events, next := q.next()
		select {
		case text := <-in:
			q.add(text)
		case it := <-d.orders:
			q.order(it)
		case work <- first:
			if q.handed(first) {
				return
			}
		case events <- next:
			q.news = q.news[1:]
		case m := <-d.notes:
			q.tell(m)
		case <-q.timer.C:
			q.stuck = true
			q.tell(d.complaint(d.unread))
		case <-q.late:
			if q.hurry() {
				return
			}
		}
	}
}

// first is what the writer gets next, and its channel; nil while there is nothing.
func (q *queue) first() (chan<- item, item) {
	if len(q.items) == 0 {
		return nil, item{}
	}
	return q.d.work, q.items[0]
}

// next is what the log is told next, and where; nil while there is nothing.
func (q *queue) next() (chan<- event, event) {
	if len(q.news) == 0 {
		return nil, event{}
	}
	return q.d.events, event{kind: evSay, message: q.news[0]}
}

// handed tells whether the writer got its last item.
func (q *queue) handed(it item) bool {
	switch {
	case it.end != nil:
		close(q.d.over)
		return true
	case it.halt != nil:
		q.items = q.items[1:]
		it.halt.queue <- true
		return true
	}
	q.given = it
	q.taken()
	return false
}

// hurry ends a halt that takes too long: at first the writer is to leave what waits, then it is not waited for any more.
func (q *queue) hurry() (over bool) {
	i := slices.IndexFunc(q.items, func(it item) bool { return it.halt != nil })
	it := q.items[i]
	q.items = slices.Delete(q.items, i, i+1)
	if q.late == it.halt.flush {
		q.late = it.halt.limit
		q.items = slices.Insert(q.items, 0, it)
		_, _ = unix.Write(q.d.wake[1], newline)
		return false
	}
	q.items = slices.Insert(q.items, 0, q.given)
	it.halt.queue <- false
	return true
}

func (q *queue) tell(m message) {
	if len(q.news) < newsMost {
		q.news = append(q.news, m)
	}
}

// add takes lines in, or counts them.
func (q *queue) add(text []byte) {
	if q.stuck {
		q.lost += bytes.Count(text, newline)
		return
	}
	q.put(text)
	if q.size >= queueMost {
		q.timer.Reset(q.d.slow)
	}
}

// put appends lines to the last item while that stays small: many short lines are one write.
func (q *queue) put(text []byte) {
	q.size += len(text)
	if n := len(q.items); n > 0 {
		if last := &q.items[n-1]; last.text != nil && len(last.text)+len(text) <= batchMost {
			last.text = append(last.text, text...)
			return
		}
	}
	q.items = append(q.items, item{text: text})
}

func (q *queue) order(it item) {
	if it.end != nil && q.lost > 0 {
		q.put(q.d.lost(q.lost, q.d.unread))
		q.lost = 0
	}
	if it.halt != nil {
		q.late = it.halt.flush
	}
	q.items = append(q.items, it)
}

// taken forgets the first item, which the writer has now.
func (q *queue) taken() {
	q.size -= len(q.items[0].text)
	q.items[0] = item{}
	q.items = q.items[1:]
	q.timer.Stop()
	switch {
	case q.stuck && q.size <= queueMost/2:
		q.tell(q.d.works(q.lost))
		if q.lost > 0 {
			q.put(q.d.lost(q.lost, q.d.unread))
		}
		q.stuck, q.lost = false, 0
	case !q.stuck && q.size >= queueMost:
		q.timer.Reset(q.d.slow)
	}
}

var newline = []byte{'\n'}

// writer writes what the queue hands it. It belongs to its own goroutine.
type writer struct {
	d       *destination
	fd      int
	regular bool
	rest    []byte    // of a line that was begun when writing failed
	lost    int       // lines, since writing fails
	total   int       // the same, with those that a line has stood for already
	cause   error     // why it fails; nil: it does not
	told    time.Time // when that was last complained of
	open    bool      // that complaint is the last word so far
	undone  []item    // called off
}

var errCalledOff = errors.New("called off")

func (w *writer) run() {
	for it := range w.d.work {
		switch {
		case it.end != nil:
			if w.cause != nil {
				w.put(nil) // a last try
			}
			if len(w.rest) > 0 {
				w.lost++
			}
			it.end <- w.lost
			for _, fd := range w.d.wake {
				_ = unix.Close(fd) // no harm if they are none
			}
			return
		case it.halt != nil:
			close(it.halt.writer)
			return
		case it.reopen != "":
			w.reopen(it.reopen)
		default:
			w.put(it.text)
		}
	}
}

// put writes lines after those that are still owed: the end of one that was cut off, and the line that
// stands for the lost.
func (w *writer) put(text []byte) {
	note := []byte(nil)
	if w.lost > 0 {
		note = w.d.lost(w.lost, w.cause.Error())
	}
	owed := len(w.rest)
	all := text
	if owed+len(note) > 0 {
		all = bytes.Join([][]byte{w.rest, note, text}, nil)
	}
	n, err := w.writeAll(all)
	if err == nil {
		w.succeeded()
		return
	}
	cut := n
	if owed > n || n > 0 && all[n-1] != '\n' {
		cut += bytes.IndexByte(all[n:], '\n') + 1
	}
	w.rest = bytes.Clone(all[n:cut])
	if errors.Is(err, errCalledOff) {
		w.lost = 0 // the line about them is in all, if there is one
		w.leave(item{text: bytes.Clone(all[cut:])})
		return
	}
	missing := bytes.Count(text, newline)
	if cut > owed { // the note went out, or some of it
		w.lost = 0
		missing = bytes.Count(all[cut:], newline)
	}
	w.lost += missing
	w.total += missing
	w.failed(err)
}

// leave is for another hotwrap to do.
func (w *writer) leave(it item) {
	if it.reopen != "" || len(it.text) > 0 {
		w.undone = append(w.undone, it)
	}
}

// ready waits until something can be written, where that may take for ever; false: it is called off.
func (w *writer) ready() bool {
	fds := []unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}, {Fd: int32(w.d.wake[0]), Events: unix.POLLIN}}
	for {
		if _, err := unix.Poll(fds, -1); !errors.Is(err, unix.EINTR) {
			return fds[1].Revents == 0
		}
	}
}

// writeAll writes until everything is written, or an error.
func (w *writer) writeAll(b []byte) (n int, err error) {
	wait := !w.regular
	for n < len(b) {
		if wait && !w.ready() {
			return n, errCalledOff
		}
		m, err := w.d.write(w.fd, b[n:n+w.portion(b[n:])])
		n += max(m, 0)
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // who shares it with hotwrap made it non-blocking
			wait = true
		default:
			return n, err
		}
	}
	return n, nil
}

// portion is how much of b is written at once. Lines of others that write to the same pipe stay whole
// where a write is not larger than the pipe takes in one piece.
func (w *writer) portion(b []byte) int {
	if w.regular || len(b) <= pipeMost {
		return len(b)
	}
	if n := bytes.LastIndexByte(b[:pipeMost], '\n') + 1; n > 0 {
		return n
	}
	return pipeMost // of a line that can only be torn; a larger piece could get stuck half way
}

func (w *writer) succeeded() {
	if w.open {
		w.note(w.d.works(w.total))
	}
	w.rest, w.lost, w.total, w.cause, w.open = nil, 0, 0, nil, false
}

func (w *writer) failed(err error) {
	w.cause = err
	if w.open || !w.told.IsZero() && time.Since(w.told) < newsPause {
		return
	}
	w.open, w.told = true, time.Now()
	w.note(w.d.complaint(err.Error()))
}

func (w *writer) note(m message) {
	select {
	case w.d.notes <- m:
	case <-w.d.over:
	}
}

// reopen goes on in the file that has the path now. If there is none, the old one stays.
func (w *writer) reopen(by string) {
	fd, err := openLog(w.d.path)
	if err != nil {
		w.note(warning("cannot open %s: %v", w.d.name, err).end("the old one is written on").with("by", by))
		return
	}
	n, err := w.writeAll(w.rest) // it belongs to the old file
	if errors.Is(err, errCalledOff) {
		_ = unix.Close(fd)
		w.rest = w.rest[n:]
		w.leave(item{reopen: by})
		return
	}
	if err != nil && n < len(w.rest) {
		w.lost++
		w.total++
		w.cause = err
	}
	w.rest = nil
	_ = unix.Close(w.fd)
	w.fd, w.regular = fd, isRegular(fd)
	w.note(info("%s reopened", w.d.name).with("by", by))
	if w.lost > 0 {
		w.put(nil)
	}
}

// openLog opens a log file to append to it. A fifo without a reader is an error instead of a wait.
func openLog(path string) (fd int, err error) {
	const flags, mode = unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK, 0o600
	if os.Geteuid() == 0 {
		return openFirm(path, flags, mode)
	}
	for {
		if fd, err = unix.Open(path, flags, mode); !errors.Is(err, unix.EINTR) {
			return fd, err
		}
	}
}

func isRegular(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}

// --- on to another hotwrap

// carriedDestination is what a halted destination has left to do.
type carriedDestination struct {
	FD    int           `json:"fd,omitempty"` // of a log file
	Rest  []byte        `json:"rest,omitempty"`
	Items []carriedItem `json:"items,omitempty"`
	Stuck bool          `json:"stuck,omitempty"`
	Told  bool          `json:"told,omitempty"`  // that it cannot be written to
	Lost  [3]int        `json:"lost,omitzero"`   // since it is stuck; since writing fails; of those also the told
	Cause string        `json:"cause,omitempty"` // why writing fails
	News  []carriedNews `json:"news,omitempty"`
}

type carriedItem struct {
	Text   []byte `json:"text,omitempty"`
	Reopen string `json:"reopen,omitempty"`
}

type carriedNews struct {
	Level level  `json:"level"`
	Text  string `json:"text"`
}

// carry is to be called of a halted one.
func (d *destination) carry(b *baggage) *carriedDestination {
	q, w := d.queue, d.writer
	c := &carriedDestination{Rest: w.rest, Stuck: q.stuck, Told: w.open, Lost: [3]int{q.lost, w.lost, w.total}}
	if d.path != "" {
		c.FD = b.keep(w.fd)
	}
	if w.cause != nil {
		c.Cause = w.cause.Error()
	}
	for _, it := range q.items {
		if it.reopen != "" || len(it.text) > 0 {
			c.Items = append(c.Items, carriedItem{it.text, it.reopen})
		}
	}
	for _, m := range q.news {
		c.News = append(c.News, carriedNews{m.level, m.String()})
	}
	return c
}

// restore takes over what is left to do, in fd; start begins with it.
func (d *destination) restore(fd int, c *carriedDestination) {
	w, q := &writer{d: d, fd: fd, rest: c.Rest, lost: c.Lost[1], total: c.Lost[2], open: c.Told}, &queue{d: d, stuck: c.Stuck, lost: c.Lost[0]}
	if c.Cause != "" {
		w.cause, w.told = errors.New(c.Cause), time.Now()
	}
	for _, it := range c.Items {
		q.items = append(q.items, item{text: it.Text, reopen: it.Reopen})
		q.size += len(it.Text)
	}
	for _, n := range c.News {
		q.news = append(q.news, message{level: n.Level, head: n.Text})
	}
	d.writer, d.queue = w, q
}
