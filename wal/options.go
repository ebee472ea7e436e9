package wal

import (
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/yield"
)

// Policy says which failures an acknowledged batch survives.
type Policy uint8

const (
	// Always syncs before it acknowledges: process, kernel and power.
	Always Policy = iota
	// Interval acknowledges after the write: a kill of the process; a power
	// cut may take the last Interval.
	Interval
	// Never acknowledges from memory: a kill may take 256 KiB or 5 ms.
	Never
)

// Mode says what recovery does with damage.
type Mode uint8

const (
	// Strict cuts what was never promised and refuses everything else.
	Strict Mode = iota
	// Absolute refuses a torn tail, too.
	Absolute
	// PointInTime cuts at the first problem, promised or not, and says what it cost.
	PointInTime
	// Salvage skips what it cannot read; its result is read-only.
	Salvage
)

// Hooks are the calls the log makes to its owner. Unless said otherwise they
// are called with the commit lock held, one at a time, in commit-number order.
// A hook must not call Commit, Barrier, Sync or Close.
type Hooks struct {
	// BeforeSync runs before each sync of the log and makes durable what its
	// records name (I3). An error poisons the log like a failed sync. The
	// background and WaitDurable call it without the commit lock.
	BeforeSync func() error
	// Place takes one batch into memory, after its write and, under Always, after or
	// beside its sync: if that fails, Publish is never called for it, nor for any later
	// one. A batch with an arg is placed only when its group is committed. The
	// payload is valid only during the call.
	Place func(lsn uint64, payload []byte, ops uint32, arg any)
	// Publish makes everything at or below lsn visible.
	Publish func(lsn uint64)
	// Between runs after Publish: every cell at or below last is placed and
	// published, and nothing above is. The owner may rotate generations here.
	Between func(last uint64)
}

// Options of Recover. The zero value of each field but FS and Dir is production.
type Options struct {
	// FS holds the files. Required.
	FS vfs.FS
	// Dir is the store's root: Dir/STATE and Dir/log. Required.
	Dir string

	// Promises. Changing these changes what survives a crash.

	// Policy says when a batch is acknowledged. Zero is Always.
	Policy Policy
	// Interval is the longest time that a batch stays unsynced under the
	// Interval policy. Zero is 100 ms.
	Interval time.Duration
	// ReadOnly recovers without one mutating file operation; Start is refused.
	ReadOnly bool
	// Mode says what to do with damage. Zero is Strict.
	Mode Mode

	// Speed. Changing these changes no result.

	// SegmentBytes fixes the size of a segment, at least 16 KiB. Larger means
	// fewer rotations and coarser recycling. Zero starts at 1 MiB and doubles
	// with the load to 64 MiB.
	SegmentBytes int64
	// MaxGroupBytes bounds one group (I10). Larger means fewer writes and more
	// memory. Zero is 4 MiB.
	MaxGroupBytes int

	// Seams.

	// Hooks are the owner's half of a commit.
	Hooks Hooks
	// Logger tells what recovery cut and what the background met. Nil discards.
	Logger *slog.Logger

	lease uint64        // commit numbers leased at a time; zero is 1<<20
	salt  func() uint64 // nil draws from yield.Random
}

const (
	minSegmentBytes   = 16 << 10
	firstSegmentBytes = 1 << 20
	lastSegmentBytes  = 64 << 20
	maxSegmentBytes   = 1 << 30
	maxBatchBytes     = 1 << 29

	defaultInterval   = 100 * time.Millisecond
	defaultGroupBytes = 4 << 20
	defaultLease      = 1 << 20
)

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil {
		return o, errors.New("wal: Options.FS is nil")
	}
	if o.Dir == "" {
		return o, errors.New("wal: Options.Dir is empty")
	}
	if o.Policy > Never {
		return o, fmt.Errorf("wal: Options.Policy %d is unknown", o.Policy)
	}
	if o.Mode > Salvage {
		return o, fmt.Errorf("wal: Options.Mode %d is unknown", o.Mode)
	}
	if o.SegmentBytes != 0 && (o.SegmentBytes < minSegmentBytes || o.SegmentBytes > maxSegmentBytes) {
		return o, fmt.Errorf("wal: Options.SegmentBytes %d is outside %d..%d", o.SegmentBytes, minSegmentBytes, maxSegmentBytes)
	}
	o.SegmentBytes &^= pageBytes - 1 // whole pages
	if o.MaxGroupBytes < 0 || o.Interval < 0 {
		return o, errors.New("wal: a negative Options field")
	}
	if o.MaxGroupBytes == 0 {
		o.MaxGroupBytes = defaultGroupBytes
	}
	o.MaxGroupBytes = max(o.MaxGroupBytes, 1<<10)
	if o.Interval == 0 {
		o.Interval = defaultInterval
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	if o.lease == 0 {
		o.lease = defaultLease
	}
	if o.salt == nil {
		o.salt = randomSalt
	}
	return o, nil
}

// targetBytes is the size of the first segment of an open.
func (o *Options) targetBytes() int64 {
	if o.SegmentBytes != 0 {
		return o.SegmentBytes
	}
	return firstSegmentBytes
}

// groupCap bounds the payload of one frame so that it fits into any segment of
// a fixed size; adaptive segments are made large enough when they are made.
func (o *Options) groupCap() int {
	size := o.SegmentBytes
	if size == 0 {
		size = lastSegmentBytes
	}
	return min(o.MaxGroupBytes, int(segmentRoom(size))-frameHeaderBytes) &^ 7
}

func randomSalt() uint64 {
	var b [8]byte
	for {
		yield.Random(b[:])
		if s := binary.LittleEndian.Uint64(b[:]); s != 0 {
			return s
		}
	}
}
