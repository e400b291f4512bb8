package main

// This file measures what the control room costs: commands, questions, restarts by command, and memory. As in
// bench_linux_test.go each figure stands beside its own baseline in the same run, and nothing fails for being slow.

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"syscall"
	"testing"
	"time"
)

const (
	benchQuestions = 100
	benchCrowd     = 1000
)

// wrapControlled starts hotwrap where only this benchmark finds it, and returns its control socket.
func wrapControlled(b *testing.B) (w *wrapped, socket string) {
	dir := b.TempDir()
	b.Setenv("HOTWRAP_RUNTIME_DIR", dir)
	return wrapProgram(b, benchBinary(b, "quiet"), "--name", "bench"), filepath.Join(dir, "control", "bench.sock")
}

// commandTime runs a hotwrap command that must succeed.
func commandTime(b *testing.B, args ...string) time.Duration {
	cmd := exec.Command(benchBinary(b, "hotwrap"), args...)
	began := time.Now()
	if out, err := cmd.CombinedOutput(); err != nil {
		b.Fatalf("hotwrap %v: %v\n%s", args, err, out)
	}
	return time.Since(began)
}

// overSocket is a client that keeps its connection to a control socket.
func overSocket(b *testing.B, socket string) *http.Client {
	transport := &http.Transport{DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", socket)
	}}
	b.Cleanup(transport.CloseIdleConnections)
	return &http.Client{Transport: transport, Timeout: patience}
}

// questionTime asks once.
func questionTime(b *testing.B, client *http.Client, path string) time.Duration {
	began := time.Now()
	answer, err := client.Get("http://hotwrap" + path) //nolint:noctx // the client has a limit
	if err != nil {
		b.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.Copy(io.Discard, answer.Body); err != nil || answer.StatusCode != http.StatusOK {
		b.Fatalf("%s: %s, %v", path, answer.Status, err)
	}
	return time.Since(began)
}

// BenchmarkStatusCommand: hotwrap status -q from its start to its end, against hotwrap --version.
func BenchmarkStatusCommand(b *testing.B) {
	wrapControlled(b)
	var plain, through []time.Duration
	for b.Loop() {
		plain = append(plain, commandTime(b, "--version"))
		through = append(through, commandTime(b, "status", "-q", "bench"))
	}
	reportRatio(b, "version-ms", plain, "status-ms", through)
}

// BenchmarkStatusQuestion: GET /status over an open connection, against GET /, which looks at nothing.
func BenchmarkStatusQuestion(b *testing.B) {
	_, socket := wrapControlled(b)
	client := overSocket(b, socket)
	var plain, through []time.Duration
	for b.Loop() {
		plain = append(plain, questionTime(b, client, "/"))
		through = append(through, questionTime(b, client, "/status"))
	}
	reportRatio(b, "who-ms", plain, "status-ms", through)
}

// BenchmarkRestartCommand: hotwrap restart from its start to its end, against HUP to the line that the successor
// serves. What the command's own process costs is in it: --version-ms tells how much.
func BenchmarkRestartCommand(b *testing.B) {
	w, _ := wrapControlled(b)
	var bare, process, through []time.Duration
	for n := 2; b.Loop(); n += 2 {
		process = append(process, commandTime(b, "--version"))
		began := time.Now()
		_ = w.cmd.Process.Signal(syscall.SIGHUP)
		w.await(fmt.Sprintf("generation %d serving", n))
		bare = append(bare, time.Since(began))
		w.await(fmt.Sprintf("generation %d gone", n-1))
		through = append(through, commandTime(b, "restart", "bench"))
		w.await(fmt.Sprintf("generation %d gone", n))
	}
	b.ReportMetric(ms(median(process)), "version-ms")
	reportRatio(b, "HUP-ms", bare, "command-ms", through)
}

func reportRatio(b *testing.B, plainUnit string, plain []time.Duration, unit string, through []time.Duration) {
	p, t := median(plain), median(through)
	b.ReportMetric(ms(p), plainUnit)
	b.ReportMetric(ms(t), unit)
	b.ReportMetric(float64(t)/float64(p), "ratio")
}

// BenchmarkControlMemory: after the start, after 100 questions for the status, with 1,000 clients that never finish
// theirs, and when those are gone. Goals at the start: resident under 12 MiB, anonymous under 4.
func BenchmarkControlMemory(b *testing.B) {
	for b.Loop() {
		w, socket := wrapControlled(b)
		pid := w.cmd.Process.Pid
		time.Sleep(2 * lookAfter) // the last look at the worker
		weigh := func(when string) {
			b.ReportMetric(float64(statusOf(b, pid, "VmRSS:"))/1024, when+"-rss-MiB")
			b.ReportMetric(float64(statusOf(b, pid, "RssAnon:"))/1024, when+"-anon-MiB")
		}
		weigh("start")
		client := overSocket(b, socket)
		for range benchQuestions {
			questionTime(b, client, "/status")
		}
		weigh("asked")
		client.CloseIdleConnections()
		crowd := benchCrowdAt(b, socket)
		questionTime(b, client, "/status")
		weigh("crowd")
		for _, conn := range crowd {
			_ = conn.Close()
		}
		client.CloseIdleConnections()
		b.ReportMetric(float64(descriptorsLeft(b, pid)), "left-fds")
		weigh("gone")
		w.stop()
	}
}

// benchCrowdAt is a crowd of clients: every other asks nothing, the rest half a question.
func benchCrowdAt(b *testing.B, socket string) (crowd []net.Conn) {
	for n := range benchCrowd {
		conn, err := net.Dial("unix", socket) //nolint:noctx // it cannot block for long
		if err != nil {
			b.Fatalf("client %d: %v", n, err)
		}
		crowd = append(crowd, conn)
		if n%2 == 0 {
			_, _ = io.WriteString(conn, "POST /restart HTTP/1.1\r\nHost: x\r\nX-Slow: ") // it may be closed by now
		}
	}
	return crowd
}

// descriptorsLeft is how many descriptors a process has once that changes no more.
func descriptorsLeft(b *testing.B, pid int) int {
	for last := -1; ; {
		all, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
		if err != nil {
			b.Fatal(err)
		}
		if len(all) == last {
			return last
		}
		last = len(all)
		time.Sleep(200 * time.Millisecond)
	}
}
