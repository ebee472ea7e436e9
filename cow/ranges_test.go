package cow

import (
	"bytes"
	"fmt"
	"math"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a generation is empty until it holds a key or a range tombstone, and what it
// holds is counted.
func TestGeneration_Empty(t *testing.T) {
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 2})
	require.True(t, g.Empty())
	require.Zero(t, g.Fragments())
	require.Nil(t, g.Ranges())
	require.Equal(t, Unknown, g.Covers([]byte("k"), math.MaxUint64))
	for range g.Hashes() {
		t.Fatal("a hash of nothing")
	}
	g.DeleteRange(1, []Range{{Lower: []byte("a"), Upper: []byte("c")}})
	require.False(t, g.Empty())
	require.Equal(t, 1, g.Fragments())
	require.Zero(t, g.Len())

	h := NewGeneration(&clock, Shape{Shards: 2})
	for i := range 20 {
		h.Put(goodHash([]byte{byte(i)}), []byte{byte(i)}, 2, Header{Kind: Value, Revision: 2}, nil)
	}
	require.False(t, h.Empty())
	require.Zero(t, h.Fragments())
	seen := 0
	for range h.Hashes() {
		if seen++; seen == 5 {
			break
		}
	}
	require.Equal(t, 5, seen, "a loop over hashes may be left")
}

// Goal (C3, C5): at every number, Covers says what a list of all range tombstones
// says, or that it cannot know any more; and Ranges are disjoint, in order, and have
// the newest number over every key.
func TestGeneration_Covers_model(t *testing.T) {
	rnd := rand.New(rand.NewPCG(5, 5))
	for range 30 {
		var clock Clock
		var hold Hold
		g := NewGeneration(&clock, Shape{Shards: 1})
		var m model
		key := func(i int) string { return fmt.Sprintf("%02d", i) }
		held := uint64(0)
		const last = 12
		for lsn := uint64(1); lsn <= last; lsn++ {
			a, b := rnd.IntN(40), rnd.IntN(40)
			g.DeleteRange(lsn, []Range{{Lower: []byte(key(a)), Upper: []byte(key(b))}})
			m.ranges = append(m.ranges, mRange{lsn, key(a), key(b)})
			clock.Publish(lsn)
			if lsn == 4 {
				clock.Register(&hold)
				held = lsn
			}
		}
		for i := range 40 {
			for at := uint64(1); at <= last; at++ {
				_, want := m.get(key(i), at)
				got := g.Covers([]byte(key(i)), at)
				if got == Cut && at != held && at != last {
					continue // nobody is registered there
				}
				require.Equal(t, want, got, "key %s at %d", key(i), at)
			}
		}
		frags := g.Ranges()
		for i, f := range frags {
			require.Negative(t, bytes.Compare(f.Lower, f.Upper))
			if i > 0 {
				require.LessOrEqual(t, bytes.Compare(frags[i-1].Upper, f.Lower), 0)
			}
			newest := uint64(0)
			for _, r := range m.ranges {
				if r.lower <= string(f.Lower) && string(f.Lower) < r.upper {
					newest = max(newest, r.lsn)
				}
			}
			require.Equal(t, newest, f.LSN)
		}
		clock.Release(&hold)
	}
}

// Goal (C3): an iterator stops, and says so, where the range tombstones that it would
// have to know were dropped.
func TestIter_Torn_byRanges(t *testing.T) {
	for _, sorted := range []bool{false, true} {
		var clock Clock
		g := NewGeneration(&clock, Shape{Shards: 1})
		key, all := []byte("k"), []Range{{Lower: []byte("a"), Upper: []byte("z")}}
		g.Put(1, key, 1, Header{Kind: Value, Revision: 1}, nil)
		for lsn := uint64(2); lsn <= 4; lsn++ {
			clock.Publish(lsn)
			g.DeleteRange(lsn, all)
		}
		if sorted {
			g.Sort()
			g.Sort()
		}
		it := g.NewIter(2)
		require.False(t, it.First())
		require.True(t, it.Torn())
		_, f := g.Get(1, key, 2)
		require.Equal(t, Cut, f)
		it = g.NewIter(4)
		require.True(t, it.First())
		require.Nil(t, it.Cell(), "hidden by a newer tombstone")
		require.False(t, it.Torn())
	}
}

// Goal: keys that agree for longer than the word they are first compared by come in
// order, and so do those that are another's beginning.
func TestGeneration_Sort_longPrefixes(t *testing.T) {
	rnd := rand.New(rand.NewPCG(1, 8))
	var clock Clock
	g := NewGeneration(&clock, Shape{Shards: 4})
	var want []string
	for i := range 300 {
		k := fmt.Sprintf("prefix%d", i%3) + string(bytes.Repeat([]byte{'x'}, 8+rnd.IntN(5))) + fmt.Sprint(rnd.IntN(1000))
		if i%10 == 0 {
			k = "prefix" + string(make([]byte, i/10))
		}
		g.Put(goodHash([]byte(k)), []byte(k), 1, Header{Kind: Value, Revision: 1}, make([]byte, rnd.IntN(2)*minSlab))
		want = append(want, k)
	}
	slices.Sort(want)
	want = slices.Compact(want)
	g.Sort()
	var got []string
	it := g.NewIter(1)
	for ok := it.First(); ok; ok = it.Next() {
		got = append(got, string(it.Key()))
	}
	require.Equal(t, want, got)
	require.Equal(t, len(want), g.Len())
}
