package app

import (
	"fmt"
	"net"
	"net/http"
	"os"
	"time"
)

// Idle is how long an unused keep-alive connection stays open while a test program drains.
const Idle = time.Second

// Handler answers what the tests ask for: / says which generation this is, /sleep?d=200ms does so
// later, /pid, /env?k=NAME and /fds look at the process.
func Handler(build string) http.Handler {
	who := fmt.Sprintf("generation %s pid %d build %s\n", os.Getenv("HOTWRAP_GENERATION"), os.Getpid(), build)
	mux := http.NewServeMux()
	mux.HandleFunc("/", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, who) })
	mux.HandleFunc("/pid", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, os.Getpid()) })
	mux.HandleFunc("/sleep", func(w http.ResponseWriter, r *http.Request) {
		d, err := time.ParseDuration(r.FormValue("d"))
		if err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		time.Sleep(d)
		fmt.Fprint(w, who)
	})
	mux.HandleFunc("/env", func(w http.ResponseWriter, r *http.Request) {
		value, ok := os.LookupEnv(r.FormValue("k"))
		if !ok {
			http.NotFound(w, r)
			return
		}
		fmt.Fprintln(w, value)
	})
	mux.HandleFunc("/dir", func(w http.ResponseWriter, _ *http.Request) {
		dir, _ := os.Readlink("/proc/self/cwd")
		fmt.Fprintln(w, dir)
	})
	mux.HandleFunc("/fds", fds)
	return mux
}

// fds lists the open descriptors with what they are.
func fds(w http.ResponseWriter, _ *http.Request) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		http.Error(w, err.Error(), http.StatusInternalServerError)
		return
	}
	for _, e := range entries {
		if target, err := os.Readlink("/proc/self/fd/" + e.Name()); err == nil {
			fmt.Fprintln(w, e.Name(), target)
		}
	}
}

// Open returns the inherited listeners; without any it opens one on ADDR, or any free port of
// loopback, and prints where.
func Open() []net.Listener {
	listeners, err := Listeners()
	if err != nil {
		Fail(err)
	}
	if len(listeners) > 0 {
		return listeners
	}
	addr := os.Getenv("ADDR")
	if addr == "" {
		addr = "127.0.0.1:0"
	}
	l, err := net.Listen("tcp", addr)
	if err != nil {
		Fail(err)
	}
	fmt.Fprintln(os.Stderr, "listening on", l.Addr())
	return []net.Listener{l}
}

// Say is Notify for programs that cannot go on without being heard.
func Say(text string) {
	if err := Notify(text); err != nil {
		Fail(err)
	}
}

// Run serves on the inherited listeners until TERM and drains.
func Run(build string) {
	Serve(&http.Server{Handler: Handler(build)}, Open(), Stop(), Idle)
}

// Elsewhere serves on a port of its own too, which hotwrap is to find out.
func Elsewhere(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		Fail(err)
	}
	go func() { _ = http.Serve(l, Handler("elsewhere")) }()
}
