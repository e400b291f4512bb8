package main

// This file runs the promises of hotwrap end to end: testdata/script/*.txtar, real processes, real
// sockets. It holds the tests' main, the surroundings of a script and the commands that scripts add.
//
// The rules are:
//   - nothing waits for time: a script awaits what hotwrap says to its service manager, which is the test
//   - one limit of patience for every wait; no fixed port; nothing a script started outlives it
//   - one goroutine, the script's, owns the script; the others send to its channels

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"flag"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/url"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/rogpeppe/go-internal/testscript"
	"golang.org/x/sys/unix"
)

const (
	patience    = 20 * time.Second // for any one thing to happen
	scriptLimit = 6 * patience     // then a script that hangs is taken down, with hotwrap's goroutines in its log
	loadLimit   = 3 * patience     // a load that nobody stops ends by itself
	loadMost    = 100_000          // requests of one load
	loadErrors  = 100              // failures after which a load goes on no longer
	shownErrors = 5                // failures that load stop prints
)

var updateScripts = flag.Bool("update", false, "let cmp write what it got into the scripts")

func TestMain(m *testing.M) {
	testscript.Main(appsRunner{m}, map[string]func(){"hotwrap": main})
}

// appsRunner removes what was built when all tests are over: testscript.Main does not return.
type appsRunner struct{ *testing.M }

func (r appsRunner) Run() int {
	status := r.M.Run()
	for _, dir := range []string{appsBuilt, benchBuilt} {
		if dir != "" {
			os.RemoveAll(dir)
		}
	}
	return status
}

var (
	appsBuilt  string // written once, by buildApps
	benchBuilt string // and this by benchBinaries
)

// buildApps builds the programs in testapps, once for all scripts, and returns their directory.
var buildApps = sync.OnceValues(func() (string, error) {
	dir, err := os.MkdirTemp("", "hwapps")
	if err != nil {
		return "", err
	}
	appsBuilt = dir
	if err := os.Chmod(dir, 0o755); err != nil { // also for scripts that run a program as another user
		return "", err
	}
	for _, args := range [][]string{
		{"-o", dir + "/", "./testapps/..."},
		{"-o", dir + "/echo2", "-ldflags", "-X main.build=two", "./testapps/echo"}, // a later build of the same program
	} {
		if out, err := exec.Command("go", append([]string{"build"}, args...)...).CombinedOutput(); err != nil {
			return "", fmt.Errorf("cannot build the testapps: %v\n%s", err, out)
		}
	}
	return dir, nil
})

// goDirs are the caches of the go command, which a script's own home would hide.
var goDirs = sync.OnceValues(func() (map[string]string, error) {
	dirs := map[string]string{}
	out, err := exec.Command("go", "env", "-json", "GOCACHE", "GOMODCACHE").Output()
	if err != nil {
		return nil, fmt.Errorf("cannot ask for go's caches: %w", err)
	}
	return dirs, json.Unmarshal(out, &dirs)
})

// onFileSystems counts the file systems of some directories; those that are missing are on none.
func onFileSystems(dirs ...string) int {
	found := map[string]bool{}
	for _, dir := range dirs {
		var st unix.Stat_t
		if unix.Stat(dir, &st) == nil {
			found[fmt.Sprint(st.Dev)] = true
		}
	}
	return len(found)
}

