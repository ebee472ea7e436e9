package compaction

import (
	"context"
	"errors"
	"fmt"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
)

// unindexed fills an L3 as something does that keeps no index: n blobs, one value, one
// blob with a damaged reference, and one cell that is none.
func unindexed(b *bed, n int) {
	in, err := b.st.NewIngest()
	require.NoError(b.t, err)
	set := func(key string, kind cow.Kind, payload []byte) {
		require.NoError(b.t, in.Set([]byte(key), cow.AppendCell(nil, cow.Header{Kind: kind, Revision: 1}, payload)))
	}
	for i := range n {
		set(fmt.Sprintf("blob%06d", i), cow.Blob, reference(BlobAt{1 + uint64(i%3), 4096 * uint64(1+i)}, 100))
	}
	require.NoError(b.t, in.Set([]byte("garbage"), []byte{0xff}))
	ref := reference(BlobAt{9, 4096}, 100)
	ref[3] ^= 1
	set("rotten", cow.Blob, ref)
	set("value", cow.Value, []byte("v"))
	b.lsn++
	_, err = in.Commit(storage.Watermark{LSN: b.lsn})
	require.NoError(b.t, err)
	require.False(b.t, b.st.Indexed())
}

func each(st *storage.Store, fn func(pack, offset, stored uint64, key []byte) error) error {
	base := st.Current()
	defer base.Release()
	return EachBlob(st, base, fn)
}

// Goal (P4): the first flush above an L3 without an index makes one of what its cells
// name, without what the generation supersedes; what is no cell stays for its reader.
func TestIndex_madeOnce(t *testing.T) {
	b := newBed(t)
	unindexed(b, 10)
	was := make(map[BlobAt]string)
	list := func(pack, offset, stored uint64, key []byte) error {
		was[BlobAt{pack, offset}] = fmt.Sprintf("%s:%d", key, stored)
		return nil
	}
	require.NoError(t, each(b.st, list))
	require.Len(t, was, 10)
	require.Empty(t, b.indexed())

	b.deleteRange("blob000002", "blob000005")
	b.put("blob000007", "small")
	b.blob("new", reference(BlobAt{7, 4096}, 300))
	died := []BlobAt{{2, 4096 * 8}}
	s, err := Flush(context.Background(), b.g, b.st, storage.Watermark{LSN: b.lsn}, died, func() {}, func() error { return nil })
	require.NoError(t, err)
	require.ElementsMatch(t, []BlobAt{{3, 4096 * 3}, {1, 4096 * 4}, {2, 4096 * 5}}, s.Turnover.hidden)
	require.True(t, b.st.Indexed())
	for _, at := range append(died, s.Turnover.hidden...) {
		require.Contains(t, was, at)
		delete(was, at)
	}
	was[BlobAt{7, 4096}] = "new:300"
	require.Equal(t, was, b.indexed())
	clear(was)
	require.NoError(t, each(b.st, list))
	require.Equal(t, was, b.indexed(), "from the index")
}

// Goal: the caller's error ends the walk, with an index and without, and is returned.
func TestEachBlob_callersError(t *testing.T) {
	stop := errors.New("stop")
	b := newBed(t)
	unindexed(b, 3)
	for range 2 {
		n := 0
		require.ErrorIs(t, each(b.st, func(uint64, uint64, uint64, []byte) error { n++; return stop }), stop)
		require.Equal(t, 1, n)
		b.put("k", "v")
		b.flush()
	}
}

