package shim

// This file has the kernel tell of every bind and listen of the program and of its descendants, and wait for an
// answer: seccomp_unotify(2).

import (
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

const x32Call = 0x40000000 // __X32_SYSCALL_BIT: the other ABI of the same architecture

// nativeArch is what seccomp calls the architecture that hotwrap is built for; 0 is one on which nobody has tried
// this, or on which bind and listen also have another way in (socketcall).
func nativeArch() uint32 {
	switch runtime.GOARCH {
	case "amd64":
		return unix.AUDIT_ARCH_X86_64
	case "arm64":
		return unix.AUDIT_ARCH_AARCH64
	case "loong64":
		return unix.AUDIT_ARCH_LOONGARCH64
	case "riscv64":
		return unix.AUDIT_ARCH_RISCV64
	}
	return 0
}

// CanWatch tells whether the filter is made for this architecture.
func CanWatch() bool { return nativeArch() != 0 }

// bindFilter tells of bind and listen, and lets the rest through; also all that a program of another architecture
// does on this kernel, whose numbers are others. The offsets are those of struct seccomp_data.
func bindFilter(arch uint32) []unix.SockFilter {
	const load, equal, set, ret = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K,
		unix.BPF_JMP | unix.BPF_JSET | unix.BPF_K, unix.BPF_RET | unix.BPF_K
	x32 := uint8(0)
	if arch == unix.AUDIT_ARCH_X86_64 {
		x32 = 2
	}
	return []unix.SockFilter{
		{Code: load, K: 4},
		{Code: equal, Jf: 4, K: arch},
		{Code: load, K: 0},
		{Code: set, Jt: x32, K: x32Call},
		{Code: equal, Jt: 2, K: unix.SYS_BIND},
		{Code: equal, Jt: 1, K: unix.SYS_LISTEN},
		{Code: ret, K: unix.SECCOMP_RET_ALLOW},
		{Code: ret, K: unix.SECCOMP_RET_USER_NOTIF},
	}
}

// WatchBinds installs the filter for the calling thread and all that it starts, for good, and returns the
// descriptor that tells of the calls. Only without CAP_SYS_ADMIN does the thread give up every privilege that
// an exec could bring: then the kernel wants no_new_privs.
func WatchBinds() (fd int, err error) {
	arch := nativeArch()
	if arch == 0 {
		return -1, unix.ENOSYS
	}
	filter := bindFilter(arch)
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	// A signal that comes after the call was told of does not interrupt it, unless it kills: Linux 5.19.
	flags := uintptr(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER | unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV)
	for gaveUp := false; ; {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&prog)))
		switch {
		case errno == 0:
			return int(fd), nil
		case errno == unix.EINVAL && flags&unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV != 0:
			flags &^= unix.SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV
		case errno == unix.EACCES && !gaveUp:
			if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
				return -1, err
			}
			gaveUp = true
		default:
			return -1, errno
		}
	}
}

// tellOfBinds has every bind and listen told to whoever is at the other end of the socket to; nobody else keeps
// the descriptor.
func tellOfBinds(to int) error {
	fd, err := WatchBinds()
	if err != nil {
		return err
	}
	err = unix.Sendmsg(to, []byte{0}, unix.UnixRights(fd), nil, unix.MSG_NOSIGNAL)
	_ = unix.Close(fd)
	_ = unix.Close(to)
	return err
}
