package main

// This file is what hotwrap hears a worker by, all of it together: its notify socket, --ready fd=N, EINHORN_SOCK_FD, the
// calls of an adopted program; and how they are hushed and go on when hotwrap replaces itself.
//
// Its rules:
//   - Hushed sources hold everything: descriptors and paths stay, what has been read goes to the supervisor, what has not
//     waits in the kernel.
//   - A worker that is gone may leave processes that still wait for answers to their calls: those sources outlive it.

import (
	"errors"
	"fmt"
	"net"
	"os"
	"path/filepath"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// ears are the sources of one worker.
type ears struct {
	notify   *notifySocket
	adoption *adoption // what it binds
	pipe     *hearing  // --ready fd=N
	acks     *hearing  // EINHORN_SOCK_FD
	report   *os.File  // closing it ends the report's source
}

// carriedEars are the sources of one worker on their way to the next hotwrap. After a death only the path counts: who
// speaks finds it again.
type carriedEars struct {
	Path     string           `json:"path,omitempty"` // of the notify socket
	Notify   int              `json:"notify,omitempty"`
	Acks     int              `json:"acks,omitempty"` // the ack socket
	Clients  []carriedPipe    `json:"clients,omitempty"`
	Ready    *carriedPipe     `json:"ready,omitempty"`    // --ready fd=N
	AckPipe  *carriedPipe     `json:"ack_pipe,omitempty"` // EINHORN_SOCK_FD
	Adoption *carriedAdoption `json:"adoption,omitempty"`
}

// carriedPipe is hotwrap's end of something that a worker writes to, and what was read of it and is not whole yet.
type carriedPipe struct {
	FD   int    `json:"fd"`
	Told bool   `json:"told,omitempty"`
	Held []byte `json:"held,omitempty"`
}

// number notes that the descriptor of an open file is to survive, and returns it. Without baggage it is not to, and 0.
func (b *baggage) number(c syscall.Conn) (fd int) {
	if b == nil {
		return 0
	}
	if raw, err := c.SyscallConn(); err == nil {
		_ = raw.Control(func(n uintptr) { fd = b.keep(int(n)) })
	}
	return fd
}

// double is number for a file that somebody else may close meanwhile; 0 if that has happened.
func (b *baggage) double(c syscall.Conn) (fd int) {
	raw, err := c.SyscallConn()
	if err != nil {
		return 0
	}
	_ = raw.Control(func(n uintptr) {
		if own, err := unix.FcntlInt(n, unix.F_DUPFD_CLOEXEC, 0); err == nil {
			fd = b.keep(own)
		}
	})
	return fd
}

// carriedFile is a descriptor that came along, as an open file; nil if there is none.
func carriedFile(fd int, name string) *os.File {
	if fd <= 0 {
		return nil
	}
	unix.CloseOnExec(fd)
	return os.NewFile(uintptr(fd), name)
}

func isClosed(c <-chan struct{}) bool {
	select {
	case <-c:
		return true
	default:
		return false
	}
}

// hush ends what listens to the workers, and hands back what was read and not posted. Once more is no harm.
func (h *host) hush() (left []event) {
	for serial, e := range h.ears {
		left = append(left, e.hush(serial)...)
	}
	return left
}

// hush ends the goroutines of one worker's sources.
func (e ears) hush(serial int) (left []event) {
	var all []notice
	if e.notify != nil {
		all = append(all, e.notify.hush()...)
	}
	for _, pipe := range []*hearing{e.pipe, e.acks} {
		if pipe != nil {
			all = append(all, pipe.hush()...)
		}
	}
	for _, n := range all {
		left = append(left, event{kind: evNotice, serial: serial, notice: n})
	}
	if e.adoption != nil {
		for _, c := range e.adoption.hush() {
			left = append(left, event{kind: evCall, serial: serial, call: c})
		}
	}
	return left
}

// carry is to be called of hushed ones. Without baggage it is what a death leaves.
func (e ears) carry(b *baggage) carriedEars {
	var c carriedEars
	if e.notify != nil {
		c.Path = e.notify.path
	}
	if b == nil {
		return c
	}
	if e.notify != nil {
		c.Notify, c.Acks = b.number(e.notify.messages), b.number(e.notify.acks)
		for _, client := range e.notify.clients {
			if client != nil {
				c.Clients = append(c.Clients, carriedPipe{FD: b.number(client.conn), Held: client.held})
			}
		}
	}
	c.Ready, c.AckPipe = e.pipe.carry(b), e.acks.carry(b)
	if e.adoption != nil {
		c.Adoption = e.adoption.carry(b)
	}
	return c
}

func (h *hearing) carry(b *baggage) *carriedPipe {
	if h == nil {
		return nil
	}
	return &carriedPipe{FD: b.number(h.file), Told: h.told, Held: h.held}
}

// restoreEars makes the sources of a worker again; settle starts them.
func (h *host) restoreEars(serial int, c carriedEars) (e ears, err error) {
	hear := h.hearer(serial)
	if c.Notify > 0 {
		if e.notify, err = restoreNotifySocket(c, hear); err != nil {
			return e, err
		}
	}
	e.pipe = c.Ready.restore("ready", hear, (*hearing).newline)
	e.acks = c.AckPipe.restore("ack socket", hear, (*hearing).acks)
	if c.Adoption != nil {
		e.adoption, err = restoreAdoption(*c.Adoption, h.calls(serial))
	}
	return e, err
}

func (c *carriedPipe) restore(name string, post poster, parse func(*hearing, []byte) []notice) *hearing {
	if c == nil {
		return nil
	}
	file := carriedFile(c.FD, name)
	if file == nil {
		return nil
	}
	return &hearing{file: file, post: post, parse: parse, told: c.Told, held: c.Held}
}

// restoreNotifySocket makes the source of a worker's messages and acks again.
func restoreNotifySocket(c carriedEars, post poster) (*notifySocket, error) {
	s := &notifySocket{path: c.Path, ackPath: c.Path + "a", post: post}
	acks, err := restoreListener(c.Acks)
	if err != nil {
		return nil, err
	}
	s.acks, _ = acks.(*net.UnixListener)
	err = doubled(c.Notify, func(f *os.File) error {
		conn, err := net.FilePacketConn(f)
		s.messages, _ = conn.(*net.UnixConn)
		return err
	})
	for i, client := range c.Clients[:min(len(c.Clients), maxAcks)] {
		err = errors.Join(err, doubled(client.FD, func(f *os.File) error {
			conn, err := net.FileConn(f)
			if conn, ok := conn.(*net.UnixConn); ok {
				s.clients[i] = newAckClient(conn)
				s.clients[i].held = client.Held
			}
			return err
		}))
	}
	if err == nil && (s.messages == nil || s.acks == nil) {
		err = errors.New("cannot go on with a notify socket: it is of another kind")
	}
	return s, err
}

// doubled has package net make a socket of its own of one that came along; settle closes the one that came.
func doubled(fd int, open func(f *os.File) error) error {
	if fd <= 0 {
		return errors.New("cannot go on with a socket: it did not come along")
	}
	own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
	if err == nil {
		file := os.NewFile(uintptr(own), "socket")
		defer file.Close()
		err = open(file)
	}
	if err != nil {
		return fmt.Errorf("cannot go on with the socket that is descriptor %d: %w", fd, err)
	}
	return nil
}

// doubles are the descriptors that were doubled.
func (w *written) doubles() []int {
	all := []int{w.HTTP, w.Place.Listener}
	for _, c := range w.Ears {
		all = append(all, c.Notify, c.Acks)
		for _, client := range c.Clients {
			all = append(all, client.FD)
		}
	}
	return slices.DeleteFunc(all, func(fd int) bool { return fd <= 0 })
}

// settle has everything that was taken over do its work: from here on nobody can go back to who carried it.
func (h *host) settle(w *written) {
	for _, fd := range w.doubles() {
		_ = unix.Close(fd)
	}
	h.out.start()
	for _, e := range h.ears {
		if e.notify != nil {
			e.notify.start()
		}
		for _, pipe := range []*hearing{e.pipe, e.acks} {
			if pipe != nil {
				pipe.start()
			}
		}
		if e.adoption != nil {
			e.adoption.start()
		}
	}
}

// carryListener notes that a listener of hotwrap's own is to survive.
func carryListener(b *baggage, l net.Listener) int {
	if c, ok := l.(syscall.Conn); ok {
		return b.number(c)
	}
	return 0
}

// restoreListener goes on with a listener that came along.
func restoreListener(fd int) (l net.Listener, err error) {
	err = doubled(fd, func(f *os.File) error {
		l, err = net.FileListener(f)
		return err
	})
	if u, ok := l.(*net.UnixListener); ok {
		u.SetUnlinkOnClose(false) // its owner does it
	}
	return l, err
}

// recoverEars opens the sockets of a worker anew under their old path: the hotwrap that had them was killed, and who
// speaks on them lives.
func (h *host) recoverEars(serial int, c carriedEars) (e ears, err error) {
	if h.notify == nil || filepath.Dir(c.Path) != h.notify.path {
		return e, nil
	}
	e.notify, err = h.notify.listenAgain(c.Path, h.hearer(serial))
	return e, err
}

// hearer posts what a worker says.
func (h *host) hearer(serial int) poster {
	return func(n notice, quit <-chan struct{}) bool {
		return h.postUntil(event{kind: evNotice, serial: serial, notice: n}, quit)
	}
}

// calls posts what a worker binds.
func (h *host) calls(serial int) func(*call, <-chan struct{}) bool {
	return func(c *call, quit <-chan struct{}) bool {
		return h.postUntil(event{kind: evCall, serial: serial, call: c}, quit)
	}
}

// listenTo opens the ways by which one worker can speak, and adds their other ends to its launch.
func (h *host) listenTo(serial int, l *launch) (e ears, err error) {
	hear := h.hearer(serial)
	if h.notify != nil {
		if e.notify, err = h.notify.listen(hear); err != nil && !errors.Is(err, unix.EMFILE) && !errors.Is(err, unix.ENFILE) {
			if err = h.moveNotify(); err == nil {
				e.notify, err = h.notify.listen(hear)
			}
		}
		if err != nil {
			return e, err
		}
		l.env = append(l.env, "NOTIFY_SOCKET="+e.notify.path, "EINHORN_SOCK_PATH="+e.notify.ackPath)
	}
	if h.limits.ready == readyFD {
		if l.ready, e.pipe, err = openReadyPipe(hear); err != nil {
			h.close(e)
			return e, err
		}
	}
	if h.program.ackFD >= 0 {
		if l.ack, e.acks, err = openAckSocket(hear); err != nil {
			h.close(e)
			_ = unix.Close(l.ready) // no harm if it is none
			return e, err
		}
	}
	if e.report, l.report, err = openPipe("report"); err != nil {
		h.close(e)
		_ = unix.Close(l.ready) // no harm if they are none
		_ = unix.Close(l.ack)
	}
	return e, err
}

// forget ends the sources of a worker that is gone. Where a process that it has left behind may still call, its number is
// a negative one from then on.
func (h *host) forget(w *worker) {
	e := h.ears[w.Serial]
	h.close(e)
	delete(h.ears, w.Serial)
	if e.adoption != nil {
		h.ears[-w.Serial] = ears{adoption: e.adoption}
	}
	for serial, e := range h.ears {
		if serial < 0 && e.adoption.isOver() {
			delete(h.ears, serial)
		}
	}
	h.out.gone(w.Serial)
}

// close ends sources. What they had read of a worker that is no more concerns nobody.
func (h *host) close(e ears) {
	if e.notify != nil {
		_ = e.notify.stop()
	}
	for _, pipe := range []*hearing{e.pipe, e.acks} {
		if pipe != nil {
			_ = pipe.stop()
		}
	}
	if e.adoption != nil {
		e.adoption.stop()
	}
	if e.report != nil {
		_ = e.report.Close()
	}
}
