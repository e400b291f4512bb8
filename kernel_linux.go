package main

// This file takes every look at the kernel that goes through /proc: which processes belong to a worker, which sockets
// they hold and watch, and how much memory there is.
//
//   - Nothing here waits or changes anything; a look is a moment, and the caller takes another one if it has to.
//   - What /proc says about other users' processes is hostile input: every read is bounded, every parser total.
//   - A look that cannot see says so (view.blind) and never guesses: "not watched" must mean that nobody watches.

import (
	"bytes"
	"errors"
	"fmt"
	"iter"
	"math"
	"os"
	"path"
	"runtime"
	"slices"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	maxProcesses = 10_000   // of one tree
	maxScan      = 1 << 17  // processes of the machine, where a whole /proc must be searched
	maxEpoll     = 16 << 20 // bytes of one epoll's fdinfo: about 90 for each thing it watches
	maxSet       = 1 << 16  // descriptors in the set of one poll or select
	maxText      = 1 << 20  // bytes of any other file in /proc
)

// view is one look at a worker's process tree.
type view struct {
	pids    []int           // leader first
	holds   map[uint64]bool // wanted sockets that some process has open
	watches map[uint64]bool // wanted sockets that some process would serve: see look
	watcher int             // the first of those processes; 0 none
	blind   string          // why "not watched" cannot be trusted; empty when it can
	denied  bool            // blind for want of permission: a helper with the worker's uid could see more
}

// socketInode returns the inode of a socket, by which it is known in /proc whatever its number.
func socketInode(fd int) (uint64, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return 0, fmt.Errorf("cannot look at descriptor %d: %w", fd, err)
	}
	if st.Mode&unix.S_IFMT != unix.S_IFSOCK {
		return 0, fmt.Errorf("cannot look at descriptor %d: not a socket", fd)
	}
	return st.Ino, nil
}

// readProc reads at most limit bytes of a file. Raw calls: os.ReadFile makes twice as many, and a look opens dozens.
func readProc(name string, limit int) ([]byte, error) {
	fd, err := unix.Open(name, unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, 0, min(limit, 1024))
	for len(buf) < limit {
		if len(buf) == cap(buf) {
			buf = slices.Grow(buf, len(buf))
		}
		n, err := unix.Read(fd, buf[len(buf):min(cap(buf), limit)])
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return buf, err
		}
		buf = buf[:len(buf)+n]
	}
	return buf, nil
}

