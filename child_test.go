package main

// This file starts processes that tests look at; each lives until the test is over, or until its input ends.

import (
	"bufio"
	"os/exec"
	"testing"
)

// startChild starts cmd and gives what it writes, for the first line, by which it says that it is there.
func startChild(t testing.TB, cmd *exec.Cmd) *bufio.Reader {
	t.Helper()
	stdin, err := cmd.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = stdin.Close()
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	return bufio.NewReader(stdout)
}
