package main

// This file holds the manual, docs/hotwrap.1, to the code, in both directions: what hotwrap has and the page
// lacks is a failure, and so is what the page invents.

import (
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"syscall"
	"testing"

	"github.com/urfave/cli/v2"
)

const manual = "docs/hotwrap.1"

// manItem is one .It of a list: its line, and the text below it as a reader sees it.
type manItem struct{ head, text string }

var (
	manWord  = regexp.MustCompile(`^\.(?:Cm|Ar|Ev|Pa|Sx|Em|Ql|Nm|Li|Dv|Pq|Dq|Sq) ?`)
	manFlags = regexp.MustCompile(`(?:^|[ ,.])Fl (-?[A-Za-z][a-z-]*)`)
	manFlag  = regexp.MustCompile(`^\.Fl `)
)

// manSection is what the manual has below a heading, line by line.
func manSection(t *testing.T, heading string) []string {
	t.Helper()
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	_, rest, ok := strings.Cut(string(text), "\n.Sh "+heading+"\n")
	if !ok {
		t.Fatalf("%s has no section %s", manual, heading)
	}
	section, _, _ := strings.Cut(rest, "\n.Sh ")
	return strings.Split(section, "\n")
}

// manItems are the items of the lists of a section; a list that begins later than the first is the next one.
func manItems(t *testing.T, heading string) (lists [][]manItem) {
	t.Helper()
	for _, line := range manSection(t, heading) {
		last := len(lists) - 1
		switch head, item := strings.CutPrefix(line, ".It "); {
		case strings.HasPrefix(line, ".Bl "):
			lists = append(lists, nil)
		case item:
			lists[last] = append(lists[last], manItem{head: head})
		case last >= 0 && len(lists[last]) > 0:
			at := &lists[last][len(lists[last])-1]
			at.text = strings.TrimSpace(at.text + " " + manWord.ReplaceAllString(manFlag.ReplaceAllString(line, "-"), ""))
		}
	}
	return lists
}

// manNames are the words behind a macro in an item's line: "Dv TERM , INT , QUIT" has three.
func manNames(head, macro string) (names []string) {
	if _, rest, ok := strings.Cut(" "+head, " "+macro+" "); ok {
		for name := range strings.SplitSeq(rest, " , ") {
			names = append(names, strings.TrimSpace(name))
		}
	}
	return names
}

// manFlagsIn are the options that a text names, as they are typed.
func manFlagsIn(text string) (names []string) {
	for _, found := range manFlags.FindAllStringSubmatch(text, -1) {
		names = append(names, "-"+found[1])
	}
	return names
}

// sameSet compares two lists without their order.
func sameSet(t *testing.T, what string, got, want []string) {
	t.Helper()
	got, want = slices.Compact(slices.Sorted(slices.Values(got))), slices.Compact(slices.Sorted(slices.Values(want)))
	for _, name := range got {
		if !slices.Contains(want, name) {
			t.Errorf("%s: %s has %s, hotwrap has not", what, manual, name)
		}
	}
	for _, name := range want {
		if !slices.Contains(got, name) {
			t.Errorf("%s: %s lacks %s", what, manual, name)
		}
	}
}

// allNames are the names of flags, as they are typed.
func allNames(flags []cli.Flag) (names []string) {
	for _, f := range flags {
		for _, name := range f.Names() {
			names = append(names, dashed(name))
		}
	}
	return names
}

// neededProgram is where a program is that a test needs.
func neededProgram(t *testing.T, name string) string {
	t.Helper()
	path, err := exec.LookPath(name)
	switch {
	case err == nil:
	case os.Getenv("HOTWRAP_TEST_ALL") != "":
		t.Fatalf("missing: %s", name)
	default:
		t.Skipf("missing: %s", name)
	}
	return path
}

// TestManLint: the manual has no fault that mandoc knows.
func TestManLint(t *testing.T) {
	if out, err := exec.Command(neededProgram(t, "mandoc"), "-Tlint", "-Wwarning", manual).CombinedOutput(); err != nil || len(out) > 0 {
		t.Errorf("%v\n%s", err, out)
	}
}

