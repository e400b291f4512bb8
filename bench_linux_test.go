package main

// This file measures what hotwrap costs: each figure beside its own baseline in the same run, since
// machines differ and are shared. Nothing here fails for being slow; `make bench` prints the figures.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
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
	idleTime   = 10 * time.Second
	loadTime   = 2 * time.Second
	loadRounds = 5                      // of direct and wrapped in turn
	watchApart = 500 * time.Millisecond // between two builds, so that none belongs to the other
	treeFiles  = 10_000
)

// benchBinaries builds hotwrap as it is released, and a program for it.
var benchBinaries = sync.OnceValues(func() (dir string, err error) {
	if dir, err = os.MkdirTemp("", "hwbench"); err != nil {
		return "", err
	}
	benchBuilt = dir
	for _, args := range [][]string{
		{"build", "-trimpath", "-tags", "urfave_cli_no_docs,urfave_cli_no_suggest", "-ldflags", "-s -w", "-o", filepath.Join(dir, "hotwrap"), "."},
		{"build", "-trimpath", "-o", dir + "/", "./testapps/quiet", "./testapps/plain"},
	} {
		cmd := exec.Command("go", args...)
		cmd.Env = append(os.Environ(), "CGO_ENABLED=0")
		if out, err := cmd.CombinedOutput(); err != nil {
			return "", fmt.Errorf("go %s: %v\n%s", strings.Join(args, " "), err, out)
		}
	}
	return dir, nil
})

func benchBinary(b *testing.B, name string) string {
	dir, err := benchBinaries()
	if err != nil {
		b.Fatal(err)
	}
	return filepath.Join(dir, name)
}

// wrapped is a hotwrap under measurement, with its log.
type wrapped struct {
	b    *testing.B
	cmd  *exec.Cmd
	log  *bufio.Scanner
	addr string
}

// wrap starts hotwrap around the bench program and waits until it serves.
func wrap(b *testing.B) *wrapped { return wrapProgram(b, benchBinary(b, "quiet")) }

func wrapProgram(b *testing.B, program string, options ...string) *wrapped {
	return wrapCommand(b, append(options, "--", program)...)
}

func wrapCommand(b *testing.B, args ...string) *wrapped {
	args = append([]string{"-l", "127.0.0.1:0", "--bake", "0"}, args...)
	w := &wrapped{b: b, cmd: exec.Command(benchBinary(b, "hotwrap"), args...)}
	stderr, err := w.cmd.StderrPipe()
	if err == nil {
		err = w.cmd.Start()
	}
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(w.stop)
	w.log = bufio.NewScanner(stderr)
	_, rest, _ := strings.Cut(w.await("listening on tcp "), "listening on tcp ")
	w.addr, _, _ = strings.Cut(rest, " ")
	w.await("generation 1 ready")
	return w
}

// await reads the log up to a line that has text in it.
func (w *wrapped) await(text string) string {
	for w.log.Scan() {
		if strings.Contains(w.log.Text(), text) {
			return w.log.Text()
		}
	}
	w.b.Fatalf("hotwrap never said %q", text)
	return ""
}

func (w *wrapped) stop() {
	_ = w.cmd.Process.Signal(syscall.SIGTERM)
	for w.log.Scan() {
	}
	_ = w.cmd.Wait()
}

// worker is the pid in the last line that was awaited.
func pidIn(line string) int {
	_, rest, _ := strings.Cut(line, " pid=")
	text, _, _ := strings.Cut(rest, " ")
	pid, _ := strconv.Atoi(text)
	return pid
}

// fetchOnce asks once, on a new connection, and returns the body; "" if that failed.
func fetchOnce(addr string) string {
	conn, err := net.DialTimeout("tcp", addr, time.Second)
	if err != nil {
		return ""
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(5 * time.Second))
	_, _ = io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
	text, err := io.ReadAll(conn)
	_, body, ok := bytes.Cut(text, []byte("\r\n\r\n"))
	if err != nil || !ok {
		return ""
	}
	return string(body)
}

