package main

import (
	"bufio"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"math"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"
)

// kernelListen opens a socket as hotwrap does: raw, blocking, close-on-exec.
func kernelListen(t testing.TB, kind int) (fd int, inode uint64) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_INET, kind|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(fd) })
	if err := unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}); err != nil {
		t.Fatal(err)
	}
	if kind == unix.SOCK_STREAM {
		if err := unix.Listen(fd, 16); err != nil {
			t.Fatal(err)
		}
	}
	inode, err = socketInode(fd)
	if err != nil {
		t.Fatal(err)
	}
	return fd, inode
}

// startHolder starts a program with the sockets as descriptors 3, 4 …; it ends when its stdin does, or by KILL when
// the test ends. It returns the first line that the program writes: by then it does what it is there for, or is about to.
func startHolder(t testing.TB, cmd *exec.Cmd, fds ...int) (pid int, line string) {
	t.Helper()
	for _, fd := range fds {
		dup, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			t.Fatal(err)
		}
		f := os.NewFile(uintptr(dup), "socket")
		defer f.Close()
		cmd.ExtraFiles = append(cmd.ExtraFiles, f)
	}
	line, err := startChild(t, cmd).ReadString('\n')
	if err != nil {
		t.Fatalf("the process wrote no line: %v", err)
	}
	return cmd.Process.Pid, strings.TrimSpace(line)
}

func kernelChild(mode string) *exec.Cmd {
	cmd := exec.Command(os.Args[0], "-test.run=^TestKernelChild$")
	cmd.Env = append(os.Environ(), "KERNEL_TEST_CHILD="+mode, "GORACE=atexit_sleep_ms=0")
	cmd.Stderr = os.Stderr
	return cmd
}

// TestKernelChild is no test but the process that the others look at.
func TestKernelChild(t *testing.T) {
	mode := os.Getenv("KERNEL_TEST_CHILD")
	if mode == "" {
		t.Skip("only for the tests that start it")
	}
	lifeline := make(chan struct{})
	go func() {
		_, _ = io.Copy(io.Discard, os.Stdin)
		close(lifeline)
	}()
	line, serve := "ok", func() {}
	if do, ok := kernelChildren[mode]; ok {
		serve = do
	} else if s, err := kernelPrepared[mode](); err != nil {
		line = err.Error()
	} else if s != "" {
		line = s
	}
	fmt.Println(line)
	go serve()
	<-lifeline
}

// kernelChildren wait for descriptor 3, or 4, in a system call.
var kernelChildren = map[string]func(){
	"holds":    func() {},
	"accept":   func() { _, _, _ = unix.Accept(3) },
	"recvfrom": func() { _, _, _ = unix.Recvfrom(3, make([]byte, 64), 0) },
	"poll":     func() { _, _ = unix.Poll([]unix.PollFd{{Fd: 0}, {Fd: 3, Events: unix.POLLIN}}, -1) },
	"poll another": func() {
		_, _ = unix.Poll([]unix.PollFd{{Fd: 3, Events: unix.POLLPRI}, {Fd: 4, Events: unix.POLLIN}}, -1)
	},
	"select":         func() { kernelSelect(3) },
	"select another": func() { kernelSelect(4) },
}

func kernelSelect(fd int) {
	var set unix.FdSet
	set.Set(fd)
	_, _ = unix.Select(5, &set, nil, nil, nil)
}

