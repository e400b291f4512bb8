package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"
	"time"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

// bindPatience is how long a test waits for something that must come.
const bindPatience = 10 * time.Second

func onLinux(t *testing.T) {
	t.Helper()
	if runtime.GOOS != "linux" {
		t.Skip("Linux only")
	}
}

// TestParseListen reads every form; what it reads is written in one way only.
func TestParseListen(t *testing.T) {
	tests := []struct{ text, want string }{
		{"8080", ":8080"},
		{":8080", ":8080"},
		{"08080", ":8080"},
		{":http", ":http"},
		{"0", ":0"},
		{"localhost:80", "localhost:80"},
		{"127.0.0.1:80", "127.0.0.1:80"},
		{"[::1]:8080", "[::1]:8080"},
		{"[0:0::1]:8080", "[::1]:8080"},
		{"[::]:8080", "[::]:8080"},
		{"[fe80::1%eth0]:80", "[fe80::1%eth0]:80"},
		{"[::ffff:10.0.0.1]:80", "10.0.0.1:80"},
		{"tcp:8080", ":8080"},
		{"tcp::8080", ":8080"},
		{"tcp:[::1]:80", "[::1]:80"},
		{"tcp4:80", "tcp4::80"},
		{"tcp6:[::1]:80", "tcp6:[::1]:80"},
		{"udp:53", "udp::53"},
		{"udp::53", "udp::53"},
		{"udp4:127.0.0.1:53", "udp4:127.0.0.1:53"},
		{"udp6::53", "udp6::53"},
		{"tcp:udp:80", "tcp:udp:80"}, // a host named udp
		{"tcp://127.0.0.1:80", "127.0.0.1:80"},
		{"tcp://:80/", ":80"},
		{"http://localhost:80", "localhost:80"},
		{"https://[::1]:443/", "[::1]:443"},
		{"udp://:53", "udp::53"},
		{"/run/a.sock", "/run/a.sock"},
		{"//run//a.sock", "/run/a.sock"},
		{"./a.sock", "unix:a.sock"},
		{"../a.sock", "unix:../a.sock"},
		{"unix:/run/a.sock", "/run/a.sock"},
		{"unix:///run/a.sock", "/run/a.sock"},
		{"unix:run/a.sock", "unix:run/a.sock"},
		{"unix:./@a", "unix:./@a"},
		{"unix:a:b", "unix:a:b"},
		{"unixgram:/run/a", "unixgram:/run/a"},
		{"unixpacket://run/a", "unixpacket:run/a"},
		{"fd:5", "fd:5"},
		{"fd://5", "fd:5"},
		{"web=8080", "web=:8080"},
		{"a b=8080", "a b=:8080"},
		{"s=/run/a=b.sock", "s=/run/a=b.sock"},
		{"/run/a=b.sock", "/run/a=b.sock"},
		{"unix:a=b", "unix:a=b"},
		{"80,backlog=5", ":80,backlog=5"},
		{"udp:80,rcvbuf=65536", "udp::80,rcvbuf=65536"},
		{"80,fd=5,nonblock,backlog=7", ":80,backlog=7,nonblock,fd=5"},
		{"80,fd=0", ":80,fd=0"},
		{"80,v6only", ":80,v6only"},
		{"[::1]:80,v6only", "[::1]:80,v6only"},
		{"/run/a,mode=0660", "/run/a"},
		{"/run/a,mode=600,user=www,group=33", "/run/a,mode=0600,user=www,group=33"},
		{"/run/a,mode=0", "/run/a,mode=0000"},
		{"fd:5,fd=7,backlog=9", "fd:5,backlog=9,fd=7"},
	}
	if runtime.GOOS == "linux" {
		tests = append(tests, []struct{ text, want string }{
			{"unix:@a", "unix:@a"},
			{"unix://@a", "unix:@a"},
			{"unixgram:@a/b", "unixgram:@a/b"},
			{"80,mptcp,nodelay,fastopen,defer,device=lo,freebind", ":80,freebind,device=lo,defer,fastopen,nodelay,mptcp"},
		}...)
	}
	for _, tt := range tests {
		s, err := parseListen(tt.text)
		if err != nil {
			t.Errorf("%q: %v", tt.text, err)
			continue
		}
		if got := s.String(); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
		if again, err := parseListen(tt.want); err != nil || again != s {
			t.Errorf("%q: %q reads as %+v, %v, want %+v", tt.text, tt.want, again, err, s)
		}
	}
}

