package main

// This file starts and ends processes: the image of a generation and its pins, the launch of one
// worker through the shim, the one wait loop.
//
// Its rules:
//   - Every fork happens on the supervisor's goroutine, which is locked to the main thread: PDEATHSIG
//     belongs to the thread that forked (golang.org/issue/27505).
//   - Descriptors are raw numbers and are handed over by syscall.ForkExec: (*os.File).Fd, and so os/exec,
//     would switch a shared listener to blocking under its running owner.
//   - Everything is reaped here, and only here, so nothing can be signalled after it was reaped.

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/user"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

// exitStatus is how a process ended.
type exitStatus struct {
	Code   int            `json:"code,omitempty"`
	Signal syscall.Signal `json:"signal,omitempty"` // it died of; 0 if it exited
	Core   bool           `json:"core,omitempty"`   // and left a core file

	Unknown bool `json:"unknown,omitempty"` // it was not our child: nobody tells us
}

func (e exitStatus) ok() bool { return e == exitStatus{} }

func howEnded(ws syscall.WaitStatus) exitStatus {
	if ws.Signaled() {
		return exitStatus{Signal: ws.Signal(), Core: ws.CoreDump()}
	}
	return exitStatus{Code: ws.ExitStatus()}
}

// shell is the status as a shell's $? has it: 128+N for a death by signal N.
func (e exitStatus) shell() int {
	switch {
	case e.Signal != 0:
		return 128 + int(e.Signal)
	case e.Unknown:
		return statusFailed
	}
	return e.Code
}

// short is for key=value pairs: "0", "7", "SIGSEGV".
func (e exitStatus) short() string {
	switch {
	case e.Signal != 0:
		return signalName(e.Signal)
	case e.Unknown:
		return "unknown"
	}
	return strconv.Itoa(e.Code)
}

// String is for sentences: "exited 7", "died of SIGSEGV (core dumped)".
func (e exitStatus) String() string {
	switch {
	case e.Unknown:
		return "ended, how is not known,"
	case e.Signal == 0:
		return "exited " + strconv.Itoa(e.Code)
	case e.Core:
		return "died of " + signalName(e.Signal) + " (core dumped)"
	default:
		return "died of " + signalName(e.Signal)
	}
}

// death is the end of one process that hotwrap was the parent of, or became it as a subreaper.
type death struct {
	pid    int
	status exitStatus
}

// reapAll collects every process that has ended, strangers too (PID 1 and subreaper duty). It does
// not block; a SIGCHLD says when to call it, and one SIGCHLD may stand for many deaths.
func reapAll() []death {
	var all []death
	for {
		var ws syscall.WaitStatus
		pid, err := syscall.Wait4(-1, &ws, syscall.WNOHANG, nil)
		switch {
		case err == syscall.EINTR:
		case err != nil || pid == 0:
			return all
		case ws.Exited(), ws.Signaled():
			all = append(all, death{pid, howEnded(ws)})
		}
	}
}

// program is what is wrapped, as the command line has it: nothing in it is resolved.
type program struct {
	argv       []string // with placeholders
	dir        string   // logical name of the directory
	user       *credential
	base       []string // hotwrap's own environment
	envFile    string
	env        []string // -e, with placeholders
	check      string   // --check, for sh
	build      string   // --build, for sh
	stopSignal syscall.Signal
	ownStdin   bool   // --stdin: the terminal is the program's
	null       int    // descriptor of /dev/null
	die        bool   // workers die with hotwrap
	readyFD    int    // --ready fd=N; -1 none
	ackFD      int    // -e EINHORN_SOCK_FD=N; -1 none
	control    string // path of hotwrap's control socket; "" none
	listeners  []*listener
	numbers    []int // the descriptor of each listener in the program
}

// credential is the user that the program runs as.
type credential struct {
	name, home string
	uid, gid   int
	groups     []int
}

