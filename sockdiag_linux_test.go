package main

import (
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// openConnection connects to l and returns both ends.
func openConnection(t *testing.T, l net.Listener, network, addr string) (client, server net.Conn) {
	t.Helper()
	client, err := net.Dial(network, addr)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { client.Close() })
	if server, err = l.Accept(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { server.Close() })
	return client, server
}

// TestConnections: the accepted ones, by their peers; not our own ends of others, not the queued, not the closed.
func TestConnections(t *testing.T) {
	for _, c := range []struct{ listen, dial string }{
		{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "[::1]"}, {":0", "127.0.0.1"}, // the last is IPv4 on an IPv6 socket
	} {
		t.Run(c.listen, func(t *testing.T) {
			l, err := net.Listen("tcp", c.listen) // an MPTCP one in Go: seen as TCP all the same
			if err != nil {
				t.Skip(err)
			}
			defer l.Close()
			_, port, _ := net.SplitHostPort(l.Addr().String())
			ls := []*listener{{network: "tcp", addr: l.Addr().String()}, {network: "udp", addr: "127.0.0.1:1"}}
			self := []int{os.Getpid()}
			if got := connections(self, ls); len(got) != 0 {
				t.Errorf("before the first: %v", got)
			}
			before := time.Now()
			client, server := openConnection(t, l, "tcp", c.dial+":"+port)
			queued, err := net.Dial("tcp", c.dial+":"+port)
			if err != nil {
				t.Fatal(err)
			}
			defer queued.Close()
			got := connections(self, ls)
			if len(got) != 1 || got[0].peer != client.LocalAddr().String() || got[0].idle > time.Since(before)+time.Second {
				t.Fatalf("connections = %v, want one of %v", got, client.LocalAddr())
			}
			seeUntil(t, "an idle connection", func() []connection { return connections(self, ls) },
				func(got []connection) bool { return len(got) == 1 && got[0].idle >= 300*time.Millisecond })
			before = time.Now()
			if _, err := server.Write([]byte("x")); err != nil {
				t.Fatal(err)
			}
			if got := connections(self, ls); len(got) != 1 || got[0].idle > time.Since(before)+100*time.Millisecond {
				t.Errorf("after a byte: %v", got)
			}
			server.Close()
			if got := connections(self, ls); len(got) != 0 {
				t.Errorf("after the last: %v", got)
			}
		})
	}
}

