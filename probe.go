package main

// This file asks the --ready URL of a successor: on the production port, before any client can reach it.
//
// Its rules:
//   - The connection comes from a port of hotwrap's own, which is aimed at the successor: nobody else's ever is.
//   - One ask at a time. What blocks runs in its own goroutine and answers with an event.
//   - An answer counts by its status alone; of its body one line is kept, for the verdict.

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"net/url"
	"os"
	"slices"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	urlFirst    = 10 * time.Millisecond  // from an answer to the next ask; a quarter more each time
	urlLongest  = 250 * time.Millisecond // up to this
	urlAgain    = time.Second            // from an answer to the next ask while the successor is on trial
	urlPatience = 2 * time.Second        // for one answer
	urlGood     = 3                      // in a row: it is ready
	urlBad      = 3                      // in a row, while it is on trial: it has failed
	urlBody     = 64 << 10               // bytes of a body that are read
	urlHead     = 64 << 10
	urlLine     = 200 // bytes of a body's first line that are kept
	urlStatus   = 60  // characters of the status
)

// urlAnswer is what came of one ask.
type urlAnswer struct {
	port uint16 // that it was asked from
	good bool
	text string // what was wrong with it; "" also if the limit cut it short: the one before tells more
}

// --- the supervisor's part

// mayAsk begins to ask when what w runs may answer. Where it may yet turn out that it binds a socket of its own, and leaves
// what waits in the one that it was given, that is when it is seen to wait for connections.
func (s *supervisor) mayAsk(g *generation, w *worker) {
	if w.Needs&needAnswer != 0 && (w.Needs&needWatch == 0 || s.model(g) != nil && !w.Adopted) {
		s.startAsking(g)
	}
}

// startAsking begins to ask the URL of a generation that is not ready yet.
func (s *supervisor) startAsking(g *generation) {
	if g.State == genStarting && g.Ask == 0 && !g.Asking && !g.Answered {
		g.Ask, g.AskPause = s.world.now(), urlFirst
	}
}

// stopAsking ends that. An answer that is on its way concerns nobody then.
func (g *generation) stopAsking() { g.Ask, g.Asking = 0, false }

// dueAsk asks if it is time to.
func (s *supervisor) dueAsk(g *generation, now instant) {
	if !g.Ask.due(now) {
		return
	}
	patience := urlPatience
	if !g.Answered && g.Deadline != 0 {
		patience = min(patience, g.Deadline.since(now))
	}
	g.Ask, g.Asking = 0, true
	s.world.probe(g, patience)
}

// probed takes what came of an ask.
func (s *supervisor) probed(ev event) {
	s.world.unaim(ev.answer.port)
	g := s.generation(ev.number)
	if g == nil || !g.Asking {
		return
	}
	g.Asking = false
	if ev.answer.good {
		g.Good, g.Bad = g.Good+1, 0
	} else {
		g.Good, g.Bad = 0, g.Bad+1
	}
	if ev.answer.text != "" {
		g.Answer = ev.answer.text
	}
	switch {
	case g.Answered && g.Bad >= urlBad:
		s.fail(g, s.lastAnswer(g)+g.meanwhile(), statusNotReady)
		return
	case !g.Answered && g.Good >= urlGood:
		s.answered(g)
	}
	s.askLater(g)
}

// answered notes that g answers, whichever of its workers it was.
func (s *supervisor) answered(g *generation) {
	g.Answered = true
	for _, w := range slices.Clone(g.Workers) {
		w.Needs &^= needAnswer
		s.settled(g, w)
	}
}

// askLater sets when the next ask is due, if g is still on trial.
func (s *supervisor) askLater(g *generation) {
	now := s.world.now()
	switch g.State {
	case genStarting, genReady:
		if g.Answered {
			g.Ask = now.add(urlAgain)
			return
		}
		g.Ask = now.add(g.AskPause)
		g.AskPause = min(g.AskPause+g.AskPause/4, urlLongest)
	case genServing, genDraining, genFailed, genGone:
	}
}

