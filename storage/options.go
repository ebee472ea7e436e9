package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/bloom"
	"github.com/cockroachdb/pebble/v2/sstable"
	"github.com/cockroachdb/pebble/v2/vfs"
)

// Options says where L3 lies and how much it may use.
type Options struct {
	// Promises.

	// FS holds the store. Nil is the operating system's.
	FS vfs.FS
	// Dir is the folder of L3. Tables being built lie in Dir+"-staging", on
	// the same file system, which is emptied at open. Required.
	Dir string
	// ReadOnly opens without writing one byte.
	ReadOnly bool
	// Hold keeps tables and manifests that Pebble finds obsolete, and compacts nothing,
	// until [Store.Release]: the owner says first that L3 is as new as it should be.
	Hold bool
	// Create allows a new L3 to be made. Without it a missing one is an
	// os.ErrNotExist.
	Create bool

	// Speed and size.

	// IngestBytes is about what one ingest brings at most; levels are sized by it. Zero
	// is 32 MiB.
	IngestBytes int64
	// CacheBytes is the block cache. Zero is 8 MiB.
	CacheBytes int64
	// MaxOpenFiles bounds open tables. Those that go may be open for a moment longer: up
	// to a hundred for each processor wait to be closed. Zero is 1000.
	MaxOpenFiles int
	// Logger hears what Pebble says. Nil discards.
	Logger *slog.Logger
}

const (
	defaultIngestBytes  = 32 << 20
	defaultCacheBytes   = 8 << 20
	defaultMaxOpenFiles = 1000
	// Pebble keeps a few files besides the tables and refuses to live with
	// fewer; more than this serves nobody and is most likely a unit mistake.
	maxMaxOpenFiles = 1 << 20
)

func (o Options) withDefaults() (Options, error) {
	if o.FS == nil {
		o.FS = vfs.Default
	}
	if o.Dir == "" {
		return o, errors.New("storage: Options.Dir is empty")
	}
	if o.ReadOnly && o.Create {
		return o, errors.New("storage: Options.ReadOnly contradicts Options.Create")
	}
	if o.IngestBytes < 0 || o.CacheBytes < 0 {
		return o, fmt.Errorf("storage: Options.IngestBytes is %d, Options.CacheBytes is %d", o.IngestBytes, o.CacheBytes)
	}
	if o.IngestBytes == 0 {
		o.IngestBytes = defaultIngestBytes
	}
	if o.CacheBytes == 0 {
		o.CacheBytes = defaultCacheBytes
	}
	if o.MaxOpenFiles < 0 || o.MaxOpenFiles > maxMaxOpenFiles {
		return o, fmt.Errorf("storage: Options.MaxOpenFiles is %d, at most %d", o.MaxOpenFiles, maxMaxOpenFiles)
	}
	if o.MaxOpenFiles == 0 {
		o.MaxOpenFiles = defaultMaxOpenFiles
	}
	if o.Logger == nil {
		o.Logger = slog.New(slog.DiscardHandler)
	}
	return o, nil
}

// pebbleOptions are the fastest of some forty measured settings for our way of
// writing (ingests only); the reasons stand beside them and in decision 0014.
func pebbleOptions(o Options, fs vfs.FS, log pebble.Logger, cache *pebble.Cache, sched *scheduler, events *pebble.EventListener) *pebble.Options {
	po := &pebble.Options{
		FS:                 fs,
		Cache:              cache,
		MaxOpenFiles:       o.MaxOpenFiles,
		ReadOnly:           o.ReadOnly,
		ErrorIfNotExists:   !o.Create,
		Logger:             log,
		EventListener:      events,
		FormatMajorVersion: pebble.FormatNewest, // FormatDefault means the oldest
		// S1: nothing is written through the memtable, so the log is off and
		// the memtable, which is reserved out of the cache, is the smallest.
		DisableWAL:   true,
		MemTableSize: 64 << 10,
		// Pebble doubles the depth: the second sublevel starts a compaction. Ingests are
		// never stopped by Pebble, the flush itself waits (see Store.Sublevels).
		L0CompactionThreshold: 4,
		L0StopWritesThreshold: 1000,
		// What comes down from level zero is merged with all of the base level: one
		// many times larger than an ingest is written anew for every few of them.
		LBaseMaxBytes: 3 * o.IngestBytes,
		// A rotated MANIFEST is the most delicate moment Pebble has; one
		// gigabyte of edits is far away.
		MaxManifestFileSize: 1 << 30,
		// One at a time leaves more to the foreground; a second where level zero grows
		// beside it, so that one long compaction further down stops no flush.
		CompactionConcurrencyRange: func() (int, int) { return 1, 2 },
	}
	po.Experimental.L0CompactionConcurrency = 4
	po.TargetFileSizes[0] = 2 << 20
	// F1: an ingest that overlaps the memtable would otherwise be kept in
	// memory only and acknowledged before it is durable.
	po.Experimental.DisableIngestAsFlushable = func() bool { return true }
	po.Experimental.CompactionScheduler = sched
	for i := range po.Levels {
		l := &po.Levels[i]
		l.BlockSize = 8 << 10
		l.FilterPolicy = bloom.FilterPolicy(10)
		l.Compression = func() *sstable.CompressionProfile { return sstable.NoCompression }
		if i >= 5 {
			l.Compression = func() *sstable.CompressionProfile { return sstable.FastestCompression }
		}
	}
	po.EnsureDefaults() // before MakeWriterOptions and MakeReaderOptions
	return po
}

// pebbleLog hands Pebble's words to the engine's logger, and turns its way of
// ending the process into a closed gate.
type pebbleLog struct {
	log  *slog.Logger
	gate *gate
}

func (l pebbleLog) Infof(format string, args ...any) {
	// Pebble is talkative; do not format what nobody reads.
	if l.log.Enabled(context.Background(), slog.LevelDebug) {
		l.log.Debug("pebble", "said", fmt.Sprintf(format, args...))
	}
}

func (l pebbleLog) Errorf(format string, args ...any) {
	if l.log.Enabled(context.Background(), slog.LevelWarn) {
		l.log.Warn("pebble", "said", fmt.Sprintf(format, args...))
	}
}

// Fatalf closes the gate, records, and returns (I12). Pebble expects it not to
// return; behind the closed gate what it does next cannot reach the disk. Its
// usual reason, a failed MANIFEST, it never hears of (see gate). A panic here would kill the process from a compaction, Goexit would leave
// Pebble's lock held for ever.
func (l pebbleLog) Fatalf(format string, args ...any) {
	l.gate.close(fatalCause(fmt.Sprintf(format, args...), args))
}

// fatalCause keeps the error among the arguments, so that errors.Is still sees
// a full disk behind the text.
func fatalCause(text string, args []any) error {
	for _, a := range args {
		if err, ok := a.(error); ok {
			return fmt.Errorf("pebble gave up: %w", err)
		}
	}
	return errors.New("pebble gave up: " + text)
}
