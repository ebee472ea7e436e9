package cache

import (
	"errors"
	"fmt"
	"math"
	"sync"
	"sync/atomic"

	"github.com/klauspost/compress/s2"
	"github.com/klauspost/compress/zstd"
)

// Codec says how L2 holds cells.
type Codec uint8

const (
	// CodecAuto measures, for each class of sizes, what pays: zstd with a
	// dictionary that is trained from the cells themselves, S2, or nothing. A
	// tier under 16 MiB trains no dictionary: the encoder's tables would be a
	// large part of it.
	CodecAuto Codec = iota
	CodecOff        // cells as they are
	CodecS2         // S2 where it pays
	CodecZstd       // zstd where it pays, in tiers of any size
)

func (c Codec) String() string {
	switch c {
	case CodecAuto:
		return "auto"
	case CodecOff:
		return "off"
	case CodecS2:
		return "s2"
	case CodecZstd:
		return "zstd"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// What follows the stamp of an entry of L2.
//
//	kind  then
//	0     the cell
//	1     nothing: the key is known to be absent
//	2     the cell as an S2 block
//	3     the cell as a zstd frame without its magic number; the frame names
//	      its dictionary and the cell's length
//
// Where the kind's high bit is set, the last byte says how many at the end, it
// too, are padding.
const (
	kindCell   = 0
	kindAbsent = 1
	kindS2     = 2
	kindZstd   = 3

	kindPadded = 0x80
)

const (
	zstdMagic   = "\x28\xb5\x2f\xfd"
	maxDicts    = 4 // alive at once; an entry of an older one is a miss
	minAutoZstd = 16 << 20
	// Above this size the encoder that compresses a tenth better is worth its tables.
	minSlowZstd = 32 << 20
	// What the encoders hold, measured: tables for SpeedFastest and SpeedDefault,
	// with a dictionary.
	fastEncoderBytes = 900 << 10
	slowEncoderBytes = 3 << 20
	decoderBytes     = 64 << 10 // tables and buffers, for one decoder
	decoders         = 8
)

// dictionary is one that was trained here. Its number is never used again
// while the cache lives, so an entry decodes with the one it was made with, or
// not at all.
type dictionary struct {
	id    uint32
	bytes []byte
}

// book is the dictionaries that are alive. It is immutable; a training
// publishes the next one.
type book struct {
	dicts []dictionary // newest last, at most maxDicts
	dec   *zstd.Decoder
	// enc is of the newest dictionary. Only the drain goroutine uses it.
	enc *zstd.Encoder
}

// codec turns cells into what L2 holds, and back. encode and what it keeps is
// the drain goroutine's alone; decode is anybody's.
type codec struct {
	mode Codec
	size atomic.Int64 // of L2: decides whether and how slowly zstd is used
	book atomic.Pointer[book]
	// maxCell is the longest cell that was ever let in; what claims to be longer
	// is not ours.
	maxCell atomic.Int64

	// Of the drain goroutine.
	classes  [classes]class
	of       *book // the book that classes measured
	s2, zstd []byte
	sampler  sampler

	raw, stored atomic.Uint64 // bytes of cells that went in, and what they became
	trainings   atomic.Uint64 // dictionaries made
	training    atomic.Bool
	wait        sync.WaitGroup // for the training
}

func (c *codec) zstdOn() bool { return c.zstdAt(c.size.Load()) }

func (c *codec) zstdAt(size int64) bool {
	return c.mode == CodecZstd || c.mode == CodecAuto && size >= minAutoZstd
}

func (c *codec) s2On() bool { return c.mode == CodecS2 || c.mode == CodecAuto }

func level(size int64) (zstd.EncoderLevel, int64) {
	if size >= minSlowZstd {
		return zstd.SpeedDefault, slowEncoderBytes
	}
	return zstd.SpeedFastest, fastEncoderBytes
}

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
		if c.zstdOn() {
			c.sample(cell)
		}
		kind, packed = c.classes[k].choose(c, b, cell)
	}
	c.raw.Add(uint64(len(cell)))
	c.stored.Add(uint64(len(packed)))
	return append(append(dst, kind), packed...)
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

func (c *codec) packS2(cell []byte) []byte {
	if n := s2.MaxEncodedLen(len(cell)); cap(c.s2) < n {
		c.s2 = make([]byte, n)
	}
	return s2.Encode(c.s2[:cap(c.s2)], cell)
}

func (c *codec) packZstd(b *book, cell []byte) []byte {
	c.zstd = b.enc.EncodeAll(cell, c.zstd[:0])
	return c.zstd[len(zstdMagic):]
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
		n, err := s2.DecodedLen(body)
		if err != nil || int64(n) > c.maxCell.Load() {
			return nil, errEntry
		}
		if cell, err = s2.Decode(make([]byte, n), body); err != nil {
			return nil, errEntry
		}
		return cell, nil
	case kindZstd:
		return c.unpack(entry)
	}
	return nil, errEntry
}

