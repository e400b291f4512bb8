package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"net/netip"
	"os"
	"os/exec"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// groupAt makes a group of a listener of our own.
func groupAt(t *testing.T, text string) *group {
	t.Helper()
	g, err := newGroup(opened(t, text)[0], false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	return g
}

// joined opens n more sockets of a group.
func joined(t *testing.T, g *group, n int) {
	t.Helper()
	for range n {
		if _, err := g.open(); err != nil {
			t.Fatal(err)
		}
	}
}

func aimAt(t *testing.T, g *group, m *member) {
	t.Helper()
	if err := g.aim([]share{{m, 1}}, netip.AddrPort{}, nil); err != nil {
		t.Fatal(err)
	}
}

func leaves(t *testing.T, g *group, m *member) {
	t.Helper()
	if err := g.leave(m, nil); err != nil {
		t.Fatal(err)
	}
}

// reaches connects to a group, from a source port if that is not 0; its end leaves nothing behind.
func reaches(t *testing.T, host string, g *group, from uint16) int {
	t.Helper()
	fd, err := connectTo(netip.AddrPortFrom(netip.MustParseAddr(host), g.at.Port()), from)
	if err != nil {
		t.Fatal(err)
	}
	return fd
}

// connectTo sets no time limits: with one, the runtime's signals end a call with EINTR.
func connectTo(to netip.AddrPort, from uint16) (int, error) {
	family := unix.AF_INET
	if to.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return -1, err
	}
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // no TIME_WAIT
	if from != 0 {
		_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
		sa, _ := sockaddr(netip.AddrPortFrom(to.Addr(), from))
		err = unix.Bind(fd, sa)
	}
	if err == nil {
		sa, _ := sockaddr(to)
		err = unix.Connect(fd, sa)
	}
	if err != nil {
		unix.Close(fd)
	}
	return fd, err
}

// take accepts what waits for a member.
func take(m *member) (n int) {
	for {
		p := []unix.PollFd{{Fd: int32(m.fd), Events: unix.POLLIN}}
		if ready, _ := unix.Poll(p, 0); ready == 0 || p[0].Revents&unix.POLLIN == 0 {
			return n
		}
		fd, _, err := unix.Accept4(m.fd, unix.SOCK_CLOEXEC)
		if err != nil {
			return n
		}
		unix.Close(fd)
		n++
	}
}

// spread says which of the members get how many of n connections.
func spread(t *testing.T, g *group, host string, n int, members ...*member) []int {
	t.Helper()
	got := make([]int, len(members))
	for range n {
		fd := reaches(t, host, g, 0)
		for i, m := range members {
			got[i] += take(m)
		}
		unix.Close(fd)
	}
	return got
}

// TestGroupSteers: each in its turn gets everything, over both families.
func TestGroupSteers(t *testing.T) {
	for _, c := range []struct {
		listen string
		hosts  []string
	}{
		{"127.0.0.1:0", []string{"127.0.0.1"}},
		{"[::]:0", []string{"::1", "127.0.0.1"}},
	} {
		t.Run(c.listen, func(t *testing.T) {
			g := groupAt(t, c.listen)
			joined(t, g, 2)
			all := slices.Clone(g.members)
			for i, m := range all {
				if i > 0 { // the first one is aimed at from the beginning
					aimAt(t, g, m)
				}
				want := make([]int, 3)
				want[i] = 500
				for _, host := range c.hosts {
					if got := spread(t, g, host, 500, all...); !slices.Equal(got, want) {
						t.Errorf("aimed at %d from %s: %v", i, host, got)
					}
				}
			}
		})
	}
}

// hammer connects without pause, from a few goroutines; each member answers with its number, as a program that has a
// duplicate of its socket.
type hammer struct {
	epoch   atomic.Int64 // who starts after it has changed must see the change
	answers chan hit
	members []*member
}

type hit struct {
	epoch int64
	from  int // index of the member
	err   error
}

func hammering(t *testing.T, g *group, hosts ...string) *hammer {
	t.Helper()
	h := &hammer{answers: make(chan hit, 1<<16)}
	for _, m := range g.members {
		h.serve(t, m)
	}
	stop, clients := make(chan struct{}), sync.WaitGroup{}
	for _, host := range append(hosts, hosts...) {
		to := netip.AddrPortFrom(netip.MustParseAddr(host), g.at.Port())
		clients.Go(func() {
			for {
				select {
				case <-stop:
					return
				case h.answers <- h.ask(to):
				}
			}
		})
	}
	t.Cleanup(func() { close(stop); clients.Wait() })
	return h
}

func (h *hammer) ask(to netip.AddrPort) hit {
	epoch := h.epoch.Load()
	fd, err := connectTo(to, 0)
	if err != nil {
		return hit{epoch, -1, err}
	}
	defer unix.Close(fd)
	var b [1]byte
	if n, err := unix.Read(fd, b[:]); n != 1 {
		return hit{epoch, -1, fmt.Errorf("no answer: %d, %w", n, err)}
	}
	return hit{epoch, int(b[0]), nil}
}

