package main

// This file is the shim: hotwrap started once more for each worker, to take on what the program is to
// have (its own pid in LISTEN_PID, user, directory, clean descriptors and signals) and become it.
//
// Its rules: it runs before flags exist, keeps to the main thread, allocates little, and has one way to
// fail: errno and what it was doing, written to the report pipe.

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// shimMark is the first argument of a shim. It is an argument, not argv[0]: that is the user's to see.
const (
	shimMark = "_shim"
	lookMark = "_look"
)

// shim is what one is told to do.
type shim struct {
	report   int // descriptor for errno; -1 none
	dir, exe int // descriptors; -1 none
	path     string
	keep     []int // descriptors above stderr that the program keeps
	uid, gid int   // -1: as they are
	groups   []int
	parent   int // die with this process; 0 no
	argv     []string
}

// shimMain becomes the program that args describe; it returns only if that failed.
func shimMain(args []string) int {
	s := parseShim(args)
	doing, err := s.become()
	errno, _ := err.(syscall.Errno)
	if s.report >= 0 {
		_, _ = unix.Write(s.report, fmt.Appendf(nil, "%d %s", int(errno), doing))
	} else {
		fmt.Fprintf(os.Stderr, "hotwrap: error: cannot %s: %v\n", doing, err)
	}
	if errno == syscall.ENOENT {
		return statusNotFound
	}
	return statusNoExec
}

func parseShim(args []string) shim {
	s := shim{report: -1, dir: -1, exe: -1, uid: -1, gid: -1}
	for i, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "report":
			s.report = n
		case "dir":
			s.dir = n
		case "exe":
			s.exe = n
		case "path":
			s.path = value
		case "keep":
			s.keep = splitInts(value)
		case "uid":
			s.uid = n
		case "gid":
			s.gid = n
		case "groups":
			s.groups = splitInts(value)
		case "parent":
			s.parent = n
		case "--":
			s.argv = args[i+1:]
			return s
		}
	}
	return s
}

func splitInts(text string) []int {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		if n, err := strconv.Atoi(part); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// become does the work; what it was doing comes with the error.
func (s shim) become() (doing string, err error) {
	if err := closeOnExecExcept(s.keep); err != nil {
		return "mark descriptors close-on-exec", err
	}
	if s.dir >= 0 {
		if err := unix.Fchdir(s.dir); err != nil {
			return "enter the program's directory", err
		}
	}
	if doing, err := s.takeIdentity(); err != nil {
		return doing, err
	}
	if s.parent != 0 {
		if err := dieWith(s.parent); err != nil {
			return "tie the worker to hotwrap (PDEATHSIG)", err
		}
	}
	env := stamp(os.Environ())
	resetSignals()
	return "execute", execute(s.exe, s.path, s.argv, env)
}

// takeIdentity sets groups before user: afterwards the right to is gone.
func (s shim) takeIdentity() (doing string, err error) {
	if s.uid < 0 {
		return "", nil
	}
	if err := syscall.Setgroups(s.groups); err != nil {
		return "take on the user's groups", err
	}
	if err := syscall.Setgid(s.gid); err != nil {
		return "take on the group", err
	}
	if err := syscall.Setuid(s.uid); err != nil {
		return "take on the user", err
	}
	return "", nil
}

// stamp names this process, whose pid the program will have, as the one that the descriptors and the
// watchdog are meant for (sd_listen_fds(3), sd_watchdog_enabled(3)).
func stamp(env []string) []string {
	pid := strconv.Itoa(os.Getpid())
	if getenv(env, "LISTEN_FDS") != "" {
		env = setenv(env, "LISTEN_PID", pid)
		env = unsetenv(env, "LISTEN_PIDFDID")
		if id, ok := ownPidfdID(); ok {
			env = setenv(env, "LISTEN_PIDFDID", strconv.FormatUint(id, 10))
		}
	}
	if getenv(env, "WATCHDOG_USEC") != "" {
		env = setenv(env, "WATCHDOG_PID", pid)
	}
	return env
}

// execMain is `hotwrap exec -- PROGRAM`: inside a script it stamps LISTEN_PID anew, for launchers that
// put a process in between. It returns only if that failed.
func execMain(argv []string) error {
	runtime.LockOSThread()
	env := stamp(os.Environ())
	n, _ := strconv.Atoi(getenv(env, "LISTEN_FDS"))
	for fd := 3; fd < 3+n; fd++ {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil {
			return &execError{
				text: fmt.Sprintf("cannot pass on descriptor %d: it did not survive the launcher", fd), code: statusFailed,
				hint: "node, sudo and Python's subprocess close it; start the program without them",
			}
		}
	}
	dir, err := os.Getwd()
	if err != nil {
		return fmt.Errorf("cannot find the current directory: %v", err)
	}
	path, err := (&program{dir: dir}).find(argv[0], env)
	if err != nil {
		return err
	}
	return cannotStart(argv[0], syscall.Exec(filepath.Clean(path), argv, env))
}

// answer is what a helper says it saw.
type answer struct {
	PIDs    []int           `json:"pids"`
	Watches map[uint64]bool `json:"watches"`
	Blind   string          `json:"blind"`
}

// printView writes a view for lookAsUser to read.
func printView(v view) int {
	if json.NewEncoder(os.Stdout).Encode(answer{v.pids, v.watches, v.blind}) != nil {
		return statusFailed
	}
	return 0
}

// lookMain is the helper that looks at a process with that process's own user id; it prints what it saw.
func lookMain(args []string) int {
	s := parseShim(args)
	if doing, err := s.takeIdentity(); err != nil {
		return printView(view{blind: fmt.Sprintf("cannot %s: %v", doing, err)})
	}
	if len(s.argv) == 0 {
		return statusFailed
	}
	pid, _ := strconv.Atoi(s.argv[0])
	var inodes []uint64
	for _, text := range s.argv[1:] {
		inode, _ := strconv.ParseUint(text, 10, 64)
		inodes = append(inodes, inode)
	}
	return printView(look(pid, inodes))
}

// getenv, setenv and unsetenv work on a list of KEY=VALUE; the last of a key counts.
func getenv(env []string, key string) string {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v
		}
	}
	return ""
}

func setenv(env []string, key, value string) []string {
	return append(unsetenv(env, key), key+"="+value)
}

func unsetenv(env []string, key string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == key
	})
}

// markOneByOne marks every descriptor from 3 on but keep close-on-exec, where close_range(2) is missing.
func markOneByOne(keep []int) error {
	most, err := openLimit()
	if err != nil {
		return err
	}
	for fd := 3; fd < most; fd++ {
		if !slices.Contains(keep, fd) {
			unix.CloseOnExec(fd) // one that is not open is no harm
		}
	}
	return nil
}

// openLimit is above every descriptor that can be open, but not beyond what a loop can bear.
func openLimit() (int, error) {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return 0, err
	}
	return int(min(uint64(lim.Cur), 1<<16)), nil //nolint:unconvert // FreeBSD counts in int64
}
