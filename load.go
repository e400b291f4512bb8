package main

// This file is the load of a trial: clients that ask as real ones do, and tell what became of each request.
//
// Its rules:
//   - A client never asks again for what was lost. One whose kept connection was closed while it was idle connects anew,
//     as every pool does, and has lost nothing.
//   - The load is bounded: few clients, a pause between their requests, a limit for each answer.
//   - A client owns its connection; what it saw goes to the one who started it.

import (
	"bufio"
	"context"
	"errors"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"slices"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	loadClients   = 8
	loadTargets   = 4                      // listeners that are tried
	loadPause     = 2 * time.Millisecond   // between two requests of one client
	loadLate      = 50 * time.Millisecond  // at most, from the connection to the first request, of a client that is late
	loadSparse    = 200 * time.Millisecond // at most, between two requests, of a client that is idle
	loadPatience  = 10 * time.Second       // for one answer
	probePatience = 3 * time.Second        // for the first answer of all
	loadAnswer    = 4 << 20                // bytes read of one answer
)

// spoken is what a listener's program speaks.
type spoken string

const (
	spokenHTTP    spoken = "HTTP"
	spokenHead    spoken = "HTTP, an answer without an end" // only its head is waited for
	spokenNothing spoken = "not HTTP"
)

// loadTarget is a listener that is asked.
type loadTarget struct {
	name, network, addr string
	speaks              spoken
	status              int // of the first answer
	err                 error
	talk                *talk // another protocol than HTTP; nil none
}

// talk is a protocol of requests and answers.
type talk struct {
	request func(keep bool) []byte
	answer  func(from *bufio.Reader) (status int, last bool, err error) // last: the server ends the connection
}

// talks is how t is asked.
func (t loadTarget) talks() talk {
	if t.talk != nil {
		return *t.talk
	}
	return talk{httpRequest, func(from *bufio.Reader) (int, bool, error) { return readWhole(from, t.speaks) }}
}

// guest is one client.
type guest struct {
	target loadTarget
	keep   bool // its connection, as long as the server does
	slow   bool // it is late with a new connection, or leaves a kept one idle
	limit  time.Duration

	conn net.Conn
	read *bufio.Reader
	used bool // conn was
}

// startLoad starts the clients of some targets. They stop when ctx ends, each after the request in hand; the last
// closes the channel.
func startLoad(ctx context.Context, targets []loadTarget, limit time.Duration) <-chan outcome {
	out := make(chan outcome, 4*loadClients)
	var all sync.WaitGroup
	each := loadClients / max(len(targets), 1)
	for _, t := range targets {
		for i := range each {
			a := &guest{target: t, limit: limit, keep: t.speaks == spokenHTTP && i >= each/2, slow: i%4 == 1}
			all.Go(func() { a.run(ctx, out) })
		}
	}
	go func() {
		all.Wait()
		close(out)
	}()
	return out
}

// run asks until ctx ends.
func (a *guest) run(ctx context.Context, out chan<- outcome) {
	defer a.hangUp()
	pause := time.NewTimer(0)
	defer pause.Stop()
	for {
		select {
		case <-pause.C:
		case <-ctx.Done():
			return
		}
		out <- a.ask(ctx) // somebody reads until the channel is closed
		d := loadPause
		if a.slow && a.keep {
			d = rand.N(loadSparse)
		}
		pause.Reset(d)
	}
}

func (a *guest) hangUp() {
	if a.conn != nil {
		_ = a.conn.Close()
		a.conn, a.used = nil, false
	}
}

// ask asks once.
func (a *guest) ask(ctx context.Context) outcome {
	if a.conn != nil && hasEnded(a.conn) {
		a.hangUp()
	}
	o := outcome{began: time.Now(), kept: a.used}
	status, last, err := a.exchange(ctx)
	o.ended, o.status = time.Now(), status
	o.loss, o.own = lossOf(err)
	if err != nil || last || !a.keep {
		a.hangUp()
	}
	return o
}

