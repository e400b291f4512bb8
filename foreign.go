package main

// This file is what other tools call hotwrap's options: who comes from one of them is told our name.
//
// Its rule: a hint only, nothing here is accepted.

import (
	"fmt"
	"strings"
)

// foreign are spellings of other tools, with ours. One letter may be several tools'; those that are ours too
// cannot be here.
var foreign = map[string]string{
	"-b": "--listen (-l)", "--bind": "--listen (-l)", "--port": "--listen (-l)", "-p": "--listen (-l)",
	"--socket": "--listen (-l)", "--path": "--listen (-l) /path/of/socket", "--backlog": "--listen ADDR,backlog=N",
	"-s": "--listen (-l) for a socket, --stop-signal for a signal",

	"-g": "--env EINHORN_SOCK_FD=N", "--command-socket-as-fd": "--env EINHORN_SOCK_FD=N",
	"-d": "HOTWRAP_RUNTIME_DIR for its own socket, --debounce for a delay", "--socket-path": "HOTWRAP_RUNTIME_DIR",
	"-E": "--env (-e)", "--environment": "--env (-e)", "--drop-env-var": "--env NAME=", "--envdir": "--env-file",
	"--update-env": "--env-file", "--no-pid": "hotwrap exec, inside of what comes between",

	"--number": "--workers (-n)", "--instances": "--workers (-n)",
	"-f": "--name", "--lockfile": "--name", "--command-name": "--name", "--pidfile": "--pid-file", "--pid": "--pid-file",
	"--status-file": "hotwrap status --json", "-D": "nothing: a service manager does that",
	"--daemonize": "nothing: a service manager does that", "--daemon": "nothing: a service manager does that",
	"--no-daemon": "nothing: it never is a daemon", "-k": "--die-with-parent; for a time to KILL --drain-timeout", "--kill-children-on-exit": "--die-with-parent",

	"--cwd": "--dir (-C)", "--chdir": "--dir (-C)", "--workdir": "--dir (-C)", "--uid": "--user (-u)",
	"--gid": "--user (-u) USER:GROUP", "--group": "--user (-u) USER:GROUP", "--nice": "nothing: start it by nice",
	"--command": "-- PROGRAM", "-command": "-- PROGRAM", "--exec": "-- PROGRAM", "-x": "-- PROGRAM",
	"--interpreter": "-- INTERPRETER SCRIPT", "--node-args": "-- node ARGS SCRIPT", "--preload": noPreload,

	"--interval": "--ready alive=DUR, and --bake DUR for how long it must live", "-start": "--ready alive=DUR",
	"-m": "--ready notify, or alive=DUR", "--ack-mode": "--ready notify, or alive=DUR", "--wait-ready": "--ready notify",
	"--listen-timeout": "--ready-timeout", "--timeout": "--ready-timeout or --drain-timeout",
	"--signal-on-hup": "--stop-signal", "--signal-on-term": "--stop-signal", "--signal": "--stop-signal",
	"--build.send_interrupt": "--stop-signal INT", "-t": "--drain-timeout", "--signal-timeout": "--drain-timeout",
	"--graceful-timeout": "--drain-timeout", "--kill-timeout": "--drain-timeout", "--build.kill_delay": "--drain-timeout",
	"--kill-old-delay": "--bake", "--stop-timeout-secs": "--stop-timeout",

	"--restart": "the command hotwrap restart, or --watch (-w)", "-r": "--watch (-w)", "--stop": "the command hotwrap stop",
	"--enable-auto-restart": byTimer, "--auto-restart-interval": byTimer, "--cron": byTimer, "--cron-restart": byTimer,
	"--no-autorestart": "--respawn never", "--exitcrash": "--respawn never", "--max-restarts": "--respawn always:N",
	"--seconds": byBackoff, "--restart-delay": byBackoff, "--exp-backoff-restart-delay": byBackoff,
	"--max-memory-restart": "nothing: a service manager limits memory",

	"--ext": "--watch='**/*.EXT'", "--exts": "--watch='**/*.EXT'", "--build.include_ext": "--watch='**/*.EXT'",
	"--filter": "--watch=GLOB", "--reload": "--watch (-w)", "--delay": "--debounce", "--watch-delay": "--debounce",
	"--build.delay": "--debounce", "--delay-run": "--debounce", "--exclude": "--ignore (-i)", "--ignore-watch": "--ignore (-i)",
	"--build.exclude_dir": "--ignore (-i)", "--build.exclude_regex": "--ignore (-i) GLOB", "--build.cmd": "--build",
	"--build.bin": "-- PROGRAM", "--build.entrypoint": "-- PROGRAM", "--poll": byLooking, "--legacy-watch": byLooking, "-L": byLooking,
	"--polling-interval": byLooking, "-P": byLooking, "-I": "nothing: --stdin gives the terminal to the program",
	"--no-stdin": "nothing: --stdin gives the terminal to the program",

	"-o": "--log-file", "--output": "--log-file", "--error": "--log-file", "--log": "--log-file", "--time": "--log-stamp",
}

// What several of them mean.
const (
	byTimer   = "the command hotwrap restart, from cron or a timer"
	byBackoff = "nothing: the first time it starts a worker again at once, then ever later"
	byLooking = "nothing: it looks once a second where no events come"
	noPreload = "nothing: a worker is always a program of its own"
)

// foreignOption hints at our name for another tool's option.
func foreignOption(args []string) error {
	for _, arg := range args {
		name, _, _ := strings.Cut(arg, "=")
		ours, known := foreign[name]
		if !known && len(name) > 2 && name[1] != '-' && !longOption(name[1:]) && longName(name[1:2]) == name[1:2] {
			name = name[:2] // -m10
			ours, known = foreign[name]
		}
		if known {
			return &usageError{fmt.Sprintf("no such option %s", name), inOurWords(ours)}
		}
	}
	return nil
}

// inOurWords is the hint: our name for it, or why there is none.
func inOurWords(ours string) string {
	if why, none := strings.CutPrefix(ours, "nothing: "); none {
		return "hotwrap has none: " + why
	}
	return "hotwrap calls it " + ours
}
