package main

import (
	"bytes"

	"github.com/dgraph-io/badger/v4"
)

func openBadger(dir string, budget int64, durable bool) (store, error) {
	o := badger.DefaultOptions(dir).WithSyncWrites(durable).WithLogger(nil).
		WithMemTableSize(budget / 8).WithNumMemtables(2).WithBlockCacheSize(budget / 4).WithIndexCacheSize(budget / 8)
	db, err := badger.Open(o)
	return &badgerStore{db}, err
}

type badgerStore struct{ db *badger.DB }

func (s *badgerStore) put(k, v []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(bytes.Clone(k), bytes.Clone(v)) })
}

func (s *badgerStore) putBatch(n int, pair func(int) (k, v []byte)) error {
	return s.db.Update(func(tx *badger.Txn) error {
		for i := range n {
			k, v := pair(i)
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
