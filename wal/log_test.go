package wal

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"strings"
	"sync"
	"sync/atomic"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// What was committed comes back, under every policy, on memory and on disk,
// after a clean close, again and again.
func TestLog_Commit_roundTrip(t *testing.T) {
	for _, p := range policies {
		for _, disk := range []bool{false, true} {
			t.Run(fmt.Sprintf("%v/disk=%v", p, disk), func(t *testing.T) {
				o := memOptions(vfs.NewMem())
				if disk {
					o.FS, o.Dir = vfs.Default, t.TempDir()
				}
				o.Policy = p
				want := map[uint64][]byte{}
				for round := range 4 {
					s := openStore(t, o)
					require.Equal(t, len(want), len(s.got))
					for lsn, b := range want {
						require.Equal(t, b, s.got[lsn])
					}
					if round > 0 {
						require.True(t, s.rec.Clean)
						require.Equal(t, uint64(len(want))+1, s.rec.NextLSN, "a clean open leaves no gap")
					}
					for i := range 60 {
						b := payloadOf(uint64(i), i*37%2000)
						want[s.put(b)] = b
					}
					require.NoError(t, s.log.Sync(context.Background()))
					require.Equal(t, s.log.Last(), s.log.Durable())
					s.close()
					require.NoError(t, s.log.Close(), "Close is idempotent")
					_, err := s.log.Commit(context.Background(), nil, 0, Checksum(nil), nil)
					require.ErrorIs(t, err, ErrClosed)
				}
			})
		}
	}
}

// A batch larger than any segment spans frames and segments, and comes back whole.
func TestLog_Commit_spansSegments(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			o := memOptions(vfs.NewMem())
			o.Policy = p
			s := openStore(t, o)
			var want [][]byte
			for i, n := range []int{10, 100_000, 3, 7000, 7900, 7960, 8000, 9000, 30_000, 30_001, 30_002, 64, 65_536, 0} {
				b := payloadOf(uint64(i), n)
				want = append(want, b)
				require.Equal(t, uint64(i+1), s.put(b))
			}
			require.Greater(t, s.log.Metrics().Rotations, uint64(10))
			s.close()
			s = openStore(t, o)
			require.Len(t, s.got, len(want))
			for i, b := range want {
				require.Equal(t, b, s.got[uint64(i+1)], "batch %d", i)
			}
			s.close()
		})
	}
}

// A frame's promise is below its own number and never above the truth, the
// hooks come in order, and an acknowledged batch is published.
func TestLog_Commit_hooksInOrder(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			o := memOptions(vfs.NewMem())
			o.Policy = p
			var placed, published, between uint64
			var inside atomic.Int32
			o.Hooks = Hooks{
				Place: func(lsn uint64, b []byte, ops uint32, arg any) {
					if inside.Add(1) != 1 || lsn != placed+1 || arg.(*int) == nil || ops != 3 {
						t.Errorf("placed %d after %d", lsn, placed)
					}
					placed = lsn
					inside.Add(-1)
				},
				Publish: func(lsn uint64) {
					if lsn != placed {
						t.Errorf("published %d, placed %d", lsn, placed)
					}
					published = lsn
				},
				Between: func(lsn uint64) { between = lsn },
			}
			s := openStore(t, o)
			var wg sync.WaitGroup
			for g := range 8 {
				wg.Go(func() {
					x := 0
					for i := range 50 {
						b := payloadOf(uint64(g*1000+i), 100)
						lsn, err := s.log.Commit(context.Background(), b, 3, Checksum(b), &x)
						if err != nil || s.log.Last() < lsn {
							t.Errorf("%d: %v", lsn, err)
						}
						if p == Always && s.log.Durable() < lsn {
							t.Errorf("acknowledged %d is not durable", lsn)
						}
					}
				})
			}
			wg.Wait()
			require.NoError(t, s.log.Barrier(func(last uint64) {
				require.Equal(t, uint64(400), last)
				require.Equal(t, placed, published)
				require.Equal(t, placed, between)
			}))
			s.close()
			s = openStore(t, o)
			require.Len(t, s.got, 400)
			s.close()
		})
	}
}

