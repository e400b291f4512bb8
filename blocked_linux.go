package main

// This file tells which descriptors a blocked thread waits for, by the system call that it is in (/proc/PID/task/TID/syscall).
// The numbers are those of the process's architecture, not ours: a 64-bit kernel runs 32-bit programs.

import (
	"bytes"
	"debug/elf"
	"encoding/binary"
	"errors"
	"fmt"
	"slices"
	"strconv"

	"golang.org/x/sys/unix"
)

// callNumbers are the system calls that wait for input, of one architecture.
type callNumbers struct {
	fd         []int // on the descriptor in the first argument: accept, accept4, read, readv, recvfrom, recvmsg, recvmmsg
	poll       []int // poll, ppoll
	sel        []int // select, pselect6
	socketcall int   // the 32-bit x86 way into the socket calls; 0 elsewhere
}

// callsOf covers what Linux on little-endian machines runs on; anywhere else a look at threads is blind.
var callsOf = map[elf.Machine]callNumbers{
	elf.EM_X86_64:    {fd: []int{43, 288, 0, 19, 45, 47, 299}, poll: []int{7, 271}, sel: []int{23, 270}},
	elf.EM_386:       {fd: []int{364, 3, 145, 371, 372, 337, 417}, poll: []int{168, 309, 414}, sel: []int{142, 308, 413}, socketcall: 102},
	elf.EM_ARM:       {fd: []int{285, 366, 3, 145, 292, 297, 365, 417}, poll: []int{168, 336, 414}, sel: []int{142, 335, 413}},
	elf.EM_PPC64:     {fd: []int{330, 344, 3, 145, 337, 342, 343}, poll: []int{167, 281}, sel: []int{142, 280}},
	elf.EM_AARCH64:   genericCalls,
	elf.EM_RISCV:     genericCalls,
	elf.EM_LOONGARCH: genericCalls,
}

// genericCalls are the numbers of architectures that came after 2010 (asm-generic/unistd.h).
var genericCalls = callNumbers{fd: []int{202, 242, 63, 65, 207, 212, 243}, poll: []int{73}, sel: []int{72}}

// numbersOf tells them by the program that a process runs.
func numbersOf(pid int) (callNumbers, error) {
	header, err := readProc(fmt.Sprintf("/proc/%d/exe", pid), 20)
	if err != nil {
		return callNumbers{}, err
	}
	n, ok := callsOf[elfMachine(header)]
	if !ok {
		return callNumbers{}, errors.New("unknown architecture")
	}
	return n, nil
}

// elfMachine is the architecture in an ELF header; EM_NONE for anything that is not little-endian ELF.
func elfMachine(header []byte) elf.Machine {
	if len(header) < 20 || !bytes.HasPrefix(header, []byte(elf.ELFMAG)) || header[elf.EI_DATA] != byte(elf.ELFDATA2LSB) {
		return elf.EM_NONE
	}
	return elf.Machine(binary.LittleEndian.Uint16(header[18:]))
}

// blockedCall is a system call that a thread is blocked in.
type blockedCall struct {
	number int
	args   [6]uint64
}

// parseSyscall reads a line of /proc/PID/task/TID/syscall, see proc_pid_syscall(5): the number and, in hexadecimal, six
// arguments, the stack pointer and the program counter. "running", and "-1" with two, is a thread in no call.
func parseSyscall(line []byte) (c blockedCall, ok bool) {
	fields := bytes.Fields(line)
	if len(fields) != 9 {
		return blockedCall{}, false
	}
	number, err := strconv.ParseInt(string(fields[0]), 10, 32)
	if err != nil || number < 0 {
		return blockedCall{}, false
	}
	c.number = int(number)
	for i := range c.args {
		hex, prefixed := bytes.CutPrefix(fields[1+i], []byte("0x"))
		if c.args[i], err = strconv.ParseUint(string(hex), 16, 64); err != nil || !prefixed {
			return blockedCall{}, false
		}
	}
	return c, true
}

// awaited returns those of the held descriptors that a call waits for input on. memory reads the caller's, and may
// return less than asked.
func awaited(c blockedCall, n callNumbers, memory func(addr, size uint64) []byte, held map[int]uint64) (fds []int) {
	in := func(int) bool { return false }
	switch {
	case slices.Contains(n.fd, c.number):
		in = func(fd int) bool { return uint32(c.args[0]) == uint32(fd) }
	case slices.Contains(n.poll, c.number):
		set := pollSet(memory(c.args[0], 8*uint64(min(uint32(c.args[1]), maxSet))))
		in = func(fd int) bool { return set[fd] }
	case slices.Contains(n.sel, c.number):
		size := min(uint32(c.args[0]), maxSet)
		set := memory(c.args[1], uint64(size+7)/8)
		in = func(fd int) bool { return uint32(fd) < size && inFdSet(set, fd) }
	case n.socketcall != 0 && c.number == n.socketcall && slices.Contains([]uint64{5, 10, 12, 17, 18, 19}, c.args[0]):
		args := memory(c.args[1], 4) // of accept, recv, recvfrom, recvmsg, accept4, recvmmsg: see linux/net.h
		in = func(fd int) bool { return len(args) == 4 && binary.LittleEndian.Uint32(args) == uint32(fd) }
	}
	for fd := range held {
		if in(fd) {
			fds = append(fds, fd)
		}
	}
	return fds
}

const pollRDNorm = 0x40 // on a socket the same as POLLIN; x/sys has no name for it

// pollSet are the descriptors for whose input an array of struct pollfd (int fd; short events, revents) waits.
func pollSet(set []byte) map[int]bool {
	fds := map[int]bool{}
	for ; len(set) >= 8; set = set[8:] {
		if binary.LittleEndian.Uint16(set[4:])&(unix.POLLIN|pollRDNorm) != 0 {
			fds[int(int32(binary.LittleEndian.Uint32(set)))] = true
		}
	}
	return fds
}

// inFdSet reports whether fd is in an fd_set: an array of longs, and so on little-endian machines one of bytes.
func inFdSet(set []byte, fd int) bool {
	return fd >= 0 && fd/8 < len(set) && set[fd/8]&(1<<(fd%8)) != 0
}

// readMemory reads of a process's memory what can be read; the kernel wants the right to attach to it.
func readMemory(pid int, addr, size uint64) ([]byte, error) {
	if addr == 0 || size == 0 {
		return nil, nil
	}
	fd, err := unix.Open(fmt.Sprintf("/proc/%d/mem", pid), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	defer unix.Close(fd)
	buf := make([]byte, size)
	n, err := unix.Pread(fd, buf, int64(addr))
	return buf[:max(n, 0)], err
}
