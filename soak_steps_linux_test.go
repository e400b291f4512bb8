package main

// This file is what happens to hotwrap in the soak, one step after the other.
//
// Its rules:
//   - A step returns when what it did has had its effect, told by a verdict or by a line of the log; rest looks at the remains.
//   - What a step takes away it gives back. It may draw lots, and draws them all before anything happens.

import (
	"context"
	"crypto/sha256"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	floodClients = 24
	floodAsks    = 8
	junkTimes    = 200 // messages to a notify socket
	stormWrites  = 30
	hupTimes     = 30
	clockJump    = 100_000 // seconds
)

// soakStep is one thing that happens.
type soakStep struct {
	name string
	can  func(w *soaked) bool // nil: in every world
	do   func(w *soak, r *rand.Rand)
}

// soakDeck is all of them.
var soakDeck = []soakStep{
	{"restart by HUP", nil, func(w *soak, _ *rand.Rand) { w.hup(1) }},
	{"restart by command", nil, func(w *soak, _ *rand.Rand) { w.deploy() }},
	{"two restarts at once", nil, (*soak).twoRestarts},
	{"a flood of HUPs", nil, func(w *soak, _ *rand.Rand) { w.hup(hupTimes) }},
	{"rollback", func(w *soaked) bool { return !w.watched }, (*soak).rollback},
	{"one worker more and less", nil, (*soak).moreAndLess},

	{"bad: does not exec", nil, badFile("", "\x7fELF and nothing behind it")},
	{"bad: exits 0", nil, badFile("", "#!/bin/sh\nexit 0\n")},
	{"bad: exits 7", nil, badFile("", "#!/bin/sh\nexit 7\n")},
	{"bad: dies while baking", nil, badAlive("#!/bin/sh\nAFTER=100ms DIES=100ms exec BIN/%s \"$@\"\n")},
	{"bad: never ready", nil, badFile("", "#!/bin/sh\nexec BIN/never\n")},
	{"bad: missing", nil, badFile("missing", "")},
	{"bad: a directory", nil, badFile("directory", "")},
	{"bad: wrong interpreter", nil, badFile("", "#!/no/such/interpreter\n")},
	{"bad: leaves a child behind", nil, badFile("", "#!/bin/sh\n(trap '' TERM; exec sleep 1000) &\nexit 7\n")},
	{"bad: out of address space", nil, badFile("", "#!/bin/sh\nulimit -v 60000\nexec BIN/echo\n")},
	{"bad: out of memory", canCgroup("memory"), (*soak).outOfMemory},

	{"kill a worker", nil, (*soak).killWorker},
	{"kill a worker in a restart", nil, (*soak).killPredecessor},
	{"kill a successor", nil, (*soak).killSuccessor},
	{"stop a worker, and go on", nil, (*soak).freeze},
	{"restart while one is stopped", nil, (*soak).restartFrozen},

	{"no descriptors left", nil, (*soak).noDescriptors},
	{"no processes left", canCgroup("pids"), (*soak).noProcesses},
	{"full disk", nil, (*soak).fullDisk},
	{"watch storm", func(w *soaked) bool { return w.watched }, (*soak).storm},
	{"control flood", nil, func(w *soak, r *rand.Rand) { w.flood(r); w.deploy() }},
	{"junk for notify sockets", nil, (*soak).junk},

	{"kill hotwrap", nil, func(w *soak, _ *rand.Rand) { w.killHotwrap(0) }},
	{"kill hotwrap, the clock jumps", func(*soaked) bool { return timeNamespaces() }, func(w *soak, r *rand.Rand) {
		w.killHotwrap(1 + r.IntN(clockJump))
	}},
	{"kill hotwrap in a restart", nil, (*soak).killHotwrapBusy},
	{"re-exec by USR2", nil, func(w *soak, _ *rand.Rand) { w.usr2() }},
	{"re-exec by command", nil, (*soak).reexecs},
	{"re-exec in a flood of HUPs", nil, (*soak).reexecFlooded},
	{"re-exec in a restart", nil, (*soak).reexecBusy},
}

