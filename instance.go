package main

// This file is the place of one running hotwrap among others: its name, the lock on that, and the
// directory in which its control socket lies.
//
// Its rules: one instance per name and directory, for as long as it holds the lock, which dies with it;
// the directory is the owner's alone, or a group's that was let in by name; nothing on the way to it can
// be exchanged by others.

import (
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	controlDir   = "control" // with --control-group also control-GROUP
	socketSuffix = ".sock"
	lockSuffix   = ".lock"
	nameMost     = 64 // bytes of an instance's name
	namesTried   = 99 // NAME, NAME-2, NAME-3 …
)

// instance is one running hotwrap as others can find it.
type instance struct {
	name     string
	path     string // of the control socket
	group    int    // that may restart, roll back and look; -1 none
	listener *net.UnixListener
	lock     *os.File // on the name
	lockPath string
	madeBase string // the runtime directory, if it was not there
	passed   string // why it is not in $HOTWRAP_RUNTIME_DIR, where that is set
}

// takenError says that a name is another instance's.
type takenError struct {
	name string
	pid  int // that wrote itself into the lock file; 0 unknown
}

func (e *takenError) Error() string {
	text := fmt.Sprintf("cannot take the name %q: another hotwrap has it", e.name)
	if e.pid != 0 {
		text += fmt.Sprintf(" (pid %d)", e.pid)
	}
	return text
}

// openInstance takes a name and opens the control socket under it, in the first directory that will
// do. A name that was given must be free; a default one gets a number if it is not.
func openInstance(environ []string, name, given, group string) (*instance, error) {
	gid := -1
	if group != "" {
		if gid = accountGroup(group); gid < 0 {
			return nil, usage("--control-group %q: there is no such group", group)
		}
	}
	if given != "" {
		name = given
	}
	var reasons []string
	for _, base := range runtimeDirs(environ) {
		i := &instance{name: name, group: gid}
		err := i.openIn(base, group, given == "")
		var taken *takenError
		if err == nil {
			if len(reasons) > 0 && getenv(environ, "HOTWRAP_RUNTIME_DIR") != "" { // it is the first of them
				i.passed = reasons[0]
			}
			return i, nil
		}
		i.release()
		if errors.As(err, &taken) {
			return nil, err
		}
		reasons = append(reasons, fmt.Sprintf("%q: %v", base, err))
	}
	return nil, fmt.Errorf("cannot open the control socket: %s", strings.Join(reasons, "; "))
}

func (i *instance) openIn(base, group string, mayNumber bool) error {
	base, err := resolveBase(base)
	if err != nil {
		return err
	}
	if err := fitParents(base, i.group >= 0); err != nil { // the group has to get through
		return err
	}
	socketDir := controlDir
	if i.group >= 0 {
		socketDir += "-" + group
	}
	path := func() string { return filepath.Join(base, socketDir, i.name+socketSuffix) } // the name may get a number
	if length := len(path()); length > maxSockPath {                                     // before there is anything to be left behind
		return fmt.Errorf("the socket's path would have %d bytes, over %d", length, maxSockPath)
	}
	top := &notifyDir{}
	err = top.openBase(base, i.group >= 0)
	if top.base != nil {
		defer top.base.Close()
	}
	if top.madeBase {
		i.madeBase = base
	}
	if err == nil {
		err = i.makeDirs(top.base, socketDir)
	}
	if err == nil {
		err = i.takeName(filepath.Dir(i.lockPath), mayNumber)
	}
	if err == nil {
		i.path = path()
		err = i.bind()
	}
	return err
}

// makeDirs makes the directory of the locks, and that of the socket.
func (i *instance) makeDirs(base *os.File, socketDir string) error {
	if err := privateDir(base, controlDir, 0o700, -1); err != nil {
		return err
	}
	i.lockPath = filepath.Join(base.Name(), controlDir, i.name+lockSuffix)
	if i.group < 0 {
		return nil
	}
	return privateDir(base, socketDir, 0o750, i.group)
}

// privateDir makes or opens the directory name in base, and makes sure that it is ours and closed to all
// but us, or but us and a group.
func privateDir(base *os.File, name string, mode uint32, gid int) error {
	at, path := int(base.Fd()), filepath.Join(base.Name(), name)
	if err := unix.Mkdirat(at, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	dir, err := openDirAt(at, name)
	if err != nil {
		return err
	}
	defer dir.Close()
	info, err := dir.Stat()
	if err != nil {
		return err
	}
	if int(owner(info)) != os.Geteuid() {
		return fmt.Errorf("%q belongs to uid %d", path, owner(info))
	}
	if gid >= 0 {
		if err := unix.Fchown(int(dir.Fd()), -1, gid); err != nil {
			return fmt.Errorf("cannot give %q to the group: %v", path, err)
		}
	}
	return unix.Fchmod(int(dir.Fd()), mode)
}

// takeName locks the name, or with a number behind it the first that is free.
func (i *instance) takeName(path string, mayNumber bool) error {
	dir, err := openDir(path)
	if err != nil {
		return err
	}
	defer dir.Close()
	name := i.name
	for n := 2; ; n++ {
		var held *heldError
		i.lockPath = filepath.Join(path, i.name+lockSuffix)
		switch i.lock, err = lockAt(dir, i.name+lockSuffix); {
		case err == nil:
			_ = rewrite(i.lock, strconv.Itoa(os.Getpid())+"\n")
			return nil
		case !errors.As(err, &held):
			return fmt.Errorf("cannot lock %q: %w", i.lockPath, causeOf(err))
		case !mayNumber || n > namesTried:
			return &takenError{i.name, held.pid}
		}
		number := "-" + strconv.Itoa(n)
		i.name = name[:min(len(name), nameMost-len(number))] + number
	}
}

// bind opens the socket. One that lies there is a dead instance's: the name is ours.
func (i *instance) bind() error {
	if info, err := os.Lstat(i.path); err == nil {
		if info.Mode().Type() != fs.ModeSocket {
			return fmt.Errorf("%q is not a socket", i.path)
		}
		_ = os.Remove(i.path)
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: i.path, Net: "unix"})
	if err != nil {
		return fmt.Errorf("cannot listen on %q: %w", i.path, causeOf(err))
	}
	l.SetUnlinkOnClose(false)
	mode := fs.FileMode(0o600)
	if i.group >= 0 {
		mode = 0o660
		err = os.Lchown(i.path, -1, i.group)
	}
	if err == nil {
		err = os.Chmod(i.path, mode)
	}
	if err != nil {
		_ = l.Close()
		_ = os.Remove(i.path)
		return causeOf(err)
	}
	i.listener = l
	return nil
}

