// Command signals prints "ready (pid: N)" and then every signal it gets, a line
// each, until TERM. It serves nothing.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

// caught is every signal that a supervisor might send. Not URG, which the Go
// runtime sends to itself, and not CHLD.
var caught = []os.Signal{
	syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM, syscall.SIGUSR1, syscall.SIGUSR2,
	syscall.SIGALRM, syscall.SIGVTALRM, syscall.SIGCONT, syscall.SIGTSTP, syscall.SIGTTIN, syscall.SIGTTOU,
	syscall.SIGWINCH, syscall.SIGIO, syscall.SIGPIPE, syscall.SIGXCPU, syscall.SIGXFSZ,
}

func main() {
	app.Lifeline()
	signals := make(chan os.Signal, 64)
	signal.Notify(signals, caught...)
	fmt.Printf("ready (pid: %d)\n", os.Getpid())
	app.Notify("READY=1")
	for s := range signals {
		fmt.Println(unix.SignalName(s.(syscall.Signal)))
		if s == syscall.SIGTERM {
			return
		}
	}
}
