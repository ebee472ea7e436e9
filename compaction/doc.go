// Package compaction moves cells down: it turns a frozen generation into sorted
// tables and hands them to storage in one ingest. It also accounts for large values:
// what a flush does to their index, and which packs are worth rewriting.
//
// # Where you are
//
// Below engine, above cow, storage and mmap. It knows how cells move, never when:
// it has no clock, no goroutine and no lock of its own. Start reading at [Flush] and [Blobs].
//
// # Always true
//
//   - P1: one operation per key and flush reaches storage, the newest one.
//   - P2: a point that a newer range tombstone hides is left out, because within
//     one ingested table a point survives its range delete.
//   - P3: the watermark travels in the same ingest as the last cell it covers (I4).
//   - P4: after each flush the index of blobs names what the cells of L3 name, and
//     nothing else.
package compaction
