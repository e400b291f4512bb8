// Command slow takes DELAY (2s) before it serves and says so; with EXTEND it asks for that time first.
package main

import (
	"fmt"
	"os"
	"time"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	if d := app.Duration("EXTEND", 0); d > 0 {
		app.Say(fmt.Sprintf("EXTEND_TIMEOUT_USEC=%d", d.Microseconds()))
	}
	select {
	case <-time.After(app.Duration("DELAY", 2*time.Second)):
	case <-app.Stop():
		os.Exit(0)
	}
	app.Say("READY=1")
	app.Run("slow")
}
