package main

import (
	"fmt"

	"github.com/puzpuzpuz/xsync/v4"
)

// store is what a row needs of a peer. read calls f with the value's bytes, without
// a copy where the peer can; copyTo copies them. The pairs of putBatch are valid until
// the next one is asked for.
type store interface {
	put(key, value []byte) error
	putBatch(n int, pair func(i int) (key, value []byte)) error
	read(key []byte, f func([]byte)) error // a missing key is no error, f is not called
	copyTo(dst, key []byte) ([]byte, error)
	scan(from []byte, n int, f func(k, v []byte)) error
	flush() error
	close() error
}

// open opens a peer by its name, with so many bytes of memory; durable syncs every write.
func open(name, dir string, budget int64, durable bool) (store, error) {
	switch name {
	case "holdfast", "holdfast-l1":
		return openHoldfast(dir, budget, durable, name == "holdfast-l1")
	case "pebble":
		return openPebble(dir, budget, durable)
	case "badger":
		return openBadger(dir, budget, durable)
	case "bbolt":
		return openBolt(dir, durable)
	case "goleveldb":
		return openLevelDB(dir, budget, durable)
	case "sqlite":
		return openSQLite(dir, budget, durable)
	case "map":
		return &goMap{m: make(map[string][]byte)}, nil
	case "xsync":
		return xsyncMap{xsync.NewMap[string, []byte]()}, nil
	case "files":
		return &files{dir, durable}, nil
	}
	return nil, fmt.Errorf("no peer is called %q", name)
}
