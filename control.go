package main

// This file is the control socket: HTTP with JSON, for hotwrap's own commands and for curl.
//
// Its rules:
//   - A handler asks the supervisor by an event with a reply channel, and looks at the rest by itself.
//   - Who may do what, the kernel says: the peer's user and groups, not anything in the request.
//   - Nothing that a client does or leaves undone holds up the supervisor or grows hotwrap: bodies,
//     headers, connections and time are limited, and who waits without having asked goes first.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	controlFree    = 10 * time.Second // between two times that memory is given back
	controlGC      = 20               // GOGC: little lives long here, and a heap of 4 MiB before the first collection is too much for it
	controlCrowd   = 8                // connections at once after which memory is given back
	controlConns   = 128              // connections at once, of one server
	controlStreams = 32               // of them, that wait for a verdict: of the owner's, and as many of the group's
	controlHearers = 48               // of them, that listen to events: they leave room for who asks for something
	controlBody    = 64 << 10
	controlHeader  = 16 << 10
	controlPatient = 5 * time.Second  // for a request's header, and for its body
	controlIdle    = 30 * time.Second // for the next request
	controlWrite   = 10 * time.Second // for one write: a reader that takes longer is gone
	controlEnd     = time.Second      // for the last answers when hotwrap ends
	messageMost    = 500              // bytes of a request's message
	idMost         = 64
	ndjson         = "application/x-ndjson"
)

// control is the server of one instance.
type control struct {
	tell      func(ev event, quit <-chan struct{}) bool
	here      context.Context // ends when another hotwrap is to answer
	end       context.CancelFunc
	hub       *hub
	facts     facts
	lastWords func(serial, pid int) (lines []string, from, hint string)
	servers   []*guarded
	owners    chan struct{} // has a place for each client of the owner's that waits for a verdict
	members   chan struct{} // the same for the group, which is to keep no owner out
}

// newControl makes the server; serve lets clients in.
func newControl(tell func(ev event, quit <-chan struct{}) bool, h *hub, f facts) *control {
	here, end := context.WithCancel(context.Background())
	return &control{
		tell: tell, here: here, end: end, hub: h, facts: f, owners: make(chan struct{}, controlStreams), members: make(chan struct{}, controlStreams),
		lastWords: func(int, int) ([]string, string, string) { return nil, "", "" },
	}
}

// serve answers on l. On a socket that only looks, nothing can be asked for.
func (c *control) serve(l net.Listener, group int, only bool) {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", c.inTurn(make(chan struct{}, 1), c.identify)) // no command waits for another's long look
	mux.HandleFunc("GET /ready", c.inTurn(make(chan struct{}, 1), c.ready))
	turn := make(chan struct{}, 1)
	mux.HandleFunc("GET /status", c.inTurn(turn, c.status))
	mux.HandleFunc("GET /metrics", c.inTurn(turn, c.metrics))
	mux.HandleFunc("GET /events", c.events(make(chan struct{}, controlHearers)))
	if !only {
		mux.HandleFunc("GET /verdicts/{id}", c.await)
		mux.HandleFunc("POST /restart", c.wish(askRestart))
		mux.HandleFunc("POST /rollback", c.wish(askRollback))
		mux.HandleFunc("POST /stop", c.wish(askStop))
		mux.HandleFunc("POST /reexec", c.wish(askReexec))
		mux.HandleFunc("POST /signal", c.signal)
	}
	handler := plainErrors(mux)
	if !only {
		handler = permitted(handler, group)
	}
	g := newGuarded(c.here, handler)
	c.servers = append(c.servers, g)
	go g.serve(keptListener{l, c.here})
}

// keptListener is closed by its owner, where another hotwrap goes on with it.
type keptListener struct {
	net.Listener
	here context.Context
}

func (l keptListener) Close() error {
	if d, ok := l.Listener.(interface{ SetDeadline(t time.Time) error }); ok && l.here.Err() != nil {
		return d.SetDeadline(longAgo)
	}
	return l.Listener.Close()
}

