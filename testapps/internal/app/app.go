// Package app is what the test programs have in common: they inherit their
// listeners by systemd's protocol, say when they are ready, drain without
// losing a request, and end when the test that started them has ended.
package app

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/signal"
	"strconv"
	"syscall"
	"time"
)

// Listeners returns the sockets that this process was handed, LISTEN_FDS of
// them from descriptor 3 on (sd_listen_fds(3)). None are its own unless
// LISTEN_PID names it: the variables may be left over from an ancestor.
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
			return nil, fmt.Errorf("cannot accept on descriptor %d: %w", fd, err)
		}
		_ = file.Close() // FileListener made a copy
		listeners = append(listeners, l)
	}
	return listeners, nil
}

// Open returns the inherited listeners. Without any it listens on ADDR, or on
// a free port of the loopback, and says on stderr where.
func Open() []net.Listener {
	listeners, err := Listeners()
	if err != nil {
		Fail(err)
	}
	if len(listeners) > 0 {
		return listeners
	}
	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		Fail(fmt.Errorf("cannot listen on %q: %w", addr, err))
	}
	fmt.Fprintln(os.Stderr, l.Addr())
	return []net.Listener{l}
}

// Notify tells the supervisor something, READY=1 above all (sd_notify(3)).
// It does nothing where nobody listens for it: not where the supervisor was killed
// either, which is no reason for a program to end.
func Notify(text string) {
	path := os.Getenv("NOTIFY_SOCKET") // "@name" is an abstract address to package net too
	if path == "" {
		return
	}
	conn, err := net.Dial("unixgram", path)
	if err == nil {
		defer conn.Close()
		_, err = io.WriteString(conn, text)
	}
	if err != nil && !errors.Is(err, syscall.ECONNREFUSED) && !errors.Is(err, syscall.ENOENT) {
		Fail(fmt.Errorf("cannot notify: %w", err))
	}
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

// Lifeline ends this process when the test that started it has ended: the test
// holds the writing end of the fifo TESTAPP_LIFELINE. It is opened without
// waiting for a writer, because a test that is gone never opens it again.
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

// Idle is how long a connection that nobody uses may hold up a drain.
func Idle() time.Duration { return Duration("IDLE", time.Second) }

// Duration reads the variable name, which is other where it is not set.
func Duration(name string, other time.Duration) time.Duration {
	text := os.Getenv(name)
	if text == "" {
		return other
	}
	d, err := time.ParseDuration(text)
	if err != nil {
		Fail(fmt.Errorf("cannot read %s: %w", name, err))
	}
	return d
}

// Fail ends the process and says why on stderr.
func Fail(err error) {
	fmt.Fprintln(os.Stderr, "testapp: error:", err)
	os.Exit(1)
}
