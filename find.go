package main

// This file finds the instance that a command is for, among all control sockets that hotwraps may have made.
//
// Its rules:
//   - Every place that a hotwrap can have chosen is looked at. A socket that nobody answers on is no instance.
//   - Nothing is asked of a stranger: the kernel says who listens, and no directory on the way may be one in
//     which somebody else can put a socket.
//   - A name that fits several is an error that lists them; nothing is guessed.
//   - Everything is bounded: places, bytes, and the time that a place may take.

import (
	"context"
	"errors"
	"fmt"
	"os"
	"os/user"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"syscall"
	"time"
)

const (
	contactsMost = 256  // sockets that are looked at
	entriesMost  = 4096 // of a directory that are looked at
	groupsMost   = 64   // groups of ours whose directories are looked at
	asksAtOnce   = 16   // sockets that are asked at the same time
	insistTries  = 5    // at one that is there, and breaks off
)

// findError is that no one instance is found.
type findError struct {
	text, hint string
	status     int
}

func (e *findError) Error() string { return e.text }

// seeker looks for the instance that one command is for.
type seeker struct {
	environ []string
	text    string   // NAME or PID, as it was given; "" none
	pid     int      // 0: it is a name
	groups  []int    // ours
	root    bool     // we are
	chosen  string   // $HOTWRAP_RUNTIME_DIR; "" none
	dirs    []string // of control sockets, in each base
	blocked []string
}

func newSeeker(environ []string, text string) *seeker {
	k := &seeker{environ: environ, text: text, root: os.Geteuid() == 0}
	k.pid, _ = strconv.Atoi(text)
	ids, _ := os.Getgroups()
	k.groups = append([]int{os.Getegid()}, ids...)
	if dir := getenv(environ, "HOTWRAP_RUNTIME_DIR"); dir != "" {
		k.chosen, _ = resolveBase(runtimeDirs(environ)[0])
	}
	return k
}

// findInstance finds the one instance that text, a NAME, a PID or nothing, means.
func findInstance(ctx context.Context, environ []string, text string) (*contact, error) {
	k := newSeeker(environ, text)
	if path := getenv(environ, "HOTWRAP_CONTROL"); text == "" && path != "" {
		p := &contact{path: path, listed: true, seeker: k}
		if k.visit(ctx, p, askLimit); p.standing != contactDead { // it is the one that is meant, so no other can be
			return k.insist(ctx, p)
		}
	}
	all := k.visitAll(ctx, k.contacts())
	if fit := k.fitting(all); len(fit) == 1 {
		return k.insist(ctx, fit[0])
	} else if len(fit) > 1 {
		return nil, k.several(fit)
	}
	for _, p := range all {
		if k.text != "" && k.means(p) {
			return k.insist(ctx, p)
		}
	}
	return nil, k.nobody(ctx, all)
}

// insist gives a place that is meant, and is no use, another chance if that can help, else says why it is no use.
func (k *seeker) insist(ctx context.Context, p *contact) (*contact, error) {
	for tries := 0; p.standing == contactMute && (tries == 0 || tries < insistTries && cutOff(p.why)); tries++ {
		k.visit(ctx, p, askPatience)
	}
	switch p.standing {
	case contactAnswers:
		return p, nil
	case contactMute:
		return nil, &findError{
			fmt.Sprintf("%q (pid %d) does not answer: %v; nothing was asked of it", p.name(), p.pid(), p.why),
			"what it serves may be well; it is stopped (state T), or the machine is very busy", exitUnknown,
		}
	case contactClosed:
		return nil, &findError{
			fmt.Sprintf("%q is not yours to command: %v", p.name(), p.why),
			"sudo hotwrap …; or start it with --control-group GROUP and be in that group", exitNobody,
		}
	case contactForeign:
		return nil, &findError{fmt.Sprintf("%q is not trusted: %v", p.path, p.why), k.foreignHint(p), exitNobody}
	case contactDead:
	}
	return nil, k.nobody(ctx, nil)
}

