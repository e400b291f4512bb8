package main

// This file is what hotwrap says to its own service manager over sd_notify(3). The rules are:
//
//   - Nothing of a worker's goes up verbatim: hotwrap says its own words, and READY again after every RELOADING.
//   - Nobody who speaks waits, however slow the manager is. One goroutine keeps what is to be said, one says it.
//   - Order holds. Where too much waits, what only informs gives way; a change of state goes last of all, and what is in the
//     store never.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxUpward      = 64               // messages that may wait
	spareUpward    = 16               // as long as fewer wait, nothing is left out
	maxUpwardText  = 2048             // bytes of a STATUS; the manager takes 4096 for the whole message
	upwardPatience = 1 * time.Second  // for what still waits when we close
	extendMost     = 30 * time.Second // by which a time-out of the manager's is extended at a time
)

// upward is the way to our service manager. A nil *upward is valid: there is none.
type upward struct {
	conn  *net.UnixConn
	in    chan upwardMessage
	count chan int      // asks how many were dropped
	quit  chan struct{} // closed by close
	ended chan int      // how many were dropped, at the end
}

// upwardMessage is one datagram.
type upwardMessage struct {
	text string
	kind upwardKind
	file bool // fd goes with it, and is closed then
	fd   int
}

type upwardKind int

const (
	upwardState  upwardKind = iota // READY, RELOADING, STOPPING: every one is said
	upwardStatus                   // of these three, where many wait, only the newest since the last change of state
	upwardExtend
	upwardWatchdog
	upwardStore // what is in the manager's store: every one is said, and none gives way
)

// openUpward connects to the service manager that environ names; nil if it names none, or, with an error, if it cannot be reached.
func openUpward(environ []string) (*upward, error) {
	address := getenv(environ, "NOTIFY_SOCKET")
	if address == "" {
		return nil, nil
	}
	if strings.HasPrefix(address, "vsock") {
		return nil, fmt.Errorf("cannot notify %q: vsock is not supported", address)
	}
	if address[0] != '/' && address[0] != '@' {
		return nil, fmt.Errorf("cannot notify %q: neither an absolute path nor an @abstract name", address)
	}
	conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		return nil, fmt.Errorf("cannot notify %q: %w", address, causeOf(err))
	}
	u := &upward{
		conn: conn, in: make(chan upwardMessage), count: make(chan int),
		quit: make(chan struct{}), ended: make(chan int, 1),
	}
	out, lost := make(chan upwardMessage), make(chan struct{})
	go u.write(address, out, lost)
	go u.keep(out, lost)
	return u, nil
}

// ready says that a generation serves: at the first time, and after each reloading.
func (u *upward) ready(status string) {
	u.say(upwardState, "READY=1"+statusTag(status))
}

// reloading says that a restart begins. systemd waits for RELOADING with a time after its own reload signal.
func (u *upward) reloading(status string) {
	var now unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
	u.say(upwardState, fmt.Sprintf("RELOADING=1\nMONOTONIC_USEC=%d%s", now.Nano()/1000, statusTag(status)))
}

// stopping says that hotwrap itself ends. It is final, since systemd 259.
func (u *upward) stopping(status string) {
	u.say(upwardState, "STOPPING=1"+statusTag(status))
}

// status says how things are, in a line.
func (u *upward) status(text string) {
	u.say(upwardStatus, "STATUS="+oneLine(text, maxUpwardText))
}

// extend asks for d more before the manager gives up on a start, a reload or a stop.
func (u *upward) extend(d time.Duration) {
	u.say(upwardExtend, fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", max(d, 0).Microseconds()))
}

// watchdog says that hotwrap lives.
func (u *upward) watchdog() {
	u.say(upwardWatchdog, "WATCHDOG=1")
}

// store has the manager keep a descriptor under a name, of which ours may be closed at once. FDPOLL=0: a socket that a program has
// shut down stays; it can listen again.
func (u *upward) store(name string, fd int) error {
	if u == nil {
		return nil
	}
	fd, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return err
	}
	u.post(upwardMessage{kind: upwardStore, text: "FDSTORE=1\nFDNAME=" + name + "\nFDPOLL=0", file: true, fd: fd})
	return nil
}

// unstore has the manager close what it keeps under a name.
func (u *upward) unstore(name string) {
	u.say(upwardStore, "FDSTOREREMOVE=1\nFDNAME="+name)
}

