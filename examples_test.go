package main

// This file holds the examples and the pages to the code: every command line in them is one that hotwrap takes, and what
// the files for containers promise of times, ports and users is so. What reads YAML is ruby, which the tests need anyway.

import (
	"encoding/json"
	"io/fs"
	"maps"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"
)

// atCommand is hotwrap where a command begins: on a line of its own, behind another command, in a unit, between backticks.
var atCommand = regexp.MustCompile("(?:^\\s*(?:#\\s+|- )?(?:\\$ )?(?:[A-Z_]+=\\S* |sudo |exec |if |! |docker compose exec \\S+ |kubectl exec \\S+ -- )*|=|&& |\\|\\| |; |\\$\\(|`|then )" +
	`(?:/[\w./-]*/)?hotwrap( .*)`)

var (
	shellWord = regexp.MustCompile(`\$(?:\w+|\{[^}]*\})`) // of a script
	standIns  = strings.NewReplacer("signal SIG", "signal HUP")
	mention   = regexp.MustCompile(`it needs a value|no program$`) // of a command in a sentence, which need not be whole
)

// commandWords are the words of the first command in a line of shell, as far as the pages need it: quotes, and an end at what
// ends a command, at a comment, or at two spaces, behind which the pages say what it does.
func commandWords(line string) (words []string) {
	var word strings.Builder
	quote, begun := rune(0), false
	end := func() {
		if begun {
			words = append(words, word.String())
		}
		word.Reset()
		begun = false
	}
	for i, r := range line {
		switch {
		case quote != 0 && r == quote:
			quote = 0
		case quote != 0:
			word.WriteRune(r)
		case r == '\'' || r == '"':
			quote, begun = r, true
		case strings.ContainsRune("|&;>`)", r), r == '#' && !begun, r == ' ' && strings.HasPrefix(line[i:], "  "):
			end()
			return words
		case r == ' ':
			end()
		default:
			word.WriteRune(r)
			begun = true
		}
	}
	end()
	return words
}

// parseCommand tells whether hotwrap takes a command line; ok is whether it is one, and not a sentence with the word.
func parseCommand(words []string) (ok bool, err error) {
	if len(words) == 0 || slices.ContainsFunc(words, func(w string) bool { return strings.Contains(w, "…") }) {
		return false, nil
	}
	switch v := verbNamed(words[0]); {
	case words[0] == doctorName:
		_, _, err = parseDoctor(words[1:], nil)
	case v != nil && len(words) > 1:
		_, err = v.parse(words[1:])
	case v != nil:
	case words[0] == "exec" || strings.HasPrefix(words[0], "-"):
		_, err = parseArgs(words, nil)
	default:
		return false, nil
	}
	return true, err
}

// pageLines are the lines of a file, with those that a backslash joins as one.
func pageLines(t *testing.T, file string) []string {
	t.Helper()
	text, err := os.ReadFile(file)
	if err != nil {
		t.Fatal(err)
	}
	return strings.Split(regexp.MustCompile(`\\\n\s*`).ReplaceAllString(string(text), ""), "\n")
}

// TestPagesCommands: hotwrap takes every command line of the pages and the examples.
func TestPagesCommands(t *testing.T) {
	files, err := filepath.Glob("docs/*.md")
	if err != nil {
		t.Fatal(err)
	}
	err = filepath.WalkDir("examples", func(file string, entry fs.DirEntry, err error) error {
		if err == nil && !entry.IsDir() {
			files = append(files, file)
		}
		return err
	})
	if err != nil {
		t.Fatal(err)
	}
	found := 0
	for _, file := range append(files, "README.md") {
		for _, line := range pageLines(t, file) {
			for _, match := range atCommand.FindAllStringSubmatch(line, -1) {
				words := commandWords(standIns.Replace(shellWord.ReplaceAllString(match[1][1:], "web")))
				ok, err := parseCommand(words)
				if ok {
					found++
				}
				if err != nil && (!strings.HasPrefix(match[0], "`") || !mention.MatchString(err.Error())) {
					t.Errorf("%s: hotwrap %s: %v", file, strings.Join(words, " "), err)
				}
			}
		}
	}
	if found < 100 {
		t.Errorf("only %d command lines were found", found)
	}
}

