package engine

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/compaction"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/yield"
)

// collector is the one goroutine that gives space back: that of dead blobs, and that of
// the log when it found no more.
type collector struct {
	work    chan struct{}        // one token: something came down, or logFull
	logFull atomic.Bool          // the log had no room for a commit
	behind  atomic.Bool          // large values wait; see noteGarbage
	skip    map[uint64]time.Time // packs that could not be collected, until then; the holder of collecting's
	stats   CollectMetrics       // guarded by blobs.mu
}

func (c *collector) init() {
	c.work = make(chan struct{}, 1)
	c.skip = make(map[uint64]time.Time)
}

func (c *collector) kick() {
	select {
	case c.work <- struct{}{}:
	default:
	}
}

// forget drops from skip what is none of the packs that are there.
func (c *collector) forget(there []uint64) {
	gone := maps.Clone(c.skip)
	for _, num := range there {
		delete(gone, num)
	}
	for num := range gone {
		delete(c.skip, num)
	}
}

const (
	collectEvery = 250 * time.Millisecond
	collectRetry = 16 * time.Second // at most, while the disk is full
	skipFor      = time.Minute      // a pack that could not be read or written
	skipForGood  = 100 * 365 * 24 * time.Hour
	// A death that is only in memory keeps its bytes on disk: so much of it, a quarter
	// of MemoryBudget at most, or some of it for so long, asks for a flush.
	unflushedBytes = 64 << 20
	unflushedFor   = 2 * time.Second
	// slackValues is how many of the least large values may be garbage before a
	// pack is rewritten for them.
	slackValues = 4
)

// runCollector works in turns: a full log and what died ask for a flush, packs with
// nothing in them go, and the sparsest pack is rewritten while all take more than
// Options.SpaceAmp times what is in them. Each turn asks anew what a flush would make
// collectable: the sparsest pack of an old account is not worth rewriting.
func (e *Engine) runCollector() {
	var since time.Time     // when deaths that no flush has seen were first met
	var retry time.Duration // zero, or when to try again what failed
	for more := false; more && e.life.Err() == nil || e.awaitCollect(retry); {
		yield.Point("collect.turn")
		if e.collector.logFull.Swap(false) {
			e.freeze()
		}
		since = e.flushDeaths(since)
		if more = false; e.writable() != nil { // a disk that failed is not written to (I9)
			continue
		}
		began := yield.Now()
		e.collecting.Lock() // not beside a checkpoint, which links what it names
		did, err := e.collectOne()
		e.collecting.Unlock()
		if err != nil { // it is told; the disk may be full
			retry = min(max(2*retry, collectEvery), collectRetry)
			e.noteGarbage(0, 0) // who waits hears from the disk itself
			continue
		}
		more = did != nothing
		if retry = 0; did == rewrote && !e.collector.behind.Load() {
			// Half of the disk's time, so that the foreground keeps its own; less of
			// a pack that took longer than a second.
			select {
			case <-yield.NewTimer(min(yield.Now().Sub(began), time.Second)).C:
			case <-e.life.Done():
			}
		}
	}
}

// awaitCollect waits for something to do. It looks again by itself only while something
// died, because a snapshot may end, or time pass. False: the store closes.
func (e *Engine) awaitCollect(retry time.Duration) bool {
	yield.Point("collect.wait")
	dead, _, ranges := e.blobs.waiting()
	var tick <-chan time.Time // nil: never
	if dead || ranges || retry > 0 {
		t := yield.NewTimer(max(collectEvery, retry))
		defer t.Stop()
		tick = t.C
	}
	select {
	case <-e.collector.work:
	case <-tick:
		select {
		case <-e.collector.work: // both: one turn
		default:
		}
	case <-e.life.Done():
	}
	return e.life.Err() == nil
}

// flushDeaths freezes the active generation when it holds enough deaths, or some for
// long enough.
func (e *Engine) flushDeaths(since time.Time) time.Time {
	_, n, ranges := e.blobs.waiting()
	switch {
	case n == 0 && !ranges:
		return time.Time{}
	case since.IsZero():
		since = yield.Now()
	}
	if n < min(unflushedBytes, e.opts.MemoryBudget/4) && yield.Now().Sub(since) < unflushedFor || e.writable() != nil {
		return since
	}
	if e.freeze() {
		return time.Time{}
	}
	return since
}