func (k *seeker) foreignHint(p *contact) string {
	if p.shared && k.text == "" {
		return "your group may command it; say that you mean it: hotwrap … " + p.name()
	}
	return "anybody could have put it there; the directories on the way must be root's or its owner's, and closed to others"
}

// fitting are the instances that are meant. Those in $HOTWRAP_RUNTIME_DIR come first, then ours and root's: nobody
// else's may be in their way.
func (k *seeker) fitting(all []*contact) []*contact {
	var ranks [3][]*contact
	for _, p := range all {
		there := p.standing == contactAnswers || p.standing == contactMute
		ours := p.peer.owns() || !p.peer.known && reliable(uint32(p.owner)) //nolint:gosec // it was one
		switch {
		case !there || !k.means(p):
		case k.within(p):
			ranks[0] = append(ranks[0], p)
		case ours:
			ranks[1] = append(ranks[1], p)
		default:
			ranks[2] = append(ranks[2], p)
		}
	}
	for _, fit := range ranks {
		if len(fit) > 0 {
			return fit
		}
	}
	return nil
}

// within tells whether p lies in $HOTWRAP_RUNTIME_DIR.
func (k *seeker) within(p *contact) bool {
	return k.chosen != "" && strings.HasPrefix(p.path, k.chosen+"/")
}

// means tells whether what the command line says can mean p. Who says nothing but $HOTWRAP_RUNTIME_DIR means what is there.
func (k *seeker) means(p *contact) bool {
	switch {
	case k.text == "":
		return k.chosen == "" || k.within(p)
	case k.pid != 0:
		return p.pid() == k.pid
	}
	return p.name() == k.text
}

// several says which there are.
func (k *seeker) several(fit []*contact) error {
	e := &findError{fmt.Sprintf("%d hotwraps run here", len(fit)), "name one: " + listContacts(fit), exitUsage}
	if k.text != "" {
		e.text = fmt.Sprintf("%d hotwraps named %q run here", len(fit), k.text)
		e.hint = "say its pid instead: " + listContacts(fit)
	}
	return e
}

// nobody says that there is no such instance, and what there is. all is what was seen already.
func (k *seeker) nobody(ctx context.Context, all []*contact) error {
	e := &findError{text: "no hotwrap runs here", status: exitNobody}
	switch {
	case k.text == "" && k.chosen != "":
		e.text = fmt.Sprintf("no hotwrap runs in $HOTWRAP_RUNTIME_DIR, %q", k.chosen)
	case k.pid != 0:
		e.text = fmt.Sprintf("process %d is no hotwrap that can be reached", k.pid)
	case k.text != "":
		e.text = fmt.Sprintf("no hotwrap named %q runs here", k.text)
		every := newSeeker(k.environ, "")
		all = every.visitAll(ctx, every.contacts())
	}
	e.hint = strings.Join(k.whatElse(all), "; ")
	return k.leaving(e)
}

// whatElse are hints at what there is, and why it is not what was meant.
func (k *seeker) whatElse(all []*contact) (hints []string) {
	var run []*contact
	for _, p := range all {
		switch p.standing {
		case contactAnswers, contactMute:
			run = append(run, p)
		case contactClosed, contactForeign:
			if len(hints) < 4 {
				hints = append(hints, fmt.Sprintf("not %q: %v", p.name(), p.why))
			}
			if p.shared {
				hints = append(hints, fmt.Sprintf("your group may command %q, if you name it", p.name()))
			}
		case contactDead:
		}
	}
	if len(run) > 0 {
		hints = slices.Insert(hints, 0, "these run: "+listContacts(run))
	}
	if i := slices.IndexFunc(run, func(p *contact) bool { return k.pid > 0 && isBelow(k.pid, p.pid()) }); i >= 0 {
		hints = slices.Insert(hints, 0, fmt.Sprintf("%d is one of those that %s runs", k.pid, run[i]))
	}
	hints = append(hints, "looked in "+strings.Join(k.lookedIn(), ", "))
	if len(k.blocked) > 0 {
		hints = append(hints, "not let into "+strings.Join(k.blocked, ", "))
	}
	return hints
}

