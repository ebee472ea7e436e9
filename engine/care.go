package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/cow"
)

// Compact flushes, lets L3 rewrite itself into as few tables as it can, and gives back
// what large values that died have left in the packs, beyond Options.SpaceAmp. What a
// snapshot can still read stays. Nobody has to call it.
func (e *Engine) Compact(ctx context.Context) error {
	if err := hasContext("Compact", ctx); err != nil {
		return err
	}
	if err := e.Flush(ctx); err != nil {
		return err
	}
	if !e.gate.enter(0) {
		return ErrClosed
	}
	defer e.gate.leave(0)
	e.allowance.waiters.Add(1)
	defer e.allowance.waiters.Add(-1)
	e.store.SetCompactions(mostCompactions)
	if err := e.store.Compact(ctx); err != nil {
		return door(err)
	}
	return e.collectAll(ctx)
}

// DurableLSN is the number at or below which every commit survives a power cut.
func (e *Engine) DurableLSN() uint64 {
	if e.log == nil {
		return e.clock.Published()
	}
	return e.log.Durable()
}

// WaitDurable returns when commit lsn survives a power cut. It asks for a sync
// rather than wait for somebody else's. A number above that of the last commit is
// refused at once with ErrArgument: it is no number of ours, and waiting for it would
// be waiting for some other write.
func (e *Engine) WaitDurable(ctx context.Context, lsn uint64) error {
	if err := hasContext("WaitDurable", ctx); err != nil {
		return err
	}
	if e.log == nil {
		if last := e.clock.Published(); lsn > last {
			return e.closedOr(fmt.Errorf("%w: WaitDurable: commit %d: the last commit is %d", ErrArgument, lsn, last))
		}
		return e.closedOr(nil)
	}
	if !e.gate.enter(lsn) {
		return ErrClosed
	}
	defer e.gate.leave(lsn)
	return door(e.log.WaitDurable(ctx, lsn))
}

// Sync returns when everything acknowledged so far survives a power cut.
func (e *Engine) Sync(ctx context.Context) error {
	if err := hasContext("Sync", ctx); err != nil {
		return err
	}
	return e.WaitDurable(ctx, e.clock.Published())
}

// Check reads everything the store has and verifies every checksum and invariant
// it can see: L3's tables and watermark, the filter of its keys, each cell, each large value and its hash,
// and that no revision is from the future. It returns the problems it found,
// joined; they are *CorruptErrors.
func (e *Engine) Check(ctx context.Context) error {
	if err := hasContext("Check", ctx); err != nil {
		return err
	}
	if !e.gate.enter(0) {
		return ErrClosed
	}
	problems := append(eachDoor(e.store.Check(ctx)), door(e.checkKnown(ctx)))
	e.gate.leave(0)

	s, err := e.Snapshot()
	if err != nil {
		return err
	}
	defer s.Close()
	for item, err := range s.Scan(Range{}) {
		switch {
		case err != nil:
			return errors.Join(append(problems, err)...)
		case ctx.Err() != nil:
			return errors.Join(append(problems, ctx.Err())...)
		case item.Revision() > s.LSN():
			problems = append(problems, corrupt("", "key %.40q has revision %d, above %d", item.Key(), item.Revision(), s.LSN()))
		}
		if item.cell.Kind() == cow.Blob {
			if err := s.because(e.packs.Verify(item.cell.Payload())); err != nil {
				problems = append(problems, fmt.Errorf("key %.40q: %w", item.Key(), door(err)))
			}
		}
		if len(problems) > maxProblems {
			return errors.Join(append(problems, fmt.Errorf("%w: more than %d problems", ErrCorrupt, maxProblems))...)
		}
	}
	return errors.Join(problems...)
}

const maxProblems = 100

// eachDoor maps problems that a room joined one by one, so that each keeps its
// own place.
func eachDoor(err error) []error {
	joined, ok := err.(interface{ Unwrap() []error })
	if !ok {
		return []error{door(err)}
	}
	out := make([]error, 0, len(joined.Unwrap()))
	for _, e := range joined.Unwrap() {
		out = append(out, door(e))
	}
	return out
}