// eachNumber calls fn with every numeric name in a directory of /proc, in the kernel's (ascending) order, until fn
// says false.
func eachNumber(dir string, fn func(dirfd, n int) bool) error {
	dirfd, err := unix.Open(dir, unix.O_RDONLY|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return err
	}
	defer unix.Close(dirfd)
	buf := make([]byte, 4096)
	var names []string
	for {
		n, err := unix.ReadDirent(dirfd, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil || n <= 0 {
			return err
		}
		_, _, names = unix.ParseDirent(buf[:n], -1, names[:0])
		for _, name := range names {
			if number, err := strconv.Atoi(name); err == nil && !fn(dirfd, number) {
				return nil
			}
		}
	}
}

// eachDescriptor calls fn with every open descriptor of a process and what it is, until fn says false.
func eachDescriptor(pid int, fn func(fd int, link []byte) bool) error {
	var failed error
	buf := make([]byte, 64) // longer ones are paths, and cut
	err := eachNumber(fmt.Sprintf("/proc/%d/fd", pid), func(dirfd, fd int) bool {
		n, err := unix.Readlinkat(dirfd, strconv.Itoa(fd), buf)
		if err != nil { // ENOENT: closed meanwhile. EACCES also where the directory itself may be read (CAP_DAC_READ_SEARCH)
			if denies(err) {
				failed = err
			}
			return !denies(err)
		}
		return fn(fd, buf[:n])
	})
	return errors.Join(err, failed)
}

// eachSocket calls fn with the inode of every socket that a process has open, until fn says false.
func eachSocket(pid int, fn func(inode uint64) bool) error {
	return eachDescriptor(pid, func(_ int, link []byte) bool {
		inode, ok := socketLink(link)
		return !ok || fn(inode)
	})
}

func denies(err error) bool { return errors.Is(err, unix.EACCES) || errors.Is(err, unix.EPERM) }

// socketLink is the inode in a link like "socket:[12345]".
func socketLink(link []byte) (uint64, bool) {
	text, ok := bytes.CutPrefix(link, []byte("socket:["))
	if !ok || len(text) < 2 || text[len(text)-1] != ']' {
		return 0, false
	}
	inode, err := strconv.ParseUint(string(text[:len(text)-1]), 10, 64)
	return inode, err == nil
}

// procStat is what /proc/PID/stat says of a process.
type procStat struct {
	name                string // of its program, 15 bytes at the most
	state               byte
	ppid, pgrp, threads int
	start               uint64 // clock ticks after boot
}

// parseStat reads a line of /proc/PID/stat. The name in parentheses is the program's choice, parentheses and spaces
// included, so the fields count from the last one: proc(5).
func parseStat(line []byte) (procStat, bool) {
	begin, end := bytes.IndexByte(line, '('), bytes.LastIndexByte(line, ')')
	fields := bytes.Fields(line[end+1:])
	if begin < 0 || end < begin || len(fields) < 20 || len(fields[0]) != 1 {
		return procStat{}, false
	}
	s := procStat{name: string(line[begin+1 : end]), state: fields[0][0]}
	var errs [4]error
	s.ppid, errs[0] = strconv.Atoi(string(fields[1]))
	s.pgrp, errs[1] = strconv.Atoi(string(fields[2]))
	s.threads, errs[2] = strconv.Atoi(string(fields[17]))
	s.start, errs[3] = strconv.ParseUint(string(fields[19]), 10, 64)
	return s, errs == [4]error{}
}

func readStat(pid int) (procStat, bool) {
	line, err := readProc(fmt.Sprintf("/proc/%d/stat", pid), 4096)
	if err != nil {
		return procStat{}, false
	}
	return parseStat(line)
}

// procState is a process's state letter, parent, group, and start in clock ticks after boot (a pid and its start
// together are never reused); ok is false when the process is gone or hidden.
func procState(pid int) (state byte, ppid, pgrp int, start uint64, ok bool) {
	s, ok := readStat(pid)
	return s.state, s.ppid, s.pgrp, s.start, ok
}

// procAlive reports whether a process still runs. A zombie does not, unless only its first thread has ended. One that
// /proc hides (hidepid=) does.
func procAlive(pid int) bool {
	if s, ok := readStat(pid); ok {
		return !strings.ContainsRune("ZXx", rune(s.state)) || s.threads > 1
	}
	return procHidden(pid)
}

// procHidden reports whether a process exists of which /proc shows nothing.
func procHidden(pid int) bool {
	if _, ok := readStat(pid); ok || pid <= 0 {
		return false
	}
	return unix.Kill(pid, 0) != unix.ESRCH
}

// tree returns pid and all its living descendants, parents before their children; nil when pid is gone.
func tree(pid int) []int {
	if pid <= 0 || !procAlive(pid) {
		return nil
	}
	children := childrenOf
	if unix.Access("/proc/thread-self/children", unix.R_OK) != nil { // a kernel without CONFIG_PROC_CHILDREN
		children = childrenByScan()
	}
	pids, seen := []int{pid}, map[int]bool{pid: true}
	for i := 0; i < len(pids); i++ {
		for _, child := range children(pids[i]) {
			if len(pids) >= maxProcesses {
				return pids
			}
			if !seen[child] && procAlive(child) {
				seen[child] = true
				pids = append(pids, child)
			}
		}
	}
	return pids
}

// childrenOf asks every thread, because children belong to the one that forked them.
func childrenOf(pid int) (children []int) {
	dir := fmt.Sprintf("/proc/%d/task", pid)
	_ = eachNumber(dir, func(_, thread int) bool {
		text, err := readProc(fmt.Sprintf("%s/%d/children", dir, thread), maxText)
		if err != nil {
			return true // the thread is gone
		}
		for field := range bytes.FieldsSeq(text) {
			if child, err := strconv.Atoi(string(field)); err == nil && child > 0 {
				children = append(children, child)
			}
		}
		return len(children) < maxProcesses
	})
	return children
}

// childrenByScan reads the parent of every process of the machine once.
func childrenByScan() func(int) []int {
	of, count := map[int][]int{}, 0
	_ = eachNumber("/proc", func(_, pid int) bool {
		if s, ok := readStat(pid); ok {
			of[s.ppid] = append(of[s.ppid], pid)
		}
		count++
		return count < maxScan
	})
	return func(pid int) []int { return of[pid] }
}

// ownsTree reports whether pid is root or one of its descendants.
func ownsTree(root, pid int) bool {
	for range maxProcesses {
		if pid == root {
			return true
		}
		s, ok := readStat(pid)
		if !ok || s.ppid <= 0 {
			return false
		}
		pid = s.ppid
	}
	return false
}

// groupEmpty reports whether no process, not even a zombie, is left in a group. EPERM means one of another user's.
// Groups 0 (our own) and 1 (kill(2) would read it as "everybody") are never a worker's.
func groupEmpty(pgid int) bool { return pgid <= 1 || unix.Kill(-pgid, 0) == unix.ESRCH }

// looker is a look on its way.
type looker struct {
	view
	want map[uint64]bool
	dev  uint64 // of sockets, as fdinfo writes it
}

// look sees which of the wanted sockets the tree of pid holds, and which it watches: a process has it open and has it
// in an epoll for input, or a thread is blocked in accept or a read on it, or in a poll or select whose set contains it.
func look(pid int, inodes []uint64) view {
	l := looker{want: map[uint64]bool{}}
	l.view = view{pids: tree(pid), holds: map[uint64]bool{}, watches: map[uint64]bool{}}
	for _, inode := range inodes {
		l.want[inode] = true
	}
	if len(l.pids) == 0 || len(inodes) == 0 {
		return l.view
	}
	var err error
	if l.dev, err = socketDevice(); err != nil {
		l.blind = err.Error() // the threads can still tell, unless there is no /proc at all
		if errors.Is(err, unix.ENOENT) {
			return l.view
		}
	}
	for _, p := range l.pids {
		before := len(l.watches)
		l.process(p)
		if l.watcher == 0 && len(l.watches) > before {
			l.watcher = p
		}
		if l.done() {
			l.blind, l.denied = "", false // nothing was left to see
			break
		}
	}
	return l.view
}

func (l *looker) done() bool { return len(l.watches) == len(l.want) }

// cannot notes why the look is not to be trusted, unless the process has merely ended.
func (l *looker) cannot(pid int, err error) {
	reason := fmt.Sprintf("cannot look into process %d: %v", pid, err)
	switch {
	case denies(err) && !procAlive(pid): // nobody but root may look into a zombie
		return
	case denies(err):
		l.denied = true
	case !errors.Is(err, unix.ENOENT) && !errors.Is(err, unix.ESRCH):
	case procHidden(pid):
		l.denied, reason = true, fmt.Sprintf("process %d is hidden", pid)
	default:
		return
	}
	if l.blind == "" {
		l.blind = reason
	}
}

// process looks at one process: first its epolls, then, if it holds something unwatched, its threads.
func (l *looker) process(pid int) {
	held, open, polled := map[int]uint64{}, map[uint64]bool{}, map[uint64]bool{}
	// Both in this process: an epoll goes on listing what was closed here while we hold it open.
	both := func(inode uint64) {
		if open[inode] && polled[inode] {
			l.watches[inode] = true
		}
	}
	err := eachDescriptor(pid, func(fd int, link []byte) bool {
		switch string(link) {
		case "anon_inode:[eventpoll]":
			l.epoll(pid, fd, func(inode uint64) {
				polled[inode] = true
				both(inode)
			})
		case "anon_inode:[io_uring]": // it may accept without a system call, on sockets that /proc shows nowhere
			if l.blind == "" {
				l.blind = fmt.Sprintf("process %d uses io_uring", pid)
			}
			return true
		default:
			inode, ok := socketLink(link)
			if !ok || !l.want[inode] {
				return true
			}
			held[fd], open[inode], l.holds[inode] = inode, true, true
			both(inode)
		}
		return !l.done()
	})
	if err == nil && len(held) > 0 && !l.done() {
		err = l.threads(pid, held)
	}
	if err != nil {
		l.cannot(pid, err)
	}
}

// epoll calls fn with the wanted sockets that an epoll waits on. Nested ones need no thought: the inner one is a
// descriptor of the same process.
func (l *looker) epoll(pid, fd int, fn func(inode uint64)) {
	text, err := readProc(fmt.Sprintf("/proc/%d/fdinfo/%d", pid, fd), maxEpoll)
	if err != nil {
		l.cannot(pid, err)
	}
	eachInput(text, l.want, l.dev, fn)
}

// pollers counts, for each wanted socket, the epolls in which processes that have it open wait for its input.
func pollers(pids []int, inodes []uint64) map[uint64]int {
	l := looker{want: map[uint64]bool{}}
	for _, inode := range inodes {
		l.want[inode] = true
	}
	var err error
	if l.dev, err = socketDevice(); err != nil {
		return nil
	}
	counts := map[uint64]int{}
	for _, pid := range pids {
		open, polled := map[uint64]bool{}, map[uint64]int{}
		_ = eachDescriptor(pid, func(fd int, link []byte) bool {
			if string(link) == "anon_inode:[eventpoll]" {
				l.epoll(pid, fd, func(inode uint64) { polled[inode]++ })
			} else if inode, ok := socketLink(link); ok {
				open[inode] = true
			}
			return true
		})
		for inode, n := range polled {
			if open[inode] { // an epoll goes on listing what was closed here
				counts[inode] += n
			}
		}
	}
	return counts
}

// eachInput calls fn with every wanted socket for whose input an epoll waits, by the text of its fdinfo. Of a line it reads
// the inode first, and the rest only if that is wanted: the text is a megabyte for 10,000 connections.
func eachInput(text []byte, want map[uint64]bool, dev uint64, fn func(inode uint64)) {
	for line := range bytes.Lines(text) {
		_, rest, _ := bytes.Cut(line, []byte(" ino:"))
		hex, _, _ := bytes.Cut(rest, []byte(" "))
		if inode, err := strconv.ParseUint(string(hex), 16, 64); err != nil || !want[inode] {
			continue
		}
		t, ok := parseEpollTarget(line)
		if ok && t.dev == dev && t.events&(unix.EPOLLIN|unix.EPOLLRDNORM) != 0 {
			fn(t.inode)
		}
	}
}

// epollTarget is something that an epoll watches.
type epollTarget struct {
	fd         int
	events     uint32
	inode, dev uint64
}

// parseEpollTarget reads a line of an epoll's fdinfo, see proc_pid_fdinfo(5); ino and sdev are hexadecimal, and there since 4.13:
//
//	tfd:        3 events: 8000201d data:     7f0c6ffdcc58  pos:0 ino:1b42 sdev:8
func parseEpollTarget(line []byte) (t epollTarget, ok bool) {
	text, ok := bytes.CutPrefix(line, []byte("tfd:"))
	if !ok {
		return t, false
	}
	fields := bytes.Fields(bytes.ReplaceAll(text, []byte(":"), []byte(" ")))
	if len(fields) < 11 || string(fields[1]) != "events" || string(fields[7]) != "ino" || string(fields[9]) != "sdev" {
		return t, false
	}
	fd, err1 := strconv.ParseInt(string(fields[0]), 10, 32)
	events, err2 := strconv.ParseUint(string(fields[2]), 16, 32)
	inode, err3 := strconv.ParseUint(string(fields[8]), 16, 64)
	dev, err4 := strconv.ParseUint(string(fields[10]), 16, 64)
	t = epollTarget{int(fd), uint32(events), inode, dev}
	return t, errors.Join(err1, err2, err3, err4) == nil
}

// socketDevice watches a socket of our own and reads how the kernel shows that: the device number of sockets (other
// kinds of file have inodes of the same numbers), and the proof that this kernel shows it at all (gVisor does not).
func socketDevice() (uint64, error) {
	ep, err := unix.EpollCreate1(unix.EPOLL_CLOEXEC)
	if err != nil {
		return 0, fmt.Errorf("cannot try an epoll: %w", err)
	}
	defer unix.Close(ep)
	s, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot try an epoll: %w", err)
	}
	defer unix.Close(s)
	if err := unix.EpollCtl(ep, unix.EPOLL_CTL_ADD, s, &unix.EpollEvent{Events: unix.EPOLLIN, Fd: int32(s)}); err != nil {
		return 0, fmt.Errorf("cannot try an epoll: %w", err)
	}
	text, err := readProc(fmt.Sprintf("/proc/self/fdinfo/%d", ep), maxText)
	if err != nil {
		return 0, fmt.Errorf("cannot look into /proc: %w", err)
	}
	for line := range bytes.Lines(text) {
		if t, ok := parseEpollTarget(line); ok && t.fd == s {
			return t.dev, nil
		}
	}
	return 0, errors.New("this kernel does not show what an epoll watches")
}

