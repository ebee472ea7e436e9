package storage

import (
	"context"
	"errors"
	"runtime/debug"
	"strings"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// hookFS calls opening before a table is opened.
type hookFS struct {
	vfs.FS
	opening atomic.Pointer[func(name string)]
}

func (h *hookFS) Open(name string, opts ...vfs.OpenOption) (vfs.File, error) {
	if f := h.opening.Load(); f != nil && strings.HasSuffix(name, ".sst") {
		(*f)(name)
	}
	return h.FS.Open(name, opts...)
}

// checked is a store of two tables with a hook that runs once, in the first look of
// Check at a table.
func checked(t *testing.T, once func(s *Store, fs *simfs.FS, table string)) *Store {
	t.Helper()
	fs := simfs.New(nil)
	hooked := &hookFS{FS: fs}
	s := mustOpen(t, testOptions(hooked))
	mustIngest(t, s, 1, sets(50, "k%02d", "one"))
	mustIngest(t, s, 2, sets(50, "x%02d", "two"))
	var done atomic.Bool
	f := func(name string) {
		// Pebble opens tables by itself, too, and its goroutines must not end in here.
		if strings.Contains(string(debug.Stack()), ".(*Store).Check(") && done.CompareAndSwap(false, true) {
			once(s, fs, name)
		}
	}
	hooked.opening.Store(&f)
	return s
}

// Goal: a table that a compaction replaces while Check reads is no damage, and what
// took its place is read.
func TestStore_Check_besideCompaction(t *testing.T) {
	s := checked(t, func(s *Store, fs *simfs.FS, _ string) {
		// Overlap makes the merge rewrite every table.
		mustIngest(t, s, 3, append(sets(50, "k%02d", "three"), sets(50, "x%02d", "three")...))
		require.NoError(t, s.Compact(context.Background()))
		require.Eventually(t, func() bool {
			names, err := fs.List("store/l3")
			n := 0
			for _, name := range names {
				if strings.HasSuffix(name, ".sst") {
					n++
				}
			}
			tables, terr := s.tables()
			return err == nil && terr == nil && n == len(tables)
		}, 10*time.Second, time.Millisecond, "replaced tables go")
	})
	require.NoError(t, s.Check(context.Background()))
	require.Equal(t, "three", dumpStore(t, s)["k00"])
}

// Goal: Check ends early, and says why, when its caller or the store does.
func TestStore_Check_endsEarly(t *testing.T) {
	ctx, cancel := context.WithCancel(context.Background())
	s := checked(t, func(*Store, *simfs.FS, string) { cancel() })
	require.ErrorIs(t, s.Check(ctx), context.Canceled)
	require.NoError(t, s.Check(context.Background()))

	closing := make(chan error, 1)
	s = checked(t, func(s *Store, _ *simfs.FS, _ string) {
		go func() { closing <- s.Close() }()
		for !s.isClosed() {
			time.Sleep(time.Millisecond)
		}
	})
	require.ErrorIs(t, s.Check(context.Background()), ErrClosed)
	require.NoError(t, <-closing)
}

// Goal: a table that grew or shrank since it was opened is damage, in that file; a
// table that the disk does not let us read is an error and no verdict.
func TestStore_Check_size(t *testing.T) {
	for _, by := range []int{-1, 1} {
		var table string
		s := checked(t, func(_ *Store, fs *simfs.FS, name string) {
			table = name
			data := append(fs.Tree()["/"+name].Data, 0)
			require.NoError(t, fs.Put(name, data[:len(data)-1+by]))
		})
		err := s.Check(context.Background())
		var ce *CorruptError
		require.ErrorAs(t, err, &ce)
		require.Equal(t, table, ce.File)
		require.Contains(t, ce.What, "the manifest says")
	}
	for _, op := range []simfs.Op{simfs.OpOpen, simfs.OpFileStat, simfs.OpReadAt} {
		for nth := 1; nth <= 3; nth++ {
			// Pebble reads new tables by itself, for its statistics, and may be the one
			// that meets the fault: then once more.
			var err error
			fired := 1
			for tries := 0; err == nil && fired > 0 && tries < 20; tries++ {
				var fault *simfs.Fault
				s := checked(t, func(_ *Store, fs *simfs.FS, _ string) {
					fault = fs.Inject(simfs.FailOnce(op, "*.sst", nth, syscall.EIO))
				})
				err = s.Check(context.Background())
				fired = fault.Fired()
				require.NoError(t, s.Check(context.Background()), "it was the disk, not the table")
			}
			if fired > 0 {
				require.ErrorIs(t, err, syscall.EIO)
				require.NotErrorIs(t, err, ErrCorrupt)
			} else {
				require.NoError(t, err)
			}
		}
	}
}

// Goal: a stored watermark that is not the one that was acknowledged is damage.
func TestStore_Check_watermark(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 5, sets(3, "k%d", "v"))
	require.NoError(t, s.Check(context.Background()))
	s.mark.Store(&markState{mark(6, nil), true})
	require.ErrorIs(t, s.Check(context.Background()), ErrCorrupt)
	s.mark.Store(&markState{})
	require.ErrorIs(t, s.Check(context.Background()), ErrCorrupt)
}

