// Package fuzz proves the engine against a model: random operations, crashes at
// any call of the file system, and the oracles that decide what may come back.
//
// # Where you are
//
// A user of engine; nobody imports it. [Run] drives operations from a seed or from
// a fuzzer's bytes and compares every answer with a [Model]; [Crash] cuts the power
// under concurrent writers, inside recovery too, and checks what is left.
//
// # Always true
//
//   - F1: a failure names the seed, the step, the key and the commit number. The
//     same seed makes the same operations.
//   - F2: the oracle of a crash is exact: what comes back is the state after some
//     prefix of the commits, no shorter than what was acknowledged as durable, and
//     without a hole.
package fuzz