// A batch that changed in memory fails alone; its neighbours land.
func TestLog_Commit_badChecksumFailsAlone(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			o := memOptions(vfs.NewMem())
			o.Policy = p
			s := openStore(t, o)
			var wg sync.WaitGroup
			var good atomic.Int32
			// Hold the commit lock, so that all of them meet in one group.
			s.log.commitMu.Lock()
			for i := range 16 {
				wg.Go(func() {
					b := payloadOf(uint64(i), 50)
					sum := Checksum(b)
					if i%4 == 1 {
						sum++
					}
					lsn, err := s.log.Commit(context.Background(), b, 1, sum, nil)
					if (err == nil) != (i%4 != 1) || err != nil && !errors.Is(err, ErrChecksum) || err == nil && lsn == 0 {
						t.Errorf("%d: %v", i, err)
					}
					if err == nil {
						good.Add(1)
					}
				})
			}
			time.Sleep(10 * time.Millisecond)
			s.log.commitMu.Unlock()
			wg.Wait()
			big := payloadOf(99, 50_000)
			_, err := s.log.Commit(context.Background(), big, 1, 1, nil)
			require.ErrorIs(t, err, ErrChecksum)
			require.EqualValues(t, 12, s.log.Last())
			s.close()
			s = openStore(t, o)
			require.Len(t, s.got, 12)
			for _, b := range s.got {
				_, err := seedOfPayload(b)
				require.NoError(t, err)
			}
			s.close()
		})
	}
}

// A lone writer allocates nothing.
func TestLog_Commit_allocs(t *testing.T) {
	for _, p := range policies {
		o := Options{FS: vfs.Default, Dir: t.TempDir(), Policy: p}
		s := openStore(t, o)
		b := payloadOf(1, 200)
		sum := Checksum(b)
		ctx := context.Background()
		n := testing.AllocsPerRun(200, func() {
			if _, err := s.log.Commit(ctx, b, 1, sum, nil); err != nil {
				t.Fatal(err)
			}
		})
		require.Zero(t, n, "policy %v", p)
		s.close()
	}
}

// Old segments are recycled only below the watermark that STATE has, and never
// under a pin.
func TestLog_SetFlushed_recycles(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, memOptions(fs))
	fill := func() {
		for i := range 60 {
			s.put(payloadOf(uint64(i), 1000))
		}
	}
	fill()
	live := s.log.LiveBytes()
	require.Greater(t, live, int64(60_000))
	release := s.log.Pin()
	require.NoError(t, s.log.SetFlushed(s.log.Last(), 7, 9))
	st, err := ReadState(fs, "db")
	require.NoError(t, err)
	require.Equal(t, []uint64{60, 7, 9}, []uint64{st.Flushed, st.Generation, st.PackHigh})
	fill()
	require.Zero(t, s.log.Metrics().SegmentsRecycled, "pinned")
	require.GreaterOrEqual(t, s.log.LiveBytes(), 2*live-32<<10)
	release()
	release()
	require.NoError(t, s.log.SetFlushed(s.log.Last()-5, 8, 9))
	require.Less(t, s.log.LiveBytes(), int64(33<<10))
	for range 3 {
		fill()
		require.NoError(t, s.log.SetFlushed(s.log.Last(), 8, 9))
	}
	require.Eventually(t, func() bool {
		m := s.log.Metrics()
		return m.SegmentsRecycled > 3 && m.Segments <= 4
	}, 5*time.Second, time.Millisecond)
	s.close()
	flushed := uint64(290)
	s, err = tryOpen(t, memOptions(fs), flushed)
	require.NoError(t, err)
	require.Len(t, s.got, int(300-flushed))
	s.close()
	// Below what was recycled there is nothing to recover from.
	_, err = tryOpen(t, memOptions(fs), 10)
	require.ErrorIs(t, err, ErrCorrupt)
}

