package main

// This file is who is at the other end of a unix socket, as the kernel says: nothing in a message counts.

import (
	"fmt"
	"os"
	"os/user"
	"strconv"
)

// caller is who is at the other end of a connection, as the kernel says.
type caller struct {
	uid, gid, pid int
	groups        []int
	known         bool
}

// String names the peer for logs and verdicts: "alice (uid 1000)".
func (p caller) String() string {
	if !p.known {
		return ""
	}
	if u, err := user.LookupId(strconv.Itoa(p.uid)); err == nil {
		return fmt.Sprintf("%s (uid %d)", u.Username, p.uid)
	}
	return fmt.Sprintf("uid %d", p.uid)
}

// owns tells whether the peer may do everything: root, and who hotwrap runs as.
func (p caller) owns() bool { return p.known && (p.uid == 0 || p.uid == os.Geteuid()) }
