package cache

import (
	"errors"
	"fmt"
	"hash/maphash"
	"slices"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var hashSeed = maphash.MakeSeed()

func open(t testing.TB, o Options) *Cache {
	t.Helper()
	c, err := New(o)
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, c.Close()) })
	return c
}

func key(i int) (uint64, []byte) { return mix(uint64(i)), fmt.Appendf(nil, "key-%d", i) }

func value(cell []byte) func() ([]byte, error) {
	return func() ([]byte, error) { return cell, nil }
}

func forbidden() ([]byte, error) { return nil, errors.New("loaded") }

// settle waits until what was filled is where it will be.
func (c *Cache) settle() {
	if up := c.l1.Load(); up != nil {
		up.cache.Wait()
	}
	for i := 0; i < 1000 && c.queue.bytes.Load() != 0; i++ {
		time.Sleep(time.Millisecond)
	}
	if up := c.l1.Load(); up != nil {
		up.cache.Wait()
	}
}

func fill(t testing.TB, c *Cache, h *Horizon, i int, cell []byte) {
	hash, k := key(i)
	got, err := c.Load(h, hash, k, value(cell))
	require.NoError(t, err)
	require.Equal(t, cell, got)
}

func TestCache_Get_tiers(t *testing.T) {
	// The goal: a filled cell is found in L1; when L1 lets it go, in L2; and
	// from there it goes up again.
	c := open(t, Options{L1Bytes: 1 << 20, L2Bytes: 4 << 20, Policy: PolicyVictim})
	h := NewHorizon(1)
	hash, k := key(1)
	_, tier := c.Get(h, hash, k)
	require.Equal(t, Miss, tier)
	fill(t, c, h, 1, []byte("one"))
	c.settle()
	cell, tier := c.Get(h, hash, k)
	require.Equal(t, L1, tier)
	require.Equal(t, "one", string(cell))

	for i := range 5000 { // push the first ones out
		fill(t, c, h, i, slices.Repeat([]byte{byte(i)}, 500))
		if i%64 == 0 {
			c.settle()
		}
	}
	c.settle()
	m := c.Metrics()
	require.NotZero(t, m.Victims)
	var up int
	for i := range 5000 {
		hash, k := key(i)
		if cell, tier := c.Get(h, hash, k); tier == L2 {
			require.Equal(t, slices.Repeat([]byte{byte(i)}, 500), cell)
			c.settle()
			if _, tier := c.Get(h, hash, k); tier == L1 {
				up++
			}
		}
	}
	require.NotZero(t, up)
	t.Logf("%d went up; %+v", up, c.Metrics())
}

func TestCache_Get_stale(t *testing.T) {
	// The goal: what a generation replaced is not served from either tier, and
	// what it did not touch is; a hit proves the entry for the newer horizon.
	for _, o := range []Options{{L1Bytes: 1 << 20}, {L2Bytes: 1 << 20}, {L1Bytes: 1 << 20, L2Bytes: 1 << 20}} {
		c := open(t, o)
		h := NewHorizon(5)
		fill(t, c, h, 1, []byte("one"))
		fill(t, c, h, 2, []byte("two"))
		c.settle()
		h1, k1 := key(1)
		h2, k2 := key(2)
		next := h.Push(NewRecord(slices.Values([]uint64{h1}), 1, nil), 1<<20)
		_, tier := c.Get(next, h1, k1)
		require.Equal(t, Miss, tier)
		cell, tier := c.Get(next, h2, k2)
		require.NotEqual(t, Miss, tier)
		require.Equal(t, "two", string(cell))

		// An older reader with the older view may still use it.
		_, tier = c.Get(h, h1, k1)
		require.NotEqual(t, Miss, tier)
		if o.L1Bytes > 0 {
			c.settle()
			floor := NewHorizon(next.Seq()) // knows nothing older
			_, tier = c.Get(floor, h2, k2)
			require.Equal(t, L1, tier, "stamped anew by the hit")
			_, tier = c.Get(h, h2, k2)
			require.Equal(t, L1, tier)
			_, tier = c.Get(floor, h2, k2)
			require.Equal(t, L1, tier, "an older reader does not lower the stamp")
		}
		// The reload replaces it.
		fill(t, c, next, 1, []byte("one and more"))
		c.settle()
		cell, tier = c.Get(next, h1, k1)
		require.NotEqual(t, Miss, tier, "%+v", o)
		require.Equal(t, "one and more", string(cell))
	}
}

