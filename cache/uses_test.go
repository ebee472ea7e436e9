package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestUses(t *testing.T) {
	// The goal: three uses admit, two do not; a count is seldom too high, in fixed memory;
	// and what is not asked for any more is forgotten.
	u := newUses(1 << 20)
	require.EqualValues(t, 1<<20/64, u.bytes())
	entries := (1 << 20) / usesEntry
	admitted := func(from, n int) (sum int) {
		for i := range n {
			if u.admits(uint64(from + i)) {
				sum++
			}
		}
		return sum
	}
	add := func(from, n int) {
		for i := range n {
			u.add(uint64(from + i))
		}
	}
	add(0, entries)
	add(0, entries)
	require.Less(t, admitted(0, entries), entries/100)
	add(0, entries)
	require.Greater(t, admitted(0, entries), entries/2, "all, but for the third whose lines were halved meanwhile")
	require.Less(t, admitted(1e6, entries), entries/20, "keys that nobody asked for")
	add(2e6, 16*entries) // every line is halved twice
	require.Less(t, admitted(0, entries), entries/5)
	require.EqualValues(t, 1<<20/64, u.bytes())

	require.Zero(t, (*uses)(nil).bytes())
	small := newUses(1)
	for range 3 {
		small.add(7)
	}
	require.True(t, small.admits(7))
}
