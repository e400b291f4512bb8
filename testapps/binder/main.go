// Command binder binds by itself, as programs do that know nothing of a supervisor.
//
//	binder serve NETWORK ADDRESS   serves what it is told, a line to each that comes
//	binder time N PORT             binds and listens N times on 127.0.0.1, and says how long each took, in nanoseconds
package main

import (
	"fmt"
	"net"
	"os"
	"strconv"
	"syscall"
	"time"
)

func main() {
	if len(os.Args) != 4 {
		fail(fmt.Errorf("want three arguments"))
	}
	switch os.Args[1] {
	case "serve":
		serve(os.Args[2], os.Args[3])
	case "time":
		n, err := strconv.Atoi(os.Args[2])
		fail(err)
		port, err := strconv.Atoi(os.Args[3])
		fail(err)
		clock(n, port)
	}
}

func fail(err error) {
	if err != nil {
		fmt.Println("error:", err)
		os.Exit(1)
	}
}

func serve(network, address string) {
	if network == "udp" {
		c, err := net.ListenPacket(network, address)
		fail(err)
		fmt.Println("serving", c.LocalAddr())
		for buf := make([]byte, 100); ; {
			n, from, err := c.ReadFrom(buf)
			fail(err)
			_, err = c.WriteTo(buf[:n], from)
			fail(err)
		}
	}
	l, err := net.Listen(network, address)
	fail(err)
	fmt.Println("serving", l.Addr())
	for {
		c, err := l.Accept()
		fail(err)
		fmt.Fprintln(c, "pid", os.Getpid())
		c.Close()
	}
}

func clock(n, port int) {
	for range n {
		fd, err := syscall.Socket(syscall.AF_INET, syscall.SOCK_STREAM, 0)
		fail(err)
		fail(syscall.SetsockoptInt(fd, syscall.SOL_SOCKET, syscall.SO_REUSEADDR, 1))
		at := time.Now()
		fail(syscall.Bind(fd, &syscall.SockaddrInet4{Port: port, Addr: [4]byte{127, 0, 0, 1}}))
		fail(syscall.Listen(fd, 5))
		fmt.Println(time.Since(at).Nanoseconds())
		fail(syscall.Close(fd))
	}
}
