package main

// This file keeps hotwrap's service manager waiting: while it waits for a start, a restart or a stop (systemd's TimeoutStartSec=
// and TimeoutStopSec=), it is told again and again to wait on (sd_notify(3), EXTEND_TIMEOUT_USEC), for as long as a limit of
// hotwrap's own still runs, and no longer.

import "time"

const (
	extendParts = 3               // a manager is told so many times within what it is told
	extendGrace = 5 * time.Second // after the last limit, for KILL to act and the verdict to be said
)

// dueExtend says it, at first as soon as there is something to wait for.
func (s *supervisor) dueExtend(now instant) {
	if s.limits.extend == 0 {
		return
	}
	until := s.patience()
	switch {
	case until <= now:
		s.Extend = 0
	case s.Extend == 0 || s.Extend.due(now):
		s.world.extend(min(extendParts*s.limits.extend, until.since(now)+extendGrace))
		s.Extend = now.add(s.limits.extend)
	}
}

// patience is when the last limit of what the manager may wait for ends; zero if there is nothing.
func (s *supervisor) patience() instant {
	var last instant
	if s.Stop != nil && s.Stop.Delay != 0 {
		last = s.Stop.Delay.add(s.limits.stopTimeout)
	}
	if r := s.Restart; r != nil {
		last = max(last, r.Canary.Next, r.Canary.Limit)
	}
	if s.Ending {
		last = max(last, s.Hooks.Deadline, s.Hooks.End)
	}
	for _, g := range s.Generations {
		last = max(last, g.Deadline) // of a start, a trial, a drain
		for _, w := range g.Workers {
			if s.Ending {
				last = max(last, w.Limit)
			}
		}
	}
	return last
}
