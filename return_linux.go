package main

// This file finds what a hotwrap that was killed has left, and takes it over.
//
// Its rules:
//   - Only what is ours: the same user, directory, program and listeners. Else it is named, and the start is a usual one.
//   - Nothing is touched before it is sure that all of it can be had.
//   - What was handed to us, or comes from the service manager's store, is better than what orphans have.

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strings"

	"golang.org/x/sys/unix"
)

// findLegacy finds what was left under our name, or under another that is free: who was started without --name may have had the
// next one. nil if there is nothing, or it is not ours.
func (h *host) findLegacy(cfg *config) *legacy {
	if h.place == nil {
		return nil
	}
	own := h.place.statePath()
	l, why := h.legacyIn(cfg, own)
	if l != nil {
		return l
	}
	if why != nil { // until they are gone, or theirs comes: what is ours is written there
		putAside(own)
	}
	for _, path := range statesBeside(own) {
		l, whyNot := h.legacyIn(cfg, path)
		if l != nil && l.claim(own) {
			return l
		}
		if why == nil && strings.HasPrefix(path, strings.TrimSuffix(own, stateSuffix)+"~") { // of our name, since a start before this one
			why = whyNot
		}
	}
	if why != nil {
		h.say(*why)
	}
	return nil
}

// putAside gives a state a name that is nobody's.
func putAside(path string) {
	_ = os.Rename(path, strings.TrimSuffix(path, stateSuffix)+"~"+randomName()+stateSuffix)
}

// nameOfState is the name of the hotwrap that a state is of.
func nameOfState(path string) string {
	name, _, _ := strings.Cut(strings.TrimSuffix(filepath.Base(path), stateSuffix), "~")
	return name
}

// statesBeside are all other states.
func statesBeside(path string) []string {
	all, _ := filepath.Glob(filepath.Join(filepath.Dir(path), "*"+stateSuffix))
	return slices.DeleteFunc(all, func(other string) bool { return other == path })
}

// claim moves the state of another name to ours: of all that want it one gets it, and who has that name comes first.
func (l *legacy) claim(own string) bool {
	dir, err := openDir(filepath.Dir(own))
	if err != nil {
		l.orphans.close()
		return false
	}
	defer dir.Close()
	name := strings.TrimSuffix(filepath.Base(l.path), stateSuffix) + lockSuffix
	lock, err := lockAt(dir, name)
	if err == nil {
		defer lock.Close()
		defer os.Remove(lock.Name())
		if w, again := readStateFile(l.path); again == nil && w != nil && sameHotwrap(w.Who, l.w.Who) {
			err = os.Rename(l.path, own)
		} else {
			err = os.ErrNotExist
		}
	}
	if err != nil {
		l.orphans.close()
		return false
	}
	_ = os.Remove(l.path + newSuffix)
	l.path = own
	return true
}

func sameHotwrap(a, b *provenance) bool { return a.PID == b.PID && a.Start == b.Start }

// legacyIn finds those of which a file tells; why says what keeps those that live from being ours.
func (h *host) legacyIn(cfg *config, path string) (l *legacy, why *message) {
	w, err := readStateFile(path)
	own := path == h.place.statePath()
	if own && w != nil && w.Who.lives() { // its name is ours, so it dies just now: the lock goes before the process does
		if fd := pidfdOf(w.Who.PID, w.Who.Start); fd >= 0 {
			awaitEnd(fd)
		}
	}
	switch {
	case err != nil:
		m := warning("what a hotwrap has left in %q cannot be read: %v", path, err)
		return nil, &m
	case w == nil || !own && w.Who.lives():
		return nil, nil
	}
	h.complete(w, path)
	if reason := w.Who.stale(); reason != "" {
		if own || strings.Contains(path, "~") { // else it is for that name to remove: it may be written just now
			h.say(verbose("removed %q: %s", path, reason))
			removeState(path)
		}
		return nil, nil
	}
	if l, err = h.legacyOf(cfg, w); err != nil {
		m := hint("%s left by a hotwrap %q that was killed; not taken over: %v", livesOn(w.Who.alive()), nameOfState(path), err)
		return nil, &m
	}
	l.name, l.path = nameOfState(path), path
	return l, nil
}

// errPtrace is what is to be done where one may not have another's descriptors.
var errPtrace = errors.New("hotwrap needs the right to trace them: CAP_SYS_PTRACE, or the same user and kernel.yama.ptrace_scope=0; " +
	"or let the service manager keep the sockets (FileDescriptorStoreMax=)")

