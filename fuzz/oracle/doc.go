// Package oracle decides what a store may answer: after a crash, beside damage,
// under concurrency, when calls fail. It knows a store only as a [Store], and may be
// used to test any.
//
// # Where you are
//
// A leaf of the fuzzing kit that imports nothing of ours. A runner keeps a record of
// what was asked and acknowledged ([History], [Versions], [Model]) and lets the rule
// that fits decide; the decision is nil or a [*Verdict].
//
// # The rules
//
//   - O1 [Lost]: what was acknowledged as durable comes back.
//   - O2 [Hole]: what comes back is the state after some prefix of the commits.
//   - O3 [Torn]: a batch comes back whole or not at all.
//   - O4 [Resurrected]: what was deleted stays deleted.
//   - O5 [Unstable]: opening again shows the same, and never less than was shown.
//   - O6 [Lied]: beside damage an answer is right, or an error of a known type.
//   - O7 [NotLinear]: there is one order of all calls that explains all answers; [Linear]
//     asks porcupine for it.
//   - O8 [Moved]: a snapshot never changes.
//   - O9 [Stale]: no read is older than a write acknowledged, or a read returned,
//     before it began.
//   - O10 [Leaked]: goroutines, file descriptors, mappings and files go back to where
//     they were.
//   - O11 [Stuck]: every call returns within a bound.
//   - O12 [Hushed]: a failure that mattered is reported by some call.
//
// # Always true
//
//   - A verdict is one line and names the rule, the key, the commit number and the
//     seed, as far as there are any.
//   - A rule that cannot tell says nothing: there are no false alarms to get used to.
package oracle
