package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// variants run the same suite under settings that change what moves when, and must
// change no result.
var variants = map[string]Options{
	"default":      {},
	"interval":     {Sync: SyncInterval, SyncEvery: 5 * time.Millisecond},
	"never":        {Sync: SyncNever},
	"tiny-segment": {Sync: SyncNever, SegmentBytes: 16 << 10},
	"large-early":  {Sync: SyncNever, LargeValue: 4 << 10},
	"raw-no-map":   {Sync: SyncNever, LargeValue: 4 << 10, Compression: CompressNone, NoMap: true},
}

func eachVariant(t *testing.T, f func(t *testing.T, o Options)) {
	for name, o := range variants {
		t.Run(name, func(t *testing.T) { f(t, o) })
	}
}

func small(o Options) *Options {
	o.MemoryBudget = minBudget
	if o.SegmentBytes == 0 {
		o.SegmentBytes = 128 << 10 // zeroed whole at each open
	}
	if o.DiskReserve == 0 {
		o.DiskReserve = -1
	}
	return &o
}

func open(t *testing.T, dir string, o Options) *Engine {
	t.Helper()
	e, err := Open(dir, small(o))
	require.NoError(t, err)
	t.Cleanup(func() {
		if !e.gate.closed.Load() && !e.opts.ReadOnly {
			require.NoError(t, e.Check(context.Background()))
		}
		require.NoError(t, e.Close())
	})
	return e
}

func flush(t *testing.T, e *Engine) {
	t.Helper()
	require.NoError(t, e.Flush(context.Background()))
}

func get(t *testing.T, e *Engine, key string) string {
	t.Helper()
	v, err := e.Get([]byte(key))
	if errors.Is(err, ErrNotFound) {
		return "∅"
	}
	require.NoError(t, err)
	return string(v)
}

func pairs(t *testing.T, scan func(yield func(Item, error) bool)) (out []string) {
	t.Helper()
	for item, err := range scan {
		require.NoError(t, err)
		v, err := item.Value()
		require.NoError(t, err)
		require.EqualValues(t, len(v), item.Size())
		out = append(out, string(item.Key())+"="+string(v))
	}
	return out
}

// Goal: one value walks the whole way, and answers the same from every tier.
func TestEngine_Get_everyTier(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		e := open(t, t.TempDir(), o)
		values := map[string]string{
			"small": "state", "empty": "", "zeros": string(make([]byte, 300)),
			"medium": strings.Repeat("medium ", 1000), "large": strings.Repeat("large state ", 20_000),
			"k\x00\xff": "odd key",
		}
		check := func(tiers ...Tier) {
			t.Helper()
			for k, v := range values {
				require.Equal(t, v, get(t, e, k))
				i, err := e.Stat([]byte(k))
				require.NoError(t, err)
				require.EqualValues(t, len(v), i.Size)
				require.Contains(t, tiers, i.Tier)
				require.NotZero(t, i.Revision)
				require.NoError(t, e.View([]byte(k), func(b []byte) error {
					require.Equal(t, v, string(b))
					return nil
				}))
				b, err := e.GetInto([]byte("pre:"), []byte(k))
				require.NoError(t, err)
				require.Equal(t, "pre:"+v, string(b))
				ok, err := e.Has([]byte(k))
				require.NoError(t, err)
				require.True(t, ok)
			}
			require.Equal(t, "∅", get(t, e, "absent"))
			ok, err := e.Has([]byte("absent"))
			require.NoError(t, err)
			require.False(t, ok)
		}
		for k, v := range values {
			require.NoError(t, e.Put([]byte(k), []byte(v)))
		}
		check(TierMap)
		flush(t, e)
		check(TierL1, TierL2, TierL3)
		check(TierL1, TierL2, TierL3)
		require.NoError(t, e.Compact(context.Background()))
		check(TierL1, TierL2, TierL3)

		v, err := e.Get([]byte("empty"))
		require.NoError(t, err)
		require.NotNil(t, v, "empty is not missing")
	})
}

