package main

import (
	"errors"
	"fmt"
	"os"
	"reflect"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"
	"time"
)

func TestCommandLines(t *testing.T) {
	for _, c := range []struct {
		line string
		want errand
	}{
		{"restart", errand{}},
		{"reload web", errand{target: "web"}},
		{"upgrade 4311", errand{target: "4311"}},
		{"restart web -m why", errand{target: "web", message: "why"}},
		{"restart -mwhy web", errand{target: "web", message: "why"}},
		{"restart --message=a=b", errand{message: "a=b"}},
		{"restart -m -x --json", errand{message: "-x", json: true}},
		{"restart -message why -wait none", errand{message: "why", wait: waitNone}},
		{"restart --wait drained --timeout 5 web", errand{target: "web", wait: waitDrained, timeout: duration{5 * time.Second, true}}},
		{"restart --timeout=1m30s", errand{timeout: duration{90 * time.Second, true}}},
		{"rollback web --json=true", errand{target: "web", json: true}},
		{"status -q", errand{quiet: true}},
		{"status app@1.service.d --json", errand{target: "app@1.service.d", json: true}},
		{"stop --now web -m enough", errand{target: "web", now: true, message: "enough"}},
		{"signal HUP", errand{sig: syscall.SIGHUP}},
		{"signal sigwinch web --json", errand{sig: syscall.SIGWINCH, target: "web", json: true}},
		{"signal 10 4311", errand{sig: syscall.Signal(10), target: "4311"}},
		{"restart --help --wait none", errand{help: true, wait: waitNone}},
		{"status -h nonsense/", errand{help: true}},
	} {
		args := strings.Fields(c.line)
		v := verbNamed(args[0])
		got, err := v.parse(args[1:])
		if err != nil {
			t.Errorf("%s: %v", c.line, err)
			continue
		}
		c.want.verb = v
		if c.want.wait == "" {
			c.want.wait = waitPromoted
		}
		if *got != c.want {
			t.Errorf("%s: %+v, want %+v", c.line, *got, c.want)
		}
	}
	if o, err := verbNamed("restart").parse([]string{"-m", ""}); err != nil || o.message != "" {
		t.Errorf("an empty message: %v", err)
	}
}

func TestCommandErrors(t *testing.T) {
	for _, c := range []struct{ line, text, hint string }{
		{"restart -q", "no such option -q", "hotwrap restart --help"},
		{"status --now", "no such option --now", "hotwrap status --help"},
		{"restart --no-block", "no such option --no-block", "--wait none"},
		{"stop --force", "no such option --force", "hotwrap stop --now"},
		{"stop -9 web", "no such option -9", "hotwrap stop --now"},
		{"restart --pid=12", "no such option --pid", "PID"},
		{"signal -HUP web", "no such option -HUP", "hotwrap signal HUP"},
		{"signal -9", "no such option -9", "hotwrap signal 9"},
		{"signal -s HUP", "no such option -s", "hotwrap signal SIG"},
		{"signal", "no signal given", "hotwrap signal HUP [NAME]"},
		{"signal web", `"web" is no signal`, "hotwrap signal HUP [NAME]"},
		{"signal web HUP", `"web" is no signal`, "hotwrap signal HUP web"},
		{"restart a b", "one NAME or PID, not 2", ""},
		{"restart a/b", `"a/b" is no NAME`, "HOTWRAP_CONTROL=a/b"},
		{"restart ä", `"ä" is no NAME`, ""},
		{"restart 0", `"0" is no PID`, ""},
		{"restart 99999999999", "is no PID", ""},
		{"restart --wait", "--wait: it needs a value", ""},
		{"restart --wait soon", `--wait "soon": it is promoted, drained or none`, ""},
		{"restart -m", "--message: it needs a value", ""},
		{"restart --timeout soon", `--timeout "soon": it is not a time`, ""},
		{"restart --timeout -1s", `--timeout "-1s": it is not a time`, ""},
		{"restart --timeout 0", "nothing is done in no time", "--wait none"},
		{"restart --json=maybe", `--json "maybe": it is true or false`, ""},
		{"status -q --json", "it is one or the other", ""},
		{"restart -- ./app", "takes no program", ""},
		{"restart web --", "takes no program", ""},
	} {
		args := strings.Fields(c.line)
		_, err := verbNamed(args[0]).parse(args[1:])
		var u *usageError
		if !errors.As(err, &u) || !strings.Contains(u.text, c.text) || !strings.Contains(u.hint, c.hint) {
			t.Errorf("%s: %v, hint %q; want %q, hint %q", c.line, err, remedyFor(err), c.text, c.hint)
		}
		var out, errs strings.Builder
		if status := run(args, &out, &errs); status != exitUsage || out.Len() > 0 || !strings.HasPrefix(errs.String(), "hotwrap: error: ") {
			t.Errorf("%s: status %d, said %q and %q", c.line, status, &out, &errs)
		}
	}
	if _, err := verbNamed("restart").parse([]string{""}); err == nil {
		t.Error("an empty NAME is taken for none")
	}
}

