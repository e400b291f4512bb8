// Command never inherits its sockets, accepts nothing, says nothing, and ends on TERM.
package main

import "hotwrap/testapps/internal/app"

func main() {
	app.Lifeline()
	<-app.Stop()
}
