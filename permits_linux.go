package main

// This file tries what Linux may permit or not, on sockets that are closed again and threads that end.

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"hotwrap/shim"

	"golang.org/x/sys/unix"
)

const (
	steerPatience = 100 // milliseconds for a connection to ourselves, where a firewall may be in the way
	steeringSince = "Linux 4.6 or later, and no gVisor"
)

// steerable says why generations cannot have sockets of their own, and the remedy; nil if they can. It is tried with two, on
// loopback, and a client is seen to arrive: gVisor says yes to options that it does not know.
func steerable() error {
	var t steerTrial
	defer t.end()
	for _, step := range []struct {
		what string
		try  func() error
	}{
		{"open two sockets", t.open},
		{"share an address (SO_REUSEPORT)", t.share},
		{"attach a program (SO_ATTACH_REUSEPORT_CBPF)", t.listen},
	} {
		if err := step.try(); err != nil {
			return notSteerable(step.what, err)
		}
	}
	if !t.obeyed() {
		return &missing{"the kernel takes SO_ATTACH_REUSEPORT_CBPF, and does nothing about it", steeringSince}
	}
	return nil
}

// notSteerable words why not.
func notSteerable(what string, err error) error {
	m := &missing{what: fmt.Sprintf("cannot %s: %v", what, err)}
	switch {
	case denies(err):
		m.remedy = "a seccomp profile that permits setsockopt (docker run --security-opt seccomp=PROFILE)"
	case isAny(err, unix.ENOPROTOOPT, unix.EOPNOTSUPP, unix.ENOSYS, unix.EINVAL):
		m.remedy = steeringSince
	case isAny(err, unix.ENOMEM, unix.ENOBUFS):
		m.remedy = "sysctl net.core.optmem_max=131072"
	}
	return m
}

// steerTrial is two listening sockets of one address, and a client.
type steerTrial struct {
	family int
	fds    []int         // in the order of the kernel's array
	any    unix.Sockaddr // any port of loopback
	at     unix.Sockaddr // theirs
}

func (t *steerTrial) end() {
	for _, fd := range t.fds {
		_ = unix.Close(fd)
	}
}

// socket opens one more; it is not blocking, and closed by end.
func (t *steerTrial) socket() (int, error) {
	fd, err := newSocket(t.family, unix.SOCK_STREAM, unix.IPPROTO_TCP, true)
	if err == nil {
		t.fds = append(t.fds, fd)
		_ = unix.SetsockoptInt(fd, unix.SOL_IP, unix.IP_FREEBIND, 1) // loopback may be down
	}
	return fd, err
}

// open binds the first socket alone, as listeners of our own are.
func (t *steerTrial) open() error {
	t.family, t.any = unix.AF_INET, &unix.SockaddrInet4{Addr: [4]byte{127, 0, 0, 1}}
	fd, err := t.socket()
	if errors.Is(err, unix.EAFNOSUPPORT) {
		t.family, t.any = unix.AF_INET6, &unix.SockaddrInet6{Addr: [16]byte{15: 1}}
		fd, err = t.socket()
	}
	if err != nil {
		return err
	}
	if err := unix.Bind(fd, t.any); err != nil {
		return err
	}
	t.at, err = unix.Getsockname(fd)
	if err == nil {
		_, err = t.socket()
	}
	return err
}

// share prepares both; the first one is bound by now.
func (t *steerTrial) share() error {
	for _, fd := range t.fds {
		if err := setReuse(fd, true); err != nil {
			return err
		}
	}
	return nil
}

// listen makes a group of them.
func (t *steerTrial) listen() error {
	if err := attach(t.fds[0], returnIndex(0)); err != nil { // before it listens
		return err
	}
	if err := unix.Listen(t.fds[0], 1); err != nil {
		return err
	}
	if err := unix.Bind(t.fds[1], t.at); err != nil {
		return err
	}
	return unix.Listen(t.fds[1], 1)
}

// obeyed steers a client to the first socket, and then one with the same port to the second: a kernel that only spreads
// them sends both to the same. One that arrives nowhere says nothing: a firewall may guard loopback.
func (t *steerTrial) obeyed() bool {
	from := t.any
	for i := range uint32(2) {
		if attach(t.fds[0], returnIndex(i)) != nil {
			return false
		}
		var came int
		if came, from = t.connect(from); came >= 0 && came != int(i) {
			return false
		}
	}
	return true
}

// connect connects from an address, and tells on which socket that came in, -1 if on none. A port that connect(2) had chosen
// could not be bound a second time while another connection of this machine has it too.
func (t *steerTrial) connect(from unix.Sockaddr) (came int, local unix.Sockaddr) {
	fd, err := newSocket(t.family, unix.SOCK_STREAM, unix.IPPROTO_TCP, true)
	if err != nil {
		return -1, from
	}
	defer unix.Close(fd)
	_ = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}) // or the port is in TIME_WAIT
	if unix.Bind(fd, from) != nil {
		return -1, from
	}
	if err := unix.Connect(fd, t.at); err != nil && !errors.Is(err, unix.EINPROGRESS) {
		return -1, from
	}
	if local, err = unix.Getsockname(fd); err != nil {
		return -1, from
	}
	p := []unix.PollFd{{Fd: int32(t.fds[0]), Events: unix.POLLIN}, {Fd: int32(t.fds[1]), Events: unix.POLLIN}}
	_, _ = unix.Poll(p, steerPatience) // as a rule it is there
	for i, listener := range t.fds {
		if conn, _, err := unix.Accept4(listener, unix.SOCK_CLOEXEC); err == nil {
			_ = unix.Close(conn)
			return i, local
		}
	}
	return -1, local
}

