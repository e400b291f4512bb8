package main

// This file is the soak: a hotwrap under load to which, for as long as it runs, one thing after the other happens that
// happens in years (soak_steps_linux_test.go). `make soak MINUTES=2 SEED=7` runs it, and go test alone does not.
//
// Its rules:
//   - The seed decides on the order of worlds and steps, whatever the clock does; it cannot decide on how the processes interleave.
//   - After each step everything comes to rest, and then nothing is lost, left behind or grown.
//   - What is waited for is an event, or a state that is looked at again and again up to one limit of patience.
//   - It needs no fixed port, leaves nothing behind, and bounds its own load: others use the machine too.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"math/rand/v2"
	"net"
	"os"
	"os/exec"
	"os/signal"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

const (
	soakMinutes    = "HOTWRAP_SOAK_MINUTES"
	soakSeed       = "HOTWRAP_SOAK_SEED"
	soakOnly       = "HOTWRAP_SOAK_ONLY"   // regular expressions of worlds and of steps, with an @ between them
	soakSteps      = 10                    // in one world
	soakLook       = 50 * time.Millisecond // between two looks at what is not at rest yet
	soakPause      = 8 * time.Millisecond  // between two requests of one client
	soakSlow       = 150 * time.Millisecond
	soakClients    = 3       // of each kind
	soakFiles      = 3       // descriptors and threads that may be there for a moment; a leak of one a step is more in one world
	soakMemory     = 6 << 10 // KiB of hotwrap's own that the collector may be late with
	soakGoroutines = 3
	soakShown      = 60 // lines of the log that a failure shows
	soakReady      = 5 * time.Second
	soakDrain      = 6 * time.Second // kept connections hold up a drain for a quarter of it
)

// soakWorld is one way to use hotwrap.
type soakWorld struct {
	name    string
	program string
	args    []string // of the program
	options []string
	env     []string
	workers int
	unix    bool // its listener
	shared  bool // its sockets: clients reach a successor before the switch
	watched bool
	output  bool // passes through hotwrap
}

var soakWorlds = []soakWorld{
	{name: "steered", program: "echo", workers: 1},
	{name: "silent workers", program: "quiet", workers: 3, options: []string{"-n", "3", "--surge", "1"}},
	{name: "adopted", program: "plain", args: []string{"{addr}"}, workers: 1, options: []string{"--adopt", "always"}},
	{name: "shared workers", program: "echo", workers: 3, options: []string{"-n", "3"}, env: []string{"HOTWRAP_SHARE=1"}, shared: true},
	{name: "unix socket", program: "echo", workers: 1, unix: true, shared: true},
	{name: "watched, with a log", program: "quiet", workers: 1, options: []string{"-w"}, watched: true, output: true},
	{name: "adopted workers, watched", program: "plain", args: []string{"{addr}"}, workers: 2, options: []string{"--adopt", "always", "-n", "2", "-w"}, watched: true},
	{name: "workers with a log", program: "echo", workers: 2, options: []string{"-n", "2"}, output: true},
}

// soakTotals are what the README shows.
type soakTotals struct {
	steps, restarts, bad, workers, hotwraps, reexecs int
	loadTotals
}

// soak is one run, in one world after the other.
type soak struct {
	t      *testing.T
	totals soakTotals
	done   []string // worlds and steps
	deck   []*soakStep
	only   *regexp.Regexp
	*soaked
}

// TestSoak runs for as many minutes as HOTWRAP_SOAK_MINUTES says.
func TestSoak(t *testing.T) {
	minutes, err := strconv.ParseFloat(os.Getenv(soakMinutes), 64)
	if err != nil {
		t.Skip("make soak runs it")
	}
	seed := uint64(time.Now().UnixNano()) % 1_000_000
	if text := os.Getenv(soakSeed); text != "" {
		if seed, err = strconv.ParseUint(text, 10, 64); err != nil {
			t.Fatal(err)
		}
	}
	// Orphans of a hotwrap that was killed come to this process, which reaps them.
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		t.Fatal(err)
	}
	reap(t)
	s := &soak{t: t}
	worldNames, stepNames, _ := strings.Cut(os.Getenv(soakOnly), "@")
	s.only = regexp.MustCompile(stepNames)
	began := time.Now()
	t.Cleanup(func() { s.report(seed, began) })
	order := rand.New(rand.NewPCG(seed, 0))
	var worlds []soakWorld
	for time.Since(began).Minutes() < minutes {
		if len(worlds) == 0 {
			worlds = slices.DeleteFunc(slices.Clone(soakWorlds), func(w soakWorld) bool { return !regexp.MustCompile(worldNames).MatchString(w.name) })
			if len(worlds) == 0 {
				t.Fatalf("no world is named as in %s=%q", soakOnly, worldNames)
			}
			order.Shuffle(len(worlds), func(i, j int) { worlds[i], worlds[j] = worlds[j], worlds[i] })
		}
		s.in(worlds[0], order)
		worlds = worlds[1:]
	}
}

