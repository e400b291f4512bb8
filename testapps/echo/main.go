// Command echo is an HTTP server that does everything right: it inherits its sockets, says when it is
// ready, answers with its generation, and drains.
package main

import (
	"os"

	"hotwrap/testapps/internal/app"
)

// build is set by the linker, so that two builds can be told apart.
var build = "dev"

func main() {
	app.Lifeline()
	if where := os.Getenv("ELSEWHERE"); where != "" { // a second port that hotwrap does not know
		app.Elsewhere(where)
	}
	app.Say("READY=1\nSTATUS=serving")
	app.Run(build)
}
