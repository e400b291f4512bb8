package main

import (
	"bufio"
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/http/httptest"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"runtime"
	"strings"
	"testing"
	"testing/synctest"
	"time"
)

var streamStart = time.Date(2026, 11, 23, 11, 24, 10, 123_000_000, time.UTC)

func someIdentity() identity {
	return identity{Name: "web", PID: 4300, State: instanceServing, Generation: 1, Since: wallTime(streamStart)}
}

// serveEvents serves a hub on a unix socket and returns a client of it.
func serveEvents(t *testing.T, h *hub) *http.Client {
	t.Helper()
	path := filepath.Join(t.TempDir(), "s")
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		h.serve(w, r, someIdentity)
	}))
	_ = srv.Listener.Close()
	srv.Listener = l
	srv.Start()
	t.Cleanup(srv.Close)
	client := &http.Client{Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return net.Dial("unix", path) },
	}}
	t.Cleanup(client.CloseIdleConnections)
	return client
}

// openEvents begins to read a stream.
func openEvents(t *testing.T, client *http.Client, query, accept string) (http.Header, *bufio.Scanner) {
	t.Helper()
	req, err := http.NewRequestWithContext(t.Context(), http.MethodGet, "http://hotwrap/events"+query, http.NoBody)
	if err != nil {
		t.Fatal(err)
	}
	if accept != "" {
		req.Header.Set("Accept", accept)
	}
	resp, err := client.Do(req)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { resp.Body.Close() })
	return resp.Header, bufio.NewScanner(resp.Body)
}

// nextLine reads one line of a stream.
func nextLine(t *testing.T, lines *bufio.Scanner) string {
	t.Helper()
	if !lines.Scan() {
		t.Fatalf("the stream has ended: %v", lines.Err())
	}
	return lines.Text()
}

// nextEvent reads one JSON line.
func nextEvent(t *testing.T, lines *bufio.Scanner) map[string]any {
	t.Helper()
	line := nextLine(t, lines)
	var ev map[string]any
	if err := json.Unmarshal([]byte(line), &ev); err != nil {
		t.Fatalf("%v: %s", err, line)
	}
	return ev
}

// TestEventLines: hello, then each line as in the log, with its pairs as keys; decisions only for those who ask.
func TestEventLines(t *testing.T) {
	h := newHub()
	client := serveEvents(t, h)
	head, lines := openEvents(t, client, "", "")
	_, all := openEvents(t, client, "?verbose=1", "")
	for key, want := range map[string]string{
		"Content-Type": "application/x-ndjson", "Access-Control-Allow-Origin": "*", "Cache-Control": "no-store", "X-Accel-Buffering": "no",
	} {
		if got := head.Get(key); got != want {
			t.Errorf("%s: %q, want %q", key, got, want)
		}
	}
	const hello = `{"time":"TIME","event":"hello","level":"info","generation":1,"text":"web: serving","state":"serving","name":"web","pid":4300,"since":"2026-11-23T11:24:10.123Z"}`
	for _, stream := range []*bufio.Scanner{lines, all} {
		if got := regexp.MustCompile(`"time":"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z"`).ReplaceAllString(nextLine(t, stream), `"time":"TIME"`); got != hello {
			t.Errorf("hello:\n %s, want\n %s", got, hello)
		}
	}
	h.tell(verbose("a decision"), streamStart)
	h.tell(verbose("every new connection reaches generation 2").about(hapHandover, 2), streamStart)
	h.tell(info("generation 2 ready").with("pid", 4398).with("after", 120*time.Millisecond).with("by", "accept").about(hapReady, 2), streamStart)
	h.tell(warning("odd <b>").with("time", "mine").with("error", errors.New("a\nb")).with("pids", []int{1, 2}).with("never", func() {}), streamStart)
	h.verdict(verdictView{ID: "x", Ask: askRestart, Result: failed, Generation: 3, Reason: "exited 1", At: "then"})
	want := []string{
		`{"time":"2026-11-23T11:24:10.123Z","event":"handover","level":"verbose","generation":2,"text":"every new connection reaches generation 2"}`,
		`{"time":"2026-11-23T11:24:10.123Z","event":"ready","level":"info","generation":2,"text":"generation 2 ready pid=4398 after=120ms by=accept","pid":4398,"after":0.12,"by":"accept"}`,
		`"event":"log","level":"warning","text":"odd <b> time=mine error=\"a\\nb\" pids=\"[1 2]\" never=0x`,
		`{"time":"then","event":"verdict","level":"warning","generation":3,"text":"restart failed, generation 3: exited 1","verdict":{"id":"x","ask":"restart",`,
	}
	if got := nextEvent(t, all); got["text"] != "a decision" || got["level"] != "verbose" || got["event"] != "log" {
		t.Errorf("with verbose=1: %v", got)
	}
	for _, stream := range []*bufio.Scanner{lines, all} {
		for _, want := range want {
			if got := nextLine(t, stream); !strings.Contains(got, want) || !json.Valid([]byte(got)) || strings.Count(got, `"time":`) != 1 {
				t.Errorf("got\n %s, want\n %s", got, want)
			}
		}
	}
	h.close()
	if lines.Scan() || lines.Err() != nil {
		t.Errorf("after the end: %q, %v", lines.Text(), lines.Err())
	}
}