// listenHTTP opens the address of --http; a bare number is a port on all addresses, as with --listen.
func listenHTTP(addr string) (net.Listener, error) {
	if allDigits(addr) {
		addr = ":" + addr
	}
	var lc net.ListenConfig
	lc.SetMultipathTCP(false)
	l, err := lc.Listen(context.Background(), "tcp", addr)
	var op *net.OpError
	if errors.Is(err, syscall.EADDRINUSE) && errors.As(err, &op) {
		if at, ok := op.Addr.(*net.TCPAddr); ok {
			return nil, inUse(portHolder("tcp", at.AddrPort()))
		}
	}
	return l, err
}

// leave ends the service in this hotwrap, for another goes on with the sockets. Who has not been answered finds the
// connection cut, asks again, and waits in the queue of the socket until then. Nothing was done that is not answered, and the
// verdict on a restart can be had by its id.
func (c *control) leave() {
	if c != nil {
		c.end()
		c.closeServers()
	}
}

// post tells the supervisor, as long as that is here.
func (c *control) post(ev event) bool { return c.tell(ev, c.here.Done()) }

// cut breaks the connection of who cannot be answered here any more.
func (c *control) cut() {
	if c.here.Err() != nil {
		panic(http.ErrAbortHandler)
	}
}

// close ends the service: who waits is answered first, within a limit.
func (c *control) close() {
	c.hub.close()
	c.closeServers()
	c.end()
}

func (c *control) closeServers() {
	ctx, cancel := context.WithTimeout(context.Background(), controlEnd)
	defer cancel()
	for _, g := range c.servers {
		g.close(ctx)
	}
}

// --- who asks

type callerKey struct{}

func callerOfRequest(r *http.Request) caller {
	p, _ := r.Context().Value(callerKey{}).(caller)
	return p
}

// permitted lets the owner do all, the control group look, restart and roll back, and nobody else anything.
func permitted(next http.Handler, group int) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		p := callerOfRequest(r)
		member := group >= 0 && p.known && (p.gid == group || slices.Contains(p.groups, group))
		switch {
		case p.owns():
		case member && (r.Method != http.MethodPost || r.URL.Path == "/restart" || r.URL.Path == "/rollback"):
		case member:
			deny(w, http.StatusForbidden, "cannot "+r.URL.Path[1:]+": the control group may restart, roll back and look", "")
			return
		default:
			deny(w, http.StatusForbidden, fmt.Sprintf("cannot answer %s: neither hotwrap's user nor root asks", p), "start hotwrap with --control-group")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// --- answers

// deny answers with an error.
func deny(w http.ResponseWriter, code int, text, hint string) {
	reply(w, code, answerError{Text: text, Hint: hint})
}

// answerError is hotwrap's own word for what went wrong, here and at the client's.
type answerError struct {
	Code int    `json:"-"` // of HTTP
	Text string `json:"error"`
	Hint string `json:"hint,omitempty"`
}

func (e *answerError) Error() string { return e.Text }

// reply answers with one JSON document.
func reply(w http.ResponseWriter, code int, v any) {
	text, err := json.Marshal(v)
	if err != nil {
		code, text = http.StatusInternalServerError, []byte(`{"error":"cannot write the answer"}`)
	}
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(code)
	_, _ = w.Write(append(text, '\n'))
}

// plainErrors gives each request its limits, and words the router's own answers as JSON.
func plainErrors(mux *http.ServeMux) http.Handler {
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		r.Body = http.MaxBytesReader(w, r.Body, controlBody)
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(controlWrite))
		if _, pattern := mux.Handler(r); pattern != "" {
			mux.ServeHTTP(w, r)
			return
		}
		for _, method := range []string{http.MethodGet, http.MethodPost} {
			other := r.Clone(r.Context())
			other.Method = method
			if _, pattern := mux.Handler(other); pattern != "" {
				w.Header().Set("Allow", method)
				deny(w, http.StatusMethodNotAllowed, fmt.Sprintf("cannot %s %s: it is asked with %s", r.Method, r.URL.Path, method), "")
				return
			}
		}
		deny(w, http.StatusNotFound, fmt.Sprintf("cannot find %q: there is no such page", r.URL.Path), "GET /status /ready /events /metrics")
	})
}

