package compaction

import (
	"context"
	"errors"
	"fmt"
	"hash/maphash"
	"strings"
	"syscall"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/storage"
)

// The generations of the fault tests: each begins with another operation, so that
// another one meets the first fault.
var shapes = map[string]func(b *bed){
	"points":     func(b *bed) { b.put("a", "1"); b.put("m", strings.Repeat("2", 5000)); b.put("z", "3") },
	"tombstones": func(b *bed) { b.put("k0", "†"); b.put("k1", "†"); b.put("k2", "new") },
	"ranges":     func(b *bed) { b.deleteRange("k0", "k2"); b.deleteRange("k4", "k6"); b.deleteRange("k8", "k9") },
	"mixed": func(b *bed) {
		b.deleteRange("k0", "k3")
		b.put("k1", "inside")
		b.put("k5", "†")
		b.deleteRange("k7", "k9")
	},
}

// newSimBed is a bed on a disk that fails on demand, with ten keys in L3.
func newSimBed(t *testing.T) (*bed, *simfs.FS) {
	b := &bed{t: t}
	fs := simfs.New(nil)
	var err error
	b.st, err = storage.Open(storage.Options{FS: fs, Dir: "/l3", CacheBytes: 1 << 20, Create: true})
	require.NoError(t, err)
	b.next()
	for i := range 10 {
		b.put(fmt.Sprintf("k%d", i), "old")
	}
	b.flush()
	return b, fs
}

// Goal: whichever call of a flush fails, Flush says so with the cause in it, L3 shows
// what it showed before, and the same generation can be flushed again unless the gate
// closed; a reopen has it whole or not at all, as the watermark says (P3).
func TestFlush_anyCallFails(t *testing.T) {
	for name, fill := range shapes {
		t.Run(name, func(t *testing.T) {
			whole := 0
			for nth := 1; whole == 0; nth++ {
				b, fs := newSimBed(t)
				before, flushed := b.l3(), b.lsn
				fill(b)
				w := storage.Watermark{LSN: b.lsn, Generation: 2}
				fault := fs.Inject(simfs.FailOnce(0, "", nth, syscall.EIO))
				s, err := Flush(context.Background(), b.g, b.st, w, nil, func() {}, func() error { return nil })
				fired := fault.Fired() > 0
				fault.Remove()
				w.Entries = s.Sets + s.Deletes + s.Ranges
				acked := flushed
				switch {
				case err == nil:
					acked = b.lsn
				default:
					require.True(t, fired)
					require.ErrorIs(t, err, simfs.ErrInjected, "call %d", nth)
					require.Equal(t, before, b.l3(), "call %d", nth)
					s, err = Flush(context.Background(), b.g, b.st, w, nil, func() {}, func() error { return nil })
					if b.st.Err() != nil {
						require.ErrorIs(t, err, storage.ErrDegraded, "call %d", nth)
						require.Equal(t, Stats{}, s)
					} else {
						require.NoError(t, err, "call %d, again", nth)
						acked = b.lsn
					}
				}
				after := b.l3()
				_ = b.st.Close() // behind a closed gate it says why

				b.st, err = storage.Open(storage.Options{FS: fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), Dir: "/l3", CacheBytes: 1 << 20})
				require.NoError(t, err)
				got, ok, err := b.st.Watermark()
				require.NoError(t, err)
				require.True(t, ok)
				require.GreaterOrEqual(t, got.LSN, acked)
				switch got.LSN {
				case acked:
					require.Equal(t, after, b.l3(), "call %d", nth)
				case w.LSN:
					require.NotEqual(t, before, b.l3(), "call %d", nth)
				default:
					t.Fatalf("call %d: watermark %d", nth, got.LSN)
				}
				require.NoError(t, b.st.Check(context.Background()))
				require.NoError(t, b.st.Close())
				if !fired {
					whole = nth
				}
			}
			t.Logf("%d calls", whole-1)
			require.Greater(t, whole, 10)
		})
	}
}

// Goal: a flush behind a closed gate, or of a store that ended, begins nothing.
func TestFlush_refused(t *testing.T) {
	b, fs := newSimBed(t)
	b.put("more", "v")
	w := storage.Watermark{LSN: b.lsn, Generation: 2}
	fault := fs.Inject(simfs.FailFrom(simfs.OpWrites|simfs.OpSyncs, "MANIFEST*", 1, syscall.EIO))
	_, err := Flush(context.Background(), b.g, b.st, w, nil, func() {}, func() error { return nil })
	require.ErrorIs(t, err, storage.ErrDegraded)
	fault.Remove()
	never := func() error { return errors.New("asked") }
	_, err = Flush(context.Background(), b.g, b.st, w, nil, func() {}, never)
	require.ErrorIs(t, err, storage.ErrDegraded)
	require.Len(t, b.l3(), 10)
	_ = b.st.Close()
	_, err = Flush(context.Background(), b.g, b.st, w, nil, func() {}, never)
	require.ErrorIs(t, err, storage.ErrClosed)
}

// Goal: L3 is behind while it has more sorted runs than a read should meet, and is not
// once they are merged.
func TestBehind(t *testing.T) {
	b, fs := newSimBed(t)
	require.False(t, Behind(b.st))
	// Merges cannot make tables, so the runs stay.
	fault := fs.Inject(simfs.FailFrom(simfs.OpCreate, "/l3/*.sst", 1, syscall.ENOSPC))
	for i := 0; !Behind(b.st); i++ {
		require.Less(t, i, 50)
		b.put("a", fmt.Sprint(i))
		b.put("z", fmt.Sprint(i))
		b.flush()
	}
	fault.Remove()
	b.put("a", "last") // an ingest lets the merges try again
	b.flush()
	require.NoError(t, b.st.Compact(context.Background()))
	require.False(t, Behind(b.st))
	require.Len(t, b.l3(), 12)
	require.NoError(t, b.st.Close())
}

// Goal: keys in any order of arrival and any shape of the generation reach L3 the same.
func TestFlush_anyShape(t *testing.T) {
	var want []string
	for _, shards := range []int{1, 4, 64} {
		b := newBed(t)
		b.g = cow.NewGeneration(&b.clock, cow.Shape{Shards: shards})
		for i := range 500 {
			k := fmt.Appendf(nil, "key%03d", i*7%500)
			b.lsn++
			b.g.Put(maphash.Bytes(seed, k), k, b.lsn, cow.Header{Kind: cow.Value, Revision: b.lsn}, k)
			b.clock.Publish(b.lsn)
		}
		s := b.flush()
		require.EqualValues(t, 500, s.Sets)
		if want == nil {
			want = b.l3()
		}
		require.Equal(t, want, b.l3())
	}
}
