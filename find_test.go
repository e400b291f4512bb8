package main

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"net"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"strconv"
	"strings"
	"sync/atomic"
	"testing"
)

// fakeBase is a short runtime directory.
func fakeBase(t *testing.T) string {
	t.Helper()
	dir, err := os.MkdirTemp("", "hwfind")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { os.RemoveAll(dir) })
	if dir, err = filepath.EvalSymlinks(dir); err != nil {
		t.Fatal(err)
	}
	return dir
}

// fakeListen binds a control socket and makes its directory.
func fakeListen(t *testing.T, path string) net.Listener {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		t.Fatal(err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { l.Close() })
	return l
}

// fakeServe answers on l as a hotwrap of that name does, and with routes for the rest.
func fakeServe(t *testing.T, l net.Listener, self identity, routes map[string]http.HandlerFunc) *http.Server {
	t.Helper()
	mux := http.NewServeMux()
	mux.HandleFunc("GET /{$}", func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(self) })
	for pattern, fn := range routes {
		mux.HandleFunc(pattern, fn)
	}
	server := &http.Server{Handler: mux}
	go server.Serve(l)
	t.Cleanup(func() { server.Close() })
	return server
}

// fakeInstance is a hotwrap in base that says who it is, and nothing else.
func fakeInstance(t *testing.T, base, name string) string {
	t.Helper()
	path := filepath.Join(base, "control", name+".sock")
	self := identity{Name: name, PID: os.Getpid(), Program: []string{"./" + name}, State: instanceServing, Generation: 1}
	fakeServe(t, fakeListen(t, path), self, nil)
	return path
}

func wantPath(t *testing.T, environ []string, text, want string) {
	t.Helper()
	p, err := findInstance(context.Background(), environ, text)
	if err != nil {
		t.Fatalf("%q: %v", text, err)
	}
	if p.path != want {
		t.Errorf("%q is %s, want %s", text, p.path, want)
	}
}

// wantNone checks that nothing is found, with what status, and that text and hint have the words.
func wantNone(t *testing.T, environ []string, text string, status int, words ...string) {
	t.Helper()
	p, err := findInstance(context.Background(), environ, text)
	var e *findError
	if !errors.As(err, &e) {
		t.Fatalf("%q is %v, error %v", text, p, err)
	}
	if e.status != status {
		t.Errorf("%q: status %d, want %d: %v (%s)", text, e.status, status, e, e.hint)
	}
	for _, word := range words {
		if !strings.Contains(e.text+"\n"+e.hint, word) {
			t.Errorf("%q: no %q in %q, hint %q", text, word, e.text, e.hint)
		}
	}
}

