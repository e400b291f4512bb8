package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"runtime"
	"strings"
	"testing"
	"time"
)

// controlled is a control socket with a supervisor behind it that promotes everything at once.
func controlled(t testing.TB) (path string, client *http.Client) {
	t.Helper()
	dir, err := os.MkdirTemp("", "hw")
	if err != nil {
		t.Fatal(err)
	}
	events, done := make(chan event), make(chan struct{})
	post := func(ev event, quit <-chan struct{}) bool {
		select {
		case events <- ev:
			return true
		case <-quit:
		case <-done:
		}
		return false
	}
	s := &supervisor{}
	go func() {
		for {
			select {
			case ev := <-events:
				if ev.kind == evCopy {
					text, _ := s.snapshot()
					ev.copy <- stateCopy{text: text}
				}
				if ev.kind == evRequest {
					ev.reply <- verdict{Request: ev.request, Result: promoted, Generation: 2}
				}
				if ev.kind == evAwait {
					ev.reply <- verdict{}
				}
			case <-done:
				return
			}
		}
	}()
	path = filepath.Join(dir, "c.sock")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	c := newControl(post, newHub(), facts{name: "test", pid: os.Getpid()})
	c.serve(l, -1, false)
	t.Cleanup(func() {
		close(done)
		c.close()
		_ = os.RemoveAll(dir)
	})
	dial := func(ctx context.Context, _, _ string) (net.Conn, error) {
		return (&net.Dialer{}).DialContext(ctx, "unix", path)
	}
	transport := &http.Transport{DialContext: dial, DisableKeepAlives: true} // an idle one may be closed for a newcomer
	t.Cleanup(transport.CloseIdleConnections)
	return path, &http.Client{Transport: transport, Timeout: 20 * time.Second}
}

// inquire asks once and returns status and body.
func inquire(t testing.TB, client *http.Client, method, path, body string) (int, string) {
	t.Helper()
	r, err := http.NewRequest(method, "http://hotwrap"+path, strings.NewReader(body)) //nolint:noctx // the client has a limit
	if err != nil {
		t.Fatal(err)
	}
	resp, err := client.Do(r)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	defer resp.Body.Close()
	text, err := io.ReadAll(resp.Body)
	if err != nil {
		t.Fatalf("%s %s: %v", method, path, err)
	}
	return resp.StatusCode, string(text)
}

// TestControlWords: every answer is JSON, a wrong question is told what is wrong with it.
func TestControlWords(t *testing.T) {
	_, client := controlled(t)
	cases := []struct {
		method, path, body string
		code               int
		says               string
	}{
		{"GET", "/", "", 200, `"name":"test"`},
		{"GET", "/status", "", 200, `"generations":`},
		{"POST", "/restart", "", 200, `"result":"promoted"`},
		{"POST", "/restart", `{"id":"abc","message":"why","later":1}`, 200, `"message":"why"`},
		{"POST", "/restart", `{`, 400, `"error":`},
		{"POST", "/restart", `{"id":"` + strings.Repeat("x", 65) + `"}`, 400, "id"},
		{"POST", "/restart", `{"id":"12"}`, 400, "id"},
		{"POST", "/restart", `{"id":"a b"}`, 400, "id"},
		{"POST", "/restart", strings.Repeat("x", controlBody+1), 413, "body"},
		{"POST", "/signal", `{"signal":"NOPE"}`, 400, "NOPE"},
		{"POST", "/signal", ``, 400, "signal"},
		{"GET", "/restart", "", 405, "POST"},
		{"POST", "/status", "", 405, "GET"},
		{"GET", "/nothing", "", 404, "nothing"},
		{"GET", "/verdicts/unknown", "", 404, "id"},
	}
	for _, c := range cases {
		code, text := inquire(t, client, c.method, c.path, c.body)
		if code != c.code || !strings.Contains(text, c.says) || !json.Valid([]byte(text)) {
			t.Errorf("%s %s %.40q: %d %s, want %d %q", c.method, c.path, c.body, code, text, c.code, c.says)
		}
		if code >= 400 && !strings.HasPrefix(text, `{"error":"cannot `) {
			t.Errorf("%s %s %.40q: %s", c.method, c.path, c.body, text)
		}
	}
	if code, text := inquire(t, client, "GET", "/metrics", ""); code != 200 || !strings.Contains(text, "hotwrap_info") {
		t.Errorf("metrics: %d %s", code, text)
	}
}

