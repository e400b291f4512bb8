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
	controlGC      = 20  // GOGC: little lives long here, and a heap of 4 MiB before the first collection is too much for it
	controlCrowd   = 8   // connections at once after which memory is given back
	controlConns   = 128 // connections at once, of one server
	controlStreams = 32  // of them, that wait for a verdict: of the owner's, and as many of the group's
	controlHearers = 48  // of them, that listen to events: they leave room for who asks for something
	controlBody    = 64 << 10
	controlHeader  = 16 << 10
	controlPatient = 5 * time.Second  // for a request's header, and for its body
	controlIdle    = 30 * time.Second // for the next request
	controlWrite   = 10 * time.Second // for a reader
	controlEnd     = time.Second      // for the last answers when hotwrap ends
	messageMost    = 500              // bytes of a request's message
	idMost         = 64
	ndjson         = "application/x-ndjson"
	otherID        = "each request has an id of its own; without one it gets one"
)

// control is the server of one instance.
type control struct {
	post      func(event) bool
	hub       *hub
	facts     facts
	lastWords func(serial, pid int) (lines []string, from, hint string)
	servers   []*guarded
	owners    chan struct{} // has a place for each client of the owner's that waits for a verdict
	members   chan struct{} // the same for the group, which is to keep no owner out
}

// newControl makes the server; serve lets clients in.
func newControl(post func(event) bool, h *hub, f facts) *control {
	return &control{
		post: post, hub: h, facts: f, owners: make(chan struct{}, controlStreams), members: make(chan struct{}, controlStreams),
		lastWords: func(int, int) ([]string, string, string) { return nil, "", "" },
	}
}

// serve answers on l. On a socket that only looks, nothing can be asked for.
func (c *control) serve(l net.Listener, group int, only bool) {
	mux := http.NewServeMux()
	look := func(pattern string, fn http.HandlerFunc) { mux.HandleFunc("GET "+pattern, fn) }
	look("/{$}", c.identify)
	look("/status", c.status)
	look("/metrics", c.metrics)
	look("/events", c.events(make(chan struct{}, controlHearers)))
	if !only {
		look("/verdicts/{id}", c.await)
		mux.HandleFunc("POST /restart", c.wish(askRestart))
		mux.HandleFunc("POST /rollback", c.wish(askRollback))
		mux.HandleFunc("POST /stop", c.wish(askStop))
		mux.HandleFunc("POST /signal", c.signal)
	}
	handler := plainErrors(mux)
	if !only {
		handler = permitted(handler, group)
	}
	g := newGuarded(handler)
	c.servers = append(c.servers, g)
	go g.serve(l)
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

// close ends the service: who waits is answered first, within a limit.
func (c *control) close() {
	c.hub.close()
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
			deny(w, http.StatusForbidden, fmt.Sprintf("cannot be asked by %s", p), "start hotwrap with --control-group")
			return
		}
		next.ServeHTTP(w, r)
	})
}

// --- answers

// deny answers with an error.
func deny(w http.ResponseWriter, code int, text, hint string) {
	reply(w, code, refusal{text, hint})
}

type refusal struct {
	Error string `json:"error"`
	Hint  string `json:"hint,omitempty"`
}

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
				deny(w, http.StatusMethodNotAllowed, fmt.Sprintf("%s is asked with %s", r.URL.Path, method), "")
				return
			}
		}
		deny(w, http.StatusNotFound, fmt.Sprintf("there is no %q here", r.URL.Path), "GET /status /events /metrics")
	})
}

// --- looking

func (c *control) identify(w http.ResponseWriter, r *http.Request) {
	if st, f, ok := c.look(w, r); ok {
		reply(w, http.StatusOK, makeIdentity(st, f))
	}
}

func (c *control) status(w http.ResponseWriter, r *http.Request) {
	if st, f, ok := c.look(w, r); ok {
		v := makeStatus(st, clock(), time.Now(), f)
		v.lookAround(f)
		v.weigh()
		reply(w, http.StatusOK, v)
	}
}

func (c *control) metrics(w http.ResponseWriter, r *http.Request) {
	if st, f, ok := c.look(w, r); ok {
		v := makeStatus(st, clock(), time.Now(), f)
		v.lookAround(f)
		w.Header().Set("Content-Type", metricsType)
		w.Header().Set("Cache-Control", "no-store")
		_ = writeMetrics(w, v, st.Tally, f)
	}
}