// reap reaps, as PID 1 does, the workers of a hotwrap that was killed, until the test ends. What this process started
// itself it waits for elsewhere.
func reap(t *testing.T) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, syscall.SIGCHLD)
	t.Cleanup(func() {
		signal.Stop(signals)
		close(signals)
	})
	go func() {
		for range signals {
			lists, _ := filepath.Glob("/proc/self/task/*/children")
			for _, list := range lists {
				text, _ := os.ReadFile(list)
				for field := range strings.FieldsSeq(string(text)) {
					stat, _ := os.ReadFile("/proc/" + field + "/stat")
					pid, _ := strconv.Atoi(field)
					if bytes.Contains(stat, []byte(") Z ")) && !bytes.Contains(stat, []byte("(hotwrap")) && !bytes.Contains(stat, []byte("(go)")) {
						_, _ = unix.Wait4(pid, nil, unix.WNOHANG, nil)
					}
				}
			}
		}
	}()
}

// in runs some steps in one world.
func (s *soak) in(world soakWorld, order *rand.Rand) {
	s.soaked = newSoaked(s, world)
	s.done = append(s.done, "world: "+world.name)
	s.begin()
	for range soakSteps {
		step := s.pick(order)
		own := rand.New(rand.NewPCG(order.Uint64(), 0)) // what a step draws is no other's
		s.done = append(s.done, step.name)
		s.totals.steps++
		began := time.Now()
		s.mark()
		step.do(s, own)
		s.rest()
		s.t.Logf("%-24s %-36s %6d ms", world.name, step.name, time.Since(began).Milliseconds())
	}
	s.end()
}

// pick takes the next step that makes sense in this world. Each comes once before any comes again.
func (s *soak) pick(order *rand.Rand) *soakStep {
	for {
		i := slices.IndexFunc(s.deck, func(step *soakStep) bool { return step.can == nil || step.can(s.soaked) })
		if i >= 0 {
			step := s.deck[i]
			s.deck = slices.Delete(s.deck, i, i+1)
			return step
		}
		for _, i := range order.Perm(len(soakDeck)) {
			if s.only.MatchString(soakDeck[i].name) {
				s.deck = append(s.deck, &soakDeck[i])
			}
		}
	}
}

// report says what was done, and after a failure how it can be done again.
func (s *soak) report(seed uint64, began time.Time) {
	n := s.totals
	s.t.Logf("seed %d, %v: %d steps, %d restarts, %d bad deploys, %d workers killed, %d hotwraps killed, %d re-execs; %d requests, %d lost, %d killed in flight, %d asked again",
		seed, time.Since(began).Round(time.Second), n.steps, n.restarts, n.bad, n.workers, n.hotwraps, n.reexecs, n.requests, n.lost, n.killed, n.again)
	if !s.t.Failed() {
		return
	}
	s.t.Logf("SEED=%d does these steps again, in this order, not in this time:\n  %s", seed, strings.Join(s.done, "\n  "))
	if s.soaked != nil {
		lines := s.log.since(0)
		s.t.Logf("the last lines:\n%s", strings.Join(lines[max(0, len(lines)-soakShown):], "\n"))
	}
}

// --- one world

// soaked is a hotwrap in one world.
type soaked struct {
	soakWorld
	s        *soak
	t        *testing.T
	dir      string
	bin      string // of the testapps
	network  string
	addr     string
	lifeline *os.File
	log      *soakLog
	marked   int // of the log: where the step begins
	cmd      *exec.Cmd
	load     *soakLoad
	builds   int
	clock    int // seconds by which hotwrap's clock is ahead
	base     holdings
	open     map[string]int // its descriptors, by kind
	lossy    bool           // lines of the program may be missing: the disk was full
	routines int            // goroutines at rest
	started  map[string]int // the same, by where they were begun
	now      statusView
}

