package main

// This file builds what a program finds in its environment: hotwrap's own variables without the
// protocols that were meant for hotwrap, --env-file, the protocols' variables, -e, and the placeholders.
//
// Its rules: it is built anew for every generation, so a removed key is gone; what the user says last
// wins; values are never logged.

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"syscall"
	"unicode/utf8"
)

const envFileMost = 1 << 20 // bytes read of an env file, and of each file of an envdir

// protocolNames are the variables that hotwrap may have inherited for itself; a trailing * stands for
// any ending. LISTEN_ADDR and the like are the user's.
var protocolNames = []string{
	"LISTEN_PID", "LISTEN_PIDFDID", "LISTEN_FDS", "LISTEN_FDNAMES", "LISTEN_FDS_FIRST_FD", "NOTIFY_SOCKET",
	"WATCHDOG_PID", "WATCHDOG_USEC", "FDSTORE", "MAINPID", "SYSTEMD_EXEC_PID", "EINHORN_*", "SERVER_STARTER_*",
	"NGINX", "UNICORN_FD", "GUNICORN_FD", "GUNICORN_PID", "PUMA_INHERIT_*", "FPM_SOCKETS",
	"HOTWRAP_EVENT", "HOTWRAP_PID", "HOTWRAP_PREDECESSOR", "HOTWRAP_REASON", "HOTWRAP_STATUS", // of a hook that started us
	"HOTWRAP_GENERATION", "HOTWRAP_WORKER", "HOTWRAP_CONTROL", "HOTWRAP_TRACE", "HOTWRAP_SHARE", "HOTWRAP_RUNTIME_DIR",
}

// inherited is hotwrap's own environment without what was meant for hotwrap itself.
func inherited(environ []string) []string {
	own := optionVariables()
	return slices.DeleteFunc(slices.Clone(environ), func(kv string) bool {
		key, _, ok := strings.Cut(kv, "=")
		return !ok || slices.ContainsFunc(protocolNames, func(name string) bool {
			start, any := strings.CutSuffix(name, "*")
			return key == name || any && strings.HasPrefix(key, start)
		}) || slices.Contains(own, key)
	})
}

// environment is what every worker of a generation gets, but for its own variables and -e.
func (p *program) environment(generation int) ([]string, error) {
	env := p.own()
	if p.envFile != "" {
		pairs, err := readEnvFile(filepathFrom(p.dir, p.envFile))
		if err != nil {
			return nil, fmt.Errorf("cannot read --env-file %q: %w", p.envFile, err)
		}
		env = apply(env, pairs)
	}
	return apply(env, p.protocol(generation)), nil
}

// own is what a program gets of hotwrap's own environment, as its user.
func (p *program) own() []string {
	env := inherited(p.base)
	if p.user != nil {
		env = setenv(env, "HOME", p.user.home)
		env = setenv(env, "USER", p.user.name)
		env = setenv(env, "LOGNAME", p.user.name)
	}
	return env
}

// getenv, setenv and unsetenv work on a list of KEY=VALUE; the last of a key counts.
func getenv(env []string, key string) string {
	value, _ := lookupEnv(env, key)
	return value
}

// lookupEnv tells an empty value from none at all.
func lookupEnv(env []string, key string) (value string, ok bool) {
	for _, kv := range slices.Backward(env) {
		if k, v, ok := strings.Cut(kv, "="); ok && k == key {
			return v, true
		}
	}
	return "", false
}

func setenv(env []string, key, value string) []string {
	return append(unsetenv(env, key), key+"="+value)
}

func unsetenv(env []string, key string) []string {
	return slices.DeleteFunc(slices.Clone(env), func(kv string) bool {
		k, _, _ := strings.Cut(kv, "=")
		return k == key
	})
}

// apply sets each KEY=VALUE, of one key the last; an empty value unsets. There may be two for each of many listeners.
func apply(env, pairs []string) []string {
	last := make(map[string]int, len(pairs))
	for i, kv := range pairs {
		key, _, _ := strings.Cut(kv, "=")
		last[key] = i
	}
	all := make([]string, 0, len(env)+len(pairs))
	for _, kv := range env {
		key, _, _ := strings.Cut(kv, "=")
		if _, set := last[key]; !set {
			all = append(all, kv)
		}
	}
	for i, kv := range pairs {
		if key, value, _ := strings.Cut(kv, "="); value != "" && last[key] == i {
			all = append(all, kv)
		}
	}
	return all
}

