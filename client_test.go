package main

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
)

// fake is a hotwrap that gives the answers of a test, one to each POST and GET of a verdict.
type fake struct {
	t       *testing.T
	base    string
	self    identity
	answers chan func(http.ResponseWriter, *http.Request, *fake)
	asked   chan string // method, path and body of each
	server  *http.Server
}

func newFake(t *testing.T, answers ...func(http.ResponseWriter, *http.Request, *fake)) *fake {
	t.Helper()
	f := &fake{
		t: t, base: fakeBase(t), self: identity{Name: "web", PID: os.Getpid(), State: instanceServing, Generation: 4},
		answers: make(chan func(http.ResponseWriter, *http.Request, *fake), 16), asked: make(chan string, 16),
	}
	for _, answer := range answers {
		f.answers <- answer
	}
	f.start()
	return f
}

func (f *fake) path() string { return filepath.Join(f.base, "control", "web.sock") }

func (f *fake) start() {
	f.t.Helper()
	next := func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		f.asked <- r.Method + " " + r.URL.Path + " " + string(body)
		select {
		case answer := <-f.answers:
			answer(w, r, f)
		default:
			http.Error(w, `{"error":"asked too often"}`, http.StatusTeapot)
		}
	}
	l := fakeListen(f.t, f.path())
	f.server = fakeServe(f.t, l, f.self, map[string]http.HandlerFunc{"/": next})
}

// run runs a command against f.
func (f *fake) run(args ...string) (status int, out, errs string) {
	f.t.Helper()
	var stdout, stderr bytes.Buffer
	status = verbNamed(args[0]).main(args[1:], []string{"HOTWRAP_RUNTIME_DIR=" + f.base}, &stdout, &stderr)
	return status, stdout.String(), stderr.String()
}

// lines answers with a stream.
func lines(all ...string) func(http.ResponseWriter, *http.Request, *fake) {
	return func(w http.ResponseWriter, _ *http.Request, _ *fake) {
		w.Header().Set("Content-Type", "application/x-ndjson")
		for _, line := range all {
			fmt.Fprintln(w, line)
		}
	}
}

// answers answers with one document.
func answers(code int, text string) func(http.ResponseWriter, *http.Request, *fake) {
	return func(w http.ResponseWriter, _ *http.Request, _ *fake) {
		w.Header().Set("Content-Type", "application/json")
		w.WriteHeader(code)
		fmt.Fprintln(w, text)
	}
}

// hangsUp sends some lines and then no more: the connection breaks.
func hangsUp(all ...string) func(http.ResponseWriter, *http.Request, *fake) {
	return func(w http.ResponseWriter, r *http.Request, f *fake) {
		lines(all...)(w, r, f)
		_ = http.NewResponseController(w).Flush()
		panic(http.ErrAbortHandler)
	}
}

const (
	starting = `{"time":"2026-11-23T11:24:10.123Z","event":"starting","level":"info","generation":5,"text":"generation 5 starting pid=4398"}`
	fails    = `{"event":"failed","level":"warning","generation":5,"text":"generation 5 failed: exited 1"}`
	good     = `{"verdict":{"id":"x","ask":"restart","result":"promoted","generation":5,"build":"d4e5f6","predecessor":4,"serving":5,"took":1.4}}`
	bad      = `{"verdict":{"ask":"restart","result":"failed","generation":5,"serving":4,"serving_build":"aaaaaa","stage":"ready",` +
		`"reason":"exited 1 after 40ms, before ready","pid":4398,"exit":1,"took":0.04,"output":["one","two \u001b[31m"],"output_from":"/var/log/app.log"}}`
)