// Goal: a later write wins wherever the earlier one lies.
func TestEngine_Put_overwritesEveryTier(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		e := open(t, t.TempDir(), o)
		key := []byte("k")
		for i := range 6 {
			v := fmt.Sprintf("v%d", i)
			if i%3 == 2 {
				v = strings.Repeat(v, 40_000)
			}
			require.NoError(t, e.Put(key, []byte(v)))
			require.Equal(t, v, get(t, e, "k"))
			flush(t, e)
			require.Equal(t, v, get(t, e, "k"), "from L3")
			require.Equal(t, v, get(t, e, "k"), "from a cache")
			i1, err := e.Stat(key)
			require.NoError(t, err)
			require.NoError(t, e.Delete(key))
			require.Equal(t, "∅", get(t, e, "k"))
			flush(t, e)
			require.Equal(t, "∅", get(t, e, "k"))
			require.NoError(t, e.Put(key, []byte(v)))
			i2, err := e.Stat(key)
			require.NoError(t, err)
			require.Greater(t, i2.Revision, i1.Revision)
		}
	})
}

// Goal: range deletes hide every older room, and nothing newer.
func TestEngine_DeleteRange(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		for _, where := range []string{"map", "frozen-or-L3", "half"} {
			e := open(t, t.TempDir(), o)
			for i := range 10 {
				require.NoError(t, e.Put(fmt.Appendf(nil, "k%d", i), []byte("old")))
				if where == "half" && i == 5 {
					flush(t, e)
				}
			}
			if where == "frozen-or-L3" {
				flush(t, e)
				require.Equal(t, "old", get(t, e, "k4")) // fills the caches
			}
			require.NoError(t, e.DeleteRange([]byte("k3"), []byte("k6")))
			require.NoError(t, e.Put([]byte("k5"), []byte("new")))
			for range 3 {
				require.Equal(t, []string{"k0=old", "k1=old", "k2=old", "k5=new", "k6=old", "k7=old", "k8=old", "k9=old"}, pairs(t, e.Scan(Range{})))
				require.Equal(t, "∅", get(t, e, "k3"))
				require.Equal(t, "∅", get(t, e, "k4"))
				require.Equal(t, "new", get(t, e, "k5"))
				require.Equal(t, "old", get(t, e, "k6"))
				flush(t, e)
			}
			require.NoError(t, e.DeleteRange(nil, nil))
			require.Empty(t, pairs(t, e.Scan(Range{})))
			flush(t, e)
			require.Empty(t, pairs(t, e.Scan(Range{})))
		}
	})
}

// Goal: within a batch later operations win, also a range delete over a point.
func TestBatch_laterWins(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	b := e.NewBatch()
	defer b.Close()
	require.NoError(t, b.Put([]byte("a"), []byte("1")))
	require.NoError(t, b.Put([]byte("b"), []byte("1")))
	require.NoError(t, b.Put([]byte("b"), []byte("2")))
	require.NoError(t, b.Put([]byte("m"), []byte("gone")))
	require.NoError(t, b.DeleteRange([]byte("l"), []byte("n")))
	require.NoError(t, b.DeleteRange([]byte("n"), []byte("p")))
	require.NoError(t, b.Put([]byte("o"), []byte("kept")))
	require.NoError(t, b.Put([]byte("x"), []byte("1")))
	require.NoError(t, b.Delete([]byte("x")))
	require.Equal(t, 9, b.Len())
	lsn, err := e.Apply(b)
	require.NoError(t, err)
	want := []string{"a=1", "b=2", "o=kept"}
	require.Equal(t, want, pairs(t, e.Scan(Range{})))
	flush(t, e)
	require.Equal(t, want, pairs(t, e.Scan(Range{})))
	i, err := e.Stat([]byte("o"))
	require.NoError(t, err)
	require.Equal(t, lsn, i.Revision)

	b.Reset()
	again, err := e.Apply(b)
	require.NoError(t, err)
	require.Equal(t, lsn, again, "an empty batch commits nothing")
}