// lastAnswer says what the URL answered last that was not good.
func (s *supervisor) lastAnswer(g *generation) string {
	if g.Answer == "" {
		return s.limits.readyURL + " did not answer"
	}
	return s.limits.readyURL + " " + g.Answer
}

// meanwhile says how far a successor had come when it failed.
func (g *generation) meanwhile() string {
	switch g.Stage {
	case stageBake:
		return ", while baking"
	case stageCanary:
		return ", during the canary"
	case stagePrepare, stageCheck, stageStart, stageReady:
	}
	return ""
}

// --- the URL

// checkURL checks what can be known of a --ready URL before there are listeners.
func checkURL(text string) error {
	u, err := url.Parse(placeholder().ReplaceAllStringFunc(text, func(found string) string {
		switch {
		case strings.HasPrefix(found, "{addr"):
			return "127.0.0.1:1"
		case strings.HasPrefix(found, "{port"):
			return "1"
		}
		return found
	}))
	switch {
	case err != nil:
		return fmt.Errorf("it is no URL: %v", plainError(err))
	case u.Hostname() == "":
		return errors.New("it has no host")
	case u.User != nil:
		return errors.New("it has a user name, which would be in every log")
	}
	if _, err := portOf(u); err != nil {
		return err
	}
	return nil
}

// portOf is the port of a URL, which may go without saying.
func portOf(u *url.URL) (uint16, error) {
	switch {
	case u.Port() != "":
		n, err := strconv.ParseUint(u.Port(), 10, 16)
		if err != nil || n == 0 {
			return 0, fmt.Errorf("%q is no port", u.Port())
		}
		return uint16(n), nil
	case u.Scheme == "https":
		return 443, nil
	}
	return 80, nil
}

// planReady checks that --ready asks on a listener that there will be. Nothing is bound yet; specs are the last of ls.
func (p *program) planReady(text string, specs []listenSpec, ls []*listener) error {
	if err := p.checkText(text); err != nil {
		return usage("--ready %q: %v", text, err)
	}
	at, there := plannedTarget(text, specs, ls)
	switch {
	case at >= 0:
		return nil
	case len(there) == 0:
		return &usageError{fmt.Sprintf("--ready %q: there is no listener to ask on", text), "-l :8080 opens one"}
	}
	return usage("--ready %q: it asks on none of the TCP listeners; the listeners are %s", text, strings.Join(there, ", "))
}

// plannedTarget is which of the listeners that there will be is asked, -1 none of there.
func plannedTarget(text string, specs []listenSpec, ls []*listener) (at int, there []string) {
	for i, l := range ls {
		network, port, where := l.network, l.port(), l.addr
		if j := i - (len(ls) - len(specs)); j >= 0 && specs[j].ours() {
			network, port, where = specs[j].transport(), specs[j].port, specs[j].address()
			if n, err := net.LookupPort("tcp", port); err == nil {
				port = strconv.Itoa(n)
			}
		}
		if network == "tcp" && asksOn(text, l.name, port, i == 0) {
			return i, nil
		}
		there = append(there, fmt.Sprintf("%q on %s", l.name, where))
	}
	return -1, there
}

// spareURL is the same URL on whatever port its listener is going to have.
func (p *program) spareURL(text string, specs []listenSpec) string {
	u, err := url.Parse(text)
	at, _ := plannedTarget(text, specs, p.listeners)
	if err != nil || at < 0 {
		return text // with placeholders, or wrong
	}
	rest := strings.TrimPrefix(text, u.Scheme+"://"+u.Host)
	return u.Scheme + "://" + net.JoinHostPort(u.Hostname(), "{port:"+p.listeners[at].name+"}") + rest
}

// asksOn tells whether a URL is about the listener of that name and port, or the first, by its port or by a placeholder.
func asksOn(text, name, port string, first bool) bool {
	for _, found := range placeholder().FindAllString(text, -1) {
		if what, of, named := strings.Cut(strings.Trim(found, "{}"), ":"); what != "fd" {
			return named && of == name || !named && first
		}
	}
	u, err := url.Parse(text)
	if err != nil {
		return false
	}
	n, err := portOf(u)
	return err == nil && strconv.Itoa(int(n)) == port
}

