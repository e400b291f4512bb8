package main

import (
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

func TestParseAck(t *testing.T) {
	for text, want := range map[string]int{
		`{"command":"worker:ack", "pid":4711}`:                           4711,
		`{"command": "worker:ack", "pid": 4711, "request_id": "a%0Ab"}`:  0, // a newline in a JSON string is none
		` {"pid":1,"command":"worker:ack"} ` + "\r":                      1,
		"---%0Acommand: worker:ack%0Apid: 4711%0A":                       4711,
		"--- %0acommand: 'worker:ack'%0apid: \"4711\"%0Anote: 100%25%0A": 4711,
		"command: worker:ack%0Apid: 4711%0A":                             4711,
		"comand: worker:ack%0Apid: 4711%0A":                              0,
		"command: worker:ping%0Apid: 4711%0A":                            0,
		"command: worker:ack%0Apid: 0%0A":                                0,
		"command: worker:ack%0Apid: 99999999999%0A":                      0,
		"command: worker:ack%0A":                                         0,
		"command:worker:ack%0Apid:5":                                     0,
		"command: worker:ack%250Apid: 4711":                              0,
		"--- !ruby/object%0Acommand: worker:ack%0Apid: 1":                0,
		"- command: worker:ack%0A- pid: 1":                               0,
		"a:%0A  command: worker:ack%0A  pid: 1":                          0,
		`{"command":"worker:ack","pid":"4711"}`:                          0,
		`{"command":"worker:ack","pid":-1}`:                              0,
		`{"command":"worker:ack","pid":4711`:                             0,
		`{"command":"worker:ack","pid":4294967297}`:                      0,
		"":  0,
		"{": 0,
	} {
		if got, err := parseAck([]byte(text)); got != want || (err == nil) != (want != 0) {
			t.Errorf("parseAck(%q) = %d, %v, want %d", text, got, err, want)
		}
	}
}

func FuzzParseAck(f *testing.F) {
	for _, seed := range []string{
		`{"command":"worker:ack","pid":1}`, "---%0Acommand: worker:ack%0Apid: 4711%0A", "%25%0A%", "a: \"", "{\"pid\":1e3}",
	} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if pid, err := parseAck(b); (err == nil) != (pid > 0) || pid > 1<<31-1 {
			t.Errorf("parseAck(%q) = %d, %v", b, pid, err)
		}
	})
}

func dialAck(t *testing.T, s *notifySocket) net.Conn {
	t.Helper()
	conn, err := net.Dial("unix", s.ackPath)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { conn.Close() })
	conn.SetDeadline(time.Now().Add(readyPatience))
	return conn
}

// An ack gets no answer but the end of the connection.
func TestAck(t *testing.T) {
	in := make(readyInbox, 4)
	s := newNotifySocket(t, in.post)
	for _, line := range []string{`{"command":"worker:ack", "pid":4711}`, "---%0Acommand: worker:ack%0Apid: 4711%0A"} {
		conn := dialAck(t, s)
		io.WriteString(conn, line[:9])
		io.WriteString(conn, line[9:]+"\n")
		if answer, err := io.ReadAll(conn); err != nil || len(answer) > 0 {
			t.Errorf("answer %q, %v", answer, err)
		}
		if n := in.next(t); !n.ready || n.mainPID != 4711 || n.by != "ack" {
			t.Errorf("got %+v", n)
		}
	}
}

// Clients that send half a line, far too much or nothing at all, a thousand of them, do not keep an ack out.
func TestAckHostile(t *testing.T) {
	in := make(readyInbox)
	s := newNotifySocket(t, in.post)
	half := dialAck(t, s)
	io.WriteString(half, "command: worker:ack%0Apid: 1")
	half.(*net.UnixConn).CloseWrite()
	if _, err := io.Copy(io.Discard, half); err != nil {
		t.Errorf("half a line: %v", err)
	}
	long := dialAck(t, s)
	if _, err := io.WriteString(long, strings.Repeat("a: b%0A", 150_000)+"command: worker:ack%0Apid: 2\n"); err == nil {
		t.Error("1 MB was read to its end")
	}
	before := openDescriptors(t)
	for range 1000 {
		dialAck(t, s)
	}
	conn := dialAck(t, s)
	io.WriteString(conn, "command: worker:ack%0Apid: 3%0A\n")
	if n := in.next(t); n.mainPID != 3 {
		t.Errorf("got %+v", n)
	}
	// Ours are 1001; of theirs only the last maxAcks may be open.
	if extra := openDescriptors(t) - before - 1001; extra > maxAcks {
		t.Errorf("%d connections open, %d allowed", extra, maxAcks)
	}
	if left := s.stop(); len(left) != 0 {
		t.Errorf("left: %+v", left)
	}
}

// What a client sent before it was pushed out counts; half a line does not.
func TestAckPushedOut(t *testing.T) {
	l, err := net.Listen("unix", filepath.Join(shortDir(t), "s"))
	if err != nil {
		t.Fatal(err)
	}
	defer l.Close()
	for text, want := range map[string]string{"a: b\nc": "a: b", "half": "", "": ""} {
		client, err := net.Dial("unix", l.Addr().String())
		if err != nil {
			t.Fatal(err)
		}
		server, err := l.Accept()
		if err != nil {
			t.Fatal(err)
		}
		io.WriteString(client, text)
		server.SetReadDeadline(longAgo)
		line, ok := (&ackClient{conn: server.(*net.UnixConn)}).readLine()
		if string(line) != want || ok != (want != "") {
			t.Errorf("of %q: %q, %v", text, line, ok)
		}
		client.Close()
		server.Close()
	}
}

// Acks that nobody took are handed back by stop, which does not wait for who is silent.
func TestAckStop(t *testing.T) {
	entered := make(readyInbox, 100)
	s := newNotifySocket(t, func(n notice, done <-chan struct{}) bool {
		entered <- n
		<-done
		return false
	})
	for i := range 3 {
		io.WriteString(dialAck(t, s), fmt.Sprintf("{\"command\":\"worker:ack\",\"pid\":%d}\n", i+1))
		entered.next(t)
	}
	dialAck(t, s)
	if left := s.stop(); len(left) != 3 {
		t.Errorf("left: %+v", left)
	}
}
