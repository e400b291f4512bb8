// Command abrupt serves like echo, each answer taking a time (TAKES, 100ms), and knows nothing of TERM: it dies of it,
// in the middle of its answers. With DEAF=1 it ignores TERM instead. With ONE=1 it serves one connection at a time, and
// the others wait in the kernel's queue.
package main

import (
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"hotwrap/testapps/internal/app"
)

var build = "dev" // set by -ldflags "-X main.build=..."

func main() {
	app.Lifeline()
	if os.Getenv("DEAF") == "1" {
		signal.Ignore(syscall.SIGTERM)
	}
	takes := app.Duration("TAKES", 100*time.Millisecond)
	srv := app.Server(build)
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		time.Sleep(takes)
		handler.ServeHTTP(w, r)
	})
	listeners := app.Open()
	if os.Getenv("ONE") == "1" {
		for i, l := range listeners {
			listeners[i] = &turnstile{l, make(chan struct{}, 1)}
		}
	}
	app.Serve(srv, listeners, nil, app.Idle())
}

// turnstile accepts a connection when the one before has ended.
type turnstile struct {
	net.Listener
	taken chan struct{}
}

func (l *turnstile) Accept() (net.Conn, error) {
	l.taken <- struct{}{}
	conn, err := l.Listener.Accept()
	if err != nil {
		<-l.taken
		return nil, err
	}
	return &single{Conn: conn, of: l}, nil
}

type single struct {
	net.Conn
	of   *turnstile
	once sync.Once
}

func (c *single) Close() error {
	err := c.Conn.Close()
	c.once.Do(func() { <-c.of.taken })
	return err
}
