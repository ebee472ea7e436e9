package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/yield"
)

const (
	// growthTime: a segment that fills faster than this asks for larger ones.
	growthTime = 30 * time.Second
	// retained old segments wait to become spares.
	retained = 2
)

type pin struct{ segNo uint64 }

// Pin keeps every segment that exists now from being recycled (I6).
func (l *Log) Pin() (release func()) {
	p := new(pin)
	l.mu.Lock()
	p.segNo = l.cur.no
	l.pins[p] = struct{}{}
	l.mu.Unlock()
	var once sync.Once
	return func() {
		once.Do(func() {
			l.mu.Lock()
			delete(l.pins, p)
			l.mu.Unlock()
			kick(l.makeKick)
		})
	}
}

// retirable says that nobody needs the segment: STATE on disk says that
// storage has all of it, and that the synced log goes on behind it, and nothing
// pins it (I6). STATE may name a segment that is complete while nothing of the
// next one is synced yet; recovery would miss it. It needs mu.
func (l *Log) retirable(s *segment) bool {
	if s.maxLSN > l.flushed || s.no >= l.state.SegNo {
		return false
	}
	for p := range l.pins {
		if s.no <= p.segNo {
			return false
		}
	}
	return true
}

// LiveBytes is the size of the segments that are not recyclable yet; of the
// current one, what is written.
func (l *Log) LiveBytes() int64 {
	l.mu.Lock()
	defer l.mu.Unlock()
	n := l.pos.off
	for _, s := range l.segs {
		if !l.retirable(s) {
			n += s.size
		}
	}
	return n
}

// make prepares the next segment ahead of need and recycles old ones, so that
// a full disk meets the background and not half a group.
func (l *Log) make() {
	for {
		if l.stopped() {
			return
		}
		select {
		case <-l.stop:
			return
		case <-l.makeKick:
		}
		if l.Err() != nil {
			continue
		}
		yield.Point("wal.make")
		l.makeMu.Lock()
		if len(l.spares) == 0 {
			s, err := l.newSegment(l.target)
			if err != nil {
				// The commit that needs it tries again, and says so if it must.
				l.o.Logger.Warn("wal: prepare segment", "err", err)
			} else {
				l.spares = append(l.spares, s)
			}
		}
		for len(l.spares) > 2 {
			last := len(l.spares) - 1
			l.discard(l.spares[last])
			l.spares = l.spares[:last]
		}
		l.removeRetired()
		_ = l.tidy() // whoever needs a segment hears of it
		l.makeMu.Unlock()
	}
}

// takeSpare returns a segment that has room for n bytes of frames (of a
// spanning batch, if span says so: any size helps). Whatever error it returns,
// nothing was written to the log.
func (l *Log) takeSpare(n int64, span bool) (*segment, error) {
	l.makeMu.Lock()
	defer l.makeMu.Unlock()
	now, target := yield.Now(), l.target
	if l.o.SegmentBytes == 0 && now.Sub(l.lastShift) < growthTime {
		target = min(2*target, lastSegmentBytes)
	}
	for len(l.spares) > 0 {
		s := l.spares[0]
		l.spares = l.spares[1:]
		if segmentRoom(s.size) >= n || span && (n > lastSegmentBytes || l.o.SegmentBytes != 0) {
			l.target, l.lastShift = target, now
			return s, nil
		}
		l.discard(s)
	}
	size, least := target, target
	if l.o.SegmentBytes == 0 {
		want := (n + n/1024 + framesOffset + openBytes + sealBytes + pageBytes) &^ (pageBytes - 1)
		least = min(max(want, firstSegmentBytes), lastSegmentBytes)
		size = max(target, least)
	}
	s, err := l.newSegment(size)
	for isDiskFull(err) && size > least { // there may be room for a smaller one
		size = max(size/2, least)
		target = size
		s, err = l.newSegment(size)
	}
	switch {
	case err == nil:
		l.target, l.lastShift = target, now
		return s, nil
	case isDiskFull(err):
		l.target = min(l.target, least) // the next try begins with what might fit
		l.mu.Lock()
		l.metrics.DiskFull++
		l.mu.Unlock()
		return nil, fmt.Errorf("%w: %w", ErrDiskFull, err)
	case isTransient(err):
		return nil, err
	}
	// The group is not in doubt, but the disk is: nothing of it was written.
	l.poison(err) //nolint:errcheck
	return nil, l.Err()
}

// giveBack returns segments that a commit took and did not use.
func (l *Log) giveBack(segs []*segment) {
	if len(segs) == 0 {
		return
	}
	l.makeMu.Lock()
	l.spares = append(segs, l.spares...)
	l.makeMu.Unlock()
	kick(l.makeKick)
}

