// Command crash ends with STATUS (7), or of signal SIGNAL, after AFTER (at once).
package main

import (
	"fmt"
	"os"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	time.Sleep(app.Duration("AFTER", 0))
	fmt.Fprintln(os.Stderr, "crash: told to")
	if name := os.Getenv("SIGNAL"); name != "" {
		_ = syscall.Kill(os.Getpid(), unix.SignalNum("SIG"+name))
		select {}
	}
	status, err := strconv.Atoi(os.Getenv("STATUS"))
	if err != nil {
		status = 7
	}
	os.Exit(status)
}
