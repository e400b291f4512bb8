// Command slow serves like echo, but only DELAY (2s) after its start; with
// EXTEND set to a duration it asks for that much more time first.
package main

import (
	"fmt"
	"time"

	"hotwrap/testapps/internal/app"
)

var build = "dev" // set by -ldflags "-X main.build=..."

func main() {
	app.Lifeline()
	if extend := app.Duration("EXTEND", 0); extend > 0 {
		app.Notify(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", extend.Microseconds()))
	}
	time.Sleep(app.Duration("DELAY", 2*time.Second)) // TERM ends it meanwhile
	stop := app.Stop()
	listeners := app.Open()
	app.Notify("READY=1\nSTATUS=serving")
	app.Serve(app.Server(build), listeners, stop, app.Idle())
}
