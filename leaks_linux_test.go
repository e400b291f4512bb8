package main

// This file restarts very often, and looks what hotwrap has left of it.
//
// Its rule: what is compared is one hotwrap with itself, after its first restarts and after the last.

import (
	"bufio"
	"errors"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
	"time"
)

const (
	leakRestarts = 100     // HOTWRAP_TEST_RESTARTS is another number
	leakWarm     = 20      // restarts after which it has what it needs
	leakSome     = 3       // descriptors and threads that may be there for a moment: a socket that cannot be closed yet, a timer's thread
	leakLooks    = 300     // hotwrap looks at its last worker for a while, and has more descriptors then
	leakMemory   = 3 << 10 // KiB that the collector may be late with
)

// TestManyRestarts: however often it restarts, hotwrap has no more descriptors, threads, goroutines and memory.
func TestManyRestarts(t *testing.T) {
	if testing.Short() {
		t.Skip("restarts often")
	}
	bin, err := buildApps()
	if err != nil {
		t.Fatal(err)
	}
	released, err := benchBinaries() // with the race detector memory says nothing
	if err != nil {
		t.Fatal(err)
	}
	n := restartsAsked(t, leakRestarts)
	for name, command := range map[string][]string{
		"inherits":       {filepath.Join(bin, "quiet")},
		"binds itself":   {filepath.Join(bin, "plain"), "{addr}"},
		"shared sockets": {filepath.Join(bin, "quiet")},
	} {
		t.Run(name, func(t *testing.T) {
			h := startOften(t, filepath.Join(released, "hotwrap"), name == "shared sockets", command)
			h.restart(2, leakWarm)
			warm := h.has()
			h.restart(leakWarm+1, leakWarm+n)
			last := h.has()
			t.Logf("after %d restarts %+v, after %d %+v, goroutines at the end %d", leakWarm, warm, leakWarm+n, last, h.goroutines())
			if last.descriptors > warm.descriptors+leakSome || last.threads > warm.threads+leakSome || last.memory > warm.memory+leakMemory {
				t.Errorf("%d more restarts made %+v of %+v", n, last, warm)
			}
		})
	}
}

// often is a hotwrap that is restarted often.
type often struct {
	t      *testing.T
	cmd    *exec.Cmd
	pipe   *os.File
	log    *bufio.Scanner
	worker int // the last one
	served int // the last generation
	gone   int // generations
}

var oftenLine = regexp.MustCompile(`^hotwrap: generation (\d+) (ready|serving|gone)(?: pid=(\d+))?`)

func startOften(t *testing.T, hotwrap string, share bool, command []string) *often {
	h := &often{t: t, cmd: exec.Command(hotwrap, append([]string{"-l", "127.0.0.1:0", "--bake", "0", "--"}, command...)...)}
	h.cmd.Env = append(os.Environ(), "HOTWRAP_RUNTIME_DIR="+t.TempDir())
	if share {
		h.cmd.Env = append(h.cmd.Env, "HOTWRAP_SHARE=1")
	}
	stderr, err := h.cmd.StderrPipe()
	if err == nil {
		err = h.cmd.Start()
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { // ABRT may have taken it; its last worker then is left
		_ = h.cmd.Process.Kill()
		_ = syscall.Kill(h.worker, syscall.SIGKILL)
		_ = h.cmd.Wait()
	})
	h.pipe, h.log = stderr.(*os.File), bufio.NewScanner(stderr)
	h.hear("a first generation", func() bool { return h.worker > 0 })
	return h
}

// hear reads the log until done.
func (h *often) hear(what string, done func() bool) {
	h.t.Helper()
	_ = h.pipe.SetReadDeadline(time.Now().Add(patience))
	for !done() {
		if !h.log.Scan() {
			h.t.Fatalf("waiting for %s: %v; generation %d serves, %d are gone; the last line: %s", what, h.log.Err(), h.served, h.gone, h.log.Text())
		}
		found := oftenLine.FindStringSubmatch(h.log.Text())
		if found == nil {
			continue
		}
		switch found[2] {
		case "ready":
			h.worker, _ = strconv.Atoi(found[3])
		case "serving":
			h.served, _ = strconv.Atoi(found[1])
		case "gone":
			h.gone++
		}
	}
}

// restart restarts until generation to serves alone. Meanwhile several may drain.
func (h *often) restart(from, to int) {
	h.t.Helper()
	for n := from; n <= to; n++ {
		if err := h.cmd.Process.Signal(syscall.SIGHUP); err != nil {
			h.t.Fatal(err)
		}
		h.hear("the next generation", func() bool { return h.served == n })
	}
	h.hear("the end of the others", func() bool { return h.gone == to-1 })
}

// holdings are what a process has.
type holdings struct {
	descriptors, threads int
	memory               int // KiB, its own
}

func (h *often) has() holdings {
	h.t.Helper()
	pid := h.cmd.Process.Pid
	files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid))
	tasks, err2 := os.ReadDir(fmt.Sprintf("/proc/%d/task", pid))
	text, err3 := os.ReadFile(fmt.Sprintf("/proc/%d/status", pid))
	if err := errors.Join(err, err2, err3); err != nil {
		h.t.Fatal(err)
	}
	_, rest, _ := strings.Cut(string(text), "RssAnon:")
	memory, _ := strconv.Atoi(strings.Fields(rest)[0])
	least := len(files)
	for range leakLooks {
		if files, err := os.ReadDir(fmt.Sprintf("/proc/%d/fd", pid)); err == nil {
			least = min(least, len(files))
		}
	}
	return holdings{least, len(tasks), memory}
}

// goroutines ends hotwrap by ABRT, at which the runtime prints them all, and counts them.
func (h *often) goroutines() (n int) {
	_ = h.pipe.SetReadDeadline(time.Now().Add(patience))
	_ = h.cmd.Process.Signal(syscall.SIGABRT)
	for h.log.Scan() {
		if strings.HasPrefix(h.log.Text(), "goroutine ") {
			n++
			_ = syscall.Kill(h.worker, syscall.SIGKILL) // it has the pipe too
		}
	}
	return n
}
