package engine

import (
	"bytes"
	"container/heap"
	"errors"
	"slices"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/storage"
)

// tableMerge walks all tables of L3 side by side in key order. A table is open only
// while its keys are passed.
type tableMerge struct {
	w       *wreck
	pending []*wreckTable // by first key
	points  cursors       // by current key
	ranged  []*cursor     // those with range tombstones ahead
}

// cursor stands in one open table.
type cursor struct {
	table  *wreckTable
	it     *storage.RemnantIter
	ranges []storage.RangeTombstone // that do not end before the key
	points bool                     // there are some ahead
}

type cursors []*cursor

func (c cursors) Len() int           { return len(c) }
func (c cursors) Less(i, j int) bool { return bytes.Compare(c[i].it.Key(), c[j].it.Key()) < 0 }
func (c cursors) Swap(i, j int)      { c[i], c[j] = c[j], c[i] }
func (c *cursors) Push(x any)        { *c = append(*c, x.(*cursor)) }
func (c *cursors) Pop() any {
	old := *c
	last := old[len(old)-1]
	old[len(old)-1] = nil
	*c = old[:len(old)-1]
	return last
}

func newTableMerge(w *wreck) *tableMerge {
	m := &tableMerge{w: w}
	for _, t := range w.tables {
		if t.entries > 0 || t.ranges > 0 {
			m.pending = append(m.pending, t)
		}
	}
	slices.SortFunc(m.pending, func(a, b *wreckTable) int { return bytes.Compare(a.first, b.first) })
	return m
}

func (m *tableMerge) close() {
	for _, c := range m.points {
		if c.points {
			_ = c.it.Close() // only read
		}
	}
}

// key is the lowest key ahead; nil at the end.
func (m *tableMerge) key() ([]byte, error) {
	for len(m.pending) > 0 && (len(m.points) == 0 || bytes.Compare(m.pending[0].first, m.points[0].it.Key()) <= 0) {
		t := m.pending[0]
		m.pending = m.pending[1:]
		it, err := m.w.remains.Open(&t.Remnant)
		if err != nil {
			return nil, err
		}
		c := &cursor{table: t, it: it, ranges: it.Ranges()}
		if len(c.ranges) > 0 {
			m.ranged = append(m.ranged, c)
		}
		if err := m.move(c); err != nil {
			if c.points {
				_ = c.it.Close() // only read; nobody else knows it
			}
			return nil, err
		}
		if c.points {
			heap.Push(&m.points, c)
		}
	}
	if len(m.points) == 0 {
		return nil, nil
	}
	return m.points[0].it.Key(), nil
}

// move goes to the table's next entry. At the end of them the table is closed: its
// range tombstones are copies.
func (m *tableMerge) move(c *cursor) error {
	var err error
	if c.points = c.it.Next(); !c.points {
		err = errors.Join(c.it.Err(), c.it.Close())
	}
	for _, l := range c.it.Lost() { // the others were told when the table was examined
		if !c.table.lost[lostAt{l.Offset, l.Bytes, l.Ranges}] {
			return errors.Join(corrupt(l.File, "%s, and was read before: the disk got worse, run it again", l.What), l.Err)
		}
	}
	if err != nil || !c.points {
		return err
	}
	return m.w.moved(int64(len(c.it.Key()) + len(c.it.Cell())))
}

// next calls visit for every entry of the next key and returns the key, which is valid
// until the call after. An entry that is no cell is passed over.
func (m *tableMerge) next(visit func(e entryAt, deleted bool, cell []byte)) (key []byte, ok bool, err error) {
	if key, err = m.key(); key == nil || err != nil {
		return nil, false, err
	}
	key = bytes.Clone(key)
	for len(m.points) > 0 && bytes.Equal(m.points[0].it.Key(), key) {
		c := m.points[0]
		e := entryAt{table: c.table, seq: c.it.Seq()}
		cell, err := cow.ParseCell(c.it.Cell())
		if err == nil {
			e.revision = cell.Revision()
		}
		if err == nil || c.it.Deleted() {
			visit(e, c.it.Deleted(), cell)
		}
		if err := m.move(c); err != nil {
			return nil, false, err
		}
		if c.points {
			heap.Fix(&m.points, 0)
		} else {
			heap.Pop(&m.points)
		}
	}
	return key, true, nil
}

