package main

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

// adoptee is a program behind the filter, as a worker is: its calls come in, its output can be read.
type adoptee struct {
	t     testing.TB
	pid   int
	a     *adoption
	calls chan *call    // unbuffered: the source waits with each until it is taken
	over  chan struct{} // nobody takes them any more
	out   *bufio.Reader
	end   chan syscall.WaitStatus
}

// startAdopted runs a program through the shim; change may ask for more.
func startAdopted(t testing.TB, change func(*shim.Spec), argv ...string) *adoptee {
	t.Helper()
	p := &adoptee{t: t, calls: make(chan *call), over: make(chan struct{}), end: make(chan syscall.WaitStatus, 1)}
	var theirs int
	var err error
	if p.a, theirs, err = openAdoption(p.post); err != nil {
		t.Fatal(err)
	}
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	path, err := exec.LookPath(argv[0])
	if err != nil {
		t.Fatal(err)
	}
	spec := shim.New()
	spec.Path, spec.Argv, spec.Adopt = path, argv, 3
	if change != nil {
		change(&spec)
	}
	null, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	p.pid, err = fork(spec.Args(shim.Mark), os.Environ(), []uintptr{null.Fd(), w.Fd(), w.Fd(), uintptr(theirs)},
		&syscall.SysProcAttr{Setpgid: true})
	w.Close()
	unix.Close(theirs)
	if err != nil {
		t.Fatal(err)
	}
	p.out = bufio.NewReader(r)
	go func() {
		var ws syscall.WaitStatus
		_, _ = syscall.Wait4(p.pid, &ws, 0, nil)
		p.end <- ws
	}()
	t.Cleanup(func() {
		for _, pid := range tree(p.pid) { // timeout and setsid leave the group
			_ = unix.Kill(pid, unix.SIGKILL)
		}
		r.Close()
		p.a.stop()
		close(p.over)
	})
	return p
}

func (p *adoptee) post(c *call, quit <-chan struct{}) bool {
	select {
	case p.calls <- c:
		return true
	case <-quit:
	case <-p.over:
	}
	return false
}

// each takes all calls from now on.
func (p *adoptee) each(answer func(c *call)) {
	go func() {
		for {
			select {
			case c := <-p.calls:
				answer(c)
			case <-p.over:
				return
			}
		}
	}()
}

// next is the next call.
func (p *adoptee) next(op callOp) *call {
	p.t.Helper()
	select {
	case c := <-p.calls:
		if c.op != op {
			p.t.Fatalf("%v came, not %v: %+v", c.op, op, c)
		}
		return c
	case <-time.After(20 * time.Second):
		p.t.Fatalf("no %v came", op)
	}
	return nil
}

// line is the next line of output.
func (p *adoptee) line() string {
	p.t.Helper()
	text, err := p.out.ReadString('\n')
	if err != nil {
		p.t.Fatalf("output ended: %v", err)
	}
	return strings.TrimSpace(text)
}

// bind does on the duplicate what the program asked for, as hotwrap will.
func (p *adoptee) bind(c *call) {
	p.t.Helper()
	c.done(bindAs(p.t, c))
}

func bindAs(t testing.TB, c *call) syscall.Errno {
	t.Helper()
	var sa unix.Sockaddr = &unix.SockaddrUnix{Name: c.path}
	switch {
	case c.path != "":
	case c.addr.Addr().Is4():
		sa = &unix.SockaddrInet4{Port: int(c.addr.Port()), Addr: c.addr.Addr().As4()}
	default:
		sa = &unix.SockaddrInet6{Port: int(c.addr.Port()), Addr: c.addr.Addr().As16()}
	}
	return errnoIn(unix.Bind(c.fd, sa))
}

func (p *adoptee) listen(c *call) {
	p.t.Helper()
	c.done(errnoIn(unix.Listen(c.fd, c.backlog)))
}

// serve does what is called for.
func (p *adoptee) serve(c *call) {
	p.t.Helper()
	if c.op == callBind {
		p.bind(c)
	} else {
		p.listen(c)
	}
}

func errnoIn(err error) (errno syscall.Errno) {
	_ = errors.As(err, &errno)
	return errno
}

// served is what one connection is told.
func served(t testing.TB, network, addr string) string {
	t.Helper()
	c, err := net.DialTimeout(network, addr, 10*time.Second)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_ = c.SetDeadline(time.Now().Add(10 * time.Second))
	fmt.Fprintf(c, "GET / HTTP/1.0\r\n\r\n")
	text, err := bufio.NewReader(c).ReadString('\n')
	if err != nil {
		t.Fatal(err)
	}
	return strings.TrimSpace(text)
}

