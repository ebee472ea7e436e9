package engine

import (
	"context"
	"errors"
	"fmt"
	"math"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/compaction"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/yield"
)

// flusher is the one goroutine that moves generations down.
type flusher struct {
	work chan struct{} // one token: look at the view
	turn chan struct{} // one token: who may wait for the log's commit lock aside

	mu      sync.Mutex
	flushed uint64        // every generation with a last number at or below it is down
	err     error         // of the last attempt; nil after a success
	failed  uint64        // attempts
	changed chan struct{} // closed and replaced when one of the above changes
	stats   FlushMetrics
}

func (f *flusher) init(flushed uint64) {
	f.work = make(chan struct{}, 1)
	f.turn = make(chan struct{}, 1)
	f.changed = make(chan struct{})
	f.flushed = flushed
}

func (f *flusher) kick() {
	select {
	case f.work <- struct{}{}:
	default:
	}
}

func (f *flusher) note(change func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	change()
	close(f.changed)
	f.changed = make(chan struct{})
}

const (
	flushRetryLeast = 50 * time.Millisecond
	flushRetryMost  = 5 * time.Second
	behindPoll      = 5 * time.Millisecond
)

// runFlusher flushes whatever is frozen. A full disk is tried again, later and
// later; any other error makes the engine read-only: map and log keep everything.
func (e *Engine) runFlusher() {
	retry := flushRetryLeast
	for {
		select {
		case <-e.flusher.work:
		case <-e.life.Done():
			return
		}
		for e.life.Err() == nil {
			e.lookKnown()
			gen, ok := e.view.Load().oldest()
			if !ok {
				// A leader may have found the generations full just before the
				// last flush, and said so just after it.
				e.unstall()
				break
			}
			err := door(e.flushOne(e.life, gen))
			if e.life.Err() != nil {
				return
			}
			broken := err != nil && !transient(err)
			if broken { // before whoever waits for the flush hears of it
				e.fail(fmt.Errorf("flush: %w", err))
			}
			e.flusher.note(func() {
				if e.flusher.err = err; err == nil {
					e.flusher.flushed = gen.last
				} else {
					e.flusher.failed++
				}
			})
			switch {
			case err == nil:
				retry = flushRetryLeast
				e.allowance.logFull.Store(false)
				e.unstall()
				e.keepWarm(gen.Generation) // last: whoever waited for the flush goes on
			case !broken:
				e.logger.Warn("flush will be tried again", "error", err, "after", retry)
				select {
				case <-yield.NewTimer(retry).C:
				case <-e.life.Done():
					return
				}
				retry = min(2*retry, flushRetryMost)
			}
			if broken {
				return
			}
		}
	}
}

// flushOne walks the order of a flush: log, L3, view, STATE (docs/ARCHITECTURE.md).
func (e *Engine) flushOne(ctx context.Context, gen frozen) error {
	if err := e.waitForCompactions(ctx); err != nil {
		return err
	}
	yield.Point("flush.begin")
	began := time.Now()
	e.known.add(e.view.Load(), gen)
	// Log before L3, and with the log the packs (I3): L3 must never name a blob, or be
	// at a commit, that a crash could still take. The sync runs while tables are built.
	durable := make(chan error, 1)
	e.background(func() { durable <- e.log.WaitDurable(ctx, gen.last) })
	w := storage.Watermark{LSN: gen.last, Generation: e.generation + 1, UUID: e.uuid}
	stats, err := compaction.Flush(ctx, gen.Generation, e.store, w, e.blobs.died(gen.last), e.paced().pause, func() error { return <-durable })
	if err != nil {
		return err
	}
	// Order (I5): L3, then view. Swapping the view first would let a reader miss
	// the cell in the map, and read L3 before it is there.
	yield.Point("flush.ingested")
	e.swapBase(gen, e.store.Current())
	yield.Point("flush.swapped")
	e.generation++
	e.blobs.flushed(gen.last, stats.Turnover)
	e.collector.kick()
	e.boundSnapshots()
	// Order (I6): view, then STATE. Only now may the log be recycled.
	if err := e.log.SetFlushed(gen.last, e.generation, e.packs.High()); err != nil {
		return err
	}
	e.flusher.mu.Lock()
	e.flusher.stats.add(stats, time.Since(began))
	e.flusher.mu.Unlock()
	e.logger.Debug("flushed", "through", gen.last, "sets", stats.Sets, "deletes", stats.Deletes,
		"ranges", stats.Ranges, "bytes", stats.Bytes, "took", time.Since(began))
	return nil
}

// stuckAfter is how long nothing may be compacted while a flush waits for it.
const stuckAfter = 3 * time.Second

// waitForCompactions waits while L3 is behind. It may be behind because compactions
// fail: Pebble then leaves the tables alone until the next ingest. A fault that
// passes (a full disk) is tried again by letting the flush go on, any other is
// returned.
func (e *Engine) waitForCompactions(ctx context.Context) error {
	last, since := e.store.Metrics(), yield.Now()
	for compaction.Behind(e.store) {
		if err := e.store.Err(); err != nil {
			return err
		}
		if yield.Now().Sub(since) > stuckAfter {
			now := e.store.Metrics()
			idle := now.CompactionsRunning == 0 && now.Compactions == last.Compactions
			if err := door(now.LastFault); idle && now.CompactionsFailed > 0 && err != nil {
				if transient(err) {
					return nil
				}
				return fmt.Errorf("compactions fail: %w", err)
			}
			last, since = now, yield.Now()
		}
		select {
		case <-yield.NewTimer(behindPoll).C:
		case <-ctx.Done():
			return ctx.Err()
		}
	}
	return nil
}