// --- looking

// inTurn has the clients of a server looked for one at a time: who asks without a pause, by --http too, must not keep the
// supervisor busy. A slow reader keeps nobody waiting.
func (c *control) inTurn(turn chan struct{}, look func(*state, facts) (answer http.HandlerFunc)) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		select {
		case turn <- struct{}{}:
		case <-r.Context().Done():
			c.cut()
			return
		}
		c.looked(r.Context(), turn, look)(w, r)
	}
}

// looked is the answer that a look made; then the turn is over, also if the look panics, which net/http catches.
func (c *control) looked(ctx context.Context, turn <-chan struct{}, look func(*state, facts) http.HandlerFunc) http.HandlerFunc {
	defer func() { <-turn }()
	st, f, err := c.state(ctx)
	if err != nil {
		return func(w http.ResponseWriter, _ *http.Request) {
			c.cut()
			deny(w, http.StatusServiceUnavailable, "cannot answer: "+err.Error(), "")
		}
	}
	return look(st, f)
}

func (c *control) identify(st *state, f facts) http.HandlerFunc {
	who := makeIdentity(st, f)
	return func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, who) }
}

// ready is for those who only look at the status of an answer, as balancers and orchestrators do.
func (c *control) ready(st *state, f facts) http.HandlerFunc {
	who, code := makeIdentity(st, f), http.StatusOK
	if who.State != instanceServing {
		code = http.StatusServiceUnavailable
	}
	return func(w http.ResponseWriter, _ *http.Request) {
		reply(w, code, struct {
			State instanceState `json:"state"`
		}{who.State})
	}
}

func (c *control) status(st *state, f facts) http.HandlerFunc {
	v := makeStatus(st, clock(), time.Now(), f)
	v.lookAround(f)
	v.weigh()
	return func(w http.ResponseWriter, _ *http.Request) { reply(w, http.StatusOK, v) }
}

func (c *control) metrics(st *state, f facts) http.HandlerFunc {
	v := makeStatus(st, clock(), time.Now(), f)
	v.lookAround(f)
	return func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", metricsType)
		w.Header().Set("Cache-Control", "no-store")
		_ = writeMetrics(w, v, st.Tally, f)
	}
}

var errEnding = errors.New("hotwrap is ending")

func (c *control) state(ctx context.Context) (*state, facts, error) {
	copies := make(chan stateCopy, 1)
	if !c.post(event{kind: evCopy, copy: copies}) {
		return nil, facts{}, errEnding
	}
	select {
	case got := <-copies:
		var s supervisor
		f := c.facts
		f.listeners, f.numbers, f.lost = got.listeners, got.numbers, map[string]int{"log": got.lost, "events": c.hub.lost()}
		return &s.state, f, s.restore(got.text)
	case <-ctx.Done():
		return nil, facts{}, ctx.Err()
	}
}

// --- asking

// wishBody is what a POST may say.
type wishBody struct {
	ID          string `json:"id"`
	Message     string `json:"message"`
	Now         bool   `json:"now"`
	Signal      string `json:"signal"`
	Canary      string `json:"canary"`
	CanaryCheck string `json:"canary_check"`
}

// body reads it; no body at all is one that says nothing. Without one that can be read it answers.
func body(w http.ResponseWriter, r *http.Request) (b wishBody, ok bool) {
	rc := http.NewResponseController(w)
	_ = rc.SetReadDeadline(time.Now().Add(controlPatient))
	text, err := io.ReadAll(r.Body)
	_ = rc.SetReadDeadline(time.Time{}) // the answer may take long
	var tooLarge *http.MaxBytesError
	switch {
	case errors.As(err, &tooLarge):
		deny(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("cannot read the body: it is over %d bytes", controlBody), "")
		return b, false
	case err != nil:
		deny(w, http.StatusBadRequest, "cannot read the body: "+err.Error(), "")
		return b, false
	case len(text) == 0:
		return b, true
	}
	if err := json.Unmarshal(text, &b); err != nil {
		deny(w, http.StatusBadRequest, "cannot read the body: "+bodyFault(err), `{"message":"why"}`)
		return b, false
	}
	if len(b.ID) > idMost || !plain(b.ID, "-_") || allDigits(b.ID) {
		deny(w, http.StatusBadRequest, "cannot take the id: it may have letters, digits, - and _, at least one of them no digit, at most 64", "")
		return b, false
	}
	b.Message = strings.ToValidUTF8(b.Message[:min(len(b.Message), messageMost)], "")
	return b, true
}

