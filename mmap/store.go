package mmap

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/yield"
)

// Options of a store. FS and Dir are needed; zero is right for the rest.
type Options struct {
	// Identity. Packs of another UUID are refused.

	FS         vfs.FS
	Dir        string // the folder of the packs; made if it is not there
	UUID       [16]byte
	OwnerEpoch uint64 // written into each pack made in this open
	// NextPack is the first number that may be used. The store uses a higher
	// one if it finds higher ones on disk.
	NextPack uint64
	ReadOnly bool

	// Speed and size. These change no result.

	// NoMap reads through pread alone.
	NoMap bool
	// MaxMappedBytes bounds how much of the mapped values is resident, counted
	// in the frames that were touched since their pages were last given back.
	// Larger means fewer page faults. Zero is 256 MiB. A View or Bytes of more
	// than that maps it all the same while it lasts, for a copy would be worse.
	MaxMappedBytes int64
	// MaxMappings bounds their number; the address space they take together is
	// bounded by 1 TiB. A value that finds no place is read through pread. Zero
	// is 4,096; Linux allows a process 65,530 by default.
	MaxMappings int
	// PackBytes is when the next pack begins. Zero is 256 MiB.
	PackBytes int64
	// SoloBytes is the size from which a value of unknown size gets a pack of its own, and
	// how much of such a pack may lie in the page cache. Larger holds more of each such
	// value in memory. Zero is 8 MiB.
	SoloBytes int64
	// HeldBytes is how much all values of unknown size together may hold in memory. Beyond
	// it one gets a pack of its own before it has SoloBytes. Zero is 8 times SoloBytes.
	HeldBytes int64
	// Compression of what is written from now on.
	Compression Compression
	// FrameBytes is how much of a value is compressed, checked and read as
	// one. Larger compresses better and makes a small ReadAt dearer. Zero is
	// 128 KiB.
	FrameBytes int
	// Logger hears what has no caller to be returned to. Nil is silence.
	Logger *slog.Logger
}

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil || o.Dir == "" {
		return o, errors.New("mmap: Options.FS and Options.Dir are needed")
	}
	if o.MaxMappedBytes < 0 || o.MaxMappings < 0 || o.PackBytes < 0 || o.SoloBytes < 0 || o.HeldBytes < 0 {
		return o, fmt.Errorf("mmap: negative option: MaxMappedBytes %d, MaxMappings %d, PackBytes %d, SoloBytes %d, HeldBytes %d", o.MaxMappedBytes, o.MaxMappings, o.PackBytes, o.SoloBytes, o.HeldBytes)
	}
	if o.MaxMappedBytes == 0 {
		o.MaxMappedBytes = 256 << 20
	}
	if o.MaxMappings == 0 {
		o.MaxMappings = 4096
	}
	if o.PackBytes == 0 {
		o.PackBytes = 256 << 20
	}
	if o.SoloBytes == 0 {
		o.SoloBytes = soloBytes
	}
	if o.HeldBytes == 0 {
		o.HeldBytes = 8 * o.SoloBytes
	}
	if o.FrameBytes == 0 {
		o.FrameBytes = defaultFrameBytes
	}
	if o.FrameBytes < minFrameBytes || o.FrameBytes > maxFrameBytes {
		return o, fmt.Errorf("mmap: FrameBytes %d is not between %d and %d", o.FrameBytes, minFrameBytes, maxFrameBytes)
	}
	if o.NextPack > maxPack {
		return o, fmt.Errorf("mmap: NextPack %d is above %d", o.NextPack, uint64(maxPack))
	}
	if o.Compression > Best {
		return o, fmt.Errorf("mmap: unknown %v", o.Compression)
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// maxPack is the highest number that Open takes. A thousand packs a second come to it in
// a hundred million years, and the numbers made in one open never wrap (M1).
const maxPack = 1 << 62

// Store is a folder of packs. All methods may be called by any number of
// goroutines.
type Store struct {
	o       Options
	log     *slog.Logger
	packs   packs
	windows windows
	stats   stats
	closed  atomic.Bool

	dir       vfs.File // the folder, for its sync; nil if read-only
	hint      uint64   // Options.SoloBytes
	leftovers []string // of copies that broke off; Open's and Renew's alone

	held atomic.Int64 // bytes, by all streams

	// appendMu is held while a blob goes to its pack, and by who ends a pack: one
	// at a time, for as long as a large value takes. It is taken first. Sync does
	// without it, so that a large value holds up no commit of a small one.
	appendMu yield.Mutex

	// syncMu is taken before writeMu. Who holds it syncs for all who wait.
	syncMu yield.Mutex
	synced uint64 // guarded by syncMu: writes below are durable

	writeMu  yield.Mutex          // guards all below
	writes   uint64               // blobs written
	active   *writing             // nil: the next Write begins a pack
	unsynced []*writing           // older packs that Sync still has to see
	next     uint64               // number of the next pack
	poison   error                // M3
	streams  map[*stream]struct{} // values under way; Close ends them
	solos    sync.WaitGroup       // packs of their own that are neither published nor dropped
}

type stats struct {
	raw, compressed       atomic.Uint64
	rawBytes, storedBytes atomic.Uint64
	faults, corrupt       atomic.Uint64
	syncs                 atomic.Uint64
}

// Open lists the packs that are there. It reads none of them and changes
// nothing but that it makes the folder.
func Open(o Options) (*Store, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	if !o.ReadOnly {
		if err := o.FS.MkdirAll(o.Dir, 0o755); err != nil {
			return nil, fmt.Errorf("mmap: make folder: %w", err)
		}
	}
	names, err := o.FS.List(o.Dir)
	if err != nil && !(o.ReadOnly && errors.Is(err, os.ErrNotExist)) { // no folder: no packs

		return nil, fmt.Errorf("mmap: list packs: %w", err)
	}
	s := &Store{o: o, log: o.Logger, next: max(o.NextPack, 1), hint: uint64(o.SoloBytes), streams: make(map[*stream]struct{})}
	s.packs.m = make(map[uint64]*pack)
	s.windows = windows{maxBytes: maxAddress, maxWarm: o.MaxMappedBytes, maxCount: o.MaxMappings, m: make(map[windowKey]*window)}
	if o.NoMap {
		s.windows.maxBytes = 0
	}
	for _, name := range names {
		num, isPack, ok := parseName(name)
		if !ok {
			continue
		}
		if num > maxPack {
			return nil, &CorruptError{File: name, What: "no store of ours comes to this number"}
		}
		s.next = max(s.next, num+1) // M1: leftovers count too
		if isPack {
			s.packs.m[num] = &pack{num: num, name: s.path(num)}
		} else {
			s.leftovers = append(s.leftovers, o.FS.PathJoin(o.Dir, name))
		}
	}
	if !o.ReadOnly {
		if s.dir, err = o.FS.OpenDir(o.Dir); err != nil {
			return nil, fmt.Errorf("mmap: open folder: %w", err)
		}
	}
	return s, nil
}

func (s *Store) path(num uint64) string { return s.o.FS.PathJoin(s.o.Dir, packName(num)) }

// High is the highest number that was ever used, zero if none was.
func (s *Store) High() uint64 {
	s.writeMu.Lock()
	defer s.writeMu.Unlock()
	return s.next - 1
}

// Packs returns the numbers of the packs there are, in no order.
func (s *Store) Packs() []uint64 {
	s.packs.mu.Lock()
	defer s.packs.mu.Unlock()
	out := make([]uint64, 0, len(s.packs.m))
	for num := range s.packs.m {
		out = append(out, num)
	}
	return out
}

// DropMappings unmaps what nobody pins, pages and address space, when the memory
// budget asks for it.
func (s *Store) DropMappings() { s.windows.drop(false) }

// SetMaxMapped changes Options.MaxMappedBytes: pages above a smaller bound are given back
// before it returns, except where Views and Bytes have them.
func (s *Store) SetMaxMapped(n int64) { s.windows.bound(n) }

// Resident is how much of the mapped values is resident, by count.
func (s *Store) Resident() int64 {
	s.windows.mu.Lock()
	defer s.windows.mu.Unlock()
	return s.windows.warm
}

// Held is how many bytes values of unknown size hold in memory now; see Options.HeldBytes.
func (s *Store) Held() int64 { return s.held.Load() }

// Metrics is a moment of the store's counters.
type Metrics struct {
	Packs         int
	OpenPacks     int
	Blobs         uint64 // written in this open
	RawBlobs      uint64
	ZstdBlobs     uint64
	ValueBytes    uint64 // of the values written
	StoredBytes   uint64 // of the blobs they became
	Syncs         uint64
	Mappings      int
	MappedBytes   int64  // address space
	ResidentBytes int64  // of it, by count of the frames touched; what MaxMappedBytes bounds
	GivenBack     uint64 // times that the pages of a mapping were given back
	Pins          int    // mappings in use, counted once for each use
	MappingsMade  uint64
	MappingsGone  uint64
	MapRefused    uint64 // reads that found no place for a mapping
	Faults        uint64 // pages that were gone
	CorruptReads  uint64
	Poisoned      bool
	ActivePack    uint64 // zero: none
	UnsyncedPacks int
}

func (s *Store) Metrics() Metrics {
	m := Metrics{
		RawBlobs: s.stats.raw.Load(), ZstdBlobs: s.stats.compressed.Load(),
		ValueBytes: s.stats.rawBytes.Load(), StoredBytes: s.stats.storedBytes.Load(),
		Syncs:  s.stats.syncs.Load(),
		Faults: s.stats.faults.Load(), CorruptReads: s.stats.corrupt.Load(),
	}
	m.Blobs = m.RawBlobs + m.ZstdBlobs
	s.packs.mu.Lock()
	m.Packs, m.OpenPacks = len(s.packs.m), s.packs.open
	s.packs.mu.Unlock()
	ws := &s.windows
	ws.mu.Lock()
	m.Mappings, m.MappedBytes, m.Pins = ws.count, ws.bytes, ws.pins
	m.ResidentBytes, m.GivenBack = ws.warm, ws.given
	m.MappingsMade, m.MappingsGone, m.MapRefused = ws.made, ws.unmapped, ws.refused
	ws.mu.Unlock()
	s.writeMu.Lock()
	m.Poisoned = s.poison != nil
	m.UnsyncedPacks = len(s.unsynced)
	if s.active != nil {
		m.ActivePack = s.active.pack.num
	}
	s.writeMu.Unlock()
	return m
}

// Close ends writing and opening. It does not wait for readers: pinned
// mappings and their packs go with the last Blob.Close (M7). Blobs that were
// written and not synced may be lost. Writers that are open end, and what they
// wrote is removed. It is idempotent.
func (s *Store) Close() error {
	if s.closed.Swap(true) {
		return nil
	}
	s.windows.drop(true)
	s.writeMu.Lock()
	var streams []*stream
	for t := range s.streams {
		streams = append(streams, t)
	}
	s.writeMu.Unlock()
	for _, t := range streams {
		t.stop(&stopped{ErrClosed})
	}
	for _, t := range streams {
		<-t.ended
	}
	s.solos.Wait()

	s.appendMu.Lock() // a write and a sync under way end first
	defer s.appendMu.Unlock()
	s.syncMu.Lock()
	defer s.syncMu.Unlock()
	s.writeMu.Lock()
	var errs []error
	for _, w := range append(s.unsynced, s.active) {
		if w != nil {
			errs = append(errs, w.file.Close())
		}
	}
	s.unsynced, s.active = nil, nil
	s.writeMu.Unlock()
	if s.dir != nil {
		errs = append(errs, s.dir.Close())
	}

	s.packs.mu.Lock()
	s.packs.closed = true
	var idle []io.Closer
	for _, p := range s.packs.m {
		if p.refs == 0 && p.file != nil {
			idle = append(idle, p.file)
			p.file = nil
			s.packs.open--
		}
	}
	s.packs.mu.Unlock()
	for _, f := range idle {
		errs = append(errs, f.Close())
	}
	return errors.Join(errs...)
}
