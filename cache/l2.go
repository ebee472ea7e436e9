package cache

import (
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/maphash"
	"math"
	"sync/atomic"
	"time"

	"github.com/allegro/bigcache/v3"
)

const (
	// minL2Bytes is bigcache's granule: its limit is given in whole MiB, and
	// zero would mean none.
	minL2Bytes = 1 << 20

	l2Shard      = 1 << 20 // aim: small enough to spread locks, large enough for four of the largest entries
	l2MinShards  = 4
	l2MaxShards  = 256
	l2GuessEntry = 4 << 10 // sizes the preallocated maps and buffers; small, since both grow

	// An entry of bigcache: its own header (18) and length (5 at most) around
	// the key and our value.
	l2EntryBytes = 18 + 5
	// A slot of its map at the average load.
	l2SlotBytes = 28

	// Our value is the stamp, little-endian, a kind, and what the kind says.
	l2HeaderBytes = 9

	l2GhostSlot = 128 // bytes of the ring for a slot of the ghost

	// leastRoom is the part of a tier that its maps may always have.
	leastRoom = 16
)

// l2 is the second tier: a ring of copies, first in first out.
//
// Its queues are preallocated to their maximum: one that may still grow
// refuses entries that would fit and empties the shard each time. Entries are
// gated to a quarter of a shard for the same reason. The ring bounds bytes and
// not entries, so tiny ones are padded until their slots in the maps fit beside
// it, in a tier of two MiB or more. Append is never used, and any error is a miss.
type l2 struct {
	cache    *bigcache.BigCache
	codec    *codec
	size     int64 // with all overheads
	ring     int64
	shards   int
	maxEntry int
	largest  atomic.Int64 // each shard keeps an encode buffer of the largest it saw
	broken   atomic.Bool
	rounds   atomic.Uint64 // entries that went round again
	filled   atomic.Int64  // bytes that went in
	hash     hasher
	ghost    *ghost // of what left
	marks    marks
	uses     *uses   // nil: loads need none
	again    []again // of the drain goroutine: to go in again after the set under way
	scratch  []byte  // of the drain goroutine, the only writer
}

type hasher func(key string) uint64

func (h hasher) Sum64(key string) uint64 {
	// bigcache reads zero as deleted.
	return h(key) | 1<<63
}

// ringOf is the ring's part of a tier: a quarter is left for the map of keys
// and the buffers.
func ringOf(size int64, codec *codec) int64 {
	return max((size-codec.reserve(size))/4*3>>20, 1) << 20
}

func newL2(size int64, hash hasher, codec *codec, policy Policy) (*l2, error) {
	ring := ringOf(size, codec)
	shards := l2MinShards
	for shards < l2MaxShards && ring/int64(shards)/2 >= l2Shard {
		shards *= 2
	}
	shard := ring / int64(shards)
	if shard > math.MaxUint32 { // its offsets are 32 bits wide
		return nil, fmt.Errorf("cache: L2: %d bytes are more than %d shards can address", size, shards)
	}
	if hash == nil {
		seed := maphash.MakeSeed()
		hash = func(key string) uint64 { return maphash.String(seed, key) }
	}
	t := &l2{codec: codec, size: size, ring: ring, shards: shards, maxEntry: int(shard / 4), hash: hash}
	t.ghost = newGhost(size/4, l2GhostSlot)
	switch policy {
	case PolicyThird:
		t.uses = newUses(ring)
		fallthrough
	case PolicySecond:
		t.marks = newMarks(ring)
	}
	perShard := max(int(shard/l2GuessEntry), 10) // bigcache's minimum is 10
	c, err := bigcache.New(context.Background(), bigcache.Config{
		Shards: shards,
		// Expiry is a matter of cells; this clock must never speak.
		LifeWindow:         100 * 365 * 24 * time.Hour,
		CleanWindow:        0,
		MaxEntriesInWindow: perShard * shards,
		MaxEntrySize:       int(shard)/perShard + 1, // product >= shard: capacity is the maximum from the start
		Hasher:             hash,
		HardMaxCacheSize:   int(ring >> 20),
		OnRemoveWithReason: t.left,
	})
	if err != nil {
		return nil, fmt.Errorf("cache: L2: %w", err)
	}
	t.cache = c
	t.largest.Store(shard/int64(perShard) + 1)
	return t, nil
}

