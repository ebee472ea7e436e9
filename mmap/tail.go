package mmap

import "encoding/binary"

// tail collects what follows the frames of a blob, one frame at a time: the
// table of the seekable format, and the footer. For the largest value, of 2^36
// bytes in frames of 128 KiB, it holds 8 MiB.
type tail struct {
	codec  Codec
	table  []byte // nil for raw
	footer []byte
	count  int
	data   uint64 // bytes of the frames as stored
}

// add enters the next frame.
func (t *tail) add(f *frame) {
	le := binary.LittleEndian
	if t.codec.compressed() {
		t.begin()
		t.table = le.AppendUint32(t.table, uint32(len(f.stored)))
		t.table = le.AppendUint32(t.table, f.size)
		t.table = le.AppendUint32(t.table, f.hash)
	}
	t.footer = le.AppendUint32(t.footer, f.sum)
	t.count++
	t.data += uint64(len(f.stored))
}

// begin leaves place for what is known at the end.
func (t *tail) begin() {
	if t.table == nil {
		t.table = make([]byte, seekHeaderLen, seekHeaderLen+seekEntryLen*8+seekFooterLen)
	}
}

// finish completes table and footer. It is called once, after the last frame.
func (t *tail) finish() {
	le := binary.LittleEndian
	var sum uint32
	if t.codec.compressed() {
		t.begin() // no store writes one without a frame, but a disk may have one
		le.PutUint32(t.table, seekSkipMagic)
		le.PutUint32(t.table[4:], uint32(t.count*seekEntryLen+seekFooterLen))
		t.table = le.AppendUint32(t.table, uint32(t.count))
		t.table = append(t.table, seekChecksums)
		t.table = le.AppendUint32(t.table, seekFootMagic)
		sum = checksum(t.table)
	}
	t.footer = le.AppendUint32(t.footer, sum)
}

// blobLen is how long a blob with these frames is.
func (t *tail) blobLen() uint64 {
	return blobHeaderLen + t.data + tailLen(t.codec, uint64(t.count))
}
