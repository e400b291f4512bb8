package main

import (
	"path/filepath"
	"testing"

	"golang.org/x/sys/unix"
)

// There is no moment in which a socket has another mode than ours.
func TestPrepareNotify(t *testing.T) {
	path := filepath.Join(shortDir(t), "s")
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Close(fd)
	old := unix.Umask(0)
	defer unix.Umask(old)
	if err := prepareNotify(fd); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		t.Fatal(err)
	}
	checkMode(t, path, 0o600, unix.Geteuid(), unix.Getegid())
}
