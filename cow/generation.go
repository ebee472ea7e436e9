package cow

import (
	"iter"
	"math/bits"
	"runtime"
	"sync"
	"sync/atomic"
)

// Found says what a generation knows of a key at a number.
type Found uint8

const (
	Unknown Found = iota // nothing: look in the next older room
	Hit                  // the cell that came with it, which may be a tombstone
	Hidden               // a range tombstone covers the key
	Cut                  // versions were dropped: load view and number again (C3)
)

// Generation is one sharded copy-on-write map with its range tombstones. Readers
// take no lock and write nothing that others share. Put and DeleteRange may run
// beside readers and, for different keys, beside each other; calls for the same
// key must come in the order of their commit numbers.
type Generation struct {
	clock  *Clock
	shards []shard
	shift  uint // a hash's high bits choose the shard, its low bits the slot
	why    string
	ranges atomic.Pointer[rangeSet]
	bytes  atomic.Int64
	keys   atomic.Int64

	rangeMu sync.Mutex // serialises writers of ranges

	order order
}

// Shape is what is chosen for a generation when it is made.
type Shape struct {
	Shards int    // a power of two
	Keys   int    // how many keys to expect; tables are made for them
	Why    string // so many shards, for people
}

// NewGeneration returns an empty generation whose versions are cut by clock.
func NewGeneration(clock *Clock, s Shape) *Generation {
	n := ceilPow2(max(1, min(s.Shards, 1<<12)))
	g := &Generation{clock: clock, shards: make([]shard, n), shift: uint(64 - bits.TrailingZeros(uint(n))), why: s.Why}
	tableSize := ceilPow2(max(minTable, min(s.Keys, 1<<26)/n*4/3))
	for i := range g.shards {
		g.bytes.Add(g.shards[i].init(tableSize))
	}
	return g
}

func (g *Generation) shard(hash uint64) *shard { return &g.shards[hash>>g.shift] }

// Put places a cell for key. key and payload are copied.
func (g *Generation) Put(hash uint64, key []byte, lsn uint64, h Header, payload []byte) {
	s := g.shard(hash)
	s.lock()
	before := s.count
	grown := s.putLocked(hash, key, lsn, h, payload, g.clock.keep())
	added := s.count - before
	if added != 0 {
		g.order.note()
	}
	s.mu.Unlock()
	if grown != 0 {
		g.bytes.Add(grown)
	}
	if added != 0 {
		g.keys.Add(1)
	}
}

// Get finds the cell of key that a reader at number at sees. The cell aliases the
// generation, which the garbage collector keeps while it is in use.
func (g *Generation) Get(hash uint64, key []byte, at uint64) (Cell, Found) {
	var v *version
	if e := g.shard(hash).table.Load().find(hash, key); e != nil {
		v = e.newest.Load()
		for v != nil && v.lsn > at {
			v = v.prev.Load()
		}
		if v == cut {
			return nil, Cut
		}
	}
	if rs := g.ranges.Load(); rs != nil {
		switch lsn, f := rs.find(key, at); {
		case f == Cut:
			return nil, Cut
		case f == Hidden && (v == nil || v.lsn < lsn): // C5
			return nil, Hidden
		}
	}
	if v == nil {
		return nil, Unknown
	}
	return v.cell, Hit
}

// Covers says whether a range tombstone hides key, which an older room knows,
// from a reader at number at.
func (g *Generation) Covers(key []byte, at uint64) Found {
	_, f := g.Cover(key, at)
	return f
}

// Cover is Covers with the commit number of the newest such range tombstone.
func (g *Generation) Cover(key []byte, at uint64) (lsn uint64, f Found) {
	if rs := g.ranges.Load(); rs != nil {
		return rs.find(key, at)
	}
	return 0, Unknown
}

// DeleteRange places the range tombstones of one commit. The bounds are copied.
func (g *Generation) DeleteRange(lsn uint64, ranges []Range) {
	g.rangeMu.Lock()
	defer g.rangeMu.Unlock()
	old := g.ranges.Load()
	next := old.with(lsn, ranges, g.clock.keep())
	g.ranges.Store(next)
	g.bytes.Add(next.bytes - old.size())
}

// Bytes is what the generation keeps allocated (C6).
func (g *Generation) Bytes() int64 { return g.bytes.Load() }

// Len is the number of keys, tombstones included.
func (g *Generation) Len() int { return int(g.keys.Load()) }

// Fragments is the number of range-tombstone fragments. A look-up costs their
// logarithm and a range delete copies them, so their owner bounds them.
func (g *Generation) Fragments() int {
	if rs := g.ranges.Load(); rs != nil {
		return len(rs.frags)
	}
	return 0
}

// Empty says whether nothing was placed.
func (g *Generation) Empty() bool { return g.Len() == 0 && g.Fragments() == 0 }

// Hashes yields the hash of every key, in no order. Frozen generations only.
func (g *Generation) Hashes() iter.Seq[uint64] {
	return func(yield func(uint64) bool) {
		for i := range g.shards {
			t := g.shards[i].table.Load()
			for j := range t.slots {
				if t.slots[j].entry.Load() != nil && !yield(t.slots[j].hash) {
					return
				}
			}
		}
	}
}

// Next is the shape of the generation after this one: tables for as many keys as
// came this time, and more shards where writers met each other or tables got
// large enough that growing one would hold up a commit.
func (g *Generation) Next() Shape {
	var waits uint64
	for i := range g.shards {
		s := &g.shards[i]
		s.mu.Lock()
		waits += s.waits
		s.mu.Unlock()
	}
	keys := g.Len()
	n, why := len(g.shards), "as many as the generation before"
	switch {
	case waits > uint64(keys)/64:
		n, why = n*2, "writers met each other"
	case keys/n > 16<<10:
		n, why = n*2, "tables had grown large"
	case waits <= uint64(keys)/1024 && keys/n < 2<<10:
		n, why = n/2, "tables were small and writers did not meet"
	}
	procs := runtime.GOMAXPROCS(0)
	if most, least := 64*procs, 2*procs; n > most || n < least {
		n, why = max(least, min(n, most)), "the bound for so many processors"
	}
	// Half the tables' room: a smaller generation should not pay for a larger one.
	return Shape{Shards: ceilPow2(n), Keys: keys / 2, Why: why}
}

// Shards is the number of shards this generation was made with.
func (g *Generation) Shards() int { return len(g.shards) }

// Why says why it is so many.
func (g *Generation) Why() string { return g.why }

func ceilPow2(n int) int { return 1 << bits.Len(uint(n-1)) }