// TestVerdicts: what hotwrap answers, in words and as an exit status.
func TestVerdicts(t *testing.T) {
	for _, c := range []struct {
		name, command, answer string
		status                int
		last                  string // of what is said
	}{
		{"promoted", "restart", good, 0, "generation 5 serves (build d4e5f6) after 1.4s"},
		{"rolled back", "rollback", strings.Replace(good, `"restart"`, `"rollback"`, 1), 0, "generation 5 serves (build d4e5f6) after 1.4s"},
		{"bare", "restart", `{"verdict":{"result":"promoted","generation":5}}`, 0, "generation 5 serves"},
		{"failed", "restart", bad, 1, "hotwrap: error: generation 5 failed while starting: exited 1 after 40ms; generation 4 serves on (build aaaaaa)\n" +
			"  the program's last lines (/var/log/app.log):\n    one\n    two ?[31m"},
		{
			"failed baking", "restart", `{"verdict":{"result":"failed","generation":5,"reason":"died of SIGSEGV after 1s, while baking","serving":4}}`,
			1, "hotwrap: error: generation 5 failed while baking: died of SIGSEGV after 1s; generation 4 serves on",
		},
		{
			"nothing serves", "restart", `{"verdict":{"result":"failed","generation":5,"reason":"--check exited 1"}}`,
			1, "hotwrap: error: generation 5 failed: --check exited 1; nothing serves",
		},
		{
			"no past", "rollback", `{"verdict":{"result":"failed","reason":"no generation served before this one","serving":1}}`,
			1, "hotwrap: error: rollback failed: no generation served before this one; generation 1 serves on",
		},
		{
			"superseded", "restart", `{"verdict":{"result":"superseded","reason":"a rollback took its place, by SIGHUP","serving":4}}`,
			5, "hotwrap: error: superseded: a rollback took its place, by SIGHUP; generation 4 serves on",
		},
		{"stopped", "restart", `{"verdict":{"result":"stopped","reason":"hotwrap is stopping"}}`, 5, "hotwrap: error: no restart: hotwrap is stopping"},
		{"stopped instead", "reexec", `{"verdict":{"result":"stopped","reason":"hotwrap is stopping"}}`, 5, "hotwrap: error: not re-executed: hotwrap is stopping"},
		{
			"stays", "reexec", `{"verdict":{"result":"failed","reason":"the new hotwrap does not answer","serving":4}}`,
			1, "hotwrap: error: cannot re-exec: the new hotwrap does not answer; the old hotwrap goes on, and the program was not touched",
		},
		{"of the future", "restart", `{"verdict":{"result":"postponed","reason":"it rains"}}`, 4, "hotwrap: error: postponed: it rains"},
		{"stop", "stop", `{"verdict":{"ask":"stop","result":"stopped","exit":0,"took":2.1}}`, 0, "stopped after 2.1s"},
		{
			"stop late", "stop", `{"verdict":{"ask":"stop","result":"stopped","exit":137,"took":30,"reason":"not everybody ended in time"}}`,
			1, "hotwrap: error: stopped after 30s: not everybody ended in time",
		},
		{"fields of other types", "restart", `{"verdict":{"result":"promoted","generation":5,"serving":"five","took":"long"}}`, 0, "generation 5 serves"},
	} {
		t.Run(c.name, func(t *testing.T) {
			f := newFake(t, lines(starting, c.answer))
			status, out, errs := f.run(c.command)
			if want := "generation 5 starting pid=4398\n" + c.last + "\n"; status != c.status || errs != want || out != "" {
				t.Errorf("status %d, said %q; want %d, %q", status, errs, c.status, want)
			}
			f = newFake(t, lines(starting, c.answer))
			status, out, errs = f.run(c.command, "--json")
			verdict := strings.TrimSuffix(strings.TrimPrefix(c.answer, `{"verdict":`), "}")
			if status != c.status || errs != "" || out != verdict+"\n" {
				t.Errorf("--json: status %d, said %q, printed %q", status, errs, out)
			}
		})
	}
}

// TestProgress: events are told as the log has them, once.
func TestProgress(t *testing.T) {
	f := newFake(t, lines(
		`{"event":"log","level":"verbose","text":"hidden"}`,
		`{"event":"log","level":"warning","text":"memory is short"}`,
		`{"event":"log","level":"hint","text":"buy some"}`,
		`{"event":"verdict","level":"info","text":"hidden","verdict":{"result":"promoted"}}`,
		`no json`, `{"event":7}`, `{}`,
		`{"event":"log","text":"of a level `+"\\u001b]0;title\\u0007\\u202e"+`\nto come","level":"loud"}`,
		strings.Replace(fails, "5", "3", 2), fails, bad))
	_, _, errs := f.run("restart")
	said, _, _ := strings.Cut(errs, "hotwrap: error:")
	want := "hotwrap: warning: memory is short\nhotwrap: hint: buy some\nof a level ?]0;title?? to come\n" +
		"hotwrap: warning: generation 3 failed: exited 1\n"
	if said != want {
		t.Errorf("said %q, want %q", said, want)
	}
}

