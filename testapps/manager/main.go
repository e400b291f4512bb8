//go:build linux

// Command manager is a service manager as systemd is one for a single service, as far as sd_notify(3), sd_listen_fds(3) and
// systemd.service(5) go: it starts COMMAND with sockets and a place to speak to, and keeps descriptors for it.
//
//	manager [OPTION]... -- COMMAND [ARG]...
//
// What it is told to do comes as lines on standard input: restart, reload, stop, kill, freeze. What happens it says on standard
// output, a line each; what it hears it passes on to its own NOTIFY_SOCKET. It ends after stop, or when the service does.
package main

import (
	"bufio"
	"flag"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

// kept is a descriptor in the store.
type kept struct {
	name string
	fd   int
	poll bool
}

// state is where the service stands, as systemctl shows it.
type state string

const (
	starting  state = "activating"
	active    state = "active"
	signalled state = "reload-signal" // until it says RELOADING=1 of after that
	reloading state = "reloading"
	stopping  state = "deactivating"
	dead      state = "inactive"
)

type manager struct {
	room, startLimit, stopLimit, watchdog int // of descriptors; milliseconds
	kill                                  string
	auto                                  bool
	argv                                  []string
	dir                                   string

	notify  *net.UnixConn
	up      net.Conn
	sockets []kept // of .socket units
	store   []kept

	state   state
	main    int
	began   int64 // of a reload, CLOCK_MONOTONIC in microseconds
	timer   time.Time
	dog     time.Time
	again   bool // start again once it is dead
	ordered bool // its end was asked for
	last    bool
	exits   chan int
}

func main() {
	app.Lifeline()
	m := &manager{exits: make(chan int)}
	flag.IntVar(&m.room, "store", 0, "FileDescriptorStoreMax=")
	flag.IntVar(&m.startLimit, "start", 10_000, "TimeoutStartSec=, in ms")
	flag.IntVar(&m.stopLimit, "stop", 10_000, "TimeoutStopSec=, in ms")
	flag.IntVar(&m.watchdog, "watchdog", 0, "WatchdogSec=, in ms")
	flag.StringVar(&m.kill, "kill", "mixed", "KillMode=")
	flag.BoolVar(&m.auto, "always", false, "Restart=always")
	flag.Func("socket", "[NAME=]ADDRESS", m.listen)
	flag.Parse()
	m.argv = flag.Args()
	if err := m.serve(); err != nil {
		fmt.Fprintln(os.Stderr, "manager:", err)
		os.Exit(1)
	}
}

func say(format string, args ...any) { fmt.Printf("manager: "+format+"\n", args...) }

// listen is a .socket unit. Without FileDescriptorName= all its sockets are called as it is.
func (m *manager) listen(text string) error {
	name, addr, named := strings.Cut(text, "=")
	if !named {
		name, addr = "service.socket", text
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		return err
	}
	f, err := l.(*net.TCPListener).File()
	if err != nil {
		return err
	}
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 3)
	say("listening on %s as %s", l.Addr(), name)
	m.sockets = append(m.sockets, kept{name: name, fd: fd})
	return err
}

func (m *manager) serve() error {
	_ = unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0) // its control group: all that is left of the service
	var err error
	if m.up, err = net.Dial("unixgram", os.Getenv("NOTIFY_SOCKET")); err != nil {
		return err
	}
	if m.dir, err = os.MkdirTemp("", "hwmanager"); err != nil {
		return err
	}
	defer os.RemoveAll(m.dir)
	m.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: filepath.Join(m.dir, "notify"), Net: "unixgram"})
	if err != nil {
		return err
	}
	raw, err := m.notify.SyscallConn()
	if err != nil {
		return err
	}
	_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), unix.SOL_SOCKET, unix.SO_PASSCRED, 1) })
	if err != nil {
		return err
	}
	heard, orders := make(chan message), make(chan string)
	go hear(m.notify, heard)
	go func() {
		for lines := bufio.NewScanner(os.Stdin); lines.Scan(); {
			orders <- lines.Text()
		}
	}()
	if err := m.start(); err != nil {
		return err
	}
	return m.run(heard, orders)
}

// run takes what was said before what has ended, as systemd does.
func (m *manager) run(heard <-chan message, orders <-chan string) error {
	tick := time.NewTicker(10 * time.Millisecond)
	for m.state != dead || !m.last {
		select {
		case msg := <-heard:
			m.take(msg)
			continue
		default:
		}
		select {
		case msg := <-heard:
			m.take(msg)
		case order := <-orders:
			m.obey(order)
		case status := <-m.exits:
			for quiet := time.After(20 * time.Millisecond); quiet != nil; {
				select {
				case msg := <-heard:
					m.take(msg)
				case <-quiet:
					quiet = nil
				}
			}
			if err := m.ended(status); err != nil {
				return err
			}
		case now := <-tick.C:
			m.due(now)
		}
	}
	return nil
}

