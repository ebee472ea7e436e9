// Package machine hurts the engine with what a real machine does: SIGKILL at any
// moment and at any system call, a power cut of a real file system, calls that fail,
// disks that fill up, limits of a process.
//
// # Where you are
//
// Part of the fuzzing kit, beside simfs, which does with less cost and more cunning
// what is done here without a model in between. A runner starts a process that calls
// [Child] with a [Job], and keeps a ledger of what that process was promised by the
// store. Start reading at [Kills].
//
// # Always true
//
//   - M1: what a lane writes follows from the job's seed, the life and the number of
//     the commit, so the parent knows it without being told.
//   - M2: a report is one write to a pipe. "begin" is written before the commit and
//     "ack" after it, so what the parent has read is what may be there and what must.
//   - M3: whatever happens, mounts, processes and directories are gone when a case
//     returns.
package machine
