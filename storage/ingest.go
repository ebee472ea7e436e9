package storage

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/objstorage/objstorageprovider"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
	"golang.org/x/sync/errgroup"
)

// Ingest builds the sorted tables of one flush. It is for one goroutine.
//
// Rules, checked here: keys ascend strictly over Set and Delete, so a key has
// one operation (two in one table make a later compaction of Pebble panic);
// range tombstones do not overlap; both are given in order of key and lower
// bound. In one table a point survives its range delete, so a point given
// inside a range delete is the newer one, and points that a newer range delete
// hides must be left out by the caller.
//
// After an error the ingest is good for Abort only.
type Ingest struct {
	s    *Store
	cuts cutPoints

	table   *tableWriter   // open table, or nil
	closing errgroup.Group // tables being finished and synced beside the next
	paths   []string       // every staged file
	next    int            // first cut point not passed yet

	last    []byte // last point
	hasLast bool
	floor   []byte // lower bound of the last range tombstone
	ceil    []byte // and its upper bound; nil is the end of the user keys
	hasDel  bool
	open    bool   // the part [from, ceil) is not written yet
	from    []byte // user key

	blobs   map[blobAt][]byte // the index of blobs: entries to set, nil for those to drop
	indexed bool
	sample  sampler
	stats   IngestStats
	err     error
	done    bool
	buf     []byte
	buf2    []byte
}

// IngestStats says what one ingest brought.
type IngestStats struct {
	Tables       int
	Bytes        uint64 // size of the tables
	L0Bytes      uint64 // of those that lie over older data, roughly
	Sets         uint64
	Deletes      uint64
	RangeDeletes uint64
}

// NewIngest begins a flush. Nothing is visible before Commit.
func (s *Store) NewIngest() (*Ingest, error) {
	if err := s.enter(); err != nil {
		return nil, err
	}
	defer s.leave()
	if err := s.fs.refusal(); err != nil {
		return nil, err
	}
	s.mu.Lock()
	cuts := s.cuts
	s.mu.Unlock()
	in := &Ingest{s: s, cuts: cuts}
	in.closing.SetLimit(maxClosing)
	return in, nil
}

// Set gives a key its cell.
func (in *Ingest) Set(key, cell []byte) error {
	in.stats.Sets++
	return in.point(key, cell, false)
}

// Delete gives a key a tombstone.
func (in *Ingest) Delete(key []byte) error {
	in.stats.Deletes++
	return in.point(key, nil, true)
}

// DeleteRange gives [lower, upper) a tombstone; nil upper is the end. An empty
// or inverted range is left out.
func (in *Ingest) DeleteRange(lower, upper []byte) error {
	return in.step(func() error {
		if upper != nil && bytes.Compare(lower, upper) >= 0 {
			return nil
		}
		if in.hasLast && bytes.Compare(lower, in.last) < 0 {
			return fmt.Errorf("%w: range delete at %q after %q", ErrOrder, lower, in.last)
		}
		if in.hasDel && (in.ceil == nil || bytes.Compare(lower, in.ceil) < 0) {
			return fmt.Errorf("%w: range delete at %q overlaps the one before", ErrOrder, lower)
		}
		if err := in.cut(lower); err != nil {
			return err
		}
		if err := in.closeDel(nil); err != nil {
			return err
		}
		in.floor = append(in.floor[:0], lower...)
		in.from = append(in.from[:0], lower...)
		in.ceil = bytes.Clone(upper)
		in.hasDel, in.open = true, true
		in.stats.RangeDeletes++
		return nil
	})
}

// step runs one operation; the first error sticks.
func (in *Ingest) step(op func() error) (err error) {
	if in.done {
		return fmt.Errorf("%w: ingest ended", ErrClosed)
	}
	if in.err != nil {
		return in.err
	}
	// Building is writing into our own files, not use of Pebble's store: Close
	// does not wait for it, it makes it fail.
	if in.s.isClosed() {
		return ErrClosed
	}
	func() {
		defer caught(&err)
		err = op()
	}()
	in.err = mapped(err)
	return in.err
}

func (in *Ingest) point(key, cell []byte, del bool) error {
	return in.step(func() error {
		if in.hasLast && bytes.Compare(key, in.last) <= 0 {
			return fmt.Errorf("%w: key %q after %q", ErrOrder, key, in.last)
		}
		if in.hasDel && bytes.Compare(key, in.floor) < 0 {
			return fmt.Errorf("%w: key %q after range delete at %q", ErrOrder, key, in.floor)
		}
		if err := in.cut(key); err != nil {
			return err
		}
		t, err := in.tableFor()
		if err != nil {
			return err
		}
		in.buf = appendUser(in.buf[:0], key)
		if del {
			err = t.w.Delete(in.buf)
		} else {
			err = t.w.Set(in.buf, cell)
		}
		if err != nil {
			return err
		}
		in.last = append(in.last[:0], key...)
		in.hasLast = true
		n := len(key) + len(cell) + 8
		t.bytes += n
		in.sample.add(key, n)
		return nil
	})
}

