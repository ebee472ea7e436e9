package wal

import (
	"context"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

const (
	bufferBytes = 128 << 10 // one fills while one is written: 256 KiB may be lost at a kill
	bufferDelay = 5 * time.Millisecond
)

// buffers is the Never policy: one buffer takes batches while the other is
// written. It belongs to the commit lock.
type buffers struct {
	cap      int // of one frame's payload
	active   frameBuffer
	pending  frameBuffer
	flushing bool       // pending belongs to the flusher, and so does the file
	idle     *sync.Cond // flushing ended
}

type frameBuffer struct {
	b     []byte // room for the frame's header, then the batches
	body  int    // bytes of the batches, once handed off
	first uint64
	count int
}

func (fb *frameBuffer) reset() {
	fb.b = append(fb.b[:0], headerRoom[:]...)
	fb.count = 0
}

func (bs *buffers) init(l *Log) {
	bs.cap = min(bufferBytes, l.groupCap)
	if l.o.SegmentBytes != 0 {
		// A buffer reserves its whole frame when it is begun; small segments
		// should take more than one.
		bs.cap = min(bs.cap, int(segmentRoom(l.o.SegmentBytes)/4)&^7)
	}
	bs.idle = sync.NewCond(&l.commitMu)
	bs.active.reset()
	bs.pending.reset()
}

// wait waits for a write under way, or for ctx.
func (bs *buffers) wait(ctx context.Context) error {
	if ctx.Done() != nil {
		defer context.AfterFunc(ctx, func() {
			// Under the lock, or the call could fall between the look and the wait.
			bs.idle.L.Lock()
			defer bs.idle.L.Unlock()
			bs.idle.Broadcast()
		})()
		if err := ctx.Err(); err != nil {
			return err
		}
	}
	bs.idle.Wait()
	return ctx.Err() // nothing was handed over yet
}

// commitBuffered is a commit under Never: into the buffer, placed, published.
func (l *Log) commitBuffered(ctx context.Context, payload []byte, ops, sum uint32, arg any) (uint64, error) {
	if Checksum(payload) != sum {
		return 0, ErrChecksum
	}
	l.commitMu.Lock()
	defer l.commitMu.Unlock()
	bs := &l.buf
	need := len(payload) + maxEntryHeader
	for {
		if err := l.Err(); err != nil {
			return 0, err
		}
		if l.closed {
			return 0, ErrClosed
		}
		if bs.active.count == 0 {
			ok, err := l.reserveBuffer(ctx)
			if err != nil {
				return 0, err
			}
			if ok {
				break
			}
			continue // the lock was given away while it waited
		}
		if len(bs.active.b)-frameHeaderBytes+need <= bs.cap {
			break
		}
		if !bs.flushing {
			l.handOff()
			kick(l.flushNow)
			continue
		}
		// Both are full: whoever writes faster than the disk waits here (I10).
		kick(l.flushNow)
		if err := bs.wait(ctx); err != nil {
			return 0, err
		}
	}
	if l.nextLSN > l.ceiling.Load() {
		if err := l.lease(1); err != nil {
			return 0, err
		}
	}
	fb := &bs.active
	lsn := l.nextLSN
	if fb.count == 0 {
		fb.first = lsn
		kick(l.flushKick)
	}
	fb.b = appendEntryHeader(fb.b, len(payload), fb.count, ops, sum)
	fb.b = append(fb.b, payload...)
	fb.count++
	l.nextLSN++
	if l.o.Hooks.Place != nil {
		l.o.Hooks.Place(lsn, payload, ops, arg)
	}
	l.publish(lsn)
	return lsn, nil
}

// reserveBuffer makes sure that a whole buffer will find room when it is
// written: what was acknowledged from memory must not meet a full disk. ok is
// false if it had to wait, and so everything has to be looked at again.
func (l *Log) reserveBuffer(ctx context.Context) (ok bool, err error) {
	bs := &l.buf
	// One MARKER may come in between.
	need := int64(align8(frameHeaderBytes+bs.cap)) + frameHeaderBytes
	l.mu.Lock()
	room := l.curRoom()
	l.mu.Unlock()
	if bs.flushing {
		room -= int64(len(bs.pending.b))
	}
	if need <= room {
		return true, nil
	}
	if bs.flushing {
		return false, bs.wait(ctx)
	}
	return true, l.ensureRoom(need)
}

// handOff gives the active buffer, padded, to whoever writes it next. It needs
// commitMu; until the write is over, pending is only read.
func (l *Log) handOff() {
	bs := &l.buf
	bs.active, bs.pending = bs.pending, bs.active
	fb := &bs.pending
	fb.body = len(fb.b) - frameHeaderBytes
	fb.b = append(fb.b, headerRoom[:align8(len(fb.b))-len(fb.b)]...)
	bs.flushing = true
}

// writePending writes what handOff gave away, and gives it back empty. It must
// not hold commitMu unless locked says so.
func (l *Log) writePending(locked bool) error {
	fb := &l.buf.pending
	count := fb.count
	yield.Point("wal.write buffer")
	err := l.writeFrame(fb.b, fb.body, kindData, 0, fb.first, uint32(count))
	if !locked {
		l.commitMu.Lock()
		defer l.commitMu.Unlock()
	}
	fb.reset()
	l.buf.flushing = false
	l.buf.idle.Broadcast()
	l.mu.Lock()
	l.metrics.Groups++
	l.metrics.Batches += uint64(count)
	l.metrics.LastGroup = count
	l.mu.Unlock()
	l.arm()
	return err
}

// drainLocked writes everything that was acknowledged from memory. It needs
// commitMu, and gives it away while it waits for a write under way.
func (l *Log) drainLocked() error {
	for l.buf.flushing {
		l.buf.idle.Wait()
	}
	if l.buf.active.count == 0 {
		return nil
	}
	l.handOff()
	return l.writePending(true)
}

// flush is the background writer of the Never policy.
func (l *Log) flush() {
	timer := yield.NewTimer(bufferDelay)
	defer timer.Stop()
	defer func() {
		// Close waits for what a committer handed off; nobody hands off any more.
		l.commitMu.Lock()
		left := l.buf.flushing
		l.commitMu.Unlock()
		if left {
			_ = l.writePending(false)
		}
	}()
	for {
		if l.stopped() {
			return
		}
		select {
		case <-l.stop:
			return
		case <-l.flushNow:
		case <-l.flushKick:
			// A buffer was begun; it is written when it is old or full.
			timer.Reset(bufferDelay)
			select {
			case <-l.stop:
				return
			case <-l.flushNow:
			case <-timer.C:
			}
		}
		l.commitMu.Lock()
		switch {
		case l.buf.flushing: // handed off by a committer
		case l.buf.active.count > 0:
			l.handOff()
		default:
			l.commitMu.Unlock()
			continue
		}
		l.commitMu.Unlock()
		// An error has poisoned the log already.
		_ = l.writePending(false)
		// What was begun meanwhile has no kick of its own if it came before
		// the one that is being served.
		kick(l.flushKick)
	}
}
