package main

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestDefaultName(t *testing.T) {
	cases := map[string][]string{
		"myapp":        {"./bin/myapp", "serve"},
		"app":          {"python3.11", "-u", "srv/app.py", "x"},
		"pkg.mod":      {"python3", "-m", "pkg.mod"},
		"python3":      {"/usr/bin/python3", "-c", "print()"},
		"server":       {"node", "--inspect", "server.js"},
		"hotwrap":      {"./..."},
		"hotwrap-8080": {"/srv/8080"},
		"a-b":          {"/srv/a b"},
		"node":         {"node"},
	}
	for want, argv := range cases {
		if got := defaultName(argv, nil); got != want {
			t.Errorf("%q is called %q, want %q", argv, got, want)
		}
		if err := checkName(want); err != nil {
			t.Errorf("%q cannot be given: %v", want, err)
		}
	}
	long := defaultName([]string{strings.Repeat("x", 300)}, nil)
	if err := checkName(long); err != nil {
		t.Errorf("%q: %v", long, err)
	}
	if long = defaultName([]string{strings.Repeat("1", 300)}, nil); checkName(long) != nil {
		t.Errorf("%q: %v", long, checkName(long))
	}
	for _, bad := range []string{"", "123", "a/b", "a b", ".x", "-x", "ä", strings.Repeat("x", 65)} {
		if bad != "" && checkName(bad) == nil {
			t.Errorf("%q can be given", bad)
		}
	}
}

// TestInstances: a default name gets a number when it is taken, a given one is refused and names the
// holder; what a dead instance left is taken over, and nothing is left behind.
func TestInstances(t *testing.T) {
	dir := shortDir(t)
	env := []string{"HOTWRAP_RUNTIME_DIR=" + filepath.Join(dir, "run")}
	open := func(name, given string) (*instance, error) { return openInstance(env, name, given, "") }
	first, err := open("web", "")
	if err != nil {
		t.Fatal(err)
	}
	second, err := open("web", "")
	if err != nil || second.name != "web-2" {
		t.Fatalf("the second is %+v, %v", second, err)
	}
	var taken *takenError
	if _, err := open("x", "web"); !errors.As(err, &taken) || taken.pid != os.Getpid() {
		t.Fatalf("a name that is taken: %v", err)
	}
	info, err := os.Stat(first.path)
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Fatalf("socket %v, %v", info, err)
	}
	info, err = os.Stat(filepath.Dir(first.path))
	if err != nil || info.Mode().Perm() != 0o700 {
		t.Fatalf("directory %v, %v", info, err)
	}
	long := strings.Repeat("x", nameMost)
	fourth, err1 := open(long, "")
	fifth, err2 := open(long, "")
	if err1 != nil || err2 != nil || fifth.name == long || checkName(fifth.name) != nil {
		t.Fatalf("the fifth is %+v, %v, %v: no command can name it", fifth, err1, err2)
	}
	fourth.release()
	fifth.release()
	_ = first.lock.Close() // as its death would
	third, err := open("x", "web")
	if err != nil || third.path != first.path {
		t.Fatalf("after its death: %+v, %v", third, err)
	}
	_ = first.listener.Close()
	second.release()
	third.release()
	if left, err := os.ReadDir(filepath.Join(dir, "run")); err != nil || len(left) > 0 {
		t.Fatalf("left behind: %v, %v", left, err)
	}
}

// TestHostileDirectory: a directory that others could exchange is not used.
func TestHostileDirectory(t *testing.T) {
	dir := shortDir(t)
	base := filepath.Join(dir, "open")
	if err := os.Mkdir(base, 0o777); err != nil {
		t.Fatal(err)
	}
	if err := os.Chmod(base, 0o777); err != nil { //nolint:gosec // that is the point
		t.Fatal(err)
	}
	long := filepath.Join(dir, strings.Repeat("x", maxSockPath-len(dir)-len("/control/web.sock")))
	i := &instance{name: "web", group: -1}
	if err := i.openIn(long, "", false); err == nil || !strings.Contains(err.Error(), "path would have") {
		t.Fatalf("used: %v", err)
	}
	if _, err := os.Stat(long); err == nil {
		t.Error("left behind: a directory for nothing")
	}
	if err := i.openIn(base, "", false); err == nil || !strings.Contains(err.Error(), "writable by others") {
		t.Fatalf("used: %v", err)
	}
	link := filepath.Join(dir, "link")
	if err := os.Mkdir(link, 0o711); err != nil { //nolint:gosec // as hotwrap makes it
		t.Fatal(err)
	}
	if err := os.Symlink(dir, filepath.Join(link, controlDir)); err != nil {
		t.Fatal(err)
	}
	if err := i.openIn(link, "", false); err == nil {
		t.Fatal("a symlink was followed")
	}
}
