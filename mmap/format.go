package mmap

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"hash/crc32"
	"strconv"
	"strings"
)

// The layout is in doc.go.
const (
	packMagic  = "HOLDPACK"
	packFormat = 1
	// rewrittenFormat has a table of where its blobs were.
	rewrittenFormat = 2
	packHeaderLen   = 4096
	packSuffix      = ".pack"

	blobMagic     = "HFB1"
	blobHeaderLen = 64
	blobAlign     = 8

	defaultFrameBytes = 128 << 10
	minFrameBytes     = 4 << 10
	maxFrameBytes     = 16 << 20

	maxOffset = 1 << 46

	// zstd seekable format: a skippable frame at the end.
	seekSkipMagic  = 0x184D2A5E
	seekFootMagic  = 0x8F92EAB1
	seekChecksums  = 0x80
	seekHeaderLen  = 8
	seekEntryLen   = 12
	seekFooterLen  = 9
	footerEntryLen = 4
)

func packName(num uint64) string { return fmt.Sprintf("%020d%s", num, packSuffix) }

// parseName returns the number in the name of a pack, or of something that was
// to become one: numbers are never used twice, not even those of leftovers.
func parseName(name string) (num uint64, pack, ok bool) {
	digits, rest, found := strings.Cut(name, ".")
	if !found || len(digits) != 20 || !strings.HasPrefix("."+rest, packSuffix) {
		return 0, false, false
	}
	num, err := strconv.ParseUint(digits, 10, 64)
	return num, "."+rest == packSuffix, err == nil
}

func encodePackHeader(uuid [16]byte, num, epoch uint64) []byte {
	b := make([]byte, packHeaderLen)
	copy(b, packMagic)
	binary.LittleEndian.PutUint32(b[8:], packFormat)
	copy(b[16:], uuid[:])
	binary.LittleEndian.PutUint64(b[32:], num)
	binary.LittleEndian.PutUint64(b[40:], epoch)
	binary.LittleEndian.PutUint32(b[packHeaderLen-4:], checksum(b[:packHeaderLen-4]))
	return b
}

func checkPackHeader(b []byte, uuid [16]byte, num uint64) (rewritten bool, err error) {
	bad := func(what string) (bool, error) { return false, &CorruptError{File: packName(num), What: what} }
	switch {
	case len(b) != packHeaderLen:
		return bad("pack header: cut short")
	case string(b[:8]) != packMagic:
		return bad("pack header: magic")
	case binary.LittleEndian.Uint32(b[packHeaderLen-4:]) != checksum(b[:packHeaderLen-4]):
		return bad("pack header: checksum")
	}
	format := binary.LittleEndian.Uint32(b[8:])
	if format != packFormat && format != rewrittenFormat {
		return false, fmt.Errorf("%w: %s: format %d", ErrVersion, packName(num), format)
	}
	if !bytes.Equal(b[16:32], uuid[:]) {
		return false, fmt.Errorf("%w: %s: uuid %x", ErrForeign, packName(num), b[16:32])
	}
	if n := binary.LittleEndian.Uint64(b[32:]); n != num {
		return bad(fmt.Sprintf("pack header: number %d", n))
	}
	return format == rewrittenFormat, nil
}

// layout is a blob's header and footer, verified: where each frame is.
type layout struct {
	frameBytes uint64
	sums       []uint32 // of each frame as stored
	// ends[i] is where frame i ends, counted from the first; nil for raw.
	ends []uint64
}

// frames is how many frames a value of this size has.
func frames(size, frameBytes uint64) uint64 { return (size + frameBytes - 1) / frameBytes }

// tailLen is the length of what follows the frames.
func tailLen(codec Codec, n uint64) uint64 {
	t := (n + 1) * footerEntryLen
	if codec.compressed() {
		t += seekTableLen(n)
	}
	return t
}

func seekTableLen(n uint64) uint64 { return seekHeaderLen + n*seekEntryLen + seekFooterLen }

// span is the part of the value that frame i holds.
func (l *layout) span(i, size uint64) (from, to uint64) {
	return i * l.frameBytes, min((i+1)*l.frameBytes, size)
}

// stored is where frame i lies, counted from the first.
func (l *layout) stored(i, size uint64) (from, to uint64) {
	if l.ends == nil {
		return l.span(i, size)
	}
	if i > 0 {
		from = l.ends[i-1]
	}
	return from, l.ends[i]
}

