package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// workload is what a store is put through.
type workload struct {
	name string
	sync engine.SyncPolicy
	// before makes the disk that it starts from; nil: an empty one.
	before func(w *world) error
	torn   bool // and the power is cut at its end
	run    func(w *world) error
}

// workloads are the reference workloads: some hundred calls of the file system each.
func workloads() []workload {
	return []workload{
		{name: "writes", run: writes},
		{name: "ranges", run: ranges},
		{name: "reopen", before: some, torn: true, sync: engine.SyncInterval, run: reopen},
		{name: "copies", before: some, run: copies},
		{name: "segments, interval", sync: engine.SyncInterval, run: segments},
		{name: "segments, never", sync: engine.SyncNever, run: segments},
	}
}

func (wl *workload) options() engine.Options {
	return engine.Options{
		MemoryBudget: 16 << 20, DiskReserve: -1, LargeValue: 4 << 10, SegmentBytes: 16 << 10,
		StallLimit: time.Second, Compression: engine.CompressNone,
		Sync: wl.sync, SyncEvery: 2 * time.Millisecond,
	}
}

// steps runs one after the other until one breaks a promise.
func steps(all ...func() error) error {
	for _, s := range all {
		if err := s(); err != nil {
			return err
		}
	}
	return nil
}

// puts commits some small values under names from first on.
func (w *world) puts(first, n, size int) func() error {
	return func() error {
		for i := first; i < first+n; i++ {
			if err := w.commit(put(fmt.Sprintf("k%02d", i), strings.Repeat(fmt.Sprintf("%d.", i), size/3+1))); err != nil {
				return err
			}
		}
		return nil
	}
}

func (w *world) do(changes ...change) func() error {
	return func() error { return w.commit(changes...) }
}

// writes: small and large values, flushed and not.
func writes(w *world) error {
	return steps(w.open,
		w.puts(0, 5, 50), w.do(large("big1", 1), put("beside", "it")), w.do(large("big2", 2)), w.flush,
		w.puts(3, 4, 70), w.do(large("big1", 3)), w.do(del("k00"), del("big2")), w.read,
		w.flush, w.puts(8, 2, 10), w.sync, w.close)
}

// ranges: range deletes over flushed cells, and a compaction.
func ranges(w *world) error {
	return steps(w.open,
		w.puts(0, 8, 90), w.do(large("k045", 1)), w.flush,
		w.do(delRange("k02", "k05")), w.puts(3, 1, 20), w.flush, w.read,
		w.do(delRange("k06", "k99"), put("k07", "again")), w.compact, w.read,
		w.puts(1, 2, 30), w.close)
}

// some is a store with a bit of everything, half of it flushed. Its last commit, which
// nothing promises yet, names a pack.
func some(w *world) error {
	return steps(w.open,
		w.puts(0, 6, 80), w.do(large("big1", 1)), w.flush, w.puts(4, 6, 300), w.do(large("big2", 2)),
		w.do(delRange("k01", "k03")), w.puts(20, 3, 200), w.do(large("big4", 1)))
}

// reopen: recovery of a torn log, and a life after it.
func reopen(w *world) error {
	return steps(w.open, w.read,
		w.puts(10, 4, 60), w.do(large("big3", 1)), w.sync, w.close,
		w.open, w.puts(12, 2, 60), w.flush, w.close)
}

// copies: snapshots that stay as they were, and a checkpoint that opens.
func copies(w *world) error {
	if err := steps(w.open, w.puts(0, 3, 100), w.do(large("big1", 4))); err != nil {
		return err
	}
	var s *engine.Snapshot
	var was *oracle.Frozen
	_, broken := w.call("snapshot", func() (err error) { s, err = w.e.Snapshot(); return err })
	if broken != nil || s == nil {
		return errors.Join(broken, w.close())
	}
	if err := w.again("snapshot's first reading", readOps, func() (err error) {
		was, err = oracle.Freeze(fuzz.Store{R: s}, s.LSN())
		return err
	}); err != nil {
		return err
	}
	look := func() error {
		return w.again("snapshot's later reading", readOps, func() error {
			err := was.Check()
			if v := (*oracle.Verdict)(nil); errors.As(err, &v) && w.sticky && w.kind.Rule.Ops&readOps != 0 {
				return nil // the first reading may have failed
			}
			return err
		})
	}
	if err := steps(w.puts(1, 3, 20), look, w.flush, w.puts(0, 2, 30), look, w.checkpoint, look); err != nil {
		return err
	}
	_, broken = w.call("close of the snapshot", s.Close)
	return errors.Join(broken, w.close())
}

// checkpoint makes a copy, and opens what it says is one.
func (w *world) checkpoint() error {
	const dst = "/copy"
	ctx, cancel := w.context()
	defer cancel()
	want := w.model.Copy()
	err, broken := w.call("checkpoint", func() error { return w.e.Checkpoint(ctx, dst) })
	if broken != nil || err != nil {
		return broken
	}
	o := w.opt
	o.ReadOnly = true
	// What was promised of the copy must survive a power cut.
	o.FS = w.disk.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	c, err := engine.Open(dst, &o)
	if err != nil {
		return oracle.Broken(oracle.Lost, "", 0, "open the checkpoint: %w", err)
	}
	return errors.Join(readAll(fuzz.Store{R: c}, want, w.lane), c.Check(context.Background()), c.Close())
}

// segments: the log goes through many segments and uses old ones again.
func segments(w *world) error {
	return steps(w.open,
		w.puts(0, 8, 1500), w.flush, w.puts(4, 8, 1500), w.sync, w.do(large("big1", 1)), w.puts(2, 4, 1500),
		w.flush, w.read, w.puts(5, 6, 1500), w.sync, w.puts(1, 3, 900), w.close)
}
