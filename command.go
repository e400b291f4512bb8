package main

// This file reads the command lines of hotwrap COMMAND, and has their help.
//
// Its rules: options may stand before and after the NAME; what is not understood is a usage error that names it,
// with a hint where another tool spells it so; nothing is asked of anybody then.

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"github.com/urfave/cli/v2"
)

// Exit statuses of commands. DESIGN has them for restart; the others use the same where it makes sense.
const (
	exitDone    = 0 // the new one serves; it serves; everybody ended in time
	exitFailed  = 1 // and what served before serves on; nothing serves; somebody had to be killed
	exitUsage   = 2 // the command was called wrongly
	exitNobody  = 3 // no such instance
	exitUnknown = 4 // gave up waiting, or lost hotwrap
	exitOther   = 5 // superseded or stopped
)

// verb is one of hotwrap's commands.
type verb struct {
	names   []string // the first is its own
	options []string // of errand.options
	help    string
	run     func(*asker, context.Context) int
}

// verbs are all there are.
var verbs = []*verb{
	{[]string{"restart", "reload", "upgrade"}, []string{"message", "wait", "timeout", "canary", "canary-check", "json"}, restartHelp, (*asker).restart},
	{[]string{"rollback"}, []string{"message", "wait", "timeout", "json"}, rollbackHelp, (*asker).restart},
	{[]string{"status"}, []string{"json", "quiet"}, statusHelp, (*asker).status},
	{[]string{"stop"}, []string{"now", "message", "timeout", "json"}, stopHelp, (*asker).stop},
	{[]string{"signal"}, []string{"json"}, signalHelp, (*asker).signal},
	{[]string{"reexec"}, []string{"all", "message", "timeout", "json"}, reexecHelp, (*asker).reexec},
}

// verbNamed finds a command by any of its names; nil if there is none.
func verbNamed(name string) *verb {
	for _, c := range verbs {
		if slices.Contains(c.names, name) {
			return c
		}
	}
	return nil
}

func (c *verb) name() string { return c.names[0] }

// errand is one command line.
type errand struct {
	verb    *verb
	target  string // NAME or PID; "" none
	message textValue
	wait    waitValue
	timeout duration
	sig     syscall.Signal
	canary  canaryValue
	check   string

	json, quiet, now, all, help bool
}

// textValue is an option's text; an empty one is as good as any. The library sets an option that has a letter once
// more, to what it shows.
type textValue string

func (v *textValue) Set(text string) error { *v = textValue(text); return nil }
func (v *textValue) String() string        { return string(*v) }

// canaryValue is --canary, as it is written.
type canaryValue string

func (v *canaryValue) Set(text string) error {
	*v = canaryValue(text)
	_, err := parseCanary(text)
	return err
}
func (v *canaryValue) String() string { return string(*v) }

// waitValue is --wait.
type waitValue string

const (
	waitPromoted waitValue = "promoted"
	waitDrained  waitValue = "drained"
	waitNone     waitValue = "none"
)

func (v *waitValue) Set(text string) error {
	switch w := waitValue(text); w {
	case waitPromoted, waitDrained, waitNone:
		*v = w
		return nil
	}
	return errors.New("it is promoted, drained or none")
}
func (v *waitValue) String() string { return string(*v) }

// options are those that the errand's command has.
func (o *errand) options() []cli.Flag {
	all := []cli.Flag{
		&cli.GenericFlag{Name: "message", Aliases: []string{"m"}, Value: &o.message},
		&cli.GenericFlag{Name: "wait", Value: &o.wait},
		&cli.GenericFlag{Name: "timeout", Value: &o.timeout},
		&cli.GenericFlag{Name: "canary", Value: &o.canary},
		&cli.StringFlag{Name: "canary-check", Destination: &o.check},
		&cli.BoolFlag{Name: "json", Destination: &o.json},
		&cli.BoolFlag{Name: "quiet", Aliases: []string{"q"}, Destination: &o.quiet},
		&cli.BoolFlag{Name: "now", Destination: &o.now},
		&cli.BoolFlag{Name: "all", Destination: &o.all},
	}
	has := slices.DeleteFunc(all, func(f cli.Flag) bool { return !slices.Contains(o.verb.options, f.Names()[0]) })
	return append(has, &cli.BoolFlag{Name: "help", Aliases: []string{"h"}, Destination: &o.help})
}