// TestRequestBody: what is asked is what was said on the command line, with an id of its own.
func TestRequestBody(t *testing.T) {
	f := newFake(t, lines(good), lines(good), lines(`{"verdict":{"ask":"stop","result":"stopped"}}`), answers(200, `{"signalled":[7]}`))
	var ids []string
	for _, c := range []struct{ line, want string }{
		{"restart -m hi", "POST /restart {ID,\"message\":\"hi\"}"},
		{"upgrade", "POST /restart {ID,\"message\":\"\"}"},
		{"stop --now", "POST /stop {ID,\"message\":\"\",\"now\":true}"},
		{"signal USR2", `POST /signal {"signal":"SIGUSR2"}`},
	} {
		if status, _, errs := f.run(strings.Fields(c.line)...); status != 0 {
			t.Errorf("%s: status %d: %s", c.line, status, errs)
		}
		id := regexp.MustCompile(`"id":"([A-Z0-9]+)"`)
		asked := <-f.asked
		if found := id.FindStringSubmatch(asked); found != nil {
			ids = append(ids, found[1])
		}
		if got := id.ReplaceAllString(asked, "ID"); got != c.want {
			t.Errorf("%s: asked %s, want %s", c.line, got, c.want)
		}
	}
	if slices.Sort(ids); len(slices.Compact(ids)) != 3 {
		t.Errorf("ids %v", ids)
	}
}

// TestAnswers: an error is hotwrap's own word.
func TestAnswers(t *testing.T) {
	for _, c := range []struct {
		line   string
		answer func(http.ResponseWriter, *http.Request, *fake)
		status int
		said   string
	}{
		{"restart", answers(503, `{"error":"64 clients wait already"}`), 1, "hotwrap: error: 64 clients wait already\n"},
		{"stop", answers(403, `{"error":"cannot stop: you may not","hint":"sudo"}`), 1, "hotwrap: error: cannot stop: you may not\nhotwrap: hint: sudo\n"},
		{"restart", answers(400, `{"error":"what?"}`), 2, "hotwrap: error: what?\n"},
		{"rollback", answers(404, "404 page not found"), 1, "hotwrap: error: hotwrap answers 404 Not Found\n"},
		{"restart", answers(409, `{"ask":"restart","result":"failed","generation":5,"serving":4}`), 1, "hotwrap: error: generation 5 failed; generation 4 serves on\n"},
		{"restart", lines(`{"error":"cannot go on","hint":"wait"}`), 1, "hotwrap: error: cannot go on\nhotwrap: hint: wait\n"},
		{"signal HUP", answers(409, `{"error":"no worker runs"}`), 1, "hotwrap: error: no worker runs\n"},
		{"signal HUP", answers(200, `{"signalled":[]}`), 1, "hotwrap: error: no worker runs\n"},
		{"signal HUP", answers(200, `{"signalled":[71,72]}`), 0, "SIGHUP sent to 71 72\n"},
		{"status", answers(503, `{"error":"hotwrap is ending"}`), 1, "hotwrap: error: hotwrap is ending\n"},
		{"status", answers(200, `nonsense`), 4, "hotwrap: error: cannot read the status: invalid character 'o' in literal null (expecting 'u')\n"},
		{"status -q", answers(200, `{"state":"failed"}`), 1, ""},
		{"status -q", answers(200, `{"state":"serving"}`), 0, ""},
		{"status -q", answers(503, `{"error":"hotwrap is ending"}`), 1, ""},
	} {
		f := newFake(t, c.answer)
		if status, _, errs := f.run(strings.Fields(c.line)...); status != c.status || errs != c.said {
			t.Errorf("%s: status %d, said %q; want %d, %q", c.line, status, errs, c.status, c.said)
		}
	}
}

