//go:build !linux

package main

// This file says what doctor cannot see on other systems.

import "syscall"

// here tries the little that there is.
func (x *examination) here() {
	if err := basics(); err != nil {
		x.vital("start", "", err)
		return
	}
	x.lacking("steering", lostSteering, steerable())
	x.lacking("adoption", lostAdoption, adoptable())
	x.add(fitLimited, "pin", "", "a crashed worker starts from what lies on disk then")
}

// trialProcess is how the hotwrap of a trial is started: out of the terminal's reach.
func trialProcess() *syscall.SysProcAttr { return &syscall.SysProcAttr{Setpgid: true} }

func runningAs(int) string { return "" }
