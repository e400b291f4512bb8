package main

import (
	"testing"
	"time"
)

// A message is one line that no terminal acts on, whatever the names in it hold.
func TestMessageLine(t *testing.T) {
	m := info("a\nb\x1b[2Jc ünï €\xff changed").with("path", "/x\ny").with("by", "a b").with("dir", "/\u202e").end("tab\there")
	if got, want := m.String(), `a\nb\x1b[2Jc ünï €\ufffd changed path="/x\ny" by="a b" dir="/\u202e"; tab\there`; got != want {
		t.Errorf("got  %s\nwant %s", got, want)
	}
}

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