// swapBase replaces the oldest frozen generation by its record, and the L3
// snapshot by one that has its cells, in one swap of the view.
func (e *Engine) swapBase(gen frozen, base *storage.Snapshot) {
	record := newRecord(gen.Generation)
	e.viewMu.Lock()
	v := e.view.Load()
	e.view.Store(v.without(base, record, e.shares().records))
	e.viewMu.Unlock()
	yield.Point("flush.old base")
	v.base.Release() // the view's own reference; snapshots have theirs
}

// warmLook is how many keys go by between two looks at whether the engine closes.
const warmLook = 1 << 10

// keepWarm hands the cells of a generation that went down to L1, where they were read
// from the map or L1 has older ones: what is read and written much would be read
// from L3 again after each flush.
func (e *Engine) keepWarm(g *cow.Generation) {
	if !e.cache.Warm() {
		return
	}
	horizon := e.view.Load().horizon // only flushes change it
	it, pace := g.NewIter(math.MaxUint64), e.paced()
	for n, ok := 0, it.First(); ok; n, ok = n+1, it.Next() {
		if n%warmLook == 0 {
			if pace.pause(); e.life.Err() != nil {
				return
			}
		}
		cell := it.Cell()
		if cell != nil && cell.Kind() == cow.Tombstone {
			cell = nil
		}
		e.cache.Offer(horizon, hashKey(it.Key()), it.Key(), cell)
	}
}

func newRecord(g *cow.Generation) *cache.Record {
	frags := g.Ranges()
	ranges := make([]cache.KeyRange, len(frags))
	for i, f := range frags {
		ranges[i] = cache.KeyRange{Lower: f.Lower, Upper: f.Upper}
	}
	return cache.NewRecord(g.Hashes(), g.Len(), ranges)
}

// unstall lets writers go on once there is room, and freezes what filled up while
// there was none.
func (e *Engine) unstall() {
	if !e.stall.on.Load() {
		return
	}
	yield.Point("flush.unstall")
	// Room first, then the writers: between runs under the same lock and would
	// otherwise stall them again at once.
	if err := e.log.Barrier(func(last uint64) {
		e.stall.on.Store(false)
		e.between(last)
	}); err != nil && e.life.Err() == nil {
		e.fail(err)
	}
	e.stall.wake()
}

// Flush moves everything acknowledged so far into L3 and returns when it is
// durable there. If the disk is full it says so after some tries; the engine goes on
// trying. When ctx ends Flush returns at once, also while a write or sync of the log
// hangs; what it asked for may still happen.
func (e *Engine) Flush(ctx context.Context) error {
	if err := hasContext("Flush", ctx); err != nil {
		return err
	}
	if e.log == nil {
		return e.closedOr(ErrReadOnly)
	}
	if !e.gate.enter(0) {
		return ErrClosed
	}
	defer e.gate.leave(0)
	var target uint64
	for {
		frozen := false
		if err := e.barrier(ctx, func(last uint64) {
			v := e.view.Load()
			switch {
			case v.active.Empty():
				frozen = true
				if len(v.frozen) > 0 {
					target = v.frozen[0].last
				}
			case len(v.frozen) < e.shares().frozen:
				e.rotate(last)
				target, frozen = last, true
			}
		}); err != nil {
			return door(err)
		}
		if frozen {
			break
		}
		// No room for another frozen generation: wait for one flush.
		if err := e.awaitFlush(ctx, 0); err != nil {
			return err
		}
	}
	return e.awaitFlush(ctx, target)
}

// barrier is the log's Barrier for a caller who may give up: the lock that it waits for
// is held while a group is written and synced. Then fn may still run, later.
func (e *Engine) barrier(ctx context.Context, fn func(last uint64)) error {
	if ctx.Done() == nil {
		return e.log.Barrier(fn)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	select {
	case e.flusher.turn <- struct{}{}: // one goroutine, however many give up (I10)
	case <-ctx.Done():
		return ctx.Err()
	case <-e.life.Done():
		return ErrClosed
	}
	if !e.gate.enter(0) { // Close waits for the goroutine (I11)
		<-e.flusher.turn
		return ErrClosed
	}
	done := make(chan error, 1)
	go func() {
		defer e.gate.leave(0)
		err := e.log.Barrier(fn)
		<-e.flusher.turn
		done <- err
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return ctx.Err()
	}
}

// awaitFlush waits until everything through target is down, or, for target zero,
// until one more generation is.
func (e *Engine) awaitFlush(ctx context.Context, target uint64) error {
	f := &e.flusher
	e.allowance.waiters.Add(1)
	defer e.allowance.waiters.Add(-1)
	f.kick()
	const tries = 3
	f.mu.Lock()
	start, failed := f.flushed, f.failed
	for {
		enough := f.failed >= failed+tries
		done, changed, err := f.flushed >= target, f.changed, f.err
		if target == 0 {
			done = f.flushed > start || len(e.view.Load().frozen) < e.shares().frozen
		}
		f.mu.Unlock()
		switch {
		case done:
			return nil
		case err != nil && (enough || !transient(err)):
			return err
		}
		if c := e.cause.Load(); c != nil {
			return readOnly(*c)
		}
		select {
		case <-changed:
		case <-ctx.Done():
			return errors.Join(ctx.Err(), err)
		case <-e.life.Done():
			return ErrClosed
		}
		f.mu.Lock()
	}
}
