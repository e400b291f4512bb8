package main

import (
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
	"unicode"
	"unicode/utf8"

	"golang.org/x/sys/unix"
)

const readyPatience = 10 * time.Second // of every wait here

// readyInbox is a supervisor that takes notices when the test wants them.
type readyInbox chan notice

func (in readyInbox) post(n notice, done <-chan struct{}) bool {
	select {
	case in <- n:
		return true
	case <-done:
		return false
	}
}

func (in readyInbox) next(t *testing.T) notice {
	t.Helper()
	select {
	case n := <-in:
		return n
	case <-time.After(readyPatience):
		t.Fatal("no notice came")
		return notice{}
	}
}

// shortDir is a directory whose path leaves room for a socket's.
func shortDir(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hw")
	if err == nil {
		err = os.Chmod(dir, 0o755)
	}
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	dir, err = filepath.EvalSymlinks(dir)
	if err != nil {
		t.Fatal(err)
	}
	return dir
}

func newNotifyDir(t *testing.T, uid, gid int) *notifyDir {
	t.Helper()
	d, err := tryNotifyDir(shortDir(t), uid, gid)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(d.close)
	return d
}

func newNotifySocket(t *testing.T, post poster) *notifySocket {
	t.Helper()
	s, err := newNotifyDir(t, -1, -1).listen(post)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		select {
		case <-s.done: // stopped by the test
		default:
			s.stop()
		}
	})
	return s
}

// tell sends messages to a notify socket, with descriptors if there are any, and waits as long as the queue is full.
func tell(t *testing.T, path, text string, fds ...int) {
	t.Helper()
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_DGRAM, 0)
	if err != nil {
		t.Error(err)
		return
	}
	defer unix.Close(fd)
	unix.CloseOnExec(fd)
	var oob []byte
	if len(fds) > 0 {
		oob = unix.UnixRights(fds...)
	}
	if err := unix.Sendmsg(fd, []byte(text), oob, &unix.SockaddrUnix{Name: path}, 0); err != nil {
		t.Errorf("cannot send %.40q: %v", text, err)
	}
}

// hungUp waits for at most patience until the write end of r's pipe is closed everywhere.
func hungUp(r int, patience time.Duration) bool {
	fds := []unix.PollFd{{Fd: int32(r)}}
	for {
		n, err := unix.Poll(fds, int(patience.Milliseconds()))
		if err != unix.EINTR {
			return n == 1 && fds[0].Revents&unix.POLLHUP != 0
		}
	}
}

func readyTestPipe(t *testing.T) (r, w int) {
	t.Helper()
	var p [2]int
	if err := unix.Pipe(p[:]); err != nil {
		t.Fatal(err)
	}
	unix.CloseOnExec(p[0])
	unix.CloseOnExec(p[1])
	t.Cleanup(func() { unix.Close(p[0]) })
	return p[0], p[1]
}

func openDescriptors(t *testing.T) int {
	t.Helper()
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Skip("cannot count descriptors here")
	}
	return len(entries)
}

