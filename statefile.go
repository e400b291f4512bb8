package main

// This file keeps what the next hotwrap of this name has to know should this one be killed: the state, beside the lock on
// the name.
//
// Its rules:
//   - It is written by rename, whole or not at all, by a goroutine of its own; what changes meanwhile is written after
//     that, all at once.
//   - A full disk does not stop it: the next one is written over the one before the last, which has the room.
//   - Where it cannot be written all the same, none is better than one by which another generation serves.
//   - Nobody waits for it, but for a moment once another generation serves, or a socket is another: who was killed then and
//     had not written it would be taken for what he was before. A disk that hangs costs that moment once.
//   - Looks and words are no reason to write: only who there is, and what becomes of them.
//   - No value of an environment gets into it, nor hotwrap's command line, which may have some.
//   - It need not outlive the machine: nothing is synced.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"hash/fnv"
	"io"
	"maps"
	"os"
	"slices"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	stateSuffix = ".state"
	newSuffix   = ".new" // while it is being written
	stateMost   = 64 << 20

	stateRoom = 16 << 10 // bytes; files are multiples of it, filled up with blanks, so that there is room to grow

	keepPatience = 5 * time.Millisecond // usually it takes 0.1 ms
	keepAgain    = time.Second          // until a state that could not be written is written again
)

// provenance is who wrote the state, and of what it is: another hotwrap goes on only with what is its own.
type provenance struct {
	Boot    string         `json:"boot"` // of the machine
	PID     int            `json:"pid"`
	Start   uint64         `json:"start"` // of that process: together they are never another's
	UID     int            `json:"uid"`
	User    int            `json:"user"` // the program's
	Dir     string         `json:"dir"`
	Program []string       `json:"program"`
	Listen  []string       `json:"listen,omitempty"`
	Workers int            `json:"workers,omitempty"` // of a generation, by the command line: TTIN and TTOU count from there
	Born    map[int]uint64 `json:"born"`              // when each worker's process started
}

// stateFile is the file and its writer. Its fields belong to the supervisor's goroutine.
type stateFile struct {
	path    string
	who     provenance
	outline uint64 // of what was written last
	serving int    // the generation that served then
	busy    bool   // it is being written
	slow    bool   // and takes long
	again   bool   // something changed meanwhile
	failed  bool
	texts   chan keptText
	results chan error // of the one that is being written
	ended   chan struct{}
}

// keptText is one state to be written.
type keptText struct {
	text    []byte
	essence string
}

// statePath is where the state of that instance is kept: the directory of the locks is the owner's alone.
func (i *instance) statePath() string {
	return strings.TrimSuffix(i.lockPath, lockSuffix) + stateSuffix
}

// keepState begins to keep it, where there is a place, and the machine can tell whether it was started since.
func (h *host) keepState(cfg *config, s *supervisor) {
	who, ok := h.provenance(cfg)
	if h.place == nil || !ok {
		return
	}
	h.orphans.knownStarts(who.Born)
	k := &stateFile{path: h.place.statePath(), who: who, texts: make(chan keptText, 1), results: make(chan error, 1), ended: make(chan struct{})}
	h.kept = k
	there := s.essence() // what lies there was read, or is gone
	go func() {
		defer close(k.ended)
		k.write(there, h.post)
	}()
}

// write writes what comes. After a failure it asks for more.
func (k *stateFile) write(there string, post func(event) bool) {
	again := time.NewTimer(0)
	defer again.Stop()
	again.Stop()
	for {
		select {
		case next, ok := <-k.texts:
			if !ok {
				return
			}
			err := keepFile(k.path, next.text, there == next.essence)
			if err == nil {
				there = next.essence
			} else {
				again.Reset(keepAgain)
			}
			k.results <- err
			go post(event{kind: evKept}) // the supervisor may be waiting for the next result
		case <-again.C:
			go post(event{kind: evTime})
		}
	}
}