func TestScript(t *testing.T) {
	bin, err := buildApps()
	if err != nil {
		t.Fatal(err)
	}
	testscript.Run(t, testscript.Params{
		Dir:                 "testdata/script",
		RequireExplicitExec: true,
		RequireUniqueNames:  true,
		UpdateScripts:       *updateScripts,
		Setup:               func(env *testscript.Env) error { return setUp(env, bin) },
		Condition: func(cond string) (bool, error) {
			switch cond {
			case "root":
				return os.Getuid() == 0, nil
			case "ipv6":
				l, err := net.Listen("tcp6", "[::1]:0")
				return err == nil && l.Close() == nil, nil
			case "shm": // another file system than that of the scripts
				return onFileSystems(os.TempDir(), "/dev/shm") == 2, nil
			case "pidns": // a new pid namespace can be made
				return exec.Command("unshare", "--pid", "--fork", "--mount-proc", "true").Run() == nil, nil
			case "tmpfs": // one can be mounted, in a namespace of its own
				return exec.Command("unshare", "--mount", "mount", "-t", "tmpfs", "none", "/mnt").Run() == nil, nil
			case "overlay": // one can be mounted, in a namespace of its own
				return exec.Command("unshare", "--mount", "mount", "-t", "overlay", "-o", "lowerdir=/etc:/usr", "overlay", "/mnt").Run() == nil, nil
			case "systemd": // it can be PID 1 of namespaces of its own
				return exec.Command("sh", "testapps/systemd/boot.sh", "-n").Run() == nil, nil
			case "container": // something like one can be made
				return exec.Command("sh", "testapps/container/run.sh", "-n").Run() == nil, nil
			case "pids": // a cgroup with a limit on processes can be made
				return canLimit("pids", "pids.max"), nil
			case "memory": // and one with a limit on memory
				return canLimit("memory", "memory.limit_in_bytes") || canLimit("memory", "memory.max"), nil
			case "userns": // a new user namespace can be made, with limits of its own
				return exec.Command("unshare", "--user", "--map-root-user", "sh", "-c", "echo 0 >/proc/sys/user/max_inotify_instances").Run() == nil, nil
			}
			return false, fmt.Errorf("unknown condition %q", cond)
		},
		Cmds: map[string]func(*testscript.TestScript, bool, []string){
			"alive":    scriptCommand("PID", (*scriptRun).alive),
			"await":    scriptCommand("REGEXP", (*scriptRun).await),
			"exited":   scriptCommand("STATUS", (*scriptRun).exited),
			"exits":    scriptCommand("STATUS PROGRAM [ARG]...", (*scriptRun).exits),
			"get":      scriptCommand("[-unix PATH] URL", (*scriptRun).get),
			"getall":   scriptCommand("N URL", (*scriptRun).getAll),
			"hold":     scriptCommand("start|idle|half NAME ADDR[/PATH] | again NAME PATH | begun|finish|stop NAME", (*scriptRun).hold),
			"load":     scriptCommand("start NAME ADDR[/PATH] [-c CLIENTS] [-keepalive] [-again] [-lost N] | stop NAME [-min N]", (*scriptRun).load),
			"pidgone":  scriptCommand("PID", (*scriptRun).pidGone),
			"put":      scriptCommand("FILE SRC", (*scriptRun).put),
			"restarts": scriptCommand("FROM TO", (*scriptRun).restarts),
			"signal":   scriptCommand("SIGNAL PROGRAM|PID", (*scriptRun).signal),
			"unseen":   scriptCommand("REGEXP", (*scriptRun).unseen),
		},
	})
}

// canLimit tells whether a cgroup with that limit can be made: in the first version's hierarchy for it, or in the
// second's.
func canLimit(controller, limit string) bool {
	for _, root := range []string{"/sys/fs/cgroup/" + controller, "/sys/fs/cgroup"} {
		dir, err := os.MkdirTemp(root, "hwscript")
		if err != nil {
			continue
		}
		err = unix.Access(filepath.Join(dir, limit), unix.W_OK)
		return os.Remove(dir) == nil && err == nil
	}
	return false
}

// scriptKey finds the scriptRun among the values of a testscript.
type scriptKey struct{}

// scriptRun is one running script and the service manager that it plays.
type scriptRun struct {
	*testscript.TestScript
	neg     bool      // the command in hand stands behind a "!"
	dir     string    // short, unlike $WORK: the path of a unix socket has 107 bytes (unix(7))
	hotwrap *exec.Cmd // the last one seen in the background

	notify *net.UnixConn
	log    *os.File    // for scripts that await verbose lines: hotwrap's stderr instead of its datagrams
	heard  chan string // datagrams and lines, from the goroutines that read notify and log
	said   []string    // those taken from heard, in order
	next   int         // of said: where the next await begins,
	offset int         // and where in it
	fences int

	ctx      context.Context // ends with the script
	lifeline *os.File
	loads    map[string]*loadRun
	holds    map[string]*httpClient
}

