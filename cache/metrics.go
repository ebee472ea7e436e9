package cache

import (
	"sync"
	"sync/atomic"
)

// Metrics is a moment of the cache's counters. Counters only rise.
type Metrics struct {
	L1Hits, L2Hits, Misses uint64

	// StaleL1 and StaleL2 are entries that were there and failed the check.
	StaleL1, StaleL2 uint64
	Collisions       uint64 // entries of another key under the same hash
	Loads, Joins     uint64 // Joins used a load in flight

	Fills   uint64 // loads offered to a tier
	Refused uint64 // not offered: too large, or the queue was full

	Evictions  uint64 // L1 let an item go
	Rejects    uint64 // L1 did not admit an item
	Barred     uint64 // L2 did not take a load: not asked for often enough
	Victims    uint64 // items that L2 took: loads, and what L1 let go
	Dropped    uint64 // victims and promotions that found the queue full or L2 unwilling
	Promotions uint64 // L2 hits that went up
	Offers     uint64 // cells that a flush handed over
	Rounds     uint64 // entries of the present L2 that its ring kept once more

	Undecoded    uint64 // entries of L2 whose dictionary is gone
	RawBytes     uint64 // of cells that went into L2
	StoredBytes  uint64 // what they became
	Dictionaries uint64 // that were trained

	// Ghosts are misses that a tier larger by a quarter might have answered: the
	// key left L1, or was not let in, or left L2, within the last quarter of the
	// tier's bytes. L1GhostsL2 are keys that L2 answered instead of L1.
	L1Ghosts, L2Ghosts, L1GhostsL2 uint64
	GhostBytes                     int64 // part of the tiers' bytes

	// Bytes are real, with overheads. L2's ring is there from the start.
	L1Bytes, L2Bytes       int64
	L1Capacity, L2Capacity int64 // zero: the tier is off
	L2Entries              int
	L2Filled               int64 // bytes that went into the present ring; it begins anew with each size
	QueuedBytes            int64 // on the way to L2
}

type counter int

const (
	cL1Hit counter = iota
	cL2Hit
	cMiss
	cStaleL1
	cStaleL2
	cCollision
	cLoad
	cJoin
	cFill
	cRefused
	cEvicted
	cRejected
	cBarred
	cVictim
	cDropped
	cPromoted
	cOffered
	cUndecoded
	cGhostL1
	cGhostL2
	cGhostL1InL2
	counters
)

const stripes = 64

// tally counts without a cache line that all cores fight for: each P keeps a
// token (sync.Pool is per P) that names its stripe. Exact, and close to the
// price of a plain increment.
type tally struct {
	tokens  sync.Pool
	next    atomic.Uint32
	stripes [stripes]stripe
}

type stripe struct {
	n [counters]atomic.Uint64
	_ [64]byte // the next stripe's first line is not this one's last
}

type token struct{ stripe uint32 }

func (t *tally) add(c counter) {
	tk, _ := t.tokens.Get().(*token)
	if tk == nil {
		tk = &token{stripe: t.next.Add(1) % stripes}
	}
	t.stripes[tk.stripe].n[c].Add(1)
	t.tokens.Put(tk)
}

func (t *tally) sum(c counter) (n uint64) {
	for i := range t.stripes {
		n += t.stripes[i].n[c].Load()
	}
	return n
}

// Metrics reads all counters. It takes locks of the libraries for a moment and
// is meant for once a second, not for once an operation.
func (c *Cache) Metrics() Metrics {
	t := &c.tally
	m := Metrics{
		L1Hits: t.sum(cL1Hit), L2Hits: t.sum(cL2Hit), Misses: t.sum(cMiss),
		StaleL1: t.sum(cStaleL1), StaleL2: t.sum(cStaleL2), Collisions: t.sum(cCollision),
		Loads: t.sum(cLoad), Joins: t.sum(cJoin),
		Fills: t.sum(cFill), Refused: t.sum(cRefused),
		Evictions: t.sum(cEvicted), Rejects: t.sum(cRejected), Barred: t.sum(cBarred),
		Victims: t.sum(cVictim), Dropped: t.sum(cDropped), Promotions: t.sum(cPromoted),
		Offers: t.sum(cOffered), Undecoded: t.sum(cUndecoded),
		L1Ghosts: t.sum(cGhostL1), L2Ghosts: t.sum(cGhostL2), L1GhostsL2: t.sum(cGhostL1InL2),
		RawBytes: c.codec.raw.Load(), StoredBytes: c.codec.stored.Load(), Dictionaries: c.codec.trainings.Load(),
	}
	c.gate.RLock()
	defer c.gate.RUnlock()
	if c.closed.Load() {
		return m
	}
	if up := c.l1.Load(); up != nil {
		m.L1Bytes, m.L1Capacity = up.bytes(), up.capacity()
		m.GhostBytes += up.ghost.Load().bytes()
	}
	if low := c.l2.Load(); low != nil {
		m.L2Bytes, m.L2Capacity = low.bytes(), low.ring
		m.GhostBytes += low.ghost.bytes() + low.marks.bytes()
		m.Rounds, m.L2Filled = low.rounds.Load(), low.filled.Load()
		if !low.broken.Load() {
			m.L2Entries = low.cache.Len()
		}
	}
	m.QueuedBytes = c.queue.bytes.Load()
	return m
}
