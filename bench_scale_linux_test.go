package main

// This file measures how what hotwrap costs grows with listeners and workers.

import (
	"fmt"
	"os/exec"
	"path/filepath"
	"strconv"
	"syscall"
	"testing"
	"time"
)

// BenchmarkScale: start, restart and status with many listeners and workers, each beside one of each. Goals: nothing grows
// worse than linearly; a restart of 64 trivial workers takes under 2 s. The CPU is hotwrap's own, for the start and the
// restart: most of the time is the programs'.
func BenchmarkScale(b *testing.B) {
	for _, size := range []struct {
		kind               string
		workers, listeners int
	}{
		{"tcp", 1, 1}, {"tcp", 1, 100}, {"tcp", 1, 1000}, {"unix", 1, 1000}, {"tcp", 64, 1}, {"tcp", 64, 8},
	} {
		b.Run(fmt.Sprintf("%d×%d%s", size.workers, size.listeners, size.kind), func(b *testing.B) {
			b.Setenv("HOTWRAP_RUNTIME_DIR", b.TempDir())
			options := []string{"--name", "scale", "-n", strconv.Itoa(size.workers)}
			dir := b.TempDir()
			for i := 1; i < size.listeners; i++ { // wrapProgram has one
				addr := "127.0.0.1:0"
				if size.kind == "unix" {
					addr = filepath.Join(dir, strconv.Itoa(i))
				}
				options = append(options, "-l", fmt.Sprintf("n%d=%s", i, addr))
			}
			program := benchBinary(b, "quiet") // built before the clock runs
			var starts, restarts, statuses []time.Duration
			for b.Loop() {
				began := time.Now()
				w := wrapProgram(b, program, options...)
				starts = append(starts, time.Since(began))
				began = time.Now()
				_ = w.cmd.Process.Signal(syscall.SIGHUP)
				w.await("generation 2 serving; generation 1 draining")
				restarts = append(restarts, time.Since(began))
				w.await("generation 1 gone")
				pid := w.cmd.Process.Pid
				b.ReportMetric(float64(ticksOf(b, pid)*10), "cpu-ms") // a tick is 10 ms: USER_HZ is 100
				began = time.Now()
				if out, err := exec.Command(benchBinary(b, "hotwrap"), "status", "scale").CombinedOutput(); err != nil {
					b.Fatalf("%v: %s", err, out)
				}
				statuses = append(statuses, time.Since(began))
				b.ReportMetric(float64(statusOf(b, pid, "RssAnon:"))/1024, "anon-MiB")
				w.stop()
			}
			b.ReportMetric(ms(median(starts)), "start-ms")
			b.ReportMetric(ms(median(restarts)), "restart-ms")
			b.ReportMetric(ms(median(statuses)), "status-ms")
		})
	}
}