func newSoaked(s *soak, world soakWorld) *soaked {
	bin, err := buildApps()
	released, err2 := benchBinaries() // with the race detector memory says nothing
	dir, err3 := os.MkdirTemp("", "hwsoak")
	if err := errors.Join(err, err2, err3); err != nil {
		s.t.Fatal(err)
	}
	w := &soaked{soakWorld: world, s: s, t: s.t, dir: dir, bin: bin, network: "tcp", addr: sparePort(s.t), log: newSoakLog()}
	if w.unix {
		w.network, w.addr = "unix", w.path("sock")
	}
	s.t.Cleanup(w.takeDown)
	err = errors.Join(os.Mkdir(w.path("run"), 0o700), os.Mkdir(w.path("srv"), 0o755), unix.Mkfifo(w.path("lifeline"), 0o644))
	if err == nil {
		w.lifeline, err = os.OpenFile(w.path("lifeline"), os.O_RDWR, 0)
	}
	if err != nil {
		s.t.Fatal(err)
	}
	w.install(filepath.Join(released, "hotwrap"))
	w.put(w.good())
	return w
}

// sparePort is one that no client is given for its own end: a hotwrap that was killed must find it free.
func sparePort(t *testing.T) string {
	for range 100 {
		addr := fmt.Sprintf("127.0.0.1:%d", 20000+rand.N(10000))
		if l, err := net.Listen("tcp", addr); err == nil {
			l.Close()
			return addr
		}
	}
	t.Fatal("no port is free")
	return ""
}

func (w *soaked) path(name string) string { return filepath.Join(w.dir, name) }

// install puts another copy of hotwrap in its place, as a package manager does.
func (w *soaked) install(from string) {
	w.t.Helper()
	if err := copyAside(from, w.path("hotwrap"), nil); err != nil {
		w.t.Fatal(err)
	}
}

// copyAside copies a program with a tail, which is nothing to an executable but another build, and renames it.
func copyAside(from, to string, tail []byte) error {
	text, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	syscall.ForkLock.RLock() // golang.org/issue/22315
	err = os.WriteFile(to+".aside", append(text, tail...), 0o755)
	syscall.ForkLock.RUnlock()
	return errors.Join(err, os.Rename(to+".aside", to))
}

// good makes a new build of the program, aside.
func (w *soaked) good() string {
	w.builds++
	if err := copyAside(filepath.Join(w.bin, w.program), w.path("good"), fmt.Appendf(nil, "build %d", w.builds)); err != nil {
		w.t.Fatal(err)
	}
	return w.path("good")
}

func (w *soaked) prog() string { return w.path("srv/prog") }

// put deploys a file at one stroke.
func (w *soaked) put(from string) {
	w.t.Helper()
	if st, err := os.Lstat(w.prog()); err == nil && st.IsDir() {
		os.Remove(w.prog())
	}
	if err := os.Rename(from, w.prog()); err != nil {
		w.t.Fatal(err)
	}
}

func (w *soaked) environ() []string {
	return append(os.Environ(), "HOTWRAP_RUNTIME_DIR="+w.path("run"), "GORACE=atexit_sleep_ms=0", "IDLE=300ms")
}

// start starts hotwrap, in a time namespace if its clock has jumped, and returns when it serves.
func (w *soaked) start() {
	w.t.Helper()
	from := len(w.log.since(0))
	var args []string
	if w.clock > 0 {
		args = []string{"unshare", "--time", "--monotonic=" + strconv.Itoa(w.clock)}
	}
	args = append(args, w.path("hotwrap"), "-l", w.addr, "--bake", "250ms", "--ready-timeout", soakReady.String(), "--drain-timeout", soakDrain.String(), "--name", "soak")
	if w.output {
		args = append(args, "--log-file", w.path("app.log"))
	}
	args = append(args, w.options...)
	args = append(append(args, "--", w.prog()), w.args...)
	w.cmd = exec.Command(args[0], args[1:]...)
	w.cmd.Env = append(append(w.environ(), "TESTAPP_LIFELINE="+w.path("lifeline")), w.env...)
	w.cmd.Stderr = w.log.in
	if err := w.cmd.Start(); err != nil {
		w.t.Fatal(err)
	}
	w.await(from, `generation \d+ (ready|serving|taken over)`)
}