// TestControlUnknown: who would wait for the verdict on a request that nobody made is told so, also in a stream.
func TestControlUnknown(t *testing.T) {
	_, client := controlled(t)
	r, err := http.NewRequest(http.MethodGet, "http://hotwrap/verdicts/unknown", nil) //nolint:noctx // the client has a limit
	must(t, err)
	r.Header.Set("Accept", ndjson)
	answer, err := client.Do(r)
	must(t, err)
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	if must(t, err); answer.StatusCode != http.StatusNotFound || !strings.HasPrefix(string(text), `{"error":"cannot `) {
		t.Errorf("%s %s", answer.Status, text)
	}
}

// TestControlRights: the owner may do all, the group look, restart and roll back, others nothing.
func TestControlRights(t *testing.T) {
	ok := http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) })
	stranger := os.Geteuid() + 4711
	cases := []struct {
		who  caller
		path string
		code int
	}{
		{caller{uid: os.Geteuid(), known: true}, "/stop", 200},
		{caller{uid: 0, known: true}, "/signal", 200},
		{caller{uid: stranger, gid: 7, known: true}, "/restart", 200},
		{caller{uid: stranger, groups: []int{1, 7}, known: true}, "/rollback", 200},
		{caller{uid: stranger, gid: 7, known: true}, "/stop", 403},
		{caller{uid: stranger, gid: 7, known: true}, "/signal", 403},
		{caller{uid: stranger, gid: 7, known: true}, "/whatever/comes", 403},
		{caller{uid: stranger, gid: 8, known: true}, "/status", 403},
		{caller{uid: os.Geteuid()}, "/status", 403}, // the kernel did not say
	}
	for _, c := range cases {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, c.path, nil)
		permitted(ok, 7).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, c.who)))
		if w.Code != c.code {
			t.Errorf("%+v %s: %d, want %d", c.who, c.path, w.Code, c.code)
		}
	}
	w := httptest.NewRecorder()
	r := httptest.NewRequest(http.MethodGet, "/status", nil)
	permitted(ok, 7).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{uid: stranger, groups: []int{1, 7}, known: true})))
	if w.Code != http.StatusOK {
		t.Errorf("a member looks: %d", w.Code)
	}
	w = httptest.NewRecorder()
	permitted(ok, -1).ServeHTTP(w, r.WithContext(context.WithValue(r.Context(), callerKey{}, caller{uid: stranger, gid: -1, known: true})))
	if w.Code != http.StatusForbidden {
		t.Errorf("without a group: %d", w.Code)
	}
}

// TestControlCrowd: a thousand clients that ask nothing, or half a question, keep nobody out and do not pile up.
func TestControlCrowd(t *testing.T) {
	path, client := controlled(t)
	before := runtime.NumGoroutine()
	var idle []net.Conn
	defer func() {
		for _, c := range idle {
			_ = c.Close()
		}
	}()
	for n := range 1000 {
		c, err := net.Dial("unix", path) //nolint:noctx // it cannot block
		if err != nil {
			t.Fatalf("client %d: %v", n, err)
		}
		idle = append(idle, c)
		if n%2 == 0 {
			_, _ = io.WriteString(c, "POST /restart HTTP/1.1\r\nHost: x\r\nX-Slow: ") // it may be closed by now
		}
		if n%100 == 99 {
			if code, text := inquire(t, client, "POST", "/restart", ""); code != 200 {
				t.Fatalf("after %d clients: %d %s", n+1, code, text)
			}
		}
	}
	if now := runtime.NumGoroutine(); now > before+3*controlConns {
		t.Fatalf("%d goroutines, %d before", now, before)
	}
	gone := 0
	for _, c := range idle[:len(idle)-2*controlConns] {
		_ = c.SetReadDeadline(time.Now().Add(10 * time.Second))
		if _, err := io.Copy(io.Discard, c); err == nil || !os.IsTimeout(err) {
			gone++
		}
	}
	if want := len(idle) - 2*controlConns; gone != want {
		t.Fatalf("%d of the oldest %d are closed", gone, want)
	}
}

// TestControlPlaces: those of the group who wait leave room for the owner.
func TestControlPlaces(t *testing.T) {
	asked := make(chan struct{}, 2*controlStreams)
	c := newControl(func(ev event, _ <-chan struct{}) bool { asked <- struct{}{}; return true }, nil, facts{})
	ctx, cancel := context.WithCancel(context.Background())
	defer cancel()
	restart := func(p caller) int {
		w := httptest.NewRecorder()
		r := httptest.NewRequest(http.MethodPost, "/restart", nil).WithContext(context.WithValue(ctx, callerKey{}, p))
		c.wish(askRestart)(w, r)
		return w.Code
	}
	member, owner := caller{uid: os.Geteuid() + 4711, known: true}, caller{uid: os.Geteuid(), known: true}
	for range controlStreams {
		go restart(member)
		<-asked
	}
	if code := restart(member); code != http.StatusServiceUnavailable {
		t.Fatalf("one more: %d", code)
	}
	go restart(owner)
	select {
	case <-asked:
	case <-time.After(10 * time.Second):
		t.Fatal("the owner is kept out")
	}
}

