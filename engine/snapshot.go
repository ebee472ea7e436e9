package engine

import (
	"errors"
	"iter"
	"slices"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/yield"
)

// Snapshot is the store as it was at one commit number. Taking one copies nothing;
// holding one keeps the generations it sees in memory. One always fits; beyond the
// bound for all snapshots together the oldest gives way and returns
// ErrSnapshotTooOld. Safe for concurrent use. Close it.
type Snapshot struct {
	e    *Engine
	at   uint64
	made time.Time
	hold cow.Hold
	view atomic.Pointer[view] // nil once it ended
	why  atomic.Pointer[error]

	scansMu sync.Mutex
	scans   []*merge
	one     [1]*merge // room for scans
}

// Snapshot returns a view of everything acknowledged before the call.
func (e *Engine) Snapshot() (*Snapshot, error) {
	s := new(Snapshot)
	if err := e.take(s); err != nil {
		return nil, err
	}
	return s, nil
}

func (e *Engine) take(s *Snapshot) error {
	if !e.gate.enter(0) {
		return ErrClosed
	}
	defer e.gate.leave(0)
	e.capture(s)
	e.snapMu.Lock()
	e.snapshots[s] = struct{}{}
	e.snapMu.Unlock()
	return nil
}

// capture gives s a view, a number and a reference that belong together.
func (e *Engine) capture(s *Snapshot) {
	s.e, s.made = e, time.Now()
	// Order (C3): register, then load. Nothing that the number below can see is
	// cut from here on.
	e.clock.Register(&s.hold)
	for {
		v := e.view.Load()
		yield.Point("snapshot.view")
		s.at = e.clock.Published()
		yield.Point("snapshot.number")
		// The view must not have changed around the number: a generation frozen in
		// between would hold commits at or below it that v does not show (I8).
		if e.view.Load() == v && v.base.Acquire() {
			own := *v
			own.known = nil // it asks no filter, and keeps none
			s.view.Store(&own)
			return
		}
	}
}

var snapshotClosed = ErrClosed

// end releases what the snapshot holds. Later calls get why.
func (s *Snapshot) end(why error) {
	reason := &snapshotClosed // the usual one, with no allocation
	if why != ErrClosed {     //nolint:errorlint // which of two it is
		other := why
		reason = &other
	}
	s.why.CompareAndSwap(nil, reason)
	if v := s.view.Swap(nil); v != nil {
		s.e.clock.Release(&s.hold)
		v.base.Release()
	}
	s.scansMu.Lock()
	scans := slices.Clone(s.scans)
	s.scansMu.Unlock()
	for _, m := range scans {
		m.letGo()
	}
}

// attach makes the snapshot's end reach m. It is false if the end came before.
func (s *Snapshot) attach(m *merge) bool {
	s.scansMu.Lock()
	defer s.scansMu.Unlock()
	if s.scans == nil {
		s.scans = s.one[:0]
	}
	m.place = len(s.scans)
	s.scans = append(s.scans, m)
	return s.view.Load() != nil
}

func (s *Snapshot) detach(m *merge) {
	s.scansMu.Lock()
	last := len(s.scans) - 1
	s.scans[m.place] = s.scans[last]
	s.scans[m.place].place = m.place
	s.scans[last] = nil
	s.scans = s.scans[:last]
	s.scansMu.Unlock()
}

// Close releases the snapshot. Closing it twice is harmless.
func (s *Snapshot) Close() error {
	s.e.snapMu.Lock()
	delete(s.e.snapshots, s)
	s.e.snapMu.Unlock()
	s.end(ErrClosed)
	return nil
}

// LSN is the commit number that the snapshot shows.
func (s *Snapshot) LSN() uint64 { return s.at }

func (s *Snapshot) ended() error {
	if s.e.gate.closed.Load() {
		return ErrClosed
	}
	if w := s.why.Load(); w != nil {
		return *w
	}
	return ErrClosed
}

