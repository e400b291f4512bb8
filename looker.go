package main

// This file is the helper that looks at a worker with the worker's own user id, where hotwrap may not:
// root without CAP_SYS_PTRACE, as in a container, cannot see into another user's process.

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"strconv"
	"time"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

const (
	lookMark     = "_look"         // the helper's first argument
	lookPatience = 5 * time.Second // for its answer
)

// lookAsUser forks a helper with the program's user id that looks at pid; the function returned reads
// what it saw, and may block. Where no helper can be had just now it sees nothing, and says that more could be seen.
func (p *program) lookAsUser(pid int, inodes []uint64) func() view {
	cannot := func(err error) func() view {
		for _, full := range []error{unix.EAGAIN, unix.EMFILE, unix.ENFILE} { // a limit that others have reached
			if errors.Is(err, full) {
				return func() view { return view{denied: true} }
			}
		}
		return func() view { return view{blind: fmt.Sprintf("cannot ask a helper: %v", err)} }
	}
	r, w, err := os.Pipe()
	if err != nil {
		return cannot(err)
	}
	defer w.Close()
	spec := p.identity()
	spec.Argv = []string{strconv.Itoa(pid)}
	for _, inode := range inodes {
		spec.Argv = append(spec.Argv, strconv.FormatUint(inode, 10))
	}
	if _, err := fork(spec.Args(lookMark), nil, []uintptr{uintptr(p.null), w.Fd(), uintptr(p.null)}, nil); err != nil {
		_ = r.Close()
		return cannot(err)
	}
	return func() view {
		defer r.Close()
		_ = r.SetReadDeadline(time.Now().Add(lookPatience))
		var a answer
		if err := json.NewDecoder(io.LimitReader(r, 1<<20)).Decode(&a); err != nil {
			return view{blind: fmt.Sprintf("cannot ask a helper: %v", err)}
		}
		return view{pids: a.PIDs, watches: a.Watches, watcher: a.Watcher, blind: a.Blind}
	}
}

// answer is what a helper says it saw.
type answer struct {
	PIDs    []int           `json:"pids"`
	Watches map[uint64]bool `json:"watches"`
	Watcher int             `json:"watcher,omitempty"`
	Blind   string          `json:"blind"`
}

// printView writes a view for lookAsUser to read.
func printView(v view) int {
	if json.NewEncoder(os.Stdout).Encode(answer{v.pids, v.watches, v.watcher, v.blind}) != nil {
		return statusFailed
	}
	return 0
}

// lookMain is the helper that looks at a process with that process's own user id; it prints what it saw.
func lookMain(args []string) int {
	s := shim.Parse(args)
	if doing, err := s.TakeIdentity(); err != nil {
		return printView(view{blind: fmt.Sprintf("cannot %s: %v", doing, err)})
	}
	if len(s.Argv) == 0 {
		return statusFailed
	}
	pid, _ := strconv.Atoi(s.Argv[0])
	var inodes []uint64
	for _, text := range s.Argv[1:] {
		inode, _ := strconv.ParseUint(text, 10, 64)
		inodes = append(inodes, inode)
	}
	return printView(look(pid, inodes))
}
