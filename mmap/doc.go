// Package mmap keeps large values in append-only pack files and reads them
// through memory mappings.
//
// # Where you are
//
// A leaf: below engine and compaction, beside cow, wal, cache and storage,
// importing none of them. A value is bytes; where it lies is a reference
// ([Ref]) that others keep. Start reading at [Store.Write], [Store.NewWriter],
// [Store.Sync] and [Blob.View].
//
// # Always true
//
//   - M1: a published byte is never changed, and no store appends to a file
//     that it did not create in this open (I7). Packs are numbered upwards
//     from one above everything that was ever seen. A rewritten pack is a new
//     file, renamed over the old one, in which the same references lead to the
//     same bytes.
//   - M2: after Sync returned nil, every blob written before the call is
//     durable, its pack's name included (I3).
//   - M3: after a failed sync, or a failed write that is not a full disk, that
//     pack is never written again and Write and Sync fail until reopen (I9). A
//     hint to write out that fails is a failed sync. Reads go on.
//   - M4: bytes of a failed write are never referenced; the pack they are in
//     gets no more. A pack of its own has no blob header until all else of the
//     blob is written, is in no table until the header is, and is removed if
//     that never comes.
//   - M5: nothing read from disk is trusted before its checksum was verified,
//     and no size is taken from a compressed stream. Bytes from disk cause
//     typed errors, never a panic (I12).
//   - M6: only published, synced bytes are mapped, read-only; every access
//     that can fault runs under [guard] (I12). A page that is gone is
//     ErrCorrupt.
//   - M7: a mapping lives while it is pinned, also past Close; mappings are
//     bounded in number, in address space, and in the frames that were touched
//     in them since their pages were last given back (I10). Past that bound are
//     only Views and Bytes while they last.
//   - M8: a pack with a blob that was written in this open and whose reference
//     was neither committed nor given up is pending, and is not removed (I7).
//   - M9: what a Writer holds is bounded whatever the size of its value (I10),
//     and no goroutine outlives the Finish, Abort, context or Close that ends
//     its value but to remove it (I11).
//
// # On disk
//
// Packs are named by their number, 20 digits: 00000000000000000042.pack.
// Integers are little-endian, checksums CRC32C. A pack begins with a page:
//
//	offset  size  field
//	0       8     "HOLDPACK"
//	8       4     format, 1; 2: rewritten, then the fields in brackets count
//	12      4     zero
//	16      16    uuid of the store
//	32      8     number of the pack
//	40      8     owner epoch
//	48      8     [offset of the table of blobs, which ends the file]
//	56      4     [entries in it]
//	60      4     [its checksum]
//	64      4028  zero
//	4092    4     checksum of the bytes before
//
// An entry of that table is two times 8 bytes: the offset that references say, ascending,
// and the one in this file. Blobs follow the page, each at a multiple of 8:
//
//	offset  size  field
//	0       4     "HFB1"
//	4       1     codec: 0 raw, 1 zstd, 2 zstd at the better level
//	5       3     zero
//	8       8     number of the pack
//	16      8     offset of this header
//	24      8     size of the value
//	32      8     stored: size of the blob, header and footer included
//	40      8     xxhash64 of the value
//	48      4     bytes of value in a frame; the last may have fewer
//	52      4     frames
//	56      4     checksum of the footer
//	60      4     checksum of the store's uuid and the bytes before
//	64            frames; for zstd a seek table follows
//	        4*n   footer: checksum of each frame as stored
//	        4     footer: checksum of the seek table, zero for raw
//
// With zstd each frame is a zstd frame of its own, and frames and seek table
// together are a file in the public zstd seekable format: any zstd tool
// decodes them. A frame that does not shrink is a zstd frame of raw blocks.
//
// A value whose size was not known from the start and is 8 MiB or more is the
// only blob of its pack.
//
// testdata/pack.golden and testdata/best.golden hold one blob of each codec;
// TestFormat_golden reads them back.
package mmap
