package storage

import (
	"sync"
	"time"

	"github.com/cockroachdb/pebble/v2"

	"github.com/holdfastdb/holdfast/yield"
)

// scheduler grants compactions. Pebble's own starts a failed compaction again
// at once and for ever, which behind a closed gate or on a full disk is a busy
// loop; this one backs off after a failure and stops when it is halted.
//
// Locks: Pebble calls TrySchedule and UpdateGetAllowedWithoutPermission with
// its own lock held, so mu is never held while calling GetWaitingCompaction or
// Schedule, which take that lock.
type scheduler struct {
	idle     func() // run now and then on the granter's goroutine, no lock held
	quiesced func() // run there once halt has taken effect for good

	mu        sync.Mutex // guards the fields up to the next blank line
	granted   *sync.Cond // granting became false
	db        pebble.DBForCompaction
	running   int
	granting  bool
	opened    bool
	stopped   bool
	halted    bool
	most      int // that may run, whatever Pebble would let; zero: as many as it does
	backoff   time.Duration
	notBefore time.Time

	poke chan struct{}
	stop chan struct{}
	done chan struct{} // closed when the granter has ended; nil until Register
}

const (
	grantEvery = 100 * time.Millisecond
	backoffMin = 100 * time.Millisecond
	backoffMax = 10 * time.Second
)

var (
	_ pebble.CompactionScheduler   = (*scheduler)(nil)
	_ pebble.CompactionGrantHandle = (*scheduler)(nil)
)

func newScheduler(idle, quiesced func()) *scheduler {
	c := &scheduler{idle: idle, quiesced: quiesced, poke: make(chan struct{}, 1), stop: make(chan struct{})}
	c.granted = sync.NewCond(&c.mu)
	return c
}

// Register is called by Pebble when its store is about to be open.
func (c *scheduler) Register(_ int, db pebble.DBForCompaction) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.stopped || c.done != nil {
		return
	}
	c.db = db
	c.done = make(chan struct{})
	go c.granter(c.done)
}

// open lets grants begin. Pebble registers before its Open has done everything that
// can fail, and a failed Open takes the file cache from under what already runs: a
// compaction granted before would panic on a goroutine of Pebble's (I12).
func (c *scheduler) open() {
	c.mu.Lock()
	c.opened = true
	c.mu.Unlock()
	c.UpdateGetAllowedWithoutPermission()
}

// Unregister ends the granter. It may be called twice: Pebble's Open forgets
// to when it fails late.
func (c *scheduler) Unregister() {
	c.mu.Lock()
	if !c.stopped {
		c.stopped = true
		close(c.stop)
	}
	for c.granting {
		c.granted.Wait()
	}
	done := c.done
	c.mu.Unlock()
	if done != nil {
		<-done
	}
}

// halt stops granting for good; what runs goes on. A grant may be on its way
// still; quiesced is called when none is.
func (c *scheduler) halt() {
	c.mu.Lock()
	c.halted = true
	c.mu.Unlock()
	c.UpdateGetAllowedWithoutPermission()
}

func (c *scheduler) isQuiet() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.halted && !c.granting
}

// failed and succeeded move the backoff. Pebble calls them with its lock held.
func (c *scheduler) failed() {
	c.mu.Lock()
	c.backoff = min(max(2*c.backoff, backoffMin), backoffMax)
	c.notBefore = yield.Now().Add(c.backoff)
	c.mu.Unlock()
}

func (c *scheduler) succeeded() {
	c.mu.Lock()
	c.backoff, c.notBefore = 0, time.Time{}
	c.mu.Unlock()
}

// freeLocked is the number of compactions that may start now.
func (c *scheduler) freeLocked() int {
	if !c.opened || c.stopped || c.halted || c.db == nil {
		return 0
	}
	if !c.notBefore.IsZero() && yield.Now().Before(c.notBefore) {
		return 0
	}
	allowed := c.db.GetAllowedWithoutPermission()
	if c.most > 0 {
		allowed = min(allowed, c.most)
	}
	return allowed - c.running
}

// limit says how many compactions may run from now on; what runs goes on.
func (c *scheduler) limit(most int) {
	c.mu.Lock()
	more := most > c.most
	c.most = most
	c.mu.Unlock()
	if more {
		c.UpdateGetAllowedWithoutPermission()
	}
}

// TrySchedule is Pebble asking to start one compaction.
func (c *scheduler) TrySchedule() (bool, pebble.CompactionGrantHandle) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if c.freeLocked() <= 0 {
		return false, nil
	}
	c.running++
	return true, c
}

// UpdateGetAllowedWithoutPermission is Pebble hinting that more may run.
func (c *scheduler) UpdateGetAllowedWithoutPermission() {
	select {
	case c.poke <- struct{}{}:
	default:
	}
}

// Started, MeasureCPU and CumulativeStats are of no use to us.
func (c *scheduler) Started()                                          {}
func (c *scheduler) MeasureCPU(pebble.CompactionGoroutineKind)         {}
func (c *scheduler) CumulativeStats(pebble.CompactionGrantHandleStats) {}

// Done ends one granted compaction, and grants the place to the next.
func (c *scheduler) Done() {
	c.mu.Lock()
	c.running--
	c.mu.Unlock()
	c.grant()
}

// grant starts waiting compactions while there is room, one caller at a time.
func (c *scheduler) grant() {
	c.mu.Lock()
	for c.granting {
		c.granted.Wait()
	}
	if c.freeLocked() <= 0 {
		c.mu.Unlock()
		return
	}
	c.granting = true
	for c.freeLocked() > 0 {
		c.running++ // taken before the lock is left, given back if unused
		c.mu.Unlock()
		waiting, _ := c.db.GetWaitingCompaction()
		accepted := waiting && c.db.Schedule(c)
		c.mu.Lock()
		if !accepted {
			c.running--
			break
		}
	}
	c.granting = false
	c.granted.Broadcast()
	c.mu.Unlock()
}

func (c *scheduler) granter(done chan struct{}) {
	defer close(done)
	tick := yield.NewTimer(grantEvery)
	defer tick.Stop()
	for {
		select { // the end comes first, in every run of a seed
		case <-c.stop:
			return
		default:
		}
		select {
		case <-tick.C:
			tick.Reset(grantEvery)
			c.idle()
		case <-c.poke:
		case <-c.stop:
			return
		}
		c.grant()
		if c.isQuiet() {
			c.quiesced()
		}
	}
}
