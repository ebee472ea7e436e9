package engine

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"os"
	"syscall"
	"time"

	"github.com/holdfastdb/holdfast/cache"
	"github.com/holdfastdb/holdfast/cow"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/storage"
	"github.com/holdfastdb/holdfast/wal"
	"github.com/holdfastdb/holdfast/yield"
)

// What stands in a store's directory, beside LOCK, the log's STATE and the log.
const (
	stateName = "STATE"
	logName   = "log"
	l3Name    = "l3"
	packsName = "packs"
)

// Recovery is what Open found.
type Recovery struct {
	LSN       uint64        // everything at or below it is there
	Watermark uint64        // of that, L3 held everything at or below this
	Batches   uint64        // replayed from the log
	Segments  int           // that were read for them
	Clean     bool          // the store had been closed
	CutBytes  int64         // of a torn tail that no acknowledgement covered
	CutFile   string        // where it was cut
	CutOffset int64         // and at which byte
	Lost      []string      // what a mode that gives something up gave up
	Took      time.Duration // from the lock to the first read
}

// Open opens the store in dir, or makes a new one there unless o says otherwise.
// It returns when everything acknowledged before is readable. Nil options are
// production defaults.
//
// A directory that is held by another opener gives ErrLocked, one that is not a
// store ErrForeign, one that a newer version wrote ErrVersion, and one that lost
// what it had promised a *CorruptError.
func Open(dir string, o *Options) (*Engine, error) {
	opts, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	life, end := context.WithCancel(context.Background())
	e := &Engine{
		dir: dir, opts: opts, logger: opts.Logger,
		life: life, end: end, closed: make(chan struct{}),
		snapshots: make(map[*Snapshot]struct{}),
	}
	e.batches.New = func() any { return new(Batch) }
	e.gate.init()
	e.governor.init(e)
	e.allowance.init()
	if err := e.open(); err != nil {
		end()
		if e.log != nil {
			err = errors.Join(err, e.log.Close())
		}
		e.workers.Wait() // before the rooms go
		return nil, door(errors.Join(err, e.release()))
	}
	return e, nil
}

// open changes nothing before the lock is held, and removes or rewrites nothing of an
// existing store before every check has passed; L3 may begin a new manifest.
func (e *Engine) open() error {
	if err := e.openDir(); err != nil {
		return err
	}
	began := time.Now()
	st, err := wal.ReadState(e.opts.FS, e.dir)
	if errors.Is(err, os.ErrNotExist) {
		st, err = e.create()
	}
	if err != nil {
		return err
	}
	e.uuid = st.UUID
	mark, err := e.openRooms(st)
	if err != nil {
		return err
	}
	if err := e.loadBlobs(mark); err != nil {
		return err
	}
	rec, err := e.recover(st, mark)
	if err != nil {
		return err
	}
	// After all that may refuse, which needs no cache.
	if e.cache, err = cache.New(cache.Options{L1Bytes: e.shares().l1, L2Bytes: e.shares().l2, MaxL1Bytes: int64(e.governor.most(&e.opts, e.opts.MemoryBudget))}); err != nil {
		return err
	}
	e.found = recovered(rec, mark, time.Since(began))
	if e.opts.ReadOnly {
		e.background(e.runGovernor)
		return nil
	}
	// Every check has passed: L3 is the newest there was.
	if err := e.store.Release(); err != nil {
		return err
	}
	// Blob before log (I3): Start makes the recovered tail durable.
	if err := e.packs.Renew(e.tailBlobs); err != nil {
		return err
	}
	e.tailBlobs = nil
	if e.log, err = rec.Start(); err != nil {
		return err
	}
	e.background(e.runGovernor)
	e.background(e.runFlusher)
	e.removeOrphans()
	e.background(e.runCollector)
	if e.opts.DiskReserve > 0 {
		_ = e.checkDisk(0) // sets lowDisk: a short life must not begin with it off
		e.background(e.watchDisk)
	}
	e.flusher.kick()
	if rec.Segments > maxSegments {
		return e.shortenLog()
	}
	return nil
}

const (
	// maxSegments is how many segments a recovery may read before it asks for a
	// flush.
	maxSegments = 4
	// littleBytes is what a flush moves so quickly that Open waits for it.
	littleBytes = 4 << 20
)

// shortenLog flushes what was replayed. Each open begins a segment, so the log of a
// store that is opened often and written little would only grow: it never fills a
// generation, and a short life would cut off a flush in the background.
func (e *Engine) shortenLog() error {
	little := e.view.Load().bytes() < littleBytes
	var last uint64
	if err := e.log.Barrier(func(now uint64) {
		if v := e.view.Load(); !v.active.Empty() && len(v.frozen) < e.shares().frozen {
			e.rotate(now)
			last = now
		}
	}); err != nil || last == 0 || !little {
		return err
	}
	ctx, cancel := yield.WithTimeout(e.life, 2*time.Second)
	defer cancel()
	if err := e.awaitFlush(ctx, last); err != nil {
		e.logger.Warn("flush at open", "error", err) // the log has everything
	}
	return nil
}

