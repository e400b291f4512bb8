package main

import (
	"math/rand/v2"
	"slices"
	"strings"
	"testing"

	"golang.org/x/sys/unix"
)

// TestGroupConfirm: however wrong the mirror is, the kernel is asked for the order, and no program gets a connection by that.
func TestGroupConfirm(t *testing.T) {
	for _, at := range []string{"127.0.0.1:0", "0.0.0.0:0", "[::1]:0", "[::]:0", "127.0.0.1:0 of MPTCP"} {
		t.Run(at, func(t *testing.T) {
			where, mptcp := at, false
			if strings.HasSuffix(at, "MPTCP") {
				where, mptcp = "127.0.0.1:0", true
			}
			g := groupAt(t, where)
			joined(t, g, 3)
			if mptcp {
				for range 3 {
					joinMPTCP(t, g)
				}
			}
			aimAt(t, g, g.members[2])
			is := slices.Clone(g.members)
			random := rand.New(rand.NewPCG(1, 2))
			for range 20 {
				random.Shuffle(len(g.members), func(i, j int) { g.members[i], g.members[j] = g.members[j], g.members[i] })
				if err := g.confirm(); err != nil {
					t.Fatal(err)
				}
				if !slices.Equal(inodes(g.members), inodes(is)) {
					t.Fatalf("%v, but it is %v", inodes(g.members), inodes(is))
				}
				for i, m := range g.members {
					if n := take(m); n > 0 {
						t.Fatalf("%d got %d connections", i, n)
					}
				}
			}
			host := "127.0.0.1"
			if g.at.Addr().Is6() {
				host = "::1"
			}
			if got := spread(t, g, host, 10, is[2])[0]; got != 10 {
				t.Errorf("%d of 10 connections", got)
			}
		})
	}
}

// joinMPTCP has a socket of MPTCP, as Go's programs have them, join a group.
func joinMPTCP(t *testing.T, g *group) {
	t.Helper()
	fd, err := newSocket(g.family, unix.SOCK_STREAM, unix.IPPROTO_MPTCP, false)
	if err != nil {
		t.Skip(err)
	}
	if err := g.admit(fd); err != nil {
		t.Fatal(err)
	}
	if _, err := g.listen(fd, 10); err != nil {
		t.Fatal(err)
	}
}

// TestGroupConfirmStranger: somebody who is not known has a place.
func TestGroupConfirmStranger(t *testing.T) {
	g := groupAt(t, "127.0.0.1:0")
	joined(t, g, 2)
	aimAt(t, g, g.members[1])
	stranger := g.members[0]
	g.members = slices.Delete(g.members, 0, 1)
	defer unix.Close(stranger.fd)
	if err := g.confirm(); err == nil {
		t.Error("no error")
	}
}