// message is one datagram and what came with it.
type message struct {
	text string
	pid  int32
	fds  []int
}

func hear(conn *net.UnixConn, heard chan<- message) {
	for buf, oob := make([]byte, 4096), make([]byte, 4096); ; {
		n, on, _, _, err := conn.ReadMsgUnix(buf, oob)
		if err != nil {
			return
		}
		m := message{text: string(buf[:n])}
		parts, _ := unix.ParseSocketControlMessage(oob[:on])
		for _, part := range parts {
			if cred, err := unix.ParseUnixCredentials(&part); err == nil {
				m.pid = cred.Pid
			}
			if fds, err := unix.ParseUnixRights(&part); err == nil {
				m.fds = append(m.fds, fds...)
			}
		}
		for _, fd := range m.fds {
			unix.CloseOnExec(fd)
		}
		heard <- m
	}
}

// start starts the service with its sockets, those of the store last.
func (m *manager) start() error {
	fds := slices.Concat(m.sockets, m.store)
	var names []string
	var files []*os.File
	for _, k := range fds {
		names = append(names, k.name)
		fd, err := unix.FcntlInt(uintptr(k.fd), unix.F_DUPFD_CLOEXEC, 3)
		if err != nil {
			return err
		}
		files = append(files, os.NewFile(uintptr(fd), k.name))
	}
	cmd := exec.Command("sh", append([]string{"-c", `[ "$LISTEN_FDS" = 0 ] && unset LISTEN_FDS LISTEN_FDNAMES || export LISTEN_PID=$$; exec "$@"`, "sh"}, m.argv...)...)
	cmd.ExtraFiles, cmd.Stdout, cmd.Stderr = files, os.Stdout, os.Stderr
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+filepath.Join(m.dir, "notify"),
		"LISTEN_FDS="+strconv.Itoa(len(fds)), "LISTEN_FDNAMES="+strings.Join(names, ":"))
	if m.room > 0 {
		cmd.Env = append(cmd.Env, "FDSTORE="+strconv.Itoa(m.room))
	}
	if m.watchdog > 0 {
		cmd.Env = append(cmd.Env, "WATCHDOG_USEC="+strconv.Itoa(m.watchdog*1000))
		m.dog = time.Now().Add(time.Duration(m.watchdog) * time.Millisecond)
	}
	if err := cmd.Start(); err != nil {
		return err
	}
	for _, f := range files {
		f.Close()
	}
	m.main, m.ordered = cmd.Process.Pid, false
	m.enter(starting, 0) // its limit counts from its first word: how long exec takes is the machine's
	say("started pid=%d fds=%s", m.main, strings.Join(names, ":"))
	go func() {
		_ = cmd.Wait()
		m.exits <- cmd.ProcessState.ExitCode()
	}()
	return nil
}

// enter goes to another state, where one has so many milliseconds; 0 is for ever.
func (m *manager) enter(s state, limit int) {
	m.state, m.timer = s, time.Time{}
	if limit > 0 {
		m.timer = time.Now().Add(time.Duration(limit) * time.Millisecond)
	}
	say("%s", s)
}

func (m *manager) obey(order string) {
	switch order {
	case "reload":
		var now unix.Timespec
		_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &now)
		m.began = now.Nano() / 1000
		m.enter(signalled, m.startLimit)
		_ = unix.Kill(m.main, unix.SIGHUP)
	case "stop", "restart":
		m.again, m.last, m.ordered = order == "restart", order == "stop", true
		m.enter(stopping, m.stopLimit)
		_ = unix.Kill(m.main, unix.SIGTERM)
	case "kill":
		_ = unix.Kill(m.main, unix.SIGKILL)
	case "freeze":
		_ = unix.Kill(m.main, unix.SIGSTOP)
	default:
		say("unknown order %q", order)
	}
}

// due acts on limits that have passed.
func (m *manager) due(now time.Time) {
	m.store = slices.DeleteFunc(m.store, func(k kept) bool {
		p := []unix.PollFd{{Fd: int32(k.fd)}}
		n, _ := unix.Poll(p, 0)
		if !k.poll || n == 0 {
			return false
		}
		say("dropped %s", k.name)
		unix.Close(k.fd)
		return true
	})
	if !m.timer.IsZero() && m.timer.Before(now) {
		say("timed out while %s", m.state)
		m.timer = time.Time{}
		switch m.state {
		case signalled, reloading: // the reload fails, the service goes on
			m.enter(active, 0)
		case starting, stopping:
			_ = unix.Kill(m.main, unix.SIGKILL)
		case active, dead:
		}
	}
	if m.watchdog > 0 && m.state != dead && m.dog.Before(now) {
		say("watchdog")
		m.dog = now.Add(time.Hour)
		_ = unix.Kill(m.main, unix.SIGKILL)
	}
}

