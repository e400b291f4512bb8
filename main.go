// Command hotwrap restarts any server without losing a connection: it opens the sockets, runs the
// program with them, and on a signal starts the next run, waits until that one has proved itself, and
// only then lets the previous one finish and go.
//
//go:debug containermaxprocs=0
//go:debug updatemaxprocs=0
package main

// This file turns the command line into a config and the config into a running supervisor.
//
// Its rules: a usage error names the option and the value, and nothing is bound or started then; only
// run returns a status, only main exits.
//
// The two settings above keep the runtime from reading cgroup files at each start, and so in each shim:
// hotwrap does little, on one goroutine at a time.

import (
	"errors"
	"fmt"
	"io"
	"os"
	"runtime"
	"runtime/debug"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"

	"github.com/urfave/cli/v2"
)

// version is set by the linker for releases.
var version string

func init() { runtime.LockOSThread() } // every fork happens on the main thread: see exec.go

func main() { os.Exit(run(os.Args[1:], os.Stdout, os.Stderr)) }

// run is the whole of hotwrap: it returns the exit status.
func run(args []string, stdout, stderr io.Writer) int {
	if len(args) > 0 && args[0] == lookMark {
		return lookMain(args[1:])
	}
	if len(args) > 0 && args[0] == resumeMark {
		return resumeMain(stdout)
	}
	if len(args) > 0 && args[0] == doctorName {
		return doctorMain(args[1:], os.Environ(), stdout, stderr)
	}
	if len(args) > 0 {
		if v := verbNamed(args[0]); v != nil {
			return v.main(args[1:], os.Environ(), stdout, stderr)
		}
	}
	if t, err := resumed(); t != nil {
		return goOn(args, t, err, stderr)
	}
	cfg, err := parseArgs(args, os.Environ())
	if err != nil {
		return report(stderr, err)
	}
	switch cfg.mode {
	case modeHelp:
		_, _ = io.WriteString(stdout, helpText)
		return 0
	case modeVersion:
		_, _ = fmt.Fprintln(stdout, "hotwrap "+versionText())
		return 0
	case modeNothing:
		_, _ = io.WriteString(stderr, helpHead)
		return statusFailed
	case modeExec:
		return report(stderr, execMain(cfg.program))
	case modeServe:
	}
	return serve(cfg, stderr, nil)
}

// report says why hotwrap does not run, and returns the exit status for that.
func report(stderr io.Writer, err error) int {
	_, _ = fmt.Fprintf(stderr, "hotwrap: error: %v\n", err)
	if text := remedyFor(err); text != "" {
		_, _ = fmt.Fprintf(stderr, "hotwrap: hint: %s\n", text)
	}
	return execStatus(err)
}

// remedyFor is what to do about an error; "" where that is not known.
func remedyFor(err error) string {
	var e *execError
	var u *usageError
	var i *inUseError
	switch {
	case errors.As(err, &e):
		return e.hint
	case errors.As(err, &i):
		return i.hint
	case errors.As(err, &u):
		return u.hint
	}
	return ""
}

func versionText() string {
	if version != "" {
		return version
	}
	if b, ok := debug.ReadBuildInfo(); ok && b.Main.Version != "" {
		return b.Main.Version
	}
	return "(devel)"
}

// mode is what the command line asks for.
type mode int

const (
	modeServe mode = iota
	modeExec
	modeHelp
	modeVersion
	modeNothing // no argument at all
)

// config is the command line as hotwrap understood it.
type config struct {
	mode      mode
	program   []string
	terminal  bool   // defaults are those for a person at a terminal
	unsteered string // why new connections cannot be kept from a generation; "" if they can

	listens    []listenSpec
	workers    workersValue
	surge      surgeValue
	adopt      adoptMode
	noOverlap  bool
	overlapSet bool // --no-overlap was given, true or false
	env        list
	envFile    string
	user       string
	dir        string
	check      string
	ready      readyValue
	stopSignal signalValue
	respawn    respawnValue

	readyTimeout, bake, drainTimeout, stopDelay, stopTimeout duration

	hooks   []hookSpec
	pidFile string

	watch    watchValue
	build    string
	src      string
	ignore   list
	clear    bool
	debounce duration

	name, controlGroup string
	http               string

	stdin, die, quiet, verbose, trace bool
	logFormat                         string

	logFile           string
	capture, logStamp bool
}

// usageError is a command line that hotwrap does not understand.
type usageError struct{ text, hint string }