// containerExamples are the directories of the examples that docs/containers.md is about; no script can run those.
var containerExamples = []string{"examples/docker", "examples/kubernetes", "examples/nomad"}

// TestContainerExamples: docs/containers.md names them all, and nothing else.
func TestContainerExamples(t *testing.T) {
	var named, there []string
	for _, row := range tableIn(t, "docs/containers.md", "In containers") {
		named = append(named, regexp.MustCompile(`\(\.\./(examples/.*?)\)`).FindStringSubmatch(row[0])[1])
	}
	for _, dir := range containerExamples {
		files, err := filepath.Glob(dir + "/*")
		if err != nil {
			t.Fatal(err)
		}
		there = append(there, files...)
	}
	if !slices.Equal(named, there) {
		t.Errorf("docs/containers.md names %q, there are %q", named, there)
	}
}

// serveConfig is the config of a command line that serves.
func serveConfig(t *testing.T, args []string) *config {
	t.Helper()
	cfg, err := parseArgs(args, nil)
	if err != nil {
		t.Fatalf("%q: %v", args, err)
	}
	if cfg.mode != modeServe || len(cfg.program) == 0 {
		t.Fatalf("%q serves nothing", args)
	}
	return cfg
}

// mustEnd checks that whoever kills after grace leaves hotwrap the time that it may take to stop.
func mustEnd(t *testing.T, file string, cfg *config, grace time.Duration) {
	t.Helper()
	if need := cfg.stopDelay.d + cfg.stopTimeout.d; grace <= need {
		t.Errorf("%s: hotwrap may take %s to stop, and is killed after %s", file, need, grace)
	}
}

// dockerfileLines are the instructions of a Dockerfile: name and the rest.
func dockerfileLines(t *testing.T, file string) (lines [][2]string) {
	t.Helper()
	for _, line := range pageLines(t, file) {
		if strings.Contains(line, "\t") {
			t.Errorf("%s: a tab in %q", file, line)
		}
		if line == "" || strings.HasPrefix(line, "#") {
			continue
		}
		name, rest, _ := strings.Cut(line, " ")
		lines = append(lines, [2]string{name, rest})
	}
	return lines
}

// execForm reads the JSON form of a command: the other one puts a shell in between, which gets the signals.
func execForm(t *testing.T, text string) (args []string) {
	t.Helper()
	if err := json.Unmarshal([]byte(text[strings.IndexByte(text+"[", '['):]), &args); err != nil || len(args) == 0 {
		t.Errorf("%q is not in exec form: %v", text, err)
	}
	return args
}

// TestDockerfile: several stages, nothing in shell form, a user that is a number and not root, hotwrap's signal, a health
// check and an entry point that hotwrap takes.
func TestDockerfile(t *testing.T) {
	const file = "examples/docker/Dockerfile"
	known := []string{"FROM", "WORKDIR", "COPY", "RUN", "USER", "STOPSIGNAL", "HEALTHCHECK", "EXPOSE", "ENTRYPOINT", "CMD", "ENV"}
	last, stages := map[string]string{}, []string{}
	for _, line := range dockerfileLines(t, file) {
		name, rest := line[0], line[1]
		switch {
		case !slices.Contains(known, name):
			t.Errorf("%s: unknown instruction %q", file, name)
		case name == "FROM":
			clear(last)
			_, stage, _ := strings.Cut(rest, " AS ")
			stages = append(stages, stage)
		case name == "RUN":
			execForm(t, rest)
		case name == "COPY" && strings.HasPrefix(rest, "--from="):
			from, _, _ := strings.Cut(strings.TrimPrefix(rest, "--from="), " ")
			if !slices.Contains(stages, from) {
				t.Errorf("%s: there is no stage %q", file, from)
			}
		}
		last[name] = rest
	}
	if len(stages) < 2 {
		t.Errorf("%s has %d stages", file, len(stages))
	}
	if !regexp.MustCompile(`^[1-9]\d*:[1-9]\d*$`).MatchString(last["USER"]) {
		t.Errorf("%s: USER %q", file, last["USER"])
	}
	if sig, err := parseSignal(last["STOPSIGNAL"]); err != nil || eventOf(sig) != signalStop {
		t.Errorf("%s: STOPSIGNAL %q stops nothing", file, last["STOPSIGNAL"])
	}
	if _, check, _ := strings.Cut(last["HEALTHCHECK"], " CMD "); true {
		if ok, err := parseCommand(execForm(t, check)[1:]); !ok || err != nil {
			t.Errorf("%s: HEALTHCHECK %s: %v", file, check, err)
		}
	}
	cfg := serveConfig(t, append(execForm(t, last["ENTRYPOINT"])[1:], execForm(t, last["CMD"])...))
	mustEnd(t, file, cfg, 10*time.Second) // docker stop's own
	if port := portIn(t, cfg.listens[0].String()); strconv.Itoa(port) != last["EXPOSE"] {
		t.Errorf("%s: EXPOSE %s, and hotwrap listens on %d", file, last["EXPOSE"], port)
	}
}

