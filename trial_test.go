package main

// This file tries what a trial makes of the command line, and of hotwrap's log.

import (
	"io"
	"os"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

// TestTrialOptions: of every option it was decided whether a trial keeps it.
func TestTrialOptions(t *testing.T) {
	for _, f := range (&config{}).options() {
		name := f.Names()[0]
		if slices.Contains(trialOptions, name) == slices.Contains(trialOwn, name) {
			t.Errorf("--%s: does a trial keep it (trialOptions), or has it its own (trialOwn)?", name)
		}
	}
}

// TestTrialArgs: a trial is given every option that it keeps, and every listener on a spare address.
func TestTrialArgs(t *testing.T) {
	given := []string{
		"-l", "8080", "-l", "[::1]:8080", "-l", "web=:80,backlog=7,freebind", "-l", "/run/a.sock,mode=0600", "-l", "udp::53", "-l", "unix:@x",
		"--no-overlap=false", "-e", "A=1", "--env-file", "env", "-u", "root", "-C", "/tmp", "--check", "true x", "--ready", "alive=2s",
		"--ready-timeout", "9s", "--stop-signal", "USR2", "-n", "3", "--surge", "2", "--respawn", "never:3", "--bake", "1h", "--drain-timeout", "1h",
		"-w", "--name", "x", "--http", ":1", "-q", "--", "./app", "-l", "{port}",
	}
	cfg, _, err := parseDoctor(given, nil)
	if err != nil {
		t.Fatal(err)
	}
	tr := newTryout(cfg, nil)
	tr.dir = "/tmp/private"
	args, err := tr.args()
	if err != nil {
		t.Fatal(err)
	}
	again, err := parseArgs(args, nil)
	if err != nil {
		t.Fatalf("%v: %q", err, args)
	}
	var listens []string
	for _, s := range again.listens {
		listens = append(listens, s.String())
	}
	want := []string{
		"8080=127.0.0.1:0", "8080-2=[::1]:0", "web=127.0.0.1:0,backlog=7", "a.sock=/tmp/private/a.sock.sock,mode=0600",
		"53=udp:127.0.0.1:0", "x=unix:@private-x",
	}
	if !slices.Equal(listens, want) {
		t.Errorf("listeners %q, want %q", listens, want)
	}
	for _, c := range []struct {
		name      string
		got, want any
	}{
		{"program", strings.Join(again.program, " "), "./app -l {port}"},
		{"workers", []int{again.workers.n, again.surge.n}, []int{3, 2}},
		{"overlap", []bool{again.overlapSet, again.noOverlap}, []bool{true, false}},
		{"user", again.user + again.dir + again.envFile + again.check, "root/tmpenvtrue x"},
		{"env", strings.Join(again.env, " "), "A=1"},
		{"ready", again.ready, readyValue{mode: readyAlive, alive: 2 * time.Second}},
		{"times", []time.Duration{again.readyTimeout.d, again.bake.d, again.drainTimeout.d}, []time.Duration{9 * time.Second, tryBake, tryDrain}},
		{"stop signal", signalName(again.stopSignal.sig), "SIGUSR2"},
		{"respawn", again.respawn, respawnValue{respawnNever, 3}},
		{"own", []any{again.watch.on, again.name, again.http, again.quiet}, []any{false, doctorName, "", false}},
	} {
		if got, want := plainText(c.got), plainText(c.want); got != want {
			t.Errorf("%s: %s, want %s", c.name, got, want)
		}
	}
}

// TestTrialHears: what hotwrap logs becomes what was observed.
func TestTrialHears(t *testing.T) {
	tr := newTryout(&config{}, nil)
	for _, line := range []string{
		`{"time":"2026-11-23T12:00:00Z","level":"INFO","msg":"listening on tcp 127.0.0.1:4711 as \"8080\"","fd":3}`,
		`{"time":"2026-11-23T12:00:00.1Z","level":"INFO","msg":"generation 1 ready; baking 1s","pid":9999999,"after":0.018,"by":"accept"}`,
		`{"time":"2026-11-23T12:00:01.1Z","level":"DEBUG","msg":"generation 1 serving"}`,
		`{"time":"2026-11-23T12:00:01.2Z","level":"INFO","msg":"generation 1 also listens on 127.0.0.1:9090; use -l NAME=127.0.0.1:9090 or --no-overlap","hint":true}`,
	} {
		tr.heard(parseLogLine([]byte(line + "\n")))
	}
	tr.seen.turns = []turn{{from: 1, asked: at(2 * time.Second)}}
	for _, line := range []string{
		`{"time":"2026-11-23T12:00:02.1Z","level":"INFO","msg":"generation 2 starting","pid":9999998,"build":"abcdef"}`,
		`a line of the program`,
		`a line without an end {"time":"2026-11-23T12:00:02.2Z","level":"INFO","msg":"generation 2 ready; baking 1s","pid":9999998,"after":0.1,"by":"notify"}`,
		`{"time":"2026-11-23T12:00:03.2Z","level":"INFO","msg":"generation 2 serving; generation 1 draining, 3 connections, up to 8s"}`,
		`{"time":"2026-11-23T12:00:11.2Z","level":"WARN","msg":"generation 1 did not end within 8s, killed: 3 connections"}`,
		`{"time":"2026-11-23T12:00:11.3Z","level":"INFO","msg":"generation 1 gone","status":"SIGKILL","drained":8.1}`,
		`{"time":"2026-11-23T12:00:11.4Z","level":"WARN","msg":"listener \"8080\" was spoilt: it was shut down"}`,
		`hotwrap: error: no such option --x`,
	} {
		tr.heard(parseLogLine([]byte(line + "\n")))
	}
	got := tr.seen.turns[0]
	want := turn{
		from: 1, to: 2, asked: at(2 * time.Second), ready: at(2200 * time.Millisecond), by: "notify", after: 100 * time.Millisecond,
		told: at(3200 * time.Millisecond), gone: at(11300 * time.Millisecond), status: "SIGKILL", killed: at(11200 * time.Millisecond),
	}
	if got != want {
		t.Errorf("got  %+v\nwant %+v", got, want)
	}
	if l := (loadTarget{name: "8080", network: "tcp", addr: "127.0.0.1:4711"}); len(tr.listens) != 1 || tr.listens[0] != l {
		t.Errorf("listeners %v", tr.listens)
	}
	complaints := []string{
		"the program also listens on 127.0.0.1:9090; use -l NAME=127.0.0.1:9090 or --no-overlap", `listener "8080" was spoilt: it was shut down`,
	}
	if !slices.Equal(tr.complaints, complaints) || !tr.seen.spoilt {
		t.Errorf("complaints %q", tr.complaints)
	}
	if !slices.Equal(tr.words, []string{"a line of the program"}) || tr.fault != "no such option --x" || tr.serving != 2 || !tr.gone[1] {
		t.Errorf("got %q, %q, serving %d, gone %v", tr.words, tr.fault, tr.serving, tr.gone)
	}
}

// TestTrialInterrupted: the exit status tells which signal it was.
func TestTrialInterrupted(t *testing.T) {
	for _, sig := range []syscall.Signal{syscall.SIGINT, syscall.SIGTERM} {
		tr := newTryout(&config{}, nil)
		tr.signals <- sig
		if status := tr.explain(tr.pass(time.Hour), io.Discard); status != 128+int(sig) {
			t.Errorf("%v: status %d", sig, status)
		}
	}
}

// TestTrialWords: of what the program wrote the last lines are kept, however much it was, as plain text.
func TestTrialWords(t *testing.T) {
	tr := newTryout(&config{}, nil)
	tr.dir = t.TempDir()
	text := strings.Repeat("x\n", 100_000) + "\x1b]0;title\x07last\n"
	if err := os.WriteFile(tr.outputFile(), []byte(text), 0o600); err != nil {
		t.Fatal(err)
	}
	tr.lastWords()
	if n := len(tr.words); n != trialWords || tr.words[n-1] != "]0;titlelast" {
		t.Errorf("%d lines: %q", n, tr.words)
	}
}
