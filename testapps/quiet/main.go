// Command quiet serves like echo and says nothing: that it is ready must be seen.
package main

import "hotwrap/testapps/internal/app"

var build = "dev" // set by -ldflags "-X main.build=..."

func main() {
	app.Lifeline()
	stop := app.Stop()
	app.Serve(app.Server(build), app.Open(), stop, app.Idle())
}
