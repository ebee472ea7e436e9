package cache

import (
	"math/bits"
	"sync/atomic"
)

const (
	ghostWays     = 8
	ghostGranules = 1 << 12 // how finely the window is measured
)

// ghost remembers which keys went past, first in first out, as long as at most
// window bytes went past since. It holds fingerprints, not keys: a slot is 16
// bits of the hash and 16 bits of a clock that counts bytes. Its memory is
// fixed; where many small cells go past, the oldest of a bucket give way
// early. Nothing waits: two that write a slot at once lose one of the marks,
// and a wrong answer, one in eight thousand, costs a wrong count.
type ghost struct {
	slots   []atomic.Uint32
	clock   atomic.Uint64 // bytes that went past
	granule uint64
}

// newGhost covers a window of so many bytes, with one slot for perSlot of them.
func newGhost(window, perSlot int64) *ghost {
	n := 1 << bits.Len64(uint64(max(window/perSlot, ghostWays)-1))
	return &ghost{
		slots:   make([]atomic.Uint32, n),
		granule: uint64(max(window/ghostGranules, 1)),
	}
}

// at returns the bucket of a hash, its fingerprint (never zero) and the time.
func (g *ghost) at(hash uint64) (bucket []atomic.Uint32, mark uint16, now uint16) {
	hash = mix(hash)
	i := int(hash%uint64(len(g.slots))) &^ (ghostWays - 1)
	return g.slots[i : i+ghostWays], uint16(hash>>48) | 1, uint16(g.clock.Load() / g.granule)
}

// add notes that a key of so many bytes went past.
func (g *ghost) add(hash uint64, n int64) {
	bucket, mark, _ := g.at(hash)
	now := uint16(g.clock.Add(uint64(n)) / g.granule)
	oldest, age := 0, -1
	for i := range bucket {
		v := bucket[i].Load()
		if v == 0 || uint16(v) == mark {
			oldest = i
			break
		}
		if a := int(now - uint16(v>>16)); a > age {
			oldest, age = i, a
		}
	}
	bucket[oldest].Store(uint32(now)<<16 | uint32(mark))
}

// has says whether the key went past within the window.
func (g *ghost) has(hash uint64) bool { return g.find(hash) != nil }

// take is has, once: what was found is forgotten.
func (g *ghost) take(hash uint64) bool {
	s := g.find(hash)
	if s == nil {
		return false
	}
	s.Store(0)
	return true
}

func (g *ghost) find(hash uint64) *atomic.Uint32 {
	bucket, mark, now := g.at(hash)
	for i := range bucket {
		if v := bucket[i].Load(); v != 0 && uint16(v) == mark && now-uint16(v>>16) <= ghostGranules {
			return &bucket[i]
		}
	}
	return nil
}

func (g *ghost) bytes() int64 { return int64(len(g.slots)) * 4 }
