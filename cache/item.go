package cache

import (
	"slices"
	"sync/atomic"
)

// item is one entry of L1: immutable but for its stamp and its mark. ristretto holds a
// pointer to it, so that its queue holds no copies and an evicted item can be
// handed on to L2 as it is.
type item struct {
	stamp atomic.Uint64
	hash  uint64
	key   string
	cell  []byte      // nil: the key is known to be absent
	used  atomic.Bool // a reader found it here
	low   bool        // L2 had it when it came up
}

// What an item takes beside its key and cell: the struct itself; ristretto's
// two maps (56-byte and 16-byte slots, at the load factors that maps grow
// through) and its queue entry, amortised.
const (
	itemStructBytes = 80
	itemMapBytes    = 128
)

func newItem(stamp, hash uint64, key string, cell []byte) *item {
	it := &item{hash: hash, key: key, cell: cell}
	it.stamp.Store(stamp)
	return it
}

// holds says whether the item is of this key; the hash alone never decides (C5).
func (it *item) holds(key []byte) bool { return it.key == string(key) }

// restamp raises the stamp (C3). A slow reader with an older horizon must not
// lower what a faster one has proved.
func (it *item) restamp(seq uint64) {
	for {
		old := it.stamp.Load()
		if old >= seq || it.stamp.CompareAndSwap(old, seq) {
			return
		}
	}
}

// touch marks the item as used. It writes once, so that hits share the line.
func (it *item) touch() {
	if !it.used.Load() {
		it.used.Store(true)
	}
}

// cost is the memory the item really takes, with the allocator's rounding to
// size classes (an eighth at most, a sixteenth on average).
func (it *item) cost() int64 {
	n := int64(len(it.key)) + int64(cap(it.cell))
	return itemStructBytes + itemMapBytes + n + n/16 + 16
}

// own returns the cell as the cache keeps it: without a long unused tail,
// which would be memory that nobody accounts for.
func own(cell []byte) []byte {
	if cell == nil {
		return nil
	}
	if len(cell) == 0 {
		return emptyCell
	}
	if spare := cap(cell) - len(cell); spare > 64+len(cell)/4 {
		return slices.Clone(cell)
	}
	return cell[:len(cell):cap(cell)]
}

var emptyCell = []byte{}