func (e *usageError) Error() string { return e.text }

func usage(format string, args ...any) *usageError {
	return &usageError{text: fmt.Sprintf(format, args...)}
}

// parseArgs cuts args at the first "--", since what follows is the program's and nothing of it ours,
// and reads the left half and the environment.
func parseArgs(args, environ []string) (*config, error) {
	cfg := &config{terminal: isTerminal(0), trace: traced(environ), unsteered: unsteered(environ)}
	if len(args) == 0 {
		cfg.mode = modeNothing
		return cfg, nil
	}
	left := args
	for i, arg := range args {
		if arg == "--" {
			left, cfg.program = args[:i], args[i+1:]
			break
		}
	}
	if err := foreignOption(left); err != nil {
		return nil, err
	}
	rest, err := cfg.parseOptions(left, environ)
	if err != nil || cfg.mode == modeHelp || cfg.mode == modeVersion {
		return cfg, err
	}
	if err := cfg.command(rest, len(left) < len(args)); err != nil {
		return nil, err
	}
	return cfg, cfg.validate()
}

// traced tells whether HOTWRAP_TRACE asks for a trace.
func traced(environ []string) bool {
	value := getenv(environ, "HOTWRAP_TRACE")
	return value != "" && value != "0"
}

// command reads what is left of the options' side of "--".
func (cfg *config) command(rest []string, cut bool) error {
	switch {
	case len(rest) == 1 && rest[0] == "exec" && len(cfg.program) > 0:
		cfg.mode = modeExec
		return nil
	case len(rest) > 0 && rest[0] == "exec":
		return &usageError{"hotwrap exec: no program", "hotwrap exec -- ./myapp"}
	case len(rest) > 0 && cfg.watch.on:
		return &usageError{fmt.Sprintf("%q is no option", rest[0]), "a path to watch follows an =: --watch=" + rest[0]}
	case len(rest) > 0 && (verbNamed(rest[0]) != nil || rest[0] == doctorName):
		return &usageError{
			fmt.Sprintf("%q is a command", rest[0]),
			"it comes first, and has options of its own: hotwrap " + rest[0] + " --help",
		}
	case len(rest) > 0 && !cut:
		return &usageError{
			fmt.Sprintf("no such command %q", rest[0]),
			"a program comes after --: hotwrap -l :8080 -- " + strings.Join(rest, " "),
		}
	case len(rest) > 0:
		return &usageError{fmt.Sprintf("%q is no option", rest[0]), "options come before --, the program after it"}
	case len(cfg.program) == 0:
		return &usageError{"no program given", "hotwrap -l :8080 -- ./myapp"}
	}
	return nil
}

// fillIn sets the defaults that hang on a terminal, or on another option.
func (cfg *config) fillIn() {
	if !cfg.bake.set {
		cfg.bake.d = defaultBake
		if cfg.terminal {
			cfg.bake.d = 0
		}
	}
	if !cfg.drainTimeout.set {
		cfg.drainTimeout.d = defaultDrain
		if cfg.terminal {
			cfg.drainTimeout.d = defaultDrainTerminal
		}
	}
	if !cfg.stopTimeout.set {
		cfg.stopTimeout.d = cfg.drainTimeout.d
	}
	if cfg.build != "" { // what it makes is watched, also beside --watch=PATH
		cfg.watch.on, cfg.watch.program = true, true
	}
}

// validate checks what one option cannot know of another.
func (cfg *config) validate() error {
	if cfg.mode == modeExec {
		return nil
	}
	cfg.fillIn()
	if err := cfg.checkEnv(); err != nil {
		return err
	}
	if cfg.readyTimeout.d == 0 {
		return usage("--ready-timeout %q: nothing is ready in no time", "0")
	}
	if cfg.surge.n > 0 && cfg.noOverlap {
		return usage("--surge and --no-overlap: without overlap no worker more than --workers runs")
	}
	if err := cfg.checkWatch(); err != nil {
		return err
	}
	if cfg.name != "" {
		if err := checkName(cfg.name); err != nil {
			return usage("--name %q: %v", cfg.name, err)
		}
	}
	if err := cfg.checkOutput(); err != nil {
		return err
	}
	if cfg.die && !canDie {
		return usage("--die-with-parent: not available on %s", runtime.GOOS)
	}
	if cfg.stdin && !isTerminal(0) {
		return usage("--stdin: standard input is not a terminal; the program inherits it anyway")
	}
	if err := checkListens(cfg.listens); err != nil {
		return usage("--listen %v", err)
	}
	if cfg.ready.mode == readyURL && cfg.unsteered != "" {
		return usage("--ready %q needs steering: %s", cfg.ready.url, cfg.unsteered)
	}
	return nil
}

