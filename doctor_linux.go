package main

// This file holds what doctor tries on Linux: processes that are started to be looked at, and limits.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"strings"
	"syscall"
	"time"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

const (
	backlogFew   = 1024      // clients that wait while a program starts; fewer is few
	filesFew     = 4096      // descriptors, one for each connection
	processesFew = 512       // of one user
	memoryFew    = 256 << 20 // bytes for a second generation
	watchesFew   = 1000      // directories of a source tree
	instancesFew = 8         // one for each program that watches files
	strangerID   = 65534     // nobody's, everywhere
	inotifyDir   = "/proc/sys/fs/inotify/"
)

// here looks at everything that only Linux has.
func (x *examination) here() {
	if err := basics(); err != nil {
		x.vital("start", "mount /proc and /dev", err)
		return
	}
	c := x.processes()
	x.orphans()
	x.tables()
	steers := steerable()
	x.steering(steers)
	x.adoption(c, steers)
	x.rebuilds()
	x.inotify()
	x.memory()
	if c != nil {
		x.limits(c)
		c.end()
	}
	x.backlog()
	x.container()
	x.privileges()
}

// patient is a process that is started to be looked at: a shell that waits for its standard input to end.
type patient struct {
	pid    int
	inode  uint64        // of a socket that it has
	took   time.Duration // from the fork until it had become the shell
	pinned bool          // by execveat(2), as what was replaced on disk is
	stdin  *os.File
	socket int
}

// newPatient starts one, as user if that is not nil.
func newPatient(user *credential, pinned bool) (*patient, error) {
	c := &patient{pinned: pinned, socket: -1}
	err := c.admit(user)
	if err != nil {
		c.end()
	}
	return c, err
}

// admit opens what the process is to have, and waits until it has become the shell.
func (c *patient) admit(user *credential) (err error) {
	if c.socket, err = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0); err != nil {
		return fmt.Errorf("cannot open a socket: %w", err)
	}
	if c.inode, err = socketInode(c.socket); err != nil {
		return err
	}
	sh, err := os.OpenFile("/bin/sh", unix.O_PATH, 0)
	if err != nil {
		return err
	}
	defer func() { _ = sh.Close() }()
	stdin, w, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = stdin.Close() }()
	c.stdin = w
	report, told, err := os.Pipe()
	if err != nil {
		return err
	}
	defer func() { _ = report.Close() }()
	began := time.Now()
	err = c.start(user, []uintptr{stdin.Fd(), 2, 2, uintptr(c.socket), told.Fd(), sh.Fd()})
	_ = told.Close()
	if err != nil {
		return err
	}
	_ = report.SetReadDeadline(began.Add(lookPatience))
	text, err := io.ReadAll(report) // it ends when exec has closed the other end
	c.took = time.Since(began)
	if err == nil {
		err = patientError(text)
	}
	return err
}

// patientError is what a shim's report says went wrong.
func patientError(report []byte) error {
	switch begun, doing, errno := reported(report); {
	case !begun:
		return errors.New(endedEarly)
	case doing != "":
		return fmt.Errorf("cannot %s: %w", doing, errno)
	}
	return nil
}

// start forks it.
func (c *patient) start(user *credential, files []uintptr) (err error) {
	spec := (&program{user: user}).identity()
	spec.Keep, spec.Report, spec.Argv = []int{3}, 4, []string{"sh", "-c", "read end"}
	if c.pinned {
		spec.Exe = 5
	} else {
		spec.Path = "/bin/sh"
	}
	c.pid, err = fork(spec.Args(shim.Mark), []string{"PATH=/usr/bin:/bin"}, files, &syscall.SysProcAttr{Setpgid: true})
	return err
}

// end lets it end, and waits for that.
func (c *patient) end() {
	if c.stdin != nil {
		_ = c.stdin.Close()
	}
	if c.socket >= 0 {
		_ = unix.Close(c.socket)
	}
	if c.pid > 0 {
		_ = unix.Kill(c.pid, unix.SIGKILL)
		_, _ = syscall.Wait4(c.pid, nil, 0, nil)
		c.pid = 0
	}
}

// processes starts programs and looks at them.
func (x *examination) processes() *patient {
	c, err := newPatient(nil, true)
	pinned := err == nil
	if err != nil {
		c, err = newPatient(nil, false)
	}
	if err != nil {
		x.vital("start", "ulimit -u, pids.max and seccomp decide over fork and exec", err)
		return nil
	}
	x.add(fitOK, "start", "", "hotwrap adds about %s to a program's own start", brief(c.took))
	if pinned {
		x.add(fitOK, "pin", "", "a crashed worker starts again from its own build, whatever lies on disk by then")
	} else {
		x.add(fitLimited, "pin", "allow execveat in the seccomp profile",
			"a crashed worker starts from what lies on disk then: execveat is not permitted")
	}
	x.readiness(c)
	x.strangers()
	return c
}

