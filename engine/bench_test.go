package engine

import (
	"fmt"
	"math/rand/v2"
	"sync"
	"sync/atomic"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/stretchr/testify/require"
)

// The control group stands beside every number: bare Pebble with the same memory,
// tuned (64 MiB memtable, Bloom filters on all levels, the
// rest of the budget for its cache), and warmed until its logs are recycled.
func openPebble(b *testing.B, budget int64) *pebble.DB {
	const memtable = 64 << 20
	cache := pebble.NewCache(budget - memtable)
	defer cache.Unref()
	o := &pebble.Options{Cache: cache, MemTableSize: memtable, L0CompactionThreshold: 2, FormatMajorVersion: pebble.FormatNewest}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(b.TempDir(), o)
	require.NoError(b, err)
	b.Cleanup(func() { require.NoError(b, db.Close()) })
	return db
}

// warmLogs makes Pebble recycle: its first, growing log is up to twice as slow as
// its steady state.
func warmLogs(b *testing.B, db *pebble.DB) {
	v := make([]byte, 64<<10)
	for i := 0; db.Metrics().WAL.ObsoleteFiles < 2 && i < 20_000; i++ {
		require.NoError(b, db.Set(fmt.Appendf(nil, "warm%d", i%100), v, pebble.NoSync))
	}
	require.NoError(b, db.Flush())
}

const benchBudget = 256 << 20

func benchKeys(n int) [][]byte {
	ks := make([][]byte, n)
	for i := range ks {
		ks[i] = fmt.Appendf(nil, "client%016x", uint64(i)*0x9E3779B97F4A7C15)
	}
	return ks
}

func zipfOver(n int) []int {
	z := rand.NewZipf(rand.New(rand.NewPCG(1, 2)), 1.01, 1, uint64(n-1))
	idx := make([]int, 1<<17)
	for i := range idx {
		idx[i] = int(z.Uint64() * 2654435761 % uint64(n))
	}
	return idx
}

func BenchmarkEngine_Get(b *testing.B) {
	const n = 60_000 // 256 B values: all of them fit into one generation
	ks, idx, val := benchKeys(n), zipfOver(n), make([]byte, 256)
	e, err := Open(b.TempDir(), &Options{Sync: SyncNever, MemoryBudget: benchBudget})
	require.NoError(b, err)
	defer e.Close()
	db := openPebble(b, benchBudget)
	for _, k := range ks {
		require.NoError(b, e.Put(k, val))
		require.NoError(b, db.Set(k, val, pebble.NoSync))
	}
	var sum atomic.Int64
	read := func(from string) {
		b.Run("engine=holdfast/from="+from+"/view", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				s, i := 0, rand.IntN(1<<16)
				f := func(v []byte) error { // every byte is touched
					for _, c := range v {
						s += int(c)
					}
					return nil
				}
				for ; pb.Next(); i++ {
					if err := e.View(ks[idx[i&0x1ffff]], f); err != nil {
						b.Fatal(err)
					}
				}
				sum.Add(int64(s))
			})
		})
		b.Run("engine=holdfast/from="+from+"/into", func(b *testing.B) {
			b.ReportAllocs()
			b.RunParallel(func(pb *testing.PB) {
				dst, i := make([]byte, 0, 512), rand.IntN(1<<16)
				for ; pb.Next(); i++ {
					var err error
					if dst, err = e.GetInto(dst[:0], ks[idx[i&0x1ffff]]); err != nil {
						b.Fatal(err)
					}
				}
			})
		})
	}
	read("map")
	b.Run("engine=holdfast/from=absent", func(b *testing.B) {
		b.ReportAllocs()
		k := []byte("client-that-is-not-there")
		for b.Loop() {
			if _, err := e.Has(k); err != nil {
				b.Fatal(err)
			}
		}
	})
	b.Run("engine=pebble/from=memtable", func(b *testing.B) {
		b.ReportAllocs()
		b.RunParallel(func(pb *testing.PB) {
			s, i := 0, rand.IntN(1<<16)
			for ; pb.Next(); i++ {
				v, c, err := db.Get(ks[idx[i&0x1ffff]])
				if err != nil {
					b.Fatal(err)
				}
				for _, x := range v {
					s += int(x)
				}
				c.Close()
			}
			sum.Add(int64(s))
		})
	})
	require.NoError(b, e.Flush(b.Context()))
	read("L1")
}

