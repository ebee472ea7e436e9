package engine

import (
	"context"
	"fmt"
	"math/rand"
	"runtime"
	"runtime/debug"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cache"
)

// Goal: the account knows every tier, and Used is at least what they are.
func TestGovernor_account(t *testing.T) {
	e, err := Open(t.TempDir(), &Options{MemoryBudget: 64 << 20, Sync: SyncNever, Compression: CompressNone})
	require.NoError(t, err)
	defer e.Close()
	require.Positive(t, e.Metrics().Memory.L2, "its ring is there from the start")
	for i := range 2000 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%04d", i), make([]byte, 1000)))
	}
	require.Greater(t, e.Metrics().Memory.Generations, int64(2000*1000))
	s, err := e.Snapshot()
	require.NoError(t, err)
	flush(t, e)
	require.Greater(t, e.Metrics().Memory.Pinned, int64(2000*1000))
	require.NoError(t, s.Close())
	large := blobValue(rand.New(rand.NewSource(1)), 1<<20)
	require.NoError(t, e.Put([]byte("large"), large))
	require.NoError(t, e.Sync(context.Background())) // only what is synced is mapped
	require.NoError(t, e.View([]byte("large"), func([]byte) error {
		require.GreaterOrEqual(t, e.Metrics().Memory.Mapped, int64(len(large)))
		return nil
	}))
	for i := range 2000 {
		_, err := e.Get(fmt.Appendf(nil, "k%04d", i))
		require.NoError(t, err)
	}
	m := e.Metrics().Memory
	require.Zero(t, m.Pinned)
	for what, n := range map[string]int64{
		"L1": m.L1, "records": m.Records, "log": m.Log, "blobs": m.Blobs, "blocks": m.Blocks, "tables": m.Tables, "resident": m.Resident,
	} {
		require.Positive(t, n, what)
	}
	require.GreaterOrEqual(t, m.Used, m.heap()+m.outside())
	require.InDelta(t, 1.75, m.HeapFactor, 0.76)
	require.Equal(t, e.opts.MemoryBudget, m.Budget)
}

// Goal: without L2 its memory is L1's, from the start and after any number of turns.
func TestGovernor_noL2(t *testing.T) {
	both := (&Options{MemoryBudget: 64 << 20}).shares()
	e, err := Open(t.TempDir(), &Options{MemoryBudget: 64 << 20, Sync: SyncNever, NoL2: true})
	require.NoError(t, err)
	defer e.Close()
	e.governor.still.Store(true)
	for range 5 * int(splitEvery/governEvery) {
		for range 100 {
			_, err := e.Get([]byte("nothing"))
			require.ErrorIs(t, err, ErrNotFound)
		}
		e.govern()
	}
	require.Equal(t, both.l1+both.l2, e.shares().l1)
	require.Zero(t, e.shares().l2)
	require.Zero(t, e.Metrics().Memory.L2)
}

// Goal: what generations and mappings do not use, the caches have; they give it back when
// it is used, and above the budget every tier gets smaller, down to a quarter and no
// further.
func TestGovernor_divide(t *testing.T) {
	o := Options{MemoryBudget: 256 << 20, TuneGC: true}
	base := o.shares()
	m := MemoryMetrics{Budget: o.MemoryBudget, HeapFactor: 2}
	g := governor{squeeze: 1, split: cache.Split{Part: 0.5}, gc: collectorTuning{on: true, want: mostPercent}}
	idle := g.divide(&o, &m)
	require.Greater(t, idle.l1+idle.l2, 2*(base.l1+base.l2))
	g.gc.want = leastPercent
	cheap := g.divide(&o, &m)
	require.Greater(t, cheap.l1+cheap.l2, 4*(idle.l1+idle.l2)/3, "a collector that costs little leaves more")
	require.LessOrEqual(t, cheap.l1+cheap.l2, o.MemoryBudget*5/8)
	g.gc = collectorTuning{}
	require.Equal(t, base.generation, idle.generation)
	o.TuneGC = false
	untuned := g.divide(&o, &m)
	require.Equal(t, base.l1+base.l2, untuned.l1+untuned.l2)
	g.maps.see(2 * base.generation)
	g.pages.see(base.mapped)
	busy := g.divide(&o, &m)
	require.LessOrEqual(t, busy.l1+busy.l2, base.l1+base.l2)
	require.Greater(t, busy.l1+busy.l2, (base.l1+base.l2)/2)
	g.pinned.see(base.generation)
	require.Equal(t, base.generation*3/4, g.divide(&o, &m).generation, "snapshots hold as much")
	g.pinned.see(100 * base.generation)
	require.Equal(t, (base.generation+1)/2, g.divide(&o, &m).generation)
	g.pinned = peak{}
	total := 2*(2*base.generation+busy.l1+busy.l2) + base.blocks + base.mapped
	require.Less(t, total, o.MemoryBudget*11/10)
	g.squeeze = leastSqueeze
	least := g.divide(&o, &m)
	require.Equal(t, base.mapped/4, least.mapped)
	require.Equal(t, base.generation/2, least.generation)
	require.Less(t, least.l1+least.l2, (busy.l1+busy.l2)/3)
}

