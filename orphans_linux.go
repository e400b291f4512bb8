package main

// This file is about workers that are not our children: those of a hotwrap that was killed.
//
// Its rules:
//   - A pid means a process only together with its start; from then on a pidfd does, which is never another's.
//   - Their end is seen by the pidfd (pidfd_open(2), Linux 5.3), their status by nobody but their new parent.
//   - When that parent reaps it is nobody's business here: who has ended does not count as one of its group.
//   - What of its group outlives it is watched in its place: no signal tells of its end either.

import (
	"errors"
	"fmt"
	"maps"
	"os"
	"slices"
	"syscall"

	"golang.org/x/sys/unix"
)

// orphans are those workers.
type orphans struct {
	fds    map[int]int    // pidfds by pid; the supervisor's goroutine signals by them
	born   map[int]uint64 // when they started
	groups map[int]int    // their process groups
	dead   []int          // that had ended before they were opened
	others map[int]bool   // of the dead: whether the pid is a stranger's by now, and so its group
	wake   int            // eventfd that ends the source
	source *source
}

// openOrphans opens those that live of processes of which it is known when they started.
func openOrphans(born map[int]uint64) (*orphans, error) {
	o := &orphans{fds: map[int]int{}, born: map[int]uint64{}, groups: map[int]int{}, others: map[int]bool{}, wake: -1}
	for _, pid := range slices.Sorted(maps.Keys(born)) {
		if err := o.open(pid, born[pid]); err != nil {
			o.close()
			return nil, err
		}
	}
	return o, nil
}

// open opens one, or notes that it has ended.
func (o *orphans) open(pid int, born uint64) error {
	fd, err := unix.PidfdOpen(pid, 0)
	if errors.Is(err, unix.ESRCH) || errors.Is(err, unix.EINVAL) { // EINVAL: by now it is a thread
		o.bury(pid, false)
		return nil
	}
	if err != nil {
		return fmt.Errorf("cannot watch pid %d: %w", pid, err)
	}
	unix.CloseOnExec(fd)
	_, _, group, start, ok := procState(pid)
	same := ok && start == born
	if same {
		o.groups[pid] = group // also of one that has ended: nobody may ever reap it
	}
	if !same || !procAlive(pid) {
		_ = unix.Close(fd)
		o.bury(pid, ok && !same)
		return nil
	}
	o.fds[pid], o.born[pid] = fd, born
	return nil
}

// bury notes that one has ended. The kernel gives a pid to nobody else as long as it is that of a group: where it is a
// stranger's by now, nobody of the group is left.
func (o *orphans) bury(pid int, strangers bool) {
	o.dead = append(o.dead, pid)
	o.others[pid] = strangers
}

func (o *orphans) close() {
	for _, fd := range o.fds {
		_ = unix.Close(fd)
	}
	o.fds = nil
}

// watch posts the ends of them, those first that came before. An error is about those whose end is not seen: deadlines find out.
func (o *orphans) watch(events chan<- event) (unseen error) {
	if o == nil || len(o.fds)+len(o.dead) == 0 {
		return nil
	}
	wake, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil { // without a way to end it there is no source
		return fmt.Errorf("cannot watch who was taken over: %w", err)
	}
	v := &vigil{wake: wake}
	o.wake = wake
	for pid, fd := range o.fds {
		own, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 0)
		if err != nil {
			unseen = fmt.Errorf("cannot watch pid %d: %w", pid, err)
			continue
		}
		v.all = append(v.all, watchedOrphan{pid: pid, fd: own, group: o.groups[pid]})
	}
	dead := o.dead
	for _, pid := range dead {
		if !o.others[pid] { // it ended while nobody watched
			v.watchRest(pid)
		}
	}
	o.source = newSource(events, func(_ <-chan struct{}, post func(event) bool) {
		defer v.close()
		if len(dead) > 0 && !post(ended(dead...)) {
			return
		}
		for v.wait() && v.tell(post) {
		}
	})
	return unseen
}

// stop ends the watch, and hands back what it had not posted.
func (o *orphans) stop() []event {
	if o == nil || o.source == nil {
		return nil
	}
	_, _ = unix.Write(o.wake, []byte{1, 0, 0, 0, 0, 0, 0, 0})
	left := o.source.stop()
	o.source = nil
	_ = unix.Close(o.wake)
	return left
}

// ended is the event that they have ended: how, nobody says.
func ended(pids ...int) event {
	ev := event{kind: evChild}
	for _, pid := range pids {
		ev.ended = append(ev.ended, death{pid, exitStatus{Unknown: true}})
	}
	return ev
}

// signal sends one a signal, unless it has ended; false: pid is none of them.
func (o *orphans) signal(pid int, sig syscall.Signal) bool {
	if o == nil {
		return false
	}
	if _, dead := o.others[pid]; dead {
		return true
	}
	fd, ok := o.fds[pid]
	if ok {
		_ = unix.PidfdSendSignal(fd, sig, nil, 0)
	}
	return ok
}

// emptied tells whether a group is one of theirs in which nobody lives any more.
func (o *orphans) emptied(group int) bool {
	switch {
	case o == nil:
		return false
	case o.others[group]:
		return true
	case !o.has(group):
		return false
	}
	lives := false
	eachOfGroup(group, func(int) { lives = true })
	return !lives
}

func (o *orphans) has(group int) bool {
	for _, of := range o.groups {
		if of == group {
			return true
		}
	}
	return false
}

