package main

// This file knows which files are nobody's source: what git ignores, what -i names, and what tools leave about.
//
// Its rules are gitignore(5)'s: the last pattern that matches decides, a pattern without a slash is for names
// at any depth, and nothing comes back below a directory that is out.

import (
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/bmatcuk/doublestar/v4"
)

// ignoreRule is one line of a .gitignore.
type ignoreRule struct {
	base    string // directory that the pattern is relative to, absolute
	pattern string
	dirOnly bool
	negate  bool
	name    bool // the pattern is for the last component
}

// parseIgnore reads one line; false if it has no pattern.
func parseIgnore(base, line string) (ignoreRule, bool) {
	line = strings.TrimSuffix(line, "\r")
	for strings.HasSuffix(line, " ") && !strings.HasSuffix(line, `\ `) {
		line = line[:len(line)-1]
	}
	if line == "" || line[0] == '#' {
		return ignoreRule{}, false
	}
	r := ignoreRule{base: base}
	if line[0] == '!' {
		r.negate, line = true, line[1:]
	}
	if strings.HasSuffix(line, "/") {
		r.dirOnly, line = true, strings.TrimRight(line, "/")
	}
	r.name = !strings.Contains(line, "/")
	line = strings.TrimPrefix(line, "/")
	if strings.HasSuffix(line, "/**") {
		line += "/*" // what is below it, not the directory itself
	}
	r.pattern = strings.NewReplacer("{", `\{`, "}", `\}`).Replace(line) // no braces in git
	return r, line != "" && doublestar.ValidatePattern(r.pattern)
}

// matches tells whether the rule is about a path, which is absolute.
func (r ignoreRule) matches(file string, dir bool) bool {
	if r.dirOnly && !dir {
		return false
	}
	rel, ok := below(r.base, file)
	if !ok || rel == "" {
		return false
	}
	if r.name {
		rel = path.Base(rel)
	}
	ok, _ = doublestar.Match(r.pattern, rel)
	return ok
}

// ignored tells what the last rule that matches says.
func ignored(rules []ignoreRule, file string, dir bool) bool {
	for _, r := range slices.Backward(rules) {
		if r.matches(file, dir) {
			return !r.negate
		}
	}
	return false
}

// readIgnore reads a file of rules; one that is not there has none.
func readIgnore(file, base string) []ignoreRule {
	var rules []ignoreRule
	for line := range strings.Lines(smallFile(file)) {
		if r, ok := parseIgnore(base, strings.TrimSuffix(line, "\n")); ok {
			rules = append(rules, r)
		}
	}
	return rules
}

// smallFile is the text of a file that belongs to git; "" where there is none. To open a fifo would wait.
func smallFile(name string) string {
	if info, err := os.Stat(name); err != nil || !info.Mode().IsRegular() || info.Size() > 1<<20 {
		return ""
	}
	text, _ := os.ReadFile(name)
	return string(text)
}

// gitRules are the rules from above a directory: those of the repository that it is in, and its user's own.
func gitRules(dir string) []ignoreRule {
	var above []string // from dir's parent up to the repository's top
	for top := dir; ; top = filepath.Dir(top) {
		if top != dir {
			above = append(above, top)
		}
		if _, err := os.Lstat(filepath.Join(top, ".git")); err == nil {
			git := gitDir(top)
			rules := append(readIgnore(excludesFile(git), top), readIgnore(filepath.Join(git, "info/exclude"), top)...)
			for _, d := range slices.Backward(above) {
				rules = append(rules, readIgnore(filepath.Join(d, ".gitignore"), d)...)
			}
			return rules
		}
		if top == filepath.Dir(top) {
			return nil
		}
	}
}

// gitDir is where a repository keeps its own files: in .git, or, if that is a file, where it says
// (gitrepository-layout(5)); worktrees share the first one's.
func gitDir(top string) string {
	dir := filepath.Join(top, ".git")
	if to, ok := strings.CutPrefix(smallFile(dir), "gitdir: "); ok {
		dir = filepathFrom(top, strings.TrimSpace(to))
	}
	if to := strings.TrimSpace(smallFile(filepath.Join(dir, "commondir"))); to != "" {
		dir = filepathFrom(dir, to)
	}
	return dir
}

// excludesFile is the user's own file of rules, as git finds it (gitignore(5)).
func excludesFile(git string) string {
	home, config := os.Getenv("HOME"), os.Getenv("XDG_CONFIG_HOME")
	if config == "" {
		config = home + "/.config"
	}
	file := config + "/git/ignore"
	for _, from := range []string{"/etc/gitconfig", config + "/git/config", home + "/.gitconfig", git + "/config"} {
		if value, ok := coreSetting(from, "excludesFile"); ok { // the last one counts
			file = value
		}
	}
	if rest, ok := strings.CutPrefix(file, "~/"); ok {
		file = filepath.Join(home, rest)
	}
	return file
}

// coreSetting reads a key of the section core from a file of git-config(1), the last one; what that includes
// is not read.
func coreSetting(file, key string) (value string, ok bool) {
	core := false
	for line := range strings.Lines(smallFile(file)) {
		line = strings.TrimSpace(line)
		if section, rest, found := strings.Cut(line, "]"); found && line[0] == '[' {
			core, line = strings.EqualFold(section, "[core"), rest
		}
		name, text, _ := strings.Cut(line, "=")
		if core && strings.EqualFold(strings.TrimSpace(name), key) {
			value, ok = gitValue(strings.TrimSpace(text)), true
		}
	}
	return value, ok
}

// gitValue takes quotes, escapes and the comment off a value.
func gitValue(text string) string {
	var value, blanks strings.Builder
	quoted, escaped := false, false
	for _, r := range text {
		switch {
		case escaped:
			escaped = false
		case r == '\\':
			escaped = true
			continue
		case r == '"':
			quoted = !quoted
			continue
		case !quoted && (r == '#' || r == ';'):
			return value.String()
		case !quoted && (r == ' ' || r == '\t'):
			blanks.WriteRune(r)
			continue
		}
		value.WriteString(blanks.String())
		blanks.Reset()
		value.WriteRune(r)
	}
	return value.String()
}

// below makes file relative to dir, with slashes; "" is dir itself.
func below(dir, file string) (string, bool) {
	switch {
	case file == dir:
		return "", true
	case dir == "/":
		return strings.TrimPrefix(file, "/"), true
	}
	rel, ok := strings.CutPrefix(file, dir+"/")
	return rel, ok
}

var (
	versionDirs = []string{".git", ".hg", ".svn", ".bzr", ".jj", "CVS", "_darcs"}
	madeDirs    = []string{"node_modules", "__pycache__", "venv"}
)

// leftAbout tells whether a name is an editor's: a swap file, a backup, a lock.
func leftAbout(name string) bool {
	switch {
	case strings.HasSuffix(name, "~"), strings.HasPrefix(name, ".#"), name == "4913", name == ".DS_Store":
		return true
	case strings.HasPrefix(name, "#") && strings.HasSuffix(name, "#"):
		return true
	}
	ext := path.Ext(name)
	return name[0] == '.' && len(ext) == 4 && strings.HasPrefix(ext, ".sw")
}

// madeDir tells whether a directory holds what tools made and not what people write: env may be a package
// as well, so there the file that marks a virtual environment decides.
func madeDir(dir, name string) bool {
	if slices.Contains(madeDirs, name) {
		return true
	}
	_, err := os.Stat(filepath.Join(dir, name, "pyvenv.cfg"))
	return err == nil
}