// freeBindPort is a port that was free just now on every address.
func freeBindPort(t testing.TB) int {
	t.Helper()
	l, err := net.Listen("tcp", ":0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	return l.Addr().(*net.TCPAddr).Port
}

func binder(t testing.TB) string {
	t.Helper()
	dir, err := buildApps()
	if err != nil {
		t.Fatal(err)
	}
	return filepath.Join(dir, "binder")
}

// Programs as they are: hotwrap binds and listens on the program's own socket, and the program serves.
func TestAdoptInPlace(t *testing.T) {
	for _, c := range []struct{ name, host, command string }{
		{"go", "::", binder(t) + " serve tcp :PORT"},
		{"go4", "127.0.0.1", binder(t) + " serve tcp4 127.0.0.1:PORT"},
		{"python", "127.0.0.1", "python3 -m http.server --bind 127.0.0.1 PORT"},
		{"node", "::", "node -e require('http').createServer((q,r)=>r.end('hi')).listen(PORT)"},
		{"grandchild", "127.0.0.1", "timeout 60 " + binder(t) + " serve tcp 127.0.0.1:PORT"},
		{"setsid", "127.0.0.1", "setsid -w " + binder(t) + " serve tcp 127.0.0.1:PORT"},
	} {
		t.Run(c.name, func(t *testing.T) {
			port := strconv.Itoa(freeBindPort(t))
			argv := strings.Fields(strings.ReplaceAll(c.command, "PORT", port))
			if _, err := exec.LookPath(argv[0]); err != nil {
				t.Skip(err)
			}
			p := startAdopted(t, nil, argv...)
			b := p.next(callBind)
			if b.network != "tcp" || b.addr != netip.MustParseAddrPort(net.JoinHostPort(c.host, port)) || b.err != nil || !b.valid() {
				t.Fatalf("bind = %+v", b)
			}
			if isChild := b.pid == p.pid; isChild != (c.name != "grandchild" && c.name != "setsid") {
				t.Errorf("pid = %d, the worker's is %d", b.pid, p.pid)
			}
			p.bind(b)
			l := p.next(callListen)
			if l.inode != b.inode || l.addr != b.addr || l.backlog < 1 || l.only != b.only {
				t.Fatalf("listen = %+v after %+v", l, b)
			}
			p.listen(l)
			served(t, "tcp", "127.0.0.1:"+port)
			if b.valid() || l.fd >= 0 {
				t.Error("the calls are still there")
			}
		})
	}
}

// adoptPython runs Python behind the filter.
func adoptPython(t testing.TB, text string) *adoptee {
	t.Helper()
	if _, err := exec.LookPath("python3"); err != nil {
		t.Skip(err)
	}
	return startAdopted(t, nil, "python3", "-c", "import os,socket,sys\n"+text)
}

// An event loop that took up its socket before bind wakes, which it would not if it had been given another.
func TestAdoptEpoll(t *testing.T) {
	port := freeBindPort(t)
	p := adoptPython(t, `
import select
s = socket.socket()
s.setblocking(False)
e = select.epoll()
e.register(s, select.EPOLLIN)
s.bind(("127.0.0.1", `+strconv.Itoa(port)+`))
s.listen(7)
e.poll()
c, _ = s.accept()
c.send(b"awake\n")
`)
	p.bind(p.next(callBind))
	l := p.next(callListen)
	if flags, err := unix.FcntlInt(uintptr(l.fd), unix.F_GETFL, 0); err != nil || flags&unix.O_NONBLOCK == 0 || l.backlog != 7 {
		t.Errorf("flags = %#x, %v, backlog %d", flags, err, l.backlog)
	}
	p.listen(l)
	if got := served(t, "tcp", l.addr.String()); got != "awake" {
		t.Errorf("served %q", got)
	}
}

// More sockets for an address that is bound are replaced by the first, and stay close-on-exec or not.
func TestAdoptGive(t *testing.T) {
	port := freeBindPort(t)
	p := adoptPython(t, `
import fcntl
held = []
for keep in (False, True, False):
    s = socket.socket()
    s.set_inheritable(keep)
    s.bind(("127.0.0.1", `+strconv.Itoa(port)+`))
    s.listen(5)
    held.append(s)
    print(os.fstat(s.fileno()).st_ino, fcntl.fcntl(s, fcntl.F_GETFD), flush=True)
`)
	first := p.next(callBind)
	own := first.keep()
	defer unix.Close(own)
	first.fd, _ = unix.FcntlInt(uintptr(own), unix.F_DUPFD_CLOEXEC, 0)
	p.bind(first)
	p.listen(p.next(callListen))
	want := strconv.FormatUint(first.inode, 10)
	if got := p.line(); got != want+" 1" {
		t.Errorf("first socket %q", got)
	}
	for _, flags := range []string{" 0", " 1"} {
		other := p.next(callBind)
		if other.inode == first.inode || other.addr != first.addr {
			t.Errorf("another = %+v", other)
		}
		if err := other.give(own); err != nil {
			t.Fatal(err)
		}
		l := p.next(callListen)
		if l.inode != first.inode || l.addr != first.addr {
			t.Errorf("listen = %+v", l)
		}
		l.done(0)
		l.done(unix.EPERM) // an answer too many
		l.pass()
		if got := p.line(); got != want+flags {
			t.Errorf("another socket %q", got)
		}
	}
}

// A program gets the error that the answer names.
func TestAdoptErrno(t *testing.T) {
	p := adoptPython(t, `
for i in range(3):
    s = socket.socket()
    try:
        s.bind(("127.0.0.1", 9))
        s.listen()
        print(0, flush=True)
    except OSError as e:
        print(e.errno, flush=True)
`)
	p.next(callBind).done(unix.EADDRINUSE)
	p.next(callBind).done(unix.EACCES)
	p.next(callBind).done(unix.EADDRNOTAVAIL)
	for _, want := range []syscall.Errno{unix.EADDRINUSE, unix.EACCES, unix.EADDRNOTAVAIL} {
		if got := p.line(); got != strconv.Itoa(int(want)) {
			t.Errorf("the program got %s, not %d", got, want)
		}
	}
}

// UDP sockets and unix ones are told of by what they ask for.
func TestAdoptFamilies(t *testing.T) {
	dir := shortDir(t)
	for _, c := range []struct {
		what, network, place string
		only                 bool
	}{
		{`socket.socket(socket.AF_INET, socket.SOCK_DGRAM).bind(("127.0.0.1", 9999))`, "udp", "127.0.0.1:9999", false},
		{`socket.socket(socket.AF_INET6, socket.SOCK_DGRAM).bind(("::1", 9999))`, "udp", "[::1]:9999", false},
		{`socket.socket(socket.AF_INET6).bind(("::ffff:127.0.0.1", 9999))`, "tcp", "[::ffff:127.0.0.1]:9999", false},
		{`s = socket.socket(socket.AF_INET6); s.setsockopt(41, 26, 1); s.bind(("::", 9999))`, "tcp", "[::]:9999", true},
		{`socket.socket(socket.AF_INET, socket.SOCK_STREAM, 262).bind(("", 9999))`, "tcp", "0.0.0.0:9999", false},
		{`socket.socket(socket.AF_UNIX).bind("` + dir + `/s")`, "unix", dir + "/s", false},
		{`os.chdir("` + dir + `"); socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET).bind("p")`, "unixpacket", "p", false},
		{`os.chdir("` + dir + `"); socket.socket(socket.AF_UNIX).bind("@f")`, "unix", "./@f", false},
		{`socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM).bind("\0a\0b")`, "unixgram", "@a\x00b", false},
	} {
		p := adoptPython(t, c.what+"\nprint('bound')")
		b := p.next(callBind)
		place := b.path
		if place == "" {
			place = b.addr.String()
		}
		if b.network != c.network || place != c.place || b.only != c.only {
			t.Errorf("%s:\nbind = %+v", c.what, b)
		}
		if mptcp := b.protocol == 262; mptcp != strings.Contains(c.what, "262") {
			t.Errorf("%s: protocol %d", c.what, b.protocol)
		}
		b.done(0)
		if got := p.line(); got != "bound" {
			t.Errorf("%s: %s", c.what, got)
		}
	}
}

// A listen on a unix socket names its path, as bind did.
func TestAdoptUnixListen(t *testing.T) {
	for _, path := range []string{filepath.Join(shortDir(t), "s"), "\x00hotwrap-test-" + strconv.Itoa(os.Getpid())} {
		p := adoptPython(t, fmt.Sprintf("s = socket.socket(socket.AF_UNIX)\ns.bind(%q)\ns.listen(3)\nc, _ = s.accept()\nc.send(b'here\\n')\n", path))
		b := p.next(callBind)
		p.bind(b)
		l := p.next(callListen)
		if l.path != b.path || l.path != strings.Replace(path, "\x00", "@", 1) || l.inode != b.inode || l.network != "unix" {
			t.Errorf("listen = %+v", l)
		}
		p.listen(l)
		if got := served(t, "unix", l.path); got != "here" {
			t.Errorf("served %q", got)
		}
	}
}

// junk calls bind and listen with what no program should, and prints the kernel's answers.
const junk = `
import ctypes, mmap
libc = ctypes.CDLL(None, use_errno=True)
rounds = int(sys.argv[1])
def call(f, *args):
    ctypes.set_errno(0)
    return (f(*args), ctypes.get_errno())
P, I = ctypes.c_void_p, ctypes.c_int
tcp, six, unx = socket.socket(), socket.socket(socket.AF_INET6), socket.socket(socket.AF_UNIX)
net = socket.socket(socket.AF_NETLINK, socket.SOCK_RAW, 0)
page = mmap.mmap(-1, 8192)
base = ctypes.addressof(ctypes.c_char.from_buffer(page))
libc.mprotect(P(base + 4096), ctypes.c_size_t(4096), 0)
edge = base + 4096 - 8                                     # 8 bytes that can be read, then none
page[0:2] = (2).to_bytes(2, "little")
page[2:4] = (9999).to_bytes(2, "big")
page[101:103] = page[0:2]
page[200:202] = (77).to_bytes(2, "little")                 # no such family
page[300:302] = (1).to_bytes(2, "little")
results = {}
for i in range(rounds):
    for name, fd in (("tcp", tcp.fileno()), ("six", six.fileno()), ("unix", unx.fileno()), ("file", 0), ("none", 999), ("minus", -1), ("big", 0x7fffffff)):
        for at in (0, 1, 8, -1, -4096, 2**47 - 4096, 2**63, edge, base + 4096, base + 200):
            for length in (0, 1, 2, 3, 15, 16, 65535, -1, -2**31, 2**31 - 1):
                r = call(libc.bind, I(fd), P(at), I(length))
                k = (name, at if at in (0, 1, 8, -1) else "ptr", length)
                results.setdefault(k, set()).add(r)
    results.setdefault("netlink", set()).add(call(libc.bind, I(net.fileno()), P(base + 400), I(12)))
    for name, fd in (("unix", unx.fileno()), ("file", 0), ("none", 999), ("minus", -1), ("net", net.fileno())):
        results.setdefault(("listen", name), set()).add(call(libc.listen, I(fd), I(-1)))
for k, v in sorted(results.items(), key=repr):
    print(k, sorted(v))
print("end", flush=True)
`

// Whatever a program hands to bind and listen, it gets the answers that it would get without hotwrap, and hotwrap neither
// posts it nor keeps anything.
func TestAdoptJunk(t *testing.T) {
	rounds := "15" // of 706 calls
	plain, err := exec.Command("python3", "-c", "import os,socket,sys\n"+junk, rounds).Output()
	if err != nil {
		t.Skip(err)
	}
	before := openDescriptors(t)
	p := startAdopted(t, nil, "python3", "-c", "import os,socket,sys\n"+junk, rounds)
	p.each(func(c *call) {
		t.Errorf("posted %+v", c)
		c.pass()
	})
	for _, want := range strings.Split(strings.TrimSpace(string(plain)), "\n") {
		if got := p.line(); got != want {
			t.Fatalf("got  %s\nwant %s", got, want)
		}
	}
	<-p.end
	awaitDescriptors(t, before+1) // the pipe of its output
}

// awaitDescriptors waits until no more than most are open: a source sees the end of its processes a little later.
func awaitDescriptors(t *testing.T, most int) {
	t.Helper()
	for end := time.Now().Add(20 * time.Second); openDescriptors(t) > most; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d descriptors are open, not %d", openDescriptors(t), most)
		}
	}
}

