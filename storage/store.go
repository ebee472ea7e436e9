package storage

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"sync"
	"sync/atomic"
	"time"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/sstable"

	"github.com/holdfastdb/holdfast/yield"
)

// Store is L3. All methods may be called from many goroutines; ingests are
// committed one at a time.
type Store struct {
	fs      *gate
	dir     string
	staging string
	log     *slog.Logger

	cache *pebble.Cache
	po    *pebble.Options // for writer and reader options
	db    *pebble.DB
	sched *scheduler

	format sstable.TableFormat // of the tables an ingest builds

	current  atomic.Pointer[Snapshot] // the store holds one reference to it
	epoch    atomic.Uint64            // goes up with each compaction; see slots.go
	mark     atomic.Pointer[markState]
	indexed  atomic.Bool // the index of blobs is exact
	seen     sublevelCache
	inTables tableBytes
	faults   faultLog

	// life ends when the store closes or the write gate does: work that would
	// wait for a compaction stops waiting.
	life context.Context
	end  context.CancelCauseFunc

	// merges is what Pebble's own Compact waits under. Pebble panics when a
	// merge whose wait was cancelled is granted afterwards, so this ends only
	// when the scheduler has stopped granting for good.
	merges     context.Context
	endMerges  context.CancelFunc
	compacting chan struct{} // holds one token while a Compact of ours runs

	ingesting yield.Mutex // one ingest, checkpoint or check of the version at a time (S4)
	serial    atomic.Uint64

	mu        sync.Mutex // guards the fields up to the next blank line
	closed    bool
	inflight  int        // operations inside Pebble that Close waits for
	quiet     *sync.Cond // inflight became zero
	snapshots map[*Snapshot]struct{}
	cuts      cutPoints

	closeOnce sync.Once
	closeErr  error
}

type markState struct {
	w  Watermark
	ok bool
}

// faultLog keeps what Pebble reported and nobody asked for.
type faultLog struct {
	corruptions atomic.Uint64
	background  atomic.Uint64

	mu   sync.Mutex
	last error
}

func (f *faultLog) note(n *atomic.Uint64, err error) {
	n.Add(1)
	f.mu.Lock()
	f.last = err
	f.mu.Unlock()
}

// Open opens or, with Options.Create, makes L3.
func Open(o Options) (_ *Store, err error) {
	o, err = o.withDefaults()
	if err != nil {
		return nil, err
	}
	// One spelling of the folder: the gate compares it with what Pebble says.
	dir := o.FS.PathDir(o.FS.PathJoin(o.Dir, "x"))
	s := &Store{
		fs:        newGate(o.FS, dir, o.ReadOnly),
		dir:       dir,
		staging:   dir + "-staging",
		log:       o.Logger,
		snapshots: make(map[*Snapshot]struct{}),
	}
	s.fs.hold.on = o.Hold
	s.quiet = sync.NewCond(&s.mu)
	s.life, s.end = context.WithCancelCause(context.Background())
	s.merges, s.endMerges = context.WithCancel(context.Background())
	s.compacting = make(chan struct{}, 1)
	s.sched = newScheduler(s.dropStale, s.endMerges)
	// Called with Pebble's lock held, from anywhere: set flags, wait for nothing.
	s.fs.onClose = func() {
		s.end(ErrDegraded) // before halt: a merge that halt ends asks why
		s.sched.halt()
		s.log.Error("storage: write gate closed, L3 is read-only until reopened", "cause", s.fs.refusal())
	}
	defer func() {
		if err != nil {
			s.end(ErrClosed)
			s.endMerges()
			s.sched.Unregister()
			if s.cache != nil {
				s.cache.Unref()
			}
			err = fmt.Errorf("storage: open %s: %w", dir, mapped(err))
		}
	}()
	if err := s.prepare(o); err != nil {
		return nil, err
	}
	s.cache = pebble.NewCache(o.CacheBytes)
	s.po = pebbleOptions(o, s.fs, pebbleLog{o.Logger, s.fs}, s.cache, s.sched, s.events())
	if err := s.openPebble(); err != nil {
		return nil, err
	}
	if err := s.load(); err != nil {
		err = errors.Join(err, s.Close())
		s.cache = nil // Close gave it back
		return nil, err
	}
	return s, nil
}

