package main

import (
	"encoding/json"
	"strings"
	"testing"
	"time"
)

const second = instant(time.Second)

var statusNow = 1000 * second

// someState is a hotwrap in the middle of everything: 3 drains, 4 serves, 5 is ready, two requests wait.
func someState() *state {
	img := func(build string) *image {
		return &image{
			Argv: []string{"./web"}, Path: "/srv/" + build + "/web", Build: build, Pinned: "file", Exe: 9, Dir: 10,
			env: []string{"TOKEN=secret"}, set: []string{"KEY=secret"},
		}
	}
	alice := request{ID: "r5", Ask: askRestart, Cause: "hotwrap restart", Who: "alice (uid 1000)", UID: 1000, Message: "fix login", Asked: 990 * second}
	return &state{
		Numbers: 5, Serials: 9, Wanted: 2,
		Past: []past{{2, img("b2")}},
		Generations: []*generation{
			{
				Number: 3, State: genDraining, Cause: "SIGHUP", Image: img("b3"), Started: 100 * second, Served: true, Drain: 988 * second,
				Deadline: 1018 * second, Slots: make([]slot, 1), Workers: []*worker{{PID: 4311, State: workerStopping, Started: 100 * second}},
			},
			{
				Number: 4, State: genServing, Cause: "watch", Image: img("b4"), Started: 900 * second, Served: true, Serves: 901 * second,
				ReadyAfter: 212 * time.Millisecond, Crashes: 1, Steered: true, Slots: []slot{{}, {Failures: 2, Start: 1003 * second}},
				Workers: []*worker{{PID: 4398, State: workerReady, Started: 950 * second, Says: "busy \x1b[31m", Watched: []string{"8080"}}},
			},
			{
				Number: 5, State: genReady, Cause: alice.by(), Image: img("b5"), Started: 990 * second, Deadline: 1001 * second, Stage: stageBake,
				Slots: make([]slot, 1), Workers: []*worker{{PID: 4400, Slot: 0, State: workerReady, Started: 991 * second}},
			},
		},
		Restart: &restart{Successor: 5, Predecessor: 4, Began: 990 * second, Requests: []request{alice}},
		Pending: []request{{ID: "7", Ask: askRestart, Cause: "SIGHUP", Asked: 998 * second}},
		Verdicts: []verdict{
			{Request: request{ID: "1", Ask: askRestart, Cause: "start"}, Result: promoted, Generation: 1, At: 10 * second, Began: 9 * second},
			{
				Request: request{ID: "x", Ask: askRollback, Cause: "hotwrap rollback", Who: "root (uid 0)", Asked: 896 * second},
				Result:  failed, Generation: 4, Build: "b9", Serving: 3, Stage: stageReady, Reason: "exited 1 after 40ms, before ready",
				Status: "1", PID: 77, Exit: 1, At: 899 * second, Began: 897 * second,
			},
		},
		Tally: tally{
			Verdicts: map[result]int{promoted: 3, failed: 1}, Crashes: 2, Buckets: []int{0, 0, 1, 1, 2, 2, 2, 2, 2, 3, 3, 3},
			Took: 3500 * time.Millisecond, Completed: 3,
		},
	}
}

func someFacts() facts {
	return facts{
		name: "web", version: "0.4.0", pid: 4300, uid: 1000, argv: []string{"./web", "-v"}, dir: "/srv", since: streamStart,
		listeners: []listener{{name: "8080", network: "tcp", addr: "127.0.0.1:8080"}, {name: "b", network: "unix", addr: "/run/b.sock"}},
		numbers:   []int{3, 4}, lost: map[string]int{"log": 2, "events": 0},
	}
}

// someStatus is that as a client gets it: through the state's written form, and with a look at the kernel that is made up.
func someStatus(t *testing.T) statusView {
	t.Helper()
	text, err := (&supervisor{state: *someState()}).snapshot()
	if err != nil {
		t.Fatal(err)
	}
	var s supervisor
	if err := s.restore(text); err != nil {
		t.Fatal(err)
	}
	v := makeStatus(&s.state, statusNow, streamStart.Add(time.Hour), someFacts())
	zero, two, limit := 0, 2, 4096
	v.Generations[0].Connections, v.Generations[1].Connections = &two, &zero
	v.Generations[0].Drain.Holders = []holderView{{"10.0.3.7:51234", 124}, {"10.0.3.8:1", 0.5}}
	v.Generations[1].Workers[0].Memory = 85 << 20
	v.Listeners[0].Queue, v.Listeners[0].Limit = &zero, &limit
	return v
}

