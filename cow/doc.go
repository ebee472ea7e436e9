// Package cow keeps the newest cells that storage does not have yet, in sharded
// copy-on-write maps that readers search without a lock.
//
// # Where you are
//
// A leaf: below engine and compaction, beside wal, cache, storage and mmap,
// importing none of them. It does no I/O. Start reading at [Generation.Put] and
// [Generation.Get]; [Clock] decides which number a reader reads at, [Iter] walks
// a generation in key order.
//
// # Always true
//
//   - C1: a version is immutable once it is linked; so is an entry's key. What
//     changes is one atomic pointer per entry (its newest version) and one per
//     shard (its table, which is replaced when it grows).
//   - C2: the chain of an entry is ordered by commit number, newest first.
//   - C3: a version is cut from a chain only below a newer one that is published
//     and at or below every registered number. The end of such a chain says so,
//     and a reader that meets it must load view and number again: it may never
//     fall through to an older room (I1).
//   - C4: a generation that is frozen gets no more cells.
//   - C5: a range tombstone knows every key in its range; at equal commit number
//     a point beats a range (a batch is normalised when it is encoded).
//   - C6: [Generation.Bytes] counts what the generation keeps allocated: slabs,
//     entries, versions, tables, ranges (I10).
//
// # The cell
//
// A value becomes a cell once, when it is placed here. From then on the same
// bytes go to storage and into the caches. Integers are little-endian:
//
//	offset  size  field
//	0       1     kind (low 7 bits), expiry flag (high bit)
//	1       8     revision: commit number of the last write to the key
//	9       8     expiry, milliseconds since 1970; only if the flag is set
//	9 / 17  n     the value, or a reference to a blob; empty for a tombstone
//
// testdata/cell.golden holds one of each; TestCell_golden reads them back.
package cow