func TestParseListenRefuses(t *testing.T) {
	long := strings.Repeat("x", 256)
	tests := []struct{ text, want string }{
		{"", "the address is empty"},
		{"web=", "the address is empty"},
		{"=80", `the name before "=" is empty`},
		{"a;b=80", `name "a;b": only printable ASCII without : = / , ; can be passed on`},
		{"é=80", `name "é": only printable ASCII without : = / , ; can be passed on`},
		{long + "=80", "the name is longer than 255 characters"},
		{"80\n", `control character '\n'`},
		{"localhost", `no port in "localhost"`},
		{"localhost:", `no port in "localhost:"`},
		{"[::1]", `no port in "[::1]"`},
		{":", `no port in ":"`},
		{"tcp:", `no port in ""`},
		{"::1:80", `an IPv6 address needs brackets: "[::1]:80"`},
		{"[::1]80", `"[::1]80" is not [ADDRESS]:PORT`},
		{"[::1:80", `"[::1:80" is not [ADDRESS]:PORT`},
		{"[]:80", `"" is not an IPv6 address`},
		{"[127.0.0.1]:80", `"127.0.0.1" is not an IPv6 address`},
		{"65536", "port 65536 is out of range"},
		{":99999999999999999999", "port 99999999999999999999 is out of range"},
		{":-1", ""},
		{":8o80!", `"8o80!" is not a port`},
		{"8080:80", `"8080" is not a host`},
		{"a b:80", `"a b" is not a host`},
		{"*:80", `"*" is not a host`},
		{"tcp4:[::1]:80", "::1 is not an address for tcp4"},
		{"udp6:127.0.0.1:80", "127.0.0.1 is not an address for udp6"},
		{"ftp://a:80", `unknown scheme "ftp"`},
		{"http://a:80/b", `"80/b" is not a port`},
		{"@a", `an abstract socket is written "unix:@a"`},
		{"unix:", "the path is empty"},
		{"unix:@", "the path is empty"},
		{"/run/", `"/run/" is a directory`},
		{"unix:..", `".." is a directory`},
		{"/.", `"/." is a directory`},
		{"/" + long, "the path is longer than 107 bytes"},
		{"fd:x", `"x" is not a descriptor number`},
		{"fd:-1", `"-1" is not a descriptor number`},
		{"80,", `unknown option ""`},
		{"80,reuseport", `unknown option "reuseport"`},
		{"80,nonblock,nonblock", `option "nonblock" is given twice`},
		{"80,nonblock=1", `option "nonblock": it takes no value`},
		{"80,mode=0600", `option "mode" is for unix socket paths only`},
		{"/a,mode=9z", `option "mode": "9z" is not an octal mode`},
		{"/a,mode=1777", `option "mode": "1777" is not an octal mode`},
		{"/a,mode", `option "mode": "" is not an octal mode`},
		{"/a,user=", `option "user": it needs a value`},
		{"/a,v6only", `option "v6only" is for IPv6 addresses only`},
		{"127.0.0.1:80,v6only", `option "v6only" is for IPv6 addresses only`},
		{"80,backlog=0", `option "backlog": "0" is not a number from 1`},
		{"80,backlog=99999999999", `option "backlog": "99999999999" is not a number from 1`},
		{"udp:80,backlog=1", `option "backlog" is for stream sockets only`},
		{"udp:80,rcvbuf=1M", `option "rcvbuf": "1M" is not a number from 1`},
		{"unixgram:/a,rcvbuf=1", `option "rcvbuf" is for tcp and udp only`},
		{"unixgram:/a,backlog=1", `option "backlog" is for stream sockets only`},
		{"fd:4,nonblock", `option "nonblock" is for sockets that hotwrap opens only`},
		{"80,fd=2", `option "fd": 1 and 2 are the program's output`},
		{"80,fd=-1", `option "fd": "-1" is not a descriptor number`},
	}
	if runtime.GOOS == "linux" {
		tests = append(tests, []struct{ text, want string }{
			{"udp:80,defer", `option "defer" is for tcp only`},
			{"/a,device=lo", `option "device" is for tcp and udp only`},
			{"unix:@a,mode=0600", `option "mode" is for unix socket paths only`},
		}...)
	} else {
		for _, option := range []string{"defer", "fastopen", "nodelay", "mptcp", "device=lo", "freebind"} {
			name, _, _ := strings.Cut(option, "=")
			tests = append(tests, struct{ text, want string }{
				"80," + option, fmt.Sprintf("option %q is not available on %s", name, runtime.GOOS),
			})
		}
	}
	for _, tt := range tests {
		s, err := parseListen(tt.text)
		switch {
		case tt.text == ":-1": // a service of that name is looked up, and not found
			if _, err := s.resolve(); err == nil {
				t.Errorf("%q was resolved", tt.text)
			}
		case err == nil:
			t.Errorf("%q: no error, want %q", tt.text, tt.want)
		case err.Error() != tt.want:
			t.Errorf("%q: got %q, want %q", tt.text, err, tt.want)
		}
	}
}

func FuzzParseListen(f *testing.F) {
	for _, text := range []string{
		"8080", "web=[::1]:80,backlog=5,fd=7", "unix:@a", "tcp:udp:80", "unix:./@a=b", "udp6::53,v6only", "fd://3",
		"/run/a,mode=0600,user=x", "http://h:1/", "[fe80::1%a]:1", "80,mptcp,device=lo", "unix:////a", "[::ffff:1.2.3.4]:1",
	} {
		f.Add(text)
	}
	f.Fuzz(func(t *testing.T, text string) {
		s, err := parseListen(text)
		if err != nil {
			return
		}
		if again, err := parseListen(s.String()); err != nil || again != s {
			t.Errorf("%q: %q reads as %+v, %v, want %+v", text, s.String(), again, err, s)
		}
	})
}

// specs reads what must be right.
func specs(t *testing.T, texts ...string) []listenSpec {
	t.Helper()
	var all []listenSpec
	for _, text := range texts {
		s, err := parseListen(text)
		if err != nil {
			t.Fatalf("%q: %v", text, err)
		}
		all = append(all, s)
	}
	return all
}

func TestCheckListens(t *testing.T) {
	dir := t.TempDir()
	t.Chdir(dir)
	dir, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	long := strings.Repeat("x", maxSocketPath)
	tests := []struct {
		texts []string
		want  string
	}{
		{[]string{"80", "81", "udp:80"}, ""},
		{[]string{"0", ":0", "127.0.0.1:0"}, ""},
		{[]string{"127.0.0.1:80", "[::1]:80"}, ""},
		{[]string{"tcp4:80", "tcp6:80"}, ""},
		{[]string{"tcp4:localhost:80", "tcp6:localhost:80"}, ""},
		{[]string{"web=80", "80=81"}, ""}, // a default gives way
		{[]string{"80", "tcp://:80"}, `":80" and ":80" have the same address`},
		{[]string{"127.0.0.1:80", "tcp4:127.0.0.1:80"}, `"127.0.0.1:80" and "tcp4:127.0.0.1:80" have the same address`},
		{[]string{"a=80", "a=81"}, `"a=:80" and "a=:81" have the same name`},
		{[]string{"80,fd=5", "81,fd=5"}, `":80,fd=5" and ":81,fd=5" have the same number`},
		{[]string{"fd:4", "x=fd:4"}, `"fd:4" and "x=fd:4" have the same address`},
		{[]string{"unix:a", "unixgram:" + dir + "/a"}, fmt.Sprintf(`"unix:a" and "unixgram:%s/a" have the same address`, dir)},
		{[]string{"unix:" + long}, fmt.Sprintf("the path %q is longer than 107 bytes", filepath.Join(dir, long))},
	}
	for _, tt := range tests {
		got := ""
		if err := checkListens(specs(t, tt.texts...)); err != nil {
			got = err.Error()
		}
		if got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.texts, got, tt.want)
		}
	}
}

// opened opens listeners and closes them at the end of the test.
func opened(t *testing.T, texts ...string) []*listener {
	t.Helper()
	all := specs(t, texts...)
	if err := checkListens(all); err != nil {
		t.Fatal(err)
	}
	ls, err := openListeners(all, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { closeListeners(ls) })
	return ls
}

func refused(t *testing.T, texts ...string) string {
	t.Helper()
	ls, err := openListeners(specs(t, texts...), nil)
	if err == nil {
		closeListeners(ls)
		t.Fatalf("%q: no error", texts)
	}
	return err.Error()
}

// reach makes one connection and has it accepted.
func reach(l *listener) error { return reachAt(l, l.addr) }

