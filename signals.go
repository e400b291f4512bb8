package main

// This file knows signals: their names, and what each one asks of hotwrap.
//
// The rules are:
//   - a name is accepted with and without SIG, in any case, or as a number; it is always printed with SIG
//   - numbers differ between systems, so they come from x/sys and nowhere from here
//   - only what catchSignals lists ever reaches hotwrap; nothing is forwarded from here
//   - a signal says what is wanted; whether that makes sense now is decided by the supervisor

import (
	"fmt"
	"os"
	"os/signal"
	"path/filepath"
	"runtime"
	"slices"
	"strconv"
	"strings"
	"syscall"

	"hotwrap/early"

	"golang.org/x/sys/unix"
)

// signalEvent is what a signal asks of hotwrap.
type signalEvent int

const (
	signalNone    signalEvent = iota // not one of ours
	signalRestart                    // HUP
	signalStop                       // TERM, INT, QUIT
	signalReopen                     // USR1: log files
	signalReexec                     // USR2
	signalMore                       // TTIN: one worker more
	signalFewer                      // TTOU: one worker fewer
	signalChild                      // CHLD: somebody can be reaped
	signalDrop                       // PIPE: caught so that a broken stderr does not kill us, then forgotten
)

func (e signalEvent) String() string {
	switch e {
	case signalNone:
		return "none"
	case signalRestart:
		return "restart"
	case signalStop:
		return "stop"
	case signalReopen:
		return "reopen"
	case signalReexec:
		return "reexec"
	case signalMore:
		return "more"
	case signalFewer:
		return "fewer"
	case signalChild:
		return "child"
	case signalDrop:
		return "drop"
	}
	return fmt.Sprintf("signalEvent(%d)", int(e))
}

// signalEvents says it of all that hotwrap listens to, early.Signals.
var signalEvents = map[os.Signal]signalEvent{
	syscall.SIGHUP:  signalRestart,
	syscall.SIGTERM: signalStop,
	syscall.SIGINT:  signalStop,
	syscall.SIGQUIT: signalStop,
	syscall.SIGUSR1: signalReopen,
	syscall.SIGUSR2: signalReexec,
	syscall.SIGTTIN: signalMore,
	syscall.SIGTTOU: signalFewer,
	syscall.SIGCHLD: signalChild,
	syscall.SIGPIPE: signalDrop,
}

// eventOf says what a caught signal asks for; signalNone where it asks for nothing.
func eventOf(sig os.Signal) signalEvent {
	return signalEvents[sig]
}

// catchSignals starts to listen to every signal of ours. It is the first thing that run does, so
// that none kills us half way into the start; stop gives the signals back to the system's defaults.
func catchSignals() (sigs chan os.Signal, stop func()) {
	caught := early.Caught
	if caught == nil {
		caught = make(chan os.Signal, early.Room)
		signal.Notify(caught, early.Signals...)
	}
	return caught, func() { signal.Stop(caught) }
}

// hupIgnored says whether HUP was ignored when we were started, as nohup(1) does. It must be asked
// before catchSignals, which ends the ignoring.
func hupIgnored() bool {
	return signal.Ignored(syscall.SIGHUP)
}

// signalAliases are names that x/sys does not give, or gives on some systems only.
var signalAliases = map[string]syscall.Signal{
	"SIGABRT": syscall.SIGABRT, // FreeBSD's table calls it SIGIOT
	"SIGIOT":  syscall.SIGABRT,
	"SIGCLD":  syscall.SIGCHLD,
	"SIGPOLL": syscall.SIGIO,
}

// realtimeSignals are the first and last real-time signal; none where last is below first. On Linux
// the C libraries keep 32 and 33 for themselves: signal(7), "Real-time signals".
func realtimeSignals() (first, last syscall.Signal) {
	switch runtime.GOOS {
	case "linux":
		return 34, 64
	case "freebsd":
		return 65, 126
	}
	return 0, -1
}

// parseSignal reads TERM, SIGTERM, sigterm, 15, RTMIN+3 or RTMAX-1.
func parseSignal(text string) (syscall.Signal, error) {
	if n, err := strconv.Atoi(text); err == nil {
		if sig := syscall.Signal(n); knownSignal(sig) {
			return sig, nil
		}
		return 0, fmt.Errorf("cannot read signal %q: no such number on %s", text, runtime.GOOS)
	}
	name := "SIG" + strings.TrimPrefix(strings.ToUpper(text), "SIG")
	if sig := unix.SignalNum(name); sig != 0 {
		return sig, nil
	}
	if sig, ok := signalAliases[name]; ok {
		return sig, nil
	}
	if sig, ok := parseRealtime(name); ok {
		return sig, nil
	}
	return 0, fmt.Errorf("cannot read signal %q: no such name on %s", text, runtime.GOOS)
}

