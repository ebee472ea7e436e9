package wal

import (
	"errors"
	"fmt"
	"hash/crc32"
	"slices"
)

// Start makes the changes that recovery decided, in an order in which a crash
// at any point finds either the old log or the new one:
// STATE{epoch} -> lost segments aside -> successor -> STATE -> orphans.
func (r *Recovery) Start() (*Log, error) {
	switch {
	case r.o.ReadOnly:
		return nil, errReadOnly
	case r.o.Mode == Salvage:
		return nil, fmt.Errorf("%w: what salvage found cannot be continued", errReadOnly)
	case r.started:
		return nil, errors.New("wal: Start was called before")
	}
	r.started = true
	if err := makeDirs(r.o.FS, r.files.logDir); err != nil {
		return nil, fmt.Errorf("wal: start: %w", err)
	}
	sf, err := openStateFile(r.o.FS, r.o.Dir)
	if err != nil {
		return nil, err
	}
	l := newLog(r, sf)
	if err := r.start(l); err != nil {
		if l.cur != nil && l.cur.f != nil {
			err = errors.Join(err, l.cur.f.Close())
		}
		return nil, errors.Join(fmt.Errorf("wal: start: %w", err), sf.f.Close())
	}
	l.run()
	return l, nil
}

func (r *Recovery) start(l *Log) error {
	// The epoch first: a segment of a later epoch than STATE's proves that
	// STATE was put back.
	st := r.st
	st.OwnerEpoch++
	st.Clean = false
	// The two slots never differ by more than one lease; see extendLease.
	st.IssuedCeiling = r.NextLSN - 1
	st.sequence++
	if err := l.stateFile.write(&st); err != nil {
		return err
	}
	if err := r.moveAside(); err != nil {
		return err
	}
	size := r.o.targetBytes()
	need := framesOffset + openBytes + sealBytes + frameHeaderBytes + (r.tailEnd - r.tailOff)
	if size < need {
		size = (need + pageBytes - 1) &^ (pageBytes - 1)
	}
	h := segmentHeader{uuid: st.UUID, segNo: r.highest + 1, salt: r.o.salt(), ownerEpoch: st.OwnerEpoch}
	s, err := r.files.create(h, size)
	if err != nil {
		return err
	}
	l.cur = s
	p, err := r.writeSuccessor(s)
	if err != nil {
		return err
	}
	if err := l.installNew(s); err != nil {
		return err
	}
	// From here on the old segment is read only up to the promised end.
	st.SegNo, st.Offset, st.ChainCRC = s.no, p.off, p.chain
	st.Synced = p.last // a point-in-time cut takes promises back
	st.IssuedCeiling = r.NextLSN - 1 + r.o.lease
	st.sequence++
	st.lostSlot = false
	if err := l.stateFile.write(&st); err != nil {
		return err
	}
	p.next = r.NextLSN
	l.pos, l.synced = p, p
	l.promised = p.last // by STATE
	l.durable.Store(r.LastLSN)
	l.last.Store(r.LastLSN)
	l.state = st
	l.ceiling.Store(st.IssuedCeiling)
	l.flushed = st.Flushed
	l.nextNo = s.no + 1
	l.segs = r.keep
	r.dropOrphans()
	return nil
}

// writeSuccessor writes OPEN and the recovered tail, re-encoded. Never in
// place: after a failed sync the page cache may show what the disk lacks.
func (r *Recovery) writeSuccessor(s *segment) (position, error) {
	p := position{segNo: s.no, salt: s.salt, off: framesOffset, last: r.last, next: r.NextLSN}
	from := r.from
	o := openRecord{
		firstLSN:  from.next,
		prevSegNo: from.segNo, prevSalt: from.salt, prevEndOffset: from.off,
		prevLastLSN: from.last, prevChain: from.chain, cont: from.cont,
		jumpAfter: r.last, jumpTo: r.NextLSN,
	}
	if from.last == r.last {
		o.firstLSN = r.NextLSN
	}
	// What was promised stays promised, and never less than that.
	promise := min(r.promise, from.last)
	chain, err := writeOpen(s, &o, promise)
	if err != nil {
		return p, err
	}
	p.off, p.chain = framesOffset+openBytes, chain
	if r.tailOff == r.tailEnd {
		return p, nil
	}
	old, err := r.openSegment(r.tailNo)
	if err != nil {
		return p, err
	}
	err = r.copyTail(old, s, &p, promise)
	return p, errors.Join(err, old.close())
}

// copyTail writes the DATA frames of the recovered tail again. MARKER and SEAL
// spoke about the old segment and stay behind.
func (r *Recovery) copyTail(old *segmentReader, s *segment, p *position, promise uint64) error {
	var buf []byte
	for off := r.tailOff; off < r.tailEnd; {
		f, payload, ok, err := old.frameAt(off)
		if err != nil {
			return err
		}
		if !ok {
			return corrupt(old.name, off, "changed since it was recovered")
		}
		off += f.size()
		if f.kind != kindData {
			continue
		}
		buf = append(buf[:0], make([]byte, frameHeaderBytes)...)
		buf = append(buf, payload...)
		buf = append(buf, make([]byte, int(f.size())-len(buf))...)
		f.salt, f.offset, f.chain, f.synced = s.salt, p.off, p.chain, promise
		f.payloadCRC = crc32.Update(s.seed, castagnoli, payload)
		p.chain = f.put(buf, s.seed)
		if _, err := s.f.WriteAt(buf, p.off); err != nil {
			return err
		}
		p.off += int64(len(buf))
	}
	return nil
}

// writeOpen writes a segment's first frame and returns its chain checksum.
func writeOpen(s *segment, o *openRecord, promise uint64) (chain uint32, err error) {
	var b [openBytes]byte
	o.put(b[frameHeaderBytes:])
	f := frame{
		kind: kindOpen, payloadLen: openBytes - frameHeaderBytes, salt: s.salt, offset: framesOffset,
		firstLSN: o.firstLSN, chain: o.prevChain, synced: promise,
		payloadCRC: crc32.Update(s.seed, castagnoli, b[frameHeaderBytes:]),
	}
	chain = f.put(b[:], s.seed)
	_, err = s.f.WriteAt(b[:], framesOffset)
	return chain, err
}

// moveAside takes the segments beyond a point-in-time cut out of the log,
// highest first, so that what remains is connected at every moment.
func (r *Recovery) moveAside() error {
	for _, no := range slices.Backward(r.aside) {
		to := fmt.Sprintf("%s%s", asidePrefix, segmentName(no))
		if err := r.o.FS.Rename(r.files.path(segmentName(no)), r.files.path(to)); err != nil {
			return err
		}
	}
	if len(r.aside) == 0 {
		return nil
	}
	return syncDir(r.o.FS, r.files.logDir)
}

// dropOrphans removes what nothing can reach any more. A failure costs only
// space: the next start tries again.
func (r *Recovery) dropOrphans() {
	names := r.temps
	for _, no := range r.drop {
		names = append(names, segmentName(no))
	}
	for _, name := range names {
		if err := r.o.FS.Remove(r.files.path(name)); err != nil {
			r.o.Logger.Warn("wal: orphan stays", "file", r.files.path(name), "err", err)
		}
	}
}