// TestManOptions: the manual has every option, and names none that is not there.
func TestManOptions(t *testing.T) {
	var listed []string
	for _, list := range manItems(t, "OPTIONS") {
		for _, item := range list {
			listed = append(listed, manFlagsIn(item.head)...)
		}
	}
	own := append(allNames((&config{}).options()), "--help", "-h", "--version", "-V")
	sameSet(t, "OPTIONS", listed, own)

	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range verbs {
		own = append(own, allNames((&errand{verb: c}).options())...)
	}
	for line := range strings.Lines(string(text)) {
		for _, name := range manFlagsIn(line) {
			if !slices.Contains(own, name) {
				t.Errorf("%s names %s in %q, hotwrap has no such option", manual, name, line)
			}
		}
	}
}

// TestManDefaults: the manual has the defaults that hotwrap has, with and without a terminal.
func TestManDefaults(t *testing.T) {
	plain, terminal := defaultsOf(t, false), defaultsOf(t, true)
	stated := regexp.MustCompile(`Default: ([^.;,]+)(?:; at a terminal: ([^.]+))?`)
	for _, list := range manItems(t, "OPTIONS") {
		for _, item := range list {
			f := flagOf(slices.MaxFunc(manFlagsIn(item.head), func(a, b string) int { return len(a) - len(b) }))
			if f == nil {
				continue
			}
			want, known := plain[f.Names()[0]]
			found := stated.FindStringSubmatch(item.text)
			if _, toggle := want.(bool); !known || found == nil && toggle && want == terminal[f.Names()[0]] {
				continue // none, or off
			}
			if found == nil {
				t.Errorf("%s says no default of --%s, it is %v", manual, f.Names()[0], want)
				continue
			}
			texts := []string{strings.TrimSpace(found[1]), strings.TrimSpace(found[2])}
			if texts[1] == "" {
				texts[1] = texts[0]
			}
			for i, all := range []map[string]any{plain, terminal} {
				if got := docValue(t, texts[i], want, all); got != all[f.Names()[0]] {
					t.Errorf("%s: --%s is %q, hotwrap has %v", manual, f.Names()[0], texts[i], all[f.Names()[0]])
				}
			}
		}
	}
}

// TestManCommands: the manual has every command with its options, and their other names.
func TestManCommands(t *testing.T) {
	lists := manItems(t, "COMMANDS")
	var listed, all, options, optionsListed []string
	for _, item := range lists[0] {
		name := strings.Fields(item.head)[1]
		listed = append(listed, name)
		c := verbNamed(name)
		if c == nil {
			continue
		}
		got := manFlagsIn(strings.NewReplacer("Oo ", " ", "Op ", " ").Replace(item.head))
		for _, f := range (&errand{verb: c}).options() {
			if f.Names()[0] != "help" && !slices.ContainsFunc(f.Names(), func(n string) bool { return slices.Contains(got, dashed(n)) }) {
				t.Errorf("%s lacks --%s of %s", manual, f.Names()[0], name)
			}
		}
		for _, option := range got {
			if !slices.Contains(allNames((&errand{verb: c}).options()), option) {
				t.Errorf("%s has %s of %s, hotwrap has not", manual, option, name)
			}
		}
		for _, other := range c.names[1:] {
			if !slices.Contains(strings.Fields(item.text), other) {
				t.Errorf("%s lacks %s, another name of %s", manual, other, name)
			}
		}
	}
	for _, c := range verbs {
		all = append(all, c.name())
		options = append(options, allNames((&errand{verb: c}).options())...)
	}
	sameSet(t, "COMMANDS", listed, append(all, doctorName, "exec"))
	for _, item := range lists[1] {
		optionsListed = append(optionsListed, manFlagsIn(item.head)...)
	}
	sameSet(t, "options of commands", optionsListed, options)
}

