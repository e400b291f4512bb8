package main

// This file makes completions/ for bash, zsh and fish from the options as they are, and tries them in these shells.
//
// Its rules: the files are what it makes (-update writes them); what hotwrap has and the table below lacks is a
// failure, and so is what it invents.

import (
	"cmp"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strings"
	"testing"

	"github.com/urfave/cli/v2"
)

// completion is how the value of one option is completed, and what the option does in a few words.
type completion struct {
	name  string
	kind  valueKind
	words []string // that it may be, or begin with
	text  string
}

// valueKind is what an option's value is.
type valueKind string

const (
	valueNone    valueKind = "" // it has none
	valueText    valueKind = "text"
	valueFile    valueKind = "file"
	valueDir     valueKind = "dir"
	valueUser    valueKind = "user"
	valueGroup   valueKind = "group"
	valueCommand valueKind = "command"
	valueWords   valueKind = "words"
	valueMaybe   valueKind = "maybe a file, behind ="
)

var stopWords = []string{"TERM", "INT", "QUIT", "HUP", "USR1", "USR2", "WINCH", "KILL"}

// completions are those of all options, hotwrap's and its commands'.
func completions() []completion {
	var events []string
	for _, ev := range hookEvents {
		events = append(events, string(ev)+"=")
	}
	return []completion{
		{"listen", valueText, nil, "a socket to open"},
		{"adopt", valueWords, []string{"auto", "always", "never"}, "for a program that binds by itself"},
		{"no-overlap", valueNone, nil, "stop the old one, then start the new one"},
		{"env", valueText, nil, "set a variable"},
		{"env-file", valueFile, nil, "variables, read at each restart"},
		{"user", valueUser, nil, "run the program as this user"},
		{"dir", valueDir, nil, "run the program there"},
		{"workers", valueWords, []string{"auto"}, "how many processes"},
		{"surge", valueText, nil, "how many more at once in a restart"},
		{"check", valueCommand, nil, "must succeed before a start"},
		{"ready", valueWords, []string{"auto", "notify", "alive=", "fd=", "http://", "https://"}, "when the program is ready"},
		{"ready-timeout", valueText, nil, "how long it may take to be ready"},
		{"bake", valueText, nil, "how long it must live then"},
		{"stop-signal", valueWords, stopWords, "what tells it to finish"},
		{"drain-timeout", valueText, nil, "how long it may take to finish"},
		{"respawn", valueWords, []string{"always", "on-failure", "never"}, "whether a crashed one is started again"},
		{"stop-delay", valueText, nil, "serve on for so long after TERM"},
		{"stop-timeout", valueText, nil, "how long everything may take to end"},
		{"watch", valueMaybe, nil, "restart when the program or a file changes"},
		{"build", valueCommand, nil, "run when a source changes"},
		{"src", valueDir, nil, "where the sources are"},
		{"ignore", valueText, nil, "what is not watched"},
		{"clear", valueNone, nil, "clear the screen at a change"},
		{"debounce", valueText, nil, "how quiet a file must be"},
		{"stdin", valueNone, nil, "the terminal is the program's"},
		{"die-with-parent", valueNone, nil, "the program dies with hotwrap"},
		{"log-file", valueFile, nil, "where the program's output goes"},
		{"capture", valueNone, nil, "pass the program's output on in whole lines"},
		{"log-stamp", valueNone, nil, "time and generation before each line"},
		{"name", valueText, nil, "what the commands call it"},
		{"control-group", valueGroup, nil, "who may restart, roll back, look"},
		{"http", valueText, nil, "serve metrics, events, status"},
		{"hook", valueWords, events, "run a command at an event"},
		{"pid-file", valueFile, nil, "hotwrap's process id"},
		{"log-format", valueWords, []string{"text", "json"}, "how messages are written"},
		{"quiet", valueNone, nil, "say less"},
		{"verbose", valueNone, nil, "decisions too"},
		{"help", valueNone, nil, "print the help"},
		{"version", valueNone, nil, "print the version"},
		{"message", valueText, nil, "why"},
		{"wait", valueWords, []string{string(waitPromoted), string(waitDrained), string(waitNone)}, "for what to wait"},
		{"timeout", valueText, nil, "give up waiting"},
		{"canary", valueWords, []string{"1%:1m,10%:5m"}, "a share of the connections first"},
		{"canary-check", valueCommand, nil, "run in each step"},
		{"json", valueNone, nil, "JSON on standard output"},
		{"now", valueNone, nil, "kill instead of waiting"},
		{"all", valueNone, nil, "every hotwrap here"},
	}
}

