package cache

import (
	"testing"

	"github.com/stretchr/testify/require"
)

func TestCache_Inspect(t *testing.T) {
	// The goal: each tier says what it holds, stale or not, and is left as it was.
	c := open(t, Options{L1Bytes: 1 << 20, L2Bytes: 4 << 20})
	h := NewHorizon(1)
	hash, k := key(1)
	upper, lower := c.Inspect(h, hash, k)
	require.Equal(t, Held{On: true}, upper)
	require.Equal(t, Held{On: true}, lower)

	fill(t, c, h, 1, []byte("one"))
	require.True(t, c.l2.Load().set(newItem(0, hash, string(k), []byte("zero"))))
	c.settle()
	before := c.Metrics()
	upper, lower = c.Inspect(h, hash, k)
	require.Equal(t, Held{On: true, Has: true, Cell: []byte("one"), Stamp: 1, Fresh: true}, upper)
	require.Equal(t, Held{On: true, Has: true, Cell: []byte("zero")}, lower)
	upper, _ = c.Inspect(h, hash, []byte("another key of the same hash"))
	require.Equal(t, Held{On: true}, upper)

	// A generation with the key went down: neither may be used.
	next := h.Push(NewRecord(func(yield func(uint64) bool) { yield(hash) }, 1, nil), 1<<20)
	upper, _ = c.Inspect(next, hash, k)
	require.Equal(t, Held{On: true, Has: true, Cell: []byte("one"), Stamp: 1}, upper)
	c.settle()
	require.Equal(t, before, c.Metrics())

	hash, k = key(2)
	fill(t, c, h, 2, nil)
	c.settle()
	upper, lower = c.Inspect(h, hash, k)
	require.Equal(t, Held{On: true, Has: true, Stamp: 1, Fresh: true}, upper, "a known absence has no cell")
	require.Equal(t, Held{On: true}, lower)

	off := open(t, Options{})
	upper, lower = off.Inspect(h, hash, k)
	require.Zero(t, upper)
	require.Zero(t, lower)
	require.NoError(t, c.Close())
	upper, lower = c.Inspect(h, hash, k)
	require.Zero(t, upper)
	require.Zero(t, lower)
}