// collectedOne is what a turn of the collector did.
type collectedOne uint8

const (
	nothing collectedOne = iota // there is nothing to do now
	removed
	rewrote
)

// collectOne removes or rewrites one pack. The caller holds collecting.
func (e *Engine) collectOne() (did collectedOne, err error) {
	packs := e.weigh()
	for _, p := range packs {
		if p.Kept == 0 && p.sealed {
			return removed, e.tell(p.Num, e.removePack(p.Pack))
		}
	}
	all := make([]compaction.Pack, len(packs))
	for i, p := range packs {
		all[i] = p.Pack
	}
	victim, ok := compaction.Victim(all, e.opts.SpaceAmp, slackValues*int64(e.opts.LargeValue))
	if !ok {
		return nothing, nil
	}
	for _, p := range packs {
		if p.Num == victim.Num && !p.sealed {
			return rewrote, e.tell(victim.Num, e.packs.Seal())
		}
	}
	return rewrote, e.tell(victim.Num, e.rewritePack(victim))
}

// collectAll removes and rewrites packs until none is worth it. A pack that cannot be
// collected keeps no other.
func (e *Engine) collectAll(ctx context.Context) error {
	for !e.collecting.TryLock() { // a checkpoint may hold it for long
		select {
		case <-yield.NewTimer(behindPoll).C:
		case <-ctx.Done():
			return ctx.Err()
		case <-e.life.Done():
			return ErrClosed
		}
	}
	defer e.collecting.Unlock()
	var failed []error
	for {
		switch {
		case ctx.Err() != nil:
			return ctx.Err()
		case e.life.Err() != nil:
			return ErrClosed
		case e.writable() != nil:
			return e.writable()
		}
		did, err := e.collectOne()
		if err != nil {
			failed = append(failed, door(err))
		}
		if did == nothing || errors.Is(err, ErrDiskFull) {
			return errors.Join(failed...)
		}
	}
}

// tell logs what kept a pack from being collected. One that is damaged is not tried again
// before a reopen, any other in a while; for want of room, as soon as there may be some.
func (e *Engine) tell(pack uint64, err error) error {
	if err == nil || e.life.Err() != nil {
		return err
	}
	e.logger.Warn("a pack is not collected", "pack", pack, "error", err)
	err = e.packFailed(err)
	switch {
	case errors.Is(err, ErrDiskFull):
	case errors.Is(err, ErrCorrupt), errors.Is(err, ErrForeign), errors.Is(err, ErrVersion):
		e.collector.skip[pack] = yield.Now().Add(skipForGood)
	default:
		e.collector.skip[pack] = yield.Now().Add(skipFor)
	}
	return err
}

// removeOrphans unlinks, at open, packs that nothing names: what a crash left between
// a blob and its commit, or between a flush and the collector. The recovered state is
// durable by now, so no older one that names them can return. After a recovery that
// gave something up they stay: what was moved aside may name them.
func (e *Engine) removeOrphans() {
	e.collecting.Lock()
	defer e.collecting.Unlock()
	if len(e.found.Lost) > 0 {
		for _, num := range e.packs.Packs() {
			e.collector.skip[num] = yield.Now().Add(skipForGood)
		}
		return
	}
	for _, p := range e.weigh() {
		if p.Kept == 0 && p.sealed {
			_ = e.tell(p.Num, e.removePack(p.Pack)) // told
		}
	}
}

type weighed struct {
	compaction.Pack
	sealed bool
}