// begin starts hotwrap and warms it up; what it has then is what it may have.
func (w *soaked) begin() {
	w.start()
	w.load = startSoakLoad(w)
	w.deploy()
	w.rest()
	w.flood(rand.New(rand.NewPCG(0, 0)))
	w.rest()
	w.load.pause()
	w.routines, w.started = w.abort()
	w.start()
	w.load.goOn()
	for range 3 {
		w.deploy()
	}
	w.flood(rand.New(rand.NewPCG(0, 0)))
	w.s.usr2()
	w.rest()
	w.base, w.open = w.has(), w.kinds()
}

// end looks at what only hotwrap's end shows: its goroutines, and what it leaves behind.
func (w *soaked) end() {
	w.load.pause()
	w.rest()
	w.until("idle hotwrap", w.activity())
	if n, kinds := w.abort(); n > w.routines+soakGoroutines {
		w.t.Errorf("%d goroutines at the end, %d at the beginning%s", n, w.routines, more(w.started, kinds))
	}
	w.start()
	w.rest()
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	if err := w.cmd.Wait(); err != nil {
		w.t.Errorf("an ordered stop ends with %v", err)
	}
	if left := w.processes(); len(left) > 0 {
		w.t.Errorf("processes are left: %v", left)
	}
	if files, _ := filepath.Glob(w.path("run/*/*")); len(slices.DeleteFunc(files, func(f string) bool { return strings.HasSuffix(f, lockSuffix) })) > 0 {
		w.t.Errorf("files are left: %v", files)
	}
	w.load.stop()
	w.checkOutput()
	w.takeDown()
	if w.t.Failed() {
		w.t.FailNow()
	}
}

// abort ends hotwrap by ABRT, at which the runtime prints all goroutines, and its workers with it.
func (w *soaked) abort() (goroutines int, started map[string]int) {
	started = map[string]int{}
	from := len(w.log.since(0))
	_ = w.cmd.Process.Signal(syscall.SIGABRT)
	_ = w.cmd.Wait()
	w.killWorkers()
	w.log.fence()
	for _, line := range w.log.since(from) {
		if strings.HasPrefix(line, "goroutine ") {
			goroutines++
		}
		if by, ok := strings.CutPrefix(line, "created by "); ok {
			by, _, _ = strings.Cut(by, " in ")
			started[by]++
		}
	}
	return goroutines, started
}

// killWorkers ends what a hotwrap that has died has left.
func (w *soaked) killWorkers() {
	for _, pid := range w.processes() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
	}
	w.until("the end of all processes", func() string {
		if left := w.processes(); len(left) > 0 {
			return fmt.Sprint(left, " are there")
		}
		return ""
	})
}

func (w *soaked) takeDown() {
	if w.load != nil {
		w.load.stop()
	}
	if w.lifeline != nil {
		for _, pid := range w.processes() {
			_ = syscall.Kill(pid, syscall.SIGKILL)
		}
		_ = w.lifeline.Close()
		w.lifeline = nil
		if w.cmd != nil && w.cmd.Process != nil {
			_ = w.cmd.Wait()
		}
	}
	w.removeCgroups()
	_ = os.RemoveAll(w.dir)
}

// --- what is looked at

// deploy puts a new build there and restarts until it serves.
func (w *soaked) deploy() {
	w.t.Helper()
	w.put(w.good())
	w.restarted(w.command("restart"))
}

// restarted counts a restart that must have succeeded.
func (w *soaked) restarted(status int, text string) {
	w.t.Helper()
	// The watch may have been faster, and its restart superseded by a newer one.
	if status != 0 {
		w.t.Fatalf("hotwrap restart: status %d\n%s", status, text)
	}
	w.s.totals.restarts++
}

// command runs one of hotwrap's.
func (w *soaked) command(args ...string) (status int, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), 2*patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, w.path("hotwrap"), append(args, "soak")...)
	cmd.Env = w.environ()
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil || ctx.Err() != nil {
		return -1, fmt.Sprintf("%v\n%s", err, out)
	}
	return cmd.ProcessState.ExitCode(), string(out)
}

// status asks hotwrap how it is.
func (w *soaked) status() (v statusView, err error) {
	cmd := exec.Command(w.path("hotwrap"), "status", "--json", "soak")
	cmd.Env = w.environ()
	out, err := cmd.Output()
	if err != nil {
		return v, fmt.Errorf("hotwrap status: %w", err)
	}
	return v, json.Unmarshal(out, &v)
}

