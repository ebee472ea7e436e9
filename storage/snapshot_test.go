package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	"strings"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal: readers beside ingests and compactions never see half an ingest. Every
// ingest gives all keys one value, by Set or by Delete and Set of neighbours.
func TestSnapshot_concurrent_neverTorn(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	const keys = 200
	gen := func(n uint64) []op {
		ops := sets(keys, "k%03d", fmt.Sprint(n))
		// Keys come and go, so that deletes are torn too: odd or even only.
		for i := range ops {
			if uint64(i)%2 == n%2 {
				ops[i] = op{'d', ops[i].key, ""}
			}
		}
		return ops
	}
	mustIngest(t, s, 1, gen(1))
	stop := make(chan struct{})
	var views atomic.Int64
	var wg sync.WaitGroup
	check := func(m map[string]string) error {
		if len(m) != keys/2 {
			return fmt.Errorf("%d keys", len(m))
		}
		first := ""
		for k, v := range m {
			if first == "" {
				first = v
			}
			if v != first {
				return fmt.Errorf("torn: %s is %s, another is %s", k, v, first)
			}
		}
		return nil
	}
	for g := range 4 {
		wg.Add(1)
		go func() {
			defer wg.Done()
			for {
				select {
				case <-stop:
					return
				default:
				}
				sn := s.Current()
				m := map[string]string{}
				if g%2 == 0 {
					got, err := dump(sn)
					if err != nil {
						t.Error(err)
					}
					m = got
				} else {
					for i := range keys {
						k := fmt.Sprintf("k%03d", i)
						v, ok, err := sn.Get(nil, []byte(k))
						if err != nil {
							t.Error(err)
						}
						if ok {
							m[k] = string(v)
						}
					}
				}
				sn.Release()
				views.Add(1)
				if err := check(m); err != nil {
					t.Error(err)
					return
				}
			}
		}()
	}
	end := time.Now().Add(3 * time.Second)
	n := uint64(2)
	for ; time.Now().Before(end); n++ {
		mustIngest(t, s, n, gen(n))
	}
	close(stop)
	wg.Wait()
	t.Logf("%d ingests, %d views, %d compactions", n, views.Load(), s.Metrics().Compactions)
}

// Goal: a snapshot shows the same for ever, over ingests and compactions.
func TestSnapshot_immutable(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	r := rand.New(rand.NewSource(5))
	want := model{}
	type held struct {
		sn *Snapshot
		m  model
	}
	var all []held
	for lsn := uint64(1); lsn <= 20; lsn++ {
		ops := randomOps(r, 500, 100, func() string { return fmt.Sprint(r.Int()) })
		mustIngest(t, s, lsn, ops)
		want.apply(ops)
		all = append(all, held{s.Current(), want.clone()})
		if lsn%5 == 0 {
			require.NoError(t, s.Compact(context.Background()))
			for i, h := range all {
				got, err := dump(h.sn)
				require.NoError(t, err)
				require.Equal(t, h.m, got, i)
				for k, v := range h.m {
					b, ok, err := h.sn.Get(nil, []byte(k))
					require.NoError(t, err)
					require.True(t, ok)
					require.Equal(t, v, string(b))
				}
			}
		}
	}
	require.Equal(t, 20, s.Metrics().Snapshots)
	for _, h := range all {
		h.sn.Release()
	}
	require.Equal(t, 1, s.Metrics().Snapshots)
	// Idle iterators let the replaced tables go.
	require.NoError(t, s.Compact(context.Background()))
	require.Eventually(t, func() bool { return s.Metrics().PinnedBytes == 0 }, 5*time.Second, 20*time.Millisecond)
}

// Goal: absent keys are answered by filters, those of the last level too.
func TestSnapshot_Get_absentAsksFilters(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	mustIngest(t, s, 1, sets(20000, "key%06d", "v"))
	require.NoError(t, s.Compact(context.Background()))
	m := s.Metrics()
	require.NotZero(t, m.Levels[6].Tables)
	sn := s.Current()
	defer sn.Release()
	const n = 1000
	for i := range n {
		_, ok, err := sn.Get(nil, fmt.Appendf(nil, "key%06d-absent", i*19))
		require.NoError(t, err)
		require.False(t, ok)
	}
	after := s.Metrics()
	require.Greater(t, after.FilterHits-m.FilterHits, int64(n*9/10))
}

// Goal: Close in the middle of everything returns at once, and whoever is cut
// off hears ErrClosed and nothing else.
func TestStore_Close_concurrent(t *testing.T) {
	for round := range 10 {
		s := mustOpen(t, testOptions(vfs.NewMem()))
		mustIngest(t, s, 1, sets(2000, "k%05d", strings.Repeat("v", 100)))
		var wg sync.WaitGroup
		run := func(fn func() error) {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for {
					if err := fn(); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("not ErrClosed: %v", err)
						}
						return
					}
				}
			}()
		}
		run(func() error {
			sn := s.Current()
			defer sn.Release()
			_, err := dump(sn)
			return err
		})
		run(func() error {
			sn := s.Current()
			defer sn.Release()
			_, _, err := sn.Get(nil, []byte("k00100"))
			return err
		})
		lsn := uint64(1)
		run(func() error { lsn++; return ingest(s, lsn, sets(500, "k%05d", "w")) })
		run(func() error { return s.Compact(context.Background()) })
		run(func() error { return s.Check(context.Background()) })
		run(func() error { s.Metrics(); s.Sublevels(); _, _, err := s.Watermark(); return err })
		time.Sleep(time.Duration(round*5) * time.Millisecond)
		held := s.Current()
		it, err := held.NewIter(nil, nil)
		require.NoError(t, err)
		require.True(t, it.First())
		require.NoError(t, s.Close())
		wg.Wait()
		require.False(t, it.Next())
		require.ErrorIs(t, it.Err(), ErrClosed)
		require.NoError(t, it.Close())
		held.Release()
	}
}
