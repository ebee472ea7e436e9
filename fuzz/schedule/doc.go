// Package schedule chooses the order in which goroutines run, from a seed, and
// looks for one that breaks the engine.
//
// # Where you are
//
// Part of the fuzzing kit; it needs a build with -tags schedule, which gives package
// yield its hook. [Runners] are rows of "holdfast torture": [Runner] plays scripts of
// its own, [CrashRunner] and [EveryCutRunner] the power cuts of package fuzz, [Hosted]
// any other runner on a simulated disk. Start reading at [Play].
//
// # How it works
//
// One goroutine runs at a time. Each stops at every named point of the rooms and at
// every call that changes the file system; when nobody can run, the scheduler picks
// who goes on: at random, or by priorities that change at few places, which finds
// orders that need one goroutine to be very late (Burckhardt and others, ASPLOS 2010).
// Time is the scheduler's too: timers fire when nobody is stopped at a point, or now
// and then before. So is chance: the identity of a store and the salts of its log.
//
// # Always true
//
//   - P1: the same script or case and seed make the same calls on simulated disks in
//     the same order: kind, path, offset, length, outcome, and bytes.
//     TestUnder_bitForBit hashes them, and the last disk, twice.
//   - P2: if nobody can go on and no timer is left, that is a verdict, with all stacks.
//   - P3: a failing script is made as short as removing steps can make it, a failing
//     case of power cuts as small as ten seconds allow: rounds, cuts inside recovery,
//     writers, commits, then the place of the cut. What [Hosted] runs is not made
//     smaller: its seed is its replay.
//
// # What a seed does not fix
//
//   - Pebble's manifests agree call for call and in length, not in bytes: it stamps
//     each table with the wall clock's second, and an edit lists deleted tables in the
//     order of a Go map, which the runtime draws.
//   - Of several tables that became obsolete together, which is removed first, for the
//     same reason. An end between two such removals may leave another of them behind;
//     the next open removes it.
//   - Locks and selects inside Pebble are the runtime's: a lock goes to another waiter
//     once one has waited for a millisecond, of several channels that are ready a
//     select takes any. Our own locks that are held at a point are [yield.Mutex], and
//     our own loops ask for the end first. A machine that stops a goroutine for ten
//     milliseconds between two points may still change who comes first.
package schedule
