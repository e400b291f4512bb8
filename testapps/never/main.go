// Command never holds what it inherits, serves nobody, says nothing, and ends on TERM.
package main

import "hotwrap/testapps/internal/app"

func main() {
	app.Lifeline()
	<-app.Stop()
}
