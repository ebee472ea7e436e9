package cow

import (
	"bytes"
	"sort"

	"github.com/tidwall/btree"
)

// Iter walks the cells of one generation that a reader at one number sees, in key
// order. Keys whose versions are all newer are passed over; tombstones are not,
// and neither are points that a range tombstone of the same generation hides:
// Cell is nil for those. An Iter is for one goroutine. While the number is
// registered with the generation's clock no chain is cut above it; an iterator
// that outlives the registration ends where it meets a cut, and says so in Torn.
type Iter struct {
	g    *Generation
	at   uint64
	list []*entry // a frozen generation's sorted keys, or
	pos  int
	tree btree.IterG[*entry] // a copy of an active one's index
	cur  *entry
	cell Cell
	torn bool

	touched byte // keeps warm's loads alive
}

// NewIter returns an iterator at number at. It stands nowhere until it is moved.
func (g *Generation) NewIter(at uint64) *Iter {
	it := &Iter{g: g, at: at}
	list, tree := g.index()
	if it.list = list; list == nil {
		it.tree = tree.Iter()
	}
	return it
}

// First, Last, SeekGE and SeekLT move to an end or beside a key; Next and Prev
// move on from there. All return whether there is a cell.

func (it *Iter) First() bool {
	if it.list != nil {
		return it.settle(it.jump(0), +1)
	}
	return it.settle(it.tree.First(), +1)
}

func (it *Iter) Last() bool {
	if it.list != nil {
		return it.settle(it.jump(len(it.list)-1), -1)
	}
	return it.settle(it.tree.Last(), -1)
}

func (it *Iter) SeekGE(key []byte) bool {
	if it.list != nil {
		return it.settle(it.jump(it.search(key)), +1)
	}
	return it.settle(it.tree.Seek(&entry{key: key}), +1)
}

func (it *Iter) SeekLT(key []byte) bool {
	if it.list != nil {
		return it.settle(it.jump(it.search(key)-1), -1)
	}
	if it.tree.Seek(&entry{key: key}) {
		return it.settle(it.tree.Prev(), -1)
	}
	return it.settle(it.tree.Last(), -1)
}

func (it *Iter) Next() bool { return it.settle(it.step(+1), +1) }
func (it *Iter) Prev() bool { return it.settle(it.step(-1), -1) }

// Key is valid as long as the generation.
func (it *Iter) Key() []byte { return it.cur.key }

// Cell is nil where a range tombstone hides the point.
func (it *Iter) Cell() Cell { return it.cell }

func (it *Iter) search(key []byte) int {
	return sort.Search(len(it.list), func(i int) bool { return bytes.Compare(it.list[i].key, key) >= 0 })
}

func (it *Iter) jump(pos int) bool {
	it.pos = pos
	if pos%ahead == 0 {
		it.warm()
	}
	return pos >= 0 && pos < len(it.list)
}

// ahead is how many cells a walk over a sorted list touches before it needs them.
// Entry, version and cell lie where their commits put them, three cache misses for
// each key in order; touched together, the misses of many keys overlap
// (BenchmarkGeneration/Walk).
const ahead = 16

func (it *Iter) warm() {
	if it.pos < 0 || it.pos+ahead >= len(it.list) {
		return
	}
	for _, e := range it.list[it.pos+ahead : min(it.pos+2*ahead, len(it.list))] {
		if v := e.newest.Load(); v != nil {
			it.touched += v.cell[0] + e.key[0]
		}
	}
}

func (it *Iter) step(dir int) bool {
	switch {
	case it.list != nil:
		return it.jump(it.pos + dir)
	case dir > 0:
		return it.tree.Next()
	}
	return it.tree.Prev()
}

// settle moves on in direction dir until the key has a version at or below the
// number.
func (it *Iter) settle(ok bool, dir int) bool {
	for ; ok; ok = it.step(dir) {
		if it.list != nil {
			it.cur = it.list[it.pos]
		} else {
			it.cur = it.tree.Item()
		}
		v := it.cur.newest.Load()
		for v != nil && v.lsn > it.at {
			v = v.prev.Load()
		}
		if v == nil {
			continue
		}
		if v == cut {
			it.torn = true
			break
		}
		it.cell = v.cell
		if rs := it.g.ranges.Load(); rs != nil {
			lsn, f := rs.find(it.cur.key, it.at)
			if f == Cut {
				it.torn = true
				break
			}
			if f == Hidden && lsn > v.lsn { // C5
				it.cell = nil
			}
		}
		return true
	}
	it.cur, it.cell = nil, nil
	return false
}

// Torn says that the iterator ended at a cut and not at the last key.
func (it *Iter) Torn() bool { return it.torn }

// Fragment is a range tombstone of a frozen generation, cut at the bounds of its
// neighbours, with the number of the newest one over it.
type Fragment struct {
	Range
	LSN uint64
}

// Ranges lists the range tombstones of a frozen generation in key order, without
// overlaps.
func (g *Generation) Ranges() []Fragment {
	rs := g.ranges.Load()
	if rs == nil {
		return nil
	}
	out := make([]Fragment, len(rs.frags))
	for i, f := range rs.frags {
		out[i] = Fragment{f.Range, f.lsns[0]}
	}
	return out
}
