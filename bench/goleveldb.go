package main

import (
	"github.com/syndtr/goleveldb/leveldb"
	"github.com/syndtr/goleveldb/leveldb/filter"
	"github.com/syndtr/goleveldb/leveldb/opt"
	"github.com/syndtr/goleveldb/leveldb/util"
)

func openLevelDB(dir string, budget int64, durable bool) (store, error) {
	db, err := leveldb.OpenFile(dir, &opt.Options{
		WriteBuffer: int(budget / 8), BlockCacheCapacity: int(budget / 2), Filter: filter.NewBloomFilter(10),
	})
	return &levelStore{db, &opt.WriteOptions{Sync: durable}}, err
}

type levelStore struct {
	db *leveldb.DB
	wo *opt.WriteOptions
}

func (s *levelStore) put(k, v []byte) error { return s.db.Put(k, v, s.wo) }

func (s *levelStore) putBatch(n int, pair func(int) (k, v []byte)) error {
	b := new(leveldb.Batch)
	for i := range n {
		b.Put(pair(i))
	}
	return s.db.Write(b, s.wo)
}

// read copies: the store has no other way.
func (s *levelStore) read(k []byte, f func([]byte)) error {
	v, err := s.db.Get(k, nil)
	if err == leveldb.ErrNotFound {
		return nil
	}
	if err == nil {
		f(v)
	}
	return err
}

func (s *levelStore) copyTo(dst, k []byte) ([]byte, error) {
	v, err := s.db.Get(k, nil)
	return append(dst, v...), err
}

func (s *levelStore) scan(from []byte, n int, f func(k, v []byte)) error {
	it := s.db.NewIterator(&util.Range{Start: from}, nil)
	defer it.Release()
	for ; n > 0 && it.Next(); n-- {
		f(it.Key(), it.Value())
	}
	return it.Error()
}

// flush is not offered; what is in memory is in the log.
func (s *levelStore) flush() error { return nil }
func (s *levelStore) close() error { return s.db.Close() }
