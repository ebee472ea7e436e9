package cache

import (
	"fmt"
	"math/bits"
	"sync/atomic"

	"github.com/dgraph-io/ristretto/v2"
)

const (
	// minL1Bytes is where L1 begins to make sense: ristretto's queue of 32,768
	// pointers alone is 256 KiB.
	minL1Bytes     = 512 << 10
	l1QueueBytes   = 256 << 10
	l1CounterBytes = 4  // four-bit counters in four rows, and the doorkeeper's bits
	l1CounterPer   = 64 // one counter for so many bytes: about ten for an item of 500 B
	l1GetBuffer    = 64 // ristretto's own advice
	maxPending     = 8 << 10
	l1GhostSlot    = 256 // bytes of items for a slot of the ghost
	l1ShrinkRounds = 16
	l1LeastBytes   = 128 << 10 // of items: with less the tier is off
)

// l1 is the first tier: whole items by pointer under TinyLFU.
//
// ristretto promises little, and C4 is why that is enough: a set may be lost,
// late or rejected, two sets of a new key keep the first, an evicted item may
// be reported twice or as nil. What must hold is the bound: its queue holds
// whatever was set and not looked at yet, so pending counts that in bytes and
// items and refuses beyond (C7). Below the queue's capacity Del never blocks
// and the cost of an update is never lost.
type l1 struct {
	cache   *ristretto.Cache[uint64, *item]
	fixed   int64 // bytes that are there with no item at all, but for the ghost
	touched marks // keys that rooms above answered for
	off     atomic.Bool
	ghost   atomic.Pointer[ghost] // of what left or was not let in

	maxPendingBytes atomic.Int64
	pendingBytes    atomic.Int64
	pendingItems    atomic.Int64
}

func newL1(size, maxSize, maxEntry int64, gone func(it *item, rejected bool)) (*l1, error) {
	maxSize = max(maxSize, size)
	counters := int64(1) << (bits.Len64(uint64(maxSize/l1CounterPer)) - 1)
	t := &l1{touched: newMarks(maxSize)}
	t.fixed = l1QueueBytes + counters*l1CounterBytes + t.touched.bytes()
	t.bound(size, maxEntry)
	c, err := ristretto.NewCache(&ristretto.Config[uint64, *item]{
		NumCounters:        counters,
		MaxCost:            t.costs(size),
		BufferItems:        l1GetBuffer,
		IgnoreInternalCost: true, // cost already has it, measured
		// The key is our own hash; the item compares the real key.
		KeyToHash: func(hash uint64) (uint64, uint64) { return hash, 0 },
		Cost: func(it *item) int64 { // called when the worker takes the item from the queue
			cost := it.cost()
			t.leave(cost)
			return cost
		},
		OnEvict: func(i *ristretto.Item[*item]) {
			if i.Value != nil { // its sample may hold a key twice
				gone(i.Value, false)
			}
		},
		OnReject: func(i *ristretto.Item[*item]) {
			if i.Value != nil {
				gone(i.Value, true)
			}
		},
	})
	if err != nil {
		return nil, fmt.Errorf("cache: L1: %w", err)
	}
	t.cache = c
	return t, nil
}

// get looks and feeds the admission sketch, on a miss too: that is the credit
// with which the key's cell will be admitted.
func (t *l1) get(hash uint64) *item {
	it, _ := t.cache.Get(hash)
	return it
}

// has looks without touching the sketch.
func (t *l1) has(hash uint64) bool {
	_, ok := t.cache.GetTTL(hash)
	return ok
}

// put offers an item; false means it was refused at once.
func (t *l1) put(it *item) bool {
	cost := it.cost()
	items, queued := t.pendingItems.Add(1), t.pendingBytes.Add(cost)
	if items > maxPending || queued > t.maxPendingBytes.Load() {
		t.leave(cost)
		return false
	}
	if t.has(it.hash) {
		// An update in place is visible at once but never evicts, so growth in
		// place would pass the bound. Whoever grows starts anew: Del, then Set.
		if cur := t.get(it.hash); cur != nil && cost > cur.cost() {
			t.cache.Del(it.hash)
		}
	}
	if !t.cache.Set(it.hash, it, 0) {
		t.leave(cost)
		return false
	}
	return true
}

// room says whether a thirty-second of the tier is free.
func (t *l1) room() bool {
	return t.cache.RemainingCost()-t.pendingBytes.Load() > t.cache.MaxCost()/32
}

func (t *l1) leave(cost int64) {
	t.pendingBytes.Add(-cost)
	t.pendingItems.Add(-1)
}

// bytes is what L1 holds now, with overheads.
func (t *l1) bytes() int64 {
	return t.fixed + t.ghost.Load().bytes() + t.cache.MaxCost() - t.cache.RemainingCost() + t.pendingBytes.Load()
}

func (t *l1) capacity() int64 {
	if t.off.Load() {
		return 0
	}
	return t.fixed + t.ghost.Load().bytes() + t.cache.MaxCost()
}

// bound sets what depends on the size, but for ristretto's own limit.
func (t *l1) bound(size, maxEntry int64) {
	t.maxPendingBytes.Store(max(size/8, 2*maxEntry))
	t.ghost.Store(newGhost(size/4, l1GhostSlot))
}

// costs is what is left for items in a tier of this size.
func (t *l1) costs(size int64) int64 {
	return max(size-t.fixed-t.ghost.Load().bytes(), 1) // zero would ask ristretto for no limit
}

// resize changes the bound. ristretto evicts nothing when its limit falls,
// and nothing at all from then on but for a newcomer that is hotter, so what is
// too much is deleted here, what was not used since it came first; gone gets
// it. Del waits for ristretto's worker, which waits for nobody.
func (t *l1) resize(size, maxEntry int64, gone func(it *item)) {
	t.off.Store(size == 0)
	t.bound(size, maxEntry)
	limit := t.costs(size)
	t.cache.UpdateMaxCost(limit)
	for range l1ShrinkRounds { // items that were on their way in make another one necessary
		t.cache.Wait()
		excess := t.cache.MaxCost() - t.cache.RemainingCost() - limit
		if excess <= 0 {
			return
		}
		var leave []*item
		for _, used := range []bool{false, true} {
			if excess <= 0 {
				break
			}
			t.cache.IterValues(func(it *item) (stop bool) {
				if it != nil && it.used.Load() == used {
					leave = append(leave, it)
					excess -= it.cost()
				}
				return excess <= 0
			})
		}
		for _, it := range leave {
			t.cache.Del(it.hash)
			gone(it)
		}
	}
}