// TestAccepted: a connection tells from which listener it was accepted, of several on one port, too, and by whom.
func TestAccepted(t *testing.T) {
	one, err := net.Listen("tcp4", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer one.Close()
	_, port, _ := net.SplitHostPort(one.Addr().String())
	other, err := net.Listen("tcp4", "127.0.0.2:"+port)
	if err != nil {
		t.Skip(err)
	}
	defer other.Close()
	path := filepath.Join(t.TempDir(), "s")
	local, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	defer local.Close()
	self := os.Getpid()
	ls := []*listener{
		{network: "tcp", addr: one.Addr().String(), inode: 1}, {network: "tcp", addr: other.Addr().String(), inode: 2}, {network: "unix", addr: path, inode: 3},
	}
	if got := accepted([]int{self}, ls); len(got) != 0 {
		t.Errorf("before the first: %v", got)
	}
	openConnection(t, other, "tcp", other.Addr().String())
	if got := accepted([]int{self}, ls); len(got) != 1 || got[2] != self {
		t.Errorf("from the second: %v", got)
	}
	openConnection(t, local, "unix", path)
	if got := accepted([]int{self}, ls); len(got) != 2 || got[2] != self || got[3] != self {
		t.Errorf("from the third, too: %v", got)
	}
	if got := accepted([]int{1}, ls); len(got) != 0 {
		t.Errorf("by another process: %v", got)
	}
}

// TestUnixConnections: counted by the path of the listener, also one that was moved to its place.
func TestUnixConnections(t *testing.T) {
	dir := t.TempDir()
	for _, bound := range []string{filepath.Join(dir, "a b.sock"), filepath.Join(dir, "aside"), "@hotwrap test " + filepath.Base(dir)} {
		l, err := net.Listen("unix", bound)
		if err != nil {
			t.Fatal(err)
		}
		defer l.Close()
		shown := bound
		if strings.HasSuffix(bound, "aside") {
			shown = filepath.Join(dir, "in place")
			if err := os.Rename(bound, shown); err != nil {
				t.Fatal(err)
			}
		}
		raw, err := l.(*net.UnixListener).SyscallConn()
		if err != nil {
			t.Fatal(err)
		}
		var inode uint64
		_ = raw.Control(func(fd uintptr) { inode, err = socketInode(int(fd)) })
		if err != nil {
			t.Fatal(err)
		}
		ls := []*listener{{network: "unix", addr: shown, inode: inode}}
		self := []int{os.Getpid()}
		if got := connections(self, ls); len(got) != 0 {
			t.Errorf("%s: before the first: %v", shown, got)
		}
		_, server := openConnection(t, l, "unix", shown)
		openConnection(t, l, "unix", shown)
		if got := connections(self, ls); len(got) != 2 || got[0].peer != "unix" {
			t.Errorf("%s: connections = %v, want two", shown, got)
		}
		server.Close()
		if got := connections(self, ls); len(got) != 1 {
			t.Errorf("%s: connections = %v, want one left", shown, got)
		}
	}
}

func TestOtherListeners(t *testing.T) {
	fd, inode := kernelListen(t, unix.SOCK_STREAM)
	pid, line := startHolder(t, kernelChild("listens too"), fd)
	want := strings.Fields(line)
	sa, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	own := netip.AddrPortFrom(netip.AddrFrom4(sa.(*unix.SockaddrInet4).Addr), uint16(sa.(*unix.SockaddrInet4).Port)).String()
	slices.Sort(want)
	if got := otherListeners([]int{pid, pid}, []uint64{inode}); !slices.Equal(got, want) || len(got) == 0 {
		t.Errorf("otherListeners = %v, want %v", got, want)
	}
	want = append(want, own)
	slices.Sort(want)
	if got := otherListeners([]int{pid}, nil); !slices.Equal(got, want) {
		t.Errorf("otherListeners without own = %v, want %v", got, want)
	}
	if got := otherListeners([]int{1 << 30}, nil); len(got) != 0 {
		t.Errorf("otherListeners of nobody = %v", got)
	}
}

func TestPortHolder(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	u, err := net.ListenPacket("udp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	defer u.Close()
	tcp, udp := netip.MustParseAddrPort(l.Addr().String()), netip.MustParseAddrPort(u.LocalAddr().String())
	for _, c := range []struct {
		network string
		addr    netip.AddrPort
		found   bool
	}{
		{"tcp", tcp, true},
		{"tcp", netip.AddrPortFrom(netip.IPv6Unspecified(), tcp.Port()), true},
		{"udp", udp, true},
		{"udp", netip.AddrPortFrom(netip.IPv4Unspecified(), udp.Port()), true},
		{"tcp", netip.AddrPortFrom(netip.MustParseAddr("127.0.0.2"), tcp.Port()), false},
		{"tcp", netip.AddrPortFrom(tcp.Addr(), 1), false},
	} {
		h, found := portHolder(c.network, c.addr)
		if found != c.found || found && (h.pid != os.Getpid() || !strings.HasPrefix(h.command, os.Args[0][:min(len(os.Args[0]), maxCommand)])) {
			t.Errorf("portHolder(%s, %s) = %+v, %v", c.network, c.addr, h, found)
		}
	}
}

func TestAddrsOverlap(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want bool
	}{
		{"127.0.0.1", "127.0.0.1", true},
		{"127.0.0.1", "127.0.0.2", false},
		{"0.0.0.0", "10.0.0.1", true},
		{"::", "10.0.0.1", true},
		{"::", "::1", true},
		{"::", "0.0.0.0", true},
		{"0.0.0.0", "::1", false},
		{"::ffff:127.0.0.1", "127.0.0.1", true},
		{"::1", "127.0.0.1", false},
		{"fe80::1%eth0", "fe80::1", true},
	} {
		a, b := netip.MustParseAddr(c.a), netip.MustParseAddr(c.b)
		if addrsOverlap(a, b) != c.want || addrsOverlap(b, a) != c.want {
			t.Errorf("addrsOverlap(%s, %s), the two ways round: %v, %v; want %v", a, b, addrsOverlap(a, b), addrsOverlap(b, a), c.want)
		}
	}
}

func TestPathHolder(t *testing.T) {
	dir := t.TempDir()
	for network, path := range map[string]string{
		"unix": filepath.Join(dir, "s p.sock"), "unixgram": filepath.Join(dir, "d.sock"), "unixpacket": "@hotwrap " + dir,
	} {
		if h, found := pathHolder(path); found {
			t.Errorf("%s: held by %+v before anybody binds it", path, h)
		}
		var err error
		var s interface{ Close() error }
		if network == "unixgram" {
			s, err = net.ListenPacket(network, path)
		} else {
			s, err = net.Listen(network, path)
		}
		if err != nil {
			t.Fatal(err)
		}
		if h, found := pathHolder(path); !found || h.pid != os.Getpid() {
			t.Errorf("pathHolder(%q) = %+v, %v", path, h, found)
		}
		s.Close()
	}
}

// TestTablesAgree: /proc/net says the same as sock_diag, which filters by port and state.
func TestTablesAgree(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Skip(err)
		}
		defer l.Close()
		openConnection(t, l, "tcp", l.Addr().String())
		a := netip.MustParseAddrPort(l.Addr().String())
		family := byte(unix.AF_INET)
		if a.Addr().Is6() {
			family = unix.AF_INET6
		}
		for _, state := range []byte{tcpListen, tcpEstablished} {
			diag, err := diagSockets(family, unix.IPPROTO_TCP, 1<<state, portSet{a.Port(): true})
			if err != nil {
				t.Skipf("no sock_diag here: %v", err)
			}
			proc := procSockets(family, unix.IPPROTO_TCP, 1<<state, portSet{a.Port(): true})
			other := func(s inetSocket) bool { return s.local != a } // somebody's client may have this port on another address
			diag, proc = slices.DeleteFunc(diag, other), slices.DeleteFunc(proc, other)
			if len(diag) != 1 || len(proc) != 1 || diag[0].local != a || diag[0].inode == 0 {
				t.Fatalf("%s in state %d: %+v by sock_diag, %+v by /proc/net", a, state, diag, proc)
			}
			diag[0].idle, diag[0].limit, diag[0].v6only = 0, 0, false // unknown to /proc/net
			if diag[0] != proc[0] {
				t.Errorf("%s in state %d: %+v by sock_diag, %+v by /proc/net", a, state, diag[0], proc[0])
			}
		}
	}
	if _, err := diagSockets(unix.AF_INET, 255, 1<<tcpListen, nil); err == nil {
		t.Error("no error for a protocol that is not there")
	}
}

