package main

// This file asks Linux whether a file is being written, and whether its events can be trusted.

import (
	"errors"
	"slices"
	"unsafe"

	"golang.org/x/sys/unix"
)

// atExecveCheck makes execveat(2) stop before it runs anything (Linux 6.14; older ones answer EINVAL).
const atExecveCheck = 0x10000

// askKernel asks whether a file is complete as far as the kernel can tell. A lease is the older way (fcntl(2)):
// it is refused while a writer exists, but it takes the file's owner or CAP_LEASE.
func askKernel(path string, program bool) kernelWord {
	if program {
		if word, ok := execCheck(path); ok {
			return word
		}
	}
	fd, err := unix.Open(path, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return wordNone
	}
	defer func() { _ = unix.Close(fd) }()
	_, err = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_RDLCK)
	switch {
	case err == nil:
		_, _ = unix.FcntlInt(uintptr(fd), unix.F_SETLEASE, unix.F_UNLCK)
		return wordFree
	case errors.Is(err, unix.EAGAIN):
		return wordBusy
	}
	return wordNone
}

// execCheck is execveat(2) that only checks; false where the kernel cannot.
func execCheck(path string) (kernelWord, bool) {
	fd, err := unix.Open(path, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return wordNone, true
	}
	defer func() { _ = unix.Close(fd) }()
	empty, argv, env := new(byte), [2]*byte{}, [1]*byte{}
	argv[0] = empty
	_, _, errno := unix.Syscall6(unix.SYS_EXECVEAT, uintptr(fd), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argv)), uintptr(unsafe.Pointer(&env)), unix.AT_EMPTY_PATH|atExecveCheck, 0)
	switch errno {
	case 0:
		return wordFree, true
	case unix.ETXTBSY:
		return wordBusy, true
	case unix.EACCES:
		return wordNoExec, true
	}
	return wordNone, false // EPERM too: a seccomp filter says so of what it does not know
}

// slowKinds are the file systems on which files change without events: somebody else writes them.
var slowKinds = map[uint32]string{
	unix.NFS_SUPER_MAGIC: "NFS", unix.SMB_SUPER_MAGIC: "SMB", 0xff534d42: "CIFS", unix.SMB2_SUPER_MAGIC: "SMB",
	unix.V9FS_MAGIC: "9p", unix.FUSE_SUPER_MAGIC: "FUSE", unix.OVERLAYFS_SUPER_MAGIC: "an overlay",
	0x786f4256: "a shared folder", 0x7c7c6673: "a shared folder", // vboxsf, Parallels
}

// kernelKinds are the file systems whose files the kernel makes up as they are read.
var kernelKinds = []uint32{
	unix.PROC_SUPER_MAGIC, unix.SYSFS_MAGIC, unix.CGROUP_SUPER_MAGIC, unix.CGROUP2_SUPER_MAGIC, unix.DEBUGFS_MAGIC, unix.TRACEFS_MAGIC,
	unix.SECURITYFS_MAGIC, unix.BPF_FS_MAGIC, unix.PSTOREFS_MAGIC, unix.EFIVARFS_MAGIC, unix.DEVPTS_SUPER_MAGIC,
}

// kernelMade tells whether a directory is of such a file system.
func kernelMade(dir string) bool {
	var st unix.Statfs_t
	return unix.Statfs(dir, &st) == nil && slices.Contains(kernelKinds, uint32(st.Type))
}

// slowKind names the file system of a directory if its events cannot be trusted.
func slowKind(dir string) string {
	var st unix.Statfs_t
	if unix.Statfs(dir, &st) != nil {
		return ""
	}
	return slowKinds[uint32(st.Type)]
}