// After an idle moment the promise of the last group is on disk, once.
func TestLog_keeper_marker(t *testing.T) {
	fs := vfs.NewCrashableMem()
	s := openStore(t, memOptions(fs))
	last := s.put(payloadOf(1, 100))
	require.Eventually(t, func() bool {
		st := s.log.State()
		return s.log.Metrics().Markers == 1 && st.Synced == last
	}, 5*time.Second, time.Millisecond)
	m := s.log.Metrics()
	time.Sleep(100 * time.Millisecond)
	m2 := s.log.Metrics()
	require.Equal(t, m.Markers, m2.Markers, "an idle log is silent")
	require.Equal(t, m.Syncs, m2.Syncs)
	require.Equal(t, m.StateWrites, m2.StateWrites)
	s.close()
}

// The Interval policy syncs by itself.
func TestLog_Commit_intervalSyncs(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.Policy, o.Interval = Interval, 10*time.Millisecond
	s := openStore(t, o)
	last := s.put(payloadOf(1, 100))
	require.Eventually(t, func() bool { return s.log.Durable() == last }, 5*time.Second, time.Millisecond)
	s.close()
}

// WaitDurable asks for a sync instead of waiting for an hour's interval.
func TestLog_WaitDurable_asks(t *testing.T) {
	for _, p := range policies {
		o := memOptions(vfs.NewMem())
		o.Policy, o.Interval = p, time.Hour
		s := openStore(t, o)
		ctx, cancel := context.WithCancel(context.Background())
		last := s.put(payloadOf(1, 100))
		require.NoError(t, s.log.WaitDurable(ctx, last))
		require.Equal(t, last, s.log.Durable())
		require.Error(t, s.log.WaitDurable(ctx, last+1))
		cancel()
		require.NoError(t, s.log.WaitDurable(ctx, last))
		s.close()
	}
}

// toggle fails the operations that match while on.
type toggle struct {
	on    atomic.Bool
	match func(errorfs.Op) bool
	err   error
	hits  atomic.Int32
}

func (g *toggle) String() string { return "toggle" }
func (g *toggle) MaybeError(op errorfs.Op) error {
	if g.on.Load() && g.match(op) {
		g.hits.Add(1)
		return g.err
	}
	return nil
}

// After a failed write or sync nothing more is acknowledged, no further byte
// goes to the log, and a reopen finds a prefix with everything acknowledged.
func TestLog_Commit_failurePoisons(t *testing.T) {
	for _, p := range policies {
		for _, kind := range []errorfs.OpKind{errorfs.OpFileSyncData, errorfs.OpFileWriteAt} {
			t.Run(fmt.Sprintf("%v/%v", p, kind), func(t *testing.T) {
				mem := vfs.NewCrashableMem()
				bad := &toggle{err: syscall.EIO}
				var after atomic.Int32
				bad.match = func(op errorfs.Op) bool {
					if !strings.HasSuffix(op.Path, segmentSuffix) && !strings.HasSuffix(op.Path, spareSuffix) {
						return false
					}
					if bad.hits.Load() > 0 && (op.Kind == errorfs.OpFileWriteAt || op.Kind == errorfs.OpFileSyncData) {
						after.Add(1)
					}
					return op.Kind == kind
				}
				o := memOptions(errorfs.Wrap(mem, bad))
				o.Policy, o.Interval = p, time.Hour
				s := openStore(t, o)
				time.Sleep(5 * time.Millisecond) // the spare
				for i := range 3 {
					s.put(payloadOf(uint64(i), 50))
				}
				require.NoError(t, s.log.Sync(context.Background()))
				bad.on.Store(true)
				b := payloadOf(3, 50)
				_, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil)
				if err == nil {
					err = s.log.Sync(context.Background())
				}
				require.ErrorIs(t, err, syscall.EIO)
				require.True(t, errors.Is(err, ErrInDoubt) || errors.Is(err, ErrPoisoned), "%v", err)
				require.EqualValues(t, 3, s.log.Durable())
				bad.on.Store(false) // the disk is well again: that must not matter
				_, err = s.log.Commit(context.Background(), b, 1, Checksum(b), nil)
				require.ErrorIs(t, err, ErrPoisoned)
				require.ErrorIs(t, err, syscall.EIO)
				require.ErrorIs(t, s.log.Err(), ErrPoisoned)
				require.ErrorIs(t, s.log.SetFlushed(1, 1, 1), ErrPoisoned)
				require.ErrorIs(t, s.log.Close(), ErrPoisoned)
				require.Zero(t, after.Load(), "a byte after the poison")
				o.FS = mem
				s = openStore(t, o)
				require.False(t, s.rec.Clean)
				require.GreaterOrEqual(t, len(s.got), 3)
				require.Greater(t, s.put(b), uint64(4), "a number is never given twice")
				s.close()
			})
		}
	}
}

