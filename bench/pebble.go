package main

import (
	"fmt"
	"log"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
)

// openPebble tunes it: a memtable of 64 MiB, or a quarter of a budget below 256 MiB, Bloom
// filters on all levels, the rest of the budget for its cache.
func openPebble(dir string, budget int64, durable bool) (store, error) {
	memtable := min(uint64(budget/4), 64<<20)
	cache := pebble.NewCache(max(budget-int64(memtable), 8<<20))
	defer cache.Unref()
	o := &pebble.Options{
		Cache: cache, MemTableSize: memtable, L0CompactionThreshold: 2,
		FormatMajorVersion: pebble.FormatNewest, Logger: quiet{},
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	for i := range o.Levels {
		o.Levels[i].FilterPolicy = bloom.FilterPolicy(10)
	}
	db, err := pebble.Open(dir, o)
	s := &pebbleStore{db, pebble.NoSync}
	if durable {
		s.wo = pebble.Sync
	}
	return s, err
}

type quiet struct{}

func (quiet) Infof(string, ...any)  {}
func (quiet) Errorf(string, ...any) {}
func (quiet) Fatalf(f string, a ...any) {
	log.Fatalf(f, a...)
}

type pebbleStore struct {
	db *pebble.DB
	wo *pebble.WriteOptions
}

// warm makes Pebble recycle its logs: the first, growing one is up to twice as
// slow as its steady state.
func (s *pebbleStore) warm() error {
	v := make([]byte, 64<<10)
	for i := 0; s.db.Metrics().WAL.ObsoleteFiles < 3 && i < 10_000; i++ {
		if err := s.db.Set(fmt.Appendf(nil, "~warm%d", i%100), v, pebble.NoSync); err != nil {
			return err
		}
	}
	return s.db.Flush()
}

func (s *pebbleStore) put(k, v []byte) error { return s.db.Set(k, v, s.wo) }

func (s *pebbleStore) putBatch(n int, pair func(int) (k, v []byte)) error {
	b := s.db.NewBatch()
	defer b.Close()
	for i := range n {
		k, v := pair(i)
		if err := b.Set(k, v, nil); err != nil {
			return err
		}
	}
	return b.Commit(s.wo)
}
func (s *pebbleStore) read(k []byte, f func([]byte)) error {
	v, c, err := s.db.Get(k)
	if err == pebble.ErrNotFound {
		return nil
	}
	if err != nil {
		return err
	}
	f(v)
	return c.Close()
}
func (s *pebbleStore) copyTo(dst, k []byte) ([]byte, error) {
	v, c, err := s.db.Get(k)
	if err != nil {
		return dst, err
	}
	dst = append(dst, v...)
	return dst, c.Close()
}
func (s *pebbleStore) scan(from []byte, n int, f func(k, v []byte)) error {
	it, err := s.db.NewIter(&pebble.IterOptions{LowerBound: from})
	if err != nil {
		return err
	}
	for ok := it.First(); ok && n > 0; ok = it.Next() {
		f(it.Key(), it.Value())
		n--
	}
	return it.Close()
}
func (s *pebbleStore) flush() error { return s.db.Flush() }
func (s *pebbleStore) close() error { return s.db.Close() }
