//go:build linux

// Command refuse runs a program where the kernel refuses some system calls: refuse CALL... -- PROGRAM [ARG]...
//
// A CALL is the name of one, or NAME=NUMBER, if that is its third argument; behind it may stand the error instead of EPERM:
// seccomp:ENOSYS. "watched" is no call: it has seccomp notify somebody of the program already, whom nobody
// answers for. Of several, seccomp itself comes last. Without CAP_SYS_ADMIN it sets no_new_privs.
package main

import (
	"errors"
	"fmt"
	"os"
	"os/exec"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"unsafe"

	"hotwrap/testapps/internal/app"

	"golang.org/x/sys/unix"
)

var numbers = map[string]uint32{
	"seccomp": unix.SYS_SECCOMP, "pidfd_getfd": unix.SYS_PIDFD_GETFD, "pidfd_open": unix.SYS_PIDFD_OPEN,
	"setsockopt": unix.SYS_SETSOCKOPT, "socket": unix.SYS_SOCKET, "prctl": unix.SYS_PRCTL,
}

var errnos = map[string]uint32{"": uint32(unix.EPERM), "ENOSYS": uint32(unix.ENOSYS), "ENOPROTOOPT": uint32(unix.ENOPROTOOPT), "0": 0}

// Of struct seccomp_data: where the number of the call is, and the lower half of an argument on a little-endian machine.
const (
	numberAt   = 0
	argumentAt = 16
)

func main() {
	runtime.LockOSThread() // a filter is a thread's, and stays with the one that execs
	cut := slices.Index(os.Args, "--")
	if cut < 1 || cut+1 >= len(os.Args) {
		app.Fail(errors.New("usage: refuse CALL... -- PROGRAM [ARG]"))
	}
	path, err := exec.LookPath(os.Args[cut+1])
	if err != nil {
		app.Fail(err)
	}
	for _, word := range os.Args[1:cut] {
		if err := install(word); err != nil {
			app.Fail(fmt.Errorf("cannot refuse %q: %w", word, err))
		}
	}
	app.Fail(unix.Exec(path, os.Args[cut+1:], os.Environ()))
}

// install adds a filter to this thread.
func install(word string) error {
	if word == "watched" {
		return filter(unix.SECCOMP_FILTER_FLAG_NEW_LISTENER, returns(unix.SECCOMP_RET_ALLOW))
	}
	call, errno, _ := strings.Cut(word, ":")
	name, option, chosen := strings.Cut(call, "=")
	number, known := numbers[name]
	value, named := errnos[errno]
	if !known || !named {
		return errors.New("unknown")
	}
	const load, equal = unix.BPF_LD | unix.BPF_W | unix.BPF_ABS, unix.BPF_JMP | unix.BPF_JEQ | unix.BPF_K
	program := []unix.SockFilter{{Code: load, K: numberAt}, {Code: equal, K: number, Jf: 1}}
	if chosen {
		n, err := strconv.ParseUint(option, 10, 32)
		if err != nil {
			return err
		}
		program[1].Jf = 3
		program = append(program, unix.SockFilter{Code: load, K: argumentAt + 2*8}, unix.SockFilter{Code: equal, K: uint32(n), Jf: 1})
	}
	program = append(program, returns(unix.SECCOMP_RET_ERRNO|value), returns(unix.SECCOMP_RET_ALLOW))
	return filter(0, program...)
}

func returns(what uint32) unix.SockFilter {
	return unix.SockFilter{Code: unix.BPF_RET | unix.BPF_K, K: what}
}

func filter(flags uintptr, program ...unix.SockFilter) error {
	fprog := unix.SockFprog{Len: uint16(len(program)), Filter: &program[0]}
	install := func() (uintptr, syscall.Errno) {
		fd, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, flags, uintptr(unsafe.Pointer(&fprog)))
		return fd, errno
	}
	fd, errno := install()
	if errno == unix.EACCES {
		_ = unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0)
		fd, errno = install()
	}
	if errno != 0 {
		return errno
	}
	if flags&unix.SECCOMP_FILTER_FLAG_NEW_LISTENER != 0 {
		_, err := unix.FcntlInt(fd, unix.F_SETFD, 0) // it must outlive exec: closed, it is no second one
		return err
	}
	return nil
}