// legacyOf opens what w tells of, if it is ours.
func (h *host) legacyOf(cfg *config, w *written) (*legacy, error) {
	mine, _ := h.provenance(cfg)
	if why := w.Who.differs(mine); why != "" {
		return nil, errors.New(why)
	}
	o, err := openOrphans(w.Who.Born)
	if err != nil {
		return nil, err
	}
	if l := (&legacy{w: w, orphans: o}); l.ended() {
		return l, nil
	}
	var leaders []int
	for pid := range o.fds {
		leaders = append(leaders, pid)
	}
	t, err := huntIn(leaders)
	if err != nil {
		o.close()
		if denies(err) {
			err = fmt.Errorf("%w; %w", err, errPtrace)
		}
		return nil, err
	}
	return &legacy{w: w, orphans: o, sockets: t}, nil
}

// recoverSockets goes on with the sockets of what was left; false if there are none, or, and the reason is said, they cannot be
// had. Those that were handed to us, or that the service manager kept, come first.
func (h *host) recoverSockets(handed []*listener) bool {
	l := h.legacy
	if l.ended() {
		return false
	}
	t, ls, err := recoverTraffic(l.w.Traffic, func(inode uint64) (int, bool) {
		for _, given := range handed {
			if given.inode == inode {
				fd, err := unix.FcntlInt(uintptr(given.fd), unix.F_DUPFD_CLOEXEC, firstListenFD)
				return fd, err == nil
			}
		}
		if fd, ok := h.store.find(inode); ok {
			return fd, true
		}
		return l.sockets.find(inode)
	}, func(ls []*listener) error {
		if err := h.program.number(ls); err != nil {
			return err
		}
		h.endUnwritten(l)
		return nil
	})
	if err != nil {
		l.orphans.close()
		h.say(hint("%s left by a hotwrap %q that was killed; not taken over: %v", livesOn(l.w.Who.alive()), l.name, err))
		putAside(l.path)
		h.legacy = nil
		return false
	}
	for _, m := range h.store.letGo() {
		h.say(m)
	}
	h.putBackPaths(ls)
	h.closed, h.traffic = false, t
	h.introduce()
	h.store.begin(ls)
	h.keep()
	return true
}

// putBackPaths makes paths of unix sockets again that have gone since.
func (h *host) putBackPaths(ls []*listener) {
	for _, l := range ls {
		if l.file == nil {
			continue
		}
		if what, err := l.restorePath(); err != nil {
			h.say(warning("listener %q is broken: %v", l.name, err))
		} else if what != "" {
			h.say(warning("listener %q was spoilt: %s", l.name, what))
		}
	}
}

// leftBehind says of a process that a hotwrap has left which was killed what it is, and what takes it over; "" of others.
func leftBehind(pid int) string {
	env, err := readProc(fmt.Sprintf("/proc/%d/environ", pid), maxText)
	if err != nil {
		return ""
	}
	control := getenv(strings.Split(string(env), "\x00"), "HOTWRAP_CONTROL")
	name, ok := strings.CutSuffix(filepath.Base(control), socketSuffix)
	if !ok || !filepath.IsAbs(control) || checkName(name) != nil || answeredByOther(control) {
		return ""
	}
	base := filepath.Dir(filepath.Dir(control))
	what := fmt.Sprintf("pid %d was left by a hotwrap %q that was killed; ", pid, name)
	w := stateWith(filepath.Join(base, controlDir, name), pid)
	switch {
	case w == nil:
		return what + fmt.Sprintf("what it wrote for the next is not to be had here: end it with kill %d", pid)
	case w.Who.lives():
		return ""
	case w.State.Ending:
		return what + fmt.Sprintf("it was told to stop, and has not let go yet: wait for its end, or kill %d", pid)
	}
	return what + "taken over by: " + w.Who.command(base, name)
}

// stateWith is what was written of a process, under a name or what was put aside of it; nil if nothing is found.
func stateWith(name string, pid int) *written {
	paths, _ := filepath.Glob(name + "~*" + stateSuffix)
	for _, path := range append(paths, name+stateSuffix) {
		w, err := readStateFile(path)
		if err != nil || w == nil || w.Who.Boot != bootID() {
			continue
		}
		for _, leader := range w.Who.alive() {
			if slices.Contains(tree(leader), pid) {
				return w
			}
		}
	}
	return nil
}

// answeredByOther tells whether another process serves the control socket at path.
func answeredByOther(path string) bool {
	fd, err := newSocket(unix.AF_UNIX, unix.SOCK_STREAM, 0, true)
	if err != nil {
		return false
	}
	defer unix.Close(fd)
	if err := unix.Connect(fd, &unix.SockaddrUnix{Name: path}); err != nil {
		return errors.Is(err, unix.EAGAIN)
	}
	peer, err := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	return err == nil && int(peer.Pid) != os.Getpid()
}

// recoverWorkers pins what they run, and listens to them again.
func (h *host) recoverWorkers() (err error) {
	l := h.legacy
	if l == nil {
		return nil
	}
	h.orphans = l.orphans
	if err := h.repinAll(l.w); err != nil {
		return err
	}
	if l.w.Notify.Path != "" {
		if h.notify, err = recoverNotifyDir(l.w.Notify); err != nil {
			h.say(warning("what generations say that were taken over is not heard: %v", err))
		}
	}
	for _, g := range l.w.State.Generations {
		for _, w := range g.Workers {
			if fd, ok := h.orphans.fds[w.PID]; ok {
				h.rehear(g, w, fd)
			}
		}
	}
	return nil
}

