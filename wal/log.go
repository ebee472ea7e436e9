package wal

import (
	"context"
	"errors"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

// Log is a running log. All methods are safe for concurrent use.
//
// Locks, outermost first: commitMu, makeMu, syncMu, stateMu, mu. groupMu is a
// leaf: nothing else is taken under it.
type Log struct {
	o         Options
	files     files
	stateFile *stateFile
	groupCap  int

	groupMu sync.Mutex // guards the fields up to the next blank line
	forming *group
	free    []*group
	entered int         // bytes of batches that are in the forming group, or may enter one
	outside []*outsider // batches that wait for that
	closing bool
	leaders sync.WaitGroup // Add only under groupMu while not closing

	// commitMu is the commit lock: whoever holds it is the only one to give out
	// numbers, place, publish and, unless a buffer is under way, to write frames.
	commitMu  yield.Mutex
	nextLSN   uint64
	lastSize  int // of the last group
	waiting   int // writers that queued while it was written
	ioTime    time.Duration
	wanted    int           // members that the last leader waited for
	patience  time.Duration // at most so long
	buf       buffers
	closed    bool // no commit passes any more
	large     chan struct{}
	lastShift time.Time // when the current segment was begun

	makeMu yield.Mutex // guards making segments, and the fields up to the next blank line
	spares []*segment
	// leftovers are names that failed tries to make a segment could not remove.
	leftovers []string
	nextNo    uint64
	target    int64

	syncMu      yield.Mutex // one sync of the log at a time; cur changes only under it
	stateMu     yield.Mutex // one write of STATE at a time
	stateClosed bool

	mu       sync.Mutex // guards the fields up to the next blank line; held for moments
	cur      *segment
	pos      position // written
	synced   position // known to be synced: what was written before a sync began
	promiseW uint64   // promise of the last frame written
	promised uint64   // highest promise that is itself synced
	state    State    // last one made durable
	flushed  uint64
	segs     []*segment // older than cur, ascending
	pins     map[*pin]struct{}
	metrics  Metrics

	last    atomic.Uint64 // visible
	durable atomic.Uint64
	ceiling atomic.Uint64 // durable lease
	failed  atomic.Pointer[poisonError]
	armed   atomic.Bool // the keeper looks again by itself

	keepKick, makeKick, flushKick, flushNow chan struct{}
	stop                                    chan struct{}
	background                              sync.WaitGroup
	closeOnce                               sync.Once
	closeErr                                error
}

type poisonError struct{ cause error }

func (p *poisonError) Error() string   { return fmt.Sprintf("%v: %v", ErrPoisoned, p.cause) }
func (p *poisonError) Unwrap() []error { return []error{ErrPoisoned, p.cause} }

func newLog(r *Recovery, sf *stateFile) *Log {
	l := &Log{
		o: r.o, files: r.files, stateFile: sf, groupCap: r.o.groupCap(),
		nextLSN: r.NextLSN, target: r.o.targetBytes(), lastShift: yield.Now(),
		pins:     map[*pin]struct{}{},
		large:    make(chan struct{}, 1),
		keepKick: make(chan struct{}, 1), makeKick: make(chan struct{}, 1),
		flushKick: make(chan struct{}, 1), flushNow: make(chan struct{}, 1),
		stop: make(chan struct{}),
	}
	l.buf.init(l)
	return l
}

// run starts the background. It ends in Close (I11).
func (l *Log) run() {
	tasks := []func(){l.keep, l.make}
	if l.o.Policy == Never {
		tasks = append(tasks, l.flush)
	}
	for _, task := range tasks {
		l.background.Add(1)
		go func() {
			defer l.background.Done()
			task()
		}()
	}
	kick(l.makeKick)
}

// stopped is asked before a task waits: of several channels that are ready a select
// takes any, and the end comes first, in every run of a seed.
func (l *Log) stopped() bool {
	select {
	case <-l.stop:
		return true
	default:
		return false
	}
}

// kick wakes a background task, or lets it run once more if it is awake.
func kick(c chan struct{}) {
	select {
	case c <- struct{}{}:
	default:
	}
}

// arm makes the keeper look at the log soon. A lone writer pays one atomic load.
func (l *Log) arm() {
	if !l.armed.Load() && l.armed.CompareAndSwap(false, true) {
		kick(l.keepKick)
	}
}

// Err is nil, or why the log refuses to go on (I9).
func (l *Log) Err() error {
	if p := l.failed.Load(); p != nil {
		return p
	}
	return nil
}

// poison stops the log for good after a failed write or sync: what reached the
// disk is unknown in both directions, and a second sync of the same pages
// would succeed without having written them. It returns what the batches
// concerned are told.
func (l *Log) poison(cause error) error {
	if l.failed.CompareAndSwap(nil, &poisonError{cause}) {
		l.o.Logger.Error("wal: poisoned", "err", cause)
	}
	return fmt.Errorf("%w: %w", ErrInDoubt, cause)
}

// Last is the last number that is placed and published.
func (l *Log) Last() uint64 { return l.last.Load() }

// Durable is the number up to which the log is known to be synced.
func (l *Log) Durable() uint64 { return l.durable.Load() }

// State is the last STATE that was made durable.
func (l *Log) State() State {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.state
}

// Barrier runs fn between two groups, under the commit lock: every cell at or
// below last is placed and published, and nothing above is.
func (l *Log) Barrier(fn func(last uint64)) error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if err := l.Err(); err != nil {
		return err
	}
	if l.closed {
		return ErrClosed
	}
	fn(l.last.Load())
	return nil
}