// timeNamespaces tells whether a process can be given a clock of its own (time_namespaces(7)).
func timeNamespaces() bool {
	return exec.Command("unshare", "--time", "--monotonic=1", "true").Run() == nil
}

// --- restarts

// hup sends so many, of which at least one must lead to a restart.
func (s *soak) hup(times int) {
	for range times {
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
	}
	s.heardOf(`generation \d+ serving`)
	if times > 1 {
		s.deploy() // after all of them
	}
	s.totals.restarts++
}

// ending is how a command ended.
type ending struct {
	status int
	text   string
}

// begun runs a command in the background.
func (s *soak) begun(args ...string) <-chan ending {
	end := make(chan ending, 1)
	go func() {
		status, text := s.command(args...)
		end <- ending{status, text}
	}()
	return end
}

func (s *soak) twoRestarts(_ *rand.Rand) {
	one, two := s.begun("restart"), s.begun("restart")
	for _, end := range []<-chan ending{one, two} {
		a := <-end
		s.restarted(a.status, a.text)
	}
}

func (s *soak) rollback(_ *rand.Rand) {
	s.deploy()
	s.restarted(s.command("rollback"))
}

// moreAndLess has one worker more for a while. It gets connections until it has ended: a program that dies of TERM cuts
// what it is answering.
func (s *soak) moreAndLess(_ *rand.Rand) {
	until := func(workers int) {
		s.until("so many workers", func() string {
			v, err := s.status()
			if err != nil || len(v.Generations) != 1 || len(v.Generations[0].Workers) != workers {
				return fmt.Sprintf("%+v %v", v.Generations, err)
			}
			return ""
		})
	}
	_ = s.cmd.Process.Signal(syscall.SIGTTIN)
	until(s.workers + 1)
	less := func() {
		_ = s.cmd.Process.Signal(syscall.SIGTTOU)
		until(s.workers)
	}
	if s.program == "plain" {
		s.load.killing(less)
		return
	}
	less()
}

// --- bad deploys

// badFile deploys what fails before it serves.
func badFile(kind, text string) func(*soak, *rand.Rand) {
	return func(s *soak, _ *rand.Rand) { s.refused(kind, text) }
}

// badAlive deploys a program that serves, and dies. What it has accepted dies with it where it has the predecessor's sockets.
func badAlive(text string) func(*soak, *rand.Rand) {
	return func(s *soak, _ *rand.Rand) {
		program := "late"
		if s.program == "plain" {
			program = "plain"
		}
		text := fmt.Sprintf(text, program)
		if s.shared {
			s.load.killing(func() { s.refused("", text) })
			return
		}
		s.refused("", text)
	}
}

// refused deploys what must fail, and then again what is good.
func (s *soak) refused(kind, text string) {
	next := s.good()
	aside := s.path("bad")
	switch kind {
	case "missing":
		os.Remove(s.prog())
	case "directory":
		os.Remove(s.prog())
		os.Mkdir(s.prog(), 0o755)
	default:
		os.WriteFile(aside, []byte(strings.ReplaceAll(text, "BIN", s.bin)), 0o755)
		s.put(aside)
	}
	status, said := s.command("restart", "--json")
	if status != 1 {
		s.t.Fatalf("a bad deploy: status %d\n%s", status, said)
	}
	if _, rest, ok := strings.Cut(said, `"generation":`); ok && !s.shared {
		number, _, _ := strings.Cut(rest, ",")
		if n := s.load.answered(number); n > 0 {
			s.t.Fatalf("generation %s failed, and answered %d requests", number, n)
		}
	}
	s.put(next)
	s.totals.bad++
}

