package storage

import (
	"sync"

	"github.com/cockroachdb/pebble/v2"
)

// Iter walks user keys of a Snapshot in order. It is for one goroutine; only
// Store.Close may come from another, and then every move answers false and Err
// ErrClosed.
//
// Key and Value are copied out of Pebble's blocks when first asked for: those
// blocks lie outside Go's heap, and Close gives them back without waiting for
// whoever still looks at a slice (S7).
type Iter struct {
	sn    *Snapshot
	epoch uint64

	mu     sync.Mutex // guards the fields up to the next blank line
	it     *pebble.Iterator
	err    error
	closed bool
	placed bool // some move was made
	valid  bool
	hasKey bool
	hasVal bool
	key    []byte
	val    []byte
	seek   []byte
}

// moved frames one move.
func (it *Iter) moved(move func(p *pebble.Iterator) bool) (ok bool) {
	it.mu.Lock()
	defer it.mu.Unlock()
	it.valid, it.hasKey, it.hasVal = false, false, false
	it.placed = true
	if it.it == nil {
		it.err = ErrClosed
		return false
	}
	var err error
	func() {
		defer caught(&err)
		ok = move(it.it)
		if !ok {
			err = mappedRead(it.it.Error())
		}
	}()
	it.err = err
	it.valid = ok && err == nil
	return it.valid
}

// First moves to the first key, Last to the last.
func (it *Iter) First() bool { return it.moved((*pebble.Iterator).First) }

// Last moves to the last key.
func (it *Iter) Last() bool { return it.moved((*pebble.Iterator).Last) }

// Next moves to the next key; before any other move it is First.
func (it *Iter) Next() bool {
	if !it.isPlaced() {
		return it.First()
	}
	return it.moved((*pebble.Iterator).Next)
}

// Prev moves to the key before; before any other move it is Last.
func (it *Iter) Prev() bool {
	if !it.isPlaced() {
		return it.Last()
	}
	return it.moved((*pebble.Iterator).Prev)
}

func (it *Iter) isPlaced() bool {
	it.mu.Lock()
	defer it.mu.Unlock()
	return it.placed
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

// Key is the user key, valid until the next move; nil if not Valid.
func (it *Iter) Key() []byte {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.valid && !it.hasKey && it.it != nil {
		it.key = append(it.key[:0], it.it.Key()[1:]...)
		it.hasKey = true
	}
	if !it.hasKey {
		return nil
	}
	return it.key
}

// Value is the cell, valid until the next move; nil if not Valid, or if it
// could not be read: then Err says why.
func (it *Iter) Value() []byte {
	it.mu.Lock()
	defer it.mu.Unlock()
	if it.valid && !it.hasVal && it.it != nil {
		var v []byte
		var err error
		func() {
			defer caught(&err)
			v, err = it.it.ValueAndErr()
		}()
		if err != nil {
			it.err, it.valid = mappedRead(err), false
			return nil
		}
		it.val = append(it.val[:0], v...)
		it.hasVal = true
	}
	if !it.hasVal {
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
	it.closed, it.valid = true, false
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
