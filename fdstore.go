package main

// This file keeps hotwrap's listeners in the descriptor store of its service manager (sd_notify(3), FDSTORE) and takes them
// back at the next start: who connects in between waits in the kernel's queue.
//
// Its rules:
//   - What is stored is where new connections go. A socket is stored before they go there; what it replaces is removed after.
//   - What was handed to hotwrap (a .socket unit's, fd:N) is its owner's to keep, and what a program brought its own.
//   - A socket that comes back is taken for the --listen of its address, whatever its name was; what fits none is let go of
//     before anything is opened, and the manager is seen to have closed it: it would have the address.
//   - Only the start, and then the supervisor's goroutine, call what is here. A nil *fdStore keeps nothing.

import (
	"cmp"
	"fmt"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	storePrefix   = "hw."       // of the names of what is hotwrap's in the store
	storePatience = time.Second // for the manager to close what was let go of
)

// fdStore is what our service manager keeps for us.
type fdStore struct {
	up      *upward
	room    int // descriptors that it keeps at most
	numbers int // of the names so far
	kept    []storedFD
	back    []*listener     // that came back and nobody has taken yet; their names are those in the store
	taken   []*listener     // of which somebody took a duplicate, and may yet think better of it
	wanted  map[string]bool // addresses that are stored, with their networks
}

// storedFD is one socket in the store.
type storedFD struct {
	Name  string `json:"name"` // hw.NUMBER.LISTENER
	Inode uint64 `json:"inode"`
}

// carriedStore is what a successor of this process must know of it.
type carriedStore struct {
	Room    int        `json:"room,omitempty"`
	Numbers int        `json:"numbers,omitempty"`
	Kept    []storedFD `json:"kept,omitempty"`
	Wanted  []string   `json:"wanted,omitempty"`
}

// openFDStore is for a manager that keeps up to room descriptors, of which back came to us; nil if it keeps none.
func openFDStore(up *upward, room int, back []*listener) *fdStore {
	if up == nil || room <= 0 && len(back) == 0 {
		return nil
	}
	s := &fdStore{up: up, room: max(room, len(back)), back: back}
	for _, l := range back {
		s.kept = append(s.kept, storedFD{l.name, l.inode})
		s.numbers = max(s.numbers, storeNumber(l.name))
	}
	return s
}

// carry is what restoreFDStore goes on from. The descriptors themselves are the listeners'.
func (s *fdStore) carry() carriedStore {
	if s == nil {
		return carriedStore{}
	}
	c := carriedStore{Room: s.room, Numbers: s.numbers, Kept: slices.Clone(s.kept)}
	for at := range s.wanted {
		c.Wanted = append(c.Wanted, at)
	}
	slices.Sort(c.Wanted)
	return c
}

// restoreFDStore is the store of the process that this one was.
func restoreFDStore(up *upward, c carriedStore) *fdStore {
	s := openFDStore(up, c.Room, nil)
	if s == nil {
		return nil
	}
	s.numbers, s.kept, s.wanted = c.Numbers, c.Kept, map[string]bool{}
	for _, at := range c.Wanted {
		s.wanted[at] = true
	}
	return s
}

// storeNumber is the number in the name of a stored socket, 0 if it has none.
func storeNumber(name string) int {
	text, _, _ := strings.Cut(strings.TrimPrefix(name, storePrefix), ".")
	n, _ := strconv.Atoi(text)
	return n
}

// storedAs is the listener's name in the name of a stored socket.
func storedAs(name string) string {
	_, name, _ = strings.Cut(strings.TrimPrefix(name, storePrefix), ".")
	return name
}

// takeBack describes what came back from the store. What is no listener any more has no network, and so fits nothing.
func takeBack(fd int, name string) *listener {
	l, err := takeSocket(fd)
	if err != nil {
		l = &listener{fd: fd, pin: -1}
	}
	unix.CloseOnExec(fd)
	l.name, l.kept = name, true
	return l
}

// find gives a duplicate of one that came back to who knows its inode.
func (s *fdStore) find(inode uint64) (fd int, ok bool) {
	if s == nil {
		return -1, false
	}
	i := slices.IndexFunc(s.back, func(l *listener) bool { return l.inode == inode && l.network != "" })
	if i < 0 {
		return -1, false
	}
	fd, err := unix.FcntlInt(uintptr(s.back[i].fd), unix.F_DUPFD_CLOEXEC, firstListenFD)
	if err != nil {
		return -1, false
	}
	s.taken = append(s.taken, s.back[i])
	s.back = slices.Delete(s.back, i, i+1)
	return fd, true
}

// match gives each --listen what came back of it; planned are the listeners as they will be named. Of two for one address, which
// is what a death in the middle of a switch leaves, the one is taken where more clients wait.
func (s *fdStore) match(specs []listenSpec, planned []*listener) []listenSpec {
	if s == nil || len(s.back)+len(s.taken) == 0 {
		return specs
	}
	s.back, s.taken = append(s.back, s.taken...), nil // who took them has not come to use them
	specs = slices.Clone(specs)
	for i, spec := range specs {
		name := planned[len(planned)-len(specs)+i].name
		fit := slices.DeleteFunc(slices.Clone(s.back), func(l *listener) bool { return !spec.fits(l, name) })
		if len(fit) == 0 {
			continue
		}
		l := slices.MaxFunc(fit, func(a, b *listener) int {
			return cmp.Or(cmp.Compare(clientsWaiting(a), clientsWaiting(b)), cmp.Compare(storeNumber(a.name), storeNumber(b.name)))
		})
		if spec.resume(l) != nil {
			continue
		}
		specs[i].back = l
		s.back = slices.DeleteFunc(s.back, func(o *listener) bool { return o == l })
	}
	return specs
}

