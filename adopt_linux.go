package main

// This file lets hotwrap do a program's own bind and listen: the kernel tells of each and has it wait for an answer
// (seccomp_unotify(2); the shim installs the filter, shim/adopt_linux.go).
//
// Its rules:
//   - Every call that is told of is answered once: passed here at once, where it cannot concern hotwrap, else by whom it
//     is posted to. What the kernel would refuse is passed, so that the program gets the kernel's own error.
//   - An answer to a process that is gone, or that was interrupted and calls again, is no error. It calls again, and
//     whoever answers knows its socket by the inode.
//   - The descriptor is closed when the last process is gone, never before: to close it would be ENOSYS for every later
//     bind and listen.
//   - What a program says is read once, and nothing of it is believed: not a number, an address or a length.

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"net"
	"net/netip"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// callOp is a system call that is told of.
type callOp int

const (
	callBind callOp = iota
	callListen
)

func (o callOp) String() string {
	switch o {
	case callBind:
		return "bind"
	case callListen:
		return "listen"
	}
	return fmt.Sprintf("callOp(%d)", int(o))
}

// call is a bind or listen that a process of a worker waits in, until it is answered. Whom it is posted to owns it: done,
// pass and give answer it, the first of them only, and close fd.
type call struct {
	op       callOp
	pid      int            // the process that calls
	fd       int            // hotwrap's own duplicate of its socket, close-on-exec; -1: not to be had, see err
	inode    uint64         // of the socket
	network  string         // tcp udp unix unixgram unixpacket
	addr     netip.AddrPort // bind: what is asked for; listen: what the socket is bound to
	path     string         // the same of a unix socket; "@name" is abstract, "./@name" a file that is called so
	only     bool           // IPV6_V6ONLY
	protocol int            // SO_PROTOCOL: Go asks for IPPROTO_MPTCP
	device   string         // SO_BINDTODEVICE: the same address is another one there
	backlog  int            // listen
	err      error          // why hotwrap cannot look at the socket; the call was passed already

	from     *os.File // who is told the answer
	id       uint64   // the kernel's, never used again
	tid      int      // the thread that calls
	number   int      // of the socket, in the program
	answered bool
}

// keep takes fd out of the call: the answer will not close it.
func (c *call) keep() int {
	fd := c.fd
	c.fd = -1
	return fd
}

// done has the system call return 0, or fail.
func (c *call) done(errno syscall.Errno) { c.answer(notifyReply{error: -int32(errno)}) }

// pass has the kernel do it.
func (c *call) pass() { c.answer(notifyReply{flags: unix.SECCOMP_USER_NOTIF_FLAG_CONTINUE}) }

// give puts the socket fd in the place of the program's own, and has the call return 0. If that fails, the call still
// waits. The calling thread itself takes the socket, and give waits for that: as long as the thread gets no CPU.
func (c *call) give(fd int) error {
	if c.answered {
		return nil
	}
	add := notifyAddFD{
		id: c.id, flags: unix.SECCOMP_ADDFD_FLAG_SETFD, src: uint32(fd), number: uint32(c.number),
		numberFlags: descriptorFlags(c.tid, c.number),
	}
	err := c.ioctl(unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add))
	if err != nil && !errors.Is(err, unix.ENOENT) {
		return fmt.Errorf("cannot give the program its socket: %w", err)
	}
	c.done(0)
	return nil
}

// valid tells whether the process still waits.
func (c *call) valid() bool {
	return c.ioctl(unix.SECCOMP_IOCTL_NOTIF_ID_VALID, unsafe.Pointer(&c.id)) == nil
}

// answer closes the duplicate before the program goes on: it may close its own and bind the address anew.
func (c *call) answer(r notifyReply) {
	if fd := c.keep(); fd >= 0 {
		_ = unix.Close(fd)
	}
	if !c.answered {
		c.answered, r.id = true, c.id
		_ = c.ioctl(unix.SECCOMP_IOCTL_NOTIF_SEND, unsafe.Pointer(&r)) // ENOENT: nobody waits any more
	}
}

