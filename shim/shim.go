// Package shim is what hotwrap is between fork and the program: started once more for each worker, it
// takes on what the program is to have (its own pid in LISTEN_PID, user, directory, clean descriptors and
// signals) and becomes it.
//
// Its rules: it keeps to the main thread, imports little, and has one way to fail: errno and what it was
// doing, written to the report pipe.
package shim

import (
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

// Mark is the first argument of a shim. It is an argument, not argv[0]: that is the user's to see.
const Mark = "_shim"

// Exit statuses of a program that could not be started, as a shell has them.
const (
	notExecutable = 126
	notFound      = 127
)

// init is why this is a package of its own: packages are initialised in the order of their import paths
// (go.dev/ref/spec#Program_initialization, since Go 1.21), so a shim is gone before the command line
// library, the regular expressions and the rest are set up. That is a third of its time.
func init() {
	if len(os.Args) > 1 && os.Args[1] == Mark {
		os.Exit(Parse(os.Args[2:]).Run()) //nolint:forbidigo // there is no main yet that could
	}
}

// Begun is the first that a shim writes to the report pipe: without it, it has ended before it was itself.
const Begun = "."

// Watching is what a shim was doing that could not have every bind and listen told: EBUSY is that a process
// above it has them told already, and of one call only one can be.
const Watching = "watch bind and listen (seccomp)"

// Spec is what a shim is told; descriptors are numbers in the shim, -1 stands for none.
type Spec struct {
	Report   int    // where Begun goes, and errno if it fails
	Dir, Exe int    // the program's directory, and its executable
	Path     string // run by it if it is Exe, or there is no Exe
	Keep     []int  // descriptors above stderr that the program keeps, sorted
	Adopt    int    // where the descriptor goes that tells of every bind and listen
	UID, GID int    // -1: as they are
	Groups   []int
	Parent   int // die with this process; 0 no
	Argv     []string
}

// New is a Spec that asks for nothing.
func New() Spec { return Spec{Report: -1, Dir: -1, Exe: -1, Adopt: -1, UID: -1, GID: -1} }

// Args are the arguments, after argv[0], of a shim that is to do what s says.
func (s Spec) Args(mark string) []string {
	args := []string{mark, "path=" + s.Path, "keep=" + join(s.Keep), "groups=" + join(s.Groups)}
	for key, n := range map[string]int{
		"report": s.Report, "dir": s.Dir, "exe": s.Exe, "adopt": s.Adopt, "uid": s.UID, "gid": s.GID, "parent": s.Parent,
	} {
		args = append(args, key+"="+strconv.Itoa(n))
	}
	return append(append(args, "--"), s.Argv...)
}

// Parse reads what Args wrote, without the mark.
func Parse(args []string) Spec {
	s := New()
	for i, arg := range args {
		key, value, _ := strings.Cut(arg, "=")
		n, _ := strconv.Atoi(value)
		switch key {
		case "report":
			s.Report = n
		case "dir":
			s.Dir = n
		case "exe":
			s.Exe = n
		case "adopt":
			s.Adopt = n
		case "path":
			s.Path = value
		case "keep":
			s.Keep = split(value)
		case "uid":
			s.UID = n
		case "gid":
			s.GID = n
		case "groups":
			s.Groups = split(value)
		case "parent":
			s.Parent = n
		case "--":
			s.Argv = args[i+1:]
			return s
		}
	}
	return s
}

func join(list []int) string {
	text := make([]string, len(list))
	for i, n := range list {
		text[i] = strconv.Itoa(n)
	}
	return strings.Join(text, ",")
}

func split(text string) []int {
	var list []int
	for part := range strings.SplitSeq(text, ",") {
		if n, err := strconv.Atoi(part); err == nil {
			list = append(list, n)
		}
	}
	return list
}

// Run becomes the program; it returns, with an exit status, only if that failed.
func (s Spec) Run() int {
	if s.Report >= 0 {
		_, _ = unix.Write(s.Report, []byte(Begun))
	}
	doing, err := s.become()
	errno, _ := err.(syscall.Errno) //nolint:errorlint // raw system calls: never wrapped
	if s.Report >= 0 {
		_, _ = unix.Write(s.Report, []byte(strconv.Itoa(int(errno))+" "+doing))
	} else {
		_, _ = os.Stderr.WriteString("hotwrap: error: cannot " + doing + ": " + err.Error() + "\n")
	}
	if errno == syscall.ENOENT {
		return notFound
	}
	return notExecutable
}

// become does the work; what it was doing comes with the error.
func (s Spec) become() (doing string, err error) {
	if err := closeOnExecExcept(s.Keep); err != nil {
		return "mark descriptors close-on-exec", err
	}
	if s.Dir >= 0 {
		if err := unix.Fchdir(s.Dir); err != nil {
			return "enter the program's directory", err
		}
	}
	if s.Adopt >= 0 { // while it is still permitted
		if err := tellOfBinds(s.Adopt); err != nil {
			return Watching, err
		}
	}
	if doing, err := s.TakeIdentity(); err != nil {
		return doing, err
	}
	if s.Parent != 0 {
		if err := dieWith(s.Parent); err != nil {
			return "tie the worker to hotwrap (PDEATHSIG)", err
		}
	}
	env := Stamp(os.Environ())
	resetSignals()
	return "execute", execute(s.Exe, s.Path, s.Argv, env)
}

// TakeIdentity becomes the user: groups first, since afterwards the right to is gone.
func (s Spec) TakeIdentity() (doing string, err error) {
	if s.UID < 0 {
		return "", nil
	}
	if err := syscall.Setgroups(s.Groups); err != nil {
		return "take on the user's groups", err
	}
	if err := syscall.Setgid(s.GID); err != nil {
		return "take on the group", err
	}
	if err := syscall.Setuid(s.UID); err != nil {
		return "take on the user", err
	}
	return "", nil
}

// Stamp names this process, whose pid the program will have, as the one that the descriptors and the
// watchdog are meant for (sd_listen_fds(3), sd_watchdog_enabled(3)).
func Stamp(env []string) []string {
	pid := strconv.Itoa(os.Getpid())
	if has(env, "LISTEN_FDS") {
		env = append(without(env, "LISTEN_PID", "LISTEN_PIDFDID"), "LISTEN_PID="+pid)
		if id, ok := PidfdID(); ok {
			env = append(env, "LISTEN_PIDFDID="+strconv.FormatUint(id, 10))
		}
	}
	if has(env, "WATCHDOG_USEC") {
		env = append(without(env, "WATCHDOG_PID"), "WATCHDOG_PID="+pid)
	}
	return env
}

func has(env []string, key string) bool {
	return slices.ContainsFunc(env, func(kv string) bool { return strings.HasPrefix(kv, key+"=") })
}

func without(env []string, keys ...string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		key, _, _ := strings.Cut(kv, "=")
		return slices.Contains(keys, key)
	})
}

// markOneByOne marks every descriptor from 3 on but keep close-on-exec, where close_range(2) is missing.
func markOneByOne(keep []int) error {
	var lim unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &lim); err != nil {
		return err
	}
	most := int(min(uint64(lim.Cur), 1<<16)) //nolint:unconvert // FreeBSD counts in int64
	for fd := 3; fd < most; fd++ {
		if !slices.Contains(keep, fd) {
			unix.CloseOnExec(fd) // one that is not open is no harm
		}
	}
	return nil
}
