package engine

import (
	"bytes"
	"math"
	"slices"
)

// hole is a part of a table that could not be read, and what it may have held.
type hole struct {
	table        *wreckTable
	lower, upper []byte // both included; nil upper: no end
	ranges       bool   // range tombstones only
	newest       uint64 // revision that it may have held
}

// maxHoles bounds their list (I10). One more, of no table in particular, stands for
// all beyond it: nothing is known of what those held.
const maxHoles = 10_000

func (w *wreck) addHole(t *wreckTable, lower, upper []byte, ranges bool) {
	if n := len(w.holes); n > 0 {
		last := w.holes[n-1]
		if n > maxHoles || last.table == t && last.ranges == ranges && last.upper != nil && bytes.Equal(last.upper, lower) {
			if bytes.Compare(lower, last.lower) < 0 {
				last.lower = lower
			}
			if last.upper != nil && (upper == nil || bytes.Compare(upper, last.upper) > 0) {
				last.upper = upper
			}
			return
		}
		if n == maxHoles {
			t, ranges = &wreckTable{after: math.MaxUint64}, false
			t.File, t.Last = "one of many tables", math.MaxUint64
		}
	}
	w.holes = append(w.holes, &hole{table: t, lower: lower, upper: upper, ranges: ranges, newest: math.MaxUint64})
}

// seqBounds relates Pebble's sequence numbers, where a table still has them, to
// revisions: both ascend with the flushes.
type seqBounds struct {
	m map[uint64][2]uint64 // oldest and newest revision under one number

	seqs []uint64 // sorted
	low  []uint64 // newest revision at or below seqs[i]
	high []uint64 // oldest revision at or above seqs[i]
}

// maxSeqs bounds the map (I10). What does not fit leaves more in doubt.
const maxSeqs = 1 << 16

func (b *seqBounds) add(seq, revision uint64) {
	if seq == 0 {
		return // rewritten at the bottom, or never
	}
	r, ok := b.m[seq]
	switch {
	case !ok && len(b.m) >= maxSeqs:
		return
	case !ok:
		if b.m == nil {
			b.m = make(map[uint64][2]uint64)
		}
		r = [2]uint64{revision, revision}
	}
	b.m[seq] = [2]uint64{min(r[0], revision), max(r[1], revision)}
}

func (b *seqBounds) sort() {
	for seq := range b.m {
		b.seqs = append(b.seqs, seq)
	}
	slices.Sort(b.seqs)
	b.low, b.high = make([]uint64, len(b.seqs)), make([]uint64, len(b.seqs))
	newest, oldest := uint64(0), uint64(math.MaxUint64)
	for i, seq := range b.seqs {
		newest = max(newest, b.m[seq][1])
		b.low[i] = newest
	}
	for i := len(b.seqs) - 1; i >= 0; i-- {
		oldest = min(oldest, b.m[b.seqs[i]][0])
		b.high[i] = oldest
	}
}

// around gives the newest revision known to be at or before seq, and the oldest known
// to be at or behind it.
func (b *seqBounds) around(seq uint64) (low, high uint64) {
	i, found := slices.BinarySearch(b.seqs, seq)
	high = math.MaxUint64
	if i < len(b.seqs) {
		high = b.high[i]
	}
	if found {
		low = b.low[i]
	} else if i > 0 {
		low = b.low[i-1]
	}
	return low, high
}

// ingested says that a flush made the table and nobody rewrote it: all of it is of one
// flush, and tables with lower numbers hold nothing newer.
func (t *wreckTable) ingested() bool {
	return t.seqHigh == 0 && !t.merged && t.entries+int64(t.ranges) > 0
}

// seq is the true sequence number of an entry, if a manifest is there to tell it.
func (t *wreckTable) seq(inFile uint64) uint64 {
	if t.First == t.Last {
		return t.Last
	}
	return inFile
}

// bound finds, for each table, the newest revision in tables that were made before
// it, and the oldest of flushes that came after.
func (w *wreck) bound() {
	newest := uint64(0)
	for _, t := range w.tables { // by number
		t.before = newest
		newest = max(newest, t.newest)
	}
	oldest := uint64(math.MaxUint64)
	for i := len(w.tables) - 1; i >= 0; i-- {
		t := w.tables[i]
		t.after = oldest
		if t.ingested() && t.sets > 0 {
			oldest = min(oldest, t.oldest)
		}
	}
}

