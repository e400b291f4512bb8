// This file keeps the file of a unix socket: it takes the path, guards it, puts it back and removes it.
//
//   - What answers at a path is never removed, nor is anything that is not a socket: we connect first, under a lock.
//   - A socket is bound under its own name, never aside and renamed: getsockname(2) tells programs the name of the
//     bind, and nginx, puma, unicorn and php-fpm compare it with their configuration. Until it listens, has its owner
//     and its mode, nobody may connect to it.
//   - A hidden hard link beside the path keeps the socket reachable when a program unlinks the path. A link cannot be
//     made afterwards: linkat(2) of an inode without links is ENOENT.

package main

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"os/user"
	"path/filepath"
	"strconv"
	"syscall"

	"golang.org/x/sys/unix"
)

// maxSocketPath is what fits into sun_path with its final NUL, unix(7). (BSD and macOS have 104 bytes: there bind says so.)
const maxSocketPath = 107

// errNotOurs: the path leads to something else than the socket that was bound there.
var errNotOurs = errors.New("its path is not ours")

// errExchanged: somebody has put another file in the place of the socket as soon as it was bound.
var errExchanged = errors.New("another file was put in its place")

// socketFile is a path that is ours to bind, and what was bound there.
type socketFile struct {
	path     string
	kind     int // SOCK_STREAM, SOCK_SEQPACKET or SOCK_DGRAM
	backlog  int
	nonblock bool
	mode     fs.FileMode
	uid, gid int         // -1: as created
	hidden   string      // the hard link, "" where none could be made
	made     fs.FileInfo // what bind created, to know it again
}

