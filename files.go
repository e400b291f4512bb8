package main

// This file asks the file system what the watcher wants to know of a file.

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"
)

func realDisk() disk {
	return disk{
		stat: statFile, word: askKernel, header: headerOf, chain: chainOf, slow: slowKind,
		content: func(path string) string {
			hash, _ := contentOf(path, nil)
			return hash
		},
	}
}

func statFile(path string) (signature, error) {
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		return signature{}, err
	}
	return signature{
		dev: uint64(st.Dev),                               //nolint:unconvert // int32 on macOS
		ino: st.Ino, size: st.Size, mode: uint32(st.Mode), //nolint:unconvert // 16 bits on macOS
		mtime: unix.TimespecToNsec(st.Mtim), ctime: unix.TimespecToNsec(st.Ctim),
	}, nil
}

// chainOf finds every directory in which an event can change what path leads to: that of each symlink on
// the way, that of the file, and the parent of that one. Where something is missing, the deepest directory
// that exists.
func chainOf(path string) ([]place, error) {
	var list []place
	at, rest := "/", strings.Split(path, "/")
	for hops := 0; len(rest) > 0; {
		name := rest[0]
		rest = rest[1:]
		switch name {
		case "", ".":
			continue
		case "..":
			at = filepath.Dir(at)
			continue
		}
		next := filepath.Join(at, name)
		var st unix.Stat_t
		if err := unix.Lstat(next, &st); err != nil {
			return append(list, placesOf(at, name)...), err
		}
		if st.Mode&unix.S_IFMT != unix.S_IFLNK {
			if len(rest) == 0 {
				list = append(list, placesOf(at, name)...)
			}
			at = next
			continue
		}
		list = append(list, place{dir: at, name: name})
		link, err := os.Readlink(next)
		if hops++; err != nil || hops > 40 { // path_resolution(7)
			return list, unix.ELOOP
		}
		if filepath.IsAbs(link) {
			at = "/"
		}
		rest = append(strings.Split(link, "/"), rest...)
	}
	return list, nil
}

// placesOf are those of a file itself: its directory, and that one's parent.
func placesOf(dir, name string) []place {
	list := []place{{dir, name, true}}
	if dir != "/" {
		list = append(list, place{dir: filepath.Dir(dir), name: filepath.Base(dir)})
	}
	return list
}

// headerOf tells whether a file's header is complete and agrees with its size: a truncated ELF file may
// start and crash.
func headerOf(path string, size int64) headerWord {
	f, err := os.OpenFile(path, os.O_RDONLY|syscall.O_NONBLOCK, 0) // it may be a pipe by now
	if err != nil {
		return headerWhole // it may be run but not read
	}
	defer f.Close()
	head := make([]byte, 256)
	n, _ := io.ReadFull(f, head)
	head = head[:n]
	switch {
	case bytes.HasPrefix(head, []byte("#!")):
		if bytes.IndexByte(head, '\n') > 0 || n == len(head) && size > 256 {
			return headerWhole
		}
	case bytes.HasPrefix(head, []byte("\x7fELF")):
		return headerOfELF(f, head, size)
	case n >= 4 && slices.Contains(machO, binary.LittleEndian.Uint32(head)):
		return headerWhole
	}
	return headerOdd
}

var machO = []uint32{0xfeedface, 0xfeedfacf, 0xbebafeca} // 32 and 64 bits, universal

// headerOfELF wants all that the headers speak of to be there (elf(5)). Sections are not needed to run it, and
// what packs programs may leave nonsense about them.
func headerOfELF(f io.ReaderAt, head []byte, size int64) headerWord {
	if len(head) < 64 {
		return headerBroken
	}
	var order binary.ByteOrder = binary.LittleEndian
	if head[5] == 2 {
		order = binary.BigEndian
	}
	half := func(at int) int64 { return int64(order.Uint16(head[at:])) }
	var phoff, shoff, phsize, phnum, shsize, shnum int64
	wide := head[4] == 2
	if wide {
		phoff, shoff = int64(order.Uint64(head[32:])), int64(order.Uint64(head[40:]))
		phsize, phnum, shsize, shnum = half(54), half(56), half(58), half(60)
	} else {
		phoff, shoff = int64(order.Uint32(head[28:])), int64(order.Uint32(head[32:]))
		phsize, phnum, shsize, shnum = half(42), half(44), half(46), half(48)
	}
	switch {
	case phsize < 32 || wide && phsize < 56 || phoff < 0:
		return headerOdd
	case phoff+phsize*phnum > size:
		return headerBroken
	}
	table := make([]byte, phsize*phnum)
	if _, err := f.ReadAt(table, phoff); err != nil {
		return headerBroken
	}
	switch {
	case !loads(table, int(phsize), size, order, wide):
		return headerBroken
	case shoff+shsize*shnum > size:
		return headerOdd
	}
	return headerWhole
}

// loads tells whether all segments that are to be loaded are in a file of that size.
func loads(table []byte, entry int, size int64, order binary.ByteOrder, wide bool) bool {
	for ; len(table) > 0; table = table[entry:] {
		var end int64
		if wide {
			end = int64(order.Uint64(table[8:]) + order.Uint64(table[32:]))
		} else {
			end = int64(order.Uint32(table[4:])) + int64(order.Uint32(table[16:]))
		}
		if order.Uint32(table) == 1 && (end < 0 || end > size) { // PT_LOAD
			return false
		}
	}
	return true
}