// Goal: many overlapping ranges and points of one batch agree with doing them one
// by one.
func TestBatch_normalise_model(t *testing.T) {
	for seed := range 50 {
		e := &Engine{opts: Options{LargeValue: 1 << 30, MaxBatch: 1 << 30}}
		b := &Batch{e: e}
		want := map[string]string{}
		x := uint64(seed)*2654435761 + 1
		rnd := func(n int) int { x ^= x << 13; x ^= x >> 7; x ^= x << 17; return int(x % uint64(n)) }
		for i := range 200 {
			k := fmt.Sprintf("%02d", rnd(60))
			if rnd(4) > 0 {
				require.NoError(t, b.Put([]byte(k), fmt.Append(nil, i)))
				want[k] = fmt.Sprint(i)
				continue
			}
			u := fmt.Sprintf("%02d", rnd(60))
			if u < k {
				k, u = u, k
			}
			require.NoError(t, b.DeleteRange([]byte(k), []byte(u)))
			for w := range want {
				if k <= w && w < u {
					delete(want, w)
				}
			}
		}
		require.NoError(t, b.normalise())
		got := map[string]string{}
		for rest := b.ops; len(rest) > 0; {
			o, next, err := rest.next()
			require.NoError(t, err)
			if rest = next; o.kind != opRange {
				got[string(o.key)] = string(o.payload)
			}
		}
		require.Equal(t, want, got, "seed %d", seed)
	}
}

// Goal: scans honour bounds, direction and prefixes over map and L3 together.
func TestEngine_Scan_bounds(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		e := open(t, t.TempDir(), o)
		for i, k := range []string{"a", "b1", "b2", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"} {
			require.NoError(t, e.Put([]byte(k), []byte("v")))
			if i == 3 {
				flush(t, e)
				require.NoError(t, e.Delete([]byte("b2")))
			}
		}
		keys := func(r Range) (out []string) {
			for _, p := range pairs(t, e.Scan(r)) {
				out = append(out, strings.TrimSuffix(p, "=v"))
			}
			return out
		}
		require.Equal(t, []string{"a", "b1", "b\xff", "b\xff\xff", "c", "\xff", "\xff\xff"}, keys(Range{}))
		require.Equal(t, []string{"\xff\xff", "\xff", "c", "b\xff\xff", "b\xff", "b1", "a"}, keys(Range{Reverse: true}))
		require.Equal(t, []string{"b1", "b\xff", "b\xff\xff"}, keys(Prefix([]byte("b"))))
		require.Equal(t, []string{"b\xff", "b\xff\xff"}, keys(Prefix([]byte("b\xff"))))
		require.Equal(t, []string{"\xff", "\xff\xff"}, keys(Prefix([]byte("\xff"))))
		require.Len(t, keys(Prefix(nil)), 7)
		require.Equal(t, []string{"b\xff", "b1"}, keys(Range{Lower: []byte("b"), Upper: []byte("b\xff\xff"), Reverse: true}))
		require.Empty(t, keys(Range{Lower: []byte("x"), Upper: []byte("b")}))
		for item, err := range e.Scan(Range{}) { // leaving early leaks nothing
			require.NoError(t, err)
			require.Equal(t, "a", string(item.Key()))
			break
		}
	})
}

// Goal: a snapshot shows one moment through writes, flushes and compactions.
func TestSnapshot_isImmutable(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		e := open(t, t.TempDir(), o)
		for i := range 50 {
			require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), []byte("1")))
			if i == 25 {
				flush(t, e)
			}
		}
		s, err := e.Snapshot()
		require.NoError(t, err)
		defer s.Close()
		before := pairs(t, s.Scan(Range{}))
		require.Len(t, before, 50)
		check := func() {
			t.Helper()
			require.Equal(t, before, pairs(t, s.Scan(Range{})))
			for _, k := range []string{"k00", "k10", "k30", "k49"} {
				v, err := s.Get([]byte(k))
				require.NoError(t, err)
				require.Equal(t, "1", string(v))
			}
			_, err := s.Get([]byte("later"))
			require.ErrorIs(t, err, ErrNotFound)
		}
		for i := range 50 {
			require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), []byte("2")))
		}
		require.NoError(t, e.Put([]byte("later"), nil))
		check()
		require.NoError(t, e.DeleteRange([]byte("k10"), []byte("k20")))
		check()
		flush(t, e)
		require.Equal(t, "2", get(t, e, "k00")) // newer cells are in the caches now
		require.Equal(t, "∅", get(t, e, "k10"))
		check()
		require.NoError(t, e.Compact(context.Background()))
		check()
		require.NoError(t, s.Close())
		require.NoError(t, s.Close())
		_, err = s.Get([]byte("k00"))
		require.ErrorIs(t, err, ErrClosed)
	})
}