// release gives name and socket back: the socket's path first, while the name still is ours.
func (i *instance) release() {
	if i.listener != nil {
		_ = os.Remove(i.path)
		_ = i.listener.Close()
	}
	if i.lock != nil {
		_ = os.Remove(i.lockPath)
		_ = i.lock.Close()
	}
	for _, dir := range []string{filepath.Dir(i.path), filepath.Dir(i.lockPath), i.madeBase} {
		_ = unix.Rmdir(dir) // fails while another instance uses it
	}
}

// carriedInstance is its place on its way to another hotwrap. Who connects meanwhile waits in the socket's queue.
type carriedInstance struct {
	Name     string `json:"name,omitempty"`
	Path     string `json:"path,omitempty"`
	Group    int    `json:"group"`
	Listener int    `json:"listener,omitempty"`
	Lock     int    `json:"lock,omitempty"`
	LockPath string `json:"lock_path,omitempty"`
	MadeBase string `json:"made_base,omitempty"`
}

// carry without baggage is what a death leaves.
func (i *instance) carry(b *baggage) carriedInstance {
	if i == nil {
		return carriedInstance{}
	}
	c := carriedInstance{Name: i.name, Path: i.path, Group: i.group, LockPath: i.lockPath, MadeBase: i.madeBase}
	if b != nil {
		c.Listener, c.Lock = b.number(i.listener), b.number(i.lock)
	}
	return c
}

// restoreInstance goes on in the same place; nil if there was none.
func restoreInstance(c carriedInstance) (*instance, error) {
	if c.Name == "" {
		return nil, nil
	}
	i := &instance{name: c.Name, path: c.Path, group: c.Group, lockPath: c.LockPath, madeBase: c.MadeBase}
	l, err := restoreListener(c.Listener)
	if err != nil {
		return nil, err
	}
	i.listener, _ = l.(*net.UnixListener)
	i.lock = carriedFile(c.Lock, c.LockPath)
	if i.listener == nil || i.lock == nil {
		return nil, errors.New("cannot go on with the control socket: it did not come along")
	}
	return i, nil
}

// accountGroup is a group's id by name or number; -1: there is none.
func accountGroup(text string) int {
	_, gid, err := listenSpec{group: text}.owner()
	if err != nil {
		return -1
	}
	return gid
}

// --- names

// checkName tells what is wrong with a name that was given.
func checkName(name string) error {
	switch {
	case len(name) > nameMost:
		return fmt.Errorf("it is longer than %d bytes", nameMost)
	case allDigits(name):
		return errors.New("only digits would be a pid to the commands")
	case cleanName(name) != name:
		return errors.New("it may have letters, digits and . _ @ -, and begin with a letter or digit")
	}
	return nil
}

// cleanName makes a name of any text: what it may not have becomes a dash.
func cleanName(text string) string {
	name := strings.Map(func(r rune) rune {
		if r < 0x80 && plain(string(r), ".-_@") {
			return r
		}
		return '-'
	}, text)
	name = strings.TrimLeft(name, ".-_@")
	return name[:min(len(name), nameMost)]
}

// defaultName is what an instance is called that was given no name: by its systemd unit, else by its script or program.
func defaultName(argv, environ []string) string {
	name := unitName(environ)
	if name == "" {
		name = filepath.Base(scriptOrProgram(argv))
	}
	switch name = cleanName(name); {
	case name == "":
		return "hotwrap"
	case allDigits(name):
		return cleanName("hotwrap-" + name)
	}
	return name
}

// scriptOrProgram is what people call a program by: for an interpreter the script or module that it runs.
func scriptOrProgram(argv []string) string {
	if !interpreted(argv) {
		return argv[0]
	}
	for i, arg := range argv[1:] {
		switch {
		case arg == "-m" && i+2 < len(argv):
			return argv[i+2]
		case arg == "-c", arg == "-e", arg == "--eval": // the script itself
			return argv[0]
		case !strings.HasPrefix(arg, "-"):
			return strings.TrimSuffix(arg, filepath.Ext(arg))
		}
	}
	return argv[0]
}

// unitName is the systemd service whose main process we are, "" if none: SYSTEMD_EXEC_PID says so
// (systemd.exec(5), version 248), the last part of our control group names it.
func unitName(environ []string) string {
	if getenv(environ, "SYSTEMD_EXEC_PID") != strconv.Itoa(os.Getpid()) {
		return ""
	}
	text, err := os.ReadFile("/proc/self/cgroup")
	if err != nil {
		return ""
	}
	for line := range strings.Lines(string(text)) {
		if unit, ok := strings.CutSuffix(filepath.Base(strings.TrimSpace(line)), ".service"); ok {
			return unit
		}
	}
	return ""
}