// TestStatusCommand: --json is what hotwrap says, the table has the name.
func TestStatusCommand(t *testing.T) {
	const text = `{"name":"web","pid":4311,"state":"serving","generations":[{"generation":4,"state":"serving"}]}`
	f := newFake(t, answers(200, text), answers(200, text))
	if status, out, errs := f.run("status", "web", "--json"); status != 0 || out != text+"\n" || errs != "" {
		t.Errorf("status %d, printed %q, said %q", status, out, errs)
	}
	if status, out, errs := f.run("status", "web"); status != 0 || !strings.Contains(out, "web") || strings.HasPrefix(out, "{") || errs != "" {
		t.Errorf("status %d, printed %q, said %q", status, out, errs)
	}
	f.server.Close()
	if status, out, errs := f.run("status", "-q", "web"); status != exitNobody || out+errs != "" {
		t.Errorf("status %d, printed %q, said %q", status, out, errs)
	}
}

// TestLostConnection: a connection that breaks is not an answer; the same request is asked for again.
func TestLostConnection(t *testing.T) {
	id := regexp.MustCompile(`[A-Z0-9]{20,}`)
	asked := func(f *fake) (all []string) {
		close(f.asked)
		var ids []string
		for a := range f.asked {
			ids = append(ids, id.FindString(a))
			all = append(all, strings.Join(strings.Fields(id.ReplaceAllString(a, "ID"))[:2], " "))
		}
		if len(slices.Compact(ids)) > 1 {
			t.Errorf("asked by several ids: %q", ids)
		}
		return all
	}
	verdict := strings.TrimSuffix(strings.TrimPrefix(good, `{"verdict":`), "}")

	// the verdict is there by the time it is asked for
	f := newFake(t, hangsUp(starting), answers(200, verdict))
	status, _, errs := f.run("restart")
	if status != 0 || errs != "generation 5 starting pid=4398\ngeneration 5 serves (build d4e5f6) after 1.4s\n" {
		t.Errorf("status %d, said %q", status, errs)
	}
	if got := asked(f); !slices.Equal(got, []string{"POST /restart", "GET /verdicts/ID"}) {
		t.Errorf("asked %q", got)
	}

	// the request never arrived, or nobody remembers
	f = newFake(t, hangsUp(), answers(404, `{"error":"no request of that id is known"}`), lines(good))
	if status, _, errs = f.run("restart"); status != 0 {
		t.Errorf("status %d, said %q", status, errs)
	}
	if got := asked(f); !slices.Equal(got, []string{"POST /restart", "GET /verdicts/ID", "POST /restart"}) {
		t.Errorf("asked %q", got)
	}

	// a re-exec: the socket is deaf for a moment, then another process image of the same pid answers
	f = newFake(t, func(_ http.ResponseWriter, _ *http.Request, f *fake) {
		f.server.Close()
		f.start()
		panic(http.ErrAbortHandler)
	}, answers(409, `{"ask":"restart","result":"superseded"}`))
	if status, _, errs = f.run("restart"); status != exitOther {
		t.Errorf("status %d, said %q", status, errs)
	}
}

// TestReplacedHotwrap: what a hotwrap cuts off that replaces itself is asked again, by the same id where it is a request, and
// what happens meanwhile is shown.
func TestReplacedHotwrap(t *testing.T) {
	const baking = `{"event":"ready","level":"info","generation":5,"text":"generation 5 ready pid=4398; baking 1s"}`
	cuts := []func(http.ResponseWriter, *http.Request, *fake){hangsUp(starting)}
	for range 5 {
		cuts = append(cuts, hangsUp(baking), hangsUp())
	}
	f := newFake(t, append(cuts, lines(baking, good))...)
	status, _, errs := f.run("restart")
	if status != 0 || strings.Count(errs, "; baking 1s\n") != 6 || !strings.HasSuffix(errs, "\ngeneration 5 serves (build d4e5f6) after 1.4s\n") {
		t.Errorf("status %d, said %q", status, errs)
	}
	f = newFake(t, hangsUp(starting), hangsUp(), lines(bad))
	if status, _, errs := f.run("restart"); status != exitFailed {
		t.Errorf("status %d, said %q", status, errs)
	}

	const text = `{"name":"web","pid":4311,"state":"serving","generations":[{"generation":4,"state":"serving"}]}`
	cut := func(http.ResponseWriter, *http.Request, *fake) { panic(http.ErrAbortHandler) }
	f = newFake(t, cut, cut, answers(200, text))
	if status, out, errs := f.run("status", "web", "--json"); status != 0 || out != text+"\n" || errs != "" {
		t.Errorf("status %d, printed %q, said %q", status, out, errs)
	}
	f = newFake(t, cut, answers(200, `{"signalled":[7]}`))
	if status, _, errs := f.run("signal", "HUP", "web"); status != 0 || errs != "SIGHUP sent to 7\n" {
		t.Errorf("status %d, said %q", status, errs)
	}
	f = newFake(t, func(_ http.ResponseWriter, _ *http.Request, f *fake) {
		f.server.Close()
		panic(http.ErrAbortHandler)
	})
	k := newSeeker([]string{"HOTWRAP_RUNTIME_DIR=" + f.base}, "web")
	p := &contact{path: f.path(), seeker: k}
	k.visit(t.Context(), p, askLimit)
	p.peer.pid = 1 << 30 // it has ended
	var said strings.Builder
	a := &asker{errand: &errand{verb: verbNamed("status")}, at: p, http: p.httpClient(), stdout: io.Discard, stderr: &said}
	if status := a.status(t.Context()); status != exitUnknown || !strings.Contains(said.String(), `does not answer: the connection to hotwrap ended: EOF`) {
		t.Errorf("status %d, said %q", status, said.String())
	}
}