// Goal: a Compact that waits for another stops waiting when its caller, the gate or
// the store ends, and says which.
func TestStore_Compact_waitEnds(t *testing.T) {
	begin := func() (*Store, func(context.Context) chan error) {
		s := mustOpen(t, testOptions(vfs.NewMem()))
		mustIngest(t, s, 1, sets(3, "k%d", "v"))
		s.compacting <- struct{}{} // another is at it
		return s, func(ctx context.Context) chan error {
			out := make(chan error, 1)
			go func() { out <- s.Compact(ctx) }()
			for s.mu.Lock(); s.inflight == 0; s.mu.Lock() {
				s.mu.Unlock()
				time.Sleep(time.Millisecond)
			}
			s.mu.Unlock()
			return out
		}
	}
	s, compact := begin()
	ctx, cancel := context.WithCancel(context.Background())
	out := compact(ctx)
	cancel()
	require.ErrorIs(t, <-out, context.Canceled)
	out = compact(context.Background())
	cause := errors.New("cause")
	s.fs.close(cause)
	require.ErrorIs(t, <-out, cause)

	s, compact = begin()
	out = compact(context.Background())
	require.NoError(t, s.Close())
	require.ErrorIs(t, <-out, ErrClosed)
}

// Goal: when every slot is in use a reader waits for one and then reads.
func TestSlots_allTaken(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 1, sets(1, "k%d", "v"))
	sn := s.Current()
	defer sn.Release()
	for i := range sn.points.all {
		sn.points.all[i].mu.Lock()
	}
	got := make(chan string, 1)
	go func() {
		v, _, err := sn.Get(nil, []byte("k0"))
		if err != nil {
			v = []byte(err.Error())
		}
		got <- string(v)
	}()
	select {
	case v := <-got:
		t.Fatal("read in a slot of another: ", v)
	case <-time.After(20 * time.Millisecond):
	}
	for i := range sn.points.all {
		sn.points.all[i].mu.Unlock()
	}
	require.Equal(t, "v", <-got)
}

// Goal: moves before the first begin at the end they walk from; an iterator that was
// never moved knows that its store is gone; closing again is nothing.
func TestIter_unmoved(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 1, sets(3, "k%d", "v"))
	sn := s.Current()
	it, err := sn.NewIter(nil, nil)
	require.NoError(t, err)
	require.True(t, it.Prev())
	require.Equal(t, "k2", string(it.Key()))
	require.NoError(t, it.Close())
	require.NoError(t, it.Close())
	fresh, err := sn.NewIter(nil, nil)
	require.NoError(t, err)
	require.NoError(t, fresh.Err())
	require.NoError(t, s.Close())
	require.ErrorIs(t, fresh.Err(), ErrClosed)
	require.False(t, fresh.Next())
	require.NoError(t, fresh.Close())
	sn.kill() // what Close did
	sn.Release()
}