// Goal: what was acknowledged is there after a close, from log and L3, again and
// again.
func TestEngine_Open_again(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		dir := t.TempDir()
		want := map[string]string{}
		for round := range 5 {
			e, err := Open(dir, small(o))
			require.NoError(t, err)
			require.True(t, e.Recovered().Clean)
			for k, v := range want {
				require.Equal(t, v, get(t, e, k))
			}
			for i := range 30 {
				k := fmt.Sprintf("r%d-%d", round%3, i)
				v := strings.Repeat(k, 1+i*i*i)
				require.NoError(t, e.Put([]byte(k), []byte(v)))
				want[k] = v
				if round == 2 && i == 15 {
					flush(t, e)
				}
			}
			lsn := e.clock.Published()
			require.NoError(t, e.Close())
			r, err := Open(dir, small(Options{ReadOnly: true}))
			require.NoError(t, err)
			require.Equal(t, lsn, r.Recovered().LSN)
			for k, v := range want {
				require.Equal(t, v, get(t, r, k))
			}
			require.ErrorIs(t, r.Put([]byte("k"), nil), ErrReadOnly)
			require.NoError(t, r.Close())
		}
	})
}

// Goal: bad input gets a typed error and changes nothing.
func TestEngine_badInput(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	lsn := e.clock.Published()
	long := make([]byte, MaxKey+1)
	require.ErrorIs(t, e.Put(nil, nil), ErrEmptyKey)
	require.ErrorIs(t, e.Delete([]byte{}), ErrEmptyKey)
	require.ErrorIs(t, e.Put(long, nil), ErrTooLarge)
	require.ErrorIs(t, e.DeleteRange([]byte("b"), []byte("a")), ErrBadRange)
	require.ErrorIs(t, e.DeleteRange(long, nil), ErrTooLarge)
	require.NoError(t, e.DeleteRange([]byte("a"), []byte("a")), "empty, not bad")
	_, err := e.Get(nil)
	require.ErrorIs(t, err, ErrNotFound)
	_, err = e.Get(long)
	require.ErrorIs(t, err, ErrNotFound)

	b := e.NewBatch()
	require.NoError(t, b.Put([]byte("good"), nil))
	require.ErrorIs(t, b.Put(nil, nil), ErrEmptyKey)
	_, err = e.Apply(b)
	require.ErrorIs(t, err, ErrEmptyKey, "a batch with a refused write is refused whole")
	b.Reset()
	for err = nil; err == nil; {
		err = b.Put([]byte("k"), make([]byte, 30<<10))
	}
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = e.Apply(b)
	require.ErrorIs(t, err, ErrTooLarge)
	b.Close()
	b.Close()
	require.ErrorIs(t, b.Put([]byte("k"), nil), ErrClosed)
	require.Equal(t, lsn, e.clock.Published())
	require.Equal(t, "∅", get(t, e, "good"))

	key := make([]byte, MaxKey)
	require.NoError(t, e.Put(key, []byte("longest")))
	require.Equal(t, "longest", get(t, e, string(key)))
	flush(t, e)
	require.Equal(t, "longest", get(t, e, string(key)))
}

// Goal: the caller's buffers are its own again when a call returns.
func TestEngine_Put_copies(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	k, v := []byte("key"), []byte("value")
	require.NoError(t, e.Put(k, v))
	copy(k, "xxx")
	copy(v, "xxxxx")
	require.Equal(t, "value", get(t, e, "key"))
	got, err := e.Get([]byte("key"))
	require.NoError(t, err)
	copy(got, "yyyyy")
	require.Equal(t, "value", get(t, e, "key"))
}