// Checkpoint writes a complete copy of the store to dst, which must not exist nor lie
// in the store itself (ErrArgument), and returns when it is durable. It holds everything acknowledged before the call and
// opens like any store. Sealed packs are hard-linked where the file system can.
func (e *Engine) Checkpoint(ctx context.Context, dst string) (err error) {
	if err := hasContext("Checkpoint", ctx); err != nil {
		return err
	}
	if e.log == nil {
		return e.closedOr(ErrReadOnly)
	}
	if !e.gate.enter(0) {
		return ErrClosed
	}
	defer e.gate.leave(0)
	fs := e.opts.FS
	dst = filepath.Clean(dst)
	tmp := dst + ".holdfast-tmp" // of a checkpoint that a crash broke off, too
	if err := e.apart(dst, tmp); err != nil {
		return err
	}
	switch _, err := fs.Stat(dst); {
	case err == nil:
		return fmt.Errorf("checkpoint to %s: %w", dst, os.ErrExist)
	case !errors.Is(err, os.ErrNotExist):
		return door(fmt.Errorf("checkpoint to %s: %w", dst, err))
	}
	made := tmp
	defer func() {
		if err != nil {
			err = door(errors.Join(err, fs.RemoveAll(made)))
		}
	}()
	if err := fs.RemoveAll(tmp); err != nil {
		return err
	}
	if err := e.makeDir(tmp); err != nil {
		return err
	}
	if err := e.checkpointTo(ctx, tmp); err != nil {
		return err
	}
	if err := fs.Rename(tmp, dst); err != nil {
		return err
	}
	made = dst // a copy whose name may not last is none
	return syncDir(fs, fs.PathDir(dst))
}

// checkpointTo takes pins first, so that what L3's copy lacks is still in the log
// when its turn comes.
func (e *Engine) checkpointTo(ctx context.Context, tmp string) error {
	fs := e.opts.FS
	through := e.clock.Published()
	if err := e.log.WaitDurable(ctx, through); err != nil {
		return err
	}
	release := e.log.Pin()
	defer release()
	// L3's copy names what the packs hold now.
	e.collecting.Lock()
	defer e.collecting.Unlock()
	mark, err := e.store.Checkpoint(fs.PathJoin(tmp, l3Name))
	if err != nil {
		return err
	}
	if err := e.packs.Seal(); err != nil {
		return err
	}
	// What began since it was sealed holds nothing at or below through.
	if err := e.packs.LinkTo(fs, fs.PathJoin(tmp, packsName), nil); err != nil {
		return err
	}
	if err := e.log.CopyTo(fs, tmp, mark.LSN, mark.Generation, max(mark.LSN, through)); err != nil {
		return err
	}
	if err := syncDir(fs, tmp); err != nil {
		return err
	}
	return e.proveCheckpoint(tmp, max(mark.LSN, through))
}

// proveCheckpoint opens the copy and looks whether it is the moment it should be.
func (e *Engine) proveCheckpoint(tmp string, want uint64) error {
	// The lock of a read-only opener must be there to be taken.
	if err := touch(e.opts.FS, e.opts.FS.PathJoin(tmp, lockName)); err != nil {
		return err
	}
	c, err := Open(tmp, &Options{ReadOnly: true, MemoryBudget: minBudget, FS: e.opts.FS})
	if err != nil {
		return fmt.Errorf("open the copy: %w", err)
	}
	got := c.Recovered().LSN
	if err := c.Close(); err != nil {
		return err
	}
	if got != want {
		return corrupt(tmp, "the copy holds commits through %d, not %d", got, want)
	}
	return nil
}

func touch(fs vfs.FS, path string) error {
	f, err := fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return err
	}
	return errors.Join(f.Sync(), f.Close())
}

func syncDir(fs vfs.FS, dir string) error {
	d, err := fs.OpenDir(dir)
	if err != nil {
		return err
	}
	return errors.Join(d.Sync(), d.Close())
}
