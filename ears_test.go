package main

// This file proves that nothing is lost of what workers say while hotwrap replaces itself: sources are hushed, carried and
// made again, many times, in one process. What an exec does to descriptors is done to them here.

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// execed leaves the descriptors of b as they are after an exec: open, and nobody's; but under other numbers, as what runs
// beside opens some, too. drop closes what had them.
func execed(t *testing.T, b *baggage, drop func()) (moved map[int]int) {
	t.Helper()
	moved = map[int]int{}
	for _, fd := range b.fds {
		n, err := unix.FcntlInt(uintptr(fd), unix.F_DUPFD_CLOEXEC, 200)
		if err != nil {
			t.Fatal(err)
		}
		moved[fd] = n
	}
	drop()
	return moved
}

// through is v as another hotwrap reads it, with the descriptors that have moved.
func through[T any](t *testing.T, v T, moved map[int]int) (read T) {
	t.Helper()
	var plain any
	text, err := json.Marshal(v)
	if err == nil {
		numbers := json.NewDecoder(bytes.NewReader(text))
		numbers.UseNumber() // a call has 64 bits
		err = numbers.Decode(&plain)
	}
	if err == nil {
		renumber(plain, moved)
		text, err = json.Marshal(plain)
	}
	if err == nil {
		err = json.Unmarshal(text, &read)
	}
	if err != nil {
		t.Fatal(err)
	}
	return read
}

// renumber puts the numbers that descriptors have now in the place of those they had.
func renumber(v any, moved map[int]int) {
	switch v := v.(type) {
	case []any:
		for _, of := range v {
			renumber(of, moved)
		}
	case map[string]any:
		for key, of := range v {
			renumber(of, moved)
			number, _ := of.(json.Number)
			fd, err := number.Int64()
			if n, known := moved[int(fd)]; err == nil && known && slices.Contains([]string{"fd", "notify", "acks", "pair", "base", "dir", "listener", "lock", "file", "http"}, key) {
				v[key] = n
			}
		}
	}
}

// hearingHost is a host that only listens to workers.
func hearingHost(t *testing.T) *host {
	t.Helper()
	return &host{events: make(chan event), done: make(chan struct{}), ears: map[int]ears{}, out: &outputs{}, notify: newNotifyDir(t, -1, -1), program: &program{ackFD: -1}}
}

// replaced is h after an exec, and what it had heard.
func (h *host) replaced(t *testing.T) (*host, []event) {
	t.Helper()
	left := h.hush()
	if again := h.hush(); len(again) > 0 {
		t.Errorf("hushed twice, it hands back %v", again)
	}
	b, w := &baggage{}, &written{Ears: map[int]carriedEars{}}
	w.Notify = h.notify.carry(b)
	for serial, e := range h.ears {
		w.Ears[serial] = e.carry(b)
	}
	moved := execed(t, b, func() {
		for _, e := range h.ears {
			if e.notify != nil {
				e.notify.messages.Close()
				e.notify.acks.Close()
				for _, c := range e.notify.clients {
					if c != nil {
						c.conn.Close()
					}
				}
			}
			for _, p := range []*hearing{e.pipe, e.acks} {
				if p != nil {
					p.file.Close()
				}
			}
		}
		h.notify.base.Close()
		h.notify.dir.Close()
	})
	w = through(t, w, moved)
	next := &host{events: make(chan event), done: h.done, ears: map[int]ears{}, out: &outputs{}, program: h.program}
	var err error
	if next.notify, err = restoreNotifyDir(w.Notify); err != nil {
		t.Fatal(err)
	}
	for serial, c := range w.Ears {
		if next.ears[serial], err = next.restoreEars(serial, c); err != nil {
			t.Fatal(err)
		}
	}
	next.settle(w)
	return next, left
}