// bodyFault says what is wrong with a body, without the names that our own types have.
func bodyFault(err error) string {
	var other *json.UnmarshalTypeError
	if !errors.As(err, &other) {
		return err.Error()
	}
	what := "it"
	if other.Field != "" {
		what = strconv.Quote(other.Field)
	}
	return what + " is of the wrong type, " + other.Value
}

// wish handles the POST that asks for what.
func (c *control) wish(what ask) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		b, ok := body(w, r)
		if !ok {
			return
		}
		p, asked := callerOfRequest(r), what
		if what == askStop && b.Now {
			asked = askKill
		}
		q := request{ID: b.ID, Ask: asked, Cause: "hotwrap " + string(what), Who: p.String(), UID: p.uid, Message: b.Message}
		if what != askRestart || b.trial(w, &q, p) {
			c.wait(w, r, event{kind: evRequest, request: q})
		}
	}
}

// trial adds the canary that is asked for, or answers why there cannot be one.
func (b wishBody) trial(w http.ResponseWriter, q *request, p caller) bool {
	switch {
	case b.Canary == "" && b.CanaryCheck != "":
		deny(w, http.StatusBadRequest, "cannot restart: canary_check is for a canary", `{"canary":"5%:2m","canary_check":"./healthy"}`)
		return false
	case b.Canary == "":
		return true
	case b.CanaryCheck != "" && !p.owns():
		deny(w, http.StatusForbidden, "cannot restart: the control group may ask for a canary, but have no command run", "")
		return false
	}
	steps, err := parseCanary(b.Canary)
	if err == nil {
		err = checkCommand(b.CanaryCheck)
	}
	if err != nil {
		deny(w, http.StatusBadRequest, "cannot restart with that canary: "+err.Error(), `{"canary":"1%:1m,10%:5m"}`)
		return false
	}
	q.Canary, q.CanaryCheck = steps, b.CanaryCheck
	return true
}

// await handles the question for the verdict on an earlier request.
func (c *control) await(w http.ResponseWriter, r *http.Request) {
	c.wait(w, r, event{kind: evAwait, request: request{ID: r.PathValue("id")}})
}

// wait posts ev, which asks for a verdict, and answers with that when it comes.
func (c *control) wait(w http.ResponseWriter, r *http.Request, ev event) {
	places := c.members
	if callerOfRequest(r).owns() {
		places = c.owners
	}
	if !enter(w, places, "wait") {
		return
	}
	defer func() { <-places }()
	verdicts := make(chan verdict, 1)
	ev.reply = verdicts
	if strings.Contains(r.Header.Get("Accept"), ndjson) {
		if !c.stream(w, r, ev, verdicts) {
			c.cut()
			c.post(event{kind: evLeft, reply: verdicts})
		}
		return
	}
	if !c.ask(w, ev) {
		return
	}
	select {
	case v := <-verdicts:
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(controlWrite))
		code, what := c.outcome(ev.request, v)
		reply(w, code, what)
	case <-r.Context().Done():
		c.cut()
		c.post(event{kind: evLeft, reply: verdicts})
	}
}

// enter takes one of the places for those who do something, or answers that none is free.
func enter(w http.ResponseWriter, places chan<- struct{}, what string) bool {
	select {
	case places <- struct{}{}:
		return true
	default:
		deny(w, http.StatusServiceUnavailable, fmt.Sprintf("cannot %s: %d clients do already", what, cap(places)), "")
		return false
	}
}

// ask posts an event, or answers that nobody takes it any more.
func (c *control) ask(w http.ResponseWriter, ev event) bool {
	if c.post(ev) {
		return true
	}
	c.cut()
	deny(w, http.StatusServiceUnavailable, "cannot ask: "+errEnding.Error(), "")
	return false
}

