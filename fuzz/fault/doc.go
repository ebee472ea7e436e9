// Package fault lets calls of the file system fail, one after the other, under the
// whole engine: errors, full disks, short transfers, syncs that lose data, delays and
// calls that hang.
//
// # Where you are
//
// A runner of the fuzzing kit, above engine and simfs. [Errors] and [Slow] are the
// runners. workload.go has what a store is put through; world.go looks at every call
// of it; kind.go says what goes wrong; sweep.go lets it go wrong at the nth call and
// judges the disk that is left.
//
// # Always true
//
// Whatever call of the file system fails:
//
//   - F1: every call of the engine returns in time, and none panics or exits.
//   - F2: its error is one of a closed list, has the cause in it, and never calls a
//     healthy byte corrupt.
//   - F3: what was acknowledged is readable, also after the engine has become
//     read-only. A read that met the failure gives an error, never a wrong value, and
//     its repetition is right if the failure passed.
//   - F4: a failure that took something back is reported, and then nothing more is
//     acknowledged until a reopen.
//   - F5: a reopen without the failure has an exact prefix of the commits, with
//     everything acknowledged; after a power cut, with everything that was durable.
//     It passes Check, and no file is left that the formats do not know.
package fault