// TestLostHotwrap: without a verdict the outcome is unknown, and nothing else.
func TestLostHotwrap(t *testing.T) {
	die := func(_ http.ResponseWriter, _ *http.Request, f *fake) {
		f.server.Close()
		panic(http.ErrAbortHandler)
	}
	f := newFake(t, die)
	status, out, errs := f.run("restart", "--json")
	if status != exitUnknown || !strings.Contains(errs, "hotwrap: error: the outcome of the restart is unknown: the connection to hotwrap ended") ||
		!strings.Contains(errs, "hotwrap: hint: hotwrap status web tells how it goes") {
		t.Errorf("status %d, said %q", status, errs)
	}
	var v map[string]string
	if err := json.Unmarshal([]byte(out), &v); err != nil || v["result"] != "unknown" || v["ask"] != "restart" || v["id"] == "" {
		t.Errorf("printed %q: %v", out, err)
	}

	// another hotwrap is not asked for what the first was
	f = newFake(t, func(_ http.ResponseWriter, _ *http.Request, f *fake) {
		f.server.Close()
		f.self.PID++
		f.start()
		panic(http.ErrAbortHandler)
	})
	k := newSeeker([]string{"HOTWRAP_RUNTIME_DIR=" + f.base}, "web")
	p := &contact{path: f.path(), seeker: k}
	k.visit(t.Context(), p, askLimit)
	p.peer.pid = 1 // as if the one that was asked had been another, and lives: else nobody might seem to be left in between
	a := &asker{errand: &errand{verb: verbNamed("restart"), wait: waitPromoted}, at: p, http: p.httpClient(), id: "X", stdout: io.Discard, stderr: io.Discard}
	raw, err := a.verdict(t.Context(), map[string]any{})
	if err == nil || !strings.Contains(err.Error(), "has taken its place") {
		t.Errorf("verdict %s, error %v", raw, err)
	}
	if n := len(f.asked); n != 1 {
		t.Errorf("%d requests were made", n)
	}
}

// TestGivingUp: --timeout ends the waiting.
func TestGivingUp(t *testing.T) {
	hang := func(w http.ResponseWriter, r *http.Request, f *fake) {
		lines(starting)(w, r, f)
		_ = http.NewResponseController(w).Flush()
		<-r.Context().Done()
	}
	f := newFake(t, hang, hang, hang)
	status, out, errs := f.run("restart", "--timeout", "300ms")
	if status != exitUnknown || errs != "generation 5 starting pid=4398\nhotwrap: error: gave up waiting after 300ms; the restart goes on\n"+
		"hotwrap: hint: hotwrap status web tells how it goes\n" || out != "" {
		t.Errorf("status %d, said %q, printed %q", status, errs, out)
	}
	if status, out, _ = f.run("stop", "--timeout", "300ms", "--json"); status != exitUnknown || !strings.Contains(out, `"result":"unknown"`) {
		t.Errorf("status %d, printed %q", status, out)
	}
	if status, _, errs = f.run("restart", "--wait", "none"); status != 0 || !strings.HasPrefix(errs, "restart accepted; hotwrap status web tells how it goes\n") ||
		!strings.Contains(errs, "curl --unix-socket "+f.path()+" http://hotwrap/verdicts/") {
		t.Errorf("status %d, said %q", status, errs)
	}
}

