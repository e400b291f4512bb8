package main

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

const nobodyUID, nobodyGID = 65534, 65533

// asNobody runs f on a thread that has another user's credentials, and ends with f.
func asNobody(t *testing.T, f func()) {
	t.Helper()
	if os.Geteuid() != 0 || runtime.GOOS != "linux" {
		t.Skip("only root can become another user")
	}
	done := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlocked: the thread dies with the goroutine
		_, _, gidErr := unix.RawSyscall(unix.SYS_SETREGID, nobodyGID, nobodyGID, 0)
		_, _, uidErr := unix.RawSyscall(unix.SYS_SETREUID, nobodyUID, nobodyUID, 0)
		if gidErr != 0 || uidErr != 0 {
			done <- errors.Join(gidErr, uidErr)
			return
		}
		f()
		done <- nil
	}()
	if err := <-done; err != nil {
		t.Fatal(err)
	}
}

func checkMode(t *testing.T, path string, mode os.FileMode, uid, gid int) {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Lstat(path, &st); err != nil {
		t.Fatal(err)
	}
	if got := os.FileMode(st.Mode & 0o7777); got != mode || int(st.Uid) != uid || int(st.Gid) != gid {
		t.Errorf("%q is %04o of %d:%d, want %04o of %d:%d", path, got, st.Uid, st.Gid, mode, uid, gid)
	}
}

// Modes and owners do not depend on the umask.
func TestNotifyModes(t *testing.T) {
	uid, gid := -1, -1
	if os.Geteuid() == 0 {
		uid, gid = nobodyUID, nobodyGID
	}
	for _, umask := range []int{0, 0o077, 0o177} {
		base := filepath.Join(shortDir(t), "base")
		old := unix.Umask(umask)
		d, err := tryNotifyDir(base, uid, gid)
		var s *notifySocket
		if err == nil {
			s, err = d.listen(make(readyInbox).post)
		}
		unix.Umask(old)
		if err != nil {
			t.Fatal(err)
		}
		checkMode(t, base, 0o711, os.Geteuid(), os.Getegid())
		checkMode(t, d.path, 0o711, os.Geteuid(), os.Getegid())
		wantUID, wantGID := os.Geteuid(), os.Getegid()
		if uid >= 0 {
			wantUID, wantGID = uid, gid
		}
		checkMode(t, s.path, 0o600, wantUID, wantGID)
		checkMode(t, s.ackPath, 0o600, wantUID, wantGID)
		s.stop()
		d.close()
		if _, err := os.Lstat(base); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q is left: %v", base, err)
		}
	}
}

// The program's user reaches the sockets, another one does not.
func TestNotifyOtherUser(t *testing.T) {
	in := make(readyInbox, 4)
	theirs, err := newNotifyDir(t, nobodyUID, nobodyGID).listen(in.post)
	if err != nil {
		t.Skip(err)
	}
	defer theirs.stop()
	ours := newNotifySocket(t, in.post)
	asNobody(t, func() {
		tell(t, theirs.path, "READY=1")
		if conn, err := net.Dial("unix", theirs.ackPath); err != nil {
			t.Error(err)
		} else {
			io.WriteString(conn, "{\"command\":\"worker:ack\",\"pid\":5}\n")
			io.Copy(io.Discard, conn)
			conn.Close()
		}
		for _, path := range []string{ours.path, ours.ackPath} {
			if err := unix.Access(path, unix.W_OK); err != unix.EACCES {
				t.Errorf("access to %q: %v", path, err)
			}
		}
		if _, err := os.ReadDir(theirs.path[:strings.LastIndexByte(theirs.path, '/')]); !errors.Is(err, os.ErrPermission) {
			t.Errorf("the directory can be listed: %v", err)
		}
	})
	told := map[string]bool{}
	for range 2 {
		n := in.next(t)
		if told[n.by] = true; n.uid != nobodyUID || n.pid != os.Getpid() {
			t.Errorf("got %+v", n)
		}
	}
	if !told["notify"] || !told["ack"] {
		t.Errorf("got only %v", told)
	}
}

