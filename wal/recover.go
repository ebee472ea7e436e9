package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"slices"
)

// ReplayFuncs take what recovery finds.
type ReplayFuncs struct {
	// Check is asked for every batch of a frame before any of them is replayed.
	// An error that wraps ErrCut says that the record names something missing:
	// an un-promised frame is cut there, a promised one is corruption (3.3.5).
	// May be nil.
	Check func(lsn uint64, payload []byte, ops uint32, promised bool) error
	// Replay takes one batch; the payload is valid only during the call. May be nil.
	Replay func(lsn uint64, payload []byte, ops uint32) error
}

// Loss is something that PointInTime or Salvage dropped.
type Loss struct {
	File     string
	Offset   int64
	Bytes    int64  // 0: unknown
	FirstLSN uint64 // first number that is missing
	LastLSN  uint64 // last number known to have been there; 0: unknown
	What     string
}

// Recovery is what Recover found and what Start will make of it.
type Recovery struct {
	LastLSN   uint64 // last batch of the log, or the watermark if that is higher
	NextLSN   uint64 // first number that Start will give out
	Batches   uint64 // replayed
	Frames    uint64 // read, all kinds
	Segments  int    // parsed
	CutBytes  int64  // of a torn tail, as far as it can be told
	CutFile   string // where the log ends, unless it was closed cleanly
	CutOffset int64
	Clean     bool
	Lost      []Loss // PointInTime and Salvage: exactly what was dropped

	o     Options
	st    State
	files files
	above uint64
	fn    ReplayFuncs

	names   []uint64 // segments on disk, ascending
	temps   []string // temporaries, orphans all
	highest uint64   // of every number in any name

	keep  []*segment // ascending; what stays, with declared ends
	drop  []uint64   // to delete once the successor is there
	aside []uint64   // to move aside before the successor is there (PointInTime)

	// The successor connects at from; the frames of tailNo between tailOff and
	// tailEnd are written again into it; the numbers go on at next.
	from             position
	tailNo           uint64
	tailOff, tailEnd int64
	last             uint64
	promise          uint64 // every number at or below was synced

	// fits is the end of the segments that were read and fit; without one it is
	// where storage ends. A segment whose OPEN does not fit has no say in it.
	fits    position
	started bool
}

// Recover reads the log above the watermark of storage and changes no file.
// See doc.go for the rule that tells a torn tail from corruption.
func Recover(o Options, st State, above uint64, f ReplayFuncs) (*Recovery, error) {
	o, err := o.withDefaults()
	if err != nil {
		return nil, err
	}
	r := &Recovery{o: o, st: st, above: above, fn: f, files: newFiles(o.FS, o.Dir)}
	if err := r.list(); err != nil {
		return nil, err
	}
	if o.Mode == Salvage {
		err = r.salvage()
	} else {
		err = r.recover()
	}
	if err != nil {
		return nil, err
	}
	return r, nil
}

// list sorts every name of the folder into segments, temporaries and the rest.
func (r *Recovery) list() error {
	names, err := r.o.FS.List(r.files.logDir)
	if err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("wal: list %s: %w", r.files.logDir, err)
	}
	r.highest = r.st.SegNo
	for _, name := range names {
		no, seg, ok := parseName(name)
		if !ok {
			r.o.Logger.Warn("wal: unknown file is left alone", "file", r.files.path(name))
			continue
		}
		r.highest = max(r.highest, no)
		switch {
		case seg:
			r.names = append(r.names, no)
		case name == spareName(no):
			r.temps = append(r.temps, name)
		}
	}
	slices.Sort(r.names)
	return nil
}

func (r *Recovery) openSegment(no uint64) (*segmentReader, error) {
	return openSegment(r.o.FS, r.files.path(segmentName(no)), no, r.st.UUID)
}

// chainOf is the segments that connect to the newest one, and those above it
// that have no OPEN: spares, or torn at their very start.
type chainOf struct {
	segs  []*segmentReader // ascending
	heads []*segmentReader // any order
}

func (c *chainOf) close() {
	for _, s := range append(c.segs, c.heads...) {
		// A failed close of a file that was only read loses nothing.
		s.close() //nolint:errcheck
	}
}

// needsPrevious says that numbers above the watermark lie before this segment.
func (r *Recovery) needsPrevious(o *openRecord) bool { return o.lastBefore() > r.above }