// serve answers at a member, until it is shut down.
func (h *hammer) serve(t *testing.T, m *member) {
	t.Helper()
	number := byte(len(h.members))
	h.members = append(h.members, m)
	fd, err := unix.FcntlInt(uintptr(m.fd), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		for {
			client, _, err := unix.Accept4(fd, unix.SOCK_CLOEXEC)
			if errors.Is(err, unix.EINTR) {
				continue
			}
			if err != nil {
				return
			}
			_, _ = unix.Write(client, []byte{number})
			unix.Close(client)
		}
	}()
	t.Cleanup(func() { _ = unix.Shutdown(fd, unix.SHUT_RD); <-done; unix.Close(fd) })
}

// only reads n answers that began after this call, and some that began before: none failed, and the new are all m's.
func (h *hammer) only(t *testing.T, m *member, n int) {
	t.Helper()
	epoch := h.epoch.Add(1)
	want := slices.Index(h.members, m)
	for n > 0 {
		a := <-h.answers
		switch {
		case a.err != nil:
			t.Fatal(a.err)
		case a.epoch < epoch:
		case a.from != want:
			t.Fatalf("member %d got a connection, not %d", a.from, want)
		default:
			n--
		}
	}
}

// TestGroupLeaves: under load, wherever the one that goes and the one that serves are in the array.
func TestGroupLeaves(t *testing.T) {
	for size := 2; size <= 4; size++ {
		for serving := range size {
			for leaving := range size {
				if serving == leaving {
					continue
				}
				t.Run(fmt.Sprintf("%d_of_%d_serving_%d", leaving, size, serving), func(t *testing.T) {
					g := groupAt(t, "[::]:0")
					joined(t, g, size-1)
					serves, goes := g.members[serving], g.members[leaving]
					aimAt(t, g, serves)
					h := hammering(t, g, "127.0.0.1", "::1")
					h.only(t, serves, 50)
					leaves(t, g, goes)
					h.only(t, serves, 200)
					joined(t, g, 1)
					h.only(t, serves, 200)
					if slices.Contains(g.members, goes) {
						t.Errorf("it still is there: %v", g.members)
					}
				})
			}
		}
	}
}

// TestGroupRemovable: of all arrays up to five and all aims, what may go sends nothing astray even before the next
// program is attached; and what may not would.
func TestGroupRemovable(t *testing.T) {
	for size := 2; size <= 5; size++ {
		for aims := 1; aims < 1<<size; aims++ {
			for i := range size {
				g := &group{members: make([]*member, size)}
				for k := range size {
					g.members[k] = &member{fd: k}
					if aims&(1<<k) != 0 {
						g.shares = append(g.shares, share{g.members[k], 1})
					}
				}
				if aims&(1<<i) != 0 {
					continue
				}
				before := slices.Clone(g.members)
				may := g.removable(i)
				g.remove(i)
				right := true
				for k, m := range before {
					if aims&(1<<k) != 0 && size > 2 {
						right = right && k < len(g.members) && g.members[k] == m
					}
				}
				if may != right {
					t.Errorf("%d of %d, aimed at %b: removable %v, but right is %v", i, size, aims, may, right)
				}
			}
		}
	}
}

// kernelOrder finds the array by asking for each index. One that is vague is 0.
func kernelOrder(t *testing.T, g *group) (order []uint64) {
	t.Helper()
	for _, m := range g.members {
		if m.guard {
			_ = unix.SetsockoptInt(m.fd, unix.SOL_SOCKET, unix.SO_DETACH_FILTER, 0)
			defer func() { _ = attachTo(m.fd, unix.SO_ATTACH_FILTER, dropAll) }()
		}
	}
	for k := range g.members {
		if err := attach(g.members[0].fd, returnIndex(uint32(k))); err != nil {
			t.Fatal(err)
		}
		fd := reaches(t, "127.0.0.1", g, 0)
		for _, m := range g.members {
			if take(m) == 1 {
				order = append(order, inodes([]*member{m})...)
			}
		}
		unix.Close(fd)
	}
	if err := attach(g.members[0].fd, g.program); err != nil {
		t.Fatal(err)
	}
	return order
}

func inodes(members []*member) (all []uint64) {
	for _, m := range members {
		if m.vague {
			all = append(all, 0)
			continue
		}
		all = append(all, m.inode)
	}
	return all
}

