package main

// This file runs docs/from.md: its commands, and what it says of other tools' options.

import (
	"bufio"
	"bytes"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strings"
	"syscall"
	"testing"
	"time"
)

const fromPage = "docs/from.md"

// fromFiles are what the page calls the reader's own, by name; ./myapp comes beside them.
var fromFiles = map[string]string{
	"app.py":    "def app(environ, start):\n    start('200 OK', [])\n    return [b'hello\\n']\n",
	"config.ru": "run ->(env) { [200, {}, [\"hello\\n\"]] }\n",
	"server.js": "const server = require('node:http').createServer((req, res) => res.end('hello\\n'))\n" +
		"server.listen({ fd: 3 })\nprocess.once('SIGTERM', () => server.close())\n",
	"cargo":           "#!/bin/sh\nmkdir -p target/debug && cp myapp target/debug/myapp.new && mv target/debug/myapp.new target/debug/myapp\n",
	"go.mod":          "module myapp\n",
	"main.go":         "package main\n\nimport (\n\t\"net\"\n\t\"os\"\n)\n\nfunc main() {\n\tl, _ := net.FileListener(os.NewFile(3, \"\"))\n\tfor {\n\t\tc, _ := l.Accept()\n\t\tc.Close()\n\t}\n}\n",
	"views/main.html": "<p>hello\n",
}

var (
	fromBlock   = regexp.MustCompile("(?s)\n```sh\n(.*?)```\n")
	fromSection = regexp.MustCompile(`(?m)^## (.*)$`)
	fromCode    = regexp.MustCompile("`([^`]+)`")
	fromAside   = regexp.MustCompile("'[^']*'|`hotwrap [a-z]+[^`]*`") // what is no option of `hotwrap -- PROGRAM`
	fromPort    = regexp.MustCompile(`\b8080\b`)
)

// TestFrom types in every block of docs/from.md, in a directory with the reader's own things.
func TestFrom(t *testing.T) {
	if testing.Short() {
		t.Skip("starts many servers")
	}
	text, err := os.ReadFile(fromPage)
	if err != nil {
		t.Fatal(err)
	}
	blocks := fromBlock.FindAllStringSubmatch(string(text), -1)
	if headings := fromSection.FindAll(text, -1); len(blocks) < len(headings) {
		t.Errorf("%d blocks in %d sections", len(blocks), len(headings))
	}
	for _, block := range blocks {
		lines := strings.Split(strings.TrimSpace(block[1]), "\n")
		_, program, _ := strings.Cut(lines[0], " -- ")
		t.Run(strings.Fields(program)[0], func(t *testing.T) { runFrom(t, lines) })
	}
}

// runFrom runs a hotwrap by the first line, and the others one after the other once it is ready; they must succeed.
func runFrom(t *testing.T, lines []string) {
	dir, port := fromDir(t), holdPort(t)
	shell := func(line string) *exec.Cmd {
		cmd := exec.Command("sh", "-c", "exec "+fromPort.ReplaceAllString(line, port))
		cmd.Dir = dir
		cmd.Env = append(os.Environ(), "PATH="+dir+":"+os.Getenv("PATH"), "HOTWRAP_RUNTIME_DIR="+filepath.Join(dir, "run"),
			"HOTWRAP_BAKE=0s", "PYTHONDONTWRITEBYTECODE=1", "GOFLAGS=-mod=mod", "GOPROXY=off")
		return cmd
	}
	_, program, _ := strings.Cut(lines[0], " -- ")
	name := strings.Fields(program)[0]
	if _, err := exec.LookPath(name); err != nil && !strings.Contains(name, "/") {
		if os.Getenv("HOTWRAP_TEST_ALL") != "" {
			t.Fatalf("missing: %s", name)
		}
		t.Skipf("missing: %s", name)
	}
	hotwrap := shell(lines[0])
	said, err := hotwrap.StderrPipe()
	if err != nil {
		t.Fatal(err)
	}
	if err := hotwrap.Start(); err != nil {
		t.Fatal(err)
	}
	limit := time.AfterFunc(3*patience, func() { hotwrap.Process.Signal(syscall.SIGABRT) })
	defer limit.Stop()
	var heard bytes.Buffer
	ready := false
	all := bufio.NewScanner(said)
	for !ready && all.Scan() {
		heard.WriteString(all.Text() + "\n")
		ready = strings.Contains(all.Text(), "hotwrap: generation 1 ready")
	}
	drained := make(chan struct{})
	go func() {
		defer close(drained)
		for all.Scan() {
			heard.WriteString(all.Text() + "\n")
		}
	}()
	for _, line := range lines[1:] {
		if out, err := shell(line).CombinedOutput(); err != nil {
			t.Errorf("%s: %v\n%s", line, err, out)
		}
	}
	hotwrap.Process.Signal(syscall.SIGTERM) // at the latest
	<-drained
	if err := hotwrap.Wait(); err != nil || !ready {
		t.Errorf("%s: ready is %v, %v\n%s", lines[0], ready, err, heard.String())
	}
}

// fromDir is a directory with the reader's own things.
func fromDir(t *testing.T) string {
	t.Helper()
	bin, err := buildApps()
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for name, text := range fromFiles {
		file := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(file), 0o755); err != nil {
			t.Fatal(err)
		}
		writeProgram(t, file, text)
	}
	if out, err := exec.Command("cp", filepath.Join(bin, "echo"), filepath.Join(dir, "myapp")).CombinedOutput(); err != nil {
		t.Fatalf("%v\n%s", err, out)
	}
	return dir
}

// TestFromOptions: whatever option of another tool docs/from.md names is hotwrap's too, or is refused with a hint.
func TestFromOptions(t *testing.T) {
	text, err := os.ReadFile(fromPage)
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(string(text)) {
		theirs, ours, row := strings.Cut(strings.TrimPrefix(line, "| "), " | ")
		if !strings.HasPrefix(line, "| ") || !row {
			continue
		}
		for _, code := range fromCode.FindAllStringSubmatch(theirs, -1) {
			if name, _, _ := strings.Cut(strings.Fields(code[1])[0], "="); strings.HasPrefix(name, "-") {
				if foreign[name] == "" && flagOf(name) == nil && !longOption(name[1:]) {
					t.Errorf("%s is no option and has no hint", name)
				}
			}
		}
		for _, name := range optionsIn(fromAside.ReplaceAllString(ours, "")) {
			if flagOf(name) == nil {
				t.Errorf("%s says %s, which there is not", strings.TrimSpace(line), name)
			}
		}
	}
}
