// Package seeded holds bugs: historical ones of storage engines, and some of our
// own making. None of them is in the product's source; each is an edit that the test
// applies with go build -overlay, to prove that the suites catch it.
//
// # Where you are
//
// Part of the fuzzing kit. [Bugs] is the table; the test prints bug, suite, seconds.
package seeded

// Bug is one edit of one file, and the suite that must fail with it.
type Bug struct {
	Name string
	Like string // where it happened before
	File string // from the module's root
	From string // stands there exactly once
	To   string
	Pkg  string // whose tests catch it
	Run  string // which of them
	Tags string // the suite's build tags
	Hang bool   // caught by the suite's timeout
}

// Bugs, by the room they live in.
var Bugs = []Bug{
	{
		Name: "ack-before-sync", Like: "etcd#14370: acknowledged before fsync",
		File: "wal/commit.go", From: "		err = l.sync()\n	} else {", To: "		err = l.Err()\n	} else {",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "promise-too-far", Like: "rocksdb#10560: a log marked synced while it is appended to",
		File: "wal/commit.go", From: "synced:     l.durable.Load(),", To: "synced:     first - 1,",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "sync-error-forgotten", Like: "PostgreSQL fsyncgate, rocksdb#12448: going on after a failed sync",
		File: "wal/sync.go", From: "return l.poison(fmt.Errorf(\"wal: sync segment %d: %w\", at.segNo, err))", To: "_ = err",
		Pkg: "./engine", Run: "TestEngine_Put_logFault",
	},
	{
		Name: "rotate-without-sync", Like: "pebble#864: the next log begins before the old one is complete",
		File: "wal/sync.go", From: "	if err := l.sync(); err != nil {\n		return err\n	}\n	l.syncMu.Lock()", To: "	l.syncMu.Lock()",
		Pkg: "./wal", Run: "",
	},
	{
		Name: "recycle-without-salt", Like: "pebble#567, rocksdb#12591: recycled bytes read as new ones",
		File: "wal/frame.go", From: "if le.Uint64(b[16:]) != salt || ", To: "if salt, seed = le.Uint64(b[16:]), seedOf(le.Uint64(b[16:])); ",
		Pkg: "./wal", Run: "",
	},
	{
		Name: "state-of-the-killed-unsynced", Like: "ours: kill, then a power cut that tears both slots",
		File: "wal/state.go", From: "	if err := f.SyncData(); err != nil {", To: "	if false {",
		Pkg: "./wal", Run: "",
	},
	{
		Name: "recycle-what-state-names", Like: "ours: a store that would not open after a power cut",
		File: "wal/recycle.go", From: "s.maxLSN > l.flushed || s.no >= l.state.SegNo", To: "s.maxLSN > l.flushed",
		Pkg: "./wal", Run: "",
	},
	{
		Name: "chain-unchecked", Like: "rocksdb track_and_verify_wals: frames spliced from elsewhere",
		File: "wal/walk.go", From: "case f.chain != w.chain:", To: "case false:",
		Pkg: "./wal", Run: "",
	},
	{
		Name: "blob-not-synced", Like: "badger#1090, titan#212: a durable pointer to a value that is not",
		File: "engine/open.go", From: "BeforeSync: e.packs.Sync,", To: "BeforeSync: func() error { return nil },",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "tail-blobs-not-renewed", Like: "ours: kill, recovery, power cut",
		File: "engine/open.go", From: "e.packs.Renew(e.tailBlobs)", To: "error(nil)",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "flushed-too-far", Like: "SQLite WAL-reset: pages counted as checkpointed that are not",
		File: "engine/flush.go", From: "e.log.SetFlushed(gen.last,", To: "e.log.SetFlushed(gen.last+3,",
		Pkg: "./fuzz", Run: "TestRun_model|TestCrash",
	},
	{
		Name: "swap-before-ingest", Like: "a reader that looks between map and L3",
		File: "engine/flush.go", From: "e.swapBase(gen, e.store.Current())", To: "e.view.Load().base.Acquire(); e.swapBase(gen, e.view.Load().base)",
		Pkg: "./fuzz", Run: "TestRun_model",
	},
	{
		Name: "stale-l3-accepted", Like: "pebble#4560: a damaged MANIFEST opens as an older store",
		File: "engine/open.go", From: "case mark.LSN < st.Flushed || mark.Generation < st.Generation:", To: "case false:",
		Pkg: "./engine", Run: "TestOpen_staleL3",
	},
	{
		Name: "no-record-in-horizon", Like: "ristretto, bigcache: an old value from a cache",
		File: "engine/view.go", From: "horizon: v.horizon.Push(record, recordBytes)", To: "horizon: v.horizon",
		Pkg: "./fuzz", Run: "TestRun_model",
	},
	{
		Name: "stamp-at-fill", Like: "a fill that races with a flush",
		File: "cache/horizon.go", From: "func (h *Horizon) Fresh(stamp, hash uint64, key []byte) bool {", To: "func (h *Horizon) Fresh(stamp, hash uint64, key []byte) bool {\n	if stamp > 0 {\n		stamp++\n	}",
		Pkg: "./cache", Run: "",
	},
	{
		Name: "snapshot-not-registered", Like: "goleveldb: versions dropped under a snapshot",
		File: "engine/snapshot.go", From: "e.clock.Register(&s.hold)", To: "_ = 0",
		Pkg: "./fuzz", Run: "TestRun_model",
	},
	{
		Name: "cut-looks-like-absent", Like: "a reader that falls through to an older room",
		File: "cow/shard.go", From: "v.prev.Store(cut)", To: "v.prev.Store(nil)",
		Pkg: "./cow", Run: "",
	},
	{
		Name: "clock-read-in-wrong-order", Like: "a snapshot below the number that cut",
		File: "cow/clock.go", From: "return min(p, c.Oldest())", To: "return p",
		Pkg: "./cow", Run: "",
	},
	{
		Name: "range-beats-later-point", Like: "rocksdb: range tombstones within one batch",
		File: "engine/batch.go", From: "b.unsorted = b.unsorted || b.points > 0", To: "b.unsorted = false",
		Pkg: "./fuzz", Run: "TestRun_model",
	},
	{
		Name: "scan-forgets-newer-ranges", Like: "badger#2143: deleted items reappear",
		File: "engine/scan.go", From: "		case cow.Hidden:\n			return false, nil", To: "		case cow.Hidden:",
		Pkg: "./fuzz", Run: "TestRun_model",
	},
	{
		Name: "tombstones-not-flushed", Like: "badger#2286: a delete dropped on the way down",
		File: "compaction/flush.go", From: "case cell.Kind() == cow.Tombstone:", To: "case cell.Kind() == cow.Tombstone && it == nil:",
		Pkg: "./compaction", Run: "",
	},
	{
		Name: "hidden-points-flushed", Like: "Pebble: within one table a point survives its range delete",
		File: "cow/iter.go", From: "if f == Hidden && lsn > v.lsn { // C5", To: "if false && f == Hidden && lsn > v.lsn { // C5",
		Pkg: "./fuzz", Run: "TestRun_model",
	},
	{
		Name: "watermark-apart-from-cells", Like: "etcd#13766: the index saved apart from the data",
		File: "storage/ingest.go", From: "	if err := t.w.Set(watermarkKey, w.encode()); err != nil {", To: "	w.LSN++\n	if err := t.w.Set(watermarkKey, w.encode()); err != nil {",
		Pkg: "./storage", Run: "",
	},
	{
		Name: "gate-never-closes", Like: "rocksdb#4990: going on after a failed MANIFEST",
		File: "storage/gate.go", From: "func (g *gate) close(cause error) {", To: "func (g *gate) close(cause error) {\n	if cause != nil {\n		return\n	}",
		Pkg: "./storage", Run: "TestGate|gateCloses",
	},
	{
		Name: "grants-before-open", Like: "ours: a failed open that panics on a goroutine of Pebble's",
		File: "storage/scheduler.go", From: "if !c.opened || ", To: "if ",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "pack-name-not-synced", Like: "rocksdb#10573, etcd#6368: a file whose name a power cut takes",
		File: "mmap/sync.go", From: "	if !named {", To: "	if false && !named {",
		Pkg: "./mmap", Run: "",
	},
	{
		Name: "frame-checksum-unread", Like: "bbolt, badger value log: flipped bytes returned as values",
		File: "mmap/read.go", From: "if checksum(stored) != l.sums[i] {", To: "if false && checksum(stored) != l.sums[i] {",
		Pkg: "./mmap", Run: "",
	},
	{
		Name: "fault-guard-off", Like: "badger#1801, prometheus#16785: SIGBUS kills the process",
		File: "mmap/guard.go", From: "old := debug.SetPanicOnFault(true)", To: "old := debug.SetPanicOnFault(false)",
		Pkg: "./mmap", Run: "",
	},
	{
		Name: "snapshot-number-of-another-view", Like: "a memtable that switches while a snapshot is taken",
		File: "engine/snapshot.go", From: "if e.view.Load() == v && v.base.Acquire() {", To: "if v.base.Acquire() {",
		Pkg: "./fuzz/schedule", Run: "orders", Tags: "schedule",
	},
	{
		Name: "publish-before-place", Like: "rocksdb#12869: readers see what is not there yet",
		File: "wal/commit.go", From: "	yield.Point(\"wal.synced\")", To: "	l.publish(last)\n	yield.Point(\"wal.synced\")",
		Pkg: "./fuzz/schedule", Run: "orders", Tags: "schedule",
	},
	{
		Name: "flushed-before-ingest", Like: "SQLite WAL-reset: the log forgets what the table does not have",
		File: "engine/flush.go", From: "	stats, err := compaction.Flush(", To: "	_ = e.log.SetFlushed(gen.last, e.generation+1, e.packs.High())\n	stats, err := compaction.Flush(",
		Pkg: "./fuzz/schedule", Run: "orders", Tags: "schedule",
	},
	{
		Name: "barrier-without-lock", Like: "a write on the wrong side of a memtable switch",
		File: "wal/log.go", From: "func (l *Log) Barrier(fn func(last uint64)) error {\n	l.commitMu.Lock()\n	defer l.commitMu.Unlock()", To: "func (l *Log) Barrier(fn func(last uint64)) error {",
		Pkg: "./wal", Run: "Barrier",
	},
	{
		Name: "collect-under-snapshot", Like: "ours: a reader's data dropped by the collector",
		File: "engine/collect.go", From: "b.acc.Collect(e.clock.Oldest())", To: "b.acc.Collect(^uint64(0))",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "collect-before-flush", Like: "a value removed whose delete a crash took back",
		File: "compaction/blobs.go", From: "bound := min(oldest, b.flushed)", To: "bound := oldest",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "rewrite-not-synced", Like: "rename before the data is durable: an empty file after a power cut",
		File: "mmap/rewrite.go", From: "	return f.Sync()", To: "	return nil",
		Pkg: "./mmap", Run: "Rewrite",
	},
	{
		Name: "orphans-stay", Like: "value files that nothing names are never removed",
		File: "engine/open.go", From: "	e.removeOrphans()\n", To: "",
		Pkg: "./fuzz", Run: "TestCrash",
	},
	{
		Name: "range-delete-uncounted", Like: "garbage under range deletes is never seen",
		File: "compaction/index.go", From: "if g.Covers(key, math.MaxUint64) == cow.Hidden {", To: "if math.MaxInt8 < 0 && g.Covers(key, 0) == cow.Hidden {",
		Pkg: "./engine", Run: "TestCollect",
	},
	{
		Name: "named-again-dies", Like: "ours: a batch committed again after a range delete loses its large value",
		File: "compaction/blobs.go", From: "b.byKey[k.key] == at && k.placed <= last {", To: "b.byKey[k.key] == at {",
		Pkg: "./compaction", Run: "TestBlobs",
	},
	{
		Name: "named-in-one-flush-dies", Like: "ours: the same, when both commits come down together",
		File: "compaction/blobs.go", From: "if p == nil || t.set[at] {", To: "if p == nil {",
		Pkg: "./fuzz", Run: "TestRun",
	},
	{
		Name: "snapshots-before-account", Like: "ours: a snapshot that begins while the collector weighs loses a large value",
		File: "engine/collect.go",
		From: `	yield.Point("collect.weigh")
	b := &e.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	// Order (I7): the account, then the snapshots. Between a look at the snapshots and
	// the lock one could begin, and a commit and its flush replace what it reads.
	b.acc.Collect(e.clock.Oldest())`,
		To: `	oldest := e.clock.Oldest()
	yield.Point("collect.weigh")
	b := &e.blobs
	b.mu.Lock()
	defer b.mu.Unlock()
	b.acc.Collect(oldest)`,
		Pkg: "./engine", Run: "TestChosen", Tags: "schedule",
	},
	{
		Name: "manifest-end-unchecked", Like: "ours: a manifest without its last record hides every key and shows the watermark",
		File: "storage/manifest.go", From: "t.Last > v.last {", To: "t.Last > v.last && path == \"\" {",
		Pkg: "./engine", Run: "TestOpen_manifest",
	},
	{
		Name: "filter-misses-flush", Like: "ours: a key that came down while the filter of L3's keys was filled is nowhere",
		File: "engine/known.go", From: "[]*cache.Filter{v.known, k.filling}", To: "[]*cache.Filter{v.known}",
		Pkg: "./engine", Run: "TestKnown",
	},
	{
		Name: "filter-after-flush", Like: "ours: a key is in L3 before it is in the filter that readers ask",
		File: "engine/flush.go", From: "	e.known.add(e.view.Load(), gen)\n", To: "	defer e.known.add(e.view.Load(), gen)\n",
		Pkg: "./engine", Run: "TestKnown",
	},
	{
		Name: "half-a-filter", Like: "ours: a walk over L3 that failed makes a filter of what it saw",
		File: "engine/known.go", From: "	return it.Err() == nil\n", To: "	return true\n",
		Pkg: "./engine", Run: "TestKnown",
	},
	{
		Name: "rewrite-folder-sync-forgiven", Like: "PostgreSQL fsyncgate, for a folder: the names of others go with it",
		File: "mmap/rewrite.go", From: "		return s.syncFailed(err)\n", To: "		return err\n",
		Pkg: "./mmap", Run: "TestStore_Rewrite",
	},
}