// commandTexts say what the commands do.
var commandTexts = map[string]string{
	"restart": "start a successor and wait for the verdict", "rollback": "go back to the build that served before",
	"status": "builds, listeners, what a drain waits for", "stop": "drain and exit", "signal": "send the workers a signal",
	"reexec": "replace hotwrap itself", doctorName: "what this machine permits", "exec": "become the program, inside a script",
}

// repeatable are options that may be given more than once.
var repeatable = []string{"listen", "env", "watch", "ignore", "hook"}

// completed is one option as the files have it.
type completed struct {
	completion
	letter string // "" none
}

func (c completed) names() []string {
	if c.letter != "" {
		return []string{"-" + c.letter, "--" + c.name}
	}
	return []string{"--" + c.name}
}

// completedOptions joins options with how they are completed.
func completedOptions(t *testing.T, flags []cli.Flag) (all []completed) {
	t.Helper()
	for _, f := range flags {
		i := slices.IndexFunc(completions(), func(c completion) bool { return c.name == f.Names()[0] })
		if i < 0 {
			t.Fatalf("no completion for --%s", f.Names()[0])
		}
		c := completed{completion: completions()[i]}
		if names := f.Names(); len(names) > 1 {
			c.letter = names[1]
		}
		_, alone := f.(*cli.BoolFlag)
		if alone != (c.kind == valueNone) {
			t.Errorf("--%s is completed as if it had a value %v", c.name, c.kind)
		}
		all = append(all, c)
	}
	return all
}

// shellCommand is a command as the files have it.
type shellCommand struct {
	name, text string
	options    []completed
}

// shellTable is all that can be completed.
type shellTable struct {
	options  []completed
	commands []shellCommand
}

func newShellTable(t *testing.T) shellTable {
	t.Helper()
	help := &cli.BoolFlag{Name: "help", Aliases: []string{"h"}}
	own := append((&config{}).options(), help, &cli.BoolFlag{Name: "version", Aliases: []string{"V"}})
	s := shellTable{options: completedOptions(t, own)}
	for _, c := range verbs {
		s.commands = append(s.commands, shellCommand{c.name(), commandTexts[c.name()], completedOptions(t, (&errand{verb: c}).options())})
	}
	s.commands = append(s.commands,
		shellCommand{doctorName, commandTexts[doctorName], completedOptions(t, append(own, &cli.BoolFlag{Name: "json"}))},
		shellCommand{"exec", commandTexts["exec"], nil})
	for _, c := range s.commands {
		if c.text == "" {
			t.Errorf("no words for hotwrap %s", c.name)
		}
	}
	return s
}

// all are the options of hotwrap and its commands, each once.
func (s shellTable) all() (all []completed) {
	groups := [][]completed{s.options}
	for _, c := range s.commands {
		groups = append(groups, c.options)
	}
	for _, c := range slices.Concat(groups...) {
		if !slices.ContainsFunc(all, func(o completed) bool { return o.name == c.name }) {
			all = append(all, c)
		}
	}
	return all
}

func (s shellTable) commandNames() (names []string) {
	for _, c := range s.commands {
		names = append(names, c.name)
	}
	return names
}

const madeBy = "# Made by `make completions` from the options in main.go and command.go: do not edit.\n"

// --- bash

