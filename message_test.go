package main

import (
	"testing"
	"time"
)

func TestBrief(t *testing.T) {
	for want, d := range map[string]time.Duration{
		"0s": 0, "120µs": 123 * time.Microsecond, "120ms": 120400 * time.Microsecond, "1s": 999600 * time.Microsecond,
		"1.4s": 1420 * time.Millisecond, "59.9s": 59940 * time.Millisecond, "1m": 59970 * time.Millisecond,
		"2m4s": 124200 * time.Millisecond, "1h": time.Hour - time.Millisecond, "3h12m": 3*time.Hour + 12*time.Minute + 8*time.Second,
	} {
		if got := brief(d); got != want {
			t.Errorf("%v is written %q, want %q", d, got, want)
		}
	}
}
