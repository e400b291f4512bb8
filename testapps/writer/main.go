// Command writer puts SRC in the place of FILE, an executable, as slow or odd tools do:
//
//	writer chunks FILE SRC [PAUSE]   in place, with a PAUSE between the chunks
//	writer range FILE SRC [PAUSE]    the same, by copy_file_range(2)
//	writer keep FILE SRC [PAUSE]     the same, but the old content is not cut off first
//	writer create FILE SRC [PAUSE]   the old file is removed first
//	writer reopen FILE SRC [PAUSE]   created anew, opened and closed for each chunk, executable at the end
//	writer mmap FILE SRC [PAUSE]     created anew at full size, then written through a mapping
//	writer rename FILE SRC           at one stroke
//	writer rename FILE SRC,SRC [PAUSE]   and again, with a PAUSE between them
//
// PAUSE is a time, or a fifo: then it tells the service manager how many parts are written, and goes on when a
// line comes from there.
package main

import (
	"bufio"
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"hotwrap/testapps/internal/app"
)

const chunks = 4

func main() {
	app.Lifeline()
	if len(os.Args) < 4 {
		app.Fail(errors.New("usage: writer HOW FILE SRC[,SRC] [PAUSE]"))
	}
	how, file, srcs := os.Args[1], os.Args[2], strings.Split(os.Args[3], ",")
	pause, err := pauses(cmp.Or(strings.Join(os.Args[4:], ""), "0s"))
	var contents [][]byte
	for _, src := range srcs {
		content, readErr := os.ReadFile(src)
		contents, err = append(contents, content), cmp.Or(err, readErr)
	}
	if err == nil {
		err = write(how, file, contents, pause)
	}
	if err != nil {
		app.Fail(err)
	}
}

// pauses makes what happens between the parts.
func pauses(text string) (func() error, error) {
	if d, err := time.ParseDuration(text); err == nil {
		return func() error { time.Sleep(d); return nil }, nil
	}
	fifo, err := os.OpenFile(text, os.O_RDWR, 0) // for writing too, so that it never ends
	if err != nil {
		return nil, err
	}
	lines, parts := bufio.NewReader(fifo), 0
	return func() error {
		parts++
		app.Notify(fmt.Sprintf("STATUS=%d of the parts are written", parts))
		_, err := lines.ReadString('\n')
		return err
	}, nil
}

func write(how, file string, contents [][]byte, pause func() error) error {
	switch how {
	case "chunks":
		return inPlace(file, os.O_TRUNC, contents[0], pause)
	case "range":
		return inRanges(file, os.Args[3], contents[0], pause)
	case "keep":
		return inPlace(file, 0, contents[0], pause)
	case "create":
		return cmp.Or(os.Remove(file), inPlace(file, os.O_CREATE|os.O_EXCL, contents[0], pause))
	case "reopen":
		return reopen(file, contents[0], pause)
	case "mmap":
		return mapped(file, contents[0], pause)
	case "rename":
		return rename(file, contents, pause)
	}
	return fmt.Errorf("no such way to write: %q", how)
}

// each gives the parts of content, with a pause between them.
func each(content []byte, pause func() error, write func(at int, part []byte) error) error {
	size := len(content)/chunks + 1
	for at := 0; at < len(content); at += size {
		if at > 0 {
			if err := pause(); err != nil {
				return err
			}
		}
		if err := write(at, content[at:min(at+size, len(content))]); err != nil {
			return err
		}
	}
	return nil
}

func inPlace(file string, flags int, content []byte, pause func() error) error {
	f, err := os.OpenFile(file, os.O_WRONLY|flags, 0o755)
	if err != nil {
		return err
	}
	err = each(content, pause, func(_ int, part []byte) error {
		_, err := f.Write(part)
		return err
	})
	if flags == 0 { // what was longer
		err = cmp.Or(err, f.Truncate(int64(len(content))))
	}
	return cmp.Or(err, f.Close())
}

func inRanges(file, src string, content []byte, pause func() error) error {
	from, err := os.Open(src)
	if err != nil {
		return err
	}
	defer from.Close()
	f, err := os.OpenFile(file, os.O_WRONLY|os.O_TRUNC, 0o755)
	if err != nil {
		return err
	}
	err = each(content, pause, func(_ int, part []byte) error {
		for left := len(part); left > 0; {
			n, err := copyRange(int(from.Fd()), int(f.Fd()), left)
			if err != nil || n == 0 {
				return cmp.Or(err, io.ErrUnexpectedEOF)
			}
			left -= n
		}
		return nil
	})
	return cmp.Or(err, f.Close())
}

func reopen(file string, content []byte, pause func() error) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	err := each(content, pause, func(_ int, part []byte) error {
		f, err := os.OpenFile(file, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o644)
		if err != nil {
			return err
		}
		_, err = f.Write(part)
		return cmp.Or(err, f.Close())
	})
	return cmp.Or(err, pause(), os.Chmod(file, 0o755))
}

func mapped(file string, content []byte, pause func() error) error {
	if err := os.Remove(file); err != nil {
		return err
	}
	f, err := os.OpenFile(file, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o755)
	if err != nil {
		return err
	}
	if err := f.Truncate(int64(len(content))); err != nil {
		return err
	}
	memory, err := unix.Mmap(int(f.Fd()), 0, len(content), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return err
	}
	err = each(content, pause, func(at int, part []byte) error {
		copy(memory[at:], part)
		return nil
	})
	return cmp.Or(err, unix.Munmap(memory), f.Close())
}

// rename writes all of them aside first, so that nothing but the pause lies between them.
func rename(file string, contents [][]byte, pause func() error) error {
	aside := func(i int) string { return fmt.Sprintf("%s.aside%d", file, i) }
	for i, content := range contents {
		if err := os.WriteFile(aside(i), content, 0o755); err != nil {
			return err
		}
	}
	for i := range contents {
		if i > 0 {
			if err := pause(); err != nil {
				return err
			}
		}
		if err := os.Rename(aside(i), file); err != nil {
			return err
		}
	}
	return nil
}