// look takes a copy of what the supervisor knows. Without one it answers.
func (c *control) look(w http.ResponseWriter, r *http.Request) (*state, facts, bool) {
	st, f, err := c.state(r.Context())
	if err != nil {
		deny(w, http.StatusServiceUnavailable, err.Error(), "")
	}
	return st, f, err == nil
}

func (c *control) state(ctx context.Context) (*state, facts, error) {
	copies := make(chan stateCopy, 1)
	if !c.post(event{kind: evCopy, copy: copies}) {
		return nil, facts{}, errors.New("hotwrap is ending")
	}
	select {
	case got := <-copies:
		var s supervisor
		f := c.facts
		f.listeners, f.lost = got.listeners, map[string]int{"log": got.lost, "events": c.hub.lost()}
		return &s.state, f, s.restore(got.text)
	case <-ctx.Done():
		return nil, facts{}, ctx.Err()
	}
}

// --- asking

// wishBody is what a POST may say.
type wishBody struct {
	ID      string `json:"id"`
	Message string `json:"message"`
	Now     bool   `json:"now"`
	Signal  string `json:"signal"`
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
		deny(w, http.StatusRequestEntityTooLarge, fmt.Sprintf("the body is over %d bytes", controlBody), "")
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
		deny(w, http.StatusBadRequest, "an id has letters, digits, - and _, at least one of them no digit, at most 64", "")
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
		c.wait(w, r, event{kind: evRequest, request: request{
			ID: b.ID, Ask: asked, Cause: "hotwrap " + string(what), Who: p.String(), UID: p.uid, Message: b.Message,
		}})
	}
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
	select {
	case places <- struct{}{}:
		defer func() { <-places }()
	default:
		deny(w, http.StatusServiceUnavailable, fmt.Sprintf("%d clients wait already", controlStreams), "")
		return
	}
	verdicts := make(chan verdict, 1)
	ev.reply = verdicts
	if strings.Contains(r.Header.Get("Accept"), ndjson) {
		if !c.stream(w, r, ev, verdicts) {
			c.post(event{kind: evLeft, reply: verdicts})
		}
		return
	}
	if !c.post(ev) {
		deny(w, http.StatusServiceUnavailable, "hotwrap is ending", "")
		return
	}
	select {
	case v := <-verdicts:
		_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(controlWrite))
		c.give(w, ev.request, v)
	case <-r.Context().Done():
		c.post(event{kind: evLeft, reply: verdicts})
	}
}

