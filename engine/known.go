package engine

import (
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

	// The flusher's.
	filling *cache.Filter
	walked  chan bool // of filling: whether it is whole
}

const (
	// knownAfter pays for the walk: that is how many reads of L3 it may cost.
	knownAfter = 4 << 10
	// knownPatience is how many times longer each further walk is waited for.
	knownPatience = 8
	// knownFull is how far beyond its capacity a filter is kept: there it is wrong for
	// one key in twelve.
	knownFull = 1.5
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
			}
			k.filling, k.walked = nil, nil
		default:
		}
	case v.known != nil && float64(v.known.Keys()) > knownFull*float64(v.known.Capacity()):
		e.setKnown(nil)
	case v.known == nil && k.absent.Load() >= k.after.Load():
		k.absent.Store(0)
		k.after.Store(k.after.Load() * knownPatience) // for the next one
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
	base := e.view.Load().base
	if e.store.Metrics().LiveBytes > uint64(e.opts.MemoryBudget) || !base.Acquire() {
		return
	}
	f, walked := cache.NewFilter(e.shares().known), make(chan bool, 1)
	e.known.filling, e.known.walked = f, walked
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
	n := 0
	for ok := it.First(); ok; ok = it.Next() {
		f.Add(hashKey(it.Key()))
		if n++; n%1024 == 0 && (e.life.Err() != nil || f.Keys() > f.Capacity()) {
			return false
		}
	}
	return it.Err() == nil
}