// checkEnv checks that each variable has a name.
func (cfg *config) checkEnv() error {
	for _, kv := range cfg.env {
		if key, _, ok := strings.Cut(kv, "="); !ok || key == "" {
			return &usageError{fmt.Sprintf("--env %q: it has no KEY=", key), "-e KEY=VALUE, or -e KEY= to unset it; file names are for --watch='**/*.EXT'"}
		}
	}
	return nil
}

// checkWatch checks what is for the watch.
func (cfg *config) checkWatch() error {
	if slices.Contains(cfg.ignore, "") { // a variable that is not set, most likely
		return usage("--ignore \"\": it needs a value")
	}
	if cfg.src != "" && cfg.build == "" {
		return &usageError{"--src is for --build", "--watch=" + cfg.src + " restarts without a build"}
	}
	for _, o := range []struct {
		name string
		set  bool
	}{{"ignore", len(cfg.ignore) > 0}, {"clear", cfg.clear}, {"debounce", cfg.debounce.set}} {
		switch {
		case !o.set || cfg.watch.on:
		case o.name == "ignore" && (allDigits(cfg.ignore[0]) || cfg.ignore[0] == "max"): // pm2's -i
			return &usageError{"--ignore is for --watch and --build", "several processes are --workers (-n)"}
		default:
			return &usageError{"--" + o.name + " is for --watch and --build", "-w restarts at every rebuild"}
		}
	}
	return nil
}

// checkOutput checks what is written, by hotwrap and by the program.
func (cfg *config) checkOutput() error {
	if cfg.logFormat != "text" && cfg.logFormat != "json" {
		return usage("--log-format %q: it is text or json", cfg.logFormat)
	}
	if cfg.quiet && cfg.verbose {
		return usage("--quiet and --verbose: it is one or the other")
	}
	if strings.HasPrefix(cfg.logFile, "|") {
		return &usageError{fmt.Sprintf("--log-file %q: it is a file", cfg.logFile), "--capture writes to standard output, and so to the shell's pipe"}
	}
	if cfg.logFile != "" && cfg.capture {
		return &usageError{"--log-file and --capture: it is one or the other", "--capture writes to hotwrap's own standard output and error"}
	}
	if cfg.logStamp && cfg.logFile == "" && !cfg.capture {
		return &usageError{"--log-stamp is for --log-file and --capture", "what the program inherits is written past hotwrap"}
	}
	return nil
}

const (
	defaultReadyTimeout  = 60 * time.Second
	defaultBake          = time.Second
	defaultDrain         = 30 * time.Second
	defaultDrainTerminal = 3 * time.Second
	defaultRespawn       = 10
	defaultDebounce      = 100 * time.Millisecond
)

// limits is what the supervisor needs of cfg.
func (cfg *config) limits(listeners []*listener) limits {
	l := limits{
		workers: cfg.workers.n, surge: cfg.surge.n, ready: cfg.ready.mode, readyAlive: cfg.ready.alive, readyTimeout: cfg.readyTimeout.d,
		bake: cfg.bake.d, drainTimeout: cfg.drainTimeout.d, stopDelay: cfg.stopDelay.d, stopTimeout: cfg.stopTimeout.d,
		watch: cfg.watch.on, wait: cfg.watch.on && cfg.terminal, build: cfg.build != "",
		respawn: cfg.respawn.policy, respawnMost: cfg.respawn.most, overlap: !cfg.noOverlap, check: cfg.check != "",
		hooks: cfg.hooks, adopt: cfg.adopt,
	}
	for _, ls := range listeners {
		l.listeners, l.addresses = append(l.listeners, ls.name), append(l.addresses, shortAddr(ls.addr, ""))
	}
	l.overlap = l.overlap && cfg.unshared(listeners) == nil
	if cfg.stdin && !cfg.overlapSet {
		l.overlap = false // a terminal has one owner
	}
	return l
}

// unshared is the listener for which restarts do not overlap, unless they were asked to: two readers of one UDP socket
// would split its datagrams at random. nil is none.
func (cfg *config) unshared(listeners []*listener) *listener {
	for _, l := range listeners {
		if l.datagram() && !cfg.overlapSet {
			return l
		}
	}
	return nil
}