// BeforeSync fails like a sync.
func TestLog_Commit_beforeSyncFails(t *testing.T) {
	o := memOptions(vfs.NewMem())
	var fail atomic.Bool
	o.Hooks.BeforeSync = func() error {
		if fail.Load() {
			return syscall.EIO
		}
		return nil
	}
	s := openStore(t, o)
	s.put(payloadOf(1, 1))
	fail.Store(true)
	b := payloadOf(2, 1)
	_, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil)
	require.ErrorIs(t, err, ErrInDoubt)
	require.Error(t, s.log.Close())
}

// A full disk refuses whole groups, consumes no number, poisons nothing, and
// is over when there is room again.
func TestLog_Commit_diskFull(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			mem := vfs.NewMem()
			full := &toggle{err: syscall.ENOSPC, match: func(op errorfs.Op) bool {
				return op.Kind == errorfs.OpCreate || op.Kind == errorfs.OpOpen && strings.Contains(op.Path, sparePrefix) ||
					op.Kind == errorfs.OpFileWrite
			}}
			o := memOptions(errorfs.Wrap(mem, full))
			o.Policy = p
			s := openStore(t, o)
			full.on.Store(true)
			want := map[uint64]bool{}
			var last uint64
			sawFull := 0
			for i := range 200 {
				n := 1000
				if i%3 == 0 {
					n = 40_000 // spans segments
				}
				b := payloadOf(uint64(i), n)
				lsn, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil)
				if err != nil {
					require.ErrorIs(t, err, ErrDiskFull)
					require.ErrorIs(t, err, syscall.ENOSPC)
					sawFull++
				} else {
					require.Equal(t, last+1, lsn)
					last = lsn
					want[lsn] = true
				}
			}
			require.Positive(t, sawFull)
			require.NoError(t, s.log.Err())
			full.on.Store(false)
			for i := range 20 {
				lsn := s.put(payloadOf(uint64(i), 5000))
				require.Equal(t, last+1, lsn)
				last = lsn
				want[lsn] = true
			}
			s.close()
			s = openStore(t, o)
			require.Len(t, s.got, len(want))
			s.close()
		})
	}
}