// entryAt is one operation of one table. A tombstone has no revision of its own: the
// tables do not keep it.
type entryAt struct {
	table    *wreckTable
	seq      uint64
	revision uint64
	ranged   bool
}

type verdict int

const (
	older   verdict = -1
	unknown verdict = 0
	newer   verdict = 1
)

func compare(a, b uint64) verdict {
	if a > b {
		return newer
	}
	return older // at equal number a point survives its range delete
}

// hides says whether tombstone t is newer than set s of the same key.
func (w *wreck) hides(t, s entryAt) verdict {
	switch {
	case w.exact:
		return compare(t.table.seq(t.seq), s.table.seq(s.seq))
	case t.table == s.table:
		return compare(t.seq, s.seq)
	case s.table.ingested() && s.table.Number > t.table.Number:
		return older // flushed after t's table was made
	case t.table.ingested() && s.table.Number < t.table.Number:
		return newer // made before t was flushed
	}
	low, high := t.table.before, t.table.after
	switch {
	case t.table.ingested() && t.table.sets > 0:
		// The two are of different flushes, or the set survived in its own.
		high = min(high, t.table.oldest)
		if !t.table.damaged && s.revision < t.table.oldest {
			return newer
		}
	case t.table.ingested():
	case t.seq > 0 && s.seq > 0:
		return compare(t.seq, s.seq)
	default:
		// What a compaction wrote may be older than tables made before it.
		l, h := w.seqs.around(t.seq)
		low, high = l, min(high, h)
	}
	switch {
	case s.revision >= high:
		return older
	case s.revision <= low:
		return newer
	}
	return unknown
}

// order prepares what hides and mayHold ask, and finds the tables that were replaced.
func (w *wreck) order() error {
	w.seqs.sort()
	w.bound()
	for _, h := range w.holes {
		if !w.exact {
			h.newest = h.table.after - 1
		}
	}
	slices.SortFunc(w.holes, func(a, b *hole) int { return bytes.Compare(a.lower, b.lower) })
	if w.exact {
		return nil
	}
	w.begin("ordering", w.tableBytes())
	m := newTableMerge(w)
	defer m.close()
	var sets []entryAt
	for {
		sets = sets[:0]
		key, ok, err := m.next(func(e entryAt, deleted bool, _ []byte) {
			if deleted {
				return
			}
			// A live L3 holds each write once. The same one in two tables: the one with
			// the lower number went into a compaction, and is replaced.
			for _, o := range sets {
				if o.table != e.table && o.revision == e.revision {
					if o.table.Number > e.table.Number {
						o.table, e.table = e.table, o.table
					}
					o.table.replaced = true
				}
			}
			sets = append(sets, e)
		})
		m.over(key, func(entryAt) {}) // lets range tombstones go that lie behind
		if err != nil || !ok {
			return err
		}
	}
}

// mayHold says whether a hole over the key may have held something newer than the set.
func (w *wreck) mayHold(h *hole, s entryAt, key []byte) bool {
	if h.table == s.table {
		if h.ranges {
			// A flush leaves no point that its range hides; a compaction does, for a
			// snapshot that sees it.
			return w.exact && s.table.First != s.table.Last || !w.exact && !s.table.ingested()
		}
		// Within one table a key's newest entry comes first: only a block that ends
		// with the key hides one.
		return h.upper != nil && bytes.Equal(h.upper, key)
	}
	if w.exact {
		return h.table.Last > s.table.seq(s.seq)
	}
	return h.newest > s.revision
}

// holesAt walks the holes beside the keys.
type holesAt struct {
	rest, over []*hole
}

func (hs *holesAt) at(key []byte) []*hole {
	for len(hs.rest) > 0 && bytes.Compare(hs.rest[0].lower, key) <= 0 {
		hs.over = append(hs.over, hs.rest[0])
		hs.rest = hs.rest[1:]
	}
	hs.over = slices.DeleteFunc(hs.over, func(h *hole) bool {
		return h.upper != nil && bytes.Compare(h.upper, key) < 0
	})
	return hs.over
}
