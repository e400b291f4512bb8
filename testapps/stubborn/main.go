// Command stubborn serves like echo and ignores TERM, INT and QUIT.
package main

import (
	"os/signal"
	"syscall"

	"hotwrap/testapps/internal/app"
)

var build = "dev" // set by -ldflags "-X main.build=..."

func main() {
	signal.Ignore(syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT)
	app.Lifeline()
	listeners := app.Open()
	app.Notify("READY=1\nSTATUS=serving")
	app.Serve(app.Server(build), listeners, nil, app.Idle())
}