func (s shellTable) bash() string {
	var out strings.Builder
	out.WriteString("# bash completion for hotwrap(1)\n" + madeBy + `
# The names of what runs, by the sockets that lie where hotwrap puts them.
_hotwrap_names() {
	local dir socket
	for dir in "$HOTWRAP_RUNTIME_DIR" "${RUNTIME_DIRECTORY%%:*}" "${XDG_RUNTIME_DIR:+$XDG_RUNTIME_DIR/hotwrap}" \
		/run/user/*/hotwrap /run/hotwrap "${TMPDIR:-/tmp}"/hotwrap-*; do
		[[ -n $dir ]] || continue
		for socket in "$dir"/control/*.sock "$dir"/control-*/*.sock; do
			[[ -S $socket ]] && socket=${socket##*/} && echo "${socket%.sock}"
		done
	done
}

_hotwrap_value() { # OPTION: complete its value; fails if it has none
	case $1 in
`)
	for _, c := range s.all() {
		if c.kind == valueNone {
			continue
		}
		fmt.Fprintf(&out, "	%s) %s ;;\n", strings.Join(c.names(), "|"), bashAction(c))
	}
	out.WriteString(`	*) return 1 ;;
	esac
}

_hotwrap() {
	local cur=${COMP_WORDS[COMP_CWORD]} prev=${COMP_WORDS[COMP_CWORD-1]} command='' joined='' i IFS=$' \t\n'
	COMPREPLY=()

	# Behind -- it is the program's.
	for ((i = 1; i < COMP_CWORD; i++)); do
		[[ ${COMP_WORDS[i]} == -- ]] || continue
		if declare -F _comp_command_offset >/dev/null; then
			_comp_command_offset $((i + 1))
		elif declare -F _command_offset >/dev/null; then
			_command_offset $((i + 1))
		elif ((COMP_CWORD == i + 1)); then
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -c -- "$cur"; compgen -f -- "$cur")
		else
			compopt -o filenames 2>/dev/null
			mapfile -t COMPREPLY < <(compgen -f -- "$cur")
		fi
		return
	done

	# bash parts words at =.
	if [[ $cur == = ]]; then
		cur='' joined=1
	elif [[ $prev == = ]]; then
		prev=${COMP_WORDS[COMP_CWORD-2]} joined=1
	fi
	if [[ $prev == -w || $prev == --watch && -z $joined ]]; then
		prev=''
	fi
	if [[ $prev == -* ]] && _hotwrap_value "$prev"; then
		[[ ${#COMPREPLY[@]} == 1 && ${COMPREPLY[0]} == *[=/] ]] && compopt -o nospace 2>/dev/null
		return
	fi
	((COMP_CWORD > 1)) && command=${COMP_WORDS[1]}
	case $command in
`)
	for _, c := range s.commands {
		if c.name == "exec" {
			out.WriteString("	exec) mapfile -t COMPREPLY < <(compgen -W '--' -- \"$cur\") ;;\n")
			continue
		}
		fmt.Fprintf(&out, "	%s)\n		if [[ $cur == -* ]]; then\n			mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\")\n", c.name, bashOptions(c.options, c.name == doctorName))
		switch c.name {
		case doctorName:
		case "signal":
			fmt.Fprintf(&out, "		elif ((COMP_CWORD == 2)); then\n			mapfile -t COMPREPLY < <(compgen -W '%s' -- \"$cur\")\n", strings.Join(stopWords, " "))
			fallthrough
		default:
			out.WriteString("		else\n			mapfile -t COMPREPLY < <(compgen -W \"$(_hotwrap_names)\" -- \"$cur\")\n")
		}
		out.WriteString("		fi\n		;;\n")
	}
	fmt.Fprintf(&out, `	*)
		if [[ $cur == -* || $COMP_CWORD != 1 ]]; then
			mapfile -t COMPREPLY < <(compgen -W '%s' -- "$cur")
		else
			mapfile -t COMPREPLY < <(compgen -W '%s' -- "$cur")
		fi
		;;
	esac
}

complete -F _hotwrap hotwrap
`, bashOptions(s.options, true), strings.Join(s.commandNames(), " "))
	return out.String()
}

func bashOptions(options []completed, program bool) string {
	var names []string
	for _, c := range options {
		names = append(names, "--"+c.name)
	}
	if program {
		names = append(names, "--")
	}
	return strings.Join(names, " ")
}

func bashAction(c completed) string {
	generate := map[valueKind]string{
		valueFile: "compgen -f", valueMaybe: "compgen -f", valueDir: "compgen -d", valueUser: "compgen -u",
		valueGroup: "compgen -g", valueCommand: "compgen -c", valueWords: "compgen -W '" + strings.Join(c.words, " ") + "'",
	}[c.kind]
	if generate == "" {
		return "COMPREPLY=()"
	}
	action := "mapfile -t COMPREPLY < <(" + generate + " -- \"$cur\")"
	if slices.Contains([]valueKind{valueFile, valueMaybe, valueDir}, c.kind) {
		action = "compopt -o filenames 2>/dev/null; " + action
	}
	return action
}