// --- options

// list is an option that may be repeated.
type list []string

func (l *list) Set(text string) error {
	if text != aliasCopy {
		*l = append(*l, text)
	}
	return nil
}
func (l *list) String() string { return aliasCopy }

// aliasCopy is what a list shows of itself: the library sets an option once more, to what it shows,
// where it was given by its letter.
const aliasCopy = "\x00"

// listens is --listen.
type listens struct{ specs *[]listenSpec }

func (l listens) Set(text string) error {
	spec, err := parseListen(text)
	if err == nil {
		*l.specs = append(*l.specs, spec)
	}
	return err
}
func (l listens) String() string { return "" }

// duration is an option like 30s; a bare number is seconds.
type duration struct {
	d   time.Duration
	set bool
}

func (v *duration) Set(text string) error {
	d, err := time.ParseDuration(text)
	if err != nil {
		d, err = time.ParseDuration(text + "s")
	}
	if err != nil || d < 0 {
		return errors.New("it is not a time such as 30s, 1m30s or 500ms")
	}
	v.d, v.set = d, true
	return nil
}
func (v *duration) String() string { return brief(v.d) }

// readyValue is --ready.
type readyValue struct {
	mode  readyMode
	alive time.Duration
	fd    int
	url   string // with placeholders
}

func (v *readyValue) Set(text string) error {
	kind, value, given := strings.Cut(text, "=")
	switch {
	case text == "auto" || text == "notify":
		*v = readyValue{mode: readyMode(text)}
		return nil
	case kind == "alive" && given:
		var d duration
		if err := d.Set(value); err != nil {
			return err
		}
		*v = readyValue{mode: readyAlive, alive: d.d}
		return nil
	case kind == "fd" && given:
		var n int
		if _, err := fmt.Sscanf(value, "%d", &n); err != nil || n < 3 || n > 1023 || fmt.Sprint(n) != value {
			return errors.New("a descriptor for ready is a number from 3 to 1023")
		}
		*v = readyValue{mode: readyFD, fd: n}
		return nil
	case strings.HasPrefix(text, "http://"), strings.HasPrefix(text, "https://"):
		*v = readyValue{mode: readyURL, url: text}
		return checkURL(text)
	}
	return errors.New("it is auto, notify, a URL, alive=DUR or fd=N")
}

func (v *readyValue) String() string { return string(v.mode) }

// workersValue is --workers.
type workersValue struct{ n int }

func (v *workersValue) Set(text string) (err error) {
	if text == "auto" {
		v.n = cpus()
		return nil
	}
	if v.n, err = parseWorkers(text); err != nil {
		return fmt.Errorf("it is a number from 1 to %d, or auto: one for each CPU that the cgroup permits", workersMost)
	}
	return nil
}
func (v *workersValue) String() string { return strconv.Itoa(v.n) }

// surgeValue is --surge; 0 is as many again as there are.
type surgeValue struct{ n int }

func (v *surgeValue) Set(text string) (err error) {
	if v.n, err = parseWorkers(text); err != nil {
		return fmt.Errorf("it is a number from 1 to %d", workersMost)
	}
	return nil
}
func (v *surgeValue) String() string { return strconv.Itoa(v.n) }

// given is the value, "" where there is none.
func (v *surgeValue) given() string {
	if v.n == 0 {
		return ""
	}
	return v.String()
}

func parseWorkers(text string) (int, error) {
	n, err := strconv.ParseUint(text, 10, 31)
	if err == nil && (n < 1 || n > workersMost) {
		err = strconv.ErrRange
	}
	return int(n), err
}

// watchValue is --watch, alone or with a path, and repeatable.
type watchValue struct {
	on      bool
	program bool // it was given without a path
	paths   []string
}

func (v *watchValue) Set(text string) error {
	switch text {
	case "false":
		*v = watchValue{}
	case "true":
		v.on, v.program = true, true
	case "":
		return errors.New("it is a path, or nothing at all for the program itself")
	default:
		v.on, v.paths = true, append(v.paths, text)
	}
	return nil
}
func (v *watchValue) String() string   { return "" }
func (v *watchValue) IsBoolFlag() bool { return true }

// signalValue is --stop-signal.
type signalValue struct{ sig syscall.Signal }

