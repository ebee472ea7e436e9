// Package schedule chooses the order in which goroutines run, from a seed, and
// looks for one that breaks the engine.
//
// # Where you are
//
// Part of the fuzzing kit; it needs a build with -tags schedule, which gives package
// yield its hook. [Runner] is a row of "holdfast torture"; start reading at [Play].
//
// # How it works
//
// One goroutine runs at a time. Each stops at every named point of the rooms and at
// every call that changes the file system; when nobody can run, the scheduler picks
// who goes on: at random, or by priorities that change at few places, which finds
// orders that need one goroutine to be very late (Burckhardt and others, ASPLOS 2010).
// Time is the scheduler's too: timers fire when nobody is stopped at a point, or now
// and then before.
//
// # Always true
//
//   - P1: the same script and seed make the same calls in the same order. Values that
//     are random in the product on purpose (identities, salts) differ.
//   - P2: if nobody can go on and no timer is left, that is a verdict, with all stacks.
//   - P3: a failing script is made as short as removing steps can make it.
package schedule