// kernelPrepared have done what they are about before they write their line.
var kernelPrepared = map[string]func() (line string, err error){
	"go": func() (string, error) { // what every Go server does
		l, err := net.FileListener(os.NewFile(3, "listener"))
		go func() { _, _ = l.Accept() }()
		return "", err
	},
	"nested": func() (string, error) {
		inner, err := kernelEpoll(3, unix.EPOLLIN)
		_, err2 := kernelEpoll(inner, unix.EPOLLIN)
		return "", errors.Join(err, err2)
	},
	"mute":          func() (string, error) { _, err := kernelEpoll(3, unix.EPOLLET); return "", err },
	"epoll another": func() (string, error) { _, err := kernelEpoll(4, unix.EPOLLIN); return "", err },
	"closed": func() (string, error) { // the epoll goes on listing it, because the parent has it open
		_, err := kernelEpoll(3, unix.EPOLLIN)
		return "", errors.Join(err, unix.Close(3))
	},
	"renumbered": func() (string, error) {
		err := errors.Join(unix.Dup3(3, 200, unix.O_CLOEXEC), unix.Close(3))
		_, err2 := kernelEpoll(200, unix.EPOLLIN)
		return "", errors.Join(err, err2)
	},
	"io_uring": func() (string, error) {
		params := make([]byte, 120)
		_, _, errno := unix.Syscall(unix.SYS_IO_URING_SETUP, 4, uintptr(unsafe.Pointer(&params[0])), 0)
		if errno != 0 {
			return "", errno
		}
		return "", nil
	},
	"parent": kernelParent,
	"listens too": func() (line string, _ error) {
		for _, network := range []string{"tcp4", "tcp6"} {
			if l, err := net.Listen(network, "localhost:0"); err == nil {
				line += " " + l.Addr().String()
				go func() { _, _ = l.Accept() }()
			}
		}
		return line, nil
	},
}

func kernelEpoll(fd int, events uint32) (int, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return -1, err
	}
	return ep, unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, fd, &unix.EpollEvent{Events: events, Fd: int32(fd)})
}

// kernelParent hands descriptor 3 to a child that serves, and closes it; the line ends with the child's pid.
func kernelParent() (string, error) {
	child := exec.Command(os.Args[0], "-test.run=^TestKernelChild$")
	child.Env = append(os.Environ(), "KERNEL_TEST_CHILD=go")
	socket := os.NewFile(3, "listener")
	child.Stdin, child.ExtraFiles = os.Stdin, []*os.File{socket}
	out, err := child.StdoutPipe()
	if err != nil {
		return "", err
	}
	if err := child.Start(); err != nil {
		return "", err
	}
	line, err := bufio.NewReader(out).ReadString('\n')
	return fmt.Sprintf("%s %d", strings.TrimSpace(line), child.Process.Pid), errors.Join(err, socket.Close())
}

// TestLook: every way to watch a socket is seen, and holding one is not watching it.
func TestLook(t *testing.T) {
	for _, c := range []struct {
		mode           string
		kind           int
		holds, watches bool
	}{
		{"go", unix.SOCK_STREAM, true, true},
		{"accept", unix.SOCK_STREAM, true, true},
		{"poll", unix.SOCK_STREAM, true, true},
		{"select", unix.SOCK_STREAM, true, true},
		{"recvfrom", unix.SOCK_DGRAM, true, true},
		{"nested", unix.SOCK_STREAM, true, true},
		{"renumbered", unix.SOCK_STREAM, true, true},
		{"holds", unix.SOCK_STREAM, true, false},
		{"mute", unix.SOCK_STREAM, true, false},
		{"closed", unix.SOCK_STREAM, false, false},
	} {
		t.Run(c.mode, func(t *testing.T) {
			fd, inode := kernelListen(t, c.kind)
			pid, line := startHolder(t, kernelChild(c.mode), fd)
			if line != "ok" {
				t.Fatal(line)
			}
			v := seeUntil(t, "the socket as wanted", func() view { return look(pid, []uint64{inode}) },
				func(v view) bool { return v.watches[inode] == c.watches && v.holds[inode] == c.holds })
			if v.blind != "" || v.denied || !slices.Equal(v.pids, []int{pid}) {
				t.Errorf("look = %+v", v)
			}
			if other := look(pid, []uint64{inode + 1<<40}); len(other.holds)+len(other.watches) > 0 {
				t.Errorf("look for a socket that is not there = %+v", other)
			}
		})
	}
}

// TestLookTellsApart: of two held sockets, only the watched one is seen watched.
func TestLookTellsApart(t *testing.T) {
	for _, mode := range []string{"poll another", "select another", "epoll another"} {
		t.Run(mode, func(t *testing.T) {
			fd3, inode3 := kernelListen(t, unix.SOCK_STREAM)
			fd4, inode4 := kernelListen(t, unix.SOCK_STREAM)
			pid, line := startHolder(t, kernelChild(mode), fd3, fd4)
			if line != "ok" {
				t.Fatal(line)
			}
			v := seeUntil(t, "the second", func() view { return look(pid, []uint64{inode3, inode4}) },
				func(v view) bool { return v.watches[inode4] })
			if v.watches[inode3] || !v.holds[inode3] || !v.holds[inode4] || v.blind != "" {
				t.Errorf("look = %+v", v)
			}
		})
	}
}

