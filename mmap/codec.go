package mmap

import (
	"fmt"
	"runtime"
	"sync"

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

	buffers      = sync.Pool{New: func() any { return new([]byte) }}
	frameBuffers = sync.Pool{New: func() any { return new([]byte) }}
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

// getFrame returns a buffer of about n bytes and not much more, for frames that
// are held: what is counted is their length.
func getFrame(n int) *[]byte {
	b := frameBuffers.Get().(*[]byte)
	if cap(*b) < n || cap(*b) > 2*n {
		*b = make([]byte, n)
	}
	*b = (*b)[:n]
	return b
}

func putFrame(b *[]byte) {
	if cap(*b) <= maxPooled {
		frameBuffers.Put(b)
	}
}