// TestEarsCarried: whatever a worker says while hotwrap is replaced again and again is heard once, in order.
func TestEarsCarried(t *testing.T) {
	h := hearingHost(t)
	h.limits.ready, h.program.ackFD = readyFD, 9
	l := launch{ready: -1, ack: -1}
	e, err := h.listenTo(1, &l)
	if err != nil {
		t.Fatal(err)
	}
	e.report.Close()
	unix.Close(l.report)
	h.ears[1] = e
	path, ackPath := e.notify.path, e.notify.ackPath
	fds := 0

	const said = 400
	go func() {
		for i := range said {
			tell(t, path, fmt.Sprintf("STATUS=%d", i+1))
		}
	}()
	go func() {
		for i := range said {
			for _, piece := range []string{`{"command":"worker:ack",`, fmt.Sprintf("\"pid\":%d}\n", i+1)} {
				if _, err := unix.Write(l.ack, []byte(piece)); err != nil {
					t.Error(err)
				}
			}
		}
	}()
	go func() {
		for i := range said {
			conn, err := net.Dial("unix", ackPath)
			if err != nil {
				t.Error(err)
				return
			}
			fmt.Fprintf(conn, "command: worker:ack%%0A")
			fmt.Fprintf(conn, "pid: %d\n", i+1)
			if _, err := io.Copy(io.Discard, conn); err != nil { // it is closed when it is heard
				t.Errorf("ack %d: %v", i+1, err)
			}
			conn.Close()
		}
	}()
	unix.Write(l.ready, []byte("no"))

	var status, acks, dialed []int
	ready := 0
	hear := func(n notice) {
		switch {
		case n.by == "notify":
			var i int
			fmt.Sscan(n.status, &i)
			status = append(status, i)
		case n.by == "fd":
			ready++
		case n.uid < 0:
			acks = append(acks, n.mainPID)
		default:
			dialed = append(dialed, n.mainPID)
		}
	}
	for i := 0; len(status) < said || len(acks) < said || len(dialed) < said || ready < 1 || i < 50; i++ {
		if i == 25 {
			unix.Write(l.ready, []byte("w\nand more\n"))
		}
		for range i % 13 { // some of it is taken before the next
			select {
			case ev := <-h.events:
				hear(ev.notice)
			case <-time.After(20 * time.Millisecond):
			}
		}
		var left []event
		h, left = h.replaced(t)
		for _, ev := range left {
			hear(ev.notice)
		}
		if n := openDescriptors(t); i == 3 {
			fds = n
		} else if i > 3 && n > fds+10 { // the senders' own come and go
			t.Fatalf("%d descriptors after %d times, %d at first", n, i, fds)
		}
	}
	for _, heard := range [][]int{status, acks, dialed} {
		if len(heard) != said || !slices.IsSorted(heard) || heard[0] != 1 || heard[said-1] != said {
			t.Errorf("heard %d: %v", len(heard), heard)
		}
	}
	if ready != 1 {
		t.Errorf("%d times ready", ready)
	}
	if again, err := lockDirAt(int(h.notify.base.Fd()), filepath.Base(h.notify.path)); err == nil {
		again.Close()
		t.Error("the directory's lock was lost on the way")
	}
	h.close(h.ears[1])
	h.notify.close()
	unix.Close(l.ready)
	unix.Close(l.ack)
}

// TestNotifyRecovered: after a death the workers are heard again under the path that they know, whether the directory still
// lies there or was swept away; one that a living hotwrap has is not taken.
func TestNotifyRecovered(t *testing.T) {
	for _, swept := range []bool{false, true} {
		h := hearingHost(t)
		s, err := h.notify.listen(make(readyInbox).post)
		if err != nil {
			t.Fatal(err)
		}
		c, told := through(t, h.notify.carry(nil), nil), through(t, ears{notify: s}.carry(nil), nil)
		if _, err := recoverNotifyDir(c); err == nil || !strings.Contains(err.Error(), "another hotwrap has it") {
			t.Fatalf("a living one's: %v", err)
		}
		s.messages.Close() // it dies
		s.acks.Close()
		h.notify.dir.Close()
		if swept {
			other, err := tryNotifyDir(filepath.Dir(c.Path), -1, -1)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := os.Stat(c.Path); !errors.Is(err, os.ErrNotExist) {
				t.Fatalf("it was not swept away: %v", err)
			}
			other.close()
		}
		if h.notify, err = recoverNotifyDir(c); err != nil {
			t.Fatal(err)
		}
		checkMode(t, c.Path, 0o711, os.Geteuid(), os.Getegid())
		e, err := h.recoverEars(1, told)
		if err != nil {
			t.Fatal(err)
		}
		checkMode(t, told.Path, 0o600, os.Geteuid(), os.Getegid())
		go tell(t, told.Path, "STATUS=still here")
		if ev := <-h.events; ev.notice.status != "still here" || ev.serial != 1 {
			t.Errorf("heard %+v", ev)
		}
		h.close(e)
		h.notify.close()
		if _, err := os.Stat(c.Path); !errors.Is(err, os.ErrNotExist) {
			t.Errorf("left behind: %v", err)
		}
	}
	if _, err := recoverNotifyDir(carriedNotify{Path: shortDir(t), UID: -1, GID: -1}); err == nil {
		t.Error("any directory is taken over")
	}
}