// TestLookAtPython: real programs in another language, each through another system call.
func TestLookAtPython(t *testing.T) {
	python, err := exec.LookPath("python3")
	if err != nil {
		t.Skip("no python3 here")
	}
	const head = "import os, selectors, socket, sys, threading\n" +
		"threading.Thread(target=lambda: (sys.stdin.read(), os._exit(0)), daemon=True).start()\n" +
		"s = socket.socket(fileno=3)\nprint('ok', flush=True)\n"
	const sel = "p = selectors.%s()\np.register(s, selectors.EVENT_READ)\np.select()\n"
	for name, script := range map[string]string{
		"accept": "s.accept()\n",
		"thread": "threading.Thread(target=s.accept).start()\n",
		"select": fmt.Sprintf(sel, "SelectSelector"),
		"poll":   fmt.Sprintf(sel, "PollSelector"),
		"epoll":  fmt.Sprintf(sel, "EpollSelector"),
	} {
		t.Run(name, func(t *testing.T) {
			fd, inode := kernelListen(t, unix.SOCK_STREAM)
			pid, _ := startHolder(t, exec.Command(python, "-c", head+script), fd)
			seeUntil(t, "python watching", func() view { return look(pid, []uint64{inode}) },
				func(v view) bool { return v.watches[inode] && v.holds[inode] && v.blind == "" })
		})
	}
}

// TestLookAtGrandchild: the leader has closed the socket, its child serves.
func TestLookAtGrandchild(t *testing.T) {
	fd, inode := kernelListen(t, unix.SOCK_STREAM)
	pid, line := startHolder(t, kernelChild("parent"), fd)
	grandchild, err := strconv.Atoi(strings.TrimPrefix(line, "ok "))
	if err != nil {
		t.Fatalf("line %q", line)
	}
	v := seeUntil(t, "the grandchild watching", func() view { return look(pid, []uint64{inode}) },
		func(v view) bool { return v.watches[inode] })
	if want := []int{pid, grandchild}; !slices.Equal(v.pids, want) {
		t.Errorf("pids %v, want %v", v.pids, want)
	}
	if scan := childrenByScan(); !slices.Equal(scan(pid), childrenOf(pid)) || len(scan(pid)) != 1 {
		t.Errorf("children of %d: %v by scan, %v by thread", pid, scan(pid), childrenOf(pid))
	}
	if !ownsTree(pid, grandchild) || !ownsTree(os.Getpid(), grandchild) || ownsTree(grandchild, pid) {
		t.Error("ownsTree is wrong about the grandchild")
	}
	if state, ppid, _, start, ok := procState(grandchild); !ok || state == 'Z' || ppid != pid || start == 0 {
		t.Errorf("procState = %c, %d, start %d, %v", state, ppid, start, ok)
	}
	if err := unix.Kill(grandchild, unix.SIGKILL); err != nil {
		t.Fatal(err)
	}
	// The leader does not reap it: a zombie is nobody.
	seeUntil(t, "the leader alone", func() []int { return tree(pid) }, func(pids []int) bool { return slices.Equal(pids, []int{pid}) })
	if state, _, _, _, ok := procState(grandchild); !ok || state != 'Z' {
		t.Errorf("state of the killed grandchild %c, %v; want a zombie", state, ok)
	}
}

// TestLookBlindByRing: with io_uring, "not watched" proves nothing.
func TestLookBlindByRing(t *testing.T) {
	fd, inode := kernelListen(t, unix.SOCK_STREAM)
	pid, line := startHolder(t, kernelChild("io_uring"), fd)
	if line != "ok" {
		t.Skipf("no io_uring here: %s", line)
	}
	v := look(pid, []uint64{inode})
	if !strings.Contains(v.blind, "io_uring") || v.denied || !v.holds[inode] || v.watches[inode] {
		t.Errorf("look = %+v", v)
	}
}