// --- zsh

func (s shellTable) zsh() string {
	var out strings.Builder
	out.WriteString("#compdef hotwrap\n" + madeBy + `
# The names of what runs, by the sockets that lie where hotwrap puts them.
_hotwrap_names() {
	local -a dirs names
	dirs=(/run/user/*/hotwrap(N) /run/hotwrap ${TMPDIR:-/tmp}/hotwrap-*(N))
	[[ -n $HOTWRAP_RUNTIME_DIR ]] && dirs+=($HOTWRAP_RUNTIME_DIR)
	[[ -n $RUNTIME_DIRECTORY ]] && dirs+=(${RUNTIME_DIRECTORY%%:*})
	[[ -n $XDG_RUNTIME_DIR ]] && dirs+=($XDG_RUNTIME_DIR/hotwrap)
	names=($^dirs/control(|-*)/*.sock(N=:t:r))
	_wanted names expl 'name' compadd -a names
}

_hotwrap() {
	local curcontext=$curcontext expl at=${words[(i)--]}
	local -a ours # not "commands", which is zsh's own
	if ((at < CURRENT)); then # behind -- it is the program's
		shift $at words
		((CURRENT -= at))
		_normal
		return
	fi
	((CURRENT > 2)) && case $words[2] in
`)
	for _, c := range s.commands {
		if c.name == "exec" {
			out.WriteString("	exec) compadd -- -- ;;\n")
			continue
		}
		fmt.Fprintf(&out, "	%s)\n		shift words\n		((CURRENT--))\n		_arguments -s : \\\n%s", c.name, zshOptions(c.options))
		switch c.name {
		case doctorName:
			out.WriteString("			'--[the program follows]'\n")
		case "signal":
			fmt.Fprintf(&out, "			'1:signal:(%s)' '2:name:_hotwrap_names'\n", strings.Join(stopWords, " "))
		default:
			out.WriteString("			'1:name:_hotwrap_names'\n")
		}
		out.WriteString("		return\n		;;\n")
	}
	out.WriteString("	esac\n	ours=(\n")
	for _, c := range s.commands {
		fmt.Fprintf(&out, "		'%s:%s'\n", c.name, c.text)
	}
	out.WriteString("	)\n	_arguments -s : \\\n" + zshOptions(s.options) +
		"		'--[the program follows]' '1:command:{_describe command ours}'\n}\n\n_hotwrap \"$@\"\n")
	return out.String()
}

func zshOptions(options []completed) string {
	var out strings.Builder
	for _, c := range options {
		text := "[" + strings.ReplaceAll(c.text, "'", "'\\''") + "]"
		action := map[valueKind]string{
			valueText: ": ", valueFile: ":_files", valueMaybe: ":_files", valueDir: ":_files -/", valueUser: ":_users",
			valueGroup: ":_groups", valueCommand: ":_command_names -e",
		}[c.kind]
		if c.kind == valueWords {
			action = ":(" + strings.ReplaceAll(strings.Join(c.words, " "), ":", "\\:") + ")"
			if slices.ContainsFunc(c.words, func(w string) bool { return strings.ContainsAny(w[len(w)-1:], "=/") }) {
				action = ":compadd -S \"\" -- " + strings.ReplaceAll(strings.Join(c.words, " "), ":", "\\:")
			}
		}
		if action != "" {
			action = ":" + cmp.Or(string(c.kind), "value") + action
		}
		switch {
		case c.kind == valueMaybe:
			fmt.Fprintf(&out, "		'*-%s%s' '*--%s=-%s:%s' \\\n", c.letter, text, c.name, text, "path:_files")
			fmt.Fprintf(&out, "		'*--%s%s' \\\n", c.name, text)
		case slices.Contains(repeatable, c.name):
			fmt.Fprintf(&out, "		%s \\\n", zshNames(c, "'*'", text, action))
		case c.letter != "":
			fmt.Fprintf(&out, "		%s \\\n", zshNames(c, "'(-"+c.letter+" --"+c.name+")'", text, action))
		default:
			fmt.Fprintf(&out, "		%s \\\n", zshNames(c, "", text, action))
		}
	}
	return out.String()
}