// Goal: after Close every call says so, and closing twice is harmless.
func TestEngine_Close_everyCall(t *testing.T) {
	e, err := Open(t.TempDir(), small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	s, err := e.Snapshot()
	require.NoError(t, err)
	b := e.NewBatch()
	require.NoError(t, b.Put([]byte("k"), []byte("w")))
	ctx := context.Background()
	n := 0
	for _, err := range e.Scan(Range{}) { // Close never waits for user code
		if n++; n == 1 {
			require.NoError(t, err)
			require.NoError(t, e.Close())
		} else {
			require.ErrorIs(t, err, ErrClosed)
		}
	}
	require.NoError(t, e.Close())
	for name, f := range map[string]func() error{
		"Get":         func() error { _, err := e.Get([]byte("k")); return err },
		"GetInto":     func() error { _, err := e.GetInto(nil, []byte("k")); return err },
		"View":        func() error { return e.View([]byte("k"), func([]byte) error { return nil }) },
		"Has":         func() error { _, err := e.Has([]byte("k")); return err },
		"Stat":        func() error { _, err := e.Stat([]byte("k")); return err },
		"Put":         func() error { return e.Put([]byte("k"), nil) },
		"PutLarge":    func() error { return e.Put([]byte("k"), make([]byte, 1<<20)) },
		"Delete":      func() error { return e.Delete([]byte("k")) },
		"DeleteRange": func() error { return e.DeleteRange([]byte("a"), []byte("z")) },
		"Apply":       func() error { _, err := e.Apply(b); return err },
		"Flush":       func() error { return e.Flush(ctx) },
		"Compact":     func() error { return e.Compact(ctx) },
		"Check":       func() error { return e.Check(ctx) },
		"Checkpoint":  func() error { return e.Checkpoint(ctx, filepath.Join(t.TempDir(), "c")) },
		"Sync":        func() error { return e.Sync(ctx) },
		"WaitDurable": func() error { return e.WaitDurable(ctx, 1) },
		"Snapshot":    func() error { _, err := e.Snapshot(); return err },
		"Snapshot.Get": func() error {
			_, err := s.Get([]byte("k"))
			return err
		},
		"Scan": func() error {
			for _, err := range e.Scan(Range{}) {
				return err
			}
			return nil
		},
		"Snapshot.Scan": func() error {
			for _, err := range s.Scan(Range{}) {
				return err
			}
			return nil
		},
	} {
		require.ErrorIs(t, f(), ErrClosed, name)
	}
	require.Zero(t, e.Metrics())
}

// Goal: Close beside every kind of caller ends well: each call returns what it
// should or ErrClosed, and every acknowledged put is there on reopen.
func TestEngine_Close_besideCallers(t *testing.T) {
	for round := range 8 {
		dir := t.TempDir()
		o := small(Options{Sync: SyncPolicy(round % 3), LargeValue: 4 << 10})
		e, err := Open(dir, o)
		require.NoError(t, err)
		var wg sync.WaitGroup
		acked := make([]int, 6)
		for w := range acked {
			wg.Add(1)
			go func() {
				defer wg.Done()
				for i := 0; ; i++ {
					k := fmt.Appendf(nil, "w%d-%06d", w, i)
					v := k
					if i%7 == 0 {
						v = bytes.Repeat(k, 1000)
					}
					if err := e.Put(k, v); err != nil {
						if !errors.Is(err, ErrClosed) {
							t.Errorf("put: %v", err)
						}
						return
					}
					acked[w] = i + 1
					if _, err := e.Get(k); err != nil && !errors.Is(err, ErrClosed) {
						t.Errorf("get: %v", err)
					}
					if i%50 == 0 {
						for _, err := range e.Scan(Range{}) {
							if err != nil {
								if !errors.Is(err, ErrClosed) {
									t.Errorf("scan: %v", err)
								}
								break
							}
						}
						if err := e.Flush(context.Background()); err != nil && !errors.Is(err, ErrClosed) {
							t.Errorf("flush: %v", err)
						}
					}
				}
			}()
		}
		time.Sleep(time.Duration(10+round*10) * time.Millisecond)
		require.NoError(t, e.Close())
		wg.Wait()
		e, err = Open(dir, o)
		require.NoError(t, err)
		for w, n := range acked {
			for i := range n {
				k := fmt.Sprintf("w%d-%06d", w, i)
				v := k
				if i%7 == 0 {
					v = strings.Repeat(k, 1000)
				}
				require.Equal(t, v, get(t, e, k))
			}
		}
		require.NoError(t, e.Close())
	}
}

// Goal: what is not ours to open is refused, each with its own error, untouched.
func TestOpen_refusals(t *testing.T) {
	dir := t.TempDir()
	_, err := Open(filepath.Join(dir, "none"), &Options{MustExist: true})
	require.ErrorIs(t, err, os.ErrNotExist)
	_, err = Open(filepath.Join(dir, "none"), &Options{ReadOnly: true})
	require.ErrorIs(t, err, os.ErrNotExist)

	foreign := filepath.Join(dir, "foreign")
	require.NoError(t, os.MkdirAll(foreign, 0o755))
	require.NoError(t, os.WriteFile(filepath.Join(foreign, "photo.jpg"), []byte("x"), 0o644))
	_, err = Open(foreign, nil)
	require.ErrorIs(t, err, ErrForeign)
	names, err := os.ReadDir(foreign)
	require.NoError(t, err)
	require.Len(t, names, 1, "not even a LOCK is left behind")

	store := filepath.Join(dir, "a", "b", "store")
	e, err := Open(store, small(Options{}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	_, err = Open(store, nil)
	require.ErrorIs(t, err, ErrLocked)
	link := filepath.Join(dir, "link")
	require.NoError(t, os.Symlink(store, link))
	_, err = Open(link, nil)
	require.ErrorIs(t, err, ErrLocked, "by another path, too")
	_, err = Open(store, &Options{ReadOnly: true})
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, e.Close())

	r1, err := Open(store, small(Options{ReadOnly: true}))
	require.NoError(t, err)
	r2, err := Open(store, small(Options{ReadOnly: true}))
	require.NoError(t, err, "readers share")
	_, err = Open(store, nil)
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, r1.Close())
	require.NoError(t, r2.Close())

	state := filepath.Join(store, "STATE")
	saved, err := os.ReadFile(state)
	require.NoError(t, err)
	require.NoError(t, os.Remove(state))
	_, err = Open(store, nil)
	require.ErrorIs(t, err, ErrCorrupt, "a store that lost its STATE is not a new one")
	require.NoError(t, os.WriteFile(state, saved, 0o644))

	require.NoError(t, os.Rename(filepath.Join(store, "log"), filepath.Join(store, "gone")))
	_, err = Open(store, nil)
	require.ErrorIs(t, err, ErrCorrupt)
	require.NoError(t, os.RemoveAll(filepath.Join(store, "log")))
	require.NoError(t, os.Rename(filepath.Join(store, "gone"), filepath.Join(store, "log")))
	e = open(t, store, Options{})
	require.Equal(t, "v", get(t, e, "k"))
	flush(t, e)
	require.NoError(t, e.Close())
	require.NoError(t, os.Rename(filepath.Join(store, "l3"), filepath.Join(dir, "gone3")))
	_, err = Open(store, nil)
	require.ErrorIs(t, err, ErrCorrupt, "L3 missing")

	for _, bad := range []Options{
		{MemoryBudget: 1}, {Sync: 9}, {LargeValue: 1}, {MaxBatch: -1}, {Recovery: RecoverSalvage},
		{SegmentBytes: 1}, {StallLimit: -1}, {Compression: 77}, {SyncEvery: -1}, {Recovery: 9},
	} {
		_, err = Open(filepath.Join(dir, "x"), &bad)
		require.ErrorIs(t, err, ErrOptions)
	}
}

// Goal: a checkpoint is a store of its own with exactly what was acknowledged.
func TestEngine_Checkpoint(t *testing.T) {
	eachVariant(t, func(t *testing.T, o Options) {
		dir := t.TempDir()
		e := open(t, filepath.Join(dir, "store"), o)
		for i := range 40 {
			require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), bytes.Repeat([]byte{byte(i)}, i*i*10)))
			if i == 20 {
				flush(t, e)
			}
		}
		want := pairs(t, e.Scan(Range{}))
		dst := filepath.Join(dir, "copy")
		require.NoError(t, e.Checkpoint(context.Background(), dst))
		require.ErrorIs(t, e.Checkpoint(context.Background(), dst), os.ErrExist)
		require.NoError(t, e.DeleteRange(nil, nil))
		flush(t, e)
		c := open(t, dst, o)
		require.Equal(t, want, pairs(t, c.Scan(Range{})))
		require.NoError(t, c.Put([]byte("own"), []byte("life")))
		flush(t, c)
		require.Empty(t, pairs(t, e.Scan(Range{})))
	})
}