func TestCache_Load_stampOfTheView(t *testing.T) {
	// The goal: C2. A load under an old view is stamped with it, whatever
	// happened since.
	c := open(t, Options{L1Bytes: 1 << 20})
	old := NewHorizon(1)
	hash, k := key(1)
	next := old.Push(NewRecord(slices.Values([]uint64{hash}), 1, nil), 1<<20)
	_, err := c.Load(old, hash, k, value([]byte("old")))
	require.NoError(t, err)
	c.settle()
	_, tier := c.Get(next, hash, k)
	require.Equal(t, Miss, tier)
}

func TestCache_Load_join(t *testing.T) {
	c := open(t, Options{L1Bytes: 1 << 20})
	h := NewHorizon(1)
	hash, k := key(1)
	next := h.Push(NewRecord(slices.Values([]uint64{hash}), 1, nil), 1<<20)

	started, release := make(chan struct{}), make(chan struct{})
	var wg sync.WaitGroup
	wg.Go(func() {
		cell, err := c.Load(h, hash, k, func() ([]byte, error) {
			close(started)
			<-release
			return []byte("old"), nil
		})
		require.NoError(t, err)
		require.Equal(t, "old", string(cell))
	})
	<-started
	// A reader of the newer view must not join, and does not wait.
	cell, err := c.Load(next, hash, k, value([]byte("new")))
	require.NoError(t, err)
	require.Equal(t, "new", string(cell))
	// Neither does another key under the same hash.
	cell, err = c.Load(h, hash, []byte("other"), value([]byte("others")))
	require.NoError(t, err)
	require.Equal(t, "others", string(cell))

	// Readers of the same view do.
	hash2, k2 := key(2)
	var loads atomic.Int32
	gate := make(chan struct{})
	for range 8 {
		wg.Go(func() {
			cell, err := c.Load(h, hash2, k2, func() ([]byte, error) {
				loads.Add(1)
				<-gate
				return []byte("two"), nil
			})
			require.NoError(t, err)
			require.Equal(t, "two", string(cell))
		})
	}
	require.Eventually(t, func() bool { return c.Metrics().Joins == 7 }, 10*time.Second, time.Millisecond)
	close(gate)
	close(release)
	wg.Wait()
	require.EqualValues(t, 1, loads.Load())
}

func TestCache_Load_failure(t *testing.T) {
	// The goal: an error or panic of the leader is not the joiners' and leaves
	// nothing behind.
	c := open(t, Options{L1Bytes: 1 << 20})
	h := NewHorizon(1)
	for i, fail := range []func() ([]byte, error){forbidden, func() ([]byte, error) { panic("load") }} {
		hash, k := key(i)
		started, release := make(chan struct{}), make(chan struct{})
		var wg sync.WaitGroup
		wg.Go(func() {
			defer func() { _ = recover() }()
			_, err := c.Load(h, hash, k, func() ([]byte, error) {
				close(started)
				<-release
				return fail()
			})
			require.Error(t, err)
		})
		<-started
		before := c.Metrics().Joins
		wg.Go(func() {
			cell, err := c.Load(h, hash, k, value([]byte("mine")))
			require.NoError(t, err)
			require.Equal(t, "mine", string(cell))
		})
		require.Eventually(t, func() bool { return c.Metrics().Joins > before }, 10*time.Second, time.Millisecond)
		close(release)
		wg.Wait()
		c.settle()
		fill(t, c, h, i, []byte("after"))
	}
}