// Signals that come while a call waits do not interrupt it (Linux 5.19), and the program gets its answer.
func TestAdoptSignals(t *testing.T) {
	p := adoptPython(t, `
import signal
got = []
signal.signal(signal.SIGUSR1, lambda *a: got.append(1))
signal.siginterrupt(signal.SIGUSR1, False)
for i in range(20):
    s = socket.socket()
    s.bind(("127.0.0.1", 9))
print(len(got) > 0, flush=True)
`)
	for range 20 {
		c := p.next(callBind)
		for range 20 {
			_ = unix.Kill(c.pid, unix.SIGUSR1)
		}
		if !c.valid() {
			t.Fatal("a signal interrupted the call")
		}
		c.done(0)
	}
	if got := p.line(); got != "True" {
		t.Errorf("handler ran: %s", got)
	}
}

// A program that is killed while its call waits leaves nothing behind, and the answer harms nobody.
func TestAdoptKilled(t *testing.T) {
	before := openDescriptors(t)
	p := startAdopted(t, nil, binder(t), "serve", "tcp", "127.0.0.1:9")
	c := p.next(callBind)
	if !c.valid() {
		t.Fatal("the call does not wait")
	}
	_ = unix.Kill(p.pid, unix.SIGKILL)
	if ws := <-p.end; !ws.Signaled() {
		t.Fatalf("ended by itself: %v", ws)
	}
	if c.valid() {
		t.Error("the call of a dead process waits")
	}
	if err := c.give(c.fd); err != nil {
		t.Error(err)
	}
	c.done(0)
	awaitDescriptors(t, before+1) // the pipe of its output
}

