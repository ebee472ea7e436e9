package cow

import (
	"bytes"
	"encoding/binary"
	"slices"
	"sync"
	"sync/atomic"

	"github.com/tidwall/btree"
)

// order is the ordered index of a generation's keys, made on demand: a workload
// that never scans pays for one list of new keys and nothing else.
type order struct {
	fresh atomic.Bool // some shard's list of new keys is not empty

	mu     sync.Mutex
	tree   *btree.BTreeG[treeItem] // fed from the shards' fresh lists by the scans
	copy   *btree.BTreeG[treeItem] // of the tree, immutable; what iterators walk
	sorted []*entry                // made by Sort, then immutable; never nil once made
}

// note says that a shard has a new key in its list.
func (o *order) note() {
	if !o.fresh.Load() { // a look first: writers of new keys share this line
		o.fresh.Store(true)
	}
}

// treeItem is an entry and the first sixteen bytes of its key, as numbers: they decide
// most comparisons without a look at the entry and at the key, two cache misses away.
type treeItem struct {
	high, low uint64
	*entry
}

// treeItemBytes is a tree's item and its share of half-full nodes, less its place
// in the list of new keys.
const treeItemBytes = 40

func itemOf(e *entry) treeItem {
	var b [16]byte
	copy(b[:], e.key)
	return treeItem{binary.BigEndian.Uint64(b[:8]), binary.BigEndian.Uint64(b[8:]), e}
}

func byKey(a, b treeItem) bool {
	switch {
	case a.high != b.high:
		return a.high < b.high
	case a.low != b.low:
		return a.low < b.low
	}
	return bytes.Compare(a.key, b.key) < 0 // zeros stand for what a short key lacks, too
}

// index returns every key placed before the call, in order: the sorted list of a
// generation that was sorted, or an immutable copy of the tree.
func (g *Generation) index() ([]*entry, *btree.BTreeG[treeItem]) {
	o := &g.order
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sorted != nil {
		return o.sorted, nil
	}
	// Order: the flag first, then the lists. A key that comes in between raises it again.
	if !o.fresh.Swap(false) && o.copy != nil {
		return nil, o.copy
	}
	if o.tree == nil {
		o.tree = btree.NewBTreeGOptions(byKey, btree.Options{NoLocks: true, Degree: 32})
	}
	fed := 0
	for i := range g.shards {
		fresh := g.shards[i].takeFresh()
		for _, e := range fresh {
			o.tree.Set(itemOf(e))
		}
		fed += len(fresh)
	}
	g.bytes.Add(int64(fed) * treeItemBytes)
	o.copy = o.tree.Copy()
	return nil, o.copy
}

// takeFresh hands over the keys that the index has not seen.
func (s *shard) takeFresh() []*entry {
	s.mu.Lock()
	defer s.mu.Unlock()
	fresh := s.fresh
	s.fresh = nil
	return fresh
}

// Sort orders the keys of a frozen generation (C4) in one slice, which scans then
// use, too. Sorting on the eight bytes behind the common prefix spares most of
// the comparisons their two cache misses.
func (g *Generation) Sort() {
	o := &g.order
	o.mu.Lock()
	defer o.mu.Unlock()
	if o.sorted != nil {
		return
	}
	type item struct {
		word uint64
		e    *entry
	}
	items := make([]item, 0, g.Len())
	for i := range g.shards {
		t := g.shards[i].table.Load()
		for j := range t.slots {
			if e := t.slots[j].entry.Load(); e != nil {
				items = append(items, item{e: e})
			}
		}
	}
	var prefix []byte
	for i, it := range items {
		if i == 0 {
			prefix = it.e.key
		}
		n := 0
		for n < len(prefix) && n < len(it.e.key) && prefix[n] == it.e.key[n] {
			n++
		}
		prefix = prefix[:n]
	}
	for i := range items {
		var w [8]byte
		copy(w[:], items[i].e.key[len(prefix):])
		items[i].word = binary.BigEndian.Uint64(w[:])
	}
	slices.SortFunc(items, func(a, b item) int {
		switch {
		case a.word < b.word:
			return -1
		case a.word > b.word:
			return 1
		}
		return bytes.Compare(a.e.key, b.e.key)
	})
	o.sorted = make([]*entry, len(items))
	for i, it := range items {
		o.sorted[i] = it.e
	}
	o.tree, o.copy = nil, nil
	for i := range g.shards {
		g.shards[i].takeFresh()
	}
}