// readYAML reads every document of a file into values, a list of them.
func readYAML(t *testing.T, file string, values any) {
	t.Helper()
	const program = `require "yaml"; require "json"; puts JSON.dump(YAML.load_stream(File.read(ARGV[0])))`
	text, err := exec.Command("ruby", "-e", program, file).Output()
	if err != nil && os.Getenv("HOTWRAP_TEST_ALL") == "" {
		t.Skipf("ruby does not read it: %v", err)
	}
	if err == nil {
		err = json.Unmarshal(text, values)
	}
	if err != nil {
		t.Fatalf("%s: %v", file, err)
	}
}

// TestCompose: hotwrap takes the command line, and has the time to stop.
func TestCompose(t *testing.T) {
	const file = "examples/docker/compose.yaml"
	var documents []struct {
		Services map[string]struct {
			Entrypoint, Command, Volumes []string
			StopGracePeriod              string `json:"stop_grace_period"`
			Build                        struct{ Context, Dockerfile string }
		}
	}
	readYAML(t, file, &documents)
	web := documents[0].Services["web"]
	cfg := serveConfig(t, append(web.Entrypoint[1:], web.Command...))
	var grace duration
	if err := grace.Set(web.StopGracePeriod); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, file, cfg, grace.d)
	if _, err := os.Stat(filepath.Join(filepath.Dir(file), web.Build.Context, web.Build.Dockerfile)); err != nil {
		t.Error(err)
	}
	if _, target, _ := strings.Cut(web.Volumes[0], ":"); !slices.Contains(cfg.watch.paths, strings.TrimSuffix(target, ":ro")) {
		t.Errorf("%s: %v is watched, and %q mounted", file, cfg.watch, web.Volumes)
	}
}

// probe is one of a pod's.
type podProbe struct {
	HTTPGet struct {
		Path, Port string
	} `json:"httpGet"`
	PeriodSeconds, FailureThreshold int
}

// deployment is what the test reads of a Deployment.
type deployment struct {
	Kind string
	Spec struct {
		Template struct {
			Spec struct {
				TerminationGracePeriodSeconds int
				SecurityContext               struct {
					RunAsNonRoot bool
				}
				Containers []struct {
					Command, Args []string
					Lifecycle     any
					Ports         []struct {
						Name          string
						ContainerPort int
					}
					StartupProbe, ReadinessProbe, LivenessProbe podProbe

					VolumeMounts []struct {
						MountPath, SubPath string
					}
				}
			}
		}
	}
}