// provenance is what this hotwrap is.
func (h *host) provenance(cfg *config) (provenance, bool) {
	boot := bootID()
	_, _, _, start, ok := procState(os.Getpid())
	p := h.program
	who := provenance{
		Boot: boot, PID: os.Getpid(), Start: start, UID: os.Geteuid(), User: p.uid(), Dir: p.dir, Program: p.argv, Workers: cfg.workers.n,
		Born: map[int]uint64{},
	}
	for _, l := range p.listeners {
		if l.lent {
			who.Listen = append(who.Listen, "handed "+l.name+"="+l.network+" "+l.addr)
		}
	}
	for _, spec := range cfg.listens {
		if spec.ours() {
			who.Listen = append(who.Listen, strings.TrimPrefix(spec.name+"="+spec.address(), "="))
		}
	}
	return who, ok && boot != ""
}

// note has the state written if what matters of it has changed. It is told each event after that acted.
func (h *host) note(s *supervisor, ev event) {
	k := h.kept
	for _, d := range ev.ended {
		h.orphans.forget(d.pid)
	}
	if k == nil {
		return
	}
	serving := 0
	if g := s.serving(); g != nil {
		serving = g.Number
	}
	urgent := serving != k.serving || ev.kind == evCall || ev.kind == evSpoilt
	h.written(urgent)
	outline := s.outline()
	changed := outline != k.outline || ev.kind == evCall || ev.kind == evSpoilt || k.failed && ev.kind != evKept
	if k.busy || s.done() {
		k.again = k.again || changed
		return
	}
	if !changed && !k.again {
		return
	}
	text, err := h.stateText(s)
	if err != nil {
		h.sayKept(err)
		return
	}
	k.outline, k.serving, k.busy, k.again = outline, serving, true, false
	k.texts <- keptText{text, s.essence()} // there is room: it is not busy
	h.written(urgent)
}

// written takes the result of what is being written, if it is there, or comes within a moment where that is urgent.
func (h *host) written(urgent bool) {
	k := h.kept
	if !k.busy {
		return
	}
	limit := make(<-chan time.Time)
	if urgent && !k.slow {
		timer := time.NewTimer(keepPatience)
		defer timer.Stop()
		limit = timer.C
	} else if len(k.results) == 0 {
		return
	}
	select {
	case err := <-k.results:
		k.busy, k.slow = false, false
		h.sayKept(err)
	case <-limit:
		k.slow = true // nobody waits for this one again
	}
}

// sayKept says once that the state cannot be written, and once that it can again.
func (h *host) sayKept(err error) {
	k := h.kept
	switch {
	case err != nil && !k.failed:
		h.say(warning("cannot write the state to %q: %v; should this hotwrap be killed before it can, the program serves on, but the next may be unable to take it over",
			k.path, causeOf(err)))
	case err == nil && k.failed:
		h.say(info("the state is written again to %q", k.path))
	}
	k.failed = err != nil
}

// outline tells states apart, as far as that matters to who comes after. Nobody misses a generation without a worker yet.
func (s *supervisor) outline() uint64 {
	sum := fnv.New64a()
	add := func(values ...any) { _, _ = fmt.Fprintln(sum, values...) }
	add(s.Serials, s.Wanted, s.Adopts, len(s.Learned), s.Ending)
	if r := s.Restart; r != nil && r.Begun > 0 {
		add(r.Begun, r.Phase, r.Stage)
	}
	for _, g := range s.Generations {
		if g.State == genStarting && len(g.Workers) == 0 {
			continue
		}
		add(g.Number, g.State, g.Fallback, len(g.Slots))
		if g.State == genDraining {
			add(g.Deadline)
		}
		for _, sl := range g.Slots {
			add(sl.Over, sl.Yielded)
		}
		for _, w := range g.Workers {
			add(w.Serial, w.PID, w.Main, w.State, w.Reaped, w.Limit, w.Strays)
		}
	}
	return sum.Sum64()
}

