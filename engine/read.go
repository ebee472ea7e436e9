package engine

import (
	"bytes"
	"context"
	"errors"
	"hash/maphash"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/yield"
)

// seed makes the hash of a key the same in every generation and cache of this
// process, and different in the next.
var seed = maphash.MakeSeed()

func hashKey(key []byte) uint64 { return maphash.Bytes(seed, key) }

// Tier is the room that answered a read.
type Tier uint8

const (
	TierNone Tier = iota // nothing is known of the key
	TierMap
	TierL1
	TierL2
	TierL3
)

func (t Tier) String() string {
	return [...]string{"none", "map", "L1", "L2", "L3"}[t]
}

// readCounters estimate, from one read in sampleReads, what the rooms above the
// caches answered. Exact counting would make every hit write to a shared line.
type readCounters struct{ mapHits, mapAbsent, knownAbsent atomic.Uint64 }

// sampleReads is also how often a map hit feeds L1's admission sketch, so that the
// hottest keys are no strangers to it when their generation goes down.
const sampleReads = 16

// errMoved says that a reader's view is gone and it must load a new one.
var errMoved = errors.New("the view moved on")

// find returns the newest published cell of key. Tombstones and absence are
// ErrNotFound. The cell is immutable and stays valid.
func (e *Engine) find(key []byte) (cow.Cell, Tier, error) {
	if e.gate.closed.Load() {
		return nil, TierNone, ErrClosed
	}
	// One draw decides all that only some reads do; each part has bits of its own.
	chance := yield.Uint32()
	if chance%timedReads != 0 {
		return e.lookUp(key, chance/timedReads)
	}
	began := yield.Now()
	cell, tier, err := e.lookUp(key, chance/timedReads)
	e.latency.read(tier, err, yield.Now().Sub(began))
	return cell, tier, err
}

func (e *Engine) lookUp(key []byte, chance uint32) (cow.Cell, Tier, error) {
	hash := hashKey(key)
	for {
		// Order: view, then number. A version at or below the number may be in a
		// newer generation only if the read began before that commit was
		// acknowledged.
		v := e.view.Load()
		yield.Point("get.view")
		cell, f := v.get(hash, key, e.clock.Published())
		yield.Point("get.map")
		switch f {
		case cow.Hit:
			e.sample(chance, hash, &e.reads.mapHits)
			return live(cell, TierMap)
		case cow.Hidden:
			e.sample(chance, hash, &e.reads.mapAbsent)
			return nil, TierMap, ErrNotFound
		case cow.Cut:
			continue // C3: load view and number again
		}
		if !v.known.Has(hash) {
			if chance%sampleReads == 0 {
				e.reads.knownAbsent.Add(sampleReads)
			}
			return nil, TierNone, ErrNotFound
		}
		cell, tier, err := e.findBelow(v, hash, key)
		if err == errMoved {
			continue
		}
		return cell, tier, err
	}
}

// findBelow asks the caches and L3 for a key that no generation of v knows.
func (e *Engine) findBelow(v *view, hash uint64, key []byte) (cow.Cell, Tier, error) {
	if !e.gate.enter(hash) {
		return nil, TierNone, ErrClosed
	}
	defer e.gate.leave(hash)
	b, t := e.cache.Get(v.horizon, hash, key)
	tier := TierL3
	switch t {
	case cache.L1:
		tier = TierL1
	case cache.L2:
		tier = TierL2
	default:
		var err error
		b, err = e.cache.Load(v.horizon, hash, key, func() ([]byte, error) {
			if !v.base.Acquire() {
				return nil, errMoved
			}
			defer v.base.Release()
			b, found, err := v.base.Get(nil, key)
			if err == nil && !found {
				e.missed()
			}
			if err != nil || !found {
				return nil, err
			}
			return cow.ParseCell(b)
		})
		if err != nil {
			if errors.Is(err, errMoved) {
				return nil, TierNone, errMoved
			}
			return nil, TierNone, door(err)
		}
	}
	if b == nil {
		return nil, tier, ErrNotFound
	}
	return live(cow.Cell(b), tier)
}

func (e *Engine) sample(chance uint32, hash uint64, n *atomic.Uint64) {
	if chance%sampleReads == 0 {
		n.Add(sampleReads)
		if e.gate.enter(hash) {
			e.cache.Touch(hash)
			e.gate.leave(hash)
		}
	}
}

func live(c cow.Cell, t Tier) (cow.Cell, Tier, error) {
	if c.Kind() == cow.Tombstone {
		return nil, t, ErrNotFound
	}
	return c, t, nil
}

// Get returns a copy of the value of key, or ErrNotFound.
func (e *Engine) Get(key []byte) ([]byte, error) { return e.GetInto(nil, key) }

// GetInto appends the value of key to dst. It allocates only what dst lacks. A
// value that is empty leaves dst as it was, but never nil.
func (e *Engine) GetInto(dst, key []byte) ([]byte, error) {
	for last := cow.Cell(nil); ; {
		cell, _, err := e.find(key)
		if err != nil {
			return dst, err
		}
		out, err := e.appendValue(dst, cell)
		if !collected(err, cell, last) {
			return out, err
		}
		last = cell
	}
}

// collected says that a read must look its key up again: what the cell named was
// collected between look-up and open, so that by now the key names something else. The
// same cell a second time is a loss.
func collected(err error, cell, last cow.Cell) bool {
	return errors.Is(err, mmap.ErrMissing) && !bytes.Equal(cell, last)
}

