// Command signals prints its pid and then the name of each signal that it gets; TERM ends it. It
// serves nothing.
package main

import (
	"fmt"
	"os"
	"os/signal"
	"syscall"

	"golang.org/x/sys/unix"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	all := make(chan os.Signal, 64)
	for n := 1; n < 32; n++ {
		if sig := syscall.Signal(n); sig != syscall.SIGURG { // the Go runtime's own
			signal.Notify(all, sig)
		}
	}
	fmt.Printf("ready (pid: %d)\n", os.Getpid())
	app.Say("READY=1")
	for sig := range all {
		number, _ := sig.(syscall.Signal)
		fmt.Println(unix.SignalName(number))
		app.Say("STATUS=got " + unix.SignalName(number))
		if sig == syscall.SIGTERM {
			return
		}
	}
}
