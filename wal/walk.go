package wal

import "hash/crc32"

// position is a place in the log and everything that must connect there.
type position struct {
	segNo, salt uint64
	off         int64
	chain       uint32
	last        uint64 // last whole batch before
	next        uint64 // number expected after
	cont        bool   // inside a batch that spans frames
}

// batch is one recovered batch.
type batch struct {
	lsn uint64
	entry
}

// walker follows frames across segments and proves that each connects to the
// one before: chain, offsets, numbers, promises.
type walker struct {
	above   uint64 // nothing at or below is handed out
	started bool
	// segments counts the OPENs so far: the first has nothing to be compared with.
	segments int

	last, next        uint64
	jumpAfter, jumpTo uint64
	chain             uint32
	promised          uint64

	part struct {
		active bool
		skip   bool     // its number is not wanted
		need   int      // bytes of the whole encoded batch
		buf    []byte   // what has been gathered of it
		start  position // before FIRST
	}
	entries []entry
	batches []batch
}

type stopKind uint8

const (
	stopEnd    stopKind = iota // the declared end
	stopSeal                   // a SEAL
	stopTorn                   // bytes that do not verify
	stopSplice                 // bytes that verify, but do not belong here
)

// stop is where and why a walk ended.
type stop struct {
	kind      stopKind
	off       int64 // of the frame that failed, or the end
	badHeader bool
	seal      sealRecord
	what      string
}

func (w *walker) at(r *segmentReader, off int64) position {
	return position{
		segNo: r.hdr.segNo, salt: r.hdr.salt, off: off,
		chain: w.chain, last: w.last, next: w.next, cont: w.part.active,
	}
}

// advance moves past a whole batch, over the declared jump if it lies here.
func (w *walker) advance(last uint64) {
	w.last, w.next = last, last+1
	if last == w.jumpAfter {
		w.next = w.jumpTo
	}
}

// walk reads frames from framesOffset to end (0: as far as they go) and calls
// visit after each one. The batches are valid during the call.
func (w *walker) walk(r *segmentReader, end int64, visit func(f frame, batches []batch) error) (stop, error) {
	off := int64(framesOffset)
	for {
		if end != 0 && off == end {
			return stop{kind: stopEnd, off: off}, nil
		}
		f, payload, ok, err := r.frameAt(off)
		if err != nil {
			return stop{}, err
		}
		if !ok {
			s := stop{kind: stopTorn, off: off, badHeader: f.kind == 0, what: "payload does not verify"}
			if s.badHeader {
				s.what = "frame header does not verify"
			}
			return s, nil
		}
		if end != 0 && off+f.size() > end {
			return stop{kind: stopSplice, off: off, what: "frame crosses the declared end"}, nil
		}
		// The chain covers the header as it lies on disk; the payload may have
		// moved the window away from it.
		var hdr [frameHeaderBytes]byte
		f.put(hdr[:], r.seed)
		s, done := w.step(r, f, payload)
		if done && s.kind == stopSplice {
			s.off = off
			return s, nil
		}
		w.chain = crc32.Checksum(hdr[:], castagnoli)
		w.promised = max(w.promised, f.synced)
		if err := visit(f, w.batches); err != nil {
			return stop{off: off}, err
		}
		off += f.size()
		if done {
			s.off = off
			return s, nil
		}
	}
}

