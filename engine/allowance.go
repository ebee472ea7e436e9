package engine

import (
	"math"
	"runtime/metrics"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

// allowance is what work in the background may have of a machine that callers keep busy:
// flushes, the walks beside them and compactions go by it; the collector rests half of its
// time whatever it says. It is decided anew in each turn of the governor, from what the
// scheduler of the runtime and the log measure anyway.
type allowance struct {
	share   atomic.Uint64 // bits of a float64: of its own time that a worker works
	paused  atomic.Int64  // nanoseconds that workers rested for the foreground
	waiters atomic.Int32  // callers who wait for a flush or a compaction
	logFull atomic.Bool   // the log had no room for a commit, and nothing went down since

	// Of the governor's turn.
	waits waitCounts
	syncs syncCounts
	calm  time.Duration // what a sync of the log takes while nothing is in its way

	mu  sync.Mutex // guards why
	why string
}

// BackgroundMetrics is how much of its own time work in the background works.
type BackgroundMetrics struct {
	Share       float64 // 1: callers leave room, or wait for the work to be done
	Why         string
	Paused      time.Duration // by all of it, since Open
	Compactions int           // that may run at once
}

const (
	// busyShare leaves the foreground half of what one worker would take.
	busyShare = 0.5
	// longWait is how long a goroutine that could run waits for a processor where the
	// processors are busy; manyWait is the part of them that does.
	longWait = 100 * time.Microsecond
	manyWait = 0.05
	// slowSync is how many times what it takes in calm a sync of the log takes where
	// the disk is busy.
	slowSync = 3
	// Fewer events between two turns say nothing.
	leastWaits, leastSyncs = 200, 8
	// calmSublevels of level zero are what compactions keep up with one at a time.
	calmSublevels = 3
	// pauseMost bounds one rest, so that a choice is followed soon.
	pauseMost = 20 * time.Millisecond
)

func (a *allowance) init() { a.set(1, "nothing is measured yet") }

func (a *allowance) set(share float64, why string) {
	a.share.Store(math.Float64bits(share))
	a.mu.Lock()
	a.why = why
	a.mu.Unlock()
}

// choose decides, from how many goroutines waited long for a processor, how long a sync
// of the log took (zero: there were few), and whether somebody waits for the background.
func (a *allowance) choose(waited float64, sync time.Duration, awaited bool) {
	if sync > 0 && (a.calm == 0 || sync < a.calm) {
		a.calm = sync
	} else {
		a.calm += a.calm / 256 // a disk may become another one
	}
	switch {
	case awaited:
		a.set(1, "somebody waits for it, or soon will")
	case waited > manyWait:
		a.set(busyShare, "callers keep the processors busy")
	case sync > slowSync*a.calm:
		a.set(busyShare, "syncs of the log take longer than they did")
	default:
		a.set(1, "callers leave room")
	}
}

func (a *allowance) now() float64 { return math.Float64frombits(a.share.Load()) }

// compactions is how many may run at once.
func (a *allowance) compactions() int {
	if a.now() < 1 {
		return 1
	}
	return mostCompactions
}

const mostCompactions = 2

// pacer is one worker's account of its time.
type pacer struct {
	e     *Engine
	since time.Time
}

// paced starts the clock of some work in the background.
func (e *Engine) paced() *pacer { return &pacer{e, yield.Now()} }

// pause rests for as long as what was done since the last pause is worth, unless somebody
// waits, or soon will, for what the background does.
func (p *pacer) pause() {
	a := &p.e.allowance
	share := a.now()
	if share >= 1 || p.e.hurried() {
		p.since = yield.Now()
		return
	}
	rest := min(time.Duration(float64(yield.Now().Sub(p.since))*(1/share-1)), pauseMost)
	t := yield.NewTimer(rest)
	select {
	case <-t.C:
	case <-p.e.life.Done():
	}
	t.Stop()
	a.paused.Add(int64(rest))
	p.since = yield.Now()
}

// hurried says that a caller waits for what the background does, or that writers will
// when the active generation, half full by now, is full.
func (e *Engine) hurried() bool {
	v, a := e.view.Load(), &e.allowance
	return a.waiters.Load() > 0 || a.logFull.Load() || e.stall.on.Load() || e.governor.full.Load() || e.collector.behind.Load() ||
		len(v.frozen) >= e.shares().frozen && v.active.Bytes() > e.shares().generation/2
}

// allot decides what the background has until the next turn of the governor.
func (e *Engine) allot() {
	a := &e.allowance
	sync := time.Duration(0)
	if e.log != nil && e.opts.Sync == SyncAlways {
		m := e.log.Metrics()
		sync = a.syncs.mean(m.Syncs, m.SyncTime)
	}
	a.choose(a.waits.waited(), sync, e.hurried() || e.Pressure() > 0 || e.store.Sublevels() > calmSublevels)
	e.store.SetCompactions(a.compactions())
}

func (a *allowance) metrics() BackgroundMetrics {
	a.mu.Lock()
	defer a.mu.Unlock()
	return BackgroundMetrics{Share: a.now(), Why: a.why, Paused: time.Duration(a.paused.Load()), Compactions: a.compactions()}
}

// waitCounts remembers how many goroutines waited how long for a processor.
type waitCounts struct{ all, long uint64 }

// waited is the part of goroutines that waited long since it was asked last.
func (w *waitCounts) waited() float64 {
	s := []metrics.Sample{{Name: "/sched/latencies:seconds"}}
	metrics.Read(s)
	if s[0].Value.Kind() != metrics.KindFloat64Histogram {
		return 0
	}
	var now waitCounts
	h := s[0].Value.Float64Histogram()
	for i, n := range h.Counts {
		now.all += n
		if h.Buckets[i] >= longWait.Seconds() {
			now.long += n
		}
	}
	all, long := now.all-w.all, now.long-w.long
	*w = now
	if all < leastWaits {
		return 0
	}
	return float64(long) / float64(all)
}

// syncCounts remembers how many syncs there were and what they took together.
type syncCounts struct {
	n    uint64
	took time.Duration
}

// mean is what a sync took since it was asked last; zero: too few.
func (c *syncCounts) mean(n uint64, took time.Duration) time.Duration {
	was := *c
	*c = syncCounts{n, took}
	if n-was.n < leastSyncs {
		return 0
	}
	return (took - was.took) / time.Duration(n-was.n)
}
