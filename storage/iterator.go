package storage

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Iter walks user keys of a Snapshot in order. It is for one goroutine; only
// Store.Close may come from another, and then every move answers false and Err
// ErrClosed.
//
// Each move copies key and cell out of Pebble's blocks: those lie outside Go's heap,
// and Close gives them back without waiting for whoever still looks at a slice (S7).
type Iter struct {
	sn     *Snapshot
	index  int // in sn.iters
	epoch  uint64
	whole  bool // see idleScan
	placed bool // some move was made
	room        // of key and cell
	at     bool // they are of the last move

	mu     sync.Mutex // guards the fields below
	it     *pebble.Iterator
	err    error
	closed bool
	valid  bool
}

// moved frames one move.
func (it *Iter) moved(move func(p *pebble.Iterator) bool) bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.placed, it.valid, it.err = true, false, ErrClosed
	if it.it != nil {
		it.valid, it.err = it.takeLocked(move)
	}
	it.at = it.valid
	return it.valid
}

// takeLocked moves, and copies what is there.
func (it *Iter) takeLocked(move func(p *pebble.Iterator) bool) (ok bool, err error) {
	defer caught(&err)
	if !move(it.it) {
		return false, mappedRead(it.it.Error())
	}
	v, err := it.it.ValueAndErr()
	if err != nil {
		return false, mappedRead(err)
	}
	it.key = append(it.key[:0], it.it.Key()[1:]...)
	it.val = append(it.val[:0], v...)
	return true, nil
}

// First moves to the first key, Last to the last.
func (it *Iter) First() bool { return it.moved((*pebble.Iterator).First) }

// Last moves to the last key.
func (it *Iter) Last() bool { return it.moved((*pebble.Iterator).Last) }

// Next moves to the next key; before any other move it is First.
func (it *Iter) Next() bool {
	if !it.placed {
		return it.First()
	}
	return it.moved((*pebble.Iterator).Next)
}

// Prev moves to the key before; before any other move it is Last.
func (it *Iter) Prev() bool {
	if !it.placed {
		return it.Last()
	}
	return it.moved((*pebble.Iterator).Prev)
}

// SeekGE moves to the first key at or above key.
func (it *Iter) SeekGE(key []byte) bool {
	return it.moved(func(p *pebble.Iterator) bool {
		it.seek = appendUser(it.seek[:0], key)
		return p.SeekGE(it.seek)
	})
}

// SeekLT moves to the last key below key.
func (it *Iter) SeekLT(key []byte) bool {
	return it.moved(func(p *pebble.Iterator) bool {
		it.seek = appendUser(it.seek[:0], key)
		return p.SeekLT(it.seek)
	})
}

// Valid tells whether the iterator stands on a key.
func (it *Iter) Valid() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.valid && it.it != nil
}

// Key is the user key, and Value its cell, after a move that answered true and until
// the next or Close; otherwise they are nil.
func (it *Iter) Key() []byte {
	if !it.at {
		return nil
	}
	return it.key
}

// Value is told of at Key.
func (it *Iter) Value() []byte {
	if !it.at {
		return nil
	}
	return it.val
}

// Err is why the last move answered false, or nil at the end of the range.
func (it *Iter) Err() error {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.err == nil && it.it == nil && !it.closed {
		return ErrClosed
	}
	return it.err
}

// Close gives the iterator and its reference back. Idempotent.
func (it *Iter) Close() error {
	it.mu.Lock()
	if it.closed {
		it.mu.Unlock()
		return nil
	}
	it.closed, it.valid, it.at = true, false, false
	if it.it != nil && !it.sn.putScan(it, it.err == nil) {
		closeQuietly(it.it)
		it.sn.forget(it)
	}
	it.it = nil
	it.mu.Unlock()
	it.sn.Release()
	return nil
}

// kill takes the Pebble iterator away under the feet of its user.
func (it *Iter) kill() {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.it != nil {
		closeQuietly(it.it)
		it.it = nil
	}
}
