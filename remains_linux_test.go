package main

import (
	"context"
	"fmt"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// tcpInfo is a struct tcp_info with ages in milliseconds and segments with data, as bytes.
func tcpInfo(sent, received, acked, in, out uint32) []byte {
	i := unix.TCPInfo{Last_data_sent: sent, Last_data_recv: received, Last_ack_recv: acked, Data_segs_in: in, Data_segs_out: out}
	return unsafe.Slice((*byte)(unsafe.Pointer(&i)), unsafe.Sizeof(i))
}

func TestOwed(t *testing.T) {
	const young, old = 2000, 6000 // on either side of doubt
	short := int(unsafe.Offsetof(unix.TCPInfo{}.Last_ack_recv) + 4)
	for _, c := range []struct {
		name  string
		state byte
		info  []byte
		want  bool
	}{
		{"never used", tcpEstablished, tcpInfo(young, young, young, 0, 0), false},
		{"greeted, silent", tcpEstablished, tcpInfo(young, young, young, 0, 1), false},
		{"greeted, bytes of the handshake", tcpEstablished, tcpInfo(young, young+4, young, 0, 1), false},
		{"first request in the jiffy of the handshake", tcpEstablished, tcpInfo(old, old, old, 1, 0), true},
		{"first request later", tcpEstablished, tcpInfo(old+8, old, old, 1, 0), true},
		{"first request answered at once", tcpEstablished, tcpInfo(young, young, young, 1, 1), false},
		{"later request not answered", tcpEstablished, tcpInfo(old+4, old, old, 2, 1), true},
		{"later request answered", tcpEstablished, tcpInfo(young, young+4, young, 2, 2), false},
		{"answered at once and acknowledged later", tcpEstablished, tcpInfo(young, young, young-40, 5, 5), false},
		{"answered, or the next request followed at once", tcpEstablished, tcpInfo(young, young, young, 5, 5), true},
		{"the same for long", tcpEstablished, tcpInfo(old, old, old, 5, 5), false},
		{"the acknowledgement is of the client's end", tcpCloseWait, tcpInfo(young, young, young-40, 5, 5), true},
		{"half closed by the client, not answered", tcpCloseWait, tcpInfo(old+4, old, old, 1, 0), true},
		{"half closed by the client, answered", tcpCloseWait, tcpInfo(young, young+4, young, 1, 1), false},
		{"half closed by the program", tcpFinWait2, tcpInfo(young+4, young, young, 1, 0), false},
		{"an old kernel, not answered", tcpEstablished, tcpInfo(old+4, old, old, 0, 0)[:short], true},
		{"an old kernel, answered", tcpEstablished, tcpInfo(young, young+4, young, 0, 0)[:short], false},
		{"cut short", tcpEstablished, tcpInfo(old+4, old, old, 2, 0)[:short-1], false},
		{"nothing", tcpEstablished, nil, false},
	} {
		s := inetSocket{state: c.state}
		s.setSigns(c.info)
		if s.owed != c.want {
			t.Errorf("%s: owed = %v, want %v", c.name, s.owed, c.want)
		}
	}
}

func TestBusy(t *testing.T) {
	for _, c := range []struct {
		socket inetSocket
		want   bool
	}{
		{inetSocket{state: tcpEstablished}, false},
		{inetSocket{state: tcpEstablished, owed: true}, true},
		{inetSocket{state: tcpEstablished, unread: 1}, true},
		{inetSocket{state: tcpEstablished, unsent: 1}, true},
		{inetSocket{state: tcpCloseWait, unread: 1}, false}, // the end
		{inetSocket{state: tcpCloseWait, unread: 2}, true},
		{inetSocket{state: tcpCloseWait, unsent: 1}, true},
		{inetSocket{state: tcpFinWait1, unsent: 9}, false},
		{inetSocket{state: tcpFinWait2, unread: 1}, true},
	} {
		if got := c.socket.connection().busy; got != c.want {
			t.Errorf("busy of %+v = %v, want %v", c.socket, got, c.want)
		}
	}
	for _, c := range []struct {
		connection connection
		want       bool
	}{
		{connection{idle: time.Second}, true},
		{connection{idle: time.Second - 1}, false},
		{connection{idle: time.Hour, busy: true}, false},
	} {
		if got := c.connection.quiet(); got != c.want {
			t.Errorf("quiet of %+v = %v, want %v", c.connection, got, c.want)
		}
	}
}

// listenWith listens on a free port with an option set to 1, or on addr.
func listenWith(t *testing.T, addr string, level, option int) (net.Listener, *listener) {
	t.Helper()
	c := net.ListenConfig{Control: func(_, _ string, raw syscall.RawConn) (err error) {
		if option != 0 {
			_ = raw.Control(func(fd uintptr) { err = unix.SetsockoptInt(int(fd), level, option, 1) })
		}
		return err
	}}
	c.SetMultipathTCP(false)
	l, err := c.Listen(t.Context(), "tcp", addr)
	if err != nil {
		t.Skip(err)
	}
	t.Cleanup(func() { l.Close() })
	raw, err := l.(*net.TCPListener).SyscallConn()
	if err != nil {
		t.Fatal(err)
	}
	var inode uint64
	_ = raw.Control(func(fd uintptr) { inode, err = socketInode(int(fd)) })
	if err != nil {
		t.Fatal(err)
	}
	return l, &listener{network: "tcp", addr: l.Addr().String(), inode: inode}
}

// onlyRemain waits until one connection remains, of which ok.
func onlyRemain(t *testing.T, what string, ls []*listener, ok func(connection) bool) {
	t.Helper()
	seeUntil(t, what, func() remains { return remainsOf([]int{os.Getpid()}, ls) },
		func(r remains) bool { return r.known && len(r.open) == 1 && ok(r.open[0]) })
}

// TestRemains follows a connection through its life.
func TestRemains(t *testing.T) {
	for _, addr := range []string{"127.0.0.1:0", "[::1]:0"} {
		t.Run(addr, func(t *testing.T) {
			t.Parallel()
			l, own := listenWith(t, addr, 0, 0)
			ls := []*listener{own, {network: "unix", addr: "/nowhere"}}
			if r := remainsOf([]int{os.Getpid()}, ls); !r.known || len(r.open)+r.queued+len(r.halfOpen) != 0 {
				t.Errorf("before the first: %+v", r)
			}
			client, server := openConnection(t, l, "tcp", l.Addr().String())
			owed := func(c connection) bool { return c.busy && c.idle >= 50*time.Millisecond }
			answered := func(c connection) bool { return !c.busy }
			onlyRemain(t, "one that is not used", ls, func(c connection) bool {
				return c.quiet() && c.peer == client.LocalAddr().String()
			})
			say := func(from, to net.Conn) {
				t.Helper()
				if _, err := from.Write([]byte("x")); err != nil {
					t.Fatal(err)
				}
				if to == nil {
					return
				}
				if _, err := to.Read(make([]byte, 1)); err != nil {
					t.Fatal(err)
				}
			}
			say(client, nil)
			onlyRemain(t, "a request that is not read", ls, owed)
			if _, err := server.Read(make([]byte, 1)); err != nil {
				t.Fatal(err)
			}
			onlyRemain(t, "a request that is not answered", ls, owed)
			say(server, client)
			onlyRemain(t, "the first answer", ls, answered)
			for range 5 { // all within one tick of the kernel's clock
				say(client, server)
				say(server, client)
			}
			say(client, server)
			onlyRemain(t, "a request right after an answer", ls, owed)
			say(server, client)
			onlyRemain(t, "the last answer", ls, answered)
			say(client, server)
			_ = client.(*net.TCPConn).CloseWrite()
			onlyRemain(t, "a request, and the client's end", ls, owed)
			say(server, client)
			onlyRemain(t, "its answer", ls, answered)
			server.Close()
			if r := remainsOf([]int{os.Getpid()}, ls); !r.known || len(r.open) != 0 {
				t.Errorf("after the last: %+v", r)
			}
		})
	}
}

// TestRemainsUnsent: an answer that the client does not take is busy, and needs no process once the socket is closed.
func TestRemainsUnsent(t *testing.T) {
	l, own := listenWith(t, "127.0.0.1:0", 0, 0)
	_, server := openConnection(t, l, "tcp", l.Addr().String())
	some := make([]byte, 1<<20)
	for n := 1; n > 0; { // until both sides are full
		_ = server.SetWriteDeadline(time.Now().Add(100 * time.Millisecond))
		n, _ = server.Write(some)
	}
	ls := []*listener{own}
	onlyRemain(t, "an answer that is not taken", ls, func(c connection) bool { return c.busy && c.idle >= 100*time.Millisecond })
	server.Close()
	if r := remainsOf([]int{os.Getpid()}, ls); !r.known || len(r.open) != 0 {
		t.Errorf("after it was closed: %+v", r)
	}
}

// TestRemainsQueued: what waits in the queue of exactly this socket, of two on one port.
func TestRemainsQueued(t *testing.T) {
	one, own := listenWith(t, "127.0.0.1:0", unix.SOL_SOCKET, unix.SO_REUSEPORT)
	_, other := listenWith(t, one.Addr().String(), unix.SOL_SOCKET, unix.SO_REUSEPORT)
	const n = 20
	for range n {
		c, err := net.Dial("tcp", one.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
	}
	here, there := queued([]*listener{own}), queued([]*listener{other})
	if here+there != n || queued([]*listener{own, other}) != n {
		t.Errorf("%d and %d queued, want %d in all", here, there, n)
	}
	r := remainsOf([]int{os.Getpid()}, []*listener{own})
	if !r.known || r.queued != here || len(r.open) != 0 {
		t.Errorf("remains = %+v, want %d queued", r, here)
	}
	one.Close()
	if r := remainsOf([]int{os.Getpid()}, []*listener{own}); !r.known || r.queued != 0 {
		t.Errorf("after it was closed: %+v", r)
	}
}

// TestRemainsDenied: where we may not look into a process, its connections are among all those on the port.
func TestRemainsDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start a process of another user")
	}
	l, own := listenWith(t, "127.0.0.1:0", 0, 0)
	_, server := openConnection(t, l, "tcp", own.addr)
	openConnection(t, l, "tcp", own.addr) // not the program's
	file, err := server.(*net.TCPConn).File()
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	cmd := exec.Command("sh", "-c", "echo ok; exec cat") // not this binary: nobody may not reach it
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	pid, _ := startHolder(t, cmd, int(file.Fd()))
	see := func() remains { return remainsOf([]int{pid}, []*listener{own}) }
	if r := see(); !r.known || r.mixed || len(r.open) != 1 {
		t.Errorf("with the capability: %+v", r)
	}
	if r := withoutPtrace(t, see); !r.known || !r.mixed || len(r.open) != 2 {
		t.Errorf("without the capability: %+v", r)
	}
}