// outcome is what a request is answered with: a verdict, or why it has none.
func (c *control) outcome(r request, v verdict) (code int, what any) {
	switch {
	case v.Result == "":
		return http.StatusNotFound, answerError{Text: fmt.Sprintf("cannot find %q: no request of that id is known", r.ID)}
	case !v.answers(r):
		return http.StatusConflict, answerError{
			Text: fmt.Sprintf("cannot %s: the id %q is that of a %s", viewAsk(r.Ask), r.ID, viewAsk(v.Request.Ask)),
			Hint: "each request has an id of its own; without one it gets one",
		}
	}
	view := c.view(v)
	if view.status() != exitDone {
		return http.StatusConflict, view
	}
	return http.StatusOK, view
}

// view is a verdict as clients see it; with one on a failure come the program's last words.
func (c *control) view(v verdict) verdictView {
	view := viewVerdict(v, clock(), time.Now())
	if v.Result == failed && v.Serial != 0 {
		view.Output, view.OutputFrom, view.OutputHint = c.lastWords(v.Serial, v.PID)
	}
	return view
}

// stream answers with what happens, line by line, and the verdict at last; false if the client has gone before.
func (c *control) stream(w http.ResponseWriter, r *http.Request, ev event, verdicts chan verdict) bool {
	sub := c.hub.subscribe()
	defer sub.close()
	if !c.ask(w, ev) {
		return true
	}
	if ev.kind == evAwait && c.post(event{kind: evLeft}) && len(verdicts) > 0 { // when this is taken, the question has acted
		v := <-verdicts
		if v.Result == "" {
			code, what := c.outcome(ev.request, v)
			reply(w, code, what)
			return true
		}
		verdicts <- v
	}
	s := openLines(w)
	s.write("") // it is accepted: the first line may take long
	lines := sub.events
	for {
		select {
		case e, open := <-lines:
			if !open {
				lines = nil // the verdict is still to come
			} else if !s.say(e) {
				return false
			}
		case v := <-verdicts:
			sub.catchUp()
			for len(lines) > 0 { // what was said before it
				s.say(<-lines)
			}
			return s.write(c.lastLine(ev.request, v))
		case <-r.Context().Done():
			return false
		}
	}
}

// lastLine is what a stream ends with.
func (c *control) lastLine(r request, v verdict) string {
	_, last := c.outcome(r, v)
	if view, ok := last.(verdictView); ok {
		last = map[string]any{"verdict": view}
	}
	return string(compactJSON(last)) + "\n"
}

// signal handles POST /signal.
func (c *control) signal(w http.ResponseWriter, r *http.Request) {
	b, ok := body(w, r)
	if !ok {
		return
	}
	sig, err := parseSignal(b.Signal)
	if err != nil {
		deny(w, http.StatusBadRequest, fmt.Sprintf("cannot signal: there is no signal %q", b.Signal), `{"signal":"HUP"}`)
		return
	}
	p, verdicts := callerOfRequest(r), make(chan verdict, 1)
	if !c.ask(w, event{kind: evRequest, reply: verdicts, request: request{
		Ask: askSignal, Cause: "hotwrap signal", Who: p.String(), UID: p.uid, Signal: sig,
	}}) {
		return
	}
	v := <-verdicts // given in the same step
	if v.Result != signalled {
		deny(w, http.StatusConflict, "cannot signal: "+v.Reason, "")
		return
	}
	reply(w, http.StatusOK, struct {
		Signalled []int `json:"signalled"`
	}{v.Pids})
}

// events lets a client listen, while one of the places is free. They are a server's own, and nobody's who waits for a
// verdict: whoever reaches --http must not keep the owner from a restart.
func (c *control) events(places chan struct{}) http.HandlerFunc {
	return func(w http.ResponseWriter, r *http.Request) {
		if !enter(w, places, "listen") {
			return
		}
		defer func() { <-places }()
		c.hub.serve(w, r, func() identity {
			st, f, err := c.state(r.Context())
			if err != nil {
				st = &state{Ending: true}
			}
			return makeIdentity(st, f)
		})
		c.cut()
	}
}