// chain finds the newest segment among names and walks back from it to the
// watermark. bad is the lowest number of what is broken.
func (r *Recovery) chain(names []uint64) (c chainOf, bad uint64, err error) {
	i := len(names) - 1
	for ; i >= 0; i-- {
		s, err := r.openSegment(names[i])
		if err != nil {
			return c, names[i], err
		}
		if s.opened {
			c.segs = []*segmentReader{s}
			break
		}
		c.heads = append(c.heads, s)
	}
	if len(c.segs) == 0 {
		return c, 0, nil
	}
	for s := c.segs[0]; r.needsPrevious(&s.open); s = c.segs[0] {
		if s.open.prevSegNo == 0 {
			return c, s.hdr.segNo, corrupt(s.name, framesOffset,
				"the log starts above %d, storage ends at %d", s.open.prevLastLSN, r.above)
		}
		if s.open.prevSegNo >= s.hdr.segNo {
			return c, s.hdr.segNo, corrupt(s.name, framesOffset, "OPEN names a later predecessor")
		}
		p, err := r.openSegment(s.open.prevSegNo)
		if errors.Is(err, fs.ErrNotExist) {
			return c, s.hdr.segNo, &CorruptError{
				File: r.files.path(segmentName(s.open.prevSegNo)), What: "segment is missing", Err: err}
		}
		if err != nil {
			return c, s.hdr.segNo, err
		}
		c.segs = slices.Insert(c.segs, 0, p)
		switch {
		case !p.opened:
			err = corrupt(p.name, framesOffset, "OPEN does not verify, and the segment is not the newest")
		case p.hdr.salt != s.open.prevSalt:
			err = corrupt(p.name, 0, "not the incarnation that segment %d follows", s.hdr.segNo)
		case p.hdr.ownerEpoch > s.hdr.ownerEpoch:
			err = corrupt(s.name, 0, "written by an owner that had been replaced")
		// A file that lost no more than what pads its last frame has the whole frame: the
		// recovery before this one took it, and says where it ends with the padding.
		case s.open.prevEndOffset < framesOffset || s.open.prevEndOffset > int64(align8(int(p.size))):
			err = corrupt(p.name, p.size, "segment %d says that it ends at %d", s.hdr.segNo, s.open.prevEndOffset)
		}
		if err != nil {
			return c, s.hdr.segNo, err
		}
	}
	return c, 0, nil
}

// recover is every mode but Salvage.
func (r *Recovery) recover() error {
	names := r.names
	var c chainOf
	for {
		var bad uint64
		var err error
		c, bad, err = r.chain(names)
		if err == nil {
			break
		}
		c.close()
		if !r.tolerates(err) {
			return err
		}
		// Everything from the break on is out of reach.
		r.lose(err, Loss{})
		i, _ := slices.BinarySearch(names, bad)
		r.aside = append(r.aside, names[i:]...)
		names = names[:i]
	}
	defer c.close()
	w := &walker{above: r.above}
	r.fits = position{last: r.above, next: r.above + 1}
	for i := range len(c.segs) - 1 {
		end := c.segs[i+1].open.prevEndOffset
		stopped, err := r.older(w, c.segs[i], end)
		if err != nil {
			return err
		}
		if stopped {
			for _, s := range c.segs[i+1:] {
				r.aside = append(r.aside, s.hdr.segNo)
			}
			for _, s := range c.heads {
				r.aside = append(r.aside, s.hdr.segNo)
			}
			r.plan(c.segs[:i+1])
			return nil
		}
	}
	if len(c.segs) == 0 {
		if err := r.empty(w, c.heads); err != nil {
			return err
		}
	} else if err := r.newest(w, c.segs[len(c.segs)-1], c.heads); err != nil {
		return err
	}
	r.plan(c.segs)
	return nil
}

// tolerates says that the mode allows going on without what err is about.
func (r *Recovery) tolerates(err error) bool {
	return r.o.Mode == PointInTime && errors.Is(err, ErrCorrupt)
}

func (r *Recovery) lose(err error, l Loss) {
	var ce *CorruptError
	if errors.As(err, &ce) {
		l.File, l.Offset, l.What = ce.File, ce.Offset, ce.What
	} else {
		l.What = err.Error()
	}
	r.Lost = append(r.Lost, l)
	r.o.Logger.Error("wal: dropped", "file", l.File, "offset", l.Offset, "what", l.What,
		"first", l.FirstLSN, "last", l.LastLSN)
}