// outOfMemory deploys a program for which there is too little of it.
func (s *soak) outOfMemory(_ *rand.Rand) {
	dir := s.cgroup("memory")
	for _, file := range []string{"memory.limit_in_bytes", "memory.max"} {
		if _, err := os.Stat(filepath.Join(dir, file)); err == nil {
			os.WriteFile(filepath.Join(dir, file), []byte("1M"), 0o644)
		}
	}
	s.refused("", "#!/bin/sh\necho $$ >"+dir+"/cgroup.procs\nexec BIN/echo\n")
}

// --- kills and stops

// victim is one of the workers that serve.
func (s *soak) victim(r *rand.Rand) int {
	workers := s.now.Generations[0].Workers
	return workers[r.IntN(len(workers))].PID
}

// kill kills a worker, which cuts what it is answering.
func (s *soak) kill(pid int) {
	s.load.killing(func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		<-processEnd(context.Background(), pid)
	})
	s.totals.workers++
}

func (s *soak) killWorker(r *rand.Rand) {
	s.kill(s.victim(r))
	s.heardOf(`crashed \(SIGKILL\)`)
}

// killPredecessor kills one while its successor starts.
func (s *soak) killPredecessor(r *rand.Rand) {
	pid := s.victim(r)
	end := s.begun("restart")
	s.heardOf(`generation \d+ starting`)
	s.kill(pid)
	a := <-end
	s.restarted(a.status, a.text)
}

// killSuccessor kills one that bakes.
func (s *soak) killSuccessor(_ *rand.Rand) {
	end := s.begun("restart")
	pid, _ := strconv.Atoi(s.heardOf(`generation \d+ starting.* pid=(\d+)`)[1])
	s.kill(pid)
	if a := <-end; a.status != 1 {
		s.t.Fatalf("a successor was killed: status %d\n%s", a.status, a.text)
	}
	s.totals.bad++
}

// freeze stops a worker until somebody waits.
func (s *soak) freeze(r *rand.Rand) {
	pid := s.victim(r)
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	var all sync.WaitGroup
	for range s.workers {
		all.Go(func() { _, _ = s.ask("/") })
	}
	_, _ = s.status()
	_ = syscall.Kill(pid, syscall.SIGCONT)
	all.Wait()
}

// restartFrozen replaces a worker that is stopped, and then lets it finish.
func (s *soak) restartFrozen(r *rand.Rand) {
	pid := s.victim(r)
	_ = syscall.Kill(pid, syscall.SIGSTOP)
	status, text := s.command("restart")
	_ = syscall.Kill(pid, syscall.SIGCONT)
	s.restarted(status, text)
}

// --- limits

// limit sets one of hotwrap's limits for a while.
func (s *soak) limit(resource int, most uint64, meanwhile func()) {
	var before unix.Rlimit
	pid := s.cmd.Process.Pid
	if err := unix.Prlimit(pid, resource, nil, &before); err != nil {
		s.t.Fatal(err)
	}
	if err := unix.Prlimit(pid, resource, &unix.Rlimit{Cur: most, Max: before.Max}, nil); err != nil {
		s.t.Fatal(err)
	}
	meanwhile()
	if err := unix.Prlimit(pid, resource, &before, nil); err != nil {
		s.t.Fatal(err)
	}
}

// noDescriptors leaves few or none for a restart, which may fail then.
func (s *soak) noDescriptors(r *rand.Rand) {
	files, _ := os.ReadDir(fmt.Sprintf("/proc/%d/fd", s.cmd.Process.Pid))
	most := 0
	for _, file := range files {
		n, _ := strconv.Atoi(file.Name())
		most = max(most, n)
	}
	s.limit(unix.RLIMIT_NOFILE, uint64(most+1+r.IntN(8)), func() {
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
		s.heardOf(`generation \d+ (failed|serving)`)
	})
	s.deploy()
}

