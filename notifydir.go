package main

// This file is the directory in which the workers' sockets lie: where it can be, and who may have a hand in it. The rules are:
//
//   - The workers may run as another user: then every directory above must let that user through.
//   - Nobody but root and us may be able to exchange a directory under us.
//   - What a killed hotwrap left behind is swept away. Whether its owner lives, a lock says, which dies with it.

import (
	"crypto/rand"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

const (
	notifyPrefix = "notify-"
	nameLength   = 8                                            // 40 random bits
	maxSockPath  = len(unix.RawSockaddrUnix{}.Path) - 1         // 107 on Linux, 103 on macOS
	tailLength   = len("/"+notifyPrefix+"/"+"a") + 2*nameLength // of a socket's path behind the base directory
)

// sharedMemory is a directory of Linux that a container whose root is read-only can write to all the same. Tests take it away.
var sharedMemory = "/dev/shm"

// notifyDir is a directory of our own that holds the sockets of the workers.
type notifyDir struct {
	path     string
	base     *os.File // the directory that it lies in
	madeBase bool
	dir      *os.File // itself; holds the lock
	uid, gid int      // of the program's user, -1: ours
}

// openNotifyDir makes the directory in the first place that will do. uid and gid are those of the program's user, -1: ours.
func openNotifyDir(environ []string, uid, gid int) (*notifyDir, error) {
	fresh := filepath.Join(os.TempDir(), fmt.Sprintf("hotwrap-%d-%s", os.Geteuid(), randomName()))
	var reasons []string
	for _, base := range append(runtimeDirs(environ), fresh) {
		d, err := tryNotifyDir(base, uid, gid)
		if err == nil {
			return d, nil
		}
		reasons = append(reasons, fmt.Sprintf("%q: %v", base, err))
	}
	return nil, fmt.Errorf("cannot make a directory for the workers' sockets: %s", strings.Join(reasons, "; "))
}

// runtimeDirs lists the runtime directories that hotwrap may use, best first.
func runtimeDirs(environ []string) []string {
	var dirs []string
	if dir := getenv(environ, "HOTWRAP_RUNTIME_DIR"); dir != "" {
		if abs, err := filepath.Abs(dir); err == nil {
			dirs = append(dirs, abs)
		}
	}
	systemd := getenv(environ, "RUNTIME_DIRECTORY")
	if dir, _, _ := strings.Cut(systemd, ":"); filepath.IsAbs(dir) {
		dirs = append(dirs, filepath.Clean(dir))
	}
	if dir := getenv(environ, "XDG_RUNTIME_DIR"); filepath.IsAbs(dir) { // its specification: ignore a relative one
		dirs = append(dirs, filepath.Join(dir, "hotwrap"))
	}
	own := fmt.Sprintf("hotwrap-%d", os.Geteuid())
	return append(dirs, "/run/hotwrap", filepath.Join(os.TempDir(), own), filepath.Join(sharedMemory, own))
}

// tryNotifyDir makes the directory in base, if base is fit for it.
func tryNotifyDir(base string, uid, gid int) (*notifyDir, error) {
	base, err := resolveBase(base)
	if err != nil {
		return nil, err
	}
	if length := len(base) + tailLength; length > maxSockPath {
		return nil, fmt.Errorf("a socket's path would have %d bytes, over %d", length, maxSockPath)
	}
	foreign := uid >= 0 && uid != os.Geteuid()
	if err := fitParents(base, foreign); err != nil {
		return nil, err
	}
	for range 8 { // a hotwrap that ends may remove base between two of our looks
		d := &notifyDir{uid: uid, gid: gid}
		err = d.openBase(base, foreign)
		if err == nil {
			err = d.create()
		}
		if err == nil {
			d.sweep()
			return d, nil
		}
		d.close()
		if !errors.Is(err, unix.ENOENT) {
			break
		}
	}
	return nil, err
}

// resolveBase follows the symlinks on the way to base. base itself may only be one of root's or ours: in /tmp anybody can
// put one (systemd makes one for DynamicUser= with RuntimeDirectoryPreserve=).
func resolveBase(base string) (string, error) {
	if info, err := os.Lstat(base); err == nil && info.Mode()&os.ModeSymlink != 0 && reliable(owner(info)) {
		resolved, err := filepath.EvalSymlinks(base)
		return resolved, causeOf(err)
	}
	parent, err := filepath.EvalSymlinks(filepath.Dir(base))
	return filepath.Join(parent, filepath.Base(base)), causeOf(err)
}

// reliable says whether a directory of that owner can be built on: root, we, or an owner outside our user namespace,
// which is how root's directories look in a sandbox.
func reliable(uid uint32) bool {
	return uid == 0 || int(uid) == os.Geteuid() || unmappedOwner(uid)
}

// fitParents looks at every directory above base.
func fitParents(base string, foreign bool) error {
	for dir := base; dir != filepath.Dir(dir); {
		dir = filepath.Dir(dir)
		info, err := os.Lstat(dir)
		if err != nil {
			return causeOf(err)
		}
		if err := fit(info, foreign); err != nil {
			return fmt.Errorf("%q is %v", dir, err)
		}
	}
	return nil
}

// fit says whether a directory can be relied on: nobody but root and us can put another in the place of what we make in
// it, and, where the program's user is another one, that user gets through. also are others who may.
func fit(info os.FileInfo, foreign bool, also ...int) error {
	mode := info.Mode()
	switch {
	case !mode.IsDir():
		return errors.New("not a directory")
	case !reliable(owner(info)) && !slices.Contains(also, int(owner(info))):
		return fmt.Errorf("owned by uid %d", owner(info))
	case mode&0o022 != 0 && mode&os.ModeSticky == 0:
		return fmt.Errorf("writable by others (mode %04o)", mode.Perm())
	case foreign && mode&0o001 == 0:
		return fmt.Errorf("closed to the program's user (mode %04o)", mode.Perm())
	}
	return nil
}

// owner is the uid of a file's owner.
func owner(info os.FileInfo) uint32 {
	return info.Sys().(*syscall.Stat_t).Uid
}

// groupOf is the gid of a file's group.
func groupOf(info os.FileInfo) int {
	return int(info.Sys().(*syscall.Stat_t).Gid)
}

// openBase opens the base directory, and makes it if need be: 0711, so that every user gets through and none looks around.
func (d *notifyDir) openBase(base string, foreign bool) error {
	err := unix.Mkdir(base, 0o711)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return err
	}
	d.path, d.madeBase = filepath.Join(base, notifyPrefix+randomName()), err == nil
	if d.base, err = openDirAt(unix.AT_FDCWD, base); err != nil {
		return err
	}
	if d.madeBase {
		if err := unix.Fchmod(int(d.base.Fd()), 0o711); err != nil { // the umask may have taken bits
			return err
		}
	}
	info, err := d.base.Stat()
	if err != nil {
		return err
	}
	return fit(info, foreign)
}

