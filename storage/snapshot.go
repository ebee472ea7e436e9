package storage

import (
	"bytes"
	"fmt"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2"
)

// Snapshot is L3 at one moment, shared by reference count: after the last
// ingest, or as opened.
//
// Why iterators may be made from it while an ingest runs (S4). Pebble installs
// a version before it publishes its sequence number. A snapshot or iterator
// made in between reads at the old number from a version whose tables a
// compaction, which knows of no reader at that number, may already have merged:
// a torn view. An iterator made from this snapshot reads at the snapshot's
// number, which was published before the snapshot was taken and is in Pebble's
// list of snapshots since: every compaction that starts later keeps what that
// number sees, and one that started earlier has no input above it. So which
// version the iterator loads does not matter.
type Snapshot struct {
	store *Store
	snap  *pebble.Snapshot
	refs  atomic.Int64
	swept atomic.Uint64 // epoch of the last sweep over idle iterators

	points slots

	mu    sync.Mutex // guards the fields up to the next blank line
	dead  bool
	iters []*Iter    // in use; each knows its place
	scans []idleScan // idle iterators for NewIter, at most maxIdleScans
}

type idleScan struct {
	it    *pebble.Iterator
	epoch uint64
	whole bool // bounded by nothing but what user keys are
	room  room
}

// room is what an Iter writes keys and cells into. It goes from one to the next with
// their Pebble iterator.
type room struct{ key, val, seek []byte }

// maxRoom is the largest buffer that an idle iterator keeps.
const maxRoom = 64 << 10

const maxIdleScans = 8

// takeSnapshot makes a snapshot with one reference. Only Open and the flusher
// may call it, never while an ingest runs (S4).
func (s *Store) takeSnapshot() (sn *Snapshot, err error) {
	defer caught(&err)
	sn = &Snapshot{
		store:  s,
		snap:   s.db.NewSnapshot(),
		points: newSlots(),
	}
	sn.refs.Store(1)
	sn.swept.Store(s.epoch.Load())
	s.mu.Lock()
	s.snapshots[sn] = struct{}{}
	s.mu.Unlock()
	return sn, nil
}

// Current returns the shared snapshot with a reference taken for the caller.
// After Close it is one whose every use answers ErrClosed.
func (s *Store) Current() *Snapshot {
	for {
		sn := s.current.Load()
		if sn.Acquire() || s.isClosed() {
			return sn
		}
		// Replaced between load and acquire; the next one is there already.
	}
}

// Acquire takes a reference; false when the last was given back before. The
// reader then loads its view again.
func (sn *Snapshot) Acquire() bool {
	for {
		n := sn.refs.Load()
		if n <= 0 {
			return false
		}
		if sn.refs.CompareAndSwap(n, n+1) {
			return true
		}
	}
}

// Release gives a reference back; the last closes the Pebble snapshot.
func (sn *Snapshot) Release() {
	if sn.refs.Add(-1) != 0 {
		return
	}
	s := sn.store
	if s.enter() != nil {
		return // Close takes care of every snapshot still listed
	}
	defer s.leave()
	s.mu.Lock()
	delete(s.snapshots, sn)
	s.mu.Unlock()
	sn.kill()
}

// kill closes everything the snapshot has in Pebble. It runs once: by the last
// Release, or by Close, which waits for a Release under way.
func (sn *Snapshot) kill() {
	sn.mu.Lock()
	if sn.dead {
		sn.mu.Unlock()
		return
	}
	sn.dead = true
	iters, scans := sn.iters, sn.scans
	sn.iters, sn.scans = nil, nil
	sn.mu.Unlock()
	// Without sn.mu: an Iter takes its own lock first, then sn.mu.
	for _, it := range iters {
		it.kill()
	}
	for _, sc := range scans {
		closeQuietly(sc.it)
	}
	sn.points.kill()
	var err error
	defer caught(&err)
	_ = sn.snap.Close()
}

// Get appends the cell of a user key to dst. An absent key is found false, nil
// error; dst then comes back as it was.
func (sn *Snapshot) Get(dst, key []byte) (cell []byte, found bool, err error) {
	return sn.get(dst, userPrefix, key)
}

// getInner reads one of storage's own keys.
func (sn *Snapshot) getInner(key []byte) ([]byte, bool, error) {
	return sn.get(nil, key[0], key[1:])
}

func (sn *Snapshot) watermark() (Watermark, bool, error) {
	b, ok, err := sn.getInner(watermarkKey)
	if err != nil || !ok {
		return Watermark{}, false, err
	}
	w, err := decodeWatermark(b)
	return w, err == nil, err
}