func (v *signalValue) Set(text string) (err error) {
	if v.sig, err = parseSignal(text); err != nil {
		return fmt.Errorf("there is no such signal on %s", runtime.GOOS)
	}
	if v.sig == syscall.SIGSTOP || v.sig == syscall.SIGCONT {
		return errors.New("it ends no program")
	}
	return nil
}
func (v *signalValue) String() string { return "" }

// respawnValue is --respawn.
type respawnValue struct {
	policy respawnPolicy
	most   int // 0: for ever
}

func (v *respawnValue) Set(text string) error {
	policy, number, given := strings.Cut(text, ":")
	most := defaultRespawn
	if given {
		if _, err := fmt.Sscanf(number, "%d", &most); err != nil || most < 0 || fmt.Sprint(most) != number {
			return errors.New("after the colon comes a number of failures, 0 for no limit")
		}
	}
	switch p := respawnPolicy(policy); p {
	case respawnAlways, respawnOnFailure, respawnNever:
		*v = respawnValue{p, most}
		return nil
	}
	return errors.New("it is always, on-failure or never, and may end in :N")
}
func (v *respawnValue) String() string { return fmt.Sprintf("%s:%d", v.policy, v.most) }

// options are hotwrap's own, each an environment variable too: --stop-delay is HOTWRAP_STOP_DELAY.
func (cfg *config) options() []cli.Flag {
	generic := func(name string, v cli.Generic, aliases ...string) cli.Flag {
		return &cli.GenericFlag{Name: name, Value: v, Aliases: aliases}
	}
	text := func(name string, to *string, aliases ...string) cli.Flag {
		return &cli.StringFlag{Name: name, Destination: to, Value: *to, Aliases: aliases}
	}
	flag := func(name string, to *bool, aliases ...string) cli.Flag {
		return &cli.BoolFlag{Name: name, Destination: to, Value: *to, Aliases: aliases}
	}
	cfg.workers.n = 1
	cfg.adopt = adoptAuto
	cfg.ready = readyValue{mode: readyAuto}
	cfg.respawn = respawnValue{respawnAlways, defaultRespawn}
	cfg.readyTimeout.d = defaultReadyTimeout
	cfg.logFormat = "text"
	cfg.debounce.d = defaultDebounce
	cfg.die = cfg.terminal && canDie
	return []cli.Flag{
		generic("listen", listens{&cfg.listens}, "l"),
		generic("adopt", &cfg.adopt),
		flag("no-overlap", &cfg.noOverlap),
		generic("env", &cfg.env, "e"),
		text("env-file", &cfg.envFile),
		text("user", &cfg.user, "u"),
		text("dir", &cfg.dir, "C"),
		generic("workers", &cfg.workers, "n"),
		generic("surge", &cfg.surge),
		text("check", &cfg.check),
		generic("ready", &cfg.ready),
		generic("ready-timeout", &cfg.readyTimeout),
		generic("bake", &cfg.bake),
		generic("stop-signal", &cfg.stopSignal),
		generic("drain-timeout", &cfg.drainTimeout),
		generic("respawn", &cfg.respawn),
		generic("stop-delay", &cfg.stopDelay),
		generic("stop-timeout", &cfg.stopTimeout),
		generic("watch", &cfg.watch, "w"),
		text("build", &cfg.build),
		text("src", &cfg.src),
		generic("ignore", &cfg.ignore, "i"),
		flag("clear", &cfg.clear, "c"),
		generic("debounce", &cfg.debounce),
		flag("stdin", &cfg.stdin),
		flag("die-with-parent", &cfg.die),
		text("log-file", &cfg.logFile),
		flag("capture", &cfg.capture),
		flag("log-stamp", &cfg.logStamp),
		text("name", &cfg.name),
		text("control-group", &cfg.controlGroup),
		text("http", &cfg.http),
		generic("hook", hookValues{&cfg.hooks}),
		text("pid-file", &cfg.pidFile),
		text("log-format", &cfg.logFormat),
		flag("quiet", &cfg.quiet, "q"),
		flag("verbose", &cfg.verbose, "v"),
	}
}

// optionVariables are the environment variables of all options: the program does not inherit them.
func optionVariables() []string {
	var names []string
	for _, f := range (&config{}).options() {
		names = append(names, variable(f.Names()[0]))
	}
	return names
}

func variable(option string) string {
	return "HOTWRAP_" + strings.ToUpper(strings.ReplaceAll(option, "-", "_"))
}