// rest waits until all is as it should be between two steps, and fails if it does not become so.
func (w *soaked) rest() {
	w.t.Helper()
	w.until("rest", w.unrest)
	w.load.check(w.t)
	for range 2 {
		if body, err := w.ask("/"); err != nil || !strings.HasPrefix(body, fmt.Sprintf("generation %d ", w.now.Generation)) {
			w.t.Fatalf("generation %d serves, and a new connection gets %q, %v", w.now.Generation, body, err)
		}
	}
}

// until looks until nothing is in the way.
func (w *soaked) until(what string, look func() (why string)) {
	w.t.Helper()
	end := time.Now().Add(patience)
	for {
		why := look()
		if why == "" {
			return
		}
		if time.Now().After(end) {
			w.t.Fatalf("no %s within %v: %s", what, patience, why)
		}
		w.log.wait(soakLook)
	}
}

// activity says, from the second look on, that hotwrap has done something since the one before.
func (w *soaked) activity() func() string {
	before := -1
	return func() string {
		now := switchesOf(w.t, w.cmd.Process.Pid)
		defer func() { before = now }()
		if before < 0 || now > before {
			return fmt.Sprintf("%d context switches since the last look", now-before)
		}
		return ""
	}
}

// unrest says what is not yet as it should be: one generation that serves, no process too many, nothing grown.
func (w *soaked) unrest() string {
	v, err := w.status()
	switch {
	case err != nil:
		return err.Error()
	case v.State != instanceServing || len(v.Generations) != 1 || v.Generations[0].State != genServing:
		return fmt.Sprintf("state %s, generations %+v", v.State, v.Generations)
	case v.Restart != nil || len(v.Pending) > 0 || v.Stop != nil:
		return fmt.Sprintf("restart %+v, pending %+v, stop %+v", v.Restart, v.Pending, v.Stop)
	case v.PID != w.cmd.Process.Pid:
		return fmt.Sprintf("hotwrap is pid %d, not %d", v.PID, w.cmd.Process.Pid)
	case len(v.Generations[0].Workers) != w.workers:
		return fmt.Sprintf("%d workers", len(v.Generations[0].Workers))
	}
	w.now = v
	pids := []int{v.PID}
	for _, worker := range v.Generations[0].Workers {
		if worker.State != workerReady {
			return fmt.Sprintf("worker %d is %s", worker.PID, worker.State)
		}
		if w.watched && !sameInode(fmt.Sprintf("/proc/%d/exe", worker.PID), w.prog()) {
			return fmt.Sprintf("worker %d does not run the build on disk", worker.PID)
		}
		pids = append(pids, tree(worker.PID)...)
	}
	for _, pid := range w.processes() {
		if !slices.Contains(pids, pid) {
			line, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
			return "an orphan or a zombie: " + string(line)
		}
	}
	if has := w.has(); w.base.descriptors > 0 && (has.descriptors > w.base.descriptors+soakFiles || has.threads > w.base.threads+soakFiles || has.memory > w.base.memory+soakMemory) {
		return fmt.Sprintf("%+v has become %+v%s", w.base, has, more(w.open, w.kinds()))
	}
	return ""
}

func sameInode(a, b string) bool {
	one, err1 := os.Stat(a)
	two, err2 := os.Stat(b)
	return err1 == nil && err2 == nil && os.SameFile(one, two)
}

// kinds counts hotwrap's descriptors by what they are.
func (w *soaked) kinds() map[string]int {
	kinds := map[string]int{}
	links, _ := filepath.Glob(fmt.Sprintf("/proc/%d/fd/*", w.cmd.Process.Pid))
	for _, link := range links {
		target, _ := os.Readlink(link)
		target, _, _ = strings.Cut(strings.TrimPrefix(target, w.dir), ":[")
		kinds[strings.TrimSuffix(target, " (deleted)")]++
	}
	return kinds
}

// more says of what there is more now than before.
func more(before, now map[string]int) string {
	var b strings.Builder
	for kind, n := range now {
		if n > before[kind] {
			fmt.Fprintf(&b, "; %s: %d, not %d", kind, n, before[kind])
		}
	}
	return b.String()
}

