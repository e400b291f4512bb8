// Command plain binds by itself each address that it is given, has no handler for any signal and knows nothing of
// hotwrap, like the first program of most manuals. An address is HOST:PORT, NETWORK:HOST:PORT or unix:PATH. Without a
// listener left it ends.
//
//	AGAIN=1     it binds, closes, and binds once more
//	CHILD=1     a child of it does everything
//	DELAY=DUR   it binds so long after its start
//	DIES=DUR    it exits 9 so long after it has listened
//	EVADES=1    where it cannot have an address it takes any other port
//	SHUTDOWN=1  on TERM it calls Shutdown at once, which drops each request that is read after that
//	TWICE=1     it binds each address twice, by SO_REUSEPORT
//	WORKERS=N   so many children serve on what it has bound; it does not
package main

import (
	"context"
	"fmt"
	"net"
	"os"
	"os/exec"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

var build = "dev" // set by -ldflags "-X main.build=..."

const (
	childOf  = "PLAIN_CHILD"  // set: this is the child of CHILD=1
	workerOf = "PLAIN_WORKER" // how many listeners it inherits, from descriptor 3
)

func main() {
	app.Lifeline()
	switch {
	case os.Getenv(workerOf) != "":
		inherited()
		return
	case os.Getenv("CHILD") != "" && os.Getenv(childOf) == "":
		os.Exit(<-child(nil, childOf+"=1"))
	}
	time.Sleep(app.Duration("DELAY", 0))
	var all []net.Listener
	for _, arg := range os.Args[1:] {
		if network, addr := split(arg); strings.HasPrefix(network, "udp") {
			answer(network, addr)
		} else {
			all = append(all, open(network, addr)...)
		}
	}
	if os.Getenv("DIES") != "" {
		time.AfterFunc(app.Duration("DIES", 0), func() { os.Exit(9) })
	}
	if n, _ := strconv.Atoi(os.Getenv("WORKERS")); n > 0 {
		workers(n, all)
		return
	}
	serve(all)
}

// split takes an address apart.
func split(arg string) (network, addr string) {
	for _, network := range []string{"tcp", "tcp4", "tcp6", "udp", "unix"} {
		if addr, ok := strings.CutPrefix(arg, network+":"); ok {
			return network, addr
		}
	}
	return "tcp", arg
}

// open binds one address.
func open(network, addr string) (all []net.Listener) {
	var how net.ListenConfig
	times := 1
	if os.Getenv("TWICE") == "1" {
		times = 2
		how.Control = func(_, _ string, raw syscall.RawConn) (err error) {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_REUSEPORT, 1) })
			return err
		}
	}
	for range times {
		l, err := how.Listen(context.Background(), network, addr)
		if err == nil && os.Getenv("AGAIN") == "1" {
			_ = l.Close()
			l, err = how.Listen(context.Background(), network, addr)
		}
		if err != nil && os.Getenv("EVADES") == "1" {
			l, err = how.Listen(context.Background(), "tcp", "127.0.0.1:0")
		}
		if err != nil {
			app.Fail(err)
		}
		all = append(all, l)
	}
	return all
}

// serve serves for ever, or until TERM where it is told to heed that.
func serve(all []net.Listener) {
	srv := app.Server(build)
	for _, l := range all {
		go func() { _ = srv.Serve(l) }()
	}
	if os.Getenv("SHUTDOWN") != "1" {
		select {}
	}
	<-app.Stop()
	_ = srv.Shutdown(context.Background())
}

// answer says over UDP who it is.
func answer(network, addr string) {
	conn, err := net.ListenPacket(network, addr)
	if err != nil {
		app.Fail(err)
	}
	who := fmt.Sprintf("generation %s pid %d\n", os.Getenv("HOTWRAP_GENERATION"), os.Getpid())
	go func() {
		for buf := make([]byte, 512); ; {
			if _, from, err := conn.ReadFrom(buf); err == nil {
				_, _ = conn.WriteTo([]byte(who), from)
			}
		}
	}()
}

// child starts a copy of this program; its status is sent when it has ended.
func child(files []*os.File, env ...string) <-chan int {
	self, err := os.Executable()
	if err != nil {
		app.Fail(err)
	}
	cmd := exec.Command(self, os.Args[1:]...)
	cmd.Env, cmd.ExtraFiles = append(os.Environ(), env...), files
	cmd.Stdout, cmd.Stderr = os.Stdout, os.Stderr
	if err := cmd.Start(); err != nil {
		app.Fail(fmt.Errorf("cannot start the child: %w", err))
	}
	end := make(chan int, 1)
	go func() {
		_ = cmd.Wait()
		end <- cmd.ProcessState.ExitCode()
	}()
	return end
}

// workers start with the listeners, and this process with them.
func workers(n int, all []net.Listener) {
	var files []*os.File
	for _, l := range all {
		file, err := l.(interface{ File() (*os.File, error) }).File()
		if err != nil {
			app.Fail(err)
		}
		files = append(files, file)
	}
	var last <-chan int
	for range n {
		last = child(files, workerOf+"="+strconv.Itoa(len(files)))
	}
	os.Exit(<-last)
}

// inherited is a worker.
func inherited() {
	var all []net.Listener
	n, _ := strconv.Atoi(os.Getenv(workerOf))
	for fd := 3; fd < 3+n; fd++ {
		l, err := net.FileListener(os.NewFile(uintptr(fd), "listener"))
		if err != nil {
			app.Fail(err)
		}
		all = append(all, l)
	}
	serve(all)
}