// newApp is the option library with its own help, version, messages and exits all turned off: it would
// print to standard output and leave behind our back.
func newApp(flags []cli.Flag, action cli.ActionFunc) *cli.App {
	return &cli.App{
		Name: "hotwrap", HideHelp: true, HideHelpCommand: true, HideVersion: true,
		Writer: io.Discard, ErrWriter: io.Discard, UseShortOptionHandling: true,
		DisableSliceFlagSeparator: true,
		Flags:                     flags,
		OnUsageError:              func(_ *cli.Context, err error, _ bool) error { return err },
		ExitErrHandler:            func(*cli.Context, error) {},
		Action:                    action,
	}
}

// parseOptions reads options and their variables into cfg and returns what is neither.
func (cfg *config) parseOptions(args, environ []string) (rest []string, err error) {
	var help, showVersion bool
	app := newApp(append(cfg.options(),
		&cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Destination: &help},
		&cli.BoolFlag{Name: "version", Aliases: []string{"V"}, Destination: &showVersion},
	), func(c *cli.Context) error {
		rest = c.Args().Slice()
		cfg.overlapSet = c.IsSet("no-overlap")
		if err := refuseEmpty(c); err != nil {
			return err
		}
		return cfg.readVariables(c, environ)
	})
	if err := app.Run(append([]string{"hotwrap"}, joinedShort(args)...)); err != nil {
		return nil, plainUsage(err)
	}
	switch {
	case help:
		cfg.mode = modeHelp
	case showVersion:
		cfg.mode = modeVersion
	}
	return rest, nil
}

// refuseEmpty refuses an option whose value is empty: a shell variable that is not set, most likely, and
// "-u $APP_USER" must not mean root then.
func refuseEmpty(c *cli.Context) error {
	for _, f := range c.App.Flags {
		name := f.Names()[0]
		if _, text := f.(*cli.StringFlag); text && c.IsSet(name) && c.String(name) == "" {
			return usage("--%s \"\": it needs a value", name)
		}
	}
	return nil
}

// readVariables sets each option from its variable, unless the command line has it.
func (cfg *config) readVariables(c *cli.Context, environ []string) error {
	for _, f := range c.App.Flags {
		name := f.Names()[0]
		value := getenv(environ, variable(name))
		if value == "" || c.IsSet(name) || name == "help" || name == "version" || toldToHook(environ, name) {
			continue
		}
		values := []string{value}
		switch name {
		case "listen", "env", "watch", "ignore":
			values = splitValues(value)
		case "hook": // commands have blanks
			values = strings.Split(strings.Trim(value, "\n"), "\n")
		}
		for _, v := range values {
			if err := c.Set(name, v); err != nil {
				return usage("%s=%q: %v", variable(name), v, err)
			}
		}
		cfg.overlapSet = cfg.overlapSet || name == "no-overlap"
	}
	return nil
}

// splitValues splits the variable of an option that may be repeated: at newlines if it has any, so
// that values may have blanks, else at blanks.
func splitValues(text string) []string {
	if strings.Contains(text, "\n") {
		return strings.Split(strings.Trim(text, "\n"), "\n")
	}
	return strings.Fields(text)
}

// joinedShort splits -l:8080 into -l :8080, as getopt(3) reads it; the library does not. A letter becomes
// the long name, because the library refuses an option that is given by both.
func joinedShort(args []string) []string {
	var out []string
	for _, arg := range args {
		if len(arg) < 2 || arg[0] != '-' || longOption(arg[1:]) {
			out = append(out, arg)
			continue
		}
		letter, rest := arg[1:2], arg[2:]
		switch long := longName(letter); {
		case long != letter && (rest == "" || rest[0] == '='):
			out = append(out, "--"+long+rest)
		case strings.Contains("leuCin", letter):
			out = append(out, "--"+long, rest)
		default: // not ours, or several letters: -qv
			out = append(out, arg)
		}
	}
	return out
}

// longOption tells whether name, which followed a single dash, is a long option all the same.
func longOption(name string) bool {
	name, _, _ = strings.Cut(name, "=")
	for _, f := range (&config{}).options() {
		if f.Names()[0] == name {
			return true
		}
	}
	return false
}