// give answers with one verdict.
func (c *control) give(w http.ResponseWriter, r request, v verdict) {
	code := http.StatusConflict
	switch {
	case v.Result == "":
		deny(w, http.StatusNotFound, "no request of that id is known", "")
		return
	case !v.answers(r):
		deny(w, code, fmt.Sprintf("the id %q is that of a %s", r.ID, viewAsk(v.Request.Ask)), otherID)
		return
	case v.done():
		code = http.StatusOK
	}
	reply(w, code, c.view(v))
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
func (c *control) stream(w http.ResponseWriter, r *http.Request, ev event, verdicts <-chan verdict) bool {
	sub := c.hub.subscribe()
	defer sub.close()
	if !c.post(ev) {
		deny(w, http.StatusServiceUnavailable, "hotwrap is ending", "")
		return true
	}
	write := openLines(w)
	show := func(e said) bool { return !e.shown(false) || write(append(slices.Clone(e.line), '\n')) }
	lines := sub.events
	for {
		select {
		case e, open := <-lines:
			if !open {
				lines = nil // the verdict is still to come
			} else if !show(e) {
				return false
			}
		case v := <-verdicts:
			sub.catchUp()
			for len(lines) > 0 { // what was said before it
				show(<-lines)
			}
			return write(c.lastLine(ev.request, v))
		case <-r.Context().Done():
			return false
		}
	}
}

// openLines begins an answer of lines; write is false when nobody reads them any more.
func openLines(w http.ResponseWriter) (write func(line []byte) bool) {
	w.Header().Set("Content-Type", ndjson)
	w.Header().Set("Cache-Control", "no-store")
	w.WriteHeader(http.StatusOK)
	rc := http.NewResponseController(w)
	_ = rc.Flush() // it is accepted: the first line may take long
	return func(line []byte) bool {
		_ = rc.SetWriteDeadline(time.Now().Add(controlWrite))
		_, err := w.Write(line)
		return err == nil && rc.Flush() == nil
	}
}

// lastLine is what a stream ends with.
func (c *control) lastLine(r request, v verdict) []byte {
	var last any = struct {
		Verdict verdictView `json:"verdict"`
	}{c.view(v)}
	if !v.answers(r) {
		last = refusal{fmt.Sprintf("the id %q is that of a %s", r.ID, viewAsk(v.Request.Ask)), otherID}
	}
	text, _ := json.Marshal(last)
	return append(text, '\n')
}

// signal handles POST /signal.
func (c *control) signal(w http.ResponseWriter, r *http.Request) {
	b, ok := body(w, r)
	if !ok {
		return
	}
	sig, err := parseSignal(b.Signal)
	if err != nil {
		deny(w, http.StatusBadRequest, fmt.Sprintf("there is no signal %q", b.Signal), `{"signal":"HUP"}`)
		return
	}
	p, verdicts := callerOfRequest(r), make(chan verdict, 1)
	if !c.post(event{kind: evRequest, reply: verdicts, request: request{
		Ask: askSignal, Cause: "hotwrap signal", Who: p.String(), UID: p.uid, Signal: sig,
	}}) {
		deny(w, http.StatusServiceUnavailable, "hotwrap is ending", "")
		return
	}
	v := <-verdicts // given in the same step
	if v.Result != signalled {
		deny(w, http.StatusConflict, v.Reason, "")
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
		select {
		case places <- struct{}{}:
			defer func() { <-places }()
		default:
			deny(w, http.StatusServiceUnavailable, fmt.Sprintf("%d clients listen already", controlHearers), "")
			return
		}
		c.hub.serve(w, r, func() identity {
			st, f, err := c.state(r.Context())
			if err != nil {
				st = &state{Ending: true}
			}
			return makeIdentity(st, f)
		})
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
	connBusy          // a handler runs
	connFree
	connClosed
	connsEnd // close all that are not busy
)

type connKey struct{}

func newGuarded(handler http.Handler) *guarded {
	g := &guarded{marks: make(chan mark), done: make(chan struct{})}
	g.server = &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
			conn, _ := r.Context().Value(connKey{}).(net.Conn)
			g.mark(conn, connBusy)
			defer g.mark(conn, connFree)
			handler.ServeHTTP(w, r)
		}),
		ReadHeaderTimeout: controlPatient, IdleTimeout: controlIdle, MaxHeaderBytes: controlHeader,
		ErrorLog: log.New(io.Discard, "", 0), DisableGeneralOptionsHandler: true,
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
			case http.StateClosed, http.StateHijacked:
				g.mark(conn, connClosed)
			case http.StateActive, http.StateIdle:
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

// keep owns the list of connections, oldest first: when there are too many, the oldest goes whose
// request is not complete; if all are being answered, the newest.
func (g *guarded) keep() {
	type entry struct {
		conn net.Conn
		busy bool
	}
	var all []entry
	most := 0 // connections since there were none
	first := true
	for {
		var m mark
		select {
		case m = <-g.marks:
		case <-g.done:
			return
		}
		at := slices.IndexFunc(all, func(e entry) bool { return e.conn == m.conn })
		switch {
		case m.what == connOpen:
			if first {
				first = false
				debug.SetGCPercent(controlGC) // not before: a start does not wait for it
			}
			all = append(all, entry{conn: m.conn})
			if len(all) > controlConns {
				oldest := slices.IndexFunc(all, func(e entry) bool { return !e.busy }) // at worst the new one
				_ = all[oldest].conn.Close()
				all = slices.Delete(all, oldest, oldest+1)
			}
		case m.what == connsEnd:
			for _, e := range all {
				if !e.busy {
					_ = e.conn.Close()
				}
			}
		case at < 0:
		case m.what == connClosed:
			all = slices.Delete(all, at, at+1)
			if most = max(most, len(all)+1); len(all) == 0 && most >= controlCrowd {
				most = 0
				debug.FreeOSMemory() // what a crowd needed
			}
		case m.what == connBusy, m.what == connFree:
			all[at].busy = m.what == connBusy
		}
	}
}

// close lets the handlers end, and closes all else.
func (g *guarded) close(ctx context.Context) {
	g.mark(nil, connsEnd)
	_ = g.server.Shutdown(ctx)
	_ = g.server.Close()
	close(g.done)
}