// --- connections

// guarded is an HTTP server that is never full of clients who do not ask.
type guarded struct {
	server *http.Server
	marks  chan mark
	done   chan struct{}
}

// mark is news of one connection.
type mark struct {
	conn net.Conn
	what connMark
}

type connMark int

const (
	connOpen connMark = iota
	connBusy          // it is answered
	connFree          // the answer is written
	connClosed
	connsEnd // close all that are not busy
)

type connKey struct{}

func newGuarded(here context.Context, handler http.Handler) *guarded {
	g := &guarded{marks: make(chan mark), done: make(chan struct{})}
	g.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _ := r.Context().Value(connKey{}).(net.Conn)
			g.mark(conn, connBusy)
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: controlPatient, IdleTimeout: controlIdle, MaxHeaderBytes: controlHeader,
		ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true,
		BaseContext: func(net.Listener) context.Context { return here },
		ConnContext: func(ctx context.Context, conn net.Conn) context.Context {
			p := caller{uid: -1, gid: -1}
			if u, ok := conn.(*net.UnixConn); ok {
				p = callerOf(u)
			}
			return context.WithValue(context.WithValue(ctx, connKey{}, conn), callerKey{}, p)
		},
		ConnState: func(conn net.Conn, to http.ConnState) {
			switch to {
			case http.StateNew:
				g.mark(conn, connOpen)
			case http.StateIdle: // not when the handler returns: the end of the answer, a stream's last chunk, is written after that
				g.mark(conn, connFree)
			case http.StateClosed, http.StateHijacked:
				g.mark(conn, connClosed)
			case http.StateActive:
			}
		},
	}
	go g.keep()
	return g
}

func (g *guarded) mark(conn net.Conn, what connMark) {
	select {
	case g.marks <- mark{conn, what}:
	case <-g.done:
	}
}

func (g *guarded) serve(l net.Listener) { _ = g.server.Serve(l) }

// keep owns the list of connections.
func (g *guarded) keep() {
	var cs conns
	tuned := false
	for {
		select {
		case m := <-g.marks:
			if !tuned && m.what == connOpen {
				tuned = true
				debug.SetGCPercent(controlGC) // not before: a start does not wait for it
			}
			if cs.take(m, time.Now()) {
				debug.FreeOSMemory()
			}
		case <-g.done:
			return
		}
	}
}

// conns are a server's connections, oldest first: when there are too many, the oldest goes whose request is not
// complete; if all are being answered, the newest.
type conns struct {
	all   []conn
	most  int       // at once, since memory was given back
	freed time.Time // when it was
}

type conn struct {
	net.Conn
	busy bool
}

// take takes news of a connection, and tells whether what a crowd needed is to be given back: it costs much.
func (cs *conns) take(m mark, now time.Time) (free bool) {
	at := slices.IndexFunc(cs.all, func(c conn) bool { return c.Conn == m.conn })
	switch m.what {
	case connOpen:
		cs.all = append(cs.all, conn{Conn: m.conn})
		cs.most = max(cs.most, len(cs.all))
		if len(cs.all) > controlConns {
			at = slices.IndexFunc(cs.all, func(c conn) bool { return !c.busy }) // at worst the new one
			_ = cs.all[at].Close()
			cs.all = slices.Delete(cs.all, at, at+1)
		}
	case connsEnd:
		for _, c := range cs.all {
			if !c.busy {
				_ = c.Close()
			}
		}
	case connClosed:
		if at >= 0 {
			cs.all = slices.Delete(cs.all, at, at+1)
		}
		if len(cs.all) == 0 && cs.most >= controlCrowd && now.Sub(cs.freed) >= controlFree {
			cs.most, cs.freed = 0, now
			return true
		}
	case connBusy, connFree:
		if at >= 0 {
			cs.all[at].busy = m.what == connBusy
		}
	}
	return false
}

// close lets the handlers end, and closes all else.
func (g *guarded) close(ctx context.Context) {
	g.mark(nil, connsEnd)
	_ = g.server.Shutdown(ctx)
	_ = g.server.Close()
	close(g.done)
}
