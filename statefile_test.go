//go:build linux

package main

import (
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
)

// What lies where it is written is replaced, not followed.
func TestStateFileReplaced(t *testing.T) {
	dir := t.TempDir()
	victim, path := filepath.Join(dir, "victim"), filepath.Join(dir, "it.state")
	if err := os.WriteFile(victim, []byte("mine"), 0o644); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{path, path + newSuffix} {
		if err := os.Symlink(victim, name); err != nil {
			t.Fatal(err)
		}
	}
	if err := replaceFile(path, []byte("state")); err != nil {
		t.Fatal(err)
	}
	if text, _ := os.ReadFile(victim); string(text) != "mine" {
		t.Errorf("the victim is %q", text)
	}
	info, err := os.Lstat(path)
	if err != nil || info.Mode() != 0o600 {
		t.Errorf("it is %v, %v", info.Mode(), err)
	}
}

// Only what is the same program, of the same user, in the same place, is taken over.
func TestProvenanceDiffers(t *testing.T) {
	whole := func() provenance {
		return provenance{UID: 1, User: 2, Dir: "/srv", Program: []string{"node", "a.js"}, Listen: []string{"127.0.0.1:80", "a=127.0.0.1:81"}}
	}
	mine := whole()
	slices.Reverse(mine.Listen)
	if why := whole().differs(mine); why != "" {
		t.Errorf("the order of listeners: %s", why)
	}
	for want, change := range map[string]func(*provenance){
		"hotwrap's user id was 9":     func(p *provenance) { p.UID = 9 },
		"user id is 9":                func(p *provenance) { p.User = 9 },
		"directory is /tmp, not /srv": func(p *provenance) { p.Dir = "/tmp" },
		"its program is node b.js":    func(p *provenance) { p.Program = []string{"node", "b.js"} },
		"its listeners are none":      func(p *provenance) { p.Listen = nil },
	} {
		other := whole()
		change(&other)
		if why := other.differs(whole()); !strings.Contains(why, want) {
			t.Errorf("%q does not say %q", why, want)
		}
	}
}
