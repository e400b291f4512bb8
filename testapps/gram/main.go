// Command gram writes what reaches the sockets it inherits to the file GOT, a line for each datagram: its
// generation and the text. It is the only writer of GOT: while another has the lock on it, it exits 5. While
// there is a fifo GATE, it waits at the start until that is opened for writing.
//
// gram NETWORK ADDRESS FROM TO is its client: it sends the numbers from FROM to TO.
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"sync"
	"syscall"
	"time"

	"hotwrap/testapps/internal/app"
)

func main() {
	app.Lifeline()
	if len(os.Args) == 5 {
		send(os.Args[1], os.Args[2], os.Args[3], os.Args[4])
		return
	}
	got, err := os.OpenFile(os.Getenv("GOT"), os.O_CREATE|os.O_APPEND|os.O_WRONLY, 0o666)
	if err != nil {
		app.Fail(err)
	}
	if err := syscall.Flock(int(got.Fd()), syscall.LOCK_EX|syscall.LOCK_NB); err != nil {
		fmt.Fprintln(os.Stderr, "gram: somebody else writes")
		os.Exit(5)
	}
	if gate, err := os.Open(os.Getenv("GATE")); err == nil {
		_ = gate.Close()
	}
	stop := app.Stop()
	count, _ := strconv.Atoi(os.Getenv("LISTEN_FDS"))
	var all sync.WaitGroup
	for fd := 3; fd < 3+count; fd++ {
		file := os.NewFile(uintptr(fd), "socket")
		if kind, _ := syscall.GetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_TYPE); kind == syscall.SOCK_DGRAM {
			conn, err := net.FilePacketConn(file)
			if err != nil {
				app.Fail(err)
			}
			all.Go(func() { receive(conn, got, stop) })
		} else {
			l, err := net.FileListener(file)
			if err != nil {
				app.Fail(err)
			}
			all.Go(func() { accept(l, got, stop) })
		}
		_ = file.Close()
	}
	app.Notify("READY=1")
	all.Wait()
}

func record(got *os.File, text []byte) {
	if _, err := fmt.Fprintf(got, "%s %s\n", os.Getenv("HOTWRAP_GENERATION"), text); err != nil {
		app.Fail(err)
	}
}

// receive writes down every datagram that it takes: TERM comes between two.
func receive(conn net.PacketConn, got *os.File, stop <-chan struct{}) {
	go func() {
		<-stop
		_ = conn.SetReadDeadline(time.Unix(1, 0))
	}()
	for buf := make([]byte, 1<<16); ; {
		n, _, err := conn.ReadFrom(buf)
		if err != nil {
			return
		}
		record(got, buf[:n])
	}
}

// accept writes down the first packet of every connection.
func accept(l net.Listener, got *os.File, stop <-chan struct{}) {
	go func() {
		<-stop
		_ = l.Close()
	}()
	for buf := make([]byte, 1<<16); ; {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		if n, err := conn.Read(buf); err == nil {
			record(got, buf[:n])
		}
		_ = conn.Close()
	}
}

func send(network, address, from, to string) {
	first, err1 := strconv.Atoi(from)
	last, err2 := strconv.Atoi(to)
	if err1 != nil || err2 != nil {
		app.Fail(fmt.Errorf("cannot send from %q to %q: not numbers", from, to))
	}
	var conn net.Conn
	for n := first; n <= last; n++ {
		if conn == nil || network == "unixpacket" || network == "tcp" {
			var err error
			if conn, err = net.Dial(network, address); err != nil {
				app.Fail(err)
			}
		}
		if _, err := fmt.Fprint(conn, n); err != nil {
			app.Fail(err)
		}
	}
}
