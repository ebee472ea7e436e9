// Package storage keeps L3: the ordered cells that have left memory, and the
// watermark that says how far they are complete. It is the only room that
// knows Pebble.
//
// # Where you are
//
// A leaf: below engine and compaction, beside wal, cow, cache and mmap,
// importing none of them. A cell is bytes; storage never looks into one.
// Start reading at [Open]; a flush is [Store.NewIngest] and [Ingest.Commit], a
// read is [Store.Current] and [Snapshot.Get].
//
// # Always true
//
//   - S1: Pebble's memtable is never written and its log is off. Everything
//     arrives as finished tables, so each byte is written once and a clean
//     close has nothing to lose.
//   - S2: the watermark travels in the same ingest as the cells it covers
//     (I4). One manifest edit makes both durable; a crash keeps both or
//     neither.
//   - S3: [Ingest.Commit] returns nil only when the write gate is still open
//     after the ingest and the watermark read back is the one given. After
//     any other answer the ingest may be there on reopen: trust the watermark.
//   - S4: a Pebble snapshot is taken only by the flusher, after its ingest
//     returned and before the next begins; every reader shares that snapshot
//     by reference count (I5, I8). See snapshot.go for why iterators may be
//     made from it at any time.
//   - S5: tables of one ingest do not overlap, hold one operation per key, and
//     are cut at the same points every time, so that compactions stay narrow.
//     A range tombstone that crosses a border is cut there; an empty one is
//     never written.
//   - S6: after the first failed operation on a MANIFEST or marker nothing in
//     the folder changes any more; reads go on (I9, I12). Pebble is not told,
//     because it cannot bear it (see gate.go); nothing it says afterwards is
//     believed.
//   - S7: no call panics out, nothing ends the process, and after Close every
//     call answers ErrClosed (I12). No byte handed to a caller lies in memory
//     that Close gives back.
//   - S8: every goroutine started here has ended when Close returns (I11).
//
// # On disk
//
// A Pebble store in Options.Dir (its tables are Pebble's newest format) and a staging folder beside it, Dir+"-staging",
// for tables being built; the staging folder is emptied at open. Keys inside
// Pebble carry one byte in front:
//
//	prefix  what follows
//	0x00    storage's own keys: "blobs", "cuts", "watermark"
//	0x01    index of blobs: pack and offset, big-endian; its value is the bytes
//	        the blob takes (uvarint) and the user key whose cell names it
//	0x02-   kept free (expiry, sources)
//	0x10    user key, as given; its value is the cell
//	0x11-   kept free
//
// Integers are little-endian. The watermark is 45 bytes:
//
//	offset  size  field
//	0       1     version, 1
//	1       8     lsn up to which L3 is complete
//	9       8     generation
//	17      16    UUID of the store
//	33      8     entries the last ingest brought
//	41      4     crc32c of bytes 0-40
//
// The cut points:
//
//	offset  size  field
//	0       1     version, 1
//	1       8     bytes in L3 when the points were chosen
//	9       2     number of points, at most 15
//	11      ...   each: 2 bytes length, at most 64 bytes of user key
//	end-4   4     crc32c of everything before
package storage