func (sn *Snapshot) get(dst []byte, prefix byte, key []byte) (_ []byte, _ bool, err error) {
	sl := sn.points.lock()
	defer sl.mu.Unlock()
	defer caught(&err)
	if sl.it == nil || sl.epoch != sn.store.epoch.Load() {
		if err := sn.refillLocked(sl); err != nil {
			return dst, false, err
		}
	}
	sl.key = append(append(sl.key[:0], prefix), key...)
	// The whole key is the prefix (Split), so the bloom filters answer for
	// most absent keys, those of the last level too (UseL6Filters).
	if sl.it.SeekPrefixGE(sl.key) {
		v, err := sl.it.ValueAndErr()
		if err != nil {
			sl.dropLocked()
			return dst, false, mappedRead(err)
		}
		if bytes.Equal(sl.it.Key(), sl.key) {
			return append(dst, v...), true, nil
		}
	}
	if err := sl.it.Error(); err != nil {
		// The iterator goes, so that an error of the device does not stick.
		sl.dropLocked()
		return dst, false, mappedRead(err)
	}
	return dst, false, nil
}

func (sn *Snapshot) refillLocked(sl *slot) error {
	if sl.dead {
		return ErrClosed
	}
	s := sn.store
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	sl.dropLocked()
	epoch := s.epoch.Load() // before the iterator: an older stamp is only dropped sooner
	it, err := sn.snap.NewIter(&pebble.IterOptions{UseL6Filters: true})
	if err != nil {
		return mappedRead(err)
	}
	sl.it, sl.epoch = it, epoch
	return nil
}

// NewIter walks the user keys in [lower, upper); nil is open. It holds a
// reference to the snapshot until its Close.
func (sn *Snapshot) NewIter(lower, upper []byte) (*Iter, error) {
	it := new(Iter)
	if err := sn.Init(it, lower, upper); err != nil {
		return nil, err
	}
	return it, nil
}

// Init is NewIter into room that is there. A used iterator is none.
func (sn *Snapshot) Init(it *Iter, lower, upper []byte) error {
	return sn.init(it, lower == nil && upper == nil, func(b []byte) (lo, hi, _ []byte) { return bounds(b, lower, upper) })
}

// init asks for the inner bounds, which Pebble copies, with a buffer for them. An
// iterator that has no others, and gets none, keeps its tables open.
func (sn *Snapshot) init(it *Iter, whole bool, bounds func(buf []byte) (lo, hi, _ []byte)) (err error) {
	s := sn.store
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	defer caught(&err)
	if !sn.Acquire() {
		return fmt.Errorf("%w: snapshot was released", ErrClosed)
	}
	it.sn, it.epoch, it.whole = sn, s.epoch.Load(), whole
	sc := sn.takeScan(it)
	defer func() {
		if err != nil {
			sn.forget(it)
			sn.Release()
		}
	}()
	if sc.it == nil || !sc.whole || !whole {
		var lo, hi []byte
		lo, hi, sc.room.seek = bounds(sc.room.seek)
		if bytes.Compare(lo, hi) > 0 {
			hi = lo // empty, where Pebble's iterators assume order
		}
		if sc.it != nil {
			sc.it.SetBounds(lo, hi)
		} else if sc.it, err = sn.snap.NewIter(&pebble.IterOptions{LowerBound: lo, UpperBound: hi}); err != nil {
			return mappedRead(err)
		}
	}
	it.it, it.room = sc.it, sc.room
	return nil
}

// takeScan lists it, and returns an idle iterator of its epoch, or one whose Pebble
// iterator has to be made.
func (sn *Snapshot) takeScan(it *Iter) idleScan {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	it.index = len(sn.iters)
	sn.iters = append(sn.iters, it) // not dead: a reference and inflight are held
	for n := len(sn.scans); n > 0; n = len(sn.scans) {
		sc := sn.scans[n-1]
		sn.scans[n-1] = idleScan{}
		sn.scans = sn.scans[:n-1]
		if sc.epoch == it.epoch {
			return sc
		}
		closeQuietly(sc.it)
	}
	return idleScan{}
}

// putScan takes an iterator back from it, whose lock is held. False when it
// must be closed instead.
func (sn *Snapshot) putScan(it *Iter, healthy bool) bool {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if sn.dead {
		return false
	}
	if !healthy || it.epoch != sn.store.epoch.Load() || len(sn.scans) >= maxIdleScans {
		return false
	}
	sn.unlistLocked(it)
	r := it.room
	if it.room = (room{}); cap(r.key) > maxRoom || cap(r.val) > maxRoom || cap(r.seek) > maxRoom {
		r = room{}
	}
	sn.scans = append(sn.scans, idleScan{it.it, it.epoch, it.whole, r})
	return true
}

// forget is called once it is closed in Pebble, not before: Store.Close waits for the
// iterators that are listed.
func (sn *Snapshot) forget(it *Iter) {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	if !sn.dead {
		sn.unlistLocked(it)
	}
}

func (sn *Snapshot) unlistLocked(it *Iter) {
	last := len(sn.iters) - 1
	sn.iters[it.index] = sn.iters[last]
	sn.iters[it.index].index = it.index
	sn.iters[last] = nil
	sn.iters = sn.iters[:last]
}

func (sn *Snapshot) dropStaleScans(epoch uint64) {
	sn.mu.Lock()
	defer sn.mu.Unlock()
	kept := sn.scans[:0]
	for _, sc := range sn.scans {
		if sc.epoch == epoch {
			kept = append(kept, sc)
		} else {
			closeQuietly(sc.it)
		}
	}
	clear(sn.scans[len(kept):])
	sn.scans = kept
}
