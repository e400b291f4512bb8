// Command fork serves like echo and starts a grandchild in its own process
// group, which it leaves behind when it exits, at once, on TERM. The grandchild
// says "grandchild PID" on stdout and ends on TERM, with STUBBORN=1 it does not.
package main

import (
	"fmt"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"hotwrap/testapps/internal/app"
)

var build = "dev" // set by -ldflags "-X main.build=..."

const role = "FORK_GRANDCHILD"

func main() {
	app.Lifeline()
	if os.Getenv(role) != "" {
		grandchild()
		return
	}
	stop := app.Stop()
	go func() {
		<-stop
		os.Exit(0)
	}()
	start()
	listeners := app.Open()
	app.Notify("READY=1\nSTATUS=serving")
	app.Serve(app.Server(build), listeners, nil, app.Idle())
}

// start runs the grandchild; it inherits stdout and stderr, no listener.
func start() {
	self, err := os.Executable()
	if err != nil {
		app.Fail(err)
	}
	cmd := exec.Command(self)
	cmd.Env = append(os.Environ(), role+"=1")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		app.Fail(fmt.Errorf("cannot start the grandchild: %w", err))
	}
	go func() { _ = cmd.Wait() }()
}

// grandchild drops TERM where it is stubborn; the line says that this is in force.
func grandchild() {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	fmt.Println("grandchild", os.Getpid())
	for range signals {
		if os.Getenv("STUBBORN") != "1" {
			return
		}
	}
}
