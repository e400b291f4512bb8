package app

import (
	"context"
	"net"
	"net/http"
	"sync"
	"time"
)

// Serve serves on the listeners until stop is closed, then answers what has
// reached this process and returns. Connections that stay unused are given idle.
//
// Shutdown alone would drop a request that it reads after the call, on a fresh
// connection too (golang.org/issue/75591), so it only comes last.
func Serve(srv *http.Server, listeners []net.Listener, stop <-chan struct{}, idle time.Duration) {
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
	for _, l := range listeners {
		accepting.Go(func() { _ = srv.Serve(l) })
	}
	<-stop
	for _, l := range listeners {
		_ = l.Close() // this process's copy; who connects now waits for the successor
	}
	accepting.Wait() // what was accepted is counted
	gone := make(chan struct{})
	go func() { open.Wait(); close(gone) }()
	select {
	case <-gone:
	case <-time.After(idle):
	}
	_ = srv.Shutdown(context.Background()) // closes the unused, waits for the others
}
