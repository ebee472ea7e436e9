package simfs

import (
	"path"
	"time"
)

// Damage says how far the bytes of an unsynced write may be spoilt by a crash.
type Damage uint8

const (
	// DamageBytes spoils only bytes that an unsynced write covers, by zeros or
	// garbage. It is what databases call a powersafe overwrite.
	DamageBytes Damage = iota
	// DamageNone leaves old bytes, new bytes, or zeros where the write was.
	DamageNone
	// DamageSector spoils every 512-byte sector that an unsynced write touches,
	// neighbours that were synced included.
	DamageSector
	// DamagePage spoils with garbage the whole 4 KiB page that an unsynced write
	// touches.
	DamagePage
)

// Options of an FS. Zero is a careful POSIX disk without limits.
type Options struct {
	// What a sync is worth. Changing these changes what may be left after a crash.

	// Ext4Like makes Sync of a file keep its names and the directories above it,
	// SyncData the name it was created with, and Sync of a directory its own name.
	// Zero: names are kept by a sync of their directory and by nothing else.
	Ext4Like bool

	// PessimisticRename lets a crash lose both names of a rename from one directory
	// to another. Zero: at least one is there.
	PessimisticRename bool

	// Damage of unsynced writes. Zero is DamageBytes.
	Damage Damage

	// Limits. What goes beyond fails with ENOSPC, or EMFILE for MaxOpen.

	// Capacity in bytes: the lengths of all files, preallocated space included.
	// Holes count. Zero is no limit, and GetDiskUsage then speaks of 1 PiB.
	Capacity int64

	// Inodes is how many files and directories there may be. Zero is no limit.
	Inodes int

	// MaxOpen is how many handles there may be. Zero is no limit.
	MaxOpen int

	// Tools. Changing these changes no state of the disk. Now and Class are called
	// under the lock and must not use the FS; Sleep may.

	// Seed of faults with a probability.
	Seed uint64

	// Sleep is how a fault's delay passes. Zero is time.Sleep.
	Sleep func(time.Duration)

	// Now stamps files. Zero is a clock that counts changes, the same in every run.
	Now func() time.Time

	// TraceLen is how many calls Trace remembers. Zero is 256.
	TraceLen int

	// Class sorts paths for Coverage. Zero keeps the base name with each run of
	// digits replaced by '#': 000012.log becomes #.log.
	Class func(path string) string
}

const unlimitedBytes = 1 << 50

func (o *Options) withDefaults() Options {
	var out Options
	if o != nil {
		out = *o
	}
	if out.Sleep == nil {
		out.Sleep = time.Sleep
	}
	if out.TraceLen <= 0 {
		out.TraceLen = 256
	}
	if out.Class == nil {
		out.Class = digitClass
	}
	return out
}

func digitClass(name string) string {
	var out []byte
	for _, c := range []byte(path.Base(name)) {
		if c >= '0' && c <= '9' {
			if n := len(out); n > 0 && out[n-1] == '#' {
				continue
			}
			c = '#'
		}
		out = append(out, c)
	}
	return string(out)
}
