package main

// This file attacks what root opens and makes where the program's user owns the directory.

import (
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"testing"

	"golang.org/x/sys/unix"
)

const (
	attackerID = 54321
	attacks    = 2000 // how often a race is run
)

// hostile makes a directory that belongs to somebody else in one that is root's, and a file of root's beside.
func hostile(t *testing.T) (dir, victim string) {
	t.Helper()
	if os.Geteuid() != 0 {
		t.Skip("not root")
	}
	base := shortDir(t)
	dir, victim = filepath.Join(base, "his"), filepath.Join(base, "root", "file")
	err := errors.Join(os.Mkdir(dir, 0o755), os.Chown(dir, attackerID, attackerID), os.Mkdir(filepath.Dir(victim), 0o755),
		os.WriteFile(victim, []byte("root's\n"), 0o600))
	if err != nil {
		t.Fatal(err)
	}
	return dir, victim
}

// untouched fails unless the victim is as it was made, and alone.
func untouched(t *testing.T, victim string) {
	t.Helper()
	var st unix.Stat_t
	text, err := os.ReadFile(victim)
	if err = errors.Join(err, unix.Stat(victim, &st)); err != nil {
		t.Fatal(err)
	}
	if string(text) != "root's\n" || st.Mode&0o777 != 0o600 || st.Uid != 0 {
		t.Errorf("%s is %q, mode %o, of uid %d", victim, text, st.Mode, st.Uid)
	}
	names, err := os.ReadDir(filepath.Dir(victim))
	if err != nil || len(names) != 1 {
		t.Errorf("beside it is %v, %v", names, err)
	}
}

// openAndWrite is what hotwrap does with a log file.
func openAndWrite(path string) error {
	fd, err := openLog(path)
	if err != nil {
		return err
	}
	defer unix.Close(fd)
	_, err = unix.Write(fd, []byte("a line\n"))
	return err
}

// TestFirmDirectories: a symlink that the program's user has put in the place of a directory leads root's log, and its pid
// file, nowhere.
func TestFirmDirectories(t *testing.T) {
	dir, victim := hostile(t)
	logs := filepath.Join(dir, "logs")
	if err := errors.Join(os.Symlink(filepath.Dir(victim), logs), os.Lchown(logs, attackerID, attackerID)); err != nil {
		t.Fatal(err)
	}
	if err := openAndWrite(filepath.Join(logs, "app.log")); !errors.Is(err, errForeignLink) {
		t.Errorf("a log behind it: %v", err)
	}
	if _, err := openPIDFile(filepath.Join(logs, "app.pid")); !errors.Is(err, errForeignLink) {
		t.Errorf("a pid file behind it: %v", err)
	}
	untouched(t, victim)
}

// TestFirmNames: nor does a second name of a file of root's.
func TestFirmNames(t *testing.T) {
	dir, victim := hostile(t)
	if err := os.Link(victim, filepath.Join(dir, "app.log")); err != nil {
		t.Fatal(err)
	}
	if err := openAndWrite(filepath.Join(dir, "app.log")); !errors.Is(err, errForeignName) {
		t.Errorf("a log by another name: %v", err)
	}
	untouched(t, victim)
}

// TestFirmRoots: root's own links are followed, through /proc too.
func TestFirmRoots(t *testing.T) {
	dir, _ := hostile(t)
	base := filepath.Dir(dir)
	read, write, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer read.Close()
	defer write.Close()
	err = errors.Join(os.Symlink("root", filepath.Join(base, "rel")), os.Symlink(filepath.Join(base, "rel"), filepath.Join(base, "abs")),
		os.Symlink("../root/./link.log", filepath.Join(base, "root", "x.log")), os.Symlink("self", filepath.Join(base, "self")))
	if err != nil {
		t.Fatal(err)
	}
	for path, want := range map[string]error{
		filepath.Join(base, "abs", "app.log"): nil, filepath.Join(base, "abs", "x.log"): nil, dir + "/app.log": nil,
		filepath.Join(base, "self"): unix.ELOOP, filepath.Join(base, "none", "app.log"): unix.ENOENT, "/": unix.EISDIR,
	} {
		if err := openAndWrite(path); !errors.Is(err, want) {
			t.Errorf("%s: %v, want %v", path, err, want)
		}
	}
	if _, err := os.Lstat("/proc/self/fd"); err == nil {
		if err := openAndWrite("/proc/self/fd/" + strconv.Itoa(int(write.Fd()))); err != nil {
			t.Error(err)
		}
	}
}

