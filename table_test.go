package main

import (
	"bytes"
	"encoding/json"
	"strings"
	"testing"
	"unicode"
	"unicode/utf8"
)

// TestStatusDrawn: what hotwrap status draws.
func TestStatusDrawn(t *testing.T) {
	text, err := json.Marshal(someStatus(t))
	if err != nil {
		t.Fatal(err)
	}
	const want = `
web: serving, up since 2026-11-23 11:24:10 UTC (1h), pid 4300, hotwrap 0.4.0
program: ./web -v
directory: /srv

GENERATION  STATE     BUILD  CONNECTIONS  CRASHES  SLOT  PID   WORKER    AGE  MEMORY  SAYS
3           draining  b3     2                     0     4311  stopping  15m
4           serving   b4     0            1        0     4398  ready     50s  85 MB   busy [31m
5           ready     b5                           0     4400  ready     9s

LISTENER  ADDRESS             FD  QUEUE
8080      tcp 127.0.0.1:8080  3   0 of 4096
b         unix /run/b.sock    4

generation 5 starts for 10s, stage bake, for 1s more at most, by hotwrap restart, alice (uid 1000): fix login
1 request for the restart after this one, the last 2s ago by SIGHUP
generation 3 drains for 12s, is killed in 18s, waits for 2 connections: 10.0.3.7:51234 idle 2m4s, 10.0.3.8:1 idle 500ms
generation 4 worker 1 failed 2 times in a row, is started again in 3s
a rollback would start build b3 (generation 3)

VERDICT   ON        GENERATION  BUILD  AGO     TOOK  BY                              WHY
failed    rollback  4           b9     1m41s   2s    hotwrap rollback, root (uid 0)  exited 1 after 40ms, before ready
promoted  restart   1                  16m30s  1s    start
`
	var out bytes.Buffer
	if err := writeStatus(&out, text, 0); err != nil {
		t.Fatal(err)
	}
	if got := "\n" + out.String(); got != want {
		t.Errorf("got%s", got)
	}
	out.Reset()
	if err := writeStatus(&out, text, 40); err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		if n := utf8.RuneCountInString(line) - 1; n > 40 {
			t.Errorf("%d columns: %s", n, line)
		}
	}
	if !strings.Contains(out.String(), "web: serving, up since 2026-11-23\n  11:24:10 UTC (1h), pid 4300, hotwrap\n  0.4.0\n") {
		t.Errorf("cut to 40:\n%s", &out)
	}
}

// TestStatusForeign: other versions' answers are drawn as far as they are understood; what is none is an error.
func TestStatusForeign(t *testing.T) {
	for text, want := range map[string]string{
		`{}`:                             "hotwrap:\n",
		`{"name":"a","state":"dancing"}`: "a: dancing\n",
		`{"name":7,"state":"serving"}`:   "hotwrap: serving\n",
		`{"name":"a","new":{"x":[1]},"generations":[{"generation":"3","state":"serving"},{"generation":4,"state":"odd","drain":{}}]}`: `a:

GENERATION  STATE
            serving
4           odd

generation 4 drains for 0s, is being killed
`,
		`{"name":"a","since":"noon","generations":7,"restart":{"generation":2},"verdicts":[{"result":"new\u001b[2J\nline"}]}`: `a:

generation 2 starts for 0s

VERDICT
new[2Jline
`,
	} {
		var out bytes.Buffer
		if err := writeStatus(&out, []byte(text), 0); err != nil || out.String() != want {
			t.Errorf("%s: %v\n%s", text, err, &out)
		}
	}
	for _, text := range []string{"", "[]", "7", "null", `{"name":`, "<html>"} {
		var out bytes.Buffer
		if err := writeStatus(&out, []byte(text), 0); err == nil || out.Len() > 0 {
			t.Errorf("%q: no error, %s", text, &out)
		}
	}
}

// FuzzWriteStatus: nothing that somebody else wrote gets to the terminal as it is, or takes more room than there is.
func FuzzWriteStatus(f *testing.F) {
	f.Add([]byte(`{"name":"a\u0007b","state":"\u202e","generations":[{"generation":-1,"workers":[{"age":1e300,"says":"\u2028"}],"drain":{"holders":[{"peer":"\n"}]}}]}`), 20)
	f.Add([]byte(`{"verdicts":[{"message":"ä\r","took":-1}],"restart":{"requests":[{"who":"\t"}]},"slots":null,"stop":{"for":1e-9}}`), 0)
	f.Fuzz(func(t *testing.T, text []byte, width int) {
		var out bytes.Buffer
		if writeStatus(&out, text, width) != nil {
			return
		}
		for line := range strings.Lines(out.String()) {
			line = strings.TrimSuffix(line, "\n")
			if strings.ContainsFunc(line, unicode.IsControl) || !utf8.ValidString(line) || width > 3 && utf8.RuneCountInString(line) > width {
				t.Errorf("%q", line)
			}
		}
	})
}
