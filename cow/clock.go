package cow

import (
	"sync"
	"sync/atomic"
)

// Clock holds the number up to which commits are published, and the numbers that
// snapshots have registered so that the versions they see are not cut (C3).
// The zero Clock is at number zero with nothing registered. All methods are safe
// for concurrent use; Publish is called by one committer at a time.
type Clock struct {
	published atomic.Uint64
	newestCut atomic.Uint64 // one above the oldest registered number; 0: nothing registered

	mu          sync.Mutex
	front, back *Hold // in ascending order of at
}

// Hold is one registered number. It is meant to be embedded in a snapshot.
type Hold struct {
	at         uint64
	prev, next *Hold
	held       bool
}

// Published is the number that a reader reads at: every commit at or below it is
// visible, none above it is.
func (c *Clock) Published() uint64 { return c.published.Load() }

// Publish makes every commit at or below lsn visible at one instant.
func (c *Clock) Publish(lsn uint64) { c.published.Store(lsn) }

// Register holds back the cutting of versions that a reader at any number loaded
// after this call can see.
//
// Order (C3): register, then load the number. The number registered here was
// published before, so it is at or below what the caller loads afterwards.
func (c *Clock) Register(h *Hold) {
	c.mu.Lock()
	h.at, h.held = c.published.Load(), true
	h.prev, h.next = c.back, nil
	if c.back != nil {
		c.back.next = h
	} else {
		c.front = h
	}
	c.back = h
	c.newestCut.Store(c.front.at + 1)
	c.mu.Unlock()
}

// Release ends a registration. Releasing twice is harmless.
func (c *Clock) Release(h *Hold) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if !h.held {
		return
	}
	h.held = false
	if h.prev != nil {
		h.prev.next = h.next
	} else {
		c.front = h.next
	}
	if h.next != nil {
		h.next.prev = h.prev
	} else {
		c.back = h.prev
	}
	h.prev, h.next = nil, nil
	if c.front == nil {
		c.newestCut.Store(0)
	} else {
		c.newestCut.Store(c.front.at + 1)
	}
}

// Oldest is the lowest registered number: no snapshot reads below it. Without any it is
// the highest number there is; one that registers later reads at what is published by
// then.
func (c *Clock) Oldest() uint64 { return c.newestCut.Load() - 1 }

// keep is the number whose version, and everything newer, must stay.
//
// Order (C3): published first. Read the other way round, a snapshot could
// register after the second load with a number below the one loaded here.
func (c *Clock) keep() uint64 {
	p := c.published.Load()
	return min(p, c.Oldest())
}
