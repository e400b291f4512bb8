package main

// This file is how one hotwrap becomes another in place (execve(2)): what goes along, and who is asked before.
//
// Its rules:
//   - The state travels in a memfd, named by an environment variable that holds for this very process only.
//   - Signals are blocked while hotwrap leaves, and what came meanwhile goes along. From the exec until the first thing that the
//     new one does they are ignored: the Go runtime unblocks them before that.
//   - Whatever goes wrong after the sources were stopped leads back into the executable that ran before: it stays open.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"os/signal"
	"strconv"
	"strings"
	"syscall"
	"time"
	"unsafe"

	"hotwrap/early"

	"golang.org/x/sys/unix"
)

const (
	resumeMark  = "_resume"       // the first argument of a hotwrap that is asked whether it could take over
	resumeFD    = 3               // the state's descriptor in who is asked
	answerLong  = 4096            // bytes of its answer
	stateLong   = 64 << 20        // bytes of a state
	leaveLimit  = 5 * time.Second // for what must not be interrupted, and what is to be written out, once the sources are stopped
	agreedReply = "ok"
)

// ownPath is where this hotwrap was found, by its logical name: another one will be where that leads to then. "" if it is
// no longer there.
func ownPath(argv0 string, environ []string) string {
	dir, err := os.Getwd()
	if err != nil {
		return ""
	}
	path, err := (&program{dir: dir}).find(argv0, environ)
	if err == nil && sameFile(path, selfPath) {
		return path
	}
	if path, err = os.Executable(); err == nil && sameFile(path, selfPath) {
		return path
	}
	return ""
}

// propose asks the hotwrap that lies on disk whether it could take over; evProposed has the answer.
func (h *host) propose(s *state, number int) (int, error) {
	if h.self == "" {
		return 0, errors.New("it is not known where hotwrap was found")
	}
	memory, err := openMemory()
	if err != nil {
		return 0, err
	}
	defer unix.Close(memory)
	if err := h.write(memory, &written{State: *s, Closed: h.closed}); err != nil {
		return 0, err
	}
	read, write, err := openPipe("answer")
	if err != nil {
		return 0, err
	}
	defer unix.Close(write)
	files := []uintptr{0, uintptr(write), uintptr(write), uintptr(memory)} // the command line may ask for a terminal
	pid, err := syscall.ForkExec(h.self, []string{"hotwrap", resumeMark}, &syscall.ProcAttr{
		Env: h.program.base, Files: files, Sys: &syscall.SysProcAttr{Setpgid: true},
	})
	if err != nil {
		_ = read.Close()
		return 0, fmt.Errorf("cannot start %q: %w", h.self, limitedStart(err))
	}
	go func() {
		text, _ := io.ReadAll(io.LimitReader(read, answerLong))
		_ = read.Close()
		h.post(event{kind: evProposed, number: number, err: answerOf(h.self, string(text))})
	}()
	return pid, nil
}

// answerOf is what keeps the new hotwrap from taking over, by its own words.
func answerOf(path, text string) error {
	text, _, _ = strings.Cut(strings.TrimSpace(text), "\n")
	switch text = strings.TrimPrefix(text, "hotwrap: error: "); text {
	case agreedReply:
		return nil
	case "":
		return fmt.Errorf("%q ended without an answer", path)
	}
	return fmt.Errorf("%q says: %s", path, oneLine(text, messageMost))
}

// resumeMain answers whether this hotwrap could take over.
func resumeMain(stdout io.Writer) int {
	w, err := readState(resumeFD)
	var cfg *config
	if err == nil {
		cfg, err = w.config()
	}
	if err == nil {
		_, err = newProgram(cfg, os.Environ())
	}
	if err != nil {
		_, _ = fmt.Fprintln(stdout, err)
		return statusFailed
	}
	_, _ = fmt.Fprintln(stdout, agreedReply)
	return 0
}

// config is the command line as this hotwrap understands it.
func (w *written) config() (*config, error) {
	if len(w.Args) == 0 {
		return nil, errors.New("cannot read the state: it has no command line")
	}
	cfg, err := parseArgs(w.Args[1:], os.Environ())
	if err == nil && cfg.mode != modeServe {
		err = errors.New("cannot take over: the command line is understood differently")
	}
	return cfg, err
}

// openMemory makes the file in memory in which the state travels.
func openMemory() (int, error) {
	fd, err := unix.MemfdCreate("hotwrap-state", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, fmt.Errorf("cannot make room for the state: %w", err)
	}
	return fd, nil
}

// write puts w into memory.
func (h *host) write(memory int, w *written) error {
	w.Version, w.Hotwrap, w.Args, w.Self, w.Since = writtenVersion, versionText(), os.Args, h.self, h.since
	text, err := w.encode(h.before)
	for err == nil && len(text) > 0 {
		var n int
		if n, err = unix.Write(memory, text); err != nil {
			return fmt.Errorf("cannot write the state: %w", err)
		}
		text = text[n:]
	}
	return err
}

