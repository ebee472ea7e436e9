package engine

import (
	"errors"
	"fmt"
	"log/slog"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/wal"
)

// SyncPolicy says which failures an acknowledged write survives.
type SyncPolicy uint8

const (
	// SyncAlways: the process, the kernel and the power.
	SyncAlways SyncPolicy = iota
	// SyncInterval: a kill of the process; a power cut may take back what was
	// acknowledged in the last [Options.SyncEvery].
	SyncInterval
	// SyncNever: as SyncInterval, but a kill of the process may also take back
	// what is still in the log's buffer, at most 256 KiB or 5 ms, and a power cut
	// everything since the last flush, Sync or WaitDurable.
	SyncNever
)

// RecoveryMode says what Open does with a log that is damaged. A torn tail, which
// any crash may leave, is cut in every mode but RecoverAbsolute.
type RecoveryMode uint8

const (
	// RecoverStrict refuses to open when anything was lost that had been promised.
	RecoverStrict RecoveryMode = iota
	// RecoverAbsolute refuses any imperfect tail, a torn one too.
	RecoverAbsolute
	// RecoverPointInTime cuts at the first problem, even if more was promised, and
	// reports the loss in [Engine.Recovered].
	RecoverPointInTime
	// RecoverSalvage skips what is damaged. It needs ReadOnly.
	RecoverSalvage
)

// Compression says how large values are stored.
type Compression uint8

const (
	// CompressAuto samples each value and stores raw what does not compress.
	CompressAuto Compression = iota
	// CompressNone stores every large value raw, so that View never copies.
	CompressNone
	// CompressFast prefers speed over size.
	CompressFast
	// CompressBest prefers size over speed.
	CompressBest
)

// Options configure an engine. The zero Options, or nil, are production
// defaults. Open copies them; the caller's struct is never written.
type Options struct {
	// Promises. Changing these changes what survives, and who may write.

	// Sync says which failures an acknowledged write survives. Zero is SyncAlways.
	Sync SyncPolicy
	// SyncEvery is the interval of SyncInterval. Zero is 100 ms.
	SyncEvery time.Duration
	// ReadOnly opens an existing store without changing one byte of it.
	ReadOnly bool
	// MustExist refuses to make a new store where there is none.
	MustExist bool
	// Recovery says what to do with a damaged log. Zero is RecoverStrict.
	Recovery RecoveryMode

	// Budgets.

	// MemoryBudget is the memory for everything, in bytes: generations, caches,
	// storage's block cache, mapped values. Zero is 256 MiB, the least 16 MiB. While
	// more is resident in the process, what its allocators keep unused goes back to the
	// kernel; where most of the heap is the store's, that takes turns of the collector,
	// for a tenth of the time at most.
	MemoryBudget int64
	// MaxBatch bounds one batch, in bytes; large values count as references.
	// Zero is an eighth of MemoryBudget.
	MaxBatch int64
	// DiskReserve is the free space, in bytes, below which puts get ErrDiskFull
	// while deletes and flushes go on. It should hold a flush and a log segment;
	// zero is a quarter of MemoryBudget, negative turns it off. Large values look
	// at the disk each time, small ones see a change within a second.
	DiskReserve int64
	// SpaceAmp is how much disk large values may take, as a multiple of the bytes
	// that keys still name, before packs are rewritten without their garbage. Less
	// means less disk and more writing. Zero is 1.3, the least 1.05. Garbage
	// of less than four times LargeValue is let be.
	SpaceAmp float64
	// StallLimit is how long a write may wait for a flush, and a large value for the
	// space of dead ones to be given back, before it gets ErrBusy.
	// Zero is 30 s.
	StallLimit time.Duration

	// Speed. Changing these changes no result.

	// LargeValue is the size in bytes from which a value goes to a pack file.
	// Smaller means smaller flushes and more files; zero is 64 KiB, the least
	// 4 KiB.
	LargeValue int
	// Compression of large values. Zero is CompressAuto.
	Compression Compression
	// TuneGC lets the store set the collector of the whole process, so that the heap
	// stays inside MemoryBudget: its percent between 25 and 100, lower while the collector
	// takes under a twentieth of the CPU time, and its memory limit, both put back by
	// Close. The caches have what that spares. Off by default, because the host's own heap
	// feels it. Of several stores in a process the first has it.
	TuneGC bool
	// NoMap reads large values by copy and never through a mapping.
	NoMap bool
	// NoL2 gives L2's memory to L1. By itself L2 leaves where values do not compress, or
	// where it answers too little.
	NoL2 bool
	// SegmentBytes fixes the size of a log segment. Zero lets it grow with the
	// load from 1 MiB to 64 MiB; the least is 16 KiB, the most 1 GiB.
	SegmentBytes int64

	// Seams.

	// FS is the file system. Nil is the operating system's.
	FS vfs.FS
	// Logger gets what an operator should know. Nil discards.
	Logger *slog.Logger

	// The borders of packs, which tests lower. Zero is what mmap takes.
	packBytes, soloBytes int64
}

// ErrOptions reports options that contradict each other or are out of range.
var ErrOptions = errors.New("holdfast: bad options")

const (
	minBudget       = 16 << 20
	defaultBudget   = 256 << 20
	minLargeValue   = 4 << 10
	minSegmentBytes = 16 << 10
	maxSegmentBytes = 1 << 30
)

