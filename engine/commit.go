package engine

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/wal"
	"github.com/holdfastdb/holdfast/yield"
)

// Put sets key to value. An empty value is a value. When Put returns nil the value
// is visible, and survives what Options.Sync says.
func (e *Engine) Put(key, value []byte) error {
	b := e.NewBatch()
	defer b.Close()
	if err := b.Put(key, value); err != nil {
		return err
	}
	_, err := e.Apply(b)
	return err
}

// Delete removes key. Deleting a key that is not there is no error.
func (e *Engine) Delete(key []byte) error {
	b := e.NewBatch()
	defer b.Close()
	if err := b.Delete(key); err != nil {
		return err
	}
	_, err := e.Apply(b)
	return err
}

// DeleteRange removes every key in [lower, upper), in time that does not depend on
// how many there are. A nil upper has no end.
func (e *Engine) DeleteRange(lower, upper []byte) error {
	b := e.NewBatch()
	defer b.Close()
	if err := b.DeleteRange(lower, upper); err != nil {
		return err
	}
	_, err := e.Apply(b)
	return err
}

// Apply commits the batch, all or nothing, and returns its commit number. An empty
// batch commits nothing and returns the last number. The batch may be used again.
func (e *Engine) Apply(b *Batch) (lsn uint64, err error) {
	return e.ApplyContext(context.Background(), b)
}

// ApplyContext is Apply that stops waiting when ctx ends: in a stall nothing was
// written; while the group is being written the error is ErrInDoubt.
//
// Apply, Put and Delete wait as long as the disk hangs, by design: their goroutine may
// be the one that writes and syncs for its whole group, which saves a lone writer the
// hand-over. Who must be able to walk away passes a ctx that can end.
func (e *Engine) ApplyContext(ctx context.Context, b *Batch) (lsn uint64, err error) {
	if err := hasContext("ApplyContext", ctx); err != nil {
		return 0, err
	}
	switch {
	case b == nil || b.e == nil:
		return 0, fmt.Errorf("%w: the batch", ErrClosed)
	case b.e != e:
		return 0, fmt.Errorf("%w: a batch of another engine", ErrOptions)
	case e.gate.closed.Load():
		return 0, ErrClosed
	case e.log == nil:
		return 0, ErrReadOnly
	case b.err != nil:
		return 0, b.err
	case b.Len() == 0:
		return e.clock.Published(), nil
	}
	if err := b.normalise(); err != nil {
		return 0, err
	}
	sum := wal.Checksum(b.ops) // before anything can touch the bytes
	if !e.gate.enter(uint64(sum)) {
		return 0, ErrClosed
	}
	defer e.gate.leave(uint64(sum))
	began := e.latency.commitBegan()
	if err := e.admit(ctx, b); err != nil {
		return 0, err
	}
	yield.Point("commit.admitted")
	var arg any
	var left *leftBehind
	if ctx.Done() != nil && len(b.blobs) > 0 {
		left = &leftBehind{refs: b.blobs}
		arg = left
	}
	lsn, err = e.log.Commit(ctx, b.ops, uint32(b.Len()), sum, arg)
	e.latency.commitDone(began, err)
	b.applied = err == nil
	switch err = door(err); {
	case errors.Is(err, ErrInDoubt):
		// It may be placed yet, and its packs stay until then; if the log failed, until a
		// reopen knows.
		if left == nil || left.done.CompareAndSwap(false, true) {
			b.blobs = nil
		}
	case errors.Is(err, ErrDiskFull):
		e.collector.logFull.Store(true) // what has gone down needs no log
		e.allowance.logFull.Store(true)
		e.collector.kick()
	}
	return lsn, err
}

// leftBehind is what a batch holds whose caller may stop waiting for its commit. Who comes
// second, the caller that leaves or the commit that is placed, gives the packs up: the
// batch later, with Reset or Close, the commit at once.
type leftBehind struct {
	refs [][]byte
	done atomic.Bool
}

func (e *Engine) placed(l *leftBehind) {
	if l.done.CompareAndSwap(false, true) {
		return // the batch has them still
	}
	for _, ref := range l.refs {
		e.packs.Settle(ref)
	}
	e.collector.kick()
}

// admit waits while the generations are full, holding nothing.
func (e *Engine) admit(ctx context.Context, b *Batch) error {
	if err := e.writable(); err != nil {
		return err
	}
	if b.puts && e.lowDisk.Load() {
		if err := e.checkDisk(0); err != nil { // the watcher's look may be a second old
			return err
		}
	}
	if e.stall.on.Load() {
		if err := e.waitStall(ctx, &e.stall.on, "flushes are behind"); err != nil {
			return err
		}
	}
	return e.awaitMemory(ctx)
}

// writable is nil, or why nothing can be written until a reopen. L3 is asked, too: a
// compaction may have closed it, and what is acknowledged after that could never go
// down. Its log would only grow, and the next recovery with it. The log has all that
// was acknowledged before (I2).
func (e *Engine) writable() error {
	if c := e.cause.Load(); c != nil {
		return readOnly(*c)
	}
	if err := e.log.Err(); err != nil && e.life.Err() == nil {
		return readOnly(err)
	}
	if err := e.store.Fault(); err != nil && e.life.Err() == nil {
		e.fail(door(err)) // so that stalled writers hear of it, and the operator
		return readOnly(door(err))
	}
	return nil
}

