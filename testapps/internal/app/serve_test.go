package app

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"sync"
	"testing"
	"time"
)

const patience = 10 * time.Second // nothing here takes long; a test that hangs fails

// gate is a listener that tells of each connection it accepts, and of its end:
// Serve and the http.Server under it may both close it, at one moment.
type gate struct {
	net.Listener
	accepted chan struct{}
	closed   chan struct{}
	tell     func() // closes closed, once
}

func (g *gate) Accept() (net.Conn, error) {
	c, err := g.Listener.Accept()
	if err == nil {
		g.accepted <- struct{}{}
	}
	return c, err
}

func (g *gate) Close() error {
	err := g.Listener.Close()
	g.tell()
	return err
}

// client is one connection, and what was read from it.
type client struct {
	t *testing.T
	net.Conn
	in *bufio.Reader
}

func (c client) ask(path string) {
	c.t.Helper()
	if _, err := fmt.Fprintf(c, "GET %s HTTP/1.1\r\nHost: test\r\n\r\n", path); err != nil {
		c.t.Fatalf("cannot send: %v", err)
	}
}

func (c client) answer(last bool) {
	c.t.Helper()
	r, err := http.ReadResponse(c.in, nil) //nolint:bodyclose // its caller reads it to the end
	if err != nil {
		c.t.Fatalf("cannot read the answer: %v", err)
	}
	if _, err := io.Copy(io.Discard, r.Body); err != nil {
		c.t.Fatalf("cannot read the body: %v", err)
	}
	if r.StatusCode != http.StatusOK || r.Close != last {
		c.t.Errorf("got status %d, Connection: close %t; want 200, %t", r.StatusCode, r.Close, last)
	}
}

func start(t *testing.T, idle time.Duration) (g *gate, stop, entered, release, done chan struct{}) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	closed := make(chan struct{})
	g = &gate{l, make(chan struct{}, 8), closed, sync.OnceFunc(func() { close(closed) })}
	stop, entered, release, done = make(chan struct{}), make(chan struct{}), make(chan struct{}), make(chan struct{})
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(http.ResponseWriter, *http.Request) {})
	mux.HandleFunc("/long", func(http.ResponseWriter, *http.Request) { close(entered); <-release })
	go func() {
		Serve(&http.Server{Handler: mux}, []net.Listener{g}, stop, idle)
		close(done)
	}()
	return g, stop, entered, release, done
}

func (g *gate) dial(t *testing.T) client {
	t.Helper()
	conn, err := net.Dial("tcp", g.Addr().String())
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	if err := conn.SetDeadline(time.Now().Add(patience)); err != nil {
		t.Fatal(err)
	}
	<-g.accepted
	return client{t, conn, bufio.NewReader(conn)}
}

func await(t *testing.T, what string, c <-chan struct{}) {
	t.Helper()
	select {
	case <-c:
	case <-time.After(patience):
		t.Fatalf("%s: not within %s", what, patience)
	}
}

// Whoever was accepted before the stop is answered after it: a connection
// without a request so far, an idle one, and one whose request is still at work.
func TestServeAnswersWhatItAccepted(t *testing.T) {
	g, stop, entered, release, done := start(t, time.Hour)
	fresh, idle, busy := g.dial(t), g.dial(t), g.dial(t)
	idle.ask("/")
	idle.answer(false)
	busy.ask("/long")
	await(t, "the long request", entered)

	close(stop)
	await(t, "the listener's end", g.closed)

	fresh.ask("/")
	fresh.answer(true)
	idle.ask("/")
	idle.answer(true)
	close(release)
	busy.answer(false) // it was begun before the stop
	busy.ask("/")
	busy.answer(true)
	await(t, "the end of Serve", done)
}

// A connection that nobody uses is closed in the end.
func TestServeClosesTheUnused(t *testing.T) {
	g, stop, _, _, done := start(t, time.Millisecond)
	idle := g.dial(t)
	idle.ask("/")
	idle.answer(false)
	close(stop)
	await(t, "the end of Serve", done)
	if _, err := idle.in.ReadByte(); !errors.Is(err, io.EOF) {
		t.Errorf("got %v, want EOF", err)
	}
}
