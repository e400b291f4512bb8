// Command activation serves on the sockets that systemd's protocol hands over, found by
// go-systemd's activation package, says that it is ready, and drains on TERM.
package main

import (
	"context"
	"fmt"
	"log"
	"net"
	"net/http"
	"os"
	"os/signal"
	"sync"
	"syscall"
	"time"

	"github.com/coreos/go-systemd/v22/activation"
	"github.com/coreos/go-systemd/v22/daemon"
)

// serve serves until stop is closed, then answers what has reached this
// process and returns. Connections that stay unused are given idle.
func serve(srv *http.Server, l net.Listener, stop <-chan struct{}, idle time.Duration) {
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stop: // the client is told not to use this connection again
			w.Header().Set("Connection", "close")
		default:
		}
		handler.ServeHTTP(w, r)
	})
	var accepting, open sync.WaitGroup
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	accepting.Go(func() { srv.Serve(l) })
	<-stop
	l.Close()        // this process's copy; who connects now waits for the successor
	accepting.Wait() // what was accepted is counted
	gone := make(chan struct{})
	go func() { open.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(idle):
	}
	srv.Shutdown(context.Background()) // closes the unused, waits for the others
}

func main() {
	listeners, err := activation.Listeners()
	if err != nil || len(listeners) != 1 {
		log.Fatalf("%d sockets: %v", len(listeners), err)
	}
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	stop := make(chan struct{})
	go func() { <-signals; close(stop) }()
	hello := func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintf(w, "generation %s pid %d\n", os.Getenv("HOTWRAP_GENERATION"), os.Getpid())
	}
	daemon.SdNotify(false, daemon.SdNotifyReady)
	serve(&http.Server{Handler: http.HandlerFunc(hello)}, listeners[0], stop, 2*time.Second)
}