// TestGroupMirrorsKernel: whatever happens in whatever order, the mirror is the kernel's array, and what is aimed at gets
// every connection.
func TestGroupMirrorsKernel(t *testing.T) {
	for seed := range uint64(8) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			g, random := groupAt(t, "127.0.0.1:0"), rand.New(rand.NewPCG(seed, 1))
			serving := g.members[0]
			for step := range 60 {
				real := programs(g)
				m := real[random.IntN(len(real))]
				what := random.IntN(6)
				switch {
				case what == 0 && len(real) < 6:
					joined(t, g, 1)
				case what == 1 && m != serving:
					leaves(t, g, m)
				case what == 2 && !m.left:
					serving = m
					aimAt(t, g, m)
				case what == 3 && !m.left:
					_ = unix.Shutdown(m.fd, unix.SHUT_RDWR)
					if err := g.again(m, 100); err != nil {
						t.Fatal(err)
					}
				case what == 4 && m != serving: // it goes while nobody looks
					_ = unix.Shutdown(m.fd, unix.SHUT_RDWR)
					leaves(t, g, m)
				case what == 5: // some do at once, and only then somebody looks
					for _, m := range real {
						if m != serving && !m.left && random.IntN(2) == 0 {
							_ = unix.Shutdown(m.fd, unix.SHUT_RDWR)
						}
					}
					if got := spread(t, g, "127.0.0.1", 5, serving); got[0] != 5 {
						t.Fatalf("step %d: %d of 5 connections before anybody looks", step, got[0])
					}
					if err := g.look(); err != nil {
						t.Fatal(err)
					}
				}
				if len(g.members) > 2*len(programs(g))+8 {
					t.Fatalf("step %d: %d members for %d programs", step, len(g.members), len(programs(g)))
				}
				if got := spread(t, g, "127.0.0.1", 5, serving); got[0] != 5 {
					t.Fatalf("step %d (%d): %d of 5 connections", step, what, got[0])
				}
				if order := kernelOrder(t, g); !slices.Equal(order, inodes(g.members)) {
					t.Fatalf("step %d (%d): mirror %v, kernel %v", step, what, inodes(g.members), order)
				}
			}
		})
	}
}

// programs are the members that are no guards.
func programs(g *group) []*member {
	return slices.DeleteFunc(slices.Clone(g.members), func(m *member) bool { return m.guard })
}

// TestGroupTombstone: one that goes leaves its place to a guard, and is refused as an aim; the next one to listen takes it.
func TestGroupTombstone(t *testing.T) {
	g := groupAt(t, "127.0.0.1:0")
	joined(t, g, 2)
	a, b, c := g.members[0], g.members[1], g.members[2]
	aimAt(t, g, c)
	leaves(t, g, a)
	leaves(t, g, b)
	if len(g.members) != 3 || !g.members[0].guard || !g.members[1].guard || g.members[2] != c {
		t.Fatalf("left %v", g.members)
	}
	if err := g.aim([]share{{a, 1}}, netip.AddrPort{}, nil); err == nil {
		t.Error("aimed at one that has left")
	}
	d, err := g.open()
	if err != nil || g.members[0] != d || !slices.Equal(programs(g), []*member{d, c}) {
		t.Fatalf("%v, left %v", err, g.members)
	}
	aimAt(t, g, d) // c no longer is in the way of a
	leaves(t, g, c)
	if want := []*member{d}; !slices.Equal(g.members, want) {
		t.Errorf("left %v, want %v", inodes(g.members), d.inode)
	}
	if got := spread(t, g, "127.0.0.1", 100, d); got[0] != 100 {
		t.Errorf("%d of 100", got[0])
	}
	if err := g.leave(d, nil); err == nil {
		t.Error("the one that serves may leave")
	}
}

// TestGroupGuards: programs shut their sockets down in every order, with one look after each, or one after all: who serves
// gets every connection before anybody looks, and after it.
func TestGroupGuards(t *testing.T) {
	for size := 2; size <= 5; size++ {
		for serving := range size {
			for order := range permutations(size) {
				for _, each := range []bool{true, false} {
					g := groupAt(t, "127.0.0.1:0")
					joined(t, g, size-1)
					all := programs(g)
					if len(all) != size {
						t.Fatalf("%d of %d", len(all), size)
					}
					serves := all[serving]
					aimAt(t, g, serves)
					what := fmt.Sprintf("size %d, serving %d, order %v, each %v", size, serving, order, each)
					for _, i := range order {
						if i == serving {
							continue
						}
						_ = unix.Shutdown(all[i].fd, unix.SHUT_RDWR)
						check(t, g, serves, what)
						if each {
							if err := g.look(); err != nil {
								t.Fatal(err)
							}
							check(t, g, serves, what)
						}
					}
					for _, m := range all {
						if m != serves {
							leaves(t, g, m)
							check(t, g, serves, what)
						}
					}
					if got := kernelOrder(t, g); !slices.Equal(got, inodes(g.members)) {
						t.Fatalf("%s: mirror %v, kernel %v", what, inodes(g.members), got)
					}
					g.close()
				}
			}
		}
	}
}

