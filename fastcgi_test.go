package main

// This file asks over FastCGI, for the one program of docs/programs.md that speaks nothing else.
//
// Its rule: clients as those of load.go, the same number, pauses and patience.

import (
	"bufio"
	"bytes"
	"context"
	"encoding/binary"
	"io"
	"math/rand/v2"
	"net"
	"sync"
	"time"
)

// The records of FastCGI 1.0: https://fastcgi-archives.github.io/FastCGI_Specification.html#S8
const (
	cgiVersion   = 1
	cgiBegin     = 1
	cgiEnd       = 3
	cgiParams    = 4
	cgiStdin     = 5
	cgiStdout    = 6
	cgiResponder = 1
	cgiKeep      = 1 // of the flags: the connection
)

// cgiGuest is a guest that asks a FastCGI server to run a script.
type cgiGuest struct {
	guest
	script string
}

// startCGI starts the clients of a FastCGI server.
func startCGI(ctx context.Context, at loadTarget, script string) <-chan outcome {
	out := make(chan outcome, 4*loadClients)
	var all sync.WaitGroup
	for i := range loadClients {
		a := &cgiGuest{guest{target: at, limit: loadPatience, keep: i >= loadClients/2, slow: i%4 == 1}, script}
		all.Go(func() { a.run(ctx, out) })
	}
	go func() {
		all.Wait()
		close(out)
	}()
	return out
}

func (a *cgiGuest) run(ctx context.Context, out chan<- outcome) {
	defer a.hangUp()
	for ctx.Err() == nil {
		out <- a.ask(ctx)
		d := loadPause
		if a.slow && a.keep {
			d = rand.N(loadSparse)
		}
		wait(ctx, d)
	}
}

// ask asks once.
func (a *cgiGuest) ask(ctx context.Context) outcome {
	if a.conn != nil && hasEnded(a.conn) {
		a.hangUp()
	}
	o := outcome{began: time.Now(), kept: a.used}
	status, err := a.exchange(ctx)
	o.ended, o.status = time.Now(), status
	o.loss, o.own = lossOf(err)
	if err != nil || !a.keep {
		a.hangUp()
	}
	return o
}

func (a *cgiGuest) exchange(ctx context.Context) (status int, err error) {
	if a.conn == nil {
		if a.conn, err = net.DialTimeout(a.target.network, a.target.addr, a.limit); err != nil {
			return 0, err
		}
		a.read = bufio.NewReader(a.conn)
		if a.slow && !a.keep {
			wait(ctx, rand.N(loadLate))
		}
	}
	a.used = true
	_ = a.conn.SetDeadline(time.Now().Add(a.limit))
	if _, err := a.conn.Write(a.request()); err != nil {
		return 0, err
	}
	if _, err := a.read.Peek(1); err != nil {
		return 0, err
	}
	return readCGI(a.read)
}

// request is one whole request.
func (a *cgiGuest) request() []byte {
	begin := []byte{0, cgiResponder, 0, 0, 0, 0, 0, 0}
	if a.keep {
		begin[2] = cgiKeep
	}
	var params []byte
	for _, pair := range [][2]string{{"REQUEST_METHOD", "GET"}, {"SCRIPT_FILENAME", a.script}} {
		params = append(params, byte(len(pair[0])), byte(len(pair[1])))
		params = append(append(params, pair[0]...), pair[1]...)
	}
	var all []byte
	for _, r := range []struct {
		kind byte
		text []byte
	}{{cgiBegin, begin}, {cgiParams, params}, {cgiParams, nil}, {cgiStdin, nil}} {
		all = append(all, cgiVersion, r.kind, 0, 1) // the request's number is 1
		all = binary.BigEndian.AppendUint16(all, uint16(len(r.text)))
		all = append(append(all, 0, 0), r.text...)
	}
	return all
}

// readCGI reads one answer. Without a Status it is 200.
func readCGI(from io.Reader) (status int, err error) {
	var out []byte
	for {
		var head [8]byte
		if _, err := io.ReadFull(from, head[:]); err != nil {
			return 0, errCut
		}
		text := make([]byte, int(binary.BigEndian.Uint16(head[4:]))+int(head[6]))
		if _, err := io.ReadFull(from, text); err != nil {
			return 0, errCut
		}
		switch head[1] {
		case cgiStdout:
			out = append(out, text[:len(text)-int(head[6])]...)
		case cgiEnd:
			if bytes.Contains(out, []byte("Status: ")) || !bytes.HasSuffix(out, []byte("\r\n\r\nok\n")) {
				return 500, nil
			}
			return 200, nil
		}
	}
}