func TestParseNotify(t *testing.T) {
	base := notice{uid: -1, by: "notify"}
	with := func(change func(*notice)) notice { n := base; change(&n); return n }
	for _, c := range []struct {
		text string
		want notice
	}{
		{"READY=1", with(func(n *notice) { n.ready = true })},
		{"READY=1\n", with(func(n *notice) { n.ready = true })},
		{"READY=1\x00", with(func(n *notice) { n.ready = true })},
		{"X_FOO=1\r\n\n\nREADY=1\r\n", with(func(n *notice) { n.ready = true })},
		{"READY=0", base},
		{"READY=11", base},
		{" READY=1", base},
		{"ready=1", base},
		{"RELOADING=1\nMONOTONIC_USEC=5", with(func(n *notice) { n.reloading = true })},
		{"RELOADING=1\nREADY=1", with(func(n *notice) { n.ready = true })},
		{"READY=1\nSTOPPING=1\nRELOADING=1", with(func(n *notice) { n.stopping = true })},
		{"WATCHDOG=1", with(func(n *notice) { n.watchdog = true })},
		{"WATCHDOG=trigger", with(func(n *notice) { n.watchdogTrigger = true })},
		{"BARRIER=1", with(func(n *notice) { n.barrier = true })},
		{"STATUS=a\x1b[31mb\tc\xffd\u202ee\u2028f\u0085", with(func(n *notice) { n.status = "a[31mbc\ufffddef" })},
		{"STATUS=one\nSTATUS=two", with(func(n *notice) { n.status = "one" })},
		{"STATUS=" + strings.Repeat("ä", 300), with(func(n *notice) { n.status = strings.Repeat("ä", 256) })},
		{"STATUS=x" + strings.Repeat("ä", 300), with(func(n *notice) { n.status = "x" + strings.Repeat("ä", 255) })},
		{"MAINPID=4711\nERRNO=2", with(func(n *notice) { n.mainPID, n.errno = 4711, 2 })},
		{"MAINPID=-1\nERRNO=99999999999", base},
		{"MAINPID=0x10\nERRNO= 2", base},
		{"EXTEND_TIMEOUT_USEC=1500000", with(func(n *notice) { n.extend = 1500 * time.Millisecond })},
		{"EXTEND_TIMEOUT_USEC=18446744073709551615", with(func(n *notice) { n.extend = maxExtend })},
		{"EXTEND_TIMEOUT_USEC=18446744073709551616", base},
		{"WATCHDOG_USEC=9223372036854775807", with(func(n *notice) { n.watchdogUSec = maxExtend })},
		{"WATCHDOG_USEC=-5", base},
		{strings.Repeat("a", 4088) + "\nREADY=1", with(func(n *notice) { n.ready = true })},
	} {
		if got, err := parseNotify([]byte(c.text)); err != nil || got != c.want {
			t.Errorf("parseNotify(%.60q) = %+v, %v, want %+v", c.text, got, err, c.want)
		}
	}
	for _, bad := range []string{
		"", "\x00", "READY=1\x00\x00", "READY\x00=1", strings.Repeat("a", 4089) + "\nREADY=1",
		"BARRIER=1\nREADY=1", "X_A=1\nBARRIER=1", "BARRIER=1\nBARRIER=1",
	} {
		if got, err := parseNotify([]byte(bad)); err == nil {
			t.Errorf("parseNotify(%.60q) = %+v, want an error", bad, got)
		}
	}
}

func FuzzParseNotify(f *testing.F) {
	for _, seed := range []string{
		"READY=1", "STATUS=\xff\x1b[2J\nMAINPID=9", "BARRIER=1", "EXTEND_TIMEOUT_USEC=18446744073709551615\nSTOPPING=1", "A\x00B",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		n, err := parseNotify(b)
		if err != nil {
			return
		}
		states := 0
		for _, set := range []bool{n.ready, n.reloading, n.stopping} {
			if set {
				states++
			}
		}
		switch {
		case len(b) == 0 || len(b) > maxDatagram || bytes.IndexByte(b[:len(b)-1], 0) >= 0:
			t.Errorf("taken: %q", b)
		case states > 1 || n.barrier && n != (notice{barrier: true, uid: -1, by: "notify"}):
			t.Errorf("contradicts itself: %+v", n)
		case !utf8.ValidString(n.status) || len(n.status) > maxStatus || strings.ContainsFunc(n.status, unicode.IsControl):
			t.Errorf("bad status %q", n.status)
		case n.extend < 0 || n.extend > maxExtend || n.watchdogUSec < 0 || n.watchdogUSec > maxExtend:
			t.Errorf("bad time: %+v", n)
		case n.mainPID < 0 || n.errno < 0 || n.pid != 0 || n.uid != -1 || n.by != "notify":
			t.Errorf("bad number or sender: %+v", n)
		}
	})
}