var errUsage = errors.New("usage")

// scriptCommand makes a script's command of a method that says what went wrong.
func scriptCommand(usage string, run func(s *scriptRun, args []string) error) func(*testscript.TestScript, bool, []string) {
	return func(ts *testscript.TestScript, neg bool, args []string) {
		s := ts.Value(scriptKey{}).(*scriptRun)
		s.TestScript, s.neg = ts, neg
		for _, cmd := range ts.BackgroundCmds() {
			if filepath.Base(cmd.Path) == "hotwrap" {
				s.hotwrap = cmd
			}
		}
		switch err := run(s, args); {
		case errors.Is(err, errUsage):
			ts.Fatalf("usage: %s", usage)
		case err != nil:
			ts.Fatalf("%v", err)
		}
	}
}

// setUp gives a script its surroundings: a service manager to talk to, a runtime directory, the
// testapps, and a lifeline that makes them end with the script.
func setUp(env *testscript.Env, bin string) error {
	dir, err := os.MkdirTemp("", "hwscript")
	if err != nil {
		return err
	}
	s := &scriptRun{dir: dir, heard: make(chan string, 1<<12), loads: map[string]*loadRun{}, holds: map[string]*httpClient{}}
	env.Values[scriptKey{}] = s
	ctx, cancel := context.WithTimeout(context.Background(), scriptLimit)
	s.ctx = ctx
	context.AfterFunc(ctx, func() {
		if errors.Is(ctx.Err(), context.DeadlineExceeded) {
			s.takeDown()
		}
	})
	// After the processes that testscript itself waits for.
	env.T().(testing.TB).Cleanup(func() {
		cancel()
		s.takeDown()
		if s.notify != nil {
			s.notify.Close()
		}
		if s.log != nil {
			s.log.Close()
		}
		os.RemoveAll(dir)
	})
	if err := s.open(); err != nil {
		return err
	}
	env.Defer(s.cutLifeline)
	goDirs, err := goDirs()
	if err != nil {
		return err
	}
	sources, err := filepath.Abs("testapps")
	if err != nil {
		return err
	}
	examples, err := filepath.Abs("examples")
	env.Vars = append(env.Vars,
		"PATH="+bin+string(os.PathListSeparator)+env.Getenv("PATH"),
		"TESTAPPS="+sources,
		"EXAMPLES="+examples,
		"TESTAPP_LIFELINE="+s.path("lifeline"),
		"GOCACHE="+goDirs["GOCACHE"],
		"GOMODCACHE="+goDirs["GOMODCACHE"],
		"HOTWRAP_RUNTIME_DIR="+s.path("run"),
		"LOG="+s.path("log"),
		"SOCKETS="+s.path("sockets"),
		"NOTIFY_SOCKET="+s.path("notify"))
	if os.Getenv("GORACE") == "" {
		env.Setenv("GORACE", "atexit_sleep_ms=0") // else each process sleeps 1 s at its end
	}
	return err
}

func (s *scriptRun) path(name string) string { return filepath.Join(s.dir, name) }

// open makes what setUp names.
func (s *scriptRun) open() error {
	err := errors.Join(
		os.Chmod(s.dir, 0o711), // programs that run as another user pass through
		os.Mkdir(s.path("run"), 0o700),
		os.Mkdir(s.path("sockets"), 0o755),
		unix.Mkfifo(s.path("log"), 0o644),
		unix.Mkfifo(s.path("lifeline"), 0o644))
	if err != nil {
		return err
	}
	// For reading too, so that opening does not wait for a reader.
	if s.lifeline, err = os.OpenFile(s.path("lifeline"), os.O_RDWR, 0); err != nil {
		return err
	}
	s.notify, err = net.ListenUnixgram("unixgram", &net.UnixAddr{Name: s.path("notify"), Net: "unixgram"})
	if err != nil {
		return err
	}
	if s.log, err = os.OpenFile(s.path("log"), os.O_RDWR|unix.O_NONBLOCK, 0); err != nil {
		return err
	}
	var readers sync.WaitGroup
	readers.Go(func() {
		for buf := make([]byte, 1<<16); ; {
			n, err := s.notify.Read(buf)
			if err != nil {
				return
			}
			s.heard <- string(buf[:n])
		}
	})
	readers.Go(func() {
		for lines := bufio.NewScanner(s.log); lines.Scan(); {
			s.heard <- lines.Text()
		}
	})
	go func() {
		readers.Wait()
		close(s.heard)
	}()
	return nil
}