// check connects three times.
func check(t *testing.T, g *group, serves *member, what string) {
	t.Helper()
	if got := spread(t, g, "127.0.0.1", 3, serves); got[0] != 3 {
		t.Fatalf("%s: %d of 3 connections", what, got[0])
	}
}

// permutations are all orders of 0…n-1.
func permutations(n int) func(yield func([]int) bool) {
	return func(yield func([]int) bool) {
		order, used := make([]int, 0, n), make([]bool, n)
		var more func() bool
		more = func() bool {
			if len(order) == n {
				return yield(slices.Clone(order))
			}
			for i := range n {
				if used[i] {
					continue
				}
				used[i], order = true, append(order, i)
				if !more() {
					return false
				}
				used[i], order = false, order[:len(order)-1]
			}
			return true
		}
		more()
	}
}

// TestGroupGuardsStayFew: restarts, each while some before it drain and shut their sockets down, leave no more and more of them.
func TestGroupGuardsStayFew(t *testing.T) {
	for seed := range uint64(10) {
		g, random := groupAt(t, "127.0.0.1:0"), rand.New(rand.NewPCG(seed, 5))
		draining, serves := []*member{}, g.members[0]
		for round := range 100 {
			m, err := g.open()
			if err != nil {
				t.Fatal(err)
			}
			aimAt(t, g, m)
			draining, serves = append(draining, serves), m
			for len(draining) > 4 || len(draining) > 0 && random.IntN(2) == 0 {
				for i := range draining {
					if random.IntN(3) > 0 {
						_ = unix.Shutdown(draining[i].fd, unix.SHUT_RDWR)
					}
				}
				check(t, g, serves, "shut down")
				i := random.IntN(len(draining))
				leaves(t, g, draining[i])
				draining = slices.Delete(draining, i, i+1)
				check(t, g, serves, "left")
			}
			if len(g.members) > maxVague+12 {
				t.Fatalf("seed %d, round %d: %d members, %d draining", seed, round, len(g.members), len(draining))
			}
		}
	}
}

// TestGroupOutlivesDuplicates: a process that has a member's socket still does not keep it in the array.
func TestGroupOutlivesDuplicates(t *testing.T) {
	g := groupAt(t, "127.0.0.1:0")
	joined(t, g, 1)
	a, b := g.members[0], g.members[1]
	fd, err := unix.Dup(a.fd)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	aimAt(t, g, b)
	leaves(t, g, a)
	if got := spread(t, g, "127.0.0.1", 200, b); got[0] != 200 || accepting(fd) {
		t.Errorf("%d of 200, it listens: %v", got[0], accepting(fd))
	}
}

// stranger listens as anybody of the same user could.
func stranger(t *testing.T, at string, reuse bool) (int, error) {
	t.Helper()
	addr := netip.MustParseAddrPort(at)
	sa, _ := sockaddr(addr)
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, 1)
	_ = setReuse(fd, reuse)
	if err = unix.Bind(fd, sa); err == nil {
		err = unix.Listen(fd, 10)
	}
	return fd, err
}

// TestGroupIsExclusive: until the second socket comes nobody can bind the address, not even with SO_REUSEPORT; after that,
// nobody can without it, and who can gets no connection of an IPv4 group.
func TestGroupIsExclusive(t *testing.T) {
	for listen, others := range map[string][]string{
		"127.0.0.1:0": {"127.0.0.1", "0.0.0.0", "[::]"},
		"[::]:0":      {"[::]", "0.0.0.0", "127.0.0.1", "[::1]"},
		"tcp4::0":     {"0.0.0.0", "[::]", "127.0.0.1"},
	} {
		t.Run(listen, func(t *testing.T) {
			g := groupAt(t, listen)
			refused := func(reuse bool) {
				t.Helper()
				for _, host := range others {
					if _, err := stranger(t, fmt.Sprintf("%s:%d", host, g.at.Port()), reuse); !errors.Is(err, unix.EADDRINUSE) {
						t.Errorf("%s, SO_REUSEPORT %v: %v", host, reuse, err)
					}
				}
			}
			refused(false)
			refused(true)
			joined(t, g, 1)
			refused(false)
			a, b := g.members[0], g.members[1]
			aimAt(t, g, b)
			leaves(t, g, a)
			refused(false)
			if _, err := stranger(t, fmt.Sprintf("%s:%d", others[0], g.at.Port()), true); err != nil {
				t.Fatal(err) // this kernel forgets: SO_REUSEPORT may go off again
			}
			if got := spread(t, g, "127.0.0.1", 200, b); got[0] != 200 {
				t.Errorf("%d of 200, with a stranger", got[0])
			}
		})
	}
}

