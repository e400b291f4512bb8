package main

import (
	"bufio"
	"fmt"
	"os"
	"os/exec"
	"strings"
	"testing"
	"time"
)

// BenchmarkReturn: hotwrap is killed by KILL and started again: from that start until what it finds is taken over, and until
// the first answer of a program that it has started itself. Who asks meanwhile is served by what was left.
func BenchmarkReturn(b *testing.B) {
	b.Setenv("HOTWRAP_RUNTIME_DIR", b.TempDir())
	if err := os.Chmod(os.Getenv("HOTWRAP_RUNTIME_DIR"), 0o700); err != nil {
		b.Fatal(err)
	}
	w := wrapCommand(b, "--name", "it", "--", benchBinary(b, "quiet"))
	addr := w.addr
	var taken, answered time.Duration
	n := 1
	for b.Loop() {
		if err := w.cmd.Process.Kill(); err != nil {
			b.Fatal(err)
		}
		_, _ = w.cmd.Process.Wait() // its log ends only with its program
		began := time.Now()
		next := &wrapped{b: b, addr: addr, cmd: exec.Command(w.cmd.Path, w.cmd.Args[1:]...)}
		stderr, err := next.cmd.StderrPipe()
		if err == nil {
			err = next.cmd.Start()
		}
		if err != nil {
			b.Fatal(err)
		}
		b.Cleanup(next.stop)
		next.log = bufio.NewScanner(stderr)
		next.await(fmt.Sprintf("generation %d taken over", n))
		taken += time.Since(began)
		n++
		for want := fmt.Sprintf("generation %d ", n); !strings.HasPrefix(fetchOnce(addr), want); {
		}
		answered += time.Since(began)
		next.await(fmt.Sprintf("generation %d gone", n-1))
		w = next
	}
	b.ReportMetric(float64(taken.Microseconds())/1e3/float64(n-1), "ms-to-taken-over")
	b.ReportMetric(float64(answered.Microseconds())/1e3/float64(n-1), "ms-to-successor's-answer")
}