// TestEventStream: what browsers read begins at once, has names and running numbers.
func TestEventStream(t *testing.T) {
	h := newHub()
	head, lines := openEvents(t, serveEvents(t, h), "", "text/html, text/event-stream")
	if head.Get("Content-Type") != "text/event-stream" || head.Get("Access-Control-Allow-Origin") != "*" {
		t.Errorf("head: %v", head)
	}
	h.tell(info("one").about(hapSwitch, 2), streamStart)
	h.tell(verbose("nobody's"), streamStart)
	h.tell(info("two\nlines"), streamStart)
	h.close() // what was told before is read all the same
	var got []string
	for lines.Scan() {
		got = append(got, lines.Text())
	}
	want := []string{
		":", "retry: 500", "", "event: hello", "", "", "event: switch", "", "id: 1", "", "event: log", "", "id: 3", "",
	}
	if len(got) != len(want) {
		t.Fatalf("got %d lines %q, want %d", len(got), got, len(want))
	}
	for i, line := range got {
		if data, ok := strings.CutPrefix(line, "data: "); ok {
			if !json.Valid([]byte(data)) {
				t.Errorf("no JSON: %s", data)
			}
		} else if line != want[i] {
			t.Errorf("line %d is %q, want %q", i, line, want[i])
		}
	}
}

// TestEventsHead: HEAD has a head and an end.
func TestEventsHead(t *testing.T) {
	h := newHub()
	defer h.close()
	w := httptest.NewRecorder()
	h.serve(w, httptest.NewRequest(http.MethodHead, "/events", http.NoBody), someIdentity)
	if w.Body.Len() > 0 || w.Header().Get("Content-Type") == "" {
		t.Errorf("%v %q", w.Header(), w.Body)
	}
}

// TestEventsSlow: who does not read is let go with a last line; the others hear everything.
func TestEventsSlow(t *testing.T) {
	h := newHub()
	slow, quick := h.subscribe(), h.subscribe()
	const told = subscriptionQueue + 10
	for i := range told {
		h.tell(info("line %d", i), streamStart)
		if e := <-quick.events; !strings.Contains(string(e.line), fmt.Sprintf(`"line %d"`, i)) {
			t.Fatalf("line %d: %s", i, e.line)
		}
	}
	var got []said
	for e := range slow.events {
		got = append(got, e)
	}
	if len(got) != subscriptionQueue+1 || !strings.Contains(string(got[len(got)-1].line), "these events end here") {
		t.Errorf("%d lines, the last %s", len(got), got[len(got)-1].line)
	}
	slow.close() // a second end is none
	if n := h.lost(); n != 0 {
		t.Errorf("%d lines lost", n)
	}
	h.close()
	if _, open := <-quick.events; open {
		t.Error("open after the hub's end")
	}
	quick.close()
	if _, open := <-h.subscribe().events; open {
		t.Error("a subscription after the end is open")
	}
}

// TestEventsLost: who tells never waits; what found no room is counted, and the count is told.
func TestEventsLost(t *testing.T) {
	h := &hub{
		in: make(chan told, 2), join: make(chan *subscription), leave: make(chan *subscription), asked: make(chan int),
		behind: make(chan chan struct{}), done: make(chan struct{}),
	}
	for i := range 5 { // nobody takes them yet: two wait, three are lost
		h.tell(info("early %d", i), streamStart)
	}
	<-h.in
	h.tell(info("late"), streamStart) // which takes the count along
	go h.run()
	for h.lost() != 3 { // until what waited is through
		continue
	}
	sub := h.subscribe()
	h.tell(info("next"), streamStart)
	if e := <-sub.events; !strings.Contains(string(e.line), `"next"`) {
		t.Errorf("got %s", e.line)
	}
	h.missed = 2
	h.tell(info("after a loss"), streamStart)
	for _, want := range []string{`"level":"warning","text":"2 lines of these events lost: too many at once"`, `"after a loss"`} {
		if e := <-sub.events; !strings.Contains(string(e.line), want) {
			t.Errorf("got %s, want %s", e.line, want)
		}
	}
	if n := h.lost(); n != 5 {
		t.Errorf("%d lost, want 5", n)
	}
	h.missed = 1
	h.close()
	if e := <-sub.events; !strings.Contains(string(e.line), "1 line of") {
		t.Errorf("the last loss: %s", e.line)
	}
}