// TestGroupFindsStrangers on both families: they are named, the new socket is not kept, nobody moves in the array.
func TestGroupFindsStrangers(t *testing.T) {
	for listen, host := range map[string]string{"127.0.0.1:0": "127.0.0.1", "[::]:0": "0.0.0.0", "tcp4::0": "[::]", "[::1]:0": "[::]"} {
		t.Run(listen, func(t *testing.T) {
			g := groupAt(t, listen)
			joined(t, g, 1)
			a, b := g.members[0], g.members[1]
			aimAt(t, g, b)
			fd, err := stranger(t, fmt.Sprintf("%s:%d", host, g.at.Port()), true)
			if err != nil {
				t.Fatal(err)
			}
			file := os.NewFile(uintptr(fd), "stranger")
			cmd := exec.Command("sleep", "60")
			cmd.ExtraFiles = []*os.File{file}
			if err := cmd.Start(); err != nil {
				t.Fatal(err)
			}
			end := func() { file.Close(); _ = cmd.Process.Kill(); _ = cmd.Wait() }
			defer end()
			file.Close()
			want := fmt.Sprintf("address in use by pid %d (sleep", cmd.Process.Pid) // it may just be becoming it
			if m, err := g.open(); err == nil || m != nil || !strings.Contains(err.Error(), want) {
				t.Errorf("open: %v, want %q", err, want)
			}
			if err := g.leave(a, nil); err == nil || !strings.Contains(err.Error(), want) {
				t.Errorf("leave: %v, want %q", err, want)
			}
			end()
			if want := []*member{a, b}; !slices.Equal(g.members, want) {
				t.Fatalf("members %v", g.members)
			}
			joined(t, g, 1) // which closes a
			if slices.Contains(g.members, a) {
				t.Error("a is not closed")
			}
			if order := kernelOrder4(t, g); !slices.Equal(order, inodes(g.members)) {
				t.Errorf("mirror %v, kernel %v", inodes(g.members), order)
			}
		})
	}
}

// kernelOrder4 is kernelOrder where IPv4 reaches the group.
func kernelOrder4(t *testing.T, g *group) []uint64 {
	t.Helper()
	if g.at.Addr().Is6() && !g.at.Addr().IsUnspecified() {
		return inodes(g.members)
	}
	return kernelOrder(t, g)
}

// lentListener is a socket that a service manager has opened.
func lentListener(t *testing.T, at string, reuseAddr int) *listener {
	t.Helper()
	addr := netip.MustParseAddrPort(at)
	family := unix.AF_INET
	if addr.Addr().Is6() {
		family = unix.AF_INET6
	}
	fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	_ = unix.SetsockoptInt(fd, unix.SOL_SOCKET, unix.SO_REUSEADDR, reuseAddr)
	sa, _ := sockaddr(addr)
	if err := errors.Join(unix.Bind(fd, sa), unix.Listen(fd, 100)); err != nil {
		t.Fatal(err)
	}
	l, err := takeSocket(fd)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	return l
}

// TestGroupOfLent: a listener that was bound without SO_REUSEPORT is joined under load, and nothing is lost. It is never
// shut down, and gets everything again when the group is gone.
func TestGroupOfLent(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "[::]:0"} {
		t.Run(at, func(t *testing.T) {
			l := lentListener(t, at, 1)
			first := &member{fd: l.fd}
			port := netip.MustParseAddrPort(l.addr).Port()
			h := hammering(t, &group{at: netip.AddrPortFrom(netip.Addr{}, port), members: []*member{first}}, "127.0.0.1")
			h.only(t, first, 200)
			g, err := newGroup(l, true, nil)
			if err != nil {
				t.Fatal(err)
			}
			h.only(t, first, 200)
			for range 3 {
				m, err := g.open()
				if err != nil {
					t.Fatal(err)
				}
				h.serve(t, m)
				before := g.shares[0].to
				h.only(t, cmpMember(before, g.members[0], first), 100)
				aimAt(t, g, m)
				h.only(t, m, 200)
				leaves(t, g, before)
				h.only(t, m, 200)
			}
			if !slices.ContainsFunc(g.members, func(m *member) bool { return m.fd == l.fd }) || !accepting(l.fd) {
				t.Error("it was shut down")
			}
		})
	}
}

// cmpMember is plain in place of lent, which is the same socket.
func cmpMember(m, lent, plain *member) *member {
	if m == lent {
		return plain
	}
	return m
}

// TestGroupOfLentWithoutReuse: an open connection of a listener without SO_REUSEADDR keeps the address; that is an error,
// and one that was accepted later is no harm.
func TestGroupOfLentWithoutReuse(t *testing.T) {
	l := lentListener(t, "127.0.0.1:0", 0)
	to := netip.MustParseAddrPort(l.addr)
	connect := func() int {
		client, err := connectTo(to, 0)
		if err != nil {
			t.Fatal(err)
		}
		server, _, err := unix.Accept4(l.fd, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { unix.Close(client) })
		return server
	}
	early := connect()
	if _, err := newGroup(l, true, nil); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("with an open connection: %v", err)
	}
	_ = unix.SetsockoptLinger(early, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1})
	unix.Close(early)
	g, err := newGroup(l, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(connect())
	joined(t, g, 1)
}

