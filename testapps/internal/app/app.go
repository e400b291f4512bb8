// Package app is what the test programs have in common: they inherit their
// listeners by systemd's protocol, say when they are ready, drain without
// losing a request, and end when the test that started them has ended.
package app

import (
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// Listeners returns the sockets this process was handed (sd_listen_fds(3)):
// LISTEN_FDS of them from descriptor 3 on, if LISTEN_PID says they are meant
// for this very process. A program that starts others unsets the three names.
func Listeners() ([]net.Listener, error) {
	if os.Getenv("LISTEN_PID") != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	count, err := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	if err != nil {
		return nil, fmt.Errorf("cannot read LISTEN_FDS: %w", err)
	}
	var listeners []net.Listener
	for fd := 3; fd < 3+count; fd++ {
		file := os.NewFile(uintptr(fd), "listener")
		l, err := net.FileListener(file)
		if err != nil {
			return nil, fmt.Errorf("cannot listen on descriptor %d: %w", fd, err)
		}
		_ = file.Close() // FileListener made a copy
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// Notify tells the supervisor something, READY=1 above all (sd_notify(3)).
// Without a supervisor that listens it does nothing.
func Notify(text string) error {
	path := os.Getenv("NOTIFY_SOCKET") // "@name" is an abstract one, which package net knows
	if path == "" {
		return nil
	}
	conn, err := net.Dial("unixgram", path)
	if err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text); err != nil {
		return fmt.Errorf("cannot notify: %w", err)
	}
	return nil
}

// Stop returns a channel that is closed when TERM comes.
func Stop() <-chan struct{} {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGTERM)
	stop := make(chan struct{})
	go func() {
		<-signals
		close(stop)
	}()
	return stop
}

// Lifeline ends the process when the test that started it has ended: the test
// holds the writing end of the fifo TESTAPP_LIFELINE. It is opened without
// blocking, because a test that is gone already will never open it again.
func Lifeline() {
	path := os.Getenv("TESTAPP_LIFELINE")
	if path == "" {
		return
	}
	fifo, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0)
	if err != nil {
		Fail(fmt.Errorf("cannot open the lifeline: %w", err))
	}
	go func() {
		_, _ = io.Copy(io.Discard, fifo)
		os.Exit(1)
	}()
}

// Duration is the variable name read as a duration, or other where it is unset.
func Duration(name string, other time.Duration) time.Duration {
	text, ok := os.LookupEnv(name)
	if !ok || text == "" {
		return other
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		Fail(fmt.Errorf("cannot read %s: %w", name, err))
	}
	return d
}

// Fail says why on stderr and ends the process.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, "testapp: error:", err)
	os.Exit(1)
}
