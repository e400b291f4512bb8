// Command late serves and says so, and dies AFTER (500ms) that.
package main

import (
	"os"
	"time"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	app.Say("READY=1")
	time.AfterFunc(app.Duration("AFTER", 500*time.Millisecond), func() { os.Exit(9) })
	app.Run("late")
}