// Calls wait while nobody takes them, and none is lost; after stop all go to the kernel, those too that were posted and
// those that come later.
func TestAdoptStop(t *testing.T) {
	const threads = `
import threading
def serve(port):
    s = socket.socket()
    s.bind(("127.0.0.1", port))
    s.listen()
    out.append(s.getsockname()[1] == port)
out = []
ts = [threading.Thread(target=serve, args=(port,)) for port in map(int, sys.argv[1:])]
for t in ts: t.start()
for t in ts: t.join()
print(out, flush=True)
`
	for _, stopped := range []bool{false, true} {
		argv := []string{"python3", "-c", "import os,socket,sys\n" + threads}
		for range 3 {
			argv = append(argv, strconv.Itoa(freeBindPort(t)))
		}
		p := startAdopted(t, nil, argv...)
		first := p.next(callBind)
		if stopped {
			p.a.stop()
			p.a.stop()
			p.each((*call).pass) // posted before stop was seen
		} else {
			p.bind(first)
			p.each(p.serve)
		}
		if got := p.line(); got != "[True, True, True]" {
			t.Errorf("stopped %v: the program says %s", stopped, got)
		}
		first.done(unix.EPERM) // too late
	}
}

// What another architecture's way in does is left alone: 32-bit calls by int 0x80, and x32 ones.
func TestAdoptOtherArchitectures(t *testing.T) {
	if runtime.GOARCH != "amd64" {
		t.Skip("there are none")
	}
	const text = `
import ctypes, mmap
code = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
code[0:14] = bytes.fromhex("5389f889f387d1cd805bc3909090")  # push rbx; eax=edi; ebx=esi; ecx<->edx; int 0x80; pop rbx; ret
old = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_int, ctypes.c_int, ctypes.c_int)(ctypes.addressof(ctypes.c_char.from_buffer(code)))
s = socket.socket()
print("i386", old(363, s.fileno(), 5), s.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN))
libc = ctypes.CDLL(None, use_errno=True)
print("x32", libc.syscall(0x40000000 | 50, s.fileno(), 5), ctypes.get_errno())
b = socket.socket()
b.bind(("127.0.0.1", int(sys.argv[1])))
print("acct", old(50, b.fileno(), 5), flush=True)  # the number that listen has in 64 bits
`
	argv := []string{"python3", "-c", "import os,socket,sys\n" + text, strconv.Itoa(freeBindPort(t))}
	plain, err := exec.Command(argv[0], argv[1:]...).Output()
	if err != nil {
		t.Skip(err)
	}
	p := startAdopted(t, nil, argv...)
	p.bind(p.next(callBind))
	p.each(func(c *call) {
		t.Errorf("posted %+v", c)
		c.pass()
	})
	for _, want := range strings.Split(strings.TrimSpace(string(plain)), "\n") {
		if got := p.line(); got != want {
			t.Errorf("got %q, without hotwrap %q", got, want)
		}
	}
}

