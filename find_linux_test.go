package main

import (
	"context"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"testing"

	"golang.org/x/sys/unix"
)

// listenAs binds a socket as another user: who listens is who the thread was then.
func listenAs(t *testing.T, uid int, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0)
	if err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	listen := make(chan error)
	go func() {
		runtime.LockOSThread() // and never unlock it: the thread ends as that user
		_, _, errno := unix.RawSyscall(unix.SYS_SETRESUID, uintptr(uid), uintptr(uid), uintptr(uid))
		if errno != 0 {
			listen <- errno
			return
		}
		listen <- unix.Listen(fd, 8)
	}()
	if err := <-listen; err != nil {
		t.Fatal(err)
	}
	f := os.NewFile(uintptr(fd), path)
	defer f.Close()
	l, err := net.FileListener(f)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// TestFindStranger: root commands everybody's, but nobody may stand in for another.
func TestFindStranger(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("only root can be another user")
	}
	const alice, mallory = 54321, 54322
	chown := func(uid int, paths ...string) {
		t.Helper()
		for _, path := range paths {
			if err := os.Chown(path, uid, uid); err != nil {
				t.Fatal(err)
			}
		}
	}
	base := fakeBase(t)
	environ := []string{"HOTWRAP_RUNTIME_DIR=" + base}
	self := identity{Name: "hwtest-s", PID: 7, State: instanceServing}

	// a stranger listens in root's own directory
	ours := filepath.Join(base, "control", "hwtest-s.sock")
	fakeServe(t, listenAs(t, mallory, ours), self, nil)
	wantNone(t, environ, "hwtest-s", exitNobody, "is not trusted", "uid 54322", "listens there")

	// alice's own, in her own directories
	hers := fakeBase(t)
	path := filepath.Join(hers, "control", "hwtest-s.sock")
	fakeServe(t, listenAs(t, alice, path), self, nil)
	chown(alice, hers, filepath.Dir(path), path)
	wantPath(t, []string{"HOTWRAP_RUNTIME_DIR=" + hers}, "", path)

	// in alice's directory somebody else listens
	chown(mallory, filepath.Dir(path))
	wantNone(t, []string{"HOTWRAP_RUNTIME_DIR=" + hers}, "", exitNobody, `not "hwtest-s"`)
	chown(alice, filepath.Dir(path))

	// root's own comes before anybody's
	os.Remove(ours)
	fakeInstance(t, base, "hwtest-s")
	k := newSeeker(nil, "hwtest-s")
	all := []*contact{{path: path, seeker: k}, {path: ours, seeker: k}}
	for _, p := range all { // one by one: both are this process
		k.visit(context.Background(), p, askLimit)
	}
	if fit := k.fitting(all); len(fit) != 1 || fit[0].path != ours {
		t.Errorf("of %v are meant %v", all, fit)
	}
}

// TestBoundSockets: of all sockets in the table only those are taken that a hotwrap may listen on.
func TestBoundSockets(t *testing.T) {
	const table = "Num       RefCount Protocol Flags    Type St Inode Path\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21112 /run/hotwrap/control/web.sock\n" +
		"0000000000000000: 00000003 00000000 00000000 0001 03 21113 /run/hotwrap/control/connected.sock\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21114 /tmp/a b/control-deploy/api.sock\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21115 @/run/control/abstract.sock\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21116 control/relative.sock\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21117 /run/x/../control/dots.sock\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21118 /run/dbus/system_bus_socket\n" +
		"0000000000000000: 00000002 00000000 00010000 0001 01 21119\n" +
		"junk\n\n"
	want := []string{"/run/hotwrap/control/web.sock", "/tmp/a b/control-deploy/api.sock"}
	proc := t.TempDir()
	if err := os.Mkdir(filepath.Join(proc, "net"), 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(proc, "net/unix"), []byte(table), 0o600); err != nil {
		t.Fatal(err)
	}
	if got := boundSockets(proc); !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
}
