package main

import "testing"

func TestCrowded(t *testing.T) {
	for _, c := range []struct {
		use, room uint64
		want      bool
	}{
		{0, 0, false}, // the first generation has no predecessor
		{0, 1 << 30, false},
		{100 << 20, 1 << 30, false},
		{100 << 20, 125 << 20, false},
		{100 << 20, 125<<20 - 1, true}, // a successor may need somewhat more
		{100 << 20, 0, true},
		{1 << 62, 1 << 40, true},
		{1, 1<<64 - 1, false}, // a cgroup without a limit
	} {
		if got := crowded(c.use, c.room); got != c.want {
			t.Errorf("crowded(%d, %d) = %v", c.use, c.room, got)
		}
	}
}
