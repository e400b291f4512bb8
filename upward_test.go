package main

import (
	"fmt"
	"net"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// manager is a service manager: it receives when the test wants it to.
type manager struct{ *net.UnixConn }

func newManager(t *testing.T, address string) manager {
	t.Helper()
	conn, err := net.ListenUnixgram("unixgram", &net.UnixAddr{Name: address, Net: "unixgram"})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetReadDeadline(time.Now().Add(readyPatience))
	return manager{conn}
}

func (m manager) next(t *testing.T) string {
	t.Helper()
	buf := make([]byte, maxDatagram+1)
	n, err := m.Read(buf)
	if err != nil {
		t.Fatalf("nothing came: %v", err)
	}
	if n > maxDatagram {
		t.Errorf("over %d bytes", maxDatagram)
	}
	return string(buf[:n])
}

func connectUpward(t *testing.T, address string) *upward {
	t.Helper()
	u, err := openUpward([]string{"A=b", "NOTIFY_SOCKET=" + address})
	if err != nil || u == nil {
		t.Fatalf("openUpward: %v, %v", u, err)
	}
	return u
}

func TestUpward(t *testing.T) {
	addresses := []string{filepath.Join(shortDir(t), "s")}
	if runtime.GOOS == "linux" {
		addresses = append(addresses, "@hotwrap-test-"+randomName())
	}
	for _, address := range addresses {
		m := newManager(t, address)
		u := connectUpward(t, address)
		var before unix.Timespec
		unix.ClockGettime(unix.CLOCK_MONOTONIC, &before)
		u.status("starting\nREADY=1")
		u.ready("")
		u.watchdog()
		u.extend(1500 * time.Millisecond)
		u.ready("generation 1 \xff serves" + strings.Repeat("ä", 5000))
		u.reloading("starting generation 2")
		u.stopping("bye")
		if dropped := u.close(); dropped != 0 {
			t.Errorf("%d dropped", dropped)
		}
		var got []string
		for range 7 {
			got = append(got, m.next(t))
		}
		usec, ok := strings.CutPrefix(got[5], "RELOADING=1\nMONOTONIC_USEC=")
		usec, _ = strings.CutSuffix(usec, "\nSTATUS=starting generation 2")
		if at, err := strconv.ParseInt(usec, 10, 64); !ok || err != nil || at < before.Nano()/1000 || at > before.Nano()/1000+10_000_000 {
			t.Errorf("reloading says %q at %d", got[5], before.Nano()/1000)
		}
		want := []string{
			"STATUS=startingREADY=1", "READY=1", "WATCHDOG=1", "EXTEND_TIMEOUT_USEC=1500000",
			"READY=1\nSTATUS=generation 1 \ufffd serves" + strings.Repeat("ä", (maxUpwardText-23)/2), got[5], "STOPPING=1\nSTATUS=bye",
		}
		if !slices.Equal(got, want) {
			t.Errorf("got %q, want %q", got, want)
		}
	}
}

// A manager that does not read keeps nobody waiting, and when it reads again, it finds every change of state, in order,
// and the newest of the rest.
func TestUpwardSlow(t *testing.T) {
	address := filepath.Join(shortDir(t), "s")
	m := newManager(t, address)
	u := connectUpward(t, address)
	var want []string
	noise := func(part int) {
		for i := range 3000 {
			u.status(fmt.Sprintf("%d.%d", part, i))
			u.extend(time.Duration(i) * time.Second)
			u.watchdog()
		}
		want = append(want, fmt.Sprintf("STATUS=%d.2999", part), "EXTEND_TIMEOUT_USEC=2999000000", "WATCHDOG=1")
	}
	noise(0)
	u.ready("1")
	want = append(want, "READY=1\nSTATUS=1")
	noise(1)
	u.reloading("")
	u.ready("2")
	want = append(want, "RELOADING=1", "READY=1\nSTATUS=2")
	noise(2)
	u.stopping("")
	want = append(want, "STOPPING=1")
	noise(3)
	if dropped := u.dropped(); dropped != 0 {
		t.Errorf("%d dropped", dropped)
	}
	seen := 0
	for range 100 {
		got, _, _ := strings.Cut(m.next(t), "\nMONOTONIC_USEC=")
		if got == want[seen] {
			seen++
		} else if kind, _, _ := strings.Cut(got, "="); kind == "READY" || kind == "RELOADING" || kind == "STOPPING" {
			t.Fatalf("%q out of order, wanted %q", got, want[seen])
		}
		if seen == len(want) {
			break
		}
	}
	if seen < len(want) {
		t.Errorf("%q never came", want[seen])
	}
	u.close()
}

// A manager that never reads costs close its patience, no more.
func TestUpwardDeaf(t *testing.T) {
	address := filepath.Join(shortDir(t), "s")
	newManager(t, address)
	u := connectUpward(t, address)
	for i := range 1000 {
		u.ready(strconv.Itoa(i))
	}
	start := time.Now()
	dropped := u.close()
	if took := time.Since(start); took < upwardPatience/2 || took > readyPatience {
		t.Errorf("close took %v", took)
	}
	if dropped < 900 || dropped >= 1000 {
		t.Errorf("%d of 1000 dropped", dropped)
	}
}

// A manager that binds its socket anew is found again.
func TestUpwardRebound(t *testing.T) {
	address := filepath.Join(shortDir(t), "s")
	m := newManager(t, address)
	u := connectUpward(t, address)
	defer u.close()
	u.ready("1")
	m.next(t)
	m.Close()
	if err := os.Remove(address); err != nil {
		t.Fatal(err)
	}
	u.status("lost")
	m = newManager(t, address)
	u.ready("2")
	if got := m.next(t); got != "READY=1\nSTATUS=2" && got != "STATUS=lost" {
		t.Errorf("got %q", got)
	}
}

func TestUpwardNone(t *testing.T) {
	u, err := openUpward([]string{"HOME=/", "NOTIFY_SOCKET="})
	if u != nil || err != nil {
		t.Errorf("openUpward = %v, %v", u, err)
	}
	u.ready("x")
	u.reloading("x")
	u.status("x")
	u.stopping("x")
	u.extend(time.Second)
	u.watchdog()
	if u.dropped() != 0 || u.close() != 0 {
		t.Error("nothing drops")
	}
	for address, want := range map[string]string{
		"vsock:2:1234":                 `cannot notify "vsock:2:1234": vsock is not supported`,
		"vsock-stream:2:1234":          `cannot notify "vsock-stream:2:1234": vsock is not supported`,
		"run/notify":                   `cannot notify "run/notify": neither an absolute path nor an @abstract name`,
		"/nonexistent/hw/sock":         `cannot notify "/nonexistent/hw/sock": no such file or directory`,
		"/" + strings.Repeat("a", 200): "invalid argument",
	} {
		if u, err := openUpward([]string{"NOTIFY_SOCKET=" + address}); u != nil || err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("openUpward(%q) = %v, %v", address, u, err)
		}
	}
}

