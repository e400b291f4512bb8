// Command echo serves HTTP on every listener it inherits, says that it is
// ready, and on TERM drains without losing a request.
package main

import (
	"os"

	"hotwrap/testapps/internal/app"
)

var build = "dev" // set by -ldflags "-X main.build=..."

func main() {
	app.Lifeline()
	if addr := os.Getenv("ELSEWHERE"); addr != "" { // a second port
		app.Elsewhere(addr)
	}
	stop := app.Stop()
	listeners := app.Open() // from here on the runtime polls them
	app.Notify("READY=1\nSTATUS=serving")
	app.Serve(app.Server(build), listeners, stop, app.Idle())
}
