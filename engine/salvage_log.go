package engine

import (
	"bytes"
	"errors"
	"fmt"
	"math"
	"slices"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
)

// logRun is a part of the log, sorted: the newest cell of each key, tombstones
// included, in a table, and the range tombstones in memory.
type logRun struct {
	cells  *storage.Run
	ranges []cow.Fragment
}

// readLog walks whatever verifies, in the order of commit numbers.
func (w *wreck) readLog(replay func(lsn uint64, payload []byte) error) (*wal.Recovery, error) {
	st := w.state
	st.UUID = w.uuid
	return wal.Recover(wal.Options{
		FS: w.opts.FS, Dir: w.dir, ReadOnly: true, Mode: wal.Salvage,
	}, st, 0, wal.ReplayFuncs{Replay: func(lsn uint64, payload []byte, _ uint32) error { return replay(lsn, payload) }})
}

// examineLog finds what is lost, and from where on nothing is.
func (w *wreck) examineLog() error {
	w.begin("log", 0)
	var last uint64
	r, err := w.readLog(func(lsn uint64, payload []byte) error {
		w.batches++
		last = lsn
		return w.moved(int64(len(payload)))
	})
	if err != nil {
		return err
	}
	w.last, w.logLost = max(w.last, last), len(r.Lost)
	for _, l := range bounded(r.Lost, last) {
		w.from = max(w.from, l.FirstLSN+1, l.LastLSN+1)
		if l.LastLSN != 0 && l.LastLSN <= w.mark {
			continue // L3 has it
		}
		if l.FirstLSN != 0 && l.FirstLSN <= w.mark {
			l.FirstLSN = w.mark + 1
		}
		off := l.Offset
		if l.File == "" {
			off = -1
		}
		w.lose(SalvageLoss{File: l.File, Offset: off, Bytes: l.Bytes, What: l.What, FirstLSN: l.FirstLSN, LastLSN: l.LastLSN})
	}
	return nil
}

// bounded tells each lost number once, at the damage that took it. Damage with no
// number of its own cost the gap that shows at the next frame, or nothing if there is
// none before a later batch.
func bounded(lost []wal.Loss, last uint64) (out []wal.Loss) {
	for i, l := range lost {
		gap := slices.IndexFunc(lost[:i], func(o wal.Loss) bool {
			return o.FirstLSN != 0 && o.LastLSN == 0 && o.FirstLSN == l.FirstLSN && l.LastLSN != 0
		})
		told := slices.ContainsFunc(out, func(o wal.Loss) bool {
			return l.LastLSN != 0 && o.FirstLSN != 0 && o.FirstLSN <= l.FirstLSN && o.LastLSN >= l.LastLSN
		})
		if gap >= 0 || told {
			continue
		}
		if l.FirstLSN != 0 && l.LastLSN == 0 {
			next := slices.IndexFunc(lost[i+1:], func(o wal.Loss) bool { return o.FirstLSN == l.FirstLSN && o.LastLSN != 0 })
			switch {
			case next >= 0:
				l.LastLSN = lost[i+1+next].LastLSN
			case last >= l.FirstLSN:
				l.FirstLSN, l.What = 0, l.What+"; it held no commit"
			}
		}
		out = append(out, l)
	}
	return out
}

// maxRangeShare is the part of the budget that the log's range tombstones may take.
const maxRangeShare = 8

// replayLog sorts what the log has on top of L3. Records at or below the watermark are
// facts that L3 has, too, unless it is damaged: they are taken in where nothing that
// could have followed them is lost.
func (w *wreck) replayLog(out sink) error {
	if w.batches == 0 {
		return nil
	}
	w.begin("log", 0)
	fs, dir := out.scratch()
	var clock cow.Clock
	g := cow.NewGeneration(&clock, cow.Shape{Shards: 16})
	var held int64 // bytes of range tombstones
	spill := func() error {
		run, err := sortRun(g, fs, fs.PathJoin(dir, fmt.Sprintf("run-%d.sst", len(w.runs))))
		if err != nil {
			return err
		}
		w.runs = append(w.runs, run)
		for _, f := range run.ranges {
			held += int64(len(f.Lower) + len(f.Upper) + 64)
		}
		if held > w.opts.MemoryBudget/maxRangeShare {
			return fmt.Errorf("%w: the log's range deletes need more than an eighth of MemoryBudget", ErrTooLarge)
		}
		g = cow.NewGeneration(&clock, cow.Shape{Shards: 16})
		return nil
	}
	r, err := w.readLog(func(lsn uint64, payload []byte) error {
		if lsn <= w.mark && lsn < w.from {
			return nil
		}
		if err := placeIn(g, lsn, payload); err != nil {
			w.lose(SalvageLoss{Offset: -1, What: "a record that verifies is no batch", FirstLSN: lsn, LastLSN: lsn, Err: err})
			return nil
		}
		clock.Publish(lsn)
		if g.Bytes() >= w.shares.generation || g.Fragments() >= maxFragments {
			if err := spill(); err != nil {
				return err
			}
		}
		return w.moved(int64(len(payload)))
	})
	if err == nil && (r.Batches != w.batches || len(r.Lost) != w.logLost) {
		err = corrupt(w.opts.FS.PathJoin(w.dir, logName), "reads otherwise than before: the disk got worse, run it again")
	}
	if err == nil && !g.Empty() {
		err = spill()
	}
	return err
}

