package engine

import (
	"crypto/rand"
	"errors"
	"fmt"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
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
	damage := errors.Is(err, mmap.ErrCorrupt) || errors.Is(err, mmap.ErrMissing) || errors.Is(err, mmap.ErrForeign) ||
		errors.Is(err, mmap.ErrVersion) || isRotten(err)
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
	made  bool // the directory is ours to remove
	store *storage.Store
	packs *mmap.Store
	in    *storage.Ingest
	cell  []byte
	done  bool
}

const scratchName = "salvage-tmp"

func newRescue(w *wreck, dst string) (_ *rescue, err error) {
	r := &rescue{w: w, fs: w.opts.FS, dir: dst}
	if _, err := rand.Read(r.uuid[:]); err != nil {
		return nil, err
	}
	defer func() {
		if err != nil {
			err = errors.Join(err, r.end(err))
		}
	}()
	if _, err := r.fs.Stat(dst); err != nil {
		r.made = true
	}
	e := &Engine{opts: w.opts} // for its way of making directories
	if err := errors.Join(e.makeDir(dst), r.fs.MkdirAll(r.fs.PathJoin(dst, scratchName), 0o755)); err != nil {
		return nil, err
	}
	if r.store, err = storage.Open(storage.Options{
		FS: r.fs, Dir: r.fs.PathJoin(dst, l3Name), CacheBytes: w.shares.blocks, Create: true, Logger: w.opts.Logger,
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
		return fmt.Errorf("write: %w", door(writing))
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
	return r.in.Set(key, r.cell)
}

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
	err := errors.Join(r.store.Close(), r.packs.Close())
	r.store, r.packs, r.in = nil, nil, nil
	if err != nil {
		return err
	}
	if err := fs.RemoveAll(fs.PathJoin(r.dir, scratchName)); err != nil {
		return err
	}
	if err := errors.Join(touch(fs, fs.PathJoin(r.dir, lockName)), syncDir(fs, r.dir)); err != nil {
		return err
	}
	if _, err := wal.CreateState(fs, r.dir, r.uuid); err != nil {
		return err
	}
	if err := errors.Join(syncDir(fs, r.dir), syncDir(fs, fs.PathDir(r.dir))); err != nil {
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
		return errors.Join(errs...)
	}
	names, _ := r.fs.List(r.dir)
	for _, n := range names {
		errs = append(errs, r.fs.RemoveAll(r.fs.PathJoin(r.dir, n)))
	}
	if r.made {
		errs = append(errs, r.fs.RemoveAll(r.dir))
	}
	return errors.Join(errs...)
}

// isRotten says that the disk cannot give bytes back any more.
func isRotten(err error) bool { return errors.Is(err, syscall.EIO) }