// readyAt is where a --ready URL is asked.
type readyAt struct {
	url *url.URL
	at  *listener
}

// aimAt finds whom to ask.
func (h *host) aimAt(text string) error {
	p := h.program
	t, err := p.readyTarget(text)
	if err != nil {
		return err
	}
	if i := slices.Index(p.listeners, t.at); !h.traffic.steers(i) {
		return usage("--ready %q needs steering: listener %q cannot be steered", text, t.at.name)
	}
	h.target = t
	return nil
}

// readyTarget finds the listener of a --ready URL: by its port, and where several have that, by its host.
func (p *program) readyTarget(text string) (*readyAt, error) {
	text = p.expandAll([]string{text})[0]
	u, err := url.Parse(text)
	if err != nil {
		return nil, usage("--ready %q: it is no URL: %v", text, plainError(err))
	}
	port, err := portOf(u)
	if err != nil {
		return nil, usage("--ready %q: %v", text, err)
	}
	var found *listener
	for _, l := range p.listeners {
		if l.network == "tcp" && l.port() == strconv.Itoa(int(port)) && (found == nil || l.host() == u.Hostname()) {
			found = l
		}
	}
	if found == nil {
		return nil, usage("--ready %q: it asks on none of the TCP listeners", text)
	}
	return &readyAt{u, found}, nil
}

// anyHost tells whether a certificate says nothing about a host: an address, or this machine by its name for itself.
func anyHost(host string) bool {
	_, err := netip.ParseAddr(host)
	return err == nil || host == "localhost" || strings.HasSuffix(host, ".localhost")
}

// --- the asking

// probe asks g's URL: it binds a port of hotwrap's own and has it aimed at g, the rest takes its time elsewhere.
func (h *host) probe(g *generation, patience time.Duration) {
	number, t := g.Number, *h.target
	fd, to, from, err := bindProbe(t.at)
	if err == nil {
		if err = h.traffic.aim(aim{from, number}); err != nil {
			unix.Close(fd)
		}
	}
	go func() {
		a := urlAnswer{port: from.Port()}
		if err != nil {
			a.text = fmt.Sprintf("cannot be asked: %v", err)
		} else {
			a.good, a.text = t.ask(fd, to, patience)
		}
		h.post(event{kind: evProbe, number: number, answer: a})
	}()
}

// unaim ends the aim of a port: another may have it by now.
func (h *host) unaim(port uint16) {
	h.traffic.unaim(port)
}

// bindProbe opens the socket for one ask of a listener: on a port that is nobody else's, and that nothing holds afterwards.
func bindProbe(l *listener) (fd int, to unix.Sockaddr, from netip.AddrPort, err error) {
	at, err := netip.ParseAddrPort(l.addr)
	if err != nil {
		return -1, nil, from, err
	}
	family := familyOf(at.Addr())
	if at.Addr().IsUnspecified() {
		at = netip.AddrPortFrom(loopbackOf(at.Addr()), at.Port())
		family = familyOf(at.Addr())
	}
	if to, err = sockaddr(at); err != nil {
		return -1, nil, from, err
	}
	own, err := sockaddr(netip.AddrPortFrom(at.Addr(), 0)) // what is asked is this machine's own
	if err != nil {
		return -1, nil, from, err
	}
	if fd, err = newSocket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP, true); err != nil {
		return -1, nil, from, err
	}
	if err = unix.SetsockoptLinger(fd, unix.SOL_SOCKET, unix.SO_LINGER, &unix.Linger{Onoff: 1}); err == nil { // RST, no TIME_WAIT
		err = unix.Bind(fd, own)
	}
	if err == nil {
		own, err = unix.Getsockname(fd)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, from, err
	}
	return fd, to, addrPort(own), nil
}

func familyOf(a netip.Addr) int {
	if a.Is6() {
		return unix.AF_INET6
	}
	return unix.AF_INET
}