// direct starts the bench program without hotwrap, on a listener of its own as its descriptor 3, and
// returns how long it took to its first answer, with the address.
func direct(b *testing.B, stay bool) (time.Duration, string) {
	fd, err := unix.Socket(unix.AF_INET, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, unix.IPPROTO_TCP)
	if err == nil {
		err = unix.Bind(fd, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}})
	}
	if err == nil {
		err = unix.Listen(fd, 4096)
	}
	if err != nil {
		b.Fatal(err)
	}
	defer unix.Close(fd)
	name, _ := unix.Getsockname(fd)
	addr := fmt.Sprintf("127.0.0.1:%d", name.(*unix.SockaddrInet4).Port)
	env := append(os.Environ(), "LISTEN_FDS=1", "LISTEN_FDNAMES=x")
	began := time.Now()
	pid, err := syscall.ForkExec("/bin/sh", []string{"sh", "-c", `LISTEN_PID=$$ exec "$0"`, benchBinary(b, "quiet")},
		&syscall.ProcAttr{Env: env, Files: []uintptr{0, 1, 2, uintptr(fd)}})
	if err != nil {
		b.Fatal(err)
	}
	end := func() {
		_ = syscall.Kill(pid, syscall.SIGKILL)
		_, _ = syscall.Wait4(pid, nil, 0, nil)
	}
	if fetchOnce(addr) == "" {
		end()
		b.Fatal("the bench program does not answer")
	}
	took := time.Since(began)
	if stay {
		b.Cleanup(end)
	} else {
		end()
	}
	return took, addr
}

func median(all []time.Duration) time.Duration {
	slices.Sort(all)
	return all[len(all)/2]
}

func ms(d time.Duration) float64 { return float64(d) / float64(time.Millisecond) }

// BenchmarkStart: a program's first byte through hotwrap, against started directly. Goal: +3 ms.
func BenchmarkStart(b *testing.B) {
	first := func(name string, args ...string) time.Duration {
		cmd := exec.Command(name, args...)
		out, err := cmd.StdoutPipe()
		if err != nil {
			b.Fatal(err)
		}
		began := time.Now()
		if err := cmd.Start(); err != nil {
			b.Fatal(err)
		}
		if _, err := out.Read(make([]byte, 1)); err != nil {
			b.Fatal(err)
		}
		took := time.Since(began)
		_, _ = io.Copy(io.Discard, out)
		_ = cmd.Wait()
		return took
	}
	hotwrap := benchBinary(b, "hotwrap")
	var plain, through []time.Duration
	for b.Loop() {
		plain = append(plain, first("/bin/echo", "x"))
		through = append(through, first(hotwrap, "-l", "127.0.0.1:0", "--", "/bin/echo", "x"))
	}
	b.ReportMetric(ms(median(plain)), "direct-ms")
	b.ReportMetric(ms(median(through)), "hotwrap-ms")
	b.ReportMetric(ms(median(through)-median(plain)), "added-ms")
}

// BenchmarkRestart: HUP to the successor's first answer, less the program's own start. Goal: 5 ms.
func BenchmarkRestart(b *testing.B) {
	benchRestarts(b, wrap(b), 2)
}

// benchRestarts has w restarted, for the first time to generation n.
func benchRestarts(b *testing.B, w *wrapped, n int) {
	var plain, through []time.Duration
	for ; b.Loop(); n++ {
		took, _ := direct(b, false)
		plain = append(plain, took)
		want := fmt.Sprintf("generation %d ", n)
		began := time.Now()
		_ = w.cmd.Process.Signal(syscall.SIGHUP)
		for !strings.HasPrefix(fetchOnce(w.addr), want) {
		}
		through = append(through, time.Since(began))
		w.await(fmt.Sprintf("generation %d gone", n-1))
	}
	reportAdded(b, plain, through)
}