// Goal: writers that find the generations full wait for the flusher and go on, and
// memory stays near its share.
func TestEngine_Put_stalls(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	v := make([]byte, 4000)
	var most int64
	for i := range 8000 {
		require.NoError(t, e.Put(fmt.Appendf(nil, "key-%08d", i*7919%8000), v))
		if i%100 == 0 {
			most = max(most, e.Metrics().Map.Bytes)
		}
	}
	m := e.Metrics()
	require.NotZero(t, m.Flush.Flushes)
	require.LessOrEqual(t, most, (int64(e.shares().frozen)+1)*e.shares().generation*3/2)
	for i := range 8000 {
		ok, err := e.Has(fmt.Appendf(nil, "key-%08d", i))
		require.NoError(t, err)
		require.True(t, ok)
	}
}

// Goal: a stall ends for a writer by its own context, by StallLimit, or by Close.
func TestEngine_Apply_stallLimits(t *testing.T) {
	e, err := Open(t.TempDir(), small(Options{StallLimit: 20 * time.Millisecond}))
	require.NoError(t, err)
	time.Sleep(50 * time.Millisecond) // the flusher's first look ends any stall
	e.stall.on.Store(true)
	require.ErrorIs(t, e.Put([]byte("k"), nil), ErrBusy)
	ctx, cancel := context.WithTimeout(context.Background(), time.Millisecond)
	defer cancel()
	b := e.NewBatch()
	require.NoError(t, b.Put([]byte("k"), nil))
	_, err = e.ApplyContext(ctx, b)
	require.ErrorIs(t, err, ErrBusy)
	require.ErrorIs(t, err, context.DeadlineExceeded)
	b.Close()
	e.opts.StallLimit = time.Hour
	done := make(chan error)
	go func() { done <- e.Put([]byte("k"), nil) }()
	time.Sleep(10 * time.Millisecond)
	require.NoError(t, e.Close())
	require.ErrorIs(t, <-done, ErrClosed)
}