// TestEventsCatchUp: afterwards all that was told before can be read.
func TestEventsCatchUp(t *testing.T) {
	h := newHub()
	sub := h.subscribe()
	for i := range 200 {
		h.tell(info("line %d", i), streamStart)
	}
	sub.catchUp()
	if n := len(sub.events); n != 200 {
		t.Errorf("of 200 lines there are %d", n)
	}
	h.close()
	sub.catchUp()
	(*hub)(nil).subscribe().catchUp()
}

// TestEventsNobody: while nobody listens, telling allocates nothing; without a hub nothing happens.
func TestEventsNobody(t *testing.T) {
	h := newHub()
	m := info("generation 2 ready").with("pid", 4398)
	if n := testing.AllocsPerRun(100, func() {
		h.tell(m, streamStart)
		for len(h.in) > 0 {
			runtime.Gosched()
		}
	}); n > 0 {
		t.Errorf("%v allocations for each line that nobody hears", n)
	}
	h.close()
	h = nil
	h.tell(m, streamStart)
	h.verdict(verdictView{})
	sub := h.subscribe()
	if _, open := <-sub.events; open || h.lost() != 0 {
		t.Error("no hub, but events")
	}
	sub.close()
	h.close()
}

// clockedWriter is a reader that notes what it gets and how long each write was given.
type clockedWriter struct {
	head     http.Header
	wrote    chan string
	deadline time.Time
}

func (w *clockedWriter) Header() http.Header { return w.head }
func (w *clockedWriter) WriteHeader(int)     {}
func (w *clockedWriter) Flush()              {}

func (w *clockedWriter) SetWriteDeadline(t time.Time) error {
	if t.Before(time.Now()) {
		return os.ErrDeadlineExceeded
	}
	w.deadline = t
	return nil
}

func (w *clockedWriter) Write(b []byte) (int, error) {
	if left := time.Until(w.deadline); left != controlWrite {
		return 0, fmt.Errorf("a write has %v", left)
	}
	w.wrote <- string(b)
	return len(b), nil
}

// TestEventsBeat: an idle stream of a browser has a comment every 30 s, one of JSON lines nothing; each write has 10 s.
func TestEventsBeat(t *testing.T) {
	for _, accept := range []string{"text/event-stream", "*/*"} {
		synctest.Test(t, func(t *testing.T) {
			h := newHub()
			ctx, cancel := context.WithCancel(t.Context())
			r := httptest.NewRequestWithContext(ctx, http.MethodGet, "/events", http.NoBody)
			r.Header.Set("Accept", accept)
			w := &clockedWriter{head: http.Header{}, wrote: make(chan string, 100)}
			ended := make(chan bool)
			go func() { h.serve(w, r, someIdentity); close(ended) }()
			time.Sleep(91 * time.Second)
			h.tell(info("x"), time.Now())
			synctest.Wait()
			time.Sleep(5 * time.Second) // of the last write's limit
			cancel()
			<-ended
			if left := time.Until(w.deadline); left != controlWrite {
				t.Errorf("the server's last bytes have %v", left)
			}
			h.close()
			close(w.wrote)
			var beats, n int
			for text := range w.wrote {
				n++
				if text == ":\n\n" {
					beats++
				}
			}
			if want := map[bool]int{true: 3}[accept == "text/event-stream"]; beats != want || n != 3+want {
				t.Errorf("%s: %d comments of %d writes, want %d of %d", accept, beats, n, want, 3+want)
			}
		})
	}
}