// create makes and locks the directory itself. Before it is locked, the sweep of a hotwrap that starts at this moment may
// take it for a left-over: then again.
func (d *notifyDir) create() error {
	base := int(d.base.Fd())
	for range 8 {
		name := filepath.Base(d.path)
		if err := unix.Mkdirat(base, name, 0o700); err != nil {
			return err
		}
		dir, err := lockDirAt(base, name)
		if err == nil {
			d.dir = dir
			return unix.Fchmod(int(dir.Fd()), 0o711)
		}
		if !errors.Is(err, unix.EWOULDBLOCK) && !errors.Is(err, unix.ENOENT) {
			_ = unix.Unlinkat(base, name, unix.AT_REMOVEDIR)
			return err
		}
		d.path = filepath.Join(filepath.Dir(d.path), notifyPrefix+randomName())
	}
	return errors.New("what is made in it disappears")
}

// sweep removes the directories beside ours that belonged to a hotwrap that is dead.
func (d *notifyDir) sweep() {
	base := int(d.base.Fd())
	names, _ := d.base.Readdirnames(-1)
	for _, name := range names {
		if !strings.HasPrefix(name, notifyPrefix) {
			continue
		}
		if dir, err := lockDirAt(base, name); err == nil {
			removeDirAt(base, name, dir)
		}
	}
}

// close removes what is ours.
func (d *notifyDir) close() {
	if d.dir != nil {
		removeDirAt(int(d.base.Fd()), filepath.Base(d.path), d.dir)
	}
	if d.madeBase {
		_ = unix.Rmdir(filepath.Dir(d.path)) // fails while somebody uses it
	}
	if d.base != nil {
		_ = d.base.Close()
	}
}

// carriedNotify is that directory on its way to another hotwrap. Its lock belongs to the open file, and so goes along.
type carriedNotify struct {
	Path     string `json:"path,omitempty"`
	MadeBase bool   `json:"made_base,omitempty"`
	Base     int    `json:"base,omitempty"`
	Dir      int    `json:"dir,omitempty"`
	UID      int    `json:"uid"`
	GID      int    `json:"gid"`
}

