package app

import (
	"fmt"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"sync/atomic"
	"time"
)

// Server answers
//
//	/             generation N pid P build B
//	/pid          the pid alone
//	/sleep?d=DUR  the same as /, after that time
//	/dir          the working directory (Linux)
//	/env?k=NAME   that variable of the environment; 404 where it is not set
//	/fds          the open descriptors, "NUMBER TARGET" each (Linux)
//	/health       200, or 503 with what is in the file $SICK, where there is one
//	/asked        how often that was asked
//	/line?n=N     writes the line <N> to standard output, and answers like /
func Server(build string) *http.Server {
	who := fmt.Sprintf("generation %s pid %d build %s\n", os.Getenv("HOTWRAP_GENERATION"), os.Getpid(), build)
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprint(w, who) })
	mux.HandleFunc("GET /pid", func(w http.ResponseWriter, _ *http.Request) {
		fmt.Fprintln(w, os.Getpid())
	})
	mux.HandleFunc("GET /sleep", func(w http.ResponseWriter, r *http.Request) { sleep(w, r, who) })
	mux.HandleFunc("GET /dir", dir)
	mux.HandleFunc("GET /env", env)
	mux.HandleFunc("GET /fds", fds)
	var asked atomic.Int64
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) { asked.Add(1); health(w) })
	mux.HandleFunc("GET /asked", func(w http.ResponseWriter, _ *http.Request) { fmt.Fprintln(w, asked.Load()) })
	mux.HandleFunc("GET /line", func(w http.ResponseWriter, r *http.Request) {
		fmt.Printf("<%s>\n", r.FormValue("n"))
		fmt.Fprint(w, who)
	})
	return &http.Server{Handler: mux}
}

// Elsewhere serves on a port of its own too, of which hotwrap does not know.
func Elsewhere(addr string) {
	l, err := net.Listen("tcp", addr)
	if err != nil {
		Fail(fmt.Errorf("cannot listen on %q: %w", addr, err))
	}
	go func() { _ = Server("elsewhere").Serve(l) }()
}

func dir(w http.ResponseWriter, _ *http.Request) {
	target, err := os.Readlink("/proc/self/cwd") // not by its logical name
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	fmt.Fprintln(w, target)
}

func sleep(w http.ResponseWriter, r *http.Request, then string) {
	d, err := time.ParseDuration(r.FormValue("d"))
	if err != nil {
		http.Error(w, err.Error(), http.StatusBadRequest)
		return
	}
	time.Sleep(d)
	_, _ = io.WriteString(w, then)
}

func env(w http.ResponseWriter, r *http.Request) {
	value, ok := os.LookupEnv(r.FormValue("k"))
	if !ok {
		http.NotFound(w, r)
		return
	}
	fmt.Fprintln(w, value)
}

func health(w http.ResponseWriter) {
	if sick, err := os.ReadFile(os.Getenv("SICK")); err == nil {
		w.WriteHeader(http.StatusServiceUnavailable)
		_, _ = w.Write(sick)
	}
}

func fds(w http.ResponseWriter, _ *http.Request) {
	entries, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		http.Error(w, err.Error(), http.StatusNotImplemented)
		return
	}
	for _, entry := range entries {
		target, err := os.Readlink(filepath.Join("/proc/self/fd", entry.Name()))
		if err != nil {
			continue // the one that ReadDir had open
		}
		_, _ = io.WriteString(w, entry.Name()+" "+target+"\n")
	}
}
