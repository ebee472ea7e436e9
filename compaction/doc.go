// Package compaction moves cells down: it turns a frozen generation into sorted
// tables and hands them to storage in one ingest.
//
// # Where you are
//
// Below engine, above cow, storage and mmap. It knows how cells move, never when:
// it has no clock, no goroutine and no lock of its own. Start reading at [Flush].
//
// # Always true
//
//   - P1: one operation per key and flush reaches storage, the newest one.
//   - P2: a point that a newer range tombstone hides is left out, because within
//     one ingested table a point survives its range delete.
//   - P3: the watermark travels in the same ingest as the last cell it covers (I4).
package compaction