// readiness tries whether a program of our own user can be seen to wait for connections.
func (x *examination) readiness(c *patient) {
	const what = "readiness"
	const remedy = "a program that says READY=1, or --ready fd=N"
	if _, err := socketDevice(); err != nil {
		x.add(fitLimited, what, remedy, "a program cannot be seen to wait for connections, 1s alive is enough: %v", err)
		return
	}
	if v := look(c.pid, []uint64{c.inode}); v.blind != "" || !v.holds[c.inode] {
		if v.blind == "" {
			v.blind = "/proc does not show what a process has open"
		}
		x.add(fitLimited, what, remedy, "a program cannot be seen to wait for connections, 1s alive is enough: %s", v.blind)
		return
	}
	x.add(fitOK, what, "", "a program is seen to wait for connections, and need not say anything")
}

// strangers tries the same with a program of another user.
func (x *examination) strangers() {
	const what = "users"
	user := x.user
	if os.Geteuid() != 0 && (user == nil || user.uid != os.Geteuid()) {
		x.add(fitOK, what, "", "programs run as uid %d; --user is for root", os.Geteuid())
		return
	}
	if user == nil {
		user = &credential{name: "nobody", uid: strangerID, gid: strangerID}
	}
	c, err := newPatient(user, false)
	if err != nil {
		x.add(fitLimited, what, "CAP_SETUID and CAP_SETGID", "--user does not work: %v", err)
		return
	}
	defer c.end()
	if v := look(c.pid, []uint64{c.inode}); v.holds[c.inode] {
		x.add(fitOK, what, "", "programs of other users are seen to wait for connections too")
		return
	}
	if v := helped(user, c); v.blind == "" && len(v.pids) > 0 {
		x.add(fitLimited, what, "CAP_SYS_PTRACE saves that", "programs of other users are seen through a helper, a fork for each look")
		return
	}
	x.add(fitLimited, what, "CAP_SYS_PTRACE, or a program that says READY=1",
		"programs of other users cannot be seen to wait for connections, 1s alive is enough")
}

// helped looks as the helper with the program's own user id does.
func helped(user *credential, c *patient) view {
	null, err := unix.Open(os.DevNull, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return view{blind: err.Error()}
	}
	defer unix.Close(null)
	v := (&program{user: user, null: null}).lookAsUser(c.pid, []uint64{c.inode})()
	for _, child := range childrenOf(os.Getpid()) { // the helper has answered, and ends
		if child != c.pid {
			_, _ = syscall.Wait4(child, nil, syscall.WNOHANG, nil)
		}
	}
	return v
}

// orphans tries whether we become the parent of what loses its own.
func (x *examination) orphans() {
	if err := unix.Prctl(unix.PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0); err != nil {
		x.add(fitLimited, "orphans", "", "the end of a program that forks into the background is not seen: %v", err)
		return
	}
	x.add(fitOK, "orphans", "", "what a program leaves behind is seen to its end")
}

// tables tries the kernel's tables of sockets.
func (x *examination) tables() {
	const what = "sockets"
	l, err := net.Listen("unix", "")
	if err != nil {
		x.add(fitLimited, what, "", "cannot try: %v", causeOf(err))
		return
	}
	defer func() { _ = l.Close() }()
	queues := unixQueues()
	if err := tablesReadable(); err != nil {
		x.lacking(what, "what a drain waits for is read from /proc/net, without idle times and queues", err)
		return
	}
	if len(queues) == 0 {
		x.add(fitLimited, what, "the kernel module unix_diag", "the queues of unix sockets are not known")
		return
	}
	x.add(fitOK, what, "", "connections, idle times and queues are known")
}

// steering says whether each generation can have sockets of its own.
func (x *examination) steering(err error) {
	const what = "steering"
	if err != nil {
		x.lacking(what, lostSteering, err)
		return
	}
	x.add(fitOK, what, "", "each generation has sockets of its own, and clients reach it from the switch on")
}

// adoption tries whether a program that binds by itself can be given its sockets, which are generations' own.
func (x *examination) adoption(c *patient, err error) {
	const what = "adoption"
	if err == nil {
		err = adoptableAs(x.user)
	}
	if err == nil {
		err = x.attaching(c)
	}
	if err != nil {
		x.lacking(what, lostAdoption, err)
		return
	}
	if adoptionDeprives() {
		x.add(fitLimited, what, "CAP_SYS_ADMIN, or --adopt never where a program needs them",
			"a program that binds by itself is adopted with no_new_privs: setuid bits and file capabilities (sudo, ping) do nothing for it")
		return
	}
	x.add(fitOK, what, "", "a program that binds by itself is adopted")
}