// TestPlaceCarried: the name, its lock, the pid file and the control socket go along. Who connects between two hotwraps is
// answered by the second, and who was not answered by the first finds the connection cut.
func TestPlaceCarried(t *testing.T) {
	dir := shortDir(t)
	env := []string{"HOTWRAP_RUNTIME_DIR=" + filepath.Join(dir, "run")}
	place, err := openInstance(env, "web", "", "")
	if err != nil {
		t.Fatal(err)
	}
	pid, err := openPIDFile(filepath.Join(dir, "web.pid"))
	if err == nil {
		err = pid.publish()
	}
	if err != nil {
		t.Fatal(err)
	}
	web, err := listenHTTP("127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	asked := make(chan event, 1)
	c := newControl(func(ev event, _ <-chan struct{}) bool { asked <- ev; return true }, newHub(), facts{})
	c.serve(place.listener, -1, false)
	c.serve(web, -1, true)
	client := clientOver(func(ctx context.Context) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", place.path)
	})
	cut := make(chan error, 1)
	go func() {
		answer, err := client.Post("http://hotwrap/restart", "", nil)
		if err == nil {
			_, err = io.ReadAll(answer.Body)
			answer.Body.Close()
		}
		cut <- err
	}()
	<-asked
	c.leave()
	if err := <-cut; err == nil {
		t.Error("who was not answered takes that for an answer")
	}

	b, w := &baggage{}, &written{}
	w.Place, w.PIDFile, w.HTTP = place.carry(b), pid.carry(b), carryListener(b, web)
	between, err := net.Dial("unix", place.path) // nobody accepts
	if err != nil {
		t.Fatal(err)
	}
	defer between.Close()
	fmt.Fprintf(between, "GET / HTTP/1.0\r\n\r\n")
	moved := execed(t, b, func() {
		place.listener.Close()
		place.lock.Close()
		web.Close()
		pid.dir.Close()
		pid.lock.Close()
		pid.file.Close()
	})
	w = through(t, w, moved)
	h := &host{out: &outputs{}, program: &program{}}
	if err := h.restorePlace(w); err != nil {
		t.Fatal(err)
	}
	h.settle(w)
	if h.place.name != "web" || h.place.path != place.path || h.http.Addr().String() != web.Addr().String() {
		t.Errorf("now it is %+v, %v", h.place, h.http.Addr())
	}
	if second, err := openInstance(env, "web", "", ""); err != nil || second.name != "web-2" {
		t.Errorf("the name is not held: %+v, %v", second, err)
	} else {
		second.release()
	}
	if _, err := openPIDFile(pid.name); err == nil || !strings.Contains(err.Error(), "another hotwrap") {
		t.Errorf("the pid file is not held: %v", err)
	}
	c = newControl(func(ev event, _ <-chan struct{}) bool {
		text, _ := (&supervisor{}).snapshot()
		ev.copy <- stateCopy{text: text}
		return true
	}, newHub(), facts{name: "web", pid: os.Getpid()})
	c.serve(h.place.listener, -1, false)
	c.serve(h.http, -1, true)
	text, err := io.ReadAll(between)
	if err != nil || !strings.HasPrefix(string(text), "HTTP/1.0 200 ") {
		t.Errorf("who waited is told %q, %v", text, err)
	}
	if answer, err := http.Get("http://" + h.http.Addr().String() + "/status"); err != nil || answer.StatusCode != http.StatusOK {
		t.Errorf("over --http: %v", err)
	} else {
		answer.Body.Close()
	}
	c.close()
	h.place.release()
	h.pidFile.remove()
	h.http.Close()
	if left, _ := filepath.Glob(filepath.Join(dir, "*", "*")); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
	if left, _ := os.ReadDir(dir); len(left) > 1 {
		t.Errorf("left behind: %v", left)
	}
}

// TestNothingCarried: what was not there is not there afterwards.
func TestNothingCarried(t *testing.T) {
	b, w := &baggage{}, &written{}
	var none host
	w.Notify, w.Place, w.PIDFile, w.HTTP = none.notify.carry(b), none.place.carry(b), none.pidFile.carry(b), carryListener(b, none.http)
	w.Outputs = none.out.carry(b, t.Context())
	w = through(t, w, nil)
	h := &host{out: &outputs{}, program: &program{}}
	if err := h.restorePlace(w); err != nil || h.place != nil || h.pidFile != nil || h.http != nil {
		t.Errorf("%+v, %v", h, err)
	}
	if d, err := restoreNotifyDir(w.Notify); d != nil || err != nil {
		t.Errorf("%+v, %v", d, err)
	}
	if len(b.fds) > 0 {
		t.Errorf("carried: %v", b.fds)
	}
	none.control.leave()
}