// TestManSignals: the manual says what each signal does that hotwrap catches for its user.
func TestManSignals(t *testing.T) {
	words := map[signalEvent]string{
		signalRestart: "Restart", signalStop: "Stop", signalReopen: "Reopen", signalReexec: "Replace",
		signalMore: "more", signalFewer: "fewer",
	}
	var listed, all []string
	for _, item := range manItems(t, "SIGNALS")[0] {
		for _, name := range manNames(item.head, "Dv") {
			listed = append(listed, name)
			sig, err := parseSignal(name)
			if word := words[eventOf(sig)]; err != nil || word == "" || !strings.Contains(item.text, word) {
				t.Errorf("%s: %s does %q, hotwrap takes it for %q", manual, name, item.text, eventOf(sig))
			}
		}
	}
	for sig, ev := range signalEvents {
		if ev != signalChild && ev != signalDrop {
			all = append(all, strings.TrimPrefix(signalName(sig.(syscall.Signal)), "SIG"))
		}
	}
	sameSet(t, "SIGNALS", listed, all)
}

// TestManStatus: the manual has hotwrap's exit statuses, and those of commands.
func TestManStatus(t *testing.T) {
	want := [][]string{
		{
			"the program's own", "0", "1", fmt.Sprint(statusNotReady), fmt.Sprint(statusFailed),
			fmt.Sprintf("%d , %d", statusNoExec, statusNotFound), "128+N",
		},
		{
			fmt.Sprint(exitDone), fmt.Sprint(exitFailed), fmt.Sprint(exitUsage),
			fmt.Sprint(exitNobody), fmt.Sprint(exitUnknown), fmt.Sprint(exitOther),
		},
	}
	for i, list := range manItems(t, "EXIT STATUS") {
		var got []string
		for _, item := range list {
			got = append(got, item.head)
		}
		if !slices.Equal(got, want[i]) {
			t.Errorf("%s has the statuses %q, want %q", manual, got, want[i])
		}
	}
}

// TestManEnvironment: the manual has every variable that the code names, and none that it does not.
func TestManEnvironment(t *testing.T) {
	literal := regexp.MustCompile(`"((?:HOTWRAP|EINHORN|LISTEN|SERVER_STARTER|NOTIFY|WATCHDOG|XDG|RUNTIME|JOURNAL|SYSTEMD)_[A-Z_]*)(?:%d)?=?[^"A-Z]*"`)
	private := []string{
		"HOTWRAP_N", "SERVER_STARTER_N", "EINHORN_N", // how they all begin
		"HOTWRAP_RESUME", // from one hotwrap to the next
	}
	var named []string
	for _, found := range literal.FindAllStringSubmatch(sources(t), -1) {
		name := found[1]
		if strings.HasSuffix(name, "_") {
			name += "N" // EINHORN_FD_%d
		}
		if !slices.Contains(private, name) {
			named = append(named, name)
		}
	}
	var listed []string
	for _, line := range manSection(t, "ENVIRONMENT") {
		if rest, ok := strings.CutPrefix(strings.TrimPrefix(line, ".It "), "Ev "); ok {
			line = ".Ev " + rest
		}
		for _, name := range manNames(line, ".Ev") {
			listed = append(listed, strings.TrimSuffix(name, " ,"))
		}
	}
	// Read by the runtime and written for --user; EINHORN_SOCK_FD stands within another line.
	listed = slices.DeleteFunc(listed, func(name string) bool { return slices.Contains([]string{"TMPDIR", "HOME", "USER", "LOGNAME"}, name) })
	sameSet(t, "ENVIRONMENT", append(listed, "EINHORN_SOCK_FD"), named)
}

// sources is the whole of the program's code.
func sources(t *testing.T) string {
	t.Helper()
	files, _ := filepath.Glob("*.go")
	more, _ := filepath.Glob("shim/*.go")
	var all strings.Builder
	for _, file := range append(files, more...) {
		text, err := os.ReadFile(file)
		if err != nil {
			t.Fatal(err)
		}
		if !strings.HasSuffix(file, "_test.go") {
			all.Write(text)
		}
	}
	return all.String()
}