// parseRealtime reads SIGRTMIN, SIGRTMIN+N, SIGRTMAX and SIGRTMAX-N.
func parseRealtime(name string) (syscall.Signal, bool) {
	first, last := realtimeSignals()
	base, offset := first, strings.TrimPrefix(name, "SIGRTMIN")
	sign := "+"
	if offset == name {
		base, offset, sign = last, strings.TrimPrefix(name, "SIGRTMAX"), "-"
	}
	if offset == name || first > last {
		return 0, false
	}
	if offset == "" {
		return base, true
	}
	// The digits alone are read as unsigned, or "RTMIN+-1" would be a signal of the C library.
	digits, ok := strings.CutPrefix(offset, sign)
	n, err := strconv.ParseUint(digits, 10, 8)
	if !ok || err != nil || n > uint64(last-first) {
		return 0, false
	}
	if sign == "-" {
		return base - syscall.Signal(n), true
	}
	return base + syscall.Signal(n), true
}

// knownSignal says whether the number is a signal that can be sent here.
func knownSignal(sig syscall.Signal) bool {
	first, last := realtimeSignals()
	return unix.SignalName(sig) != "" || (sig >= first && sig <= last)
}

// signalName is the name as people write it: SIGTERM, SIGRTMIN+3; a number where there is none.
func signalName(sig syscall.Signal) string {
	first, last := realtimeSignals()
	switch name := unix.SignalName(sig); {
	case sig == syscall.SIGABRT:
		return "SIGABRT"
	case name != "":
		return name
	case sig == first && first <= last:
		return "SIGRTMIN"
	case sig > first && sig <= last:
		return fmt.Sprintf("SIGRTMIN+%d", sig-first)
	}
	return fmt.Sprintf("signal %d", int(sig))
}

// stopSignals are the programs for which TERM is the fast stop, which cuts connections, and the
// signal that lets each finish what it has.
var stopSignals = map[string]syscall.Signal{
	"nginx":         syscall.SIGQUIT,
	"openresty":     syscall.SIGQUIT,
	"unicorn":       syscall.SIGQUIT,
	"unicorn_rails": syscall.SIGQUIT,
	"php-fpm":       syscall.SIGQUIT,
	"starman":       syscall.SIGQUIT,
	"haproxy":       syscall.SIGUSR1,
	"lighttpd":      syscall.SIGINT,
	"httpd":         syscall.SIGWINCH,
	"apache2":       syscall.SIGWINCH,
}

// launchers run the program that their first plain argument names, in their own process.
var launchers = []string{"env", "exec", "nice", "nohup", "perl", "php", "python", "ruby", "bundle", "sh", "bash", "dash"}

// stopSignalOf is the stop signal of a program with that name, which may end in a version: php-fpm8.2, ruby3.1. 0: TERM.
func stopSignalOf(name string) syscall.Signal {
	if sig, ok := stopSignals[name]; ok {
		return sig
	}
	return stopSignals[unversioned(name)]
}

func unversioned(name string) string { return strings.TrimRight(name, "-.0123456789") }

// stopSignalFor says which signal makes the program finish its connections and go. Interpreters and
// launchers are seen through; where the field has no habit of its own, it is TERM.
func stopSignalFor(argv []string) syscall.Signal {
	for i := 0; i < len(argv); i++ {
		name := filepath.Base(argv[i])
		if sig := stopSignalOf(name); sig != 0 {
			return sig
		}
		if !slices.Contains(launchers, unversioned(name)) {
			break
		}
		i = skipOptions(argv, i)
	}
	return syscall.SIGTERM
}

// skipOptions returns the index of the last argument before the next plain one: options and
// assignments (env A=1) are passed over. After -c, -e and -m comes a text or a module, no file to
// run, so nothing plain is left then.
func skipOptions(argv []string, i int) int {
	for i+1 < len(argv) {
		next := argv[i+1]
		if next == "-c" || next == "-e" || next == "-m" {
			return len(argv)
		}
		if !strings.HasPrefix(next, "-") && !strings.Contains(next, "=") {
			return i
		}
		i++
	}
	return i
}
