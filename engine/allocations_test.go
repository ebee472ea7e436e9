package engine

import (
	"fmt"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cache"
)

// Goal: hot paths make no garbage. The bounds are what is promised for each call; a tenth
// more is what may come of it once in many: the libraries' batches of uses, and work of
// goroutines in the background.
func TestEngine_allocations(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	k, v := []byte("client-000042"), make([]byte, 200)
	require.NoError(t, e.Put(k, v))
	for i := range 1000 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "scan/%04d", i), v))
	}
	dst := make([]byte, 0, 1000)
	var n int
	look := func(b []byte) error { n += len(b); return nil }
	view := func() { _ = e.View(k, look) }
	into := func() { dst, _ = e.GetInto(dst[:0], k) }
	scanOf := func(prefix string) func() {
		r := Prefix([]byte(prefix))
		return func() {
			for item, err := range e.Scan(r) {
				if err == nil {
					b, _ := item.Value()
					n += len(b)
				}
			}
		}
	}
	scan, few := scanOf("scan/"), scanOf("scan/033")
	next, fresh := 0, []byte(nil)
	putNew := func(e *Engine) func() {
		return func() {
			next++
			fresh = strconv.AppendInt(append(fresh[:0], "new/"...), int64(next), 10)
			_ = e.Put(fresh, v)
		}
	}
	durable := open(t, t.TempDir(), Options{})
	inMap := func() {}
	inL1 := func() {
		flush(t, e)
		fillL1(t, e, "client-000042")
	}
	inL2 := func() { onlyL2(t, e, k) }
	for _, c := range []struct {
		call, from string
		at         func()
		run        func()
		per        int // items that one run has
		most       float64
	}{
		{"View", "map", inMap, view, 1, 0},
		{"GetInto", "map", inMap, into, 1, 0},
		{"Put", "map", inMap, func() { _ = e.Put(k, v) }, 1, 2},
		{"Put of a new key", "map", inMap, putNew(e), 1, 2},
		{"Put, synced", "map", inMap, putNew(durable), 1, 2},
		{"Scan", "map", inMap, scan, 1000, 1},
		{"Scan of ten", "map", inMap, few, 10, 0.6},
		{"View", "L1", inL1, view, 1, 0},
		{"GetInto", "L1", inL1, into, 1, 0},
		{"Scan", "L3", inMap, scan, 1000, 1},
		{"Scan of ten", "L3", inMap, few, 10, 0.6},
		{"View", "L2", inL2, view, 1, 3},
		{"GetInto", "L2", inMap, into, 1, 3},
	} {
		c.at()
		// Many calls in one run: the mean of runs is rounded down, and would hide what is
		// allocated in less than every call.
		calls := max(1, 1000/c.per)
		got := testing.AllocsPerRun(10, func() {
			for range calls {
				c.run()
			}
		}) / float64(calls*c.per)
		t.Logf("%-16s from %-3s %.3f allocations, at most %v", c.call, c.from, got, c.most)
		require.LessOrEqual(t, got, c.most+0.1, "%s from %s", c.call, c.from)
	}
	require.Positive(t, n)
}

// onlyL2 gives the engine a cache without L1, so that nothing is promoted from L2, and
// brings key there.
func onlyL2(t *testing.T, e *Engine, key []byte) {
	t.Helper()
	e.governor.still.Store(true)
	c, err := cache.New(cache.Options{L2Bytes: 4 << 20})
	require.NoError(t, err)
	require.NoError(t, e.cache.Close())
	e.cache = c
	require.Eventually(t, func() bool {
		i, err := e.Stat(key)
		return err == nil && i.Tier == TierL2
	}, 5*time.Second, time.Millisecond)
}
