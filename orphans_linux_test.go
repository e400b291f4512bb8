package main

import (
	"os/exec"
	"runtime"
	"slices"
	"syscall"
	"testing"
	"time"
)

// sleeper is a process that is killed at the end at the latest, and when it started.
func sleeper(t *testing.T) (pid int, start uint64) {
	t.Helper()
	cmd := exec.Command("sleep", "1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	})
	_, _, _, start, ok := procState(cmd.Process.Pid)
	if !ok {
		t.Fatal("it cannot be seen")
	}
	return cmd.Process.Pid, start
}

// A pid that is another process's by now is nobody's: it has ended, and gets no signal.
func TestOrphansReused(t *testing.T) {
	ours, start := sleeper(t)
	stranger, later := sleeper(t)
	o, err := openOrphans(map[int]uint64{ours: start, stranger: later - 1})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	if _, ok := o.fds[stranger]; ok || !slices.Equal(o.dead, []int{stranger}) {
		t.Errorf("a stranger is taken for an orphan: %v, dead %v", o.fds, o.dead)
	}
	if _, ok := o.fds[ours]; !ok {
		t.Error("an orphan is not found")
	}
}

// The end of an orphan is told, also while its new parent has not reaped it, and its group counts as empty then.
func TestOrphansEnd(t *testing.T) {
	pid, start := sleeper(t)
	o, err := openOrphans(map[int]uint64{pid: start})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	events := make(chan event)
	o.watch(events)
	if o.emptied(pid) {
		t.Error("its group is empty while it lives")
	}
	if !o.signal(pid, syscall.SIGKILL) {
		t.Error("it is none of them")
	}
	select {
	case ev := <-events:
		if want := []death{{pid, exitStatus{Unknown: true}}}; ev.kind != evChild || !slices.Equal(ev.ended, want) {
			t.Errorf("got %v %v, want %v", ev.kind, ev.ended, want)
		}
	case <-time.After(patience):
		t.Fatal("nobody tells of its end")
	}
	if !o.emptied(pid) || groupEmpty(pid) {
		t.Error("a zombie is not left out of its group, or there is none")
	}
	if left := o.stop(); len(left) > 0 {
		t.Errorf("left: %v", left)
	}
}

// What the leader of a group leaves behind is watched, also if it ends before anybody watches, and is carried along.
func TestOrphansRest(t *testing.T) {
	cmd := exec.Command("sh", "-c", "sleep 1000 & exec sleep 1000")
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	if err := cmd.Start(); err != nil {
		t.Fatal(err)
	}
	group := cmd.Process.Pid
	t.Cleanup(func() { _ = syscall.Kill(-group, syscall.SIGKILL) })
	for end := time.Now().Add(patience); len(membersOf(group)) < 2; runtime.Gosched() {
		if time.Now().After(end) {
			t.Fatal("there is no second process")
		}
	}
	_, _, _, start, _ := procState(group)
	_ = cmd.Process.Kill()
	_ = cmd.Wait()
	o, err := openOrphans(map[int]uint64{group: start})
	if err != nil {
		t.Fatal(err)
	}
	defer o.close()
	events := make(chan event)
	o.watch(events)
	next := func() (pids []int) {
		select {
		case ev := <-events:
			for _, d := range ev.ended {
				pids = append(pids, d.pid)
			}
		case <-time.After(patience):
			t.Error("nobody tells of an end")
		}
		return pids
	}
	if got := next(); !slices.Equal(got, []int{group}) {
		t.Errorf("ended: %v, want %d", got, group)
	}
	rest := membersOf(group)
	_ = syscall.Kill(-group, syscall.SIGKILL)
	if got := next(); !slices.Equal(got, rest) {
		t.Errorf("ended: %v, want %v", got, rest)
	}
	o.stop()
}

func membersOf(group int) (all []int) {
	eachOfGroup(group, func(pid int) { all = append(all, pid) })
	return all
}