// TestDrained: --wait drained waits for the predecessor, whichever way its end is learned.
func TestDrained(t *testing.T) {
	const gone = `{"event":"drained","level":"info","generation":4,"text":"generation 4 gone status=0 drained=2.1s","status":"0"}`
	other := strings.ReplaceAll(gone, "4", "3")
	events := func(all ...string) func(http.ResponseWriter, *http.Request, *fake) {
		return func(w http.ResponseWriter, r *http.Request, f *fake) {
			lines(append([]string{`{"event":"hello"}`}, all...)...)(w, r, f)
			_ = http.NewResponseController(w).Flush()
			if len(all) > 0 {
				<-r.Context().Done()
			}
		}
	}
	left := func(numbers ...string) func(http.ResponseWriter, *http.Request, *fake) {
		return answers(200, `{"state":"serving","generations":[{"generation":`+strings.Join(numbers, `},{"generation":`)+`}]}`)
	}
	for _, c := range []struct {
		name    string
		answers []func(http.ResponseWriter, *http.Request, *fake)
		said    string
	}{
		{"told", []func(http.ResponseWriter, *http.Request, *fake){events(other, gone), lines(good)}, "generation 4 gone status=0 drained=2.1s"},
		{
			"killed",
			[]func(http.ResponseWriter, *http.Request, *fake){events(strings.ReplaceAll(gone, `"0"`, `"SIGKILL"`)), lines(good)},
			"hotwrap: warning: generation 4 gone status=0 drained=2.1s: it had to be killed",
		},
		{"missed", []func(http.ResponseWriter, *http.Request, *fake){events(), lines(good), events(), left("5")}, "generation 4 gone"},
		{
			"lost and found",
			[]func(http.ResponseWriter, *http.Request, *fake){events(), lines(good), events(gone), left("4", "5")},
			"generation 4 gone status=0 drained=2.1s",
		},
		{"first", []func(http.ResponseWriter, *http.Request, *fake){events(), lines(strings.Replace(good, `"predecessor":4,`, "", 1))}, ""},
	} {
		f := newFake(t, c.answers...)
		status, _, errs := f.run("restart", "--wait", "drained")
		want := "generation 5 serves (build d4e5f6) after 1.4s\n" + c.said + "\n"
		if status != 0 || errs != strings.TrimSuffix(want, "\n\n")+strings.Repeat("\n", strings.Count(want, "\n\n")) {
			t.Errorf("%s: status %d, said %q, want %q", c.name, status, errs, want)
		}
	}
}

// TestDrainedUnheard: where there is no place left to listen, the end of the predecessor is asked for now and then.
func TestDrainedUnheard(t *testing.T) {
	f := newFake(t)
	for len(f.answers) < cap(f.answers) {
		f.answers <- func(w http.ResponseWriter, r *http.Request, f *fake) {
			switch r.URL.Path {
			case "/events":
				answers(503, `{"error":"48 clients listen already"}`)(w, r, f)
			case "/restart":
				lines(good)(w, r, f)
			default:
				answers(200, `{"state":"serving","generations":[{"generation":4},{"generation":5}]}`)(w, r, f)
			}
		}
	}
	status, _, errs := f.run("restart", "--wait", "drained", "--timeout", "400ms")
	if status != exitUnknown || !strings.Contains(errs, "gave up waiting after 400ms; generation 4 drains on") {
		t.Errorf("status %d, said %q", status, errs)
	}
	if len(f.asked) == cap(f.asked) {
		t.Errorf("asked %d times and more", len(f.asked))
	}
}