func TestNotifyDirCandidates(t *testing.T) {
	t.Setenv("TMPDIR", "/tmp/x")
	last := []string{"/run/hotwrap", fmt.Sprintf("/tmp/x/hotwrap-%d", os.Geteuid()), fmt.Sprintf("/dev/shm/hotwrap-%d", os.Geteuid())}
	wd, err := os.Getwd()
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ environ, want []string }{
		{nil, nil},
		{[]string{"HOTWRAP_RUNTIME_DIR=", "RUNTIME_DIRECTORY=", "XDG_RUNTIME_DIR="}, nil},
		{[]string{"HOTWRAP_RUNTIME_DIR=a"}, []string{filepath.Join(wd, "a")}},
		{
			[]string{"XDG_RUNTIME_DIR=/run/user/5", "RUNTIME_DIRECTORY=/run/a:/run/b", "HOTWRAP_RUNTIME_DIR=/c/../d"},
			[]string{"/d", "/run/a", "/run/user/5/hotwrap"},
		},
		{[]string{"XDG_RUNTIME_DIR=here", "RUNTIME_DIRECTORY=:/run/b"}, nil},
	} {
		if got := runtimeDirs(c.environ); !slices.Equal(got, append(c.want, last...)) {
			t.Errorf("runtimeDirs(%q) = %q", c.environ, got)
		}
	}
}

// A candidate that will not do is passed over.
func TestNotifyDirNextCandidate(t *testing.T) {
	good := shortDir(t)
	for _, bad := range []string{
		filepath.Join(shortDir(t), strings.Repeat("x", 80)), // the socket's path would be too long
		filepath.Join(shortDir(t), "no", "parent"),
		"/dev/null",
		"/proc/self",
	} {
		d, err := openNotifyDir([]string{"HOTWRAP_RUNTIME_DIR=" + bad, "XDG_RUNTIME_DIR=" + good}, -1, -1)
		if err != nil {
			t.Errorf("%q: %v", bad, err)
			continue
		}
		if filepath.Dir(d.path) != filepath.Join(good, "hotwrap") {
			t.Errorf("%q: in %q", bad, d.path)
		}
		d.close()
	}
}

// The longest path that is taken works.
func TestNotifyDirLongest(t *testing.T) {
	dir := shortDir(t)
	base := filepath.Join(dir, strings.Repeat("x", maxSockPath-tailLength-len(dir)-1))
	d, err := tryNotifyDir(base, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	in := make(readyInbox, 1)
	s, err := d.listen(in.post)
	if err != nil {
		t.Fatal(err)
	}
	defer s.stop()
	if len(s.ackPath) != maxSockPath {
		t.Errorf("the path has %d bytes, %d would do", len(s.ackPath), maxSockPath)
	}
	if _, err := tryNotifyDir(base+"x", -1, -1); err == nil {
		t.Error("a longer one is taken")
	}
}

func TestNotifyDirRefused(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs directories of another user")
	}
	dir := shortDir(t)
	make := func(name string, mode os.FileMode, uid int) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.MkdirAll(path, 0o755), os.Chmod(path, mode), os.Chown(path, uid, -1)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	link := func(name, target string, uid int) string {
		path := filepath.Join(dir, name)
		if err := errors.Join(os.Symlink(target, path), os.Lchown(path, uid, -1)); err != nil {
			t.Fatal(err)
		}
		return path
	}
	fine, sticky := make("fine", 0o711, 0), make("sticky", 0o777|os.ModeSticky, 0)
	for _, c := range []struct {
		base string
		uid  int
		want string // of the error; empty: it is taken
	}{
		{fine, -1, ""},
		{fine, nobodyUID, ""},
		{sticky, nobodyUID, ""},
		{filepath.Join(sticky, "a"), -1, ""},
		{link("ours", fine, 0), -1, ""},
		{link("theirs", fine, nobodyUID), -1, "not a directory"},
		{make("nobody", 0o711, nobodyUID), -1, "owned by uid 65534"},
		{make("nobody/sub", 0o711, 0), -1, `/nobody" is owned by uid 65534`},
		{make("open", 0o777, 0), -1, "writable by others (mode 0777)"},
		{make("group", 0o775, 0), -1, "writable by others (mode 0775)"},
		{make("open/sub", 0o711, 0), -1, `/open" is writable by others`},
		{make("private", 0o700, 0), -1, ""},
		{make("private", 0o700, 0), nobodyUID, "closed to the program's user (mode 0700)"},
		{filepath.Join(make("private", 0o700, 0), "a"), nobodyUID, `/private" is closed to the program's user`},
		{filepath.Join(fine, "no", "parent"), -1, "no such file or directory"},
		{"/dev/null", -1, "not a directory"},
	} {
		d, err := tryNotifyDir(c.base, c.uid, -1)
		if err == nil {
			d.close()
		}
		if (err == nil) != (c.want == "") || err != nil && !strings.Contains(err.Error(), c.want) {
			t.Errorf("%q for uid %d: %v, want %q", c.base, c.uid, err, c.want)
		}
	}
}