// zshNames is one option of _arguments, by one or two names.
func zshNames(c completed, before, text, action string) string {
	long, letter := "--"+c.name, "-"+c.letter
	if c.kind != valueNone {
		long, letter = long+"=", letter+"+"
	}
	if c.letter == "" {
		return fmt.Sprintf("%s'%s%s%s'", before, long, text, action)
	}
	return fmt.Sprintf("%s{%s,%s}'%s%s'", before, letter, long, text, action)
}

// --- fish

func (s shellTable) fish() string {
	var out strings.Builder
	out.WriteString("# fish completion for hotwrap(1)\n" + madeBy + `
# The names of what runs, by the sockets that lie where hotwrap puts them.
function __hotwrap_names
    set -l dirs /run/hotwrap $HOTWRAP_RUNTIME_DIR (string split : -- $RUNTIME_DIRECTORY)[1]
    set -q XDG_RUNTIME_DIR; and set -a dirs $XDG_RUNTIME_DIR/hotwrap
    set -l tmp /tmp
    set -q TMPDIR; and set tmp $TMPDIR
    set -a dirs /run/user/*/hotwrap
    set -a dirs $tmp/hotwrap-*
    for dir in $dirs
        for socket in $dir/control/*.sock $dir/control-*/*.sock
            test -S $socket; and string replace -r '^.*/(.*)\.sock$' '$1' -- $socket
        end
    end
end

# COMMAND... : whether the words so far are for one of these; with - none, and no program yet.
function __hotwrap_for
    set -l words (commandline -opc)
    contains -- -- $words; and return 1
    if test "$argv[1]" = -
        not contains -- "$words[2]" $__hotwrap_commands
    else
        contains -- "$words[2]" $argv
    end
end

# Behind -- it is the program's.
function __hotwrap_program
    contains -- -- (commandline -opc)
end

function __hotwrap_complete_program
    set -l words (commandline -opc)
    set -l at (contains -i -- -- $words)
    complete -C (string join ' ' -- (string escape -- $words[(math $at + 1)..]) (commandline -ct))
end

`)
	fmt.Fprintf(&out, "set -g __hotwrap_commands %s\n\ncomplete -c hotwrap -f\n", strings.Join(s.commandNames(), " "))
	out.WriteString("complete -c hotwrap -n __hotwrap_program -a '(__hotwrap_complete_program)'\n")
	for _, c := range s.commands {
		fmt.Fprintf(&out, "complete -c hotwrap -n '__hotwrap_for - && test (count (commandline -opc)) = 1' -a %s -d '%s'\n", c.name, c.text)
	}
	for _, c := range s.options {
		out.WriteString(fishOption("-", c))
	}
	for _, command := range s.commands {
		switch command.name {
		case "exec":
			continue
		case doctorName: // hotwrap's own
		case "signal":
			fmt.Fprintf(&out, "complete -c hotwrap -n '__hotwrap_for signal && test (count (commandline -opc)) = 2' -a '%s'\n", strings.Join(stopWords, " "))
			out.WriteString("complete -c hotwrap -n '__hotwrap_for signal && test (count (commandline -opc)) -gt 2' -a '(__hotwrap_names)' -d instance\n")
		default:
			fmt.Fprintf(&out, "complete -c hotwrap -n '__hotwrap_for %s' -a '(__hotwrap_names)' -d instance\n", command.name)
		}
		for _, c := range command.options {
			out.WriteString(fishOption(command.name, c))
		}
	}
	return out.String()
}

func fishOption(command string, c completed) string {
	text := fmt.Sprintf("complete -c hotwrap -n '__hotwrap_for %s' -l %s", command, c.name)
	if c.letter != "" {
		text += " -s " + c.letter
	}
	switch c.kind {
	case valueFile:
		text += " -r -F"
	case valueMaybe:
		text += " -F"
	case valueText:
		text += " -x"
	case valueDir:
		text += " -x -a '(__fish_complete_directories)'"
	case valueUser:
		text += " -x -a '(__fish_complete_users)'"
	case valueGroup:
		text += " -x -a '(__fish_complete_groups)'"
	case valueCommand:
		text += " -x -a '(__fish_complete_command)'"
	case valueWords:
		text += " -x -a '" + strings.Join(c.words, " ") + "'"
	case valueNone:
	}
	return text + " -d '" + strings.ReplaceAll(c.text, "'", "\\'") + "'\n"
}

