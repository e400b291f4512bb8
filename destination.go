package main

// This file is where the lines of the program go when they pass through hotwrap: a log file, or hotwrap's own
// standard output and error.
//
// Its rules:
//   - Two goroutines own a destination: one keeps the queue and always has time, one writes and may be stuck.
//   - Lines go in whole and come out whole, in order; a line that a full disk cut off is finished first of all.
//   - Who sends waits as long as something is taken at all. After that lines are dropped and counted, and a line
//     in their place says how many.

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
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
}

// item is one thing for the writer to do.
type item struct {
	text   []byte     // write these lines
	reopen string     // or open the path anew: who asked for it
	end    chan<- int // or end, and say how many lines were lost untold; has room for one
}

func newDestination(name, path string, stamp bool, events chan<- event) *destination {
	return &destination{
		name: name, path: path, stamp: stamp, events: events,
		in: make(chan []byte), orders: make(chan item), work: make(chan item), notes: make(chan message),
		over: make(chan struct{}), write: unix.Write, slow: stuckAfter,
	}
}

// run starts to write to fd.
func (d *destination) run(fd int) {
	w := &writer{d: d, fd: fd, regular: isRegular(fd)}
	d.unread = "nobody reads it"
	if w.regular {
		d.unread = "the disk takes nothing"
	}
	timer := time.NewTimer(d.slow)
	timer.Stop()
	go (&queue{d: d, timer: timer}).run()
	go w.run()
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
	timer *time.Timer // runs while it is full: then it is stuck
}

func (q *queue) run() {
	d := q.d
	defer close(d.over)
	defer q.timer.Stop()
	for {
		in := d.in
		if q.size >= queueMost && !q.stuck {
			in = nil
		}
		var work chan<- item // nil while there is none; so is the next
		var first item
		if len(q.items) > 0 {
			work, first = d.work, q.items[0]
		}
		var events chan<- event
		var next event
		if len(q.news) > 0 {
			events, next = d.events, event{kind: evSay, message: q.news[0]}
		}
		select {
		case text := <-in:
			q.add(text)
		case it := <-d.orders:
			q.order(it)
		case work <- first:
			if first.end != nil {
				return
			}
			q.taken()
		case events <- next:
			q.news = q.news[1:]
		case m := <-d.notes:
			q.tell(m)
		case <-q.timer.C:
			q.stuck = true
			q.tell(d.complaint(d.unread))
		}
	}
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
}

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
	missing := bytes.Count(text, newline)
	if cut > owed { // the note went out, or some of it
		w.lost = 0
		missing = bytes.Count(all[cut:], newline)
	}
	w.lost += missing
	w.total += missing
	w.failed(err)
}

// writeAll writes until everything is written, or an error.
func (w *writer) writeAll(b []byte) (n int, err error) {
	for n < len(b) {
		m, err := w.d.write(w.fd, b[n:n+w.portion(b[n:])])
		n += max(m, 0)
		switch {
		case err == nil, errors.Is(err, unix.EINTR):
		case errors.Is(err, unix.EAGAIN): // who shares it with hotwrap made it non-blocking
			_, _ = unix.Poll([]unix.PollFd{{Fd: int32(w.fd), Events: unix.POLLOUT}}, -1)
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
	if n := bytes.IndexByte(b, '\n') + 1; n > 0 {
		return n
	}
	return len(b)
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
	if n, err := w.writeAll(w.rest); err != nil && n < len(w.rest) { // it belongs to the old file
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

var errForeignLink = errors.New("it is a symlink, and not root's; whoever made it chooses what root writes to")

// openLog opens a log file to append to it. A fifo without a reader is an error instead of a wait. Where hotwrap is root
// and the program's user owns the directory, a symlink in it may lead anywhere: only root's own is followed.
func openLog(path string) (fd int, err error) {
	flags := unix.O_WRONLY | unix.O_APPEND | unix.O_CREAT | unix.O_CLOEXEC | unix.O_NOCTTY | unix.O_NONBLOCK
	follow := os.Geteuid() != 0 || firmLink(path)
	if !follow {
		flags |= unix.O_NOFOLLOW
	}
	for {
		fd, err = unix.Open(path, flags, 0o600)
		switch {
		case !follow && (err == unix.ELOOP || err == unix.EMLINK): // open(2), on FreeBSD
			return fd, errForeignLink
		case err != unix.EINTR:
			return fd, err
		}
	}
}

// firmLink tells whether path is a symlink that nobody but root can have put there, nor exchange.
func firmLink(path string) bool {
	link, err1 := os.Lstat(path)
	dir, err2 := os.Stat(filepath.Dir(path))
	return err1 == nil && err2 == nil && link.Mode()&fs.ModeSymlink != 0 && reliable(owner(link)) && fit(dir, false) == nil
}

func isRegular(fd int) bool {
	var st unix.Stat_t
	return unix.Fstat(fd, &st) == nil && st.Mode&unix.S_IFMT == unix.S_IFREG
}