func (c *call) ioctl(request uint, arg unsafe.Pointer) error {
	raw, err := c.from.SyscallConn()
	if err != nil {
		return err
	}
	var errno syscall.Errno
	if err := raw.Control(func(fd uintptr) { errno = notifyIoctl(fd, request, arg) }); err != nil {
		return unix.ENOENT // closed: the last process is gone
	}
	if errno != 0 {
		return errno
	}
	return nil
}

func notifyIoctl(fd uintptr, request uint, arg unsafe.Pointer) syscall.Errno {
	for {
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, fd, uintptr(request), uintptr(arg))
		if errno != unix.EINTR {
			return errno
		}
	}
}

// descriptorFlags is O_CLOEXEC if a thread's descriptor has it, else 0: the line "flags:" in octal, proc_pid_fdinfo(5).
func descriptorFlags(tid, number int) uint32 {
	text, _ := readProc(fmt.Sprintf("/proc/%d/fdinfo/%d", tid, number), 4096)
	for line := range strings.Lines(string(text)) {
		if octal, ok := strings.CutPrefix(line, "flags:"); ok {
			flags, _ := strconv.ParseUint(strings.TrimSpace(octal), 8, 32)
			return uint32(flags) & unix.O_CLOEXEC
		}
	}
	return 0
}

// What the kernel says and is told, see linux/seccomp.h.
type (
	notification struct {
		id         uint64
		tid, flags uint32
		call       int32 // its number
		arch       uint32
		at         uint64
		args       [6]uint64
	}
	notifyReply struct {
		id    uint64
		value int64
		error int32
		flags uint32
	}
	notifyAddFD struct {
		id                  uint64
		flags, src          uint32
		number, numberFlags uint32
	}
)

// adoption is the source of one worker's calls.
type adoption struct {
	post    func(c *call, quit <-chan struct{}) bool
	size    int           // of what the kernel writes for one call
	pair    *os.File      // on which the shim sends the descriptor; nil: it has
	told    chan *os.File // that descriptor, once it has come, for who interrupts
	stopped chan struct{}
	over    chan struct{}  // closed when the last process is gone
	posted  []notification // that may still wait for their answer; this and the next are the reader's own while there is one
	held    *call          // nobody took it
	quit    chan struct{}  // nil: nobody reads now
	ended   chan struct{}
}

// openAdoption makes the pair for one launch. The shim's end is the caller's, to pass on and to close. From then on post is
// called, from one goroutine, with each call of the worker's processes; false means that nobody will answer.
func openAdoption(post func(*call, <-chan struct{}) bool) (a *adoption, theirs int, err error) {
	size, err := notificationSize()
	if err != nil {
		return nil, -1, fmt.Errorf("cannot be told of bind and listen: %w", err)
	}
	pair, theirs, err := openPair("adoption", func(fds []int) error {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		copy(fds, ends[:])
		return err
	})
	if err != nil {
		return nil, -1, fmt.Errorf("cannot make a pair of sockets: %w", err)
	}
	a = newAdoption(post, size)
	a.pair = pair
	a.start()
	return a, theirs, nil
}

func newAdoption(post func(*call, <-chan struct{}) bool, size int) *adoption {
	return &adoption{post: post, size: size, told: make(chan *os.File, 1), stopped: make(chan struct{}), over: make(chan struct{})}
}

// start begins to read.
func (a *adoption) start() {
	quit, ended := make(chan struct{}), make(chan struct{})
	a.quit, a.ended = quit, ended
	var file *os.File
	select {
	case file = <-a.told:
		a.told <- file
	default:
	}
	go func() {
		defer close(ended)
		if file == nil && a.pair != nil {
			file = a.descriptor(quit)
		}
		if file != nil {
			a.run(file, quit)
		}
	}()
}

// carriedAdoption is that source on its way to the next hotwrap, with the calls that it has to answer: those of a thread
// that was to be given its socket, and got no CPU. There they are seen once more, as if they came now.
type carriedAdoption struct {
	FD      int           `json:"fd,omitempty"`
	Pair    int           `json:"pair,omitempty"` // the shim has not sent it yet
	Stopped bool          `json:"stopped,omitempty"`
	Calls   []carriedCall `json:"calls,omitempty"`
}

type carriedCall struct {
	ID     uint64    `json:"id"`
	TID    uint32    `json:"tid"`
	Number int32     `json:"number"`
	Args   [6]uint64 `json:"args"`
}

