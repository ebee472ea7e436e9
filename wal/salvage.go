package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
	"syscall"

	"github.com/cockroachdb/pebble/v2/vfs"
)

// SalvageState stands in for a STATE that cannot be read: it knows what the headers
// of the segments say, the store's identity and its newest owner, and promises
// nothing. Good for Recover in Salvage mode only. Without a header that verifies it
// is fs.ErrNotExist.
func SalvageState(fsys vfs.FS, dir string) (State, error) {
	r := &Recovery{o: Options{FS: fsys, Dir: dir}, files: newFiles(fsys, dir)}
	r.o, _ = r.o.withDefaults() // FS and Dir are all it wants
	if err := r.list(); err != nil {
		return State{}, err
	}
	for i := len(r.names) - 1; i >= 0; i-- {
		h, err := r.headerOf(r.names[i])
		if err == nil {
			return State{UUID: h.uuid, OwnerEpoch: h.ownerEpoch}, nil
		}
		if !errors.Is(err, errHeader) && !isRotten(err) {
			return State{}, err
		}
	}
	return State{}, fmt.Errorf("wal: no segment of %s says whose it is: %w", r.files.logDir, fs.ErrNotExist)
}

func (r *Recovery) headerOf(no uint64) (segmentHeader, error) {
	name := r.files.path(segmentName(no))
	f, err := r.o.FS.Open(name)
	if err != nil {
		return segmentHeader{}, fmt.Errorf("wal: open segment: %w", err)
	}
	defer f.Close()
	b := make([]byte, framesOffset)
	n, err := readFull(f, b, 0)
	if err != nil {
		return segmentHeader{}, fmt.Errorf("wal: read %s: %w", name, err)
	}
	return parseSegmentHeader(b[:n])
}

// isRotten says that the disk cannot give the bytes back: damage, to a salvage.
func isRotten(err error) bool { return errors.Is(err, syscall.EIO) }

// salvager reads whatever verifies, in the order of the numbers, and reports
// what it had to skip. Its result is read-only: nothing can be chained to it.
type salvager struct {
	*Recovery
	w        walker // carries a batch that spans segments
	last     uint64 // last batch handed out
	expect   uint64 // next number; 0: not known
	promised uint64

	endNo uint64 // where the last frame that verifies ends, and its segment
	end   int64
	next  uint64 // the successor that it names, if it is a SEAL
}

func (r *Recovery) salvage() error {
	s := &salvager{Recovery: r, last: r.above, promised: r.st.Synced, expect: r.above + 1}
	ends, failed := r.declaredEnds()
	for _, no := range r.names {
		name := r.files.path(segmentName(no))
		// What failed before has failed, even if it would not fail again: where
		// the segment before it ends is not known.
		seg, err := (*segmentReader)(nil), failed[no]
		if err == nil {
			seg, err = r.openSegment(no)
		}
		if err != nil {
			if !errors.Is(err, ErrCorrupt) && !errors.Is(err, ErrForeign) && !isRotten(err) {
				return err
			}
			r.lose(err, Loss{File: name, FirstLSN: s.expect})
			continue
		}
		r.Segments++
		end, followed := ends[seg.hdr.salt]
		if followed && end >= framesOffset {
			seg.size = min(seg.size, end)
		}
		err = s.segment(seg)
		if isRotten(err) {
			r.lose(err, Loss{File: name, FirstLSN: s.expect})
			err = nil
		}
		if err == nil && seg.short && !followed { // else the successor says what is gone
			r.lose(corrupt(name, seg.size, "the file was cut"), Loss{FirstLSN: s.expect})
		}
		if err = errors.Join(err, seg.close()); err != nil {
			return err
		}
	}
	if s.promised > s.last {
		r.lose(fmt.Errorf("everything up to %d was synced, the last readable batch is %d", s.promised, s.last),
			Loss{FirstLSN: s.last + 1, LastLSN: s.promised})
	}
	if err := s.lostEnd(); err != nil {
		r.lose(err, Loss{FirstLSN: max(s.expect, s.promised+1)})
	}
	r.LastLSN, r.last = s.last, s.last
	r.NextLSN = max(r.st.IssuedCeiling, s.last) + 1
	return nil
}

// lostEnd says why the log went on behind what can be read, as far as SEAL and STATE
// know it; nil if it ends where they say.
func (s *salvager) lostEnd() error {
	st := &s.st
	if s.next != 0 {
		if _, ok := slices.BinarySearch(s.names, s.next); !ok {
			return &CorruptError{File: s.files.path(segmentName(s.next)), What: "segment is missing"}
		}
	}
	name := s.files.path(segmentName(max(s.endNo, st.SegNo)))
	switch {
	case st.SegNo > s.endNo:
		return corrupt(name, 0, "%s says that the log extends to this segment", stateName)
	case st.SegNo == s.endNo && st.Offset > s.end:
		return corrupt(name, s.end, "%s says that the log extends to offset %d", stateName, st.Offset)
	case st.Clean && !st.lostSlot && (st.SegNo != s.endNo || st.Offset != s.end):
		return corrupt(name, s.end, "%s is older than the log", stateName)
	}
	return nil
}

