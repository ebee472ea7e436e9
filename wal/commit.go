package wal

import (
	"context"
	"errors"
	"fmt"
	"hash/crc32"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

// Commit appends one batch and returns when it is visible and as durable as
// the policy says (I2). The payload is copied before anything can block on
// I/O. sum is its [Checksum], made where the batch entered the engine; a batch
// that changed since fails alone with ErrChecksum. If ctx ends while the batch
// is under way, the error wraps ErrInDoubt and the context's: it may still land.
//
// A ctx that cannot end is by design the cheaper one: such a caller leads its group
// on its own goroutine, and so waits as long as the disk hangs. One that can end
// hands the lead to a goroutine, which a lone writer pays for.
func (l *Log) Commit(ctx context.Context, payload []byte, ops uint32, sum uint32, arg any) (lsn uint64, err error) {
	if len(payload) > maxBatchBytes-maxEntryHeader {
		return 0, ErrTooLarge
	}
	if ctx.Done() != nil {
		if err := ctx.Err(); err != nil {
			return 0, err
		}
	}
	need := len(payload) + maxEntryHeader
	switch {
	case l.o.Policy == Never && need <= l.buf.cap:
		return l.commitBuffered(ctx, payload, ops, sum, arg)
	case need <= l.groupCap && l.o.Policy != Never:
		return l.commitGrouped(ctx, payload, ops, sum, arg)
	}
	return l.commitAlone(ctx, payload, ops, sum, arg)
}

// commitAlone takes a batch that is too large for company.
func (l *Log) commitAlone(ctx context.Context, payload []byte, ops, sum uint32, arg any) (uint64, error) {
	// One at a time: its copy is as large as it is (I10).
	select {
	case l.large <- struct{}{}:
	case <-ctx.Done():
		return 0, ctx.Err()
	}
	l.groupMu.Lock()
	if err := l.admit(); err != nil {
		l.groupMu.Unlock()
		<-l.large
		return 0, err
	}
	l.leaders.Add(1)
	l.groupMu.Unlock()
	g := &group{buf: make([]byte, frameHeaderBytes, align8(frameHeaderBytes+maxEntryHeader+len(payload)))}
	g.add(payload, ops, sum, arg)
	lead := func() {
		defer l.leaders.Done()
		l.commitMu.Lock()
		g.err = l.commit(g)
		l.lastSize, l.waiting = 1, 0
		l.commitMu.Unlock()
		<-l.large
	}
	if ctx.Done() == nil {
		lead()
	} else {
		done := make(chan struct{})
		go func() {
			defer close(done)
			lead()
		}()
		select {
		case <-done:
		case <-ctx.Done():
			return 0, fmt.Errorf("%w: %w", ErrInDoubt, ctx.Err())
		}
	}
	if g.err == nil && g.members[0].bad {
		g.err = ErrChecksum
	}
	if g.err != nil {
		return 0, g.err
	}
	return g.first, nil
}

// commit is write -> sync and place -> publish for one group (I2). It needs
// commitMu. Whatever fails before the first byte is written leaves the log as
// it was: no number is consumed, and a later group may succeed.
func (l *Log) commit(g *group) error {
	if err := l.Err(); err != nil {
		return err
	}
	good := g.verify()
	if good == 0 {
		return nil
	}
	if err := l.drainLocked(); err != nil {
		return err
	}
	if err := l.lease(uint64(good)); err != nil {
		return err
	}
	begin := time.Now()
	g.first = l.nextLSN
	var err error
	if body := len(g.buf) - frameHeaderBytes; body <= l.groupCap {
		if err = l.ensureRoom(int64(align8(len(g.buf)))); err == nil {
			g.buf = append(g.buf, headerRoom[:align8(len(g.buf))-len(g.buf)]...)
			err = l.writeFrame(g.buf, body, kindData, 0, g.first, uint32(good))
		}
	} else {
		err = l.writeSpanning(g)
	}
	if err != nil {
		return err
	}
	yield.Point("wal.written")
	l.nextLSN += uint64(good)
	placed := l.placeBeside(g)
	if l.o.Policy == Always {
		err = l.sync()
	} else {
		// A sync in the background may have failed meanwhile: nothing more is
		// acknowledged (I9).
		err = l.Err()
	}
	if placed != nil {
		<-placed
	}
	if err != nil {
		// The record is written, whoever failed: a reopen may find it.
		if !errors.Is(err, ErrInDoubt) {
			err = fmt.Errorf("%w: %w", ErrInDoubt, err)
		}
		return err
	}
	l.ioTime += (time.Since(begin) - l.ioTime) / 8
	last := l.nextLSN - 1
	yield.Point("wal.synced")
	if placed == nil {
		l.place(g)
	}
	yield.Point("wal.placed")
	l.publish(last)
	l.mu.Lock()
	l.metrics.Groups++
	l.metrics.Batches += uint64(good)
	l.metrics.LastGroup, l.metrics.GroupWanted, l.metrics.GroupWait = good, l.wanted, l.patience
	l.mu.Unlock()
	l.arm()
	return nil
}

// besideOps is how many writes a group must have for placing them to take a good part of
// what its sync does, and many times what it takes to start a goroutine.
const besideOps = 64

// placeBeside places a large group while it is synced, and tells when that is done; nil:
// it is not worth it. Nothing of it can be seen before publish, and if the sync fails
// nothing ever is. What a batch handed over is its owner's to settle only when it is known
// to be committed, so such a group waits.
func (l *Log) placeBeside(g *group) <-chan struct{} {
	if yield.Enabled || l.o.Policy != Always {
		return nil
	}
	ops := uint64(0)
	for i := range g.members {
		if g.members[i].arg != nil {
			return nil
		}
		ops += uint64(g.members[i].ops)
	}
	if ops < besideOps {
		return nil
	}
	placed := make(chan struct{}) // no result by name: that would be an allocation for every group
	go func() {
		defer close(placed)
		l.place(g)
	}()
	return placed
}

// place hands the members of a group to the owner, in their order.
func (l *Log) place(g *group) {
	place := l.o.Hooks.Place
	if place == nil {
		return
	}
	for i := range g.members {
		if m := &g.members[i]; !m.bad {
			place(g.first+uint64(m.index), g.buf[m.start:m.end:m.end], m.ops, m.arg)
		}
	}
}

// publish makes everything at or below last visible. It needs commitMu.
func (l *Log) publish(last uint64) {
	// Order: our own number first. Who reads the published one may ask us to make
	// it durable at once.
	l.last.Store(last)
	if l.o.Hooks.Publish != nil {
		l.o.Hooks.Publish(last)
	}
	yield.Point("wal.published")
	if l.o.Hooks.Between != nil {
		l.o.Hooks.Between(last)
	}
}

// lease makes sure that the next n numbers are below the durable ceiling. The
// keeper extends it ahead; only a burst of a whole block gets here.
func (l *Log) lease(n uint64) error {
	for l.nextLSN+n-1 > l.ceiling.Load() {
		if err := l.extendLease(); err != nil {
			return err
		}
	}
	return nil
}

// extendLease leases one block more, and never two at once: whoever finds the
// newest slot of STATE lost must know how much it may have leased.
func (l *Log) extendLease() error {
	return l.writeState(func(s *State) { s.IssuedCeiling += l.o.lease })
}

// curRoom is what the current segment can still take, its SEAL reserved.
func (l *Log) curRoom() int64 { return l.cur.size - l.pos.off - sealBytes }

// ensureRoom rotates if n bytes of frames do not fit.
func (l *Log) ensureRoom(n int64) error {
	if n <= l.curRoom() {
		return nil
	}
	s, err := l.takeSpare(n, false)
	if err != nil {
		return err
	}
	if err := l.rotate(s); err != nil {
		l.giveBack([]*segment{s})
		return err
	}
	return nil
}

// writeFrame writes one frame with one call. b is header room, payload and
// padding. Only one goroutine writes frames at a time.
func (l *Log) writeFrame(b []byte, payloadLen int, kind, flags uint8, first uint64, count uint32) error {
	if err := l.Err(); err != nil {
		return err
	}
	f := frame{
		kind: kind, flags: flags, payloadLen: uint32(payloadLen),
		salt: l.cur.salt, offset: l.pos.off,
		firstLSN: first, count: count, chain: l.pos.chain,
		// What is known to be synced now, before this frame exists: never
		// more than the truth, whatever is under way.
		synced:     l.durable.Load(),
		payloadCRC: crc32.Update(l.cur.seed, castagnoli, b[frameHeaderBytes:frameHeaderBytes+payloadLen]),
	}
	chain := f.put(b, l.cur.seed)
	n, err := l.cur.f.WriteAt(b, f.offset)
	if err != nil {
		return l.poison(fmt.Errorf("wal: write segment %d: offset %d: %d of %d bytes: %w", l.cur.no, f.offset, n, len(b), err))
	}
	l.mu.Lock()
	l.pos.off += int64(len(b))
	l.pos.chain = chain
	l.promiseW = f.synced
	if kind == kindData {
		if l.pos.cont = flags != 0 && flags != flagLast; !l.pos.cont {
			l.pos.last = f.lastLSN()
			l.pos.next = l.pos.last + 1
		}
	}
	l.metrics.Bytes += uint64(len(b))
	l.mu.Unlock()
	return nil
}

// minChunk is the least that is worth a frame of a spanning batch; the first
// one must hold the batch's header.
const minChunk = 512

// spanRoom is how much of a spanning batch fits into room.
func spanRoom(room int64, chunk int) int64 {
	whole := room / int64(frameHeaderBytes+chunk)
	n := whole * int64(chunk)
	if rest := room - whole*int64(frameHeaderBytes+chunk) - frameHeaderBytes; rest >= minChunk {
		n += rest &^ 7
	}
	return n
}

// writeSpanning writes one large batch as FIRST, MIDDLE, LAST. All segments
// are at hand before the first byte is written, so a full disk hits nothing half.
func (l *Log) writeSpanning(g *group) error {
	left := int64(len(g.buf) - frameHeaderBytes)
	var ahead []*segment
	for have := spanRoom(l.curRoom(), l.groupCap); have < left; {
		s, err := l.takeSpare(left-have, true)
		if err != nil {
			l.giveBack(ahead)
			return err
		}
		ahead = append(ahead, s)
		have += spanRoom(segmentRoom(s.size), l.groupCap)
	}
	n := len(g.buf)
	g.buf = append(g.buf, headerRoom[:align8(n)-n]...)
	var saved [frameHeaderBytes]byte
	for off := 0; left > 0; {
		chunk := min(left, int64(l.groupCap), (l.curRoom()-frameHeaderBytes)&^7)
		if chunk < min(left, minChunk) {
			if err := l.rotate(ahead[0]); err != nil {
				l.giveBack(ahead)
				return err
			}
			ahead = ahead[1:]
			continue
		}
		flags := uint8(flagMiddle)
		switch {
		case off == 0:
			flags = flagFirst
		case chunk == left:
			flags = flagLast
		}
		// The frame's header goes over the 64 bytes before the chunk, which
		// are on their way already, and come back afterwards for Place.
		b := g.buf[off : off+align8(frameHeaderBytes+int(chunk))]
		copy(saved[:], b)
		err := l.writeFrame(b, int(chunk), kindData, flags, g.first, 1)
		copy(b, saved[:])
		if err != nil {
			l.giveBack(ahead)
			return err
		}
		off += int(chunk)
		left -= chunk
	}
	l.giveBack(ahead)
	return nil
}
