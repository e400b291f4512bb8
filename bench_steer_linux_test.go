package main

// This file measures what steering and adoption cost, and what clients notice of a restart: each way beside the
// program alone, in one run and in turn. Nothing here fails for being slow; docs/steering.md has the figures.

import (
	"context"
	"fmt"
	"net"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	steerRounds  = 5               // of all ways in turn; the median counts
	steerClients = 8               // as fast as they are answered
	pauseTime    = 4 * time.Second // of load, without restarts and with them
)

// benchWay is one way in which a program gets its connections.
type benchWay struct {
	name  string
	share bool // HOTWRAP_SHARE=1
	args  []string
}

// benchWays are all of them, but the program alone.
func benchWays(b *testing.B) []benchWay {
	quiet, plain := benchBinary(b, "quiet"), benchBinary(b, "plain")
	return []benchWay{
		{"steered", false, []string{"--", quiet}},
		{"shared", true, []string{"--", quiet}},
		{"adopted", false, []string{"--", plain, "{addr}"}},
	}
}

// wrap starts the way's hotwrap. The second generation serves then: from the first restart on more can be different.
func (way benchWay) wrap(b *testing.B) *wrapped {
	if way.share {
		b.Setenv("HOTWRAP_SHARE", "1")
	} else {
		b.Setenv("HOTWRAP_SHARE", "")
		_ = os.Unsetenv("HOTWRAP_SHARE") // Setenv puts it back
	}
	w := wrapCommand(b, way.args...)
	_ = w.cmd.Process.Signal(syscall.SIGHUP)
	w.await("generation 1 gone")
	return w
}

// BenchmarkSteerConnections: new connections a second, one request each, against the program alone. Goal: 1.00.
func BenchmarkSteerConnections(b *testing.B) {
	benchRatios(b, func(addr string) int { return countIn(func(until time.Time) int { return connecting(addr, until) }) })
}

// BenchmarkSteerRequests: requests a second on kept connections, against the program alone. Goal: 1.00.
func BenchmarkSteerRequests(b *testing.B) {
	benchRatios(b, func(addr string) int { return countIn(func(until time.Time) int { return client(addr, until) }) })
}

// benchRatios counts for each way and for the program alone, in turn, and reports the medians of the ratios.
func benchRatios(b *testing.B, count func(addr string) int) {
	for b.Loop() {
		ways := benchWays(b)
		ratios, times := map[string][]float64{}, []time.Duration{}
		_, alone := direct(b, true)
		addrs := map[string]string{}
		for _, way := range ways {
			addrs[way.name] = way.wrap(b).addr
		}
		for range steerRounds {
			plain := count(alone)
			times = append(times, time.Duration(steerClients)*loadTime/time.Duration(max(plain, 1)))
			for _, way := range ways {
				ratios[way.name] = append(ratios[way.name], float64(count(addrs[way.name]))/float64(plain))
			}
		}
		for name, all := range ratios {
			slices.Sort(all)
			b.ReportMetric(all[len(all)/2], name+"-ratio")
			b.ReportMetric(all[len(all)-1]-all[0], name+"-spread")
		}
		b.ReportMetric(float64(median(times))/float64(time.Microsecond), "alone-µs")
	}
}

// countIn adds up what the clients count in loadTime.
func countIn(client func(until time.Time) int) (sum int) {
	counts, until := make(chan int), time.Now().Add(loadTime)
	for range steerClients {
		go func() { counts <- client(until) }()
	}
	for range steerClients {
		sum += <-counts
	}
	return sum
}