// parse reads what follows the command's name.
func (c *verb) parse(args []string) (*errand, error) {
	o := &errand{verb: c, wait: waitPromoted}
	if slices.Contains(args, "--") {
		return nil, &usageError{
			fmt.Sprintf("hotwrap %s takes no program", c.name()),
			"hotwrap --help tells the two ways to call it apart",
		}
	}
	flags := o.options()
	options, names := sortOptions(args, flags)
	if err := foreignTo(c, options, flags); err != nil {
		return nil, err
	}
	app := newApp(flags, func(*cli.Context) error { return nil })
	if err := app.Run(append([]string{"hotwrap"}, options...)); err != nil {
		var u *usageError
		if err = plainUsage(err); errors.As(err, &u) && strings.HasPrefix(u.text, "no such option") {
			u.hint = fmt.Sprintf("hotwrap %s --help lists all", c.name())
		}
		return nil, err
	}
	if o.help {
		return o, nil
	}
	if flagIn(flags, "canary-check") != nil {
		if err := o.checkCanary(slices.ContainsFunc(options, func(option string) bool { return strings.HasPrefix(option, "--canary-check") })); err != nil {
			return nil, err
		}
	}
	return o, o.readNames(names)
}

// checkCanary checks what --canary and --canary-check cannot know of each other.
func (o *errand) checkCanary(checks bool) error {
	switch {
	case checks && strings.TrimSpace(o.check) == "":
		return usage("--canary-check \"\": it needs a value")
	case checks && o.canary == "":
		return &usageError{"--canary-check is for --canary", "hotwrap restart --canary 5%:2m --canary-check CMD"}
	}
	if err := checkCommand(o.check); err != nil {
		return usage("--canary-check: %v", err)
	}
	return nil
}

// sortOptions puts the options, each with its value in one argument and by its long name, apart from the names.
func sortOptions(args []string, flags []cli.Flag) (options, names []string) {
	for i := 0; i < len(args); i++ {
		arg := args[i]
		if len(arg) < 2 || arg[0] != '-' {
			names = append(names, arg)
			continue
		}
		name, value, given := strings.Cut(strings.TrimPrefix(arg[1:], "-"), "=")
		f := flagIn(flags, name)
		if f == nil && arg[1] != '-' { // -mTEXT
			if f = flagIn(flags, arg[1:2]); f != nil {
				value, given = arg[2:], true
			}
		}
		if f == nil {
			options = append(options, arg)
			continue
		}
		_, alone := f.(*cli.BoolFlag)
		if !given && !alone && i+1 < len(args) {
			i++
			value, given = args[i], true
		}
		option := "--" + f.Names()[0]
		if given {
			option += "=" + value
		}
		options = append(options, option)
	}
	return options, names
}

func flagIn(flags []cli.Flag, name string) cli.Flag {
	for _, f := range flags {
		if slices.Contains(f.Names(), name) {
			return f
		}
	}
	return nil
}

// readNames reads what is no option.
func (o *errand) readNames(names []string) error {
	c := o.verb
	if c.name() == "signal" {
		if len(names) == 0 {
			return &usageError{"hotwrap signal: no signal given", "hotwrap signal HUP [NAME]"}
		}
		sig, err := parseSignal(names[0])
		if err != nil {
			u := &usageError{fmt.Sprintf("%q is no signal", names[0]), "hotwrap signal HUP [NAME]"}
			if _, swapped := parseSignal(names[len(names)-1]); swapped == nil {
				u.hint = "the signal comes first: hotwrap signal " + names[len(names)-1] + " " + names[0]
			}
			return u
		}
		o.sig, names = sig, names[1:]
	}
	switch {
	case o.all && len(names) > 0:
		return usage("--all and %q: it is one or the other", names[0])
	case len(names) > 1:
		return &usageError{
			fmt.Sprintf("hotwrap %s: one NAME or PID, not %d", c.name(), len(names)),
			"each instance has a command of its own",
		}
	case len(names) == 1:
		if err := checkTarget(names[0]); err != nil {
			return err
		}
		o.target = names[0]
	}
	switch {
	case o.json && o.quiet:
		return usage("--json and --quiet: it is one or the other")
	case o.timeout.set && o.timeout.d == 0:
		return &usageError{"--timeout \"0\": nothing is done in no time", "without it nobody gives up; --wait none does not wait"}
	}
	return nil
}

