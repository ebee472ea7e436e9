package engine

import (
	"bytes"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: a manifest that loses its end, by one bit anywhere, hides nothing: L3 then knows the
// tables and not that so many commits were made, and shows none of what is newer. The store
// is refused, or has every key.
func TestOpen_manifestLosesItsEnd(t *testing.T) {
	fs := vfs.NewMem()
	o := &Options{MemoryBudget: minBudget, FS: fs, DiskReserve: -1, LargeValue: 4 << 10}
	const keys = 300
	key := func(i int) []byte { return fmt.Appendf(nil, "k%04d", i) }
	value := func(i int) []byte { return bytes.Repeat(fmt.Appendf(nil, "value %d of its key ", i), 1+i%250) }
	put := func(e *Engine, from, to int) {
		for i := from; i < to; i++ {
			require.NoError(t, e.Put(key(i), value(i)))
		}
	}
	e, err := Open("/store", o)
	require.NoError(t, err)
	put(e, 0, keys*2/3)
	// A large value dies before it comes down, and L3 rewrites the table of its index for
	// that: what is below all else loses its place in L3's order, the watermark too.
	require.NoError(t, e.Delete(key(199)))
	require.NoError(t, e.Put(key(199), value(199)))
	require.NoError(t, e.Delete(key(198)))
	flush(t, e)
	eventually(t, 10*time.Second, "nothing is compacted", func() bool { return e.store.Metrics().Compactions > 0 })
	require.NoError(t, e.Close())
	e, err = Open("/store", o) // begins a new manifest
	require.NoError(t, err)
	put(e, keys*2/3, keys)
	require.NoError(t, e.Close())

	names, err := fs.List("/store/l3")
	require.NoError(t, err)
	manifest := ""
	for _, n := range names {
		if strings.HasPrefix(n, "MANIFEST-") && n > manifest {
			manifest = n
		}
	}
	f, err := fs.Open("/store/l3/" + manifest)
	require.NoError(t, err)
	whole, err := io.ReadAll(f)
	require.NoError(t, err)
	require.NoError(t, f.Close())
	refused, harmless := 0, 0
	for at := range whole {
		if testing.Short() && at < len(whole)-16 && at%8 > 0 {
			continue // the last record is looked at whole
		}
		copied := vfs.NewMem()
		ok, err := vfs.Clone(fs, copied, "/store", "/store")
		require.NoError(t, err)
		require.True(t, ok)
		bent := bytes.Clone(whole)
		bent[at] ^= 1 << (at % 8)
		f, err := copied.Create("/store/l3/"+manifest, "test")
		require.NoError(t, err)
		_, err = f.Write(bent)
		require.NoError(t, err)
		require.NoError(t, f.Close())
		o := *o
		o.FS = copied
		e, err := Open("/store", &o)
		if err != nil {
			require.ErrorIs(t, err, ErrCorrupt, "byte %d", at)
			refused++
			continue
		}
		for i := range keys {
			v, err := e.Get(key(i))
			if i == 198 {
				require.ErrorIs(t, err, ErrNotFound)
				continue
			}
			require.NoError(t, err, "byte %d of %d of %s, key %d", at, len(whole), manifest, i)
			require.Equal(t, value(i), v)
		}
		harmless++
		require.NoError(t, e.Close())
	}
	require.Positive(t, refused)
	t.Logf("%d bytes: %d refused, %d harmless", len(whole), refused, harmless)
}
