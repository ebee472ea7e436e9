// Package engine is the door of Holdfast: an embedded, persistent key-value state
// engine with a layered cache. A service opens it on a directory and trusts it
// with its state.
//
// # Where you are
//
// The top room. It knows when things happen and what was promised; how cells move
// down is compaction's business, and each leaf below (wal, cow, cache, storage,
// mmap) knows one thing and none of the others. Nobody but commands, the fuzzing
// kit and the benchmarks imports it. Start reading at [Open]; a value's way is
// [Engine.Put] (batch.go, commit.go), the flusher (flush.go), [Engine.Get]
// (read.go) and recovery (open.go). What a store does, and why a read got what it got, is
// told by [Engine.Metrics] and [Engine.Inspect].
//
// # Always true
//
// The invariants I1 to I12 are listed in docs/ARCHITECTURE.md and cited where they
// are kept. What a caller sees of them:
//
//   - A write that returned nil is visible to the next read, and survives what
//     [Options].Sync says.
//   - A batch is visible and durable all or nothing.
//   - A [Snapshot], and each [Engine.Scan], shows one moment.
//   - After a failed write or sync of the log nothing more is acknowledged; reads
//     go on ([ErrReadOnly]).
//   - Whatever the disk does, the process lives: errors are returned, and those of
//     the door are listed beside [ErrNotFound].
//
// # On disk
//
//	LOCK    held while the store is open
//	STATE   two slots: identity, and lower bounds of what is durable (wal)
//	log/    segments of the write-ahead log (wal)
//	l3/     sorted cells and the watermark (storage)
//	packs/  large values (mmap)
package engine