func TestPrintableCommand(t *testing.T) {
	for text, want := range map[string]string{
		"node\x00server.js\x00":        "node server.js",
		"a\x1b[31m\xff\u202e\x00":      "a?[31m??",
		"sh\n":                         "sh",
		strings.Repeat("ä", 200):       strings.Repeat("ä", 60),
		"x" + strings.Repeat("ä", 200): "x" + strings.Repeat("ä", 59) + "?",
	} {
		if got := printableCommand([]byte(text)); got != want {
			t.Errorf("printableCommand(%q) = %q, want %q", text, got, want)
		}
	}
}

func FuzzParseRows(f *testing.F) {
	f.Add("   0: 0100007F:1F90 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 31337 1 0 100 0 0 10 0")
	f.Add("0000000000000000: 00000002 00000000 00010000 0001 01 31337 /run/a b.sock")
	f.Add("35 31 0:32 / /sys/fs/cgroup/memory rw,relatime - cgroup cgroup rw,memory")
	f.Fuzz(func(t *testing.T, line string) {
		if s, ok := parseInetRow(line); ok && (!s.local.IsValid() || !s.remote.IsValid()) {
			t.Errorf("parseInetRow(%q) = %+v", line, s)
		}
		if s, ok := parseUnixRow(line); ok && !strings.HasSuffix(line, s.path) {
			t.Errorf("parseUnixRow(%q) = %+v", line, s)
		}
		_ = hierarchies("memory", []byte("4:memory:/a\n"+line), []byte(line))
	})
}

func FuzzParseDiag(f *testing.F) {
	request := diagRequest(unix.AF_INET, unix.IPPROTO_TCP, 1<<tcpListen, portSet{80: true})
	f.Add(request)
	f.Add(append(slices.Clone(request), request...))
	f.Add([]byte{20, 0, 0, 0, unix.NLMSG_ERROR, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xfe, 0xff, 0xff, 0xff})
	f.Fuzz(func(t *testing.T, b []byte) {
		sockets, _, err := parseDiag(b, nil, nil)
		if err != nil && len(sockets) > 0 && len(sockets)*diagMessage > len(b) {
			t.Errorf("%d sockets of %d bytes", len(sockets), len(b))
		}
		_, _ = eachDiag(b, func(payload []byte) {
			if _, q := parseUnixDiag(payload); q.known && len(payload) < unixDiagMessage+12 {
				t.Errorf("a queue of %d bytes", len(payload))
			}
		})
	})
}

// handshakes are the clients whose connections to the ports of listeners are half-open. With SYN cookies
// (tcp_syncookies(7)) the kernel remembers none.
func handshakes(ls []*listener) map[netip.AddrPort]bool {
	half := map[netip.AddrPort]bool{}
	for _, s := range inetSockets(unix.IPPROTO_TCP, tcpSynRecv, tcpPorts(ls)) {
		half[s.peer()] = true
	}
	return half
}

// queued is how many connections wait to be accepted from exactly these TCP sockets.
func queued(ls []*listener) (n int) {
	own := inodeSet(ls)
	for _, s := range inetSockets(unix.IPPROTO_TCP, tcpListen, tcpPorts(ls)) {
		if own[s.inode] {
			n += s.queue
		}
	}
	return n
}
