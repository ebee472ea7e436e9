// Package runner is what all runners of the fuzzing kit have in common: a case made
// from a seed, counts of what it did, and a loop that gives each runner its share of
// the time.
//
// # Where you are
//
// A leaf of the fuzzing kit, with nothing of ours below it but the oracle. [Loop] is behind
// "holdfast torture"; tests use [Seeds].
package runner