// readState reads what write wrote; the descriptor stays open. With an error comes what is needed to go back.
func readState(fd int) (*written, error) {
	var st unix.Stat_t
	if err := unix.Fstat(fd, &st); err != nil {
		return &written{}, fmt.Errorf("cannot read the state: %w", err)
	}
	if st.Size > stateLong {
		return &written{}, fmt.Errorf("cannot read the state: it has %d bytes", st.Size)
	}
	text := make([]byte, st.Size)
	for got := 0; got < len(text); {
		n, err := unix.Pread(fd, text[got:], int64(got))
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF
		}
		if err != nil {
			return &written{}, fmt.Errorf("cannot read the state: %w", err)
		}
		got += n
	}
	return decode(text)
}

// depart makes the hotwrap that lies on disk go on in the place of this one. If it returns, nothing has changed, unless the
// error is a strandedError.
func (h *host) depart(s *supervisor) error {
	back, err := unix.Open(selfPath, unix.O_PATH|unix.O_CLOEXEC, 0)
	if err != nil {
		return fmt.Errorf("cannot open %s: %w", selfPath, err)
	}
	memory, err := openMemory()
	if err == nil {
		if err = unix.Access(h.self, unix.X_OK); err != nil {
			err = fmt.Errorf("cannot execute %q: %w", h.self, err)
		}
	}
	if err != nil {
		_ = unix.Close(back)
		_ = unix.Close(memory) // no harm if it is none
		return err
	}
	limit, cancel := context.WithTimeout(context.Background(), leaveLimit)
	defer cancel()
	left := clock()
	h.quiesce(limit, s)
	b := &baggage{}
	w := h.carry(limit, s, b)
	w.Left = carriedLeft{left, versionText()}
	w.Back = b.keep(back)
	w.Kept = b.fds
	if err = h.write(memory, w); err == nil {
		err = w.goBack(memory, fmt.Errorf("cannot execute %q: %w", h.self, w.exec(h.self, memory, "")))
	}
	return &strandedError{err}
}

// quiesce stops every source, and lets the supervisor act on what they had read, until nothing is half done.
func (h *host) quiesce(limit context.Context, s *supervisor) {
	h.stopping(s, func() {
		if h.control != nil {
			h.control.leave()
		}
		if h.watcher != nil {
			h.watcher.stop()
		}
	})
	h.traffic.unwatch()
	if h.unkey != nil {
		for _, ev := range h.unkey() {
			h.act(s, ev)
		}
	}
	for _, ev := range append(h.holdSignals(), h.orphans.stop()...) {
		h.act(s, ev)
	}
	for {
		heard := h.hush()
		for _, ev := range heard {
			h.act(s, ev)
		}
		switch {
		case len(heard) > 0: // a worker may have been started
			continue
		case !s.occupied():
			close(h.done)
			return
		}
		select {
		case ev := <-h.events:
			h.act(s, ev)
		case <-limit.Done():
			close(h.done)
			return
		}
	}
}

// stopping lets the supervisor act on what is posted until those who post have ended.
func (h *host) stopping(s *supervisor, stop func()) {
	ended := make(chan struct{})
	go func() {
		stop()
		close(ended)
	}()
	for {
		select {
		case ev := <-h.events:
			h.act(s, ev)
		case <-ended:
			return
		}
	}
}

// act lets one event act, as run does.
func (h *host) act(s *supervisor, ev event) {
	s.step(ev)
	h.note(s, ev)
}

// carry collects what goes along.
func (h *host) carry(limit context.Context, s *supervisor, b *baggage) *written {
	w := &written{State: s.state, Closed: h.closed, Store: h.store.carry(), Ears: map[int]carriedEars{}, Said: carriedSaid{Deprives: h.deprives, Lost: h.printer.lost, NoHup: h.nohup}, Orphans: h.orphans.carry()}
	for _, img := range s.images() {
		w.Images = append(w.Images, img.carry(b))
	}
	if !h.closed {
		w.Traffic = h.traffic.carry(b)
	}
	if h.notify != nil {
		w.Notify = h.notify.carry(b)
	}
	for serial, e := range h.ears {
		w.Ears[serial] = e.carry(b)
	}
	if h.place != nil {
		w.Place = h.place.carry(b)
	}
	if h.pidFile != nil {
		w.PIDFile = h.pidFile.carry(b)
	}
	if h.http != nil {
		w.HTTP = carryListener(b, h.http)
	}
	w.Watch = h.watcher.carry()
	h.hub = nil
	_ = h.upward.close()
	h.printer.close()
	w.Outputs = h.out.carry(b, limit)
	return w
}

