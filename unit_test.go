package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// unitTree writes files, named by their paths in two directories, of which "a" is heard first.
func unitTree(t *testing.T, files map[string]string) []string {
	t.Helper()
	dir := t.TempDir()
	for name, text := range files {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return []string{filepath.Join(dir, "a"), filepath.Join(dir, "b")}
}

// A unit is what systemd.unit(5) says: the first file of its name, then what is dropped in, by name, a template's, a prefix's and
// every service's too; the last word counts.
func TestReadUnit(t *testing.T) {
	dirs := unitTree(t, map[string]string{
		"a/web-x.service":                "[Unit]\nKillMode=none\n[Service]\n# KillMode=none\nType = notify\nExecStart=/a \\\n  Type=simple\n[Install]\nType=no\n",
		"b/web-x.service":                "[Service]\nType=forking\nFileDescriptorStoreMax=7\n",
		"b/web-x.service.d/20.conf":      "[Service]\nKillMode=mixed\n",
		"a/web-x.service.d/30.conf":      "[Service]\nKillMode=\n",
		"b/web-x.service.d/30.conf":      "[Service]\nKillMode=none\n",
		"b/web-.service.d/10.conf":       "[Service]\nKillMode=process\nRuntimeDirectory=w\n",
		"a/service.d/05.conf":            "[Service]\nRuntimeDirectory=all\nWatchdogSec=3",
		"a/at@.service":                  "[Service]\nType=notify\n",
		"b/at@one.service.d/x.conf":      "[Service]\nKillMode=mixed\n",
		"b/at@.service.d/y.conf":         "[Service]\nKillMode=process\n",
		"b/at@two.service.d/ignored.txt": "[Service]\nKillMode=none\n",
	})
	u := readUnitIn(dirs, "web-x.service")
	for key, want := range map[string]string{"Type": "notify", "KillMode": "", "RuntimeDirectory": "w", "WatchdogSec": "3", "FileDescriptorStoreMax": ""} {
		if u.values[key] != want {
			t.Errorf("%s=%q, want %q", key, u.values[key], want)
		}
	}
	if u := readUnitIn(dirs, "at@one.service"); u == nil || u.values["Type"] != "notify" || u.values["KillMode"] != "process" {
		t.Errorf("at@one.service: %+v", u)
	}
	if u := readUnitIn(dirs, "none.service"); u != nil {
		t.Errorf("none.service: %+v", u)
	}
}

func TestUnitRoom(t *testing.T) {
	u := &unitFile{values: map[string]string{"FileDescriptorStoreMax": "7"}}
	for _, c := range []struct {
		u    *unitFile
		env  string
		want int
	}{{u, "", 7}, {u, "3", 3}, {u, "0", 0}, {nil, "", 0}, {nil, "3", 3}, {nil, "x", 0}, {&unitFile{}, "", 0}} {
		if got := c.u.room([]string{"FDSTORE=" + c.env}); got != c.want {
			t.Errorf("$FDSTORE %q: %d, want %d", c.env, got, c.want)
		}
	}
}

// Each line that is missing is named, with what it costs; a unit that has all of them is not spoken of.
func TestUnitLacks(t *testing.T) {
	full := map[string]string{"KillMode": "mixed", "RuntimeDirectory": "web", "RuntimeDirectoryPreserve": "restart"}
	good := unitNeeds{told: true, place: "/run/web/control/web.sock", sockets: 2, room: 4}
	for _, c := range []struct {
		what    string
		without string
		with    string
		needs   func(n *unitNeeds)
		want    []string
	}{
		{"all", "", "", func(*unitNeeds) {}, nil},
		{"no type", "", "", func(n *unitNeeds) { n.told = false }, []string{"Type=notify"}},
		{"no place", "", "", func(n *unitNeeds) { n.place = "" }, []string{"RuntimeDirectory=web"}},
		{"a place for this boot", "", "", func(n *unitNeeds) { n.place = os.TempDir() + "/hotwrap-0/control/web.sock" }, []string{"RuntimeDirectory=web"}},
		{"no store", "", "", func(n *unitNeeds) { n.room = 0 }, []string{"FileDescriptorStoreMax=4"}},
		{"a small store", "", "", func(n *unitNeeds) { n.room = 3 }, []string{"FileDescriptorStoreMax=4"}},
		{"nothing to store", "", "", func(n *unitNeeds) { n.room, n.sockets = 0, 0 }, nil},
		{"control-group", "KillMode", "", func(*unitNeeds) {}, []string{"KillMode=mixed"}},
		{"none", "KillMode", "KillMode=none", func(*unitNeeds) {}, []string{"KillMode=mixed"}},
		{"process", "KillMode", "KillMode=process", func(*unitNeeds) {}, nil},
		{"process, a directory that goes", "RuntimeDirectoryPreserve", "KillMode=process", func(*unitNeeds) {}, []string{"RuntimeDirectoryPreserve=restart"}},
		{"paths that go", "RuntimeDirectoryPreserve", "", func(n *unitNeeds) { n.inRuntime = true }, []string{"RuntimeDirectoryPreserve=restart"}},
		{"a directory that goes", "RuntimeDirectoryPreserve", "", func(*unitNeeds) {}, nil},
	} {
		u := &unitFile{name: "web.service", values: map[string]string{}}
		for key, value := range full {
			if key != c.without {
				u.values[key] = value
			}
		}
		if key, value, ok := strings.Cut(c.with, "="); ok {
			u.values[key] = value
		}
		n := good
		c.needs(&n)
		var lines []string
		for _, text := range u.lacks(n) {
			line, _, _ := strings.Cut(text, " ")
			lines = append(lines, line)
		}
		if !slices.Equal(lines, c.want) {
			t.Errorf("%s: %q, want %q", c.what, lines, c.want)
		}
	}
}