// TestGroupAgain: a program shuts its socket down; as soon as that is seen all is right again.
func TestGroupAgain(t *testing.T) {
	for size := 1; size <= 4; size++ {
		for serving := range size {
			for victim := range size {
				t.Run(fmt.Sprintf("%d_of_%d_serving_%d", victim, size, serving), func(t *testing.T) {
					g := groupAt(t, "[::]:0")
					joined(t, g, size-1)
					serves, shut := g.members[serving], g.members[victim]
					aimAt(t, g, serves)
					_ = unix.Shutdown(shut.fd, unix.SHUT_RDWR)
					if err := g.again(shut, 100); err != nil {
						t.Fatal(err)
					}
					if got := spread(t, g, "127.0.0.1", 100, serves); got[0] != 100 {
						t.Errorf("%d of 100", got[0])
					}
					if order := kernelOrder(t, g); !slices.Equal(order, inodes(g.members)) || !accepting(shut.fd) {
						t.Errorf("mirror %v, kernel %v", inodes(g.members), order)
					}
				})
			}
		}
	}
}

// TestGroupAgainOfMany: the order in which two went cannot be known. Alone again, the group is exclusive again.
func TestGroupAgainOfMany(t *testing.T) {
	for _, shut := range [][]int{{0, 1}, {1, 0}, {2, 0, 1}} {
		g := groupAt(t, "127.0.0.1:0")
		joined(t, g, 4)
		all := slices.Clone(g.members)
		aimAt(t, g, all[4])
		for _, i := range shut {
			_ = unix.Shutdown(all[i].fd, unix.SHUT_RD)
		}
		if err := g.again(all[1], 50); err != nil {
			t.Fatal(err)
		}
		if got := spread(t, g, "127.0.0.1", 50, all[4]); got[0] != 50 {
			t.Errorf("%v: %d of 50", shut, got[0])
		}
		if order := kernelOrder(t, g); !slices.Equal(order, inodes(g.members)) {
			t.Errorf("%v: mirror %v, kernel %v", shut, inodes(g.members), order)
		}
	}
	g := groupAt(t, "127.0.0.1:0")
	_ = unix.Shutdown(g.members[0].fd, unix.SHUT_RD)
	if err := g.again(g.members[0], 100); err != nil {
		t.Fatal(err)
	}
	if _, err := stranger(t, g.addr, true); !errors.Is(err, unix.EADDRINUSE) {
		t.Errorf("a stranger: %v", err)
	}
}

// TestGroupPair: an IPv6-only and an IPv4 listener on one port are two groups, none a stranger to the other.
func TestGroupPair(t *testing.T) {
	g6 := groupAt(t, "[::]:0,v6only")
	g4 := groupAt(t, fmt.Sprintf("tcp4::%d", g6.at.Port()))
	for _, c := range []struct {
		g    *group
		host string
	}{{g6, "::1"}, {g4, "127.0.0.1"}} {
		joined(t, c.g, 1)
		a, b := c.g.members[0], c.g.members[1]
		aimAt(t, c.g, b)
		leaves(t, c.g, a)
		if got := spread(t, c.g, c.host, 100, b); got[0] != 100 {
			t.Errorf("%s: %d of 100", c.host, got[0])
		}
	}
}

// TestGroupProbe: one source port goes its own way, over either family, whatever the shares are.
func TestGroupProbe(t *testing.T) {
	for _, c := range []struct{ listen, host string }{
		{"127.0.0.1:0", "127.0.0.1"}, {"[::1]:0", "::1"}, {"[::]:0", "127.0.0.1"}, {"[::]:0", "::1"},
	} {
		t.Run(c.listen+" "+c.host, func(t *testing.T) {
			g := groupAt(t, c.listen)
			joined(t, g, 2)
			a, b, next := g.members[0], g.members[1], g.members[2]
			other := groupAt(t, c.listen) // its port is nobody's, so it is a good one to probe from
			port := other.at.Port()
			other.close()
			for _, shares := range [][]share{{{a, 1}}, {{a, 1}, {b, 1}}} {
				if err := g.aim(shares, netip.AddrPortFrom(netip.MustParseAddr(c.host), port), next); err != nil {
					t.Fatal(err)
				}
				for range 3 {
					fd := reaches(t, c.host, g, port)
					if take(next) != 1 {
						t.Error("the probe went elsewhere")
					}
					unix.Close(fd)
				}
				if got := spread(t, g, c.host, 200, next); got[0] != 0 {
					t.Errorf("%d clients reached the probed one", got[0])
				}
				// A client may have the same port elsewhere.
				stranger := netip.MustParseAddr(c.host).Next()
				if err := g.aim(shares, netip.AddrPortFrom(stranger, port), next); err != nil {
					t.Fatal(err)
				}
				unix.Close(reaches(t, c.host, g, port))
				if take(next) != 0 {
					t.Error("a client with the probe's port reached the probed one")
				}
				if take(a)+take(b) != 201 {
					t.Error("not all clients were served")
				}
			}
		})
	}
}

