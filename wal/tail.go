package wal

import (
	"errors"
	"fmt"
	"slices"
)

// verdict is what rule 3.3 says about the end of the newest segment.
type verdict struct {
	promised uint64 // every number at or below was synced
	bytes    int64  // of the torn tail, as far as it can be told
	torn     bool   // there is a tail, and not just the end of what was written
	err      error  // an ErrCorrupt
	lost     uint64 // highest number seen behind a bad place
}

// judge applies 3.3.1 to 3.3.4 to a segment whose frames end at s.off.
func (r *Recovery) judge(w *walker, seg *segmentReader, s stop, heads []*segmentReader) (v verdict, err error) {
	st := &r.st
	no := seg.hdr.segNo
	v.promised = max(w.promised, st.Synced)
	fail := func(format string, args ...any) {
		if v.err == nil {
			v.err = corrupt(seg.name, s.off, format, args...)
		}
	}
	if s.kind == stopSplice {
		// A crash leaves bytes that do not verify, never bytes that verify and
		// do not fit: within one incarnation only we write, and in order.
		fail("%s", s.what)
	}
	if s.kind == stopTorn {
		l, err := seg.later(s.off, s.badHeader)
		if err != nil {
			return v, err
		}
		f, ok, err := seg.headerAt(s.off)
		if err != nil {
			return v, err
		}
		if ok {
			v.torn, v.bytes, v.lost = true, f.size(), f.lastLSN()
		}
		if l.found {
			v.torn, v.bytes = true, l.end-s.off
			v.lost = max(v.lost, l.last)
			v.promised = max(v.promised, l.synced)
		}
	}
	if seg.short {
		fail("the file was cut to %d bytes", seg.size)
	}
	for _, h := range heads {
		if h.short {
			fail("%s was cut to %d bytes", h.name, h.size)
		}
		l, err := h.later(framesOffset-8, true)
		if err != nil {
			return v, err
		}
		if !l.found {
			continue // a spare
		}
		v.torn, v.bytes = true, v.bytes+l.end-framesOffset
		v.lost = max(v.lost, l.last)
		v.promised = max(v.promised, l.synced)
		if s.kind != stopSeal || s.seal.nextSegNo != h.hdr.segNo {
			// Nobody writes to a successor before the seal is synced.
			fail("%s, and segment %d goes on", s.what, h.hdr.segNo)
		}
	}
	v.torn = v.torn || w.part.active
	switch {
	case st.SegNo > no:
		fail("%s says that the log extends to segment %d", stateName, st.SegNo)
	case st.SegNo == no && st.Offset > s.off:
		fail("%s says that the log extends to offset %d", stateName, st.Offset)
	case st.Clean && st.SegNo == no && (s.kind != stopSeal || st.Offset != s.off):
		fail("the log was closed at offset %d, but does not end there", st.Offset)
	case st.Clean && st.SegNo != no && !st.lostSlot:
		fail("%s is older than the log", stateName)
	}
	if s.kind == stopSeal && s.seal.nextSegNo != 0 {
		if _, ok := slices.BinarySearch(r.names, s.seal.nextSegNo); !ok {
			fail("its successor, segment %d, is missing", s.seal.nextSegNo)
		}
	}
	if seg.hdr.ownerEpoch > st.OwnerEpoch && !st.lostSlot {
		fail("written in a later open than %s knows", stateName)
	}
	if w.last > st.IssuedCeiling && !st.lostSlot {
		fail("holds number %d, but %s leased only up to %d", w.last, stateName, st.IssuedCeiling)
	}
	// 3.3.3 and 3.3.4 in one: whoever made the promise, it covers what is gone.
	// What storage has is not lost, whatever became of its record.
	if v.promised >= w.next && v.promised > r.above {
		fail("%s, but everything up to %d was synced", cmpOr(s.what, "the log ends here"), v.promised)
	}
	return v, nil
}

func cmpOr(a, b string) string {
	if a != "" {
		return a
	}
	return b
}

// newest recovers the segment whose end has to be judged. It is read twice:
// what is promised to its first frame is known only after its last.
func (r *Recovery) newest(w *walker, s *segmentReader, heads []*segmentReader) error {
	r.Segments++
	st := &r.st
	probe := *w
	probe.part.buf = slices.Clone(w.part.buf)
	probe.entries, probe.batches = nil, nil
	// STATE remembers one place of the log, and what ended there.
	seen := st.SegNo != s.hdr.segNo || st.Offset <= framesOffset
	var odd error
	at, err := probe.walk(s, 0, func(f frame, _ []batch) error {
		if end := f.offset + f.size(); !seen && end >= st.Offset {
			seen = true
			if end != st.Offset || probe.chain != st.ChainCRC {
				odd = corrupt(s.name, f.offset, "%s remembers another content", stateName)
			}
		}
		return nil
	})
	if err != nil {
		return err
	}
	v, err := r.judge(&probe, s, at, heads)
	if err != nil {
		return err
	}
	if odd != nil {
		v.err = odd
	}
	if v.err == nil && r.o.Mode == Absolute && v.torn {
		v.err = corrupt(s.name, at.off, "torn tail of %d bytes", v.bytes)
	}
	if v.err != nil {
		if !r.tolerates(v.err) {
			return v.err
		}
		r.lose(v.err, Loss{FirstLSN: probe.next, LastLSN: max(v.lost, v.promised), Bytes: v.bytes})
		for _, h := range heads {
			r.aside = append(r.aside, h.hdr.segNo)
		}
	}
	return r.tail(w, s, at, v)
}

