package shim

// This file holds what of a process's start only Linux has.

import (
	"math"
	"os"
	"syscall"
	"unsafe"

	"golang.org/x/sys/unix"
)

// closeOnExecExcept marks every descriptor from 3 on but keep (sorted) close-on-exec: close_range(2),
// Linux 5.9 and CLOSE_RANGE_CLOEXEC 5.11, else one by one.
func closeOnExecExcept(keep []int) error {
	first := uint(3)
	mark := func(last uint) error {
		if first > last {
			return nil
		}
		return unix.CloseRange(first, last, unix.CLOSE_RANGE_CLOEXEC)
	}
	for _, fd := range keep {
		if err := mark(uint(fd) - 1); err != nil {
			return markOneByOne(keep)
		}
		first = uint(fd) + 1
	}
	if mark(math.MaxInt32) != nil {
		return markOneByOne(keep)
	}
	return nil
}

// dieWith asks for TERM when the forking thread of hotwrap ends, which is its main thread; and ends at
// once if that has happened already. It must follow the change of user, which clears it (prctl(2)).
func dieWith(parent int) error {
	if err := unix.Prctl(unix.PR_SET_PDEATHSIG, uintptr(unix.SIGTERM), 0, 0, 0); err != nil {
		return err
	}
	if os.Getppid() != parent {
		os.Exit(notExecutable) //nolint:forbidigo // nobody is left to be told
	}
	return nil
}

// resetSignals gives every signal its default action and an empty mask: ignored ones would stay
// ignored across exec (signal(7)), and a nohup for hotwrap is none for the program. Raw, because the
// runtime must not put its handlers back.
func resetSignals() {
	var dfl struct {
		handler, flags, restorer uintptr
		mask                     uint64
	}
	for sig := 1; sig <= 64; sig++ {
		_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGACTION, uintptr(sig), uintptr(unsafe.Pointer(&dfl)), 0, 8, 0, 0)
	}
	var none uint64
	_, _, _ = unix.RawSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_SETMASK, uintptr(unsafe.Pointer(&none)), 0, 8, 0, 0)
}

// leadsTo tells whether path is the pinned executable, as far as this user can see: a build that was renamed
// over it since the fork is another generation's.
func leadsTo(path string, exe int) bool {
	var pin, now unix.Stat_t
	if err := unix.Stat(path, &now); err != nil {
		return err == unix.EACCES
	}
	return unix.Fstat(exe, &pin) == nil && pin.Dev == now.Dev && pin.Ino == now.Ino
}

// execute becomes the program: by path if that is the pin, or there is none (exe < 0); else from the pin,
// by execveat(2) with an empty path.
func execute(exe int, path string, argv, env []string) error {
	if exe < 0 || leadsTo(path, exe) {
		return syscall.Exec(path, argv, env)
	}
	// The runtime has raised the limit on open files and puts it back in syscall.Exec only, even if that
	// fails, as it does for an empty path: a program that uses select(2) must not get a higher one.
	_ = syscall.Exec("", argv, env)
	empty, _ := unix.BytePtrFromString("")
	argp, err := syscall.SlicePtrFromStrings(argv)
	if err != nil {
		return err
	}
	envp, err := syscall.SlicePtrFromStrings(env)
	if err != nil {
		return err
	}
	_, _, errno := unix.RawSyscall6(unix.SYS_EXECVEAT, uintptr(exe), uintptr(unsafe.Pointer(empty)),
		uintptr(unsafe.Pointer(&argp[0])), uintptr(unsafe.Pointer(&envp[0])), unix.AT_EMPTY_PATH, 0)
	return errno
}

// PidfdID returns the inode number of a pidfd of this process, as LISTEN_PIDFDID has it. It is unknown before
// Linux 6.9, where a pidfd was not yet on a file system of its own.
func PidfdID() (uint64, bool) {
	fd, err := unix.PidfdOpen(os.Getpid(), 0)
	if err != nil {
		return 0, false
	}
	defer unix.Close(fd)
	var on unix.Statfs_t
	var is unix.Stat_t
	if unix.Fstatfs(fd, &on) != nil || on.Type != unix.PID_FS_MAGIC || unix.Fstat(fd, &is) != nil {
		return 0, false
	}
	return is.Ino, true
}
