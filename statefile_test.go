//go:build linux

package main

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
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

// Once written a state needs no more room, until it is much longer.
func TestStateFileRoom(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it.state")
	files := func() (all []string) {
		for _, name := range []string{path, path + newSuffix} {
			var st unix.Stat_t
			if err := unix.Stat(name, &st); err != nil {
				t.Fatal(err)
			}
			all = append(all, fmt.Sprint(st.Ino, st.Size, st.Blocks > 0))
		}
		return all
	}
	keep := func(text string) []string {
		if err := keepFile(path, []byte(text), true); err != nil {
			t.Fatal(err)
		}
		if is, _ := os.ReadFile(path); strings.TrimRight(string(is), " ") != text {
			t.Errorf("it reads %.20q, not %.20q", is, text)
		}
		return files()
	}
	first := keep("{}")
	for _, text := range []string{strings.Repeat("x", stateRoom-1), "{}"} {
		now := keep(text)
		slices.Reverse(now)
		if !slices.Equal(now, first) {
			t.Errorf("the files were %q, and are %q", first, now)
		}
		first = files()
	}
}

// What cannot be replaced stays as long as what it says is essentially true.
func TestStateFileStale(t *testing.T) {
	path := filepath.Join(t.TempDir(), "it.state")
	if err := errors.Join(keepFile(path, []byte("old"), true), os.Remove(path+newSuffix), os.MkdirAll(path+newSuffix+"/in", 0o700)); err != nil {
		t.Fatal(err)
	}
	for _, stillTrue := range []bool{true, false} {
		if err := keepFile(path, []byte("new"), stillTrue); err == nil {
			t.Error("it was written")
		}
		if _, err := os.Stat(path); (err == nil) != stillTrue {
			t.Errorf("true %v: %v", stillTrue, err)
		}
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

// What changes while one is being written is written after that, once: then there is nothing to do.
func TestStateFileRests(t *testing.T) {
	k := &stateFile{texts: make(chan keptText, 1), results: make(chan error, 1)}
	h := &host{kept: k, traffic: &sharedTraffic{}}
	s := &supervisor{}
	for range 3 {
		s.Serials++
		h.note(s, event{})
	}
	written := 0
	for len(k.texts) > 0 && written < 10 {
		<-k.texts
		written++
		k.results <- nil
		h.note(s, event{kind: evKept})
	}
	if written != 2 {
		t.Errorf("it is written %d times, not twice", written)
	}
}
