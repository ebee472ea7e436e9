package cache

import (
	"encoding/binary"
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
)

// Codec says how L2 holds cells.
type Codec uint8

const (
	// CodecAuto measures, for each class of sizes, what pays: S2 with a dictionary
	// that is trained from the cells themselves, S2, or nothing. A tier under 5 MiB
	// trains no dictionary, which would be a large part of it.
	CodecAuto Codec = iota
	CodecOff        // cells as they are
	CodecS2         // S2 where it pays
)

func (c Codec) String() string {
	switch c {
	case CodecAuto:
		return "auto"
	case CodecOff:
		return "off"
	case CodecS2:
		return "s2"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// What follows the stamp of an entry of L2.
//
//	kind  then
//	0     the cell
//	1     nothing: the key is known to be absent
//	2     the cell as an S2 block
//	3     the number of a dictionary as an unsigned varint, and the cell as an S2
//	      block that refers to it
//
// Where the kind's high bit is set, the last byte says how many at the end, it
// too, are padding.
const (
	kindCell   = 0
	kindAbsent = 1
	kindS2     = 2
	kindDict   = 3

	kindPadded = 0x80
)

const (
	maxDicts    = 4 // alive at once; an entry of an older one is a miss
	minAutoDict = 5 << 20
	// A dictionary's table for encoding, and what its encoder takes of the stack.
	dictTableBytes = 32 << 10
	dictStackBytes = 128 << 10
)

// dictionary is one that was trained here. Its number is never used again
// while the cache lives, so an entry decodes with the one it was made with, or
// not at all.
type dictionary struct {
	id uint64
	*s2.Dict
}

// book is the dictionaries that are alive, the newest last, at most maxDicts. It is
// immutable; a training publishes the next one.
type book []dictionary

// codec turns cells into what L2 holds, and back. encode and what it keeps is
// the drain goroutine's alone; decode is anybody's.
type codec struct {
	mode Codec
	size atomic.Int64 // of L2: decides whether there are dictionaries
	book atomic.Pointer[book]
	// maxCell is the longest cell that was ever let in; what claims to be longer
	// is not ours.
	maxCell atomic.Int64

	// Of the drain goroutine.
	classes [classes]class
	of      *book // the book that classes measured
	packed  []byte
	sampler sampler

	raw, stored atomic.Uint64 // bytes of cells that went in, and what they became
	trainings   atomic.Uint64 // dictionaries made
	training    atomic.Bool
	wait        sync.WaitGroup // for the training
}

func (c *codec) dictOn() bool { return c.dictAt(c.size.Load()) }

func (c *codec) dictAt(size int64) bool { return c.mode == CodecAuto && size >= minAutoDict }

// encode appends kind and cell. The cell is not kept, but a copy of it may be,
// as a sample.
func (c *codec) encode(dst, cell []byte) []byte {
	if cell == nil {
		return append(dst, kindAbsent)
	}
	b := c.book.Load()
	if b != c.of { // what was measured with another dictionary counts no more
		c.of, c.classes = b, [classes]class{}
	}
	kind, packed := byte(kindCell), cell
	if k := classOf(len(cell)); k >= minClass && c.mode != CodecOff {
		if c.dictOn() {
			c.sample(cell)
		}
		if c.classes[k].tries() {
			kind, packed = c.pack(b, cell)
			c.classes[k].measure(len(packed), len(cell))
		}
	}
	c.raw.Add(uint64(len(cell)))
	c.stored.Add(uint64(len(packed)))
	return append(append(dst, kind), packed...)
}

// pack compresses a cell; one that does not get smaller stays as it is.
func (c *codec) pack(b *book, cell []byte) (kind byte, packed []byte) {
	if n := binary.MaxVarintLen64 + s2.MaxEncodedLen(len(cell)); cap(c.packed) < n {
		c.packed = make([]byte, n)
	}
	kind, packed = kindS2, c.packed[:0]
	if d := b.newest(); d == nil {
		packed = s2.Encode(c.packed[:cap(c.packed)], cell)
	} else {
		kind = kindDict
		packed = binary.AppendUvarint(packed, d.id)
		packed = packed[:len(packed)+len(d.Encode(packed[len(packed):cap(packed)], cell))]
		c.sampler.measure(len(packed), len(cell))
	}
	if !pays(len(packed), len(cell)) {
		return kindCell, cell
	}
	return kind, packed
}

// pad makes an encoded entry at least so long, where a byte can say by how much.
func pad(entry []byte, least int) []byte {
	n := min(least-len(entry), math.MaxUint8)
	if n <= 0 {
		return entry
	}
	entry[l2HeaderBytes-1] |= kindPadded
	entry = append(entry, make([]byte, n)...)
	entry[len(entry)-1] = byte(n)
	return entry
}

// unpad takes the padding off again; not ok: it is no padding of ours.
func unpad(entry []byte) ([]byte, bool) {
	if entry[l2HeaderBytes-1]&kindPadded == 0 {
		return entry, true
	}
	n := int(entry[len(entry)-1])
	if n == 0 || n > len(entry)-l2HeaderBytes {
		return nil, false
	}
	entry[l2HeaderBytes-1] &^= kindPadded
	return entry[:len(entry)-n], true
}

var errEntry = errors.New("cache: entry does not decode")

// decode returns the cell of an entry, which begins with the stamp and is
// overwritten. The cell of a kind that is not compressed aliases it. An error
// is an entry that cannot be read: it is of a dictionary that is gone, or its
// bytes are not ours.
func (c *codec) decode(entry []byte) (cell []byte, err error) {
	if len(entry) < l2HeaderBytes {
		return nil, errEntry
	}
	defer func() {
		if recover() != nil { // bytes never take the host with them (C9)
			cell, err = nil, errEntry
		}
	}()
	entry, ok := unpad(entry)
	if !ok {
		return nil, errEntry
	}
	body := entry[l2HeaderBytes:]
	switch entry[l2HeaderBytes-1] {
	case kindCell:
		return body, nil
	case kindAbsent:
		if len(body) != 0 {
			return nil, errEntry
		}
		return nil, nil
	case kindS2:
		return c.unpack(body, nil)
	case kindDict:
		id, n := binary.Uvarint(body)
		d := c.book.Load().find(id)
		if n <= 0 || d == nil {
			return nil, errEntry
		}
		return c.unpack(body[n:], d.Dict)
	}
	return nil, errEntry
}

// unpack decodes a block in one allocation.
func (c *codec) unpack(block []byte, d *s2.Dict) ([]byte, error) {
	n, err := s2.DecodedLen(block)
	if err != nil || int64(n) > c.maxCell.Load() {
		return nil, errEntry
	}
	cell := make([]byte, n)
	if d == nil {
		cell, err = s2.Decode(cell, block)
	} else {
		cell, err = d.Decode(cell, block)
	}
	if err != nil {
		return nil, errEntry
	}
	return cell, nil
}

func (b *book) newest() *dictionary {
	if b == nil {
		return nil
	}
	return &(*b)[len(*b)-1]
}

func (b *book) find(id uint64) *dictionary {
	if b == nil {
		return nil
	}
	for i := range *b {
		if (*b)[i].id == id {
			return &(*b)[i]
		}
	}
	return nil
}

// next is the book with one more dictionary; the oldest goes beyond maxDicts.
func (b *book) next(d dictionary) *book {
	var n book
	if b != nil {
		n = append(n, (*b)[max(0, len(*b)-maxDicts+1):]...)
	}
	n = append(n, d)
	return &n
}

// reserve is what a tier of this size must leave for dictionaries.
func (c *codec) reserve(size int64) int64 {
	if !c.dictAt(size) {
		return 0
	}
	return dictStackBytes + sampleBytes + maxDicts*(dictBytes+dictTableBytes)
}

// bytes is what dictionaries, tables and samples hold.
func (c *codec) bytes() int64 {
	n := c.sampler.held.Load()
	if b := c.book.Load(); b != nil {
		n += dictStackBytes + int64(len(*b))*(dictBytes+dictTableBytes)
	}
	return n
}
