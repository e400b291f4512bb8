package main

// This file looks at one control socket: who is behind it, and whether that one may be asked for anything.
//
// Its rules: who listens says the kernel, with each connection anew; a directory in which a stranger can put a
// socket is not trusted, and neither is a stranger; what cannot be looked at is nobody, unless it is known to be there.

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"time"
)

const (
	askLimit    = time.Second     // for one socket to answer who it is
	askPatience = 5 * time.Second // the same once more, for the one that is meant: the machine may be busy
	selfMost    = 64 << 10        // bytes of that answer
)

// standing is what a look at a place found.
type standing int

const (
	contactDead    standing = iota // nobody listens, or nobody can tell
	contactAnswers                 // an instance
	contactMute                    // somebody listens, and does not answer
	contactClosed                  // somebody else's, and we are not let in
	contactForeign                 // a stranger's, or one that a stranger could have put there
)

// contact is a control socket, and what is known of who is behind it.
type contact struct {
	path   string // as we reach it
	root   string // "", or the root directory of another mount namespace, as we reach it
	listed bool   // somebody has bound it: it is no mere possibility

	owner  int  // of its directory
	shared bool // its directory is open to a group of ours: --control-group

	standing standing
	why      error
	peer     caller // who listens
	self     identity
	seeker   *seeker
}

// name is what the instance is called.
func (p *contact) name() string { return strings.TrimSuffix(filepath.Base(p.path), socketSuffix) }

// pid is the instance's process, as we see it: in its own pid namespace it may have another number.
func (p *contact) pid() int {
	if p.peer.pid > 0 {
		return p.peer.pid
	}
	return p.self.PID
}

// gone tells whether the process that listened is no more: then it does not come back as a newer one either.
func (p *contact) gone() bool {
	return p.peer.pid > 0 && errors.Is(syscall.Kill(p.peer.pid, 0), syscall.ESRCH)
}

// String is for lists: "web" (pid 4311, ./myapp).
func (p *contact) String() string {
	text := fmt.Sprintf("%q (pid %d", p.name(), p.pid())
	if argv := tamed(strings.Join(p.self.Program, " "), 60); argv != "" {
		text += ", " + argv
	}
	if p.peer.known && p.peer.uid != os.Geteuid() {
		text += ", of " + p.peer.String()
	}
	return text + ")"
}

// visit finds out who is behind a place, and whether it may be asked for anything.
func (k *seeker) visit(ctx context.Context, p *contact, limit time.Duration) {
	p.standing, p.why = k.inspect(p)
	if p.standing != contactAnswers {
		return
	}
	ctx, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	conn, peer, err := k.dial(ctx, p)
	if p.peer = peer; err != nil {
		p.standing, p.why = p.refusal(err)
		return
	}
	defer func() { _ = conn.Close() }()
	if err := askSelf(ctx, clientOver(func(context.Context) (net.Conn, error) { return conn, nil }), &p.self); err != nil {
		p.standing, p.why = contactMute, plainError(err)
		if errors.Is(err, context.DeadlineExceeded) {
			p.why = fmt.Errorf("it says nothing for %s", brief(limit))
		}
		if cutOff(err) && p.gone() {
			p.standing = contactDead // it went in this moment
		}
	}
}

// cutOff tells whether a connection was broken off: by an end, or by a hotwrap that replaces itself.
func cutOff(err error) bool {
	return errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) || errors.Is(err, syscall.ECONNRESET) || errors.Is(err, syscall.EPIPE)
}

// inspect looks at a socket's directories before anybody connects to it. A place that passes may answer.
func (k *seeker) inspect(p *contact) (standing, error) {
	dir, err := filepath.Abs(filepath.Dir(p.path)) // $HOTWRAP_CONTROL may be a relative one
	if err != nil {
		return p.unseen(err)
	}
	if p.root == "" { // else the kernel would follow a symlink there from our own root
		resolved, err := filepath.EvalSymlinks(dir)
		if err != nil {
			return p.unseen(err)
		}
		dir, p.path = resolved, filepath.Join(resolved, filepath.Base(p.path))
	}
	info, err := os.Lstat(dir)
	if err != nil {
		return p.unseen(err)
	}
	p.owner = int(owner(info))
	p.shared = strings.HasPrefix(filepath.Base(dir), controlDir+"-") && slices.Contains(k.groups, groupOf(info))
	if info, err = os.Lstat(p.path); err != nil {
		return p.unseen(err)
	}
	if info.Mode()&os.ModeSocket == 0 {
		return contactDead, errors.New("it is no socket")
	}
	return k.inspectParents(p, dir)
}

