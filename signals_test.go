package main

import (
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"
)

func TestSignalNames(t *testing.T) {
	// Every name that a system gives must come back from its number, its short form and lower case:
	// a table of signals that is not walked whole hides its holes.
	names := 0
	for n := syscall.Signal(1); n < 128; n++ {
		if !knownSignal(n) {
			if got, err := parseSignal(strconv.Itoa(int(n))); err == nil {
				t.Errorf("parseSignal(%d) = %v, want an error", int(n), got)
			}
			continue
		}
		names++
		name := signalName(n)
		for _, text := range []string{name, strings.TrimPrefix(name, "SIG"), strings.ToLower(name), strconv.Itoa(int(n))} {
			if got, err := parseSignal(text); err != nil || got != n {
				t.Errorf("parseSignal(%q) = %v, %v, want %d", text, got, err, int(n))
			}
		}
	}
	if names < 31 {
		t.Errorf("only %d signals are known", names)
	}
}

func TestSignalNumbersLinux(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the numbers are those of Linux")
	}
	for i, name := range []string{
		"HUP", "INT", "QUIT", "ILL", "TRAP", "ABRT", "BUS", "FPE", "KILL", "USR1", "SEGV", "USR2", "PIPE", "ALRM",
		"TERM", "STKFLT", "CHLD", "CONT", "STOP", "TSTP", "TTIN", "TTOU", "URG", "XCPU", "XFSZ", "VTALRM", "PROF",
		"WINCH", "IO", "PWR", "SYS",
	} {
		want := syscall.Signal(i + 1)
		if got, err := parseSignal(name); err != nil || got != want {
			t.Errorf("parseSignal(%q) = %d, %v, want %d", name, int(got), err, int(want))
		}
		if got := signalName(want); got != "SIG"+name {
			t.Errorf("signalName(%d) = %q, want SIG%s", int(want), got, name)
		}
	}
	for text, want := range map[string]syscall.Signal{
		"IOT": 6, "CLD": 17, "SIGPOLL": 29,
		"RTMIN": 34, "SIGRTMIN+3": 37, "rtmin+30": 64, "RTMAX": 64, "RTMAX-1": 63, "RTMAX-30": 34, "40": 40,
	} {
		if got, err := parseSignal(text); err != nil || got != want {
			t.Errorf("parseSignal(%q) = %d, %v, want %d", text, int(got), err, int(want))
		}
	}
}

func TestParseSignalRefuses(t *testing.T) {
	for _, text := range []string{
		"", "SIG", "TREM", "0", "-1", "-9", "128", "999", "99999999999999999999", "15 ", " TERM", "SIGSIGTERM", "+15x",
		"RTMIN+31", "RTMIN-1", "RTMIN+", "RTMIN+-1", "RTMIN++1", "RTMAX+1", "RTMAX-31", "RTMAX-", "RTMINUS",
	} {
		if runtime.GOOS == "freebsd" && strings.HasSuffix(text, "31") {
			continue
		}
		got, err := parseSignal(text)
		if err == nil {
			t.Errorf("parseSignal(%q) = %d, want an error", text, int(got))
		} else if !strings.HasPrefix(err.Error(), "cannot read signal ") {
			t.Errorf("parseSignal(%q): %v", text, err)
		}
	}
	if got := signalName(0); got != "signal 0" {
		t.Errorf("signalName(0) = %q", got)
	}
}

func TestSignalEvents(t *testing.T) {
	want := map[string]string{
		"HUP": "restart", "TERM": "stop", "INT": "stop", "QUIT": "stop", "USR1": "reopen", "USR2": "reexec",
		"TTIN": "more", "TTOU": "fewer", "CHLD": "child", "PIPE": "drop",
	}
	for n := syscall.Signal(1); n <= 31; n++ {
		name := strings.TrimPrefix(signalName(n), "SIG")
		expect := want[name]
		if expect == "" {
			expect = "none"
		}
		if got := eventOf(n).String(); got != expect {
			t.Errorf("%s means %s, want %s", name, got, expect)
		}
	}
	if len(signalEvents) != len(want) {
		t.Errorf("%d signals are listened to, want %d", len(signalEvents), len(want))
	}
	if got := signalEvent(99).String(); got != "signalEvent(99)" {
		t.Errorf("an unknown event is called %q", got)
	}
}

