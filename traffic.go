package main

// This file decides which sockets a generation is given and who takes the new connections.

// traffic is how connections get to generations. The supervisor speaks of generations and shares
// only; descriptors and kernel mechanisms stay behind this.
type traffic interface {
	sockets(generation, slot int) []*listener // what a worker inherits, in the order of the listeners
	route(shares map[int]int)                 // generation → share of the new connections, of the sum of all
	release(generation int)                   // it is gone
}

// sharedTraffic gives every generation the same sockets: whoever accepts first serves. Nothing can be
// routed, and nothing is lost when a generation goes, since the queue belongs to all.
type sharedTraffic struct{ listeners []*listener }

func (t sharedTraffic) sockets(int, int) []*listener { return t.listeners }
func (sharedTraffic) route(map[int]int)              {}
func (sharedTraffic) release(int)                    {}
