package engine

import (
	"context"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/yield"
)

// known keeps a filter of the keys that L3 has in front of caches and L3, so that a read
// of a key that is nowhere ends there. It costs memory and a walk over L3, so it is made
// when reads that found nothing in L3 show that it would pay, and only of what fits.
//
// Rule: whatever a view's base has is in the view's filter. All that changes either runs
// on the flusher: it begins the walk between two flushes, from the base of that moment,
// and from then on each flush adds its keys before L3 gets them. So a filter that is
// whole has the keys of its base and of every later one. It forgets nothing: keys that
// are deleted cost false answers until it is too full, and is dropped.
//
// Snapshots, which may be older than a filter, do not ask it.
type known struct {
	absent atomic.Uint64 // reads that went to L3 and found nothing
	after  atomic.Uint64 // of them until a filter is begun
	bytes  atomic.Int64  // of filling

	// The flusher's.
	filling *cache.Filter
	walked  chan bool // of filling: whether it is whole
}

const (
	// knownAfter pays for the walk: that is how many reads of L3 it may cost.
	knownAfter = 4 << 10
	// knownPatience is how many times longer the next walk is waited for after one that
	// made no filter.
	knownPatience = 8
	// knownFull is how far beyond its capacity a filter is kept: there it is wrong for
	// one key in twenty.
	knownFull = 1.5
	// walkLook is how many keys go by between two rests of a walk.
	walkLook = 1 << 10
)

func (k *known) init() {
	k.after.Store(knownAfter)
	if yield.Enabled {
		k.after.Store(knownAfter >> 9) // schedules are short
	}
}

// missed counts a read that found nothing in L3.
func (e *Engine) missed() {
	if n := e.known.absent.Add(1); n%e.known.after.Load() == 0 {
		e.flusher.kick()
	}
}

// add puts the keys of a generation in before L3 has them.
func (k *known) add(v *view, g frozen) {
	for _, f := range []*cache.Filter{v.known, k.filling} {
		if f == nil {
			continue
		}
		for h := range g.Hashes() {
			f.Add(h)
		}
	}
}

// lookKnown begins, ends or drops a filter. The flusher calls it between two flushes.
func (e *Engine) lookKnown() {
	k, v := &e.known, e.view.Load()
	switch {
	case k.filling != nil:
		select {
		case whole := <-k.walked:
			if whole {
				e.setKnown(k.filling)
				k.init()
			}
			k.filling, k.walked = nil, nil
			k.bytes.Store(0)
		default:
		}
	case v.known != nil && (float64(v.known.Keys()) > knownFull*float64(v.known.Capacity()) || v.known.Bytes() > 2*e.shares().known):
		e.setKnown(nil) // it errs too often, or the budget shrank
		k.absent.Store(0)
	case v.known == nil && k.absent.Load() >= k.after.Load():
		k.absent.Store(0)
		e.walk()
	}
}

func (e *Engine) setKnown(f *cache.Filter) {
	e.viewMu.Lock()
	defer e.viewMu.Unlock()
	v := *e.view.Load()
	v.known = f
	e.view.Store(&v)
}

// walk fills a filter from what L3 has now, unless that is more than reads of it would
// give back.
func (e *Engine) walk() {
	k, base := &e.known, e.view.Load().base
	if e.store.Metrics().LiveBytes > uint64(e.governor.goal()) || !base.Acquire() {
		return
	}
	k.after.Store(k.after.Load() * knownPatience)
	f, walked := cache.NewFilter(e.shares().known), make(chan bool, 1)
	k.filling, k.walked = f, walked
	k.bytes.Store(f.Bytes())
	e.background(func() {
		defer e.flusher.kick()
		defer base.Release()
		walked <- e.fill(f, base)
	})
}

// fill says whether all keys of base are in f.
func (e *Engine) fill(f *cache.Filter, base *storage.Snapshot) bool {
	it, err := base.NewIter(nil, nil)
	if err != nil {
		return false
	}
	defer it.Close() // it wrote nothing
	pace := e.paced()
	for ok := it.First(); ok; ok = it.Next() {
		yield.Point("known.key")
		f.Add(hashKey(it.Key()))
		if f.Keys()%walkLook == 0 {
			pace.pause()
		}
		if e.life.Err() != nil || f.Keys() > f.Capacity() {
			return false
		}
	}
	return it.Err() == nil
}

// checkKnown says which key of L3 a reader would be told to be nowhere.
func (e *Engine) checkKnown(ctx context.Context) error {
	v := e.view.Load()
	for !v.base.Acquire() { // a flush replaced it
		v = e.view.Load()
	}
	defer v.base.Release()
	if v.known == nil {
		return nil
	}
	it, err := v.base.NewIter(nil, nil)
	if err != nil {
		return err
	}
	defer it.Close() // it wrote nothing
	for ok := it.First(); ok && ctx.Err() == nil; ok = it.Next() {
		if !v.known.Has(hashKey(it.Key())) {
			return corrupt("", "key %.40q is in L3, and not in the filter of its keys", it.Key())
		}
	}
	return it.Err()
}