// open binds a new socket at the path, which must be free or stale, and returns it ready for clients.
func (f *socketFile) open() (int, error) {
	unlock, err := lockPath(f.path)
	if err != nil {
		return -1, err
	}
	defer unlock()
	if err := f.claim(); err != nil {
		return -1, err
	}
	fd, err := newSocket(unix.AF_UNIX, f.kind, 0, f.nonblock)
	if err != nil {
		return -1, err
	}
	if err := f.publish(fd); err != nil {
		f.unlink()
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// publish gives fd its path, closed at first, and opens that to clients last.
func (f *socketFile) publish(fd int) error {
	f.made, f.hidden = nil, ""
	if err := bindClosed(fd, f.path); err != nil {
		return err
	}
	made, err := os.Lstat(f.path)
	if err != nil {
		return err
	}
	f.made = made
	if f.kind != unix.SOCK_DGRAM {
		if err := unix.Listen(fd, f.backlog); err != nil {
			return err
		}
	}
	// Before chown: with fs.protected_hardlinks only its owner may link to a socket, proc_sys_fs(5).
	f.keep()
	return f.give()
}

// give opens the socket to clients: its owner, and last its mode. It is what we have made: in a directory of somebody else's
// another file may have its name by now.
func (f *socketFile) give() error {
	if f.made.Mode().Type() != fs.ModeSocket || int(owner(f.made)) != os.Geteuid() {
		return errExchanged
	}
	file, err := openMade(f.path)
	if err != nil {
		return err
	}
	defer file.close()
	if !file.is(f.made) {
		return errExchanged
	}
	if f.uid != -1 || f.gid != -1 {
		if err := file.chown(f.uid, f.gid); err != nil {
			return fmt.Errorf("cannot change its owner: %w", err)
		}
	}
	if err := file.chmod(uint32(f.mode.Perm())); err != nil {
		return fmt.Errorf("cannot change its mode: %w", err)
	}
	return nil
}

// keep makes the hidden link if it is not there; a file system without hard links goes without.
func (f *socketFile) keep() {
	f.hidden = hiddenPath(f.path)
	if err := os.Link(f.path, f.hidden); err != nil && !f.at(f.hidden) {
		f.hidden = ""
	}
}

// at tells whether path leads to our socket. The inode cannot be another's: a bound socket holds it.
func (f *socketFile) at(path string) bool {
	if f.made == nil || path == "" {
		return false
	}
	now, err := os.Lstat(path)
	return err == nil && os.SameFile(now, f.made)
}

// claim makes the path free to bind, or says what is there. The caller holds the lock.
func (f *socketFile) claim() error {
	hidden := hiddenPath(f.path)
	for {
		// A living socket whose path was unlinked is judged by its path too, so that goes back first.
		if info, err := os.Lstat(hidden); err == nil && info.Mode().Type() == fs.ModeSocket {
			_ = os.Link(hidden, f.path)
		}
		info, err := os.Lstat(f.path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return errors.Unwrap(err)
		}
		if err := removeStale(f.path, f.kind); err != nil {
			return err
		}
		if left, err := os.Lstat(hidden); err == nil && os.SameFile(info, left) {
			if err := os.Remove(hidden); err != nil {
				return fmt.Errorf("cannot remove the stale link %q: %w", hidden, errors.Unwrap(err))
			}
		}
	}
}

// restore puts the path back from the hidden link if it is gone or stale, and tells whether it did.
// errNotOurs: there is no hidden link to put back.
func (f *socketFile) restore() (bool, error) {
	if f.at(f.path) {
		if !f.at(f.hidden) {
			f.keep()
		}
		return false, nil
	}
	unlock, err := lockPath(f.path)
	if err != nil {
		return false, err
	}
	defer unlock()
	if err := removeStale(f.path, f.kind); err != nil {
		return false, err
	}
	if !f.at(f.hidden) {
		return false, errNotOurs
	}
	if err := os.Link(f.hidden, f.path); err != nil {
		return false, fmt.Errorf("cannot put its path back: %w", errors.Unwrap(err))
	}
	return true, nil
}

// remove takes away the path and the hidden link where they are still ours.
func (f *socketFile) remove() {
	if unlock, err := lockPath(f.path); err == nil {
		defer unlock()
	}
	f.unlink()
}

// unlink is remove for one who holds the lock.
func (f *socketFile) unlink() {
	for _, path := range []string{f.path, f.hidden} {
		if f.at(path) {
			_ = os.Remove(path)
		}
	}
}

// removeStale removes a socket at path that nobody answers; anything else there is an error.
func removeStale(path string, kind int) error {
	info, err := os.Lstat(path)
	switch {
	case errors.Is(err, fs.ErrNotExist):
		return nil
	case err != nil:
		return errors.Unwrap(err)
	case info.Mode().Type() != fs.ModeSocket:
		return fmt.Errorf("there is %s in its place", fileKind(info.Mode()))
	}
	if err := unanswered(path, kind); err != nil {
		return err
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("cannot remove the stale socket: %w", errors.Unwrap(err))
	}
	return nil
}

// unanswered returns nil if a connect proves that nobody serves path, else who or what keeps it.
func unanswered(path string, kind int) error {
	// Non-blocking: a living socket with a full queue says EAGAIN, connect(2).
	fd, err := newSocket(unix.AF_UNIX, kind, 0, true)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	switch err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); {
	case errors.Is(err, unix.ECONNREFUSED), errors.Is(err, unix.ENOENT):
		return nil
	// EPROTOTYPE: a socket of another type answers there.
	case err == nil, errors.Is(err, unix.EAGAIN), errors.Is(err, unix.EINPROGRESS), errors.Is(err, unix.EPROTOTYPE):
		return inUse(pathHolder(path))
	default:
		return fmt.Errorf("cannot tell whether the socket there is in use: %w", err)
	}
}

// inUse names who has an address, where the kernel tells.
func inUse(h holder, known bool) error {
	switch {
	case !known:
		return unix.EADDRINUSE
	case h.pid == os.Getpid():
		return errors.New("address in use by another --listen")
	default:
		return &inUseError{h, leftBehind(h.pid)}
	}
}

// inUseError says who has an address, and what to do if a hotwrap that was killed has left that one.
type inUseError struct {
	by   holder
	hint string
}

func (e *inUseError) Error() string {
	return fmt.Sprintf("address in use by pid %d (%s)", e.by.pid, e.by.command)
}

// lockPath keeps every other hotwrap from the path until unlock. The lock is a file of our own, since a directory such
// as /tmp may be locked by anybody for any time; it is removed, so its holder must check that it still is the file.
func lockPath(path string) (unlock func(), err error) {
	dir, base := filepath.Split(path)
	name := filepath.Join(dir, "."+base+".hotwrap-lock")
	for {
		fd, err := unix.Open(name, unix.O_RDWR|unix.O_CREAT|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0o600)
		if err != nil {
			return nil, fmt.Errorf("cannot create a lock in %q: %w", filepath.Clean(dir), err)
		}
		file := os.NewFile(uintptr(fd), name)
		if st, err := file.Stat(); err != nil || !trusted(st) {
			file.Close()
			return nil, fmt.Errorf("cannot lock %q: another user owns it", name) // and could hold it for ever
		}
		if err := flock(fd); err != nil {
			file.Close()
			return nil, fmt.Errorf("cannot lock %q: %w", name, err)
		}
		ours, err := file.Stat()
		if now, lerr := os.Lstat(name); err == nil && lerr == nil && os.SameFile(ours, now) {
			return func() { _ = os.Remove(name); file.Close() }, nil
		}
		file.Close()
	}
}

// trusted tells whether a file belongs to us or to root.
func trusted(st fs.FileInfo) bool {
	sys, ok := st.Sys().(*syscall.Stat_t)
	return ok && (sys.Uid == 0 || int(sys.Uid) == os.Geteuid())
}

// flock waits for the exclusive lock; a signal may interrupt it.
func flock(fd int) error {
	for {
		if err := unix.Flock(fd, unix.LOCK_EX); !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// hiddenPath is where the hard link of the socket at path is kept.
func hiddenPath(path string) string {
	dir, base := filepath.Split(path)
	return filepath.Join(dir, "."+base+".hotwrap-link")
}

// fileKind says in words what mode is.
func fileKind(mode fs.FileMode) string {
	switch mode.Type() {
	case 0:
		return "a regular file"
	case fs.ModeDir:
		return "a directory"
	case fs.ModeSymlink:
		return "a symbolic link"
	case fs.ModeNamedPipe:
		return "a named pipe"
	case fs.ModeSocket:
		return "a socket"
	default:
		return "a device"
	}
}

// openUnix opens a unix socket: at a path, or in the abstract space, where there is no file to keep.
func (s listenSpec) openUnix() (*listener, error) {
	path, err := s.socketPath()
	if err != nil {
		return nil, err
	}
	f := &socketFile{path: path, kind: s.kind(), backlog: s.queue(), nonblock: s.nonblock, mode: s.mode}
	if f.uid, f.gid, err = s.owner(); err != nil {
		return nil, err
	}
	open := f.open
	if s.abstract() {
		open = f.openAbstract
	}
	fd, err := open()
	if errors.Is(err, unix.EADDRINUSE) {
		err = inUse(pathHolder(path))
	}
	if err != nil {
		return nil, err
	}
	if s.abstract() {
		f = nil
	}
	return s.newListener(fd, f)
}

// openAbstract binds and listens; nobody can reach the socket in between, since it has no file to be closed.
func (f *socketFile) openAbstract() (int, error) {
	fd, err := newSocket(unix.AF_UNIX, f.kind, 0, f.nonblock)
	if err != nil {
		return -1, err
	}
	err = unix.Bind(fd, &unix.SockaddrUnix{Name: f.path})
	if err == nil && f.kind != unix.SOCK_DGRAM {
		err = unix.Listen(fd, f.backlog)
	}
	if err != nil {
		unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// kind is the second argument of socket(2).
func (s listenSpec) kind() int {
	switch s.network {
	case "unixgram":
		return unix.SOCK_DGRAM
	case "unixpacket":
		return unix.SOCK_SEQPACKET
	default:
		return unix.SOCK_STREAM
	}
}

// owner looks user= and group= up. A user alone brings its own group, as SocketUser= does, systemd.socket(5).
func (s listenSpec) owner() (uid, gid int, err error) {
	uid, gid = -1, -1
	if s.user != "" {
		u, err := user.Lookup(s.user)
		if err != nil {
			u, err = user.LookupId(s.user)
		}
		if err == nil {
			gid = accountID(u.Gid)
			uid = accountID(u.Uid)
		} else if uid = accountID(s.user); uid < 0 { // a number needs no entry
			return -1, -1, fmt.Errorf("unknown user %q", s.user)
		}
	}
	if s.group != "" {
		g, err := user.LookupGroup(s.group)
		if err == nil {
			gid = accountID(g.Gid)
		} else if gid = accountID(s.group); gid < 0 {
			return -1, -1, fmt.Errorf("unknown group %q", s.group)
		}
	}
	return uid, gid, nil
}

// accountID reads a user or group id; -1 if it is none.
func accountID(text string) int {
	n, err := strconv.ParseUint(text, 10, 31)
	if err != nil {
		return -1
	}
	return int(n)
}

// socketPath is the absolute path of a unix socket, or its abstract name.
func (s listenSpec) socketPath() (string, error) {
	if s.abstract() {
		return s.path, nil
	}
	path, err := filepath.Abs(s.path)
	if err == nil && len(path) > maxSocketPath {
		err = fmt.Errorf("the path %q is longer than %d bytes", path, maxSocketPath)
	}
	return path, err
}

// restorePath puts an unlinked path back.
func (l *listener) restorePath() (string, error) {
	restored, err := l.file.restore()
	switch {
	case errors.Is(err, errNotOurs):
		return "lost its path: replaced by a new socket", l.replace()
	case err != nil || !restored:
		return "", err
	}
	return "lost its path: put back", nil
}

// replace opens another socket at the path and puts it on the same number.
func (l *listener) replace() error {
	if l.file == nil {
		return errors.New("a program shut it down, and its address is not ours to bind again")
	}
	fd, err := l.file.open()
	if err != nil {
		return err
	}
	if l.watch != nil {
		l.watch.remove(l)
	}
	if err := moveDescriptor(fd, l.fd); err != nil {
		return err
	}
	if l.inode, err = socketInode(l.fd); err != nil {
		return err
	}
	if l.watch != nil {
		return l.watch.add(l)
	}
	return nil
}