// inspectParents looks at every directory on the way to a socket.
func (k *seeker) inspectParents(p *contact, dir string) (standing, error) {
	var also []int
	if k.mayBe(p) {
		also = []int{p.owner}
	}
	for ; dir != p.root && dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		info, err := os.Lstat(dir)
		if err != nil {
			return p.unseen(err)
		}
		if err := fit(info, false, also...); err != nil {
			return contactForeign, fmt.Errorf("%q is %w", dir, err)
		}
	}
	return contactAnswers, nil
}

// mayBe tells whether p may be its owner's, when that is neither us nor root: root commands everybody's, and a
// group of ours opens what was named.
func (k *seeker) mayBe(p *contact) bool { return k.root || p.shared && k.text != "" }

// unseen is what to think of a socket that cannot be looked at. One that is listed elsewhere is there, and
// somebody else's; of any other nobody knows.
func (p *contact) unseen(err error) (standing, error) {
	if errors.Is(err, syscall.EACCES) && p.listed {
		return contactClosed, p.closed(err)
	}
	return contactDead, err
}

// closed says whose the place is.
func (p *contact) closed(err error) error {
	for dir := filepath.Dir(p.path); dir != filepath.Dir(dir); dir = filepath.Dir(dir) {
		if info, failed := os.Lstat(dir); failed == nil {
			return fmt.Errorf("%q is %s's: %w", dir, caller{uid: int(owner(info)), known: true}, causeOf(err))
		}
	}
	return causeOf(err)
}

// refusal is what a failed connection says of a place.
func (p *contact) refusal(err error) (standing, error) {
	var stranger *strangerError
	switch {
	case errors.As(err, &stranger):
		return contactForeign, err
	case errors.Is(err, syscall.EACCES), errors.Is(err, syscall.EPERM):
		return contactClosed, p.closed(err)
	case errors.Is(err, context.DeadlineExceeded), errors.Is(err, syscall.EAGAIN): // its queue is full
		return contactMute, plainError(err)
	}
	return contactDead, err
}

// strangerError is that somebody listens whom we do not trust.
type strangerError struct{ peer caller }

func (e *strangerError) Error() string {
	if e.peer.known {
		return fmt.Sprintf("%s listens there", e.peer)
	}
	return "the kernel does not say who listens there"
}

// dial connects to p, if who listens is who may.
func (k *seeker) dial(ctx context.Context, p *contact) (net.Conn, caller, error) {
	path, done := shortPath(p.path)
	defer done()
	conn, err := new(net.Dialer).DialContext(ctx, "unix", path)
	if err != nil {
		return nil, caller{}, err
	}
	peer := callerOf(conn.(*net.UnixConn))
	if !peer.owns() && (!peer.known || !k.mayBe(p) || peer.uid != p.owner) {
		_ = conn.Close()
		return nil, peer, &strangerError{peer}
	}
	return conn, peer, nil
}

// httpClient asks p over HTTP. Who listens is looked at again with each connection.
func (p *contact) httpClient() *http.Client {
	return clientOver(func(ctx context.Context) (net.Conn, error) {
		conn, _, err := p.seeker.dial(ctx, p)
		return conn, err
	})
}

// clientOver asks over connections of our own, one for each question.
func clientOver(dial func(context.Context) (net.Conn, error)) *http.Client {
	return &http.Client{
		Transport: &http.Transport{
			DialContext:       func(ctx context.Context, _, _ string) (net.Conn, error) { return dial(ctx) },
			DisableKeepAlives: true, DisableCompression: true, MaxResponseHeaderBytes: selfMost,
		},
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
}

// askSelf asks who is there.
func askSelf(ctx context.Context, c *http.Client, to *identity) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://hotwrap/", nil)
	if err != nil {
		return err
	}
	answer, err := c.Do(r)
	if err != nil {
		return err
	}
	defer func() { _ = answer.Body.Close() }()
	text, err := io.ReadAll(io.LimitReader(answer.Body, selfMost))
	if err == nil && answer.StatusCode != http.StatusOK {
		err = errors.New(answer.Status)
	}
	if err == nil {
		err = json.Unmarshal(text, to)
	}
	return err
}