func TestCache_Get_absence(t *testing.T) {
	// The goal: absence and the empty cell are two things, in both tiers.
	for _, o := range []Options{{L1Bytes: 1 << 20}, {L2Bytes: 1 << 20}} {
		c := open(t, o)
		h := NewHorizon(1)
		fill(t, c, h, 1, nil)
		fill(t, c, h, 2, []byte{})
		c.settle()
		hash, k := key(1)
		cell, tier := c.Get(h, hash, k)
		require.NotEqual(t, Miss, tier)
		require.Nil(t, cell)
		_, ok := c.Peek(h, hash, k)
		require.False(t, ok, "an absence has no revision to compare")
		hash, k = key(2)
		cell, tier = c.Get(h, hash, k)
		require.NotEqual(t, Miss, tier)
		require.NotNil(t, cell)
		require.Empty(t, cell)
		_, ok = c.Peek(h, hash, k)
		require.True(t, ok)
	}
}

func TestCache_Load_oversize(t *testing.T) {
	// The goal: what is too large passes through and displaces nothing.
	for _, o := range []Options{{L1Bytes: 1 << 20}, {L2Bytes: 1 << 20}} {
		c := open(t, o)
		h := NewHorizon(1)
		fill(t, c, h, 1, []byte("small"))
		c.settle()
		fill(t, c, h, 2, make([]byte, 1<<20))
		long := []byte(strings.Repeat("k", 70_000))
		cell, err := c.Load(h, 77, long, value([]byte("v")))
		require.NoError(t, err)
		require.Equal(t, "v", string(cell))
		c.settle()
		_, tier := c.Get(h, 77, long)
		require.Equal(t, Miss, tier)
		hash, k := key(2)
		_, tier = c.Get(h, hash, k)
		require.Equal(t, Miss, tier)
		hash, k = key(1)
		_, tier = c.Get(h, hash, k)
		require.NotEqual(t, Miss, tier)
		require.EqualValues(t, 2, c.Metrics().Refused)
	}
}

func TestL2_set_gates(t *testing.T) {
	// The goal: every size the gate lets through is stored without losing the
	// neighbours, and every size it stops would not be.
	l, err := newL2(1<<20, nil, &codec{mode: CodecOff}, PolicySecond)
	require.NoError(t, err)
	defer l.close()
	require.Equal(t, int(l.ring), l.cache.Capacity(), "preallocated")
	for i := range 200 {
		require.True(t, l.set(newItem(1, 0, fmt.Sprint("n", i), []byte("x"))))
	}
	for n := 1; n < l.maxEntry; n = n*2 + 1 {
		require.Equal(t, l.fits(1, n), l.set(newItem(1, 0, "k", make([]byte, n))))
	}
	largest := l.maxEntry - 1 - l2HeaderBytes - l2EntryBytes
	require.True(t, l.set(newItem(1, 0, "k", make([]byte, largest))))
	require.False(t, l.set(newItem(1, 0, "k", make([]byte, largest+1))))
	require.False(t, l.set(newItem(1, 0, strings.Repeat("k", 65_536), nil)))
	require.Greater(t, l.cache.Len(), 100)
	// Full turns of the ring with odd sizes.
	for i := range 3000 {
		require.True(t, l.set(newItem(uint64(i), 0, fmt.Sprint("t", i), make([]byte, i*37%l.maxEntry/2))))
		stamp, entry, ok := l.find(fmt.Sprint("t", i))
		require.True(t, ok)
		cell, err := l.codec.decode(entry)
		require.NoError(t, err)
		require.Equal(t, uint64(i), stamp)
		require.Len(t, cell, i*37%l.maxEntry/2)
	}
	require.False(t, l.broken.Load())
}

func TestL2_new_sizes(t *testing.T) {
	for _, size := range []int64{1 << 20, 2 << 20, 3 << 20, 7 << 20, 64 << 20, 200 << 20} {
		l, err := newL2(size, nil, &codec{}, PolicySecond)
		require.NoError(t, err)
		require.Equal(t, l.ring/int64(l.shards)*int64(l.shards), int64(l.cache.Capacity()))
		require.GreaterOrEqual(t, l.maxEntry, 64<<10)
		t.Logf("%d MiB: ring %d MiB, %d shards, entries up to %d", size>>20, l.ring>>20, l.shards, l.maxEntry)
		require.NoError(t, l.close())
	}
}