// --- tests

// TestCompletions: the files are what is made of the options.
func TestCompletions(t *testing.T) {
	s := newShellTable(t)
	for file, want := range map[string]string{"hotwrap.bash": s.bash(), "_hotwrap": s.zsh(), "hotwrap.fish": s.fish()} {
		path := filepath.Join("completions", file)
		if *updateScripts {
			if err := os.WriteFile(path, []byte(want), 0o644); err != nil {
				t.Fatal(err)
			}
		}
		got, err := os.ReadFile(path)
		if err != nil || string(got) != want {
			t.Errorf("%s is not what the options make it: make completions (%v)", path, err)
		}
	}
	for _, c := range completions() {
		if !slices.ContainsFunc(s.all(), func(o completed) bool { return o.name == c.name }) {
			t.Errorf("--%s can be completed, but hotwrap has no such option", c.name)
		}
	}
}

// completionCases are what is typed, and a part of what is offered: all of these, and none with a !.
var completionCases = []struct {
	typed string
	want  []string
}{
	{"hotwrap restart", []string{"restart", "!web"}}, // the word is not over
	{"hotwrap re", []string{"restart", "!status"}},
	{"hotwrap ", []string{"restart", "status", "doctor", "exec"}},
	{"hotwrap --drain", []string{"--drain-timeout", "!--name"}},
	{"hotwrap restart --w", []string{"--wait", "!--watch"}},
	{"hotwrap --w", []string{"--watch", "--workers", "!--wait"}},
	{"hotwrap restart --wait ", []string{"promoted", "drained", "none"}},
	{"hotwrap restart --wait=d", []string{"drained", "!none"}},
	{"hotwrap restart ", []string{"web", "api-2", "!restart"}},
	{"hotwrap restart -m why w", []string{"web", "!api-2"}},
	{"hotwrap stop --now a", []string{"api-2", "!web"}},
	{"hotwrap signal ", []string{"HUP", "USR1", "!web"}},
	{"hotwrap signal HUP ", []string{"web", "api-2", "!HUP"}},
	{"hotwrap -l :80 --ready n", []string{"notify", "!auto"}},
	{"hotwrap --hook dr", []string{"drained="}},
	{"hotwrap --adopt ", []string{"auto", "always", "never"}},
	{"hotwrap --stop-signal Q", []string{"QUIT"}},
	{"hotwrap --log-file ./comple", []string{"completions"}},
	{"hotwrap --watch=./comple", []string{"completions"}},
	{"hotwrap doctor --js", []string{"--json"}},
	{"hotwrap doctor --adopt a", []string{"auto"}},
	{"hotwrap status --js", []string{"--json", "!--now"}},
	{"hotwrap -l :80 -- mkdi", []string{"mkdir", "!restart"}},
	{"hotwrap -l :80 -- ls ./comple", []string{"completions"}},
	{"hotwrap exec -- mkdi", []string{"mkdir"}},
}

// completionSockets makes two instances' control sockets; what is named so and is none must not be offered.
func completionSockets(t *testing.T) []string {
	t.Helper()
	dir := t.TempDir()
	for _, name := range []string{"control/web.sock", "control-deploy/api-2.sock"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		l, err := net.Listen("unix", path)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { _ = l.Close() })
	}
	if err := os.WriteFile(filepath.Join(dir, "control/dead.sock"), nil, 0o600); err != nil {
		t.Fatal(err)
	}
	return append(os.Environ(), "HOTWRAP_RUNTIME_DIR="+dir, "HOME="+t.TempDir(), "TERM=dumb", "LC_ALL=C.UTF-8")
}

