// Command abrupt serves like echo, each answer taking a time (TAKES, 100ms), and knows nothing of TERM: it dies of it,
// in the middle of its answers. With DEAF=1 it ignores TERM instead. With ONE=1 it serves one connection at a time, and
// the others wait in the kernel's queue. With SHUTS=1 it shuts its listeners down on USR2, and lives on.
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
	if os.Getenv("SHUTS") == "1" {
		go shutDown(listeners)
	}
	app.Serve(srv, listeners, nil, app.Idle())
}

// shutDown waits for USR2.
func shutDown(listeners []net.Listener) {
	told := make(chan os.Signal, 1)
	signal.Notify(told, syscall.SIGUSR2)
	<-told
	for _, l := range listeners {
		raw, err := l.(syscall.Conn).SyscallConn()
		if err != nil {
			app.Fail(err)
		}
		_ = raw.Control(func(fd uintptr) { err = syscall.Shutdown(int(fd), syscall.SHUT_RDWR) })
		if err != nil {
			app.Fail(err)
		}
	}
	select {} // what Serve does now is nobody's business
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