// no_new_privs is set only where CAP_SYS_ADMIN is missing, and the filter goes in before the change of user.
func TestAdoptPrivileges(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	app := binder(t)
	nobody := func(s *shim.Spec) { s.UID, s.GID = 65534, 65534 }
	for _, c := range []struct {
		change func(*shim.Spec)
		drop   bool
		want   string
	}{
		{nil, false, "0 0"},
		{nobody, false, "65534 0"},
		{nil, true, "0 1"},
		{nobody, true, "65534 1"},
	} {
		started := make(chan *adoptee)
		go func() {
			if c.drop {
				runtime.LockOSThread() // for good: the thread's children lack it too
				if err := unix.Prctl(unix.PR_CAPBSET_DROP, unix.CAP_SYS_ADMIN, 0, 0, 0); err != nil {
					t.Error(err)
				}
			}
			started <- startAdopted(t, c.change, app, "serve", "tcp", "127.0.0.1:9")
		}()
		p := <-started
		b := p.next(callBind)
		if b.err != nil {
			t.Errorf("bind = %+v", b)
		}
		text, err := os.ReadFile(fmt.Sprintf("/proc/%d/status", b.pid))
		if err != nil {
			t.Fatal(err)
		}
		uid, _ := lineValue(text, "Uid:")
		given, _ := lineValue(text, "NoNewPrivs:")
		if got := fmt.Sprint(uid, " ", given); got != c.want {
			t.Errorf("user and no_new_privs = %s, want %s", got, c.want)
		}
	}
}