// threads looks at the threads of a process that holds wanted sockets: in which system call does each wait?
func (l *looker) threads(pid int, held map[int]uint64) error {
	numbers, err := numbersOf(pid)
	if err != nil {
		return err
	}
	var failed error
	memory := func(addr, size uint64) []byte {
		set, err := readMemory(pid, addr, size)
		if denies(err) {
			failed = err
		}
		return set
	}
	dir := fmt.Sprintf("/proc/%d/task", pid)
	err = eachNumber(dir, func(_, thread int) bool {
		name := fmt.Sprintf("%s/%d/syscall", dir, thread)
		line, err := readProc(name, 256)
		if denies(err) { // also where descriptors may be read: this is as much as attaching (Yama)
			failed = err
			return false
		}
		c, ok := parseSyscall(line)
		if !ok {
			return true
		}
		seen := awaited(c, numbers, memory, held)
		if len(seen) == 0 {
			return true
		}
		// It may have gone on while we read its stack: only what still stands counts.
		if again, err := readProc(name, 256); err == nil && bytes.Equal(again, line) {
			for _, fd := range seen {
				l.watches[held[fd]] = true
			}
		}
		return !l.done()
	})
	return errors.Join(err, failed)
}

// memoryUse is the memory that processes have resident, pages they share among each other counted once where the
// kernel says so (PSS), else as often as they are mapped.
func memoryUse(pids []int) (sum uint64) {
	for _, pid := range pids {
		if text, err := readProc(fmt.Sprintf("/proc/%d/smaps_rollup", pid), maxText); err == nil { // since 4.14
			if kb, ok := lineValue(text, "Pss:"); ok {
				sum += kb << 10
				continue
			}
		}
		text, _ := readProc(fmt.Sprintf("/proc/%d/statm", pid), 4096)
		if fields := bytes.Fields(text); len(fields) > 1 {
			pages, _ := strconv.ParseUint(string(fields[1]), 10, 44)
			sum += pages * uint64(os.Getpagesize())
		}
	}
	return sum
}

