package main

// This file tries the command line of doctor and how its findings look.

import (
	"fmt"
	"strings"
	"testing"
)

func plainText(v any) string { return fmt.Sprintf("%+v", v) }

func TestParseDoctor(t *testing.T) {
	for _, c := range []struct {
		args    string
		program int
		json    bool
		err     string
	}{
		{"", 0, false, ""},
		{"--json", 0, true, ""},
		{"-u root", 0, false, ""},
		{"--json -l :0 -- ./app --json", 2, true, ""},
		{"-- ./app", 1, false, ""},
		{"./app", 0, false, `hotwrap doctor: "./app" is no option`},
		{"-l :0 x -- ./app", 0, false, `"x" is no option`},
		{"--nonsense", 0, false, "no such option --nonsense"},
		{"--port 80", 0, false, "no such option --port"},
		{"-l :0 --", 0, false, "no program given"},
	} {
		cfg, json, err := parseDoctor(strings.Fields(c.args), nil)
		switch {
		case c.err != "":
			if err == nil || err.Error() != c.err {
				t.Errorf("%q: error %v, want %s", c.args, err, c.err)
			}
		case err != nil:
			t.Errorf("%q: %v", c.args, err)
		case len(cfg.program) != c.program || json != c.json:
			t.Errorf("%q: %q, json %v", c.args, cfg.program, json)
		}
	}
}

func TestFindings(t *testing.T) {
	found := []finding{
		{Result: fitOK, What: "start", Text: "0.5µs…"},
		{Result: fitLimited, What: "backlog", Text: "128 clients", Remedy: "sysctl net.core.somaxconn=4096"},
		{Result: fitNo, What: "control", Text: "a\nb"},
	}
	var out strings.Builder
	writeFindings(&out, found, false)
	want := "ok       start    0.5us...\n" +
		"limited  backlog  128 clients; sysctl net.core.somaxconn=4096\n" +
		"no       control  a?b\n"
	if out.String() != want {
		t.Errorf("got\n%swant\n%s", out.String(), want)
	}
}
