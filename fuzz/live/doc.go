// Package live hurts a store with many hands at once: clients, writers, snapshots,
// flushes and compactions that meet in every order, while the oracles look on.
//
// # Where you are
//
// Part of the fuzzing kit, beside the power cuts of package fuzz. Each runner is a
// value that a constructor returns: [Linear] (O7), [Snapshots] (O8), [Coherence] and
// [Room] (O9), [Bank] and [BankCuts] (O1 to O3). Tests run some of their cases,
// "holdfast torture" as many as there is time for. Start reading at [Linear]; what
// all have in common is in hands.go and world.go. With -tags schedule [Unsettle] makes
// the engine's own goroutines dawdle where their order matters.
//
// # Always true
//
//   - A case chooses its disk, its options and every hand's operations from its seed.
//     Which hand comes first is the scheduler's affair: a seed that found something
//     finds it again in some of its runs, not in each.
//   - Every hand of a case has ended when the case returns.
//   - A case that is told to stop is no broken promise: what was seen until then is
//     still checked where that makes sense, and counted.
package live