// withoutSharedMemory leaves the test without the last of the places.
func withoutSharedMemory(t *testing.T, dir string) {
	t.Helper()
	was := sharedMemory
	sharedMemory = filepath.Join(dir, "noshm")
	t.Cleanup(func() { sharedMemory = was })
}

// Where nothing will do, the error lists where it looked and why not.
func TestNotifyDirNowhere(t *testing.T) {
	dir := shortDir(t)
	withoutSharedMemory(t, dir)
	t.Setenv("TMPDIR", filepath.Join(dir, "tmp"))
	asNobody(t, func() {
		d, err := openNotifyDir([]string{"HOTWRAP_RUNTIME_DIR=" + filepath.Join(dir, "a"), "XDG_RUNTIME_DIR=/root"}, -1, -1)
		if err == nil {
			d.close()
			t.Fatalf("made in %q", d.path)
		}
		for _, want := range []string{
			"cannot make a directory for the workers' sockets: ", fmt.Sprintf("%q: permission denied", filepath.Join(dir, "a")),
			`"/root/hotwrap": `, `"/run/hotwrap": `, fmt.Sprintf("/tmp/hotwrap-%d\": no such file or directory", nobodyUID),
		} {
			if !strings.Contains(err.Error(), want) {
				t.Errorf("%q is not in: %v", want, err)
			}
		}
	})
}

// A user without any runtime directory gets one under the temp dir, which goes again; a planted one is not taken.
func TestNotifyDirTemp(t *testing.T) {
	dir := shortDir(t)
	withoutSharedMemory(t, dir)
	if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
		t.Fatal(err)
	}
	t.Setenv("TMPDIR", dir)
	wanted := filepath.Join(dir, fmt.Sprintf("hotwrap-%d", nobodyUID))
	open := func() string {
		d, err := openNotifyDir(nil, -1, -1)
		if err != nil {
			t.Error(err)
			return ""
		}
		defer d.close()
		return filepath.Dir(d.path)
	}
	asNobody(t, func() {
		if got := open(); got != wanted {
			t.Errorf("in %q, want %q", got, wanted)
		}
	})
	if err := errors.Join(os.Mkdir(wanted, 0o777), os.Chown(wanted, 1234, -1)); err != nil {
		t.Fatal(err)
	}
	asNobody(t, func() {
		if got := open(); !strings.HasPrefix(got, wanted+"-") {
			t.Errorf("in %q, beside the planted %q", got, wanted)
		}
	})
	if entries, err := os.ReadDir(dir); err != nil || len(entries) != 1 {
		t.Errorf("left: %v, %v", entries, err)
	}
}

