package main

// This file holds the words of a trial to what was observed.

import (
	"os"
	"regexp"
	"strings"
	"testing"
	"time"
)

// trialZero is when the trials of these tests begin; at is so long after it.
var trialZero = time.Date(2026, 11, 23, 12, 0, 0, 0, time.UTC)

func at(d time.Duration) time.Time { return trialZero.Add(d) }

// restartAt is a restart asked for at a moment: ready 100 ms later, the predecessor told after another 100 ms, and gone
// so long after that.
func restartAt(asked, drain time.Duration) turn {
	return turn{
		from: 1, to: 2, asked: at(asked), ready: at(asked + 100*time.Millisecond), by: "accept",
		told: at(asked + 200*time.Millisecond), gone: at(asked + 200*time.Millisecond + drain), status: "0",
	}
}

// lostAt is a request that was lost at a moment, after some time.
func lostAt(when, after time.Duration, kept bool, kind lossKind) outcome {
	return outcome{began: at(when - after), ended: at(when), kept: kept, loss: kind}
}

func TestJudge(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	quick, slow, killed := restartAt(s, 20*ms), restartAt(s, 2*s), restartAt(s, 9*s)
	killed.killed, killed.status = at(9200*ms), "SIGKILL"
	unhandled, late := quick, slow
	unhandled.status, late.slowest = "SIGTERM", 300*ms
	failed := turn{from: 1, to: 2, asked: at(s), failure: "exited 1 after 40ms, before ready"}
	for name, c := range map[string]struct {
		turn   turn
		losses []outcome
		edit   func(*observed)
		want   []string // regexps, one for each line but facts
	}{
		"nothing": {turn: quick, want: []string{`^14,210 requests, 1 restart, 0 lost$`}},
		"ends at once": {
			turn: quick,
			losses: []outcome{
				lostAt(1220*ms, 50*ms, false, lossReset), lostAt(1225*ms, 5*ms, true, lossUnanswered), lostAt(1230*ms, 90*ms, true, lossUnanswered),
			},
			want: []string{
				`^14,210 requests, 1 restart, 3 lost$`, `^  new +1 reset$`, `^  keep-alive +2 no answer$`,
				`^  why +ends 20 ms after TERM with 3 requests open; see docs/programs.md#go$`,
			},
		},
		"dies of the signal": {
			turn: unhandled, losses: []outcome{lostAt(1205*ms, 50*ms, false, lossUnanswered)},
			want: []string{` 1 lost$`, `^  new +1 no answer$`, `ends 20 ms after TERM with 1 request open: it dies of it, as without a handler; see`},
		},
		"drops while it drains": {
			turn: slow, losses: []outcome{lostAt(1300*ms, 5*ms, true, lossReset), lostAt(3190*ms, 5*ms, false, lossReset)},
			want: []string{
				` 2 lost$`, `new`, `keep-alive`,
				`drops what it has accepted after TERM: 1 request, before it has ended; see docs/programs.md#go$`,
				`ends 2.0 s after TERM with 1 request open; see`,
			},
		},
		"is killed": {
			turn: killed, losses: []outcome{lostAt(9150*ms, 7*s, true, lossReset)},
			want: []string{` 1 lost$`, `keep-alive`, `does not end within 8.0 s of TERM and is killed with 1 request open: `},
		},
		"successor is not ready": {
			turn: late, losses: []outcome{lostAt(1050*ms, 5*ms, false, lossReset)},
			want: []string{` 1 lost$`, `new`, `lost 1 request while .* side by side; answers 300ms after it was seen to be ready; ready by=accept$`},
		},
		"a client that waits is lost where it began": {
			turn: quick, losses: []outcome{lostAt(11150*ms, 10*s+100*ms, false, lossLate)},
			want: []string{` 1 lost$`, `^  new +1 timeout$`, `lost 1 request while .* side by side`},
		},
		"refused": {
			turn: quick, losses: []outcome{lostAt(1300*ms, 0, false, lossRefused)}, edit: func(o *observed) { o.spoilt = true },
			want: []string{` 1 lost$`, `^  new +1 refused$`, `connections are refused when it stops: 1; it calls shutdown\(2\) .*#how-to-drain$`},
		},
		"by itself, before any restart": {
			turn: quick, losses: []outcome{lostAt(500*ms, 5*ms, false, lossCut)},
			want: []string{` 1 lost$`, `^  new +1 cut short$`, `loses requests by itself, also without a restart: 1$`},
		},
		"by itself, after one": {
			turn: quick, losses: []outcome{lostAt(5*s, 5*ms, false, lossReset)},
			want: []string{` 1 lost$`, `new`, `loses requests by itself, also without a restart: 1$`},
		},
		"nobody serves": {
			turn: quick, edit: func(o *observed) { o.overlap, o.turns[0].ready = false, at(20*s) },
			losses: []outcome{lostAt(12*s, 10*s, false, lossLate)},
			want:   []string{` 1 lost$`, `new`, `1 request waited too long: nobody serves between`},
		},
		"the restart failed": {
			turn: failed,
			want: []string{`^14,210 requests, 1 of 1 restart failed, 0 lost$`, `^  why +generation 2 failed: exited 1 after 40ms, before ready$`},
		},
		"errors are told apart": {
			turn: quick, edit: func(o *observed) { o.errorsDuring = 4 },
			want: []string{` 0 lost$`, `^  why +4 answers of 500 and above during the restarts, none before them$`},
		},
		"errors as ever are not": {
			turn: quick, edit: func(o *observed) { o.errorsDuring, o.errorsBefore = 4, 1 },
			want: []string{` 0 lost$`},
		},
	} {
		t.Run(name, func(t *testing.T) {
			o := &observed{Requests: 14210, losses: c.losses, turns: []turn{c.turn}, signal: "TERM", manual: "go", overlap: true, calmSlowest: ms}
			if c.edit != nil {
				c.edit(o)
			}
			got := judge(o).lines()
			if len(got) != len(c.want) {
				t.Fatalf("got %d lines, want %d:\n%s", len(got), len(c.want), strings.Join(got, "\n"))
			}
			for i, want := range c.want {
				if !regexp.MustCompile(want).MatchString(got[i]) {
					t.Errorf("line %d is %q, want %s", i+1, got[i], want)
				}
			}
		})
	}
}