// TestHandshakes: TCP_DEFER_ACCEPT leaves a connection half-open until its first byte.
func TestHandshakes(t *testing.T) {
	for listen, dial := range map[string]string{"127.0.0.1:0": "127.0.0.1", "[::]:0": "127.0.0.1", "[::1]:0": "::1"} {
		l, own := listenWith(t, listen, unix.IPPROTO_TCP, unix.TCP_DEFER_ACCEPT)
		ls := []*listener{own}
		_, port, _ := net.SplitHostPort(own.addr)
		if got := handshakes(ls); len(got) != 0 {
			t.Errorf("%s: %v before the first", listen, got)
		}
		c, err := (&net.Dialer{}).DialContext(context.Background(), "tcp", net.JoinHostPort(dial, port))
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		from := netip.MustParseAddrPort(c.LocalAddr().String())
		if got := seeUntil(t, "a handshake", func() map[netip.AddrPort]bool { return handshakes(ls) },
			func(got map[netip.AddrPort]bool) bool { return len(got) > 0 }); !got[from] || len(got) != 1 {
			t.Errorf("%s: %v, want %v", listen, got, from)
		}
		if r := remainsOf([]int{os.Getpid()}, ls); len(r.halfOpen) != 1 || r.halfOpen[0] != from || r.queued != 0 || len(r.open) != 0 {
			t.Errorf("%s: remains = %+v, want %v half-open", listen, r, from)
		}
		if _, err := c.Write([]byte("x")); err != nil {
			t.Fatal(err)
		}
		seeUntil(t, "its end", func() remains { return remainsOf([]int{os.Getpid()}, ls) },
			func(r remains) bool { return len(r.halfOpen) == 0 && r.queued == 1 })
		l.Close()
	}
}