// TestGroupShares: to a percentage point, in 20,000 connections.
func TestGroupShares(t *testing.T) {
	g := groupAt(t, "127.0.0.1:0")
	joined(t, g, 2)
	weights := []int{5, 92, 3}
	shares := []share{}
	for i, w := range weights {
		shares = append(shares, share{g.members[i], w})
	}
	if err := g.aim(append(shares, share{g.members[0], 0}), netip.AddrPort{}, nil); err != nil {
		t.Fatal(err)
	}
	const n = 20000
	for i, got := range spread(t, g, "127.0.0.1", n, g.members...) {
		if want := n * weights[i] / 100; got < want-n/100 || got > want+n/100 {
			t.Errorf("member %d got %d, want %d", i, got, want)
		}
	}
	for _, bad := range [][]share{nil, {{g.members[0], 0}}, {{g.members[0], -1}, {g.members[1], 5}}, {{nil, 1}}, slices.Repeat(shares, 21)} {
		if err := g.aim(bad, netip.AddrPort{}, nil); err == nil {
			t.Errorf("%d shares are accepted", len(bad))
		}
	}
	if err := g.aim(slices.Repeat(shares, maxShares/3), netip.MustParseAddrPort("127.0.0.1:1"), g.members[0]); err != nil {
		t.Error(err)
	}
}

// TestGroupKeepsQueue: what waits in a predecessor's queue is served, as long as it has not left.
func TestGroupKeepsQueue(t *testing.T) {
	g := groupAt(t, "127.0.0.1:0")
	a := g.members[0]
	const n = 50
	for range n {
		fd := reaches(t, "127.0.0.1", g, 0)
		defer unix.Close(fd)
		if _, err := unix.Write(fd, []byte("x")); err != nil {
			t.Fatal(err)
		}
	}
	joined(t, g, 1)
	aimAt(t, g, g.members[1])
	joined(t, g, 1)
	aimAt(t, g, g.members[2])
	leaves(t, g, g.members[1])
	for range n {
		fd, _, err := unix.Accept4(a.fd, unix.SOCK_CLOEXEC)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := unix.Read(fd, make([]byte, 2)); got != 1 {
			t.Fatalf("read %d, %v", got, err)
		}
		unix.Close(fd)
	}
}

