package compaction

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/storage"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

var seed = maphash.MakeSeed()

// bed is a generation above an L3 in memory.
type bed struct {
	t     *testing.T
	fs    *vfs.MemFS
	st    *storage.Store
	clock cow.Clock
	g     *cow.Generation
	lsn   uint64
}

func newBed(t *testing.T) *bed {
	b := &bed{t: t, fs: vfs.NewMem()}
	var err error
	b.st, err = storage.Open(storage.Options{FS: b.fs, Dir: "/l3", CacheBytes: 1 << 20, Create: true})
	require.NoError(t, err)
	t.Cleanup(func() { require.NoError(t, b.st.Close()) })
	b.next()
	return b
}

func (b *bed) next() { b.g = cow.NewGeneration(&b.clock, cow.Shape{Shards: 4}) }

func (b *bed) put(key, value string) {
	b.lsn++
	k := []byte(key)
	kind := cow.Value
	if value == "†" {
		kind, value = cow.Tombstone, ""
	}
	b.g.Put(maphash.Bytes(seed, k), k, b.lsn, cow.Header{Kind: kind, Revision: b.lsn}, []byte(value))
	b.clock.Publish(b.lsn)
}

func (b *bed) deleteRange(lower, upper string) {
	b.lsn++
	b.g.DeleteRange(b.lsn, []cow.Range{{Lower: []byte(lower), Upper: []byte(upper)}})
	b.clock.Publish(b.lsn)
}

func (b *bed) flush() Stats {
	b.t.Helper()
	w := storage.Watermark{LSN: b.lsn, Generation: 1}
	s, err := Flush(context.Background(), b.g, b.st, w, nil, func() {}, func() error { return nil })
	require.NoError(b.t, err)
	got, ok, err := b.st.Watermark()
	require.NoError(b.t, err)
	require.True(b.t, ok)
	w.Entries = s.Sets + s.Deletes + s.Ranges
	require.Equal(b.t, w, got, "P3")
	b.next()
	return s
}

func (b *bed) l3() []string {
	b.t.Helper()
	for {
		out, err := b.scan()
		// A reader may join Pebble's own opening of a table, and get the injected error
		// that it met: of that read alone.
		if errors.Is(err, simfs.ErrInjected) {
			continue
		}
		require.NoError(b.t, err)
		return out
	}
}

func (b *bed) scan() (out []string, err error) {
	sn := b.st.Current()
	defer sn.Release()
	it, err := sn.NewIter(nil, nil)
	if err != nil {
		return nil, err
	}
	for ok := it.First(); ok; ok = it.Next() {
		c, err := cow.ParseCell(it.Value())
		require.NoError(b.t, err)
		out = append(out, fmt.Sprintf("%s=%s@%d", it.Key(), c.Payload(), c.Revision()))
	}
	return out, errors.Join(it.Err(), it.Close())
}

// Goal (P1, P2): the newest operation on each key arrives, once; what a newer range
// tombstone hides is left out, what is newer than it stays.
func TestFlush_newestWins(t *testing.T) {
	b := newBed(t)
	for i := range 10 {
		b.put(fmt.Sprintf("k%d", i), "old")
	}
	require.EqualValues(t, 10, b.flush().Sets)
	b.put("k1", "a")
	b.put("k1", "b")
	b.put("k2", "†")
	b.put("k4", "hidden")
	b.deleteRange("k3", "k7")
	b.put("k5", "inside")
	b.deleteRange("k6", "k8")
	b.put("k9", "†")
	b.put("k9", "back")
	s := b.flush()
	require.Equal(t, Stats{Sets: 3, Deletes: 1, Ranges: 3}, Stats{Sets: s.Sets, Deletes: s.Deletes, Ranges: s.Ranges})
	require.Equal(t, []string{"k0=old@1", "k1=b@12", "k5=inside@16", "k8=old@9", "k9=back@19"}, b.l3())
}

// Goal: a generation of nothing but range tombstones, or of nothing, moves the
// watermark.
func TestFlush_withoutPoints(t *testing.T) {
	b := newBed(t)
	b.put("k", "v")
	b.flush()
	b.deleteRange("a", "z")
	b.flush()
	require.Empty(t, b.l3())
	b.lsn++
	b.flush()
}

// Goal: a flush that is cancelled, or not ready, leaves L3 and the staging folder as
// they were, and can be done again.
func TestFlush_givesUpCleanly(t *testing.T) {
	b := newBed(t)
	for i := range 5000 {
		b.put(fmt.Sprintf("k%04d", i), "v")
	}
	before := b.l3()
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	_, err := Flush(ctx, b.g, b.st, storage.Watermark{LSN: b.lsn}, nil, func() {}, func() error { return nil })
	require.ErrorIs(t, err, context.Canceled)
	notYet := errors.New("not yet")
	_, err = Flush(context.Background(), b.g, b.st, storage.Watermark{LSN: b.lsn}, nil, func() {}, func() error { return notYet })
	require.ErrorIs(t, err, notYet)
	require.Equal(t, before, b.l3())
	_, ok, err := b.st.Watermark()
	require.NoError(t, err)
	require.False(t, ok)
	staged, err := b.fs.List("/l3-staging")
	require.NoError(t, err)
	require.Empty(t, staged)
	b.flush()
	require.Len(t, b.l3(), 5000)
}
