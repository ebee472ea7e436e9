package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"slices"
	"time"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
)

// wreck is a store that may be damaged anywhere, while it is read for a salvage. It
// is for one goroutine.
type wreck struct {
	ctx      context.Context
	dir      string
	opts     Options
	shares   shares
	progress func(SalvageProgress)
	lock     *dirLock

	state   wal.State
	stated  bool  // STATE could be read
	foreign error // why this may be no store of ours
	uuid    [16]byte
	known   bool // uuid is
	packs   *mmap.Store

	remains *storage.Remains
	tables  []*wreckTable // to be merged
	exact   bool          // a manifest that fits names them
	mark    uint64        // L3 has every commit at or below it, as far as it can be read
	from    uint64        // the log is whole from here to its end
	seqs    seqBounds
	holes   []*hole
	entries int64
	batches uint64
	logLost int // losses of the log, as wal tells them
	last    uint64

	runs []logRun

	report SalvageReport
	phase  SalvageProgress
	told   time.Time
}

// wreckTable is one table of L3 and what examining it told.
type wreckTable struct {
	storage.Remnant
	entries, sets int64
	oldest        uint64 // revision among its sets
	newest        uint64
	seqLow        uint64 // sequence numbers in the file
	seqHigh       uint64
	first         []byte // no key of it is below
	ranges        int
	merged        bool
	damaged       bool
	lost          map[lostAt]bool // when it was examined
	foreign       bool            // it is another store's
	replaced      bool            // a later table holds what it held
	before, after uint64          // newest revision made before it, oldest flushed after it
	mark          storage.Watermark
	marked        bool
}

// lostAt tells one loss of a table from the others.
type lostAt struct {
	offset, bytes int64
	ranges        bool
}

func newWreck(ctx context.Context, dir string, o *Options, progress func(SalvageProgress)) (*wreck, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if progress == nil {
		progress = func(SalvageProgress) {}
	}
	return &wreck{ctx: ctx, dir: dir, opts: opts, shares: opts.shares(), progress: progress}, nil
}

// close lets the damaged store go. It was only read: an error here says nothing of
// what was rescued, which lasts already.
func (w *wreck) close() {
	if w.packs != nil {
		_ = w.packs.Close()
	}
	if w.lock != nil {
		_ = w.lock.release()
	}
}

// examine reads everything once, and decides what can be trusted.
func (w *wreck) examine() error {
	fs := w.opts.FS
	names, err := fs.List(w.dir)
	if err != nil {
		return fmt.Errorf("no store in %s: %w", w.dir, err)
	}
	if !slices.ContainsFunc(names, func(n string) bool {
		return n == stateName || n == logName || n == l3Name || n == packsName
	}) {
		return fmt.Errorf("no store in %s: %w", w.dir, os.ErrNotExist)
	}
	// Where there is no LOCK nobody has the store open, and making one would change it.
	if _, err := fs.Stat(fs.PathJoin(w.dir, lockName)); err == nil {
		if w.lock, err = lockDir(fs, w.dir, true); err != nil {
			return err
		}
	}
	if err := w.examineState(); err != nil {
		return err
	}
	if err := w.examineTables(); err != nil {
		return err
	}
	if err := w.identify(); err != nil {
		return err
	}
	if err := w.examineLog(); err != nil {
		return err
	}
	w.packs, err = mmap.Open(mmap.Options{
		FS: fs, Dir: fs.PathJoin(w.dir, packsName), UUID: w.uuid, ReadOnly: true,
		NoMap: w.opts.NoMap, MaxMappedBytes: w.shares.mapped, Logger: w.opts.Logger,
	})
	return err
}

func (w *wreck) examineState() error {
	name := w.opts.FS.PathJoin(w.dir, stateName)
	st, err := wal.ReadState(w.opts.FS, w.dir)
	switch {
	case err == nil:
		w.state, w.stated, w.uuid, w.known = st, true, st.UUID, true
	case errors.Is(err, wal.ErrVersion):
		return err
	case errors.Is(err, os.ErrNotExist):
		w.lose(SalvageLoss{File: name, Offset: -1, What: "missing; nothing says what had been promised"})
	case errors.Is(err, wal.ErrForeign):
		w.foreign = err
		w.lose(SalvageLoss{File: name, Offset: 0, What: "not a state of a store", Err: err})
	case errors.Is(err, wal.ErrCorrupt):
		w.lose(SalvageLoss{File: name, Offset: 0, What: "neither of its two slots verifies; nothing says what had been promised", Err: err})
	default:
		return err
	}
	return nil
}

// identify finds out whose the store is where STATE does not say.
func (w *wreck) identify() error {
	if w.known {
		return nil
	}
	for _, t := range w.tables {
		if t.marked {
			w.uuid, w.known = t.mark.UUID, true
		}
	}
	st, err := wal.SalvageState(w.opts.FS, w.dir)
	if err != nil && !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if err == nil && !w.known {
		w.uuid, w.known = st.UUID, true
	}
	w.state.UUID = w.uuid
	return nil
}

