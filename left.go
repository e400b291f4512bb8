package main

// This file tells commands of hotwraps that were killed and whose programs live on: who asks for such a one must not think that
// nothing runs.
//
// Its rule: only what is ours is read, and nothing is changed; to go on with it is the next hotwrap's.

import (
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"time"
)

// leftover is what a hotwrap that was killed has left.
type leftover struct {
	Name    string   `json:"name"`
	State   string   `json:"state"`
	PID     int      `json:"pid"` // of the hotwrap
	Dir     string   `json:"dir"`
	Program []string `json:"program"`
	Pids    []int    `json:"pids"` // that live on
	again   string   // how it is started again
}

// leftError is a findError where somebody was left.
type leftError struct {
	*findError
	all []leftover
}

func (e *leftError) Unwrap() error { return e.findError }

// leftovers are those that a command may mean, as far as their files can be read within a limit.
func (k *seeker) leftovers() (all []leftover) {
	found := make(chan leftover)
	ended := make(chan struct{})
	defer close(ended)
	go func() { // a directory may hang
		defer close(found)
		k.eachLeft(func(l leftover) bool {
			select {
			case found <- l:
				return true
			case <-ended:
				return false
			}
		})
	}()
	limit := time.NewTimer(askLimit)
	defer limit.Stop()
	for {
		select {
		case l, ok := <-found:
			if !ok {
				return all
			}
			if !slices.ContainsFunc(all, func(o leftover) bool { return o.PID == l.PID }) {
				all = append(all, l)
			}
		case <-limit.C:
			return all
		}
	}
}

// eachLeft reads the files until fn is false.
func (k *seeker) eachLeft(fn func(leftover) bool) {
	bases := k.bases()
	if k.text == "" && k.chosen != "" {
		bases = []string{k.chosen}
	}
	seen := 0
	for _, base := range bases {
		for _, path := range namesIn(filepath.Join(base, controlDir), "") {
			name, ok := strings.CutSuffix(filepath.Base(path), stateSuffix)
			name, _, _ = strings.Cut(name, "~") // it was put aside
			if !ok || k.text != "" && k.pid == 0 && name != k.text {
				continue
			}
			if seen++; seen > contactsMost {
				return
			}
			w, err := readStateFile(path)
			if err != nil || w == nil || w.Who.lives() || w.Who.stale() != "" || k.pid != 0 && k.pid != w.Who.PID {
				continue
			}
			if !fn(w.Who.left(base, name)) {
				return
			}
		}
	}
}

// left is what who left.
func (who provenance) left(base, name string) leftover {
	return leftover{
		Name: name, State: "killed", PID: who.PID, Dir: who.Dir, Program: who.Program, Pids: who.alive(),
		again: who.command(base, name),
	}
}

// livesOn names processes.
func livesOn(pids []int) string {
	text := strings.Trim(fmt.Sprint(pids), "[]")
	if len(pids) == 1 {
		return "pid " + text + " lives on,"
	}
	return "pids " + strings.ReplaceAll(text, " ", ", ") + " live on,"
}

// leaving adds to e what was left of those that are meant.
func (k *seeker) leaving(e *findError) error {
	all := k.leftovers()
	if len(all) == 0 {
		return e
	}
	var again []string
	for _, l := range all {
		e.text += fmt.Sprintf("; %q was killed, and %s without it", l.Name, strings.TrimSuffix(livesOn(l.Pids), ","))
		again = append(again, l.again)
	}
	e.hint = "to go on with that, start it with the options that it had: " + strings.Join(again, "; ") + "; " + e.hint
	return &leftError{e, all}
}

// command starts a hotwrap that is to this one's taste: the same name, user, directory, listeners and program.
func (who provenance) command(base, name string) string {
	words := []string{"hotwrap", "--name", name}
	if who.User != who.UID {
		words = append(words, "-u", strconv.Itoa(who.User))
	}
	for _, l := range who.Listen {
		if !strings.HasPrefix(l, "handed ") { // those come from whoever starts it
			words = append(words, "-l", l)
		}
	}
	text := "cd " + commandLine([]string{who.Dir}) + " && "
	if !slices.Contains(runtimeDirs(os.Environ()), base) {
		text += commandLine([]string{"HOTWRAP_RUNTIME_DIR=" + base}) + " "
	}
	text += commandLine(append(append(words, "--"), who.Program...))
	if who.UID != os.Geteuid() {
		text += fmt.Sprintf(" (as uid %d)", who.UID)
	}
	return text
}
