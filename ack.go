package main

// This file is the einhorn ack, another way for a worker to tell that it is ready: one line on a stream socket, which it
// connects to (EINHORN_SOCK_PATH) or has been given (EINHORN_SOCK_FD). The rules are those of ready.go.

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

const (
	maxAckLine  = 4096                   // bytes
	maxAcks     = 16                     // ack connections open at a time, for each worker
	ackPatience = 5 * time.Second        // until an ack connection must have sent its line
	acceptPause = 100 * time.Millisecond // after a failed accept: out of descriptors, most likely
)

// ackText undoes the framing of an einhorn message: a document in one line.
var ackText = strings.NewReplacer("%25", "%", "%0A", "\n", "%0a", "\n")

// parseAck parses the line of an einhorn client, without its newline, and returns the pid that it names.
// The line holds a JSON object, or a YAML document of which we take `key: value` lines and nothing else.
func parseAck(line []byte) (int, error) {
	text := ackText.Replace(strings.TrimSuffix(string(line), "\r"))
	var ack struct {
		Command string `json:"command"`
		PID     int32  `json:"pid"`
	}
	if strings.HasPrefix(strings.TrimSpace(text), "{") {
		if err := json.Unmarshal([]byte(text), &ack); err != nil {
			return 0, fmt.Errorf("cannot take an ack: %v", err)
		}
	} else {
		fields, err := yamlFields(text)
		if err != nil {
			return 0, err
		}
		ack.Command, ack.PID = fields["command"], int32(positive(fields["pid"]))
	}
	if ack.Command != "worker:ack" {
		return 0, fmt.Errorf("cannot take an ack: command is %q, not \"worker:ack\"", ack.Command)
	}
	if ack.PID <= 0 {
		return 0, errors.New("cannot take an ack: no pid")
	}
	return int(ack.PID), nil
}

// yamlFields reads a YAML document that is nothing but `key: value` lines.
func yamlFields(text string) (map[string]string, error) {
	fields := map[string]string{}
	for line := range strings.SplitSeq(text, "\n") {
		line = strings.TrimRight(line, " \t\r")
		if line == "" || line == "---" {
			continue
		}
		key, value, ok := strings.Cut(line+" ", ": ")
		if !ok || key == "" || strings.TrimSpace(key) != key {
			return nil, fmt.Errorf("cannot take an ack: %q is not \"key: value\"", line)
		}
		fields[key] = unquote(strings.TrimSpace(value))
	}
	return fields, nil
}

// unquote takes the quotes off a plain quoted word.
func unquote(s string) string {
	if len(s) >= 2 && (s[0] == '"' || s[0] == '\'') && s[len(s)-1] == s[0] {
		return s[1 : len(s)-1]
	}
	return s
}

// ackClient is one connection to the ack socket, and the goroutine that reads it.
type ackClient struct {
	conn  *net.UnixConn
	until time.Time     // when its line must be there
	held  []byte        // of its line
	open  bool          // it was interrupted, and may go on
	told  chan []notice // the goroutine ends by sending what it could not post
}

func newAckClient(conn *net.UnixConn) *ackClient {
	return &ackClient{conn: conn, until: time.Now().Add(ackPatience)}
}

// acknowledge serves the ack socket until done. When maxAcks connections are open, the oldest one, silent till now,
// makes room: somebody who has nothing to say cannot keep out who has.
func (s *notifySocket) acknowledge(done <-chan struct{}) (left []notice) {
	for _, c := range s.clients {
		if c != nil {
			s.hear(c, done)
		}
	}
	i := 0 // the oldest
	for ; ; i = (i + 1) % maxAcks {
		conn, err := s.acks.AcceptUnix()
		if err != nil && paused(done) {
			break
		}
		left = append(left, s.clients[i].end()...)
		if s.clients[i] = nil; err == nil {
			s.clients[i] = newAckClient(conn)
			s.hear(s.clients[i], done)
		}
	}
	for n := range maxAcks {
		c := &s.clients[(i+n)%maxAcks]
		left = append(left, (*c).interrupt()...)
		if *c != nil && !(*c).open {
			*c = nil
		}
	}
	return left
}

// paused waits a moment after a failed accept, so that a lack of descriptors does not become a busy loop. True: done.
func paused(done <-chan struct{}) bool {
	timer := time.NewTimer(acceptPause)
	defer timer.Stop()
	select {
	case <-timer.C:
		return false
	case <-done:
		return true
	}
}