// tablesReadable says why the kernel's tables of sockets cannot be had; nil if they can.
func tablesReadable() error {
	if _, err := diagSockets(unix.AF_INET, unix.IPPROTO_TCP, 1<<tcpListen, portSet{1: true}); err != nil {
		return &missing{fmt.Sprintf("no sock_diag: %v", err), "the kernel modules inet_diag and tcp_diag"}
	}
	return nil
}

// attachable says why a child of our own cannot be looked into as adoption must; nil if it can. number is one of its
// descriptors.
func attachable(pid, number int) error {
	what := "its sockets cannot be had (pidfd_getfd)"
	fd, err := descriptorOf(pid, pid, number)
	if err == nil {
		_ = unix.Close(fd)
		what = "what it binds to cannot be read (/proc/PID/mem)"
		fd, err = unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	}
	if err == nil {
		return unix.Close(fd)
	}
	if err := yamaForbids(); err != nil {
		return err
	}
	return &missing{fmt.Sprintf("%s: %v", what, causeOf(err)), "CAP_SYS_PTRACE (docker run --cap-add SYS_PTRACE)"}
}

// adoptable says why hotwrap cannot do a program's bind and listen here, and the remedy; nil if it can. It tries, in a thread
// that is gone afterwards: what that has installed and given up is its own.
func adoptable() error {
	failed := make(chan error)
	go func() {
		runtime.LockOSThread() // for good, so the thread ends with the goroutine
		if unix.Gettid() == unix.Getpid() {
			failed <- adoptable() // but the main thread never ends: in another, while this one is taken
			runtime.UnlockOSThread()
			return
		}
		failed <- tryAdoption()
	}()
	return <-failed
}

// tryAdoption spoils the calling thread.
func tryAdoption() error {
	if _, err := notificationSize(); err != nil {
		return notWatchable(err)
	}
	fd, err := shim.WatchBinds()
	if err != nil {
		return notWatchable(err)
	}
	defer unix.Close(fd)
	add := notifyAddFD{src: uint32(fd)}
	if notifyIoctl(uintptr(fd), unix.SECCOMP_IOCTL_NOTIF_ADDFD, unsafe.Pointer(&add)) == unix.EINVAL {
		return errors.New("seccomp cannot give a program a socket: needs Linux 5.9")
	}
	switch dup, err := descriptorOf(unix.Gettid(), unix.Getpid(), fd); {
	case isAny(err, unix.ENOSYS):
		return errors.New("there is no pidfd_getfd(2): needs Linux 5.6, or it is refused by a seccomp filter (docker run --cap-add SYS_PTRACE)")
	case isAny(err, unix.EPERM, unix.EACCES):
		return errors.New("pidfd_getfd(2) is refused by a seccomp filter: docker run --cap-add SYS_PTRACE")
	case err != nil:
		return err
	default:
		_ = unix.Close(dup)
	}
	return yamaForbids()
}

// notWatchable words why the filter cannot be installed.
func notWatchable(err error) error {
	switch {
	case isAny(err, unix.EBUSY):
		return errSecondWatcher
	case isAny(err, unix.ENOSYS) && !shim.CanWatch():
		return fmt.Errorf("hotwrap cannot watch bind and listen on %s", runtime.GOARCH)
	case isAny(err, unix.ENOSYS, unix.EINVAL):
		return errors.New("the kernel has no seccomp notification: needs Linux 5.9 with CONFIG_SECCOMP_FILTER")
	case isAny(err, unix.EPERM, unix.EACCES):
		return errors.New("seccomp(2) is refused by a seccomp filter: docker run --security-opt seccomp=PROFILE that permits it")
	}
	return err
}

// errSecondWatcher is EBUSY.
var errSecondWatcher = errors.New("a process above hotwrap has seccomp notify it already, and of one process only one can be notified: " +
	"start hotwrap outside of it, or with --adopt never")

// yamaForbids says whether a system-wide setting forbids what the kernel checks like ptrace: Documentation/admin-guide/LSM/Yama.rst.
// Up to 1, what hotwrap has started is free to look at.
func yamaForbids() error {
	const name = "/proc/sys/kernel/yama/ptrace_scope"
	switch scope, ok := readNumber(name); {
	case ok && scope == 2 && !hasCapability(unix.CAP_SYS_PTRACE):
		return errors.New("kernel.yama.ptrace_scope=2 lets no process look into another: CAP_SYS_PTRACE, or sysctl kernel.yama.ptrace_scope=1")
	case ok && scope > 2:
		return errors.New("kernel.yama.ptrace_scope=3 lets no process look into another: set it to 1 and start the machine anew")
	}
	return nil
}

// adoptableAs is adoptable for a program with another user.
func adoptableAs(user *credential) error {
	if user != nil && user.uid != os.Geteuid() && !hasCapability(unix.CAP_SYS_PTRACE) {
		return fmt.Errorf("a process of %s cannot be looked into: needs CAP_SYS_PTRACE (docker run --cap-add SYS_PTRACE)", user.name)
	}
	return adoptable()
}

// adoptionDeprives tells whether an adopted program loses what setuid bits and file capabilities would bring it: without
// CAP_SYS_ADMIN the filter wants no_new_privs.
func adoptionDeprives() bool {
	on, err := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	return err == nil && on == 0 && !hasCapability(unix.CAP_SYS_ADMIN)
}

// hasCapability tells whether this thread has a capability in effect.
func hasCapability(number uint) bool {
	header := unix.CapUserHeader{Version: unix.LINUX_CAPABILITY_VERSION_3}
	var data [2]unix.CapUserData
	return unix.Capget(&header, &data[0]) == nil && data[number/32].Effective&(1<<(number%32)) != 0
}