// eachOfGroup calls fn with every process of a group that has not ended.
func eachOfGroup(group int, fn func(pid int)) {
	seen := 0
	_ = eachNumber("/proc", func(_, pid int) bool {
		seen++
		if s, ok := readStat(pid); ok && s.pgrp == group && procAlive(pid) {
			fn(pid)
		}
		return seen < maxScan
	})
}

// forget is told that one has ended: the pid may be another's from now on.
func (o *orphans) forget(pid int) {
	if o == nil {
		return
	}
	delete(o.others, pid)
	if fd, ok := o.fds[pid]; ok {
		_ = unix.Close(fd)
		delete(o.fds, pid)
		delete(o.born, pid)
	}
}

// knownStarts notes in born when they started: asked again, a pid may be another's by now.
func (o *orphans) knownStarts(born map[int]uint64) {
	if o != nil {
		maps.Copy(born, o.born)
	}
}

// carry is what the next hotwrap of this very process opens them by, and what is left of the groups of those that ended. A
// group of that number may be one of our own children's by now, whose end is told by a signal.
func (o *orphans) carry() map[int]uint64 {
	if o == nil {
		return nil
	}
	all := maps.Clone(o.born)
	for _, group := range o.groups {
		add := func(pid int) {
			if _, parent, of, start, ok := procState(pid); ok && of == group && parent != os.Getpid() {
				all[pid] = start
			}
		}
		add(group) // also where nobody reaps it
		eachOfGroup(group, add)
	}
	return all
}

// watchedOrphan is one process that is waited for.
type watchedOrphan struct {
	pid, fd, group int
	over           bool
}

// vigil is the waiting; all of it belongs to the source's goroutine.
type vigil struct {
	wake int
	all  []watchedOrphan
}

func (v *vigil) close() {
	for _, w := range v.all {
		_ = unix.Close(w.fd)
	}
	v.all = nil
}

// wait returns when something has ended, and false when the watch is to end.
func (v *vigil) wait() bool {
	fds := []unix.PollFd{{Fd: int32(v.wake), Events: unix.POLLIN}}
	for _, w := range v.all {
		fds = append(fds, unix.PollFd{Fd: int32(w.fd), Events: unix.POLLIN})
	}
	if _, err := unix.Poll(fds, -1); err != nil {
		return errors.Is(err, unix.EINTR)
	}
	for i := range v.all {
		v.all[i].over = fds[i+1].Revents != 0
	}
	return fds[0].Revents == 0
}

// tell posts who has ended.
func (v *vigil) tell(post func(event) bool) bool {
	var gone []int
	var groups []int
	v.all = slices.DeleteFunc(v.all, func(w watchedOrphan) bool {
		if w.over {
			_ = unix.Close(w.fd)
			gone, groups = append(gone, w.pid), append(groups, w.group)
		}
		return w.over
	})
	if len(gone) == 0 {
		return true
	}
	for _, group := range groups {
		v.watchRest(group)
	}
	return post(ended(gone...))
}

// watchRest goes on with what is left of a group.
func (v *vigil) watchRest(group int) {
	if groupEmpty(group) {
		return
	}
	eachOfGroup(group, func(pid int) {
		if slices.ContainsFunc(v.all, func(w watchedOrphan) bool { return w.pid == pid }) {
			return
		}
		if fd, err := unix.PidfdOpen(pid, 0); err == nil {
			unix.CloseOnExec(fd)
			v.all = append(v.all, watchedOrphan{pid: pid, fd: fd, group: group})
		}
	})
}

// hunt is the search for sockets in other processes, which gives us duplicates of them (pidfd_getfd(2), Linux 5.6).
type hunt struct{ at map[uint64]holding }

// holding is a descriptor of another process.
type holding struct{ pid, fd int }

// huntIn looks through the processes of those trees. It is an error if their descriptors cannot be had: that needs the
// right to trace them.
func huntIn(leaders []int) (*hunt, error) {
	t := &hunt{at: map[uint64]holding{}}
	for _, leader := range leaders {
		for _, pid := range tree(leader) {
			var one holding
			err := eachDescriptor(pid, func(fd int, link []byte) bool {
				if inode, ok := socketLink(link); ok {
					one = holding{pid, fd}
					if _, known := t.at[inode]; !known {
						t.at[inode] = one
					}
				}
				return true
			})
			if denies(err) && !procAlive(pid) {
				continue // nobody but root may look into a zombie
			}
			if err == nil && one.pid != 0 {
				err = one.permitted()
			}
			if err != nil && !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH) {
				return nil, fmt.Errorf("cannot take descriptors of pid %d: %w", pid, causeOf(err))
			}
		}
	}
	return t, nil
}

// permitted is an error if the descriptor cannot be had for want of permission.
func (at holding) permitted() error {
	fd, err := at.take()
	if err == nil {
		_ = unix.Close(fd)
	}
	if errors.Is(err, unix.EBADF) { // it has closed it meanwhile
		return nil
	}
	return err
}

// take makes a duplicate of it, close-on-exec.
func (at holding) take() (int, error) {
	pidfd, err := unix.PidfdOpen(at.pid, 0)
	if err != nil {
		return -1, err
	}
	defer unix.Close(pidfd)
	return unix.PidfdGetfd(pidfd, at.fd, 0)
}

// find makes a duplicate of a socket that one of them has.
func (t *hunt) find(inode uint64) (int, bool) {
	at, ok := t.at[inode]
	if !ok {
		return -1, false
	}
	fd, err := at.take()
	if err != nil {
		return -1, false
	}
	if now, err := socketInode(fd); err != nil || now != inode { // the number is another socket's by now
		_ = unix.Close(fd)
		return -1, false
	}
	return fd, true
}
