package app

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve serves on the listeners until stop is closed, then drains: what has
// reached this process is answered, and only then does it return. Shutdown
// alone drops a request that it reads after the call (golang.org/issue/75591).
func Serve(srv *http.Server, listeners []net.Listener, stop <-chan struct{}, idle time.Duration) {
	handler := srv.Handler
	srv.Handler = http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		select {
		case <-stop: // tell the client not to use this connection again
			w.Header().Set("Connection", "close")
		default:
		}
		handler.ServeHTTP(w, r)
	})
	var open, accepting sync.WaitGroup
	srv.ConnState = func(_ net.Conn, state http.ConnState) {
		switch state {
		case http.StateNew:
			open.Add(1)
		case http.StateClosed, http.StateHijacked:
			open.Done()
		}
	}
	for _, l := range listeners {
		accepting.Go(func() { _ = srv.Serve(l) })
	}
	<-stop
	for _, l := range listeners {
		_ = l.Close() // our copy; new connections wait for the successor
	}
	accepting.Wait()
	gone := make(chan struct{})
	go func() { open.Wait(); close(gone) }()
	select { // a connection that is used once more is closed by its answer
	case <-gone:
	case <-time.After(idle):
	}
	_ = srv.Shutdown(context.Background()) // closes the idle, waits for the others
}