// hear reads one ack; there is no answer to it but the end of the connection.
func (s *notifySocket) hear(c *ackClient, done <-chan struct{}) {
	told := make(chan []notice, 1)
	c.told, c.open = told, false
	_ = c.conn.SetReadDeadline(c.until) // here, or it could come after that of interrupt
	go func() {
		left := s.ack(c, done)
		if !c.open {
			_ = c.conn.Close()
		}
		told <- left
	}()
}

// ack reads and posts one ack. It returns what could not be posted.
func (s *notifySocket) ack(c *ackClient, done <-chan struct{}) []notice {
	line, ok := c.readLine()
	if !ok {
		return nil
	}
	pid, err := parseAck(line)
	if err != nil {
		return nil
	}
	n := notice{ready: true, mainPID: pid, by: "ack"}
	from := callerOf(c.conn)
	n.pid, n.uid = from.pid, from.uid
	if s.post(n, done) {
		return nil
	}
	return []notice{n}
}

// readLine reads a whole line, without its newline; half a line could name half a pid. When the deadline is over it
// takes what has arrived till then.
func (c *ackClient) readLine() ([]byte, bool) {
	buf := make([]byte, maxAckLine)
	for n := copy(buf, c.held); n < len(buf); {
		got, err := c.conn.Read(buf[n:])
		late := errors.Is(err, os.ErrDeadlineExceeded)
		if late {
			got = readNow(c.conn, buf[n:])
		}
		if i := bytes.IndexByte(buf[n:n+got], '\n'); i >= 0 {
			return buf[:n+i], true
		}
		n += got
		if err != nil {
			c.held, c.open = buf[:n], late && n < len(buf) && time.Now().Before(c.until)
			return nil, false
		}
	}
	return nil, false
}

// ackNumber is the descriptor that -e EINHORN_SOCK_FD=N asks for, -1 if it does not: as with einhorn's -g, nobody gets one
// more descriptor who did not ask. Another's is taken.
func ackNumber(env []string, taken int) (int, error) {
	value := getenv(env, "EINHORN_SOCK_FD")
	if value == "" {
		return -1, nil
	}
	n, err := strconv.Atoi(value)
	switch {
	case err != nil || n < 3 || n > 1023 || strconv.Itoa(n) != value:
		return -1, usage("--env EINHORN_SOCK_FD=%q: a descriptor for acks is a number from 3 to 1023", value)
	case n == taken:
		return -1, usage("--env EINHORN_SOCK_FD=%q: that is the descriptor of --ready", value)
	}
	return n, nil
}

// openAckSocket makes what EINHORN_SOCK_FD names: a stream socket that is connected already, for acks. The worker's end is
// the caller's, to pass on and to close. Anything else that comes in is thrown away.
func openAckSocket(post poster) (workerEnd int, h *hearing, err error) {
	r, workerEnd, err := openPair("ack socket", func(fds []int) error {
		ends, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0)
		copy(fds, ends[:])
		return err
	})
	if err != nil {
		return -1, nil, fmt.Errorf("cannot make an ack socket: %w", err)
	}
	h = &hearing{file: r, post: post, parse: (*hearing).acks}
	h.start()
	return workerEnd, h, nil
}

// acks are the whole lines that are one. The kernel names no sender here, so it is the process that the ack names, as in
// einhorn.
func (h *hearing) acks(data []byte) (all []notice) {
	h.held = append(h.held, data...)
	for {
		line, rest, whole := bytes.Cut(h.held, newline)
		if !whole {
			break
		}
		if pid, err := parseAck(line); err == nil {
			all = append(all, notice{ready: true, mainPID: pid, pid: pid, uid: -1, by: "ack"})
		}
		h.held = rest
	}
	if len(h.held) >= maxAckLine {
		h.held = nil // too long for an ack
	}
	return all
}

// interrupt breaks off what c still reads, and returns what could not be posted.
func (c *ackClient) interrupt() []notice {
	if c == nil {
		return nil
	}
	_ = c.conn.SetReadDeadline(longAgo)
	return <-c.told
}

// end is for good.
func (c *ackClient) end() []notice {
	left := c.interrupt()
	if c != nil {
		_ = c.conn.Close()
	}
	return left
}
