package mmap

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Codec says how the frames of a blob are stored.
type Codec uint8

const (
	Raw  Codec = 0
	Zstd Codec = 1
	// ZstdBest decodes as Zstd does. It says that the better level was used, so
	// that nobody tries it again.
	ZstdBest Codec = 2
)

func (c Codec) compressed() bool { return c != Raw }

func (c Codec) String() string {
	switch c {
	case Raw:
		return "raw"
	case Zstd:
		return "zstd"
	case ZstdBest:
		return "zstd-best"
	}
	return fmt.Sprintf("codec(%d)", uint8(c))
}

// RefLen is the length of an encoded reference.
//
//	offset  size  field
//	0       8     pack
//	8       8     offset
//	16      8     stored
//	24      8     size
//	32      8     xxhash64 of the value
//	40      1     codec
//	41      3     zero
//	44      4     checksum of the bytes before
const RefLen = 48

// MaxValue bounds one value.
const MaxValue = 1 << 36

// Ref says where a value lies and what it must be. It repeats what the blob's
// header says, so that a blob of another value in the right place is refused.
type Ref struct {
	Pack   uint64
	Offset uint64
	Stored uint64 // bytes on disk, header and footer included
	Size   uint64 // bytes of the value
	Hash   uint64 // xxhash64 of the value
	Codec  Codec
}

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func checksum(b []byte) uint32 { return crc32.Checksum(b, castagnoli) }

func (r Ref) append(dst []byte) []byte {
	start := len(dst)
	for _, v := range [...]uint64{r.Pack, r.Offset, r.Stored, r.Size, r.Hash} {
		dst = binary.LittleEndian.AppendUint64(dst, v)
	}
	dst = append(dst, byte(r.Codec), 0, 0, 0)
	return binary.LittleEndian.AppendUint32(dst, checksum(dst[start:]))
}

// DecodeRef reads a reference and checks it against itself.
func DecodeRef(ref []byte) (Ref, error) {
	bad := func(what string, args ...any) (Ref, error) {
		return Ref{}, &CorruptError{What: "reference: " + fmt.Sprintf(what, args...)}
	}
	if len(ref) != RefLen {
		return bad("length %d", len(ref))
	}
	if binary.LittleEndian.Uint32(ref[44:]) != checksum(ref[:44]) {
		return bad("checksum")
	}
	r := Ref{
		Pack:   binary.LittleEndian.Uint64(ref),
		Offset: binary.LittleEndian.Uint64(ref[8:]),
		Stored: binary.LittleEndian.Uint64(ref[16:]),
		Size:   binary.LittleEndian.Uint64(ref[24:]),
		Hash:   binary.LittleEndian.Uint64(ref[32:]),
		Codec:  Codec(ref[40]),
	}
	switch {
	case r.Codec > ZstdBest || ref[41]|ref[42]|ref[43] != 0:
		return Ref{}, fmt.Errorf("%w: reference: codec %d", ErrVersion, ref[40])
	case r.Size > MaxValue:
		return bad("size %d", r.Size)
	case r.Offset < packHeaderLen || r.Offset%blobAlign != 0 || r.Offset > maxOffset:
		return bad("offset %d", r.Offset)
	case r.Stored < blobHeaderLen+4 || r.Stored > maxOffset:
		return bad("stored %d", r.Stored)
	}
	return r, nil
}
