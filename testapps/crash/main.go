// Command crash exits with STATUS (7), or dies of SIGNAL ("SEGV"), AFTER a time (at once). With READY it
// first says that it is ready, and waits for connections, of which it accepts none.
package main

import (
	"fmt"
	"os"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	if os.Getenv("READY") != "" {
		listeners := app.Open() // from here on the runtime polls them
		defer runtime.KeepAlive(listeners)
		app.Notify("READY=1")
	}
	time.Sleep(app.Duration("AFTER", 0))
	fmt.Fprintln(os.Stderr, "crash: told to")
	if name := os.Getenv("SIGNAL"); name != "" {
		die(strings.TrimPrefix(name, "SIG"))
	}
	status := 7
	if text := os.Getenv("STATUS"); text != "" {
		var err error
		if status, err = strconv.Atoi(text); err != nil {
			app.Fail(fmt.Errorf("cannot read STATUS: %w", err))
		}
	}
	os.Exit(status)
}

// die becomes a shell, in this same process, that dies of the signal: the Go
// runtime would turn SEGV, ABRT or QUIT into a trace and exit status 2.
func die(name string) {
	script := []string{"sh", "-c", "ulimit -c 0; kill -s " + name + " $$"}
	app.Fail(fmt.Errorf("cannot die of %q: %w", name, syscall.Exec("/bin/sh", script, os.Environ())))
}