// lineValue is the number behind a key in lines like "Pss:  4711 kB" or "inactive_file 4711".
func lineValue(text []byte, key string) (uint64, bool) {
	for line := range bytes.Lines(text) {
		fields := bytes.Fields(line)
		if len(fields) < 2 || string(fields[0]) != key {
			continue
		}
		n, err := strconv.ParseUint(string(fields[1]), 10, 54)
		return n, err == nil
	}
	return 0, false
}

// memoryRoom is how much memory can still be had: the least that any level of our cgroup leaves, or the machine where
// that is less. Pages of files that nobody used lately count as free.
func memoryRoom() (room uint64, where string, ok bool) {
	if text, err := readProc("/proc/meminfo", maxText); err == nil {
		kb, found := lineValue(text, "MemAvailable:")
		room, where, ok = kb<<10, "the machine", found
	}
	for _, h := range cgroups("memory") {
		if left, limited := h.room(); limited && (!ok || left < room) {
			room, where, ok = left, "the cgroup", true
		}
	}
	return room, where, ok
}

// cpus is how many CPUs hotwrap may use: those of its affinity, fewer where a cgroup permits less time than that.
func cpus() int {
	n := runtime.NumCPU()
	for _, h := range cgroups("cpu") {
		n = min(n, h.cpus())
	}
	return n
}