// older replays a segment that has a successor: all of it was synced before
// the successor began, so any problem is corruption (3.3.1).
func (r *Recovery) older(w *walker, s *segmentReader, end int64) (stopped bool, err error) {
	r.Segments++
	var before position
	s2, err := w.walk(s, end, func(f frame, batches []batch) error {
		r.Frames++
		if err := r.apply(s, f, batches, true); err != nil {
			return err
		}
		before = w.at(s, f.offset+f.size())
		return nil
	})
	if err == nil && s2.off != end {
		err = corrupt(s.name, s2.off, "%s, and the segment is not the newest", s2.what)
	}
	if err == nil && r.st.SegNo == s.hdr.segNo && r.st.Offset == end && r.st.ChainCRC != w.chain {
		err = corrupt(s.name, end, "%s remembers another content", stateName)
	}
	if err == nil {
		r.fits = w.at(s, end)
		return false, nil
	}
	if !r.tolerates(err) {
		return false, err
	}
	if before.segNo == 0 {
		// Not even OPEN could be kept: the log ends before this segment.
		before = r.fits
		r.aside = append(r.aside, s.hdr.segNo)
	}
	if w.part.active {
		before = beforeBatch(w, before)
	}
	r.lose(err, Loss{FirstLSN: before.next, LastLSN: r.st.Synced})
	r.endAt(s, before)
	r.from, r.promise = before, max(w.promised, r.st.Synced)
	return true, nil
}

// apply checks all batches of a frame, then replays them.
func (r *Recovery) apply(s *segmentReader, f frame, batches []batch, promised bool) error {
	if r.fn.Check != nil {
		for _, b := range batches {
			err := r.fn.Check(b.lsn, b.payload, b.ops, promised)
			if errors.Is(err, ErrCut) && promised {
				return &CorruptError{File: s.name, Offset: f.offset,
					What: fmt.Sprintf("promised record %d names something missing", b.lsn), Err: err}
			}
			if err != nil {
				return err
			}
		}
	}
	for _, b := range batches {
		r.Batches++
		if r.fn.Replay == nil {
			continue
		}
		if err := r.fn.Replay(b.lsn, b.payload, b.ops); err != nil {
			return err
		}
	}
	return nil
}

// beforeBatch cuts at p, inside a batch that spans frames: it is removed whole,
// and the log chains on from before its FIRST. If that lies out of sight, the
// number is in storage.
func beforeBatch(w *walker, p position) position {
	if w.part.start.segNo != 0 {
		return w.part.start
	}
	p.cont = false
	return p
}

// beforeOpen is the place that the segment's OPEN connects to.
func beforeOpen(s *segmentReader) position {
	o := &s.open
	return position{
		segNo: o.prevSegNo, salt: o.prevSalt, off: o.prevEndOffset, chain: o.prevChain,
		last: o.prevLastLSN, next: o.firstLSN, cont: o.cont,
	}
}

func (r *Recovery) endAt(s *segmentReader, p position) {
	r.last = p.last
	r.LastLSN = max(p.last, r.above)
	r.CutFile, r.CutOffset = s.name, p.off
	if p.segNo != s.hdr.segNo {
		r.CutFile = r.files.path(segmentName(p.segNo))
	}
	// One past the ceiling, so that a number that a client saw and a crash
	// took back is never given to another write.
	r.NextLSN = max(r.st.IssuedCeiling, r.above)
	if r.st.lostSlot {
		r.NextLSN += r.o.lease // the lost slot may have leased one block more
	}
	r.NextLSN = max(r.NextLSN+1, p.next)
}

// plan decides what becomes of every file.
func (r *Recovery) plan(segs []*segmentReader) {
	slices.Sort(r.aside)
	r.aside = slices.Compact(r.aside)
	in := make(map[uint64]*segment, len(segs))
	bound := r.from.last
	if r.from.cont {
		bound = r.from.next // of the batch that goes on; a jump may lie before it
	}
	for i := len(segs) - 1; i >= 0; i-- {
		s := segs[i]
		if s.hdr.segNo > r.from.segNo {
			continue // everything worth keeping in it is written again
		}
		seg := &segment{no: s.hdr.segNo, salt: s.hdr.salt, seed: s.seed, size: s.size, known: true}
		if s.hdr.segNo == r.from.segNo {
			seg.end, seg.maxLSN = r.from.off, bound
		} else {
			o := &segs[i+1].open
			seg.end, seg.maxLSN = o.prevEndOffset, o.lastBefore()
		}
		in[seg.no] = seg
	}
	first, firstBound := r.from.segNo+1, bound
	if len(segs) > 0 {
		first, firstBound = segs[0].hdr.segNo, segs[0].open.lastBefore()
	}
	for _, no := range r.names {
		switch seg := in[no]; {
		case slices.Contains(r.aside, no):
		case seg != nil:
			r.keep = append(r.keep, seg)
		case no < first:
			// Wholly at or below the watermark, never parsed; it waits for
			// STATE to say so, too (I6).
			r.keep = append(r.keep, &segment{no: no, maxLSN: firstBound})
		default:
			r.drop = append(r.drop, no)
		}
	}
}