func TestL2_guard(t *testing.T) {
	// The goal: C9. A panic inside bigcache turns the tier off and reaches nobody.
	c := open(t, Options{L2Bytes: 1 << 20})
	c.l2.Load().cache = nil // any call is a panic now
	hash, k := key(1)
	_, tier := c.Get(NewHorizon(0), hash, k)
	require.Equal(t, Miss, tier)
	require.True(t, c.l2.Load().broken.Load())
	_, tier = c.Get(NewHorizon(0), hash, k)
	require.Equal(t, Miss, tier)
	c.Metrics()
	require.ErrorContains(t, c.Close(), "turned off")
}

func TestCache_bound(t *testing.T) {
	// The goal: C7 and I10. Past its bound a tier forgets, and what it says it
	// holds stays below the option; also when entries grow in place.
	c := open(t, Options{L1Bytes: 2 << 20, L2Bytes: 2 << 20})
	h := NewHorizon(1)
	for round := range 3 {
		for i := range 4000 {
			hash, k := key(i)
			cell := make([]byte, 100+round*400+i%300)
			c.Get(h, hash, k)
			_, err := c.Load(h, hash, k, value(cell))
			require.NoError(t, err)
			c.Offer(NewHorizon(h.Seq()+1), hash, k, cell)
			require.LessOrEqual(t, c.l1.Load().pendingItems.Load(), int64(maxPending))
			// A refused attempt is counted for a moment, so one entry of slack.
			require.LessOrEqual(t, c.queue.bytes.Load(), c.queue.maxBytes.Load()+8<<10)
		}
		h = NewHorizon(h.Seq() + 2)
	}
	c.settle()
	m := c.Metrics()
	require.LessOrEqual(t, m.L1Bytes, int64(2<<20)+64<<10)
	require.LessOrEqual(t, m.L2Bytes, int64(2<<20)+64<<10)
	require.NotZero(t, m.Evictions)
	require.Zero(t, c.l1.Load().pendingItems.Load(), "the count of what is queued drifted")
	require.Zero(t, c.l1.Load().pendingBytes.Load())
	t.Logf("%+v", m)
}

func TestCache_bound_tiny(t *testing.T) {
	// The goal: I10. The ring is of bytes; what a tiny entry takes of bigcache's
	// maps is bounded, too, after the buffers for large ones have grown as well.
	for _, large := range []int{0, 60 << 10} {
		c := open(t, Options{L2Bytes: 4 << 20, Policy: PolicyVictim})
		h := NewHorizon(1)
		for i := range min(64, large) {
			fill(t, c, h, i, noise(i, large))
			c.settle()
		}
		for i := range 120_000 {
			fill(t, c, h, 1000+i, []byte{byte(i), byte(i >> 8)})
			if i%1024 == 0 {
				c.settle()
			}
		}
		c.settle()
		m := c.Metrics()
		require.LessOrEqual(t, m.L2Bytes, int64(4<<20)+64<<10, "%d entries of two bytes", c.l2.Load().cache.Len())
		require.Greater(t, m.L2Bytes, int64(7<<19), "and it is used")
		hash, k := key(1000 + 119_999)
		cell, tier := c.Get(h, hash, k)
		require.Equal(t, L2, tier)
		require.Equal(t, []byte{119_999 & 0xff, 119_999 >> 8 & 0xff}, cell, "its padding is gone")
		t.Logf("%d entries, %d bytes", c.l2.Load().cache.Len(), m.L2Bytes)
	}
}