// plainUsage words the library's errors as hotwrap's.
func plainUsage(err error) error {
	var u *usageError
	if errors.As(err, &u) {
		return err
	}
	text := err.Error()
	if name, ok := strings.CutPrefix(text, "flag provided but not defined: -"); ok {
		dash := "-"
		if len(name) > 1 {
			dash = "--"
		}
		return &usageError{fmt.Sprintf("no such option %s%s", dash, strings.TrimPrefix(name, "-")), "hotwrap --help lists all"}
	}
	if name, ok := strings.CutPrefix(text, "flag needs an argument: -"); ok {
		return usage("--%s: it needs a value", longName(strings.TrimPrefix(name, "-")))
	}
	var value, name, cause string
	if rest, ok := strings.CutPrefix(text, "invalid value "); ok {
		value, rest, _ = strings.Cut(rest, " for flag -")
		name, cause, _ = strings.Cut(rest, ": ")
		return usage("--%s %s: %s", longName(name), value, cause)
	}
	if rest, ok := strings.CutPrefix(text, "invalid boolean value "); ok {
		value, rest, _ = strings.Cut(rest, " for -")
		if name, cause, _ = strings.Cut(rest, ": "); cause == "parse error" {
			cause = "it is true or false"
		}
		return usage("--%s %s: %s", longName(name), value, cause)
	}
	return usage("%s", text)
}

// longName is the long name of an option that may be given by its letter.
func longName(name string) string {
	for _, f := range (&config{}).options() {
		for _, n := range f.Names() {
			if n == name {
				return f.Names()[0]
			}
		}
	}
	return name
}

// goOn serves in the place of the hotwrap that this process was before, or becomes that one again.
func goOn(args []string, t *takenOver, err error, stderr io.Writer) int {
	var cfg *config
	if err == nil {
		cfg, err = parseArgs(args, os.Environ())
	}
	if err == nil && cfg.mode != modeServe {
		err = errors.New("cannot take over: the command line is understood differently")
	}
	if err != nil {
		return t.giveBack(stderr, err)
	}
	return serve(cfg, stderr, t)
}

// giveBack makes the hotwrap go on that was there before; if that is this one, nobody can.
func (t *takenOver) giveBack(stderr io.Writer, err error) int {
	if t.refused == "" {
		err = t.goBack(t.memory, err)
	}
	return report(stderr, &strandedError{err})
}

// serve runs the program until the end of it, or of hotwrap. t is a hotwrap that it goes on with; nil: none.
func serve(cfg *config, stderr io.Writer, t *takenOver) int {
	nohup := hupIgnored()
	caught, _ := catchSignals()
	takeSignals()
	events := make(chan event)
	out, err := outputsFor(cfg, events, t)
	if err != nil {
		return t.giveBack(stderr, err)
	}
	voice := out.voice(stderr) // where it is taken over, nothing is written to it before settle
	h := newHost(newPrinter(voice, cfg.logFormat == "json", cfg.least(), os.Environ()), events, out, nohup)
	h.caught = caught
	if t != nil {
		err = h.restore(cfg, t.written)
	} else {
		err = h.setUp(cfg)
	}
	if err != nil && t != nil {
		defer runtime.KeepAlive(h) // its descriptors go back too
		return t.giveBack(stderr, err)
	}
	defer h.shut()
	if err != nil {
		close(h.done) // what was started already may be posting
		h.fail(err)
		h.others = h.legacy != nil
		return execStatus(err)
	}
	s := &supervisor{limits: h.limits, world: h.world()}
	h.listenToSignals()
	h.begin(s, t)
	h.keepState(cfg, s)
	if err := h.orphans.watch(h.events); err != nil {
		h.say(warning("%v", err))
	}
	keepThreads() // the first generation does not wait for them
	h.admit()
	return h.runUntilEnd(cfg, s, voice)
}

// begin has s go on with what another hotwrap has begun, or start the first generation.
func (h *host) begin(s *supervisor, t *takenOver) {
	switch {
	case t != nil:
		h.settle(t.written)
		s.state = t.State
		s.arrived(t.Hotwrap, t.refused, t.leftAt())
		t.hear(h.caught)
		t.forget()
	case h.legacy != nil:
		s.recover(h.legacy.w.State, *h.legacy.w.Who)
	default:
		s.start()
	}
}

// runUntilEnd runs the supervisor until everything has ended, or another hotwrap goes on in the place of this one.
func (h *host) runUntilEnd(cfg *config, s *supervisor, stderr io.Writer) int {
	seen := func(ev event) { h.note(s, ev) }
	if cfg.trace {
		trace := traceTo(stderr, s)
		seen = func(ev event) {
			h.note(s, ev)
			trace(ev)
		}
	}
	status := s.run(h.events, seen)
	for s.leaving {
		err := h.depart(s)
		var stranded *strandedError
		if errors.As(err, &stranded) {
			h.others = true
			return report(os.Stderr, err)
		}
		s.leaving = false
		s.stay(err.Error())
		status = s.run(h.events, seen)
	}
	close(h.done)
	_ = h.signals.stop()
	return status
}

