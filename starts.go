package main

// This file is how the host starts what the supervisor asks for, workers, --check, --build and hooks, and what a worker
// is given to speak by.
//
// Its rules: what reads files runs in a goroutine and answers with an event; a worker's sources end with it.

import (
	"fmt"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

const (
	oomRaise     = 500  // added to a candidate's oom_score_adj: if memory runs out, it goes first
	memoryMargin = 1.25 // a successor may need this much more than its predecessor has now
)

// prepare pins the image of a generation, and looks once more at its predecessor, which must be matched.
// An old image, if given, is pinned once more instead.
func (h *host) prepare(g, predecessor *generation, old *image) {
	for _, l := range h.open() {
		_ = l.drops() // what the predecessor did not read in time is its own
	}
	number, overlap := g.Number, h.limits.overlap
	var pids, serials []int
	var like *image
	if predecessor != nil {
		like = predecessor.Image
		for _, w := range predecessor.Workers {
			if w.State == workerReady {
				pids, serials = append(pids, w.PID), append(serials, w.Serial)
			}
		}
	}
	resolve := h.resolver(number, like, old)
	var wanted map[uint64]string
	if predecessor != nil {
		wanted = h.wanted(predecessor)
	}
	inodes := inodesOf(wanted)
	go func() {
		for i, pid := range pids {
			h.post(event{kind: evLook, serial: serials[i], sight: sightOf(look(pid, inodes), wanted)})
		}
		img, err := resolve()
		ev := event{kind: evPrepared, number: number, image: img, err: limited(err)}
		if err == nil && overlap {
			ev.warnings = memoryWarnings(pids)
		}
		if !h.post(ev) && img != nil {
			img.unpin()
		}
	}()
}

// resolver is how the image of a generation is had: of what lies on disk, or of what was run before.
func (h *host) resolver(number int, like, old *image) func() (*image, error) {
	if old == nil {
		return func() (*image, error) { return h.program.resolve(number, like) }
	}
	img, err := old.again(number)
	return func() (*image, error) {
		if err == nil {
			err = img.intact()
		}
		return img, err
	}
}

// memoryWarnings compares what the predecessor uses with what is left for a second one like it.
func memoryWarnings(pids []int) []string {
	if len(pids) == 0 {
		return nil
	}
	var all []int
	for _, pid := range pids {
		all = append(all, tree(pid)...)
	}
	use := memoryUse(all)
	room, where, ok := memoryRoom()
	if !ok || !crowded(use, room) {
		return nil
	}
	return []string{fmt.Sprintf("the predecessor uses %s, %s has %s left; if both do not fit, use --no-overlap",
		megabytes(use), where, megabytes(room))}
}

// crowded tells whether a second one like that which uses use may not fit into room.
func crowded(use, room uint64) bool { return float64(use)*memoryMargin > float64(room) }

func megabytes(n uint64) string { return strconv.FormatUint(n>>20, 10) + " MB" }

// check runs --check as the program would be run, but nothing tells it of sockets: it has none.
func (h *host) check(g *generation) (int, error) {
	return h.program.startShell(h.program.check, g.Image.Dir, inherited(g.Image.environ(nil)))
}

// build runs --build in the program's directory as it is now; its output is hotwrap's own.
func (h *host) build() (int, error) {
	dir, err := unix.Open(h.program.dir, openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot enter directory %q: %w", h.program.dir, err)
	}
	defer unix.Close(dir)
	return h.program.startShell(h.program.build, dir, inherited(h.program.base))
}

// hook runs a --hook like --check. Where its generation has no image, its directory may be what hangs: then
// it is a shell that goes there, not hotwrap.
func (h *host) hook(command string, k hook) (int, error) {
	p := h.program
	told := append(k.environ(), p.address()...)
	if k.Image != nil {
		return p.startShell(command, k.Image.Dir, apply(inherited(k.Image.environ(nil)), told))
	}
	root, err := unix.Open("/", openPin|unix.O_DIRECTORY|unix.O_CLOEXEC, 0)
	if err != nil {
		return 0, fmt.Errorf("cannot open /: %v", err)
	}
	defer unix.Close(root)
	env := apply(p.own(), p.expandAll(p.env))
	return p.startShell("cd -- "+quoted(p.dir)+" || exit\n"+command, root, apply(env, told))
}

// start is spawn; where that fails for a limit, the error names it.
func (h *host) start(g *generation, w *worker) (int, error) {
	pid, err := h.spawn(g, w)
	return pid, limited(err)
}

// spawn starts one worker of g and listens to it.
func (h *host) spawn(g *generation, w *worker) (int, error) {
	serial, img := w.Serial, g.Image
	uid, gid := h.program.owner()
	output, err := h.out.begin(serial, g.Number, uid, gid)
	if err != nil {
		return 0, err
	}
	defer closeEnds(output)
	w.Pipes = pipeInodes(output)
	h.holdFor(g)
	l := launch{ready: -1, ack: -1, output: output, sockets: h.traffic.sockets(g.Number), env: []string{"HOTWRAP_WORKER=" + strconv.Itoa(w.Slot), "EINHORN_CHILD_INDEX=" + strconv.Itoa(w.Slot)}}
	e, err := h.listenTo(serial, &l)
	if err != nil {
		h.out.gone(serial)
		return 0, err
	}
	defer l.close()
	if w.Adopted {
		err = h.openAdoption(serial, &e, &l)
	}
	if err != nil {
		h.close(e)
		h.out.gone(serial)
		return 0, err
	}
	pid, err := h.program.start(img, l)
	if err != nil {
		h.close(e)
		h.out.gone(serial)
		return 0, err
	}
	h.ears[serial] = e
	go h.awaitExec(serial, e.report, img)
	if g.State == genStarting && g.Number > 1 {
		expose(pid)
	}
	return pid, nil
}

// awaitExec posts that a shim has become the program, or why it could not.
func (h *host) awaitExec(serial int, report *os.File, img *image) {
	err := readReport(report, img)
	_ = report.Close()
	h.post(event{kind: evExec, serial: serial, err: err})
}

// expose has a candidate go first if memory runs out.
func expose(pid int) {
	if own, err := oomScoreAdj(os.Getpid()); err == nil {
		_ = setOOMScoreAdj(pid, min(own+oomRaise, 1000))
	}
}

// close closes what is the worker's by now.
func (l *launch) close() {
	for _, fd := range []int{l.report, l.ready, l.ack, l.adopt} {
		if fd > 0 {
			_ = unix.Close(fd)
		}
	}
}

// moveNotify makes a new directory for the workers' sockets: somebody cleaned the old one away.
func (h *host) moveNotify() error {
	uid, gid := h.program.owner()
	next, err := openNotifyDir(h.program.base, uid, gid)
	if err != nil {
		return err
	}
	h.notify.close()
	h.notify = next
	return nil
}

// disk tells what lies on disk where g's program was found.
func (h *host) disk(g *generation) diskState { return g.Image.disk(h.program.dir) }

// promote lets g be killed for memory no sooner than anybody else: its processes had a raised score
// while they were on trial.
func (h *host) promote(g *generation) {
	h.sayDrops()
	own, err := oomScoreAdj(os.Getpid())
	if err != nil || g.Number == 1 {
		return
	}
	var pids []int
	for _, w := range g.Workers {
		pids = append(pids, w.PID)
	}
	go func() {
		for _, pid := range pids {
			for _, p := range tree(pid) {
				_ = setOOMScoreAdj(p, own)
			}
		}
	}()
}

func (h *host) release(g *generation) {
	if cut := h.traffic.release(g.Number); cut > 0 && (g.Served || g.Stage == stageCanary) && !h.closed {
		h.say(warning("%s cut: generation %d ended before it took them", count(cut, "connection"), g.Number))
	}
	if g.Image != nil {
		g.Image.unpin()
	}
}