// noProcesses leaves none for a restart.
func (s *soak) noProcesses(_ *rand.Rand) {
	dir := s.cgroup("pids")
	os.WriteFile(filepath.Join(dir, "pids.max"), []byte("1"), 0o644)
	pid := strconv.Itoa(s.cmd.Process.Pid)
	if err := os.WriteFile(filepath.Join(dir, "cgroup.procs"), []byte(pid), 0o644); err != nil {
		s.t.Fatal(err)
	}
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	s.heardOf(`generation \d+ failed`)
	os.WriteFile(filepath.Join(dir, "pids.max"), []byte("max"), 0o644)
	os.WriteFile(filepath.Join(filepath.Dir(dir), "cgroup.procs"), []byte(pid), 0o644)
	s.totals.bad++
	s.deploy()
}

// fullDisk lets hotwrap write to no file: not its log, not its state.
func (s *soak) fullDisk(_ *rand.Rand) {
	s.lossy = true
	s.limit(unix.RLIMIT_FSIZE, 0, s.deploy)
	s.deploy()
}

// canCgroup tells whether a cgroup with such a limit can be made.
func canCgroup(controller string) func(*soaked) bool {
	return func(w *soaked) bool { return w.cgroup(controller) != "" }
}

// cgroup makes one of this world; "" where that cannot be.
func (w *soaked) cgroup(controller string) string {
	for _, root := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		dir := filepath.Join(root, filepath.Base(w.dir))
		os.Mkdir(dir, 0o755)
		if files, _ := filepath.Glob(filepath.Join(dir, controller+".*")); len(files) > 0 {
			return dir
		}
		os.Remove(dir)
	}
	return ""
}

func (w *soaked) removeCgroups() {
	dirs, _ := filepath.Glob("/sys/fs/cgroup/*/" + filepath.Base(w.dir))
	for _, dir := range append(dirs, filepath.Join("/sys/fs/cgroup", filepath.Base(w.dir))) {
		os.Remove(dir)
	}
}

// --- storms and floods

// storm writes the program again and again, in all ways; the last is what must serve in the end.
func (s *soak) storm(r *rand.Rand) {
	ways := make([]int, stormWrites)
	for i := range ways {
		ways[i] = r.IntN(4)
	}
	for i, way := range ways {
		switch way {
		case 0:
			s.put(s.good())
		case 1:
			os.WriteFile(s.prog()+".new", []byte("#!/bin/sh\nexit 7\n"), 0o755)
			os.Rename(s.prog()+".new", s.prog())
		case 2:
			os.Remove(s.prog())
		case 3:
			os.WriteFile(s.path(fmt.Sprintf("srv/other%d", i%3)), []byte{byte(i)}, 0o644)
		}
	}
	s.put(s.good())
}

// flood has many clients at the control socket, of which some speak nonsense and some say nothing more.
func (w *soaked) flood(r *rand.Rand) {
	seed := r.Uint64()
	var all sync.WaitGroup
	for i := range floodClients {
		own := rand.New(rand.NewPCG(seed, uint64(i)))
		all.Go(func() {
			for range floodAsks {
				w.molest(i, own)
			}
		})
	}
	all.Wait()
}

// molest is one connection of the flood.
func (w *soaked) molest(i int, r *rand.Rand) {
	conn, err := net.Dial("unix", w.path("run/control/soak.sock"))
	if err != nil {
		return
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(soakLook))
	text := []string{
		"GET /status HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n",
		"GET /events HTTP/1.1\r\nHost: x\r\n\r\n",
		"POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 1000\r\n\r\n{",
		"GET /metrics HTTP/1.1\r\nHo",
	}
	if i%5 < len(text) {
		_, _ = io.WriteString(conn, text[i%5])
	} else {
		junk := sha256.Sum256([]byte{byte(r.IntN(256))})
		_, _ = conn.Write(junk[:])
	}
	_, _ = io.Copy(io.Discard, conn)
}

