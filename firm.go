package main

// This file is how root opens a path on which others may have a hand.
//
// Its rule: whoever owns a directory, or may write to it, chooses what lies there, and may exchange it between two looks. So
// the way is walked from descriptor to descriptor, only root's own symlinks in root's own directories are followed, and no
// file that has a second name is opened in a directory of somebody else's: it may be any file of the same file system.
//
// In a sticky directory, as /tmp is, nobody exchanges what is root's (inode(7)), but everybody may put something there first:
// a file of his own, or, unless fs.protected_hardlinks is set (proc_sys_fs(5)), a second name of any file or symlink. So there
// nothing that has one is used, and no file that is not root's, as fs.protected_regular and fs.protected_fifos have it.

import (
	"errors"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

const linksMost = 40 // symlinks on one way, as the kernel has it: path_resolution(7)

var (
	errForeignLink = errors.New("it is a symlink, and not root's; whoever made it chooses what root writes to")
	errForeignName = errors.New("it has another name elsewhere, and lies in a directory to which others may write, who choose what root writes to")
	errForeignFile = errors.New("it is not root's, and lies in a directory in which all may make files")
)

// way is how far a path was walked.
type way struct {
	dir   int      // descriptor
	firm  bool     // nobody but root can exchange anything in any directory up to here
	open  bool     // but others may put something into this one
	parts []string // what is left
	links int
}

// openFirm is open(2) for root.
func openFirm(path string, flags int, mode uint32) (fd int, err error) {
	if path, err = filepath.Abs(path); err != nil {
		return -1, err
	}
	w := &way{dir: -1, parts: splitPath(path)}
	defer func() { w.enter(-1) }()
	if err := w.begin(); err != nil {
		return -1, err
	}
	for {
		last := len(w.parts) == 1
		name := w.parts[0]
		var st unix.Stat_t
		err := unix.Fstatat(w.dir, name, &st, unix.AT_SYMLINK_NOFOLLOW)
		switch {
		case err == nil && st.Mode&unix.S_IFMT == unix.S_IFLNK && !w.isProc():
			err = w.follow(name, &st)
		case last:
			return w.openLast(name, flags, mode)
		default:
			err = w.down(name)
		}
		if err != nil {
			return -1, err
		}
	}
}

// isProc tells whether the directory is of /proc, where symlinks are the kernel's, and may lead to what has no path.
func (w *way) isProc() bool { return isProc(w.dir) }

// splitPath are the names of an absolute path; the root directory is ".".
func splitPath(path string) []string {
	parts := slices.DeleteFunc(strings.Split(path, "/"), func(part string) bool { return part == "" })
	if len(parts) == 0 {
		return []string{"."}
	}
	return parts
}

// enter goes to an opened directory.
func (w *way) enter(dir int) {
	if w.dir >= 0 {
		_ = unix.Close(w.dir)
	}
	w.dir = dir
}

// begin goes to the root directory.
func (w *way) begin() error {
	dir, err := unix.Open("/", openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil {
		w.enter(dir)
		w.firm = true
		err = w.look()
	}
	return err
}

// down goes to the next directory. What was none when it was looked at may be a symlink by now: then that is an error.
func (w *way) down(name string) error {
	flags := openPin | unix.O_DIRECTORY | unix.O_CLOEXEC
	if !w.isProc() { // its links are the kernel's
		flags |= unix.O_NOFOLLOW
	}
	dir, err := unix.Openat(w.dir, name, flags, 0)
	if err != nil {
		return err
	}
	w.enter(dir)
	w.parts = w.parts[1:]
	return w.look()
}

// look finds out whether the directory is firm, too.
func (w *way) look() error {
	var st unix.Stat_t
	err := unix.Fstat(w.dir, &st)
	w.open = st.Mode&0o022 != 0
	w.firm = w.firm && reliable(st.Uid) && (!w.open || st.Mode&unix.S_ISVTX != 0)
	return err
}

// follow puts what a symlink says in the place of its name.
func (w *way) follow(name string, st *unix.Stat_t) error {
	if !w.firm || !reliable(st.Uid) || w.open && st.Nlink > 1 {
		return errForeignLink
	}
	if w.links++; w.links > linksMost {
		return unix.ELOOP
	}
	text := make([]byte, unix.PathMax)
	n, err := unix.Readlinkat(w.dir, name, text)
	if err != nil {
		return err
	}
	target := string(text[:n])
	w.parts = append(splitPath(target), w.parts[1:]...)
	if filepath.IsAbs(target) {
		return w.begin()
	}
	return nil
}

// openLast opens the file itself.
func (w *way) openLast(name string, flags int, mode uint32) (int, error) {
	if !w.isProc() {
		flags |= unix.O_NOFOLLOW
	}
	fd, err := unix.Openat(w.dir, name, flags, mode)
	for errors.Is(err, unix.EINTR) {
		fd, err = unix.Openat(w.dir, name, flags, mode)
	}
	switch {
	case errors.Is(err, unix.ELOOP), errors.Is(err, unix.EMLINK): // open(2), on FreeBSD: it has become a symlink just now
		return -1, errForeignLink
	case err != nil:
		return -1, err
	}
	if err := w.refuse(fd); err != nil {
		_ = unix.Close(fd)
		return -1, err
	}
	return fd, nil
}

// refuse tells why a file of this directory is not to be used.
func (w *way) refuse(fd int) error {
	var st unix.Stat_t
	err := unix.Fstat(fd, &st)
	kind := st.Mode & unix.S_IFMT
	switch {
	case err != nil:
		return err
	case kind == unix.S_IFREG && st.Nlink > 1 && (!w.firm || w.open):
		return errForeignName
	case kind != unix.S_IFDIR && w.firm && w.open && !reliable(st.Uid):
		return errForeignFile
	}
	return nil
}
