package storage

import (
	"encoding/binary"
	"fmt"
	"hash/crc32"
)

// Watermark says up to which commit L3 is complete, and whose L3 it is.
type Watermark struct {
	LSN        uint64   // L3 holds every commit up to this one
	Generation uint64   // the generation that went down last
	UUID       [16]byte // of the store; the engine refuses a foreign one
	Entries    uint64   // operations the last ingest brought
}

const (
	watermarkVersion = 1
	watermarkBytes   = 45
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

func (w Watermark) encode() []byte {
	b := make([]byte, 0, watermarkBytes)
	b = append(b, watermarkVersion)
	b = binary.LittleEndian.AppendUint64(b, w.LSN)
	b = binary.LittleEndian.AppendUint64(b, w.Generation)
	b = append(b, w.UUID[:]...)
	b = binary.LittleEndian.AppendUint64(b, w.Entries)
	return binary.LittleEndian.AppendUint32(b, crc32.Checksum(b, castagnoli))
}

func decodeWatermark(b []byte) (Watermark, error) {
	var w Watermark
	if len(b) != watermarkBytes {
		return w, &CorruptError{What: fmt.Sprintf("watermark: %d bytes, want %d", len(b), watermarkBytes)}
	}
	body, sum := b[:watermarkBytes-4], binary.LittleEndian.Uint32(b[watermarkBytes-4:])
	if crc32.Checksum(body, castagnoli) != sum {
		return w, &CorruptError{What: "watermark: checksum"}
	}
	// The version is looked at after the checksum: a flipped version byte is
	// damage, not a newer release.
	if b[0] != watermarkVersion {
		return w, fmt.Errorf("storage: watermark: version %d is not known", b[0])
	}
	w.LSN = binary.LittleEndian.Uint64(b[1:])
	w.Generation = binary.LittleEndian.Uint64(b[9:])
	copy(w.UUID[:], b[17:33])
	w.Entries = binary.LittleEndian.Uint64(b[33:])
	return w, nil
}
