package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: L2 gives its room to L1 where it answers next to nothing or does not compress, comes
// back to try again later and later, and the one that would answer more with more room
// gets it; a ring that is not full is not judged.
func TestSplit(t *testing.T) {
	s := Split{Part: 0.5}
	m := Metrics{L1Capacity: 10 << 20, L2Capacity: 10 << 20}
	look := func(l1, l2, misses, ghosts1, ghosts2 uint64) string {
		m.L1Hits, m.L2Hits, m.Misses = m.L1Hits+l1, m.L2Hits+l2, m.Misses+misses
		m.L1Ghosts, m.L2Ghosts = m.L1Ghosts+ghosts1, m.L2Ghosts+ghosts2
		return s.Look(m, Cost{})
	}
	require.Empty(t, look(10, 10, 10, 10, 0), "too few reads to say anything")
	require.Empty(t, look(8000, 0, 2000, 100, 400), "L2 is not full yet")
	m.L2Filled = 10 << 20
	require.Empty(t, look(8000, 0, 2000, 100, 400), "it just got full")
	require.Contains(t, look(8000, 1000, 1000, 100, 400), "larger L2")
	require.Equal(t, 0.5+splitStep, s.Part)
	require.Contains(t, look(8000, 1000, 1000, 400, 100), "larger L1")
	require.Equal(t, 0.5, s.Part)
	require.Empty(t, look(8000, 1000, 1000, 100, 120))
	for range 20 {
		look(8000, 1000, 1000, 100, 4000)
	}
	require.Equal(t, splitMost, s.Part)
	for try := range 4 {
		switch try {
		case 1:
			// A full ring takes few cells: what they become is judged over several looks.
			for range 4 {
				m.RawBytes, m.StoredBytes = m.RawBytes+(1<<18), m.StoredBytes+(1<<18)
				require.Empty(t, look(8000, 1000, 2000, 0, 0))
			}
			m.RawBytes, m.StoredBytes = m.RawBytes+(1<<18), m.StoredBytes+(1<<18)
			require.Contains(t, look(8000, 1000, 2000, 0, 0), "take 1.00 of their bytes")
		case 2: // of nothing but absent keys
			require.Contains(t, look(8000, 1, 2000, 0, 0), "answered 1 of 2001")
		case 3:
			s.Part = splitStep
			require.Contains(t, look(8000, 1000, 2000, 400, 0), "what is left of L2")
		default:
			require.Contains(t, look(8000, 1, 2000, 0, 0), "answered 1 of 2001")
		}
		require.Zero(t, s.Part)
		m.L2Capacity, m.L2Filled = 0, 0
		n := 1
		for look(8000, 0, 2000, 0, 0) == "" {
			n++
		}
		require.Equal(t, 12<<try, n)
		require.Equal(t, splitReturn, s.Part)
		m.L2Capacity = 10 << 20
		require.Empty(t, look(8000, 0, 2000, 100, 0), "it is new")
		m.L2Filled = 11 << 20
		require.Empty(t, look(8000, 0, 2000, 100, 0), "it just got full")
		require.Empty(t, look(8000, 1000, 1000, 100, 100))
		m.L2Filled = 10 << 20
		require.Empty(t, look(8000, 0, 2000, 0, 0), "there and back between two looks")
		m.L2Entries = 100 * splitPays
		require.Empty(t, look(8000, 1000, 1000, 99, 0), "L2 would lose more")
		require.NotEmpty(t, look(8000, 1000, 1000, 100, 0))
		m.L2Entries = 0
	}
}

// Goal: what answers take decides. While a load costs as much as a disk takes L2 gets the
// room; where it is little more than a hit of L2, L1 does, by longer and longer steps, for
// what L2 answers in its place, too; and an L2 that is no faster than a load goes at once.
func TestSplit_cost(t *testing.T) {
	m := Metrics{L1Capacity: 10 << 20, L2Capacity: 10 << 20, L2Filled: 10 << 20}
	look := func(s *Split, c Cost) string {
		m.L1Hits, m.L2Hits, m.Misses = m.L1Hits+8000, m.L2Hits+1000, m.Misses+1000
		m.L1Ghosts, m.L2Ghosts, m.L1GhostsL2 = m.L1Ghosts+100, m.L2Ghosts+200, m.L1GhostsL2+300
		return s.Look(m, c)
	}
	disk, memory := Cost{0.1, 3, 110}, Cost{0.1, 3, 6}
	s := Split{Part: 0.5, last: m}
	require.Contains(t, look(&s, disk), "larger L2")
	require.Equal(t, 0.5+splitStep, s.Part)
	s = Split{Part: 0.5, last: m}
	for _, part := range []float64{0.5 - splitStep, 0.5 - 3*splitStep, splitStep} {
		require.Contains(t, look(&s, memory), "larger L1")
		require.Equal(t, part, s.Part)
	}
	require.Contains(t, look(&s, memory), "what is left of L2")
	require.Zero(t, s.Part)
	s = Split{Part: 0.5, last: m}
	require.Contains(t, look(&s, Cost{0.1, 6, 6}), "as long as one of L3")
	require.Zero(t, s.Part)
	require.Equal(t, Cost{0, 0.25, 1}, Cost{0.1, 0, 6}.known(), "nobody was timed")
}

// Goal: where there is room for it, L2 comes back large enough for dictionaries.
func TestSplit_return(t *testing.T) {
	for room, part := range map[int64]float64{8 << 20: splitReturn, 15 << 20: 0.35, 200 << 20: splitReturn} {
		s := Split{}
		require.NotEmpty(t, s.Look(Metrics{L1Capacity: room, Misses: splitReads}, Cost{}))
		require.InDelta(t, part, s.Part, 0.001)
		if room >= 15<<20 {
			require.Greater(t, int64(float64(room)*s.Part), int64(minAutoDict))
		}
	}
}

// Goal: L2 follows a third more or less, and going and coming.
func TestWorthResize(t *testing.T) {
	for _, c := range []struct {
		was, now int64
		worth    bool
	}{
		{0, 0, false}, {0, 1, true}, {1, 0, true}, {300, 300, false},
		{300, 399, false}, {300, 400, true}, {300, 201, false}, {300, 200, true},
	} {
		require.Equal(t, c.worth, WorthResize(c.was, c.now), c)
	}
}