// hush reads no more, and hands back the call that was read and not posted. What the program calls from then on waits in
// the kernel.
func (a *adoption) hush() []*call {
	if a.quit == nil {
		return nil
	}
	close(a.quit)
	a.interrupt()
	<-a.ended
	a.quit = nil
	c := a.held
	if a.held = nil; c == nil {
		return nil
	}
	return []*call{c}
}

// carry is to be called of a hushed one, when all that was handed back has been answered.
func (a *adoption) carry(b *baggage) *carriedAdoption {
	c := &carriedAdoption{Stopped: a.isStopped()}
	select {
	case file := <-a.told:
		a.told <- file
		c.FD = b.number(file)
		for _, n := range a.posted {
			if (&call{from: file, id: n.id}).valid() {
				c.Calls = append(c.Calls, carriedCall{n.id, n.tid, n.call, n.args})
			}
		}
	case <-a.over:
	default:
		c.Pair = b.number(a.pair)
	}
	return c
}

// restoreAdoption makes the source again; start begins to read.
func restoreAdoption(c carriedAdoption, post func(*call, <-chan struct{}) bool) (*adoption, error) {
	size, err := notificationSize()
	if err != nil {
		return nil, fmt.Errorf("cannot be told of bind and listen: %w", err)
	}
	a := newAdoption(post, size)
	if c.Stopped {
		close(a.stopped)
	}
	if file := carriedFile(c.FD, "seccomp"); file != nil {
		a.told <- file
	} else if a.pair = carriedFile(c.Pair, "adoption"); a.pair == nil {
		close(a.over)
	}
	for _, n := range c.Calls {
		a.posted = append(a.posted, notification{id: n.ID, tid: n.TID, call: n.Number, args: n.Args})
	}
	return a, nil
}

// notificationSize is how long the kernel's struct seccomp_notif is; a newer one may have more at its end.
func notificationSize() (int, error) {
	var sizes [3]uint16
	_, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_GET_NOTIF_SIZES, 0, uintptr(unsafe.Pointer(&sizes)))
	switch {
	case errno != 0:
		return 0, errno
	case int(sizes[1]) != int(unsafe.Sizeof(notifyReply{})):
		return 0, fmt.Errorf("the kernel wants answers of %d bytes", sizes[1])
	}
	return max(int(sizes[0]), int(unsafe.Sizeof(notification{}))), nil
}

// stop posts no more calls and passes all that wait. Those posted before are still to be answered by who has them, for
// the sake of their descriptors. It does not block; the source ends with the worker's last process.
func (a *adoption) stop() {
	if !a.isStopped() {
		close(a.stopped)
		a.interrupt()
	}
}

// interrupt has the reader look at what is wanted of it.
func (a *adoption) interrupt() {
	select {
	case file := <-a.told:
		_ = file.SetReadDeadline(longAgo)
		a.told <- file
	default: // it has not come yet: then the reader looks once it has
		if a.pair != nil {
			_ = a.pair.SetReadDeadline(longAgo)
		}
	}
}

// run answers or posts until the last process is gone, or it is told to quit.
func (a *adoption) run(file *os.File, quit <-chan struct{}) {
	raw, err := file.SyscallConn()
	if err != nil {
		return
	}
	again := a.posted // in the hotwrap before
	for a.posted = nil; !isClosed(quit); {
		if len(again) > 0 {
			n := again[0]
			again = again[1:]
			a.handle(file, &n, quit)
			continue
		}
		if a.isStopped() {
			a.passPosted(file)
		}
		n, err := a.next(raw)
		switch {
		case err == nil:
			a.handle(file, n, quit)
		case errors.Is(err, os.ErrDeadlineExceeded): // something else is wanted
			_ = file.SetReadDeadline(time.Time{})
		default:
			<-a.told
			_ = file.Close()
			close(a.over)
			return
		}
	}
	a.posted = append(a.posted, again...)
}

// descriptor is what the shim sends; nil if it has ended without, or quit came first.
func (a *adoption) descriptor(quit <-chan struct{}) *os.File {
	for !isClosed(quit) {
		file, err := receiveDescriptor(a.pair)
		if errors.Is(err, os.ErrDeadlineExceeded) {
			_ = a.pair.SetReadDeadline(time.Time{})
			continue
		}
		_ = a.pair.Close()
		if file == nil {
			close(a.over) // there will be no program
		} else {
			a.told <- file
		}
		return file
	}
	return nil
}

