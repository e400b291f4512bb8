package main

// This file tells one run of the machine from the next.

import "strings"

// bootID is another one after each start of the machine (random(4)); "" if nobody says.
func bootID() string {
	text, err := readProc("/proc/sys/kernel/random/boot_id", maxText)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}