// protocol are the variables of every dialect, all for the same sockets (LISTEN_PID is the shim's).
func (p *program) protocol(generation int) []string {
	env := []string{
		"HOTWRAP_GENERATION=" + strconv.Itoa(generation),
		"SERVER_STARTER_GENERATION=" + strconv.Itoa(generation),
		"EINHORN_MASTER_PID=" + strconv.Itoa(os.Getpid()),
		"EINHORN_FD_COUNT=" + strconv.Itoa(len(p.listeners)),
	}
	if p.control != "" {
		env = append(env, "HOTWRAP_CONTROL="+p.control)
	}
	if usec := p.watchdog(); usec != "" {
		env = append(env, "WATCHDOG_USEC="+usec)
	}
	if n := listenFDS(p.numbers); n > 0 {
		env = append(env, "LISTEN_FDS="+strconv.Itoa(n), "LISTEN_FDS_FIRST_FD=3", "LISTEN_FDNAMES="+p.names(n))
	}
	var starter, einhorn []string
	for i, l := range p.listeners {
		fd := strconv.Itoa(p.numbers[i])
		env = append(env, fmt.Sprintf("EINHORN_FD_%d=%s", i, fd), fmt.Sprintf("EINHORN_FD_FAMILY_%d=%s", i, l.family()))
		einhorn = append(einhorn, fd)
		if !strings.ContainsAny(l.addr, "=;") { // its readers would take that for the end of a path
			starter = append(starter, l.addr+"="+fd)
		}
	}
	if len(einhorn) > 0 {
		env = append(env, "EINHORN_FDS="+strings.Join(einhorn, " "))
	}
	if len(starter) > 0 {
		env = append(env, "SERVER_STARTER_PORT="+strings.Join(starter, ";"))
	}
	return env
}

// names are LISTEN_FDNAMES of the first n descriptors from 3 on.
func (p *program) names(n int) string {
	names := make([]string, n)
	for i, l := range p.listeners {
		if at := p.numbers[i] - 3; at >= 0 && at < n {
			names[at] = l.name
		}
	}
	return strings.Join(names, ":")
}

// watchdog is the WATCHDOG_USEC that hotwrap's own manager wants, passed on to the program: it knows
// best whether it is well.
func (p *program) watchdog() string {
	if watchdogInterval(p.base) == 0 {
		return ""
	}
	return getenv(p.base, "WATCHDOG_USEC")
}

// --- placeholders

// Compiled at the first use: a start must not pay for what it may not need.
var (
	placeholder = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`\{(fd|addr|port)(:[^{}]*)?\}`) })
	envKey      = sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(`^[A-Za-z_][A-Za-z0-9_]*$`) })
)

// expandAll fills in {fd}, {addr}, {port}, alone for the first listener or with :NAME.
func (p *program) expandAll(texts []string) []string {
	all := make([]string, len(texts))
	for i, text := range texts {
		all[i] = placeholder().ReplaceAllStringFunc(text, func(found string) string {
			value, _ := p.placeholder(found)
			return value
		})
	}
	return all
}

// checkPlaceholders refuses one that names no listener. Of a variable only the name is told: its value may
// be a secret.
func (p *program) checkPlaceholders() error {
	for _, text := range p.argv {
		if err := p.checkText(text); err != nil {
			return usage("%q: %v", text, err)
		}
	}
	for _, kv := range p.env {
		if err := p.checkText(kv); err != nil {
			key, _, _ := strings.Cut(kv, "=")
			return usage("--env %q: %v", key, err)
		}
	}
	return nil
}

func (p *program) checkText(text string) error {
	for _, found := range placeholder().FindAllString(text, -1) {
		if _, err := p.placeholder(found); err != nil {
			return err
		}
	}
	return nil
}

func (p *program) placeholder(found string) (string, error) {
	what, name, named := strings.Cut(strings.Trim(found, "{}"), ":")
	for i, l := range p.listeners {
		if named && l.name != name {
			continue
		}
		switch what {
		case "fd":
			return strconv.Itoa(p.numbers[i]), nil
		case "addr":
			return l.addr, nil
		default:
			return l.port(), nil
		}
	}
	return found, fmt.Errorf("%s names no listener", found)
}

// --- --env-file

// filepathFrom reads name as from dir.
func filepathFrom(dir, name string) string {
	if filepath.IsAbs(name) {
		return name
	}
	return filepath.Join(dir, name)
}

// readEnvFile reads systemd's EnvironmentFile format, or an envdir if path is a directory.
func readEnvFile(path string) ([]string, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, causeOf(err)
	}
	defer f.Close()
	if st, err := f.Stat(); err == nil && st.IsDir() {
		return readEnvDir(path)
	}
	text, err := io.ReadAll(io.LimitReader(f, envFileMost+1))
	switch {
	case err != nil:
		return nil, causeOf(err)
	case len(text) > envFileMost:
		return nil, fmt.Errorf("larger than %d bytes", envFileMost)
	}
	return parseEnvFile(text)
}

// causeOf leaves off what *PathError repeats.
func causeOf(err error) error {
	var errno syscall.Errno
	if errors.As(err, &errno) {
		return errno
	}
	return err
}

