// Package fuzz proves the engine against a model: random operations, crashes at
// any call of the file system, and the oracles that decide what may come back.
//
// # Where you are
//
// A user of engine; of the rooms only cmd/holdfast imports it, for "holdfast torture".
// [Run] drives operations from a seed or from a fuzzer's bytes and compares every
// answer with a model; [Crash] cuts the power under concurrent writers, inside recovery
// too, and [EveryCut] at each call. Beside it stand, each with a page of its own:
//
//	simfs      a disk that loses power on demand
//	oracle     the rules O1 to O12; a verdict is one line
//	runner     what all runners have in common, and the loop that shares the time
//	component  power cuts of the log and of the packs alone
//	machine    kills, system calls, ext4, full disks, limits: no simulation
//	fault      an error, a delay or a stall at the nth call
//	damage     bytes, lengths and files, at rest, while open, under mappings
//	schedule   orders of goroutines and time, made from a seed
//	live       linearizability, snapshots, cache coherence, the bank
//	torture    the list of all runners
//	seeded     known bugs: each must be caught
//	sites      where wal/ looks at an error, and whether a test got there
//
// # Always true
//
//   - F1: a failure names the seed, the step, the key and the commit number. The
//     same seed makes the same operations.
//   - F2: the oracle of a crash is exact: what comes back is the state after some
//     prefix of the commits, no shorter than what was acknowledged as durable, and
//     without a hole.
package fuzz