func encodeBlobHeader(uuid [16]byte, r Ref, frameBytes uint64, footer []byte) []byte {
	b := make([]byte, blobHeaderLen)
	copy(b, blobMagic)
	b[4] = byte(r.Codec)
	binary.LittleEndian.PutUint64(b[8:], r.Pack)
	binary.LittleEndian.PutUint64(b[16:], r.Offset)
	binary.LittleEndian.PutUint64(b[24:], r.Size)
	binary.LittleEndian.PutUint64(b[32:], r.Stored)
	binary.LittleEndian.PutUint64(b[40:], r.Hash)
	binary.LittleEndian.PutUint32(b[48:], uint32(frameBytes))
	binary.LittleEndian.PutUint32(b[52:], uint32(frames(r.Size, frameBytes)))
	binary.LittleEndian.PutUint32(b[56:], checksum(footer))
	binary.LittleEndian.PutUint32(b[60:], headerSum(uuid, b))
	return b
}

// headerSum covers the store's uuid too: a block of another store at the same
// place of a pack with the same number is not ours.
func headerSum(uuid [16]byte, b []byte) uint32 {
	return crc32.Update(checksum(uuid[:]), castagnoli, b[:60])
}

// headerRef is the reference that a blob header repeats.
func headerRef(b []byte) Ref {
	return Ref{
		Pack:   binary.LittleEndian.Uint64(b[8:]),
		Offset: binary.LittleEndian.Uint64(b[16:]),
		Size:   binary.LittleEndian.Uint64(b[24:]),
		Stored: binary.LittleEndian.Uint64(b[32:]),
		Hash:   binary.LittleEndian.Uint64(b[40:]),
		Codec:  Codec(b[4]),
	}
}

// decodeBlobHeader checks the header against its checksum and against the
// reference that led here. It returns how values are cut and the checksum of
// the footer.
func decodeBlobHeader(b []byte, uuid [16]byte, r Ref) (frameBytes uint64, footerSum uint32, err error) {
	bad := func(what string) (uint64, uint32, error) {
		return 0, 0, &CorruptError{File: packName(r.Pack), Offset: int64(r.Offset), What: "blob header: " + what}
	}
	switch {
	case len(b) != blobHeaderLen || string(b[:4]) != blobMagic:
		return bad("magic")
	case binary.LittleEndian.Uint32(b[60:]) != headerSum(uuid, b):
		return bad("checksum")
	case b[5]|b[6]|b[7] != 0 || Codec(b[4]) > ZstdBest:
		return 0, 0, fmt.Errorf("%w: %s: blob at %d: codec %d", ErrVersion, packName(r.Pack), r.Offset, b[4])
	}
	if headerRef(b) != r {
		return bad("not the blob that was referred to")
	}
	frameBytes = uint64(binary.LittleEndian.Uint32(b[48:]))
	if frameBytes < minFrameBytes || frameBytes > maxFrameBytes {
		return bad("bytes in a frame")
	}
	n := frames(r.Size, frameBytes)
	if uint64(binary.LittleEndian.Uint32(b[52:])) != n {
		return bad("number of frames")
	}
	tail := blobHeaderLen + tailLen(r.Codec, n)
	if r.Stored < tail || r.Codec == Raw && r.Stored != tail+r.Size {
		return bad("stored size")
	}
	return frameBytes, binary.LittleEndian.Uint32(b[56:]), nil
}

// decodeTail reads seek table and footer. tail is as long as tailLen says.
func decodeTail(tail []byte, r Ref, frameBytes uint64, footerSum uint32) (*layout, error) {
	n := frames(r.Size, frameBytes)
	data := r.Stored - blobHeaderLen - tailLen(r.Codec, n)
	bad := func(what string) (*layout, error) {
		return nil, &CorruptError{File: packName(r.Pack), Offset: int64(r.Offset + blobHeaderLen + data), What: what}
	}
	table, footer := tail[:0], tail
	if r.Codec.compressed() {
		cut := seekTableLen(n)
		table, footer = tail[:cut], tail[cut:]
	}
	if checksum(footer) != footerSum {
		return bad("footer: checksum")
	}
	l := &layout{frameBytes: frameBytes, sums: make([]uint32, n)}
	for i := range l.sums {
		l.sums[i] = binary.LittleEndian.Uint32(footer[i*footerEntryLen:])
	}
	if r.Codec == Raw {
		return l, nil
	}
	if checksum(table) != binary.LittleEndian.Uint32(footer[n*footerEntryLen:]) {
		return bad("seek table: checksum")
	}
	l.ends = make([]uint64, n)
	var end uint64
	for i := range n {
		e := table[seekHeaderLen+i*seekEntryLen:]
		from, to := l.span(i, r.Size)
		if uint64(binary.LittleEndian.Uint32(e[4:])) != to-from {
			return bad("seek table: size of a frame")
		}
		end += uint64(binary.LittleEndian.Uint32(e))
		l.ends[i] = end
	}
	if end != data {
		return bad("seek table: sum of the frames")
	}
	return l, nil
}