// BenchmarkRemains is one look at a program with many connections.
func BenchmarkRemains(b *testing.B) {
	for _, n := range []int{0, 1000, 9000} {
		b.Run(fmt.Sprint(n), func(b *testing.B) {
			var limit unix.Rlimit
			if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &limit); err != nil || limit.Cur < uint64(2*n+100) {
				b.Skipf("%d descriptors are too few", limit.Cur)
			}
			l, err := net.Listen("tcp", "127.0.0.1:0")
			if err != nil {
				b.Fatal(err)
			}
			defer l.Close()
			for range n {
				c, err := net.Dial("tcp", l.Addr().String())
				if err != nil {
					b.Fatal(err)
				}
				defer c.Close()
				s, err := l.Accept()
				if err != nil {
					b.Fatal(err)
				}
				defer s.Close()
			}
			ls := []*listener{{network: "tcp", addr: l.Addr().String()}}
			var before, after unix.Rusage
			_ = unix.Getrusage(unix.RUSAGE_SELF, &before)
			for b.Loop() {
				if r := remainsOf([]int{os.Getpid()}, ls); len(r.open) != n {
					b.Fatalf("%d connections, want %d", len(r.open), n)
				}
			}
			_ = unix.Getrusage(unix.RUSAGE_SELF, &after)
			used := after.Utime.Nano() + after.Stime.Nano() - before.Utime.Nano() - before.Stime.Nano()
			b.ReportMetric(float64(used)/float64(b.N), "cpu-ns/op")
		})
	}
}
