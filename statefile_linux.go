package main

// This file tells one run of the machine from the next, and exchanges two files.

import (
	"strings"

	"golang.org/x/sys/unix"
)

// bootID is another one after each start of the machine (random(4)); "" if nobody says.
func bootID() string {
	text, err := readProc("/proc/sys/kernel/random/boot_id", maxText)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(string(text))
}

// swapNames gives two files each other's names, at one stroke (renameat2(2)).
func swapNames(a, b string) error {
	return unix.Renameat2(unix.AT_FDCWD, a, unix.AT_FDCWD, b, unix.RENAME_EXCHANGE)
}