func (a *adoption) isStopped() bool { return isClosed(a.stopped) }

// isOver tells whether the last process is gone.
func (a *adoption) isOver() bool { return isClosed(a.over) }

// passPosted passes what whoever it was posted to has not answered; the kernel knows which those are.
func (a *adoption) passPosted(file *os.File) {
	for _, n := range a.posted {
		(&call{from: file, id: n.id, fd: -1}).pass()
	}
	a.posted = nil
}

// receiveDescriptor waits for the one that the shim sends; nil if it has ended without, or with an error.
func receiveDescriptor(pair *os.File) (*os.File, error) {
	raw, err := pair.SyscallConn()
	if err != nil {
		return nil, nil //nolint:nilerr // it is closed
	}
	var fds []int
	err = raw.Read(func(from uintptr) bool {
		data, oob := make([]byte, 1), make([]byte, unix.CmsgSpace(4))
		_, n, _, _, err := unix.Recvmsg(int(from), data, oob, unix.MSG_CMSG_CLOEXEC)
		if err != nil {
			return !errors.Is(err, unix.EAGAIN) && !errors.Is(err, unix.EINTR)
		}
		if controls, err := unix.ParseSocketControlMessage(oob[:n]); err == nil && len(controls) == 1 {
			fds, _ = unix.ParseUnixRights(&controls[0])
		}
		return true
	})
	if len(fds) != 1 {
		return nil, err
	}
	_ = unix.SetNonblock(fds[0], true) // for the poller: NOTIF_RECV itself blocks all the same
	return os.NewFile(uintptr(fds[0]), "seccomp"), nil
}

// next waits for a call. An error means that there will be none.
func (a *adoption) next(raw syscall.RawConn) (n *notification, err error) {
	failed := raw.Read(func(fd uintptr) bool {
		n, err = a.receive(fd)
		return !errors.Is(err, unix.EAGAIN)
	})
	if failed != nil {
		return nil, failed
	}
	return n, err
}

// receive takes a call that waits, EAGAIN if there is none. It looks first, since NOTIF_RECV would wait for one.
func (a *adoption) receive(fd uintptr) (*notification, error) {
	for {
		p := []unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}
		_, err := unix.Poll(p, 0)
		switch got := p[0].Revents; {
		case errors.Is(err, unix.EINTR), got&(unix.POLLIN|unix.POLLERR) == unix.POLLERR: // a signal came, here or in the kernel's poll
		case err != nil:
			return nil, err
		case got&unix.POLLIN != 0:
			buf := make([]uint64, (a.size+7)/8) // zero, as the kernel wants it
			if errno := notifyIoctl(fd, unix.SECCOMP_IOCTL_NOTIF_RECV, unsafe.Pointer(&buf[0])); errno == 0 {
				return (*notification)(unsafe.Pointer(&buf[0])), nil
			} else if errno != unix.ENOENT { // the caller died meanwhile
				return nil, errno
			}
		case got&unix.POLLHUP != 0:
			return nil, io.EOF
		default:
			return nil, unix.EAGAIN
		}
	}
}

// handle posts a call, or passes it at once.
func (a *adoption) handle(file *os.File, n *notification, quit <-chan struct{}) {
	c := &call{from: file, id: n.id, tid: int(n.tid), number: int(int32(n.args[0])), fd: -1}
	if n.call == unix.SYS_LISTEN {
		c.op, c.backlog = callListen, int(int32(n.args[1]))
	}
	if a.isStopped() || !c.see(n) {
		c.pass()
		return
	}
	if !c.valid() {
		c.pass() // what was read may be another process's
		return
	}
	if c.err != nil {
		c.pass()
	}
	a.posted = slices.DeleteFunc(a.posted, func(n notification) bool { return !(&call{from: file, id: n.id}).valid() })
	a.posted = append(a.posted, *n)
	switch {
	case a.post(c, quit):
	case isClosed(quit):
		a.held = c
	default:
		c.pass()
	}
}

