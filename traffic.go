package main

// This file decides which sockets a generation is given and who gets the new connections.
//
// Its rules: only the supervisor's goroutine calls what is here; the supervisor speaks of generations and
// shares only, descriptors and kernel mechanisms stay behind this.

import "net/netip"

// traffic is how connections get to generations.
type traffic interface {
	open(generation, like int) error          // its sockets, before its first worker; like ≠ 0: those of that generation
	sockets(generation int) []*listener       // what its workers inherit, in the order of the listeners; of 0: where new connections go
	all() []*listener                         // every socket that is held
	route(shares map[int]int) (routed, error) // generation → its part of the new connections, of the sum of all
	aim(to aim) error                         // besides, until unaim, the next aim, or the generation's release
	unaim(port uint16)                        // what comes from there is a client's again
	park() (whole bool, err error)            // from now on they wait in sockets that no program has; whole: none goes to who got them until now
	relisten(l *listener) error               // with its own backlog, also after a program shut it down
	steers(i int) bool                        // whether the listener of that index is one of those that can be routed
	left(generation int) int                  // connections that wait in sockets of its own
	adopt(generation int, c *call) adopted    // answers a bind or listen of its program
	hold(generation int)                      // nobody is let in until its program listens, or it is routed to
	release(generation int) (cut int)         // it is gone; so many connections waited in what had to be closed
	watch(spoilt spoiltFunc) error            // over all sockets, see watchListeners; unwatch must be called all the same
	unwatch()
	carry(b *baggage) carriedTraffic // all of it, for the hotwrap that comes after this one
	close()
}

// spoiltFunc is told of a listener that a program may have spoilt, by a goroutine that must not wait any more once quit is closed.
type spoiltFunc func(l *listener, quit <-chan struct{})

// adopted is what came of a bind or listen of a program.
type adopted struct {
	l       *listener // that it was for; nil: none
	listens bool      // now, as this generation's own
	learned bool      // hotwrap has it as a listener from now on
	cut     int       // connections that waited where nobody will accept now
	err     error
}

// aim sends what comes from one source to one generation, whatever the shares say. Zero: nothing.
type aim struct {
	from       netip.AddrPort
	generation int
}

// routed is how far a route holds.
type routed struct {
	steered bool // of some listeners at least: what waits for a predecessor there is its own
	alone   bool // of all of them: nobody without a share gets a new connection
}

// sharedTraffic gives every generation the same sockets: whoever accepts first serves. Nothing can be
// routed, and nothing is lost when a generation goes, since the queue belongs to all.
type sharedTraffic struct {
	listeners []*listener
	quit      chan struct{}
	ended     func()
}

func (t *sharedTraffic) open(int, int) error               { return nil }
func (t *sharedTraffic) sockets(int) []*listener           { return t.listeners }
func (t *sharedTraffic) all() []*listener                  { return t.listeners }
func (t *sharedTraffic) route(map[int]int) (routed, error) { return routed{}, nil }
func (t *sharedTraffic) aim(aim) error                     { return nil }
func (t *sharedTraffic) unaim(uint16)                      {}
func (t *sharedTraffic) park() (bool, error)               { return false, nil }
func (t *sharedTraffic) relisten(l *listener) error        { return l.refresh() }
func (t *sharedTraffic) steers(int) bool                   { return false }
func (t *sharedTraffic) hold(int)                          {}
func (t *sharedTraffic) left(int) int                      { return 0 }
func (t *sharedTraffic) release(int) int                   { return 0 }
func (t *sharedTraffic) close()                            { closeSockets(t.listeners) }

func (t *sharedTraffic) adopt(_ int, c *call) adopted {
	c.pass()
	return adopted{}
}

func (t *sharedTraffic) watch(spoilt spoiltFunc) (err error) {
	t.quit = make(chan struct{})
	t.ended, err = watchListeners(t.listeners, func(l *listener) { spoilt(l, t.quit) })
	return err
}

func (t *sharedTraffic) unwatch() {
	if t.ended != nil {
		close(t.quit)
		t.ended()
		t.ended = nil
	}
}
