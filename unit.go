package main

// This file reads what the systemd unit says that hotwrap is the main process of, and what it lacks.
//
// Its rules:
//   - It is read from its files as systemd.unit(5) says, since the manager would have to be asked over D-Bus, and waited for. What
//     was changed without a daemon-reload is wrong here; only advice hangs on it.
//   - Where no file is found nothing is said of it.

import (
	"fmt"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
)

const unitFileMost = 1 << 20 // bytes read of one

// unitFile is the [Service] section of our unit.
type unitFile struct {
	name   string // with .service
	values map[string]string
}

// readUnit finds our own; nil if we are no unit's main process, or its file is not found.
func readUnit(environ []string) *unitFile {
	name := unitName(environ)
	if name == "" {
		return nil
	}
	return readUnitIn(unitDirs(environ), name+".service")
}

// unitDirs are where units lie, the first ones first to be heard.
func unitDirs(environ []string) []string {
	if text, _ := os.ReadFile("/proc/self/cgroup"); !strings.Contains(string(text), "/user@") {
		return []string{
			"/etc/systemd/system.control", "/run/systemd/system.control", "/run/systemd/transient", "/run/systemd/generator.early",
			"/etc/systemd/system", "/etc/systemd/system.attached", "/run/systemd/system", "/run/systemd/system.attached",
			"/run/systemd/generator", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system",
			"/run/systemd/generator.late",
		}
	}
	home, run := getenv(environ, "HOME"), getenv(environ, "XDG_RUNTIME_DIR")
	return []string{
		home + "/.config/systemd/user.control", run + "/systemd/user.control", run + "/systemd/transient", run + "/systemd/generator.early",
		home + "/.config/systemd/user", "/etc/systemd/user", run + "/systemd/user", "/run/systemd/user", run + "/systemd/generator",
		home + "/.local/share/systemd/user", "/usr/local/lib/systemd/user", "/usr/lib/systemd/user", run + "/systemd/generator.late",
	}
}

// readUnitIn reads the unit and what is dropped in beside it.
func readUnitIn(dirs []string, name string) *unitFile {
	u := &unitFile{name: name, values: map[string]string{}}
	names := []string{name}
	if prefix, instance, ok := strings.Cut(name, "@"); ok && instance != ".service" {
		names = append(names, prefix+"@.service")
	}
	found := false
	for _, n := range names {
		for _, dir := range dirs {
			if text, err := readAtMost(filepath.Join(dir, n)); err == nil && !found {
				u.read(text)
				found = true
			}
		}
	}
	if !found {
		return nil
	}
	for _, path := range dropIns(dirs, names) {
		if text, err := readAtMost(path); err == nil {
			u.read(text)
		}
	}
	return u
}

// dropIns are the files that add to a unit, in the order in which they do: by name; of one name the first counts.
func dropIns(dirs, names []string) []string {
	beside := slices.Clone(names)
	for _, n := range names { // foo-bar.service has foo-.service.d
		for stem := strings.TrimSuffix(n, ".service"); ; {
			i := strings.LastIndexByte(strings.TrimSuffix(stem, "-"), '-')
			if i < 0 {
				break
			}
			stem = stem[:i+1]
			beside = append(beside, stem+".service")
		}
	}
	beside = append(beside, "service")
	at := map[string]string{}
	for _, n := range beside {
		for _, dir := range dirs {
			paths, _ := filepath.Glob(filepath.Join(dir, n+".d", "*.conf"))
			for _, path := range paths {
				if base := filepath.Base(path); at[base] == "" {
					at[base] = path
				}
			}
		}
	}
	var all []string
	for _, base := range slices.Sorted(maps.Keys(at)) {
		all = append(all, at[base])
	}
	return all
}

// read takes in the [Service] section of one file.
func (u *unitFile) read(text string) {
	section := ""
	text = strings.ReplaceAll(text, "\\\n", " ")
	for line := range strings.Lines(text) {
		line = strings.TrimSpace(line)
		key, value, assigned := strings.Cut(line, "=")
		switch {
		case line == "" || line[0] == '#' || line[0] == ';':
		case line[0] == '[':
			section = line
		case section == "[Service]" && assigned:
			u.values[strings.TrimSpace(key)] = strings.TrimSpace(value)
		}
	}
}

// readAtMost reads a file; one that is larger than any unit is none.
func readAtMost(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", err
	}
	defer func() { _ = f.Close() }()
	text, err := io.ReadAll(io.LimitReader(f, unitFileMost))
	return string(text), err
}

// room is how many descriptors our manager keeps for us: systemd 254 says so in $FDSTORE.
func (u *unitFile) room(environ []string) int {
	text := getenv(environ, "FDSTORE")
	if text == "" && u != nil {
		text = u.values["FileDescriptorStoreMax"]
	}
	n, _ := strconv.ParseUint(text, 10, 31)
	return int(n)
}

// unitNeeds is what hotwrap needs of its unit.
type unitNeeds struct {
	told      bool   // the manager wants to be told
	place     string // where the control socket is, "" if nowhere
	sockets   int    // that are hotwrap's own to keep
	room      int    // for them in the store
	inRuntime bool   // one of them has a path in the runtime directory
}

// lacks are the lines that u should have, each with what is lost without it.
func (u *unitFile) lacks(n unitNeeds) []string {
	var lacks []string
	add := func(line, lost string, args ...any) { lacks = append(lacks, line+" ("+fmt.Sprintf(lost, args...)+")") }
	if !n.told {
		add("Type=notify", "systemd does not learn when the program serves")
	}
	if n.place == "" || strings.HasPrefix(n.place, os.TempDir()+"/") {
		add("RuntimeDirectory="+strings.TrimSuffix(u.name, ".service"), "commands look for it in vain: control=%q", n.place)
	}
	if need := 2 * n.sockets; n.room < need { // in a restart those of both
		add("FileDescriptorStoreMax="+strconv.Itoa(need), "clients are refused while the unit restarts")
	}
	preserved := u.values["RuntimeDirectoryPreserve"]
	kill := u.values["KillMode"]
	switch {
	case u.values["RuntimeDirectory"] == "" || preserved == "restart" || preserved == "yes" || preserved == "true":
	case n.inRuntime && n.room > 0:
		add("RuntimeDirectoryPreserve=restart", "the sockets' paths go at each restart of the unit")
	case kill == "process":
		add("RuntimeDirectoryPreserve=restart", "what runs on is not found again")
	}
	switch kill {
	case "", "control-group":
		add("KillMode=mixed", "the program gets systemd's TERM beside hotwrap's, and many take the second for 'at once'")
	case "none":
		add("KillMode=mixed", "nothing ends what hotwrap cannot")
	}
	return lacks
}
