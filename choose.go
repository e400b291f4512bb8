package main

// This file chooses what -w watches, and says so: the executable, or what an interpreter runs.

import (
	"cmp"
	"io"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// languages are the files that an interpreter's program is made of; none: the script alone.
var languages = map[string][]string{
	"node": nodeFiles, "nodejs": nodeFiles, "deno": nodeFiles, "bun": nodeFiles, "tsx": nodeFiles, "ts-node": nodeFiles,
	"python": pythonFiles, "pypy": pythonFiles, "ruby": rubyFiles, "perl": {".pl", ".pm", ".psgi", ".t"}, "php": {".php"},
	"lua": {".lua"}, "luajit": {".lua"}, "java": {".jar", ".class"},
	"sh": nil, "bash": nil, "dash": nil, "zsh": nil, "ksh": nil, "busybox": nil,
}

// starters run something of a language that is in the program's directory, or any program (none).
var starters = map[string][]string{
	"uv": pythonFiles, "uvx": pythonFiles, "poetry": pythonFiles, "pipenv": pythonFiles, "pdm": pythonFiles, "hatch": pythonFiles,
	"bundle": rubyFiles, "npm": nodeFiles, "npx": nodeFiles, "yarn": nodeFiles, "pnpm": nodeFiles, "bunx": nodeFiles,
	"go": {".go"}, "cargo": {".rs"},
	"make": nil, "just": nil,
	"env": nil, "nice": nil, "ionice": nil, "nohup": nil, "setsid": nil, "stdbuf": nil, "timeout": nil, "time": nil, "taskset": nil,
	"sudo": nil, "doas": nil, "setpriv": nil, "strace": nil, "ltrace": nil, "valgrind": nil, "dlv": nil, "tini": nil, "dumb-init": nil,
}

var (
	nodeFiles   = []string{".js", ".mjs", ".cjs", ".ts", ".mts", ".cts", ".jsx", ".tsx", ".json"}
	pythonFiles = []string{".py"}
	rubyFiles   = []string{".rb", ".ru"}
)

// valued are the options of interpreters whose value is the next argument, and that is no script.
var valued = []string{"-r", "--require", "--import", "--loader", "--env-file", "-W", "-X", "-I", "-cp", "-classpath", "--config"}

// inline are those after which no script is named: a module, or a text that is run.
var inline = []string{"-m", "-c", "-e", "--eval", "-p", "--print"}

// userOptions are options of sudo and the like whose value could be taken for a program: -u node.
var userOptions = []string{"-u", "-g", "--user", "--group"}

// shims are directories of stand-ins for programs of a language: ~/.pyenv/shims.
var shims = map[string][]string{
	"shims .pyenv": pythonFiles, "shims pyenv": pythonFiles, "shims .rbenv": rubyFiles, "shims rbenv": rubyFiles, "shims .nodenv": nodeFiles,
}

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
		if _, err := w.disk.stat(w.sources.root); err != nil {
			w.say(warning("cannot watch --src %q: %v", w.cfg.src, err).end("waiting for it"))
		}
		slices.Reverse(w.targets) // an edit is told as one of the sources first
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
	if slices.ContainsFunc(w.targets, func(other target) bool {
		o, ok := other.(*fileTree)
		return ok && o.root == t.root && o.glob == t.glob && o.script == "" && o.exts == nil
	}) {
		return // the same path, twice
	}
	t.learn()
	program, err := w.cfg.find()
	if rel, ok := below(t.root, program); err == nil && ok && t.leaves[cmp.Or(rel, filepath.Base(t.root))] != nil {
		if w.program == nil {
			w.addExecutable()
		}
		t.own = w.cfg.find
		t.findOwn()
		maps.DeleteFunc(t.leaves, func(name string, _ *leaf) bool { return t.isOwn(name) })
	}
	if !t.file || len(t.leaves) > 0 {
		w.targets = append(w.targets, t)
	}
	sig, err := w.disk.stat(t.root)
	switch {
	case err == nil && !sig.regular() && !sig.dir():
		w.say(warning("cannot watch %q: it is neither a file nor a directory", name))
	case t.glob != "" && !doublestar.ValidatePattern(t.glob):
		w.say(warning("nothing can match %q: the pattern is broken", name))
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
	if err != nil {
		w.addExecutable()
		return
	}
	r := w.understand(path, w.cfg.program)
	if r.root == "/" { // all of the machine is nobody's program
		r.exts, r.unknown = nil, r.script == ""
		r.own = r.own || r.unknown
	}
	var what []string
	if r.own {
		w.addExecutable()
		what = append(what, path)
	}
	if r.script != "" {
		what = append(what, r.script)
	}
	if r.exts != nil {
		what = append(what, globOf(r.exts)+" below "+r.root)
	}
	if r.script != "" || r.exts != nil {
		t := &fileTree{w: w, name: cmp.Or(r.script, r.root), root: r.root, script: r.script, exts: r.exts, written: true, code: true, ignore: w.cfg.ignore}
		if t.exts == nil {
			t.root = r.script
		}
		if r.own {
			t.own = w.cfg.find
		}
		w.addTree(t)
	}
	if r.unknown {
		w.say(warning("what %q runs is not known, only %s is watched", filepath.Base(path), path).end("--watch=PATH names it"))
		return
	}
	w.say(info("watching %s", strings.Join(what, " and ")).end("--watch=PATH chooses"))
}

// globOf writes suffixes as a pattern.
func globOf(exts []string) string {
	if len(exts) == 1 {
		return "*" + exts[0]
	}
	return "*.{" + strings.ReplaceAll(strings.Join(exts, ","), ".", "") + "}"
}

func (w *watcher) addExecutable() {
	w.program = w.newExecutable()
	w.targets = append(w.targets, w.program)
}

// running is what a command line runs, as far as its words tell.
type running struct {
	own     bool     // its first word, which nothing else runs
	exts    []string // the files of its language,
	root    string   // below there
	script  string   // absolute, "" none is named
	unknown bool
}

// understand finds out what words run, of which the first is the program at path.
func (w *watcher) understand(path string, words []string) running {
	exts, interpreter := languageOf(path)
	starts, launcher := starters[filepath.Base(path)]
	switch {
	case interpreter && exts == nil && len(words) > 2 && words[1] == "-c":
		return w.launched(nil, strings.FieldsFunc(words[2], func(r rune) bool { return strings.ContainsRune(" \t\n;&|(){}'\"", r) }), true)
	case interpreter:
		return w.interpreted(exts, words[1:])
	case launcher:
		return w.launched(starts, words[1:], false)
	}
	if exts = shims[filepath.Base(filepath.Dir(path))+" "+filepath.Base(filepath.Dir(filepath.Dir(path)))]; exts == nil {
		exts, _ = languageOf(shebang(path))
	}
	switch {
	case exts == nil:
		return running{own: true}
	case w.isTool(path):
		return w.launched(exts, words[1:], false)
	case !strings.Contains(words[0], "/"): // it is installed: most likely it runs what is here
		r := w.launched(exts, words[1:], false)
		r.own = true
		return r
	}
	return running{own: true, exts: exts, root: w.homeOf(path)}
}

// interpreted finds what an interpreter runs: its script, and the files of its language about it.
func (w *watcher) interpreted(exts, args []string) running {
	r := running{exts: exts, root: w.cfg.dir}
	for i, arg := range args {
		if slices.Contains(inline, arg) {
			break
		}
		if file := w.absolute(arg); !strings.HasPrefix(arg, "-") && (i == 0 || !slices.Contains(valued, args[i-1])) &&
			(w.isFile(file) || w.cfg.build && slices.Contains(exts, filepath.Ext(arg))) { // which the build makes

			r.script, r.root = file, w.homeOf(file)
			break
		}
	}
	r.unknown = exts == nil && r.script == ""
	r.own = r.unknown
	return r
}

// launched finds what a launcher of a language's programs, or of any (nil), runs. In a shell's text a bare word
// may be anything.
func (w *watcher) launched(exts, words []string, text bool) running {
	for i, word := range words {
		if word == "" || word[0] == '-' || strings.Contains(word, "=") || i > 0 && slices.Contains(userOptions, words[i-1]) {
			continue
		}
		_, known := languageOf(word)
		_, launcher := starters[filepath.Base(word)]
		path := w.search(word, text)
		if !known && !launcher && (exts != nil || path == "") {
			continue
		}
		r := w.understand(cmp.Or(path, word), words[i:])
		if r.own && !r.unknown {
			r.own, r.script = false, path
		}
		return r
	}
	if exts == nil {
		return running{own: true, unknown: true}
	}
	r := running{exts: exts, root: w.cfg.dir}
	for _, word := range words {
		if file := w.absolute(word); slices.Contains(exts, filepath.Ext(word)) && w.isFile(file) {
			if r.script = file; !strings.HasPrefix(file, w.cfg.dir+"/") {
				r.root = filepath.Dir(file)
			}
			break
		}
	}
	return r
}

// search finds the file of a program that a launcher is to run, "" none.
func (w *watcher) search(word string, text bool) string {
	if strings.Contains(word, "/") {
		if file := w.absolute(word); w.isFile(file) {
			return file
		}
		return ""
	}
	for _, dir := range w.cfg.search {
		if file := filepath.Join(dir, word); !text && w.isFile(file) {
			return file
		}
	}
	return ""
}

func (w *watcher) isFile(path string) bool {
	sig, err := w.disk.stat(path)
	return err == nil && sig.regular()
}

// isTool tells whether a program is one that others wrote.
func (w *watcher) isTool(path string) bool {
	dir := filepath.Dir(path)
	return slices.Contains(toolDirs, dir) || strings.HasSuffix(dir, "node_modules/.bin") || filepath.Base(dir) == "shims" ||
		w.isFile(filepath.Join(dir, "../pyvenv.cfg"))
}

// homeOf is the directory that a script belongs to: its own, but bin/rails belongs to what is beside bin.
func (w *watcher) homeOf(script string) string {
	dir := filepath.Dir(script)
	switch {
	case w.isTool(script):
		return w.cfg.dir
	case filepath.Base(dir) == "bin" && strings.HasPrefix(dir, w.cfg.dir+"/"):
		return filepath.Dir(dir)
	}
	return dir
}

// languageOf finds the files of an interpreter's programs, by its name: python3.12 is python.
func languageOf(path string) ([]string, bool) {
	exts, ok := languages[strings.TrimRight(filepath.Base(path), "0123456789.-")]
	return exts, ok
}

// shebang is the interpreter in a script's first line, "" none.
func shebang(path string) string {
	if sig, err := statFile(path); err != nil || !sig.regular() {
		return ""
	}
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
