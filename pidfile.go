package main

// This file keeps --pid-file: a file with hotwrap's process id, for init scripts, monit and people.
//
// Its rules:
//   - It is there as soon as the sockets are, so who sees it can connect; it goes last.
//   - It appears at one stroke. Only a regular file that holds a process id, or nothing, is ever replaced.
//   - A lock decides whose it is, not whether some process has that id: the lock dies with its holder, ids
//     come back. It is a file of its own, 0600, since anybody may lock a file that he can read.
//   - What it will need is tried before anything is bound.

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const pidFileMost = 32 // bytes; a process id has at most 20 digits

// pidFile is the file of this hotwrap. All names are looked up in the directory as it was at the start.
type pidFile struct {
	name string // as it was asked for
	base string
	text string
	dir  *os.File
	lock *os.File // held for life
	file *os.File // what is, or will be, the file; locked too, so that pkill -L knows it from a stale one
}

// openPIDFile claims name, and writes what will be put there by publish; nil for no name.
func openPIDFile(name string) (*pidFile, error) {
	if name == "" {
		return nil, nil
	}
	p := &pidFile{name: name, base: filepath.Base(name), text: strconv.Itoa(os.Getpid()) + "\n"}
	if err := p.open(); err != nil {
		p.remove()
		return nil, fmt.Errorf("cannot write --pid-file %q: %w", name, err)
	}
	return p, nil
}

func (p *pidFile) open() error {
	if strings.HasSuffix(p.name, "/") || p.base == "." || p.base == ".." {
		return errors.New("it is a directory")
	}
	dir, err := openDir(filepath.Dir(p.name))
	if err != nil {
		return err
	}
	p.dir = dir
	if err := p.claim(); err != nil {
		return err
	}
	if err := p.replaceable(); err != nil {
		return err
	}
	return p.write()
}

// openDir opens a directory; symlinks on the way are followed, by root only those of its own.
func openDir(path string) (*os.File, error) {
	open := unix.Open
	if os.Geteuid() == 0 {
		open = openFirm
	}
	fd, err := open(path, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if errors.Is(err, unix.ENOENT) {
		return nil, &execError{
			text: fmt.Sprintf("there is no directory %q", path), code: statusFailed,
			hint: "make it first; in a unit file, RuntimeDirectory= does",
		}
	}
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

func (p *pidFile) lockName() string { return "." + p.base + ".hotwrap-lock" }
func (p *pidFile) newName() string  { return "." + p.base + ".hotwrap-new" }

// claim takes the lock, or names who has it.
func (p *pidFile) claim() (err error) {
	var held *heldError
	switch p.lock, err = lockAt(p.dir, p.lockName()); {
	case errors.As(err, &held) && held.pid > 0:
		return fmt.Errorf("it is that of another hotwrap, pid %d", held.pid)
	case errors.As(err, &held):
		return errors.New("it is that of another hotwrap, which is starting")
	case err != nil:
		return err
	}
	return rewrite(p.lock, p.text) // for the next one to name us
}

// openAt opens a name in a directory, never through a symlink, and never waits for the other end of a pipe.
func openAt(dir *os.File, name string, flags int, mode uint32) (*os.File, error) {
	fd, err := unix.Openat(int(dir.Fd()), name, flags|unix.O_NOFOLLOW|unix.O_NONBLOCK|unix.O_CLOEXEC, mode)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), filepath.Join(dir.Name(), name)), nil
}

// isAt tells whether a name in a directory leads to an open file; a symlink does not.
func isAt(dir *os.File, name string, file *os.File) bool {
	var at, st unix.Stat_t
	return unix.Fstatat(int(dir.Fd()), name, &at, unix.AT_SYMLINK_NOFOLLOW) == nil &&
		unix.Fstat(int(file.Fd()), &st) == nil && st.Dev == at.Dev && st.Ino == at.Ino
}

// heldError says that a lock is another's.
type heldError struct{ pid int } // who wrote itself into the file; 0 unknown

func (e *heldError) Error() string { return fmt.Sprintf("pid %d has the lock", e.pid) }

// lockAt makes or opens a file, and locks it. Its holder removes it at the end, so it must be looked at once more.
func lockAt(dir *os.File, name string) (*os.File, error) {
	for range 8 {
		lock, err := openAt(dir, name, unix.O_RDWR|unix.O_CREAT, 0o600)
		if err != nil {
			return nil, err
		}
		if err = tryLock(lock); err == nil && isAt(dir, name, lock) {
			return lock, nil
		}
		_ = lock.Close()
		if err != nil {
			return nil, err
		}
	}
	return nil, fmt.Errorf("its lock %q disappears again and again", name)
}