func TestFindInstance(t *testing.T) {
	base := fakeBase(t)
	environ := []string{"HOTWRAP_RUNTIME_DIR=" + base}
	wantNone(t, environ, "", exitNobody, base, "looked in")
	wantNone(t, environ, "hwtest-web", exitNobody, `no hotwrap named "hwtest-web" runs here`, base)

	web := fakeInstance(t, base, "hwtest-web")
	wantPath(t, environ, "", web)
	wantPath(t, environ, "hwtest-web", web)
	wantPath(t, nil, "hwtest-web", web+onlyWhere(canListSockets))
	wantNone(t, environ, "hwtest-api", exitNobody, `no hotwrap named "hwtest-api" runs here`, `these run: `, `"hwtest-web" (pid `)

	// what is no instance is no hindrance
	dead := fakeListen(t, filepath.Join(base, "control", "hwtest-dead.sock")).(*net.UnixListener)
	dead.SetUnlinkOnClose(false)
	dead.Close()
	for _, name := range []string{"hwtest-web.lock", "hwtest-file.sock"} {
		if err := os.WriteFile(filepath.Join(base, "control", name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Symlink(web, filepath.Join(base, "control", "hwtest-link.sock")); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{"hwtest-dead", "hwtest-file", "hwtest-link"} {
		wantNone(t, environ, name, exitNobody, "no hotwrap named")
	}
	wantPath(t, environ, "", web)

	api := fakeInstance(t, base, "hwtest-api")
	wantNone(t, environ, "", exitUsage, "2 hotwraps run here", `"hwtest-web" (pid `, "./hwtest-web", `"hwtest-api" (pid `)
	wantPath(t, environ, "hwtest-api", api)

	// the program's own instance is the one that is meant
	wantPath(t, append(environ, "HOTWRAP_CONTROL="+api), "", api)
	wantPath(t, append(environ, "HOTWRAP_CONTROL="+api), "hwtest-web", web)
	wantNone(t, append(environ, "HOTWRAP_CONTROL="+base+"/gone.sock"), "", exitUsage, "2 hotwraps run here")
}

// onlyWhere is "" if a test holds; else what no path ends in.
func onlyWhere(holds bool) string {
	if holds {
		return ""
	}
	return "\x00"
}

// TestFindOnce: who is asked who it is has one connection for it.
func TestFindOnce(t *testing.T) {
	path := filepath.Join(fakeBase(t), "control", "hwtest-once.sock")
	l := fakeListen(t, path)
	var came atomic.Int32
	server := &http.Server{
		Handler: http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) { _ = json.NewEncoder(w).Encode(identity{}) }),
		ConnState: func(_ net.Conn, to http.ConnState) {
			if to == http.StateNew {
				came.Add(1)
			}
		},
	}
	t.Cleanup(func() { server.Close() })
	go server.Serve(l)
	k := newSeeker(nil, "")
	p := &contact{path: path, seeker: k}
	if k.visit(t.Context(), p, patience); p.standing != contactAnswers {
		t.Fatalf("%v: %v", p.standing, p.why)
	}
	if err := askSelf(t.Context(), p.httpClient(), &p.self); err != nil { // by now all that came before is accepted
		t.Fatal(err)
	}
	if n := came.Load(); n != 2 {
		t.Errorf("%d connections, one is ours", n)
	}
}

func TestFindSame(t *testing.T) { // two of one name, in two directories
	a, b := fakeBase(t), fakeBase(t)
	fakeInstance(t, a, "hwtest-twice")
	path := filepath.Join(b, "control", "hwtest-twice.sock")
	self := identity{Name: "hwtest-twice", PID: 1, State: instanceServing}
	fakeServe(t, fakeListen(t, path), self, nil)
	k := newSeeker(nil, "hwtest-twice")
	all := []*contact{
		{path: filepath.Join(a, "control", "hwtest-twice.sock"), seeker: k}, {path: path, seeker: k}, {path: path, seeker: k},
	}
	if live := k.visitAll(context.Background(), all); runtime.GOOS == "linux" && len(live) != 1 {
		t.Errorf("one process is %d instances", len(live)) // both sockets are this test's
	}
	all[0].peer.pid, all[1].peer.pid, all[0].self.PID, all[1].self.PID = 71, 72, 71, 72
	err := k.several(all[:2])
	var e *findError
	if !errors.As(err, &e) || e.status != exitUsage || !strings.Contains(e.hint, "(pid 71") || !strings.Contains(e.hint, "(pid 72") ||
		!strings.Contains(e.text, `2 hotwraps named "hwtest-twice"`) {
		t.Errorf("several: %v, hint %v", err, e)
	}
}

func TestFindPID(t *testing.T) {
	base := fakeBase(t)
	environ := []string{"HOTWRAP_RUNTIME_DIR=" + base}
	web := fakeInstance(t, base, "hwtest-pid")
	wantPath(t, environ, strconv.Itoa(os.Getpid()), web)
	wantNone(t, environ, strconv.Itoa(os.Getppid()), exitNobody, "is no hotwrap that can be reached", "these run", `"hwtest-pid"`)
	wantNone(t, environ, "1", exitNobody, "process 1 is no hotwrap")
}

// TestFindMute: one that listens and says nothing is said to be there, and is in nobody's way.
func TestFindMute(t *testing.T) {
	base := fakeBase(t)
	environ := []string{"HOTWRAP_RUNTIME_DIR=" + base}
	fakeListen(t, filepath.Join(base, "control", "hwtest-mute.sock"))
	k := newSeeker(environ, "hwtest-mute")
	all := k.visitAll(context.Background(), k.contacts())
	if len(all) != 1 || all[0].standing != contactMute {
		t.Fatalf("visited %v", all)
	}
	web := fakeInstance(t, base, "hwtest-web")
	wantPath(t, environ, "hwtest-web", web)
}

// TestFindBounds: a directory full of dead sockets and other things costs no more than its bounds.
func TestFindBounds(t *testing.T) {
	base := fakeBase(t)
	if err := os.MkdirAll(filepath.Join(base, "control"), 0o700); err != nil {
		t.Fatal(err)
	}
	for i := range entriesMost / 8 {
		if err := os.WriteFile(filepath.Join(base, "control", fmt.Sprintf("a%d.sock", i)), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	web := fakeInstance(t, base, "zz")
	environ := []string{"HOTWRAP_RUNTIME_DIR=" + base}
	if n := len(newSeeker(environ, "").contacts()); n != contactsMost {
		t.Errorf("%d sockets are looked at", n)
	}
	wantPath(t, environ, "zz", web)
}

// TestFindTrust: nothing is asked where a stranger may have put the socket.
func TestFindTrust(t *testing.T) {
	base := fakeBase(t)
	environ := []string{"HOTWRAP_RUNTIME_DIR=" + base}
	web := fakeInstance(t, base, "hwtest-trust")
	for _, dir := range []string{base, filepath.Dir(web)} {
		if err := os.Chmod(dir, 0o777); err != nil { //nolint:gosec // it is what must not be
			t.Fatal(err)
		}
		wantNone(t, environ, "hwtest-trust", exitNobody, "is not trusted", "writable by others", dir)
		wantNone(t, append(environ, "HOTWRAP_CONTROL="+web), "", exitNobody, "is not trusted")
		wantNone(t, environ, "", exitNobody, "no hotwrap runs", `not "hwtest-trust"`)
		if err := os.Chmod(dir, 0o777|os.ModeSticky); err != nil {
			t.Fatal(err)
		}
		wantPath(t, environ, "hwtest-trust", web)
		if err := os.Chmod(dir, 0o700); err != nil {
			t.Fatal(err)
		}
	}
	wantPath(t, environ, "hwtest-trust", web)
	if err := os.Chmod(base, 0o777); err != nil { //nolint:gosec // it is what must not be
		t.Fatal(err)
	}
	t.Chdir(filepath.Dir(web))
	wantNone(t, []string{"HOTWRAP_CONTROL=" + filepath.Base(web)}, "", exitNobody, "is not trusted", "writable by others", base)
}

// TestLongPath: what lies below another root directory can be reached, however long its path is.
func TestLongPath(t *testing.T) {
	if runtime.GOOS != "linux" {
		t.Skip("the other systems have no other roots")
	}
	base := fakeBase(t)
	web := fakeInstance(t, base, "hwtest-long")
	long := filepath.Join(base, strings.Repeat("d", 100))
	if err := os.Mkdir(long, 0o700); err != nil {
		t.Fatal(err)
	}
	if err := os.Rename(filepath.Dir(web), filepath.Join(long, "control")); err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(long, "control", "hwtest-long.sock")
	wantPath(t, []string{"HOTWRAP_CONTROL=" + path}, "", path)
}

// TestOtherRoot: a process with its own mount namespace has a root of its own.
func TestOtherRoot(t *testing.T) {
	if root := otherRoot(os.Getpid()); root != "" {
		t.Errorf("our own root is another: %q", root)
	}
	if _, err := exec.LookPath("unshare"); err != nil || os.Geteuid() != 0 {
		t.Skip("no mount namespace can be made")
	}
	cmd := exec.Command("unshare", "--mount", "sh", "-c", "echo; read x")
	in, _ := cmd.StdinPipe()
	out, _ := cmd.StdoutPipe()
	if err := cmd.Start(); err != nil {
		t.Skip(err)
	}
	defer cmd.Wait()
	defer in.Close()
	if n, _ := out.Read(make([]byte, 1)); n == 0 {
		t.Skip("no mount namespace can be made")
	}
	if root := otherRoot(cmd.Process.Pid); root != fmt.Sprintf("/proc/%d/root", cmd.Process.Pid) {
		t.Errorf("root is %q", root)
	}
}
