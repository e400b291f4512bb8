// Command abrupt serves like echo, each answer taking a time (TAKES, 100ms), and knows nothing of TERM: it dies of it,
// in the middle of its answers. With DEAF=1 it ignores TERM instead.
package main

import (
	"net/http"
	"os"
	"os/signal"
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
	app.Serve(srv, app.Open(), nil, app.Idle())
}