// errStop ends a walk at a record that is cut (3.3.5).
var errStop = errors.New("stop")

// tail replays the newest segment up to its end and finds the promised end:
// what lies between the two is written again by Start (3.3.6).
func (r *Recovery) tail(w *walker, s *segmentReader, at stop, v verdict) error {
	no := s.hdr.segNo
	var synced int64
	if r.st.SegNo == no {
		synced = r.st.Offset
	}
	// Until something in this segment is promised, not even its OPEN is: then
	// the successor connects to the predecessor.
	from, end := beforeOpen(s), beforeOpen(s)
	if at.off == framesOffset { // OPEN itself does not fit
		from, end = r.fits, r.fits
		r.aside = append(r.aside, no)
	}
	_, err := w.walk(s, at.off, func(f frame, batches []batch) error {
		r.Frames++
		next := f.offset + f.size()
		promised := next <= synced || f.kind == kindData && f.lastLSN() <= v.promised
		err := r.apply(s, f, batches, promised)
		if err != nil && (errors.Is(err, ErrCut) || errors.Is(err, ErrCorrupt)) {
			cut := end
			if f.flags&flagLast != 0 {
				cut = w.part.start
			}
			switch {
			case errors.Is(err, ErrCorrupt):
				if !r.tolerates(err) {
					return err
				}
				r.lose(err, Loss{FirstLSN: f.firstLSN, LastLSN: max(v.lost, v.promised), Bytes: at.off - cut.off})
			case r.o.Mode == Absolute:
				return &CorruptError{File: s.name, Offset: f.offset, What: "a record of the tail cannot be kept", Err: err}
			}
			w.part.active = false
			end = cut
			v.bytes += at.off - f.offset
			return errStop
		}
		if err != nil {
			return err
		}
		end = w.at(s, next)
		if promised {
			from = end
		}
		return nil
	})
	if err != nil && err != errStop {
		return err
	}
	if w.part.active {
		end = beforeBatch(w, end)
	}
	if end.segNo == no && (from.segNo != no || from.off <= end.off) {
		r.tailNo, r.tailOff, r.tailEnd = no, framesOffset, end.off
		if from.segNo == no {
			r.tailOff = from.off
		}
	} else {
		from = end
	}
	r.from, r.promise = from, v.promised
	r.endAt(s, end)
	r.CutBytes = v.bytes
	r.Clean = r.st.Clean && v.err == nil && at.kind == stopSeal && end.off == at.off
	if r.Clean {
		r.CutFile, r.CutOffset = "", 0
	}
	if r.CutBytes > 0 {
		r.o.Logger.Warn("wal: torn tail is cut", "file", r.CutFile, "offset", r.CutOffset, "bytes", r.CutBytes)
	}
	return nil
}

// empty is a log in which no segment was ever begun, or none is left.
func (r *Recovery) empty(w *walker, heads []*segmentReader) error {
	w.last, w.next = 0, 1
	var err error
	bytes := int64(0)
	for _, h := range heads {
		l, lerr := h.later(framesOffset-8, true)
		if lerr != nil {
			return lerr
		}
		if h.short {
			err = corrupt(h.name, h.size, "the file was cut")
		}
		if !l.found {
			continue
		}
		bytes += l.end - framesOffset
		if l.synced > r.above {
			err = corrupt(h.name, framesOffset, "OPEN does not verify, but everything up to %d was synced", l.synced)
		}
	}
	if r.st.SegNo != 0 {
		err = &CorruptError{File: r.files.path(segmentName(r.st.SegNo)), What: fmt.Sprintf(
			"segment is missing; %s says that the log extends to it", stateName)}
	} else if r.st.Synced > r.above {
		err = corrupt(r.files.logDir, 0, "no segment, but everything up to %d was synced", r.st.Synced)
	}
	if err != nil {
		if !r.tolerates(err) {
			return err
		}
		r.lose(err, Loss{FirstLSN: r.above + 1, LastLSN: r.st.Synced})
		for _, h := range heads {
			r.aside = append(r.aside, h.hdr.segNo)
		}
	}
	r.from = position{last: r.above, next: r.above + 1}
	r.last = r.above
	r.LastLSN = r.above
	r.NextLSN = max(r.st.IssuedCeiling, r.above)
	if r.st.lostSlot {
		r.NextLSN += r.o.lease
	}
	r.NextLSN++
	r.Clean = err == nil && bytes == 0
	r.CutBytes = bytes
	return nil
}