// weigh lists the packs that no batch or writer under way names.
func (e *Engine) weigh() []weighed {
	// Order: sizes, then what is kept, so that a blob that is counted as taking room
	// and was committed since is counted as kept, too. One that is not committed yet
	// holds its pack pending.
	infos := e.packs.PackInfos()
	yield.Point("collect.weigh")
	b := &e.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	// Order (I7): the account, then the snapshots. Between a look at the snapshots and
	// the lock one could begin, and a commit and its flush replace what it reads.
	b.acc.Collect(e.clock.Oldest())
	out := make([]weighed, 0, len(infos))
	garbage, now := b.acc.Unflushed(), yield.Now()
	if len(e.collector.skip) > 0 {
		e.collector.forget(e.packs.Packs())
	}
	for _, i := range infos {
		if i.Pending == 0 && !e.collector.skip[i.Num].After(now) {
			w := weighed{compaction.Pack{Num: i.Num, Bytes: i.Bytes, Kept: b.acc.KeptBytes(i.Num)}, i.Sealed}
			garbage += w.Bytes - w.Kept
			out = append(out, w)
		}
	}
	e.noteGarbage(garbage, b.acc.Live())
	return out
}

// noteGarbage holds large values up when there is more garbage beside so many live bytes
// than the collector can have left behind by choice: they come faster than it clears
// (I10). Below MemoryBudget it is not worth a wait.
func (e *Engine) noteGarbage(garbage, live int64) {
	behind := float64(garbage) > max(2*e.opts.SpaceAmp*float64(live), float64(e.opts.MemoryBudget))
	if e.collector.behind.Swap(behind) && !behind {
		e.stall.wake()
	}
}

// awaitRoom waits while the collector is behind.
func (e *Engine) awaitRoom(ctx context.Context) error {
	if !e.collector.behind.Load() {
		return nil
	}
	return e.waitStall(ctx, &e.collector.behind, "the collector of dead large values is behind")
}

// removePack unlinks a pack that nothing names (I7).
func (e *Engine) removePack(p compaction.Pack) error {
	if err := e.unnamed(p.Num); err != nil {
		return err
	}
	yield.Point("collect.remove")
	if err := e.packs.Remove(p.Num); err != nil {
		return err
	}
	e.noteCollected(func(m *CollectMetrics) { m.Removed++; m.Freed += uint64(p.Bytes) })
	return nil
}

// unnamed asks L3 itself before a pack goes for good: the account must not err alone.
func (e *Engine) unnamed(pack uint64) error {
	base := e.store.Current()
	defer base.Release()
	return base.EachBlobOf(pack, func(_, offset, _ uint64, key []byte) error {
		return corrupt("", "key %.40q names the blob at %d of pack %d, which nothing should", key, offset, pack)
	})
}

func (e *Engine) rewritePack(p compaction.Pack) error {
	e.blobs.mu.Lock()
	keep := e.blobs.acc.Kept(p.Num)
	e.blobs.mu.Unlock()
	yield.Point("collect.rewrite")
	// Asked before the first byte: a copy that breaks off fills the disk for nothing.
	if u, err := e.opts.FS.GetDiskUsage(e.dir); err == nil && u.AvailBytes < uint64(p.Kept) {
		return fmt.Errorf("%w: a rewrite needs %d MiB, %d are free", mmap.ErrDiskFull, p.Kept>>20, u.AvailBytes>>20)
	}
	if err := e.packs.Rewrite(p.Num, keep); err != nil {
		return err
	}
	e.noteCollected(func(m *CollectMetrics) {
		m.Rewritten++
		m.Copied += uint64(p.Kept)
		m.Freed += uint64(p.Bytes - p.Kept)
	})
	return nil
}

func (e *Engine) noteCollected(f func(*CollectMetrics)) {
	e.blobs.mu.Lock()
	defer e.blobs.mu.Unlock()
	f(&e.collector.stats)
}

func (e *Engine) collectMetrics() CollectMetrics {
	infos := e.packs.PackInfos()
	b := &e.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	m := e.collector.stats
	for _, i := range infos {
		m.Disk += i.Bytes
		if b.acc != nil && i.Sealed && i.Pending == 0 && b.acc.KeptBytes(i.Num) == 0 {
			m.Empty++
		}
	}
	if b.acc != nil {
		m.Live, m.Keys = b.acc.Live(), b.acc.Len()
	}
	return m
}