// step checks one frame against the state so far and takes it in.
func (w *walker) step(r *segmentReader, f frame, payload []byte) (stop, bool) {
	w.batches = w.batches[:0]
	splice := func(what string) (stop, bool) { return stop{kind: stopSplice, what: what}, true }
	if (f.offset == framesOffset) != (f.kind == kindOpen) {
		return splice("OPEN is not exactly the first frame")
	}
	if f.kind == kindOpen {
		if what := w.stepOpen(f, payload); what != "" {
			return splice(what)
		}
		return stop{}, false
	}
	switch {
	case f.chain != w.chain:
		return splice("frame does not follow the one before it")
	case f.firstLSN != w.next:
		return splice("numbers are not consecutive")
	case f.synced >= f.firstLSN || f.synced < w.promised:
		return splice("promise is impossible")
	}
	switch f.kind {
	case kindMarker:
		if f.payloadLen != 0 || f.count != 0 {
			return splice("MARKER with content")
		}
		return stop{}, false
	case kindSeal:
		seal, ok := parseSeal(payload)
		if !ok || seal.finalLSN != w.last || seal.endOffset != f.offset+f.size() || seal.chain != f.chain {
			return splice("SEAL contradicts its segment")
		}
		return stop{kind: stopSeal, seal: seal}, true
	case kindData:
		if what := w.stepData(r, f, payload); what != "" {
			return splice(what)
		}
		return stop{}, false
	}
	return splice("unknown kind of frame")
}

func (w *walker) stepOpen(f frame, payload []byte) string {
	o, ok := parseOpen(payload)
	switch {
	case !ok || f.chain != o.prevChain || f.firstLSN != o.firstLSN:
		return "OPEN contradicts itself"
	case o.jumpAfter < o.prevLastLSN || o.jumpTo <= o.jumpAfter || o.firstLSN <= o.prevLastLSN:
		return "OPEN declares an impossible jump"
	case o.prevLastLSN == o.jumpAfter && o.firstLSN != o.jumpTo:
		return "OPEN declares two jumps at once"
	case f.synced >= f.firstLSN || f.synced < w.promised:
		return "promise is impossible"
	}
	if !w.started {
		w.started = true
		w.last, w.next = o.prevLastLSN, o.firstLSN
		if o.cont {
			// Its beginning lies in a segment that nobody needs any more.
			w.part.active, w.part.skip = true, true
		}
	}
	if w.segments > 0 && o.prevChain != w.chain {
		return "OPEN names another predecessor"
	}
	w.segments++
	if o.prevLastLSN != w.last || o.firstLSN < w.next || o.cont != w.part.active {
		return "OPEN does not follow the segment before it"
	}
	w.jumpAfter, w.jumpTo, w.next = o.jumpAfter, o.jumpTo, o.firstLSN
	return ""
}

func (w *walker) stepData(r *segmentReader, f frame, payload []byte) string {
	first, middle, last := f.flags&flagFirst != 0, f.flags&flagMiddle != 0, f.flags&flagLast != 0
	if f.flags == 0 {
		if w.part.active {
			return "a batch was left unfinished"
		}
		if f.count == 0 || f.lastLSN() < f.firstLSN {
			return "DATA without a batch"
		}
		if f.firstLSN <= w.jumpAfter && f.lastLSN() > w.jumpAfter {
			return "a group lies across the declared jump"
		}
		if f.lastLSN() > w.above {
			es, err := parseEntries(payload, int(f.count), w.entries[:0])
			if err != nil {
				return err.Error()
			}
			w.entries = es
			for i, e := range es {
				if lsn := f.firstLSN + uint64(i); lsn > w.above {
					w.batches = append(w.batches, batch{lsn, e})
				}
			}
		}
		w.advance(f.lastLSN())
		return ""
	}
	if f.count != 1 || f.flags&(f.flags-1) != 0 || first == w.part.active {
		return "frames of a spanning batch are out of order"
	}
	p := &w.part
	if first {
		p.start = w.at(r, f.offset)
		p.active, p.skip, p.buf = true, f.firstLSN <= w.above, p.buf[:0]
		_, n, h, err := parseEntryHeader(payload, 0)
		if err != nil {
			return err.Error()
		}
		p.need = n + h
	}
	if !p.skip {
		if len(p.buf)+len(payload) > p.need {
			return "a spanning batch is longer than it says"
		}
		p.buf = append(p.buf, payload...)
	}
	if first || middle || !last {
		return ""
	}
	p.active = false
	if !p.skip {
		es, err := parseEntries(p.buf, 1, w.entries[:0])
		if err != nil {
			return err.Error()
		}
		w.entries = es
		w.batches = append(w.batches, batch{f.firstLSN, es[0]})
	}
	w.advance(f.firstLSN)
	return ""
}
