package engine

import (
	"sync"
	"sync/atomic"
)

// gate counts who is inside rooms that may not be closed under their users: the
// caches, L3, the packs and the log. It is striped, so that readers of different
// keys do not write to one line. Hits in the map do not pass it: their memory is
// the garbage collector's.
type gate struct {
	closed  atomic.Bool
	stripes [16]struct {
		inside atomic.Int64
		_      [56]byte
	}

	mu    sync.Mutex
	empty sync.Cond // somebody left while the gate was closed
}

func (g *gate) init() { g.empty.L = &g.mu }

// enter lets the caller in, unless the gate is closed. Each enter that returns
// true is followed by one leave with the same number.
func (g *gate) enter(stripe uint64) bool {
	s := &g.stripes[stripe%uint64(len(g.stripes))]
	s.inside.Add(1)
	// Order: count first, then look. close does it the other way round, so one of
	// the two sees the other.
	if !g.closed.Load() {
		return true
	}
	g.leave(stripe)
	return false
}

func (g *gate) leave(stripe uint64) {
	s := &g.stripes[stripe%uint64(len(g.stripes))]
	if s.inside.Add(-1) == 0 && g.closed.Load() {
		g.mu.Lock()
		g.empty.Broadcast()
		g.mu.Unlock()
	}
}

// close lets nobody in any more. It reports whether it was open.
func (g *gate) close() bool { return !g.closed.Swap(true) }

// wait returns when everybody has left. Call close first.
func (g *gate) wait() {
	g.mu.Lock()
	defer g.mu.Unlock()
	for i := range g.stripes {
		for g.stripes[i].inside.Load() != 0 {
			g.empty.Wait()
		}
	}
}