// Many writers share syncs, each is told its own number, nothing is lost.
func TestLog_Commit_manyWriters(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			o := Options{FS: vfs.Default, Dir: t.TempDir(), Policy: p, Interval: 2 * time.Millisecond, MaxGroupBytes: 16 << 10}
			s := openStore(t, o)
			const writers, each = 64, 20
			var mu sync.Mutex
			want := map[uint64]uint64{}
			var wg sync.WaitGroup
			for w := range writers {
				wg.Go(func() {
					ctx, cancel := context.WithCancel(context.Background())
					defer cancel()
					if w%2 == 0 {
						ctx = context.Background()
					}
					for i := range each {
						seed := uint64(w*each + i)
						b := payloadOf(seed, int(seed*31%700))
						if seed%97 == 0 {
							b = payloadOf(seed, 40_000)
						}
						lsn, err := s.log.Commit(ctx, b, 1, Checksum(b), nil)
						if err != nil {
							t.Error(err)
							return
						}
						clear(b) // the caller may reuse it
						if seed%50 == 0 {
							if err := s.log.WaitDurable(ctx, lsn); err != nil {
								t.Error(err)
							}
						}
						mu.Lock()
						want[lsn] = seed
						mu.Unlock()
					}
				})
			}
			wg.Wait()
			m := s.log.Metrics()
			t.Logf("%d batches, %d groups, %d syncs, %d cohort waits", m.Batches, m.Groups, m.Syncs, m.CohortWaits)
			require.Len(t, want, writers*each)
			require.GreaterOrEqual(t, s.log.GroupBytes(), int64(2*bufferBytes))
			if p != Never { // else single batches go through the buffers
				require.Greater(t, s.log.GroupBytes(), int64(2*bufferBytes+8<<10))
			}
			s.close()
			s = openStore(t, o)
			require.Len(t, s.got, len(want))
			for lsn, seed := range want {
				got, err := seedOfPayload(s.got[lsn])
				require.NoError(t, err)
				require.Equal(t, seed, got)
			}
			s.close()
		})
	}
}

// The group follows the load: a lone writer waits for nobody, many wait for each other,
// for no longer than half of a sync, and when they are gone a lone one waits again for
// nobody.
func TestLog_gather_followsLoad(t *testing.T) {
	slow := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync {
			time.Sleep(2 * time.Millisecond) // company is worth waiting for
		}
		return nil
	}))
	s := openStore(t, memOptions(slow))
	alone := func() Metrics {
		for i := range 30 {
			s.put(payloadOf(uint64(i), 100))
		}
		return s.log.Metrics()
	}
	m := alone()
	require.Equal(t, 1, m.LastGroup)
	require.LessOrEqual(t, m.GroupWanted, 1)
	const writers = 16
	var wg sync.WaitGroup
	var largest, wanted atomic.Int64
	for range writers {
		wg.Go(func() {
			for i := range 40 {
				b := payloadOf(uint64(i), 100)
				if _, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil); err != nil {
					t.Error(err)
				}
				m := s.log.Metrics()
				for v := largest.Load(); int64(m.LastGroup) > v && !largest.CompareAndSwap(v, int64(m.LastGroup)); v = largest.Load() {
				}
				for v := wanted.Load(); int64(m.GroupWanted) > v && !wanted.CompareAndSwap(v, int64(m.GroupWanted)); v = wanted.Load() {
				}
			}
		})
	}
	wg.Wait()
	together := s.log.Metrics()
	require.Greater(t, largest.Load(), int64(writers/2))
	require.Greater(t, wanted.Load(), int64(writers/2))
	require.Greater(t, together.CohortWaits, m.CohortWaits)
	require.Positive(t, together.GroupWait)
	require.LessOrEqual(t, together.GroupWait, maxCohortWait)
	require.Less(t, together.Syncs-m.Syncs, uint64(writers*40/4), "they share their syncs")
	m = alone()
	require.Equal(t, 1, m.LastGroup)
	require.LessOrEqual(t, m.GroupWanted, 1)
	require.InDelta(t, together.CohortWaits, m.CohortWaits, 1)
	s.close()
}