// cutLifeline ends the testapps. The path goes first: who opens it later finds nothing, instead of
// waiting in open(2) for a writer.
func (s *scriptRun) cutLifeline() {
	os.Remove(s.path("lifeline"))
	s.lifeline.Close()
}

// takeDown ends every process that still carries the script's lifeline in its environment: hotwrap
// by ABRT, so that it prints its goroutines, the rest by KILL.
func (s *scriptRun) takeDown() {
	environs, _ := filepath.Glob("/proc/[0-9]*/environ")
	for _, file := range environs {
		environ, err := os.ReadFile(file)
		if err != nil || !bytes.Contains(environ, []byte("TESTAPP_LIFELINE="+s.path("lifeline")+"\x00")) {
			continue
		}
		sig := syscall.SIGKILL
		if comm, _ := os.ReadFile(filepath.Join(filepath.Dir(file), "comm")); string(comm) == "hotwrap\n" {
			sig = syscall.SIGABRT
		}
		pid, _ := strconv.Atoi(filepath.Base(filepath.Dir(file)))
		syscall.Kill(pid, sig)
	}
}

// await REGEXP waits until a datagram matches, after what the last await matched. The regexp's named
// groups become variables of the script.
func (s *scriptRun) await(args []string) error {
	if s.neg || len(args) != 1 {
		return errUsage
	}
	re, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return err
	}
	limit, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	silent := s.allEnded(limit)
	for !s.match(re) {
		select {
		case text := <-s.heard:
			s.said = append(s.said, text)
		case <-silent:
			if err := s.fence(); err != nil {
				return err
			}
			if s.match(re) {
				return nil
			}
			return fmt.Errorf("nothing matches %q, and everything in the background has ended%s", args[0], s.heardSoFar())
		case <-limit.Done():
			return fmt.Errorf("nothing matches %q after %v%s", args[0], patience, s.heardSoFar())
		}
	}
	return nil
}

// match looks for the expression in what was said after the last match.
func (s *scriptRun) match(re *regexp.Regexp) bool {
	for ; s.next < len(s.said); s.next, s.offset = s.next+1, 0 {
		text := s.said[s.next][s.offset:]
		found := re.FindStringSubmatchIndex(text)
		if found == nil {
			continue
		}
		s.Logf("[heard] %s", text)
		s.offset += found[1]
		for i, name := range re.SubexpNames() {
			if name != "" && found[2*i] >= 0 {
				s.Setenv(name, text[found[2*i]:found[2*i+1]])
			}
		}
		return true
	}
	return false
}

// unseen REGEXP fails if anything that was said so far matches, awaited or not.
func (s *scriptRun) unseen(args []string) error {
	if s.neg || len(args) != 1 {
		return errUsage
	}
	re, err := regexp.Compile("(?m)" + args[0])
	if err != nil {
		return err
	}
	if err := s.fence(); err != nil {
		return err
	}
	if slices.ContainsFunc(s.said, re.MatchString) {
		return fmt.Errorf("something matches %q%s", args[0], s.heardSoFar())
	}
	return nil
}

// fence takes in every datagram and line that was sent before now: a socket's queue is in order, and a
// pipe's, so it sends one of its own and reads up to that.
func (s *scriptRun) fence() error {
	s.fences++
	mark := fmt.Sprintf("\x00fence %d", s.fences)
	c, err := net.Dial("unixgram", s.path("notify"))
	if err != nil {
		return err
	}
	defer c.Close()
	if _, err := io.WriteString(c, mark); err != nil {
		return err
	}
	if _, err := io.WriteString(s.log, mark+"\n"); err != nil {
		return err
	}
	marks := 2
	for text := range s.heard {
		if text != mark {
			s.said = append(s.said, text)
		} else if marks--; marks == 0 {
			return nil
		}
	}
	return net.ErrClosed
}