// Without the right to look into a process its calls are passed, and whoever takes them hears why.
func TestAdoptDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	var c call
	failed := make(chan error)
	child := exec.Command("sleep", "1000")
	child.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	if err := child.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { _ = child.Process.Kill(); _ = child.Wait() }()
	go func() {
		runtime.LockOSThread() // for good
		header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
		var data [2]unix.CapUserData
		err := unix.Capget(&header, &data[0])
		data[0].Effective &^= 1 << unix.CAP_SYS_PTRACE
		if err == nil {
			err = unix.Capset(&header, &data[0])
		}
		c = call{tid: child.Process.Pid, fd: -1}
		posted := c.see(&notification{args: [6]uint64{1}})
		if err == nil && !posted {
			err = errors.New("not posted")
		}
		if as := adoptableAs(&credential{name: "nobody", uid: 65534}); as == nil || !strings.Contains(as.Error(), "CAP_SYS_PTRACE") {
			t.Errorf("adoptableAs = %v", as)
		}
		failed <- err
	}()
	if err := <-failed; err != nil {
		t.Fatal(err)
	}
	if !errors.Is(c.err, unix.EPERM) {
		t.Errorf("err = %v", c.err)
	}
}

// A second filter that notifies is refused by the kernel, and that is said: by the check at the start and by a shim.
func TestAdoptSecondWatcher(t *testing.T) {
	if err := adoptable(); err != nil {
		t.Fatalf("adoptable = %v", err)
	}
	report, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer report.Close()
	failed := make(chan error)
	go func() {
		runtime.LockOSThread()              // for good
		if unix.Gettid() == unix.Getpid() { // which never ends
			runtime.UnlockOSThread()
			failed <- errors.New("skip")
			return
		}
		if fd, err := shim.WatchBinds(); err != nil {
			t.Error(err)
		} else {
			defer unix.Close(fd)
		}
		err := tryAdoption()
		pair, err2 := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		spec := shim.New()
		spec.Path, spec.Argv, spec.Report, spec.Adopt = "/bin/true", []string{"true"}, 3, 4
		pid, err3 := fork(spec.Args(shim.Mark), nil, []uintptr{0, 1, 2, w.Fd(), uintptr(pair[1])}, nil)
		w.Close()
		if err := errors.Join(err2, err3); err != nil {
			t.Error(err)
		}
		_, _ = syscall.Wait4(pid, nil, 0, nil)
		failed <- err
	}()
	switch err := <-failed; {
	case err != nil && err.Error() == "skip":
		t.Skip("no thread but the main one")
	case !errors.Is(err, errSecondWatcher):
		t.Errorf("tryAdoption = %v", err)
	}
	err = readReport(report, &image{Argv: []string{"true"}})
	if !errors.Is(err, errSecondWatcher) || !strings.HasPrefix(err.Error(), "cannot "+shim.Watching) {
		t.Errorf("readReport = %v", err)
	}
}