// Goal: above the hard limit writers wait, at most StallLimit, and go on when a flush has
// made room; without anything that a flush could take down nobody waits.
func TestGovernor_hardLimit(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever, StallLimit: 10 * time.Second})
	value := make([]byte, 1000)
	for i := range 1500 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%04d", i), value))
	}
	e.governor.mu.Lock()
	e.governor.budget = 1 << 20 // many times less than what is there
	e.governor.mu.Unlock()
	e.govern()
	require.EqualValues(t, 1, e.Pressure())
	require.NoError(t, e.Put([]byte("k"), value), "the flush that the governor asked for made room")
	flush(t, e)
	e.govern()
	require.False(t, e.governor.full.Load(), "nothing is left that a flush could take down")
	e.governor.turn.Lock()
	require.Less(t, e.governor.squeeze, 1.0)
	e.governor.turn.Unlock()
	require.Positive(t, e.Metrics().Stall.Count)

	e.governor.full.Store(true) // as if a flush hung
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	b := e.NewBatch()
	defer b.Close()
	require.NoError(t, b.Put([]byte("k"), nil))
	_, err := e.ApplyContext(ctx, b)
	require.ErrorIs(t, err, ErrBusy)
}

// Goal: the budget is changed both ways while the store is open, and what is too small is
// refused by name.
func TestEngine_SetMemoryBudget(t *testing.T) {
	e, err := Open(t.TempDir(), &Options{MemoryBudget: 64 << 20})
	require.NoError(t, err)
	defer e.Close()
	was := *e.shares()
	require.NoError(t, e.SetMemoryBudget(256<<20))
	require.Equal(t, sharesOf(256<<20, 0).generation, e.shares().generation)
	require.Greater(t, e.shares().generation, 4*was.generation)
	require.Equal(t, was.blocks, e.shares().blocks)
	require.EqualValues(t, 256<<20, e.Metrics().Memory.Budget)
	require.NoError(t, e.SetMemoryBudget(32<<20))
	half := sharesOf(32<<20, 0)
	for _, s := range [][2]int64{{e.shares().generation, half.generation}, {e.shares().mapped, half.mapped}} {
		require.LessOrEqual(t, s[0], s[1]) // less where the account is still above it
		require.GreaterOrEqual(t, s[0], s[1]/4)
	}
	for _, n := range []int64{-1, 0, 1 << 20, 15 << 20} {
		require.ErrorIs(t, e.SetMemoryBudget(n), ErrArgument)
	}
	require.NoError(t, e.Close())
	require.ErrorIs(t, e.SetMemoryBudget(64<<20), ErrClosed)
}

// Goal: the percent follows what the collector costs, between its bounds, and nothing is
// concluded before another turn of it was counted.
func TestCollectorTuning_weigh(t *testing.T) {
	c := collectorTuning{want: mostPercent}
	gc, all := 0.0, 0.0
	turns := func(n int, share float64) int {
		for range n {
			gc, all = gc+share, all+1
			c.weigh(gc, all)
			c.weigh(gc, all)
		}
		return c.want
	}
	require.Less(t, turns(3, cheapShare/2), mostPercent)
	require.Greater(t, c.want, mostPercent/2)
	require.Equal(t, leastPercent, turns(30, cheapShare/2))
	require.Equal(t, leastPercent, turns(30, (cheapShare+dearShare)/2), "neither cheap nor dear")
	require.Greater(t, turns(3, dearShare*2), leastPercent)
	require.Equal(t, mostPercent, turns(30, dearShare*2))
	require.InDelta(t, 2+tunedSpare, c.factor(), 1e-9)
}

// Goal: with TuneGC the runtime's settings follow, one store of a process has them, and
// Close puts back what the host had.
func TestOptions_TuneGC(t *testing.T) {
	const host, most = 400, 1 << 40 // a percent that tuning never sets
	percent, limit := debug.SetGCPercent(host), debug.SetMemoryLimit(most)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) }) // after the stores are closed
	settings := func() (int, int64) {
		p := debug.SetGCPercent(host)
		debug.SetGCPercent(p)
		return p, debug.SetMemoryLimit(-1)
	}
	e := open(t, t.TempDir(), Options{TuneGC: true, Sync: SyncNever, MemoryBudget: 64 << 20})
	other := open(t, t.TempDir(), Options{TuneGC: true})
	e.govern()
	p, l := settings()
	require.NotEqual(t, host, p)
	require.Less(t, l, int64(most))
	other.govern()
	require.False(t, other.governor.gc.on)
	require.NoError(t, other.Close())
	p, _ = settings()
	require.NotEqual(t, host, p)
	require.NoError(t, e.Close())
	p, l = settings()
	require.Equal(t, host, p)
	require.EqualValues(t, most, l)
	runtime.GC()
}

