package wal

import (
	"context"
	"fmt"
	"runtime"
	"slices"
	"sync/atomic"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

const (
	// maxFreeGroups bounds the pool: one that forms, one that is written, one spare.
	maxFreeGroups = 3
	// maxCohortWait bounds what a leader spends on company.
	maxCohortWait = 100 * time.Microsecond
)

// member is one batch of a group.
type member struct {
	start, end int // of the payload in the group's buffer
	index      int // distance from the group's first number
	ops, sum   uint32
	bad        bool // changed in memory since its checksum was made
	arg        any
}

// group is the batches that are written, synced and published together.
type group struct {
	buf     []byte // room for the frame's header, then the batches
	members []member
	size    atomic.Int32  // of members; the leader reads it while it waits
	full    atomic.Bool   // somebody did not fit
	done    chan struct{} // made by the second member: a lone writer tells nobody
	taken   int           // bytes of what may enter a group that its members have

	first uint64 // valid when done
	err   error
	refs  atomic.Int32 // members that have not taken their result
}

func (g *group) add(payload []byte, ops, sum uint32, arg any) int {
	i := len(g.members)
	g.buf = appendEntryHeader(g.buf, len(payload), i, ops, sum)
	start := len(g.buf)
	g.buf = append(g.buf, payload...)
	g.members = append(g.members, member{start: start, end: len(g.buf), index: i, ops: ops, sum: sum, arg: arg})
	g.size.Store(int32(i + 1))
	return i
}

var headerRoom [frameHeaderBytes]byte

func (g *group) reset() {
	clear(g.members) // let go of the arguments
	g.members = g.members[:0]
	g.buf = append(g.buf[:0], headerRoom[:]...)
	g.size.Store(0)
	g.full.Store(false)
	g.done, g.taken, g.err, g.first = nil, 0, nil, 0
}

// newGroup needs groupMu.
func (l *Log) newGroup() *group {
	if n := len(l.free); n > 0 {
		g := l.free[n-1]
		l.free = l.free[:n-1]
		return g
	}
	g := new(group)
	g.reset()
	return g
}

// result is what the i-th member is told. The last one to ask recycles the group.
func (l *Log) result(g *group, i int) (uint64, error) {
	m := &g.members[i]
	lsn, err := g.first+uint64(m.index), g.err
	if m.bad {
		err = ErrChecksum
	}
	l.release(g)
	if err != nil {
		return 0, err
	}
	return lsn, nil
}

func (l *Log) release(g *group) {
	if g.refs.Add(-1) != 0 {
		return
	}
	g.reset()
	l.groupMu.Lock()
	if len(l.free) < maxFreeGroups {
		l.free = append(l.free, g)
	}
	l.groupMu.Unlock()
}

// admit says why no batch may enter. It needs groupMu.
func (l *Log) admit() error {
	if l.closing {
		return ErrClosed
	}
	return l.Err()
}

// outsider is a batch that found no room in the forming group. It waits outside with its
// own memory (I10), first come, first served: were all of them to run for each group that
// forms, ten thousand would wake up for a few hundred places.
type outsider struct {
	need int
	in   chan struct{} // closed when it may enter
}

// enter waits until so many bytes fit into the group that forms, or that will. It needs
// groupMu, which it lets go while it waits; after an error nothing was handed over.
func (l *Log) enter(ctx context.Context, need int) error {
	if err := l.admit(); err != nil {
		return err
	}
	if len(l.outside) == 0 && l.entered+need <= l.groupCap {
		l.entered += need
		return nil
	}
	if l.forming != nil {
		l.forming.full.Store(true)
	}
	o := &outsider{need, make(chan struct{})}
	l.outside = append(l.outside, o)
	l.groupMu.Unlock()
	select {
	case <-o.in:
		l.groupMu.Lock()
		err := l.admit()
		if err != nil {
			l.leave(need)
		}
		return err
	case <-ctx.Done():
	}
	l.groupMu.Lock()
	if i := slices.Index(l.outside, o); i >= 0 {
		l.outside, need = slices.Delete(l.outside, i, i+1), 0
	}
	l.leave(need)
	return ctx.Err()
}

// leave gives room back and lets in whom it is enough for. It needs groupMu.
func (l *Log) leave(n int) {
	l.entered -= n
	in := 0
	for _, o := range l.outside {
		if !l.closing && l.entered+o.need > l.groupCap {
			break
		}
		l.entered += o.need
		close(o.in)
		in++
	}
	l.outside = slices.Delete(l.outside, 0, in)
}

// commitGrouped joins the forming group, or leads a new one.
func (l *Log) commitGrouped(ctx context.Context, payload []byte, ops, sum uint32, arg any) (uint64, error) {
	need := len(payload) + maxEntryHeader
	l.groupMu.Lock()
	if err := l.enter(ctx, need); err != nil {
		l.groupMu.Unlock()
		return 0, err
	}
	g := l.forming
	leader := g == nil
	if leader {
		g = l.newGroup()
		l.forming = g
		l.leaders.Add(1)
	}
	i := g.add(payload, ops, sum, arg)
	g.taken += need
	if g.done == nil && (!leader || ctx.Done() != nil) {
		g.done = make(chan struct{})
	}
	done := g.done
	g.refs.Add(1)
	if leader {
		g.refs.Add(1) // the leader's own, beside its batch's
	}
	l.groupMu.Unlock()

	switch {
	case leader && ctx.Done() == nil:
		l.lead(g)
		return l.result(g, i)
	case leader:
		// Somebody else has to lead, so that the caller can walk away.
		go l.lead(g)
	}
	select {
	case <-done:
		return l.result(g, i)
	case <-ctx.Done():
		l.release(g)
		return 0, fmt.Errorf("%w: %w", ErrInDoubt, ctx.Err())
	}
}

// lead takes one group through; it never leads on for others while its own
// caller waits.
func (l *Log) lead(g *group) {
	defer l.leaders.Done()
	yield.Point("wal.lead")
	l.commitMu.Lock()
	l.gather(g)
	l.groupMu.Lock()
	l.forming = nil // nobody joins from here on
	l.leave(g.taken)
	l.groupMu.Unlock()
	g.err = l.commit(g)
	l.groupMu.Lock()
	l.waiting = 0
	if l.forming != nil {
		l.waiting = int(l.forming.size.Load())
	}
	l.groupMu.Unlock()
	l.lastSize = len(g.members)
	l.commitMu.Unlock()
	yield.Point("wal.led")
	if g.done != nil {
		close(g.done)
	}
	l.release(g)
}

// gather is cohort merging: without it the writers that a sync wakes start a
// group while the others' sync runs, and two cohorts alternate, each waiting
// for two syncs. So the leader waits until everyone who was there last time is
// there again, for a fraction of what a sync costs, yielding and never sleeping.
func (l *Log) gather(g *group) {
	want := int32(l.lastSize + l.waiting)
	bound := min(l.ioTime/2, maxCohortWait)
	l.wanted, l.patience = int(want), bound
	if yield.Enabled || l.lastSize <= 1 && l.waiting == 0 || g.size.Load() >= want || bound < 10*time.Microsecond {
		return
	}
	l.mu.Lock()
	l.metrics.CohortWaits++
	l.mu.Unlock()
	for end := time.Now().Add(bound); g.size.Load() < want && !g.full.Load() && time.Now().Before(end); {
		runtime.Gosched()
	}
}

// verify compares every batch with the checksum that its caller made (F-42)
// and takes out those that changed, alone.
func (g *group) verify() (good int) {
	for i := range g.members {
		m := &g.members[i]
		if Checksum(g.buf[m.start:m.end]) == m.sum {
			m.index = good
			good++
		} else {
			m.bad = true
		}
	}
	if good == len(g.members) {
		return good
	}
	buf := append(make([]byte, 0, len(g.buf)), headerRoom[:]...)
	for i := range g.members {
		m := &g.members[i]
		if m.bad {
			continue
		}
		buf = appendEntryHeader(buf, m.end-m.start, m.index, m.ops, m.sum)
		start := len(buf)
		buf = append(buf, g.buf[m.start:m.end]...)
		m.start, m.end = start, len(buf)
	}
	g.buf = buf
	return good
}
