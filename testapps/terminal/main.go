//go:build linux

// Command terminal runs a command in a terminal of its own. What comes from the fifo KEYS is typed into
// it, what is shown there goes to standard output, USR1 hangs it up. At last it prints how the command
// ended.
package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"os/signal"
	"syscall"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

func main() {
	app.Lifeline()
	master, slave, err := open()
	if err != nil {
		app.Fail(err)
	}
	cmd := exec.Command(os.Args[1], os.Args[2:]...)
	cmd.Stdin, cmd.Stdout, cmd.Stderr = slave, slave, slave
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true, Setctty: true}
	if err := cmd.Start(); err != nil {
		app.Fail(err)
	}
	_ = slave.Close()
	if name := os.Getenv("KEYS"); name != "" {
		keys, err := os.OpenFile(name, os.O_RDWR, 0) // for writing too, so that it never ends
		if err != nil {
			app.Fail(err)
		}
		go func() { _, _ = io.Copy(master, keys) }()
	}
	hangup := make(chan os.Signal, 1)
	signal.Notify(hangup, syscall.SIGUSR1)
	go func() {
		<-hangup
		_ = master.Close()
	}()
	shown := make(chan struct{})
	go func() {
		_, _ = io.Copy(os.Stdout, master)
		close(shown)
	}()
	err = cmd.Wait()
	<-shown
	if exit := new(exec.ExitError); err != nil && !errors.As(err, &exit) {
		app.Fail(err)
	}
	fmt.Println("ended:", cmd.ProcessState)
}

// open makes a terminal: pts(4). The master is not blocking, so that closing it ends a read.
func open() (master, slave *os.File, err error) {
	fd, err := unix.Open("/dev/ptmx", unix.O_RDWR|unix.O_NOCTTY|unix.O_CLOEXEC|unix.O_NONBLOCK, 0)
	if err != nil {
		return nil, nil, err
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TIOCSPTLCK, 0); err != nil {
		return nil, nil, err
	}
	n, err := unix.IoctlGetInt(fd, unix.TIOCGPTN)
	if err != nil {
		return nil, nil, err
	}
	slave, err = os.OpenFile(fmt.Sprintf("/dev/pts/%d", n), os.O_RDWR|unix.O_NOCTTY, 0)
	return os.NewFile(uintptr(fd), "ptmx"), slave, err
}