// openDir makes the directory if it may, and takes its lock.
func (e *Engine) openDir() error {
	fs := e.opts.FS
	fresh, err := e.fresh()
	if err != nil {
		return err
	}
	if fresh {
		if e.opts.ReadOnly || e.opts.MustExist {
			return fmt.Errorf("no store in %s: %w", e.dir, os.ErrNotExist)
		}
		if err := e.makeDir(e.dir); err != nil {
			return err
		}
	}
	if e.lock, err = lockDir(fs, e.dir, e.opts.ReadOnly); err != nil {
		return err
	}
	return nil
}

// fresh says that there is no store in the directory and that one may be made. It
// is asked before the lock, too, so that not even a LOCK is left in a directory
// that belongs to something else.
func (e *Engine) fresh() (bool, error) {
	fs := e.opts.FS
	names, err := fs.List(e.dir)
	if errors.Is(err, os.ErrNotExist) {
		return true, nil
	}
	if err != nil {
		return false, fmt.Errorf("list %s: %w", e.dir, err)
	}
	known := map[string]bool{}
	var other string
	for _, n := range names {
		switch n {
		case stateName:
			return false, nil
		case lockName, logName, l3Name, l3Name + "-staging", packsName, stateName + ".tmp", "lost+found":
			known[n] = true
		default:
			other = n
		}
	}
	segments, err := fs.List(fs.PathJoin(e.dir, logName))
	if err != nil && !errors.Is(err, os.ErrNotExist) && !errors.Is(err, syscall.ENOTDIR) {
		return false, fmt.Errorf("list %s: %w", logName, err) // it may hold a store's log
	}
	switch {
	case known[l3Name], known[packsName], len(segments) > 0:
		return false, corrupt(stateName, "missing, but there is a store around it")
	case err != nil && known[logName] && errors.Is(err, syscall.ENOTDIR):
		return false, fmt.Errorf("%w: %s holds a file called %q and no store", ErrForeign, e.dir, logName)
	case other != "":
		return false, fmt.Errorf("%w: %s holds %q and no store", ErrForeign, e.dir, other)
	}
	return true, nil
}

// makeDir makes dir and its missing parents, each durable in the one above before the
// next is made. One whose name could not be made durable goes again: a second sync of
// the same name may succeed and do nothing. The name of the first that is there is
// made durable, too: whoever made it may have been killed before.
func (e *Engine) makeDir(dir string) error {
	fs := e.opts.FS
	parent := fs.PathDir(dir)
	if _, err := fs.Stat(dir); err == nil {
		return syncDir(fs, parent)
	}
	if parent != dir {
		if err := e.makeDir(parent); err != nil {
			return err
		}
	}
	if err := fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	if err := syncDir(fs, parent); err != nil {
		return errors.Join(err, fs.Remove(dir))
	}
	return nil
}

// create makes the store's STATE, which is its birth: without it the directory
// counts as empty.
func (e *Engine) create() (wal.State, error) {
	fresh, err := e.fresh()
	if err != nil {
		return wal.State{}, err
	}
	if !fresh {
		return wal.State{}, corrupt(stateName, "came and went")
	}
	var uuid [16]byte
	yield.Random(uuid[:])
	return wal.CreateState(e.opts.FS, e.dir, uuid)
}

// openRooms opens L3 and the packs, and checks that L3 is ours and has
// what STATE says it has.
func (e *Engine) openRooms(st wal.State) (mark storage.Watermark, err error) {
	o := &e.opts
	e.store, err = storage.Open(storage.Options{
		FS: o.FS, Dir: o.FS.PathJoin(e.dir, l3Name), IngestBytes: e.shares().generation, CacheBytes: e.shares().blocks,
		ReadOnly: o.ReadOnly, Create: st.Flushed == 0 && !o.ReadOnly, Hold: true, Logger: o.Logger,
	})
	var damaged *storage.CorruptError
	if errors.As(err, &damaged) { // a table that is missing, too: L3 itself is there
		return mark, err
	}
	if errors.Is(err, os.ErrNotExist) && st.Flushed == 0 {
		return mark, fmt.Errorf("%s was never opened whole; open it for writing once: %w", e.dir, err)
	}
	if errors.Is(err, os.ErrNotExist) {
		return mark, corrupt(l3Name, "missing: %v", err)
	}
	if err != nil {
		return mark, err
	}
	mark, ok, err := e.store.Watermark()
	switch {
	case err != nil:
		return mark, err
	case ok && mark.UUID != e.uuid:
		return mark, fmt.Errorf("%w: %s belongs to another store", ErrForeign, l3Name)
	case mark.LSN < st.Flushed || mark.Generation < st.Generation:
		// A damaged manifest opens without complaint, with tables missing.
		return mark, corrupt(l3Name, "holds commits through %d, but %d were flushed", mark.LSN, st.Flushed)
	}
	e.packs, err = mmap.Open(mmap.Options{
		FS: o.FS, Dir: o.FS.PathJoin(e.dir, packsName), UUID: e.uuid, OwnerEpoch: st.OwnerEpoch + 1,
		NextPack: st.PackHigh + 1, ReadOnly: o.ReadOnly, NoMap: o.NoMap,
		MaxMappedBytes: e.shares().mapped, Compression: o.Compression.mmap(), Logger: o.Logger,
		PackBytes: o.packBytes, SoloBytes: o.soloBytes, HeldBytes: max(o.MemoryBudget/16, leastHeld),
	})
	if err != nil {
		return mark, err
	}
	if !o.ReadOnly {
		// The rooms make their folders durable inside, their names are ours.
		if err := syncDir(o.FS, e.dir); err != nil {
			return mark, err
		}
	}
	return mark, nil
}