// exec becomes path, with what was kept and the state; refused is why the one that was to go on cannot. It returns only if
// that fails.
func (w *written) exec(path string, memory int, refused string) error {
	for _, fd := range append(w.Kept, memory) {
		if _, err := unix.FcntlInt(uintptr(fd), unix.F_SETFD, 0); err != nil {
			return fmt.Errorf("cannot keep descriptor %d: %w", fd, err)
		}
	}
	late := strings.Join(append(w.late, heldSignals()...), ",")
	env := setenv(os.Environ(), early.Resume, fmt.Sprintf("%d:%d:%s:%s", memory, os.Getpid(), late, refused))
	return syscall.Exec(path, w.Args, env)
}

// goBack becomes the hotwrap that was there before, which goes on and says why. It returns if even that fails: then
// nothing is left to do, and the program goes on by itself.
func (w *written) goBack(memory int, cause error) error {
	err := w.exec("/proc/self/fd/"+strconv.Itoa(w.Back), memory, oneLine(cause.Error(), messageMost))
	return fmt.Errorf("cannot go on after a re-exec: %w; nor go back: %w", cause, err)
}

// resumed is the state of the hotwrap that this process was before; nil if it was none.
func resumed() (*takenOver, error) {
	text, ok := os.LookupEnv(early.Resume)
	_ = os.Unsetenv(early.Resume)
	parts := strings.SplitN(text, ":", 4)
	if !ok || len(parts) != 4 || parts[1] != strconv.Itoa(os.Getpid()) {
		return nil, nil
	}
	fd, err := strconv.Atoi(parts[0])
	if err != nil {
		return nil, nil //nolint:nilerr // nobody of ours has written it
	}
	unix.CloseOnExec(fd)
	w, err := readState(fd)
	for _, kept := range w.Kept {
		unix.CloseOnExec(kept)
	}
	for number := range strings.SplitSeq(parts[2], ",") {
		if n, err := strconv.Atoi(number); err == nil && len(w.late) < early.Room {
			w.late = append(w.late, strconv.Itoa(n))
		}
	}
	return &takenOver{written: w, memory: fd, refused: parts[3]}, err
}

// hear has the signals acted on that came while nobody could.
func (t *takenOver) hear(caught chan<- os.Signal) {
	for _, number := range t.late {
		n, _ := strconv.Atoi(number)
		select {
		case caught <- syscall.Signal(n):
		default: // it was one of very many
		}
	}
}

// forget lets go of the way back, and of what was written.
func (t *takenOver) forget() {
	_ = unix.Close(t.memory)
	_ = unix.Close(t.Back)
}

// ourSignals is the set of early.Signals.
func ourSignals() *unix.Sigset_t {
	var set unix.Sigset_t
	for _, sig := range early.Signals {
		if n, ok := sig.(syscall.Signal); ok {
			set.Val[(n-1)/64] |= 1 << ((n - 1) % 64)
		}
	}
	return &set
}

// holdSignals keeps the signals of ours in the kernel from here on, and returns what was caught before. With cgo, as the race
// detector needs it, some threads still take them, and what comes from here to the exec is lost.
func (h *host) holdSignals() []event {
	set := ourSignals()
	_ = unix.PthreadSigmask(unix.SIG_BLOCK, set, nil)
	_, _, _ = syscall.AllThreadsSyscall6(unix.SYS_RT_SIGPROCMASK, unix.SIG_BLOCK, uintptr(unsafe.Pointer(set)), 0, 8, 0, 0)
	left := h.signals.stop()
	last := make(chan os.Signal, early.Room) // or the next line would give them back to the system
	signal.Notify(last, early.Signals...)
	signal.Stop(h.caught) // waits for those on their way
	for _, from := range []chan os.Signal{h.caught, last} {
		for len(from) > 0 {
			if ev, ok := h.heard(<-from); ok {
				left = append(left, ev)
			}
		}
	}
	return left
}

// heldSignals takes what has come since they are held, as numbers; those that come from here to the exec are lost if they
// would end a process, USR1, USR2, TTIN and TTOU wait on.
func heldSignals() (numbers []string) {
	set, none := ourSignals(), unix.Timespec{}
	for {
		n, _, errno := unix.RawSyscall6(unix.SYS_RT_SIGTIMEDWAIT, uintptr(unsafe.Pointer(set)), 0, uintptr(unsafe.Pointer(&none)), 8, 0, 0)
		if errno != 0 {
			break
		}
		numbers = append(numbers, strconv.Itoa(int(n)))
	}
	signal.Ignore(syscall.SIGHUP, syscall.SIGINT, syscall.SIGQUIT, syscall.SIGTERM)
	return numbers
}

// takeSignals lets the calling thread have signals of ours again, now that somebody listens to them.
func takeSignals() {
	var none unix.Sigset_t
	_ = unix.PthreadSigmask(unix.SIG_SETMASK, &none, nil)
}