// Goal: snapshots pin a bounded amount; the oldest gives way, also under a scan.
func TestSnapshot_givesWay(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	put := func() {
		for i := range 600 {
			require.NoError(t, e.Put(fmt.Appendf(nil, "k%04d", i), make([]byte, 2000)))
		}
	}
	put()
	s, err := e.Snapshot()
	require.NoError(t, err)
	defer s.Close()
	n := 0
	for _, err := range s.Scan(Range{}) {
		if n++; n == 10 {
			for i := 0; i < 20; i++ {
				extra, err := e.Snapshot()
				require.NoError(t, err)
				defer extra.Close()
				put()
				flush(t, e)
			}
		}
		if err != nil {
			require.ErrorIs(t, err, ErrSnapshotTooOld)
			break
		}
	}
	require.Equal(t, 11, n)
	_, err = s.Get([]byte("k0000"))
	require.ErrorIs(t, err, ErrSnapshotTooOld)
	require.LessOrEqual(t, e.Metrics().Snapshots.PinnedBytes, e.shares().pinned)
}

// Goal: concurrent batches are seen whole or not at all, by snapshots and scans.
func TestEngine_Apply_isAtomic(t *testing.T) {
	for _, p := range []SyncPolicy{SyncAlways, SyncNever} {
		e := open(t, t.TempDir(), Options{Sync: p})
		stop := make(chan struct{})
		var wg sync.WaitGroup
		for w := range 3 {
			wg.Add(1)
			go func() {
				defer wg.Done()
				b := e.NewBatch()
				defer b.Close()
				for i := 0; ; i++ {
					select {
					case <-stop:
						return
					default:
					}
					b.Reset()
					for k := range 10 {
						_ = b.Put(fmt.Appendf(nil, "w%d-%d", w, k), fmt.Append(nil, i))
					}
					if _, err := e.Apply(b); err != nil {
						t.Error(err)
						return
					}
					if i%100 == 99 {
						if err := e.Flush(context.Background()); err != nil {
							t.Error(err)
						}
					}
				}
			}()
		}
		for end := time.Now().Add(time.Second); time.Now().Before(end); {
			seen := map[string]string{}
			for item, err := range e.Scan(Range{}) {
				require.NoError(t, err)
				v, err := item.Value()
				require.NoError(t, err)
				w := string(item.Key()[:2])
				if old, ok := seen[w]; ok {
					require.Equal(t, old, string(v), "half a batch of %s", w)
				}
				seen[w] = string(v)
			}
		}
		close(stop)
		wg.Wait()
	}
}