// isBelow tells whether pid is a descendant of top.
func isBelow(pid, top int) bool {
	for range 64 { // generations of processes
		_, ppid, _, _, ok := procState(pid)
		if !ok || ppid <= 1 {
			return false
		}
		if pid = ppid; pid == top {
			return true
		}
	}
	return false
}

// lookedIn names the places of which an ordinary hotwrap chooses one.
func (k *seeker) lookedIn() []string {
	dirs := runtimeDirs(k.environ)
	if canListSockets {
		dirs = append(dirs, "/proc/net/unix")
	}
	return dirs
}

// listContacts names the first few.
func listContacts(all []*contact) string {
	const shown = 8
	var texts []string
	for i, p := range all {
		if i == shown {
			texts = append(texts, "…")
			break
		}
		texts = append(texts, p.String())
	}
	slices.Sort(texts)
	return strings.Join(texts, ", ")
}

// --- where to look

// contacts are the control sockets that may be meant, the likely ones first.
func (k *seeker) contacts() []*contact {
	var all []*contact
	seen := map[string]*contact{}
	add := func(root, path string, listed bool) {
		p := &contact{root: root, path: path, listed: listed, seeker: k}
		switch {
		case seen[path] != nil:
			seen[path].listed = seen[path].listed || listed
		case len(all) == contactsMost || !strings.HasSuffix(path, socketSuffix):
		case k.text != "" && k.pid == 0 && p.name() != k.text:
		default:
			seen[path] = p
			all = append(all, p)
		}
	}
	if path := getenv(k.environ, "HOTWRAP_CONTROL"); path != "" {
		add("", path, true)
	}
	k.dirs = k.controlNames()
	k.search("", k.bases(), add)
	for _, path := range boundSockets("/proc/self") {
		add("", path, true)
	}
	if root := otherRoot(k.pid); root != "" { // containers, and PrivateTmp=
		k.search(root, k.basesBelow(root), add)
		for _, path := range boundSockets("/proc/" + k.text) {
			add(root, root+path, true)
		}
	}
	return all
}

// search adds the sockets of the control directories in bases. With a name there is nothing to list, and
// a directory may let us through that does not let us list it.
func (k *seeker) search(root string, bases []string, add func(root, path string, listed bool)) {
	for _, base := range bases {
		for _, dir := range k.controlDirs(base) {
			if k.text != "" && k.pid == 0 {
				add(root, filepath.Join(dir, k.text+socketSuffix), false)
				continue
			}
			for _, path := range namesIn(dir, "") {
				add(root, path, true)
			}
		}
	}
}

// controlNames are the directories in which control sockets of ours lie, and those of our groups.
func (k *seeker) controlNames() []string {
	names := []string{controlDir}
	for _, gid := range k.groups[:min(len(k.groups), groupsMost)] {
		names = append(names, controlDir+"-"+strconv.Itoa(gid))
		if g, err := user.LookupGroupId(strconv.Itoa(gid)); err == nil {
			names = append(names, controlDir+"-"+g.Name)
		}
	}
	return names
}

// controlDirs are the directories of a base in which control sockets lie.
func (k *seeker) controlDirs(base string) (dirs []string) {
	for _, name := range k.dirs {
		dirs = append(dirs, filepath.Join(base, name))
	}
	for _, dir := range namesIn(base, controlDir+"-") {
		if !slices.Contains(dirs, dir) {
			dirs = append(dirs, dir)
		}
	}
	return dirs
}