// essence is what a state must be right in that is read after a death: whoever serves unknown to it would be ended, or left
// alone for ever.
func (s *supervisor) essence() string {
	text := fmt.Sprint(s.Ending)
	if g := s.serving(); g != nil {
		text += fmt.Sprint(" ", g.Number)
		for _, w := range g.Workers {
			text += fmt.Sprint(" ", w.Serial)
		}
	}
	return text
}

// stateText is the state as it is written.
func (h *host) stateText(s *supervisor) ([]byte, error) {
	st := s.state
	st.Hooks, st.Rebuild, st.Reexec = hooking{}, rebuilding{}, nil // of processes whose end nobody would see
	h.kept.birth(&st)
	who := h.kept.who
	w := &written{
		Version: writtenVersion, Hotwrap: versionText(), Self: h.self, Since: h.since, State: st, Closed: h.closed,
		Ears: map[int]carriedEars{}, Who: &who,
	}
	for _, img := range st.images() {
		c := img.carry(nil)
		c.Env, c.Set = nil, nil
		w.Images = append(w.Images, c)
	}
	if !h.closed {
		w.Traffic = h.traffic.carry(nil)
	}
	if h.notify != nil {
		w.Notify = h.notify.carry(nil)
	}
	for serial, e := range h.ears {
		if serial > 0 {
			w.Ears[serial] = e.carry(nil)
		}
	}
	text, err := json.Marshal(w)
	if err != nil {
		return nil, fmt.Errorf("cannot write the state: %w", err)
	}
	return text, nil
}

// birth notes when the processes of st started, while they are surely still the same: nobody has reaped them yet.
func (k *stateFile) birth(st *state) {
	born := map[int]uint64{}
	for _, g := range st.Generations {
		for _, w := range g.Workers {
			start, known := k.who.Born[w.PID]
			if !known && !w.Reaped {
				_, _, _, start, known = procState(w.PID)
			}
			if known {
				born[w.PID] = start
			}
		}
	}
	k.who.Born = born
}

// forgetState removes the file: hotwrap ends in order, and nothing of it is left to be taken over.
func (h *host) forgetState() {
	k := h.kept
	if k == nil {
		return
	}
	h.kept = nil
	close(k.texts)
	limit := time.NewTimer(endLimit)
	defer limit.Stop()
	select {
	case <-k.ended:
	case <-limit.C: // a disk that hangs; what it leaves behind is of a hotwrap without workers
	}
	removeState(k.path)
}

// keepFile puts text where nobody sees half of it. If it cannot, the one that was there goes, unless its essence is still true;
// on a full disk that makes room.
func keepFile(path string, text []byte, stillTrue bool) error {
	err := replaceFile(path, text)
	if err == nil || stillTrue {
		return err
	}
	_ = os.Remove(path)
	if errors.Is(err, unix.ENOSPC) || errors.Is(err, unix.EDQUOT) {
		err = replaceFile(path, text)
	}
	return err
}

// replaceFile leaves what was there as the spare one for the next time.
func replaceFile(path string, text []byte) error {
	next := path + newSuffix
	if err := writeSpare(next, text); err != nil {
		return err
	}
	if swapNames(next, path) == nil {
		return nil
	}
	if err := os.Rename(next, path); err != nil { // there is none yet, or the file system cannot
		_ = os.Remove(next)
		return err
	}
	_ = writeSpare(next, text)
	return nil
}

// writeSpare writes text over a file that is nobody's state, which keeps the room that it has.
func writeSpare(path string, text []byte) error {
	f, size, err := openSpare(path)
	if err != nil {
		return err
	}
	size = max(size, (int64(len(text))/stateRoom+1)*stateRoom)
	_, err = f.Write(append(slices.Clone(text), bytes.Repeat([]byte{' '}, int(size)-len(text))...))
	return errors.Join(err, f.Close())
}