// junk sends what no program says to the workers' notify sockets, with descriptors that nobody wants.
func (s *soak) junk(r *rand.Rand) {
	null, err := os.Open(os.DevNull)
	if err != nil {
		s.t.Fatal(err)
	}
	defer null.Close()
	texts := []string{"READY=1", "STOPPING=1", "MAINPID=1", "RELOADING=1", "FDSTORE=1", "WATCHDOG=trigger", "=\x00\n\n=", strings.Repeat("X", 60_000), ""}
	for _, worker := range s.now.Generations[0].Workers {
		environ, _ := os.ReadFile(fmt.Sprintf("/proc/%d/environ", worker.PID))
		i := slices.IndexFunc(strings.Split(string(environ), "\x00"), func(e string) bool { return strings.HasPrefix(e, "NOTIFY_SOCKET=") })
		if i < 0 {
			s.t.Fatalf("worker %d has no NOTIFY_SOCKET", worker.PID)
		}
		path := strings.TrimPrefix(strings.Split(string(environ), "\x00")[i], "NOTIFY_SOCKET=")
		conn, err := net.DialUnix("unixgram", nil, &net.UnixAddr{Name: path, Net: "unixgram"})
		if err != nil {
			s.t.Fatal(err)
		}
		for range junkTimes {
			var rights []byte
			if r.IntN(2) == 0 {
				rights = unix.UnixRights(int(null.Fd()), int(null.Fd()))
			}
			_ = conn.SetWriteDeadline(time.Now().Add(soakLook))
			_, _, _ = conn.WriteMsgUnix([]byte(texts[r.IntN(len(texts))]), rights, nil)
		}
		conn.Close()
	}
	s.deploy()
}

// --- hotwrap itself

// killHotwrap kills it, and starts it again so many seconds later by its clock: its workers serve on, and are taken over.
func (s *soak) killHotwrap(jump int) {
	s.log.fence()
	s.mark()
	_ = s.cmd.Process.Kill()
	_ = s.cmd.Wait()
	s.totals.hotwraps++
	s.clock += jump
	s.start()
	s.heardOf(`taken over`)
	s.heardOf(`generation \d+ serving`)
}

// killHotwrapBusy kills it while a successor starts or bakes, or its predecessor drains.
func (s *soak) killHotwrapBusy(r *rand.Rand) {
	line := []string{`generation \d+ starting`, `generation \d+ ready`, `generation \d+ serving`}[r.IntN(3)]
	_ = s.cmd.Process.Signal(syscall.SIGHUP)
	s.heardOf(line)
	s.killHotwrap(0)
}

const replaced = `re-executed`

func (s *soak) usr2() {
	s.install(s.path("hotwrap"))
	_ = s.cmd.Process.Signal(syscall.SIGUSR2)
	s.heardOf(replaced)
	s.reexeced()
}

// reexeced counts a re-exec; its watch must be alive, which rest sees.
func (s *soak) reexeced() {
	s.totals.reexecs++
	if s.watched {
		s.put(s.good())
	}
}

func (s *soak) reexecs(_ *rand.Rand) {
	s.install(s.path("hotwrap"))
	if status, text := s.command("reexec"); status != 0 {
		s.t.Fatalf("hotwrap reexec: status %d\n%s", status, text)
	}
	s.reexeced()
}

// reexecFlooded replaces it while HUPs come.
func (s *soak) reexecFlooded(_ *rand.Rand) {
	end := s.begun("reexec")
	for range hupTimes {
		_ = s.cmd.Process.Signal(syscall.SIGHUP)
	}
	if a := <-end; a.status != 0 {
		s.t.Fatalf("hotwrap reexec: status %d\n%s", a.status, a.text)
	}
	s.totals.reexecs++
	s.deploy()
}

// reexecBusy replaces it while a successor starts, bakes, or has its predecessor draining.
func (s *soak) reexecBusy(r *rand.Rand) {
	line := []string{`generation \d+ starting`, `generation \d+ ready`, `generation \d+ serving`}[r.IntN(3)]
	end := s.begun("restart")
	s.heardOf(line)
	s.reexecs(r)
	a := <-end
	s.restarted(a.status, a.text)
}