func reachAt(l *listener, addr string) error {
	client, err := net.DialTimeout(l.network, addr, bindPatience)
	if err != nil {
		return err
	}
	defer client.Close()
	p := []unix.PollFd{{Fd: int32(l.fd), Events: unix.POLLIN}} // another socket may have got the client
	if n, err := unix.Poll(p, int(bindPatience.Milliseconds())); n != 1 {
		return fmt.Errorf("no client in the queue: %v", err)
	}
	fd, _, err := unix.Accept(l.fd)
	if err != nil {
		return os.NewSyscallError("accept", err)
	}
	return unix.Close(fd)
}

func option(t *testing.T, fd, level, name int) int {
	t.Helper()
	n, err := unix.GetsockoptInt(fd, level, name)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func flags(t *testing.T, fd, command int) int {
	t.Helper()
	n, err := unix.FcntlInt(uintptr(fd), command, 0)
	if err != nil {
		t.Fatal(err)
	}
	return n
}

func TestOpenListeners(t *testing.T) {
	dir := t.TempDir()
	tests := []struct {
		text, network, host, name, family string
		protocol                          int
		linux                             bool
	}{
		{"127.0.0.1:0", "tcp", "127.0.0.1", "0", "AF_INET", unix.IPPROTO_TCP, false},
		{"web=localhost:0", "tcp", "127.0.0.1", "web", "AF_INET", unix.IPPROTO_TCP, false},
		{"tcp4:0", "tcp", "0.0.0.0", "0", "AF_INET", unix.IPPROTO_TCP, false},
		{"127.0.0.1:0,nonblock", "tcp", "127.0.0.1", "0", "AF_INET", unix.IPPROTO_TCP, false},
		{"udp:127.0.0.1:0", "udp", "127.0.0.1", "0", "AF_INET", unix.IPPROTO_UDP, false},
		{dir + "/a.sock", "unix", dir + "/a.sock", "a.sock", "AF_UNIX", 0, false},
		{"unixgram:" + dir + "/g=,", "", "", "", "", 0, false},
		{"unixgram:" + dir + "/g=:", "unixgram", dir + "/g=:", "g__", "AF_UNIX", 0, false},
		{"unixpacket:" + dir + "/p", "unixpacket", dir + "/p", "p", "AF_UNIX", 0, true},
		{"unix:@hotwrap/test-a", "unix", "@hotwrap/test-a", "test-a", "AF_UNIX", 0, true},
		{"127.0.0.1:0,defer,fastopen,freebind,device=lo", "tcp", "127.0.0.1", "0", "AF_INET", unix.IPPROTO_TCP, true},
		{"127.0.0.1:0,mptcp", "tcp", "127.0.0.1", "0", "AF_INET", 262, true},
		{"127.0.0.1:0,nodelay", "tcp", "127.0.0.1", "0", "AF_INET", unix.IPPROTO_TCP, true},
	}
	for _, tt := range tests {
		t.Run(tt.text, func(t *testing.T) {
			if tt.linux {
				onLinux(t)
			}
			if tt.network == "" {
				if _, err := parseListen(tt.text); err == nil {
					t.Fatal("no error")
				}
				return
			}
			l := opened(t, tt.text)[0]
			if l.network != tt.network || l.host() != tt.host || l.name != tt.name || l.family() != tt.family {
				t.Errorf("got %s %s %q %s", l.network, l.host(), l.name, l.family())
			}
			if inode, err := socketInode(l.fd); err != nil || inode != l.inode || l.pin != -1 {
				t.Errorf("inode %d pin %d, want %d, %v", l.inode, l.pin, inode, err)
			}
			if port := l.port(); l.inet() != (port != "" && port != "0") {
				t.Errorf("port %q of %s", port, l.addr)
			}
			if nonblock := flags(t, l.fd, unix.F_GETFL)&unix.O_NONBLOCK != 0; nonblock != strings.Contains(tt.text, "nonblock") {
				t.Errorf("O_NONBLOCK %v", nonblock)
			}
			if flags(t, l.fd, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
				t.Error("not close-on-exec")
			}
			if reuse := option(t, l.fd, unix.SOL_SOCKET, unix.SO_REUSEADDR) != 0; reuse != (l.network == "tcp") {
				t.Errorf("SO_REUSEADDR %v", reuse)
			}
			if option(t, l.fd, unix.SOL_SOCKET, unix.SO_REUSEPORT) != 0 {
				t.Error("SO_REUSEPORT is on")
			}
			nodelay := l.network == "tcp" && option(t, l.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY) != 0
			if nodelay != strings.Contains(tt.text, "nodelay") {
				t.Errorf("TCP_NODELAY %v", nodelay)
			}
			if protocol, err := protocolOf(l.fd); runtime.GOOS == "linux" && (err != nil || protocol != tt.protocol) {
				t.Errorf("protocol %d, want %d, %v", protocol, tt.protocol, err)
			}
			// With defer, the kernel keeps a client that says nothing.
			if l.stream() && !strings.Contains(tt.text, "defer") {
				if err := reach(l); err != nil {
					t.Error(err)
				}
			}
		})
	}
}

func TestOpenDualStack(t *testing.T) {
	if !hasDualStack() {
		t.Skip("no IPv6")
	}
	ls := opened(t, "0", "tcp6:0", "0,v6only")
	for i, want := range []bool{true, false, false} {
		l := ls[i]
		if l.host() != "::" || l.family() != "AF_INET6" {
			t.Errorf("%s is %s", l.addr, l.family())
		}
		if err := reachAt(l, "[::1]:"+l.port()); err != nil {
			t.Error(err)
		}
		if only := option(t, l.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY) != 0; only == want {
			t.Errorf("IPV6_V6ONLY %v", only)
		}
	}
	if err := reachAt(ls[0], "127.0.0.1:"+ls[0].port()); err != nil {
		t.Error(err)
	}
}

// A default name gives way to a given one and to an earlier default.
func TestListenerNames(t *testing.T) {
	got := []string{}
	for _, l := range opened(t, "127.0.0.1:0", "0=127.0.0.1:0", "127.0.0.1:0", "0-3=127.0.0.1:0", "127.0.0.1:0") {
		got = append(got, l.name)
	}
	if want := []string{"0-2", "0", "0-4", "0-3", "0-5"}; !slices.Equal(got, want) {
		t.Errorf("got %q, want %q", got, want)
	}
}

// lowestFD is the number that the next descriptor will have.
func lowestFD(t *testing.T) int {
	t.Helper()
	fd, err := unix.Dup(0)
	if err != nil {
		t.Fatal(err)
	}
	unix.Close(fd)
	return fd
}

func TestOpenAllOrNothing(t *testing.T) {
	dir := t.TempDir()
	busy := opened(t, "127.0.0.1:0")[0]
	before := lowestFD(t)
	text := refused(t, "127.0.0.1:0", dir+"/a", "udp:127.0.0.1:0", busy.addr)
	if !strings.HasPrefix(text, fmt.Sprintf("cannot listen on %q: address ", busy.addr)) {
		t.Error(text)
	}
	if after := lowestFD(t); after != before {
		t.Errorf("descriptor %d was free and now is %d", before, after)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

func TestOpenRefuses(t *testing.T) {
	dir := t.TempDir()
	for _, tt := range []struct{ text, want string }{
		{dir + "/no/a", fmt.Sprintf("cannot listen on %q: cannot create a lock in %q: no such file or directory", dir+"/no/a", dir+"/no")},
		{dir + "/a,user=no-such-user", fmt.Sprintf("cannot listen on %q: unknown user \"no-such-user\"", dir+"/a")},
		{dir + "/a,group=no-such-group", fmt.Sprintf("cannot listen on %q: unknown group \"no-such-group\"", dir+"/a")},
		{"fd:1000000", `cannot listen on "fd:1000000": it is not open`},
		{"[fe80::1%no-such-if]:0", `cannot listen on "[fe80::1%no-such-if]:0": no network interface "no-such-if"`},
	} {
		if got := refused(t, tt.text); got != tt.want {
			t.Errorf("%q: got %q, want %q", tt.text, got, tt.want)
		}
	}
	if text := refused(t, "127.0.0.1:no-such-service"); !strings.Contains(text, "unknown port") {
		t.Error(text)
	}
}

// A busy port or path names its holder: another process, or ourselves.
func TestBusyAddress(t *testing.T) {
	onLinux(t)
	dir := t.TempDir()
	child := startBindChild(t, "127.0.0.1:0", dir+"/a.sock", "udp:127.0.0.1:0", "unix:@hotwrap/test-busy", "unixgram:"+dir+"/g")
	for _, addr := range child.addrs {
		want := fmt.Sprintf(": address in use by pid %d (", child.pid)
		if text := refused(t, addr); !strings.Contains(text, want) {
			t.Errorf("%q lacks %q", text, want)
		}
	}
	ours := opened(t, "127.0.0.1:0")[0]
	if text := refused(t, ours.addr); !strings.HasSuffix(text, ": address in use by another --listen") {
		t.Error(text)
	}
}

// Port 0 is bound explicitly, or a socket that has to listen again comes back on another port.
func TestRepairKeepsPort(t *testing.T) {
	l := opened(t, "127.0.0.1:0")[0]
	for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
		if text, err := l.repair((*listener).refresh); text != "" || err != nil {
			t.Errorf("nothing was wrong: %q, %v", text, err)
		}
		shutDown(t, l, how)
		if err := reach(l); err == nil {
			t.Fatal("the listener is not spoilt")
		}
		inode := l.inode
		if text, err := l.repair((*listener).refresh); text != "was shut down: listening again" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		if err := reach(l); err != nil || l.inode != inode {
			t.Errorf("%v; inode %d, was %d", err, l.inode, inode)
		}
	}
}

// shutDown does to a listener what a program does that has a duplicate of it.
func shutDown(t *testing.T, l *listener, how int) {
	t.Helper()
	fd, err := unix.Dup(l.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := unix.Shutdown(fd, how); err != nil {
		t.Fatal(err)
	}
}

// Datagrams that nobody reads yet are kept as far as the receive buffer goes.
func TestReceiveBuffer(t *testing.T) {
	kept := func(spec string) (n int) {
		l := opened(t, spec)[0]
		c, err := net.Dial("udp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		for range 2000 {
			if _, err := c.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
		}
		for buf := make([]byte, 8); ; n++ {
			if _, _, err := unix.Recvfrom(l.fd, buf, unix.MSG_DONTWAIT); err != nil {
				return n
			}
		}
	}
	small, large := kept("udp:127.0.0.1:0,rcvbuf=16384"), kept("udp:127.0.0.1:0,rcvbuf=131072")
	if small == 0 || large < 4*small {
		t.Errorf("%d datagrams were kept in 16 KiB, %d in 128 KiB", small, large)
	}
}

// The backlog is a program's to change for all, and ours to put back; who waits in the queue stays.
func TestRefreshBacklog(t *testing.T) {
	onLinux(t)
	for text, want := range map[string]int{"127.0.0.1:0": systemBacklog(), "127.0.0.1:0,backlog=77": 77} {
		l := opened(t, text)[0]
		if got := backlogOf(l.fd); got != want {
			t.Errorf("%q: backlog %d, want %d", text, got, want)
		}
		client, err := net.Dial("tcp", l.addr)
		if err != nil {
			t.Fatal(err)
		}
		defer client.Close()
		if err := unix.Listen(l.fd, 5); err != nil {
			t.Fatal(err)
		}
		if err := l.refresh(); err != nil {
			t.Error(err)
		}
		if got := backlogOf(l.fd); got != want {
			t.Errorf("%q: backlog %d after refresh, want %d", text, got, want)
		}
		fd, _, err := unix.Accept(l.fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.Close(fd)
	}
}

func modeOf(t *testing.T, path string) fs.FileMode {
	t.Helper()
	info, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	return info.Mode()
}

// The mode does not depend on the umask, the name of the bind is the path, and closing leaves nothing behind.
func TestSocketFile(t *testing.T) {
	dir := t.TempDir()
	old := unix.Umask(0o077)
	defer unix.Umask(old)
	for text, want := range map[string]fs.FileMode{
		dir + "/a": 0o660, dir + "/a,mode=0666": 0o666, "unixgram:" + dir + "/a,mode=0": 0,
	} {
		ls, err := openListeners(specs(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		if mode := modeOf(t, dir+"/a"); mode != fs.ModeSocket|want {
			t.Errorf("%q: mode %v, want %v", text, mode, want)
		}
		sa, err := unix.Getsockname(ls[0].fd)
		if local, ok := sa.(*unix.SockaddrUnix); err != nil || !ok || local.Name != dir+"/a" {
			t.Errorf("%q: getsockname %+v, %v", text, sa, err)
		}
		link, err := os.Lstat(hiddenPath(dir + "/a"))
		if err != nil || !os.SameFile(link, ls[0].file.made) {
			t.Errorf("%q: hidden link %v, %v", text, link, err)
		}
		closeListeners(ls)
		if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
			t.Errorf("%q: left behind: %v, %v", text, left, err)
		}
	}
}

func TestSocketFileOwner(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("needs root")
	}
	dir := t.TempDir()
	for text, want := range map[string][2]uint32{
		dir + "/a,user=54321":             {54321, 0},
		dir + "/a,user=54321,group=54322": {54321, 54322},
		dir + "/a,user=root,group=54322":  {0, 54322},
	} {
		ls, err := openListeners(specs(t, text), nil)
		if err != nil {
			t.Fatal(err)
		}
		var st unix.Stat_t
		if err := unix.Lstat(dir+"/a", &st); err != nil || st.Uid != want[0] || st.Gid != want[1] {
			t.Errorf("%q: %d:%d, %v", text, st.Uid, st.Gid, err)
		}
		closeListeners(ls)
	}
}

// Between bind and the end nobody may connect: the file is born closed.
func TestBindClosed(t *testing.T) {
	old := unix.Umask(0)
	defer unix.Umask(old)
	path := filepath.Join(t.TempDir(), "a")
	fd, err := newSocket(unix.AF_UNIX, unix.SOCK_STREAM, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	if err := bindClosed(fd, path); err != nil {
		t.Fatal(err)
	}
	if mode := modeOf(t, path); mode != fs.ModeSocket {
		t.Errorf("mode %v", mode)
	}
}

// bound makes a socket at a path as a stranger would.
func bound(t *testing.T, path string, kind int, listens bool) {
	t.Helper()
	fd, err := newSocket(unix.AF_UNIX, kind, 0, false)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrUnix{Name: path})
	}
	if err == nil && listens {
		err = unix.Listen(fd, 0)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
}

// stale leaves a socket file behind that nobody serves.
func stale(t *testing.T, path string) {
	t.Helper()
	fd, err := newSocket(unix.AF_UNIX, unix.SOCK_STREAM, 0, false)
	if err == nil {
		err = errors.Join(unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Close(fd))
	}
	if err != nil {
		t.Fatal(err)
	}
}

func TestStaleSocketIsRemoved(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	stale(t, path)
	if err := os.Link(path, hiddenPath(path)); err != nil { // as a killed hotwrap leaves them
		t.Fatal(err)
	}
	if err := reach(opened(t, path)[0]); err != nil {
		t.Error(err)
	}
}

func TestLivingSocketIsNotRemoved(t *testing.T) {
	dir := t.TempDir()
	tests := map[string]func(path string){
		"stream":   func(path string) { bound(t, path, unix.SOCK_STREAM, true) },
		"datagram": func(path string) { bound(t, path, unix.SOCK_DGRAM, false) },
		"full": func(path string) {
			bound(t, path, unix.SOCK_STREAM, true)
			for range 2 { // backlog 0 admits one; the next would block a connect that can
				fd, err := newSocket(unix.AF_UNIX, unix.SOCK_STREAM, 0, true)
				if err != nil {
					t.Fatal(err)
				}
				t.Cleanup(func() { unix.Close(fd) })
				_ = unix.Connect(fd, &unix.SockaddrUnix{Name: path})
			}
		},
		// The path of a living hotwrap's socket is gone for a moment; its hidden link tells.
		"unlinked": func(path string) {
			bound(t, path, unix.SOCK_STREAM, true)
			if err := os.Rename(path, hiddenPath(path)); err != nil {
				t.Fatal(err)
			}
		},
		"symlink": func(path string) {
			bound(t, path+".real", unix.SOCK_STREAM, true)
			if err := os.Symlink(path+".real", path); err != nil {
				t.Fatal(err)
			}
		},
		"file": func(path string) {
			if err := os.WriteFile(path, []byte("precious"), 0o600); err != nil {
				t.Fatal(err)
			}
		},
		"directory": func(path string) {
			if err := os.Mkdir(path, 0o700); err != nil {
				t.Fatal(err)
			}
		},
	}
	want := map[string]string{
		"symlink": ": there is a symbolic link in its place", "file": ": there is a regular file in its place",
		"directory": ": there is a directory in its place",
	}
	for name, make := range tests {
		path := filepath.Join(dir, name)
		make(path)
		before, _ := os.Lstat(path)
		text := refused(t, path)
		if end, ok := want[name]; ok && !strings.HasSuffix(text, end) || !ok && !strings.Contains(text, ": address ") {
			t.Errorf("%s: %q", name, text)
		}
		after, err := os.Lstat(path)
		if err != nil || before != nil && !os.SameFile(before, after) {
			t.Errorf("%s: it was touched: %v", name, err)
		}
	}
}

// Of many that find the same stale socket, one wins, and the others do not take it from it.
func TestOnlyOneTakesPath(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	spec := specs(t, path)
	for range 10 {
		stale(t, path)
		results := make(chan []*listener)
		for range 8 {
			go func() {
				ls, _ := openListeners(spec, nil)
				results <- ls
			}()
		}
		var winners []*listener
		for range 8 {
			winners = append(winners, <-results...)
		}
		if len(winners) != 1 {
			t.Fatalf("%d winners", len(winners))
		}
		if err := reach(winners[0]); err != nil {
			t.Fatal(err)
		}
		closeListeners(winners)
	}
}

// Who has the lock may look and bind in peace.
func TestPathIsLocked(t *testing.T) {
	onLinux(t)
	path := filepath.Join(t.TempDir(), "a")
	stale(t, path)
	before, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	unlock, err := lockPath(path)
	if err != nil {
		t.Fatal(err)
	}
	spec := specs(t, path)
	result := make(chan []*listener, 1)
	go func() {
		ls, _ := openListeners(spec, nil)
		result <- ls
	}()
	waiting := fmt.Sprintf("-> FLOCK  ADVISORY  WRITE %d ", os.Getpid())
	for began := time.Now(); ; runtime.Gosched() {
		locks, err := os.ReadFile("/proc/locks")
		if err != nil || time.Since(began) > bindPatience {
			t.Fatalf("nobody waits for the lock: %v", err)
		}
		if strings.Contains(string(locks), waiting) {
			break
		}
	}
	if now, err := os.Lstat(path); err != nil || !os.SameFile(before, now) {
		t.Errorf("the path was touched under the lock: %v", err)
	}
	unlock()
	ls := <-result
	defer closeListeners(ls)
	if len(ls) != 1 {
		t.Fatal("it was not opened after the lock")
	}
	if err := reach(ls[0]); err != nil {
		t.Error(err)
	}
}

func TestUnlinkedPathComesBack(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	l := opened(t, path)[0]
	inode := l.inode
	for name, spoil := range map[string]func() error{
		"unlinked":   func() error { return os.Remove(path) },
		"moved away": func() error { return os.Rename(path, path+".old") },
		"stale": func() error {
			err := os.Remove(path)
			stale(t, path)
			return err
		},
	} {
		if text, err := l.repair((*listener).refresh); text != "" || err != nil {
			t.Errorf("nothing was wrong: %q, %v", text, err)
		}
		if err := spoil(); err != nil {
			t.Fatal(err)
		}
		if text, err := l.repair((*listener).refresh); text != "lost its path: put back" || err != nil {
			t.Errorf("%s: got %q, %v", name, text, err)
		}
		if err := reach(l); err != nil || l.inode != inode {
			t.Errorf("%s: %v; inode %d, was %d", name, err, l.inode, inode)
		}
	}
	// A lost hidden link is made again, or the next time would be the last.
	if err := os.Remove(hiddenPath(path)); err != nil {
		t.Fatal(err)
	}
	if _, err := l.repair((*listener).refresh); err != nil || !l.file.at(hiddenPath(path)) {
		t.Errorf("the hidden link is gone, %v", err)
	}
}

// Without the hidden link nothing leads to the socket any more: only a new one helps.
func TestPathWithoutHiddenLink(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a")
	l := opened(t, path)[0]
	number, inode := l.fd, l.inode
	if err := errors.Join(os.Remove(path), os.Remove(hiddenPath(path))); err != nil {
		t.Fatal(err)
	}
	if text, err := l.repair((*listener).refresh); text != "lost its path: replaced by a new socket" || err != nil {
		t.Errorf("got %q, %v", text, err)
	}
	if err := reach(l); err != nil || l.inode == inode || l.fd != number {
		t.Errorf("%v; inode %d, was %d; fd %d, was %d", err, l.inode, inode, l.fd, number)
	}
}

// What somebody else put in the place of the path and serves stays, also when we close.
func TestForeignPathIsLeftAlone(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "a")
	ls, err := openListeners(specs(t, path), nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(path); err != nil {
		t.Fatal(err)
	}
	bound(t, path, unix.SOCK_STREAM, true)
	foreign, err := os.Lstat(path)
	if err != nil {
		t.Fatal(err)
	}
	text, err := ls[0].repair((*listener).refresh)
	if err == nil || !strings.HasPrefix(err.Error(), fmt.Sprintf("cannot repair %q: address ", path)) {
		t.Errorf("got %q, %v", text, err)
	}
	closeListeners(ls)
	if now, err := os.Lstat(path); err != nil || !os.SameFile(now, foreign) {
		t.Errorf("it was touched: %v", err)
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 1 {
		t.Errorf("left behind: %v, %v", left, err)
	}
}

// Nothing revives a unix listener after shutdown(2): it is replaced under its path and its number.
func TestDeadUnixListenerIsReplaced(t *testing.T) {
	onLinux(t)
	dir := t.TempDir()
	for _, how := range []int{unix.SHUT_RD, unix.SHUT_RDWR} {
		for _, network := range []string{"unix", "unixpacket"} {
			path := filepath.Join(dir, fmt.Sprint(network, how))
			l := opened(t, network+":"+path+",mode=0606,nonblock")[0]
			number, inode := l.fd, l.inode
			shutDown(t, l, how)
			if err := reach(l); err == nil {
				t.Fatal("the listener is not spoilt")
			}
			if text, err := l.repair((*listener).refresh); text != "was shut down: replaced by a new socket" || err != nil {
				t.Errorf("%s: got %q, %v", network, text, err)
			}
			if l.inode == inode || l.fd != number || flags(t, l.fd, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
				t.Errorf("%s: inode %d, was %d; fd %d, was %d", network, l.inode, inode, l.fd, number)
			}
			if mode := modeOf(t, path); mode.Perm() != 0o606 || flags(t, l.fd, unix.F_GETFL)&unix.O_NONBLOCK == 0 {
				t.Errorf("%s: mode %v, or blocking", network, mode)
			}
			if sa, err := unix.Getsockname(l.fd); err != nil || sa.(*unix.SockaddrUnix).Name != path {
				t.Errorf("%s: %+v, %v", network, sa, err)
			}
			if err := reach(l); err != nil {
				t.Error(err)
			}
		}
	}
	abstract := opened(t, "unix:@hotwrap/test-dead")[0]
	shutDown(t, abstract, unix.SHUT_RD)
	if text, err := abstract.repair((*listener).refresh); err == nil {
		t.Errorf("an abstract socket was mended: %q", text)
	}
}

// watched counts the calls of spoilt.
type watched struct {
	calls chan *listener
	stop  func()
}

func watch(t *testing.T, ls []*listener) *watched {
	t.Helper()
	w := &watched{calls: make(chan *listener, 4096)} // room for all, so that spoilt never waits
	stop, err := watchListeners(ls, func(l *listener) { w.calls <- l })
	if err != nil {
		t.Fatal(err)
	}
	w.stop = stop
	return w
}

func (w *watched) next(t *testing.T) *listener {
	t.Helper()
	select {
	case l := <-w.calls:
		return l
	case <-time.After(bindPatience):
		t.Fatal("nothing was reported")
		return nil
	}
}

// A thousand clients wake nobody; a shutdown does, and the same port serves afterwards, again and again.
func TestWatchListeners(t *testing.T) {
	onLinux(t)
	dir := t.TempDir()
	ls := opened(t, "127.0.0.1:0", dir+"/a", "unixpacket:"+dir+"/p", "unix:@hotwrap/test-watch", "udp:127.0.0.1:0")
	w := watch(t, ls)
	defer w.stop()
	for _, l := range ls[:4] {
		for range 1000 {
			if err := reach(l); err != nil {
				t.Fatal(err)
			}
		}
	}
	for range 2 {
		// The first thing that is reported is the shutdown: nothing was before it.
		shutDown(t, ls[0], unix.SHUT_RDWR)
		if l := w.next(t); l != ls[0] {
			t.Fatalf("%s was reported", l.addr)
		}
		if text, err := ls[0].repair((*listener).refresh); text == "" || err != nil {
			t.Errorf("got %q, %v", text, err)
		}
		if err := reach(ls[0]); err != nil {
			t.Error(err)
		}
	}
	shutDown(t, ls[3], unix.SHUT_RD)
	if l := w.next(t); l != ls[3] {
		t.Errorf("%s was reported", l.addr)
	}
	if n := len(w.calls); n != 0 {
		t.Errorf("%d more reports", n)
	}
}

// mended repairs what is reported until something was wrong.
func (w *watched) mended(t *testing.T, want string) {
	t.Helper()
	for {
		text, err := w.next(t).repair((*listener).refresh)
		if err != nil {
			t.Fatal(err)
		}
		if text == want {
			return
		}
		if text != "" {
			t.Fatalf("got %q, want %q", text, want)
		}
	}
}

// settle waits until all that is reported so far was read: reports come in order, and the mark's is the last.
func (w *watched) settle(t *testing.T, mark *listener) {
	t.Helper()
	shutDown(t, mark, unix.SHUT_RD)
	for l := w.next(t); l != mark; l = w.next(t) {
	}
	if _, err := mark.repair((*listener).refresh); err != nil {
		t.Fatal(err)
	}
}

func TestWatchSocketFile(t *testing.T) {
	onLinux(t)
	path := filepath.Join(t.TempDir(), "a")
	ls := opened(t, path, "127.0.0.1:0")
	l := ls[0]
	w := watch(t, ls)
	defer w.stop()
	// Each step twice: also what was put in its place is watched.
	for range 2 {
		if err := os.Remove(path); err != nil {
			t.Fatal(err)
		}
		w.mended(t, "lost its path: put back")
		w.settle(t, ls[1])
		stale(t, path+".other")
		if err := os.Rename(path+".other", path); err != nil {
			t.Fatal(err)
		}
		w.mended(t, "lost its path: put back")
		w.settle(t, ls[1])
		shutDown(t, l, unix.SHUT_RD)
		w.mended(t, "was shut down: replaced by a new socket")
		w.settle(t, ls[1])
		if err := reach(l); err != nil {
			t.Error(err)
		}
	}
}

// After stop nothing is reported, also when something is under way.
func TestWatchStopIsFinal(t *testing.T) {
	onLinux(t)
	ls := opened(t, "127.0.0.1:0", filepath.Join(t.TempDir(), "a"))
	before := lowestFD(t)
	for range 20 {
		w := watch(t, ls)
		shutDown(t, ls[0], unix.SHUT_RD)
		w.stop()
		close(w.calls) // a late report would panic
		if ls[0].watch != nil {
			t.Fatal("still watched")
		}
		if err := ls[0].refresh(); err != nil {
			t.Fatal(err)
		}
	}
	if after := lowestFD(t); after > before+1 { // Go's poller may have taken one
		t.Errorf("descriptor %d was free and now is %d", before, after)
	}
}

func TestListenGiven(t *testing.T) {
	tcp := opened(t, "127.0.0.1:0,nonblock")[0]
	fd, err := unix.Dup(tcp.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	l := opened(t, fmt.Sprintf("fd:%d,fd=9", fd))[0]
	if l.fd == fd || l.inode != tcp.inode || l.addr != tcp.addr || l.network != "tcp" || l.pin != 9 || l.name != tcp.port() {
		t.Errorf("got %+v, want the socket of %+v", l, tcp)
	}
	for _, n := range []int{fd, l.fd} {
		if flags(t, n, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
			t.Errorf("descriptor %d is not close-on-exec", n)
		}
	}
	if flags(t, l.fd, unix.F_GETFL)&unix.O_NONBLOCK == 0 {
		t.Error("O_NONBLOCK was taken away")
	}
	if text := refused(t, fmt.Sprintf("fd:%d", fd), fmt.Sprintf("fd:%d", l.fd)); !strings.HasSuffix(text, fmt.Sprintf("it already is the listener on %q", l.addr)) {
		t.Error(text)
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	if text := refused(t, fmt.Sprintf("fd:%d", file.Fd())); !strings.HasSuffix(text, "it is not a socket, and only sockets are passed on") {
		t.Error(text)
	}
	pair, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(pair[0])
	defer unix.Close(pair[1])
	if text := refused(t, fmt.Sprintf("fd:%d", pair[0])); !strings.HasSuffix(text, "it is a connection, not a listening socket (Accept=yes?)") {
		t.Error(text)
	}
	idle, err := newSocket(unix.AF_INET, unix.SOCK_STREAM, 0, false)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(idle)
	if text := refused(t, fmt.Sprintf("fd:%d", idle)); !strings.HasSuffix(text, "it does not listen") {
		t.Error(text)
	}
}

// bindChild is a process of this test binary that opens listeners and lives until its input ends.
type bindChild struct {
	pid   int
	addrs []string
}

func startBindChild(t *testing.T, texts ...string) bindChild {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestBindChild$")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "HOTWRAP_TEST_LISTEN="+strings.Join(texts, "\n"))
	cmd.Stderr = os.Stderr
	stdout := startChild(t, cmd)
	child := bindChild{pid: cmd.Process.Pid}
	for lines := bufio.NewScanner(stdout); len(child.addrs) < len(texts) && lines.Scan(); {
		child.addrs = append(child.addrs, lines.Text())
	}
	if len(child.addrs) != len(texts) {
		t.Fatalf("the child opened only %q", child.addrs)
	}
	return child
}

func TestBindChild(t *testing.T) {
	texts, ok := os.LookupEnv("HOTWRAP_TEST_LISTEN")
	if !ok {
		t.Skip("a process of other tests")
	}
	for _, l := range opened(t, strings.Split(texts, "\n")...) {
		switch l.network {
		case "tcp":
			fmt.Println(l.addr)
		default:
			fmt.Println(l.network + ":" + l.addr)
		}
	}
	_, _ = os.Stdin.Read(make([]byte, 1))
}

// inherit runs inheritListeners in a new process that was given files from 3 on. $PID and $PIDFD stand for its own.
func inherit(t *testing.T, fds []int, environ ...string) string {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestInheritChild$")
	cmd.Env = append(os.Environ(), "GORACE=atexit_sleep_ms=0", "HOTWRAP_TEST_INHERIT="+strings.Join(environ, "\n"))
	for _, fd := range fds {
		// A duplicate, which may be closed; ExtraFiles leaves the flags of a raw number alone.
		n, err := unix.Dup(fd)
		if err != nil {
			t.Fatal(err)
		}
		unix.CloseOnExec(n)
		file := os.NewFile(uintptr(n), "given")
		defer file.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, file)
	}
	out, err := cmd.Output()
	if err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	text, _, _ := bytes.Cut(out, []byte("PASS\n")) // what package testing adds
	return strings.TrimSpace(string(text))
}

func TestInheritChild(t *testing.T) {
	text, ok := os.LookupEnv("HOTWRAP_TEST_INHERIT")
	if !ok {
		t.Skip("a process of other tests")
	}
	id, _ := shim.PidfdID()
	text = strings.NewReplacer("$PIDFD", fmt.Sprint(id), "$PID", fmt.Sprint(os.Getpid())).Replace(text)
	ls, _, err := inheritListeners(strings.Split(text, "\n"))
	if err != nil {
		fmt.Println(err)
	}
	for _, l := range ls {
		fmt.Printf("%d %s %s %q nonblock=%v cloexec=%v backlog=%d\n", l.fd, l.network, l.addr, l.name,
			flags(t, l.fd, unix.F_GETFL)&unix.O_NONBLOCK != 0, flags(t, l.fd, unix.F_GETFD)&unix.FD_CLOEXEC != 0, l.backlog)
	}
	if len(ls) > 0 { // ahead of our own, whose name gives way
		all, err := openListeners(specs(t, "127.0.0.1:0"), ls)
		if err != nil || len(all) != len(ls)+1 || all[0] != ls[0] || all[len(ls)].network != "tcp" {
			fmt.Println("cannot open more:", err, all)
		}
		if _, err := openListeners(specs(t, ls[0].name+"=127.0.0.1:0"), ls); err == nil {
			fmt.Println("the name is taken twice")
		}
	}
}

func TestInheritListeners(t *testing.T) {
	onLinux(t)
	path := filepath.Join(t.TempDir(), "a")
	ls := opened(t, "127.0.0.1:0,backlog=33", path+",nonblock", "udp:127.0.0.1:0")
	fds := []int{ls[0].fd, ls[1].fd, ls[2].fd}
	listing := func(names ...string) string {
		return fmt.Sprintf("3 tcp %s %q nonblock=false cloexec=true backlog=33\n"+
			"4 unix %s %q nonblock=true cloexec=true backlog=%d\n5 udp %s %q nonblock=false cloexec=true backlog=%d",
			ls[0].addr, names[0], path, names[1], systemBacklog(), ls[2].addr, names[2], systemBacklog())
	}
	file, err := os.Open(os.DevNull)
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	tests := []struct {
		fds     []int
		environ []string
		want    string
	}{
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_FDS=3"}, listing("unknown", "unknown", "unknown")},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_PIDFDID=$PIDFD", "LISTEN_FDS=3", "LISTEN_FDNAMES=web:web:d.socket"}, listing("web", "web", "d.socket")},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_FDS=3", "LISTEN_FDNAMES=::x"}, listing("unknown", "unknown", "x")},
		{fds, []string{"LISTEN_PID=1", "LISTEN_FDS=3"}, ""},
		{fds, []string{"LISTEN_FDS=3"}, ""},
		{fds, []string{"LISTEN_PID=", "LISTEN_FDS=3"}, ""},
		{fds, []string{"LISTEN_PID=$PID"}, ""},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_PIDFDID=1", "LISTEN_FDS=3"}, ""},
		{fds, []string{"LISTEN_PID=x", "LISTEN_FDS=3"}, `cannot read LISTEN_PID: "x" is not a number`},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_FDS=-3"}, `cannot read LISTEN_FDS: "-3" is not a number`},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_FDS=3000000000"}, "cannot read LISTEN_FDS: 3000000000 is too many"},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_FDS=3", "LISTEN_FDNAMES=a:b"}, "cannot take the sockets of LISTEN_FDS: LISTEN_FDNAMES has 2 names for 3"},
		{fds, []string{"LISTEN_PID=$PID", "LISTEN_FDS=3", "LISTEN_FDNAMES=a:b:\x01"}, `cannot take the sockets of LISTEN_FDS: LISTEN_FDNAMES has the bad name "\x01"`},
		{fds[:1], []string{"LISTEN_PID=$PID", "LISTEN_FDS=200000"}, ""},
		{[]int{int(file.Fd())}, []string{"LISTEN_PID=$PID", "LISTEN_FDS=1", "LISTEN_FDNAMES=fifo"}, `cannot take descriptor 3 ("fifo") of LISTEN_FDS: it is not a socket, and only sockets are passed on`},
	}
	for _, tt := range tests {
		got := inherit(t, tt.fds, tt.environ...)
		if slices.Contains(tt.environ, "LISTEN_FDS=200000") { // more than there are: the first that is missing, or Go's own
			if !strings.HasPrefix(got, "cannot take descriptor 4 ") {
				t.Errorf("%q: got %q", tt.environ, got)
			}
			continue
		}
		if got != tt.want {
			t.Errorf("%q:\ngot  %s\nwant %s", tt.environ, got, tt.want)
		}
	}
	// What an earlier program shut down is not lost for ever.
	shutDown(t, ls[0], unix.SHUT_RDWR)
	if got := inherit(t, fds[:1], "LISTEN_PID=$PID", "LISTEN_FDS=1"); !strings.HasPrefix(got, "3 tcp "+ls[0].addr+" ") {
		t.Error(got)
	}
	if err := reach(ls[0]); err != nil {
		t.Error(err)
	}
}

func TestFDNumbers(t *testing.T) {
	tests := []struct {
		pins, taken, want []int
		count             int
		err               string
	}{
		{nil, nil, []int{}, 0, ""},
		{[]int{-1, -1}, nil, []int{3, 4}, 2, ""},
		{[]int{-1, 3, -1}, nil, []int{4, 3, 5}, 3, ""},
		{[]int{9, -1, -1}, nil, []int{9, 3, 4}, 2, ""},
		{[]int{-1, 0}, nil, []int{3, 0}, 1, ""},
		{[]int{-1, -1}, []int{3, 5}, []int{4, 6}, 0, ""},
		{[]int{-1, -1}, []int{4}, []int{3, 5}, 1, ""},
		{[]int{7, 7}, nil, nil, 0, `cannot pass "l1" as descriptor 7: that is "l0"`},
		{[]int{7}, []int{7}, nil, 0, `cannot pass "l0" as descriptor 7: that is something else`},
		{[]int{1}, nil, nil, 0, `cannot pass "l0" as descriptor 1: that is the program's output`},
		{[]int{2}, nil, nil, 0, `cannot pass "l0" as descriptor 2: that is the program's errors`},
	}
	for _, tt := range tests {
		var ls []*listener
		for i, pin := range tt.pins {
			ls = append(ls, &listener{name: fmt.Sprintf("l%d", i), pin: pin})
		}
		got, err := fdNumbers(ls, tt.taken)
		if text := fmt.Sprint(err); err != nil && text != tt.err || err == nil && tt.err != "" {
			t.Errorf("%v %v: got error %v, want %q", tt.pins, tt.taken, err, tt.err)
		}
		if !slices.Equal(got, tt.want) || listenFDS(got) != tt.count {
			t.Errorf("%v %v: got %v, %d of them in LISTEN_FDS, want %v, %d", tt.pins, tt.taken, got, listenFDS(got), tt.want, tt.count)
		}
	}
}
