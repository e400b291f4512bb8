package main

// This file is how a worker tells that it is ready: on its own notify socket or with a newline on a descriptor (an
// einhorn ack is in ack.go). The rules are:
//
//   - Nothing here decides. Messages are parsed, stamped with the sender that the kernel names, and posted, in order.
//   - Parsers are pure, and what a worker sends is hostile until parsed: every size, count and wait has a limit.
//   - A source blocks in post until its message is taken, so a flood slows down its sender and nobody else.
//   - hush ends a source at once, and stop for good: what had arrived but was not taken is handed back, and post is not
//     called again. What hush leaves, the next hotwrap goes on with (ears.go).

import (
	"context"
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxDatagram = 4096                       // bytes, systemd's own limit for one message
	maxStatus   = 512                        // bytes of a worker's STATUS that we keep
	maxExtend   = 100 * 365 * 24 * time.Hour // the longest time a worker can ask for; sums with a clock do not overflow
	maxPassed   = 253                        // descriptors in one message, SCM_MAX_FD of unix(7)
	maxLeft     = 64                         // messages taken at stop; the kernel queues net.unix.max_dgram_qlen+1, usually 11
	socketMode  = 0o600
)

// longAgo as a deadline ends a read that is under way, from any goroutine.
var longAgo = time.Unix(1, 0)

// notice is one message of a worker, parsed.
type notice struct {
	ready, reloading, stopping         bool // at most one is set
	watchdog, watchdogTrigger, barrier bool

	status       string // one line, valid UTF-8, at most maxStatus bytes, no control characters
	mainPID      int    // the process that the message names
	extend       time.Duration
	watchdogUSec time.Duration //nolint:staticcheck // WATCHDOG_USEC, the protocol's name
	errno        int

	pid int    // sender by kernel credentials, 0 unknown
	uid int    // sender's uid, -1 unknown
	by  string // "notify", "ack" or "fd"
}

// A poster hands a notice to the supervisor. It blocks until the notice is taken (true) or done is closed (false).
// It is called from several goroutines.
type poster func(n notice, done <-chan struct{}) bool

// parseNotify parses one datagram of sd_notify(3). Who sent it is not known here. An error means: drop the message whole.
func parseNotify(b []byte) (notice, error) {
	n := notice{uid: -1, by: "notify"}
	if len(b) > maxDatagram {
		return n, fmt.Errorf("cannot take a message of %d bytes: over %d", len(b), maxDatagram)
	}
	text := strings.TrimSuffix(string(b), "\x00") // systemd forgives one
	if text == "" {
		return n, errors.New("cannot take a message: empty")
	}
	if strings.Contains(text, "\x00") {
		return n, errors.New("cannot take a message: NUL in it")
	}
	tags := strings.FieldsFunc(text, func(r rune) bool { return r == '\n' || r == '\r' })
	if slices.Contains(tags, "BARRIER=1") {
		if len(tags) != 1 {
			return n, errors.New("cannot take a message: BARRIER=1 must be alone")
		}
		n.barrier = true
		return n, nil
	}
	n.take(tags)
	return n, nil
}

// take reads the tags that we know; of a repeated key the first counts, as in systemd.
func (n *notice) take(tags []string) {
	switch { // precedence as in systemd; READY beside RELOADING says "reloaded already"
	case slices.Contains(tags, "STOPPING=1"):
		n.stopping = true
	case slices.Contains(tags, "READY=1"):
		n.ready = true
	case slices.Contains(tags, "RELOADING=1"):
		n.reloading = true
	}
	n.watchdog = slices.Contains(tags, "WATCHDOG=1")
	n.watchdogTrigger = slices.Contains(tags, "WATCHDOG=trigger")
	n.status = oneLine(tagValue(tags, "STATUS="), maxStatus)
	n.mainPID = positive(tagValue(tags, "MAINPID="))
	n.errno = positive(tagValue(tags, "ERRNO="))
	n.extend = microseconds(tagValue(tags, "EXTEND_TIMEOUT_USEC="))
	n.watchdogUSec = microseconds(tagValue(tags, "WATCHDOG_USEC="))
}