// checkOffers runs every case through offer.
func checkOffers(t *testing.T, offer func(t *testing.T, environ []string, typed string) string) {
	t.Helper()
	environ := completionSockets(t)
	for _, c := range completionCases {
		t.Run(c.typed, func(t *testing.T) {
			text := offer(t, environ, c.typed)
			var offers []string
			for line := range strings.Lines(text) {
				word, _, _ := strings.Cut(strings.TrimRight(line, "\n"), "\t")
				offers = append(offers, strings.TrimRight(word, " /"))
			}
			has := func(want string) bool {
				return slices.ContainsFunc(offers, func(got string) bool {
					return got == want || strings.HasSuffix(got, "/"+want) || strings.HasSuffix(got, "="+want)
				})
			}
			for _, want := range append(c.want, "!dead") {
				if name, not := strings.CutPrefix(want, "!"); has(name) == not {
					t.Errorf("offered %q; want %q", offers, c.want)
				}
			}
		})
	}
}

// TestCompletionBash: what bash offers.
func TestCompletionBash(t *testing.T) {
	bash := neededProgram(t, "bash")
	words := regexp.MustCompile(`[^ =]+|=`)
	checkOffers(t, func(t *testing.T, environ []string, typed string) string {
		t.Helper()
		split := words.FindAllString(typed, -1) // as COMP_WORDBREAKS does
		if strings.HasSuffix(typed, " ") {
			split = append(split, "")
		}
		args := append([]string{
			"--norc", "-c",
			`source completions/hotwrap.bash; COMP_WORDS=("$@"); COMP_CWORD=$(($# - 1)); _hotwrap; printf '%s\n' "${COMPREPLY[@]}"`, "bash",
		}, split...)
		return shellOutput(t, environ, bash, args...)
	})
}

// TestCompletionFish: what fish offers.
func TestCompletionFish(t *testing.T) {
	fish := neededProgram(t, "fish")
	checkOffers(t, func(t *testing.T, environ []string, typed string) string {
		t.Helper()
		return shellOutput(t, environ, fish, "--no-config", "-c", `source completions/hotwrap.fish; complete -C $argv[1]`, typed)
	})
}

// zshOffers runs an interactive zsh on a terminal of its own, types, and has written down what is added.
const zshOffers = `
zmodload zsh/zpty
zpty inner "PS1= zsh -f -i"
zpty -w inner "
unsetopt zle_bracketed_paste 2>/dev/null
fpath=($PWD/completions \$fpath); autoload -Uz compinit; compinit -u -d $3
compadd() {
	if [[ \${@[1,(i)(-|--)]} == *-(O|A|D)\\ * ]]; then builtin compadd \"\$@\"; return; fi
	local -a hits; builtin compadd -A hits \"\$@\"
	print -rl -- \$hits >>$2
	builtin compadd \"\$@\"
}
offers() { _main_complete; print -r -- --done-- >>$2; compstate[insert]= compstate[list]= }
zle -C offers complete-word offers; bindkey '^I' offers
print ready >$2.ready"
until [[ -e $2.ready ]]; do zpty -r -t inner >/dev/null; zselect -t 1; done
zpty -n -w inner "$1"$'\t'
until [[ -e $2 && "$(<$2)" == *--done--* ]]; do zpty -r -t inner >/dev/null; zselect -t 1; done
zpty -d inner
cat $2`

// TestCompletionZsh: what zsh offers.
func TestCompletionZsh(t *testing.T) {
	zsh, dump := neededProgram(t, "zsh"), filepath.Join(t.TempDir(), "dump")
	checkOffers(t, func(t *testing.T, environ []string, typed string) string {
		t.Helper()
		return shellOutput(t, environ, zsh, "-f", "-c", "zmodload zsh/zselect\n"+zshOffers, "zsh", typed, filepath.Join(t.TempDir(), "offers"), dump)
	})
}

// shellOutput is what a shell writes.
func shellOutput(t *testing.T, environ []string, shell string, args ...string) string {
	t.Helper()
	cmd := exec.CommandContext(t.Context(), "timeout", append([]string{"10", shell}, args...)...)
	cmd.Env = environ
	var errs strings.Builder
	cmd.Stderr = &errs
	out, err := cmd.Output()
	if err != nil || errs.Len() > 0 {
		t.Errorf("%s: %v\n%s", shell, err, errs.String())
	}
	return string(out)
}