// TestControlGone: a client that goes before its verdict is forgotten.
func TestControlGone(t *testing.T) {
	posted := make(chan event)
	c := newControl(func(ev event, _ <-chan struct{}) bool { posted <- ev; return true }, nil, facts{})
	done := make(chan struct{})
	for _, accept := range []string{"application/json", ndjson} {
		ctx, cancel := context.WithCancel(context.Background())
		r := httptest.NewRequest(http.MethodPost, "/restart", nil).WithContext(ctx)
		r.Header.Set("Accept", accept)
		go func() {
			c.wish(askRestart)(httptest.NewRecorder(), r)
			done <- struct{}{}
		}()
		asked := <-posted
		cancel()
		select {
		case left := <-posted:
			if left.kind != evLeft || left.reply != asked.reply {
				t.Errorf("%s: posted %+v", accept, left)
			}
			<-done
		case <-done:
			t.Errorf("%s: it is not told", accept)
		}
	}
}

// tailListener hands out one end of a pipe, as a connection of a client that reads only when it likes.
type tailListener struct {
	conns chan net.Conn
	end   chan struct{}
}

func (l tailListener) Accept() (net.Conn, error) {
	select {
	case c := <-l.conns:
		return c, nil
	case <-l.end:
		return nil, net.ErrClosed
	}
}

func (l tailListener) Addr() net.Addr { return &net.UnixAddr{} }

func (l tailListener) Close() error {
	close(l.end)
	return nil
}

// tailConn tells when the last chunk of an answer is about to be written.
type tailConn struct {
	net.Conn
	tail chan struct{}
}

func (c tailConn) Write(b []byte) (int, error) {
	if bytes.HasSuffix(b, []byte("0\r\n\r\n")) {
		c.tail <- struct{}{}
	}
	return c.Conn.Write(b)
}

// TestControlTail: the end of a stream is part of it: a connection whose handler has returned is closed when that is
// written, and not before.
func TestControlTail(t *testing.T) {
	g := newGuarded(t.Context(), http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		_, _ = io.WriteString(w, "a line\n")
		_ = http.NewResponseController(w).Flush() // chunked from here on
	}))
	l := tailListener{make(chan net.Conn), make(chan struct{})}
	go g.serve(l)
	theirs, ours := net.Pipe()
	defer ours.Close()
	tail, shutting, closed := make(chan struct{}), make(chan struct{}), make(chan struct{})
	l.conns <- tailConn{theirs, tail}
	if _, err := io.WriteString(ours, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
		t.Fatal(err)
	}
	answer, err := http.ReadResponse(bufio.NewReaderSize(ours, 16), nil)
	if err != nil {
		t.Fatal(err)
	}
	defer answer.Body.Close()
	if _, err := io.ReadFull(answer.Body, make([]byte, len("a line\n"))); err != nil {
		t.Fatal(err)
	}
	<-tail
	g.server.RegisterOnShutdown(func() { close(shutting) })
	ctx, cancel := context.WithTimeout(context.Background(), 10*time.Second)
	defer cancel()
	go func() {
		g.close(ctx)
		close(closed)
	}()
	<-shutting
	g.mark(nil, connFree) // when it is taken, all marks before it are
	if _, err := io.ReadAll(answer.Body); err != nil {
		t.Errorf("the stream ends with: %v", err)
	}
	<-closed
	if ctx.Err() != nil {
		t.Error("the limit was needed")
	}
}

// TestControlHeader: an endless header ends the connection, not hotwrap.
func TestControlHeader(t *testing.T) {
	path, client := controlled(t)
	c, err := net.Dial("unix", path) //nolint:noctx // it cannot block
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	_, _ = io.WriteString(c, "GET / HTTP/1.1\r\nHost: x\r\n")
	line := fmt.Sprintf("X-Long: %s\r\n", strings.Repeat("x", 1000))
	sent := 0
	for ; sent < 1<<20; sent += len(line) {
		if _, err := io.WriteString(c, line); err != nil {
			break
		}
	}
	if sent >= 1<<20 {
		t.Fatalf("a header of %d bytes was read", sent)
	}
	if code, _ := inquire(t, client, "GET", "/", ""); code != 200 {
		t.Fatalf("then: %d", code)
	}
}