// Neither descriptors nor goroutines are left by workers that have gone.
func TestAdoptFlat(t *testing.T) {
	workers := 100
	if os.Getenv("HOTWRAP_TEST_ALL") != "" {
		workers = 1000
	}
	fds, routines := openDescriptors(t), runtime.NumGoroutine()
	for i := range workers {
		a, theirs, err := openAdoption(func(*call, <-chan struct{}) bool { return false })
		if err != nil {
			t.Fatal(err)
		}
		spec := shim.New()
		spec.Path, spec.Argv, spec.Adopt = "/bin/true", []string{"true"}, 3
		if i%3 == 1 {
			spec.Path = "/nowhere"
		}
		if i%3 != 2 { // there is no shim: it could not be started
			pid, err := fork(spec.Args(shim.Mark), nil, []uintptr{^uintptr(0), ^uintptr(0), ^uintptr(0), uintptr(theirs)}, nil)
			if err != nil {
				t.Fatal(err)
			}
			if i%2 == 0 {
				a.stop()
			}
			_, _ = syscall.Wait4(pid, nil, 0, nil)
		}
		unix.Close(theirs)
		a.stop()
	}
	awaitDescriptors(t, fds)
	for end := time.Now().Add(20 * time.Second); runtime.NumGoroutine() > routines; time.Sleep(time.Millisecond) {
		if time.Now().After(end) {
			t.Fatalf("%d goroutines, not %d", runtime.NumGoroutine(), routines)
		}
	}
}

// Addresses are read as the kernel reads them.
func TestCallPlace(t *testing.T) {
	lo, err := net.InterfaceByName("lo")
	if err != nil {
		t.Skip(err)
	}
	in4 := func(family byte, port uint16, ip string) []byte {
		b := make([]byte, 16)
		b[0] = family
		binary.BigEndian.PutUint16(b[2:], port)
		copy(b[4:], netip.MustParseAddr(ip).AsSlice())
		return b
	}
	in6 := func(port uint16, ip string, scope uint32) []byte {
		b := make([]byte, 28)
		b[0] = unix.AF_INET6
		binary.BigEndian.PutUint16(b[2:], port)
		copy(b[8:], netip.MustParseAddr(ip).AsSlice())
		binary.NativeEndian.PutUint32(b[24:], scope)
		return b
	}
	un := func(name string) []byte { return append([]byte{unix.AF_UNIX, 0}, name...) }
	for i, c := range []struct {
		family int
		b      []byte
		want   string // empty: passed
	}{
		{unix.AF_INET, in4(unix.AF_INET, 80, "1.2.3.4"), "1.2.3.4:80"},
		{unix.AF_INET, append(in4(unix.AF_INET, 80, "1.2.3.4"), 1, 2, 3), "1.2.3.4:80"},
		{unix.AF_INET, in4(unix.AF_INET, 0, "1.2.3.4"), ""},
		{unix.AF_INET, in4(unix.AF_INET, 80, "1.2.3.4")[:15], ""},
		{unix.AF_INET, in4(unix.AF_UNSPEC, 80, "0.0.0.0"), "0.0.0.0:80"},
		{unix.AF_INET, in4(unix.AF_UNSPEC, 80, "1.2.3.4"), ""},
		{unix.AF_INET, in6(80, "::1", 0), ""},
		{unix.AF_INET6, in6(80, "::1", 0), "[::1]:80"},
		{unix.AF_INET6, in6(80, "::", 7), "[::]:80"},
		{unix.AF_INET6, in6(80, "::ffff:1.2.3.4", 0), "[::ffff:1.2.3.4]:80"},
		{unix.AF_INET6, in6(80, "::1", 0)[:24], "[::1]:80"},
		{unix.AF_INET6, in6(80, "::1", 0)[:23], ""},
		{unix.AF_INET6, in6(80, "fe80::1", uint32(lo.Index)), "[fe80::1%lo]:80"},
		{unix.AF_INET6, in6(80, "fe80::1", 1e6), "[fe80::1%1000000]:80"},
		{unix.AF_INET6, in6(80, "fe80::1", uint32(lo.Index))[:27], "[fe80::1]:80"},
		{unix.AF_INET6, in4(unix.AF_INET, 80, "1.2.3.4"), ""},
		{unix.AF_UNIX, un("/a/b\x00c"), "/a/b"},
		{unix.AF_UNIX, un("@a"), "./@a"},
		{unix.AF_UNIX, un("\x00"), "@"},
		{unix.AF_UNIX, un("\x00@a\x00"), "@@a\x00"},
		{unix.AF_UNIX, un(""), ""},
		{unix.AF_UNIX, un(strings.Repeat("a", 108)), strings.Repeat("a", 108)},
		{unix.AF_UNIX, un(strings.Repeat("a", 109)), ""},
		{unix.AF_UNIX, in4(unix.AF_INET, 80, "1.2.3.4"), ""},
	} {
		call := call{tid: os.Getpid()}
		ok := call.place(c.family, c.b)
		got := call.path
		if c.family != unix.AF_UNIX {
			got = call.addr.String()
		}
		if ok != (c.want != "") || ok && got != c.want {
			t.Errorf("%d: %q, %v; want %q", i, got, ok, c.want)
		}
	}
}