// Too many changes of state drop the oldest, and the rest before any of them.
func TestUpwardEnqueue(t *testing.T) {
	var waiting []upwardMessage
	lost := 0
	add := func(text string, kind upwardKind) {
		var n int
		waiting, n = enqueue(waiting, upwardMessage{text: text, kind: kind})
		lost += n
	}
	add("old status", upwardStatus)
	for i := range maxUpward {
		add(strconv.Itoa(i), upwardState)
	}
	if lost != 1 || len(waiting) != maxUpward || waiting[0].text != "0" {
		t.Errorf("%d lost, %d wait, first %+v", lost, len(waiting), waiting[0])
	}
	add("last", upwardState)
	if lost != 2 || len(waiting) != maxUpward || waiting[0].text != "1" || waiting[maxUpward-1].text != "last" {
		t.Errorf("%d lost, %d wait, %+v", lost, len(waiting), waiting)
	}
	add("status", upwardStatus) // finds no room: nothing but changes of state waits
	if lost != 3 || len(waiting) != maxUpward || waiting[0].text != "1" {
		t.Errorf("%d lost, %d wait, %+v", lost, len(waiting), waiting)
	}
}

func TestWatchdogInterval(t *testing.T) {
	pid := strconv.Itoa(os.Getpid())
	for _, c := range []struct {
		usec, pid string
		want      time.Duration
	}{
		{"30000000", "", 15 * time.Second},
		{"30000000", pid, 15 * time.Second},
		{"30000000", "1", 0},
		{"30000000", "x", 0},
		{"", pid, 0},
		{"0", "", 0},
		{"-3", "", 0},
		{"18446744073709551615", "", maxExtend / 2},
	} {
		if got := watchdogInterval([]string{"WATCHDOG_PID=" + c.pid, "WATCHDOG_USEC=" + c.usec}); got != c.want {
			t.Errorf("WATCHDOG_USEC=%s WATCHDOG_PID=%s: %v, want %v", c.usec, c.pid, got, c.want)
		}
	}
}
