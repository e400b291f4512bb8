package main

// This file reads --listen: what every ADDRESS and OPTION means, and what cannot be true by itself.
//
//   - What is wrong by itself, or clashes with another --listen, is refused before the first bind.
//   - A name is the user's, else the port as it was written (also "0") or the path's base name. Two listeners may have the
//     same default, as 127.0.0.1:80 and [::1]:80 do: the later one becomes "80-2". Two that were *given* the same name
//     are an error. What systemd gave keeps its names as they are, double ones too.

import (
	"errors"
	"fmt"
	"io/fs"
	"math"
	"net"
	"net/netip"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
)

const (
	firstListenFD     = 3       // SD_LISTEN_FDS_START, sd_listen_fds(3)
	maxListenFD       = 1 << 20 // fs.nr_open, the highest number a process may have by default
	maxListenName     = 255     // FDNAME_MAX, sd_listen_fds(3)
	defaultSocketMode = 0o660
	portTries         = 16 // how often a port that the kernel chose may be lost before it is bound for good
)

// listenSpec is one --listen as it was written.
type listenSpec struct {
	name    string // "": the default
	network string // a word of listenNetworks
	host    string // literal or name; "": all addresses
	port    string // number or service
	path    string // of a unix socket; "@name" is abstract
	source  int    // fd:N

	backlog               int         // 0: the system's maximum
	rcvbuf                int         // bytes of the receive buffer, 0: the system's default
	mode                  fs.FileMode // of a socket file
	user, group           string
	device                string
	v6only, freebind      bool
	deferAccept, fastopen bool
	nodelay               bool
	mptcp, nonblock       bool
	pin                   descriptor // fd=N; -1: the next free one

	back *listener // it came back from the service manager's store; nil: it is to be opened
}

// listenNetworks are the words before the colon of an address.
var listenNetworks = []string{"tcp", "tcp4", "tcp6", "udp", "udp4", "udp6", "unix", "unixgram", "unixpacket", "fd"}

// transport is the network without its address family: tcp, udp, unix, unixgram, unixpacket or fd.
func (s listenSpec) transport() string { return strings.TrimRight(s.network, "46") }

func (s listenSpec) tcp() bool      { return s.transport() == "tcp" }
func (s listenSpec) inet() bool     { return s.tcp() || s.transport() == "udp" }
func (s listenSpec) ours() bool     { return s.network != "fd" }
func (s listenSpec) listens() bool  { return s.transport() != "udp" && s.network != "unixgram" }
func (s listenSpec) abstract() bool { return strings.HasPrefix(s.path, "@") }
func (s listenSpec) file() bool     { return s.path != "" && !s.abstract() }

// ipv6 tells whether s may be an IPv6 address.
func (s listenSpec) ipv6() bool {
	return s.inet() && !strings.HasSuffix(s.network, "4") && (s.host == "" || strings.Contains(s.host, ":"))
}

// ipv6Only tells whether IPv4 clients are kept out of a wildcard: tcp6 and udp6 mean that, as in package net.
func (s listenSpec) ipv6Only() bool { return s.v6only || strings.HasSuffix(s.network, "6") }

// parseListen reads [NAME=]ADDRESS[,OPTION[=VALUE]]…; its errors do not repeat the text.
func parseListen(text string) (listenSpec, error) {
	s := listenSpec{pin: -1, source: -1}
	if i := strings.IndexFunc(text, func(r rune) bool { return r < ' ' || r == 0x7f }); i >= 0 {
		return s, fmt.Errorf("control character %q", text[i])
	}
	rest := text
	// What stands before a "=" is a name, unless it already is an address: /run/a=b.sock, unix:a=b, 80,backlog=5.
	if name, after, ok := strings.Cut(text, "="); ok && !strings.ContainsAny(name, ":/,") {
		if err := checkListenName(name); err != nil {
			return s, err
		}
		s.name, rest = name, after
	}
	words := strings.Split(rest, ",")
	if err := s.parseAddress(words[0]); err != nil {
		return s, err
	}
	if s.file() {
		s.mode = defaultSocketMode
	}
	var seen []string
	for _, word := range words[1:] {
		name, _, _ := strings.Cut(word, "=")
		if slices.Contains(seen, name) {
			return s, fmt.Errorf("option %q is given twice", name)
		}
		seen = append(seen, name)
		if err := s.parseOption(word); err != nil {
			return s, err
		}
	}
	return s, nil
}

