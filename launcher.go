package main

// This file knows launchers, what stands between hotwrap and the program on its command line, and what to write
// instead: a shell, make, go run, npm, sudo, an init for containers.
//
// Its rules:
//   - A launcher is only spoken of where it was seen to matter, or where the program failed behind it.
//   - What to write instead is a command that works as it stands, or else words.

import (
	"cmp"
	"encoding/json"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

const (
	packageMost = 1 << 20                                              // bytes of a package.json that are read
	inGeneral   = "write exec, or hotwrap exec --, before the program" // where a launcher is not known
)

// inits are made for containers: they pass on what they are sent, and hotwrap does what else they are for.
var inits = []string{"tini", "docker-init", "dumb-init", "catatonit"}

// advice is what there is to say about the launcher on a command line.
type advice struct {
	launcher string // "" there is none
	closes   bool   // it hands no descriptors on
	locks    bool   // two at once wait for each other
	remedy   string
}

// launcherSeen is a launcher that was seen to stand between hotwrap and a server.
type launcherSeen struct{ name, remedy string }

// advisers know one launcher each; words begin with its name.
var advisers = map[string]func(words []string, dir string) advice{
	"sh": adviseShell, "bash": adviseShell, "dash": adviseShell, "ash": adviseShell, "zsh": adviseShell, "ksh": adviseShell,
	"npm": adviseNode, "npx": adviseNode, "yarn": adviseNode, "pnpm": adviseNode,
	"go": adviseGo, "make": adviseMake, "gmake": adviseMake, "just": adviseMake,
	"sudo": adviseUser, "su": adviseUser, "runuser": adviseUser,
	"tini": adviseInit, "docker-init": adviseInit, "dumb-init": adviseInit, "catatonit": adviseInit,
	"timeout": adviseNone, "setsid": adviseNone, "flock": adviseNone, "time": adviseNone, "strace": adviseNone, "unshare": adviseNone,
}

// passing become the program that they run.
var passing = []string{"env", "exec", "nice", "nohup", "ionice", "stdbuf", "chrt", "taskset", "setpriv"}

// advise finds the launcher on a command line. It reads package.json, so it is not for the supervisor's goroutine.
func advise(words []string, dir string) advice {
	for i := 0; i < len(words); i++ {
		name := filepath.Base(words[i])
		if ask := advisers[name]; ask != nil {
			a := ask(words[i:], dir)
			a.launcher = name
			return a
		}
		if !slices.Contains(passing, name) {
			break
		}
		i = skipOptions(words, i)
	}
	return advice{}
}

// adviseShell puts exec before the last command of a text that is nothing but commands behind one another.
func adviseShell(words []string, _ string) advice {
	at := slices.IndexFunc(words, func(w string) bool {
		return strings.HasPrefix(w, "-") && !strings.HasPrefix(w, "--") && strings.HasSuffix(w, "c")
	})
	if at < 0 || at+1 >= len(words) {
		return advice{remedy: inGeneral + " in the script"}
	}
	text := strings.TrimSpace(words[at+1])
	before, last := "", text
	if i := strings.LastIndex(text, "&&"); i >= 0 {
		before, last = text[:i+2]+" ", strings.TrimSpace(text[i+2:])
	}
	first, _, _ := strings.Cut(last, " ")
	quoting := strings.Count(before, "'")%2 != 0 || strings.Count(before, `"`)%2 != 0 // that && is none
	word := slices.Contains([]string{"", "!", "time"}, first) || strings.Contains(first, "=")
	if quoting || word || strings.ContainsAny(strings.ReplaceAll(text, "&&", ""), ";|&<>(){}`\n#") {
		return advice{remedy: inGeneral + " in its text"}
	}
	if first != "exec" {
		last = "exec " + last
	}
	return advice{remedy: "write " + commandLine(append(slices.Clone(words[:at+1]), before+last))}
}

// adviseNode finds what a script of package.json runs.
func adviseNode(words []string, dir string) advice {
	a := advice{closes: true, remedy: "start what it runs without it"}
	name, rest := filepath.Base(words[0]), words[1:]
	for len(rest) > 0 && strings.HasPrefix(rest[0], "-") && rest[0] != "--" {
		rest = rest[1:]
	}
	if len(rest) == 0 {
		return a
	}
	script, args := rest[0], rest[1:]
	switch {
	case name == "npx" || script == "exec" || script == "dlx":
		if name != "npx" && len(args) > 0 {
			script, args = args[0], args[1:]
		}
		if script != "" && installed(dir, script) {
			a.remedy = "write " + commandLine(append([]string{"./node_modules/.bin/" + script}, args...))
		}
		return a
	case (script == "run" || script == "run-script") && len(args) > 0:
		script, args = args[0], args[1:]
	}
	if len(args) > 0 && args[0] == "--" {
		args = args[1:]
	}
	text := scriptOf(dir, script)
	first, others, _ := strings.Cut(text, " ")
	switch {
	case text == "":
	case strings.ContainsAny(text, ";|&<>(){}`$\n") || strings.Contains(first, "="):
		a.remedy = "write what scripts." + script + " of package.json runs, " + quoted(text) + ", as sh -c with exec before the program"
	case installed(dir, first):
		a.remedy = "write " + strings.TrimSpace("./node_modules/.bin/"+first+" "+others+" "+commandLine(args))
	default:
		a.remedy = "write " + strings.TrimSpace(text+" "+commandLine(args))
	}
	return a
}

func installed(dir, name string) bool {
	_, err := os.Stat(filepath.Join(dir, "node_modules/.bin", name))
	return err == nil && name != "node" && !strings.Contains(name, "/")
}

// scriptOf reads a script of a directory's package.json, "" none.
func scriptOf(dir, name string) string {
	path := filepath.Join(dir, "package.json")
	if st, err := os.Stat(path); err != nil || !st.Mode().IsRegular() {
		return ""
	}
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	var p struct {
		Scripts map[string]string `json:"scripts"`
	}
	if json.NewDecoder(io.LimitReader(f, packageMost)).Decode(&p) != nil {
		return ""
	}
	if _, err := os.Stat(filepath.Join(dir, "server.js")); err == nil && name == "start" { // npm's own default
		return cmp.Or(p.Scripts[name], "node server.js")
	}
	return p.Scripts[name]
}

// adviseGo builds what go run would.
func adviseGo(words []string, _ string) advice {
	if len(words) < 3 || words[1] != "run" {
		return advice{remedy: inGeneral}
	}
	at := 2
	for at < len(words) && strings.HasPrefix(words[at], "-") {
		name, _, whole := strings.Cut(words[at], "=")
		switch { // of those that go build has too, and that may stand here
		case slices.Contains([]string{"-race", "-v"}, name), whole && name != "-C" && name != "-exec":
			at++
		case slices.Contains([]string{"-tags", "-ldflags", "-gcflags", "-mod"}, name):
			at += 2
		default:
			return advice{remedy: inGeneral}
		}
	}
	end := at
	for end < len(words) && (end == at || strings.HasSuffix(words[at], ".go") && strings.HasSuffix(words[end], ".go")) {
		end++
	}
	if end == at {
		return advice{remedy: inGeneral}
	}
	build := append(append([]string{"go", "build", "-o", "app"}, words[2:at]...), words[at:end]...)
	return advice{remedy: "write " + commandLine(append([]string{"--build", commandLine(build), "-w", "--", "./app"}, words[end:]...))}
}

func adviseMake([]string, string) advice {
	return advice{remedy: "write the command of its recipe, or hotwrap exec -- before that"}
}

func adviseUser(words []string, _ string) advice {
	return advice{closes: filepath.Base(words[0]) == "sudo", remedy: "leave it out: hotwrap --user USER does it"}
}

func adviseInit([]string, string) advice {
	return advice{remedy: "leave it out: hotwrap does what it is for"}
}

func adviseNone(words []string, _ string) advice {
	switch filepath.Base(words[0]) {
	case "setsid":
		return advice{remedy: "leave it out: hotwrap gives the program a process group of its own"}
	case "flock":
		return advice{locks: true, remedy: "leave it out: a successor overlaps its predecessor, and would wait for the lock"}
	}
	return advice{remedy: "leave it out, or write hotwrap exec -- behind it"}
}

// commandLine writes words as a shell reads them.
func commandLine(words []string) string {
	var text []string
	for _, word := range words {
		if word == "" || strings.ContainsAny(word, " \t\n'\"\\$&|;<>(){}[]*?#~`!") {
			word = quoted(word)
		}
		text = append(text, word)
	}
	return strings.Join(text, " ")
}