func tryLock(lock *os.File) error {
	st, err := lock.Stat()
	switch {
	case err != nil:
		return causeOf(err)
	case !trusted(st):
		return fmt.Errorf("another user has made %q", lock.Name())
	case linked(st): // where anybody may put one (protected_hardlinks in proc_sys_fs(5) is off), it would be written to
		return fmt.Errorf("%q is another file too, by a hard link", lock.Name())
	}
	err = unix.Flock(int(lock.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	if errors.Is(err, unix.EWOULDBLOCK) {
		pid, _ := readPID(lock)
		return &heldError{pid}
	}
	return err
}

// linked tells whether a file has another name.
func linked(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && sys.Nlink > 1
}

// rewrite gives an open file another content.
func rewrite(f *os.File, text string) error {
	if err := f.Truncate(0); err != nil {
		return causeOf(err)
	}
	_, err := f.WriteAt([]byte(text), 0)
	return causeOf(err)
}

// readPID reads the process id that a file holds.
func readPID(f *os.File) (int, bool) {
	text, err := io.ReadAll(io.NewSectionReader(f, 0, pidFileMost+1))
	if err != nil || len(text) > pidFileMost {
		return 0, false
	}
	pid, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	return pid, err == nil && pid > 0
}

// replaceable looks at what is there already: what a hotwrap left that was killed, or nothing. No rename follows a
// symlink, so this is about mistakes, not about races.
func (p *pidFile) replaceable() error {
	st, err := os.Lstat(p.name)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return causeOf(err)
	case !st.Mode().IsRegular():
		return fmt.Errorf("there is %s in its place", fileKind(st.Mode()))
	case !trusted(st):
		return fmt.Errorf("uid %d owns the file in its place", owner(st))
	case st.Size() == 0:
		return nil
	}
	old, err := openAt(p.dir, p.base, unix.O_RDONLY, 0)
	if err != nil {
		return err
	}
	defer old.Close()
	if _, ok := readPID(old); !ok {
		return errors.New("the file in its place holds no process id")
	}
	return nil
}

// write makes the file, aside. We hold the lock, so one that lies there is left over.
func (p *pidFile) write() error {
	_ = unix.Unlinkat(int(p.dir.Fd()), p.newName(), 0)
	file, err := openAt(p.dir, p.newName(), unix.O_RDWR|unix.O_CREAT|unix.O_EXCL, 0o600)
	if err != nil {
		return err
	}
	p.file = file
	if err := rewrite(file, p.text); err != nil {
		return err
	}
	if err := unix.Fchmod(int(file.Fd()), 0o644); err != nil { // whatever the umask
		return err
	}
	return unix.Flock(int(file.Fd()), unix.LOCK_EX|unix.LOCK_NB)
}

// publish puts the file in its place.
func (p *pidFile) publish() error {
	if p == nil {
		return nil
	}
	dir := int(p.dir.Fd())
	if err := unix.Renameat(dir, p.newName(), dir, p.base); err != nil {
		return fmt.Errorf("cannot write --pid-file %q: %w", p.name, err)
	}
	return nil
}

// carriedPIDFile is the file on its way to another hotwrap in the same process. Its locks belong to the open files.
type carriedPIDFile struct {
	Name string `json:"name,omitempty"`
	Dir  int    `json:"dir,omitempty"`
	Lock int    `json:"lock,omitempty"`
	File int    `json:"file,omitempty"`
}

func (p *pidFile) carry(b *baggage) carriedPIDFile {
	if p == nil {
		return carriedPIDFile{}
	}
	c := carriedPIDFile{Name: p.name}
	if b != nil {
		c.Dir, c.Lock, c.File = b.number(p.dir), b.number(p.lock), b.number(p.file)
	}
	return c
}

// restorePIDFile goes on with it; nil if there was none.
func restorePIDFile(c carriedPIDFile) (*pidFile, error) {
	if c.Name == "" {
		return nil, nil
	}
	p := &pidFile{name: c.Name, base: filepath.Base(c.Name), text: strconv.Itoa(os.Getpid()) + "\n"}
	p.dir, p.lock, p.file = carriedFile(c.Dir, filepath.Dir(c.Name)), carriedFile(c.Lock, p.lockName()), carriedFile(c.File, c.Name)
	if p.dir == nil || p.lock == nil || p.file == nil {
		return nil, fmt.Errorf("cannot go on with --pid-file %q: it did not come along", c.Name)
	}
	return p, nil
}

// remove takes away what is ours: not a file that was put in its place, nor one with another's id in it. The lock goes
// last.
func (p *pidFile) remove() {
	if p == nil {
		return
	}
	if p.file != nil {
		for _, name := range []string{p.newName(), p.base} {
			if pid, ok := readPID(p.file); ok && pid == os.Getpid() && isAt(p.dir, name, p.file) {
				_ = unix.Unlinkat(int(p.dir.Fd()), name, 0)
			}
		}
		_ = p.file.Close()
	}
	if p.lock != nil {
		if isAt(p.dir, p.lockName(), p.lock) {
			_ = unix.Unlinkat(int(p.dir.Fd()), p.lockName(), 0)
		}
		_ = p.lock.Close()
	}
	if p.dir != nil {
		_ = p.dir.Close()
	}
}
