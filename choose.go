package main

// This file chooses what -w watches, and says so: the executable, or what an interpreter runs.

import (
	"cmp"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// languages are the files that an interpreter's program is made of; none: the script alone.
var languages = map[string][]string{
	"node": nodeFiles, "nodejs": nodeFiles, "deno": nodeFiles, "bun": nodeFiles, "tsx": nodeFiles,
	"python": {".py"}, "pypy": {".py"}, "ruby": {".rb", ".ru"}, "perl": {".pl", ".pm", ".psgi", ".t"}, "php": {".php"},
	"lua": {".lua"}, "luajit": {".lua"}, "java": {".jar", ".class"},
	"sh": nil, "bash": nil, "dash": nil, "zsh": nil, "ksh": nil, "busybox": nil,
}

var nodeFiles = []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx", ".json"}

// toolDirs hold programs that others wrote: what is run by them is named in the arguments.
var toolDirs = []string{"/bin", "/sbin", "/usr/bin", "/usr/sbin", "/usr/local/bin", "/usr/local/sbin", "/opt/homebrew/bin"}

// choose makes the targets.
func (w *watcher) choose() {
	if len(w.cfg.paths) == 0 || w.cfg.watchProgram || w.cfg.build {
		w.chooseProgram()
	}
	for _, name := range w.cfg.paths {
		w.choosePath(name)
	}
	if w.cfg.build {
		w.sources = &fileTree{w: w, name: w.cfg.src, root: w.absolute(w.cfg.src), sources: true, own: w.cfg.find, ignore: w.cfg.ignore}
		if w.sources.name == "" {
			w.sources.name = "."
		}
		w.addTree(w.sources)
		w.say(verbose("building from %s in %s", count(len(w.sources.leaves), "file"), w.sources.root))
	}
}

func (w *watcher) absolute(name string) string {
	if filepath.IsAbs(name) {
		return filepath.Clean(name)
	}
	return filepath.Join(w.cfg.dir, name)
}

func (w *watcher) addTree(t *fileTree) {
	t.learn()
	w.targets = append(w.targets, t)
}

// choosePath watches what --watch=PATH names. The program, if it is there, is watched as what it is.
func (w *watcher) choosePath(name string) {
	t := &fileTree{w: w, name: name, root: w.absolute(name), ignore: w.cfg.ignore}
	if _, err := w.disk.stat(t.root); err != nil && strings.ContainsAny(name, "*?[{") {
		t.root, t.glob = doublestar.SplitPattern(t.root)
	}
	t.learn()
	program, err := w.cfg.find()
	if rel, ok := below(t.root, program); err == nil && ok && t.leaves[cmp.Or(rel, filepath.Base(t.root))] != nil {
		if w.program == nil {
			w.addExecutable()
		}
		t.own = w.cfg.find
		t.learn()
	}
	if !t.file || len(t.leaves) > 0 {
		w.targets = append(w.targets, t)
	}
	_, err = w.disk.stat(t.root)
	switch {
	case err != nil:
		w.say(warning("cannot watch %q: %v", name, err).end("waiting for it"))
	case t.glob != "" && len(t.leaves) == 0:
		w.say(warning("nothing matches %q so far", name))
	case t.file:
		w.say(info("watching %s", t.root))
	default:
		w.say(info("watching %s in %s", count(len(t.leaves), "file"), w.absolute(name)))
	}
}

// chooseProgram watches the program: its executable, or what an interpreter runs.
func (w *watcher) chooseProgram() {
	path, err := w.cfg.find()
	exts, script, tool := w.interpreted(path)
	if err != nil || exts == nil && script == "" {
		w.addExecutable()
		if err == nil {
			w.say(info("watching %s", path).end("--watch=PATH chooses"))
		}
		return
	}
	if !tool {
		w.addExecutable()
	}
	t := &fileTree{w: w, name: script, root: w.cfg.dir, script: script, exts: exts, written: true, ignore: w.cfg.ignore}
	what := script
	switch {
	case script == "":
		t.name = w.cfg.dir
	case exts == nil:
		t.root = script
	default:
		t.root = filepath.Dir(script)
	}
	if !tool { // the executable is the script
		t.own, t.script = w.cfg.find, ""
	}
	w.addTree(t)
	if exts != nil {
		what = strings.TrimPrefix(what+" and ", " and ") + "*" + strings.Join(exts[:1], " *") + " below " + t.root
	}
	w.say(info("watching %s", what).end("--watch=PATH chooses"))
}

func (w *watcher) addExecutable() {
	w.program = w.newExecutable()
	w.targets = append(w.targets, w.program)
}

// interpreted finds what runs when path does: the files of its language, and the script, "" none is named.
// tool tells that path itself is nothing that the user writes.
func (w *watcher) interpreted(path string) (exts []string, script string, tool bool) {
	exts, tool = languageOf(path)
	inTools := slices.Contains(toolDirs, filepath.Dir(path)) || strings.HasSuffix(filepath.Dir(path), "node_modules/.bin")
	if _, err := w.disk.stat(filepath.Join(filepath.Dir(path), "../pyvenv.cfg")); err == nil {
		inTools = true
	}
	if !tool {
		if line := shebang(path); line != "" {
			exts, _ = languageOf(line)
		}
		if !inTools {
			if exts != nil {
				script = path
			}
			return exts, script, false
		}
		tool = exts != nil
	}
	for _, arg := range w.cfg.program[1:] {
		if sig, err := w.disk.stat(w.absolute(arg)); err == nil && sig.regular() {
			return exts, w.absolute(arg), true
		}
	}
	return exts, "", tool
}

// languageOf finds the files of an interpreter's programs, by its name: python3.12 is python.
func languageOf(path string) ([]string, bool) {
	exts, ok := languages[strings.TrimRight(filepath.Base(path), "0123456789.-")]
	return exts, ok
}

// shebang is the interpreter in a script's first line, "" none.
func shebang(path string) string {
	f, err := os.Open(path)
	if err != nil {
		return ""
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	line, _, _ := strings.Cut(string(head[:n]), "\n")
	words := strings.Fields(strings.TrimPrefix(line, "#!"))
	if !strings.HasPrefix(line, "#!") || len(words) == 0 {
		return ""
	}
	for _, word := range words[1:] { // env [-S] [NAME=VALUE] python3
		if filepath.Base(words[0]) == "env" && word[0] != '-' && !strings.Contains(word, "=") {
			return word
		}
	}
	return words[0]
}
