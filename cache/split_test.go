package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: L2 gives its room to L1 where it answers next to nothing, comes back to try again
// later and later, and the one that would answer more with more room gets it.
func TestSplit(t *testing.T) {
	s := Split{Part: 0.5}
	m := Metrics{L1Capacity: 10 << 20, L2Capacity: 10 << 20}
	look := func(l1, l2, misses, ghosts1, ghosts2 uint64) string {
		m.L1Hits, m.L2Hits, m.Misses = m.L1Hits+l1, m.L2Hits+l2, m.Misses+misses
		m.L1Ghosts, m.L2Ghosts = m.L1Ghosts+ghosts1, m.L2Ghosts+ghosts2
		return s.Look(m)
	}
	require.Empty(t, look(10, 10, 10, 10, 0), "too few reads to say anything")
	require.Empty(t, look(8000, 0, 2000, 100, 400), "L2 is not full yet")
	m.RawBytes, m.StoredBytes = 40<<20, 10<<20
	require.NotEmpty(t, look(8000, 1000, 1000, 100, 400))
	require.Equal(t, 0.5+splitStep, s.Part)
	require.NotEmpty(t, look(8000, 1000, 1000, 400, 100))
	require.Equal(t, 0.5, s.Part)
	require.Empty(t, look(8000, 1000, 1000, 100, 120))
	for range 20 {
		look(8000, 1000, 1000, 100, 4000)
	}
	require.Equal(t, splitMost, s.Part)
	for try := range 3 {
		hits := uint64(1)
		if try == 1 { // another reason: it answers, and holds values as they are
			hits, m.RawBytes, m.StoredBytes = 1000, m.RawBytes+(2<<20), m.StoredBytes+(2<<20)
		}
		require.NotEmpty(t, look(8000, hits, 2000, 0, 0))
		require.Zero(t, s.Part)
		m.L2Capacity = 0
		n := 1
		for look(8000, 0, 2000, 0, 0) == "" {
			n++
		}
		require.Equal(t, 12<<try, n)
		require.Equal(t, splitReturn, s.Part)
		m.L2Capacity = 10 << 20
		require.Empty(t, look(8000, 0, 2000, 100, 0), "it is new")
		m.RawBytes, m.StoredBytes = m.RawBytes+(40<<20), m.StoredBytes+(10<<20)
		require.Empty(t, look(8000, 1000, 1000, 100, 100))
		m.L2Entries = 100 * splitPays
		require.Empty(t, look(8000, 1000, 1000, 99, 0), "L2 would lose more")
		require.NotEmpty(t, look(8000, 1000, 1000, 100, 0))
		m.L2Entries = 0
	}
}
