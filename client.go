package main

// This file asks an instance for something and waits for its verdict.
//
// Its rules:
//   - A verdict is what hotwrap says, never what we conclude; without one the outcome is unknown, and that is said.
//   - A request has an id of its own: asked again after a lost connection it is the same request.
//   - Who gives up waiting ends the waiting, not what was asked for.
//   - Nobody who stops reading our output changes the exit status.

import (
	"bufio"
	"bytes"
	"context"
	"crypto/rand"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"os/signal"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

const (
	lostPatience   = 5 * time.Second        // for a hotwrap to come back that went away without a verdict
	lostPause      = 100 * time.Millisecond // between two looks for it
	lostTries      = 100                    // how often one that is there may break off
	shortWait      = 10 * time.Second       // for an answer that needs no waiting on anybody
	streamLineMost = 1 << 20                // bytes of a line
	answerMost     = 16 << 20               // bytes of an answer
)

// asker is one command under way.
type asker struct {
	*errand
	at             *contact
	http           *http.Client
	id             string
	inside         int  // the generation of at that this command runs in; 0: it does not
	accepted       bool // hotwrap has the request
	stdout, stderr io.Writer
}

// news is one line of a stream: an event, or, without a name, the end of it.
type news struct {
	Event      happening       `json:"event"`
	Level      level           `json:"level"`
	Generation int             `json:"generation"`
	Text       string          `json:"text"`
	Status     json.RawMessage `json:"status"` // of who has drained
	Verdict    json.RawMessage `json:"verdict"`
	answerError
}

var (
	errLost   = errors.New("the connection to hotwrap ended")
	errEnded  = errors.New("has ended")
	errGaveUp = errors.New("gave up waiting")
)

// signalError is that a signal ended the waiting.
type signalError struct{ sig os.Signal }

func (e *signalError) Error() string {
	sig, _ := e.sig.(syscall.Signal)
	return "interrupted by " + signalName(sig)
}

// patience ends with --timeout, or with a signal that ends us, unless that was ignored (nohup). PIPE is caught and
// dropped: nobody who stops reading our output ends the waiting.
func (o *errand) patience() (ctx context.Context, stop func()) {
	sigs := make(chan os.Signal, 8)
	catch := []os.Signal{syscall.SIGPIPE}
	for _, sig := range []os.Signal{syscall.SIGINT, syscall.SIGTERM, syscall.SIGHUP} {
		if !signal.Ignored(sig) {
			catch = append(catch, sig)
		}
	}
	signal.Notify(sigs, catch...)
	ctx, cancel := context.WithCancelCause(context.Background())
	ended := ctx.Done()
	go func() {
		for {
			select {
			case sig := <-sigs:
				if sig != syscall.SIGPIPE {
					cancel(&signalError{sig})
				}
			case <-ended:
				return
			}
		}
	}()
	done := func() {}
	if o.timeout.set {
		ctx, done = context.WithTimeoutCause(ctx, o.timeout.d, fmt.Errorf("%w after %s", errGaveUp, brief(o.timeout.d)))
	}
	return ctx, func() {
		signal.Stop(sigs)
		done()
		cancel(nil)
	}
}

// --- commands

// restart asks for a restart or a rollback.
func (a *asker) restart(ctx context.Context) int {
	a.id = rand.Text()
	var drained <-chan news
	if a.wait == waitDrained {
		drained = a.drains(ctx)
	}
	body := map[string]any{"message": string(a.message)}
	if a.canary != "" {
		body["canary"], body["canary_check"] = string(a.canary), a.check
	}
	raw, err := a.verdict(ctx, body)
	switch {
	case err != nil:
		return a.refuse(a.lost(ctx, err))
	case a.wait == waitNone:
		return a.acceptedOnly()
	}
	v := a.tell(raw)
	if v.Result == promoted && a.wait == waitDrained {
		return a.awaitDrain(ctx, v, drained)
	}
	return v.status()
}

// acceptedOnly says that hotwrap has the request, and where its verdict will be.
func (a *asker) acceptedOnly() int {
	if a.json {
		a.printJSON(map[string]any{"id": a.id, "ask": a.verb.name(), "result": "accepted"})
		return exitDone
	}
	a.say("", "%s accepted; hotwrap status %s tells how it goes", a.verb.name(), a.at.name())
	a.say("hint", "curl --unix-socket %s http://hotwrap/verdicts/%s waits for its verdict", a.at.path, a.id)
	return exitDone
}

// stop asks for an ordered stop.
func (a *asker) stop(ctx context.Context) int {
	a.id = rand.Text()
	raw, err := a.verdict(ctx, map[string]any{"message": string(a.message), "now": a.now})
	if err != nil {
		return a.refuse(a.lost(ctx, err))
	}
	return a.tell(raw).status()
}

// reexec has hotwrap itself replaced.
func (a *asker) reexec(ctx context.Context) int {
	a.id = rand.Text()
	raw, err := a.verdict(ctx, map[string]any{"message": string(a.message)})
	if err != nil {
		return a.refuse(a.lost(ctx, err))
	}
	return a.tell(raw).status()
}

// status shows what runs.
func (a *asker) status(ctx context.Context) int {
	ctx, cancel := context.WithTimeoutCause(ctx, shortWait, fmt.Errorf("%w after %s", errGaveUp, brief(shortWait)))
	defer cancel()
	text, err := a.fetch(ctx, http.MethodGet, "/status", nil)
	if err != nil {
		return a.refuse(a.mute(ctx, err))
	}
	var s statusView
	if err := json.Unmarshal(text, &s); err != nil && s.State == "" {
		return a.refuse(&findError{fmt.Sprintf("cannot read the status: %v", err), "", exitUnknown})
	}
	switch {
	case a.quiet:
	case a.json:
		_, err = a.stdout.Write(append(bytes.TrimSpace(text), '\n'))
	default:
		err = writeStatus(a.stdout, text, outputWidth())
	}
	a.unwritten(err)
	if !s.serves() {
		return exitFailed
	}
	return exitDone
}

// signal has a signal sent to the workers.
func (a *asker) signal(ctx context.Context) int {
	ctx, cancel := context.WithTimeoutCause(ctx, shortWait, fmt.Errorf("%w after %s", errGaveUp, brief(shortWait)))
	defer cancel()
	text, err := a.fetch(ctx, http.MethodPost, "/signal", map[string]any{"signal": signalName(a.sig)})
	var told struct {
		Signalled []int `json:"signalled"`
	}
	if err == nil {
		err = json.Unmarshal(text, &told)
	}
	switch {
	case err != nil:
		return a.refuse(a.mute(ctx, err))
	case a.json:
		a.printJSON(told)
	case len(told.Signalled) > 0:
		a.say("", "%s sent to %s", signalName(a.sig), strings.Trim(fmt.Sprint(told.Signalled), "[]"))
	}
	if len(told.Signalled) == 0 {
		return a.refuse(&findError{"no worker runs", "", exitFailed})
	}
	return exitDone
}

// --- asking

// verdict asks for what the command says and waits for the verdict. A connection that ends without one may be
// hotwrap's end or its re-exec: then it is asked again, by the same id.
func (a *asker) verdict(ctx context.Context, body map[string]any) (json.RawMessage, error) {
	body["id"] = a.id
	raw, err := a.ask(ctx, body)
	return a.again(ctx, raw, err, func() (json.RawMessage, error) { return a.askAgain(ctx, body) })
}

// again asks once more for what a lost connection has not answered, as long as it is the same hotwrap that is there.
func (a *asker) again(ctx context.Context, raw json.RawMessage, err error, ask func() (json.RawMessage, error)) (json.RawMessage, error) {
	limit := time.Now().Add(lostPatience)
	for tries := 0; errors.Is(err, errLost) && ctx.Err() == nil && time.Now().Before(limit) && tries < lostTries; {
		there, other := a.there(ctx)
		switch {
		case other != nil:
			return nil, other
		case there:
			raw, err = ask()
			limit, tries = time.Now().Add(lostPatience), tries+1
		}
		if errors.Is(err, errLost) {
			wait(ctx, lostPause)
		}
	}
	return raw, err
}

// there tells whether the hotwrap that was asked answers; an error is that it never will.
func (a *asker) there(ctx context.Context) (bool, error) {
	p := *a.at
	p.seeker.visit(ctx, &p, askLimit)
	switch {
	case p.standing != contactAnswers && a.at.gone():
		return false, fmt.Errorf("hotwrap, pid %d, %w", a.at.pid(), errEnded)
	case p.standing != contactAnswers:
		return false, nil
	case p.pid() != a.at.pid():
		return false, fmt.Errorf("another hotwrap, pid %d, has taken its place", p.pid())
	}
	return true, nil
}

// ask asks once. It returns nothing where nothing is waited for.
func (a *asker) ask(ctx context.Context, body map[string]any) (json.RawMessage, error) {
	answer, err := a.send(ctx, http.MethodPost, "/"+a.verb.name(), body, ndjson)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusOK {
		a.accepted = true
	}
	switch {
	case a.accepted && a.verb.has("wait") && a.wait == waitNone:
		return nil, nil
	case !strings.HasPrefix(answer.Header.Get("Content-Type"), ndjson):
		return readVerdict(answer)
	}
	return a.follow(answer.Body)
}

// askAgain asks for the verdict on a request that was made before, and shows what happens until then. If hotwrap never got
// it, it is made once more.
func (a *asker) askAgain(ctx context.Context, body map[string]any) (json.RawMessage, error) {
	answer, err := a.send(ctx, http.MethodGet, "/verdicts/"+url.PathEscape(a.id), nil, ndjson)
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	if answer.StatusCode == http.StatusNotFound {
		return a.ask(ctx, body)
	}
	a.accepted = true
	if !strings.HasPrefix(answer.Header.Get("Content-Type"), ndjson) {
		return readVerdict(answer)
	}
	return a.follow(answer.Body)
}

// send sends one request. A connection that fails is errLost; one that a stranger answers is not.
func (a *asker) send(ctx context.Context, method, path string, body map[string]any, accept string) (*http.Response, error) {
	var content io.Reader
	if body != nil {
		text, err := json.Marshal(body)
		if err != nil {
			return nil, err
		}
		content = bytes.NewReader(text)
	}
	r, err := http.NewRequestWithContext(ctx, method, "http://hotwrap"+path, content)
	if err != nil {
		return nil, err
	}
	r.Header.Set("Accept", accept)
	r.Header.Set("User-Agent", "hotwrap/"+versionText())
	if body != nil {
		r.Header.Set("Content-Type", "application/json")
	}
	answer, err := a.http.Do(r)
	var stranger *strangerError
	if err != nil && !errors.As(err, &stranger) {
		err = fmt.Errorf("%w: %w", errLost, plainError(err))
	}
	return answer, err
}

// fetch reads the whole of an answer that must be a good one. What a hotwrap that replaces itself has not answered, it has
// not done either.
func (a *asker) fetch(ctx context.Context, method, path string, body map[string]any) ([]byte, error) {
	text, first := a.fetchOnce(ctx, method, path, body)
	text, err := a.again(ctx, text, first, func() (json.RawMessage, error) { return a.fetchOnce(ctx, method, path, body) })
	if err != nil && errors.Is(first, errLost) && !errors.As(err, new(*answerError)) {
		err = first
	}
	return text, err
}

func (a *asker) fetchOnce(ctx context.Context, method, path string, body map[string]any) (json.RawMessage, error) {
	answer, err := a.send(ctx, method, path, body, "application/json")
	if err != nil {
		return nil, err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := readBody(answer)
	if err == nil && answer.StatusCode != http.StatusOK {
		err = answerFailed(answer, text)
	}
	return text, err
}

// readVerdict reads an answer that is a verdict, good or bad, and nothing else.
func readVerdict(answer *http.Response) (json.RawMessage, error) {
	text, err := readBody(answer)
	if err != nil {
		return nil, err
	}
	var v verdictView
	if _ = json.Unmarshal(text, &v); v.Result == "" { // a field of another type, of a newer hotwrap, is no matter
		return nil, answerFailed(answer, text)
	}
	return text, nil
}

func readBody(answer *http.Response) ([]byte, error) {
	text, err := io.ReadAll(io.LimitReader(answer.Body, answerMost))
	if err != nil {
		err = fmt.Errorf("%w: %w", errLost, err)
	}
	return text, err
}

// answerFailed is the error that an answer tells of.
func answerFailed(answer *http.Response, text []byte) error {
	e := &answerError{Code: answer.StatusCode}
	if json.Unmarshal(text, e) != nil || e.Text == "" {
		e.Text = "hotwrap answers " + answer.Status
	}
	return e
}

// follow shows what happens until the verdict comes.
func (a *asker) follow(body io.Reader) (json.RawMessage, error) {
	var held *news // a failure that the verdict will tell of
	lines := newLines(body)
	for lines.Scan() {
		var n news
		switch err := json.Unmarshal(lines.Bytes(), &n); {
		case err != nil: // a newer hotwrap's, perhaps
		case n.Event == "" && n.Verdict != nil:
			var v verdictView
			if _ = json.Unmarshal(n.Verdict, &v); held != nil && held.Generation != v.Generation {
				a.show(held)
			}
			return n.Verdict, nil
		case n.Event == "" && n.answerError.Text != "":
			return nil, &n.answerError
		case n.Event == hapFailed:
			if held != nil {
				a.show(held)
			}
			held = &n
		default:
			a.show(&n)
		}
	}
	if held != nil {
		a.show(held)
	}
	return nil, errLost
}

// show prints one event as the log has it.
func (a *asker) show(n *news) {
	if a.json || n.Event == hapVerdict || n.Text == "" {
		return
	}
	switch n.Level {
	case levelVerbose:
	case levelHint, levelWarning, levelError:
		a.say(string(n.Level), "%s", n.Text)
	case levelInfo:
		a.say("", "%s", n.Text)
	default:
		a.say("", "%s", n.Text)
	}
}

// --- the drain

// drains tells of everybody who has drained from now on. The channel is closed when hotwrap is lost.
func (a *asker) drains(ctx context.Context) <-chan news {
	seen := make(chan news, 64)
	answer, err := a.send(ctx, http.MethodGet, "/events", nil, ndjson) //nolint:bodyclose // by the goroutine
	if err != nil {
		close(seen)
		return seen
	}
	go func() {
		defer close(seen)
		defer func() { _ = answer.Body.Close() }()
		for lines := newLines(answer.Body); lines.Scan(); {
			var n news
			if json.Unmarshal(lines.Bytes(), &n) != nil || n.Event != hapDrained {
				continue
			}
			select {
			case seen <- n:
			case <-ctx.Done():
				return
			}
		}
	}()
	return seen
}

// awaitDrain waits until the predecessor has ended. That it had to be killed is said, and no failure.
func (a *asker) awaitDrain(ctx context.Context, v verdictView, drained <-chan news) int {
	if v.Predecessor == 0 {
		return exitDone
	}
	if v.Predecessor == a.inside {
		a.say("warning", "not waiting for generation %d: this command runs in it", v.Predecessor)
		return exitDone
	}
	limit := time.Now().Add(lostPatience)
	for ctx.Err() == nil {
		select {
		case n, ok := <-drained:
			if ok && n.Generation == v.Predecessor {
				return a.wasDrained(n)
			}
			if ok {
				continue
			}
		case <-ctx.Done():
			continue
		}
		drained = a.drains(ctx) // before the look at who is left: between the two nothing is missed
		left, err := a.generations(ctx)
		switch {
		case err == nil && !left[v.Predecessor]:
			a.say("", "generation %d gone", v.Predecessor)
			return exitDone
		case err == nil:
			limit = time.Now().Add(lostPatience)
			wait(ctx, lostPause) // there may be no place to listen
		case time.Now().After(limit):
			return a.refuse(a.lost(ctx, err))
		default:
			wait(ctx, lostPause)
		}
	}
	return a.refuse(&findError{
		fmt.Sprintf("%v; generation %d drains on", context.Cause(ctx), v.Predecessor), a.howToAsk(), exitUnknown,
	})
}

func (a *asker) wasDrained(n news) int {
	if strings.Contains(string(n.Status), "KILL") {
		a.say("warning", "%s: it had to be killed", n.Text)
	} else {
		a.show(&n)
	}
	return exitDone
}

// generations are the numbers of those that are not gone.
func (a *asker) generations(ctx context.Context) (map[int]bool, error) {
	text, err := a.fetch(ctx, http.MethodGet, "/status", nil)
	if err != nil {
		return nil, err
	}
	var s statusView
	if err := json.Unmarshal(text, &s); err != nil && s.State == "" {
		return nil, err
	}
	left := map[int]bool{}
	for _, g := range s.Generations {
		left[g.Generation] = true
	}
	return left, nil
}

// --- what went wrong

// lost words an outcome that nobody knows.
func (a *asker) lost(ctx context.Context, err error) error {
	var answer *answerError
	if errors.As(err, &answer) {
		return err
	}
	what := a.verb.name()
	switch {
	case ctx.Err() != nil && a.accepted:
		return &findError{fmt.Sprintf("%v; the %s goes on", context.Cause(ctx), what), a.howToAsk(), exitUnknown}
	case ctx.Err() != nil:
		return &findError{fmt.Sprintf("%v; the %s may go on", context.Cause(ctx), what), a.howToAsk(), exitUnknown}
	}
	hint := a.howToAsk()
	if errors.Is(err, errEnded) {
		hint = "its log tells more; what it had started may still serve, without it"
	}
	return &findError{fmt.Sprintf("the outcome of the %s is unknown: %v", what, err), hint, exitUnknown}
}

// mute words a question that was not answered.
func (a *asker) mute(ctx context.Context, err error) error {
	var answer *answerError
	if errors.As(err, &answer) {
		return err
	}
	if ctx.Err() != nil {
		err = context.Cause(ctx)
	}
	return &findError{fmt.Sprintf("%q (pid %d) does not answer: %v", a.at.name(), a.at.pid(), err), "", exitUnknown}
}

func (a *asker) howToAsk() string {
	if a.canary != "" {
		return fmt.Sprintf("hotwrap rollback %s aborts the canary, hotwrap status %s tells how it goes", a.at.name(), a.at.name())
	}
	return "hotwrap status " + a.at.name() + " tells how it goes"
}

// refuse says what went wrong, and returns the exit status for it.
func (a *asker) refuse(err error) int {
	var found *findError
	var answer *answerError
	status, hint := exitFailed, ""
	switch {
	case errors.As(err, &found):
		status, hint = found.status, found.hint
	case errors.As(err, &answer):
		hint = answer.Hint
		if answer.Code == http.StatusBadRequest {
			status = exitUsage
		}
	}
	if a.quiet {
		return status
	}
	if a.json && status == exitUnknown && a.id != "" {
		a.printJSON(map[string]any{"id": a.id, "ask": a.verb.name(), "result": "unknown", "reason": err.Error()})
	}
	var left *leftError
	if errors.As(err, &left) && a.json && a.verb.name() == "status" {
		for _, l := range left.all {
			a.printJSON(l)
		}
	}
	a.say("error", "%v", err)
	if hint != "" {
		a.say("hint", "%s", hint)
	}
	return status
}

// has tells whether the command has an option.
func (c *verb) has(option string) bool {
	return strings.Contains(" "+strings.Join(c.options, " ")+" ", " "+option+" ")
}

// plainError is the cause of an error without what net/http says before it.
func plainError(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}

// newLines reads lines of bounded length.
func newLines(r io.Reader) *bufio.Scanner {
	lines := bufio.NewScanner(r)
	lines.Buffer(nil, streamLineMost)
	return lines
}

// outputWidth is the width of the terminal that standard output is; 0: it is none.
func outputWidth() int {
	size, err := unix.IoctlGetWinsize(1, unix.TIOCGWINSZ)
	if err != nil {
		return 0
	}
	return int(size.Col)
}