// TestEventsDeadReader: a stream whose reader is gone ends, and so does its subscription.
func TestEventsDeadReader(t *testing.T) {
	h := newHub()
	defer h.close()
	r, out := io.Pipe()
	w := &pipeWriter{ResponseRecorder: httptest.NewRecorder(), out: out}
	ended := make(chan bool)
	go func() {
		h.serve(w, httptest.NewRequest(http.MethodGet, "/events", http.NoBody), someIdentity)
		close(ended)
	}()
	if _, err := bufio.NewReader(r).ReadString('\n'); err != nil {
		t.Fatal(err)
	}
	_ = r.Close()
	h.tell(info("x"), streamStart)
	<-ended
}

type pipeWriter struct {
	*httptest.ResponseRecorder
	out io.Writer
}

func (w *pipeWriter) Write(b []byte) (int, error) { return w.out.Write(b) }

// eventsManual is the manual's page on what this file tests.
func eventsManual(t *testing.T) string {
	t.Helper()
	text, err := os.ReadFile("docs/events.md")
	if err != nil {
		t.Fatal(err)
	}
	return string(text)
}

// TestEventsManual: the manual has every event.
func TestEventsManual(t *testing.T) {
	for _, event := range []happening{
		hapHello, hapLog, hapStarting, hapChecking, hapReady, hapSwitch, hapHandover, hapDrained, hapFailed, hapCrashed, hapStopping, hapVerdict,
	} {
		if !strings.Contains(eventsManual(t), "\n| `"+string(event)+"` | ") {
			t.Errorf("the manual has no %s", event)
		}
	}
}

// TestReloadScript: the page's script from the manual reloads on a handover, and after hotwrap was restarted; not because
// a connection was lost.
func TestReloadScript(t *testing.T) {
	node, err := exec.LookPath("node")
	if err != nil {
		t.Skip("node is not installed")
	}
	_, script, _ := bytes.Cut([]byte(eventsManual(t)), []byte("```js\n"))
	script, _, ok := bytes.Cut(script, []byte("```"))
	if lines := bytes.Count(script, []byte("\n")); !ok || lines != 3 {
		t.Fatalf("the manual's script has %d lines", lines)
	}
	who := make(chan identity, 1)
	serve := func(h *hub, addr string) *httptest.Server {
		l, err := net.Listen("tcp", addr)
		if err != nil {
			t.Fatal(err)
		}
		srv := httptest.NewUnstartedServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			h.serve(w, r, func() identity { id := <-who; who <- id; return id })
		}))
		_ = srv.Listener.Close()
		srv.Listener = l
		srv.Start()
		return srv
	}
	h := newHub()
	who <- someIdentity()
	srv := serve(h, "127.0.0.1:0")
	addr := srv.Listener.Addr().String()
	page := filepath.Join(t.TempDir(), "page.js")
	script = bytes.ReplaceAll(script, []byte("127.0.0.1:9999"), []byte(addr))
	if err := os.WriteFile(page, append(script, "events.addEventListener('hello', () => console.log('hello'))\n"...), 0o600); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), patience)
	defer cancel()
	cmd := exec.CommandContext(ctx, node, "testdata/eventsource.js", page, "http://127.0.0.1:8080")
	cmd.Stderr = os.Stderr
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	defer func() { cancel(); _ = cmd.Wait() }()
	says := bufio.NewScanner(stdout)
	expect := func(want ...string) {
		t.Helper()
		for _, want := range want {
			if got := nextLine(t, says); got != want {
				t.Fatalf("the page: %q, want %q", got, want)
			}
		}
	}
	expect("hello")
	h.tell(info("generation 2 ready").about(hapReady, 2), time.Now())
	h.tell(verbose("every new connection").about(hapHandover, 2), time.Now())
	expect("reload")
	srv.CloseClientConnections()
	expect("again in 500", "hello") // and no reload
	<-who
	second := someIdentity()
	second.Generation = 2
	who <- second
	srv.CloseClientConnections() // a handover that it could not hear
	expect("again in 500", "reload", "hello")
	h.close()
	srv.Close()
	<-who
	again := second
	again.Since = wallTime(streamStart.Add(time.Hour))
	who <- again
	h = newHub()
	srv = serve(h, addr)
	for line := nextLine(t, says); line != "reload"; line = nextLine(t, says) {
		if line != "again in 500" {
			t.Fatalf("the page: %q", line)
		}
	}
	expect("hello")
	cancel()
	h.close()
	srv.Close()
}

func BenchmarkTellNobody(b *testing.B) {
	h := newHub()
	defer h.close()
	m := info("generation 2 ready").with("pid", 4398)
	b.ReportAllocs()
	for b.Loop() {
		h.tell(m, streamStart)
	}
}
