// Package early is what hotwrap does before anything else when it goes on in the place of another hotwrap: it catches
// signals.
//
// An exec leaves no handlers, and the Go runtime unblocks what would end a process as soon as it starts (blockableSig in
// runtime/signal_unix.go), long before main. Packages are initialised in the order of their import paths, so this one
// comes as soon as one can.
package early

import (
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
)

// Room is how many signals may wait. What does not fit is dropped; the kernel merges equal pending signals, so this is
// filled only by a burst of CHLD in a long step.
const Room = 256

// Resume is the variable that names what another hotwrap has left, FD:PID:…, for the process of that pid only.
const Resume = "HOTWRAP_RESUME"

// Signals are all that hotwrap listens to. WINCH is missing on purpose: a terminal sends it at every resize, and it stops httpd.
var Signals = []os.Signal{
	syscall.SIGHUP, syscall.SIGTERM, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGTTIN, syscall.SIGTTOU, syscall.SIGCHLD, syscall.SIGPIPE,
}

// Caught has what came so far; nil where this hotwrap begins by itself.
var Caught = caught()

func caught() chan os.Signal {
	_, rest, _ := strings.Cut(os.Getenv(Resume), ":")
	pid, _, _ := strings.Cut(rest, ":")
	if pid != strconv.Itoa(os.Getpid()) {
		return nil
	}
	all := make(chan os.Signal, Room)
	signal.Notify(all, Signals...)
	return all
}
