package engine

import (
	"context"
	"fmt"
	"log/slog"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
	"github.com/holdfastdb/holdfast/yield"
)

// Engine is an open store. All methods are safe for concurrent use; after Close
// they return ErrClosed.
type Engine struct {
	dir    string
	opts   Options
	logger *slog.Logger
	lock   *dirLock
	uuid   [16]byte
	found  Recovery

	view  atomic.Pointer[view] // what readers load, once each
	clock cow.Clock

	log   *wal.Log // nil if read-only
	store *storage.Store
	cache *cache.Cache
	packs *mmap.Store

	gate    gate
	batches sync.Pool
	reads   readCounters
	latency latencies
	cause   atomic.Pointer[error] // why the engine became read-only (I9)
	lowDisk atomic.Bool
	stall   stall

	viewMu sync.Mutex // serialises those who change the view

	generation uint64   // of the last watermark; the flusher's alone
	tailBlobs  [][]byte // named by recovered records that nothing promised; Open's alone

	snapMu    sync.Mutex
	snapshots map[*Snapshot]struct{}

	limits    atomic.Pointer[shares] // see Engine.shares
	governor  governor
	allowance allowance

	blobs      blobs
	collecting yield.Mutex // held by who removes or rewrites packs, and by checkpoints
	collector  collector

	flusher flusher
	known   known
	life    context.Context // ends when Close begins
	end     context.CancelFunc
	workers sync.WaitGroup

	closeOnce sync.Once
	closed    chan struct{} // closed when Close is through
	closeErr  error
}

// Close stops admission, lets groups in flight finish, seals the log and releases
// the directory. Everything acknowledged is in the log or in L3; nothing is
// flushed, so Close is quick and the next Open replays at most a few generations.
// It never waits for user code: snapshots and scans get ErrClosed at their next
// step. It returns the first error; calling it again returns the same.
func (e *Engine) Close() error { return e.CloseContext(context.Background()) }

// CloseContext is Close that stops waiting when ctx ends. Closing goes on behind
// it, and a later call waits for it again.
func (e *Engine) CloseContext(ctx context.Context) error {
	if err := hasContext("CloseContext", ctx); err != nil {
		return err
	}
	e.closeOnce.Do(func() { go e.close() })
	select {
	case <-e.closed:
		return e.closeErr
	case <-ctx.Done():
		return ctx.Err()
	}
}

func (e *Engine) close() {
	keep := func(err error) {
		if err = door(err); err != nil && e.closeErr == nil {
			e.closeErr = err
		}
	}
	defer close(e.closed)
	e.gate.close()
	yield.Point("close.gate")
	e.end() // stalled writers, the flusher and the watcher of the disk
	if e.log != nil {
		keep(e.log.Close()) // groups in flight get their answer
	}
	e.workers.Wait()
	e.gate.wait()
	yield.Point("close.empty")
	e.dropSnapshots(ErrClosed)
	keep(e.release())
}

// release closes the rooms, from the top down. Open uses it, too, when it fails
// half-way.
func (e *Engine) release() error {
	var first error
	keep := func(err error) {
		if err != nil && first == nil {
			first = err
		}
	}
	e.governor.gc.end()
	if e.cache != nil {
		keep(e.cache.Close())
	}
	if v := e.view.Load(); v != nil {
		v.base.Release()
	}
	if e.store != nil {
		keep(e.store.Close())
	}
	if e.packs != nil {
		keep(e.packs.Close())
	}
	if e.lock != nil {
		keep(e.lock.release())
	}
	return first
}

// fail makes the engine read-only for cause. Reads go on; only a reopen, which
// runs recovery, makes it writable again (I9).
func (e *Engine) fail(cause error) {
	if e.cause.CompareAndSwap(nil, &cause) {
		e.logger.Error("store is read-only until it is reopened", "cause", cause)
		e.stall.wake()
	}
}

// Err is nil, or why the engine is read-only.
func (e *Engine) Err() error {
	if e.gate.closed.Load() {
		return ErrClosed
	}
	if e.log == nil {
		return ErrReadOnly
	}
	if c := e.cause.Load(); c != nil {
		return readOnly(*c)
	}
	if err := e.log.Err(); err != nil {
		return readOnly(err)
	}
	if err := e.store.Err(); err != nil {
		return readOnly(err)
	}
	return nil
}

// background runs f as a worker that Close waits for (I11).
func (e *Engine) background(f func()) {
	e.workers.Add(1)
	go func() {
		defer e.workers.Done()
		f()
	}()
}

// checkDisk looks whether the reserve is kept when need more bytes are written. File
// systems that cannot say count as roomy.
func (e *Engine) checkDisk(need int64) error {
	if e.opts.DiskReserve <= 0 {
		return nil
	}
	u, err := e.opts.FS.GetDiskUsage(e.dir)
	if err != nil {
		return nil
	}
	reserve := uint64(e.opts.DiskReserve)
	low := u.AvailBytes < reserve
	if e.lowDisk.Swap(low) != low {
		e.logger.Warn("disk reserve", "reached", low, "available", u.AvailBytes)
	}
	if u.AvailBytes < reserve+uint64(need) {
		return fmt.Errorf("%w: %d MiB are free, %d MiB are kept in reserve", ErrDiskFull, u.AvailBytes>>20, reserve>>20)
	}
	return nil
}

// watchDisk keeps lowDisk true to the free space.
func (e *Engine) watchDisk() {
	const every = time.Second
	t := time.NewTicker(every)
	defer t.Stop()
	for {
		select {
		case <-t.C:
			e.checkDisk(0)
		case <-e.life.Done():
			return
		}
	}
}
