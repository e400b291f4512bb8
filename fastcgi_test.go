package main

// This file asks over FastCGI, for the one program of docs/programs.md that speaks nothing else.
//
// Its rule: the clients are those of load.go; here is only what they say, and how they read the answer.

import (
	"bufio"
	"bytes"
	"encoding/binary"
	"io"
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

// cgi asks a FastCGI server to run a script.
func cgi(script string) *talk {
	return &talk{
		request: func(keep bool) []byte { return cgiRequest(script, keep) },
		answer: func(from *bufio.Reader) (int, bool, error) {
			status, err := readCGI(from)
			return status, false, err
		},
	}
}

// cgiRequest is one whole request.
func cgiRequest(script string, keep bool) []byte {
	begin := []byte{0, cgiResponder, 0, 0, 0, 0, 0, 0}
	if keep {
		begin[2] = cgiKeep
	}
	var params []byte
	for _, pair := range [][2]string{{"REQUEST_METHOD", "GET"}, {"SCRIPT_FILENAME", script}} {
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
