package main

// This file is what hotwrap tells those who listen: the hub that every message passes, and GET /events.
//
// Its rules:
//   - Who tells never waits: what finds the queue full is dropped, counted, and the count is told.
//   - While nobody listens nothing is encoded. One goroutine owns the subscriptions.
//   - Nobody waits for a listener: one that does not keep up is let go, with a last line that says so.

import (
	"bytes"
	"encoding/json"
	"fmt"
	"net/http"
	"slices"
	"strconv"
	"strings"
	"time"
)

const (
	hubQueue          = 256              // messages that may wait to be encoded
	subscriptionQueue = 256              // lines that may wait for one listener
	streamBeat        = 30 * time.Second // a comment that often keeps proxies from closing an idle stream
	streamRetry       = 500              // milliseconds until a browser connects again
	streamTime        = "2006-01-02T15:04:05.000Z"
)

// hapHello is the first line of a stream: which hotwrap this is, and what serves.
const hapHello happening = "hello"

// hub passes on what the supervisor tells. A nil *hub is valid: nobody can listen.
type hub struct {
	in     chan told
	join   chan *subscription
	leave  chan *subscription
	asked  chan int           // hands out how many lines were lost
	behind chan chan struct{} // closes what it gets when all that waited is through
	done   chan struct{}
	missed int // since the last line that found room; the teller's own
}

// told is one line on its way to the hub: a message, or a verdict.
type told struct {
	message message
	at      time.Time
	verdict *verdictView
	missed  int // lines before it that were lost
}

// said is one line on its way to a listener. It is shared by all of them.
type said struct {
	number int // running; 0: it is for one listener only
	event  happening
	level  level
	line   []byte // JSON, without a line end
}

// subscription is one listener. Its events end when it does not keep up, and when hotwrap ends.
type subscription struct {
	events chan said
	hub    *hub
}

func newHub() *hub {
	h := &hub{
		in: make(chan told, hubQueue), join: make(chan *subscription), leave: make(chan *subscription),
		asked: make(chan int), behind: make(chan chan struct{}), done: make(chan struct{}),
	}
	go h.run()
	return h
}

// tell passes a message on. Only one goroutine may call it, verdict and close.
func (h *hub) tell(m message, at time.Time) { h.put(told{message: m, at: at}) }

// verdict passes on that a request was answered.
func (h *hub) verdict(v verdictView) { h.put(told{verdict: &v}) }

func (h *hub) put(t told) {
	if h == nil {
		return
	}
	t.missed = h.missed
	select {
	case h.in <- t:
		h.missed = 0
	default:
		h.missed++
	}
}

// close ends all subscriptions, after what was told before it.
func (h *hub) close() {
	if h != nil {
		close(h.in)
		<-h.done
	}
}

// lost is how many lines nobody could be told, so far.
func (h *hub) lost() int {
	if h == nil {
		return 0
	}
	select {
	case n := <-h.asked:
		return n
	case <-h.done:
		return 0
	}
}

// subscribe listens to all that is told after it.
func (h *hub) subscribe() *subscription {
	sub := &subscription{events: make(chan said, subscriptionQueue+1), hub: h} // one for the last line
	if h == nil {
		close(sub.events)
		return sub
	}
	select {
	case h.join <- sub:
	case <-h.done:
		close(sub.events)
	}
	return sub
}

// catchUp returns when all that was told before it is in events, as far as it goes in there.
func (sub *subscription) catchUp() {
	if sub.hub == nil {
		return
	}
	through := make(chan struct{})
	select {
	case sub.hub.behind <- through:
		<-through
	case <-sub.hub.done:
	}
}

// close ends a subscription. It may have ended already.
func (sub *subscription) close() {
	if sub.hub == nil {
		return
	}
	select {
	case sub.hub.leave <- sub:
	case <-sub.hub.done:
	}
}

// audience is what the hub's goroutine owns.
type audience struct {
	all    []*subscription
	number int // of the last line
	lost   int
}

// run owns the audience until close.
func (h *hub) run() {
	defer close(h.done)
	var a audience
	for {
		select {
		case t, open := <-h.in:
			if !open {
				a.miss(h.missed, time.Now()) // the teller is done with it
				for _, sub := range a.all {
					close(sub.events)
				}
				return
			}
			a.hear(t)
		case sub := <-h.join:
			a.all = append(a.all, sub)
		case sub := <-h.leave:
			a.all = slices.DeleteFunc(a.all, func(o *subscription) bool { return o == sub })
		case h.asked <- a.lost:
		case through := <-h.behind:
			for len(h.in) > 0 {
				a.hear(<-h.in)
			}
			close(through)
		}
	}
}

// hear takes one line; it is encoded once, and only if somebody listens.
func (a *audience) hear(t told) {
	a.miss(t.missed, t.at)
	a.number++
	if len(a.all) > 0 {
		a.send(t.said(a.number))
	}
}

// miss tells that lines were lost.
func (a *audience) miss(n int, at time.Time) {
	a.lost += n
	if n > 0 && len(a.all) > 0 {
		a.number++
		m := warning("%s of these events lost: too many at once", count(n, "line"))
		a.send(told{message: m, at: at}.said(a.number))
	}
}

// send gives a line to everybody, and lets go of who does not keep up.
func (a *audience) send(e said) {
	a.all = slices.DeleteFunc(a.all, func(sub *subscription) bool {
		if len(sub.events) < subscriptionQueue { // nobody else sends
			sub.events <- e
			return false
		}
		m := warning("these events end here: %s were not read in time", count(subscriptionQueue, "line"))
		sub.events <- told{message: m, at: time.Now()}.said(0)
		close(sub.events)
		return true
	})
}

