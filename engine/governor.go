package engine

import (
	"context"
	"fmt"
	"math"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/yield"
)

// governor keeps the store inside its one memory number (I10). It measures what every
// tier really takes, and divides what the caches have between L1 and L2. Above the soft
// limit it makes the tiers smaller; above the hard limit writers wait for a flush. Where it
// may tune the collector, the caches have what generations and mappings do not use, and
// give it back when they do.
type governor struct {
	full     atomic.Bool   // writers wait; see waitStall
	still    atomic.Bool   // no turns: tests that need the shares as they are
	pressure atomic.Uint64 // bits of a float64

	mu     sync.Mutex // guards the fields up to the next blank line
	budget int64
	why    string

	turn    sync.Mutex // guards the fields below; held for a whole turn, which may wait for the disk
	squeeze float64    // at most 1: what is left of the shares after the account was above the budget
	maps    peak       // bytes of generations
	pinned  peak       // of which only snapshots hold
	pages   peak       // resident bytes of large values
	split   cache.Split
	looked  time.Duration // since split last did
	resized time.Time     // when L2 last was
	gc      collectorTuning
}

const (
	governEvery = 200 * time.Millisecond
	// Of the budget, by the account. The heap keeps what it grew to for a while, and C
	// memory has its own fragments: the soft limit leaves room for them.
	softLimit    = 0.85
	hardLimit    = 1.15
	leastSqueeze = 0.25
	leastL2      = 1 << 20 // a smaller one is off, and its room L1's
	// shrinkStep and growStep are how much of the shares a turn takes away above the
	// budget and gives back below ninety percent of it.
	shrinkStep = 0.9
	growStep   = 1.03
	splitEvery = 5 * time.Second  // between looks at what each cache would answer with more
	splitRest  = 10 * time.Second // between two sizes of L2
)

func (g *governor) init(e *Engine) {
	g.budget, g.squeeze = e.opts.MemoryBudget, 1
	s := e.opts.shares()
	g.split.Part = float64(s.l2) / float64(s.l1+s.l2)
	e.limits.Store(&s)
}

// shares is how the budget is divided now.
func (e *Engine) shares() *shares { return e.limits.Load() }

// runGovernor takes a turn now and then. Not under chosen orders: what it measures is the
// process's and not the seed's.
func (e *Engine) runGovernor() {
	if yield.Enabled {
		return
	}
	t := time.NewTicker(governEvery)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			if !e.governor.still.Load() {
				e.govern()
				giving.give(e.governor.goal()) // last, and holding nothing: it takes its time
			}
		case <-e.life.Done():
			return
		}
	}
}

// govern is one turn: measure, decide, apply.
func (e *Engine) govern() {
	g := &e.governor
	g.turn.Lock()
	defer g.turn.Unlock()
	m, why := e.measure(), ""
	m.Budget = g.goal()
	g.maps.see(m.Generations + m.Pinned)
	g.pinned.see(m.Pinned)
	g.pages.see(m.Mapped)
	switch over := float64(m.Used) / float64(m.Budget); {
	case over > softLimit && g.squeeze > leastSqueeze:
		g.squeeze = max(leastSqueeze, g.squeeze*max(shrinkStep, softLimit/over))
		why = fmt.Sprintf("the account is at %.2f of the budget", over)
	case over < 0.9*softLimit && g.squeeze < 1:
		g.squeeze = min(1, g.squeeze*growStep)
		why = "there is room below the budget again"
	}
	if g.looked += governEvery; g.looked >= splitEvery && !e.opts.NoL2 {
		g.looked = 0
		if s := g.split.Look(e.cache.Metrics(), e.latency.cost()); s != "" {
			why = s
		}
	}
	if why != "" {
		g.mu.Lock()
		g.why = why
		g.mu.Unlock()
	}
	e.apply(g.divide(&e.opts, &m))
	g.gc.tune(&e.opts, &m)

	// Waiting must have an end: only for generations that a flush takes down.
	full := float64(m.Used) > hardLimit*float64(m.Budget) && m.Generations > m.Budget/64
	if g.full.Swap(full) && !full {
		e.stall.wake()
	}
	if full {
		e.packs.DropMappings()
		if e.log != nil {
			e.freeze()
		}
	}
	g.pressure.Store(math.Float64bits(pressure(&m, e.shares().generation, e.stall.on.Load() || full)))
	e.allot()
}