// cpus is how many CPUs the tightest level permits, one at the least.
func (h hierarchy) cpus() int {
	n := math.MaxInt32
	for dir := range h.levels() {
		if most, ok := h.cpuLimit(dir); ok {
			n = min(n, max(1, int(math.Ceil(most))))
		}
	}
	return n
}

// cpuLimit is the CPU time per time that one level permits, see cgroups(7) and the kernel's cgroup-v2.rst, cpu.max.
func (h hierarchy) cpuLimit(dir string) (cpus float64, limited bool) {
	var quota, period uint64
	if h.v1 {
		q, ok := readNumber(path.Join(dir, "cpu.cfs_quota_us")) // -1 is none
		p, known := readNumber(path.Join(dir, "cpu.cfs_period_us"))
		if !ok || !known {
			return 0, false
		}
		quota, period = q, p
	} else {
		text, _ := readProc(path.Join(dir, "cpu.max"), 64)
		if n, _ := fmt.Sscan(string(text), &quota, &period); n != 2 { // "max 100000" is none
			return 0, false
		}
	}
	return float64(quota) / float64(period), quota > 0 && period > 0
}

// cgroupProcesses tells whether our cgroup, or one above it, has as many processes as it may, or nearly: some that were
// just refused have gone again. Threads count.
func cgroupProcesses() (most uint64, full bool) {
	for _, h := range cgroups("pids") {
		for dir := range h.levels() {
			limit, limits := readNumber(path.Join(dir, "pids.max")) // "max" is no number
			use, known := readNumber(path.Join(dir, "pids.current"))
			if limits && known && use+use/8+2 >= limit {
				return limit, true
			}
		}
	}
	return 0, false
}