// fits says whether an entry may be shown to bigcache at all: one too large
// would empty its shard, a key too long would never be found again.
func (t *l2) fits(keyLen, cellLen int) bool {
	return keyLen <= math.MaxUint16 && keyLen+l2HeaderBytes+cellLen+l2EntryBytes <= t.maxEntry
}

// find returns the stamp of a key's entry, and a copy of the entry that is ours.
func (t *l2) find(key string) (stamp uint64, entry []byte, ok bool) {
	if t.broken.Load() {
		return 0, nil, false
	}
	defer t.guard()
	entry, err := t.cache.Get(key)
	if err != nil || len(entry) < l2HeaderBytes {
		return 0, nil, false
	}
	return binary.LittleEndian.Uint64(entry), entry, true
}

// use counts one of a key that L1 does not know.
func (t *l2) use(hash uint64) {
	if t.uses != nil {
		t.uses.add(hash)
	}
}

// admits says whether a load may enter. While the ring is not full there is nothing that
// it could push out.
func (t *l2) admits(hash uint64) bool {
	return t.uses == nil || t.filled.Load() < t.ring || t.uses.admits(hash)
}

// set stores an item; only the drain goroutine calls it.
func (t *l2) set(it *item) bool {
	if t.broken.Load() || !t.fits(len(it.key), len(it.cell)) {
		return false
	}
	defer t.guard()
	// The stamp is read before the cell is copied: a reader may raise it
	// meanwhile, and the lower one is always right.
	t.scratch = binary.LittleEndian.AppendUint64(t.scratch[:0], it.stamp.Load())
	t.scratch = t.codec.encode(t.scratch, it.cell)
	t.scratch = pad(t.scratch, t.leastEntry()-len(it.key)-l2EntryBytes)
	n := int64(len(it.key) + len(t.scratch) + l2EntryBytes)
	if n > t.largest.Load() {
		t.largest.Store(n)
	}
	t.filled.Add(n)
	err := t.cache.Set(it.key, t.scratch)
	// Only now: the callback ran under the shard's lock. What these push out in
	// turn adds at most so many more, since each clears its mark.
	for i := 0; i < len(t.again); i++ {
		if a := t.again[i]; a.key != it.key && t.cache.Set(a.key, a.entry) == nil {
			t.rounds.Add(1)
		}
	}
	t.again = t.again[:0]
	return err == nil
}

// left is bigcache's callback, under the lock of a shard: the ring's head met
// its tail. It runs inside a set, so on the drain goroutine.
func (t *l2) left(key string, entry []byte, _ bigcache.RemoveReason) {
	hash := t.hash.Sum64(key)
	if len(t.marks) > 0 && t.marks.take(hash) && len(t.again) < maxAgain {
		t.again = append(t.again, again{key, entry}) // copies that are ours
		return
	}
	t.ghost.add(hash, int64(len(key)+len(entry)+l2EntryBytes))
}

// guard keeps a panic of the library from the host (C9). It may have left a
// shard locked, so nothing here is called again.
func (t *l2) guard() {
	if recover() != nil {
		t.broken.Store(true)
	}
}

// leastEntry is the least that an entry takes of the ring: so many of them have
// their slots in what the ring and the rest leave of the tier.
func (t *l2) leastEntry() int {
	room := max(t.size-t.fixed(), t.size/leastRoom)
	return int(t.ring * l2SlotBytes / room)
}

// fixed is what does not grow with the number of entries: the ring
// (preallocated, so always there), the buffers, the codec.
func (t *l2) fixed() int64 {
	return t.ring + int64(t.shards)*t.largest.Load() + t.codec.bytes() + t.ghost.bytes() + t.marks.bytes() + t.uses.bytes()
}

func (t *l2) bytes() int64 {
	n := t.fixed()
	if !t.broken.Load() {
		n += int64(t.cache.Len()) * l2SlotBytes
	}
	return n
}

func (t *l2) close() error {
	if t.broken.Load() {
		return errors.New("cache: L2 was turned off by a panic in bigcache")
	}
	return t.cache.Close()
}