// cut closes the open table if a border lies between what it holds and at, the
// key about to come. A border is a cut point passed, or at itself when the
// table is full.
func (in *Ingest) cut(at []byte) error {
	for in.next < len(in.cuts.keys) && bytes.Compare(in.cuts.keys[in.next], at) <= 0 {
		border := in.cuts.keys[in.next]
		in.next++
		if in.table != nil && in.table.bytes >= tableMinBytes {
			if err := in.closeTable(border); err != nil {
				return err
			}
		}
	}
	limit := tableMaxBytes
	if len(in.cuts.keys) == 0 {
		limit = tableFirstBytes
	}
	// A range delete may begin at the last point's own key, which is in the
	// open table: no border there.
	if in.table != nil && in.table.bytes >= limit && (!in.hasLast || bytes.Compare(in.last, at) < 0) {
		return in.closeTable(at)
	}
	return nil
}

// closeTable ends the open table at border, exclusive. A tombstone that
// reaches over it is cut: a tombstone counts in the bounds of its table, and
// overlapping tables are refused.
func (in *Ingest) closeTable(border []byte) error {
	if err := in.closeDel(border); err != nil {
		return err
	}
	in.finish()
	return nil
}

// maxClosing bounds the tables that are finished side by side (I10): syncs of
// several files share the file system's journal commits, and the next table is
// built meanwhile.
const maxClosing = 4

// finish lets the open table be finished and synced beside what comes next. Its
// error comes up in commit.
func (in *Ingest) finish() {
	t := in.table
	in.table = nil
	in.closing.Go(func() (err error) {
		defer caught(&err)
		return t.close()
	})
}

// closeDel writes the open tombstone up to border, or to its end where border
// is nil or lies beyond, and leaves the rest open.
func (in *Ingest) closeDel(border []byte) error {
	if !in.open {
		return nil
	}
	upper, rest := in.ceil, false
	if border != nil && (in.ceil == nil || bytes.Compare(border, in.ceil) < 0) {
		upper, rest = border, true
	}
	if upper == nil || bytes.Compare(in.from, upper) < 0 {
		t, err := in.tableFor()
		if err != nil {
			return err
		}
		lo := appendUser(in.buf[:0], in.from)
		hi := append(in.buf2[:0], userEnd...)
		if upper != nil {
			hi = appendUser(in.buf2[:0], upper)
		}
		in.buf, in.buf2 = lo, hi
		if err := t.w.DeleteRange(lo, hi); err != nil {
			return err
		}
		t.bytes += len(lo) + len(hi) + 8
	}
	in.open = rest
	if rest {
		in.from = append(in.from[:0], border...)
	}
	return nil
}

// tableFor returns the open table, or opens one.
func (in *Ingest) tableFor() (*tableWriter, error) {
	if in.table != nil {
		return in.table, nil
	}
	t, err := in.s.newTable(&in.paths)
	if err != nil {
		return nil, err
	}
	in.table = t
	return t, nil
}

// Commit makes the ingest and w durable and visible, in one edit of Pebble's
// manifest (I4), and makes the snapshot that shows them Current (I5). On any
// error the old Current stays; what was staged is removed. See S3 for what an
// error leaves on disk.
func (in *Ingest) Commit(w Watermark) (IngestStats, error) {
	stats, err := in.commit(w)
	if err != nil {
		_ = in.Abort()
		return IngestStats{}, fmt.Errorf("storage: ingest: %w", err)
	}
	in.done = true
	return stats, nil
}