// Goal: the stacks of the host's goroutines are in the runtime's limit, and in what the
// percent is of.
func TestCollectorTuning_stacks(t *testing.T) {
	percent, limit := debug.SetGCPercent(100), debug.SetMemoryLimit(1<<40)
	t.Cleanup(func() { debug.SetGCPercent(percent); debug.SetMemoryLimit(limit) })
	var c collectorTuning
	defer c.end()
	tune := func() {
		runtime.GC() // stacks that nobody has any more are the heap's again
		c.tune(&Options{TuneGC: true}, &MemoryMetrics{Budget: 64 << 20, Generations: 32 << 20})
	}
	tune()
	require.True(t, c.on, "a store of another test tunes the runtime")
	was := c
	const stacks = 2000
	release, deep := make(chan struct{}), make(chan struct{}, stacks)
	for range stacks {
		go func() {
			var frame [20 << 10]byte
			frame[len(deep)%len(frame)]++
			deep <- struct{}{}
			<-release
			runtime.KeepAlive(&frame)
		}()
	}
	for range stacks {
		<-deep
	}
	tune()
	require.Greater(t, c.set, was.set+stacks*(16<<10))
	require.Less(t, c.now, was.now/2+10, "32 MiB are live, and as many of stacks")
	close(release)
}

// Goal: the tiers' shares follow what is read. Values that do not compress take L2's room
// to L1, states that do bring it back, and each time the reason is told.
func TestGovernor_sharesFollowLoad(t *testing.T) {
	e := open64(t)
	rnd := rand.New(rand.NewSource(1))
	noise := func(int) []byte { return blobValue(rnd, 1000) }
	state := func(i int) []byte {
		return fmt.Appendf(nil, `{"id":"client-%06d","open":[%s],"limits":{"day":%d,"month":%d}}`, i,
			strings.Repeat(fmt.Sprintf(`{"session":%d,"region":"north","state":"active"},`, i), 15), i*7, i*31)
	}
	const keys = 40_000
	fill := func(kind string, value func(i int) []byte) {
		for i := range keys {
			require.NoError(t, e.Put(fmt.Appendf(nil, "%s%06d", kind, i), value(i)))
		}
		flush(t, e)
	}
	// turns lets reads of a kind alternate with turns of the governor, each of which looks
	// at the split, until the shares are as they should be.
	turns := func(kind string, settled func(l2 int64) bool) string {
		z := rand.NewZipf(rnd, 1.05, 10, keys-1)
		for range 60 {
			for range 10_000 {
				_, err := e.Get(fmt.Appendf(nil, "%s%06d", kind, z.Uint64()*7919%keys))
				require.NoError(t, err)
			}
			e.governor.turn.Lock()
			e.governor.looked, e.governor.resized = splitEvery, time.Time{}
			for tier, us := range map[Tier]int64{TierL1: 1, TierL2: 3, TierL3: 100} { // a disk's, on any machine
				e.latency.recent[tier].samples.Store(recentSamples)
				e.latency.recent[tier].nanos.Store(us * 1000 * recentParts)
			}
			e.governor.turn.Unlock()
			e.govern()
			if m := e.Metrics().Memory; settled(e.shares().l2) {
				require.Equal(t, e.shares().l1, m.L1Limit)
				require.Equal(t, e.shares().l2, m.L2Limit)
				return m.Why
			}
		}
		t.Fatalf("%s: L1 has %d, L2 %d: %s", kind, e.shares().l1, e.shares().l2, e.Metrics().Memory.Why)
		return ""
	}
	fill("noise", noise)
	both := e.shares().l1 + e.shares().l2
	require.Contains(t, turns("noise", func(l2 int64) bool { return l2 == 0 }), "of their bytes")
	for range 20 { // L1 grows by steps
		e.govern()
	}
	require.InEpsilon(t, both, e.shares().l1, 0.1, "L1 has it now")
	fill("state", state)
	require.Contains(t, turns("state", func(l2 int64) bool { return l2 > 0 }), "another try")
	grown := e.shares().l2
	require.Contains(t, turns("state", func(l2 int64) bool { return l2 > grown*4/3 }), "a larger L2 would spare more")
}

// open64 has a budget in which both caches have room, and a governor that takes no turns
// of its own.
func open64(t *testing.T) *Engine {
	e, err := Open(t.TempDir(), &Options{MemoryBudget: 64 << 20, Sync: SyncNever, DiskReserve: -1})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, e.Close()) })
	e.governor.still.Store(true)
	return e
}