// rehear listens to one worker again.
func (h *host) rehear(g *generation, w *worker, pidfd int) {
	e, err := h.recoverEars(w.Serial, h.legacy.w.Ears[w.Serial])
	if err != nil {
		h.say(warning("cannot hear what pid %d says: %v", w.PID, err))
	}
	h.ears[w.Serial] = e
	h.out.resume(w.Serial, g.Number, pipesOf(pidfd, w.Pipes))
}

// pipesOf are the read ends of the pipes that a worker writes to, if it still does.
func pipesOf(pidfd int, inodes [2]uint64) (ends [2]*os.File) {
	for i, inode := range inodes {
		if inode == 0 {
			continue
		}
		fd, err := unix.PidfdGetfd(pidfd, 1+i, 0)
		if err != nil {
			continue
		}
		if inodeOf(fd) == inode {
			// Anew: O_NONBLOCK on what the worker has would be its own.
			if own, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0); err == nil {
				ends[i] = os.NewFile(uintptr(own), "output")
			}
		}
		_ = unix.Close(fd)
	}
	return ends
}

// pipeInodes are the inodes of what a worker writes its output to; 0 where that is no pipe of ours.
func pipeInodes(ends [2]int) (inodes [2]uint64) {
	for i, fd := range ends {
		if fd > 0 {
			inodes[i] = inodeOf(fd)
		}
	}
	return inodes
}

// inodeOf is the number of a pipe; 0 if it is none.
func inodeOf(fd int) uint64 {
	var st unix.Stat_t
	if unix.Fstat(fd, &st) != nil || st.Mode&unix.S_IFMT != unix.S_IFIFO {
		return 0
	}
	return st.Ino
}

// readAndWritten opens the end of a pipe that a program is to write to for reading too, in its place: then the pipe has a
// reader as long as the program lives, and it does not die of SIGPIPE because hotwrap was killed. It waits once the pipe is
// full, until the next hotwrap reads on.
func readAndWritten(fd int) int {
	both, err := unix.Open(fmt.Sprintf("/proc/self/fd/%d", fd), unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return fd
	}
	_ = unix.Close(fd)
	return both
}

// repinAll pins the images of w again, whose descriptors have died.
func (h *host) repinAll(w *written) error {
	for _, g := range w.State.Generations {
		if g.Image == nil {
			continue
		}
		pid := 0
		for _, o := range g.Workers {
			if _, lives := h.orphans.fds[o.PID]; lives {
				pid = o.PID
			}
		}
		if err := h.repin(g.Image, pid, g.Number); err != nil {
			return err
		}
		if g.Image.Exe < 0 { // nobody has it any more: a worker that crashes is started from what there is now
			g.Image.Exe, _ = unix.Open(g.Image.Path, openPin|unix.O_CLOEXEC, 0)
			g.Image.Pinned = "no"
		}
	}
	kept := w.State.Past[:0]
	for _, p := range w.State.Past {
		if err := h.repin(p.Image, 0, p.Number); err != nil {
			return err
		}
		if p.Image.Exe >= 0 && p.Image.Dir >= 0 {
			kept = append(kept, p)
		} else {
			p.Image.unpin()
		}
	}
	w.State.Past = kept
	return nil
}

// repin pins an image: what a process of it runs, if that is it, else what lies under its name, if that still is it.
// Its environment is that of this hotwrap.
func (h *host) repin(img *image, pid, generation int) error {
	env, err := h.program.environment(generation)
	if err != nil {
		return err
	}
	img.env, img.set = env, h.program.expandAll(h.program.env)
	img.Exe, img.Dir = -1, -1
	for _, path := range []string{fmt.Sprintf("/proc/%d/exe", pid), img.Path, img.real} {
		fd, err := unix.Open(path, openPin|unix.O_CLOEXEC, 0)
		if err != nil {
			continue
		}
		var st unix.Stat_t
		if unix.Fstat(fd, &st) == nil && st.Dev == img.stat.Dev && st.Ino == img.stat.Ino && st.Mtim == img.stat.Mtim && st.Size == img.stat.Size {
			img.Exe = fd
			break
		}
		_ = unix.Close(fd)
	}
	img.repinDir(pid, h.program.dir)
	return nil
}

// repinDir pins the directory that a process was started in, if it is still there, else what is named dir now. Where it has
// gone since is not for it to say: it may have less rights than who is started there next.
func (img *image) repinDir(pid int, dir string) {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/cwd", pid), openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err == nil && directoryOf(fd) == img.place {
		img.Dir = fd
		return
	}
	if err == nil {
		_ = unix.Close(fd)
	}
	img.Dir, _ = unix.Open(dir, openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
}