// examineTables reads every table by itself.
func (w *wreck) examineTables() error {
	fs := w.opts.FS
	dir := fs.PathJoin(w.dir, l3Name)
	r, err := storage.OpenRemains(storage.Options{FS: fs, Dir: dir})
	if errors.Is(err, storage.ErrNoRemains) {
		if !w.stated || w.state.Flushed > 0 {
			w.lose(SalvageLoss{File: dir, Offset: -1, What: "missing, with all that had been flushed", Ranged: true})
		} else {
			w.exact = true // there was never a table
		}
		return nil
	}
	if err != nil {
		return err
	}
	w.remains = r
	w.begin("examining", 0)
	w.phase.Total = w.tableBytes()
	found := make(map[uint64][]storage.LostBlock)
	for i := range r.Tables {
		t, lost, err := w.examineTable(&r.Tables[i])
		if err != nil {
			return err
		}
		w.tables = append(w.tables, t)
		found[t.Number] = lost
	}
	w.settleManifest()
	kept := w.tables[:0]
	for _, t := range w.tables {
		switch {
		case w.exact && !t.Named: // replaced, or never finished
			continue
		case !w.exact && t.Size < 0: // replaced, as far as anybody knows
			continue
		case t.foreign:
			w.foreign = fmt.Errorf("%w: %s belongs to another store", ErrForeign, t.File)
			w.lose(SalvageLoss{File: t.File, Offset: -1, What: "a table of another store"})
			continue
		}
		kept = append(kept, t)
		w.entries += t.entries + int64(t.ranges)
		if t.marked {
			w.mark = max(w.mark, t.mark.LSN)
		}
		w.mark = max(w.mark, t.newest)
	}
	w.tables = kept
	w.last = max(w.last, w.mark, w.state.Synced)
	for _, t := range w.tables {
		for _, l := range found[t.Number] {
			w.loseBlock(t, l)
		}
	}
	return nil
}

// firstKeyBytes is how much of a table's first key is remembered: its beginning is
// below it, too.
const firstKeyBytes = 256

func (w *wreck) examineTable(r *storage.Remnant) (*wreckTable, []storage.LostBlock, error) {
	t := &wreckTable{Remnant: *r}
	it, err := w.remains.Open(r)
	if err != nil {
		return nil, nil, err
	}
	defer it.Close()
	t.merged = it.Merged()
	for _, rt := range it.Ranges() {
		t.ranges++
		t.atLeast(rt.Lower)
		t.seen(rt.Seq)
	}
	var lost []storage.LostBlock
	for it.Next() {
		t.entries++
		t.atLeast(it.Key())
		t.seen(it.Seq())
		if !it.Deleted() {
			cell, err := cow.ParseCell(it.Cell())
			if err != nil { // verified, and not ours: nothing of it is used
				lost = append(lost, storage.LostBlock{File: t.File, Offset: -1, What: "an entry that is no cell", Err: err,
					Lower: bytes.Clone(it.Key()), Upper: bytes.Clone(it.Key())})
				continue
			}
			rev := cell.Revision()
			if t.sets == 0 || rev < t.oldest {
				t.oldest = rev
			}
			t.newest = max(t.newest, rev)
			t.sets++
			w.seqs.add(it.Seq(), rev)
		}
		if err := w.moved(int64(len(it.Key()) + len(it.Cell()))); err != nil {
			return nil, nil, err
		}
	}
	for _, l := range it.Lost() {
		if t.lost == nil {
			t.lost = make(map[lostAt]bool)
		}
		t.lost[lostAt{l.Offset, l.Bytes, l.Ranges}] = true
		lost = append(lost, l)
	}
	t.mark, t.marked = it.Watermark()
	t.damaged = len(lost) > 0
	return t, lost, it.Err()
}

func (t *wreckTable) atLeast(key []byte) {
	if t.first == nil || bytes.Compare(key, t.first) < 0 {
		t.first = append(make([]byte, 0, 16), key[:min(len(key), firstKeyBytes)]...)
	}
}

func (t *wreckTable) seen(seq uint64) {
	if t.entries+int64(t.ranges) == 1 {
		t.seqLow = seq
	}
	t.seqLow, t.seqHigh = min(t.seqLow, seq), max(t.seqHigh, seq)
}

// begin starts a phase of the progress; its first step is told at once.
func (w *wreck) begin(phase string, total int64) {
	w.phase, w.told = SalvageProgress{Phase: phase, Total: total}, time.Time{}
}

// tableBytes is about what reading all tables moves.
func (w *wreck) tableBytes() (n int64) {
	if w.remains == nil {
		return 0
	}
	for i := range w.remains.Tables {
		n += max(0, w.remains.Tables[i].Size)
	}
	return n
}

// moved counts progress, and looks now and then whether to stop.
func (w *wreck) moved(n int64) error {
	w.phase.Done += n
	w.phase.Keys = w.report.Keys
	if time.Since(w.told) < 100*time.Millisecond {
		return nil
	}
	w.told = time.Now()
	w.phase.Total = max(w.phase.Total, w.phase.Done)
	w.progress(w.phase)
	return w.ctx.Err()
}
