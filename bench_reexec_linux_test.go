package main

// This file measures what a re-exec costs: how long nobody supervises, and what clients notice of it.

import (
	"strings"
	"syscall"
	"testing"
	"time"
)

// reexec replaces a hotwrap, and returns how long that took from the signal to its line, and how long of it nobody supervised.
func (w *wrapped) reexec() (took, away time.Duration) {
	began := time.Now()
	_ = w.cmd.Process.Signal(syscall.SIGUSR2)
	line := w.await("re-executed ")
	took = time.Since(began)
	_, after, _ := strings.Cut(line, " after=")
	after, _, _ = strings.Cut(after, " ")
	away, _ = time.ParseDuration(after)
	return took, away
}

// BenchmarkReexec: USR2 to the new hotwrap's line. The new one is asked first, as a process of its own; away is from the
// end of the old one's sources to the beginning of the new one's.
func BenchmarkReexec(b *testing.B) {
	w := wrap(b)
	var took, away []time.Duration
	for b.Loop() {
		t, a := w.reexec()
		took, away = append(took, t), append(away, a)
	}
	b.ReportMetric(ms(median(took)), "reexec-ms")
	b.ReportMetric(ms(median(away)), "away-ms")
}

// BenchmarkReexecPause: the longest wait of clients while hotwrap replaces itself over and over, against the same load
// without. Goal: no difference.
func BenchmarkReexecPause(b *testing.B) {
	benchPause(b, "re-execs", wrap, func(w *wrapped, _ int) { w.reexec() })
}