func (in *Ingest) commit(w Watermark) (IngestStats, error) {
	var cuts cutPoints
	var newCuts bool
	s := in.s
	if err := s.enter(); err != nil {
		return in.stats, err
	}
	defer s.leave()
	s.ingesting.Lock()
	defer s.ingesting.Unlock()
	if err := in.step(func() error {
		if old := s.mark.Load(); old.ok && w.LSN < old.w.LSN {
			return fmt.Errorf("%w: watermark %d is below %d", ErrOrder, w.LSN, old.w.LSN)
		}
		if err := in.closeDel(nil); err != nil {
			return err
		}
		if in.table != nil {
			in.finish()
		}
		cuts, newCuts = in.sample.choose(in.cuts, s.bytesLive())
		if err := in.writeOwn(w, cuts, newCuts); err != nil {
			return err
		}
		return in.closing.Wait() // every table is synced before Pebble hears of it
	}); err != nil {
		return in.stats, err
	}
	if err := in.intoPebble(); err != nil {
		return in.stats, err
	}
	// Here the ingest is durable if the gate is open, and only then (S3).
	sn, err := s.takeSnapshot()
	if err != nil {
		return in.stats, err
	}
	// The watermark is read back through the very snapshot the readers get.
	if got, ok, err := sn.watermark(); err != nil || !ok || got != w {
		sn.Release()
		if errors.Is(err, ErrClosed) {
			return in.stats, err // Close began meanwhile: L3 is well, just not answered for
		}
		if err == nil {
			err = &CorruptError{What: fmt.Sprintf("watermark read back: %+v, %t; want %+v", got, ok, w)}
		}
		s.fs.close(err) // what is in L3 is not known: no ingest may follow
		return in.stats, err
	}
	s.mark.Store(&markState{w, true})
	if in.indexed {
		s.indexed.Store(true)
	}
	if newCuts {
		s.mu.Lock()
		s.cuts = cuts
		s.mu.Unlock()
	}
	s.seen.forget()
	s.current.Swap(sn).Release()
	return in.stats, nil
}

// writeOwn writes storage's own keys into a table of their own: in the last
// table of cells the watermark would stretch that table over the key space.
func (in *Ingest) writeOwn(w Watermark, cuts cutPoints, newCuts bool) error {
	t, err := in.s.newTable(&in.paths)
	if err != nil {
		return err
	}
	in.table = t // so that Abort closes it
	if err := in.writeIndexed(t); err != nil {
		return err
	}
	if newCuts {
		if err := t.w.Set(cutsKey, cuts.encode()); err != nil {
			return err
		}
	}
	if err := t.w.Set(watermarkKey, w.encode()); err != nil {
		return err
	}
	if err := in.writeBlobs(t); err != nil {
		return err
	}
	in.finish()
	return nil
}

// intoPebble is the one Ingest call. Nil means durable.
func (in *Ingest) intoPebble() (err error) {
	s := in.s
	if err := s.fs.refusal(); err != nil {
		return err
	}
	var st pebble.IngestOperationStats
	func() {
		defer caught(&err)
		st, err = s.db.IngestWithStats(context.Background(), in.paths)
	}()
	if fault := s.fs.fault(); fault != nil {
		return errors.Join(fault, err)
	}
	if err != nil {
		return mapped(err)
	}
	if st.MemtableOverlappingFiles != 0 {
		// F1: such an ingest may be in memory only. It cannot happen while S1
		// holds; if it does, nothing may build on it.
		err := fmt.Errorf("storage: %d tables overlap a memtable that must be empty", st.MemtableOverlappingFiles)
		s.fs.close(err)
		return err
	}
	in.stats.Tables = len(in.paths)
	in.stats.Bytes = st.Bytes
	in.stats.L0Bytes = st.ApproxIngestedIntoL0Bytes
	return nil
}

// Abort ends the ingest and removes what it staged. After Commit it does
// nothing.
func (in *Ingest) Abort() error {
	if in.done {
		return nil
	}
	in.done = true
	if in.table != nil {
		in.table.abandon()
		in.table = nil
	}
	_ = in.closing.Wait() // the ingest failed for another reason, or this one
	var first error
	for _, p := range in.paths {
		// Pebble removes what it has linked; behind a closed gate all stays,
		// and the next open empties the folder.
		if err := in.s.fs.Remove(p); err != nil && !errors.Is(err, os.ErrNotExist) && first == nil {
			first = err
		}
	}
	return mapped(first)
}

// tableWriter is one table being built.
type tableWriter struct {
	w     *sstable.Writer
	bytes int // roughly, of what it holds
}

func (s *Store) newTable(paths *[]string) (*tableWriter, error) {
	path := s.staged()
	f, err := s.fs.Create(path, vfs.WriteCategoryUnspecified)
	if err != nil {
		return nil, err
	}
	*paths = append(*paths, path)
	o := s.po.MakeWriterOptions(0, s.format)
	return &tableWriter{w: sstable.NewWriter(objstorageprovider.NewFileWritable(f), o)}, nil
}

// close finishes the table and syncs it (Finish of Pebble's writable does).
func (t *tableWriter) close() error { return t.w.Close() }

// abandon gives up the table; Pebble's writer has no other end than Close.
func (t *tableWriter) abandon() {
	var err error
	defer caught(&err)
	_ = t.w.Close()
}