// TestKubernetes: hotwrap takes the command line; times, ports and mounts are those of the pod.
func TestKubernetes(t *testing.T) {
	const file = "examples/kubernetes/deployment.yaml"
	var documents []deployment
	readYAML(t, file, &documents)
	pod := documents[slices.IndexFunc(documents, func(d deployment) bool { return d.Kind == "Deployment" })].Spec.Template.Spec
	web := pod.Containers[0]
	cfg := serveConfig(t, web.Args)
	mustEnd(t, file, cfg, time.Duration(pod.TerminationGracePeriodSeconds)*time.Second)
	if web.Lifecycle != nil || !pod.SecurityContext.RunAsNonRoot || cfg.stopDelay.d == 0 {
		t.Errorf("%s: a hook, root, or no --stop-delay", file)
	}
	start := time.Duration(web.StartupProbe.PeriodSeconds*web.StartupProbe.FailureThreshold) * time.Second
	if start <= cfg.readyTimeout.d {
		t.Errorf("%s: the startup probe gives up after %s, before --ready-timeout %s", file, start, cfg.readyTimeout.d)
	}
	ports := map[string]int{}
	for _, port := range web.Ports {
		ports[port.Name] = port.ContainerPort
	}
	wantPorts(t, file, cfg, ports)
	wantProbes(t, file, []podProbe{web.StartupProbe, web.ReadinessProbe, web.LivenessProbe})
	for _, mount := range web.VolumeMounts {
		if mount.SubPath != "" || !slices.Contains(cfg.watch.paths, mount.MountPath) {
			t.Errorf("%s: changes of %+v are not seen", file, mount)
		}
	}
}

// wantPorts checks that what an orchestrator calls http and hotwrap are the ports that hotwrap listens on.
func wantPorts(t *testing.T, file string, cfg *config, ports map[string]int) {
	t.Helper()
	want := map[string]int{"http": portIn(t, cfg.listens[0].String()), "hotwrap": portIn(t, cfg.http)}
	if !maps.Equal(ports, want) {
		t.Errorf("%s has the ports %v, hotwrap %v", file, ports, want)
	}
}

func portIn(t *testing.T, addr string) int {
	t.Helper()
	n, err := strconv.Atoi(addr[strings.LastIndexByte(addr, ':')+1:])
	if err != nil {
		t.Error(err)
	}
	return n
}

// wantProbes checks that pods start and are ready by /ready, and live by /; container_probes.txtar has what those answer.
func wantProbes(t *testing.T, file string, probes []podProbe) {
	t.Helper()
	for i, path := range []string{"/ready", "/ready", "/"} {
		if probes[i].HTTPGet.Path != path || probes[i].HTTPGet.Port != "hotwrap" {
			t.Errorf("%s: probe %d asks %+v, want %s", file, i, probes[i].HTTPGet, path)
		}
	}
}

// TestNomad: the same for a job. make lint has hclfmt read the file.
func TestNomad(t *testing.T) {
	const file = "examples/nomad/web.nomad.hcl"
	text := strings.Join(pageLines(t, file), "\n")
	value := func(expression string) string {
		found := regexp.MustCompile(expression).FindStringSubmatch(text)
		if found == nil {
			t.Fatalf("%s: nothing is %s", file, expression)
		}
		return found[1]
	}
	var args []string
	list := strings.TrimSuffix(strings.TrimSpace(value(`(?s) args = \[(.*?)\]`)), ",")
	if err := json.Unmarshal([]byte("["+list+"]"), &args); err != nil {
		t.Fatalf("%s: %v", file, err)
	}
	cfg := serveConfig(t, args)
	var grace duration
	if err := grace.Set(value(`kill_timeout += "(.*)"`)); err != nil {
		t.Fatal(err)
	}
	mustEnd(t, file, cfg, grace.d)
	ports := map[string]int{}
	for _, name := range []string{"http", "hotwrap"} {
		ports[name] = portIn(t, value(`port "`+name+`" \{ to = (\d+) \}`))
	}
	wantPorts(t, file, cfg, ports)
	if value(`path += "(.*)"`) != "/ready" || value(`kill_signal += "(.*)"`) != "SIGTERM" || value(`destination = "(.*)"`) != cfg.watch.paths[0] {
		t.Errorf("%s: the check, the signal or the watched file", file)
	}
}