// TestManListen: the manual has every kind of address and every option of a listener, and says which are Linux only.
func TestManListen(t *testing.T) {
	lists := manItems(t, "LISTEN ADDRESSES")
	var networks, listed, all []string
	for _, item := range lists[0] {
		for _, found := range regexp.MustCompile(`Li ([a-z]+[46]?):(?:@?)`).FindAllStringSubmatch(item.head, -1) {
			networks = append(networks, found[1])
		}
	}
	sameSet(t, "kinds of addresses", networks, listenNetworks)
	linux := map[string]bool{}
	for _, o := range listenOptions {
		all = append(all, o.name)
		linux[o.name] = o.linux
	}
	for _, item := range lists[1] {
		for _, found := range regexp.MustCompile(`(?:^Cm |, Cm )?\b([a-z0-9]+)(?:=| |$)`).FindAllStringSubmatch(strings.Join(manOptionWords(item.head), " "), -1) {
			listed = append(listed, found[1])
			if said := strings.Contains(item.text, "(Linux)"); said != linux[found[1]] {
				t.Errorf("%s says of %s that it is for Linux only: %v", manual, found[1], said)
			}
		}
	}
	sameSet(t, "options of listeners", listed, all)
}

// manOptionWords are the words behind Cm in an item's line.
func manOptionWords(head string) (words []string) {
	for _, found := range regexp.MustCompile(`Cm ([a-z0-9]+)`).FindAllStringSubmatch(head, -1) {
		words = append(words, found[1])
	}
	return words
}

// TestManValues: the words that options take are those that the manual has.
func TestManValues(t *testing.T) {
	text, err := os.ReadFile(manual)
	if err != nil {
		t.Fatal(err)
	}
	for _, f := range completions() {
		if len(f.words) == 0 || f.name == "canary" || f.name == "stop-signal" { // some of many
			continue
		}
		head := regexp.MustCompile(`\n\.It (?:Fl \w , )?Fl -` + f.name + ` `).FindStringIndex(string(text))
		if head == nil {
			t.Fatalf("%s has no item for --%s", manual, f.name)
		}
		item, _, _ := strings.Cut(string(text)[head[1]:], "\n.It Fl")
		for _, word := range f.words {
			if f.name == "ready" { // has a section
				item = strings.Join(manSection(t, "READINESS"), "\n")
			}
			if !regexp.MustCompile(`\b` + strings.TrimRight(word, "=:/") + `\b`).MatchString(item) {
				t.Errorf("%s does not say %s of --%s", manual, word, f.name)
			}
		}
	}
}

// TestManDiagnostics: the messages that the manual explains are hotwrap's.
func TestManDiagnostics(t *testing.T) {
	code := sources(t)
	plain := regexp.MustCompile(`[a-zA-Z]+(?: [a-zA-Z]+)+`)
	for _, item := range manItems(t, "DIAGNOSTICS")[0] {
		for _, words := range plain.FindAllString(strings.ReplaceAll(item.head, `\(dq`, `"`), -1) {
			if !inSources(code, strings.Fields(words)) {
				t.Errorf("%s explains %q, but no message has %q", manual, item.head, words)
			}
		}
	}
}

// inSources tells whether a message may have these words in a row, each two of them at least.
func inSources(code string, words []string) bool {
	for i := range len(words) - 1 {
		pair := words[i] + " " + words[i+1]
		if !strings.Contains(code, pair) && !strings.Contains(code, words[i]+` "`) && !strings.Contains(code, words[i]+" %") &&
			!strings.Contains(code, "%s "+words[i+1]) && !strings.Contains(code, `" `+words[i+1]) {
			return false
		}
	}
	return true
}

// TestManExamples: what the manual and README.md would have a user type is understood.
func TestManExamples(t *testing.T) {
	var commands []string
	for _, line := range manSection(t, "EXAMPLES") {
		if text, ok := strings.CutPrefix(line, ".Dl $ "); ok {
			commands = append(commands, text)
		}
	}
	if len(commands) < 8 {
		t.Fatalf("%d examples", len(commands))
	}
	for _, text := range commands {
		_, text, _ = strings.Cut(text, "hotwrap ")
		split, err := exec.Command("sh", "-c", `set -f; printf '%s\n' `+text).Output()
		if err != nil {
			t.Errorf("%q: %v", text, err)
			continue
		}
		args := strings.Split(strings.TrimRight(string(split), "\n"), "\n")
		if c := verbNamed(args[0]); c != nil {
			_, err = c.parse(args[1:])
		} else if args[0] == doctorName {
			_, _, err = parseDoctor(args[1:], nil)
		} else {
			_, err = parseArgs(args, nil)
		}
		if err != nil {
			t.Errorf("hotwrap %s: %v", text, err)
		}
	}
}
