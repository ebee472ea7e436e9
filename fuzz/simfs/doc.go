// Package simfs is a disk that loses power on demand: a file system in memory, behind
// Pebble's vfs.FS, that knows for every byte and every name whether a crash may take
// it, and hands out the disks that a crash may leave.
//
// # Where you are
//
// A leaf of fuzz that imports nothing of ours; run your own code on it. Start at
// [New] and [FS.Crash]; [FS.OnMutation] cuts the power at any call, [FS.Inject] makes
// calls fail, [Watch] sees every call of every disk. The state of a disk at a cut is a [Cut]; [Cut.Legal] tells whether a
// tree, read from a real disk perhaps, is one that the model allows.
//
//	fs := simfs.New(nil)
//	... open your store on fs, write, note what was acknowledged ...
//	for cfg, disk := range fs.CrashImages(seed, 100) {
//		... open your store on disk; all that was acknowledged must be there ...
//	}
//
// An FS satisfies vfs.FS as it is: give it to Pebble in Options.FS.
//
// # What a crash may do
//
//   - Bytes. A write that no sync has covered falls into sectors of 512 bytes. Each
//     comes back as before, as one of the writes to it left it (in order), as zeros,
//     or as garbage. How far zeros and garbage reach is [Damage].
//   - Lengths go their own way: one that came before its bytes gives zeros, bytes
//     without their length are gone. A length may stop at the end of a sector on its
//     way. A preallocated range has zeros, never garbage.
//   - Names. Create, rename, link, unlink and mkdir are changes of a directory and
//     wait for a sync of it, each by itself. One name goes through its meanings in
//     order. A rename leaves the old name, the new one, or both; never neither,
//     unless [Options].PessimisticRename. A directory is in one place. What is in a
//     lost directory is lost.
//   - A sync of a file keeps its bytes and length but not its name, unless
//     [Options].Ext4Like. It covers what was written before it began. SyncTo keeps
//     nothing.
//   - A sync that fails by a [Rule] has lost what it should have kept: readers still
//     see it, the next sync succeeds, and it never was on the disk. Other outcomes
//     are [Effect]s.
//
// # Always true
//
//   - S1: what was synced, bytes and names, and not changed since, is in every image.
//     DamageSector and DamagePage bend this, on purpose, for bytes beside a write.
//   - S2: an image holds no byte that the rules above do not explain: Legal accepts
//     every image.
//   - S3: the same calls with the same seeds give the same errors and the same
//     images, bit for bit.
//   - S4: an image is synced whole and shares nothing with the disk it came from that
//     either could change.
//   - S5: no goroutine is started, and no lock is held while a hook, a sleep or a
//     stall runs.
//   - S6: with Ext4Like, every state that a real ext4 leaves after a power cut is
//     legal. TestExt4_legal cuts real ones.
//
// # What it is not
//
// It has one device, no permissions, no symbolic links, no mmap, and no time stamps
// that mean anything. Names compare byte by byte; "." and ".." are taken out of a path
// before it is looked up. Holes count as space. A RemoveAll or a MkdirAll is one
// mutating call for hooks and faults, though a crash may leave any part of it.
package simfs