// TestJudgeSpan: several restarts are one line, with the least and the most.
func TestJudgeSpan(t *testing.T) {
	const s, ms = time.Second, time.Millisecond
	o := &observed{turns: []turn{restartAt(s, 20*ms), restartAt(3*s, 40*ms)}, signal: "TERM", manual: "go", overlap: true}
	o.losses = []outcome{lostAt(1220*ms, 0, false, lossReset), lostAt(3240*ms, 0, false, lossReset)}
	why := judge(o).Why
	if want := "ends 20 ms to 40 ms after TERM with 2 requests open; see docs/programs.md#go"; len(why) != 1 || why[0] != want {
		t.Errorf("got %q, want %q", why, want)
	}
}

// TestManuals: what a trial points to is there.
func TestManuals(t *testing.T) {
	text, err := os.ReadFile("docs/programs.md")
	if err != nil {
		t.Fatal(err)
	}
	parts := map[string]bool{}
	for _, found := range regexp.MustCompile(`(?m)^#+ (.*)$`).FindAllStringSubmatch(string(text), -1) {
		part := strings.ToLower(strings.ReplaceAll(found[1], " ", "-")) // as GitHub makes anchors
		parts[regexp.MustCompile(`[^a-z0-9_-]`).ReplaceAllString(part, "")] = true
	}
	for name, part := range manuals {
		if !parts[part] {
			t.Errorf("%s: docs/programs.md has no part #%s", name, part)
		}
	}
	if !parts[manualForAll] {
		t.Errorf("docs/programs.md has no part #%s", manualForAll)
	}
}

func TestManualFor(t *testing.T) {
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	script := t.TempDir() + "/app"
	if err := os.WriteFile(script, []byte("#!/usr/bin/env python3\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]string{
		"/usr/bin/node": "node", "/opt/python3.12": "python-asyncio", script: "python-asyncio", self: "go", "/usr/sbin/nginx": "nginx", "/usr/sbin/php-fpm8.2": "php-fpm",
		"/usr/bin/uwsgi_python3": "uwsgi", "/usr/sbin/squid": manualForAll, "": manualForAll,
	} {
		if got := manualFor(path); got != want {
			t.Errorf("%q: got %s, want %s", path, got, want)
		}
	}
}

func TestThousands(t *testing.T) {
	for n, want := range map[int]string{0: "0", 999: "999", 1000: "1,000", 14210: "14,210", 1234567: "1,234,567"} {
		if got := thousands(n); got != want {
			t.Errorf("got %s, want %s", got, want)
		}
	}
}