// A large group is placed while it is synced, a small one and one with an argument after;
// none is published before both are done, and one whose sync fails never is.
func TestLog_commit_placesBeside(t *testing.T) {
	for _, c := range []struct {
		ops    uint32
		arg    any
		beside bool
	}{{1, nil, false}, {besideOps - 1, nil, false}, {besideOps, nil, true}, {1000, "held", false}} {
		var synced, armed, fail atomic.Bool
		var placed, published atomic.Uint64
		arrived := make(chan struct{}, 1)
		slow := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if armed.Load() && !strings.Contains(op.Path, "STATE") && (op.Kind == errorfs.OpFileSyncData || op.Kind == errorfs.OpFileSync) {
				if c.beside {
					select { // the sync is not through before the group is placed
					case <-arrived:
					case <-time.After(10 * time.Second):
						t.Error("not placed beside the sync")
					}
				} else {
					time.Sleep(20 * time.Millisecond) // somebody who does not wait would come by now
				}
				if fail.Load() {
					return syscall.EIO
				}
				synced.Store(true)
			}
			return nil
		}))
		o := memOptions(slow)
		o.Hooks = Hooks{
			Place: func(lsn uint64, _ []byte, ops uint32, arg any) {
				if armed.Load() && !c.beside && !synced.Load() {
					t.Errorf("%d writes placed before their sync", ops)
				}
				if c.beside {
					arrived <- struct{}{}
					time.Sleep(20 * time.Millisecond) // who does not wait would publish by now
				}
				placed.Store(lsn)
			},
			Publish: func(lsn uint64) {
				if armed.Load() && (!synced.Load() || placed.Load() < lsn) {
					t.Errorf("published %d before it was synced and placed", lsn)
				}
				published.Store(lsn)
			},
		}
		s := openStore(t, o)
		commit := func() error { // armed for so long only: the keeper syncs, too
			armed.Store(true)
			defer armed.Store(false)
			b := payloadOf(7, 200)
			_, err := s.log.Commit(context.Background(), b, c.ops, Checksum(b), c.arg)
			return err
		}
		require.Eventually(t, func() bool { // nothing else is synced from here on
			s.log.makeMu.Lock()
			defer s.log.makeMu.Unlock()
			return len(s.log.spares) > 0
		}, 10*time.Second, time.Millisecond)
		require.NoError(t, commit())
		require.Equal(t, placed.Load(), published.Load())
		last := published.Load()
		synced.Store(false)
		fail.Store(true)
		require.ErrorIs(t, commit(), ErrInDoubt)
		require.Equal(t, last, published.Load())
		require.Equal(t, last, s.log.Last())
		_ = s.log.Close()
	}
}

// What a barrier runs meets no group half-way: all that was placed is published, and the
// number that it is told is the last of it.
func TestLog_Barrier_betweenGroups(t *testing.T) {
	for _, p := range policies {
		var placed, published atomic.Uint64
		o := memOptions(vfs.NewMem())
		o.Policy = p
		o.Hooks = Hooks{
			Place: func(lsn uint64, _ []byte, _ uint32, _ any) {
				placed.Store(lsn)
				time.Sleep(100 * time.Microsecond) // whoever takes no lock comes now
			},
			Publish: func(lsn uint64) { published.Store(lsn) },
		}
		s := openStore(t, o)
		var stop atomic.Bool
		var wg sync.WaitGroup
		for range 2 {
			wg.Go(func() {
				for i := uint64(0); !stop.Load(); i++ {
					b := payloadOf(i, 50)
					if _, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil); err != nil {
						t.Error(err)
						return
					}
				}
			})
		}
		for n := 0; n < 200; n++ {
			require.NoError(t, s.log.Barrier(func(last uint64) {
				require.Equal(t, published.Load(), placed.Load(), "a group is on its way")
				require.Equal(t, published.Load(), last)
				time.Sleep(20 * time.Microsecond)
				require.Equal(t, last, placed.Load(), "a group began")
			}))
			time.Sleep(50 * time.Microsecond)
		}
		stop.Store(true)
		wg.Wait()
		require.Greater(t, published.Load(), uint64(100))
		s.close()
	}
}

