// Command tell says each of its arguments to NOTIFY_SOCKET, as systemd-notify does. "BARRIER=1" goes
// with a descriptor, and is waited for; "ack" is einhorn's, for the parent.
package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"os"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

func main() {
	app.Lifeline()
	for _, text := range os.Args[1:] {
		switch text {
		case "BARRIER=1":
			barrier()
		case "ack":
			ack()
		default:
			app.Notify(text)
		}
	}
}

// barrier waits until the other side has closed what it was sent (sd_notify_barrier(3)).
func barrier() {
	r, w, err := os.Pipe()
	if err != nil {
		app.Fail(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		app.Fail(err)
	}
	to := &unix.SockaddrUnix{Name: os.Getenv("NOTIFY_SOCKET")}
	err = unix.Sendmsg(fd, []byte("BARRIER=1"), unix.UnixRights(int(w.Fd())), to, 0)
	if err = errors.Join(err, w.Close()); err != nil {
		app.Fail(err)
	}
	_, _ = io.Copy(io.Discard, r)
	fmt.Println("barrier passed")
}

func ack() {
	conn, err := net.Dial("unix", os.Getenv("EINHORN_SOCK_PATH"))
	if err != nil {
		app.Fail(err)
	}
	if _, err := fmt.Fprintf(conn, `{"command": "worker:ack", "pid": %d}`+"\n", os.Getppid()); err != nil {
		app.Fail(err)
	}
	_, _ = io.Copy(io.Discard, conn)
}