// Metrics counts since Start.
type Metrics struct {
	Groups           uint64 // frames of acknowledged batches
	Batches          uint64
	Bytes            uint64 // written to segments, headers included
	Syncs            uint64
	SyncTime         time.Duration
	StateWrites      uint64
	SegmentsMade     uint64 // zero-written
	SegmentsRecycled uint64
	SegmentsRemoved  uint64
	Rotations        uint64
	Markers          uint64
	CohortWaits      uint64 // groups whose leader waited for company
	LastGroup        int    // batches in the last group
	GroupWanted      int    // batches that the last leader waited for, at most GroupWait; 0 or 1: for nobody
	GroupWait        time.Duration
	DiskFull         uint64 // batches or groups refused for want of space
	Segments         int    // on disk, the current one included
	LiveBytes        int64
}

// GroupBytes is the memory of groups that form, are written and wait for use.
func (l *Log) GroupBytes() int64 {
	l.groupMu.Lock()
	defer l.groupMu.Unlock()
	largest, sum := 0, 0
	see := func(g *group) { largest, sum = max(largest, cap(g.buf)), sum+cap(g.buf) }
	for _, g := range l.free {
		see(g)
	}
	if l.forming != nil {
		see(l.forming)
	}
	return int64(sum+largest) + 2*bufferBytes // one more is being written, at most
}

// Metrics is a snapshot.
func (l *Log) Metrics() Metrics {
	live := l.LiveBytes()
	l.mu.Lock()
	defer l.mu.Unlock()
	m := l.metrics
	m.LiveBytes = live
	m.Segments = len(l.segs) + 1
	return m
}

// Close drains the groups, ends the log with SEAL and STATE{clean}, and
// returns the first error. A poisoned log gets no further byte and no clean flag.
func (l *Log) Close() error {
	l.closeOnce.Do(func() { l.closeErr = l.close() })
	return l.closeErr
}

func (l *Log) close() error {
	l.groupMu.Lock()
	l.closing = true
	l.leave(0) // writers that wait for room get their answer now
	l.groupMu.Unlock()
	l.leaders.Wait()
	l.commitMu.Lock()
	l.closed = true
	l.buf.idle.Broadcast()
	l.commitMu.Unlock()
	close(l.stop)
	l.background.Wait()

	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	err := l.Err()
	if err == nil {
		err = l.closeFiles()
	}
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	l.makeMu.Lock()
	defer l.makeMu.Unlock()
	errs := []error{err}
	l.mu.Lock()
	f := l.cur.f
	l.cur.f = nil
	l.mu.Unlock()
	errs = append(errs, f.Close())
	for _, s := range l.spares {
		errs = append(errs, s.f.Close())
	}
	l.spares = nil
	// A flush that is still under way may be about to write STATE.
	l.stateMu.Lock()
	defer l.stateMu.Unlock()
	l.stateClosed = true
	return errors.Join(append(errs, l.stateFile.f.Close())...)
}

// closeFiles is drain -> SEAL -> S -> STATE{clean} -> S.
func (l *Log) closeFiles() error {
	if err := l.drainLocked(); err != nil {
		return err
	}
	if err := l.writeSeal(0); err != nil {
		return err
	}
	if err := l.sync(); err != nil {
		return err
	}
	if err := l.writeState(func(s *State) {
		s.Clean = true
		// The rest of the lease goes back, so that a clean open leaves no gap.
		s.IssuedCeiling = l.nextLSN - 1
	}); err != nil {
		return err
	}
	// A spare is not kept for a next open that would not use it.
	l.makeMu.Lock()
	defer l.makeMu.Unlock()
	for _, s := range l.spares {
		l.discard(s)
	}
	l.spares = nil
	_ = l.tidy() // an orphan is deleted at the next start
	return nil
}

// WaitDurable returns when everything at or below lsn is synced. It asks for a
// sync and does not wait for anybody's interval; askers that come while a sync
// runs share the next one.
func (l *Log) WaitDurable(ctx context.Context, lsn uint64) error {
	if l.durable.Load() >= lsn {
		return nil
	}
	if last := l.last.Load(); lsn > last {
		return fmt.Errorf("%w: wait for %d: the last commit is %d", ErrNoCommit, lsn, last)
	}
	if ctx.Done() == nil {
		return l.syncTo(lsn)
	}
	if err := ctx.Err(); err != nil {
		return err
	}
	l.groupMu.Lock()
	if l.closing {
		l.groupMu.Unlock()
		return l.syncTo(lsn)
	}
	l.leaders.Add(1)
	l.groupMu.Unlock()
	done := make(chan error, 1)
	go func() {
		defer l.leaders.Done()
		done <- l.syncTo(lsn)
	}()
	select {
	case err := <-done:
		return err
	case <-ctx.Done():
		return fmt.Errorf("wal: wait for %d: %w", lsn, ctx.Err())
	}
}

// Sync makes everything acknowledged so far durable.
func (l *Log) Sync(ctx context.Context) error {
	return l.WaitDurable(ctx, l.last.Load())
}