// ended goes on when the main process has.
func (m *manager) ended(status int) error {
	say("ended status=%d", status)
	if m.kill == "mixed" {
		m.killRest()
	}
	m.enter(dead, 0)
	if m.again || m.auto && !m.ordered {
		m.again = false
		return m.start()
	}
	for _, k := range m.store {
		unix.Close(k.fd)
	}
	m.store, m.last = nil, true
	return nil
}

// killRest kills all that is left of the service and came to us, who reap.
func (m *manager) killRest() {
	for {
		text, _ := os.ReadFile("/proc/thread-self/children")
		all, _ := filepath.Glob("/proc/self/task/*/children")
		for _, path := range all {
			more, _ := os.ReadFile(path)
			text = append(append(text, ' '), more...)
		}
		pids := strings.Fields(string(text))
		if len(pids) == 0 {
			return
		}
		for _, text := range pids {
			pid, _ := strconv.Atoi(text)
			_ = unix.Kill(pid, unix.SIGKILL)
			_, _ = unix.Wait4(pid, nil, 0, nil)
		}
	}
}

// take acts on one datagram.
func (m *manager) take(msg message) {
	rest := msg.fds
	defer func() {
		for _, fd := range rest {
			unix.Close(fd)
		}
	}()
	tags := strings.Split(msg.text, "\n")
	has := func(tag string) bool { return slices.Contains(tags, tag) }
	if has("BARRIER=1") {
		say("barrier")
		return
	}
	_, _ = m.up.Write([]byte(msg.text))
	if m.state == starting && m.timer.IsZero() && m.startLimit > 0 {
		m.timer = time.Now().Add(time.Duration(m.startLimit) * time.Millisecond)
	}
	if int(msg.pid) != m.main { // NotifyAccess=main
		say("ignored, of pid=%d", msg.pid)
		return
	}
	value := func(key string) string {
		for _, tag := range tags {
			if v, ok := strings.CutPrefix(tag, key+"="); ok {
				return v
			}
		}
		return ""
	}
	m.turn(has, value)
	if usec, err := strconv.ParseInt(value("EXTEND_TIMEOUT_USEC"), 10, 64); err == nil {
		until := time.Now().Add(time.Duration(usec) * time.Microsecond)
		if !m.timer.IsZero() && until.After(m.timer) {
			m.timer = until
		}
		if until.After(m.dog) {
			m.dog = until
		}
	}
	if has("WATCHDOG=1") && m.watchdog > 0 {
		m.dog = time.Now().Add(time.Duration(m.watchdog) * time.Millisecond)
	}
	name := value("FDNAME")
	if name == "" || len(name) > 255 || strings.ContainsFunc(name, func(r rune) bool { return r < ' ' || r > '~' || r == ':' }) {
		name = "stored"
	}
	if has("FDSTOREREMOVE=1") {
		m.store = slices.DeleteFunc(m.store, func(k kept) bool {
			if k.name == name {
				say("removed %s", name)
				unix.Close(k.fd)
			}
			return k.name == name
		})
	} else if has("FDSTORE=1") {
		rest = nil
		for _, fd := range msg.fds {
			m.keep(kept{name, fd, value("FDPOLL") != "0"})
		}
	}
}

// turn is what a message means to the state.
func (m *manager) turn(has func(string) bool, value func(string) string) {
	switch {
	case has("STOPPING=1"):
		if m.state != stopping {
			m.enter(stopping, m.stopLimit)
		}
	case has("RELOADING=1") && m.state == signalled:
		if usec, _ := strconv.ParseInt(value("MONOTONIC_USEC"), 10, 64); usec >= m.began {
			m.enter(reloading, m.startLimit)
		}
	case has("RELOADING=1") && m.state == active:
		m.enter(reloading, m.startLimit)
	case has("READY=1") && (m.state == starting || m.state == reloading):
		m.enter(active, 0)
	}
}

// keep stores a descriptor, unless it is there already.
func (m *manager) keep(k kept) {
	inode := func(fd int) uint64 {
		var st unix.Stat_t
		_ = unix.Fstat(fd, &st)
		return st.Ino
	}
	switch {
	case slices.ContainsFunc(m.store, func(o kept) bool { return inode(o.fd) == inode(k.fd) }):
		say("has it: %s", k.name)
	case len(m.store) >= m.room:
		say("no room for %s", k.name)
	default:
		say("stored %s", k.name)
		m.store = append(m.store, k)
		return
	}
	unix.Close(k.fd)
}