func TestCache_bound_queue(t *testing.T) {
	// The goal: C7. While the drain goroutine stands still, nobody waits for it:
	// what is between the tiers stays below its bounds, in entries and in bytes,
	// the rest is dropped and counted, and afterwards all goes on.
	for size, l2 := range map[int]int64{10: 32 << 20, 3000: 8 << 20} { // entries are bounded there, bytes here
		var still atomic.Bool
		resume := make(chan struct{})
		c := open(t, Options{L1Bytes: 2 << 20, L2Bytes: l2, Codec: CodecOff, Policy: PolicyVictim, Hash: func(key string) uint64 {
			if still.Load() { // called by the drain for what it puts into L2
				<-resume
			}
			return maphash.String(hashSeed, key)
		}})
		h := NewHorizon(1)
		still.Store(true)
		for i := range 4 * maxQueued {
			fill(t, c, h, i, make([]byte, size))
			require.LessOrEqual(t, len(c.queue.jobs), maxQueued)
			require.LessOrEqual(t, c.queue.bytes.Load(), c.queue.maxBytes.Load()+8<<10)
		}
		c.l1.Load().cache.Wait()
		require.True(t, c.queue.full())
		require.NotZero(t, c.Metrics().Dropped)
		still.Store(false)
		close(resume)
		c.settle()
		require.Zero(t, c.queue.bytes.Load())
		before := c.Metrics().Victims
		require.Greater(t, before, uint64(100))
		for i := range 1000 {
			fill(t, c, h, 1_000_000+i, make([]byte, 3000))
		}
		c.settle()
		require.Greater(t, c.Metrics().Victims, before)
	}
}

func TestL1_put_bound(t *testing.T) {
	// The goal: C7. ristretto's worker stands still in a callback: what waits for
	// it stays below both bounds, a put is refused and never waits, and the count
	// comes back to zero.
	for size, l1 := range map[int]int64{1: 16 << 20, 2000: 2 << 20} { // items are bounded there, bytes here
		still := make(chan struct{})
		var stand sync.Once
		stands := make(chan struct{})
		l, err := newL1(l1, l1, 64<<10, func(*item, bool) {
			stand.Do(func() { close(stands) })
			<-still
		})
		require.NoError(t, err)
		stood := func() bool {
			select {
			case <-stands:
				return true
			default:
				return false
			}
		}
		for i, refused := 0, 0; refused < 20_000; i++ {
			if !l.put(newItem(1, mix(uint64(i)), fmt.Sprint(i), make([]byte, size))) && stood() {
				refused++
			}
			require.LessOrEqual(t, l.pendingItems.Load(), int64(maxPending))
			require.LessOrEqual(t, l.pendingBytes.Load(), l.maxPendingBytes.Load())
		}
		require.LessOrEqual(t, l.bytes(), l1+l.maxPendingBytes.Load())
		close(still)
		l.cache.Wait()
		require.Zero(t, l.pendingItems.Load())
		require.Zero(t, l.pendingBytes.Load())
		require.LessOrEqual(t, l.bytes(), l1)
		l.cache.Close()
	}
}

func TestCache_Offer(t *testing.T) {
	c := open(t, Options{L1Bytes: 1 << 20})
	h := NewHorizon(1)
	require.False(t, c.Warm())
	fill(t, c, h, 1, []byte("old"))
	c.settle()
	require.True(t, c.Warm())
	h1, k1 := key(1)
	h2, k2 := key(2)
	next := h.Push(NewRecord(slices.Values([]uint64{h1, h2}), 2, nil), 1<<20)
	cell := []byte("new!")
	c.Offer(next, h1, k1, cell)
	c.Offer(next, h2, k2, cell)
	cell[0] = 'X' // C6: copied
	c.settle()
	got, tier := c.Get(next, h1, k1)
	require.Equal(t, L1, tier)
	require.Equal(t, "new!", string(got))
	_, tier = c.Get(next, h2, k2)
	require.Equal(t, Miss, tier, "only where L1 held the key")
	c.Touch(h2)
	c.Offer(next, h2, k2, []byte("touched"))
	c.settle()
	got, tier = c.Get(next, h2, k2)
	require.Equal(t, L1, tier)
	require.Equal(t, "touched", string(got))
	c.Offer(h, h1, k1, []byte("older"))
	c.settle()
	got, _ = c.Get(next, h1, k1)
	require.Equal(t, "new!", string(got), "an older offer does not replace a newer entry")
}

