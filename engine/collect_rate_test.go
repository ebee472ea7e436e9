package engine

import (
	"fmt"
	"math/rand"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal: the collector has half of the disk's time at most: after each rewrite it rests for
// as long as that took, before the next begins. Load can make a rest longer and never
// shorter, so there is nothing here that a slow machine turns red.
func TestCollect_restsBetweenRewrites(t *testing.T) {
	const packs, slow = 5, 40 * time.Millisecond
	type rewrite struct{ began, renamed time.Time }
	var mu sync.Mutex
	var rewrites []rewrite
	o := collectOptions()
	o.SpaceAmp = 1.05
	o.FS = errorfs.Wrap(simfs.New(nil), errorfs.InjectorFunc(func(op errorfs.Op) error {
		copied := filepath.Ext(op.Path) == ".tmp" && filepath.Base(filepath.Dir(op.Path)) == packsName
		mu.Lock()
		defer mu.Unlock()
		switch {
		case copied && op.Kind == errorfs.OpCreate:
			rewrites = append(rewrites, rewrite{began: time.Now()})
			time.Sleep(slow) // a disk on which a rewrite takes long enough to see
		case copied && op.Kind == errorfs.OpRename:
			rewrites[len(rewrites)-1].renamed = time.Now()
		}
		return nil
	}))
	e, err := Open("/store", o)
	require.NoError(t, err)
	defer e.Close()
	rnd := rand.New(rand.NewSource(1))
	s, err := e.Snapshot() // until all is set up, nothing is collected
	require.NoError(t, err)
	for i := range 4 * packs {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), blobValue(rnd, 64<<10)))
		if i%4 == 3 {
			require.NoError(t, e.packs.Seal())
		}
	}
	for i := range 2 * packs {
		require.NoError(t, e.Delete(fmt.Appendf(nil, "k%02d", 2*i)))
	}
	flush(t, e)
	require.False(t, e.collector.behind.Load(), "who holds writers up does not rest")
	require.NoError(t, s.Close())
	e.collector.kick()
	eventually(t, 20*time.Second, "not rewritten", func() bool { return e.Metrics().Collect.Rewritten == packs })
	mu.Lock()
	defer mu.Unlock()
	require.Len(t, rewrites, packs)
	for i, r := range rewrites[1:] {
		last := rewrites[i]
		took := last.renamed.Sub(last.began)
		require.GreaterOrEqual(t, took, slow)
		require.GreaterOrEqual(t, r.began.Sub(last.renamed), min(took, time.Second), "rewrite %d", i+1)
	}
}
