// Package wal keeps every acknowledged write, in order, until storage has it.
//
// # Where you are
//
// A leaf: below engine, beside cow, cache, storage and mmap, importing none of
// them. A payload is bytes; wal knows neither keys nor values. A write goes
// down [Log.Commit] (commit.go), group.go, commit again, sync.go. Recovery is
// [Recover] (recover.go), walk.go, tail.go, and then [Recovery.Start].
//
// # Always true
//
//   - W1: numbers are consecutive. A jump is declared in OPEN; a gap anywhere
//     else is corruption, never a skipped record.
//   - W2: a batch is replayed whole or not at all, however many frames it spans.
//   - W3: write, sync, publish, acknowledge, in this order (I2); place before
//     publish, and beside the sync where there is much to place: what is not
//     published nobody sees. Every sync of the log comes after BeforeSync (I3).
//   - W4: after a failed write or sync no further byte goes to the log, and
//     nothing more is acknowledged (I9).
//   - W5: a promise (syncedLSN) is what was written before the sync began. It is
//     below its frame's own number, never falls, and never exceeds the truth.
//   - W6: SEAL and all before it are synced before the next segment's OPEN is
//     written. So only the newest segment has a tail that may be torn.
//   - W7: no open appends to a segment that it did not make. What recovery
//     keeps beyond the promised end is written again into the successor.
//   - W8: a segment is recycled only below the watermark that STATE has on disk,
//     never under a pin (I6), and never under its old salt.
//   - W9: a number is used only below the leased ceiling that STATE has on disk,
//     so none is ever given twice, whatever a crash took back.
//   - W10: room is found before the first byte of a group is written. A full
//     disk refuses whole groups and consumes no number.
//   - W11: memory is bounded by one group that forms, one that is written, one
//     batch that is larger than a group, and two buffers under Never (I10).
//
// # On disk
//
// Dir/STATE, and in Dir/log: <20 digits>.wal are segments, spare-<20
// digits>.tmp are being made and belong to nobody after a crash, lost-<20
// digits>.wal lay beyond a point-in-time cut. Segments are numbered upwards,
// not without gaps: each names its predecessor. Integers are little-endian,
// checksums CRC32C. A segment's payload and header checksums start from the
// checksum of its salt (8 bytes).
//
// Segment: two identical pages, then frames, each on an 8-byte boundary, zeros
// or frames under older salts behind the last.
//
//	offset  size  field, of each page
//	0       8     magic "HFSTLOG\x1a"
//	8       2     format, 1
//	10      2     flags, 0
//	12      4     length of this header, 68
//	16      16    store's UUID
//	32      8     segment number
//	40      8     salt, random for each incarnation
//	48      8     owner epoch
//	56      8     size of the file when it was made; 0: not known
//	64      4     checksum of bytes 0..63
//
// Frame:
//
//	offset  size  field
//	0       4     magic 0x6c664861
//	4       4     checksum of bytes 8..63, seeded
//	8       1     kind: 1 OPEN, 2 DATA, 3 MARKER, 4 SEAL
//	9       1     flags: 0, or of a batch that spans frames 1 FIRST, 2 MIDDLE, 4 LAST
//	10      2     reserved
//	12      4     length of the payload
//	16      8     salt
//	24      8     own offset
//	32      8     firstLSN: of the first batch; without one, the next to come
//	40      4     count of batches; 1 in each frame of a spanning batch
//	44      4     chain: checksum of the previous frame's 64 bytes, not seeded
//	48      8     syncedLSN: everything at or below was synced before this frame was built
//	56      4     checksum of the payload, seeded
//	60      4     reserved
//	64      n     payload, padded to 8 bytes
//
// Payload of DATA: for each batch its length, its distance from firstLSN and
// its count of operations as uvarints, its checksum (4), its bytes. A spanning
// batch is this, cut into pieces.
//
// Payload of OPEN, always the first frame and never elsewhere; its chain is
// that of the predecessor's end:
//
//	0       8     firstLSN: the number that comes next
//	8       8     predecessor's number; 0: none
//	16      8     predecessor's salt
//	24      8     predecessor's end; what lies behind is not part of the log
//	32      8     last number before OPEN. If firstLSN is not the one after it: a jump
//	40      8     jump: after this number (in this segment) ...
//	48      8     ... comes this one
//	56      4     predecessor's chain
//	60      4     flags: 1 a batch goes on across OPEN
//
// Payload of SEAL, always the last frame:
//
//	0       8     last number
//	8       8     end of the segment, SEAL included
//	16      8     number of the successor; 0: the log was closed
//	24      4     chain
//	28      4     reserved
//
// STATE: two slots, a page each, written in turn; the higher sequence wins.
//
//	offset  size  field, of each page
//	0       8     magic "HFSTSTA\x1a"
//	8       2     format, 1
//	10      2     flags: 1 closed cleanly
//	12      4     chain at the synced position
//	16      16    store's UUID
//	32      8     sequence
//	40      8     owner epoch
//	48      8     generation
//	56      8     syncedLSN, a lower bound
//	64      8     flushedLSN
//	72      8     issued ceiling
//	80      8     synced position: segment
//	88      8     synced position: offset
//	96      8     pack high mark
//	4092    4     checksum of bytes 0..4091
//
// testdata/segment.golden and testdata/state.golden hold one of each;
// TestFormat_golden makes them again and reads them back.
//
// # What is not promised
//
// The last group is covered by no promise until the next group, or a MARKER a
// few milliseconds later, is on disk. If a disk destroys it within that window,
// no local format can tell this from a crash, and it is cut.
package wal