// checkTarget checks a NAME or PID. An empty one comes of a shell variable that is not set, and must not mean
// whichever instance runs.
func checkTarget(text string) error {
	switch {
	case text == "":
		return usage("\"\": it is neither a NAME nor a PID")
	case strings.Trim(text, "0123456789") == "":
		if n, err := strconv.ParseInt(text, 10, 32); err != nil || n == 0 {
			return usage("%q is no PID", text)
		}
		return nil
	case strings.Contains(text, "/"):
		return &usageError{fmt.Sprintf("%q is no NAME", text), "a socket is said so: HOTWRAP_CONTROL=" + text + " hotwrap …"}
	}
	if err := checkName(text); err != nil {
		return usage("%q is no NAME: %v", text, err)
	}
	return nil
}

// foreignCommand are spellings of other tools' commands, with ours.
var foreignCommand = map[string]string{
	"--no-wait": "--wait none", "--no-block": "--wait none", "--async": "--wait none", "--detach": "--wait none", "-d": "--wait none",
	"--force": "hotwrap stop --now", "-f": "hotwrap stop --now", "--kill": "hotwrap stop --now", "-9": "hotwrap stop --now",
	"--pid": "the PID in the place of NAME", "-p": "the PID in the place of NAME",
	"--name": "the NAME without an option", "-n": "the NAME without an option",
	"--signal": "hotwrap signal SIG [NAME]", "-s": "hotwrap signal SIG [NAME]",
	"-o": "--json", "--output": "--json", "--format": "--json",
	"--socket": "HOTWRAP_CONTROL=PATH hotwrap …", "-S": "HOTWRAP_CONTROL=PATH hotwrap …", "-c": "HOTWRAP_CONTROL=PATH hotwrap …",
	"--reason": "--message (-m)", "--comment": "--message (-m)",
	"--graceful": "nothing: it always is", "--wait-timeout": "--timeout", "-t": "--timeout",
}

// foreignTo hints at our name for another tool's option.
func foreignTo(c *verb, options []string, flags []cli.Flag) error {
	for _, option := range options {
		name, _, _ := strings.Cut(option, "=")
		if flagIn(flags, strings.TrimLeft(name, "-")) != nil {
			continue
		}
		ours, ok := foreignCommand[name]
		if c.name() == "signal" {
			if _, err := parseSignal(strings.TrimLeft(name, "-")); err == nil {
				ours, ok = "hotwrap signal "+strings.TrimLeft(name, "-")+" [NAME]", true
			}
		}
		if ok {
			return &usageError{fmt.Sprintf("no such option %s", name), "hotwrap calls it " + ours}
		}
	}
	return nil
}

// main runs one command; it returns the exit status.
func (c *verb) main(args, environ []string, stdout, stderr io.Writer) int {
	o, err := c.parse(args)
	if err != nil {
		_ = report(stderr, err)
		return exitUsage
	}
	if o.help {
		_, _ = io.WriteString(stdout, c.help)
		return exitDone
	}
	ctx, stop := o.patience()
	defer stop()
	cl := &asker{errand: o, stdout: stdout, stderr: stderr}
	if o.all {
		return cl.each(ctx, environ)
	}
	cl.at, err = findInstance(ctx, environ, o.target)
	switch {
	case err != nil && ctx.Err() != nil:
		return cl.refuse(&findError{fmt.Sprintf("%v; nothing was asked of anybody", context.Cause(ctx)), "", exitUnknown})
	case err != nil:
		return cl.refuse(err)
	}
	cl.http, cl.inside = cl.at.httpClient(), generationOf(environ, cl.at.path)
	return c.run(cl, ctx)
}

// each runs the command for every instance that is ours to command, one after the other; the worst exit status counts. As
// everywhere, who says $HOTWRAP_RUNTIME_DIR means those that are there.
func (a *asker) each(ctx context.Context, environ []string) (worst int) {
	k := newSeeker(environ, "")
	all := k.visitAll(ctx, k.contacts())
	fit := slices.DeleteFunc(all, func(p *contact) bool { return p.standing != contactAnswers || !k.root && !p.peer.owns() || !k.means(p) })
	if len(fit) == 0 {
		a.say("", "no instance runs")
	}
	for _, p := range fit {
		one := *a
		one.at, one.http, one.inside = p, p.httpClient(), generationOf(environ, p.path)
		a.say("", "%s, pid %d", p.name(), p.pid())
		worst = max(worst, a.verb.run(&one, ctx))
	}
	return worst
}