// checkListenName accepts what LISTEN_FDNAMES, SERVER_STARTER_PORT and {fd:NAME} can all carry.
func checkListenName(name string) error {
	bad := func(r rune) bool { return r < ' ' || r > '~' || strings.ContainsRune(":=/,;", r) }
	switch {
	case name == "":
		return errors.New("the name before \"=\" is empty")
	case len(name) > maxListenName:
		return fmt.Errorf("the name is longer than %d characters", maxListenName)
	case strings.ContainsFunc(name, bad):
		return fmt.Errorf("name %q: only printable ASCII without : = / , ; can be passed on", name)
	}
	return nil
}

// parseAddress reads ADDRESS.
func (s *listenSpec) parseAddress(text string) error {
	word, rest, colon := strings.Cut(text, ":")
	url := strings.HasPrefix(rest, "//")
	switch {
	case text == "":
		return errors.New("the address is empty")
	case text[0] == '/', strings.HasPrefix(text, "./"), strings.HasPrefix(text, "../"):
		s.network = "unix"
		return s.parsePath(text)
	case text[0] == '@':
		return fmt.Errorf("an abstract socket is written %q", "unix:"+text)
	case colon && slices.Contains(listenNetworks, word):
		s.network = word
	case url && (word == "http" || word == "https"):
		s.network = "tcp" // what is spoken on it is between the program and its clients
	case url:
		return fmt.Errorf("unknown scheme %q", word)
	default:
		s.network = "tcp"
		return s.parseHostPort(text)
	}
	rest = strings.TrimPrefix(rest, "//")
	switch s.transport() {
	case "fd":
		n, err := parseDescriptor(rest)
		s.source = n
		return err
	case "tcp", "udp":
		if url {
			rest = strings.TrimSuffix(rest, "/")
		}
		return s.parseHostPort(rest)
	default:
		return s.parsePath(rest)
	}
}

// parsePath reads the path of a unix socket. It stays as relative as it is: socketPath makes it absolute.
func (s *listenSpec) parsePath(text string) error {
	switch {
	case text == "" || text == "@":
		return errors.New("the path is empty")
	case text[0] == '@' && runtime.GOOS != "linux":
		return fmt.Errorf("abstract unix sockets are not available on %s", runtime.GOOS)
	case text[0] == '@':
		s.path = text
	case strings.HasSuffix(text, "/"):
		return fmt.Errorf("%q is a directory", text)
	default:
		s.path = filepath.Clean(text)
		if slices.Contains([]string{".", "..", "/"}, filepath.Base(s.path)) {
			return fmt.Errorf("%q is a directory", text)
		}
		if s.path[0] == '@' {
			s.path = "./" + s.path
		}
	}
	if len(s.path) > maxSocketPath {
		return fmt.Errorf("the path is longer than %d bytes", maxSocketPath)
	}
	return nil
}

// parseHostPort reads 8080, :8080, host:8080 and [::1]:8080.
func (s *listenSpec) parseHostPort(text string) error {
	host, port, bracket := "", text, strings.HasPrefix(text, "[")
	switch i := strings.LastIndexByte(text, ':'); {
	case bracket:
		literal, after, ok := strings.Cut(text[1:], "]")
		if !ok || after != "" && after[0] != ':' {
			return fmt.Errorf("%q is not [ADDRESS]:PORT", text)
		}
		host, port = literal, strings.TrimPrefix(after, ":")
	case i >= 0:
		host, port = text[:i], text[i+1:]
	case !allDigits(text):
		port = ""
	}
	if port == "" {
		return fmt.Errorf("no port in %q", text)
	}
	if strings.Contains(host, ":") && !bracket {
		return fmt.Errorf("an IPv6 address needs brackets: \"[%s]:%s\"", host, port)
	}
	if err := s.parsePort(port); err != nil {
		return err
	}
	return s.parseHost(host, bracket)
}