// processes are those of this world, and zombies that hotwrap should have reaped.
func (w *soaked) processes() (pids []int) {
	entries, _ := filepath.Glob("/proc/[0-9]*")
	for _, entry := range entries {
		pid, _ := strconv.Atoi(filepath.Base(entry))
		stat, err := os.ReadFile(entry + "/stat")
		fields := strings.Fields(string(stat[bytes.LastIndexByte(stat, ')')+1:]))
		if err != nil || len(fields) < 2 {
			continue
		}
		parent, _ := strconv.Atoi(fields[1])
		environ, _ := os.ReadFile(entry + "/environ")
		switch {
		case fields[0] == "Z" && w.cmd != nil && parent == w.cmd.Process.Pid,
			bytes.Contains(environ, []byte("TESTAPP_LIFELINE="+w.path("lifeline")+"\x00")):
			pids = append(pids, pid)
		}
	}
	return pids
}

// has is what hotwrap has, apart from what it has for a moment.
func (w *soaked) has() (h holdings) {
	dir := fmt.Sprintf("/proc/%d/", w.cmd.Process.Pid)
	files, _ := os.ReadDir(dir + "fd")
	tasks, _ := os.ReadDir(dir + "task")
	h = holdings{descriptors: len(files), threads: len(tasks)}
	text, _ := os.ReadFile(dir + "status")
	if _, rest, ok := strings.Cut(string(text), "RssAnon:"); ok {
		h.memory, _ = strconv.Atoi(strings.Fields(rest)[0])
	}
	return h
}

// ask asks once, on a new connection.
func (w *soaked) ask(path string) (string, error) {
	c := httpClient{network: w.network, addr: w.addr, path: path}
	return c.ask()
}

// checkOutput: no line of the program is torn, doubled or lost on its way through hotwrap.
func (w *soaked) checkOutput() {
	if !w.output {
		return
	}
	text, err := os.ReadFile(w.path("app.log"))
	if err != nil {
		w.t.Error(err)
	}
	whole, seen := regexp.MustCompile(`^<\d+>$`), map[string]bool{}
	for line := range strings.Lines(string(text)) {
		line = strings.TrimSuffix(line, "\n")
		if !strings.ContainsAny(line, "<>") {
			continue
		}
		if !whole.MatchString(line) || seen[line] {
			w.t.Errorf("a line that is torn or doubled: %q", line)
		}
		seen[line] = true
	}
	for _, line := range w.load.lines {
		if !seen[line] && !w.lossy {
			w.t.Errorf("the line %s was written, and is not in the log file", line)
		}
	}
}

// --- the log

// soakLog is all that hotwrap says in one world, across its deaths.
type soakLog struct {
	in     *os.File
	fences int
	news   chan struct{}

	mu    sync.Mutex
	lines []string
}

func newSoakLog() *soakLog {
	out, in, err := os.Pipe()
	if err != nil {
		panic(err)
	}
	l := &soakLog{in: in, news: make(chan struct{}, 1)}
	go func() {
		for lines := bufio.NewScanner(out); lines.Scan(); {
			l.mu.Lock()
			l.lines = append(l.lines, lines.Text())
			l.mu.Unlock()
			select {
			case l.news <- struct{}{}:
			default:
			}
		}
	}()
	return l
}

// since are the lines from that one on.
func (l *soakLog) since(from int) []string {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.lines[min(from, len(l.lines)):]
}

// wait waits for a line, or so long.
func (l *soakLog) wait(d time.Duration) {
	t := time.NewTimer(d)
	defer t.Stop()
	select {
	case <-l.news:
	case <-t.C:
	}
}

// fence returns when all that was written before it is read.
func (l *soakLog) fence() {
	l.fences++
	text := fmt.Sprintf("fence %d", l.fences)
	fmt.Fprintln(l.in, text)
	for !slices.Contains(l.since(0), text) {
		l.wait(soakLook)
	}
}

// mark is where a step begins.
func (w *soaked) mark() { w.marked = len(w.log.since(0)) }

// await waits for a line after from, and returns what its groups are.
func (w *soaked) await(from int, expression string) []string {
	w.t.Helper()
	re := regexp.MustCompile(expression)
	for end := time.Now().Add(patience); ; w.log.wait(soakLook) {
		for _, line := range w.log.since(from) {
			if found := re.FindStringSubmatch(line); found != nil {
				return found
			}
		}
		if time.Now().After(end) {
			w.t.Fatalf("hotwrap never said %q", expression)
		}
	}
}

// heardOf waits for a line of this step.
func (w *soaked) heardOf(expression string) []string {
	w.t.Helper()
	return w.await(w.marked, expression)
}

// --- the load