// declaredEnds is, by salt, where segments end that a successor follows. What lies
// behind was cut by a recovery: it is no part of the log, and no loss.
func (r *Recovery) declaredEnds() (ends map[uint64]int64, failed map[uint64]error) {
	ends, failed = make(map[uint64]int64), make(map[uint64]error)
	for _, no := range r.names {
		seg, err := r.openSegment(no)
		if err != nil {
			failed[no] = err
			continue // its turn comes
		}
		if seg.opened {
			ends[seg.open.prevSalt] = seg.open.prevEndOffset
		}
		_ = seg.close() // only read
	}
	return ends, failed
}

func (s *salvager) segment(seg *segmentReader) error {
	for off := int64(framesOffset); off+frameHeaderBytes <= seg.size; {
		f, payload, ok, err := seg.frameAt(off)
		if err != nil {
			return err
		}
		what := "does not verify"
		if ok {
			s.promised = max(s.promised, f.synced)
			if what, err = s.frame(seg, f, payload); err != nil {
				return err
			}
		}
		if what == "" || f.kind == kindData {
			s.endNo, s.end = seg.hdr.segNo, off+f.size()
		}
		if what == "" {
			off += f.size()
			continue
		}
		s.w.part.active = false
		// Step over the bad place to the next frame that verifies.
		next := off + 8
		if f.kind != 0 {
			next = off + f.size()
		}
		found := false
		for ; next+frameHeaderBytes <= seg.size; next += 8 {
			if _, found, err = seg.headerAt(next); err != nil {
				return err
			}
			if found {
				break
			}
		}
		loss := Loss{FirstLSN: s.expect, Bytes: next - off}
		switch {
		case f.kind == kindData:
			loss.FirstLSN, loss.LastLSN, loss.Bytes = f.firstLSN, f.lastLSN(), f.size()
		case !found:
			return nil // the end of what was written
		}
		s.lose(corrupt(seg.name, off, "%s", what), loss)
		off = next
	}
	return nil
}

// frame takes in one frame that verifies. what says why it is of no use.
func (s *salvager) frame(seg *segmentReader, f frame, payload []byte) (what string, err error) {
	w := &s.w
	s.next = 0
	switch f.kind {
	case kindSeal:
		if seal, ok := parseSeal(payload); ok {
			s.next = seal.nextSegNo
		}
		return "", nil
	case kindOpen:
		o, ok := parseOpen(payload)
		if !ok {
			return "OPEN contradicts itself", nil
		}
		s.missing(seg, f.offset, o.prevLastLSN)
		if o.cont && !w.part.active {
			w.part.active, w.part.skip = true, true // its beginning is gone
		} else if !o.cont {
			w.part.active = false
		}
		w.jumpAfter, w.jumpTo = o.jumpAfter, o.jumpTo
		s.expect = max(s.expect, o.firstLSN)
		return "", nil
	case kindData:
	default:
		return "", nil
	}
	s.Frames++
	w.above, w.batches = s.last, w.batches[:0]
	if f.flags == 0 || f.flags&flagFirst != 0 {
		w.part.active = false
	}
	s.missing(seg, f.offset, f.firstLSN-1)
	beheaded := f.flags&(flagMiddle|flagLast) != 0 && w.part.skip && f.firstLSN > s.last
	if what := w.stepData(seg, f, payload); what != "" {
		return what, nil
	}
	if w.part.active {
		return "", nil
	}
	if beheaded {
		s.lose(corrupt(seg.name, f.offset, "the beginning of this batch is gone"),
			Loss{FirstLSN: f.firstLSN, LastLSN: f.firstLSN})
	}
	s.expect = w.next
	for _, b := range w.batches {
		err := s.apply(seg, f, []batch{b}, false)
		if errors.Is(err, ErrCut) {
			s.lose(err, Loss{File: seg.name, Offset: f.offset, FirstLSN: b.lsn, LastLSN: b.lsn})
			continue
		}
		if err != nil {
			return "", err
		}
		s.last = b.lsn
	}
	return "", nil
}

// missing reports the numbers from the expected one to upTo.
func (s *salvager) missing(seg *segmentReader, off int64, upTo uint64) {
	if s.expect != 0 && upTo >= s.expect && upTo > s.above {
		s.lose(corrupt(seg.name, off, "numbers are missing before this frame"),
			Loss{FirstLSN: max(s.expect, s.above+1), LastLSN: upTo})
		s.expect = upTo + 1
	}
}