// see finds out what is called for; false if that is nothing of hotwrap's, or nothing that the kernel would do.
func (c *call) see(n *notification) bool {
	if c.pid = leaderOf(c.tid); c.pid == 0 || c.number < 0 {
		return false
	}
	if c.fd, c.err = descriptorOf(c.tid, c.pid, c.number); c.err != nil {
		return !isAny(c.err, unix.EBADF, unix.ESRCH, unix.ENOENT)
	}
	family, ok := c.socket()
	if !ok || !sameNetwork(c.fd, c.tid) {
		return false
	}
	if c.op == callListen {
		return c.bound(family)
	}
	addr, err := readAddress(c.tid, n.args[1], n.args[2])
	if err != nil {
		c.err = err
		return isAny(err, unix.EACCES, unix.EPERM)
	}
	return c.place(family, addr)
}

func isAny(err error, causes ...syscall.Errno) bool {
	return slices.ContainsFunc(causes, func(cause syscall.Errno) bool { return errors.Is(err, cause) })
}

// leaderOf is the process of a thread, 0 if it is gone or in a PID namespace that is not below ours.
func leaderOf(tid int) int {
	if tid == 0 {
		return 0
	}
	text, _ := readProc(fmt.Sprintf("/proc/%d/status", tid), 4096)
	pid, _ := lineValue(text, "Tgid:")
	return int(pid)
}

// descriptorOf duplicates a descriptor of a thread: its leader may have ended, and it may have descriptors of its own. Before
// Linux 6.9 there are only the leader's.
func descriptorOf(tid, leader, number int) (int, error) {
	pidfd, err := unix.PidfdOpen(tid, unix.PIDFD_THREAD)
	if errors.Is(err, unix.EINVAL) {
		pidfd, err = unix.PidfdOpen(leader, 0)
	}
	if err != nil {
		return -1, fmt.Errorf("cannot open a pidfd: %w", err)
	}
	defer unix.Close(pidfd)
	fd, err := unix.PidfdGetfd(pidfd, number, 0)
	if err != nil {
		return -1, fmt.Errorf("cannot duplicate descriptor %d (pidfd_getfd): %w", number, err)
	}
	return fd, nil
}

// socket says what kind of one it is; false for those that no listener is like.
func (c *call) socket() (family int, ok bool) {
	inode, err := socketInode(c.fd)
	if err != nil {
		return 0, false
	}
	family, err = unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_DOMAIN)
	kind, err2 := unix.GetsockoptInt(c.fd, unix.SOL_SOCKET, unix.SO_TYPE)
	protocol, err3 := protocolOf(c.fd)
	if errors.Join(err, err2, err3) != nil {
		return 0, false
	}
	c.inode, c.protocol = inode, protocol
	switch family {
	case unix.AF_UNIX:
		c.network = map[int]string{
			unix.SOCK_STREAM: "unix", unix.SOCK_DGRAM: "unixgram", unix.SOCK_SEQPACKET: "unixpacket",
		}[kind]
	case unix.AF_INET, unix.AF_INET6:
		c.network = map[[2]int]string{
			{unix.SOCK_STREAM, unix.IPPROTO_TCP}: "tcp", {unix.SOCK_STREAM, unix.IPPROTO_MPTCP}: "tcp",
			{unix.SOCK_DGRAM, unix.IPPROTO_UDP}: "udp",
		}[[2]int{kind, protocol}]
		c.device, _ = unix.GetsockoptString(c.fd, unix.SOL_SOCKET, unix.SO_BINDTODEVICE)
	}
	if family == unix.AF_INET6 {
		only, err := unix.GetsockoptInt(c.fd, unix.IPPROTO_IPV6, unix.IPV6_V6ONLY)
		c.only = err == nil && only != 0
	}
	return family, c.network != ""
}

// sameNetwork tells whether a socket is in our network namespace: SO_NETNS_COOKIE, Linux 5.14; before that, whether the
// thread is, which may have it from elsewhere.
func sameNetwork(fd, tid int) bool {
	theirs, err := unix.GetsockoptUint64(fd, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
	if err == nil {
		own, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM|unix.SOCK_CLOEXEC, 0)
		if err != nil {
			return false
		}
		defer unix.Close(own)
		ours, err := unix.GetsockoptUint64(own, unix.SOL_SOCKET, unix.SO_NETNS_COOKIE)
		return err == nil && ours == theirs
	}
	return sameFile(fmt.Sprintf("/proc/%d/ns/net", tid), "/proc/self/ns/net")
}

