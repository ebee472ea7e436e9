package main

import (
	"bytes"

	"go.etcd.io/bbolt"
)

func openBolt(dir string, durable bool) (store, error) {
	db, err := bbolt.Open(dir+"/db", 0o644, &bbolt.Options{NoSync: !durable, NoFreelistSync: true, FreelistType: bbolt.FreelistMapType})
	if err != nil {
		return nil, err
	}
	return &boltStore{db}, db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucket(bucket); return err })
}

var bucket = []byte("b")

type boltStore struct{ db *bbolt.DB }

func (s *boltStore) put(k, v []byte) error {
	return s.db.Batch(func(tx *bbolt.Tx) error { return tx.Bucket(bucket).Put(k, v) })
}

func (s *boltStore) putBatch(n int, pair func(int) (k, v []byte)) error {
	return s.db.Update(func(tx *bbolt.Tx) error {
		for i := range n {
			k, v := pair(i)
			if err := tx.Bucket(bucket).Put(k, bytes.Clone(v)); err != nil {
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