// TestLookDenied: root without CAP_SYS_PTRACE (Docker's default) cannot see another user's descriptors, and says so.
func TestLookDenied(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, to start a process of another user")
	}
	fd, inode := kernelListen(t, unix.SOCK_STREAM)
	cmd := exec.Command("sh", "-c", "echo ok; exec cat") // not this binary: nobody may not reach it
	cmd.SysProcAttr = &syscall.SysProcAttr{Credential: &syscall.Credential{Uid: 65534, Gid: 65534}}
	pid, _ := startHolder(t, cmd, fd)

	if v := look(pid, []uint64{inode}); v.denied || v.blind != "" || !v.holds[inode] {
		t.Fatalf("with the capability: look = %+v", v)
	}
	v := withoutPtrace(t, func() view { return look(pid, []uint64{inode}) })
	if !v.denied || !strings.Contains(v.blind, "permission denied") || v.watches[inode] || !slices.Equal(v.pids, []int{pid}) {
		t.Errorf("without the capability: look = %+v", v)
	}
}

// withoutPtrace is what see returns on a thread without CAP_SYS_PTRACE.
func withoutPtrace[T any](t *testing.T, see func() T) (seen T) {
	t.Helper()
	results := make(chan error)
	go func() {
		runtime.LockOSThread() // for good: the thread has lost a capability, and ends with this goroutine
		err := dropPtrace()
		if err == nil {
			seen = see()
		}
		results <- err
	}()
	if err := <-results; err != nil {
		t.Skipf("cannot drop CAP_SYS_PTRACE: %v", err)
	}
	return seen
}

func dropPtrace() error {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	if err := unix.Capget(&header, &data[0]); err != nil {
		return err
	}
	data[0].Effective &^= 1 << unix.CAP_SYS_PTRACE
	data[0].Permitted &^= 1 << unix.CAP_SYS_PTRACE
	return unix.Capset(&header, &data[0])
}

func TestMemory(t *testing.T) {
	self := []int{os.Getpid()}
	if use := memoryUse(self); use < 1<<20 || use > 1<<40 {
		t.Errorf("memoryUse of this process = %d", use)
	}
	if use := memoryUse([]int{1 << 30}); use != 0 {
		t.Errorf("memoryUse of nobody = %d", use)
	}
	if room, where, ok := memoryRoom(); !ok || room == 0 || where == "" {
		t.Errorf("memoryRoom = %d, %q, %v", room, where, ok)
	}
}