// placeIn puts a batch into a generation, all or nothing.
func placeIn(g *cow.Generation, lsn uint64, payload []byte) error {
	for rest := opList(payload); len(rest) > 0; {
		_, next, err := rest.next()
		if err != nil {
			return err
		}
		rest = next
	}
	var ranges []cow.Range
	for rest := opList(payload); len(rest) > 0; {
		o, next, _ := rest.next()
		rest = next
		if o.kind == opRange {
			ranges = append(ranges, cow.Range{Lower: o.key, Upper: o.payload})
			continue
		}
		g.Put(hashKey(o.key), o.key, lsn, cow.Header{Kind: o.kind, Revision: lsn}, o.payload)
	}
	if ranges != nil {
		g.DeleteRange(lsn, ranges)
	}
	return nil
}

// sortRun writes a generation into a table.
func sortRun(g *cow.Generation, fs vfs.FS, path string) (logRun, error) {
	g.Sort()
	run := logRun{}
	for _, f := range g.Ranges() {
		run.ranges = append(run.ranges, cow.Fragment{
			Range: cow.Range{Lower: bytes.Clone(f.Lower), Upper: bytes.Clone(f.Upper)}, LSN: f.LSN,
		})
	}
	var err error
	if run.cells, err = storage.NewRun(fs, path); err != nil {
		return run, err
	}
	it := g.NewIter(math.MaxUint64)
	for ok := it.First(); ok && err == nil; ok = it.Next() {
		if cell := it.Cell(); cell != nil { // else a range tombstone of the run says it
			err = run.cells.Set(it.Key(), cell)
		}
	}
	return run, errors.Join(err, run.cells.Done())
}

// logMerge walks the runs side by side.
type logMerge struct{ runs []*runCursor }

type runCursor struct {
	it     *storage.RemnantIter
	ok     bool
	ranges []cow.Fragment // that do not end before the key
}

func newLogMerge(w *wreck) (*logMerge, error) {
	m := new(logMerge)
	for _, r := range w.runs {
		it, err := r.cells.Open()
		if err != nil {
			m.close()
			return nil, err
		}
		c := &runCursor{it: it, ranges: r.ranges}
		m.runs = append(m.runs, c)
		if err := c.move(); err != nil {
			m.close()
			return nil, err
		}
	}
	slices.Reverse(m.runs) // newest first
	return m, nil
}

func (m *logMerge) close() {
	for _, c := range m.runs {
		_ = c.it.Close() // only read
	}
}

// move goes to the next cell. A run is ours and minutes old: damage in it is an error.
func (c *runCursor) move() error {
	c.ok = c.it.Next()
	if lost := c.it.Lost(); len(lost) > 0 {
		return errors.Join(corrupt(lost[0].File, "a run of this salvage: %s", lost[0].What), lost[0].Err)
	}
	return c.it.Err()
}

// key is the lowest key ahead; nil at the end.
func (m *logMerge) key() (low []byte) {
	for _, c := range m.runs {
		if c.ok && (low == nil || bytes.Compare(c.it.Key(), low) < 0) {
			low = c.it.Key()
		}
	}
	return low
}

// at gives the newest cell of key, a tombstone for one that a later range deleted, and
// the number of the newest range over it; all runs move past the key. Keys must ascend.
func (m *logMerge) at(key []byte) (cell cow.Cell, over uint64, err error) {
	for _, c := range m.runs { // newest first
		for len(c.ranges) > 0 && bytes.Compare(c.ranges[0].Upper, key) <= 0 {
			c.ranges = c.ranges[1:]
		}
		if len(c.ranges) > 0 && bytes.Compare(c.ranges[0].Lower, key) <= 0 {
			over = max(over, c.ranges[0].LSN)
		}
		if !c.ok || !bytes.Equal(c.it.Key(), key) {
			continue
		}
		if cell == nil {
			if cell, err = cow.ParseCell(bytes.Clone(c.it.Cell())); err != nil {
				return nil, 0, err
			}
		}
		if err := c.move(); err != nil {
			return nil, 0, err
		}
	}
	if cell != nil && over > cell.Revision() { // at an equal number a point beats a range (C5)
		cell = nil
	}
	return cell, over, nil
}