// TestReadySender is no test but what the tests below start: another process that sends one message, or one ack.
func TestReadySender(t *testing.T) {
	switch path, text := os.Getenv("READY_TEST_PATH"), os.Getenv("READY_TEST_TEXT"); {
	case path == "":
		t.Skip("only for other tests")
	case strings.HasPrefix(text, "{"):
		conn, err := net.Dial("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		fmt.Fprintf(conn, "%s\n", text)
		io.Copy(io.Discard, conn)
	default:
		tell(t, path, text)
	}
}

// runSender sends text to path from another process and returns its pid.
func runSender(t *testing.T, path, text string) int {
	t.Helper()
	cmd := exec.Command(os.Args[0], "-test.run=^TestReadySender$")
	cmd.Env = append(os.Environ(), "READY_TEST_PATH="+path, "READY_TEST_TEXT="+text)
	if out, err := cmd.CombinedOutput(); err != nil {
		t.Errorf("the sender failed: %v\n%s", err, out)
	}
	return cmd.Process.Pid
}

// A message carries the sender that the kernel names, not the one that the message does; so does an ack.
func TestNotifySender(t *testing.T) {
	in := make(readyInbox, 4)
	s := newNotifySocket(t, in.post)
	tell(t, s.path, "READY=1\nSTATUS=up\nMAINPID=1")
	want := notice{ready: true, status: "up", mainPID: 1, pid: os.Getpid(), uid: os.Geteuid(), by: "notify"}
	if runtime.GOOS != "linux" {
		want.pid, want.uid = 0, -1
	}
	if got := in.next(t); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
	pid := runSender(t, s.path, "READY=1")
	if got := in.next(t); runtime.GOOS == "linux" && (got.pid != pid || !got.ready) {
		t.Errorf("got %+v, want pid %d", got, pid)
	}
	pid = runSender(t, s.ackPath, `{"command":"worker:ack","pid":77}`)
	want = notice{ready: true, mainPID: 77, pid: pid, uid: os.Geteuid(), by: "ack"}
	if runtime.GOOS != "linux" {
		want.pid, want.uid = 0, -1
	}
	if got := in.next(t); got != want {
		t.Errorf("got %+v, want %+v", got, want)
	}
}

func TestNotifyOrder(t *testing.T) {
	in := make(readyInbox)
	s := newNotifySocket(t, in.post)
	go func() {
		for i := range 200 {
			tell(t, s.path, fmt.Sprintf("STATUS=%d", i+1))
		}
	}()
	for i := range 200 {
		if got := in.next(t); got.status != strconv.Itoa(i+1) {
			t.Fatalf("status %q, want %d", got.status, i+1)
		}
	}
}

// The descriptor of BARRIER=1 stays open until all that was sent before, and the barrier itself, is taken.
func TestNotifyBarrier(t *testing.T) {
	r, w := readyTestPipe(t)
	in := make(readyInbox)
	tooEarly := make(chan string, 8)
	s := newNotifySocket(t, func(n notice, done <-chan struct{}) bool {
		if hungUp(r, 0) {
			tooEarly <- fmt.Sprintf("closed before %+v was taken", n)
		}
		return in.post(n, done)
	})
	tell(t, s.path, "STATUS=early")
	tell(t, s.path, "READY=1")
	tell(t, s.path, "BARRIER=1", w)
	unix.Close(w)
	if n := in.next(t); n.status != "early" {
		t.Errorf("first came %+v", n)
	}
	if n := in.next(t); !n.ready {
		t.Errorf("second came %+v", n)
	}
	if n := in.next(t); !n.barrier {
		t.Errorf("third came %+v", n)
	}
	if !hungUp(r, readyPatience) {
		t.Error("the barrier was never lifted")
	}
	select {
	case what := <-tooEarly:
		t.Error(what)
	default:
	}
}

func TestNotifyJunk(t *testing.T) {
	in := make(readyInbox)
	s := newNotifySocket(t, in.post)
	r, w := readyTestPipe(t)
	for _, junk := range []string{"", "\x00", "READY=1\x00READY=1", strings.Repeat("x", 4089) + "\nREADY=1", strings.Repeat("READY=1\n", 9000), "X_A=1", "="} {
		tell(t, s.path, junk, w)
	}
	tell(t, s.path, "BARRIER=1")
	tell(t, s.path, "BARRIER=1", w, w)
	tell(t, s.path, "BARRIER=1\nREADY=1", w)
	unix.Close(w)
	if !hungUp(r, readyPatience) {
		t.Error("a descriptor of a dropped message stays open")
	}
	tell(t, s.path, "READY=1\nSTATUS=good")
	if n := in.next(t); n.status != "good" {
		t.Errorf("got %+v, want the good one", n)
	}
}

// Under a flood of a thousand, from several senders at once, nothing is lost.
func TestNotifyFlood(t *testing.T) {
	in := make(readyInbox)
	s := newNotifySocket(t, in.post)
	for sender := range 4 {
		go func() {
			for i := range 250 {
				text := fmt.Sprintf("STATUS=%d", i)
				if sender == 2 && i == 125 {
					text = "READY=1"
				}
				tell(t, s.path, text)
			}
		}()
	}
	ready := 0
	for range 1000 {
		if in.next(t).ready {
			ready++
		}
	}
	if ready != 1 {
		t.Errorf("READY came %d times", ready)
	}
}

func TestNotifyDescriptorsClosed(t *testing.T) {
	in := make(readyInbox, 100)
	s := newNotifySocket(t, in.post)
	_, w := readyTestPipe(t)
	tell(t, s.path, "STATUS=0") // everything that is opened once is open then
	in.next(t)
	before := openDescriptors(t)
	for range 20 {
		tell(t, s.path, "FDSTORE=1\nSTATUS=x", slices.Repeat([]int{w}, maxPassed)...)
		tell(t, s.path, "FDSTORE=1", w)
	}
	tell(t, s.path, "READY=1")
	for !in.next(t).ready {
	}
	if after := openDescriptors(t); after > before { // an earlier test may still be closing some
		t.Errorf("%d descriptors open, %d before", after, before)
	}
	unix.Close(w)
}

// stop ends a post that nobody takes, hands back what was in it and what the kernel had queued, and removes the sockets.
func TestNotifyStop(t *testing.T) {
	entered, calls := make(readyInbox, 100), 0
	s := newNotifySocket(t, func(n notice, done <-chan struct{}) bool {
		calls++
		entered <- n
		<-done
		return false
	})
	r, w := readyTestPipe(t)
	tell(t, s.path, "STATUS=1")
	entered.next(t)
	tell(t, s.path, "STATUS=2", w)
	tell(t, s.path, "READY=1", w)
	unix.Close(w)
	left := s.stop()
	if len(left) != 3 || left[0].status != "1" || left[1].status != "2" || !left[2].ready || calls != 1 {
		t.Errorf("after %d calls, left: %+v", calls, left)
	}
	if !hungUp(r, readyPatience) {
		t.Error("descriptors stay open")
	}
	for _, path := range []string{s.path, s.ackPath} {
		if _, err := os.Lstat(path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("%q is still there: %v", path, err)
		}
	}
}

func TestNotifySystemdNotify(t *testing.T) {
	path, err := exec.LookPath("systemd-notify")
	if err != nil {
		t.Skip("no systemd-notify here")
	}
	in := make(readyInbox, 8)
	s := newNotifySocket(t, in.post)
	cmd := exec.Command(path, "--ready", "--status=it works")
	cmd.Env = append(os.Environ(), "NOTIFY_SOCKET="+s.path)
	if out, err := cmd.CombinedOutput(); err != nil { // it waits for its BARRIER
		t.Errorf("systemd-notify: %v\n%s", err, out)
	}
	if n := in.next(t); !n.ready || n.status != "it works" {
		t.Errorf("got %+v", n)
	}
}

func TestReadyPipe(t *testing.T) {
	in := make(readyInbox, 4)
	w, pipe, err := openReadyPipe(in.post)
	if err != nil {
		t.Fatal(err)
	}
	if flags, _ := unix.FcntlInt(uintptr(w), unix.F_GETFD, 0); flags&unix.FD_CLOEXEC == 0 {
		t.Error("the write end would leak into every program")
	}
	if flags, _ := unix.FcntlInt(uintptr(w), unix.F_GETFL, 0); flags&unix.O_NONBLOCK != 0 {
		t.Error("the write end does not block")
	}
	for range 256 {
		if _, err := unix.Write(w, make([]byte, 4096)); err != nil {
			t.Fatal(err)
		}
	}
	unix.Write(w, []byte("\nand more\n"))
	if n := in.next(t); n != (notice{ready: true, uid: -1, by: "fd"}) {
		t.Errorf("got %+v", n)
	}
	unix.Write(w, []byte("\n\n"))
	unix.Close(w)
	if left := pipe.stop(); len(left) != 0 || len(in) != 0 {
		t.Errorf("told twice: %+v", left)
	}
}

func TestReadyPipeEOF(t *testing.T) {
	in := make(readyInbox, 4)
	w, pipe, err := openReadyPipe(in.post)
	if err != nil {
		t.Fatal(err)
	}
	unix.Write(w, []byte("no newline"))
	unix.Close(w)
	if left := pipe.stop(); len(left) != 0 || len(in) != 0 {
		t.Errorf("told without a newline: %+v", left)
	}
}

// A newline that nobody took, or that nobody had read yet, is handed back by stop.
func TestReadyPipeStop(t *testing.T) {
	for range 100 {
		w, pipe, err := openReadyPipe(func(_ notice, done <-chan struct{}) bool { <-done; return false })
		if err != nil {
			t.Fatal(err)
		}
		unix.Write(w, []byte("\n"))
		if left := pipe.stop(); len(left) != 1 || !left[0].ready {
			t.Fatalf("left: %+v", left)
		}
		unix.Close(w)
	}
}