// TestStatus: /status says all that the state holds, in seconds and UTC, and no value of the environment.
func TestStatus(t *testing.T) {
	text, err := json.MarshalIndent(someStatus(t), "", "")
	if err != nil {
		t.Fatal(err)
	}
	got := strings.ReplaceAll(string(text), "\n", " ")
	for _, want := range []string{
		`"name": "web", "pid": 4300, "version": "0.4.0", "uid": 1000, "program": [ "./web", "-v" ], "dir": "/srv", "since": "2026-11-23T11:24:10.123Z"`,
		`"generation": 4, "state": "serving", "time": "2026-11-23T12:24:10.123Z"`,
		`"generation": 3, "state": "draining", "age": 900, "build": "b3", "path": "/srv/b3/web", "pinned": "file", "cause": "SIGHUP", "workers": [ { "pid": 4311, "slot": 0, "state": "stopping", "age": 900 } ]`,
		`"drain": { "for": 12, "left": 18, "holders": [ { "peer": "10.0.3.7:51234", "idle": 124 }`,
		`"ready": 0.212, "serves": 99,`,
		`"says": "busy \u001b[31m", "watches": [ "8080" ]`,
		`"slots": [ { "slot": 1, "failures": 2, "next": 3 } ], "crashes": 1`,
		`{ "name": "8080", "network": "tcp", "address": "127.0.0.1:8080", "fd": 3, "queue": 0, "queue_limit": 4096 }, { "name": "b", "network": "unix", "address": "/run/b.sock", "fd": 4 }`,
		`"restart": { "generation": 5, "predecessor": 4, "stage": "bake", "for": 10, "left": 1, "requests": [ { "id": "r5", "ask": "restart", "by": "hotwrap restart", "who": "alice (uid 1000)", "message": "fix login", "waits": 10 } ] }`,
		`"pending": [ { "id": "7", "ask": "restart", "by": "SIGHUP", "waits": 2 } ]`,
		`"rollback": { "generation": 3, "build": "b3", "path": "/srv/b3/web" }, "wanted": 2, "crashes": 2`,
		`"verdicts": [ { "id": "x", "ask": "rollback", "by": "hotwrap rollback", "who": "root (uid 0)", "uid": 0, "result": "failed", "generation": 4, "build": "b9", "serving": 3, "stage": "ready", "reason": "exited 1 after 40ms, before ready", "status": "1", "pid": 77, "exit": 1, "at": "2026-11-23T12:22:29.123Z", "took": 2, "waited": 1 }, { "id": "1", "ask": "restart", "by": "start", "result": "promoted", "generation": 1, "serving": 0, "exit": 0, "at": "2026-11-23T12:07:40.123Z", "took": 1, "waited": 0 } ]`,
	} {
		if !strings.Contains(got, want) {
			t.Errorf("no\n %s in\n %s", want, got)
		}
	}
	if strings.Contains(got, "secret") {
		t.Error("a value of the environment")
	}
}

// TestStatusEmpty: before the first start there is nothing, and lists are lists all the same.
func TestStatusEmpty(t *testing.T) {
	text, err := json.Marshal(makeStatus(&state{}, statusNow, streamStart, facts{}))
	if err != nil {
		t.Fatal(err)
	}
	for _, want := range []string{`"generations":[]`, `"listeners":[]`, `"verdicts":[]`, `"generation":0`, `"state":"starting"`} {
		if !strings.Contains(string(text), want) {
			t.Errorf("no %s in %s", want, text)
		}
	}
}

// TestInstanceState: serving is a ready worker of the serving generation, whatever else goes on.
func TestInstanceState(t *testing.T) {
	one := func(state genState, w workerState) *generation {
		return &generation{Number: 1, State: state, Slots: make([]slot, 1), Workers: []*worker{{State: w}}}
	}
	waits := &generation{Number: 1, State: genServing, Slots: []slot{{Failures: 3, Start: second}}}
	for name, c := range map[string]struct {
		st   state
		want instanceState
	}{
		"before the start":                      {state{}, instanceStarting},
		"the first build":                       {state{Numbers: 0, Rebuild: rebuilding{PID: 7}}, instanceStarting},
		"the first start":                       {state{Numbers: 1, Restart: &restart{Successor: 1}, Generations: []*generation{one(genStarting, workerReady)}}, instanceStarting},
		"serving":                               {state{Numbers: 1, Generations: []*generation{one(genServing, workerReady)}}, instanceServing},
		"a restart beside it":                   {state{Numbers: 2, Restart: &restart{Successor: 2}, Generations: []*generation{one(genServing, workerReady)}}, instanceServing},
		"no overlap":                            {state{Numbers: 2, Restart: &restart{Successor: 2}, Generations: []*generation{one(genDraining, workerStopping)}}, instanceStarting},
		"started again":                         {state{Numbers: 1, Generations: []*generation{one(genServing, workerStarting)}}, instanceStarting},
		"before it is started again":            {state{Numbers: 1, Generations: []*generation{waits}}, instanceStarting},
		"its group lingers":                     {state{Numbers: 1, Generations: []*generation{one(genServing, workerStopping)}}, instanceFailed},
		"a first start that failed, at a tty":   {state{Numbers: 1}, instanceFailed},
		"stopping, while it serves for a while": {state{Numbers: 1, Ending: true, Generations: []*generation{one(genServing, workerReady)}}, instanceStopping},
	} {
		if got := stateOf(&c.st); got != c.want {
			t.Errorf("%s: %s, want %s", name, got, c.want)
		}
		if v := makeStatus(&c.st, statusNow, streamStart, facts{}); v.serves() != (c.want == instanceServing) {
			t.Errorf("%s: serves %v", name, v.serves())
		}
	}
}

// TestStatusStop: a stop says who asked, and for how long it serves on.
func TestStatusStop(t *testing.T) {
	r := request{Ask: askKill, Cause: "hotwrap stop", Who: "root (uid 0)", Asked: 998 * second}
	st := &state{Numbers: 1, Ending: true, Stop: &stopping{Cause: r.Cause, Since: 998 * second, Delay: 1003 * second, Requests: []request{r}}}
	v := makeStatus(st, statusNow, streamStart, facts{})
	if s := v.Stop; s.For != 2 || s.Delay != 3 || !strings.Contains(s.By, "root") || v.Rollback != nil {
		t.Errorf("%+v, rollback %v", s, v.Rollback)
	}
	view := viewVerdict(verdict{Request: r, Result: stopped, At: statusNow}, statusNow, streamStart)
	if view.Ask != askStop || view.Waited != 2 || view.Took != 0 || view.At != wallTime(streamStart) {
		t.Errorf("%+v", view)
	}
}
