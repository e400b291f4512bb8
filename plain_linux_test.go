package main

// This file runs servers that know nothing of hotwrap: they bind by themselves, take no socket, say nothing and end at
// once, by KILL. They are those of docs/programs.md, by its command lines and files, as in programs_linux_test.go.
//
// Its rules:
//   - A connection is idle when no byte has passed for longer than a drain waits for one. A client that finds its idle
//     connection ended, or that gets no byte of an answer on it, asks once more on a new one, as every client of HTTP
//     does (RFC 9112, 9.3.1); that is no loss. Anything else that is not a whole answer is one.
//   - New connections lose nothing, and idle ones neither; what kept connections in use may lose says the page.

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"
)

const (
	plainHeading  = "Programs that bind by themselves"
	plainRestarts = 5                       // HOTWRAP_TEST_RESTARTS is another number
	plainAlways   = 3                       // with --adopt always,
	plainBetween  = 800                     // and requests after each: time for the idle ones
	plainIdlers   = 12                      // clients on idle connections
	idleLeast     = 1200 * time.Millisecond // that one of them leaves its connection alone: longer than a drain waits for a byte,
	idleMore      = 1500 * time.Millisecond // and at most so much more
)

// restartsAsked is how often a test restarts: other is what is enough for every change.
func restartsAsked(t *testing.T, other int) int {
	t.Helper()
	text := os.Getenv("HOTWRAP_TEST_RESTARTS")
	if text == "" {
		return other
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 1 {
		t.Fatalf("HOTWRAP_TEST_RESTARTS=%q is not a number of restarts", text)
	}
	return n
}

// TestPlainPrograms restarts every program of that part of the page under load. With -v it prints the rows of its table.
func TestPlainPrograms(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many servers")
	}
	for adopt, rounds := range map[string]int{"auto": restartsAsked(t, plainRestarts), "always": plainAlways} {
		for _, d := range documentedPrograms(t, plainHeading) {
			t.Run(adopt+"/"+d.name, func(t *testing.T) {
				d.skipMissing(t)
				newPlainRun(t, d, rounds, adopt).run()
			})
		}
	}
}

// plainRun is a run of such a program, with clients on idle connections beside the others.
type plainRun struct {
	*programRun
	idle <-chan idleTally
}

func newPlainRun(t *testing.T, d *documented, rounds int, adopt string) *plainRun {
	p := &plainRun{programRun: newProgramRun(t, d, rounds)}
	p.environ = append(p.environ, "HOTWRAP_ADOPT="+adopt)
	if adopt == "always" { // kept connections in use are cut soon, so that idle ones are ended, too
		p.environ, p.most[true], p.between = append(p.environ, "HOTWRAP_DRAIN_TIMEOUT=4s"), 1, plainBetween
	}
	p.beside = func(ctx context.Context, target loadTarget) { p.idle = startIdlers(ctx, target) }
	return p
}

// run is the whole course, and what it must come to.
func (p *plainRun) run() {
	p.programRun.run()
	idle := <-p.idle
	p.t.Logf("| %s | %d of %d idle; %d found their connection ended, %d asked again", p.name, idle.lost, idle.kept, idle.ended, idle.again)
	for _, text := range idle.losses {
		p.t.Errorf("lost, idle: %s", text)
	}
	if lost := kindsOf(p.seen.losses, false); len(lost) > 0 {
		p.t.Errorf("lost, new connections: %v", lost)
	}
	adopted := regexp.MustCompile(`"[^"]+" binds \S*:` + p.port + ` itself; adopted`)
	if !slices.ContainsFunc(p.said, adopted.MatchString) {
		p.t.Errorf("nothing matches %s:\n%s", adopted, strings.Join(p.said[:min(len(p.said), programLines)], "\n"))
	}
}

// idleTally is what became of the requests on idle connections.
type idleTally struct {
	kept   int // requests of a client that had such a connection
	ended  int // of them, found it ended before they were sent
	again  int // were sent on it, got no byte, and were sent once more
	lost   int
	losses []string // the first few
}

func (t *idleTally) add(other idleTally) {
	t.kept, t.ended, t.again, t.lost = t.kept+other.kept, t.ended+other.ended, t.again+other.again, t.lost+other.lost
	t.losses = append(t.losses, other.losses...)
}

// startIdlers starts clients that ask rarely. When ctx ends each finishes the request in hand; then their sum is sent.
func startIdlers(ctx context.Context, target loadTarget) <-chan idleTally {
	each, sum := make(chan idleTally), make(chan idleTally, 1)
	var all sync.WaitGroup
	for range plainIdlers {
		all.Go(func() {
			a := &idler{guest: guest{target: target, limit: loadPatience, keep: true}}
			each <- a.run(ctx)
		})
	}
	go func() {
		all.Wait()
		close(each)
	}()
	go func() {
		var total idleTally
		for t := range each {
			total.add(t)
		}
		sum <- total
	}()
	return sum
}

// idler is one such client.
type idler struct {
	guest
	tally idleTally
}

func (a *idler) run(ctx context.Context) idleTally {
	defer a.hangUp()
	for ctx.Err() == nil {
		a.askRarely(ctx)
		wait(ctx, idleLeast+rand.N(idleMore))
	}
	return a.tally
}

// askRarely asks, and once more where the rule lets it.
func (a *idler) askRarely(ctx context.Context) {
	had := a.conn != nil
	o := a.ask(ctx)
	if had {
		a.tally.kept++
		if !o.kept {
			a.tally.ended++
		}
	}
	if o.kept && (o.loss == lossReset || o.loss == lossUnanswered) {
		a.tally.again++
		o = a.ask(ctx)
	}
	if o.loss == lossNone && o.own == nil {
		return
	}
	if a.tally.lost++; len(a.tally.losses) < shownErrors {
		a.tally.losses = append(a.tally.losses, fmt.Sprintf("%s, %v after %v", o.loss, o.own, o.ended.Sub(o.began)))
	}
}