// Goal: a flush that is cancelled while it looks through the index, or the cells,
// changes nothing, and can be done again.
func TestIndex_cancelled(t *testing.T) {
	b := newBed(t)
	unindexed(b, 2*checkEvery)
	ctx, cancel := context.WithCancel(context.Background())
	cancel()
	for _, indexed := range []bool{false, true} {
		require.Equal(t, indexed, b.st.Indexed())
		before := b.indexed()
		b.deleteRange("blob000000", "blob000001")
		in, err := b.st.NewIngest()
		require.NoError(t, err)
		require.ErrorIs(t, new(Stats).unindex(ctx, b.g, b.st, in, nil), context.Canceled)
		require.NoError(t, in.Abort())
		require.Equal(t, before, b.indexed())
		require.Equal(t, indexed, b.st.Indexed())
		s, err := Flush(context.Background(), b.g, b.st, storage.Watermark{LSN: b.lsn}, nil, func() {}, func() error { return nil })
		require.NoError(t, err)
		require.Len(t, s.Turnover.hidden, map[bool]int{false: 1, true: 0}[indexed])
		require.Len(t, b.indexed(), 2*checkEvery-1)
		b.next()
	}
}

// Goal: a generation whose cell names nothing that can be is not flushed: L3 stays as
// it was.
func TestIndex_damagedReference(t *testing.T) {
	b := newBed(t)
	b.put("k", "v")
	b.flush()
	before := b.l3()
	ref := reference(BlobAt{1, 4096}, 100)
	ref[20]++
	b.blob("m", ref)
	_, err := Flush(context.Background(), b.g, b.st, storage.Watermark{LSN: b.lsn}, nil, func() {}, func() error { return errors.New("asked") })
	require.ErrorIs(t, err, mmap.ErrCorrupt)
	require.Equal(t, before, b.l3())
	require.Empty(t, b.indexed())
}

// Goal: from whichever read on the disk fails while a flush looks for what its range deletes hide, it
// says so with the cause in it and drops nothing from the index; so does a walk.
func TestIndex_anyReadFails(t *testing.T) {
	acts := map[string]func(b *bed) error{
		"walk": func(b *bed) error {
			return each(b.st, func(uint64, uint64, uint64, []byte) error { return nil })
		},
		"flush": func(b *bed) error {
			b.deleteRange("blob000000", "blob000100")
			_, err := Flush(context.Background(), b.g, b.st, storage.Watermark{LSN: b.lsn}, nil, func() {}, func() error { return nil })
			return err
		},
	}
	for name, act := range acts {
		for _, indexed := range []bool{false, true} {
			t.Run(fmt.Sprintf("%s, index %t", name, indexed), func(t *testing.T) {
				failed := 0
				for nth, fired := 1, true; fired; nth++ {
					fs := simfs.New(nil)
					b := &bed{t: t}
					open := func(create bool) {
						var err error
						b.st, err = storage.Open(storage.Options{FS: fs, Dir: "/l3", CacheBytes: 1 << 20, Create: create})
						require.NoError(t, err)
					}
					open(true)
					b.next()
					unindexed(b, 2000)
					if indexed {
						b.put("k", "v")
						b.flush()
					}
					require.NoError(t, b.st.Close())
					open(false) // nothing of it is cached
					// And all after it: storage reads in the background too, and a single fault
					// might be met there.
					fault := fs.Inject(simfs.FailFrom(simfs.OpReads, "/l3/*.sst", nth, syscall.EIO))
					err := act(b)
					fired = fault.Fired() > 0
					fault.Remove()
					if err != nil {
						require.True(t, fired)
						require.ErrorIs(t, err, simfs.ErrInjected)
						failed++
					}
					_ = b.st.Close() // behind a closed gate it says why
					open(false)
					mark, _, wmErr := b.st.Watermark()
					require.NoError(t, wmErr)
					flushed := name == "flush" && mark.LSN == b.lsn
					require.True(t, flushed || err != nil || name == "walk")
					want := map[bool]int{false: 0, true: 2000}[indexed]
					if flushed {
						want = 1900
					}
					require.Len(t, b.indexed(), want)
					require.Equal(t, indexed || flushed, b.st.Indexed())
					require.NoError(t, b.st.Close())
				}
				require.Positive(t, failed)
				t.Logf("%d failed", failed)
			})
		}
	}
}
