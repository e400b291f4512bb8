package main

// This file proves the shares of a canary with the kernel's own steering.

import "testing"

// TestCanaryShare: of 20,000 connections the successor gets its share, within a percentage point; before and after none.
func TestCanaryShare(t *testing.T) {
	ls, err := openListeners(specs(t, "127.0.0.1:0"), nil)
	if err != nil {
		t.Fatal(err)
	}
	to, _ := newTraffic(ls, false, false)
	t.Cleanup(to.close)
	s, ok := to.(*steered)
	if !ok {
		t.Fatalf("%T does not steer", to)
	}
	for _, generation := range []int{1, 2} {
		if err := s.open(generation, 0); err != nil {
			t.Fatal(err)
		}
	}
	for _, c := range []struct {
		shares map[int]int
		n      int
		least  int
		most   int
	}{
		{map[int]int{1: 1}, 1000, 0, 0},
		{map[int]int{1: 950, 2: 50}, 20000, 800, 1200},
		{map[int]int{1: 995, 2: 5}, 2000, 1, 40},
		{map[int]int{1: 1}, 1000, 0, 0},
		{map[int]int{2: 1}, 1000, 1000, 1000},
	} {
		if _, err := s.route(c.shares); err != nil {
			t.Fatal(err)
		}
		got := spread(t, s.groups[0], "127.0.0.1", c.n, s.member(1, 0), s.member(2, 0))
		t.Logf("%v: %v", c.shares, got)
		if got[0]+got[1] != c.n || got[1] < c.least || got[1] > c.most {
			t.Errorf("%v: %v of %d", c.shares, got, c.n)
		}
	}
}