func (s *scriptRun) heardSoFar() string {
	if len(s.said) == 0 {
		return "; nothing was said"
	}
	var b strings.Builder
	b.WriteString("; said so far (> where the search began):")
	for i, text := range s.said {
		mark := " "
		if i >= s.next {
			mark = ">"
		}
		fmt.Fprintf(&b, "\n%s %s", mark, strings.ReplaceAll(strings.TrimSuffix(text, "\n"), "\n", "\n  | "))
	}
	return b.String()
}

// allEnded returns a channel that is closed when no background process of the script is left.
func (s *scriptRun) allEnded(ctx context.Context) <-chan struct{} {
	var ends []<-chan struct{}
	for _, cmd := range s.BackgroundCmds() {
		ends = append(ends, processEnd(ctx, cmd.Process.Pid))
	}
	all := make(chan struct{})
	go func() {
		for _, end := range ends {
			select {
			case <-end:
			case <-ctx.Done():
				return
			}
		}
		close(all)
	}()
	return all
}

// signal SIGNAL PROGRAM|PID sends a signal to a background process of the script, the last of that
// program, or to any process; to a group with -PID.
func (s *scriptRun) signal(args []string) error {
	if s.neg || len(args) != 2 {
		return errUsage
	}
	sig, err := parseSignal(args[0])
	if err != nil {
		return err
	}
	if pid, err := strconv.Atoi(args[1]); err == nil {
		if pid >= -1 && pid <= 1 {
			return fmt.Errorf("cannot signal %d: not a process of the script", pid)
		}
		return os.NewSyscallError("kill", syscall.Kill(pid, sig))
	}
	for _, cmd := range slices.Backward(s.BackgroundCmds()) {
		if filepath.Base(cmd.Path) == args[1] {
			return cmd.Process.Signal(sig)
		}
	}
	return fmt.Errorf("cannot signal %q: not in the background", args[1])
}

// restarts FROM TO restarts hotwrap until generation TO serves; FROM is the first that this starts. Each
// HUP waits until its predecessor's generation serves.
func (s *scriptRun) restarts(args []string) error {
	if s.neg || len(args) != 2 {
		return errUsage
	}
	from, err1 := strconv.Atoi(args[0])
	to, err2 := strconv.Atoi(args[1])
	err := errors.Join(err1, err2)
	for n := from; n <= to && err == nil; n++ {
		err = s.signal([]string{"HUP", "hotwrap"})
		if err == nil {
			err = s.await([]string{fmt.Sprintf("generation %d serving", n)})
		}
	}
	return err
}

// exits STATUS PROGRAM [ARG]... runs a program that must end with exactly this status.
func (s *scriptRun) exits(args []string) error {
	if s.neg || len(args) < 2 {
		return errUsage
	}
	err := s.Exec(args[1], args[2:]...)
	got := 0
	if exit := new(exec.ExitError); errors.As(err, &exit) {
		got = exit.ExitCode()
	} else if err != nil {
		return err
	}
	return sameStatus(args[0], got)
}

// exited STATUS says how the last hotwrap in the background must have ended; after wait.
func (s *scriptRun) exited(args []string) error {
	if s.neg || len(args) != 1 || s.hotwrap == nil {
		return errUsage
	}
	if slices.Contains(s.BackgroundCmds(), s.hotwrap) {
		return errors.New("hotwrap was not waited for")
	}
	return sameStatus(args[0], s.hotwrap.ProcessState.ExitCode())
}

func sameStatus(want string, got int) error {
	if want != strconv.Itoa(got) {
		return fmt.Errorf("exit status %d, want %s", got, want)
	}
	return nil
}

// pidGone PID waits until the process has ended.
func (s *scriptRun) pidGone(args []string) error {
	pid, err := pidArgument(args)
	if err != nil || s.neg {
		return errUsage
	}
	limit, cancel := context.WithTimeout(s.ctx, patience)
	defer cancel()
	select {
	case <-processEnd(limit, pid):
		return nil
	case <-limit.Done():
		return fmt.Errorf("process %d is still there after %v", pid, patience)
	}
}