// generationOf is the generation of the instance at path in whose worker's environment we run; 0 none.
func generationOf(environ []string, path string) int {
	ours, err1 := os.Stat(getenv(environ, "HOTWRAP_CONTROL"))
	its, err2 := os.Stat(path)
	if err1 != nil || err2 != nil || !os.SameFile(ours, its) {
		return 0
	}
	n, _ := strconv.Atoi(getenv(environ, "HOTWRAP_GENERATION"))
	return n
}

const restartHelp = `Start a successor, wait until it serves or has failed, and say which.

Usage: hotwrap restart [OPTION]... [NAME|PID]

  -m, --message TEXT   why; status and verdict show it
      --wait WHAT      promoted: until the successor serves; drained: until its predecessor
                       has finished, too; none: until the request is accepted [promoted]
      --timeout DUR    give up waiting; the restart goes on
      --canary STEPS   the successor gets a share of the new connections before it gets all:
                       5%:2m, or 1%:1m,10%:5m; it fails back, hotwrap rollback ends it
      --canary-check CMD  run in each step; if it fails, so does the successor
      --json           the verdict on standard output, and nothing else

` + nameHelp + restartStatusHelp

const rollbackHelp = `Go back to the build that served before, with its own arguments and environment.

Usage: hotwrap rollback [OPTION]... [NAME|PID]

  -m, --message TEXT   why; status and verdict show it
      --wait WHAT      promoted: until it serves; drained: until its predecessor has
                       finished, too; none: until the request is accepted [promoted]
      --timeout DUR    give up waiting; the rollback goes on
      --json           the verdict on standard output, and nothing else

` + nameHelp + restartStatusHelp

const restartStatusHelp = `Exit status: 0 it serves, 1 it failed and what served before serves on, 2 wrong usage,
3 no such instance, 4 unknown (gave up waiting, or lost hotwrap), 5 superseded or stopped.
`

const statusHelp = `Show builds, workers, listeners, and what a drain waits for.

Usage: hotwrap status [OPTION]... [NAME|PID]

      --json           all of it, on standard output
  -q, --quiet          nothing but the exit status

` + nameHelp + `Exit status: 0 serving, 1 not, 2 wrong usage, 3 no such instance, 4 it does not answer.
`

const stopHelp = `Drain everything and exit.

Usage: hotwrap stop [OPTION]... [NAME|PID]

      --now            kill what is left instead of waiting for it
  -m, --message TEXT   why; the verdict shows it
      --timeout DUR    give up waiting; the stop goes on
      --json           the verdict on standard output, and nothing else

` + nameHelp + `Exit status: 0 everybody ended in time, 1 somebody had to be killed, 2 wrong usage,
3 no such instance, 4 unknown (gave up waiting, or lost hotwrap).
`

const reexecHelp = `Replace hotwrap itself by the one that lies on disk now; the program and its clients notice nothing.

Usage: hotwrap reexec [OPTION]... [NAME|PID]

      --all            every instance of yours, or of anybody's if you are root; with
                       $HOTWRAP_RUNTIME_DIR those in that directory
  -m, --message TEXT   why; the verdict shows it
      --timeout DUR    give up waiting; the re-exec goes on
      --json           the verdict on standard output, and nothing else

The new hotwrap is asked first whether it can take over. If it cannot, the old one goes on.

` + nameHelp + `Exit status: 0 replaced, 1 the old one goes on, 2 wrong usage, 3 no such instance,
4 unknown (gave up waiting, or lost hotwrap), 5 hotwrap stops.
`

const signalHelp = `Send a signal to the workers: to each one's own process, not to its children.

Usage: hotwrap signal SIG [OPTION]... [NAME|PID]

      --json           who got it, on standard output

` + nameHelp + `Exit status: 0 sent, 1 no worker runs, 2 wrong usage, 3 no such instance, 4 it does not answer.
`

const nameHelp = `NAME may be left out where one instance runs; a PID is that of its hotwrap. $HOTWRAP_CONTROL, which
a program of hotwrap finds in its environment, is that instance's socket.
`