// carry without baggage is what a death leaves.
func (d *notifyDir) carry(b *baggage) carriedNotify {
	if d == nil {
		return carriedNotify{}
	}
	c := carriedNotify{Path: d.path, MadeBase: d.madeBase, UID: d.uid, GID: d.gid}
	if b != nil {
		c.Base, c.Dir = b.number(d.base), b.number(d.dir)
	}
	return c
}

// restoreNotifyDir goes on with it; nil if there was none.
func restoreNotifyDir(c carriedNotify) (*notifyDir, error) {
	if c.Path == "" {
		return nil, nil
	}
	d := &notifyDir{path: c.Path, madeBase: c.MadeBase, uid: c.UID, gid: c.GID}
	d.base, d.dir = carriedFile(c.Base, filepath.Dir(c.Path)), carriedFile(c.Dir, filepath.Base(c.Path))
	if d.base == nil || d.dir == nil {
		return nil, fmt.Errorf("cannot go on with %q: it did not come along", c.Path)
	}
	return d, nil
}

// recoverNotifyDir takes over the directory of a hotwrap that was killed, for its workers live and know no other. One that
// another hotwrap has swept away, or is sweeping away, is made anew under the name.
func recoverNotifyDir(c carriedNotify) (*notifyDir, error) {
	base, name := filepath.Dir(c.Path), filepath.Base(c.Path)
	if !strings.HasPrefix(name, notifyPrefix) {
		return nil, fmt.Errorf("cannot take over %q: it is no directory of hotwrap's", c.Path)
	}
	foreign := c.UID >= 0 && c.UID != os.Geteuid()
	d := &notifyDir{uid: c.UID, gid: c.GID}
	err := fitParents(base, foreign)
	if err == nil {
		err = d.openBase(base, foreign)
	}
	d.path, d.madeBase = c.Path, c.MadeBase || d.madeBase
	if err == nil {
		err = d.takeOver(name)
	}
	if err != nil {
		if d.base != nil {
			_ = d.base.Close() // what lies in it is another's
		}
		return nil, fmt.Errorf("cannot take over %q: %w", c.Path, err)
	}
	return d, nil
}

// takeOver locks the directory, or makes it where it has gone. Who sweeps it holds the lock until it is gone.
func (d *notifyDir) takeOver(name string) (err error) {
	base := int(d.base.Fd())
	for range 8 {
		if d.dir, err = lockDirAt(base, name); err == nil {
			return unix.Fchmod(int(d.dir.Fd()), 0o711)
		}
		if err = unix.Mkdirat(base, name, 0o700); err != nil && !errors.Is(err, unix.EEXIST) {
			return err
		}
	}
	return errors.New("another hotwrap has it")
}

// give lets the program's user, and nobody else, use the socket name in d.
func (d *notifyDir) give(name string) error {
	dir := int(d.dir.Fd())
	if err := unix.Fchmodat(dir, name, socketMode, 0); err != nil || d.uid < 0 && d.gid < 0 {
		return err
	}
	return unix.Fchownat(dir, name, d.uid, d.gid, unix.AT_SYMLINK_NOFOLLOW)
}

// openDirAt opens the directory name in base; a symlink is none.
func openDirAt(base int, name string) (*os.File, error) {
	fd, err := unix.Openat(base, name, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_NOFOLLOW|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), name), nil
}

// lockDirAt opens and locks the directory name in base, if it is ours, nobody has locked it, and it is still there then.
func lockDirAt(base int, name string) (*os.File, error) {
	dir, err := openDirAt(base, name)
	if err != nil {
		return nil, err
	}
	var st unix.Stat_t
	err = unix.Fstat(int(dir.Fd()), &st)
	if err == nil && int(st.Uid) != os.Geteuid() {
		err = unix.EPERM
	}
	if err == nil {
		err = unix.Flock(int(dir.Fd()), unix.LOCK_EX|unix.LOCK_NB)
	}
	if err == nil {
		err = unix.Fstatat(base, name, &st, unix.AT_SYMLINK_NOFOLLOW) // a random name does not come back
	}
	if err != nil {
		_ = dir.Close()
		return nil, err
	}
	return dir, nil
}

// removeDirAt removes the directory name in base, which dir is, with the files in it, and lets go of its lock at last.
func removeDirAt(base int, name string, dir *os.File) {
	names, _ := dir.Readdirnames(-1)
	for _, file := range names {
		_ = unix.Unlinkat(int(dir.Fd()), file, 0)
	}
	_ = unix.Unlinkat(base, name, unix.AT_REMOVEDIR)
	_ = dir.Close()
}

// randomName returns a short name that nobody guesses.
func randomName() string {
	return strings.ToLower(rand.Text()[:nameLength])
}
