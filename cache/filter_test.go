package cache

import (
	"hash/maphash"
	"strconv"
	"sync"
	"testing"

	"github.com/stretchr/testify/require"
)

func filterHash(seed maphash.Seed, i int) uint64 {
	return maphash.String(seed, "key "+strconv.Itoa(i))
}

// Goal: a filter never says no to a key it has, and at its capacity says yes to one in
// fifty others at most, whatever its size; beyond it gets worse slowly.
func TestFilter_answers(t *testing.T) {
	sizes := []int64{0, 64, 4 << 10, 100_000, 1 << 20}
	if raceEnabled {
		sizes = sizes[:4] // one goroutine, a million keys
	}
	for _, size := range sizes {
		f, seed := NewFilter(size), maphash.MakeSeed()
		wrong := func(keys int) float64 {
			for i := int(f.Keys()); i < keys; i++ {
				f.Add(filterHash(seed, i))
			}
			for i := range keys {
				require.True(t, f.Has(filterHash(seed, i)), "key %d of %d", i, keys)
			}
			yes := 0
			for i := range 100_000 {
				if f.Has(filterHash(seed, -1-i)) {
					yes++
				}
			}
			return float64(yes) / 100_000
		}
		require.LessOrEqual(t, f.Bytes(), max(size, 64))
		n := int(f.Capacity())
		if size >= 4<<10 {
			require.Less(t, wrong(n), 0.02, "%d bytes", size)
			require.Greater(t, f.Keys(), int64(float64(n)*0.98))
			require.Less(t, wrong(n*3/2), 0.1, "%d bytes", size)
		} else {
			require.LessOrEqual(t, wrong(n), 0.5, "%d bytes", size)
		}
	}
	var none *Filter
	require.True(t, none.Has(1))
	require.Zero(t, none.Bytes())
}

// Goal: what one goroutine has added, another finds, beside others that add.
func TestFilter_sideBySide(t *testing.T) {
	f, seed := NewFilter(64<<10), maphash.MakeSeed()
	var wg sync.WaitGroup
	for w := range 4 {
		wg.Go(func() {
			added := make(chan int, 5000)
			go func() {
				for i := range 5000 {
					f.Add(filterHash(seed, w*5000+i))
					added <- w*5000 + i
				}
				close(added)
			}()
			for i := range added {
				if !f.Has(filterHash(seed, i)) {
					t.Errorf("key %d is missing", i)
					break
				}
			}
		})
	}
	wg.Wait()
}