func TestCatchSignals(t *testing.T) {
	sigs, stop := catchSignals()
	defer stop()
	if cap(sigs) < 64 {
		t.Errorf("room for %d signals: a burst would drop some", cap(sigs))
	}
	// Each is sent to ourselves: one that is not caught ends or stops this very process.
	for sig := range signalEvents {
		if err := syscall.Kill(os.Getpid(), sig.(syscall.Signal)); err != nil {
			t.Fatal(err)
		}
		for got := range sigs {
			if got == sig {
				break
			}
			if got != syscall.SIGCHLD { // of a child of another test
				t.Errorf("sent %v, caught %v", sig, got)
			}
		}
	}
}

func TestHupIgnored(t *testing.T) {
	const marker = "HOTWRAP_TEST_HUP_IGNORED"
	if os.Getenv(marker) != "" {
		// Also when it was ignored, HUP is ours to hear once it is caught.
		ignored := hupIgnored()
		sigs, stop := catchSignals()
		defer stop()
		if err := syscall.Kill(os.Getpid(), syscall.SIGHUP); err != nil {
			t.Fatal(err)
		}
		for sig := range sigs {
			if sig == syscall.SIGHUP {
				break
			}
		}
		t.Logf("ignored=%v", ignored)
		return
	}
	self, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	for trap, want := range map[string]string{"trap '' HUP": "ignored=true", "trap - HUP": "ignored=false"} {
		cmd := exec.Command("sh", "-c", trap+`; exec "$0" -test.run='^TestHupIgnored$' -test.v`, self)
		cmd.Env = append(os.Environ(), marker+"=1")
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), want) {
			t.Errorf("after %s: %v, want %s in\n%s", trap, err, want, out)
		}
	}
}

func TestStopSignalFor(t *testing.T) {
	for _, tt := range []struct {
		argv string
		want syscall.Signal
	}{
		{"./myapp --nginx", unix.SIGTERM},
		{"nginx", unix.SIGQUIT},
		{"/usr/sbin/nginx -g daemon off;", unix.SIGQUIT},
		{"/usr/local/openresty/bin/openresty", unix.SIGQUIT},
		{"unicorn -c config.rb", unix.SIGQUIT},
		{"ruby /usr/bin/unicorn -c config.rb", unix.SIGQUIT},
		{"ruby3.1 -w /usr/bin/unicorn_rails", unix.SIGQUIT},
		{"bundle exec unicorn", unix.SIGQUIT},
		{"php-fpm", unix.SIGQUIT},
		{"/usr/sbin/php-fpm8.2 -F", unix.SIGQUIT},
		{"php-fpm-8.3", unix.SIGQUIT},
		{"perl /usr/bin/starman app.psgi", unix.SIGQUIT},
		{"haproxy -W -f /etc/haproxy.cfg", unix.SIGUSR1},
		{"lighttpd -D", unix.SIGINT},
		{"httpd -DFOREGROUND", unix.SIGWINCH},
		{"apache2 -DFOREGROUND", unix.SIGWINCH},
		{"env LANG=C PORT=1 nginx", unix.SIGQUIT},
		{"nice nohup haproxy", unix.SIGUSR1},
		{"node nginx", unix.SIGTERM},
		{"nginx-exporter", unix.SIGTERM},
		{"haproxy_exporter", unix.SIGTERM},
		{"python3 -m nginx", unix.SIGTERM},
		{"sh -c nginx", unix.SIGTERM},
		{"ruby -e nginx", unix.SIGTERM},
		{"python3 server.py nginx", unix.SIGTERM},
		{"env", unix.SIGTERM},
		{"env -i", unix.SIGTERM},
		{"", unix.SIGTERM},
	} {
		if got := stopSignalFor(strings.Fields(tt.argv)); got != tt.want {
			t.Errorf("%s: %s, want %s", tt.argv, signalName(got), signalName(tt.want))
		}
	}
}
