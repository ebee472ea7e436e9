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
	g     *Generation
	at    uint64
	whole bool                  // run is all keys of a frozen generation; else some of
	tree  btree.IterG[treeItem] // a copy of an active one's index
	ended bool                  // tree has nothing after run
	past  bool                  // tree stands beyond run's first
	run   []*entry
	pos   int // in run
	cur   *entry
	cell  Cell
	torn  bool

	few     [ahead]*entry // room for run
	probe   entry         // the key of a seek
	touched byte          // keeps the loads of touch alive
}

// NewIter returns an iterator at number at. It stands nowhere until it is moved.
func (g *Generation) NewIter(at uint64) *Iter {
	it := new(Iter)
	it.Init(g, at)
	return it
}

// Init is NewIter into room that is there. A used iterator is none.
func (it *Iter) Init(g *Generation, at uint64) {
	list, tree := g.index()
	it.g, it.at, it.whole, it.run = g, at, tree == nil, list
	if !it.whole {
		it.tree.Init(tree, false)
		it.run = it.few[:0]
	}
}

// seek moves the tree to the first key at or above key.
func (it *Iter) seek(key []byte) bool {
	it.probe.key = key
	return it.tree.Seek(itemOf(&it.probe))
}

// First, Last, SeekGE and SeekLT move to an end or beside a key; Next and Prev
// move on from there. All return whether there is a cell; where there was none, Next and
// Prev find none.

func (it *Iter) First() bool {
	if it.whole {
		return it.settle(it.jump(0), +1)
	}
	return it.settle(it.take(it.tree.First()), +1)
}

func (it *Iter) Last() bool {
	if it.whole {
		return it.settle(it.jump(len(it.run)-1), -1)
	}
	return it.settle(it.take(it.tree.Last()), -1)
}

func (it *Iter) SeekGE(key []byte) bool {
	if it.whole {
		return it.settle(it.jump(it.search(key)), +1)
	}
	return it.settle(it.take(it.seek(key)), +1)
}

func (it *Iter) SeekLT(key []byte) bool {
	if it.whole {
		return it.settle(it.jump(it.search(key)-1), -1)
	}
	if it.seek(key) {
		return it.settle(it.take(it.tree.Prev()), -1)
	}
	return it.Last()
}

func (it *Iter) Next() bool { return it.cur != nil && it.settle(it.step(+1), +1) }
func (it *Iter) Prev() bool { return it.cur != nil && it.settle(it.step(-1), -1) }

// Key is valid as long as the generation.
func (it *Iter) Key() []byte { return it.cur.key }

// Cell is nil where a range tombstone hides the point.
func (it *Iter) Cell() Cell { return it.cell }

func (it *Iter) search(key []byte) int {
	return sort.Search(len(it.run), func(i int) bool { return bytes.Compare(it.run[i].key, key) >= 0 })
}

// ahead is how many cells a walk touches before it needs them. Entry, version and cell
// lie where their commits put them, three cache misses for each key in order; touched
// together, the misses of many keys overlap (BenchmarkGeneration/Walk).
const ahead = 16

// jump moves within a run that has all keys.
func (it *Iter) jump(pos int) bool {
	it.pos = pos
	if pos%ahead == 0 && pos >= 0 && pos+ahead < len(it.run) {
		it.touch(it.run[pos+ahead : min(pos+2*ahead, len(it.run))])
	}
	return pos >= 0 && pos < len(it.run)
}

func (it *Iter) touch(es []*entry) {
	for _, e := range es {
		if v := e.newest.Load(); v != nil {
			it.touched += v.cell[0] + e.key[0]
		}
	}
}

// take makes the run of the one key that the tree stands at.
func (it *Iter) take(ok bool) bool {
	it.run, it.pos, it.past, it.ended = it.run[:0], 0, false, false
	if ok {
		it.run = append(it.run, it.tree.Item().entry)
	}
	return ok
}

// more makes the next run, twice as long as this one: who asks for ten keys should not
// pay for twenty.
func (it *Iter) more() bool {
	if it.ended {
		return false
	}
	n := min(2*len(it.run), ahead)
	it.run, it.pos, it.past = it.run[:0], 0, true
	for len(it.run) < n && !it.ended {
		if it.ended = !it.tree.Next(); !it.ended {
			it.run = append(it.run, it.tree.Item().entry)
		}
	}
	it.touch(it.run)
	return len(it.run) > 0
}

func (it *Iter) step(dir int) bool {
	pos := it.pos + dir
	switch {
	case it.whole:
		return it.jump(pos)
	case pos >= 0 && pos < len(it.run):
		it.pos = pos
		return true
	case dir > 0:
		return it.more()
	}
	if it.past {
		it.tree.Seek(itemOf(it.run[0]))
	}
	return it.take(it.tree.Prev())
}

// settle moves on in direction dir until the key has a version at or below the
// number.
func (it *Iter) settle(ok bool, dir int) bool {
	for ; ok; ok = it.step(dir) {
		it.cur = it.run[it.pos]
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