// TestNotifyDirOwner is no test but the hotwrap that the next one kills.
func TestNotifyDirOwner(t *testing.T) {
	base := os.Getenv("NOTIFYDIR_TEST_BASE")
	if base == "" {
		t.Skip("only for another test")
	}
	d, err := tryNotifyDir(base, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := d.listen(make(readyInbox).post); err != nil {
		t.Fatal(err)
	}
	fmt.Printf("open: %s\n", d.path)
	io.Copy(io.Discard, os.Stdin) // until killed
}

func startOwner(t *testing.T, base string) (cmd *exec.Cmd, path string) {
	t.Helper()
	cmd = exec.Command(os.Args[0], "-test.run=^TestNotifyDirOwner$")
	cmd.Env = append(os.Environ(), "NOTIFYDIR_TEST_BASE="+base)
	lines := bufio.NewScanner(startChild(t, cmd))
	for lines.Scan() {
		if path, ok := strings.CutPrefix(lines.Text(), "open: "); ok {
			return cmd, path
		}
	}
	t.Fatal("the other hotwrap did not open a directory")
	return nil, ""
}

// What a killed hotwrap left is swept away; what a living one uses, what is another user's, and what symlinks point at, is not.
func TestNotifyDirSweep(t *testing.T) {
	base, elsewhere := shortDir(t), shortDir(t)
	_, alive := startOwner(t, base)
	killed, dead := startOwner(t, base)
	killed.Process.Kill()
	killed.Wait()
	if entries, err := os.ReadDir(dead); err != nil || len(entries) != 2 {
		t.Fatalf("the killed one left %v, %v", entries, err)
	}
	keep := []string{alive, filepath.Join(base, "notify-file"), filepath.Join(base, "notify-link"), filepath.Join(base, "else"), filepath.Join(elsewhere, "file")}
	if err := errors.Join(
		os.WriteFile(filepath.Join(elsewhere, "file"), nil, 0o644),
		os.WriteFile(keep[1], nil, 0o644),
		os.Symlink(elsewhere, keep[2]),
		os.Mkdir(keep[3], 0o755),
		os.Symlink(elsewhere, filepath.Join(dead, "link")),
	); err != nil {
		t.Fatal(err)
	}
	if os.Geteuid() == 0 {
		theirs := filepath.Join(base, "notify-theirs")
		keep = append(keep, theirs)
		if err := errors.Join(os.Mkdir(theirs, 0o755), os.Chown(theirs, nobodyUID, -1)); err != nil {
			t.Fatal(err)
		}
	}
	d, err := tryNotifyDir(base, -1, -1)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := os.Lstat(dead); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("%q is left: %v", dead, err)
	}
	d.close()
	for _, path := range append(keep, base) {
		if _, err := os.Lstat(path); err != nil {
			t.Errorf("swept away: %v", err)
		}
	}
	if _, err := os.Lstat(d.path); !errors.Is(err, os.ErrNotExist) {
		t.Errorf("our own %q is left: %v", d.path, err)
	}
}

// Many that start at once in one place, each sweeping, do not sweep each other.
func TestNotifyDirTogether(t *testing.T) {
	base := filepath.Join(shortDir(t), "base")
	results := make(chan error)
	for range 16 {
		go func() {
			for range 20 {
				d, err := tryNotifyDir(base, -1, -1)
				if err == nil {
					var s *notifySocket
					if s, err = d.listen(make(readyInbox).post); err == nil {
						_, err = os.Lstat(s.path)
						s.stop()
					}
					d.close()
				}
				if err != nil {
					results <- err
					return
				}
			}
			results <- nil
		}()
	}
	for range 16 {
		if err := <-results; err != nil {
			t.Error(err)
		}
	}
	if entries, err := os.ReadDir(base); len(entries) > 0 {
		t.Errorf("left: %v, %v", entries, err)
	}
}