// connecting asks on new connections. Each is ended by a reset, or the ports of loopback were used up.
func connecting(addr string, until time.Time) (n int) {
	for buf := make([]byte, 4096); time.Now().Before(until); n++ {
		conn, err := net.Dial("tcp", addr)
		if err != nil {
			return n
		}
		_ = conn.SetDeadline(until.Add(5 * time.Second))
		_, err = conn.Write([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
		if err == nil {
			_, err = conn.Read(buf)
		}
		_ = conn.(*net.TCPConn).SetLinger(0)
		_ = conn.Close()
		if err != nil {
			return n
		}
	}
	return n
}

// BenchmarkSteerRestart: HUP to the successor's first answer for each way, less the program's own start.
func BenchmarkSteerRestart(b *testing.B) {
	for _, way := range benchWays(b) {
		b.Run(way.name, func(b *testing.B) {
			benchRestarts(b, way.wrap(b), 3)
		})
	}
}

// BenchmarkSteerPause: the longest that any client waits for an answer, without restarts and with one after the other,
// for each way; also what 999 of 1,000 wait at the most, and what is lost.
func BenchmarkSteerPause(b *testing.B) {
	for _, way := range benchWays(b) {
		b.Run(way.name, func(b *testing.B) {
			benchPause(b, "restarts", way.wrap, func(w *wrapped, i int) {
				_ = w.cmd.Process.Signal(syscall.SIGHUP)
				w.await(fmt.Sprintf("generation %d serving", i+3))
			})
		})
	}
}

// benchPause reports how long clients wait at the most while nothing happens, and while something (what) is done again and again, for
// the time i of this hotwrap, counted from 0.
func benchPause(b *testing.B, what string, start func(*testing.B) *wrapped, do func(w *wrapped, i int)) {
	worst := map[string][]time.Duration{}
	lost, requests, times := 0, 0, 0
	for b.Loop() {
		w := start(b)
		calm, _ := latencies(w.addr, nil)
		busy, failed := latencies(w.addr, func(ctx context.Context) {
			for i := 0; ctx.Err() == nil; i++ {
				do(w, i)
				times++
			}
		})
		for name, all := range map[string][]time.Duration{"calm": calm, what: busy} {
			slices.Sort(all)
			worst[name+"-max-ms"] = append(worst[name+"-max-ms"], all[len(all)-1])
			worst[name+"-p999-ms"] = append(worst[name+"-p999-ms"], all[len(all)*999/1000])
		}
		lost, requests = lost+failed, requests+len(busy)
		w.stop()
	}
	for name, all := range worst {
		b.ReportMetric(ms(median(all)), name)
	}
	b.ReportMetric(float64(lost), "lost")
	b.ReportMetric(float64(requests), "requests")
	b.ReportMetric(float64(times), what)
}

// latencies is how long each answer took of clients that ask on new connections for pauseTime, while something is done;
// and how many got none.
func latencies(addr string, meanwhile func(context.Context)) (took []time.Duration, lost int) {
	ctx, cancel := context.WithTimeout(context.Background(), pauseTime)
	defer cancel()
	out := make(chan outcome)
	for range steerClients {
		go func() {
			a := &guest{target: loadTarget{network: "tcp", addr: addr, speaks: spokenHTTP}, limit: loadPatience}
			a.run(ctx, out)
			out <- outcome{status: -1}
		}()
	}
	done := make(chan struct{})
	go func() {
		defer close(done)
		if meanwhile != nil {
			meanwhile(ctx)
		}
	}()
	for left := steerClients; left > 0; {
		switch o := <-out; {
		case o.status == -1:
			left--
		case o.loss != lossNone || o.own != nil:
			lost++
		default:
			took = append(took, o.ended.Sub(o.began))
		}
	}
	<-done
	return took, lost
}

// BenchmarkPlainRestart: what the restart of a service manager loses, which ends the program and starts it again, against a
// restart by hotwrap: the program is one that binds by itself and has no handler for its stop signal.
func BenchmarkPlainRestart(b *testing.B) {
	b.Run("alone", func(b *testing.B) {
		for b.Loop() {
			restartsAlone(b)
		}
	})
}

const aloneRestarts = 20

// restartsAlone ends the program and starts it again, under load.
func restartsAlone(b *testing.B) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		b.Fatal(err)
	}
	addr := l.Addr().String()
	_ = l.Close()
	pid := startPlain(b, addr)
	restarts := 0
	took, lost := latencies(addr, func(ctx context.Context) {
		for ; restarts < aloneRestarts && ctx.Err() == nil; restarts++ {
			wait(ctx, pauseTime/(2*aloneRestarts))
			_ = syscall.Kill(pid, syscall.SIGTERM)
			_, _ = syscall.Wait4(pid, nil, 0, nil)
			pid = startPlain(b, addr)
		}
	})
	_ = syscall.Kill(pid, syscall.SIGKILL)
	_, _ = syscall.Wait4(pid, nil, 0, nil)
	b.ReportMetric(float64(lost), "lost")
	b.ReportMetric(float64(lost+len(took)), "requests")
	b.ReportMetric(float64(restarts), "restarts")
	b.ReportMetric(ms(slices.Max(took)), "max-ms")
}

// startPlain starts the program that binds by itself, and waits until it answers.
func startPlain(b *testing.B, addr string) int {
	pid, err := syscall.ForkExec(benchBinary(b, "plain"), []string{"plain", addr}, &syscall.ProcAttr{Env: os.Environ(), Files: []uintptr{0, 1, 2}})
	if err != nil {
		b.Fatal(err)
	}
	for !strings.Contains(fetchOnce(addr), " pid "+strconv.Itoa(pid)+" ") {
	}
	return pid
}
