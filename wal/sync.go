package wal

import (
	"fmt"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

// sync makes everything written so far durable: packs first (I3), then the log.
func (l *Log) sync() error {
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	return l.syncLocked()
}

// syncLocked needs syncMu. Older segments were synced before cur was begun, so
// one sync covers all.
func (l *Log) syncLocked() error {
	if err := l.Err(); err != nil {
		return err
	}
	// What is synced is what was written before the sync began, and not what
	// the file holds when it ends.
	l.mu.Lock()
	at, promise, f := l.pos, l.promiseW, l.cur.f
	done := at == l.synced
	l.mu.Unlock()
	yield.Point("wal.sync")
	if done {
		return nil
	}
	if f == nil {
		return ErrClosed
	}
	if l.o.Hooks.BeforeSync != nil {
		if err := l.o.Hooks.BeforeSync(); err != nil {
			return l.poison(fmt.Errorf("wal: before sync: %w", err))
		}
	}
	begin := time.Now()
	if err := f.SyncData(); err != nil {
		return l.poison(fmt.Errorf("wal: sync segment %d: %w", at.segNo, err))
	}
	took := time.Since(begin)
	l.mu.Lock()
	l.synced = at
	l.promised = max(l.promised, promise)
	l.metrics.Syncs++
	l.metrics.SyncTime += took
	l.mu.Unlock()
	// Storage may be ahead of an empty log, and stays so until the first commit.
	yield.Point("wal.sync done")
	if at.last > l.durable.Load() {
		l.durable.Store(at.last)
	}
	return nil
}

// syncTo makes everything at or below lsn durable. Whoever finds a sync under
// way waits for it, looks again, and shares the next one.
func (l *Log) syncTo(lsn uint64) error {
	for l.durable.Load() < lsn {
		if err := l.Err(); err != nil {
			return err
		}
		if l.o.Policy == Never {
			if err := l.drain(); err != nil {
				return err
			}
		}
		l.syncMu.Lock()
		if l.durable.Load() >= lsn {
			l.syncMu.Unlock()
			return nil
		}
		err := l.syncLocked()
		l.syncMu.Unlock()
		if err != nil {
			return err
		}
	}
	return nil
}

func (l *Log) drain() error {
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	if l.closed {
		return nil // Close has written everything, or will say why not
	}
	return l.drainLocked()
}

// writeSeal ends the current segment; next is its successor, 0 at Close. It
// needs the commit lock and no buffer under way.
func (l *Log) writeSeal(next uint64) error {
	var b [sealBytes]byte
	s := sealRecord{finalLSN: l.pos.last, endOffset: l.pos.off + sealBytes, nextSegNo: next, chain: l.pos.chain}
	s.put(b[frameHeaderBytes:])
	return l.writeFrame(b[:], sealBytes-frameHeaderBytes, kindSeal, 0, l.pos.next, 0)
}

// rotate goes on in s: W SEAL(old) -> S(old) -> W OPEN(new). The new segment's
// first sync is that of its first group. It needs the commit lock.
func (l *Log) rotate(s *segment) error {
	if err := l.writeSeal(s.no); err != nil {
		return err
	}
	// The old segment is complete on disk before the new one begins: without
	// this a hole between the two could pass for a torn tail.
	if err := l.sync(); err != nil {
		return err
	}
	l.syncMu.Lock()
	defer l.syncMu.Unlock()
	p := l.pos
	o := openRecord{
		firstLSN: p.next, prevSegNo: p.segNo, prevSalt: p.salt, prevEndOffset: p.off,
		prevLastLSN: p.last, prevChain: p.chain, cont: p.cont,
		jumpAfter: p.last, jumpTo: p.next,
	}
	promise := l.durable.Load()
	chain, err := writeOpen(s, &o, promise)
	if err != nil {
		return l.poison(fmt.Errorf("wal: write segment %d: %w", s.no, err))
	}
	old := l.cur
	if err := old.f.Close(); err != nil {
		l.o.Logger.Warn("wal: close segment", "segment", old.no, "err", err)
	}
	l.mu.Lock() // CopyTo looks at the current segment, too
	old.f, old.end, old.known, old.maxLSN = nil, p.off, true, p.last
	if p.cont {
		old.maxLSN = p.next
	}
	l.segs = append(l.segs, old)
	l.cur = s
	l.pos = position{segNo: s.no, salt: s.salt, off: framesOffset + openBytes, chain: chain, last: p.last, next: p.next, cont: p.cont}
	l.promiseW = promise
	l.metrics.Rotations++
	l.metrics.Bytes += openBytes
	l.mu.Unlock()
	kick(l.makeKick)
	l.arm()
	return nil
}

// writeState makes a new STATE durable: what is synced now, and what change
// adds. A failure poisons: nobody knows what the slot holds.
func (l *Log) writeState(change func(*State)) error {
	l.stateMu.Lock()
	defer l.stateMu.Unlock()
	if l.stateClosed {
		return ErrClosed
	}
	if err := l.Err(); err != nil {
		return err
	}
	l.mu.Lock()
	s := l.state
	s.SegNo, s.Offset, s.ChainCRC, s.Synced = l.synced.segNo, l.synced.off, l.synced.chain, l.synced.last
	l.mu.Unlock()
	if change != nil {
		change(&s)
	}
	s.sequence++
	if err := l.stateFile.write(&s); err != nil {
		return l.poison(err)
	}
	l.mu.Lock()
	moved := s.SegNo != l.state.SegNo
	l.state = s
	l.promised = max(l.promised, s.Synced)
	l.flushed = s.Flushed
	l.metrics.StateWrites++
	l.mu.Unlock()
	l.ceiling.Store(s.IssuedCeiling)
	if moved {
		kick(l.makeKick) // the segment that STATE named before may be free now
	}
	return nil
}

// SetFlushed tells that storage has everything at or below lsn, durably. When
// it returns, STATE says so; segments wholly at or below are then recycled in
// the background (I6).
func (l *Log) SetFlushed(lsn, generation, packHigh uint64) error {
	// STATE never claims more of storage than of the log.
	if lsn <= l.last.Load() {
		if err := l.syncTo(lsn); err != nil {
			return err
		}
	}
	if l.closedNow() {
		return ErrClosed
	}
	yield.Point("wal.set flushed")
	err := l.writeState(func(s *State) {
		s.Flushed = max(s.Flushed, lsn)
		s.Generation = max(s.Generation, generation)
		s.PackHigh = max(s.PackHigh, packHigh)
	})
	if err == nil {
		kick(l.makeKick)
	}
	return err
}

func (l *Log) closedNow() bool {
	l.mu.Lock()
	defer l.mu.Unlock()
	return l.cur.f == nil
}