func BenchmarkEngine_Put(b *testing.B) {
	const n = 1_000_000
	ks, val := benchKeys(n), make([]byte, 256)
	for i := range val {
		val[i] = byte(i * 7)
	}
	many := func(b *testing.B, writers int, put func(k []byte) error) {
		b.ReportAllocs()
		var next atomic.Int64
		var wg sync.WaitGroup
		for w := range writers {
			wg.Add(1)
			go func() {
				defer wg.Done()
				x := uint64(w)*0x9E3779B97F4A7C15 + 1
				for next.Add(1) <= int64(b.N) {
					x ^= x << 13
					x ^= x >> 7
					x ^= x << 17
					if err := put(ks[x%n]); err != nil {
						b.Error(err)
						return
					}
				}
			}()
		}
		wg.Wait()
		b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "puts/s")
	}
	for _, c := range []struct {
		sync    SyncPolicy
		name    string
		writers int
	}{
		{SyncAlways, "always", 1}, {SyncAlways, "always", 8}, {SyncAlways, "always", 64}, {SyncAlways, "always", 256},
		{SyncNever, "never", 2},
	} {
		name := fmt.Sprintf("sync=%s/writers=%d", c.name, c.writers)
		e, err := Open(b.TempDir(), &Options{Sync: c.sync, MemoryBudget: benchBudget})
		require.NoError(b, err)
		db := openPebble(b, benchBudget)
		warmLogs(b, db)
		wo := pebble.Sync
		if c.sync == SyncNever {
			wo = pebble.NoSync
		}
		// A-B-B-A, so that drift of the machine meets both.
		for _, who := range []string{"holdfast", "pebble", "pebble", "holdfast"} {
			b.Run(name+"/engine="+who, func(b *testing.B) {
				if who == "pebble" {
					many(b, c.writers, func(k []byte) error { return db.Set(k, val, wo) })
				} else {
					many(b, c.writers, func(k []byte) error { return e.Put(k, val) })
				}
			})
		}
		require.NoError(b, e.Close())
	}
}

// BenchmarkEngine_Scan walks half of its keys in the map and half in L3: all of them, and
// ten from any one.
func BenchmarkEngine_Scan(b *testing.B) {
	const n = 60_000
	ks, val := benchKeys(n), make([]byte, 256)
	e, err := Open(b.TempDir(), &Options{Sync: SyncNever, MemoryBudget: benchBudget})
	require.NoError(b, err)
	defer e.Close()
	db := openPebble(b, benchBudget)
	for i, k := range ks {
		if i == n/2 {
			require.NoError(b, e.Flush(b.Context()))
			require.NoError(b, db.Flush())
		}
		require.NoError(b, e.Put(k, val))
		require.NoError(b, db.Set(k, val, pebble.NoSync))
	}
	for _, keys := range []int{10, n} {
		from := func() []byte {
			if keys == n {
				return nil
			}
			return ks[rand.IntN(n)]
		}
		b.Run(fmt.Sprintf("engine=holdfast/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				left := keys
				for item, err := range e.Scan(Range{Lower: from()}) {
					if err != nil {
						b.Fatal(err)
					}
					if _, err := item.Value(); err != nil {
						b.Fatal(err)
					}
					if left--; left == 0 {
						break
					}
				}
			}
		})
		b.Run(fmt.Sprintf("engine=pebble/keys=%d", keys), func(b *testing.B) {
			b.ReportAllocs()
			for b.Loop() {
				it, err := db.NewIter(&pebble.IterOptions{LowerBound: from()})
				require.NoError(b, err)
				left := keys
				for ok := it.First(); ok && left > 0; ok = it.Next() {
					if _, err := it.ValueAndErr(); err != nil {
						b.Fatal(err)
					}
					left--
				}
				require.NoError(b, it.Close())
			}
		})
	}
}