// TestGroupOptions: every further socket has what the first one had in the beginning, and is plain where that was.
func TestGroupOptions(t *testing.T) {
	l := opened(t, "[::]:0,nodelay,defer,fastopen,freebind,nonblock,backlog=77")[0]
	set := []socketOption{
		{name: "SO_KEEPALIVE", number: 1},
		{name: "SO_RCVBUF", number: 65536},
		{name: "SO_SNDBUF", number: 131072},
		{name: "SO_PRIORITY", number: 3},
		{name: "IP_TOS", number: 0x10},
		{name: "IPV6_TCLASS", number: 0x20},
		{name: "TCP_KEEPIDLE", number: 77},
		{name: "TCP_KEEPINTVL", number: 7},
		{name: "TCP_KEEPCNT", number: 5},
		{name: "TCP_USER_TIMEOUT", number: 4321},
		{name: "TCP_CONGESTION", text: "reno"},
	}
	if os.Geteuid() == 0 {
		set = append(set, socketOption{name: "SO_MARK", number: 9}, socketOption{name: "IP_TRANSPARENT", number: 1},
			socketOption{name: "SO_BINDTODEVICE", text: "lo"})
	}
	for _, s := range set {
		o := steeredOptions[slices.IndexFunc(steeredOptions, func(o socketOption) bool { return o.name == s.name })]
		o.number, o.text = s.number, s.text
		if err := o.set(l.fd); err != nil {
			t.Fatalf("%s: %v", s.name, err)
		}
	}
	g, err := newGroup(l, false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	if os.Geteuid() == 0 && len(g.options) < len(steeredOptions)-1 { // all but IPV6_V6ONLY differ
		t.Errorf("only %v", g.options)
	}
	want := map[string]socketOption{}
	for _, o := range steeredOptions {
		want[o.name], _ = o.of(l.fd)
	}
	_ = unix.SetsockoptInt(l.fd, unix.IPPROTO_TCP, unix.TCP_NODELAY, 0) // as a program may, later
	_ = unix.SetNonblock(l.fd, false)
	joined(t, g, 1)
	fd := g.members[1].fd
	for _, o := range steeredOptions {
		if got, _ := o.of(fd); got != want[o.name] {
			t.Errorf("%s: %d %q, want %d %q", o.name, got.number, got.text, want[o.name].number, want[o.name].text)
		}
	}
	if flags(t, fd, unix.F_GETFL)&unix.O_NONBLOCK == 0 || flags(t, l.fd, unix.F_GETFL)&unix.O_NONBLOCK != 0 {
		t.Error("O_NONBLOCK is not as the first one had it, or the first one was touched")
	}
	if got := backlogOf(fd); got != 77 || flags(t, fd, unix.F_GETFD)&unix.FD_CLOEXEC == 0 {
		t.Errorf("backlog %d, or it is not close-on-exec", got)
	}
}

// TestGroupAdmits: a program's own socket joins, whoever it belongs to; one that would be beside the group does not.
func TestGroupAdmits(t *testing.T) {
	g := groupAt(t, "[::]:0")
	own := func(family, only6 int) int {
		fd, err := unix.Socket(family, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		if family == unix.AF_INET6 {
			_ = unix.SetsockoptInt(fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY, only6)
		}
		return fd
	}
	for _, fd := range []int{own(unix.AF_INET, 0), own(unix.AF_INET6, 1)} {
		if err := g.admit(fd); err == nil {
			t.Error("admitted one that would be beside the group")
		}
		unix.Close(fd)
	}
	fd := own(unix.AF_INET6, 0)
	if os.Geteuid() == 0 {
		if err := unix.Fchown(fd, 65534, -1); err != nil {
			t.Fatal(err)
		}
	}
	if err := g.admit(fd); err != nil {
		t.Fatal(err)
	}
	m, err := g.listen(fd, 33)
	if err != nil {
		t.Fatal(err)
	}
	if got := spread(t, g, "127.0.0.1", 100, g.members[0]); got[0] != 100 || backlogOf(fd) != 33 {
		t.Errorf("%d of 100 before the switch, backlog %d", got[0], backlogOf(fd))
	}
	aimAt(t, g, m)
	if got := spread(t, g, "127.0.0.1", 100, m); got[0] != 100 {
		t.Errorf("%d of 100 after it", got[0])
	}
}

// TestGroupOfAnotherUser: the first socket is another user's, as systemd's may be.
func TestGroupOfAnotherUser(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root")
	}
	l := lentListener(t, "127.0.0.1:0", 1)
	if err := unix.Fchown(l.fd, 65534, -1); err != nil {
		t.Fatal(err)
	}
	g, err := newGroup(l, true, nil)
	if err != nil {
		t.Fatal(err)
	}
	joined(t, g, 1)
	aimAt(t, g, g.members[1])
	if got := spread(t, g, "127.0.0.1", 100, g.members[1]); got[0] != 100 {
		t.Errorf("%d of 100", got[0])
	}
}

// TestGroupOfMPTCP: the program is attached through a plain socket beside them, which gets nothing.
func TestGroupOfMPTCP(t *testing.T) {
	ls, err := openListeners(specs(t, "127.0.0.1:0,mptcp"), nil)
	if err != nil {
		t.Skip(err)
	}
	g, err := newGroup(ls[0], false, nil)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(g.close)
	first := g.shares[0].to
	if got := spread(t, g, "127.0.0.1", 100, first); got[0] != 100 {
		t.Errorf("%d of 100 to the first", got[0])
	}
	m, err := g.open()
	if err != nil {
		t.Fatal(err)
	}
	aimAt(t, g, m)
	leaves(t, g, first)
	if got := spread(t, g, "127.0.0.1", 100, m); got[0] != 100 {
		t.Errorf("%d of 100 to the second", got[0])
	}
}

// TestNoGroup says why.
func TestNoGroup(t *testing.T) {
	for text, want := range map[string]string{
		"udp:127.0.0.1:0": "it is not a listening TCP socket",
	} {
		ls, err := openListeners(specs(t, text), nil)
		if err != nil {
			t.Skip(err)
		}
		if _, err := newGroup(ls[0], false, nil); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v", text, err)
		}
		closeListeners(ls)
	}
}

// TestGroupLeaksNothing in a thousand rounds. It also says what they cost.
func TestGroupLeaksNothing(t *testing.T) {
	g := groupAt(t, "127.0.0.1:0")
	before := lowestFD(t)
	var open, aim, leave time.Duration
	const rounds = 1000
	for range rounds {
		old, start := g.shares[0].to, time.Now()
		m, err := g.open()
		if err != nil {
			t.Fatal(err)
		}
		open += time.Since(start)
		start = time.Now()
		aimAt(t, g, m)
		aim += time.Since(start)
		start = time.Now()
		leaves(t, g, old)
		leave += time.Since(start)
	}
	if after := lowestFD(t); after > before+1 || len(g.members) != 1 {
		t.Errorf("lowest free descriptor %d, was %d; %d members", after, before, len(g.members))
	}
	t.Logf("open %v, aim %v, leave %v", open/rounds, aim/rounds, leave/rounds)
}