func TestCache_Close(t *testing.T) {
	// The goal: idempotent, and whoever comes later finds nothing and does no harm.
	c, err := New(Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20})
	require.NoError(t, err)
	h := NewHorizon(1)
	for i := range 3000 {
		fill(t, c, h, i, make([]byte, 400))
	}
	require.NoError(t, c.Close())
	require.NoError(t, c.Close())
	hash, k := key(1)
	_, tier := c.Get(h, hash, k)
	require.Equal(t, Miss, tier)
	_, ok := c.Peek(h, hash, k)
	require.False(t, ok)
	fill(t, c, h, 1, []byte("still loads"))
	c.Offer(h, hash, k, nil)
	c.Touch(hash)
	c.Metrics()
}

func TestCache_Close_withLoads(t *testing.T) {
	// The goal: a load that ends after Close does not panic in ristretto.
	for range 20 {
		c, err := New(Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20})
		require.NoError(t, err)
		var wg sync.WaitGroup
		var loaded atomic.Int32
		for g := range 4 {
			wg.Go(func() {
				for i := range 400 {
					hash, k := key(g*1000 + i)
					_, err := c.Load(NewHorizon(1), hash, k, value(make([]byte, 300)))
					require.NoError(t, err)
					loaded.Add(1)
				}
			})
		}
		for loaded.Load() < 200 {
			time.Sleep(10 * time.Microsecond)
		}
		require.NoError(t, c.Close())
		wg.Wait()
	}
}

func TestNew_options(t *testing.T) {
	_, err := New(Options{L1Bytes: -1})
	require.Error(t, err)
	c := open(t, Options{}) // both off
	fill(t, c, NewHorizon(0), 1, []byte("x"))
	m := c.Metrics()
	require.Zero(t, m.L1Capacity+m.L2Capacity)
	c = open(t, Options{L1Bytes: minL1Bytes - 1, L2Bytes: minL2Bytes - 1})
	require.Nil(t, c.l1.Load())
	require.Nil(t, c.l2.Load())
	o, err := Options{L1Bytes: 64 << 20, L2Bytes: 64 << 20}.withDefaults()
	require.NoError(t, err)
	require.EqualValues(t, 64<<10, o.MaxEntry)
	o, err = Options{L1Bytes: 1 << 20, MaxEntry: 1 << 30}.withDefaults()
	require.NoError(t, err)
	require.EqualValues(t, 256<<10, o.MaxEntry)
}

func TestCache_allocs(t *testing.T) {
	// The goal: the numbers promised for hot paths: no allocation in L1, three in L2.
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	c := open(t, Options{L1Bytes: 1 << 20})
	h := NewHorizon(1)
	fill(t, c, h, 1, []byte("one"))
	c.settle()
	hash, k := key(1)
	require.Zero(t, testing.AllocsPerRun(5000, func() {
		if _, tier := c.Get(h, hash, k); tier != L1 {
			t.Fatal(tier)
		}
	}))

	// The promotion is queued, and allocates on the goroutine that drains it;
	// a full queue shows the reader's part alone.
	c = open(t, Options{L1Bytes: 1 << 20, L2Bytes: 1 << 20})
	require.True(t, c.l2.Load().set(newItem(1, hash, string(k), make([]byte, 300))))
	c.queue.bytes.Add(c.queue.maxBytes.Load())
	require.LessOrEqual(t, testing.AllocsPerRun(5000, func() {
		if _, tier := c.Get(h, hash, k); tier != L2 {
			t.Fatal(tier)
		}
	}), 3.0)
	c.queue.bytes.Add(-c.queue.maxBytes.Load())
}

func BenchmarkCache_Get(b *testing.B) {
	h := NewHorizon(1)
	hash, k := key(1)
	b.Run("from=L1", func(b *testing.B) {
		c := open(b, Options{L1Bytes: 4 << 20})
		fill(b, c, h, 1, make([]byte, 256))
		c.settle()
		b.ReportAllocs()
		for b.Loop() {
			c.Get(h, hash, k)
		}
	})
	b.Run("from=L2", func(b *testing.B) {
		c := open(b, Options{L2Bytes: 4 << 20})
		c.l2.Load().set(newItem(1, hash, string(k), make([]byte, 256)))
		b.ReportAllocs()
		for b.Loop() {
			c.Get(h, hash, k)
		}
	})
}
