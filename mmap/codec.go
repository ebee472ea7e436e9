package mmap

import (
	"encoding/binary"
	"fmt"
	"runtime"
	"sync"

	"github.com/cespare/xxhash/v2"
	"github.com/klauspost/compress/zstd"
)

// Compression chooses between bytes on disk and time.
type Compression uint8

const (
	// Auto samples each value and compresses fast what gains by it.
	Auto Compression = iota
	// None stores values raw: no copy stands between the disk and the reader.
	None
	// Fast compresses whatever gets smaller at all.
	Fast
	// Best takes longer for a better ratio.
	Best
)

func (c Compression) String() string {
	switch c {
	case Auto:
		return "auto"
	case None:
		return "none"
	case Fast:
		return "fast"
	case Best:
		return "best"
	}
	return fmt.Sprintf("compression(%d)", uint8(c))
}

const (
	sampleBytes  = 8 << 10
	samplePieces = 4
	// worthwhile is the gain, in sixteenths, that pays for decoding at each
	// read and for losing the zero-copy view.
	worthwhile = 2

	maxPooled = 4 << 20
)

// Coders are shared by all stores: a blob may outlive its store. EncodeAll and
// DecodeAll run on the caller's goroutine and keep a coder per core.
var (
	fastEncoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder(zstd.SpeedFastest) })
	bestEncoder = sync.OnceValue(func() *zstd.Encoder { return newEncoder(zstd.SpeedBetterCompression) })
	decoder     = sync.OnceValue(newDecoder)

	buffers = sync.Pool{New: func() any { return new([]byte) }}
)

func newEncoder(level zstd.EncoderLevel) *zstd.Encoder {
	e, err := zstd.NewWriter(nil,
		zstd.WithEncoderLevel(level),
		zstd.WithEncoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithWindowSize(defaultFrameBytes),
		zstd.WithLowerEncoderMem(true),
		zstd.WithEncoderCRC(true)) // for whoever decodes with another tool
	if err != nil {
		panic("mmap: encoder options: " + err.Error()) // ours, not the disk's
	}
	return e
}

func newDecoder() *zstd.Decoder {
	d, err := zstd.NewReader(nil,
		zstd.WithDecoderConcurrency(runtime.GOMAXPROCS(0)),
		zstd.WithDecoderLowmem(true),
		// M5: a frame cannot make us allocate more than the place it goes to.
		zstd.WithDecodeAllCapLimit(true),
		zstd.WithDecoderMaxMemory(maxFrameBytes),
		zstd.WithDecoderMaxWindow(maxFrameBytes))
	if err != nil {
		panic("mmap: decoder options: " + err.Error())
	}
	return d
}

func getBuffer(n int) *[]byte {
	b := buffers.Get().(*[]byte)
	if cap(*b) < n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

// putBuffer gives a buffer back unless it is so large that keeping it would
// hold memory that nobody counts.
func putBuffer(b *[]byte) {
	if cap(*b) <= maxPooled {
		buffers.Put(b)
	}
}

// decodeFrame fills dst, which is exactly as long as the frame's part of the
// value, from a frame whose checksum was verified.
func decodeFrame(dst, stored []byte) error {
	out, err := decoder().DecodeAll(stored, dst[:0:len(dst)])
	if err != nil {
		return err
	}
	if len(out) != len(dst) {
		return fmt.Errorf("frame holds %d bytes, want %d", len(out), len(dst))
	}
	if len(out) > 0 && &out[0] != &dst[0] {
		copy(dst, out)
	}
	return nil
}

// encoded is a value ready to be written: what lies between the blob's header
// and its end.
type encoded struct {
	codec  Codec
	hash   uint64
	data   []byte  // frames: the caller's value for raw, else in buf
	tail   []byte  // seek table and footer
	footer []byte  // the end of tail
	buf    *[]byte // pooled; nil for raw
}

func (e *encoded) free() {
	if e.buf != nil {
		putBuffer(e.buf)
		e.buf = nil
	}
}

// encode cuts the value into frames and compresses them if that is worth it.
func encode(value []byte, c Compression, frameBytes int) *encoded {
	hash := xxhash.Sum64(value)
	if e := compress(value, c, frameBytes); e != nil {
		e.hash = hash
		return e
	}
	e := &encoded{codec: Raw, hash: hash, data: value}
	for rest := value; len(rest) > 0; {
		n := min(len(rest), frameBytes)
		e.footer = binary.LittleEndian.AppendUint32(e.footer, checksum(rest[:n]))
		rest = rest[n:]
	}
	e.footer = binary.LittleEndian.AppendUint32(e.footer, 0)
	e.tail = e.footer
	return e
}

// compress returns nil where raw is the better choice.
func compress(value []byte, c Compression, frameBytes int) *encoded {
	var enc *zstd.Encoder
	limit := len(value)
	switch c {
	case Fast:
		enc = fastEncoder()
	case Best:
		enc = bestEncoder()
	case Auto:
		enc = fastEncoder()
		limit -= len(value) / 16 * worthwhile
		if !promising(enc, value) {
			return nil
		}
	default:
		return nil
	}
	if len(value) == 0 {
		return nil
	}
	buf := getBuffer(0)
	out := *buf
	entries := make([]seekEntry, 0, frames(uint64(len(value)), uint64(frameBytes)))
	var sums []byte
	for rest := value; len(rest) > 0; {
		part := rest[:min(len(rest), frameBytes)]
		rest = rest[len(part):]
		from := len(out)
		out = enc.EncodeAll(part, out)
		entries = append(entries, seekEntry{
			stored: uint32(len(out) - from),
			size:   uint32(len(part)),
			sum:    uint32(xxhash.Sum64(part)),
		})
		sums = binary.LittleEndian.AppendUint32(sums, checksum(out[from:]))
		if len(out) >= limit {
			*buf = out
			putBuffer(buf)
			return nil
		}
	}
	*buf = out
	e := &encoded{codec: Zstd, data: out, buf: buf}
	e.tail = appendSeekTable(nil, entries)
	cut := len(e.tail)
	e.footer = binary.LittleEndian.AppendUint32(sums, checksum(e.tail))
	e.tail = append(e.tail, e.footer...)
	e.footer = e.tail[cut:]
	return e
}

// promising compresses a few pieces, spread over the value, to see whether the
// whole is worth the time.
func promising(enc *zstd.Encoder, value []byte) bool {
	if len(value) <= 2*samplePieces*sampleBytes {
		return true // the whole is hardly more than the sample
	}
	buf := getBuffer(0)
	defer putBuffer(buf)
	for i := range samplePieces {
		at := (len(value) - sampleBytes) / (samplePieces - 1) * i
		*buf = enc.EncodeAll(value[at:at+sampleBytes], *buf)
	}
	const all = samplePieces * sampleBytes
	return len(*buf) < all-all/16*worthwhile
}