func readOnly(cause error) error {
	if errors.Is(cause, ErrInDoubt) {
		cause = decided{cause}
	}
	if errors.Is(cause, ErrReadOnly) {
		return cause
	}
	return fmt.Errorf("%w: %w", ErrReadOnly, cause)
}

// decided is the cause of a refusal. What it left in doubt were others: nothing was
// written of the call that is refused.
type decided struct{ cause error }

func (d decided) Error() string { return d.cause.Error() }
func (d decided) Is(target error) bool {
	return target != ErrInDoubt && target != wal.ErrInDoubt && errors.Is(d.cause, target)
}
func (d decided) As(target any) bool { return errors.As(d.cause, target) }

// stall is where writers wait for the flusher.
type stall struct {
	on    atomic.Bool
	mu    sync.Mutex
	ended chan struct{} // closed by wake; nil while nobody waits
	count uint64
	total time.Duration
}

func (s *stall) wait() <-chan struct{} {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended == nil {
		s.ended = make(chan struct{})
	}
	return s.ended
}

// wake lets everybody look again.
func (s *stall) wake() {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.ended != nil {
		close(s.ended)
		s.ended = nil
	}
}

// waitStall waits while on is set, at most Options.StallLimit. Who clears it calls
// stall.wake.
func (e *Engine) waitStall(ctx context.Context, on *atomic.Bool, why string) error {
	began := time.Now()
	limit := yield.NewTimer(e.opts.StallLimit)
	defer limit.Stop()
	defer func() {
		e.stall.mu.Lock()
		e.stall.count++
		e.stall.total += time.Since(began)
		e.stall.mu.Unlock()
	}()
	for {
		// Order: take the channel, then look, so that a wake in between is seen.
		woken := e.stall.wait()
		yield.Point("commit.stalled")
		if err := e.writable(); err != nil {
			return err
		}
		if !on.Load() {
			return nil
		}
		select {
		case <-woken:
		case <-limit.C:
			return fmt.Errorf("%w: %s for %v", ErrBusy, why, e.opts.StallLimit)
		case <-ctx.Done():
			return fmt.Errorf("%w: %w", ErrBusy, ctx.Err())
		case <-e.life.Done():
			return ErrClosed
		}
	}
}

// place puts the operations of one commit into the active generation. The log
// calls it in the order of commit numbers, after the record is written; nobody sees
// the cells before the log publishes the number (I2). Recovery calls it for every record
// it replays.
func (e *Engine) place(lsn uint64, payload []byte) error {
	g := e.view.Load().active
	var ranges []cow.Range
	for rest := opList(payload); len(rest) > 0; {
		o, next, err := rest.next()
		if err != nil {
			return err
		}
		rest = next
		if o.kind == opRange {
			ranges = append(ranges, cow.Range{Lower: o.key, Upper: o.payload})
			continue
		}
		hash := hashKey(o.key)
		g.Put(hash, o.key, lsn, cow.Header{Kind: o.kind, Revision: lsn}, o.payload)
		if err := e.blobs.count(hash, o, lsn); err != nil {
			return err
		}
	}
	if ranges != nil {
		g.DeleteRange(lsn, ranges)
		e.blobs.countRange(lsn)
	}
	return nil
}

// maxFragments bounds a generation's range tombstones: each range delete copies
// their list (I10).
const maxFragments = 512

// between runs on the leader after each group, with every cell at or below last
// placed and published and nothing above it: the one moment at which a generation
// may be frozen.
func (e *Engine) between(last uint64) {
	v := e.view.Load()
	full := v.active.Bytes() >= e.shares().generation || v.active.Fragments() >= maxFragments
	// A flush for the log's sake alone must be worth it: what keeps the log long may
	// be a pin, which no flush ends.
	if !full && (v.active.Bytes() < e.shares().generation/8 || e.log.LiveBytes() < e.shares().log) {
		return
	}
	if len(v.frozen) < e.shares().frozen {
		e.rotate(last)
	} else if full && !e.stall.on.Load() {
		e.stall.on.Store(true)
		e.flusher.kick()
	}
}

// freeze sends the active generation down, unless as many as may wait do so already.
func (e *Engine) freeze() (frozen bool) {
	_ = e.log.Barrier(func(last uint64) { // fails only with the log, which tells its writers
		if v := e.view.Load(); !v.active.Empty() && len(v.frozen) < e.shares().frozen {
			e.rotate(last)
			frozen = true
		}
	})
	return frozen
}

// rotate freezes the active generation. The caller holds the log's commit lock.
func (e *Engine) rotate(last uint64) {
	e.viewMu.Lock()
	v := e.view.Load()
	e.view.Store(v.rotated(cow.NewGeneration(&e.clock, v.active.Next()), last))
	e.viewMu.Unlock()
	e.flusher.kick()
}
