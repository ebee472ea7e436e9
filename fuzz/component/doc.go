// Package component cuts the power under one room alone: the log, or the packs.
// Without the rest of the engine a cut costs some tens of microseconds, so there can
// be very many.
//
// # Where you are
//
// A runner of the fuzzing kit, above wal, mmap and simfs. [Log] and [Packs] are the
// runners; log.go and packs.go live a life in peace and note the disk at every call
// that changes something, logcheck.go and packcheck.go recover each image of each of
// these disks, and some images live on, up to three cuts deep.
//
// # Always true
//
//   - The expectation is exact: after a life is over it is known what every number
//     held, so what an image shows is compared with it, and not only bounded.
//   - A moment is noted in an order that makes no false alarm: what is promised, then
//     the disk, then what had begun.
package component
