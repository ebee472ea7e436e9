package cow

import (
	"bytes"
	"sync"
	"sync/atomic"
)

const (
	minTable = 8
	minSlab  = 4 << 10
	maxSlab  = 256 << 10
	minChunk = 8 // entries or versions allocated together
	maxChunk = 256

	// Sizes of the structs below, for Bytes (C6); TestSizes keeps them true.
	slotBytes    = 16
	entryBytes   = 32
	versionBytes = 40
)

// version is one value of a key. Immutable but for prev, which only ever turns
// into cut.
type version struct {
	lsn  uint64
	cell Cell
	prev atomic.Pointer[version]
}

// cut ends a chain whose older versions were dropped (C3).
var cut = &version{}

// entry is a key and its newest version.
type entry struct {
	key    []byte
	newest atomic.Pointer[version]
}

// slot is one place of a table. hash is written before entry is published and
// never again, so a reader that sees the entry sees its hash.
type slot struct {
	hash  uint64
	entry atomic.Pointer[entry]
}

// table is an open-addressed hash table, never more than three quarters full. It
// only gains entries; a full one is replaced by a larger one.
type table struct {
	slots []slot
	mask  uint64
}

func newTable(n int) *table { return &table{slots: make([]slot, n), mask: uint64(n - 1)} }

func (t *table) find(hash uint64, key []byte) *entry {
	for i := hash & t.mask; ; i = (i + 1) & t.mask {
		s := &t.slots[i]
		e := s.entry.Load()
		if e == nil {
			return nil
		}
		if s.hash == hash && bytes.Equal(e.key, key) {
			return e
		}
	}
}

func (t *table) insert(hash uint64, e *entry) {
	i := hash & t.mask
	for t.slots[i].entry.Load() != nil {
		i = (i + 1) & t.mask
	}
	t.slots[i].hash = hash
	t.slots[i].entry.Store(e)
}

// shard is a part of a generation's keys.
type shard struct {
	table atomic.Pointer[table] // readers take nothing else

	mu       sync.Mutex // guards the fields up to the next blank line
	count    int
	slab     []byte
	slabNext int
	entries  []entry
	versions []version
	chunk    int
	fresh    []*entry // keys that the ordered index has not seen
	waits    uint64   // times that a writer found mu taken

	_ [64]byte // shards stand in one array; keep their locks on different lines
}

func (s *shard) init(tableSize int) int64 {
	s.table.Store(newTable(tableSize))
	s.slabNext, s.chunk = minSlab, minChunk
	return int64(tableSize) * slotBytes
}

func (s *shard) lock() {
	if !s.mu.TryLock() {
		s.mu.Lock()
		s.waits++
	}
}

// putLocked links a new version for key and returns how many bytes it allocated.
func (s *shard) putLocked(hash uint64, key []byte, lsn uint64, h Header, payload []byte, keep uint64) (grown int64) {
	t := s.table.Load()
	e := t.find(hash, key)
	isNew := e == nil
	if isNew {
		e, grown = s.newEntryLocked(key, h.size()+len(payload))
	}
	cell, n := s.allocLocked(h.size() + len(payload))
	grown += n
	h.put(cell)
	copy(cell[h.size():], payload)

	v, n := s.newVersionLocked()
	grown += n
	v.lsn, v.cell = lsn, cell
	if old := e.newest.Load(); old != nil {
		v.prev.Store(old)
		cutBelow(old, keep)
	}
	e.newest.Store(v)
	if !isNew {
		return grown
	}

	// The entry gets its version before the table shows it: a reader never meets
	// an entry without one.
	s.count++
	if 4*s.count > 3*len(t.slots) {
		grown += s.growLocked(t)
		t = s.table.Load()
	}
	t.insert(hash, e)
	s.fresh = append(s.fresh, e)
	return grown + 8
}

// cutBelow cuts the chain behind the newest version at or below keep (C3).
func cutBelow(v *version, keep uint64) {
	for ; v != nil && v != cut; v = v.prev.Load() {
		if v.lsn <= keep {
			if v.prev.Load() != nil {
				v.prev.Store(cut)
			}
			return
		}
	}
}

func (s *shard) growLocked(old *table) int64 {
	t := newTable(2 * len(old.slots))
	for i := range old.slots {
		if e := old.slots[i].entry.Load(); e != nil {
			t.insert(old.slots[i].hash, e)
		}
	}
	s.table.Store(t)
	return int64(len(old.slots)) * slotBytes // the new one less the old one
}

// allocLocked returns n bytes of the slab, and how much the slab grew for them.
func (s *shard) allocLocked(n int) ([]byte, int64) {
	if n > len(s.slab) {
		if n > s.slabNext/4 {
			return make([]byte, n), int64(n) // too large to share a slab
		}
		s.slab = make([]byte, s.slabNext)
		grown := int64(s.slabNext)
		s.slabNext = min(2*s.slabNext, maxSlab)
		b := s.slab[:n:n]
		s.slab = s.slab[n:]
		return b, grown
	}
	b := s.slab[:n:n]
	s.slab = s.slab[n:]
	return b, 0
}

// newEntryLocked makes an entry for key. cellSize is what will be allocated
// next, so that a key and its first cell lie side by side where they fit.
func (s *shard) newEntryLocked(key []byte, cellSize int) (*entry, int64) {
	var grown int64
	if len(s.entries) == 0 {
		s.entries = make([]entry, s.chunk)
		grown = int64(s.chunk) * entryBytes
		s.chunk = min(2*s.chunk, maxChunk)
	}
	e := &s.entries[0]
	s.entries = s.entries[1:]
	if need := len(key) + cellSize; need > len(s.slab) && need <= s.slabNext/4 {
		s.slab = nil // start a new slab with this key
	}
	k, n := s.allocLocked(len(key))
	copy(k, key)
	e.key = k
	return e, grown + n
}

func (s *shard) newVersionLocked() (*version, int64) {
	var grown int64
	if len(s.versions) == 0 {
		s.versions = make([]version, s.chunk)
		grown = int64(s.chunk) * versionBytes
	}
	v := &s.versions[0]
	s.versions = s.versions[1:]
	return v, grown
}
