// Command hasty serves on what it inherits, whoever LISTEN_PID names, and prints every signal it gets, a line each.
// On TERM it finishes what it has, on the second it ends at once, as many servers do; with
// STUBBORN=1 it does neither.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"strconv"
	"syscall"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

func main() {
	app.Lifeline()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGINT, syscall.SIGHUP, syscall.SIGUSR1, syscall.SIGUSR2)
	stop := make(chan struct{})
	go func() {
		for last := false; ; {
			s := <-signals
			fmt.Printf("pid %d got %s\n", os.Getpid(), unix.SignalName(s.(syscall.Signal)))
			switch {
			case s != syscall.SIGTERM || os.Getenv("STUBBORN") == "1":
			case last:
				os.Exit(9)
			default:
				last = true
				close(stop)
			}
		}
	}()
	if os.Getenv("LISTEN_FDS") != "" {
		_ = os.Setenv("LISTEN_PID", strconv.Itoa(os.Getpid()))
	}
	app.Serve(app.Server("hasty"), app.Open(), stop, app.Idle())
}
