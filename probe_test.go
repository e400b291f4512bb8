package main

// This file proves the asking of a --ready URL with real sockets: what counts as an answer, how the rest is told, that it
// comes from a port that was bound before, and that nothing of it is left behind.

import (
	"fmt"
	"io"
	"log"
	"net"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"net/url"
	"os"
	"strings"
	"testing"
	"time"

	"golang.org/x/sys/unix"
)

// askedOf serves with handler, asks it once for a URL of that scheme and host, and tells from which port.
func askedOf(t *testing.T, listen, scheme, host string, patience time.Duration, handler http.HandlerFunc) (good bool, text string, port uint16) {
	t.Helper()
	network := "tcp"
	if strings.HasPrefix(listen, "0.0.0.0") { // which Go takes for all addresses
		network = "tcp4"
	}
	l, err := net.Listen(network, listen)
	if err != nil {
		t.Skip(err)
	}
	server := &httptest.Server{Listener: l, Config: &http.Server{Handler: handler, ErrorLog: log.New(io.Discard, "", 0)}}
	if scheme == "https" {
		server.StartTLS()
	} else {
		server.Start()
	}
	defer server.Close()
	at := l.Addr().String()
	_, number, _ := net.SplitHostPort(at)
	to := readyAt{&url.URL{Scheme: scheme, Host: net.JoinHostPort(host, number), Path: "/healthz"}, &listener{network: "tcp", addr: at}}
	fd, sa, from, err := bindProbe(to.at)
	if err != nil {
		t.Fatal(err)
	}
	good, text = to.ask(fd, sa, patience)
	return good, text, from.Port()
}

// TestAsk: 2xx and 3xx are good, by the status alone; everything else is told in a few harmless words.
func TestAsk(t *testing.T) {
	say := func(status int, body string) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			w.WriteHeader(status)
			_, _ = io.WriteString(w, body)
		}
	}
	hang := func(_ http.ResponseWriter, r *http.Request) { <-r.Context().Done() }
	cut := func(w http.ResponseWriter, _ *http.Request) {
		conn, _, err := w.(http.Hijacker).Hijack()
		if err == nil {
			conn.Close()
		}
	}
	cases := map[string]struct {
		handler  http.HandlerFunc
		patience time.Duration
		good     bool
		want     string
	}{
		"good":    {say(200, "fine"), time.Second, true, ""},
		"nothing": {say(204, ""), time.Second, true, ""},
		"redirect": {func(w http.ResponseWriter, r *http.Request) {
			http.Redirect(w, r, "http://0.0.0.0:1/", http.StatusFound)
		}, time.Second, true, ""},
		"endless":        {func(w http.ResponseWriter, _ *http.Request) { _, _ = io.Copy(w, endless{}) }, time.Second, true, ""},
		"503":            {say(503, "db down\nmore\n"), time.Second, false, `answered 503 Service Unavailable: "db down"`},
		"no body":        {say(404, ""), time.Second, false, "answered 404 Not Found"},
		"hostile":        {say(500, "\x1b[2J\x00\u202e"+strings.Repeat("x", 1000)), time.Second, false, `answered 500 Internal Server Error: "[2J` + strings.Repeat("x", 197) + `"`},
		"hangs":          {hang, urlPatience, false, "did not answer within 2s"},
		"hangs too late": {hang, 10 * time.Millisecond, false, ""},
		"closes":         {cut, time.Second, false, "did not answer: it closed the connection"},
	}
	for name, c := range cases {
		t.Run(name, func(t *testing.T) {
			t.Parallel()
			if good, text, _ := askedOf(t, "127.0.0.1:0", "http", "127.0.0.1", c.patience, c.handler); good != c.good || text != c.want {
				t.Errorf("%v %q, want %v %q", good, text, c.good, c.want)
			}
		})
	}
}

// endless is a body that never ends.
type endless struct{}

func (endless) Read(b []byte) (int, error) { return len(b), nil }

// TestAskRefused: nobody listens.
func TestAskRefused(t *testing.T) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	at := l.Addr().String()
	l.Close()
	to := readyAt{&url.URL{Scheme: "http", Host: at}, &listener{network: "tcp", addr: at}}
	fd, sa, _, err := bindProbe(to.at)
	if err != nil {
		t.Fatal(err)
	}
	if good, text := to.ask(fd, sa, time.Second); good || text != "did not answer: connection refused" {
		t.Errorf("%v %q", good, text)
	}
}