// alive PID fails if the process has ended; a zombie has.
func (s *scriptRun) alive(args []string) error {
	pid, err := pidArgument(args)
	if err != nil {
		return errUsage
	}
	alive := syscall.Kill(pid, 0) == nil
	stat, _ := os.ReadFile(fmt.Sprintf("/proc/%d/stat", pid))
	if _, fields, ok := strings.Cut(string(stat), ") "); ok && strings.HasPrefix(fields, "Z") {
		alive = false
	}
	if alive == s.neg {
		return fmt.Errorf("process %d: alive is %v", pid, alive)
	}
	return nil
}

func pidArgument(args []string) (int, error) {
	if len(args) != 1 {
		return 0, errUsage
	}
	pid, err := strconv.Atoi(args[0])
	if err != nil || pid <= 1 {
		return 0, errUsage
	}
	return pid, nil
}

// put FILE SRC puts an executable copy in the place of FILE at one stroke, as a careful deploy does.
// SRC is a file, or a program in PATH.
func (s *scriptRun) put(args []string) error {
	if s.neg || len(args) != 2 {
		return errUsage
	}
	src := s.MkAbs(args[1])
	if _, err := os.Stat(src); err != nil && !strings.Contains(args[1], "/") {
		for _, dir := range filepath.SplitList(s.Getenv("PATH")) {
			if _, err := os.Stat(filepath.Join(dir, args[1])); err == nil {
				src = filepath.Join(dir, args[1])
				break
			}
		}
	}
	program, err := os.ReadFile(src)
	if err != nil {
		return err
	}
	file := s.MkAbs(args[0])
	// No fork of ours may carry the descriptor away while it is open for writing, or the program
	// cannot be executed (ETXTBSY): golang.org/issue/22315.
	syscall.ForkLock.RLock()
	err = os.WriteFile(file+".aside", program, 0o755)
	syscall.ForkLock.RUnlock()
	return errors.Join(err, os.Chmod(file+".aside", 0o755), os.Rename(file+".aside", file))
}

// get [-unix PATH] URL prints the body of the answer. No answer, or one of 400 and above, is a failure.
func (s *scriptRun) get(args []string) error {
	network, addr := "tcp", ""
	if len(args) == 3 && args[0] == "-unix" {
		network, addr, args = "unix", args[1], args[2:]
	}
	if len(args) != 1 {
		return errUsage
	}
	u, err := url.Parse(args[0])
	if err != nil {
		return err
	}
	if addr == "" {
		addr = u.Host
	}
	c := httpClient{network: network, addr: addr, path: u.RequestURI()}
	body, err := c.ask()
	if _, err := io.WriteString(s.Stdout(), body); err != nil {
		return err
	}
	switch {
	case s.neg && err == nil:
		return fmt.Errorf("%s answered", args[0])
	case s.neg:
		s.Logf("[get] %v", err)
		return nil
	}
	return err
}

// getAll N URL asks N times, one after the other, each on a connection of its own.
func (s *scriptRun) getAll(args []string) error {
	if s.neg || len(args) != 2 {
		return errUsage
	}
	n, err := strconv.Atoi(args[0])
	for i := 0; i < n && err == nil; i++ {
		err = s.get(args[1:])
	}
	return err
}

// httpClient asks over HTTP/1.1. It is not net/http's, which asks again by itself when a kept connection
// fails, and would hide what these tests look for.
type httpClient struct {
	network, addr, path string
	keep                bool // keep the connection as long as the server does
	again               bool // ask once more where a kept connection ended before the first byte of the answer

	conn   net.Conn
	read   *bufio.Reader
	finish func() (net.Conn, error) // a handshake that is half-open
}

// errUnanswered is a connection that ended before the first byte of an answer.
var errUnanswered = errors.New("no byte of an answer")

// ask asks once and returns the whole body. With again it does what RFC 9112, 9.3.1 lets a client
// do: the server may end an idle connection at the very moment in which it is used.
func (c *httpClient) ask() (string, error) {
	used := c.conn != nil
	body, last, err := c.exchange()
	if c.conn != nil && (err != nil || last || !c.keep) {
		c.conn.Close()
		c.conn = nil
	}
	if used && c.again && errors.Is(err, errUnanswered) && !errors.Is(err, os.ErrDeadlineExceeded) {
		return c.ask()
	}
	if used && err != nil {
		err = fmt.Errorf("on a kept connection: %w", err)
	}
	return body, err
}