// TestControlTurns: however many ask what runs, one is looked for at a time, and nobody waits for a slow reader.
func TestControlTurns(t *testing.T) {
	c := newControl(func(ev event, _ <-chan struct{}) bool {
		text, _ := (&supervisor{}).snapshot()
		ev.copy <- stateCopy{text: text}
		return true
	}, nil, facts{})
	turn, inside := make(chan struct{}, 1), 0
	slow, answered := make(chan struct{}), make(chan struct{})
	ask := func(reads chan struct{}) {
		c.inTurn(turn, func(*state, facts) http.HandlerFunc {
			if inside++; inside != 1 {
				t.Errorf("%d are looked for at a time", inside)
			}
			runtime.Gosched()
			inside--
			return func(http.ResponseWriter, *http.Request) { <-reads }
		})(httptest.NewRecorder(), httptest.NewRequest(http.MethodGet, "/status", nil))
		answered <- struct{}{}
	}
	go ask(slow)
	reads := make(chan struct{})
	close(reads)
	for range 50 {
		go ask(reads)
	}
	for range 50 {
		<-answered
	}
	close(slow)
	<-answered
}

// TestControlMemory: what a crowd needed is given back when it has gone, and not again and again for one that comes back.
func TestControlMemory(t *testing.T) {
	var cs conns
	start := time.Now()
	crowd := func(size int, at time.Time) (free bool) {
		var all []net.Conn
		for range size {
			client, server := net.Pipe()
			_ = client.Close()
			all = append(all, server)
			free = cs.take(mark{server, connOpen}, at) || free
		}
		for _, c := range all {
			free = cs.take(mark{c, connClosed}, at) || free
		}
		return free
	}
	for _, c := range []struct {
		size  int
		after time.Duration
		want  bool
	}{
		{controlCrowd - 1, 0, false},
		{controlCrowd, 0, true},
		{2 * controlConns, controlFree / 2, false},
		{1, controlFree, true}, // what that one needed
		{1, 3 * controlFree, false},
	} {
		if got := crowd(c.size, start.Add(c.after)); got != c.want {
			t.Errorf("%d connections after %s: memory given back: %v", c.size, c.after, got)
		}
	}
}

// FuzzControl: whatever comes through the socket, the next client is answered.
func FuzzControl(f *testing.F) {
	f.Add([]byte("GET / HTTP/1.1\r\nHost: x\r\n\r\n"))
	f.Add([]byte("POST /restart HTTP/1.1\r\nHost: x\r\nContent-Length: 13\r\n\r\n{\"id\":\"abcd\"}"))
	f.Add([]byte("POST /restart HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n{}   \r\n0\r\n\r\n"))
	f.Add([]byte("POST /signal HTTP/1.1\r\nHost: x\r\nContent-Length: 17\r\n\r\n{\"signal\":\"KILL\"}"))
	f.Add([]byte("GET /verdicts/%2e%2e HTTP/1.1\r\nHost: x\r\nAccept: application/x-ndjson\r\n\r\n"))
	f.Add([]byte("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"))
	path, client := controlled(f)
	f.Fuzz(func(t *testing.T, text []byte) {
		c, err := net.Dial("unix", path) //nolint:noctx // it cannot block
		if err != nil {
			t.Fatal(err)
		}
		defer c.Close()
		_ = c.SetDeadline(time.Now().Add(10 * time.Second))
		_, _ = c.Write(text)
		_ = c.(*net.UnixConn).CloseWrite()
		head, _ := bufio.NewReader(io.LimitReader(c, 1<<20)).ReadBytes('\n')
		if len(head) > 0 && !bytes.HasPrefix(head, []byte("HTTP/1.")) {
			t.Fatalf("answered %q", head)
		}
		if code, _ := inquire(t, client, "GET", "/", ""); code != http.StatusOK {
			t.Fatalf("then: %d", code)
		}
	})
}

// TestControlListeners: those who listen to events, on whatever server, are in nobody's way who asks for something.
func TestControlListeners(t *testing.T) {
	path, client := controlled(t)
	full := 0
	for range controlConns {
		conn, err := net.Dial("unix", path) //nolint:noctx // it is closed at the end
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = conn.Close() })
		if _, err := io.WriteString(conn, "GET /events HTTP/1.1\r\nHost: x\r\n\r\n"); err != nil {
			t.Fatal(err)
		}
		_ = conn.SetReadDeadline(time.Now().Add(20 * time.Second))
		switch line, err := bufio.NewReader(conn).ReadString('\n'); {
		case err != nil:
			t.Fatal(err)
		case strings.Contains(line, " 503 "):
			full++
		}
	}
	if full == 0 || full == controlConns {
		t.Errorf("%d of %d listeners were turned away", full, controlConns)
	}
	for _, c := range [][2]string{{"POST", "/restart"}, {"POST", "/stop"}, {"GET", "/status"}} {
		if code, text := inquire(t, client, c[0], c[1], ""); code != http.StatusOK && !strings.Contains(text, `"result"`) {
			t.Errorf("%s %s beside them: %d %s", c[0], c[1], code, text)
		}
	}
}
