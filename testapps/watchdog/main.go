// Command watchdog serves, and says WATCHDOG=1 as often as WATCHDOG_USEC asks, until USR1: from then
// on it says nothing any more. With USEC it asks for that interval itself.
package main

import (
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	text := os.Getenv("WATCHDOG_USEC")
	first := "READY=1"
	if usec := os.Getenv("USEC"); usec != "" {
		text, first = usec, first+"\nWATCHDOG_USEC="+usec
	} else if os.Getenv("WATCHDOG_PID") != strconv.Itoa(os.Getpid()) {
		os.Exit(3) // the watchdog is meant for another process
	}
	usec, err := strconv.Atoi(text)
	if err != nil {
		app.Fail(err)
	}
	app.Notify(first)
	hang := make(chan os.Signal, 1)
	signal.Notify(hang, syscall.SIGUSR1)
	go func() {
		for {
			app.Notify("WATCHDOG=1")
			select {
			case <-time.After(time.Duration(usec) * time.Microsecond / 4):
			case <-hang:
				return
			}
		}
	}()
	app.Serve(app.Server("watchdog"), app.Open(), app.Stop(), app.Idle())
}