// TestVerbHelp: each command's help has its options and no others, and says them before anything is asked.
func TestVerbHelp(t *testing.T) {
	for _, v := range verbs {
		var out, errs strings.Builder
		if status := run([]string{v.names[0], "nosuch", "--help"}, &out, &errs); status != 0 || errs.Len() > 0 {
			t.Errorf("%s --help: status %d, said %q", v.names[0], status, &errs)
		}
		if !strings.Contains(out.String(), "Usage: hotwrap "+v.names[0]+" ") || !strings.Contains(out.String(), "\nExit status: 0 ") {
			t.Errorf("%s --help is %q", v.names[0], &out)
		}
		_, list, _ := strings.Cut(out.String(), "\n\nUsage:")
		named := optionsIn(strings.ReplaceAll(list, "\n", " "))
		for _, f := range (&errand{verb: v}).options() {
			for _, name := range f.Names() {
				if f.Names()[0] != "help" && !slices.Contains(named, dashed(name)) {
					t.Errorf("%s --help has no %s", v.names[0], dashed(name))
				}
			}
		}
		for _, name := range named {
			if flagIn((&errand{verb: v}).options(), strings.TrimLeft(name, "-")) == nil {
				t.Errorf("%s --help has %s, the command has not", v.names[0], name)
			}
		}
		for line := range strings.Lines(out.String()) {
			if len(line) > 101 {
				t.Errorf("%s --help: %d columns: %s", v.names[0], len(line), line)
			}
		}
	}
}

// TestCommandsDocumented: the help and README.md have every command with its options.
func TestCommandsDocumented(t *testing.T) {
	rows := docTable(t, "Commands")
	for _, v := range verbs {
		i := slices.IndexFunc(rows, func(row []string) bool {
			return regexp.MustCompile("\x60hotwrap " + v.names[0] + `\b`).MatchString(row[0])
		})
		if i < 0 {
			t.Errorf("README.md has no hotwrap %s", v.names[0])
			continue
		}
		named := optionsIn(strings.Join(rows[i], " "))
		for _, option := range v.options {
			if !slices.Contains(named, "--"+option) && !slices.Contains(named, "-"+option[:1]) {
				t.Errorf("README.md: hotwrap %s has --%s", v.names[0], option)
			}
		}
		for _, name := range named {
			if flagIn((&errand{verb: v}).options(), strings.TrimLeft(name, "-")) == nil {
				t.Errorf("README.md: hotwrap %s has no %s", v.names[0], name)
			}
		}
		if !strings.Contains(helpText, "\n  "+v.names[0]+" ") {
			t.Errorf("the help has no %s", v.names[0])
		}
	}
}

// TestControlDocumented: docs/control.md has every field of a verdict, every request and every exit status.
func TestControlDocumented(t *testing.T) {
	text, err := os.ReadFile("docs/control.md")
	if err != nil {
		t.Fatal(err)
	}
	doc := string(text)
	for _, f := range reflect.VisibleFields(reflect.TypeFor[verdictView]()) {
		name, _, _ := strings.Cut(f.Tag.Get("json"), ",")
		if !strings.Contains(doc, `"`+name+`"`) && !strings.Contains(doc, "`"+name+"`") {
			t.Errorf("docs/control.md has no %q of a verdict", name)
		}
	}
	server, err := os.ReadFile("control.go")
	if err != nil {
		t.Fatal(err)
	}
	for _, route := range regexp.MustCompile(`(?:look\(|POST )"?(/[a-z]+)`).FindAllStringSubmatch(string(server), -1) {
		if !strings.Contains(doc, "http://hotwrap"+route[1]) || !strings.Contains(doc, route[1]+"`") && !strings.Contains(doc, route[1]+"/ID`") {
			t.Errorf("docs/control.md has no %s", route[1])
		}
	}
	for status := range exitOther + 1 {
		if !strings.Contains(doc, fmt.Sprintf("\n| %d | ", status)) {
			t.Errorf("docs/control.md has no exit status %d", status)
		}
	}
}
