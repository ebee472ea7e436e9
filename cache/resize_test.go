package cache

import (
	"math/rand/v2"
	"slices"
	"sync"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// pour reads n keys of size bytes each, from the first, past both tiers.
func pour(t testing.TB, c *Cache, first, n, size int) {
	h := NewHorizon(1)
	for i := first; i < first+n; i++ {
		hash, k := key(i)
		if _, tier := c.Get(h, hash, k); tier == Miss {
			fill(t, c, h, i, slices.Repeat([]byte{byte(i)}, size))
		}
		if i%256 == 0 {
			c.settle()
		}
	}
	c.settle()
}

func TestCache_Resize_bounds(t *testing.T) {
	// The goal: I10. After each change both tiers stay below their new bounds,
	// at once and when more is poured into them, smaller and larger, off and on.
	c := open(t, Options{L1Bytes: 4 << 20, L2Bytes: 4 << 20, Codec: CodecOff})
	pour(t, c, 0, 20_000, 500)
	for i, sizes := range [][2]int64{
		{2 << 20, 6 << 20}, {1 << 20, 7 << 20}, {7 << 20, 2 << 20}, {8 << 20, 0}, {0, 8 << 20},
		{0, 0}, {4 << 20, 0}, {0, 2 << 20}, {1 << 20, 20 << 20}, {minL1Bytes, 1 << 20}, {4 << 20, 4 << 20},
	} {
		before := c.Metrics()
		require.NoError(t, c.Resize(sizes[0], sizes[1]))
		for _, poured := range []int{0, 12_000} {
			pour(t, c, i*12_000, poured, 500)
			m := c.Metrics()
			if sizes[0] > minL1Bytes { // as much as its counters alone take: off
				require.LessOrEqual(t, m.L1Bytes, sizes[0]+64<<10, "L1, %d poured", poured)
				require.Equal(t, sizes[0], m.L1Capacity)
			} else {
				require.Zero(t, m.L1Capacity)
				require.LessOrEqual(t, m.L1Bytes, int64(l1QueueBytes+(256+64)<<10), "what ristretto keeps when it is empty")
				require.Nil(t, c.upper())
			}
			require.LessOrEqual(t, m.L2Bytes, max(sizes[1], 2<<20)+64<<10, "L2, %d poured", poured)
			require.Equal(t, sizes[1] > 0, m.L2Capacity > 0)
			if poured > 0 && sizes[0] > before.L1Capacity {
				require.Greater(t, m.L1Bytes, before.L1Capacity, "it grows into its bound")
			}
			if poured > 0 && sizes[1] > 0 {
				require.Greater(t, m.L2Bytes, sizes[1]/2)
			}
		}
	}
	require.Zero(t, c.l1.Load().pendingItems.Load())
	require.Error(t, c.Resize(-1, 0))
}

func TestCache_Resize_keeps(t *testing.T) {
	// The goal: what is used stays in an L1 that shrinks, what is not goes on to
	// L2; an L2 whose ring stays keeps what it has.
	c := open(t, Options{L1Bytes: 8 << 20, L2Bytes: 16 << 20, Codec: CodecOff})
	h := NewHorizon(1)
	pour(t, c, 0, 6000, 500)
	for i := range 1000 {
		hash, k := key(i)
		_, tier := c.Get(h, hash, k)
		require.Equal(t, L1, tier)
	}
	require.NoError(t, c.Resize(2<<20, 16<<20+1000))
	c.settle()
	var at [Load]int
	for i := range 6000 {
		hash, k := key(i)
		_, tier := c.Get(h, hash, k)
		at[tier]++
		if i == 999 {
			require.Greater(t, at[L1], 990)
		}
	}
	require.Less(t, at[Miss], 400)
	require.Greater(t, at[L2], 2000)
	t.Logf("miss %d, L1 %d, L2 %d", at[Miss], at[L1], at[L2])
}

func TestCache_Resize_admission(t *testing.T) {
	// The goal: an L1 that grew to the most it was made for admits as well as one that
	// was made so large. Counters for a sixteenth of it forget before they know.
	hits := func(o Options) int {
		c := open(t, o)
		h := NewHorizon(1)
		require.NoError(t, c.Resize(16<<20, 0))
		z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 10, 200_000)
		n := 0
		for i := range 600_000 {
			k := int(z.Uint64())
			hash, key := key(k)
			_, tier := c.Get(h, hash, key)
			switch {
			case tier == Miss:
				fill(t, c, h, k, make([]byte, 1000))
				if i%64 == 0 {
					c.settle()
				}
			case i > 300_000:
				n++
			}
		}
		return n
	}
	made, grew := hits(Options{L1Bytes: 16 << 20}), hits(Options{L1Bytes: 1 << 20, MaxL1Bytes: 16 << 20})
	t.Logf("made %d, grew %d", made, grew)
	require.Greater(t, grew, made*98/100)
}

func TestCache_Resize_concurrent(t *testing.T) {
	// The goal: with readers, loads and Close in motion; goleak sees what stays.
	for range 10 {
		c, err := New(Options{L1Bytes: 1 << 20, L2Bytes: 2 << 20})
		require.NoError(t, err)
		var wg sync.WaitGroup
		stop := make(chan struct{})
		for g := range 2 {
			wg.Go(func() {
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					hash, k := key(g*100 + i%3000)
					if _, tier := c.Get(NewHorizon(1), hash, k); tier == Miss {
						_, err := c.Load(NewHorizon(1), hash, k, value(make([]byte, 300)))
						require.NoError(t, err)
					}
				}
			})
		}
		for g := range 2 {
			wg.Go(func() {
				for i := range 20 {
					require.NoError(t, c.Resize(int64((i+g)%3)<<20, int64((i+g)%4)<<20))
				}
			})
		}
		time.Sleep(10 * time.Millisecond)
		require.NoError(t, c.Close())
		close(stop)
		wg.Wait()
		require.NoError(t, c.Resize(1<<20, 1<<20))
		hash, k := key(1)
		_, tier := c.Get(NewHorizon(1), hash, k)
		require.Equal(t, Miss, tier)
	}
}

func TestCache_Metrics_ghosts(t *testing.T) {
	// The goal: a loop a little larger than a tier is what a larger tier would
	// answer, and one much larger is not.
	for name, o := range map[string]Options{"L1": {L1Bytes: 4 << 20}, "L2": {L2Bytes: 4 << 20, Codec: CodecOff, Policy: PolicySecond}} {
		t.Run(name, func(t *testing.T) {
			// Both hold about 5,500 of these.
			ghosts := func(keys int) float64 {
				c := open(t, o)
				for range 3 {
					pour(t, c, 0, keys, 500)
				}
				m := c.Metrics()
				t.Logf("%d keys: misses %d, ghosts %d and %d, %d bytes", keys, m.Misses, m.L1Ghosts, m.L2Ghosts, m.GhostBytes)
				require.NotZero(t, m.GhostBytes)
				require.Less(t, m.GhostBytes, int64(4<<20)/64)
				if name == "L1" {
					require.Zero(t, m.L2Ghosts)
				}
				return float64(m.L1Ghosts+m.L2Ghosts) / float64(m.Misses)
			}
			near, far := ghosts(6300), ghosts(40_000)
			require.Greater(t, near, 0.05)
			require.Less(t, far, 0.02)
		})
	}
}
