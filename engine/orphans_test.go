package engine

import (
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
)

// killedBesideOrphan is a disk whose process was killed: keys below durable are synced, the
// others, large ones among them, only the page cache has, and a pack is there that no
// commit names.
func killedBesideOrphan(t *testing.T, durable, tried int) (fs *simfs.FS, orphan string) {
	t.Helper()
	fs = simfs.New(nil)
	var dead atomic.Bool
	o := simOptions(nil)
	o.Sync, o.SyncEvery = SyncInterval, time.Hour
	o.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if dead.Load() && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			return errors.New("the process was killed")
		}
		return nil
	}))
	e, err := Open("/store", o)
	require.NoError(t, err)
	put := func(from, to int) {
		for i := from; i < to; i++ {
			require.NoError(t, e.Put(simKey(i), simValue(i)))
		}
	}
	put(0, durable/2)
	flush(t, e)
	put(durable/2, durable)
	require.NoError(t, e.packs.Seal())
	ref, err := e.packs.Write(simValue(3)) // its commit never came
	require.NoError(t, err)
	r, err := mmap.DecodeRef(ref)
	require.NoError(t, err)
	require.NoError(t, e.packs.Seal())
	require.NoError(t, e.Sync(t.Context()))
	put(durable, tried)
	dead.Store(true)
	_ = e.Close() // of a process that is not there any more
	return fs, fmt.Sprintf("/store/packs/%020d.pack", r.Pack)
}

// Goal (I3): what a crash left in the packs goes at the next open, and only when the state
// that says so is durable: with the power cut at the call that unlinks it, nothing unsynced
// kept, the store has every commit that the recovery showed, with its large values. At each
// call before, it has what was promised, and the packs that its log names.
func TestOpen_orphansGoLast(t *testing.T) {
	const durable, tried = 12, 20
	fs, orphan := killedBesideOrphan(t, durable, tried)
	type moment struct {
		cut  *simfs.Cut
		path string
	}
	var mu sync.Mutex
	var moments []moment
	gone := -1 // the moment at which the orphan is unlinked
	o := simOptions(nil)
	o.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == errorfs.OpRemove && op.Path == orphan {
			gone = len(moments)
		}
		moments = append(moments, moment{fs.Cut(), op.Path})
		return nil
	}))
	_, err := fs.Stat(orphan)
	require.NoError(t, err)
	e, err := Open("/store", o)
	require.NoError(t, err)
	shown := e.Recovered().LSN
	require.EqualValues(t, tried, shown, "a kill takes nothing")
	_, err = fs.Stat(orphan)
	require.ErrorIs(t, err, os.ErrNotExist)
	mu.Lock()
	require.GreaterOrEqual(t, gone, 0)
	seen := moments[:gone+1]
	mu.Unlock()
	require.NoError(t, e.Close())

	for i, m := range seen {
		img := m.cut.Image(simfs.CrashConfig{Image: simfs.Nothing})
		at := fmt.Sprintf("cut at call %d of %d, for %s", i+1, len(seen), m.path)
		acked := durable
		if i == gone {
			acked = tried
		}
		simVerify(t, img, acked, tried, at)
	}
	t.Logf("%d calls to the unlink", len(seen))
}
