package mmap

import (
	"bytes"
	"runtime"
	"sync/atomic"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// parallelBytes is the size of a value above which its frames are encoded and
// decoded on all cores. Below it the goroutines cost more than they gain.
const parallelBytes = 512 << 10

// frame is a part of a value as it goes to disk.
type frame struct {
	stored []byte
	buf    *[]byte // pooled, holds stored; nil where that is the caller's
	size   uint32  // bytes of the value
	hash   uint32  // low half of their xxhash64
	sum    uint32  // checksum of stored
}

// encodeFrame compresses a part of a value; a nil encoder leaves it as it is.
// What does not shrink becomes a zstd frame of a raw block, hardly longer.
func encodeFrame(enc *zstd.Encoder, part []byte) frame {
	f := frame{stored: part, size: uint32(len(part))}
	if enc != nil {
		f.buf = getFrame(len(part) + 64)
		*f.buf = enc.EncodeAll(part, (*f.buf)[:0])
		f.stored = *f.buf
		f.hash = uint32(xxhash.Sum64(part))
	}
	f.sum = checksum(f.stored)
	return f
}

func (f *frame) free() {
	if f.buf != nil {
		putFrame(f.buf)
		f.buf, f.stored = nil, nil
	}
}

// compact keeps a frame that is to be held from holding much more than it is.
func (f *frame) compact() {
	if f.buf != nil && cap(*f.buf) > 2*len(f.stored) {
		small := bytes.Clone(f.stored)
		f.free()
		f.stored = small
	}
}

// encoded is a value ready to be written: what lies between the blob's header
// and its end.
type encoded struct {
	tail
	size       uint64
	hash       uint64
	frameBytes uint64
	parts      []frame
}

func (e *encoded) free() {
	for i := range e.parts {
		e.parts[i].free()
	}
}

// seal enters the frames into the tail and completes it.
func (e *encoded) seal() *encoded {
	for i := range e.parts {
		e.add(&e.parts[i])
	}
	e.finish()
	return e
}

// encode cuts the value into frames and compresses them if that is worth it.
func encode(value []byte, c Compression, frameBytes int) *encoded {
	e := &encoded{size: uint64(len(value)), hash: xxhash.Sum64(value), frameBytes: uint64(frameBytes)}
	if codec, enc, limit := choose(value, c); enc != nil && e.cut(value, enc, limit) {
		e.codec = codec
		return e.seal()
	}
	e.cut(value, nil, len(value)+1)
	return e.seal()
}

// choose says which encoder the value is worth, nil for raw, and below which
// length its frames have to stay.
func choose(value []byte, c Compression) (codec Codec, enc *zstd.Encoder, limit int) {
	if len(value) == 0 {
		return Raw, nil, 0
	}
	switch c {
	case Fast:
		return Zstd, fastEncoder(), len(value)
	case Best:
		return ZstdBest, bestEncoder(), len(value)
	case Auto:
		if promising([][]byte{value}, fastEncoder(), worthwhile) {
			return Zstd, fastEncoder(), len(value) - len(value)/16*worthwhile
		}
	}
	return Raw, nil, 0
}

// cut encodes all frames, on all cores if they are many. It gives up and
// returns false when together they reach the limit.
func (e *encoded) cut(value []byte, enc *zstd.Encoder, limit int) bool {
	n := int(frames(e.size, e.frameBytes))
	e.parts = make([]frame, n)
	width := 1
	if len(value) > parallelBytes {
		width = runtime.GOMAXPROCS(0)
	}
	var total atomic.Int64
	whole := fan(n, width, func(i int) bool {
		from := i * int(e.frameBytes)
		e.parts[i] = encodeFrame(enc, value[from:min(from+int(e.frameBytes), len(value))])
		e.parts[i].compact()
		return total.Add(int64(len(e.parts[i].stored))) < int64(limit)
	})
	if !whole {
		e.free()
	}
	return whole
}

// promising compresses a few samples, spread over the parts of a value, to see
// whether the whole is worth the time: whether it gains so many sixteenths.
func promising(parts [][]byte, enc *zstd.Encoder, gain int) bool {
	var all int
	for _, p := range parts {
		all += len(p)
	}
	if all <= 2*samplePieces*sampleBytes {
		return true // the whole is hardly more than the sample
	}
	buf, piece := getBuffer(0), getBuffer(sampleBytes)
	defer putBuffer(buf)
	defer putBuffer(piece)
	*buf = (*buf)[:0]
	for i := range samplePieces {
		gather(*piece, parts, (all-sampleBytes)/(samplePieces-1)*i)
		*buf = enc.EncodeAll(*piece, *buf)
	}
	const sampled = samplePieces * sampleBytes
	return len(*buf) < sampled-sampled/16*gain
}

// gather fills dst with what lies at an offset of the parts together.
func gather(dst []byte, parts [][]byte, at int) {
	for _, p := range parts {
		if at >= len(p) {
			at -= len(p)
			continue
		}
		n := copy(dst, p[at:])
		dst, at = dst[n:], 0
		if len(dst) == 0 {
			return
		}
	}
}