// TestAskFrom: the connection comes from the bound port, to the address of the listener with the host of the URL, and the port
// is free afterwards.
func TestAskFrom(t *testing.T) {
	for _, c := range []struct{ listen, from, host, header string }{
		{"127.0.0.1:0", "127.0.0.1", "example.com", "example.com"},
		{"0.0.0.0:0", "127.0.0.1", "localhost", "localhost"},
		{"[::]:0", "::1", "example.com", "example.com"},
		{"[::1]:0", "::1", "::1", "[::1]"},
	} {
		t.Run(c.listen, func(t *testing.T) {
			var r *http.Request
			good, text, port := askedOf(t, c.listen, "http", c.host, time.Second, func(w http.ResponseWriter, got *http.Request) {
				r = got
				_, _ = io.Copy(w, endless{}) // so that it is hotwrap that ends the connection
			})
			if !good {
				t.Fatal(text)
			}
			if r.RemoteAddr != net.JoinHostPort(c.from, fmt.Sprint(port)) || !strings.HasPrefix(r.Host, c.header+":") {
				t.Errorf("asked from %s for %q, want port %d", r.RemoteAddr, r.Host, port)
			}
			from := netip.AddrPortFrom(netip.MustParseAddr(c.from), port)
			sa, _ := sockaddr(from)
			family := unix.AF_INET
			if from.Addr().Is6() {
				family = unix.AF_INET6
			}
			fd, err := newSocket(family, unix.SOCK_STREAM, unix.IPPROTO_TCP, false)
			if err != nil {
				t.Fatal(err)
			}
			defer unix.Close(fd)
			limit := time.Now().Add(patience)
			for err = unix.Bind(fd, sa); err != nil && time.Now().Before(limit); err = unix.Bind(fd, sa) {
				wait(t.Context(), time.Millisecond) // the reader of package net lets go of it last; TIME_WAIT is 60 s
			}
			if err != nil {
				t.Errorf("the port is still held: %v", err)
			}
		})
	}
}

// TestAskTLS: a certificate is for a name, so it is verified against one, and not against an address.
func TestAskTLS(t *testing.T) {
	hello := func(w http.ResponseWriter, _ *http.Request) { w.WriteHeader(http.StatusOK) }
	for host, want := range map[string]string{
		"127.0.0.1": "", "localhost": "",
		"example.com": "did not answer: tls: failed to verify certificate: x509: certificate signed by unknown authority",
	} {
		good, text, _ := askedOf(t, "127.0.0.1:0", "https", host, time.Second, hello)
		if good != (want == "") || !strings.HasPrefix(text, want) {
			t.Errorf("%s: %v %q, want %q", host, good, text, want)
		}
	}
}

// TestSpareURL: the URL of a trial is asked on the trial's own port, with the same host.
func TestSpareURL(t *testing.T) {
	for url, want := range map[string]string{
		"http://example.com:8080/healthz?a=b": "http://example.com:{port:web}/healthz?a=b",
		"https://[::1]:8080":                  "https://[::1]:{port:web}",
		"http://{addr}/healthz":               "http://{addr}/healthz",
	} {
		cfg, err := parseArgs([]string{"-l", "web=:8080", "--ready", url, "--", "./app"}, nil)
		if err != nil {
			t.Fatal(err)
		}
		if got := (&tryout{cfg: cfg}).readyText(); got != want {
			t.Errorf("%s: %s, want %s", url, got, want)
		}
	}
}

// TestReadyURLUsage: what is no URL, and what asks on no listener, is refused before anything is bound.
func TestReadyURLUsage(t *testing.T) {
	for _, c := range []struct{ url, listen, want string }{
		{"http://127.0.0.1:8080/healthz", ":8080", ""},
		{"http://example.com/", "80", ""},
		{"https://example.com/", "443", ""},
		{"http://localhost/", "web=:http", ""},
		{"http://{addr}/healthz", ":0", ""},
		{"http://{addr:web}/healthz", "web=:0", ""},
		{"http://localhost:{port}/healthz", ":0", ""},
		{"http://localhost:9000/", "8080", `--ready "http://localhost:9000/": it asks on none of the TCP listeners; the listeners are "8080" on :8080`},
		{"http://localhost:53/", "udp::53", `--ready "http://localhost:53/": it asks on none of the TCP listeners; the listeners are "53" on udp::53`},
		{"http://{addr:x}/", ":0", `--ready "http://{addr:x}/": {addr:x} names no listener`},
		{"http://localhost:9000/", "", `--ready "http://localhost:9000/": there is no listener to ask on`},
		{"http:///x", ":1", `--ready "http:///x": it has no host`},
		{"http://u:p@localhost/", ":80", `--ready "http://u:p@localhost/": it has a user name, which would be in every log`},
		{"http://localhost:0/", ":0", `--ready "http://localhost:0/": "0" is no port`},
		{"http://a b/", ":0", `--ready "http://a b/": it is no URL: invalid character " " in host name`},
	} {
		said := ""
		args := []string{"--ready", c.url, "--", "./app"}
		if c.listen != "" {
			args = append([]string{"-l", c.listen}, args...)
		}
		cfg, err := parseArgs(args, nil)
		if err == nil {
			p := &program{readyFD: -1, ackFD: -1}
			ls := plannedListeners(cfg.listens, nil)
			if err = p.number(ls); err == nil {
				err = p.planReady(cfg.ready.url, cfg.listens, ls)
			}
		}
		if err != nil {
			said = err.Error()
		}
		if said != c.want {
			t.Errorf("%s on %s: %q, want %q", c.url, c.listen, said, c.want)
		}
	}
	_, err := parseArgs([]string{"-l", ":80", "--ready", "http://localhost/", "--", "./app"}, append(os.Environ(), "HOTWRAP_SHARE=1"))
	if err == nil || err.Error() != `--ready "http://localhost/" needs steering: HOTWRAP_SHARE lets whoever accepts first serve` {
		t.Errorf("shared: %v", err)
	}
}
