// Command stubborn serves and ignores every polite way to end it.
package main

import (
	"net/http"
	"os/signal"
	"syscall"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	listeners := app.Open()
	app.Say("READY=1")
	app.Serve(&http.Server{Handler: app.Handler("stubborn")}, listeners, make(chan struct{}), app.Idle)
}