// sameFiles tells whether a thread finds under a path what we do.
func sameFiles(tid int) bool {
	return sameFile(fmt.Sprintf("/proc/%d/ns/mnt", tid), "/proc/self/ns/mnt") &&
		sameFile(fmt.Sprintf("/proc/%d/root", tid), "/proc/self/root")
}

// bound takes over what a socket that is to listen is bound to; false if that is nothing, or it cannot listen.
func (c *call) bound(family int) bool {
	if c.network == "udp" || c.network == "unixgram" {
		return false
	}
	var addr [sockaddrMost]byte
	size := uint32(len(addr))
	_, _, errno := unix.Syscall(unix.SYS_GETSOCKNAME, uintptr(c.fd), uintptr(unsafe.Pointer(&addr)), uintptr(unsafe.Pointer(&size)))
	return errno == 0 && size >= 2 && size <= sockaddrMost && c.place(family, addr[:size])
}

// sockaddrMost is sizeof(struct sockaddr_storage): the kernel takes no longer address.
const sockaddrMost = 128

// readAddress reads the address that a thread hands to bind; EINVAL and EFAULT if the kernel would not.
func readAddress(tid int, at, length uint64) ([]byte, error) {
	size := int32(length)
	if size < 2 || size > sockaddrMost {
		return nil, unix.EINVAL
	}
	addr, err := readMemory(tid, at, uint64(size))
	switch {
	case isAny(err, unix.EACCES, unix.EPERM):
		return nil, fmt.Errorf("cannot read the program's memory (/proc/PID/mem): %w", err)
	case len(addr) != int(size):
		return nil, unix.EFAULT
	}
	return addr, nil
}

// place takes over an address as the kernel reads it for a socket of a family; false if the kernel refuses it or chooses one
// itself.
func (c *call) place(family int, b []byte) bool {
	given := int(binary.NativeEndian.Uint16(b))
	switch {
	case family != unix.AF_UNIX:
		c.addr = inetAddress(family, given, b)
		return c.addr.IsValid() && c.addr.Port() != 0
	case given != unix.AF_UNIX || len(b) <= 2 || len(b) > unix.SizeofSockaddrUnix:
		return false
	case b[2] == 0:
		c.path = "@" + string(b[3:])
		return true
	}
	name, _, _ := strings.Cut(string(b[2:]), "\x00")
	if c.path = name; name[0] == '@' {
		c.path = "./" + name
	}
	return sameFiles(c.tid)
}

// inetAddress reads a sockaddr_in or sockaddr_in6 for a socket of a family (inet_bind_sk and inet6_bind_sk in net/ipv4/af_inet.c
// and net/ipv6/af_inet6.c): an IPv4 one may leave out its family if it is for any address, an IPv6 one its scope.
func inetAddress(family, given int, b []byte) netip.AddrPort {
	switch family {
	case unix.AF_INET:
		if len(b) < unix.SizeofSockaddrInet4 {
			return netip.AddrPort{}
		}
		ip := netip.AddrFrom4([4]byte(b[4:8]))
		if given == unix.AF_INET || given == unix.AF_UNSPEC && ip == netip.IPv4Unspecified() {
			return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
		}
	case unix.AF_INET6:
		const rfc2133 = 24 // without the scope: SIN6_LEN_RFC2133
		if given != unix.AF_INET6 || len(b) < rfc2133 {
			return netip.AddrPort{}
		}
		ip := netip.AddrFrom16([16]byte(b[8:24]))
		if len(b) >= unix.SizeofSockaddrInet6 && ip.IsLinkLocalUnicast() {
			ip = ip.WithZone(zoneName(binary.NativeEndian.Uint32(b[24:])))
		}
		return netip.AddrPortFrom(ip, binary.BigEndian.Uint16(b[2:]))
	}
	return netip.AddrPort{}
}

// zoneName is the interface of a scope id, as addrPort names it; the number of one that is not there.
func zoneName(id uint32) string {
	if id == 0 {
		return ""
	}
	if device, err := net.InterfaceByIndex(int(id)); err == nil {
		return device.Name
	}
	return strconv.FormatUint(uint64(id), 10)
}