// uid is the user id that the program's processes have.
func (p *program) uid() int {
	if p.user != nil {
		return p.user.uid
	}
	return os.Geteuid()
}

// owner is who the program's processes are, as far as hotwrap must give them something; -1: hotwrap itself.
func (p *program) owner() (uid, gid int) {
	if p.user == nil {
		return -1, -1
	}
	return p.user.uid, p.user.gid
}

// lookUpUser reads USER[:GROUP], names or numbers. Without a group it is the user's own, with all
// supplementary ones: a program that lacks them cannot open what its user can.
func lookUpUser(text string) (*credential, error) {
	name, group, given := strings.Cut(text, ":")
	gid := -1
	if given {
		if gid = accountGroup(group); gid < 0 {
			return nil, fmt.Errorf("no such group %q", group)
		}
	}
	u, err := user.Lookup(name)
	if err != nil {
		u, err = user.LookupId(name)
	}
	uid := accountID(name)
	switch {
	case err != nil && uid < 0:
		return nil, fmt.Errorf("no such user %q", name)
	case err != nil && gid < 0: // the number is enough, as in an image without /etc/passwd, but nothing tells its group
		return nil, fmt.Errorf("no such user %q, so its group must be given too: %s:GROUP", name, name)
	case err != nil:
		return &credential{name: name, home: "/", uid: uid, gid: gid, groups: []int{gid}}, nil
	}
	c := &credential{name: u.Username, home: u.HomeDir}
	c.uid, _ = strconv.Atoi(u.Uid)
	c.gid, _ = strconv.Atoi(u.Gid)
	if given {
		c.gid = gid
	}
	ids, err := u.GroupIds()
	if err != nil {
		return nil, fmt.Errorf("cannot list the groups of %q: %v", name, err)
	}
	for _, id := range ids {
		n, _ := strconv.Atoi(id)
		c.groups = append(c.groups, n)
	}
	return c, nil
}

// isTerminal tells whether a descriptor is a terminal: only those have a window size.
func isTerminal(fd int) bool {
	_, err := unix.IoctlGetWinsize(fd, unix.TIOCGWINSZ)
	return err == nil
}

// image is one version of the program, resolved and pinned: what a worker of its generation is
// started from, also when something else lies on disk by then.
type image struct {
	Argv       []string       `json:"argv"`
	Path       string         `json:"path"`  // by its logical name
	Build      string         `json:"build"` // short hash of the content
	Pinned     string         `json:"pinned"`
	StopSignal syscall.Signal `json:"stop_signal"`
	Exe        int            `json:"exe"` // descriptor of the executable, O_PATH; -1 none
	Dir        int            `json:"dir"` // of the directory
	real       string         // the path without symlinks
	script     bool           // starts with #!
	advice     advice         // on the launcher that it is started by
	stat       unix.Stat_t    // of the executable when it was read
	place      directory      // that Dir was for who wrote of the image
	env        []string       // kept out of every written form, as the next: values may be secrets
	set        []string       // -e, on top of that
}

// directory is which one it is, by whatever name.
type directory struct {
	Dev uint64 `json:"dev"`
	Ino uint64 `json:"ino"`
}

// directoryOf tells which one a descriptor is of; none if that is closed.
func directoryOf(fd int) directory {
	var st unix.Stat_t
	if fd < 0 || unix.Fstat(fd, &st) != nil {
		return directory{}
	}
	return directory{uint64(st.Dev), st.Ino} //nolint:unconvert // int32 on macOS
}

// execError is a program that cannot be started, with the remedy where there is one.
type execError struct {
	text  string
	code  int // hotwrap's exit status
	hint  string
	cause error
}

func (e *execError) Error() string { return e.text }
func (e *execError) Unwrap() error { return e.cause }

// execStatus is hotwrap's exit status for an error of a start.
func execStatus(err error) int {
	var e *execError
	if errors.As(err, &e) {
		return e.code
	}
	return statusFailed
}