// shown tells whether a listener wants the line: decisions that are nobody's event are for those who ask for them.
func (e said) shown(verbose bool) bool {
	return verbose || e.level != levelVerbose || e.event != hapLog
}

// said encodes a line.
func (t told) said(number int) said {
	e := said{number: number, event: t.message.event, level: t.message.level}
	if t.verdict != nil {
		e.event, e.level = hapVerdict, levelInfo
		if t.verdict.Result == failed {
			e.level = levelWarning
		}
		e.line = jsonLine(t.verdict.At, e, t.verdict.Generation, t.verdict.String(), []field{{"verdict", t.verdict}})
		return e
	}
	if e.event == "" {
		e.event = hapLog
	}
	e.line = jsonLine(wallTime(t.at), e, t.message.number, t.message.String(), t.message.fields)
	return e
}

// hello is the first line of a stream. A page that connects again sees by it whether anything is another than before.
func hello(who identity, at time.Time) said {
	e := said{event: hapHello, level: levelInfo}
	text := fmt.Sprintf("%s: %s", who.Name, who.State)
	e.line = jsonLine(wallTime(at), e, who.Generation, text, []field{
		{"state", who.State}, {"name", who.Name}, {"pid", who.PID}, {"since", who.Since},
	})
	return e
}

func wallTime(t time.Time) string { return t.UTC().Format(streamTime) }

// jsonLine writes an event. A pair whose key would hide one of ours stays in the text only.
func jsonLine(at string, e said, generation int, text string, fields []field) []byte {
	b := []byte{'{'}
	add := func(key string, value any) {
		if len(b) > 1 {
			b = append(b, ',')
		}
		b = append(append(append(b, compactJSON(key)...), ':'), compactJSON(value)...)
	}
	add("time", at)
	add("event", e.event)
	add("level", e.level)
	if generation != 0 || e.event == hapHello {
		add("generation", generation)
	}
	add("text", text)
	taken := []string{"time", "event", "level", "generation", "text"}
	for _, f := range fields {
		if !slices.Contains(taken, f.key) {
			taken = append(taken, f.key)
			add(f.key, plainValue(f.value))
		}
	}
	return append(b, '}')
}

// plainValue is what a pair is in JSON: as in the log, durations in seconds.
func plainValue(value any) any {
	switch v := value.(type) {
	case time.Duration:
		return v.Seconds()
	case error:
		return v.Error()
	}
	return value
}

// compactJSON writes a value on one line. What cannot be written becomes its text.
func compactJSON(value any) []byte {
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	if enc.Encode(value) != nil {
		b.Reset()
		_ = enc.Encode(fmt.Sprint(value))
	}
	return bytes.TrimSuffix(b.Bytes(), []byte("\n"))
}

// --- GET /events

// stream is one answer to GET /events: JSON lines, or events as browsers read them (html.spec.whatwg.org,
// server-sent events).
type stream struct {
	out     http.ResponseWriter
	control *http.ResponseController
	sse     bool
	verbose bool
}

// serve answers GET /events until the client goes or hotwrap ends. first is asked when nothing can be missed any more.
func (h *hub) serve(w http.ResponseWriter, r *http.Request, first func() identity) {
	s := openStream(w, r)
	if r.Method == http.MethodHead {
		return
	}
	sub := h.subscribe()
	defer sub.close()
	defer s.allow() // the server's own last bytes
	if !s.begin() || !s.say(hello(first(), time.Now())) {
		return
	}
	beat := time.NewTimer(streamBeat)
	defer beat.Stop()
	for {
		select {
		case e, open := <-sub.events:
			if !open || !s.say(e) {
				return
			}
		case <-beat.C:
			beat.Reset(streamBeat)
			if s.sse && !s.write(":\n\n") {
				return
			}
		case <-r.Context().Done():
			return
		}
	}
}

// openLines begins an answer of JSON lines.
func openLines(w http.ResponseWriter) *stream {
	w.Header().Set("Content-Type", ndjson)
	w.Header().Set("Cache-Control", "no-store")
	return &stream{out: w, control: http.NewResponseController(w)}
}

// openStream sets the head of the answer. Any page may read it: there is nothing in it that the log has not.
func openStream(w http.ResponseWriter, r *http.Request) *stream {
	s := openLines(w)
	s.sse = strings.Contains(strings.Join(r.Header.Values("Accept"), ","), "text/event-stream")
	s.verbose, _ = strconv.ParseBool(r.URL.Query().Get("verbose"))
	head := w.Header()
	if s.sse {
		head.Set("Content-Type", "text/event-stream")
	}
	head.Set("Access-Control-Allow-Origin", "*")
	head.Set("Vary", "Accept")
	head.Set("X-Accel-Buffering", "no") // nginx would collect it otherwise
	return s
}

// begin sends something at once, so that browsers and proxies take the stream for open.
func (s *stream) begin() bool {
	if s.sse {
		return s.write(":\nretry: " + strconv.Itoa(streamRetry) + "\n\n")
	}
	return s.write("")
}

// say sends one event; false: nobody is there any more.
func (s *stream) say(e said) bool {
	switch {
	case !e.shown(s.verbose):
		return true
	case !s.sse:
		return s.write(string(e.line) + "\n")
	}
	text := "event: " + string(e.event) + "\ndata: " + string(e.line) + "\n"
	if e.number > 0 {
		text += "id: " + strconv.Itoa(e.number) + "\n"
	}
	return s.write(text + "\n")
}

func (s *stream) write(text string) bool {
	s.allow()
	if _, err := s.out.Write([]byte(text)); err != nil {
		return false
	}
	return s.control.Flush() == nil
}

// allow gives the next write its time.
func (s *stream) allow() { _ = s.control.SetWriteDeadline(time.Now().Add(controlWrite)) }
