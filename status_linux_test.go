package main

import (
	"net"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// queuedOn opens a listener of a backlog by hand, as Go's own is the system's, and connects to it without accepting.
func queuedOn(t *testing.T, sa unix.Sockaddr, family, backlog, queued int) listener {
	t.Helper()
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, sa); err != nil {
		t.Skip(err)
	}
	if err := unix.Listen(fd, backlog); err != nil {
		t.Fatal(err)
	}
	inode, err := socketInode(fd)
	if err != nil {
		t.Fatal(err)
	}
	l := listener{name: "l", fd: fd, inode: inode, network: "tcp"}
	bound, err := unix.Getsockname(fd)
	if err != nil {
		t.Fatal(err)
	}
	switch sa := bound.(type) {
	case *unix.SockaddrUnix:
		l.network, l.addr = "unix", sa.Name
	case *unix.SockaddrInet4:
		l.addr = (&net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}).String()
	case *unix.SockaddrInet6:
		l.addr = (&net.TCPAddr{IP: sa.Addr[:], Port: sa.Port}).String()
	}
	for range queued {
		c, err := net.Dial(l.network, l.addr)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { c.Close() })
	}
	return l
}

// TestListenQueues: how many wait to be accepted, and how many may, of every kind of stream listener.
func TestListenQueues(t *testing.T) {
	dir := t.TempDir()
	for _, c := range []struct {
		sa              unix.Sockaddr
		family          int
		backlog, queued int
	}{
		{&unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET, 7, 2},
		{&unix.SockaddrInet6{Addr: [16]byte{15: 1}}, unix.AF_INET6, 9, 3},
		{&unix.SockaddrUnix{Name: filepath.Join(dir, "a b")}, unix.AF_UNIX, 5, 4},
		{&unix.SockaddrUnix{Name: "@hotwrap " + dir}, unix.AF_UNIX, 6, 0},
	} {
		l := queuedOn(t, c.sa, c.family, c.backlog, c.queued)
		udp := &listener{network: "udp", addr: "127.0.0.1:1"}
		gone := l
		gone.inode++ // no socket of ours
		got := seeUntil(t, "the queue", func() []listenQueue { return listenQueues([]*listener{udp, &l, &gone}) },
			func(qs []listenQueue) bool { return qs[1].waiting == c.queued || !qs[1].known })
		if !got[1].known && l.network == "unix" {
			t.Skip("no unix_diag here")
		}
		if want := (listenQueue{c.queued, c.backlog, true}); got[1] != want || got[0].known || got[2].known {
			t.Errorf("%s: %+v, want %+v", l.addr, got, want)
		}
	}
}

// TestLookAround: queues and connections are those that the kernel has, a drain names who holds it up.
func TestLookAround(t *testing.T) {
	l := queuedOn(t, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}, unix.AF_INET, 64, holdersShown+3)
	for range holdersShown + 1 { // this process is the worker that has accepted
		fd, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(fd) })
	}
	st := &state{Generations: []*generation{
		{Number: 1, State: genDraining, Workers: []*worker{{PID: os.Getpid(), State: workerStopping}}},
		{Number: 2, State: genServing, Workers: []*worker{{PID: 1 << 30, State: workerReady}}},
	}}
	f := facts{listeners: []listener{l}, numbers: []int{3}}
	v := makeStatus(st, statusNow, streamStart, f)
	v.lookAround(f)
	v.weigh()
	old, now := v.Generations[0], v.Generations[1]
	if *old.Connections != holdersShown+1 || len(old.Drain.Holders) != holdersShown || !strings.HasPrefix(old.Drain.Holders[0].Peer, "127.0.0.1:") {
		t.Errorf("draining: %d connections, %+v", *old.Connections, old.Drain)
	}
	if *now.Connections != 0 || now.Workers[0].Memory != 0 || now.Drain != nil {
		t.Errorf("serving, and gone meanwhile: %+v", now)
	}
	if m := old.Workers[0].Memory; m < 1<<20 || m > 1<<40 {
		t.Errorf("memory: %d", m)
	}
	if *v.Listeners[0].Queue != 2 || *v.Listeners[0].Limit != 64 {
		t.Errorf("queue: %d of %d", *v.Listeners[0].Queue, *v.Listeners[0].Limit)
	}
}
