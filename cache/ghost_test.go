package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestGhost_window(t *testing.T) {
	// The goal: I10. What went past within the window is known, what went past
	// before it is not, and the memory stays what it was.
	const window, cell = 1 << 20, 512
	g := newGhost(window, 256)
	before := g.bytes()
	n := 10 * window / cell
	for i := range n {
		g.add(uint64(i), cell)
	}
	require.Equal(t, before, g.bytes())
	require.EqualValues(t, window/256*4, g.bytes())
	young, old := 0, 0
	for i := range n {
		if !g.has(uint64(i)) {
			continue
		}
		if i >= n-window/cell {
			young++
		} else {
			old++
		}
	}
	require.Greater(t, young, window/cell*95/100)
	require.Less(t, old, 20)
	// Smaller cells than there are slots for: bounded all the same.
	for i := range n {
		g.add(uint64(i), 32)
	}
	known := 0
	for i := range n {
		if g.has(uint64(i)) {
			known++
		}
	}
	require.LessOrEqual(t, known, len(g.slots)+20)
	require.Greater(t, known, len(g.slots)/2)
}

func TestGhost_take(t *testing.T) {
	g := newGhost(1<<20, 256)
	require.False(t, g.take(7))
	g.add(7, 100)
	g.add(7, 100)
	require.True(t, g.has(7))
	require.True(t, g.take(7))
	require.False(t, g.take(7), "counted once")
}
