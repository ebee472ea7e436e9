package engine

import (
	"errors"
	"fmt"
	"os"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
	"github.com/holdfastdb/holdfast/yield"
)

// emitBlob hands a large value to the sink; one that cannot be read is a loss of this
// key, and an older value of it is no substitute.
func (w *wreck) emitBlob(out sink, key []byte, cell cow.Cell) error {
	ref, err := mmap.DecodeRef(cell.Payload())
	if err == nil {
		err = out.blob(key, cell)
	}
	if err == nil {
		w.report.Keys++
		w.report.Large++
		w.report.Bytes += int64(ref.Size)
		return w.moved(int64(ref.Size))
	}
	damage := !errors.Is(err, errWriting) && (errors.Is(err, mmap.ErrCorrupt) || errors.Is(err, mmap.ErrMissing) || errors.Is(err, mmap.ErrForeign) ||
		errors.Is(err, mmap.ErrVersion) || isRotten(err))
	if !damage {
		return fmt.Errorf("key %.40q: %w", key, err)
	}
	l := SalvageLoss{Offset: int64(ref.Offset), Bytes: int64(ref.Stored), What: err.Error(), Err: err,
		Key: append([]byte{}, key...), FirstLSN: cell.Revision(), LastLSN: cell.Revision()}
	if ref.Pack != 0 {
		l.File = w.opts.FS.PathJoin(w.dir, packsName, fmt.Sprintf("%020d.pack", ref.Pack))
	} else {
		l.Offset = -1
	}
	var c *mmap.CorruptError
	switch {
	case errors.As(err, &c):
		l.What = c.What
		if c.File != "" {
			l.Offset = c.Offset
		}
	case errors.Is(err, mmap.ErrMissing):
		l.What, l.Offset = "the pack is missing", -1
	}
	w.lose(l)
	return nil
}

// tally is a sink that goes nowhere.
type tally struct {
	w   *wreck
	mem vfs.FS
}

func (t *tally) scratch() (vfs.FS, string)     { return t.mem, "" }
func (t *tally) set(_, _ []byte) error         { return nil }
func (t *tally) blob(_ []byte, c []byte) error { return t.w.packs.Verify(cow.Cell(c).Payload()) }
func (t *tally) commit() error                 { return nil }
func (t *tally) end(error) error               { return nil }

// rescue is the new store while it is made. It has no STATE before everything else is
// durable, so that a salvage that broke off is not taken for a store.
type rescue struct {
	w     *wreck
	fs    vfs.FS
	dir   string
	uuid  [16]byte
	made  bool     // the directory was not there
	ours  bool     // so is what it holds
	lock  *dirLock // nil once it is given back
	store *storage.Store
	packs *mmap.Store
	in    *storage.Ingest
	cell  []byte
	done  bool
}

const scratchName = "salvage-tmp"

func newRescue(w *wreck, dst string) (_ *rescue, err error) {
	r := &rescue{w: w, fs: w.opts.FS, dir: dst}
	yield.Random(r.uuid[:])
	defer func() {
		if err != nil {
			err = errors.Join(err, r.end(err))
		}
	}()
	if err := r.claim(); err != nil {
		return nil, err
	}
	if r.store, err = storage.Open(storage.Options{
		FS: r.fs, Dir: r.fs.PathJoin(dst, l3Name), IngestBytes: w.shares.generation, CacheBytes: w.shares.blocks, Create: true, Logger: w.opts.Logger,
	}); err != nil {
		return nil, err
	}
	if r.packs, err = mmap.Open(mmap.Options{
		FS: r.fs, Dir: r.fs.PathJoin(dst, packsName), UUID: r.uuid, OwnerEpoch: 1,
		NoMap: true, Compression: w.opts.Compression.mmap(), Logger: w.opts.Logger,
	}); err != nil {
		return nil, err
	}
	r.in, err = r.store.NewIngest()
	return r, err
}

// claim makes the directory and takes its lock. Examining may have taken hours: what
// somebody put there meanwhile is his.
func (r *rescue) claim() error {
	if err := emptyOrMissing(r.fs, r.dir); err != nil {
		return err
	}
	if _, err := r.fs.Stat(r.dir); errors.Is(err, os.ErrNotExist) {
		r.made = true
	}
	e := &Engine{opts: r.w.opts} // for its way of making directories
	if err := e.makeDir(r.dir); err != nil {
		return err
	}
	lock, err := lockDir(r.fs, r.dir, false)
	if err != nil {
		return err
	}
	names, err := r.fs.List(r.dir)
	if err == nil && len(names) > 1 {
		err = fmt.Errorf("salvage to %s, which holds more than it did: %w", r.dir, os.ErrExist)
	}
	if err != nil {
		// Just now there was no LOCK: it is ours.
		return errors.Join(err, r.fs.Remove(r.fs.PathJoin(r.dir, lockName)), lock.release())
	}
	r.lock, r.ours = lock, true
	return r.fs.MkdirAll(r.fs.PathJoin(r.dir, scratchName), 0o755)
}

func (r *rescue) scratch() (vfs.FS, string) { return r.fs, r.fs.PathJoin(r.dir, scratchName) }

