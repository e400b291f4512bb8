package main

import (
	"bufio"
	"encoding/json"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/netip"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// travelled carries a traffic to text and back, over the same descriptors, and checks that nothing was left out.
func travelled(t *testing.T, s *steered) *steered {
	t.Helper()
	var b baggage
	before := written{Traffic: s.carry(&b)}
	text, err := json.Marshal(before)
	if err != nil {
		t.Fatal(err)
	}
	var after written
	if err := json.Unmarshal(text, &after); err != nil {
		t.Fatal(err)
	}
	to, ls, err := restoreTraffic(after.Traffic, anyway)
	if err != nil {
		t.Fatal(err)
	}
	next := to.(*steered)
	again, err := json.Marshal(written{Traffic: next.carry(&baggage{})})
	if err != nil || string(again) != string(text) {
		t.Fatalf("%v\n%s\nis not\n%s", err, again, text)
	}
	for _, l := range next.all() {
		if !slices.Contains(b.fds, l.fd) {
			t.Errorf("descriptor %d of %q is left behind", l.fd, l.name)
		}
	}
	if len(ls) != len(s.base) {
		t.Errorf("%d listeners of %d", len(ls), len(s.base))
	}
	return next
}

// steersTo checks where new connections go, and the mirrors.
func steersTo(t *testing.T, s *steered, what string, generation int) {
	t.Helper()
	for i, g := range s.groups {
		if g == nil {
			continue
		}
		m := s.member(generation, i)
		if got := spread(t, g, "127.0.0.1", 5, m); got[0] != 5 {
			t.Fatalf("%s: %d of 5 connections to %s", what, got[0], g.addr)
		}
		if order := kernelOrder(t, g); !slices.Equal(order, inodes(g.members)) {
			t.Fatalf("%s: %s: mirror %v, kernel %v", what, g.addr, inodes(g.members), order)
		}
	}
}

// TestTravel: whatever happens in whatever order, what has travelled goes on as before: generations come, serve, drain and
// go, programs shut their sockets down and bind their own, and every connection reaches who serves.
func TestTravel(t *testing.T) {
	for seed := range uint64(10) {
		t.Run(fmt.Sprint(seed), func(t *testing.T) {
			random := rand.New(rand.NewPCG(seed, 7))
			path := filepath.Join(t.TempDir(), "a.sock")
			to, notes := newTraffic(opened(t, "127.0.0.1:0", path, "[::]:0", "udp:127.0.0.1:0"), false, false)
			if len(notes) > 0 {
				t.Fatal(notes)
			}
			w := &traveller{t: t, random: random, s: to.(*steered), last: 1, serving: 1}
			if err := w.s.open(1, 0); err != nil {
				t.Fatal(err)
			}
			if _, err := w.s.route(map[int]int{1: 1}); err != nil {
				t.Fatal(err)
			}
			for step := range 60 {
				what := w.step()
				if random.IntN(2) == 0 {
					w.s.unwatch()
					w.s = travelled(t, w.s)
					if err := w.s.watch(func(*listener, <-chan struct{}) {}); err != nil {
						t.Fatal(err)
					}
				}
				steersTo(t, w.s, fmt.Sprintf("step %d (%s)", step, what), w.serving)
			}
			w.s.unwatch()
			other, err := net.Dial("unix", path)
			if err != nil {
				t.Fatal(err)
			}
			other.Close()
			if l := w.s.base[1]; !l.file.at(path) || !l.file.at(l.file.hidden) {
				t.Error("the path is not known again")
			}
			w.s.close()
		})
	}
}

// traveller does what a supervisor does.
type traveller struct {
	t             *testing.T
	random        *rand.Rand
	s             *steered
	last, serving int
}

// step does one thing.
func (w *traveller) step() string {
	var others []int
	for g := range w.s.sets {
		if g != w.serving {
			others = append(others, g)
		}
	}
	slices.Sort(others)
	other := 0
	if len(others) > 0 {
		other = others[w.random.IntN(len(others))]
	}
	switch what := w.random.IntN(6); {
	case what == 0 && len(others) < 5, other == 0:
		w.last++
		if err := w.s.open(w.last, 0); err != nil {
			w.t.Fatal(err)
		}
		return "open"
	case what == 1:
		w.s.release(other)
		return "release"
	case what == 2:
		w.serving = other
		if _, err := w.s.route(map[int]int{other: 1}); err != nil {
			w.t.Fatal(err)
		}
		return "route"
	case what == 3: // and its program is not told
		l := w.s.sets[other].ls[0]
		_ = unix.Shutdown(l.fd, unix.SHUT_RDWR)
		if err := w.s.relisten(l); err != nil {
			w.t.Fatal(err)
		}
		return "shut down"
	case what == 4:
		l := w.s.sets[other].ls[2]
		_ = unix.Shutdown(l.fd, unix.SHUT_RDWR)
		w.s.release(other)
		return "shut down and gone"
	default:
		w.bind(other)
		return "bind"
	}
}

// bind is a program that binds the first address itself, and later listens.
func (w *traveller) bind(generation int) {
	set := w.s.sets[generation]
	if o := set.own[0]; o != nil && !o.listens {
		fd, err := unix.FcntlInt(uintptr(o.fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			w.t.Fatal(err)
		}
		a := w.s.adopt(generation, &call{op: callListen, fd: fd, inode: o.inode, network: "tcp", addr: o.at})
		if !a.listens || a.err != nil {
			w.t.Fatalf("%+v", a)
		}
		return
	}
	fd, err := newSocket(unix.AF_INET, unix.SOCK_STREAM, unix.IPPROTO_TCP, false)
	if err != nil {
		w.t.Fatal(err)
	}
	inode, _ := socketInode(fd)
	at := netip.MustParseAddrPort(w.s.base[0].addr)
	if a := w.s.adopt(generation, &call{op: callBind, fd: fd, inode: inode, network: "tcp", protocol: unix.IPPROTO_TCP, addr: at}); a.err != nil {
		w.t.Fatal(a.err)
	}
}

// TestTravelShared is for listeners that all share.
func TestTravelShared(t *testing.T) {
	path := filepath.Join(t.TempDir(), "a.sock")
	to, _ := newTraffic(opened(t, "127.0.0.1:0,backlog=7", path+",mode=0600", "admin=udp:127.0.0.1:0,fd=9"), true, false)
	text, err := json.Marshal(to.carry(&baggage{}))
	if err != nil {
		t.Fatal(err)
	}
	var c carriedTraffic
	if err := json.Unmarshal(text, &c); err != nil {
		t.Fatal(err)
	}
	next, ls, err := restoreTraffic(c, anyway)
	if err != nil {
		t.Fatal(err)
	}
	if again, _ := json.Marshal(next.carry(&baggage{})); string(again) != string(text) {
		t.Errorf("%s\nis not\n%s", again, text)
	}
	if l := ls[2]; l.name != "admin" || l.pin != 9 || ls[0].backlog != 7 || ls[1].file.mode != 0o600 {
		t.Errorf("%s", text)
	}
	c.Listeners[1].Inode++
	if _, _, err := restoreTraffic(c, anyway); err == nil || !strings.Contains(err.Error(), `listener "a.sock"`) {
		t.Errorf("another socket: %v", err)
	}
}

// TestTravelRefuses what does not agree with itself, whatever is missing or too much.
func TestTravelRefuses(t *testing.T) {
	to, _ := newTraffic(opened(t, "127.0.0.1:0"), false, false)
	s := to.(*steered)
	if err := s.open(1, 0); err != nil {
		t.Fatal(err)
	}
	for name, spoil := range map[string]func(c *carriedTraffic){
		"no groups":       func(c *carriedTraffic) { c.Groups = nil },
		"no sets":         func(c *carriedTraffic) { c.Sets = nil },
		"no members":      func(c *carriedTraffic) { c.Groups[0].Members = nil },
		"too many gone":   func(c *carriedTraffic) { c.Groups[0].Gone = 2 },
		"less than none":  func(c *carriedTraffic) { c.Groups[0].Gone = -1 },
		"no such share":   func(c *carriedTraffic) { c.Groups[0].Shares[0].To = 5 },
		"no such member":  func(c *carriedTraffic) { c.Sets[0].Members[0] = 1 },
		"set too short":   func(c *carriedTraffic) { c.Sets[0].Members = nil },
		"another socket":  func(c *carriedTraffic) { c.Groups[0].Members[0].Inode++ },
		"no such address": func(c *carriedTraffic) { c.Groups[0].At = netip.MustParseAddrPort("[fe80::1%nope]:1") },
	} {
		c := s.carry(&baggage{})
		spoil(&c)
		if _, _, err := restoreTraffic(c, anyway); err == nil {
			t.Errorf("%s: no error", name)
		}
	}
}

// TestRecover: a hotwrap is killed; from the sockets that its programs have all is made again, with the order that the
// kernel has now, also if it had begun with a successor and not written that down. Of that, its program may live still.
func TestRecover(t *testing.T) {
	for _, successor := range []string{"none", "unwritten", "unwritten, its program lives"} {
		for seed := range 40 {
			t.Run(fmt.Sprint(successor, seed), func(t *testing.T) { recovers(t, seed, successor) })
		}
	}
}

func recovers(t *testing.T, seed int, successor string) {
	c, left, kill := mortal(t, seed, successor != "none")
	var lives []int
	for inode, fd := range left {
		switch {
		case c.inodes()[inode]:
		case strings.Contains(successor, "lives"):
			lives = append(lives, fd)
		default:
			unix.Close(fd)
		}
	}
	kill()
	to, _, err := recoverTraffic(c, func(inode uint64) (int, bool) {
		fd, ok := left[inode]
		return fd, ok
	}, func([]*listener) error {
		for _, fd := range lives {
			_ = unix.Shutdown(fd, unix.SHUT_RD)
			unix.Close(fd)
		}
		return nil
	})
	if err != nil {
		t.Fatal(err)
	}
	s := to.(*steered)
	serving := 0
	for number, weight := range c.Shares {
		if weight > 0 {
			serving = number
		}
	}
	steersTo(t, s, "recovered", serving)
	last := 100
	if err := s.open(last, 0); err != nil {
		t.Fatal(err)
	}
	steersTo(t, s, "opened", serving)
	if _, err := s.route(map[int]int{last: 1}); err != nil {
		t.Fatal(err)
	}
	steersTo(t, s, "routed", last)
	for _, set := range s.each() {
		for number, of := range s.sets {
			if of == set && number != last {
				s.release(number)
				steersTo(t, s, "released", last)
			}
		}
	}
	s.close()
}

// anyway has nothing against it.
func anyway([]*listener) error { return nil }

// TestRecoverNot: nobody has the socket that is served from.
func TestRecoverNot(t *testing.T) {
	c, left, kill := mortal(t, 3, false)
	kill()
	for _, fd := range left {
		unix.Close(fd)
	}
	want := fmt.Sprintf("listener %q", c.Listeners[0].Name)
	_, _, err := recoverTraffic(c, func(uint64) (int, bool) { return -1, false }, anyway)
	if err == nil || !strings.Contains(err.Error(), want) {
		t.Errorf("%v, want %s", err, want)
	}
}

// mortal is another process that steers, what it has written, and its generations' sockets as programs have them; if it has one
// more that is not written, its sockets, too.
func mortal(t *testing.T, seed int, unwritten bool) (c carriedTraffic, left map[uint64]int, kill func()) {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestMortal$")
	cmd.Env = append(os.Environ(), fmt.Sprintf("HOTWRAP_TEST_SEED=%d", seed), fmt.Sprintf("HOTWRAP_TEST_UNWRITTEN=%v", unwritten))
	in, _ := cmd.StdinPipe()
	t.Cleanup(func() { in.Close() })
	out, err := cmd.StdoutPipe()
	if err == nil {
		err = cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	kill = func() { _ = cmd.Process.Kill(); _ = cmd.Wait() }
	t.Cleanup(func() { _ = cmd.Process.Kill() })
	lines := bufio.NewReader(out)
	line, err := lines.ReadBytes('\n')
	if err == nil {
		err = json.Unmarshal(line, &c)
	}
	if err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	left = map[uint64]int{}
	if unwritten {
		more, _ := lines.ReadString('\n')
		for number := range strings.FieldsSeq(more) {
			n, _ := strconv.Atoi(number)
			fd, err := descriptorOf(cmd.Process.Pid, cmd.Process.Pid, n)
			if err != nil {
				t.Fatal(err)
			}
			inode, _ := socketInode(fd)
			left[inode] = fd
		}
	}
	for _, set := range c.Sets {
		for i, at := range set.Members {
			if m := c.Groups[i].Members[at]; len(set.Generations) > 0 {
				if left[m.Inode], err = descriptorOf(cmd.Process.Pid, cmd.Process.Pid, m.FD); err != nil {
					t.Fatal(err)
				}
			}
		}
	}
	return c, left, kill
}

// TestMortal is that process.
func TestMortal(t *testing.T) {
	var seed uint64
	if _, err := fmt.Sscan(os.Getenv("HOTWRAP_TEST_SEED"), &seed); err != nil {
		t.Skip("another test's child")
	}
	random := rand.New(rand.NewPCG(seed, 3))
	to, _ := newTraffic(opened(t, "127.0.0.1:0", "127.0.0.1:0"), false, false)
	w := &traveller{t: t, random: random, s: to.(*steered), last: 1, serving: 1}
	if err := w.s.open(1, 0); err != nil {
		t.Fatal(err)
	}
	for range 20 {
		switch serving := w.serving; random.IntN(3) {
		case 0:
			w.last++
			if err := w.s.open(w.last, 0); err != nil {
				t.Fatal(err)
			}
		case 1:
			w.serving = w.last
			if _, err := w.s.route(map[int]int{w.serving: 1}); err != nil {
				t.Fatal(err)
			}
		case 2:
			for number := range w.s.sets {
				if number != serving && random.IntN(2) == 0 {
					w.s.release(number)
				}
			}
		}
		if w.s.sets[w.last] == nil {
			w.last = w.serving
		}
	}
	text, err := json.Marshal(w.s.carry(&baggage{}))
	if err != nil {
		t.Fatal(err)
	}
	fmt.Printf("%s\n", text)
	if os.Getenv("HOTWRAP_TEST_UNWRITTEN") == "true" {
		if err := w.s.open(w.last+1, 0); err != nil {
			t.Fatal(err)
		}
		fmt.Println(w.s.member(w.last+1, 0).fd, w.s.member(w.last+1, 1).fd)
	}
	_, _ = io.ReadAll(os.Stdin) // until it is killed
}