// TestCgroupRoom: the tightest level counts, and pages of files that nobody used lately count as free.
func TestCgroupRoom(t *testing.T) {
	top := t.TempDir()
	leaf := filepath.Join(top, "a b", "leaf")
	if err := os.MkdirAll(leaf, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{
		"a b/memory.max": "1000\n", "a b/memory.current": "700\n", "a b/memory.stat": "anon 1\ninactive_file 50\n",
		"a b/leaf/memory.max": "max\n", "a b/leaf/memory.current": "5\n",
		"a b/memory.limit_in_bytes": "900\n", "a b/memory.usage_in_bytes": "950\n", "a b/memory.stat.unused": "",
		"a b/leaf/memory.limit_in_bytes": "9223372036854771712\n", "a b/leaf/memory.usage_in_bytes": "5\n",
	} {
		if err := os.WriteFile(filepath.Join(top, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	escaped := strings.ReplaceAll(top, " ", `\040`)
	unified := "30 20 0:41 / " + escaped + " rw - cgroup2 cgroup2 rw\n"
	legacy := "35 31 0:32 / " + escaped + " rw - cgroup cgroup rw,memory\n"
	for _, c := range []struct {
		name, groups, mounts string
		room                 uint64
		limited              bool
	}{
		{"unified", "0::/a b/leaf\n", unified, 350, true},
		{"legacy, over its limit", "4:cpu,memory:/a b/leaf\n", "34 31 0:31 / /cpu rw - cgroup cgroup rw,cpu\n" + legacy, 0, true},
		{"mounted from our group on", "0::/a b\n", strings.Replace(unified, " / ", ` /a\040b `, 1), 0, false},
		{"outside of our namespace", "0::/../elsewhere\n", unified, 0, false},
		{"another controller", "4:cpu:/a b/leaf\n", legacy, 0, false},
		{"no limit", "0::/\n", unified, 0, false},
	} {
		t.Run(c.name, func(t *testing.T) {
			var room uint64
			var limited bool
			for _, h := range hierarchies("memory", []byte(c.groups), []byte(c.mounts)) {
				room, limited = h.room()
			}
			if !limited {
				room = 0
			}
			if room != c.room || limited != c.limited {
				t.Errorf("room %d, limited %v; want %d, %v", room, limited, c.room, c.limited)
			}
		})
	}
}

// TestCgroupCPUs: the tightest level counts, a part of a CPU is one.
func TestCgroupCPUs(t *testing.T) {
	if n := cpus(); n < 1 || n > runtime.NumCPU() {
		t.Errorf("%d CPUs here", n)
	}
	top := t.TempDir()
	if err := os.Mkdir(filepath.Join(top, "a"), 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		name, top, leaf string
		want            int
	}{
		{"none", "max 100000", "max 100000", math.MaxInt32},
		{"above", "150000 100000", "max 100000", 2},
		{"below", "400000 100000", "20000 100000", 1},
		{"nonsense", "0 0", "-1 x", math.MaxInt32},
	} {
		v1 := strings.NewReplacer("max", "-1")
		for name, text := range map[string]string{"": c.top, "a": c.leaf} {
			quota, period, _ := strings.Cut(v1.Replace(text), " ")
			for file, text := range map[string]string{"cpu.max": text, "cpu.cfs_quota_us": quota, "cpu.cfs_period_us": period} {
				if err := os.WriteFile(filepath.Join(top, name, file), []byte(text+"\n"), 0o644); err != nil {
					t.Fatal(err)
				}
			}
		}
		for _, v1 := range []bool{false, true} {
			if got := (hierarchy{root: top, dir: filepath.Join(top, "a"), v1: v1}).cpus(); got != c.want {
				t.Errorf("%s, v1 %v: %d, want %d", c.name, v1, got, c.want)
			}
		}
	}
}

func TestOOMScoreAdj(t *testing.T) {
	fd, _ := kernelListen(t, unix.SOCK_STREAM)
	pid, _ := startHolder(t, kernelChild("holds"), fd)
	before, err := oomScoreAdj(pid)
	if err != nil {
		t.Fatal(err)
	}
	want := min(before+300, 1000)
	if err := setOOMScoreAdj(pid, want); err != nil {
		t.Fatal(err)
	}
	if got, err := oomScoreAdj(pid); err != nil || got != want {
		t.Errorf("oomScoreAdj = %d, %v; want %d", got, err, want)
	}
	if _, err := oomScoreAdj(1 << 30); !errors.Is(err, unix.ENOENT) {
		t.Errorf("oomScoreAdj of nobody: %v", err)
	}
	if err := setOOMScoreAdj(pid, 5000); err == nil || !strings.HasPrefix(err.Error(), "cannot set oom_score_adj of process ") {
		t.Errorf("setOOMScoreAdj out of range: %v", err)
	}
}

const sampleStat = "4311 (a) R) (b) S 4200 4311 4311 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 987654 1 2\n"

func TestParseStat(t *testing.T) {
	want := procStat{name: "a) R) (b", state: 'S', ppid: 4200, pgrp: 4311, threads: 9, start: 987654}
	if s, ok := parseStat([]byte(sampleStat)); !ok || s != want {
		t.Errorf("parseStat = %+v, %v; want %+v", s, ok, want)
	}
	for _, bad := range []string{"", ")", "1 (a) S", "1 (a) S x 1 1 0 -1 4 1 2 3 4 5 6 7 8 20 0 9 0 987654"} {
		if s, ok := parseStat([]byte(bad)); ok {
			t.Errorf("parseStat(%q) = %+v", bad, s)
		}
	}
}

func FuzzParseStat(f *testing.F) {
	f.Add("x", 1, 2)
	f.Add(") S 1 2 (", 77, 88)
	f.Fuzz(func(t *testing.T, name string, ppid, pgrp int) {
		_, _ = parseStat([]byte(name))
		if strings.Contains(name, "\n") {
			return // the kernel writes \n for that
		}
		line := fmt.Sprintf("4311 (%s) S %d %d 4311 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 9 0 987654 1 2\n", name, ppid, pgrp)
		if s, ok := parseStat([]byte(line)); !ok || s.ppid != ppid || s.pgrp != pgrp || s.state != 'S' || s.start != 987654 {
			t.Errorf("a program named %q is read as %+v, %v", name, s, ok)
		}
	})
}

const sampleTarget = "tfd:        3 events: 8000201d data:     7f0c6ffdcc58  pos:0 ino:1b42 sdev:8\n"

func TestParseTarget(t *testing.T) {
	want := epollTarget{fd: 3, events: 0x8000201d, inode: 0x1b42, dev: 8}
	if got, ok := parseEpollTarget([]byte(sampleTarget)); !ok || got != want {
		t.Errorf("parseEpollTarget = %+v, %v; want %+v", got, ok, want)
	}
	for _, bad := range []string{"", "pos:\t0\n", "tfd: 3 events: 1 data: 0\n", "tfd: x events: 1 data: 0 pos:0 ino:1 sdev:8"} {
		if got, ok := parseEpollTarget([]byte(bad)); ok {
			t.Errorf("parseEpollTarget(%q) = %+v", bad, got)
		}
	}
}

// TestEachInput: other files have the same inode numbers, and not every event is input.
func TestEachInput(t *testing.T) {
	head := "pos:\t0\nflags:\t02\n" + strings.Replace(sampleTarget, "1b42", "1b4", 1)
	for _, c := range []struct {
		text string
		want bool
	}{
		{sampleTarget, true},
		{strings.TrimSuffix(sampleTarget, "\n"), true},
		{strings.Replace(sampleTarget, "sdev:8", "sdev:9", 1), false},
		{strings.Replace(sampleTarget, "8000201d", "40000000", 1), false}, // EPOLLONESHOT, and it was shot
		{strings.Replace(sampleTarget, "sdev:8", "sdev:9", 1) + sampleTarget, true},
		{"", false},
	} {
		got := false
		eachInput([]byte(head+c.text), map[uint64]bool{0x1b42: true}, 8, func(inode uint64) { got = got || inode == 0x1b42 })
		if got != c.want {
			t.Errorf("eachInput(%q) finds it: %v", head+c.text, got)
		}
	}
}

func FuzzParseTarget(f *testing.F) {
	f.Add(sampleTarget, 5, uint32(1), uint64(9), uint64(10), int64(-1))
	f.Fuzz(func(t *testing.T, text string, fd int, events uint32, data, inode uint64, pos int64) {
		_, _ = parseEpollTarget([]byte(text))
		fd &= 1<<30 - 1
		line := fmt.Sprintf("tfd: %8d events: %8x data: %16x  pos:%d ino:%x sdev:%x\n", fd, events, data, pos, inode, 8) // fs/eventpoll.c
		want := epollTarget{fd, events, inode, 8}
		if got, ok := parseEpollTarget([]byte(line)); !ok || got != want {
			t.Errorf("%q is read as %+v, %v", line, got, ok)
		}
	})
}

func TestParseSyscall(t *testing.T) {
	c, ok := parseSyscall([]byte("43 0x3 0x7ffe0010 0x0 0x0 0x0 0xff 0x7ffe0000 0x7f00\n"))
	if want := (blockedCall{43, [6]uint64{3, 0x7ffe0010, 0, 0, 0, 255}}); !ok || c != want {
		t.Errorf("parseSyscall = %+v, %v; want %+v", c, ok, want)
	}
	for _, bad := range []string{"running\n", "-1 0x7ffe 0x7f00\n", "", "43 3 0 0 0 0 0 0 0", "-5 0x0 0x0 0x0 0x0 0x0 0x0 0x0 0x0"} {
		if c, ok := parseSyscall([]byte(bad)); ok {
			t.Errorf("parseSyscall(%q) = %+v", bad, c)
		}
	}
}

// FuzzAwaited: no line and no memory may lead it beyond what is there, and it names only what is held.
func FuzzAwaited(f *testing.F) {
	f.Add("7 0x1000 0x2 0x0 0x0 0x0 0x0 0x1 0x2", []byte{3, 0, 0, 0, 1, 0, 0, 0}, 3)
	f.Add("23 0xffffffff 0x1000 0x0 0x0 0x0 0x0 0x1 0x2", []byte{0xff}, 200)
	f.Add("271 0x1000 0xffffffffffffffff 0x0 0x0 0x0 0x0 0x1 0x2", []byte{1}, 0)
	f.Add("102 0x5 0x1000 0x0 0x0 0x0 0x0 0x1 0x2", []byte{3, 0, 0, 0}, 3)
	f.Fuzz(func(t *testing.T, line string, text []byte, fd int) {
		c, ok := parseSyscall([]byte(line))
		if !ok {
			return
		}
		for _, n := range callsOf {
			fds := awaited(c, n, func(_, size uint64) []byte {
				if size > 8*maxSet {
					t.Fatalf("asks for %d bytes", size)
				}
				return text[:min(uint64(len(text)), size)]
			}, map[int]uint64{fd: 1})
			if len(fds) > 1 || len(fds) == 1 && fds[0] != fd {
				t.Fatalf("awaited = %v, held is %d", fds, fd)
			}
		}
	})
}

// FuzzSets: membership in a pollfd array and an fd_set, against sets built the way programs do.
func FuzzSets(f *testing.F) {
	f.Add([]byte{3, 7, 200}, 7)
	f.Add([]byte{}, 0)
	f.Fuzz(func(t *testing.T, members []byte, fd int) {
		var set unix.FdSet
		var poll []byte
		for _, m := range members {
			set.Set(int(m))
			poll = binary.LittleEndian.AppendUint32(poll, uint32(m))
			poll = append(poll, unix.POLLIN, 0, 0xff, 0xff)
			poll = append(poll, 0xff, 0xff, 0xff, 0xff, unix.POLLOUT, 0, 0, 0) // unused: fd -1
		}
		bits := unsafe.Slice((*byte)(unsafe.Pointer(&set)), unsafe.Sizeof(set))
		fd &= 0xff
		want := slices.Contains(members, byte(fd))
		if got := inFdSet(bits, fd); got != want {
			t.Errorf("inFdSet(%v, %d) = %v", members, fd, got)
		}
		if got := pollSet(poll)[fd]; got != want {
			t.Errorf("pollSet(%v) has %d: %v", members, fd, got)
		}
		_, _ = inFdSet(members, fd), pollSet(members)
	})
}

// TestCallsOf: the numbers are those that x/sys has for the architecture this test runs on.
func TestCallsOf(t *testing.T) {
	n, err := numbersOf(os.Getpid())
	if err != nil {
		t.Skipf("%s: %v", runtime.GOARCH, err)
	}
	for _, number := range []int{unix.SYS_READ, unix.SYS_READV, unix.SYS_ACCEPT4, unix.SYS_RECVFROM, unix.SYS_RECVMSG, unix.SYS_RECVMMSG} {
		if !slices.Contains(n.fd, number) {
			t.Errorf("%v lacks %d", n.fd, number)
		}
	}
	if !slices.Contains(n.poll, unix.SYS_PPOLL) || !slices.Contains(n.sel, unix.SYS_PSELECT6) {
		t.Errorf("lacks ppoll %d or pselect6 %d: %+v", unix.SYS_PPOLL, unix.SYS_PSELECT6, n)
	}
}

// BenchmarkLook measures a look at a Go server of one process, and one at a process whose threads must be asked.
func BenchmarkLook(b *testing.B) {
	for _, mode := range []string{"go", "accept", "holds"} {
		b.Run(mode, func(b *testing.B) {
			fd, inode := kernelListen(b, unix.SOCK_STREAM)
			pid, _ := startHolder(b, kernelChild(mode), fd)
			for b.Loop() {
				look(pid, []uint64{inode})
			}
		})
	}
}