// Whoever stops waiting is told that the outcome is open.
func TestLog_Commit_cancelled(t *testing.T) {
	for _, n := range []int{10, 50_000} {
		s := openStore(t, memOptions(vfs.NewMem()))
		s.log.commitMu.Lock()
		ctx, cancel := context.WithCancel(context.Background())
		go func() {
			for under := false; !under; time.Sleep(time.Millisecond) {
				s.log.groupMu.Lock()
				under = s.log.forming != nil
				s.log.groupMu.Unlock()
				under = under || len(s.log.large) > 0
			}
			time.Sleep(5 * time.Millisecond) // the large one copies first
			cancel()
		}()
		b := payloadOf(1, n)
		_, err := s.log.Commit(ctx, b, 1, Checksum(b), nil)
		require.ErrorIs(t, err, ErrInDoubt)
		require.ErrorIs(t, err, context.Canceled)
		clear(b)
		_, err = s.log.Commit(ctx, b, 1, Checksum(b), nil)
		require.Error(t, err)
		require.NotErrorIs(t, err, ErrInDoubt, "nothing was handed over")
		s.log.commitMu.Unlock()
		s.put(payloadOf(2, 1))
		s.close()
		s = openStore(t, s.o)
		require.Len(t, s.got, 2)
		for _, b := range s.got {
			_, err := seedOfPayload(b)
			require.NoError(t, err)
		}
		s.close()
	}
}

// Close under load: every writer gets a definite answer, and what was
// acknowledged is there.
func TestLog_Close_underLoad(t *testing.T) {
	for _, p := range policies {
		t.Run(p.String(), func(t *testing.T) {
			o := memOptions(vfs.NewMem())
			o.Policy = p
			s := openStore(t, o)
			var acked atomic.Int64
			var wg sync.WaitGroup
			for w := range 16 {
				wg.Go(func() {
					for i := range 1 << 20 {
						b := payloadOf(uint64(w<<20+i), 300)
						_, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil)
						if err != nil {
							if !errors.Is(err, ErrClosed) {
								t.Error(err)
							}
							return
						}
						acked.Add(1)
					}
				})
			}
			time.Sleep(20 * time.Millisecond)
			s.close()
			wg.Wait()
			s = openStore(t, o)
			require.EqualValues(t, acked.Load(), len(s.got))
			s.close()
		})
	}
}

// The lease is durable before a number of it is used.
func TestLog_Commit_lease(t *testing.T) {
	o := memOptions(vfs.NewMem())
	o.lease = 7
	s := openStore(t, o)
	for i := range 100 {
		lsn := s.put(payloadOf(uint64(i), 10))
		st, err := ReadState(o.FS, o.Dir)
		require.NoError(t, err)
		require.GreaterOrEqual(t, st.IssuedCeiling, lsn)
	}
	s.close()
	s = openStore(t, o)
	require.EqualValues(t, 101, s.rec.NextLSN)
	s.close()
}

// A read-only recovery changes nothing, and is not started.
func TestRecovery_Start_readOnly(t *testing.T) {
	mem := vfs.NewMem()
	s := openStore(t, memOptions(mem))
	for i := range 50 {
		s.put(payloadOf(uint64(i), 1000))
	}
	writes := &toggle{err: errors.New("written"), match: func(op errorfs.Op) bool {
		return op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose
	}}
	writes.on.Store(true)
	o := memOptions(errorfs.Wrap(mem, writes))
	o.ReadOnly = true
	r, err := tryRecover(t, o, 0)
	require.NoError(t, err)
	require.Len(t, r.got, 50)
	_, err = r.rec.Start()
	require.Error(t, err)
	require.Zero(t, writes.hits.Load())
	s.close()
}

// A store that does not exist says so.
func TestReadState_missing(t *testing.T) {
	_, err := ReadState(vfs.NewMem(), "db")
	require.ErrorIs(t, err, fs.ErrNotExist)
	_, err = ReadState(vfs.Default, t.TempDir())
	require.ErrorIs(t, err, fs.ErrNotExist)
}