// cannotStart words why a program cannot be started.
func cannotStart(name string, cause error) *execError {
	e := &execError{text: fmt.Sprintf("cannot start %q: %v", name, cause), code: statusNoExec, cause: cause}
	if errors.Is(cause, syscall.ENOENT) || errors.Is(cause, syscall.ENOTDIR) {
		e.code = statusNotFound
	}
	return e
}

// resolve makes the image for a new generation. It reads files and so may block: never call it on
// the supervisor's goroutine.
// An image of the same file, if given, lends its hash.
func (p *program) resolve(generation int, like *image) (*image, error) {
	img := &image{Exe: -1, Dir: -1}
	if err := p.fill(img, generation, like); err != nil {
		img.unpin()
		return nil, err
	}
	return img, nil
}

func (p *program) fill(img *image, generation int, like *image) error {
	var err error
	if img.Dir, err = unix.Open(p.dir, openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot enter directory %q: %w", p.dir, err)
	}
	if img.env, err = p.environment(generation); err != nil {
		return err
	}
	img.set, img.Argv = p.expandAll(p.env), p.expandAll(p.argv)
	if img.Path, err = p.find(img.Argv[0], img.environ(nil)); err != nil {
		return err
	}
	if img.Exe, err = unix.Open(img.Path, openPin|unix.O_CLOEXEC, 0); err != nil {
		return cannotStart(img.Argv[0], err)
	}
	if err := p.readHead(img, like); err != nil {
		return err
	}
	img.advice = advise(img.Argv, p.dir)
	if img.StopSignal = p.stopSignal; img.StopSignal == 0 {
		img.StopSignal = stopSignalFor(img.Argv)
	}
	return nil
}