// tagValue returns what follows key in the first tag that begins with it.
func tagValue(tags []string, key string) string {
	for _, tag := range tags {
		if value, ok := strings.CutPrefix(tag, key); ok {
			return value
		}
	}
	return ""
}

// positive returns the number in text, 0 if it is none that a pid or an errno can be.
func positive(text string) int {
	v, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return 0
	}
	return int(v)
}

// microseconds returns the time in text, 0 if it is none. "For ever" is 2^64-1 in systemd, 292 thousand times what a Duration holds.
func microseconds(text string) time.Duration {
	v, err := strconv.ParseUint(text, 10, 64)
	if err != nil {
		return 0
	}
	return time.Duration(min(v, uint64(maxExtend/time.Microsecond))) * time.Microsecond
}

// notifySocket is where one worker reports: a datagram socket for sd_notify, a stream socket for einhorn acks.
type notifySocket struct {
	path    string // NOTIFY_SOCKET
	ackPath string // EINHORN_SOCK_PATH

	messages *net.UnixConn
	acks     *net.UnixListener
	clients  [maxAcks]*ackClient // the ack goroutine's own while there is one
	post     poster
	done     chan struct{} // nil: nobody listens now
	told     chan []notice // each of the two goroutines ends by sending what it could not post
}

// listen opens the sockets of one worker in d and starts to post what arrives. Names are random and short; the modes
// let in nobody but the program's user (and root).
func (d *notifyDir) listen(post poster) (*notifySocket, error) {
	s, err := d.bind(post)
	if err == nil {
		s.start()
	}
	return s, err
}

func (d *notifyDir) bind(post poster) (*notifySocket, error) {
	s := &notifySocket{path: filepath.Join(d.path, randomName()), post: post}
	s.ackPath = s.path + "a"
	if err := s.open(d); err != nil {
		s.close()
		return nil, fmt.Errorf("cannot open a notify socket: %w", err)
	}
	return s, nil
}

// listenAgain opens them under the path that a worker has been told. They are bound aside and put in the place of what a
// dead hotwrap has left there, so that there is no moment without them.
func (d *notifyDir) listenAgain(path string, post poster) (*notifySocket, error) {
	s, err := d.bind(post)
	if err != nil {
		return nil, err
	}
	if err = errors.Join(os.Rename(s.path, path), os.Rename(s.ackPath, path+"a")); err != nil {
		s.close()
		return nil, fmt.Errorf("cannot open a notify socket: %w", causeOf(err))
	}
	s.path, s.ackPath = path, path+"a"
	s.start()
	return s, nil
}

// start begins to post what arrives.
func (s *notifySocket) start() {
	done, told := make(chan struct{}), make(chan []notice, 2)
	s.done, s.told = done, told
	go func() { told <- s.drain(done) }()
	go func() { told <- s.acknowledge(done) }()
}

// open binds both sockets and gives them to the program's user.
func (s *notifySocket) open(d *notifyDir) error {
	config := net.ListenConfig{Control: func(_, _ string, c syscall.RawConn) error {
		var err error
		if e := c.Control(func(fd uintptr) { err = prepareNotify(int(fd)) }); e != nil {
			return e
		}
		return err
	}}
	messages, err := config.ListenPacket(context.Background(), "unixgram", s.path)
	if err != nil {
		return err
	}
	s.messages = messages.(*net.UnixConn)
	acks, err := config.Listen(context.Background(), "unix", s.ackPath)
	if err != nil {
		return err
	}
	s.acks = acks.(*net.UnixListener)
	s.acks.SetUnlinkOnClose(false) // close does it, for both
	return errors.Join(d.give(filepath.Base(s.path)), d.give(filepath.Base(s.ackPath)))
}

// hush ends the goroutines, and returns what was read but not posted; post is not called again. What has not been
// read waits in the sockets.
func (s *notifySocket) hush() []notice {
	if s.done == nil {
		return nil
	}
	close(s.done)
	_ = s.messages.SetReadDeadline(longAgo)
	_ = s.acks.SetDeadline(longAgo)
	left := append(<-s.told, <-s.told...)
	s.done = nil
	return left
}