// prepare makes the folders, empties staging, and tells a missing store.
func (s *Store) prepare(o Options) error {
	exists := false
	if _, err := s.fs.Stat(s.dir); err == nil {
		d, err := pebble.Peek(s.dir, s.fs)
		if err != nil {
			return mappedOpen(err)
		}
		if exists = d.Exists; exists {
			if err := s.checkManifest(d.ManifestFilename); err != nil {
				return err
			}
		}
	} else if !errors.Is(err, os.ErrNotExist) {
		return err
	}
	if !exists && !o.Create {
		return fmt.Errorf("no store: %w", os.ErrNotExist)
	}
	if o.ReadOnly {
		return nil
	}
	// What lies in staging was never ingested, or is linked in the folder too.
	if err := s.fs.RemoveAll(s.staging); err != nil {
		return err
	}
	for _, d := range []string{s.dir, s.staging} {
		if err := s.makeDir(d); err != nil {
			return err
		}
	}
	return nil
}

// makeDir makes a folder with its parents, each of them durable. The folder
// that holds dir is synced even if dir was there: an open that crashed may have
// made it.
func (s *Store) makeDir(dir string) error {
	syncs := []string{dir}
	for d := dir; ; {
		up := s.fs.PathDir(d)
		if up == d {
			break
		}
		if _, err := s.fs.Stat(up); err == nil {
			break
		} else if !errors.Is(err, os.ErrNotExist) {
			return err
		}
		syncs = append(syncs, up)
		d = up
	}
	if err := s.fs.MkdirAll(dir, 0o755); err != nil {
		return err
	}
	for _, d := range syncs {
		if err := s.fs.syncDirOf(d); err != nil {
			return err
		}
	}
	return nil
}

// openPebble opens Pebble and turns its panics and swallowed syncs into errors.
func (s *Store) openPebble() (err error) {
	defer func() {
		if err != nil {
			s.fs.closeLeft()
		}
	}()
	defer caught(&err)
	db, err := pebble.Open(s.dir, s.po)
	if err != nil {
		if f := s.fs.fault(); f != nil {
			return errors.Join(f, err)
		}
		return inFolder(mappedOpen(err), func(name string) string { return s.fs.PathJoin(s.dir, name) })
	}
	s.db, s.format = db, db.TableFormat()
	// A sync that failed on the way was answered with nil (see gateDir): what
	// Pebble made may not survive, so nobody may build on it.
	if err := errors.Join(s.fs.takeStray(), s.fs.fault()); err != nil {
		return errors.Join(err, s.closePebble())
	}
	if !s.fs.hold.on { // nobody else has the gate yet
		s.sched.open()
	}
	return nil
}

// load reads storage's own keys and takes the first shared snapshot.
func (s *Store) load() error {
	sn, err := s.takeSnapshot()
	if err != nil {
		return err
	}
	s.current.Store(sn)
	w, ok, err := sn.watermark()
	if err != nil {
		return err
	}
	s.mark.Store(&markState{w, ok})
	b, ok, err := sn.getInner(cutsKey)
	if err != nil {
		return err
	}
	if ok {
		if s.cuts, err = decodeCuts(b); err != nil {
			return err
		}
	}
	return s.loadIndexed(sn)
}

// events records what Pebble reports. It calls some of these with its lock
// held, so they only set flags.
func (s *Store) events() *pebble.EventListener {
	return &pebble.EventListener{
		DataCorruption: func(info pebble.DataCorruptionInfo) {
			err := &CorruptError{File: info.Path, What: "found while reading", Err: info.Details}
			s.faults.note(&s.faults.corruptions, err)
			s.log.Error("storage: corruption", "file", info.Path)
		},
		BackgroundError: func(err error) {
			s.sched.failed()
			s.faults.note(&s.faults.background, mapped(err))
		},
		CompactionEnd: func(info pebble.CompactionInfo) {
			if info.Err == nil {
				s.sched.succeeded()
				s.epoch.Add(1)
			}
		},
	}
}

// enter and leave frame every use of Pebble but reads on an iterator, which
// their own locks frame. After Close began, enter refuses.
func (s *Store) enter() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.closed {
		return ErrClosed
	}
	s.inflight++
	return nil
}

func (s *Store) leave() {
	s.mu.Lock()
	s.inflight--
	if s.inflight == 0 {
		s.quiet.Broadcast()
	}
	s.mu.Unlock()
}

func (s *Store) isClosed() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.closed
}

// Watermark tells how far L3 is complete; false if nothing was ever flushed.
func (s *Store) Watermark() (Watermark, bool, error) {
	if s.isClosed() {
		return Watermark{}, false, ErrClosed
	}
	m := s.mark.Load()
	return m.w, m.ok, nil
}

