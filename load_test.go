package main

// This file tries the clients of a trial against servers that end connections in every way there is.

import (
	"bufio"
	"context"
	"io"
	"net"
	"path/filepath"
	"testing"
	"time"
)

// answering serves each connection on its own goroutine until the test ends, and returns where.
func answering(t *testing.T, network string, serve func(conn net.Conn, in *bufio.Reader)) loadTarget {
	t.Helper()
	addr := "127.0.0.1:0"
	if network == "unix" {
		addr = filepath.Join(t.TempDir(), "s")
	}
	l, err := net.Listen(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				serve(conn, bufio.NewReader(conn))
			}()
		}
	}()
	return loadTarget{network: network, addr: l.Addr().String(), speaks: spokenHTTP}
}

// takeRequest reads a request's head; false: there is none any more.
func takeRequest(in *bufio.Reader) bool {
	for {
		line, err := in.ReadString('\n')
		if err != nil || line == "\r\n" {
			return err == nil
		}
	}
}

const wellAnswer = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"

func TestGuestLoses(t *testing.T) {
	for name, c := range map[string]struct {
		serve func(conn net.Conn, in *bufio.Reader)
		want  lossKind
	}{
		"answered":   {func(conn net.Conn, in *bufio.Reader) { takeRequest(in); io.WriteString(conn, wellAnswer) }, lossNone},
		"unanswered": {func(_ net.Conn, in *bufio.Reader) { takeRequest(in) }, lossUnanswered},
		"reset": {func(conn net.Conn, in *bufio.Reader) {
			takeRequest(in)
			conn.(*net.TCPConn).SetLinger(0)
		}, lossReset},
		"cut short": {func(conn net.Conn, in *bufio.Reader) {
			takeRequest(in)
			io.WriteString(conn, wellAnswer[:len(wellAnswer)-1])
		}, lossCut},
		"late": {func(_ net.Conn, in *bufio.Reader) { takeRequest(in); takeRequest(in) }, lossLate},
	} {
		t.Run(name, func(t *testing.T) {
			limit := patience
			if c.want == lossLate {
				limit = 50 * time.Millisecond
			}
			a := &guest{target: answering(t, "tcp", c.serve), limit: limit}
			defer a.hangUp()
			if o := a.ask(context.Background()); o.loss != c.want || o.own != nil {
				t.Errorf("got %q, %v, want %q", o.loss, o.own, c.want)
			}
		})
	}
}

func TestGuestRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	l.Close()
	for _, target := range []loadTarget{
		{network: "tcp", addr: l.Addr().String()}, {network: "unix", addr: filepath.Join(t.TempDir(), "none")},
	} {
		a := &guest{target: target, limit: patience}
		if o := a.ask(context.Background()); o.loss != lossRefused {
			t.Errorf("%s: got %q, %v, want refused", target.network, o.loss, o.own)
		}
	}
}

// TestGuestIdle: a kept connection that was closed while it was idle is not lost; one that takes a request and closes is.
func TestGuestIdle(t *testing.T) {
	for _, network := range []string{"tcp", "unix"} {
		closed := make(chan struct{})
		target := answering(t, network, func(conn net.Conn, in *bufio.Reader) {
			takeRequest(in)
			io.WriteString(conn, wellAnswer)
			conn.Close()
			closed <- struct{}{}
		})
		a := &guest{target: target, keep: true, limit: patience}
		for n := range 2 {
			if o := a.ask(context.Background()); o.loss != lossNone || o.kept {
				t.Errorf("%s: request %d: %q, kept %v", network, n, o.loss, o.kept)
			}
			<-closed
		}
		a.hangUp()
	}
	target := answering(t, "tcp", func(conn net.Conn, in *bufio.Reader) {
		takeRequest(in)
		io.WriteString(conn, wellAnswer)
		takeRequest(in)
	})
	a := &guest{target: target, keep: true, limit: patience}
	defer a.hangUp()
	if o := a.ask(context.Background()); o.loss != lossNone {
		t.Errorf("the first: %q", o.loss)
	}
	if o := a.ask(context.Background()); o.loss != lossUnanswered || !o.kept {
		t.Errorf("the second: %q, kept %v", o.loss, o.kept)
	}
}

func TestProbe(t *testing.T) {
	for name, c := range map[string]struct {
		serve  func(conn net.Conn, in *bufio.Reader)
		want   spoken
		status int
	}{
		"HTTP":   {func(conn net.Conn, in *bufio.Reader) { takeRequest(in); io.WriteString(conn, wellAnswer) }, spokenHTTP, 200},
		"echo":   {func(conn net.Conn, in *bufio.Reader) { io.Copy(conn, in) }, spokenNothing, 0},
		"closes": {func(net.Conn, *bufio.Reader) {}, spokenNothing, 0},
		"SMTP":   {func(conn net.Conn, in *bufio.Reader) { io.WriteString(conn, "220 hello\r\n"); takeRequest(in) }, spokenNothing, 0},
		"event feed": {func(conn net.Conn, in *bufio.Reader) {
			io.WriteString(conn, "HTTP/1.1 200 OK\r\n\r\ndata: 1\n\n")
			takeRequest(in)
			takeRequest(in)
		}, spokenHead, 200},
	} {
		t.Run(name, func(t *testing.T) {
			t.Parallel() // one of them waits for what does not come
			if got := probe(answering(t, "tcp", c.serve)); got.speaks != c.want || got.status != c.status || got.err != nil {
				t.Errorf("got %q, %d, %v", got.speaks, got.status, got.err)
			}
		})
	}
}

// TestLoad: every client asks, on new connections and on kept ones, and the channel is closed when they are told to stop.
func TestLoad(t *testing.T) {
	target := answering(t, "tcp", func(conn net.Conn, in *bufio.Reader) {
		for takeRequest(in) {
			io.WriteString(conn, wellAnswer)
		}
	})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	kept, fresh := 0, 0
	for o := range startLoad(ctx, []loadTarget{target}, patience) {
		if o.loss != lossNone || o.own != nil {
			t.Fatalf("lost: %q, %v", o.loss, o.own)
		}
		if o.kept {
			kept++
		} else {
			fresh++
		}
		if kept > 20 && fresh > 20 {
			cancel()
		}
	}
}
