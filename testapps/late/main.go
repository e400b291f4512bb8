// Command late serves like echo and says that it is ready, then dies with
// status 9, AFTER a time (500ms).
package main

import (
	"os"
	"time"

	"hotwrap/testapps/internal/app"
)

var build = "dev" // set by -ldflags "-X main.build=..."

func main() {
	app.Lifeline()
	stop := app.Stop()
	listeners := app.Open()
	time.AfterFunc(app.Duration("AFTER", 500*time.Millisecond), func() { os.Exit(9) })
	app.Notify("READY=1\nSTATUS=serving")
	app.Serve(app.Server(build), listeners, stop, app.Idle())
}