// readEnvDir reads a directory of daemontools' envdir: a file a variable, its first line the value;
// an empty file unsets, NUL stands for a newline.
func readEnvDir(path string) ([]string, error) {
	entries, err := os.ReadDir(path)
	if err != nil {
		return nil, causeOf(err)
	}
	var pairs []string
	for _, e := range entries {
		if e.IsDir() || strings.HasPrefix(e.Name(), ".") || strings.Contains(e.Name(), "=") {
			continue
		}
		f, err := os.Open(filepath.Join(path, e.Name()))
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), causeOf(err))
		}
		text, err := io.ReadAll(io.LimitReader(f, envFileMost))
		_ = f.Close()
		if err != nil {
			return nil, fmt.Errorf("%s: %w", e.Name(), causeOf(err))
		}
		line, _, _ := bytes.Cut(text, []byte("\n"))
		value := strings.ReplaceAll(strings.TrimRight(string(line), " \t\r"), "\x00", "\n")
		pairs = append(pairs, e.Name()+"="+value)
	}
	return pairs, nil
}

// parseEnvFile follows systemd.exec(5), EnvironmentFile=: lines KEY=VALUE, # and ; comments, quotes of
// both kinds, a backslash continues a line, nothing is expanded.
func parseEnvFile(text []byte) ([]string, error) {
	if i := bytes.IndexByte(text, 0); i >= 0 {
		return nil, fmt.Errorf("line %d: a NUL byte", 1+bytes.Count(text[:i], []byte("\n")))
	}
	if !utf8.Valid(text) {
		return nil, errors.New("not UTF-8")
	}
	var pairs []string
	r := &envReader{in: bufio.NewReader(bytes.NewReader(text)), line: 1}
	for {
		key, value, err := r.next()
		switch {
		case errors.Is(err, io.EOF):
			return pairs, nil
		case err != nil:
			return nil, err
		default:
			pairs = append(pairs, key+"="+value)
		}
	}
}

// envReader walks an env file rune by rune.
type envReader struct {
	in   *bufio.Reader
	line int
}

func (r *envReader) rune() (rune, error) {
	c, _, err := r.in.ReadRune()
	if c == '\n' {
		r.line++
	}
	return c, err
}

// next reads one assignment; io.EOF when there is none left.
func (r *envReader) next() (key, value string, err error) {
	for {
		c, err := r.rune()
		switch {
		case err != nil:
			return "", "", err
		case c == ' ' || c == '\t' || c == '\r' || c == '\n':
			continue
		case c == '#' || c == ';':
			if err := r.comment(); err != nil {
				return "", "", err
			}
			continue
		}
		line := r.line
		if key, err = r.key(c); err != nil {
			return "", "", fmt.Errorf("line %d: %w", line, err)
		}
		if value, err = r.value(); err != nil {
			return "", "", fmt.Errorf("line %d: %w", line, err)
		}
		return key, value, nil
	}
}

// comment skips to the end of the line, which a backslash moves on.
func (r *envReader) comment() error {
	for escaped := false; ; {
		c, err := r.rune()
		switch {
		case err != nil:
			return err
		case c == '\n' && !escaped:
			return nil
		}
		escaped = c == '\\' && !escaped
	}
}

func (r *envReader) key(first rune) (string, error) {
	key := []rune{first}
	for {
		c, err := r.rune()
		if err != nil || c == '\n' {
			return "", errors.New("no = in it")
		}
		if c == '=' {
			break
		}
		key = append(key, c)
	}
	name := strings.TrimRight(string(key), " \t")
	if !envKey().MatchString(name) {
		return "", fmt.Errorf("%q is not a variable's name", name)
	}
	return name, nil
}

// value reads up to the end of the line. Blanks at its end do not count unless quoted or escaped.
func (r *envReader) value() (string, error) {
	var out []rune
	kept := 0 // length of out without loose blanks at its end
	for {
		c, err := r.rune()
		switch {
		case errors.Is(err, io.EOF) || c == '\n':
			return string(out[:kept]), nil
		case err != nil:
			return "", err
		case c == '\r' || (c == ' ' || c == '\t') && len(out) == 0:
		case c == ' ' || c == '\t':
			out = append(out, c)
		case (c == '\'' || c == '"') && kept == len(out):
			if out, err = r.quoted(out, c); err != nil {
				return "", err
			}
			kept = len(out)
		case c == '\\':
			if c, err = r.rune(); err != nil {
				return string(out[:kept]), nil
			}
			if c != '\n' {
				out = append(out, c)
			}
			kept = len(out)
		default:
			out = append(out, c)
			kept = len(out)
		}
	}
}

// quoted reads up to the closing quote; in double quotes a backslash escapes " \ ` $ and a newline.
func (r *envReader) quoted(out []rune, quote rune) ([]rune, error) {
	for {
		c, err := r.rune()
		switch {
		case err != nil:
			return nil, errors.New("a quote is not closed")
		case c == quote:
			return out, nil
		case c == '\\' && quote == '"':
			if c, err = r.rune(); err != nil {
				return nil, errors.New("a quote is not closed")
			}
			if !strings.ContainsRune("\"\\`$\n", c) {
				out = append(out, '\\')
			}
			if c == '\n' {
				continue
			}
		}
		out = append(out, c)
	}
}