// openSpare opens that file; anything else that lies there is replaced.
func openSpare(path string) (f *os.File, size int64, err error) {
	f, err = os.OpenFile(path, os.O_WRONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if err == nil {
		info, err := f.Stat()
		if err == nil && info.Mode() == 0o600 && int(owner(info)) == os.Geteuid() && info.Size() <= stateMost {
			return f, info.Size(), nil
		}
		_ = f.Close()
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, 0, err
	}
	f, err = os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL|unix.O_NOFOLLOW, 0o600)
	return f, 0, err
}

// removeState removes a state and the spare one beside it.
func removeState(path string) {
	_ = os.Remove(path)
	_ = os.Remove(path + newSuffix)
}

// readStateFile reads what a hotwrap has written that was of the same name; nil if there is nothing.
func readStateFile(path string) (*written, error) {
	f, err := os.OpenFile(path, os.O_RDONLY|unix.O_NOFOLLOW|unix.O_NONBLOCK, 0)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	defer f.Close()
	info, err := f.Stat()
	switch {
	case err != nil:
		return nil, err
	case !info.Mode().IsRegular():
		return nil, errors.New("it is no file")
	case int(owner(info)) != os.Geteuid():
		return nil, fmt.Errorf("it belongs to uid %d", owner(info))
	case info.Mode().Perm()&0o022 != 0:
		return nil, fmt.Errorf("others may write to it (mode %04o)", info.Mode().Perm())
	}
	if info.Size() > stateMost {
		return nil, fmt.Errorf("it has %d bytes", info.Size())
	}
	text, err := io.ReadAll(io.LimitReader(f, stateMost))
	if err != nil {
		return nil, err
	}
	w, err := decode(text)
	if err == nil && w.Who == nil {
		err = errors.New("it does not say who wrote it")
	}
	return w, err
}

// differs tells in what another hotwrap's program is not ours; "" if it is.
func (who provenance) differs(of provenance) string {
	was := func(what string, theirs, ours any) string {
		return fmt.Sprintf("its %s %v, not %v", what, theirs, ours)
	}
	switch {
	case who.UID != of.UID:
		return was("hotwrap's user id was", who.UID, of.UID)
	case who.User != of.User:
		return was("user id is", who.User, of.User)
	case who.Dir != of.Dir:
		return was("directory is", who.Dir, of.Dir)
	case !slices.Equal(who.Program, of.Program):
		return was("program is", commandLine(who.Program), commandLine(of.Program))
	case !slices.Equal(slices.Sorted(slices.Values(who.Listen)), slices.Sorted(slices.Values(of.Listen))):
		return was("listeners are", listed(who.Listen), listed(of.Listen))
	}
	return ""
}

func listed(all []string) string {
	if len(all) == 0 {
		return "none"
	}
	return strings.Join(all, ", ")
}

// pids are the workers of a state, by number.
func (who provenance) pids() []int { return slices.Sorted(maps.Keys(who.Born)) }

// lives tells whether who wrote the state is still there.
func (who provenance) lives() bool { return who.Boot == bootID() && sameProcess(who.PID, who.Start) }

// sameProcess tells whether a pid still is the process that started then.
func sameProcess(pid int, start uint64) bool {
	state, _, _, now, ok := procState(pid)
	return ok && now == start && state != 'Z' && state != 'X'
}

// stale tells why nothing can be taken over from who wrote the state; "" if somebody is left.
func (who provenance) stale() string {
	switch {
	case who.Boot != bootID():
		return "the machine was started since"
	case len(who.alive()) == 0:
		return "nobody of it is left"
	}
	return ""
}

// alive are the workers that live, by their own numbers.
func (who provenance) alive() []int {
	return slices.DeleteFunc(who.pids(), func(pid int) bool {
		_, _, _, start, ok := procState(pid)
		return !ok || start != who.Born[pid] || !procAlive(pid)
	})
}