// TestFirmRace: somebody who exchanges a directory for a symlink again and again does not get through between two looks.
func TestFirmRace(t *testing.T) {
	dir, victim := hostile(t)
	logs, aside := filepath.Join(dir, "logs"), filepath.Join(dir, "aside")
	if err := errors.Join(os.Mkdir(logs, 0o755), os.Symlink(filepath.Dir(victim), aside), os.Lchown(aside, attackerID, -1)); err != nil {
		t.Fatal(err)
	}
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				exchange(logs, aside)
			}
		}
	}()
	through := 0
	for range attacks {
		if openAndWrite(filepath.Join(logs, "app.log")) == nil {
			through++
		}
	}
	close(stop)
	<-ended
	untouched(t, victim)
	if through == 0 || through == attacks {
		t.Logf("nothing was raced: %d of %d opens met the directory", through, attacks)
	}
}

// TestSocketRace: while root makes a unix socket in a directory of the program's user, that user exchanges it for a symlink, again and
// again: no other file gets its mode or its owner.
func TestSocketRace(t *testing.T) {
	dir, victim := hostile(t)
	path := filepath.Join(dir, "a.sock")
	stop, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		for {
			select {
			case <-stop:
				return
			default:
				_ = os.Symlink(victim, path+".aside")
				_ = os.Rename(path+".aside", path)
				_ = os.Remove(path)
			}
		}
	}()
	made := 0
	for range attacks {
		f := &socketFile{path: path, kind: unix.SOCK_STREAM, backlog: 1, mode: 0o666, uid: attackerID, gid: attackerID}
		if fd, err := f.open(); err == nil {
			made++
			_ = unix.Close(fd)
			f.remove()
		}
	}
	close(stop)
	<-ended
	untouched(t, victim)
	t.Logf("%d of %d sockets were made", made, attacks)
}

// TestFirmSticky: in a directory like /tmp, what is root's is root's, but who comes first is not: no file of his, and no
// second name of a file or symlink of root's.
func TestFirmSticky(t *testing.T) {
	dir, victim := hostile(t)
	tmp, link := filepath.Join(filepath.Dir(dir), "tmp"), filepath.Join(filepath.Dir(dir), "link")
	at := func(name string) string { return filepath.Join(tmp, name) }
	his := func(name string) error { return os.Lchown(at(name), attackerID, attackerID) }
	err := errors.Join(
		os.Mkdir(tmp, 0o755), os.Chmod(tmp, 0o777|os.ModeSticky), os.Symlink(victim, link), //nolint:gosec // as /tmp is
		os.Link(victim, at("name")), unix.Linkat(unix.AT_FDCWD, link, unix.AT_FDCWD, at("linkname"), 0),
		os.WriteFile(at("file"), nil, 0o600), his("file"), unix.Mkfifo(at("fifo"), 0o600), his("fifo"), os.Symlink(victim, at("link")), his("link"),
		os.WriteFile(at("own"), nil, 0o600), os.Symlink("own", at("ownlink")),
	)
	if err != nil {
		t.Fatal(err)
	}
	reader, err := unix.Open(at("fifo"), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(reader)
	for name, want := range map[string]error{
		"name": errForeignName, "linkname": errForeignLink, "link": errForeignLink, "file": errForeignFile, "fifo": errForeignFile,
		"own": nil, "ownlink": nil, "new": nil,
	} {
		err := openAndWrite(at(name))
		if kernels := errors.Is(want, errForeignFile) && errors.Is(err, unix.EACCES); !errors.Is(err, want) && !kernels { // fs.protected_regular
			t.Errorf("%s: %v, want %v", name, err, want)
		}
	}
	if err := os.Remove(link); err != nil {
		t.Fatal(err)
	}
	untouched(t, victim)
}