// BenchmarkCrash: kill -9 of the worker to the first answer again, less the program's own start.
// Goal: 10 ms. Each crash is of a fresh generation, so none waits for a backoff.
func BenchmarkCrash(b *testing.B) {
	w := wrap(b)
	var plain, through []time.Duration
	for n := 2; b.Loop(); n++ {
		took, _ := direct(b, false)
		plain = append(plain, took)
		_ = w.cmd.Process.Signal(syscall.SIGHUP)
		pid := pidIn(w.await(fmt.Sprintf("generation %d ready", n)))
		w.await(fmt.Sprintf("generation %d gone", n-1))
		began := time.Now()
		_ = syscall.Kill(pid, syscall.SIGKILL)
		for fetchOnce(w.addr) == "" {
		}
		through = append(through, time.Since(began))
		w.await("ready again")
	}
	reportAdded(b, plain, through)
}

func reportAdded(b *testing.B, plain, through []time.Duration) {
	b.ReportMetric(ms(median(plain)), "direct-ms")
	b.ReportMetric(ms(median(through)), "hotwrap-ms")
	b.ReportMetric(ms(median(through)-median(plain)), "added-ms")
}

// BenchmarkWatch: a writer has done its last step to the successor's first answer, less the program's own
// start. Goal: 60 ms.
func BenchmarkWatch(b *testing.B) {
	program, err := os.ReadFile(benchBinary(b, "quiet"))
	if err != nil {
		b.Fatal(err)
	}
	file := filepath.Join(b.TempDir(), "quiet")
	aside := file + ".aside"
	if err := os.WriteFile(file, program, 0o755); err != nil {
		b.Fatal(err)
	}
	for _, writer := range []struct {
		name       string
		ready, end func(build []byte) error
	}{
		{
			"mv", func(build []byte) error { return os.WriteFile(aside, build, 0o755) },
			func([]byte) error { return os.Rename(aside, file) },
		},
		{"build", func([]byte) error { return nil }, // go build: written aside and renamed at once
			func(build []byte) error {
				return errors.Join(os.WriteFile(aside, build, 0o755), os.Rename(aside, file))
			}},
		{"copy", func([]byte) error { return nil }, // cp -f, install: removed, and written where it lies
			func(build []byte) error { return errors.Join(os.Remove(file), os.WriteFile(file, build, 0o755)) }},
	} {
		b.Run(writer.name, func(b *testing.B) {
			w := wrapProgram(b, file, "-w")
			var plain, through []time.Duration
			for n := 2; b.Loop(); n++ {
				took, _ := direct(b, false)
				plain = append(plain, took)
				build := fmt.Appendf(slices.Clip(program), "%s %d", writer.name, n) // what follows an ELF file is nothing to it
				if err := writer.ready(build); err != nil {
					b.Fatal(err)
				}
				time.Sleep(watchApart)
				if err := writer.end(build); err != nil {
					b.Fatal(err)
				}
				began, want := time.Now(), fmt.Sprintf("generation %d ", n)
				for !strings.HasPrefix(fetchOnce(w.addr), want) {
				}
				through = append(through, time.Since(began))
				w.await(fmt.Sprintf("generation %d gone", n-1))
			}
			reportAdded(b, plain, through)
		})
	}
}

// BenchmarkWatchTree: a tree of 10,000 files. Goals: it serves within 1 s, and then no context switch in 10 s.
func BenchmarkWatchTree(b *testing.B) {
	tree := b.TempDir()
	for i := range treeFiles {
		file := filepath.Join(tree, strconv.Itoa(i/100), strconv.Itoa(i))
		if err := errors.Join(os.MkdirAll(filepath.Dir(file), 0o755), os.WriteFile(file, []byte(file), 0o644)); err != nil {
			b.Fatal(err)
		}
	}
	program := benchBinary(b, "quiet") // built before the clock runs
	for b.Loop() {
		began := time.Now()
		w := wrapProgram(b, program, "--watch="+tree)
		b.ReportMetric(ms(time.Since(began)), "start-ms")
		pid := w.idle()
		b.ReportMetric(float64(statusOf(b, pid, "RssAnon:"))/1024, "anon-MiB")
		w.stop()
	}
}

