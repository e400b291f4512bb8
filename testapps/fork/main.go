// Command fork serves and has a grandchild in its process group, which it leaves behind on TERM. The
// grandchild ends on TERM too, but with STUBBORN=1 it ignores that.
package main

import (
	"fmt"
	"net/http"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	if len(os.Args) > 1 {
		grandchild()
		return
	}
	self, err := os.Executable()
	if err != nil {
		app.Fail(err)
	}
	cmd := exec.Command(self, "grandchild")
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		app.Fail(err)
	}
	listeners, stop := app.Open(), app.Stop()
	go func() {
		<-stop
		os.Exit(0)
	}()
	app.Say(fmt.Sprintf("READY=1\nSTATUS=grandchild %d", cmd.Process.Pid))
	app.Serve(&http.Server{Handler: app.Handler("fork")}, listeners, make(chan struct{}), app.Idle)
}

func grandchild() {
	fmt.Println("grandchild", os.Getpid())
	if os.Getenv("STUBBORN") != "" {
		signal.Ignore(syscall.SIGTERM)
		select {}
	}
	<-app.Stop()
}
