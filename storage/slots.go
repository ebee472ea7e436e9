package storage

import (
	"runtime"
	"sync"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfastdb/holdfast/yield"
)

// A slot keeps one Pebble iterator for point reads between calls. Its lock
// frames the whole read, so that Close can take the iterator away between two
// reads and no lock is shared by all readers.
type slot struct {
	mu    sync.Mutex // guards the fields up to the next blank line
	it    *pebble.Iterator
	epoch uint64 // of the store when it was made
	dead  bool
	key   []byte

	_ [64]byte // the next slot's lock lives on another cache line
}

// slots is a bounded set of them: enough that readers waiting for the device
// do not queue, filled only as far as readers really overlap.
type slots struct {
	all   []slot
	first uint32 // where a search may start: one place per processor
}

func newSlots() slots {
	n := runtime.GOMAXPROCS(0)
	return slots{all: make([]slot, min(max(16*n, 16), 256)), first: uint32(n)}
}

// lock returns a slot, locked.
func (p *slots) lock() *slot {
	start := int(yield.Uint32() % p.first)
	for i := range p.all {
		if sl := &p.all[(start+i)%len(p.all)]; sl.mu.TryLock() {
			return sl
		}
	}
	sl := &p.all[start]
	sl.mu.Lock()
	return sl
}

// kill closes all iterators for good.
func (p *slots) kill() {
	for i := range p.all {
		sl := &p.all[i]
		sl.mu.Lock()
		sl.dead = true
		sl.dropLocked()
		sl.mu.Unlock()
	}
}

// dropStale closes idle iterators older than epoch: each pins the tables of
// its day, which a compaction has replaced.
func (p *slots) dropStale(epoch uint64) {
	for i := range p.all {
		sl := &p.all[i]
		if !sl.mu.TryLock() {
			continue // busy: its next reader looks
		}
		if sl.it != nil && sl.epoch != epoch {
			sl.dropLocked()
		}
		sl.mu.Unlock()
	}
}

func (sl *slot) dropLocked() {
	if sl.it != nil {
		closeQuietly(sl.it)
		sl.it = nil
	}
}

// closeQuietly closes an iterator whose error, if any, was reported already.
func closeQuietly(it *pebble.Iterator) {
	var err error
	defer caught(&err)
	_ = it.Close()
}

// dropStale lets go of idle iterators of all snapshots made before the last
// compaction. The scheduler calls it now and then.
func (s *Store) dropStale() {
	s.mu.Lock()
	if s.closed {
		s.mu.Unlock()
		return
	}
	s.inflight++
	all := make([]*Snapshot, 0, len(s.snapshots))
	for sn := range s.snapshots {
		all = append(all, sn)
	}
	s.mu.Unlock()
	defer s.leave()
	epoch := s.epoch.Load()
	for _, sn := range all {
		if sn.swept.Swap(epoch) != epoch {
			sn.points.dropStale(epoch)
			sn.dropStaleScans(epoch)
		}
	}
}