func (s *listenSpec) parsePort(text string) error {
	n, err := strconv.Atoi(text)
	switch {
	case allDigits(text) && (err != nil || n > math.MaxUint16):
		return fmt.Errorf("port %s is out of range", text)
	case allDigits(text):
		s.port = strconv.Itoa(n)
	case !plain(text, "-_"):
		return fmt.Errorf("%q is not a port", text)
	default:
		s.port = text // a service, looked up when it is opened
	}
	return nil
}

func (s *listenSpec) parseHost(text string, bracket bool) error {
	if text == "" && !bracket {
		return nil
	}
	ip, err := netip.ParseAddr(text)
	switch {
	case bracket && (err != nil || !ip.Is6()):
		return fmt.Errorf("%q is not an IPv6 address", text)
	case err == nil:
		ip = ip.Unmap()
		if strings.HasSuffix(s.network, "4") && !ip.Is4() || strings.HasSuffix(s.network, "6") && ip.Is4() {
			return fmt.Errorf("%s is not an address for %s", ip, s.network)
		}
		s.host = ip.String()
	case allDigits(text) || !plain(text, "-._"):
		return fmt.Errorf("%q is not a host", text)
	default:
		s.host = text
	}
	return nil
}

// plain tells whether text has only ASCII letters, digits and the runes of more.
func plain(text, more string) bool {
	return !strings.ContainsFunc(text, func(r rune) bool {
		return (r < 'a' || r > 'z') && (r < 'A' || r > 'Z') && (r < '0' || r > '9') && !strings.ContainsRune(more, r)
	})
}

func allDigits(text string) bool {
	return text != "" && !strings.ContainsFunc(text, func(r rune) bool { return r < '0' || r > '9' })
}

// listenOption is what may follow an address.
type listenOption struct {
	name  string
	only  string // what it is for, as an error says
	fits  func(listenSpec) bool
	linux bool                    // not elsewhere
	field func(s *listenSpec) any // its type says how it is written
}

type descriptor int

// listenOptions are in the order in which String writes them.
var listenOptions = []listenOption{
	{"backlog", "stream sockets", listenSpec.listens, false, func(s *listenSpec) any { return &s.backlog }},
	{"rcvbuf", "tcp and udp", listenSpec.inet, false, func(s *listenSpec) any { return &s.rcvbuf }},
	{"mode", "unix socket paths", listenSpec.file, false, func(s *listenSpec) any { return &s.mode }},
	{"user", "unix socket paths", listenSpec.file, false, func(s *listenSpec) any { return &s.user }},
	{"group", "unix socket paths", listenSpec.file, false, func(s *listenSpec) any { return &s.group }},
	{"v6only", "IPv6 addresses", listenSpec.ipv6, false, func(s *listenSpec) any { return &s.v6only }},
	{"freebind", "tcp and udp", listenSpec.inet, true, func(s *listenSpec) any { return &s.freebind }},
	{"device", "tcp and udp", listenSpec.inet, true, func(s *listenSpec) any { return &s.device }},
	{"defer", "tcp", listenSpec.tcp, true, func(s *listenSpec) any { return &s.deferAccept }},
	{"fastopen", "tcp", listenSpec.tcp, true, func(s *listenSpec) any { return &s.fastopen }},
	{"nodelay", "tcp", listenSpec.tcp, true, func(s *listenSpec) any { return &s.nodelay }},
	{"mptcp", "tcp", listenSpec.tcp, true, func(s *listenSpec) any { return &s.mptcp }},
	{"nonblock", "sockets that hotwrap opens", listenSpec.ours, false, func(s *listenSpec) any { return &s.nonblock }},
	{"fd", "", func(listenSpec) bool { return true }, false, func(s *listenSpec) any { return &s.pin }},
}

// parseOption reads one OPTION[=VALUE] for the address that is already in s.
func (s *listenSpec) parseOption(text string) error {
	name, value, valued := strings.Cut(text, "=")
	i := slices.IndexFunc(listenOptions, func(o listenOption) bool { return o.name == name })
	if i < 0 {
		return fmt.Errorf("unknown option %q", name)
	}
	o := listenOptions[i]
	switch {
	case o.linux && runtime.GOOS != "linux":
		return fmt.Errorf("option %q is not available on %s", name, runtime.GOOS)
	case !o.fits(*s):
		return fmt.Errorf("option %q is for %s only", name, o.only)
	}
	if fault := setOption(o.field(s), value, valued); fault != "" {
		return fmt.Errorf("option %q: %s", name, fault)
	}
	return nil
}