// attaching tries to look into a process that is what a program would be.
func (x *examination) attaching(c *patient) error {
	if x.user != nil || c == nil {
		var err error
		if c, err = newPatient(x.user, false); err != nil {
			return err
		}
		defer c.end()
	}
	return attachable(c.pid, firstListenFD)
}

// rebuilds tries what tells that a new file is complete.
func (x *examination) rebuilds() {
	const what = "rebuilds"
	own, err := os.Executable()
	if err != nil {
		x.add(fitLimited, what, "", "cannot try: %v", err)
		return
	}
	if _, ok := execCheck(own); ok {
		x.add(fitOK, what, "", "the kernel says when a new program is complete (AT_EXECVE_CHECK)")
		return
	}
	if askKernel(own, false) == wordFree {
		x.add(fitOK, what, "", "the kernel says when a new program is complete (leases: files of our own user)")
		return
	}
	x.add(fitLimited, what, "rename new programs into place",
		"a program written in place is complete when it is quiet and its header agrees: no AT_EXECVE_CHECK, no lease")
}

// inotify tries to watch something, and counts what is left.
func (x *examination) inotify() {
	const what = "watch"
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC)
	if err == nil {
		defer unix.Close(fd)
		_, err = unix.InotifyAddWatch(fd, "/", unix.IN_ATTRIB)
	}
	instances, watches := inotifyUse()
	instancesMost, ok1 := readNumber(inotifyDir + "max_user_instances")
	watchesMost, ok2 := readNumber(inotifyDir + "max_user_watches")
	switch {
	case errors.Is(err, unix.EMFILE):
		x.add(fitLimited, what, raise("max_user_instances", instancesMost), "no inotify instance is left of %d: --watch looks once a second", instancesMost)
	case errors.Is(err, unix.ENOSPC):
		x.add(fitLimited, what, raise("max_user_watches", watchesMost), "no inotify watch is left of %d: --watch looks once a second", watchesMost)
	case err != nil:
		x.add(fitLimited, what, "", "--watch looks once a second: %v", err)
	case ok1 && instances+instancesFew > instancesMost:
		x.add(fitLimited, what, raise("max_user_instances", instancesMost), "%d of %d inotify instances are in use", instances, instancesMost)
	case ok2 && watches+watchesFew > watchesMost:
		x.add(fitLimited, what, raise("max_user_watches", watchesMost), "%d of %d inotify watches are in use, one for each directory", watches, watchesMost)
	case ok1 && ok2:
		x.add(fitOK, what, "", "inotify: %d of %d instances and %d of %d watches are in use", instances, instancesMost, watches, watchesMost)
	default:
		x.add(fitOK, what, "", "inotify works")
	}
}

// raise is the remedy for an inotify limit.
func raise(name string, now uint64) string {
	return fmt.Sprintf("sysctl fs.inotify.%s=%d", name, max(4*now, 1024))
}

// inotifyUse counts what our user has in use, as far as it can be seen.
func inotifyUse() (instances, watches uint64) {
	scanned := 0
	_ = eachNumber("/proc", func(_, pid int) bool {
		var st unix.Stat_t
		if unix.Stat(fmt.Sprintf("/proc/%d", pid), &st) == nil && int(st.Uid) == os.Getuid() {
			_ = eachDescriptor(pid, func(fd int, link []byte) bool {
				if string(link) == "anon_inode:inotify" {
					text, _ := readProc(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd), maxText)
					instances++
					watches += uint64(bytes.Count(text, []byte("inotify wd:"))) //nolint:gosec // a count
				}
				return true
			})
		}
		scanned++
		return scanned < maxProcesses
	})
	return instances, watches
}

// memory is what is left for the successor beside its predecessor.
func (x *examination) memory() {
	room, where, ok := memoryRoom()
	switch {
	case !ok:
		x.add(fitLimited, "memory", "", "how much is left for a second generation is not known")
	case room < memoryFew:
		x.add(fitLimited, "memory", "raise the limit, or --no-overlap", "%s has %s left: two generations run beside each other", where, megabytes(room))
	default:
		x.add(fitOK, "memory", "", "%s has %s left for a second generation", where, megabytes(room))
	}
}