func (e *Engine) appendValue(dst []byte, cell cow.Cell) ([]byte, error) {
	if cell.Kind() == cow.Value {
		dst = append(dst, cell.Payload()...)
	} else {
		b, err := e.openBlob(cell)
		if err != nil {
			return dst, err
		}
		if dst, err = b.AppendTo(dst); err != nil {
			_ = b.Close() // the read's error is the one to report
			return dst, door(err)
		}
		if err := b.Close(); err != nil {
			return dst, door(err)
		}
	}
	if dst == nil {
		dst = []byte{} // empty is not missing
	}
	return dst, nil
}

// View calls fn with the value of key, without a copy where the value is in memory
// or mapped raw. The bytes are valid inside fn only and must not be changed; fn's
// error is returned as it is.
func (e *Engine) View(key []byte, fn func(value []byte) error) error {
	for last := cow.Cell(nil); ; {
		cell, _, err := e.find(key)
		if err != nil {
			return err
		}
		b, err := e.pinValue(cell, fn)
		if !collected(err, cell, last) {
			return viewPinned(b, cell, err, fn)
		}
		last = cell
	}
}

// pinValue opens what a cell names; a value that is in the cell needs nothing.
func (e *Engine) pinValue(cell cow.Cell, fn func(value []byte) error) (*mmap.Blob, error) {
	if err := hasFunc(fn); err != nil || cell.Kind() == cow.Value {
		return nil, err
	}
	return e.openBlob(cell)
}

func viewPinned(b *mmap.Blob, cell cow.Cell, err error, fn func(value []byte) error) error {
	switch {
	case err != nil:
		return err
	case b == nil:
		return fn(cell.Payload())
	}
	defer b.Close()
	var fromUser error
	err = b.View(func(value []byte) error {
		fromUser = fn(value)
		return fromUser
	})
	if fromUser != nil {
		return fromUser
	}
	return door(err)
}

// Has says whether key has a value.
func (e *Engine) Has(key []byte) (bool, error) {
	_, _, err := e.find(key)
	if errors.Is(err, ErrNotFound) {
		return false, nil
	}
	return err == nil, err
}

// Info is what Stat knows of a value.
type Info struct {
	Size     int64  // of the value, in bytes
	Stored   int64  // bytes it takes where it is kept, without keys and headers
	Revision uint64 // commit number of the last write to the key
	Expiry   int64  // absolute, milliseconds since 1970; zero: none
	Tier     Tier   // the room that answered
	Codec    string // "inline", or how a large value is stored

	// Of a large value, else zero.

	Pack   uint64 // number of its pack
	Offset int64  // in the pack, as it was written
	Frames int    // that it is cut into, each of them read as one
}

// Stat describes the value of key, or returns ErrNotFound. Of a large value it reads the
// header.
func (e *Engine) Stat(key []byte) (Info, error) {
	for last := cow.Cell(nil); ; {
		cell, tier, err := e.find(key)
		if err != nil {
			return Info{}, err
		}
		i, err := e.describe(cell, tier)
		if !collected(err, cell, last) {
			return i, err
		}
		last = cell
	}
}

func (e *Engine) describe(cell cow.Cell, tier Tier) (Info, error) {
	i := Info{Revision: cell.Revision(), Expiry: cell.Expiry(), Tier: tier, Codec: "inline"}
	i.Size = int64(len(cell.Payload()))
	i.Stored = i.Size
	if cell.Kind() == cow.Blob {
		r, err := mmap.DecodeRef(cell.Payload())
		if err != nil {
			return Info{}, door(err)
		}
		i.Size, i.Stored, i.Codec = int64(r.Size), int64(r.Stored), r.Codec.String()
		i.Pack, i.Offset = r.Pack, int64(r.Offset)
		b, err := e.openBlob(cell)
		if err != nil {
			return Info{}, err
		}
		defer b.Close()
		if i.Frames, err = b.Frames(); err != nil {
			return Info{}, door(err)
		}
	}
	return i, nil
}

func (e *Engine) openBlob(cell cow.Cell) (*mmap.Blob, error) {
	if !e.gate.enter(cell.Revision()) {
		return nil, ErrClosed
	}
	defer e.gate.leave(cell.Revision())
	b, err := e.packs.Open(cell.Payload())
	return b, door(err)
}

// writeBlob appends a large value to its pack. It is synced with the log record
// that names it, before it (I3).
func (e *Engine) writeBlob(value []byte) ([]byte, error) {
	if e.log == nil {
		return nil, e.closedOr(ErrReadOnly)
	}
	if err := e.writable(); err != nil {
		return nil, err
	}
	if err := e.awaitRoom(context.Background()); err != nil {
		return nil, err
	}
	// Before a byte of it is written: what a refused put leaves in a pack stays
	// there, and would fill the disk try by try.
	if err := e.checkDisk(int64(len(value))); err != nil {
		return nil, err
	}
	if !e.gate.enter(uint64(len(value))) {
		return nil, ErrClosed
	}
	defer e.gate.leave(uint64(len(value)))
	ref, err := e.packs.Write(value)
	if err = e.packFailed(err); errors.Is(err, ErrDiskFull) {
		e.collector.kick() // what was written of it is garbage
	}
	return ref, err
}

// packFailed takes note of packs that take nothing until reopen. No commit can be
// synced any more (I3): said now, it leaves nobody in doubt.
func (e *Engine) packFailed(err error) error {
	if err = door(err); errors.Is(err, ErrReadOnly) && e.log != nil {
		e.fail(err)
	}
	return err
}

func (e *Engine) closedOr(err error) error {
	if e.gate.closed.Load() {
		return ErrClosed
	}
	return err
}
