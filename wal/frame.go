package wal

import (
	"encoding/binary"
	"errors"
	"hash/crc32"
)

const (
	frameMagic       = 0x6c664861 // "aHfl": neither zero nor all ones
	frameHeaderBytes = 64
	openBytes        = frameHeaderBytes + 64
	sealBytes        = frameHeaderBytes + 32

	kindOpen   = 1
	kindData   = 2
	kindMarker = 3
	kindSeal   = 4

	flagFirst  = 1
	flagMiddle = 2
	flagLast   = 4
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// Checksum is the CRC32C that a batch carries from the API's entry to replay.
func Checksum(payload []byte) uint32 { return crc32.Checksum(payload, castagnoli) }

// seedOf turns an incarnation's salt into the start value of its checksums, so
// that bytes of an earlier incarnation never verify.
func seedOf(salt uint64) uint32 {
	var b [8]byte
	binary.LittleEndian.PutUint64(b[:], salt)
	return crc32.Checksum(b[:], castagnoli)
}

func align8(n int) int { return (n + 7) &^ 7 }

// frame is a decoded frame header.
type frame struct {
	kind, flags uint8
	payloadLen  uint32
	salt        uint64
	offset      int64
	firstLSN    uint64
	count       uint32
	chain       uint32
	synced      uint64
	payloadCRC  uint32
}

// size is what the frame occupies in its segment.
func (f *frame) size() int64 { return int64(align8(frameHeaderBytes + int(f.payloadLen))) }

// lastLSN is the last commit number that has a byte in this frame.
func (f *frame) lastLSN() uint64 { return f.firstLSN + uint64(f.count) - 1 }

// put encodes the header into b and returns its chain checksum.
func (f *frame) put(b []byte, seed uint32) uint32 {
	le := binary.LittleEndian
	b = b[:frameHeaderBytes]
	le.PutUint32(b[0:], frameMagic)
	b[8], b[9], b[10], b[11] = f.kind, f.flags, 0, 0
	le.PutUint32(b[12:], f.payloadLen)
	le.PutUint64(b[16:], f.salt)
	le.PutUint64(b[24:], uint64(f.offset))
	le.PutUint64(b[32:], f.firstLSN)
	le.PutUint32(b[40:], f.count)
	le.PutUint32(b[44:], f.chain)
	le.PutUint64(b[48:], f.synced)
	le.PutUint32(b[56:], f.payloadCRC)
	le.PutUint32(b[60:], 0)
	le.PutUint32(b[4:], crc32.Update(seed, castagnoli, b[8:]))
	return crc32.Checksum(b, castagnoli)
}

// parseFrame reads a header that must belong to this incarnation and lie at
// off. It trusts nothing before the header's own checksum has matched.
func parseFrame(b []byte, salt uint64, seed uint32, off int64) (f frame, ok bool) {
	le := binary.LittleEndian
	if len(b) < frameHeaderBytes || le.Uint32(b) != frameMagic {
		return f, false
	}
	b = b[:frameHeaderBytes]
	if le.Uint64(b[16:]) != salt || le.Uint64(b[24:]) != uint64(off) {
		return f, false // recycled, or written to the wrong place
	}
	if le.Uint32(b[4:]) != crc32.Update(seed, castagnoli, b[8:]) {
		return f, false
	}
	f = frame{
		kind: b[8], flags: b[9],
		payloadLen: le.Uint32(b[12:]),
		salt:       salt, offset: off,
		firstLSN:   le.Uint64(b[32:]),
		count:      le.Uint32(b[40:]),
		chain:      le.Uint32(b[44:]),
		synced:     le.Uint64(b[48:]),
		payloadCRC: le.Uint32(b[56:]),
	}
	return f, true
}

// openRecord is the payload of OPEN: who precedes this segment, and where the
// numbers go on.
type openRecord struct {
	firstLSN      uint64 // expected right after OPEN
	prevSegNo     uint64 // 0: none
	prevSalt      uint64
	prevEndOffset int64
	prevLastLSN   uint64 // last whole batch before OPEN
	jumpAfter     uint64 // after this number ...
	jumpTo        uint64 // ... comes this one
	prevChain     uint32
	cont          bool // a batch that began before OPEN goes on after it
}

// lastBefore is the highest number with a byte before OPEN. A batch that goes on
// across it may be the first one after a jump, so its number is not simply the
// one after the last whole batch.
func (r *openRecord) lastBefore() uint64 {
	if r.cont {
		return r.firstLSN
	}
	return r.prevLastLSN
}

func (r *openRecord) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], r.firstLSN)
	le.PutUint64(b[8:], r.prevSegNo)
	le.PutUint64(b[16:], r.prevSalt)
	le.PutUint64(b[24:], uint64(r.prevEndOffset))
	le.PutUint64(b[32:], r.prevLastLSN)
	le.PutUint64(b[40:], r.jumpAfter)
	le.PutUint64(b[48:], r.jumpTo)
	le.PutUint32(b[56:], r.prevChain)
	var flags uint32
	if r.cont {
		flags = 1
	}
	le.PutUint32(b[60:], flags)
}