// exchange connects if it must, sends a request and reads its answer; last says that the server ends the connection.
func (a *guest) exchange(ctx context.Context) (status int, last bool, err error) {
	if a.conn == nil {
		if a.conn, err = net.DialTimeout(a.target.network, a.target.addr, a.limit); err != nil {
			return 0, true, err
		}
		a.read = bufio.NewReader(a.conn)
		if a.target.speaks == spokenNothing {
			return 0, true, nil
		}
		if a.slow && !a.keep {
			wait(ctx, rand.N(loadLate))
		}
	}
	a.used = true
	_ = a.conn.SetDeadline(time.Now().Add(a.limit))
	how := a.target.talks()
	if _, err := a.conn.Write(how.request(a.keep)); err != nil {
		return 0, true, err
	}
	if _, err := a.read.Peek(1); err != nil {
		return 0, true, err
	}
	return how.answer(a.read)
}

func httpRequest(keep bool) []byte {
	wish := "close"
	if keep {
		wish = "keep-alive"
	}
	return []byte("GET / HTTP/1.1\r\nHost: localhost\r\nUser-Agent: hotwrap-doctor\r\nAccept: */*\r\nConnection: " + wish + "\r\n\r\n")
}

// errCut is an answer that ends before it is complete.
var errCut = errors.New("the answer is cut short")

// readWhole reads one answer.
func readWhole(from *bufio.Reader, speaks spoken) (status int, last bool, err error) {
	answer, err := http.ReadResponse(from, nil)
	if err != nil {
		return 0, true, errors.Join(errCut, err)
	}
	defer func() { _ = answer.Body.Close() }()
	if speaks == spokenHead {
		return answer.StatusCode, true, nil
	}
	n, err := io.Copy(io.Discard, io.LimitReader(answer.Body, loadAnswer))
	if err != nil {
		return answer.StatusCode, true, errors.Join(errCut, err)
	}
	return answer.StatusCode, answer.Close || n == loadAnswer, nil
}

// wait waits so long, or until ctx ends.
func wait(ctx context.Context, d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-t.C:
	case <-ctx.Done():
	}
}

// hasEnded tells whether the other side has ended an idle connection, or says something that nobody asked for.
func hasEnded(conn net.Conn) bool {
	c, ok := conn.(syscall.Conn)
	if !ok {
		return false
	}
	raw, err := c.SyscallConn()
	if err != nil {
		return true
	}
	var nothing error
	err = raw.Read(func(fd uintptr) bool {
		_, _, nothing = unix.Recvfrom(int(fd), make([]byte, 1), unix.MSG_PEEK|unix.MSG_DONTWAIT)
		return true
	})
	return err != nil || !errors.Is(nothing, unix.EAGAIN)
}

// lossOf says how a request was lost; own is an error of the client itself.
func lossOf(err error) (loss lossKind, own error) {
	is := func(causes ...error) bool {
		return slices.ContainsFunc(causes, func(cause error) bool { return errors.Is(err, cause) })
	}
	switch {
	case err == nil:
		return lossNone, nil
	case is(syscall.ECONNREFUSED, syscall.ENOENT, syscall.EAGAIN): // EAGAIN: the queue of a unix socket is full
		return lossRefused, nil
	case isTimeout(err):
		return lossLate, nil
	case is(errCut):
		return lossCut, nil
	case is(io.EOF):
		return lossUnanswered, nil
	case is(syscall.ECONNRESET, syscall.EPIPE, syscall.ECONNABORTED):
		return lossReset, nil
	}
	return lossNone, err
}

func isTimeout(err error) bool {
	var timeout net.Error
	return errors.As(err, &timeout) && timeout.Timeout()
}

// probe finds out what is spoken on a listener.
func probe(t loadTarget) loadTarget {
	a := &guest{target: t, limit: probePatience}
	defer a.hangUp()
	a.target.speaks = spokenHTTP
	t.status, _, t.err = a.exchange(context.Background())
	late := isTimeout(t.err)
	switch {
	case t.err == nil:
		t.speaks = spokenHTTP
	case t.status != 0 && late:
		t.speaks, t.err = spokenHead, nil
	case a.conn == nil: // not even a connection
		t.speaks = spokenNothing
	default:
		t.speaks, t.err = spokenNothing, nil
	}
	return t
}