// cgroups finds our cgroup among those that have a controller.
func cgroups(controller string) []hierarchy {
	groups, _ := readProc("/proc/self/cgroup", maxText)
	mounts, _ := readProc("/proc/self/mountinfo", maxText)
	return hierarchies(controller, groups, mounts)
}

// hierarchy is where our cgroup lies in a tree of cgroups that have a controller: dir is at or below root.
type hierarchy struct {
	root, dir string
	v1        bool
}

// levels are the directories of our group and of those above it, as far as they can be seen.
func (h hierarchy) levels() iter.Seq[string] {
	return func(yield func(string) bool) {
		for dir := h.dir; strings.HasPrefix(dir, h.root); dir = path.Dir(dir) {
			if !yield(dir) || dir == h.root || dir == "/" {
				return
			}
		}
	}
}

// hierarchies finds our cgroup by /proc/self/cgroup ("4:memory:/a/b", "0::/a/b") and mountinfo, see cgroups(7).
func hierarchies(controller string, groups, mounts []byte) (hs []hierarchy) {
	for group := range strings.Lines(string(groups)) {
		id, rest, _ := strings.Cut(strings.TrimSuffix(group, "\n"), ":")
		controllers, own, _ := strings.Cut(rest, ":")
		h := hierarchy{v1: controllers != ""}
		if id != "0" && !slices.Contains(strings.Split(controllers, ","), controller) {
			continue
		}
		for mount := range strings.Lines(string(mounts)) {
			if root, point, ok := h.parseMount(mount, controller); ok {
				// A container may see the mount only from its own group on, or a path that leads out of it: "/..".
				below, inside := strings.CutPrefix(own, strings.TrimSuffix(root, "/"))
				if !inside || !path.IsAbs(below) || strings.HasPrefix(below, "/..") {
					below = "/"
				}
				h.root, h.dir = point, path.Join(point, below)
				hs = append(hs, h)
				break
			}
		}
	}
	return hs
}

