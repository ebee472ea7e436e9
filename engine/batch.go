package engine

import (
	"bytes"
	"fmt"
	"math"

	"github.com/tidwall/btree"

	"github.com/holdfastdb/holdfast/cow"
)

const (
	// MaxKey is the longest key, in bytes.
	MaxKey = 64 << 10
	// MaxValue is the largest value, in bytes, that Put takes.
	MaxValue = 4 << 30
)

// Batch collects writes that Apply commits all or nothing, as one commit. Later
// writes win over earlier ones. A Batch is for one goroutine. Keys and values are
// copied; a large value goes to its pack at once, which is not collected before
// Reset or Close.
type Batch struct {
	e        *Engine
	ops      opList
	err      error // the first refused write; Apply returns it
	points   int
	ranges   int
	unsorted bool // a range delete came after a point: normalise
	puts     bool
	applied  bool
	blobs    [][]byte // references whose packs are held until Reset or Close
}

// NewBatch returns an empty batch. Close gives its memory back.
func (e *Engine) NewBatch() *Batch {
	b := e.batches.Get().(*Batch)
	b.e = e
	return b
}

// Len is the number of writes in the batch.
func (b *Batch) Len() int { return b.points + b.ranges }

// Reset empties the batch for reuse. Large values that were not applied are garbage.
func (b *Batch) Reset() {
	for _, ref := range b.blobs {
		b.e.packs.Settle(ref)
	}
	if len(b.blobs) > 0 && !b.applied {
		b.e.collector.kick() // they are garbage
	}
	*b = Batch{e: b.e, ops: b.ops[:0]}
}

// maxPooled is the largest buffer, in bytes, that goes back to the pool (I10).
const maxPooled = 1 << 20

// Close gives the batch back. It must not be used afterwards.
func (b *Batch) Close() {
	e := b.e
	if e == nil {
		return
	}
	b.Reset()
	if b.e = nil; cap(b.ops) <= maxPooled {
		e.batches.Put(b)
	}
}

// Put sets key to value. An empty value is a value. The error, if any, is also
// what Apply returns.
func (b *Batch) Put(key, value []byte) error {
	if err := b.check(key); err != nil {
		return err
	}
	if int64(len(value)) > MaxValue {
		return b.refuse(fmt.Errorf("%w: value of %d bytes, at most %d", ErrTooLarge, len(value), int64(MaxValue)))
	}
	b.puts, b.applied = true, false
	if len(value) < b.e.opts.LargeValue {
		return b.point(cow.Value, key, value)
	}
	ref, err := b.e.writeBlob(value)
	if err != nil {
		return b.refuse(err)
	}
	b.blobs = append(b.blobs, ref)
	return b.point(cow.Blob, key, ref)
}

// Delete removes key. Deleting a key that is not there is no error.
func (b *Batch) Delete(key []byte) error {
	if err := b.check(key); err != nil {
		return err
	}
	return b.point(cow.Tombstone, key, nil)
}

// DeleteRange removes every key in [lower, upper). A nil upper has no end.
func (b *Batch) DeleteRange(lower, upper []byte) error {
	if b.e == nil {
		return ErrClosed
	}
	if upper == nil {
		upper = pastAll
	}
	switch c := bytes.Compare(lower, upper); {
	case c > 0:
		return b.refuse(fmt.Errorf("%w: %.40q to %.40q", ErrBadRange, lower, upper))
	case c == 0:
		return nil
	case len(lower) > MaxKey || len(upper) > MaxKey && !bytes.Equal(upper, pastAll):
		return b.refuse(fmt.Errorf("%w: a bound is over %d bytes", ErrTooLarge, MaxKey))
	}
	b.unsorted = b.unsorted || b.points > 0
	b.ranges++
	b.ops = b.ops.appendRange(lower, upper)
	return b.bound()
}

// pastAll is above every key: an upper bound for ranges without one.
var pastAll = bytes.Repeat([]byte{0xff}, MaxKey+1)

func (b *Batch) check(key []byte) error {
	switch {
	case b.e == nil:
		return ErrClosed
	case len(key) == 0:
		return b.refuse(ErrEmptyKey)
	case len(key) > MaxKey:
		return b.refuse(fmt.Errorf("%w: key of %d bytes, at most %d", ErrTooLarge, len(key), MaxKey))
	}
	return nil
}

func (b *Batch) point(k cow.Kind, key, payload []byte) error {
	b.points++
	b.ops = b.ops.appendPoint(k, key, payload)
	return b.bound()
}

func (b *Batch) bound() error {
	if int64(len(b.ops)) > b.e.opts.MaxBatch || b.Len() > math.MaxInt32 {
		return b.refuse(fmt.Errorf("%w: batch of %d bytes, at most %d", ErrTooLarge, len(b.ops), b.e.opts.MaxBatch))
	}
	return nil
}

func (b *Batch) refuse(err error) error {
	if b.err == nil {
		b.err = err
	}
	return err
}

// normalise drops the points under a later range delete of the same batch: at
// equal commit number a point beats a range (C5), so they would come back.
func (b *Batch) normalise() error {
	if !b.unsorted {
		return nil
	}
	type at struct{ from, to int }
	var places []at
	for rest := b.ops; len(rest) > 0; {
		from := len(b.ops) - len(rest)
		_, next, err := rest.next()
		if err != nil {
			return err
		}
		rest = next
		places = append(places, at{from, len(b.ops) - len(rest)})
	}
	var later btree.Map[string, []byte] // disjoint ranges of later operations: lower to upper
	drop := make([]bool, len(places))
	for i := len(places) - 1; i >= 0; i-- {
		o, _, _ := b.ops[places[i].from:].next()
		if o.kind == opRange {
			addRange(&later, o.key, o.payload)
			continue
		}
		later.Descend(string(o.key), func(_ string, upper []byte) bool {
			drop[i] = bytes.Compare(o.key, upper) < 0
			return false
		})
	}
	kept := make(opList, 0, len(b.ops))
	for i, p := range places {
		if drop[i] {
			b.points--
			continue
		}
		kept = append(kept, b.ops[p.from:p.to]...)
	}
	b.ops, b.unsorted = kept, false
	return nil
}

// addRange joins [lower, upper) with the ranges it touches, so that each range is
// added and removed once.
func addRange(m *btree.Map[string, []byte], lower, upper []byte) {
	m.Descend(string(lower), func(l string, u []byte) bool {
		if bytes.Compare(u, lower) >= 0 {
			lower = []byte(l)
			if bytes.Compare(u, upper) > 0 {
				upper = u
			}
		}
		return false
	})
	var gone []string
	m.Ascend(string(lower), func(l string, u []byte) bool {
		if bytes.Compare([]byte(l), upper) > 0 {
			return false
		}
		if bytes.Compare(u, upper) > 0 {
			upper = u
		}
		gone = append(gone, l)
		return true
	})
	for _, l := range gone {
		m.Delete(l)
	}
	m.Set(string(lower), upper)
}