func (s *Snapshot) find(key []byte) (cow.Cell, Tier, error) {
	hash := hashKey(key)
	if !s.e.gate.enter(hash) {
		return nil, TierNone, ErrClosed
	}
	defer s.e.gate.leave(hash)
	v := s.view.Load()
	if v == nil {
		return nil, TierNone, s.ended()
	}
	yield.Point("snapshot.get")
	cell, f := v.get(hash, key, s.at)
	yield.Point("snapshot.map")
	switch f {
	case cow.Hit:
		return live(cell, TierMap)
	case cow.Hidden:
		return nil, TierMap, ErrNotFound
	case cow.Cut:
		return nil, TierNone, s.ended() // it gave way while we looked
	}
	// A cached cell is the key's newest in an L3 at least as new as ours; it is
	// what we would find if nobody wrote the key after our number.
	if b, ok := s.e.cache.Peek(v.horizon, hash, key); ok && cow.Cell(b).Revision() <= s.at {
		return live(cow.Cell(b), TierL1)
	}
	// v's base is ours unless the snapshot gave way since.
	if !v.base.Acquire() {
		return nil, TierNone, s.ended()
	}
	defer v.base.Release()
	b, found, err := v.base.Get(nil, key)
	if err != nil {
		return nil, TierNone, door(err)
	}
	if !found {
		return nil, TierL3, ErrNotFound
	}
	if cell, err = cow.ParseCell(b); err != nil {
		return nil, TierNone, door(err)
	}
	return live(cell, TierL3)
}

// Get returns a copy of the value that key had, or ErrNotFound.
func (s *Snapshot) Get(key []byte) ([]byte, error) { return s.GetInto(nil, key) }

// GetInto appends the value that key had to dst.
func (s *Snapshot) GetInto(dst, key []byte) ([]byte, error) {
	cell, _, err := s.find(key)
	if err != nil {
		return dst, err
	}
	dst, err = s.e.appendValue(dst, cell)
	return dst, s.because(err)
}

// because gives the reason for a value that was collected: the snapshot ended.
func (s *Snapshot) because(err error) error {
	if errors.Is(err, mmap.ErrMissing) && s.view.Load() == nil {
		return s.ended()
	}
	return err
}

// View calls fn with the value that key had; see [Engine.View].
func (s *Snapshot) View(key []byte, fn func(value []byte) error) error {
	cell, _, err := s.find(key)
	if err != nil {
		return err
	}
	b, err := s.e.pinValue(cell, fn)
	return viewPinned(b, cell, s.because(err), fn)
}

// Has says whether key had a value.
func (s *Snapshot) Has(key []byte) (bool, error) {
	_, _, err := s.find(key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Scan walks the keys of r as they were; see [Engine.Scan].
func (s *Snapshot) Scan(r Range) iter.Seq2[Item, error] {
	return func(yield func(Item, error) bool) { s.scan(new(merge), r, yield) }
}

// boundSnapshots makes the oldest snapshots give way while all together pin more
// dropped generations than their share.
func (e *Engine) boundSnapshots() {
	e.snapMu.Lock()
	defer e.snapMu.Unlock()
	for len(e.snapshots) > 0 {
		bytes, oldest := e.pinnedLocked()
		limit := e.shares().pinned
		if len(e.snapshots) == 1 { // one always fits, however small generations are by now
			limit = max(limit, e.opts.shares().pinned)
		}
		if bytes <= limit {
			return
		}
		e.logger.Warn("snapshot gave way", "lsn", oldest.at, "age", time.Since(oldest.made), "pinned", bytes)
		delete(e.snapshots, oldest)
		oldest.end(ErrSnapshotTooOld)
	}
}

// pinnedLocked adds up the generations that only snapshots still hold, and finds
// the oldest snapshot.
func (e *Engine) pinnedLocked() (bytes int64, oldest *Snapshot) {
	current := make(map[*cow.Generation]bool)
	for _, g := range e.view.Load().generations() {
		current[g] = true
	}
	for s := range e.snapshots {
		if oldest == nil || s.at < oldest.at || s.at == oldest.at && s.made.Before(oldest.made) {
			oldest = s
		}
		v := s.view.Load()
		if v == nil {
			continue
		}
		for _, g := range v.generations() {
			if !current[g] {
				current[g] = true
				bytes += g.Bytes()
			}
		}
	}
	return bytes, oldest
}

func (e *Engine) dropSnapshots(why error) {
	e.snapMu.Lock()
	defer e.snapMu.Unlock()
	for s := range e.snapshots {
		s.end(why)
	}
	clear(e.snapshots)
}
