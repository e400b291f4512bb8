// Command quiet serves like echo but never says so: that it is ready must be seen.
package main

import "hotwrap/testapps/internal/app"

func main() {
	app.Lifeline()
	app.Run("quiet")
}