// A copy holds exactly the records asked for, across jumps and large batches.
func TestLog_CopyTo_roundTrip(t *testing.T) {
	for _, p := range policies {
		mem := vfs.NewCrashableMem()
		o := memOptions(mem)
		o.Policy = p
		o.lease = 100
		want := map[uint64][]byte{}
		var last uint64
		var s *store
		for round := range 3 {
			var err error
			s, err = tryOpen(t, o, 0)
			require.NoError(t, err)
			require.Len(t, s.got, len(want))
			for i := range 30 {
				b := payloadOf(uint64(round*100+i), i*100)
				if i == 7 {
					b = payloadOf(uint64(round*100+i), 50_000)
				}
				last = s.put(b)
				want[last] = b
			}
			require.NoError(t, s.log.Sync(context.Background()))
			if round < 2 {
				crash := mem.CrashClone(vfs.CrashCloneCfg{})
				s.close()
				mem = crash
				o.FS = mem
			}
		}
		require.Greater(t, last, uint64(200), "there are jumps")
		for _, r := range [][2]uint64{{0, last}, {5, last - 3}, {last, last}, {10, 10}, {35, 150}, {last - 5, last}, {7, 8}} {
			above, upTo := r[0], r[1]
			for want[upTo] == nil {
				upTo--
			}
			above = min(above, upTo)
			for above > 0 && want[above] == nil {
				above--
			}
			dst := vfs.NewCrashableMem()
			require.NoError(t, s.log.CopyTo(dst, "a/b", above, 0, upTo), "%d %d", above, upTo)
			dst = dst.CrashClone(vfs.CrashCloneCfg{})
			o2 := o
			o2.FS, o2.Dir = dst, "a/b"
			c, err := tryOpen(t, o2, above)
			require.NoError(t, err)
			require.Equal(t, upTo, c.rec.LastLSN)
			require.True(t, c.rec.Clean)
			n := 0
			for lsn, b := range want {
				if lsn > above && lsn <= upTo {
					n++
					require.Equal(t, b, c.got[lsn])
				}
			}
			require.Len(t, c.got, n)
			require.Greater(t, c.put(payloadOf(1, 1)), upTo)
			c.close()
			c, err = tryOpen(t, o2, above)
			require.NoError(t, err)
			require.Len(t, c.got, n+1)
			c.close()
		}
		require.Error(t, s.log.CopyTo(vfs.NewMem(), "x", 0, 0, last+1))
		s.close()
	}
}

// Goal: a copy beside a writer that fills one segment after the other has all that was
// acknowledged when it began.
func TestLog_CopyTo_besideRotations(t *testing.T) {
	fs := vfs.NewMem()
	s := openStore(t, memOptions(fs))
	done := make(chan error, 1)
	go func() {
		b := payloadOf(1, 3000)
		for range 600 {
			if _, err := s.log.Commit(context.Background(), b, 1, Checksum(b), nil); err != nil {
				done <- err
				return
			}
		}
		done <- nil
	}()
	copies := 0
	for running := true; running; copies++ {
		select {
		case err := <-done:
			require.NoError(t, err)
			running = false
		default:
		}
		last := s.log.Durable()
		above := last - min(last, 10)
		dst := fmt.Sprintf("copy%d", copies)
		require.NoError(t, fs.MkdirAll(dst, 0o755))
		require.NoError(t, s.log.CopyTo(fs, dst, above, 1, last))
		o := memOptions(fs)
		o.Dir = dst
		c, err := tryRecover(t, o, above)
		require.NoError(t, err)
		require.Len(t, c.got, int(last-above))
		require.NoError(t, fs.RemoveAll(dst))
	}
	require.Greater(t, s.log.Metrics().Rotations, uint64(20))
	s.close()
}
