// Package cache answers reads of cells that the storage below already has,
// from memory, and never answers with a cell older than the reader may see.
//
// # Where you are
//
// A leaf: below engine, beside cow, wal, storage and mmap, importing none of
// them. A cell is bytes; what to load and from where is a function handed to
// [Cache.Load]. Two tiers: L1 (ristretto, whole cells by pointer, admission
// by frequency) and L2 (bigcache, first in first out, cells compressed where
// that pays). What enters L2 is a [Policy], which asks how often a key was
// used; how it is held is a [Codec]. [Cache.Resize] moves memory between the
// tiers while they work; the ghosts in [Metrics] say which of them would use
// more. Start reading at [Cache.Get] and [Cache.Load]; the rule that makes them
// honest is [Horizon.Fresh].
//
// # The stamp rule
//
// Every entry carries a stamp: the seq of the view whose generations were
// searched before the cell was loaded. When a generation goes down to storage,
// the view's seq rises by one and the generation leaves a [Record] of its
// keys. An entry stamped s shows storage at least as new as everything dropped
// up to s; what was dropped later and touches the key is in a record; what was
// not dropped yet is in the map, which is searched first. So an entry may be
// used exactly when no record after its stamp covers the key.
//
// # Always true
//
//   - C1: an entry, or a load in flight, is used only if [Horizon.Fresh] says
//     so for the horizon of the view the reader searched (keeps I1).
//   - C2: a loaded cell is stamped with the seq of the view that was used for
//     the look-up in the map, never a newer one.
//   - C3: a stamp travels with its cell between the tiers; it is raised only
//     by a reader whose horizon just found the cell fresh, and never lowered.
//   - C4: nothing here depends on what ristretto or bigcache keep, lose, delay
//     or reorder: each of these costs a miss.
//   - C5: a key is compared in full on every hit; a hash collision is a miss.
//   - C6: a cell is immutable from the moment it enters. What L2 compressed
//     decodes to it, or is a miss: a dictionary's number is never used twice.
//   - C7: every queue is bounded in entries and in bytes, and a full one drops
//     (I10). Callbacks of the libraries never block.
//   - C8: our goroutines, the drain and at times one training, end before Close
//     returns (I11).
//   - C9: sizes are gated before the libraries see them; a panic of bigcache
//     turns L2 off, one of a decoder is a miss, and none is passed on (I12).
//
// TestRule_search walks every interleaving of a small store and finds a stale
// read as soon as C1 or C2 is weakened; TestCache_stress does the same with
// chance over the real libraries. Both are needed: some weakenings survive
// millions of random reads.
package cache