// stop ends the goroutines and removes the sockets. It returns what had arrived but was not posted, messages in their
// order; post is not called again.
func (s *notifySocket) stop() []notice {
	if s.messages == nil {
		return nil
	}
	left := s.hush()
	if raw, err := s.messages.SyscallConn(); err == nil {
		left = append(left, s.rest(raw)...)
	}
	s.close()
	return left
}

// close closes what is open and removes the paths.
func (s *notifySocket) close() {
	for _, c := range s.clients {
		if c != nil {
			_ = c.conn.Close()
		}
	}
	if s.messages != nil {
		_ = s.messages.Close()
		_ = os.Remove(s.path)
	}
	if s.acks != nil {
		_ = s.acks.Close()
		_ = os.Remove(s.ackPath)
	}
	s.messages, s.acks, s.clients = nil, nil, [maxAcks]*ackClient{}
}

// drain reads and posts messages until done. It keeps the queue empty, because a sender blocks when
// net.unix.max_dgram_qlen messages wait.
func (s *notifySocket) drain(done <-chan struct{}) []notice {
	raw, err := s.messages.SyscallConn()
	if err != nil {
		return nil
	}
	buf, oob := make([]byte, maxDatagram), make([]byte, notifyOOB)
	for {
		var got received
		err := raw.Read(func(fd uintptr) bool {
			got = receive(int(fd), buf, oob)
			return !got.nothing
		})
		if err != nil {
			return nil // done; a read does not fail otherwise
		}
		if left := s.deliver(got, done); left != nil {
			return left
		}
	}
}

// deliver posts one message, and only then closes the descriptors that came with it: a sender of BARRIER=1 waits until
// we did, and may take that as the answer to all it sent before. It returns what could not be posted.
func (s *notifySocket) deliver(got received, done <-chan struct{}) (left []notice) {
	if got.ok && !s.post(got.notice, done) {
		left = []notice{got.notice}
	}
	if len(got.passed) == 0 {
		return left
	}
	// A close may block (a socket that lingers, a file on FUSE). Then this worker's next message waits, but hush does not.
	closed := make(chan struct{})
	go func() {
		defer close(closed)
		for _, fd := range got.passed {
			_ = unix.Close(fd)
		}
	}()
	select {
	case <-closed:
	case <-done:
	}
	return left
}

// rest takes, at stop, what the kernel still had queued.
func (s *notifySocket) rest(raw syscall.RawConn) (left []notice) {
	buf, oob := make([]byte, maxDatagram), make([]byte, notifyOOB)
	over := make(chan struct{})
	close(over)
	_ = raw.Control(func(fd uintptr) {
		for range maxLeft {
			got := receive(int(fd), buf, oob)
			if got.nothing {
				return
			}
			if got.ok {
				left = append(left, got.notice)
			}
			got.ok = false
			s.deliver(got, over)
		}
	})
	return left
}

// received is one datagram.
type received struct {
	notice  notice
	ok      bool  // worth posting
	nothing bool  // there was none
	passed  []int // descriptors that came along, ours to close
}

// receive takes one datagram from the queue of fd, if there is one. It never waits.
func receive(fd int, buf, oob []byte) (got received) {
	n, oobn, flags, _, err := unix.Recvmsg(fd, buf, oob, notifyFlags)
	for errors.Is(err, unix.EINTR) {
		n, oobn, flags, _, err = unix.Recvmsg(fd, buf, oob, notifyFlags)
	}
	if err != nil {
		got.nothing = true // EAGAIN; a bound socket that is not connected has no other error that lasts
		return got
	}
	controls, _ := unix.ParseSocketControlMessage(oob[:oobn])
	for _, control := range controls {
		if fds, err := unix.ParseUnixRights(&control); err == nil {
			got.passed = append(got.passed, fds...)
		}
	}
	if flags&unix.MSG_TRUNC != 0 {
		return got
	}
	parsed, err := parseNotify(buf[:n])
	if err != nil || parsed == (notice{uid: -1, by: "notify"}) || parsed.barrier && len(got.passed) != 1 {
		return got // junk, or nothing in it that we know
	}
	parsed.pid, parsed.uid = sender(controls)
	got.notice, got.ok = parsed, true
	return got
}