// exchange sends a request and reads its answer; last says that the server ends the connection.
func (c *httpClient) exchange() (body string, last bool, err error) {
	if err := c.send(); err != nil {
		return "", true, err
	}
	return c.receive()
}

func (c *httpClient) send() (err error) {
	if c.conn == nil {
		c.conn, err = net.DialTimeout(c.network, c.addr, patience)
		if err != nil {
			return err
		}
		c.read = bufio.NewReader(c.conn)
	}
	c.conn.SetDeadline(time.Now().Add(patience))
	wish := "close"
	if c.keep {
		wish = "keep-alive"
	}
	_, err = fmt.Fprintf(c.conn, "GET %s HTTP/1.1\r\nHost: localhost\r\nConnection: %s\r\n\r\n", c.path, wish)
	if err != nil {
		return fmt.Errorf("%w: %w", errUnanswered, err)
	}
	return nil
}

func (c *httpClient) receive() (body string, last bool, err error) {
	if _, err := c.read.Peek(1); err != nil {
		return "", true, fmt.Errorf("%w: %w", errUnanswered, err)
	}
	answer, err := http.ReadResponse(c.read, nil)
	if err != nil {
		return "", true, err
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if err == nil && answer.StatusCode >= 400 {
		err = errors.New(answer.Status)
	}
	return string(text), answer.Close, err
}

// clientFor is the client of ADDR[/PATH], or of the path of a unix socket.
func clientFor(text string) httpClient {
	c := httpClient{network: "tcp", addr: text, path: "/"}
	if strings.ContainsAny(text[:1], "/@") {
		c.network = "unix"
	} else if host, path, ok := strings.Cut(text, "/"); ok {
		c.addr, c.path = host, "/"+path
	}
	return c
}

// hold start NAME ADDR[/PATH] sends a request and leaves it; hold begun NAME waits until its answer begins; hold
// stop NAME prints it. hold idle takes its answer and keeps the connection, on which hold again NAME PATH sends the
// next. hold half begins to connect, and hold finish NAME does the rest and sends.
func (s *scriptRun) hold(args []string) error {
	switch {
	case len(args) == 3 && !s.neg && s.holds[args[1]] == nil:
		c := clientFor(args[2])
		s.holds[args[1]] = &c
		return c.begin(args[0])
	case len(args) == 3 && !s.neg && args[0] == "again":
		s.holds[args[1]].path = args[2]
		return s.holds[args[1]].send()
	case len(args) != 2 || s.holds[args[1]] == nil:
		return errUsage
	case args[0] == "begun" && !s.neg:
		_, err := s.holds[args[1]].read.Peek(1)
		return err
	case args[0] == "finish" && !s.neg:
		return s.holds[args[1]].complete()
	case args[0] != "stop":
		return errUsage
	}
	c := s.holds[args[1]]
	delete(s.holds, args[1])
	defer c.conn.Close()
	body, _, err := c.receive()
	if _, err := io.WriteString(s.Stdout(), body); err != nil {
		return err
	}
	switch {
	case s.neg && err == nil:
		return fmt.Errorf("%s was answered", args[1])
	case s.neg:
		s.Logf("[hold] %v", err)
		return nil
	}
	return err
}

// begin is how a request is held.
func (c *httpClient) begin(how string) (err error) {
	switch how {
	case "start":
		return c.send()
	case "idle":
		c.keep = true
		_, last, err := c.exchange()
		if err == nil && last {
			err = errors.New("the server does not keep the connection")
		}
		return err
	case "half":
		c.finish, err = connectHalf(c.addr)
		return err
	}
	return errUsage
}

// complete ends the handshake.
func (c *httpClient) complete() (err error) {
	if c.conn, err = c.finish(); err != nil {
		return err
	}
	c.read = bufio.NewReader(c.conn)
	return c.send()
}

// loadRun is a number of clients that ask as fast as they are answered, until they are told to stop.
type loadRun struct {
	lost    int        // so many may fail
	results chan error // one for each request
	enough  chan int   // from load stop: the least number of requests
	total   chan loadTally
}

type loadTally struct {
	requests, failed int
	errors           []string // the first few
}

// load start NAME ADDR[/PATH] [-c CLIENTS] [-keepalive] [-again] [-lost N] returns once every client had its
// first answer, or failure. load stop NAME [-min N] waits for N requests, and fails if more failed than
// -lost (0) allows.
func (s *scriptRun) load(args []string) error {
	switch {
	case s.neg || len(args) < 2:
		return errUsage
	case args[0] == "start" && s.loads[args[1]] == nil:
		return s.loadStart(args[1], args[2:])
	case args[0] == "stop" && s.loads[args[1]] != nil:
		return s.loadStop(args[1], args[2:])
	}
	return fmt.Errorf("cannot %s load %q: not in this order", args[0], args[1])
}

func (s *scriptRun) loadStart(name string, args []string) error {
	if len(args) == 0 {
		return errUsage
	}
	flags := flag.NewFlagSet("load start", flag.ContinueOnError)
	clients := flags.Int("c", 2, "")
	keep := flags.Bool("keepalive", false, "")
	again := flags.Bool("again", false, "")
	lost := flags.Int("lost", 0, "")
	if err := flags.Parse(args[1:]); err != nil || flags.NArg() > 0 || *clients < 1 {
		return errUsage
	}
	c := clientFor(args[0])
	c.keep, c.again = *keep, *again
	l := &loadRun{lost: *lost, results: make(chan error), enough: make(chan int, 1), total: make(chan loadTally, 1)}
	s.loads[name] = l
	ctx, cancel := context.WithTimeout(s.ctx, loadLimit)
	begun := make(chan struct{})
	var all sync.WaitGroup
	for range *clients {
		all.Go(func() { l.ask(ctx, c, begun) })
	}
	go func() {
		all.Wait()
		close(l.results)
	}()
	go l.count(cancel)
	for range *clients {
		<-begun
	}
	return nil
}

// ask is one client. It finishes the request in hand when ctx ends.
func (l *loadRun) ask(ctx context.Context, c httpClient, begun chan<- struct{}) {
	for first := true; first || ctx.Err() == nil; first = false {
		_, err := c.ask()
		l.results <- err
		if first {
			begun <- struct{}{}
		}
	}
	if c.conn != nil {
		c.conn.Close()
	}
}

// count adds up the results until the last client has ended.
func (l *loadRun) count(cancel context.CancelFunc) {
	defer cancel()
	start := time.Now()
	var t loadTally
	for most, enough := loadMost, l.enough; ; {
		select {
		case most = <-enough:
		case err, ok := <-l.results:
			if !ok {
				l.total <- t
				return
			}
			t.requests++
			if err == nil {
				break
			}
			t.failed++
			if t.failed <= shownErrors {
				t.errors = append(t.errors, fmt.Sprintf("request %d after %v: %v", t.requests, time.Since(start), err))
			}
		}
		if t.requests >= most || t.failed >= loadErrors+l.lost {
			cancel()
		}
	}
}

func (s *scriptRun) loadStop(name string, args []string) error {
	flags := flag.NewFlagSet("load stop", flag.ContinueOnError)
	least := flags.Int("min", 1, "")
	if err := flags.Parse(args); err != nil || flags.NArg() > 0 {
		return errUsage
	}
	l := s.loads[name]
	delete(s.loads, name)
	l.enough <- *least
	t := <-l.total
	fmt.Fprintf(s.Stdout(), "%d requests, %d failed\n", t.requests, t.failed)
	for _, text := range t.errors {
		fmt.Fprintln(s.Stdout(), text)
	}
	if t.failed > l.lost {
		return fmt.Errorf("load %q: %d of %d requests failed", name, t.failed, t.requests)
	}
	if t.requests < *least {
		return fmt.Errorf("load %q: %d requests in %v, want %d", name, t.requests, loadLimit, *least)
	}
	return nil
}