// outputsFor are the ways of the program's output, new or taken over.
func outputsFor(cfg *config, events chan<- event, t *takenOver) (*outputs, error) {
	if t == nil {
		return newOutputs(cfg, os.Environ(), events), nil
	}
	return restoreOutputs(cfg, os.Environ(), events, t.Outputs)
}

// least is the least serious level that is shown.
func (cfg *config) least() level {
	switch {
	case cfg.verbose:
		return levelVerbose
	case cfg.quiet:
		return levelWarning
	}
	return levelInfo
}

const helpHead = `Restart any server without losing a connection.

Usage: hotwrap [OPTION]... -- PROGRAM [ARG]...
       hotwrap COMMAND [OPTION]... [NAME|PID]

  hotwrap -l :8080 -- ./myapp            serve; the socket outlives every restart
  hotwrap restart                        replace ./myapp; exit 0: the new one serves
  hotwrap -l :8080 -w -- ./myapp         restart at every rebuild

hotwrap --help lists commands and options.
`

const helpText = `Restart any server without losing a connection.

Usage: hotwrap [OPTION]... -- PROGRAM [ARG]...
       hotwrap COMMAND [OPTION]... [NAME|PID]

  hotwrap -l :8080 -- ./myapp            serve; the socket outlives every restart
  hotwrap restart                        replace ./myapp; exit 0: the new one serves
  hotwrap -l :8080 -w -- ./myapp         restart at every rebuild

Commands (NAME may be left out where one instance runs):
  restart   start a successor, wait for the verdict
              [-m TEXT] [--wait promoted|drained|none] [--timeout DUR] [--json]
  rollback  go back to the build that served before; the same options
  status    builds, listeners, what a drain waits for   [--json] [-q]
  stop      drain and exit   [--now] [-m TEXT] [--timeout DUR] [--json]
  signal    send the workers a signal: signal HUP [NAME]   [--json]
  reexec    replace hotwrap itself; nothing else notices   [--all]
  doctor    what this machine permits; with -- PROGRAM, try restarts under load

Sockets:
  -l, --listen [NAME=]ADDR[,OPT]...  8080, 127.0.0.1:8080, udp::53, /run/a.sock,mode=0660
      --adopt auto|always|never      for a program that binds by itself (Linux) [auto]
      --no-overlap                   stop the old, then start the new; clients queue

Program:
  -e, --env KEY=VALUE                {fd} {addr} {port} are filled in, as in ARGs
      --env-file PATH                file or envdir, read at each restart
  -u, --user USER[:GROUP]
  -C, --dir DIR                      resolved at each restart
  -n, --workers N|auto               [1]
      --stdin                        the terminal is the program's

Restart:
      --check CMD                    must succeed first: 'myapp -t'
      --ready HOW                    auto, notify, URL, fd=N, alive=DUR [auto]
      --ready-timeout DUR            [60s]
      --bake DUR                     then it must live this long [1s; terminal: 0]
      --stop-signal SIG              [by program, else TERM]
      --drain-timeout DUR            the old one finishes, then KILL [30s; terminal: 3s]
      --respawn always|on-failure|never[:N]   N failures in a row end it [always:10]

Stop:
      --stop-delay DUR               serve on after TERM until balancers know [0s]
      --stop-timeout DUR             [--drain-timeout]

Watch:
  -w, --watch[=PATH]                 the program; or a file, tree, glob
      --build CMD                    run when --src changes, restart if the program did
      --src PATH                     [., without what git ignores]
  -i, --ignore GLOB   -c, --clear
      --debounce DUR                 [100ms]

Operation:
      --name NAME                    [systemd unit, else script or program]
      --control-group GROUP          may restart, roll back, look
      --http ADDR                    /metrics /events /status, read-only
      --hook EVENT=CMD               ready, switch, failed, drained, stop
      --pid-file FILE
      --log-file FILE                the program's output; USR1 reopens it
      --log-format text|json   -q, --quiet   -v, --verbose   --version

Every --some-option is also $HOTWRAP_SOME_OPTION.
HUP restarts. TERM, INT, QUIT stop; INT twice kills. TTIN, TTOU: a worker more, fewer.
USR2 replaces hotwrap itself.
`