func (o *Options) withDefaults() (Options, error) {
	var c Options
	if o != nil {
		c = *o
	}
	if c.MemoryBudget == 0 {
		c.MemoryBudget = defaultBudget
	}
	if c.MaxBatch == 0 {
		c.MaxBatch = c.MemoryBudget / 8
	}
	if c.DiskReserve == 0 {
		c.DiskReserve = c.MemoryBudget / 4
	}
	if c.StallLimit == 0 {
		c.StallLimit = 30 * time.Second
	}
	if c.SpaceAmp == 0 {
		c.SpaceAmp = 1.3
	}
	if c.LargeValue == 0 {
		c.LargeValue = 64 << 10
	}
	if c.SyncEvery == 0 {
		c.SyncEvery = 100 * time.Millisecond
	}
	if c.FS == nil {
		c.FS = vfs.Default
	}
	if c.Logger == nil {
		c.Logger = slog.New(slog.DiscardHandler)
	}
	bad := func(field, why string, v any) error {
		return fmt.Errorf("%w: %s is %v: %s", ErrOptions, field, v, why)
	}
	switch {
	case c.Sync > SyncNever:
		return c, bad("Sync", "no such policy", c.Sync)
	case c.Recovery > RecoverSalvage:
		return c, bad("Recovery", "no such mode", c.Recovery)
	case c.Compression > CompressBest:
		return c, bad("Compression", "no such setting", c.Compression)
	case c.SyncEvery < 0:
		return c, bad("SyncEvery", "negative", c.SyncEvery)
	case c.MemoryBudget < minBudget:
		return c, bad("MemoryBudget", "at least 16 MiB", c.MemoryBudget)
	case c.MaxBatch < 0 || c.MaxBatch > c.MemoryBudget/2:
		return c, bad("MaxBatch", "between zero and half of MemoryBudget", c.MaxBatch)
	case !(c.SpaceAmp >= 1.05): // NaN, too
		return c, bad("SpaceAmp", "at least 1.05", c.SpaceAmp)
	case c.StallLimit < 0:
		return c, bad("StallLimit", "negative", c.StallLimit)
	case c.LargeValue < minLargeValue:
		return c, bad("LargeValue", "at least 4 KiB", c.LargeValue)
	case c.SegmentBytes != 0 && (c.SegmentBytes < minSegmentBytes || c.SegmentBytes > maxSegmentBytes):
		return c, bad("SegmentBytes", "between 16 KiB and 1 GiB", c.SegmentBytes)
	case c.Recovery == RecoverSalvage && !c.ReadOnly:
		return c, bad("Recovery", "salvage reads only: set ReadOnly", "RecoverSalvage")
	}
	return c, nil
}

// shares is how the one memory number is divided at first; the governor moves them. The Go heap may stand at twice
// what is live in it before the collector catches up, so what lives there
// (generations, L1, L2, records, filter) gets less than half of the budget.
type shares struct {
	generation int64 // bytes of one generation; two may exist
	frozen     int   // how many may wait for their flush
	pinned     int64 // dropped generations that snapshots may keep
	l1, l2     int64
	blocks     int64 // storage's block cache
	records    int64
	known      int64
	mapped     int64
	log        int64 // live bytes of the log, which bounds the time of a recovery
}

func (o *Options) shares() shares {
	s := sharesOf(o.MemoryBudget, o.SegmentBytes)
	if o.NoL2 {
		s.l1, s.l2 = s.l1+s.l2, 0
	}
	return s
}

// processBytes is taken off for what is resident whatever the budget and counts in no
// tier: the binary, the runtime, and what C's allocator does not give back. That is some
// 50 MiB, measured; the rest of it is what the store may take beyond its budget.
const processBytes = 24 << 20

func sharesOf(budget, segmentBytes int64) shares {
	b := budget - min(processBytes, max(budget-minBudget, 0)/2)
	return shares{
		generation: b / 8,
		frozen:     1,
		// A snapshot pins at most the generations of its view, so one of them, or
		// one scan under load, always fits.
		pinned:  b / 8 * 5 / 2,
		l1:      b / 12,
		l2:      b / 12,
		blocks:  b / 12,
		records: b / 64,
		known:   b / 64,
		mapped:  b / 8,
		log:     max(budget, 64<<20, 4*segmentBytes),
	}
}

// leastHeld is what values that stream in may hold at least: one of them always fits.
const leastHeld = 8 << 20

// groupBytes bounds a group of commits. Up to five of them hold memory: one that forms, one
// that is written, spares.
func groupBytes(budget int64) int { return int(min(max(budget/64, 256<<10), 4<<20)) }

func (p SyncPolicy) wal() wal.Policy {
	switch p {
	case SyncInterval:
		return wal.Interval
	case SyncNever:
		return wal.Never
	}
	return wal.Always
}

func (m RecoveryMode) wal() wal.Mode {
	switch m {
	case RecoverAbsolute:
		return wal.Absolute
	case RecoverPointInTime:
		return wal.PointInTime
	case RecoverSalvage:
		return wal.Salvage
	}
	return wal.Strict
}

func (c Compression) mmap() mmap.Compression {
	switch c {
	case CompressNone:
		return mmap.None
	case CompressFast:
		return mmap.Fast
	case CompressBest:
		return mmap.Best
	}
	return mmap.Auto
}
