package main

import (
	"encoding/json"
	"strings"
	"testing"
)

// TestGraft reads what a newer hotwrap wrote, changes it, and hands on what it did not know.
func TestGraft(t *testing.T) {
	before := `{"version":1,"hotwrap":"9.0","kept":[3],"invented":{"deep":[1,18446744073709551615]},"state":{"numbers":2,"new":true,
		"generations":[{"generation":1,"state":"draining","mood":"old","slots":null,"status":{}},
			{"generation":2,"state":"serving","mood":"good","slots":[{}],"status":{},"workers":[{"serial":7,"pid":70,"soul":"blue"},{"serial":8,"pid":80}]}],
		"rebuild":{},"hooks":{},"tally":{},"verdicts":[{"request":{"id":"4","ask":"restart","cause":"HUP","uid":0},"result":"promoted","at":"1s","mark":5}]},"traffic":{},"ears":{"7":{"tail":"x"}}}`
	w, err := decode([]byte(before))
	if err != nil {
		t.Fatal(err)
	}
	w.State.Generations = w.State.Generations[1:] // the first is gone
	w.State.Generations[0].Workers[0].PID = 71
	text, err := w.encode([]byte(before))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"invented":{"deep":[1,18446744073709551615]}`, `"new":true`, `"mood":"good"`, `"soul":"blue"`, `"pid":71`, `"mark":5`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("%s is missing", want)
		}
	}
	if strings.Contains(string(text), `"mood":"old"`) {
		t.Error("what is gone came back")
	}
	if again, err := decode(text); err != nil || again.State.Generations[0].Workers[0].PID != 71 {
		t.Errorf("read back with %v", err)
	}
	if t.Failed() {
		t.Logf("%s", text)
	}
}

// TestDecode refuses what it would understand wrongly, and takes what lacks fields.
func TestDecode(t *testing.T) {
	for text, want := range map[string]string{
		`{"version":1,"hotwrap":"0.1"}`: "",
		`{"version":2,"hotwrap":"9.9"}`: "hotwrap 9.9 wrote version 2",
		`{"hotwrap":"0.1"}`:             "wrote version 0",
		`{"version":"1"}`:               "cannot read the state",
		`{"version":1,`:                 "cannot read the state",
		``:                              "cannot read the state",
	} {
		_, err := decode([]byte(text))
		if want == "" && err != nil || want != "" && (err == nil || !strings.Contains(err.Error(), want)) {
			t.Errorf("%s: %v", text, err)
		}
	}
}

// TestWrittenTwice is that nothing is lost on the way there and back.
func TestWrittenTwice(t *testing.T) {
	f := started(t, defaultLimits())
	f.ask(askRestart, "SIGHUP")
	f.serve()
	w := &written{Version: writtenVersion, State: f.s.state}
	for range f.s.images() {
		w.Images = append(w.Images, carriedImage{Real: "/app", Env: []string{"A=1"}})
	}
	text, err := w.encode(nil)
	if err != nil {
		t.Fatal(err)
	}
	read, err := decode(text)
	if err != nil {
		t.Fatal(err)
	}
	for _, img := range read.State.images() {
		if img.real != "/app" || len(img.env) != 1 {
			t.Errorf("an image came back as %+v", img)
		}
	}
	again, _ := json.Marshal(read)
	if string(again) != string(text) {
		t.Errorf("written %s\nread    %s", text, again)
	}
}