// TestJournalCommand: nothing is run that the other end could have chosen.
func TestJournalCommand(t *testing.T) {
	for hint, want := range map[string]string{
		"journalctl _PID=4398":                      "journalctl _PID=4398 -n 20 --no-pager -q -o cat",
		"journalctl _PID=4398 -n 20 --no-pager":     "journalctl _PID=4398 -n 20 --no-pager -q -o cat",
		"journalctl _PID=1 --file=/tmp/x; rm -rf /": "journalctl _PID=1 -n 20 --no-pager -q -o cat",
		"journalctl --file=/tmp/x":                  "",
		"rm _PID=1":                                 "",
		" journalctl _PID=1":                        "",
		"":                                          "",
	} {
		if got := strings.Join(journalCommand(hint), " "); got != want {
			t.Errorf("%q runs %q, want %q", hint, got, want)
		}
	}
}

// TestLastWords: where the journal has the program's last lines they are shown, and the way to them where it is not there.
func TestLastWords(t *testing.T) {
	const verdict = `{"verdict":{"result":"failed","generation":5,"pid":4398,"serving":4,"output_hint":"journalctl _PID=4398 -n 20 --no-pager"}}`
	dir := t.TempDir()
	t.Setenv("PATH", dir)
	f := newFake(t, lines(verdict), lines(verdict))
	const first = "hotwrap: error: generation 5 failed; generation 4 serves on\n"
	if _, _, errs := f.run("restart"); errs != first+"hotwrap: hint: the program's last lines: journalctl _PID=4398 -n 20 --no-pager\n" {
		t.Errorf("said %q", errs)
	}
	script := "#!/bin/sh\necho \"$@\"\n"
	if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte(script), 0o755); err != nil { //nolint:gosec // it is run
		t.Fatal(err)
	}
	want := first + "  journalctl _PID=4398 -n 20 --no-pager:\n    _PID=4398 -n 20 --no-pager -q -o cat\n"
	if _, _, errs := f.run("restart"); errs != want {
		t.Errorf("said %q", errs)
	}
}

// TestRunJournal: what it says is shown; what it does not say in time is not waited for.
func TestRunJournal(t *testing.T) {
	dir := t.TempDir()
	script := func(text string) {
		if err := os.WriteFile(filepath.Join(dir, "journalctl"), []byte("#!/bin/sh\n"+text), 0o755); err != nil { //nolint:gosec // it is run
			t.Fatal(err)
		}
	}
	t.Setenv("PATH", dir+":"+os.Getenv("PATH"))
	script(`for i in 1 2 3; do echo "$i $*"; done`)
	if got := runJournal([]string{"journalctl", "a b"}); !slices.Equal(got, []string{"1 a b", "2 a b", "3 a b"}) {
		t.Errorf("%q", got)
	}
	script(`echo one; echo two; exec sleep 60`)
	if got := runJournal([]string{"journalctl"}); !slices.Equal(got, []string{"one", "two"}) {
		t.Errorf("%q", got)
	}
	script(`exec yes`)
	if got := runJournal([]string{"journalctl"}); len(got) != streamLineMost/2 {
		t.Errorf("%d lines", len(got))
	}
	t.Setenv("PATH", t.TempDir())
	if got := runJournal([]string{"journalctl"}); got != nil {
		t.Errorf("%q", got)
	}
}

func TestTamed(t *testing.T) {
	for text, want := range map[string]string{
		"a\tb\nc":               "a b c",
		"\x1b[2J\x00\x7f\u009b": "?[2J???",
		"\xff\u202eä…":          "??ä…",
		"0123456789abc":         "0123456789…",
	} {
		if got := tamed(text, 10); got != want {
			t.Errorf("%q is %q, want %q", text, got, want)
		}
	}
}

// TestStrangerLater: who listens is looked at with each connection.
func TestStrangerLater(t *testing.T) {
	f := newFake(t)
	k := newSeeker(nil, "web")
	p := &contact{path: f.path(), seeker: k}
	k.visit(t.Context(), p, askLimit)
	dialled := 0
	p.seeker = &seeker{}
	client := p.httpClient()
	inner := client.Transport.(*http.Transport).DialContext
	client.Transport.(*http.Transport).DialContext = func(ctx context.Context, network, addr string) (net.Conn, error) {
		dialled++
		return inner(ctx, network, addr)
	}
	for i := range 3 {
		if err := askSelf(t.Context(), client, &p.self); err != nil {
			t.Fatal(err)
		}
		if dialled != i+1 {
			t.Errorf("%s connections for %d questions", strconv.Itoa(dialled), i+1)
		}
	}
}