// find resolves the program's name as execvp(3) would: with a slash from the directory, else in the
// program's own PATH.
func (p *program) find(name string, env []string) (string, error) {
	if strings.Contains(name, "/") {
		if !filepath.IsAbs(name) {
			return filepath.Join(p.dir, name), nil
		}
		return name, nil
	}
	var cause error = syscall.ENOENT
	for _, dir := range searched(env) {
		path := filepath.Join(dir, name)
		var st unix.Stat_t
		if unix.Stat(path, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFREG {
			continue
		}
		if st.Mode&0o111 != 0 {
			return path, nil
		}
		cause = syscall.EACCES
	}
	e := cannotStart(name, cause)
	if _, err := os.Stat(filepath.Join(p.dir, name)); err == nil {
		e.hint = fmt.Sprintf("use ./%s or put it in PATH", name)
	}
	return "", e
}

// sameFile tells whether two paths lead to one file.
func sameFile(a, b string) bool {
	var x, y unix.Stat_t
	return unix.Stat(a, &x) == nil && unix.Stat(b, &y) == nil && x.Dev == y.Dev && x.Ino == y.Ino
}

// searched are the directories in which a bare name is looked for. A relative one would change its meaning
// with the program's directory.
func searched(env []string) []string {
	return slices.DeleteFunc(filepath.SplitList(getenv(env, "PATH")), func(dir string) bool { return !filepath.IsAbs(dir) })
}

// readHead finds out what the pinned file is, and its content's hash.
func (p *program) readHead(img, like *image) error {
	var st unix.Stat_t
	if err := unix.Fstat(img.Exe, &st); err != nil {
		return cannotStart(img.Argv[0], err)
	}
	if st.Mode&unix.S_IFMT == unix.S_IFDIR {
		return cannotStart(img.Argv[0], syscall.EISDIR)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFREG || st.Mode&0o111 == 0 {
		return cannotStart(img.Argv[0], syscall.EACCES)
	}
	img.real, _ = filepath.EvalSymlinks(img.Path)
	img.stat = st
	if like != nil && sameContent(&like.stat, &st) {
		img.Build, img.script = like.Build, like.script
	} else {
		img.Build, img.script = contentOf(img.Path, &st)
	}
	switch {
	case !canRunPinned:
		img.Pinned = "no"
	case img.script || interpreted(img.Argv):
		img.Pinned = pinnedDir
	default:
		img.Pinned = "file"
	}
	return nil
}

// sameContent tells whether a file cannot have changed between two looks at it: ctime moves with every
// write and every rename.
func sameContent(a, b *unix.Stat_t) bool {
	return a.Ino != 0 && a.Dev == b.Dev && a.Ino == b.Ino && a.Size == b.Size && a.Mtim == b.Mtim && a.Ctim == b.Ctim
}

// samePin tells whether an opened file is the pinned one.
func samePin(st os.FileInfo, pin *unix.Stat_t) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Ino == pin.Ino && sys.Dev == pin.Dev
}

// contentOf is the short hash of a file's content and whether it is a script. A file that may be run
// but not read has no hash.
// With a pin, the path may have been replaced since: then there is none either.
func contentOf(path string, pin *unix.Stat_t) (build string, script bool) {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be a pipe by now
	if err != nil {
		return "unknown", false
	}
	defer f.Close()
	if st, err := f.Stat(); err != nil || pin != nil && !samePin(st, pin) {
		return "unknown", false
	}
	head := make([]byte, 2)
	n, _ := io.ReadFull(f, head)
	h := sha256.New()
	h.Write(head[:n])
	if _, err := io.Copy(h, f); err != nil {
		return "unknown", false
	}
	return hex.EncodeToString(h.Sum(nil))[:6], bytes.Equal(head[:n], []byte("#!"))
}

// interpreted tells whether the program is an interpreter that runs a script named in its arguments.
func interpreted(argv []string) bool {
	base := strings.TrimRight(filepath.Base(argv[0]), "0123456789.")
	return len(argv) > 1 && slices.Contains(interpreters, base)
}

var interpreters = []string{
	"bash", "bun", "dash", "deno", "java", "lua", "node", "nodejs", "perl", "php", "python", "ruby", "sh", "zsh",
}

// environ is what one process finds: more is its own, and the user has the last word.
func (img *image) environ(more []string) []string {
	return apply(append(slices.Clone(img.env), more...), img.set)
}

func (img *image) unpin() {
	for _, fd := range []int{img.Exe, img.Dir} {
		if fd >= 0 {
			_ = unix.Close(fd)
		}
	}
	img.Exe, img.Dir = -1, -1
}

// is tells whether path still is the pinned executable.
func (img *image) is(path string) bool {
	var pin, now unix.Stat_t
	return unix.Fstat(img.Exe, &pin) == nil && unix.Stat(path, &now) == nil && pin.Dev == now.Dev && pin.Ino == now.Ino
}

const pinnedDir = "directory"

// diskState is what lies on disk where an image was found.
type diskState int

const (
	diskSame    diskState = iota // the image; of what an interpreter runs nobody knows more than its directory
	diskOther                    // another; the pin is what runs
	diskNothing                  // nothing
	diskRuns                     // another, and it is what runs: there is no pin of a script that was replaced
)

// disk tells what lies where the image was found; dir is where its directory was.
func (img *image) disk(dir string) diskState {
	var pin, now unix.Stat_t
	path, pinned := img.run()
	switch {
	case unix.Stat(img.Path, &now) != nil:
		return diskNothing
	case img.is(img.Path) && (img.Pinned != pinnedDir || unix.Fstat(img.Dir, &pin) == nil && unix.Stat(dir, &now) == nil &&
		pin.Dev == now.Dev && pin.Ino == now.Ino):
		return diskSame
	case path == img.Path && !pinned && !img.is(path):
		return diskRuns
	}
	return diskOther
}

// run tells how to start the pinned executable: by its path while that still is it, which shows the
// right name everywhere; else by the pin. A script cannot be run from a close-on-exec descriptor (its
// interpreter opens it by name): its real path is the next best.
func (img *image) run() (path string, pinned bool) {
	switch {
	case img.is(img.Path):
		return img.Path, false
	case img.script && img.real != "" && img.is(img.real):
		return img.real, false
	case img.script || !canRunPinned:
		return img.Path, false
	default:
		return img.Path, true
	}
}

// launch is what one worker gets beside its image.
type launch struct {
	sockets []*listener
	env     []string // more of it
	ready   int      // write end of the --ready fd=N pipe; -1 none
	ack     int      // the worker's end of the EINHORN_SOCK_FD socket; -1 none
	output  [2]int   // stdout and stderr; 0: hotwrap's own
	report  int      // write end of the pipe on which the shim says how exec went
	adopt   int      // the shim's end of an adoption; 0 none
}

// start forks one worker as a shim that becomes the program. Only the supervisor's goroutine calls it.
func (p *program) start(img *image, l launch) (pid int, err error) {
	files := p.files(l)
	spec := p.identity()
	spec.Report, spec.Dir = len(files), len(files)+1
	files = append(files, uintptr(l.report), uintptr(img.Dir))
	path, pinned := img.run()
	if pinned {
		path = ""
	}
	if canRunPinned && !img.script { // the shim looks again: the file may be replaced meanwhile
		spec.Exe = len(files)
		files = append(files, uintptr(img.Exe))
	}
	if l.adopt > 0 {
		spec.Adopt = len(files)
		files = append(files, uintptr(l.adopt))
	}
	spec.Path, spec.Keep, spec.Argv = path, p.passed(l), img.Argv
	sys := &syscall.SysProcAttr{Setpgid: true}
	if p.ownStdin {
		sys.Foreground, sys.Ctty = true, 0
	}
	env := img.environ(l.env)
	return fork(spec.Args(shim.Mark), env, files, sys)
}

// startShell forks a command for sh in a directory, with the program's rights but without its sockets.
func (p *program) startShell(command string, dir int, env []string) (pid int, err error) {
	spec := p.identity()
	spec.Dir, spec.Path, spec.Argv = 3, "/bin/sh", []string{"sh", "-c", command}
	files := []uintptr{uintptr(p.null), 1, 2, uintptr(dir)}
	return fork(spec.Args(shim.Mark), env, files, &syscall.SysProcAttr{Setpgid: true})
}

// fork starts hotwrap itself with args.
func fork(args, env []string, files []uintptr, sys *syscall.SysProcAttr) (int, error) {
	pid, err := syscall.ForkExec(selfPath, append([]string{"hotwrap"}, args...), &syscall.ProcAttr{Env: env, Files: files, Sys: sys})
	if err != nil {
		return 0, fmt.Errorf("cannot fork: %w", limitedStart(tooLong(err, env)))
	}
	return pid, nil
}

// identity is what every process of the program takes on beside descriptors and directory.
func (p *program) identity() shim.Spec {
	spec := shim.New()
	if p.user != nil && (os.Geteuid() == 0 || p.user.uid != os.Geteuid()) {
		spec.UID, spec.GID, spec.Groups = p.user.uid, p.user.gid, p.user.groups
	}
	if p.die {
		spec.Parent = os.Getpid()
	}
	return spec
}

// files are the descriptors of a worker, by number; holes are closed.
func (p *program) files(l launch) []uintptr {
	files := []uintptr{p.stdin(), 1, 2}
	for i, fd := range l.output {
		if fd > 0 {
			files[1+i] = uintptr(fd)
		}
	}
	put := func(number, fd int) {
		for len(files) <= number {
			files = append(files, ^uintptr(0))
		}
		files[number] = uintptr(fd)
	}
	for i, ls := range l.sockets {
		put(p.numbers[i], ls.fd)
	}
	if l.ready >= 0 {
		put(p.readyFD, l.ready)
	}
	if l.ack >= 0 {
		put(p.ackFD, l.ack)
	}
	return files
}

// number gives p its listeners, and each its descriptor in the program.
func (p *program) number(ls []*listener) (err error) {
	taken := slices.DeleteFunc([]int{p.readyFD, p.ackFD}, func(n int) bool { return n < 0 })
	p.listeners = ls
	if p.numbers, err = fdNumbers(ls, taken); err != nil {
		return usage("--listen %v", err)
	}
	var most unix.Rlimit
	if err := unix.Getrlimit(unix.RLIMIT_NOFILE, &most); err != nil {
		return fmt.Errorf("cannot read the limit on open files: %v", err)
	}
	for i, n := range p.numbers {
		if uint64(n) >= uint64(most.Cur) { //nolint:unconvert // FreeBSD counts in int64
			return usage("--listen: cannot pass %q as descriptor %d: the limit on open files is %d (RLIMIT_NOFILE)", ls[i].name, n, most.Cur)
		}
	}
	return nil
}

// passed are the numbers above stderr that the program keeps.
func (p *program) passed(l launch) []int {
	var keep []int
	for _, n := range p.numbers {
		if n > 2 {
			keep = append(keep, n)
		}
	}
	if l.ready >= 0 {
		keep = append(keep, p.readyFD)
	}
	if l.ack >= 0 {
		keep = append(keep, p.ackFD)
	}
	slices.Sort(keep)
	return keep
}

// stdin is hotwrap's own, but never its terminal: a server that reads from it would be stopped
// (SIGTTIN) in its own process group.
func (p *program) stdin() uintptr {
	if !p.ownStdin && isTerminal(0) {
		return uintptr(p.null)
	}
	return 0
}

const endedEarly = "its process ended before it became the program"

// readReport turns what came through the report pipe into an error: that the shim began and nothing more means that it
// has become the program; else its errno and what it was doing follow.
func readReport(f io.Reader, img *image) error {
	all, err := io.ReadAll(io.LimitReader(f, 256))
	if err != nil {
		return nil //nolint:nilerr // it was closed here: nobody asks any more
	}
	begun, doing, errno := reported(all)
	switch {
	case !begun: // it found no memory or no thread for itself; or it was killed, as its end will tell
		cause := errors.New(endedEarly)
		if limit := processLimit(); limit != "" {
			cause = fmt.Errorf("%w (%s)", cause, limit)
		}
		return cannotStart(img.Argv[0], cause)
	case doing == "":
		return nil
	case doing == shim.Watching:
		return fmt.Errorf("cannot %s: %w", doing, notWatchable(errno))
	case doing != "execute":
		return fmt.Errorf("cannot %s: %w", doing, limitedStart(errno))
	case errno == syscall.ENOENT && img.script:
		e := cannotStart(img.Argv[0], errors.New("its interpreter (the #! line) is not there"))
		e.code = statusNoExec
		return e
	default:
		return cannotStart(img.Argv[0], limitedStart(errno)) // EAGAIN: too many processes of that user, execve(2)
	}
}

// reported reads what a shim says: whether it was itself once, and, unless it has become the program, what it was doing and
// errno.
func reported(all []byte) (begun bool, doing string, errno syscall.Errno) {
	text, begun := strings.CutPrefix(string(all), shim.Begun)
	number, doing, _ := strings.Cut(text, " ")
	n, _ := strconv.Atoi(number)
	return begun, doing, syscall.Errno(n)
}

// execMain is `hotwrap exec -- PROGRAM`: inside a script it stamps LISTEN_PID anew, for launchers that
// put a process in between. It returns only if that failed.
func execMain(argv []string) error {
	runtime.LockOSThread()
	env := shim.Stamp(os.Environ())
	n, _ := strconv.Atoi(getenv(env, "LISTEN_FDS"))
	for fd := 3; fd < 3+n; fd++ {
		// One that is close-on-exec is none that we were handed: the Go runtime has taken the number.
		if flags, err := unix.FcntlInt(uintptr(fd), unix.F_GETFD, 0); err != nil || flags&unix.FD_CLOEXEC != 0 {
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