// BenchmarkIdle: 10 s of nothing. Goal: no context switch, no CPU; resident under 8 MiB, anonymous under 3.
func BenchmarkIdle(b *testing.B) {
	for b.Loop() {
		w := wrap(b)
		_ = fetchOnce(w.addr)
		if err := w.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			b.Fatal(err)
		}
		w.await("generation 1 gone")
		_ = fetchOnce(w.addr)
		pid := w.idle()
		b.ReportMetric(float64(statusOf(b, pid, "VmRSS:"))/1024, "rss-MiB")
		b.ReportMetric(float64(statusOf(b, pid, "RssAnon:"))/1024, "anon-MiB")
		w.stop()
	}
}

// idle reports what hotwrap does while nothing happens, and returns its pid.
func (w *wrapped) idle() int {
	b, pid := w.b, w.cmd.Process.Pid
	time.Sleep(2 * lookAfter) // the last look at the worker
	switches, ticks := switchesOf(b, pid), ticksOf(b, pid)
	time.Sleep(idleTime)
	b.ReportMetric(float64(switchesOf(b, pid)-switches), "switches")
	b.ReportMetric(float64(ticksOf(b, pid)-ticks), "cpu-ticks")
	return pid
}

// switchesOf adds up the context switches of all threads.
func switchesOf(b testing.TB, pid int) (sum int) {
	tasks, err := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/status", pid))
	if err != nil || len(tasks) == 0 {
		b.Fatal("no threads")
	}
	for _, task := range tasks {
		sum += numberIn(b, task, "voluntary_ctxt_switches:") + numberIn(b, task, "nonvoluntary_ctxt_switches:")
	}
	return sum
}

// ticksOf is the CPU time used, in clock ticks (proc(5), utime and stime).
func ticksOf(b *testing.B, pid int) int {
	text, err := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if err != nil {
		b.Fatal(err)
	}
	fields := strings.Fields(string(text[bytes.LastIndexByte(text, ')')+2:]))
	user, _ := strconv.Atoi(fields[11])
	system, _ := strconv.Atoi(fields[12])
	return user + system
}

func statusOf(b *testing.B, pid int, key string) int {
	return numberIn(b, fmt.Sprintf("/proc/%d/status", pid), key)
}

func numberIn(b testing.TB, path, key string) int {
	text, err := os.ReadFile(path)
	if err != nil {
		b.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		if rest, ok := strings.CutPrefix(line, key); ok {
			n, _ := strconv.Atoi(strings.Fields(rest)[0])
			return n
		}
	}
	b.Fatalf("%s has no %s", path, key)
	return 0
}

// BenchmarkRequests: requests a second through hotwrap against direct, in turn. Goal: 1.00.
func BenchmarkRequests(b *testing.B) {
	for b.Loop() {
		w := wrap(b)
		_, addr := direct(b, true)
		var ratios []float64
		for range loadRounds {
			plain := requestsIn(addr)
			ratios = append(ratios, float64(requestsIn(w.addr))/float64(plain))
		}
		slices.Sort(ratios)
		b.ReportMetric(ratios[len(ratios)/2], "ratio")
	}
}

// requestsIn counts what 8 clients get answered on kept connections in loadTime.
func requestsIn(addr string) int {
	counts := make(chan int)
	until := time.Now().Add(loadTime)
	for range 8 {
		go func() { counts <- client(addr, until) }()
	}
	sum := 0
	for range 8 {
		sum += <-counts
	}
	return sum
}

func client(addr string, until time.Time) (n int) {
	conn, err := net.Dial("tcp", addr)
	if err != nil {
		return 0
	}
	defer conn.Close()
	_ = conn.SetDeadline(until.Add(5 * time.Second))
	buf := make([]byte, 4096)
	for ; time.Now().Before(until); n++ {
		if _, err := io.WriteString(conn, "GET / HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			return n
		}
		if _, err := conn.Read(buf); err != nil {
			return n
		}
	}
	return n
}