// barrier waits until the manager has acted on all that was said before, for at most limit. It then closes what it gets; one that
// is older than the word (systemd 246) does so, too.
func (u *upward) barrier(limit time.Duration) {
	if u == nil {
		return
	}
	r, w, err := os.Pipe()
	if err != nil {
		return
	}
	defer r.Close()
	fd, err := unix.FcntlInt(w.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	_ = w.Close()
	if err != nil {
		return
	}
	u.post(upwardMessage{kind: upwardStore, text: "BARRIER=1", file: true, fd: fd})
	_ = r.SetReadDeadline(time.Now().Add(limit))
	_, _ = r.Read(make([]byte, 1)) // it ends when nobody has the other end any more
}

// statusTag is the STATUS line of a message, nothing if there is nothing to say.
func statusTag(status string) string {
	if status = oneLine(status, maxUpwardText); status == "" {
		return ""
	}
	return "\nSTATUS=" + status
}

// say hands a message to keep, which is never busy.
func (u *upward) say(kind upwardKind, text string) {
	if u != nil {
		u.post(upwardMessage{text: text, kind: kind})
	}
}

func (u *upward) post(m upwardMessage) {
	select {
	case u.in <- m:
	case <-u.quit:
		m.drop()
	}
}

// drop closes what was to go along.
func (m upwardMessage) drop() {
	if m.file {
		_ = unix.Close(m.fd)
	}
}

// dropped returns how many messages the manager will never see; those that a newer one replaced do not count.
func (u *upward) dropped() int {
	if u == nil {
		return 0
	}
	select {
	case n := <-u.count:
		return n
	case <-u.quit:
		return 0
	}
}

// close says what still waits, for at most upwardPatience, and ends. It returns how many messages were dropped.
// To be called once, by whoever calls the others.
func (u *upward) close() int {
	if u == nil {
		return 0
	}
	_ = u.conn.SetWriteDeadline(time.Now().Add(upwardPatience))
	close(u.quit)
	return <-u.ended
}

// keep holds what waits, until close.
func (u *upward) keep(out chan<- upwardMessage, lost <-chan struct{}) {
	var waiting []upwardMessage
	dropped := 0
	for quit := u.quit; quit != nil || len(waiting) > 0; {
		var next chan<- upwardMessage
		var first upwardMessage
		if len(waiting) > 0 {
			next, first = out, waiting[0]
		}
		select {
		case m := <-u.in:
			var n int
			waiting, n = enqueue(waiting, m)
			dropped += n
		case next <- first:
			waiting = waiting[1:]
		case <-lost:
			dropped++
		case u.count <- dropped:
		case <-quit:
			quit = nil // what came before is in waiting already: say does not return earlier
		}
	}
	close(out)
	for range lost {
		dropped++
	}
	u.ended <- dropped
}

// enqueue adds m. If more than a few wait, what m makes out of date goes: an earlier one of its kind, back to the last change
// of state; a manager that keeps up hears every line. If too much waits, the oldest goes that is no change of state, else
// the oldest. It returns how many were lost so.
func enqueue(waiting []upwardMessage, m upwardMessage) ([]upwardMessage, int) {
	for i := len(waiting) - 1; i >= 0 && len(waiting) >= spareUpward && waiting[i].kind != upwardState; i-- {
		if waiting[i].kind == m.kind && m.kind != upwardStore {
			waiting = slices.Delete(waiting, i, i+1)
			break
		}
	}
	waiting = append(waiting, m)
	stays := func(w upwardMessage) bool { return w.kind == upwardStore }
	if len(waiting) <= maxUpward || !slices.ContainsFunc(waiting, func(w upwardMessage) bool { return !stays(w) }) {
		return waiting, 0
	}
	i := slices.IndexFunc(waiting, func(w upwardMessage) bool { return !stays(w) && w.kind != upwardState })
	if i < 0 {
		i = slices.IndexFunc(waiting, func(w upwardMessage) bool { return !stays(w) })
	}
	return slices.Delete(waiting, i, i+1), 1
}

// write sends what keep hands out; it alone waits for the manager.
func (u *upward) write(address string, out <-chan upwardMessage, lost chan<- struct{}) {
	defer u.conn.Close()
	defer close(lost)
	for m := range out {
		err := u.send(m)
		if errors.Is(err, unix.ECONNREFUSED) || errors.Is(err, unix.ENOTCONN) {
			// The manager has bound its socket anew. A connection is needed at all because poll(2) tells of a
			// receiver that is full only to who is connected to it.
			if err = reconnect(u.conn, address); err == nil {
				err = u.send(m)
			}
		}
		m.drop()
		if err != nil {
			lost <- struct{}{}
		}
	}
}

// send is one datagram. Package net passes no descriptors over a connected one.
func (u *upward) send(m upwardMessage) error {
	if !m.file {
		_, err := u.conn.Write([]byte(m.text))
		return err
	}
	raw, err := u.conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Write(func(fd uintptr) bool {
		err = unix.Sendmsg(int(fd), []byte(m.text), unix.UnixRights(m.fd), nil, 0)
		return !errors.Is(err, unix.EAGAIN)
	}); e != nil {
		return e
	}
	return err
}

// reconnect connects the same descriptor again, so that a deadline set on it still holds.
func reconnect(conn syscall.Conn, address string) error {
	raw, err := conn.SyscallConn()
	if err != nil {
		return err
	}
	if e := raw.Control(func(fd uintptr) {
		err = unix.Connect(int(fd), &unix.SockaddrUnix{Name: address})
	}); e != nil {
		return e
	}
	return err
}

// watchdogInterval returns how often to call watchdog: half of what the manager waits, 0 if it does not wait for us.
func watchdogInterval(environ []string) time.Duration {
	if pid := getenv(environ, "WATCHDOG_PID"); pid != "" && pid != strconv.Itoa(os.Getpid()) {
		return 0
	}
	usec := getenv(environ, "WATCHDOG_USEC")
	return microseconds(usec) / 2
}

// extendInterval returns how often a manager that waits is told to wait on, 0 if there is none: three times within what it is
// told. That is no more than its own watchdog waits, since that is extended, too.
func extendInterval(u *upward, heartbeat time.Duration) time.Duration {
	if u == nil {
		return 0
	}
	if heartbeat == 0 || heartbeat*2 > extendMost {
		return extendMost / extendParts
	}
	return heartbeat * 2 / extendParts
}