// bases are the directories that a hotwrap of ours would choose, and those of everybody whom we may ask. Variables
// differ between a session, cron and sudo, so what they usually say is looked at too.
func (k *seeker) bases() []string {
	bases := runtimeDirs(k.environ)
	more := func(dirs ...string) {
		for _, dir := range dirs {
			if !slices.Contains(bases, dir) {
				bases = append(bases, dir)
			}
		}
	}
	more(fmt.Sprintf("/run/user/%d/hotwrap", os.Geteuid()))
	if k.root {
		for _, dir := range namesIn("/run/user", "") {
			more(filepath.Join(dir, "hotwrap"))
		}
	}
	for _, tmp := range []string{os.TempDir(), "/tmp", sharedMemory} {
		more(namesIn(tmp, "hotwrap-")...)
	}
	return bases
}

// basesBelow are the same below another root directory.
func (k *seeker) basesBelow(root string) []string {
	bases := append([]string{root + "/run/hotwrap"}, namesIn(root+"/tmp", "hotwrap-")...)
	bases = append(bases, namesIn(root+sharedMemory, "hotwrap-")...)
	for _, dir := range namesIn(root+"/run/user", "") {
		bases = append(bases, filepath.Join(dir, "hotwrap"))
	}
	return bases
}

// namesIn lists what is in dir and begins so; nothing if it cannot be read, is a symlink, or is somebody's prank.
func namesIn(dir, start string) (paths []string) {
	if info, err := os.Lstat(dir); err != nil || !info.IsDir() && (start == "" || info.Mode()&os.ModeSymlink == 0) {
		return nil
	}
	f, err := os.Open(dir)
	if err != nil {
		return nil
	}
	names, _ := f.Readdirnames(entriesMost)
	_ = f.Close()
	slices.Sort(names)
	for _, name := range names {
		if strings.HasPrefix(name, start) {
			paths = append(paths, filepath.Join(dir, name))
		}
	}
	return paths
}

// isControlPath tells whether a socket's path is like those of hotwrap's.
func isControlPath(path string) bool {
	dir := filepath.Base(filepath.Dir(path))
	return filepath.IsAbs(path) && filepath.Clean(path) == path && strings.HasSuffix(path, socketSuffix) &&
		(dir == controlDir || strings.HasPrefix(dir, controlDir+"-"))
}

// --- who is there

// visitAll looks at all places, several at a time, and leaves out what is no instance of anybody.
func (k *seeker) visitAll(ctx context.Context, all []*contact) []*contact {
	type visited struct {
		i int
		p contact
	}
	jobs, done := make(chan int, len(all)), make(chan visited, len(all))
	for i := range all {
		jobs <- i
	}
	close(jobs)
	for range asksAtOnce {
		go func() {
			for i := range jobs {
				p := *all[i] // a directory may hang: who looks at it then owns nothing that others want
				k.visit(ctx, &p, askLimit)
				done <- visited{i, p}
			}
		}()
	}
	limit := time.NewTimer(askLimit * time.Duration(2+len(all)/asksAtOnce))
	defer limit.Stop()
	for range all {
		select {
		case v := <-done:
			*all[v.i] = v.p
		case <-limit.C:
			return k.distinct(all)
		}
	}
	return k.distinct(all)
}

// distinct leaves out the dead, and instances that are reached by two ways.
func (k *seeker) distinct(all []*contact) (live []*contact) {
	for _, p := range all {
		same := func(o *contact) bool { return o.peer.pid > 0 && o.peer.pid == p.peer.pid && o.name() == p.name() }
		switch {
		case p.standing == contactDead:
			if errors.Is(p.why, syscall.EACCES) && !slices.Contains(k.blocked, filepath.Dir(p.path)) && len(k.blocked) < 4 {
				k.blocked = append(k.blocked, filepath.Dir(p.path))
			}
		case slices.ContainsFunc(live, same):
		default:
			live = append(live, p)
		}
	}
	return live
}