func parseOpen(b []byte) (r openRecord, ok bool) {
	if len(b) != openBytes-frameHeaderBytes {
		return r, false
	}
	le := binary.LittleEndian
	r = openRecord{
		firstLSN:      le.Uint64(b[0:]),
		prevSegNo:     le.Uint64(b[8:]),
		prevSalt:      le.Uint64(b[16:]),
		prevEndOffset: int64(le.Uint64(b[24:])),
		prevLastLSN:   le.Uint64(b[32:]),
		jumpAfter:     le.Uint64(b[40:]),
		jumpTo:        le.Uint64(b[48:]),
		prevChain:     le.Uint32(b[56:]),
		cont:          le.Uint32(b[60:]) == 1,
	}
	return r, r.prevEndOffset >= 0
}

// sealRecord is the payload of SEAL.
type sealRecord struct {
	finalLSN  uint64
	endOffset int64  // of the segment, this frame included
	nextSegNo uint64 // 0: the log was closed here
	chain     uint32 // of the frame before
}

func (r *sealRecord) put(b []byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], r.finalLSN)
	le.PutUint64(b[8:], uint64(r.endOffset))
	le.PutUint64(b[16:], r.nextSegNo)
	le.PutUint32(b[24:], r.chain)
	le.PutUint32(b[28:], 0)
}

func parseSeal(b []byte) (r sealRecord, ok bool) {
	if len(b) != sealBytes-frameHeaderBytes {
		return r, false
	}
	le := binary.LittleEndian
	return sealRecord{le.Uint64(b), int64(le.Uint64(b[8:])), le.Uint64(b[16:]), le.Uint32(b[24:])}, true
}

// entry is one batch inside a group's payload.
type entry struct {
	ops     uint32
	sum     uint32
	payload []byte
}

const maxEntryHeader = 5 + 5 + 5 + 4

// appendEntryHeader encodes what stands before a batch's ops. The index is the
// batch's distance from the frame's firstLSN.
func appendEntryHeader(b []byte, n int, index int, ops, sum uint32) []byte {
	b = binary.AppendUvarint(b, uint64(n))
	b = binary.AppendUvarint(b, uint64(index))
	b = binary.AppendUvarint(b, uint64(ops))
	return binary.LittleEndian.AppendUint32(b, sum)
}

var errEntry = errors.New("batch header does not decode")

// parseEntryHeader reads the header that should carry the given index.
func parseEntryHeader(b []byte, index int) (e entry, payloadLen, headerLen int, err error) {
	n, w := binary.Uvarint(b)
	if w <= 0 || n > maxBatchBytes {
		return e, 0, 0, errEntry
	}
	i, w2 := binary.Uvarint(b[w:])
	if w2 <= 0 || i != uint64(index) {
		return e, 0, 0, errEntry
	}
	w += w2
	ops, w3 := binary.Uvarint(b[w:])
	if w3 <= 0 || ops > 1<<32-1 {
		return e, 0, 0, errEntry
	}
	w += w3
	if len(b)-w < 4 {
		return e, 0, 0, errEntry
	}
	e.ops = uint32(ops)
	e.sum = binary.LittleEndian.Uint32(b[w:])
	return e, int(n), w + 4, nil
}

var errBatchSum = errors.New("batch checksum does not match")

// parseEntries splits a whole group into its batches, all of them verified.
func parseEntries(b []byte, count int, dst []entry) ([]entry, error) {
	for i := range count {
		e, n, w, err := parseEntryHeader(b, i)
		if err != nil {
			return nil, err
		}
		if n > len(b)-w {
			return nil, errEntry
		}
		e.payload = b[w : w+n : w+n]
		if Checksum(e.payload) != e.sum {
			return nil, errBatchSum
		}
		dst = append(dst, e)
		b = b[w+n:]
	}
	if len(b) != 0 {
		return nil, errEntry
	}
	return dst, nil
}