// unpack decodes in one allocation. The magic number takes the place of the
// end of the header in front of the frame, which has been read.
func (c *codec) unpack(entry []byte) ([]byte, error) {
	b := c.book.Load()
	if b == nil {
		return nil, errEntry
	}
	frame := entry[l2HeaderBytes-len(zstdMagic):]
	copy(frame, zstdMagic)
	dict, length, ok := frameHeader(frame[len(zstdMagic):])
	if !ok || length > c.maxCell.Load() || !b.has(dict) {
		return nil, errEntry
	}
	cell, err := b.dec.DecodeAll(frame, make([]byte, 0, length))
	if err != nil || int64(len(cell)) != length {
		return nil, errEntry
	}
	return cell, nil
}

// frameHeader reads what we write (RFC 8878, 3.1.1.1): a single segment, so
// there is no window and there is a length. zstd.Header would allocate.
func frameHeader(frame []byte) (dict uint32, length int64, ok bool) {
	if len(frame) == 0 || frame[0]&(1<<5) == 0 {
		return 0, 0, false
	}
	dictLen, lengthLen := []int{0, 1, 2, 4}[frame[0]&3], 1<<(frame[0]>>6)
	if len(frame) < 1+dictLen+lengthLen {
		return 0, 0, false
	}
	at := 1
	for i := range dictLen {
		dict |= uint32(frame[at+i]) << (8 * i)
	}
	at += dictLen
	var n uint64
	for i := range lengthLen {
		n |= uint64(frame[at+i]) << (8 * i)
	}
	if lengthLen == 2 {
		n += 256
	}
	return dict, int64(min(n, math.MaxInt64)), true
}

func (b *book) has(id uint32) bool {
	for i := range b.dicts {
		if b.dicts[i].id == id {
			return true
		}
	}
	return false
}

// next is the book with one more dictionary; the oldest goes beyond maxDicts.
func (b *book) next(d dictionary, level zstd.EncoderLevel) (*book, error) {
	n := &book{}
	if b != nil {
		n.dicts = append(n.dicts, b.dicts[max(0, len(b.dicts)-maxDicts+1):]...)
	}
	n.dicts = append(n.dicts, d)
	var all [][]byte
	for _, d := range n.dicts {
		all = append(all, d.bytes)
	}
	var err error
	if n.dec, err = zstd.NewReader(nil,
		zstd.WithDecoderDicts(all...),
		zstd.WithDecoderConcurrency(decoders),
		zstd.WithDecoderLowmem(true),
		zstd.WithDecodeAllCapLimit(true), // a frame that lies about its length ends there
	); err != nil {
		return nil, err
	}
	n.enc, err = zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderDict(d.bytes),
		zstd.WithEncoderConcurrency(1),
		zstd.WithLowerEncoderMem(true),
		zstd.WithWindowSize(128<<10),
		zstd.WithSingleSegment(true), // the frame tells the length
		zstd.WithEncoderCRC(false),   // memory is not a disk
	)
	return n, err
}

// reserve is what a tier of this size must leave for encoder and decoders.
func (c *codec) reserve(size int64) int64 {
	if !c.zstdAt(size) {
		return 0
	}
	_, enc := level(size)
	return enc + decoders*decoderBytes
}

// bytes is what dictionaries, tables and samples hold.
func (c *codec) bytes() int64 {
	n := c.sampler.held.Load()
	if b := c.book.Load(); b != nil {
		_, enc := level(c.size.Load())
		n += enc + decoders*decoderBytes
		for _, d := range b.dicts {
			n += 4 * int64(len(d.bytes)) // encoder, decoder and ours
		}
	}
	return n
}