// FuzzCallPlace hands in what a program could.
func FuzzCallPlace(f *testing.F) {
	f.Add(uint8(unix.AF_INET), []byte{2, 0, 0, 80, 1, 2, 3, 4, 0, 0, 0, 0, 0, 0, 0, 0})
	f.Add(uint8(unix.AF_INET6), make([]byte, 28))
	f.Add(uint8(unix.AF_UNIX), []byte("\x01\x00\x00a"))
	f.Fuzz(func(t *testing.T, family uint8, b []byte) {
		if len(b) < 2 || len(b) > sockaddrMost {
			return
		}
		c := call{tid: os.Getpid()}
		if c.place(int(family), b) && c.path == "" && c.addr.Port() == 0 {
			t.Errorf("nothing was asked for: %q", b)
		}
	})
}

// BenchmarkAdoptedBind is what a bind and a listen cost together: alone, with the filter, and with hotwrap doing both. The
// median of each in one run, in microseconds.
func BenchmarkAdoptedBind(b *testing.B) {
	app, port := binder(b), strconv.Itoa(freeBindPort(b))
	clock := func(r *bufio.Reader) float64 {
		var took []float64
		for {
			text, err := r.ReadString('\n')
			ns, err2 := strconv.ParseFloat(strings.TrimSpace(text), 64)
			if err != nil || err2 != nil {
				break
			}
			took = append(took, ns/1e3)
		}
		if len(took) < 100 {
			b.Fatalf("%d rounds", len(took))
		}
		slices.Sort(took)
		return took[len(took)/2]
	}
	for range b.N {
		plain, err := exec.Command(app, "time", "500", port).Output()
		if err != nil {
			b.Fatal(err)
		}
		b.ReportMetric(clock(bufio.NewReader(bytes.NewReader(plain))), "plain-µs")
		p := startAdopted(b, nil, app, "time", "500", port)
		p.each(p.serve)
		b.ReportMetric(clock(p.out), "adoptee-µs")
		p = startAdopted(b, nil, app, "time", "500", port)
		p.a.stop()
		b.ReportMetric(clock(p.out), "passed-µs")
	}
}

// replaced has another hotwrap's source go on with the calls of p. What was read and not posted is returned.
func (p *adoptee) replaced() []*call {
	p.t.Helper()
	t, _ := p.t.(*testing.T)
	left := p.a.hush()
	for _, c := range left {
		p.serve(c)
	}
	b := &baggage{}
	c := p.a.carry(b)
	moved := execed(t, b, func() {
		if c.FD > 0 {
			file := <-p.a.told
			file.Close()
		} else {
			p.a.pair.Close()
		}
	})
	next, err := restoreAdoption(*through(t, c, moved), p.post)
	if err != nil {
		t.Fatal(err)
	}
	p.a = next
	next.start()
	return left
}

// TestAdoptCarried: no call is left without an answer when hotwrap is replaced: not one that nobody had read, nor one that
// was read and not posted, nor one that was posted and not answered; and not when the program has yet to begin.
func TestAdoptCarried(t *testing.T) {
	port := freeBindPort(t)
	p := adoptPython(t, fmt.Sprintf(`
for i in range(60):
    s = socket.socket()
    s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    s.bind(('127.0.0.1', %d))
    s.listen(5)
    s.close()
    print(i, flush=True)
`, port))
	taken, again := 0, 0
	for i := 0; taken < 120; i++ {
		if taken += len(p.replaced()); i%3 > 0 {
			continue
		}
		select {
		case c := <-p.calls:
			if i%2 > 0 { // whoever has it dies with the old hotwrap: it comes again
				p.replaced()
				unix.Close(c.fd)
				again++
				c = p.next(c.op)
			}
			p.serve(c)
			taken++
		case <-time.After(20 * time.Millisecond):
		}
	}
	for i := range 60 {
		if got := p.line(); got != strconv.Itoa(i) {
			t.Fatalf("%q, not %d", got, i)
		}
	}
	if again < 3 {
		t.Errorf("%d came again", again)
	}

	// stopped, it passes on, also in the next hotwrap
	p = adoptPython(t, fmt.Sprintf(`
sys.stdin.readline()
s = socket.socket()
s.bind(('127.0.0.1', %d))
s.listen(5)
print('listens', flush=True)
`, port))
	p.a.stop()
	p.replaced()
	if got := p.line(); got != "listens" {
		t.Errorf("it says %q", got)
	}
}