// Goal: the engine runs on a file system that is not the operating system's.
func TestOpen_memoryFS(t *testing.T) {
	fs := vfs.NewMem()
	e, err := Open("/store", small(Options{FS: fs, LargeValue: 4 << 10}))
	require.NoError(t, err)
	require.NoError(t, e.Put([]byte("k"), make([]byte, 10_000)))
	_, err = Open("/store", small(Options{FS: fs}))
	require.ErrorIs(t, err, ErrLocked)
	require.NoError(t, e.Close())
	e, err = Open("/store", small(Options{FS: fs}))
	require.NoError(t, err)
	require.Len(t, get(t, e, "k"), 10_000)
	require.NoError(t, e.Close())
}

// Goal: a store that is opened often and written little does not pile up segments.
func TestOpen_oftenKeepsLogShort(t *testing.T) {
	dir := t.TempDir()
	most := 0
	for i := range 40 {
		e, err := Open(dir, small(Options{}))
		require.NoError(t, err)
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%02d", i), nil))
		most = max(most, e.Recovered().Segments)
		require.NoError(t, e.Close())
	}
	require.LessOrEqual(t, most, 3*maxSegments)
	names, err := os.ReadDir(filepath.Join(dir, "log"))
	require.NoError(t, err)
	require.LessOrEqual(t, len(names), 4*maxSegments)
	e := open(t, dir, Options{})
	for i := range 40 {
		require.Equal(t, "", get(t, e, fmt.Sprintf("k%02d", i)))
	}
}

// Goal: a batch far larger than a segment spans several, and is there whole after a
// crash.
func TestEngine_Apply_spansSegments(t *testing.T) {
	e := open(t, t.TempDir(), Options{SegmentBytes: minSegmentBytes})
	b := e.NewBatch()
	defer b.Close()
	for i := range 100 {
		require.NoError(t, b.Put(fmt.Appendf(nil, "k%03d", i), bytes.Repeat([]byte{byte(i)}, 15_000)))
	}
	_, err := e.Apply(b)
	require.NoError(t, err)
	c := open(t, crashImage(t, e), Options{SegmentBytes: minSegmentBytes})
	require.EqualValues(t, 1, c.Recovered().Batches)
	require.Greater(t, c.Recovered().Segments, 50)
	for i := range 100 {
		require.Equal(t, strings.Repeat(string([]byte{byte(i)}), 15_000), get(t, c, fmt.Sprintf("k%03d", i)))
	}
}

// Goal: a value over the limit is refused before it is read: the memory behind this
// one is never touched.
func TestBatch_Put_tooLarge(t *testing.T) {
	e := open(t, t.TempDir(), Options{})
	require.ErrorIs(t, e.Put([]byte("k"), make([]byte, MaxValue+1)), ErrTooLarge)
	require.Zero(t, e.Metrics().Packs.StoredBytes)
}