// parseMount reads a line of mountinfo, see proc_pid_mountinfo(5), and wants a cgroup2, or the cgroup with the
// controller.
func (h hierarchy) parseMount(line, controller string) (root, point string, ok bool) {
	fstype := "cgroup2"
	if h.v1 {
		fstype = "cgroup"
	}
	before, after, _ := strings.Cut(line, " - ")
	fields, kind := strings.Fields(before), strings.Fields(after)
	if len(fields) < 5 || len(kind) < 3 || kind[0] != fstype {
		return "", "", false
	}
	if h.v1 && !slices.Contains(strings.Split(kind[2], ","), controller) {
		return "", "", false
	}
	unescape := strings.NewReplacer(`\040`, " ", `\011`, "\t", `\012`, "\n", `\134`, `\`)
	return unescape.Replace(fields[3]), unescape.Replace(fields[4]), true
}

// room is the least that the group and those above it leave; limited is false when none of them has a limit.
func (h hierarchy) room() (room uint64, limited bool) {
	room = math.MaxUint64
	limitFile, useFile, inactiveKey := "memory.max", "memory.current", "inactive_file"
	if h.v1 {
		limitFile, useFile, inactiveKey = "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
	}
	for dir := range h.levels() {
		limit, ok := readNumber(path.Join(dir, limitFile))    // "max" is no number
		use, known := readNumber(path.Join(dir, useFile))     // the root of all has none
		if ok && known && limit < math.MaxInt64&^(64<<10-1) { // v1 says "none" as the largest multiple of a page
			stats, _ := readProc(path.Join(dir, "memory.stat"), maxText)
			inactive, _ := lineValue(stats, inactiveKey)
			use -= min(use, inactive)
			room, limited = min(room, limit-min(limit, use)), true
		}
	}
	return room, limited
}

func readNumber(name string) (uint64, bool) {
	text, err := readProc(name, 64)
	if err != nil {
		return 0, false
	}
	n, err := strconv.ParseUint(string(bytes.TrimSpace(text)), 10, 64)
	return n, err == nil
}

// oomScoreAdj is how much sooner (or later) than by its size the kernel ends a process when memory runs out.
func oomScoreAdj(pid int) (int, error) {
	text, err := readProc(fmt.Sprintf("/proc/%d/oom_score_adj", pid), 64)
	if err != nil {
		return 0, fmt.Errorf("cannot read oom_score_adj of process %d: %w", pid, err)
	}
	value, err := strconv.Atoi(string(bytes.TrimSpace(text)))
	if err != nil {
		return 0, fmt.Errorf("cannot read oom_score_adj of process %d: %q is not a number", pid, text)
	}
	return value, nil
}

// setOOMScoreAdj changes it. Raising is always permitted; lowering below what it once was takes CAP_SYS_RESOURCE.
func setOOMScoreAdj(pid, value int) error {
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/oom_score_adj", pid), unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err == nil {
		_, err = unix.Write(fd, strconv.AppendInt(nil, int64(value), 10))
		_ = unix.Close(fd)
	}
	if err != nil {
		return fmt.Errorf("cannot set oom_score_adj of process %d: %w", pid, err)
	}
	return nil
}
