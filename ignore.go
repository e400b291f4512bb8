package main

// This file knows which files are nobody's source: what git ignores, what -i names, and what tools leave about.
//
// Its rules are gitignore(5)'s: the last pattern that matches decides, a pattern without a slash is for names
// at any depth, and nothing comes back below a directory that is out.

import (
	"bufio"
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
	f, err := os.Open(file)
	if err != nil {
		return nil
	}
	defer f.Close()
	var rules []ignoreRule
	for lines := bufio.NewScanner(f); lines.Scan(); {
		if r, ok := parseIgnore(base, lines.Text()); ok {
			rules = append(rules, r)
		}
	}
	return rules
}

// gitRules are the rules from above a directory: those of the repository that it is in.
func gitRules(dir string) []ignoreRule {
	var above []string // from dir's parent up to the repository's top
	for top := dir; ; top = filepath.Dir(top) {
		if top != dir {
			above = append(above, top)
		}
		if _, err := os.Lstat(filepath.Join(top, ".git")); err == nil {
			rules := readIgnore(filepath.Join(top, ".git/info/exclude"), top)
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