// setOption reads a value into a field of its type, or says what is wrong with it.
func setOption(field any, value string, valued bool) (fault string) {
	switch p := field.(type) {
	case *bool:
		*p = true
		if valued {
			return "it takes no value"
		}
	case *string:
		*p = value
		if value == "" {
			return "it needs a value"
		}
	case *int:
		n, err := strconv.ParseUint(value, 10, 31)
		*p = int(n)
		if err != nil || n == 0 {
			return fmt.Sprintf("%q is not a number from 1", value)
		}
	case *fs.FileMode:
		n, err := strconv.ParseUint(value, 8, 32)
		*p = fs.FileMode(n)
		if err != nil || n > 0o777 {
			return fmt.Sprintf("%q is not an octal mode", value)
		}
	case *descriptor:
		n, err := parseDescriptor(value)
		*p = descriptor(n)
		if err != nil {
			return err.Error()
		}
		if n == 1 || n == 2 {
			return "1 and 2 are the program's output"
		}
	}
	return ""
}

func parseDescriptor(text string) (int, error) {
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 || n > maxListenFD {
		return -1, fmt.Errorf("%q is not a descriptor number", text)
	}
	return n, nil
}

// String is the canonical text: parseListen reads the same from it.
func (s listenSpec) String() string {
	text := s.address()
	if s.name != "" {
		text = s.name + "=" + text
	}
	for _, o := range listenOptions {
		switch p := o.field(&s).(type) {
		case *bool:
			if *p {
				text += "," + o.name
			}
		case *string:
			if *p != "" {
				text += "," + o.name + "=" + *p
			}
		case *int:
			if *p != 0 {
				text += fmt.Sprintf(",%s=%d", o.name, *p)
			}
		case *fs.FileMode:
			if s.file() && *p != defaultSocketMode {
				text += fmt.Sprintf(",%s=%04o", o.name, *p)
			}
		case *descriptor:
			if *p >= 0 {
				text += fmt.Sprintf(",%s=%d", o.name, *p)
			}
		}
	}
	return text
}

// address is the canonical text without name and options.
func (s listenSpec) address() string {
	switch {
	case s.network == "fd":
		return fmt.Sprintf("fd:%d", s.source)
	case s.network == "unix" && filepath.IsAbs(s.path):
		return s.path
	case s.path != "":
		return s.network + ":" + s.path
	case s.network != "tcp", slices.Contains(listenNetworks, s.host): // a host that is called udp
		return s.network + ":" + net.JoinHostPort(s.host, s.port)
	default:
		return net.JoinHostPort(s.host, s.port)
	}
}

// checkListens refuses what cannot go together, before anything is bound.
func checkListens(specs []listenSpec) error {
	taken := map[string]listenSpec{}
	for _, s := range specs {
		place, err := s.place()
		if err != nil {
			return err
		}
		keys := []string{} // each begins with what it is
		if s.port != "0" { // every port 0 is another port
			keys = append(keys, "address "+place)
		}
		if s.name != "" {
			keys = append(keys, "name "+s.name)
		}
		if s.pin >= 0 {
			keys = append(keys, fmt.Sprintf("number %d", s.pin))
		}
		for _, key := range keys {
			if other, ok := taken[key]; ok {
				what, _, _ := strings.Cut(key, " ")
				return fmt.Errorf("%q and %q have the same %s", other, s, what)
			}
			taken[key] = s
		}
	}
	return nil
}

// place is what only one listener can have.
func (s listenSpec) place() (string, error) {
	if s.path != "" {
		return s.socketPath()
	}
	network := s.network
	if _, err := netip.ParseAddr(s.host); err == nil {
		network = s.transport() // a literal has one family anyhow
	}
	return fmt.Sprint(network, " ", s.host, " ", s.port, " ", s.device, " ", s.source), nil
}
