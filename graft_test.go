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

// TestGraftList is that what only a newer hotwrap knows of an element comes to nobody else.
func TestGraftList(t *testing.T) {
	type known struct {
		Key   int    `json:"key,omitempty"`
		Value string `json:"value,omitempty"`
	}
	type nested struct {
		Key known `json:"key"`
	}
	for _, c := range []struct {
		is, was, want string
		v             any
	}{
		{`[{"key":1},{"key":2}]`, `[{"key":2,"new":"b"},{"key":1,"new":"a"}]`, `[{"key":1,"new":"a"},{"key":2,"new":"b"}]`, []known{}},
		{`[{"value":"x"},{}]`, `[{"value":"y","new":"a"},{"new":"b"}]`, `[{"value":"x"},{}]`, []known{}},                                                             // without the key
		{`[{"key":null}]`, `[{"key":null,"new":"a"}]`, `[{"key":null}]`, []known{}},                                                                                  // which is nobody's
		{`[{"key":1},{"key":1}]`, `[{"key":1,"value":"gone","new":"a"}]`, `[{"key":1},{"key":1}]`, []known{}},                                                        // indistinguishable
		{`[{"key":1,"value":"x"},{"key":1,"value":"y"}]`, `[{"key":1,"value":"x","new":"a"}]`, `[{"key":1,"new":"a","value":"x"},{"key":1,"value":"y"}]`, []known{}}, // one came
		{`[{"key":1,"value":"y"}]`, `[{"key":1,"value":"x","new":"a"},{"key":1,"value":"y","new":"b"}]`, `[{"key":1,"new":"b","value":"y"}]`, []known{}},             // one went
		{`[{"key":1,"value":"z"}]`, `[{"key":1,"value":"x","new":"a"}]`, `[{"key":1,"new":"a","value":"z"}]`, []known{}},                                             // it changed
		{`[{"key":{"key":1}}]`, `[{"key":{"key":1,"deep":2},"new":"a"}]`, `[{"key":{"deep":2,"key":1},"new":"a"}]`, []nested{}},
		{`[{"key":1}]`, `[{"key":1,"VALUE":"x"}]`, `[{"key":1}]`, []known{}}, // which a reader would take for its own
		{`[1,"a",null]`, `[{"key":1},2]`, `[1,"a",null]`, []known{}},
		{`[1,2]`, `[2,1]`, `[1,2]`, []int{}},
	} {
		got, err := graft([]byte(c.is), []byte(c.was), c.v)
		if err != nil || string(got) != c.want {
			t.Errorf("%s after %s: %s, %v, want %s", c.is, c.was, got, err, c.want)
		}
	}
}

// FuzzGraft: whatever came along, what this hotwrap knows is as it has it, and handing on twice is handing on once.
func FuzzGraft(f *testing.F) {
	const is = `{"version":1,"state":{"generations":[{"generation":1,"slots":[{},{}]},{"generation":2,"workers":[{"serial":3}]}],"verdicts":[{"request":{"id":"1"}}]},"images":[{},{"real":"/a"}]}`
	for _, was := range []string{
		`{}`, `{"new":{}}`, `{"VERSION":2,"State":7}`, `{"state":{"generations":[{"generation":2,"new":1,"workers":[{"serial":3,"new":2},null,{}]}]}}`,
		`{"images":[{"new":1},{"real":"/a","new":2},{"real":"/a"}],"state":{"verdicts":[{"request":{"id":"1","new":3},"new":4}]}}`, `[]`, `{"images":{},"state":[]}`,
	} {
		f.Add([]byte(is), []byte(was))
	}
	f.Fuzz(func(t *testing.T, is, was []byte) {
		own, err := decode(is)
		if err != nil {
			return
		}
		text, err := own.encode(nil)
		if err != nil {
			return
		}
		once, err := own.encode(was)
		if err != nil || len(was) == 0 {
			return
		}
		read, err := decode(once)
		if err != nil {
			t.Fatalf("%v: %s", err, once)
		}
		if again, err := read.encode(nil); err != nil || string(again) != string(text) {
			t.Errorf("after %s came %s, %v, not %s", was, again, err, text)
		}
		if twice, err := read.encode(once); err != nil || string(twice) != string(once) {
			t.Errorf("once %s, twice %s, %v", once, twice, err)
		}
	})
}