// newSegment makes a spare: an old segment under a new salt if there is one,
// zeros otherwise. The spare has its final name when this returns, durably. It
// needs makeMu.
func (l *Log) newSegment(size int64) (_ *segment, err error) {
	if err := l.tidy(); err != nil {
		return nil, err
	}
	no := l.nextNo
	// A number is tried once: nobody knows what a failed try left behind.
	l.nextNo++
	l.mu.Lock()
	h := segmentHeader{uuid: l.state.UUID, segNo: no, salt: l.o.salt(), ownerEpoch: l.state.OwnerEpoch}
	var old *segment
	for i, s := range l.segs {
		if s.ours && s.size >= size && l.retirable(s) {
			old = s
			l.segs = append(l.segs[:i:i], l.segs[i+1:]...)
			break
		}
	}
	l.mu.Unlock()
	yield.Point("wal.recycle")
	var s *segment
	if old != nil {
		s, err = l.files.reuse(old, h)
	} else {
		s, err = l.files.create(h, size)
	}
	if err != nil {
		if old != nil { // nobody needs it, under whichever name it is
			l.leftovers = append(l.leftovers, segmentName(old.no))
		}
		return nil, l.giveUp(no, err)
	}
	if err := l.installNew(s); err != nil {
		return nil, l.giveUp(no, errors.Join(err, s.f.Close()))
	}
	l.mu.Lock()
	if old != nil {
		l.metrics.SegmentsRecycled++
	} else {
		l.metrics.SegmentsMade++
	}
	l.mu.Unlock()
	return s, nil
}

// installNew gives a segment its name, unless somebody else has it: then there
// is a second owner, and his file must not be replaced.
func (l *Log) installNew(s *segment) error {
	name := l.files.path(segmentName(s.no))
	if _, err := l.files.fs.Stat(name); err == nil {
		return fmt.Errorf("wal: %s exists: the store has another owner", name)
	} else if !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	err := l.files.install(s)
	if err != nil {
		// The name was free, so whoever has it now is ours: the directory's sync
		// failed behind the rename, or the rename did more than it said.
		l.leftovers = append(l.leftovers, segmentName(s.no))
	}
	return err
}

// maxLeftovers is how many names of failed tries may wait to be removed (I10).
const maxLeftovers = 4

// giveUp ends a try to make segment no: what it left is removed, or noted. A commit that
// finds no descriptor, or no room for a name, is tried again by its caller, and each
// try would leave a whole segment. It needs makeMu.
func (l *Log) giveUp(no uint64, err error) error {
	l.leftovers = append(l.leftovers, spareName(no))
	_ = l.tidy() // the next try says so if it must
	return fmt.Errorf("wal: make segment %d: %w", no, err)
}

// tidy removes what failed tries left. Nothing refers to it, and a name that a crash
// brings back is an orphan that the next start removes. It is an error only if so much
// stays that another try must not add to it. It needs makeMu.
func (l *Log) tidy() error {
	var first error
	stay := l.leftovers[:0]
	for _, name := range l.leftovers {
		err := l.files.fs.Remove(l.files.path(name))
		if err == nil || errors.Is(err, fs.ErrNotExist) {
			continue
		}
		stay = append(stay, name)
		if first == nil {
			first = fmt.Errorf("wal: remove what a failed try left: %w", err)
		}
	}
	if l.leftovers = stay; len(stay) < maxLeftovers {
		return nil
	}
	return first
}

// discard removes a spare. It needs makeMu.
func (l *Log) discard(s *segment) {
	if err := errors.Join(s.f.Close(), l.files.fs.Remove(l.files.path(segmentName(s.no)))); err != nil {
		l.o.Logger.Warn("wal: discard segment", "segment", s.no, "err", err)
	}
}

// removeRetired deletes old segments that nobody needs, oldest first, but for
// a few that will be spares. A name that comes back after a crash is harmless:
// it lies below the watermark. It needs makeMu.
func (l *Log) removeRetired() {
	var gone []*segment
	l.mu.Lock()
	keep, reusable := l.segs[:0:0], 0
	for i := len(l.segs) - 1; i >= 0; i-- {
		s := l.segs[i]
		if l.retirable(s) {
			if !s.ours || s.size < l.target || reusable == retained {
				gone = append(gone, s)
				continue
			}
			reusable++
		}
		keep = append(keep, s)
	}
	for i, j := 0, len(keep)-1; i < j; i, j = i+1, j-1 {
		keep[i], keep[j] = keep[j], keep[i]
	}
	l.segs = keep
	l.metrics.SegmentsRemoved += uint64(len(gone))
	l.mu.Unlock()
	for i := len(gone) - 1; i >= 0; i-- {
		err := l.files.fs.Remove(l.files.path(segmentName(gone[i].no)))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			l.o.Logger.Warn("wal: remove segment", "segment", gone[i].no, "err", err)
		}
	}
}
