package main

import (
	"bytes"
	"fmt"
	"log"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/dgraph-io/badger/v4"
	"github.com/holdfastdb/holdfast/engine"
	"go.etcd.io/bbolt"
)

// store is what a row needs of a peer. read calls f with the value's bytes, without
// a copy where the peer can; copyTo copies them.
type store interface {
	put(key, value []byte) error
	putBatch(keys [][]byte, value []byte) error
	read(key []byte, f func([]byte)) error // a missing key is no error, f is not called
	copyTo(dst, key []byte) ([]byte, error)
	scan(from []byte, n int, f func(k, v []byte)) error
	flush() error
	close() error
}

// peers in the order of the table's columns.
var peers = []string{"pebble", "badger", "bbolt"}

func open(name, dir string, budget int64, durable bool) (store, error) {
	switch name {
	case "holdfast":
		o := &engine.Options{MemoryBudget: budget, Logger: slog.New(slog.DiscardHandler)}
		if !durable {
			o.Sync = engine.SyncNever
		}
		e, err := engine.Open(dir, o)
		return &holdfast{e}, err
	case "pebble":
		return openPebble(dir, budget, durable)
	case "badger":
		o := badger.DefaultOptions(dir).WithSyncWrites(durable).WithLogger(nil).
			WithMemTableSize(budget / 8).WithNumMemtables(2).WithBlockCacheSize(budget / 4).WithIndexCacheSize(budget / 8)
		db, err := badger.Open(o)
		return &badgerStore{db}, err
	case "bbolt":
		db, err := bbolt.Open(dir+"/db", 0o644, &bbolt.Options{NoSync: !durable, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
		if err != nil {
			return nil, err
		}
		return &boltStore{db}, db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucket); return err })
	}
	return nil, fmt.Errorf("no peer is called %q", name)
}

type holdfast struct{ e *engine.Engine }

func (s *holdfast) put(k, v []byte) error { return s.e.Put(k, v) }
func (s *holdfast) putBatch(ks [][]byte, v []byte) error {
	b := s.e.NewBatch()
	defer b.Close()
	for _, k := range ks {
		if err := b.Put(k, v); err != nil {
			return err
		}
	}
	_, err := s.e.Apply(b)
	return err
}
func (s *holdfast) read(k []byte, f func([]byte)) error {
	err := s.e.View(k, func(v []byte) error { f(v); return nil })
	if err == engine.ErrNotFound {
		return nil
	}
	return err
}
func (s *holdfast) copyTo(dst, k []byte) ([]byte, error) { return s.e.GetInto(dst, k) }
func (s *holdfast) scan(from []byte, n int, f func(k, v []byte)) error {
	for item, err := range s.e.Scan(engine.Range{Lower: from}) {
		if err != nil {
			return err
		}
		v, err := item.Value()
		if err != nil {
			return err
		}
		if f(item.Key(), v); n == 1 {
			break
		}
		n--
	}
	return nil
}
func (s *holdfast) flush() error { return s.e.Flush(ctx) }
func (s *holdfast) close() error { return s.e.Close() }

// openPebble tunes it: 64 MiB memtable, Bloom filters on all levels, the
// rest of the budget for its cache.
func openPebble(dir string, budget int64, durable bool) (store, error) {
	const memtable = 64 << 20
	cache := pebble.NewCache(max(budget-memtable, 8<<20))
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
	for i := 0; s.db.Metrics().WAL.ObsoleteFiles < 2 && i < 10_000; i++ {
		if err := s.db.Set(fmt.Appendf(nil, "~warm%d", i%100), v, pebble.NoSync); err != nil {
			return err
		}
	}
	return s.db.Flush()
}

func (s *pebbleStore) put(k, v []byte) error { return s.db.Set(k, v, s.wo) }
func (s *pebbleStore) putBatch(ks [][]byte, v []byte) error {
	b := s.db.NewBatch()
	defer b.Close()
	for _, k := range ks {
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

type badgerStore struct{ db *badger.DB }

func (s *badgerStore) put(k, v []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(bytes.Clone(k), bytes.Clone(v)) })
}
func (s *badgerStore) putBatch(ks [][]byte, v []byte) error {
	return s.db.Update(func(tx *badger.Txn) error {
		for _, k := range ks {
			if err := tx.Set(bytes.Clone(k), bytes.Clone(v)); err != nil {
				return err
			}
		}
		return nil
	})
}
func (s *badgerStore) read(k []byte, f func([]byte)) error {
	return s.db.View(func(tx *badger.Txn) error {
		i, err := tx.Get(k)
		if err == badger.ErrKeyNotFound {
			return nil
		}
		if err != nil {
			return err
		}
		return i.Value(func(v []byte) error { f(v); return nil })
	})
}
func (s *badgerStore) copyTo(dst, k []byte) (out []byte, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		i, err := tx.Get(k)
		if err != nil {
			return err
		}
		out, err = i.ValueCopy(dst)
		return err
	})
	return out, err
}
func (s *badgerStore) scan(from []byte, n int, f func(k, v []byte)) error {
	return s.db.View(func(tx *badger.Txn) error {
		o := badger.DefaultIteratorOptions
		o.PrefetchSize = min(n, 100)
		it := tx.NewIterator(o)
		defer it.Close()
		for it.Seek(from); it.Valid() && n > 0; it.Next() {
			if err := it.Item().Value(func(v []byte) error { f(it.Item().Key(), v); return nil }); err != nil {
				return err
			}
			n--
		}
		return nil
	})
}
func (s *badgerStore) flush() error { return nil }
func (s *badgerStore) close() error { return s.db.Close() }

var bucket = []byte("b")

type boltStore struct{ db *bbolt.DB }

func (s *boltStore) put(k, v []byte) error {
	return s.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(k, v) })
}
func (s *boltStore) putBatch(ks [][]byte, v []byte) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for _, k := range ks {
			if err := tx.Bucket(bucket).Put(k, v); err != nil {
				return err
			}
		}
		return nil
	})
}
func (s *boltStore) read(k []byte, f func([]byte)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		if v := tx.Bucket(bucket).Get(k); v != nil {
			f(v)
		}
		return nil
	})
}
func (s *boltStore) copyTo(dst, k []byte) (out []byte, err error) {
	err = s.db.View(func(tx *bbolt.Tx) error { out = append(dst, tx.Bucket(bucket).Get(k)...); return nil })
	return out, err
}
func (s *boltStore) scan(from []byte, n int, f func(k, v []byte)) error {
	return s.db.View(func(tx *bbolt.Tx) error {
		c := tx.Bucket(bucket).Cursor()
		for k, v := c.Seek(from); k != nil && n > 0; k, v = c.Next() {
			f(k, v)
			n--
		}
		return nil
	})
}
func (s *boltStore) flush() error { return s.db.Sync() }
func (s *boltStore) close() error { return s.db.Close() }
