package main

import (
	"bytes"
	"context"
	"errors"
	"path/filepath"
	"runtime/debug"
	"strings"

	"github.com/cockroachdb/pebble/v2"
	"github.com/dgraph-io/badger/v4"
	"github.com/dgraph-io/badger/v4/options"
	"go.etcd.io/bbolt"

	"github.com/holdfastdb/holdfast/engine"
)

// store is what this command needs of one. A missing key is (nil, nil).
type store interface {
	put(key, value []byte) error
	del(key []byte) error
	get(key []byte) ([]byte, error)
	scan(f func(key, value []byte)) error
	flush() error
	close() error
}

type storeKind struct {
	name, module, about string
	open                func(dir string) (store, error)
}

// stores that take part, with the options that are not their defaults.
var stores = []storeKind{
	{"holdfast", "github.com/holdfastdb/holdfast", "defaults (every write is synced)", openHoldfast},
	{"pebble", "github.com/cockroachdb/pebble/v2", "defaults, pebble.Sync for every write, FormatNewest (the default is the oldest format, whose log has weaker checks)", openPebble},
	{"badger", "github.com/dgraph-io/badger/v4", "defaults (checksums of blocks and values are not verified), SyncWrites=true", openBadger(false)},
	{"badger, checked", "github.com/dgraph-io/badger/v4", "as badger, with ChecksumVerificationMode=OnTableAndBlockRead and VerifyValueChecksum=true", openBadger(true)},
	{"bbolt", "go.etcd.io/bbolt", "defaults (every commit is synced; data pages have no checksums)", openBolt},
}

func versions() map[string]string {
	out := map[string]string{"github.com/holdfastdb/holdfast": "(this tree)"}
	if info, ok := debug.ReadBuildInfo(); ok {
		for _, m := range info.Deps {
			if m.Replace == nil {
				out[m.Path] = m.Version
			}
		}
	}
	return out
}

// class of a file, for any of the stores; empty: it holds nothing.
func class(name string) string {
	base := filepath.Base(name)
	switch ext := filepath.Ext(base); {
	case base == "STATE", base == "MANIFEST", base == "KEYREGISTRY", base == "DISCARD", base == "db":
		return base
	case ext == ".sst":
		return "table"
	case ext == ".wal", ext == ".log":
		if strings.Contains(name, "l3"+string(filepath.Separator)) {
			return "" // Holdfast's Pebble has its log off
		}
		return "log"
	case ext == ".mem":
		return "log"
	case ext == ".pack", ext == ".vlog":
		return "values"
	case strings.HasPrefix(base, "MANIFEST-"):
		return "MANIFEST"
	case strings.HasPrefix(base, "OPTIONS-"):
		return "OPTIONS"
	}
	return ""
}

type holdfast struct{ e *engine.Engine }

func openHoldfast(dir string) (store, error) {
	e, err := engine.Open(dir, nil)
	return holdfast{e}, err
}

func (s holdfast) put(k, v []byte) error { return s.e.Put(k, v) }
func (s holdfast) del(k []byte) error    { return s.e.Delete(k) }
func (s holdfast) get(k []byte) ([]byte, error) {
	v, err := s.e.Get(k)
	if errors.Is(err, engine.ErrNotFound) {
		return nil, nil
	}
	return v, err
}
func (s holdfast) scan(f func(k, v []byte)) error {
	for item, err := range s.e.Scan(engine.Range{}) {
		if err != nil {
			return err
		}
		v, err := item.Value()
		if err != nil {
			return err
		}
		f(item.Key(), v)
	}
	return nil
}
func (s holdfast) flush() error { return s.e.Flush(context.Background()) }
func (s holdfast) close() error { return s.e.Close() }

type pebbleStore struct{ db *pebble.DB }

func openPebble(dir string) (store, error) {
	db, err := pebble.Open(dir, &pebble.Options{FormatMajorVersion: pebble.FormatNewest, Logger: quiet{}})
	return pebbleStore{db}, err
}

// quiet is Pebble's default logger without its notes: a fatal error ends the process.
type quiet struct{}