// divide makes shares of the budget. Generations and mappings may always have theirs. What
// they did not use lately L1 and L2 have meanwhile, but only with TuneGC: a heap that the
// collector lets double keeps for minutes what it grew to, so that what one tier gives
// back comes on top of what another takes.
func (g *governor) divide(o *Options, m *MemoryMetrics) shares {
	s := sharesOf(m.Budget, o.SegmentBytes)
	s.blocks = o.shares().blocks // L3's block cache keeps its size
	maps := max(min(g.maps.bytes*5/4, 2*s.generation), g.maps.bytes, s.generation/4)
	pages := max(min(g.pages.bytes*5/4, s.mapped), s.mapped/8)
	most, factor := g.most(o, m.Budget), max(m.HeapFactor, 1.5)
	if g.gc.on {
		factor = g.gc.factor()
	}
	room := float64(m.Budget-max(s.blocks, m.Blocks)-m.Tables-pages)/factor - float64(maps+s.records+m.Log+m.Blobs+m.Filter)
	room = min(max(room, float64(m.Budget/24)), most) * g.squeeze
	if s.l2 = int64(room * g.split.Part); s.l2 < leastL2 {
		s.l2 = 0
	}
	s.l1 = int64(room) - s.l2
	s.mapped = int64(float64(s.mapped) * g.squeeze)
	s.generation = int64(float64(s.generation) * max(g.squeeze, 0.5))
	s.pinned = s.generation * 5 / 2
	// What snapshots hold comes on top of the two that are written and flushed.
	s.generation -= min(g.pinned.bytes/4, s.generation/2)
	return s
}

// most is what both caches may have of a budget.
func (g *governor) most(o *Options, budget int64) float64 {
	if o.TuneGC {
		return float64(budget) * 5 / 8
	}
	s := sharesOf(budget, o.SegmentBytes)
	return float64(s.l1 + s.l2)
}

// apply lets the rooms know. L1 grows by steps, so that a moment's room does not fill with
// what has to go a moment later. L2 follows a large difference only, and not often while
// there is room.
func (e *Engine) apply(s shares) {
	g, was := &e.governor, e.shares()
	rest := time.Since(g.resized) < splitRest && g.squeeze == 1
	if rest || !cache.WorthResize(was.l2, s.l2) {
		s.l1, s.l2 = max(s.l1+s.l2-was.l2, s.l1/2), was.l2
	}
	if s.l1 > was.l1 {
		s.l1 = min(s.l1, was.l1+was.l1/8+1<<20)
	}
	if d := s.l1 - was.l1; s.l2 == was.l2 && max(d, -d) < was.l1/16 {
		s.l1 = was.l1 // a new size costs L1 its ghosts
	}
	if s.l2 != was.l2 {
		g.resized = time.Now()
	}
	e.limits.Store(&s)
	if s.l1 != was.l1 || s.l2 != was.l2 {
		if err := e.cache.Resize(s.l1, s.l2); err != nil {
			e.logger.Warn("a cache is not resized", "l1", s.l1, "l2", s.l2, "error", err)
		}
	}
	e.packs.SetMaxMapped(s.mapped)
}

// pressure rises from 0 at three quarters of the budget, or of what generations may
// take, to 1 where writers wait.
func pressure(m *MemoryMetrics, generation int64, stalled bool) float64 {
	if stalled {
		return 1
	}
	most := max(float64(m.Used)/(hardLimit*float64(m.Budget)), float64(m.Generations)/float64(2*generation))
	return min(max((most-0.75)/0.25, 0), 0.99)
}

// Pressure says how close the store is to making writers wait for memory, from 0, no
// need to care, to 1, they wait. It is some 200 ms old and costs nothing to ask.
func (e *Engine) Pressure() float64 {
	return math.Float64frombits(e.governor.pressure.Load())
}

// SetMemoryBudget changes Options.MemoryBudget while the store is open. Tiers follow
// within a second: they are made smaller at once and grow as they are used. L3's block
// cache, a twelfth of the budget at Open, keeps its size.
func (e *Engine) SetMemoryBudget(bytes int64) error {
	if !e.gate.enter(0) {
		return ErrClosed
	}
	defer e.gate.leave(0)
	if bytes < minBudget || bytes < e.opts.MemoryBudget/4 {
		return fmt.Errorf("%w: SetMemoryBudget: %d bytes: at least %d MiB, and a quarter of what Open got", ErrArgument, bytes, minBudget>>20)
	}
	e.governor.mu.Lock()
	e.governor.budget = bytes
	e.governor.why = "the budget was changed"
	e.governor.mu.Unlock()
	e.govern()
	return nil
}

// memory is the account for Metrics.
func (e *Engine) memory() MemoryMetrics {
	m := e.measure()
	m.Pressure, m.Resident = e.Pressure(), residentBytes()
	g := &e.governor
	g.mu.Lock()
	defer g.mu.Unlock()
	m.Budget, m.Why = g.budget, g.why
	s := e.shares()
	m.GenerationLimit, m.L1Limit, m.L2Limit, m.MappedLimit = s.generation, s.l1, s.l2, s.mapped
	return m
}

// goal is the budget of this moment.
func (g *governor) goal() int64 {
	g.mu.Lock()
	defer g.mu.Unlock()
	return g.budget
}

// awaitMemory waits while the store is above its hard limit.
func (e *Engine) awaitMemory(ctx context.Context) error {
	if !e.governor.full.Load() {
		return nil
	}
	return e.waitStall(ctx, &e.governor.full, "memory is above MemoryBudget")
}

// peak remembers the most that was seen, and forgets it within some ten seconds.
type peak struct{ bytes int64 }

func (p *peak) see(now int64) { p.bytes = max(now, p.bytes-p.bytes/32) }