// fits tells whether l, which came back, is the socket that s would open.
func (s listenSpec) fits(l *listener, name string) bool {
	switch {
	case s.transport() != l.network || !s.ours():
		return false
	case !s.inet():
		path, err := s.socketPath()
		return err == nil && path == l.addr && (s.abstract() || boundThere(l))
	}
	at, err := s.resolve()
	bound, parseErr := netip.ParseAddrPort(l.addr)
	if err != nil || parseErr != nil || at.Addr() != bound.Addr() || !s.sameKind(l.fd) {
		return false
	}
	return at.Port() == bound.Port() || at.Port() == 0 && storedAs(l.name) == name
}

// resume makes l, which came back, the listener of s: what the command line says may have changed, and programs have set what
// they liked.
func (s listenSpec) resume(l *listener) error {
	l.pin, l.backlog = int(s.pin), s.queue()
	if alone() { // else a program may be serving from it
		_ = unix.SetNonblock(l.fd, s.nonblock)
	}
	if s.inet() {
		s.setOptionsAgain(l.fd)
	}
	if s.file() {
		if err := s.resumeFile(l); err != nil {
			return err
		}
	}
	if l.stream() {
		return unix.Listen(l.fd, l.backlog)
	}
	return nil
}

// resumeFile takes the path over again.
func (s listenSpec) resumeFile(l *listener) (err error) {
	f := &socketFile{path: l.addr, kind: s.kind(), backlog: s.queue(), nonblock: s.nonblock, mode: s.mode}
	if f.uid, f.gid, err = s.owner(); err != nil {
		return err
	}
	if f.made, err = os.Lstat(f.path); err != nil {
		return err
	}
	f.keep()
	l.file = f
	if f.uid != -1 || f.gid != -1 {
		if err := os.Lchown(f.path, f.uid, f.gid); err != nil {
			return err
		}
	}
	return os.Chmod(f.path, f.mode)
}

// letGo ends what came back and is nobody's. It says what.
func (s *fdStore) letGo() (notes []message) {
	if s == nil {
		return nil
	}
	closeSockets(s.taken)
	if s.taken = nil; len(s.back) == 0 {
		return nil
	}
	for _, l := range s.back {
		s.remove(func(k storedFD) bool { return k.Name == l.name })
		if l.network == "" {
			notes = append(notes, verbose("what the service manager kept as %q is no listener any more", l.name))
		} else {
			notes = append(notes, info("the listener that was kept on %s %s is let go of: no --listen is for it", l.network, l.addr))
		}
		if strings.HasPrefix(l.addr, "/") && l.network != "" && alone() && boundThere(l) {
			if made, err := os.Lstat(l.addr); err == nil {
				(&socketFile{path: l.addr, hidden: hiddenPath(l.addr), made: made}).remove()
			}
		}
		_ = unix.Close(l.fd)
	}
	s.back = nil
	s.up.barrier(storePatience)
	return notes
}

// begin says which listeners are to be stored from now on: those of the command line.
func (s *fdStore) begin(ls []*listener) {
	if s == nil {
		return
	}
	s.wanted = map[string]bool{}
	for _, l := range ls {
		if !l.lent {
			s.wanted[l.network+" "+l.addr] = true
		}
	}
}

// add stores what of ls is not, before connections go there, as far as there is room.
func (s *fdStore) add(ls []*listener) {
	if s == nil {
		return
	}
	for _, l := range s.missing(ls) {
		if len(s.kept) < s.room {
			s.put(l)
		}
	}
}

// only stores ls, and nothing else from then on.
func (s *fdStore) only(ls []*listener) {
	if s == nil {
		return
	}
	stays := map[uint64]bool{}
	for _, l := range ls {
		stays[l.inode] = true
	}
	old := func(k storedFD) bool { return !stays[k.Inode] }
	for _, l := range s.missing(ls) {
		if len(s.kept) >= s.room { // then there is a moment without
			s.remove(func(k storedFD) bool { return old(k) && storedAs(k.Name) == s.cut(l.name) })
		}
		if len(s.kept) < s.room {
			s.put(l)
		}
	}
	s.remove(old)
}

// missing are those of ls that are to be stored, and are not.
func (s *fdStore) missing(ls []*listener) (missing []*listener) {
	there := map[uint64]bool{}
	for _, k := range s.kept {
		there[k.Inode] = true
	}
	for _, l := range ls {
		switch {
		case l.lent || !s.wanted[l.network+" "+l.addr]:
		case there[l.inode]:
			l.kept = true
		default:
			missing = append(missing, l)
		}
	}
	return missing
}

func (s *fdStore) put(l *listener) {
	s.numbers++
	name := fmt.Sprintf("%s%d.%s", storePrefix, s.numbers, s.cut(l.name))
	if s.up.store(name, l.fd) == nil {
		s.kept, l.kept = append(s.kept, storedFD{name, l.inode}), true
	}
}

// cut leaves room for what stands before a listener's name: FDNAME may have as many bytes as it (sd_listen_fds(3)).
func (s *fdStore) cut(name string) string { return name[:min(len(name), maxListenName-32)] }

// remove has the manager close what it keeps of these.
func (s *fdStore) remove(which func(storedFD) bool) {
	s.kept = slices.DeleteFunc(s.kept, func(k storedFD) bool {
		if which(k) {
			s.up.unstore(k.Name)
			return true
		}
		return false
	})
}
