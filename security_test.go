package main

// This file holds docs/security.md to the tests: every claim there names one, and those that it names are there.

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// testsHere are the names of all tests and fuzz targets, on whatever system, and of the scripts.
func testsHere(t *testing.T) map[string]bool {
	t.Helper()
	here := map[string]bool{}
	files, err := filepath.Glob("*_test.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range files {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		for _, found := range regexp.MustCompile(`(?m)^func ((?:Test|Fuzz)\w+)\(`).FindAllStringSubmatch(string(text), -1) {
			here[found[1]] = true
		}
	}
	scripts, err := filepath.Glob("testdata/script/*.txtar")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range scripts {
		here[strings.TrimSuffix(filepath.Base(file), ".txtar")] = true
	}
	return here
}

// TestSecurityClaims: every row of every table of docs/security.md ends in tests that there are, and every script about
// security is named.
func TestSecurityClaims(t *testing.T) {
	here := testsHere(t)
	text, err := os.ReadFile("docs/security.md")
	if err != nil {
		t.Fatal(err)
	}
	rows := 0
	for line := range strings.Lines(string(text)) {
		cells := strings.Split(strings.Trim(strings.TrimSpace(line), "|"), "|")
		proof := cells[len(cells)-1]
		if !strings.HasPrefix(line, "|") || strings.Contains(line, "---|") || strings.Contains(proof, "proved by") {
			continue
		}
		rows++
		names := regexp.MustCompile("`(\\w+)`").FindAllStringSubmatch(proof, -1)
		if len(names) == 0 {
			t.Errorf("nothing proves: %s", line)
		}
		for _, name := range names {
			if !here[name[1]] {
				t.Errorf("there is no %s", name[1])
			}
		}
	}
	if rows < 20 {
		t.Errorf("only %d claims were found", rows)
	}
	for name := range here {
		if strings.HasPrefix(name, "security_") && !strings.Contains(string(text), "`"+name+"`") {
			t.Errorf("docs/security.md has no %s", name)
		}
	}
}

// TestStateFileForeign: what another user wrote, a symlink, a pipe, junk, or what is far too large is no state to go on from.
func TestStateFileForeign(t *testing.T) {
	dir := shortDir(t)
	good, path := filepath.Join(dir, "good"), filepath.Join(dir, "web.state")
	text, err := json.Marshal(&written{Version: writtenVersion, Who: &provenance{}})
	if err == nil {
		err = replaceFile(good, text)
	}
	if err != nil {
		t.Fatal(err)
	}
	if info, err := os.Stat(good); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("it is written as %v, %v", info.Mode(), err)
	}
	if w, err := readStateFile(good); err != nil || w == nil {
		t.Fatalf("ours is not read: %v", err)
	}
	before, err := os.ReadFile(good)
	if err != nil {
		t.Fatal(err)
	}
	for name, plant := range map[string]func() error{
		"a symlink": func() error { return os.Symlink(good, path) },
		"a pipe":    func() error { return unix.Mkfifo(path, 0o600) },
		"junk":      func() error { return os.WriteFile(path, []byte("{]"), 0o600) },
		"too large": func() error { return errors.Join(os.WriteFile(path, nil, 0o600), os.Truncate(path, stateMost+1)) },
		"a stranger's": func() error {
			if os.Geteuid() != 0 {
				return os.Symlink(good, path)
			}
			return errors.Join(os.WriteFile(path, text, 0o600), os.Chown(path, attackerID, attackerID))
		},
	} {
		_ = os.Remove(path)
		if err := plant(); err != nil {
			t.Fatal(err)
		}
		if w, err := readStateFile(path); err == nil && w != nil {
			t.Errorf("%s is read", name)
		}
	}
	untouchedText, err := os.ReadFile(good)
	if err != nil || string(untouchedText) != string(before) {
		t.Errorf("what the symlink leads to has changed: %v", err)
	}
}