func (r *rescue) set(key, cell []byte) error { return r.in.Set(key, cell) }

// blob copies a value from pack to pack. What arrives is compared with the hash that
// the old reference has, so that no step on the way is trusted.
func (r *rescue) blob(key []byte, c []byte) error {
	cell := cow.Cell(c)
	old, err := mmap.DecodeRef(cell.Payload())
	if err != nil {
		return err
	}
	b, err := r.w.packs.Open(cell.Payload())
	if err != nil {
		return err
	}
	defer b.Close()
	var payload []byte
	var writing error
	err = b.View(func(value []byte) error {
		payload, writing = r.packs.Write(value)
		return writing
	})
	if writing != nil {
		return fmt.Errorf("%w: %w", errWriting, door(writing))
	}
	if err != nil {
		return err
	}
	now, err := mmap.DecodeRef(payload)
	if err != nil {
		return err
	}
	if now.Hash != old.Hash || now.Size != old.Size {
		return &mmap.CorruptError{Offset: int64(old.Offset), What: "hash of the value"}
	}
	r.cell = cow.AppendCell(r.cell[:0], cow.Header{Kind: cow.Blob, Revision: cell.Revision(), Expiry: cell.Expiry()}, payload)
	if err := r.in.Set(key, r.cell); err != nil {
		return fmt.Errorf("%w: %w", errWriting, err)
	}
	return nil
}

// errWriting marks an error of the new store's disk: no damage of the old one.
var errWriting = errors.New("write what was rescued")

// commit is packs, L3, STATE, each durable before the next names it (I3, I4).
func (r *rescue) commit() error {
	fs := r.fs
	if err := r.packs.Sync(); err != nil {
		return err
	}
	last := max(r.w.last, 1)
	mark := storage.Watermark{LSN: last, Generation: 1, UUID: r.uuid, Entries: uint64(r.w.report.Keys)}
	if _, err := r.in.Commit(mark); err != nil {
		return err
	}
	high := r.packs.High()
	err := errors.Join(r.store.Close(), r.packs.Close())
	r.store, r.packs, r.in = nil, nil, nil
	if err != nil {
		return err
	}
	if err := fs.RemoveAll(fs.PathJoin(r.dir, scratchName)); err != nil {
		return err
	}
	if err := syncDir(fs, r.dir); err != nil {
		return err
	}
	if _, err := wal.CreateStateOver(fs, r.dir, r.uuid, last, mark.Generation, high); err != nil {
		return err
	}
	if err := errors.Join(syncDir(fs, r.dir), syncDir(fs, fs.PathDir(r.dir))); err != nil {
		return err
	}
	if err := r.unlock(); err != nil {
		return err
	}
	if err := r.prove(last); err != nil {
		return err
	}
	r.done = true
	return nil
}

// prove opens what was made.
func (r *rescue) prove(last uint64) error {
	e, err := Open(r.dir, &Options{ReadOnly: true, MemoryBudget: minBudget, FS: r.fs})
	if err != nil {
		return fmt.Errorf("open what was rescued: %w", err)
	}
	got := e.Recovered().LSN
	if err := e.Close(); err != nil {
		return err
	}
	if got != last {
		return corrupt(r.dir, "holds commits through %d, not %d", got, last)
	}
	return nil
}

func (r *rescue) end(failed error) error {
	var errs []error
	if r.in != nil && !r.done {
		errs = append(errs, r.in.Abort())
	}
	if r.store != nil {
		errs = append(errs, r.store.Close())
	}
	if r.packs != nil {
		errs = append(errs, r.packs.Close())
	}
	if failed == nil {
		return errors.Join(append(errs, r.unlock())...)
	}
	return errors.Join(append(errs, r.takeBack())...)
}

func (r *rescue) unlock() error {
	l := r.lock
	if r.lock = nil; l == nil {
		return nil
	}
	return l.release()
}

// takeBack removes what the rescue made, and only that. Order: STATE first, and
// durably, so that no half of a store is left that opens.
func (r *rescue) takeBack() error {
	if !r.ours {
		return r.leave()
	}
	gone := func(names ...string) error {
		var errs []error
		for _, n := range names {
			if err := r.fs.RemoveAll(r.fs.PathJoin(r.dir, n)); err != nil {
				errs = append(errs, err)
			}
		}
		return errors.Join(errs...)
	}
	if err := gone(stateName, stateName+".tmp"); err != nil {
		return errors.Join(err, r.unlock())
	}
	err := errors.Join(syncDir(r.fs, r.dir), gone(l3Name, l3Name+"-staging", packsName, logName, scratchName), r.unlock(), gone(lockName))
	if err != nil {
		return err
	}
	return r.leave()
}

// leave removes the directory if it was made, and nobody has put anything there.
func (r *rescue) leave() error {
	if names, err := r.fs.List(r.dir); r.made && err == nil && len(names) == 0 {
		return r.fs.Remove(r.dir)
	}
	return nil
}

// isRotten says that the disk cannot give bytes back any more.
func isRotten(err error) bool { return errors.Is(err, syscall.EIO) }