// loopbackOf is how this machine reaches itself there: a socket of IPv6 gets IPv4, too, where this machine has no other.
func loopbackOf(all netip.Addr) netip.Addr {
	v4 := netip.AddrFrom4([4]byte{127, 0, 0, 1})
	if all.Is4() {
		return v4
	}
	fd, err := newSocket(unix.AF_INET6, unix.SOCK_STREAM, unix.IPPROTO_TCP, true)
	if err != nil {
		return v4
	}
	defer unix.Close(fd)
	if unix.Bind(fd, &unix.SockaddrInet6{Addr: netip.IPv6Loopback().As16()}) != nil {
		return v4
	}
	return netip.IPv6Loopback()
}

// ask sends one GET over a bound socket, which it closes, and judges the answer.
func (t *readyAt) ask(fd int, to unix.Sockaddr, patience time.Duration) (good bool, text string) {
	ctx, cancel := context.WithTimeout(context.Background(), patience)
	defer cancel()
	conn, err := connectProbe(ctx, fd, to)
	if err == nil {
		defer func() { _ = conn.Close() }()
		good, text, err = t.get(ctx, conn)
	}
	switch {
	case err == nil:
		return good, text
	case (errors.Is(err, context.DeadlineExceeded) || errors.Is(err, os.ErrDeadlineExceeded)) && patience < urlPatience:
		return false, ""
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, os.ErrDeadlineExceeded):
		return false, "did not answer within " + brief(patience)
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return false, "did not answer: it closed the connection"
	}
	return false, oneLine("did not answer: "+causeOf(plainError(err)).Error(), urlLine)
}

// connectProbe connects, and gives the socket to package net.
func connectProbe(ctx context.Context, fd int, to unix.Sockaddr) (net.Conn, error) {
	f := os.NewFile(uintptr(fd), "probe")
	defer func() { _ = f.Close() }()
	if limit, ok := ctx.Deadline(); ok {
		_ = f.SetDeadline(limit)
	}
	raw, err := f.SyscallConn()
	if err != nil {
		return nil, err
	}
	var failed error
	err = raw.Write(func(fd uintptr) bool {
		failed = unix.Connect(int(fd), to)
		switch {
		case errors.Is(failed, unix.EINPROGRESS), errors.Is(failed, unix.EALREADY), errors.Is(failed, unix.EINTR):
			return false
		case errors.Is(failed, unix.EISCONN):
			failed = nil
		}
		return true
	})
	if err = errors.Join(err, failed); err != nil {
		return nil, err
	}
	return net.FileConn(f)
}

// get asks over one connection: no redirect is followed, nothing kept open, no proxy.
func (t *readyAt) get(ctx context.Context, conn net.Conn) (good bool, text string, err error) {
	client := http.Client{
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
		Transport: &http.Transport{
			DialContext:       func(context.Context, string, string) (net.Conn, error) { return conn, nil },
			TLSClientConfig:   &tls.Config{InsecureSkipVerify: anyHost(t.url.Hostname())},
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: urlHead,
		},
	}
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, t.url.String(), http.NoBody)
	if err != nil {
		return false, "", err
	}
	r.Header.Set("User-Agent", "hotwrap/"+versionText())
	got, err := client.Do(r)
	if err != nil {
		return false, "", err
	}
	defer func() { _ = got.Body.Close() }()
	body := bufio.NewReader(io.LimitReader(got.Body, urlBody))
	defer func() { _, _ = io.Copy(io.Discard, body) }() // whoever is cut off while writing has a line in its log
	if got.StatusCode >= http.StatusOK && got.StatusCode < http.StatusBadRequest {
		return true, "", nil
	}
	text = "answered " + strings.TrimSpace(tamed(got.Status, urlStatus))
	line, _ := body.ReadString('\n') // as much as there is of it
	if line = strings.TrimSpace(oneLine(line, urlLine)); line != "" {
		text += `: "` + line + `"`
	}
	return false, text, nil
}
