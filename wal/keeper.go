package wal

import (
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

const (
	keeperTick   = 5 * time.Millisecond
	markerDelay  = 20 * time.Millisecond // nobody waits; at most 50 after the burst
	stateDelay   = time.Second
	leaseHeadway = 2 // extend when less than a half of the block is left
)

// keep is the log's clock: the Interval policy's syncs, the MARKER of an idle
// log, STATE, and the lease. It sleeps for good when nothing is left to do.
func (l *Log) keep() {
	k := keeper{log: l, lastState: yield.Now(), lastSync: yield.Now()}
	timer := yield.NewTimer(keeperTick)
	defer timer.Stop()
	for {
		var tick <-chan time.Time
		if wait := k.run(yield.Now()); wait > 0 {
			timer.Reset(wait)
			tick = timer.C
		}
		if l.stopped() {
			return
		}
		select {
		case <-l.stop:
			return
		case <-l.keepKick:
		case <-tick:
			select { // one look answers both
			case <-l.keepKick:
			default:
			}
		}
	}
}

type keeper struct {
	log       *Log
	lastState time.Time
	lastSync  time.Time
	seen      position  // at the last look
	seenLast  uint64    // visible at the last look
	markerDue time.Time // a MARKER was written and wants a sync; zero: none
}

// run does what is due and says when to come again; 0: when called. Its errors
// have poisoned the log, which says so to everybody else.
func (k *keeper) run(now time.Time) time.Duration {
	l := k.log
	if l.Err() != nil {
		return 0
	}
	tick := min(keeperTick, l.o.Interval)
	l.mu.Lock()
	pos, synced := l.pos, l.synced
	promised, st := l.promised, l.state
	l.mu.Unlock()
	last := l.last.Load()
	yield.Point("wal.keep")
	idle := pos == k.seen && last == k.seenLast
	k.seen, k.seenLast = pos, last

	if l.o.Policy == Interval && pos != synced && now.Sub(k.lastSync) >= l.o.Interval {
		k.lastSync = now
		if l.sync() != nil {
			return 0
		}
		l.mu.Lock()
		pos, synced, promised = l.pos, l.synced, l.promised
		l.mu.Unlock()
		k.markerDue = time.Time{}
		idle = false
	}
	if half := l.o.lease / leaseHeadway; last+half > l.ceiling.Load() {
		if l.extendLease() != nil {
			return 0
		}
	}
	if pos == synced {
		k.markerDue = time.Time{} // somebody's sync took it along
	}
	switch {
	case !k.markerDue.IsZero() && !now.Before(k.markerDue):
		k.markerDue = time.Time{}
		if l.sync() != nil {
			return 0
		}
		idle = false
	case idle && k.markerDue.IsZero() && pos == synced && promised < synced.last:
		if l.writeMarker(synced) {
			k.markerDue = now.Add(markerDelay)
		}
		l.mu.Lock()
		pos = l.pos
		l.mu.Unlock()
		k.seen = pos
	}
	// A new segment is named at once: STATE is what tells a lost segment from
	// one that never was.
	stale := st.Synced != synced.last || st.SegNo != synced.segNo
	due := k.lastState.Add(stateDelay)
	if stale && (st.SegNo != synced.segNo || !now.Before(due)) {
		k.lastState = now
		if l.writeState(nil) != nil {
			return 0
		}
		stale = false
	}
	wantsSync := l.o.Policy == Interval && pos != synced
	if !idle || wantsSync || !k.markerDue.IsZero() || promised < synced.last && pos == synced {
		l.armed.Store(true)
		return tick
	}
	l.armed.Store(false)
	// A commit that saw armed just before is seen here, or kicks.
	if l.last.Load() != last {
		l.armed.Store(true)
		return tick
	}
	if stale {
		return max(due.Sub(now), tick)
	}
	return 0
}

// writeMarker appends an empty frame that carries the promise of the last
// sync. It closes the window in which the last group is covered by none.
func (l *Log) writeMarker(synced position) bool {
	if !l.commitMu.TryLock() {
		return false // not idle after all
	}
	defer l.commitMu.Unlock()
	if l.closed || l.buf.flushing || l.buf.active.count > 0 || l.pos != synced {
		return false
	}
	if l.curRoom() < frameHeaderBytes {
		// No room: STATE makes the promise.
		_ = l.writeState(nil)
		return false
	}
	var b [frameHeaderBytes]byte
	if l.writeFrame(b[:], 0, kindMarker, 0, l.pos.next, 0) != nil {
		return false
	}
	l.mu.Lock()
	l.metrics.Markers++
	l.mu.Unlock()
	return true
}