// loadTotals are what became of the requests.
type loadTotals struct {
	requests, lost int
	killed         int // in a process that was killed while it answered
	again          int // on a kept connection that was closed in that very moment, before a byte of the answer (RFC 9112, 9.3.1)
}

// soakFailure is a request without an answer.
type soakFailure struct {
	began, ended time.Time
	kept         bool
	err          error
}

// killing is a time in which somebody is killed: what is answered then may be cut.
type killing struct{ from, to time.Time }

// soakLoad is clients of all kinds, until stop.
type soakLoad struct {
	w    *soaked
	end  context.CancelFunc
	all  sync.WaitGroup
	gate sync.RWMutex // held for reading by a client that asks

	mu       sync.Mutex
	paused   bool
	requests int
	failures []soakFailure
	kills    []killing
	by       map[string]int // answers, by generation
	lines    []string       // that the program has written, by its answer
}

func startSoakLoad(w *soaked) *soakLoad {
	ctx, cancel := context.WithCancel(context.Background())
	l := &soakLoad{w: w, end: cancel, by: map[string]int{}}
	for range soakClients {
		l.all.Go(func() { l.client(ctx, false, func(int) string { return "/" }) })
		l.all.Go(func() { l.client(ctx, true, func(int) string { return "/" }) })
	}
	l.all.Go(func() { l.client(ctx, false, func(int) string { return "/sleep?d=" + soakSlow.String() }) })
	l.all.Go(func() { l.client(ctx, false, func(n int) string { return fmt.Sprintf("/line?n=%d", n) }) })
	return l
}

// client asks until ctx ends.
func (l *soakLoad) client(ctx context.Context, keep bool, path func(n int) string) {
	c := httpClient{network: l.w.network, addr: l.w.addr, keep: keep}
	for n := 0; ctx.Err() == nil; n++ {
		if c.conn != nil && hasEnded(c.conn) {
			c.conn.Close()
			c.conn = nil
		}
		c.path = path(n)
		l.gate.RLock()
		kept, began := c.conn != nil, time.Now()
		body, err := c.ask()
		l.note(soakFailure{began, time.Now(), kept, err}, body, strings.TrimPrefix(c.path, "/line?n="))
		l.gate.RUnlock()
		wait(ctx, soakPause)
	}
	if c.conn != nil {
		c.conn.Close()
	}
}

// note takes what became of a request; line is a number if it had one written.
func (l *soakLoad) note(f soakFailure, body, line string) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.requests++
	if f.err != nil {
		l.failures = append(l.failures, f)
		return
	}
	_, rest, _ := strings.Cut(body, "generation ")
	number, _, _ := strings.Cut(rest, " ")
	l.by[number]++
	if _, err := strconv.Atoi(line); err == nil {
		l.lines = append(l.lines, "<"+line+">")
	}
}

// pause returns when no request is under way, and none begins until goOn.
func (l *soakLoad) pause() { l.paused = true; l.gate.Lock() }
func (l *soakLoad) goOn()  { l.paused = false; l.gate.Unlock() }

func (l *soakLoad) stop() {
	l.end()
	if l.paused {
		l.goOn()
	}
	l.all.Wait()
}

// killing is what cuts the requests that somebody is answering.
func (l *soakLoad) killing(kill func()) {
	k := killing{from: time.Now()}
	kill()
	k.to = time.Now()
	l.mu.Lock()
	l.kills = append(l.kills, k)
	l.mu.Unlock()
}

// check counts what was lost since the last check, and fails if it is anything.
func (l *soakLoad) check(t *testing.T) {
	t.Helper()
	l.mu.Lock()
	defer l.mu.Unlock()
	n := &l.w.s.totals
	n.requests += l.requests
	l.requests = 0
	for _, f := range l.failures {
		loss, _ := lossOf(f.err)
		cut := loss == lossReset || loss == lossCut || loss == lossUnanswered
		switch {
		case cut && slices.ContainsFunc(l.kills, func(k killing) bool { return !f.began.After(k.to) && !f.ended.Before(k.from) }):
			n.killed++
		case f.kept && errors.Is(f.err, errUnanswered) && loss != lossLate:
			n.again++
		default:
			n.lost++
			t.Errorf("lost at %s after %v: %v", f.ended.Format("15:04:05.000"), f.ended.Sub(f.began), f.err)
		}
	}
	l.failures = nil
	if t.Failed() {
		t.FailNow()
	}
}

// answered is how many answers a generation gave.
func (l *soakLoad) answered(generation string) int {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.by[generation]
}