// limits are those that a program finds: hotwrap's own runtime has raised some of its own.
func (x *examination) limits(c *patient) {
	text, err := readProc(fmt.Sprintf("/proc/%d/limits", c.pid), maxText)
	if err != nil {
		x.add(fitLimited, "limits", "", "cannot be read: %v", err)
		return
	}
	if n, limited, ok := parseLimit(text, "Max open files"); ok {
		result, remedy := fitOK, ""
		if limited && n < filesFew {
			result, remedy = fitLimited, "ulimit -n 65536, or LimitNOFILE=65536"
		}
		x.add(result, "files", remedy, "the program may have %s open, one for each connection", limitText(n, limited, "descriptor"))
	}
	if n, limited, ok := parseLimit(text, "Max processes"); ok {
		result, remedy := fitOK, ""
		if limited && n < processesFew && os.Geteuid() != 0 {
			result, remedy = fitLimited, "ulimit -u, or LimitNPROC="
		}
		x.add(result, "processes", remedy, "our user may have %s, and a restart runs two generations", limitText(n, limited, "process"))
	}
}

// parseLimit reads the soft limit of a line of /proc/PID/limits, proc_pid_limits(5).
func parseLimit(text []byte, name string) (n uint64, limited, ok bool) {
	for line := range bytes.Lines(text) {
		rest, found := bytes.CutPrefix(line, []byte(name))
		if fields := bytes.Fields(rest); found && len(fields) > 0 {
			if string(fields[0]) == "unlimited" {
				return 0, false, true
			}
			n, err := strconv.ParseUint(string(fields[0]), 10, 64)
			return n, true, err == nil
		}
	}
	return 0, false, false
}

func limitText(n uint64, limited bool, word string) string {
	if !limited {
		return "any number of " + noun(0, word)
	}
	return strconv.FormatUint(n, 10) + " " + noun(int(min(n, 2)), word)
}

// backlog is how many clients wait while nobody accepts.
func (x *examination) backlog() {
	switch n := systemBacklog(); {
	case n < backlogFew:
		x.add(fitLimited, "backlog", "sysctl net.core.somaxconn=4096", "%d clients wait while nobody accepts, more are turned away", n)
	default:
		x.add(fitOK, "backlog", "", "%d clients wait while nobody accepts", n)
	}
}

// container says where we are, as far as it changes something.
func (x *examination) container() {
	var words []string
	if os.Getpid() == 1 {
		words = append(words, "hotwrap is PID 1 and reaps what others leave behind")
	}
	if name := containerName(x.environ); name != "" {
		words = append(words, "in a container ("+name+")")
	}
	result, remedy := fitOK, ""
	if text, err := readProc("/proc/self/uid_map", maxText); err == nil && !wholeMap(text) {
		result, remedy = fitLimited, "map more of them, or leave --user away"
		words = append(words, "in a user namespace: --user and user= reach only the users that are mapped")
	}
	if len(words) == 0 {
		words = append(words, "none, and no user namespace")
	}
	x.add(result, "container", remedy, "%s", strings.Join(words, "; "))
}

// containerName is what made the container that we are in, as far as it says so: systemd's CONTAINER_INTERFACE, and the
// marks of Docker and Podman.
func containerName(environ []string) string {
	for name, path := range map[string]string{"docker": "/.dockerenv", "podman": "/run/.containerenv"} {
		if _, err := os.Stat(path); err == nil {
			return name
		}
	}
	if name := getenv(environ, "container"); name != "" {
		return name
	}
	text, _ := readProc("/run/systemd/container", 64)
	return strings.TrimSpace(string(text))
}

// wholeMap tells whether a uid_map is that of the first user namespace: all ids, as they are (user_namespaces(7)).
func wholeMap(text []byte) bool {
	fields := strings.Fields(string(text))
	return len(fields) == 3 && fields[0] == "0" && fields[1] == "0" && fields[2] == "4294967295"
}

// privileges looks at what a program can gain by exec.
func (x *examination) privileges() {
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	if err == nil && on == 1 {
		x.add(fitLimited, "privileges", "NoNewPrivileges=no, where a program needs them",
			"setuid bits and file capabilities (a port below 1024) do nothing for the program; -l opens the port for it")
		return
	}
	x.add(fitOK, "privileges", "", "setuid bits and file capabilities of a program count")
}

// trialProcess is how the hotwrap of a trial is started: out of the terminal's reach, and told to stop when we die.
func trialProcess() *syscall.SysProcAttr {
	return &syscall.SysProcAttr{Setpgid: true, Pdeathsig: syscall.SIGTERM}
}

// runningAs is the file that a process runs.
func runningAs(pid int) string {
	path, _ := os.Readlink(fmt.Sprintf("/proc/%d/exe", pid))
	return path
}