// openPipe makes a pipe: hotwrap's end never blocks, the program's does, as programs expect.
func openPipe(name string) (read *os.File, write int, err error) {
	if read, write, err = openPair(name, syscall.Pipe); err != nil { // os.Pipe would make the write end O_NONBLOCK
		err = fmt.Errorf("cannot open a pipe: %w", err)
	}
	return read, write, err
}

// openPair makes two connected descriptors: hotwrap's end, which never blocks, and the program's.
func openPair(name string, open func(fds []int) error) (ours *os.File, theirs int, err error) {
	var fds [2]int
	syscall.ForkLock.RLock() // darwin has neither pipe2 nor SOCK_CLOEXEC
	if err = open(fds[:]); err == nil {
		unix.CloseOnExec(fds[0])
		unix.CloseOnExec(fds[1])
	}
	syscall.ForkLock.RUnlock()
	if err != nil {
		return nil, -1, err
	}
	_ = unix.SetNonblock(fds[0], true)
	return os.NewFile(uintptr(fds[0]), name), fds[1], nil
}

// openReadyPipe makes the pipe of --ready fd=N: a newline on it means ready (s6's way). The write end is the caller's,
// to pass to the worker and to close. What the worker writes otherwise is thrown away until it closes the pipe or stop is
// called; to close earlier could kill it with SIGPIPE.
func openReadyPipe(post poster) (writeFD int, h *hearing, err error) {
	r, writeFD, err := openPipe("ready")
	if err != nil {
		return -1, nil, err
	}
	h = &hearing{file: r, post: post, parse: (*hearing).newline}
	h.start()
	return writeFD, h, nil
}

// hearing is the source on hotwrap's end of a pair that a worker writes to.
type hearing struct {
	file  *os.File
	post  poster
	parse func(h *hearing, data []byte) []notice
	told  bool          // the newline has come; this and the next are the goroutine's own while there is one
	held  []byte        // of an ack that is no whole line yet
	done  chan struct{} // nil: nobody listens now
	left  chan []notice // the goroutine ends by sending what it could not post
}

// start begins to post what is written.
func (h *hearing) start() {
	done, left := make(chan struct{}), make(chan []notice, 1)
	h.done, h.left = done, left
	go func() { left <- h.run(done) }()
}

// run reads to the end or until done, and returns what could not be posted.
func (h *hearing) run(done <-chan struct{}) []notice {
	buf := make([]byte, maxAckLine)
	for {
		n, err := h.file.Read(buf)
		all := h.parse(h, buf[:n])
		for i, n := range all {
			if !h.post(n, done) {
				return all[i:]
			}
		}
		if err != nil {
			return nil
		}
	}
}

// hush ends the goroutine, and returns what was read but not posted. What has not been read waits in the pair.
func (h *hearing) hush() []notice {
	if h.done == nil {
		return nil
	}
	close(h.done)
	_ = h.file.SetReadDeadline(longAgo)
	left := <-h.left
	h.done = nil
	return left
}

// stop ends it for good, and takes what the kernel still holds.
func (h *hearing) stop() []notice {
	left, buf := h.hush(), make([]byte, maxAckLine)
	left = append(left, h.parse(h, buf[:readNow(h.file, buf)])...)
	_ = h.file.Close()
	return left
}

// newline is ready at the first newline.
func (h *hearing) newline(data []byte) []notice {
	if h.told || !slices.Contains(data, '\n') {
		return nil
	}
	h.told = true
	return []notice{{ready: true, uid: -1, by: "fd"}}
}

// readNow reads what is there, without waiting, also after the deadline of c. It returns how much that was.
func readNow(c syscall.Conn, buf []byte) (n int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(fd uintptr) { n, _ = unix.Read(int(fd), buf) })
	return max(n, 0)
}