// Err is nil, or why the write gate closed (ErrDegraded with its cause). Reads
// go on; only opening the store again opens the gate.
func (s *Store) Err() error {
	if s.isClosed() {
		return ErrClosed
	}
	return s.fs.fault()
}

// Fault is [Store.Err] for whoever holds the store open and asks before each write: it
// takes no lock.
func (s *Store) Fault() error { return s.fs.fault() }

// Compact merges all of L3 into its last level. It returns early when ctx or
// the store ends; the merge then goes on in the background, and another
// Compact waits for it.
func (s *Store) Compact(ctx context.Context) error {
	if err := s.enter(); err != nil {
		return err
	}
	defer s.leave()
	if err := s.fs.refusal(); err != nil {
		return err
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	if s.life.Err() != nil {
		return s.ending()
	}
	select {
	case s.compacting <- struct{}{}:
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return s.ending()
	}
	if err := s.enter(); err != nil {
		<-s.compacting
		return err
	}
	done := make(chan error, 1)
	go func() {
		defer s.leave()
		done <- s.merge()
		<-s.compacting
	}()
	select {
	case err := <-done:
		if err != nil && s.life.Err() != nil {
			return s.ending()
		}
		return err
	case <-ctx.Done():
		return ctx.Err()
	case <-s.life.Done():
		return s.ending()
	}
}

func (s *Store) merge() (err error) {
	defer caught(&err)
	if err := s.db.Compact(s.merges, []byte{ownPrefix}, []byte{0xff}, false); err != nil {
		return fmt.Errorf("storage: compact: %w", mapped(err))
	}
	s.dropStale()
	return nil
}

// ending is why life ended.
func (s *Store) ending() error {
	if err := s.fs.fault(); err != nil {
		return err
	}
	return context.Cause(s.life)
}

// Close ends all. It waits for operations inside Pebble, never for the code
// that holds snapshots or iterators: those answer ErrClosed from now on.
func (s *Store) Close() error {
	s.closeOnce.Do(func() {
		s.mu.Lock()
		s.closed = true
		s.mu.Unlock()
		s.end(ErrClosed)
		s.fs.abandon.Store(true) // a compaction under way is not worth waiting for
		s.sched.halt()

		s.mu.Lock()
		for s.inflight > 0 {
			s.quiet.Wait()
		}
		s.mu.Unlock()
		s.killSnapshots()
		s.closeErr = mapped(s.closePebble())
		s.cache.Unref()
	})
	return s.closeErr
}

// killSnapshots closes what lies in Pebble for every snapshot, whoever holds it.
func (s *Store) killSnapshots() {
	s.mu.Lock()
	all := make([]*Snapshot, 0, len(s.snapshots))
	for sn := range s.snapshots {
		all = append(all, sn)
	}
	s.snapshots = make(map[*Snapshot]struct{})
	s.mu.Unlock()
	for _, sn := range all {
		sn.kill()
	}
}

func (s *Store) closePebble() (err error) {
	defer s.fs.closeLeft()
	defer caught(&err)
	err = s.db.Close()
	if s.fs.fault() != nil {
		// Pebble reports that it could not write behind the closed gate; the
		// cause says more.
		return s.fs.fault()
	}
	return err
}

// staged is a fresh path in the staging folder.
func (s *Store) staged() string {
	return s.fs.PathJoin(s.staging, fmt.Sprintf("%d.sst", s.serial.Add(1)))
}

// Sublevels is the number of sorted runs a read may meet in L0. The flush waits
// while it is above six or seven: Pebble does not throttle ingests. The number
// may be some milliseconds old.
func (s *Store) Sublevels() int {
	if err := s.enter(); err != nil {
		return 0
	}
	defer s.leave()
	return s.seen.get(s.db)
}

// SetCompactions bounds how many compactions run at once, below what Pebble would let.
func (s *Store) SetCompactions(most int) { s.sched.limit(most) }

// sublevelCache spares Pebble's metrics (0.04 to 1.3 ms) to a caller that polls.
type sublevelCache struct {
	mu   sync.Mutex
	at   time.Time
	last int
}

const sublevelsFreshFor = 5 * time.Millisecond

func (c *sublevelCache) get(db *pebble.DB) int {
	c.mu.Lock()
	defer c.mu.Unlock()
	if now := yield.Now(); c.at.IsZero() || now.Sub(c.at) > sublevelsFreshFor {
		c.last = int(db.Metrics().Levels[0].Sublevels)
		c.at = now
	}
	return c.last
}

func (c *sublevelCache) forget() {
	c.mu.Lock()
	c.at = time.Time{}
	c.mu.Unlock()
}