// over calls visit for every range tombstone over key. Keys must ascend.
func (m *tableMerge) over(key []byte, visit func(e entryAt)) {
	m.ranged = slices.DeleteFunc(m.ranged, func(c *cursor) bool {
		for len(c.ranges) > 0 && c.ranges[0].Upper != nil && bytes.Compare(c.ranges[0].Upper, key) <= 0 {
			c.ranges = c.ranges[1:]
		}
		if len(c.ranges) > 0 {
			if r := &c.ranges[0]; bytes.Compare(r.Lower, key) <= 0 {
				visit(entryAt{table: c.table, seq: r.Seq, ranged: true})
			}
			return false
		}
		return true
	})
}

// copy chooses for every key of L3 and the log what was written last, and hands it to
// the sink.
func (w *wreck) copy(out sink) error {
	w.begin("copying", w.tableBytes())
	l3 := newTableMerge(w)
	defer l3.close()
	log, err := newLogMerge(w)
	if err != nil {
		return err
	}
	defer log.close()
	p := picker{w: w, out: out, l3: l3, log: log, holes: holesAt{rest: w.holes}}
	for {
		more, err := p.next()
		if err != nil || !more {
			return err
		}
	}
}

// picker decides one key after the other.
type picker struct {
	w     *wreck
	out   sink
	l3    *tableMerge
	log   *logMerge
	holes holesAt

	// Of the key that is decided now.
	set   entryAt
	cell  cow.Cell // nil: no set was met
	tombs []entryAt
	live  bool // the set is in a table that nothing replaced
}

func (p *picker) next() (more bool, err error) {
	k, err := p.l3.key()
	if err != nil {
		return false, err
	}
	logged := p.log.key()
	p.cell, p.tombs, p.live = nil, p.tombs[:0], false
	switch {
	case k == nil && logged == nil:
		return false, nil
	case logged != nil && (k == nil || bytes.Compare(logged, k) < 0):
		k = bytes.Clone(logged)
	default:
		if k, _, err = p.l3.next(p.visit); err != nil {
			return false, err
		}
	}
	// The log's own order is exact, and what it says here is newer than L3, or the same.
	cell, at, err := p.log.at(k)
	if err != nil {
		return false, err
	}
	p.l3.over(k, func(e entryAt) { p.tombs = append(p.tombs, e) })
	switch {
	case cell != nil && (p.cell == nil || cell.Revision() >= p.cell.Revision()):
		return true, p.emit(k, cell)
	case p.cell == nil || at > p.cell.Revision():
		if len(p.tombs) > 0 || at > 0 {
			p.w.report.Tombstones++
		}
		return true, nil
	}
	return true, p.judge(k)
}

// visit takes one entry of L3: the set with the highest revision counts, of equal ones
// that of the table that was made first.
func (p *picker) visit(e entryAt, deleted bool, cell []byte) {
	if deleted {
		p.tombs = append(p.tombs, e)
		return
	}
	switch {
	case p.cell != nil && e.revision < p.set.revision:
		return
	case p.cell == nil, e.revision > p.set.revision:
		p.live = false
	}
	p.live = p.live || !e.table.replaced
	if p.cell == nil || e.revision > p.set.revision || e.table.Number < p.set.table.Number {
		p.set, p.cell = e, append(p.cell[:0], cell...)
	}
}

// judge lets L3's set pass unless a tombstone of L3 is newer.
func (p *picker) judge(key []byte) error {
	why := ""
	for _, t := range p.tombs {
		switch p.w.hides(t, p.set) {
		case newer:
			p.w.report.Tombstones++
			return nil
		case unknown:
			why = "there is a delete of this key, and which of the two came last is not known"
		}
	}
	for _, h := range p.holes.at(key) {
		if why == "" && p.w.mayHold(h, p.set, key) {
			why = "something newer may have been in a lost part of " + h.table.File
		}
	}
	if why == "" && !p.live {
		why = "it is only in tables that had been replaced, and not in what replaced them"
	}
	if why != "" {
		p.w.doubt(key, p.set.revision, why)
	}
	return p.emit(key, p.cell)
}

// emit gives the sink a key with its newest cell.
func (p *picker) emit(key []byte, cell cow.Cell) error {
	w := p.w
	w.last = max(w.last, cell.Revision())
	switch cell.Kind() {
	case cow.Tombstone:
		w.report.Tombstones++
		return nil
	case cow.Blob:
		return w.emitBlob(p.out, key, cell)
	}
	if err := p.out.set(key, cell); err != nil {
		return err
	}
	w.report.Keys++
	w.report.Bytes += int64(len(cell.Payload()))
	return nil
}