// recover replays the log above the watermark into the map.
func (e *Engine) recover(st wal.State, mark storage.Watermark) (*wal.Recovery, error) {
	e.generation = mark.Generation
	e.flusher.init(mark.LSN)
	e.known.init()
	e.collector.init()
	e.blobs.look, e.blobs.every = e.collector.kick, e.opts.MemoryBudget/8
	e.clock.Publish(mark.LSN)
	e.view.Store(&view{
		active:  cow.NewGeneration(&e.clock, cow.Shape{Shards: 16, Why: "the first generation"}),
		base:    e.store.Current(),
		horizon: cache.NewHorizon(0),
	})
	return wal.Recover(wal.Options{
		FS: e.opts.FS, Dir: e.dir,
		Policy: e.opts.Sync.wal(), Interval: e.opts.SyncEvery, SegmentBytes: e.opts.SegmentBytes, MaxGroupBytes: groupBytes(e.opts.MemoryBudget),
		ReadOnly: e.opts.ReadOnly, Mode: e.opts.Recovery.wal(), Logger: e.opts.Logger,
		Hooks: wal.Hooks{
			BeforeSync: e.packs.Sync, // I3
			Place:      e.placeCommitted,
			Publish:    e.clock.Publish,
			Between:    e.between,
		},
	}, st, mark.LSN, wal.ReplayFuncs{Check: e.checkRecord, Replay: e.replay})
}

// placeCommitted is place for records that this process encoded and the log
// checked: it cannot fail unless a promise of ours is broken.
func (e *Engine) placeCommitted(lsn uint64, payload []byte, _ uint32, arg any) {
	if err := e.place(lsn, payload); err != nil {
		panic(fmt.Sprintf("holdfast: commit %d: %v", lsn, err))
	}
	if l, ok := arg.(*leftBehind); ok {
		e.placed(l) // after the account has them
	}
}

// checkRecord looks, before anything of a frame is replayed, whether its records
// can be: one that was never promised may name a blob that a crash took, in part
// or whole. A promised one was synced after its blobs (I3): there a missing pack is
// a loss, and a rotten blob is found, and reported for that key, when it is read.
func (e *Engine) checkRecord(lsn uint64, payload []byte, _ uint32, promised bool) error {
	for rest := opList(payload); len(rest) > 0; {
		o, next, err := rest.next()
		if err != nil {
			return fmt.Errorf("commit %d: %w", lsn, err)
		}
		rest = next
		if o.kind != cow.Blob {
			continue
		}
		look := e.packs.Exists
		if promised {
			look = e.packs.Has
		}
		err = look(o.payload)
		if err == nil && !promised {
			e.tailBlobs = append(e.tailBlobs, bytes.Clone(o.payload))
		}
		switch {
		case errors.Is(err, mmap.ErrMissing), errors.Is(err, mmap.ErrCorrupt), errors.Is(err, mmap.ErrForeign):
			return fmt.Errorf("%w: commit %d names a blob: %w", wal.ErrCut, lsn, err)
		case err != nil: // the disk would not say: cutting would be guessing
			return fmt.Errorf("commit %d: %w", lsn, err)
		}
	}
	return nil
}

func (e *Engine) replay(lsn uint64, payload []byte, _ uint32) error {
	if err := e.place(lsn, payload); err != nil {
		return fmt.Errorf("commit %d: %w", lsn, err)
	}
	e.clock.Publish(lsn)
	if v := e.view.Load(); v.active.Bytes() >= e.shares().generation {
		e.rotate(lsn)
	}
	return nil
}

func recovered(r *wal.Recovery, mark storage.Watermark, took time.Duration) Recovery {
	out := Recovery{
		LSN: max(r.LastLSN, mark.LSN), Watermark: mark.LSN, Batches: r.Batches, Segments: r.Segments,
		Clean: r.Clean, CutBytes: r.CutBytes, CutFile: r.CutFile, CutOffset: r.CutOffset, Took: took,
	}
	for _, l := range r.Lost {
		out.Lost = append(out.Lost, fmt.Sprint(l))
	}
	return out
}

// Recovered is what Open found.
func (e *Engine) Recovered() Recovery { return e.found }