func (quiet) Infof(string, ...any)          {}
func (quiet) Errorf(string, ...any)         {}
func (quiet) Fatalf(f string, a ...any)     { pebble.DefaultLogger.Fatalf(f, a...) }
func (s pebbleStore) put(k, v []byte) error { return s.db.Set(k, v, pebble.Sync) }
func (s pebbleStore) del(k []byte) error    { return s.db.Delete(k, pebble.Sync) }
func (s pebbleStore) get(k []byte) ([]byte, error) {
	v, c, err := s.db.Get(k)
	if errors.Is(err, pebble.ErrNotFound) {
		return nil, nil
	}
	if err != nil {
		return nil, err
	}
	return bytes.Clone(v), c.Close()
}
func (s pebbleStore) scan(f func(k, v []byte)) error {
	it, err := s.db.NewIter(nil)
	if err != nil {
		return err
	}
	for ok := it.First(); ok; ok = it.Next() {
		v, err := it.ValueAndErr()
		if err != nil {
			return errors.Join(err, it.Close())
		}
		f(it.Key(), v)
	}
	return errors.Join(it.Error(), it.Close())
}
func (s pebbleStore) flush() error { return s.db.Flush() }
func (s pebbleStore) close() error { return s.db.Close() }

type badgerStore struct{ db *badger.DB }

func openBadger(checked bool) func(dir string) (store, error) {
	return func(dir string) (store, error) {
		o := badger.DefaultOptions(dir).WithSyncWrites(true).WithLogger(nil)
		if checked {
			o = o.WithChecksumVerificationMode(options.OnTableAndBlockRead).WithVerifyValueChecksum(true)
		}
		db, err := badger.Open(o)
		return badgerStore{db}, err
	}
}

func (s badgerStore) put(k, v []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Set(bytes.Clone(k), bytes.Clone(v)) })
}
func (s badgerStore) del(k []byte) error {
	return s.db.Update(func(tx *badger.Txn) error { return tx.Delete(bytes.Clone(k)) })
}
func (s badgerStore) get(k []byte) (v []byte, err error) {
	err = s.db.View(func(tx *badger.Txn) error {
		i, err := tx.Get(k)
		if errors.Is(err, badger.ErrKeyNotFound) {
			return nil
		}
		if err != nil {
			return err
		}
		v, err = i.ValueCopy(nil)
		return err
	})
	return v, err
}
func (s badgerStore) scan(f func(k, v []byte)) error {
	return s.db.View(func(tx *badger.Txn) error {
		it := tx.NewIterator(badger.DefaultIteratorOptions)
		defer it.Close()
		for it.Rewind(); it.Valid(); it.Next() {
			if err := it.Item().Value(func(v []byte) error { f(it.Item().Key(), v); return nil }); err != nil {
				return err
			}
		}
		return nil
	})
}
func (s badgerStore) flush() error { return nil } // Close flushes
func (s badgerStore) close() error { return s.db.Close() }

type boltStore struct{ db *bbolt.DB }

var bucket = []byte("b")

func openBolt(dir string) (store, error) {
	db, err := bbolt.Open(filepath.Join(dir, "db"), 0o644, nil)
	if err != nil {
		return nil, err
	}
	return boltStore{db}, db.Update(func(tx *bbolt.Tx) error { _, err := tx.CreateBucketIfNotExists(bucket); return err })
}

// in runs f in the bucket, which damage may have taken away.
func (s boltStore) in(do func(func(*bbolt.Tx) error) error, f func(b *bbolt.Bucket) error) error {
	return do(func(tx *bbolt.Tx) error {
		b := tx.Bucket(bucket)
		if b == nil {
			return errors.New("no bucket")
		}
		return f(b)
	})
}
func (s boltStore) put(k, v []byte) error {
	return s.in(s.db.Update, func(b *bbolt.Bucket) error { return b.Put(k, v) })
}
func (s boltStore) del(k []byte) error {
	return s.in(s.db.Update, func(b *bbolt.Bucket) error { return b.Delete(k) })
}
func (s boltStore) get(k []byte) (v []byte, err error) {
	err = s.in(s.db.View, func(b *bbolt.Bucket) error { v = bytes.Clone(b.Get(k)); return nil })
	return v, err
}
func (s boltStore) scan(f func(k, v []byte)) error {
	return s.in(s.db.View, func(b *bbolt.Bucket) error {
		return b.ForEach(func(k, v []byte) error { f(k, v); return nil })
	})
}
func (s boltStore) flush() error { return nil }
func (s boltStore) close() error { return s.db.Close() }
