package live

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Snapshots checks O8: snapshots are opened at any moment under writers, deletes,
// range deletes, flushes and compactions, and must show the same until they are
// closed; and what they show must be what was committed at or below their number.
// Scans stay open over flushes, over the end of their snapshot, and over Close.
func Snapshots() runner.Runner {
	return runner.Runner{
		Name:  "snapshots",
		About: "a snapshot never changes, whatever is written, flushed or closed under it",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			s := &snapshots{hands: newHands(ctx), seed: seed}
			err := s.run()
			return s.counts, oracle.WithSeed(err, seed)
		},
	}
}

// Hands of a case.
const (
	snapshotWriters = 3
	snapshotHolders = 3
)

type snapshots struct {
	*hands
	seed    uint64
	e       *engine.Engine
	history *oracle.History
	// pause is held for reading by each commit from before it begins until it is
	// noted, and for writing by who needs to know all that was committed.
	pause sync.RWMutex
	looks int // at most, at one snapshot
	// excuse is excuseClosed once the store may be closed under the hands.
	excuse func(error) error
}

func (s *snapshots) run() (err error) {
	defer s.cancel()
	rnd := chance(s.seed, 0)
	d, err := newDisk(rnd, s.seed, true)
	if err != nil {
		return err
	}
	defer d.remove()
	if s.e, err = d.open(settings(rnd, s.seed)); err != nil {
		return err
	}
	defer func() { err = errors.Join(err, s.e.Close()) }()
	s.history = oracle.NewHistory(snapshotWriters)
	s.excuse = excuseNone
	closes := rnd.IntN(2) == 0
	if closes {
		s.excuse = excuseClosed
	}
	commits := 40 + rnd.IntN(160)
	s.looks = 12
	if rnd.IntN(4) == 0 { // snapshots pin so much that some give way
		s.looks = 100
		for i := range 2 {
			s.background(func() error { return crowd(s.hands, s.e, chance(s.seed, 101+i), s.excuse) })
		}
	}
	for i := range snapshotWriters {
		s.share(func() error { return s.write(i, commits, chance(s.seed, 1+i)) })
	}
	for i := range snapshotHolders {
		s.background(func() error { return s.hold(chance(s.seed, 10+i)) })
	}
	s.background(func() error { return s.dawdle(chance(s.seed, 20)) })
	s.background(func() error { return churn(s.hands, s.e, chance(s.seed, 100), s.excuse) })
	if closes {
		after := time.Duration(1+rnd.IntN(60)) * time.Millisecond
		s.background(func() error {
			select {
			case <-time.After(after):
			case <-s.ctx.Done():
			}
			return s.e.Close()
		})
	}
	return s.join()
}

// write makes the commits of one lane.
func (s *snapshots) write(lane, commits int, rnd *rand.Rand) error {
	l := s.history.Lanes()[lane]
	for range commits {
		if !s.going() {
			return nil
		}
		if err := s.commit(l, rnd); err != nil {
			if s.excuse(err) == nil {
				return nil
			}
			return fmt.Errorf("writer %d: %w", lane, err)
		}
		breathe(rnd)
	}
	return nil
}

func (s *snapshots) commit(l *oracle.Lane, rnd *rand.Rand) error {
	s.pause.RLock()
	defer s.pause.RUnlock()
	b := s.e.NewBatch()
	defer b.Close()
	n, next := l.Next()
	if err := fuzz.FillBatch(b, l, n, next, rnd, fuzz.Mix{Keys: 30, Large: largeBytes}); err != nil {
		return err
	}
	l.Begin(next)
	lsn, err := s.e.Apply(b)
	if err != nil {
		return err
	}
	l.Acked(lsn)
	s.count("commits", 1)
	return nil
}

// hold opens one snapshot after the other and looks at each again and again.
func (s *snapshots) hold(rnd *rand.Rand) error {
	for s.going() {
		err := s.holdOne(rnd)
		switch {
		case errors.Is(err, engine.ErrSnapshotTooOld):
			s.count("gave way", 1)
		case err != nil && s.excuse(err) != nil:
			return err
		case err != nil:
			return nil // closed
		}
	}
	return nil
}

func (s *snapshots) holdOne(rnd *rand.Rand) (err error) {
	p := s.history.Promised(nil)
	snap, err := s.e.Snapshot()
	if err != nil {
		return err
	}
	s.history.Raise(&p)
	s.count("snapshots", 1)
	defer snap.Close()
	store := fuzz.Store{R: snap}
	frozen, err := oracle.Freeze(store, snap.LSN())
	if err != nil {
		return err
	}
	seen, err := takePicture(snap)
	if err != nil {
		return err
	}
	for range 1 + rnd.IntN(s.looks) {
		breathe(rnd)
		switch rnd.IntN(4) {
		case 0, 1:
			err = frozen.Check()
		case 2:
			err = seen.gets(snap, rnd)
		default:
			err = seen.walk(snap, rnd.IntN(2) == 0, nil)
		}
		if err != nil {
			return err
		}
		s.count("looks", 1)
	}
	if rnd.IntN(4) != 0 {
		return nil
	}
	s.pause.Lock()
	defer s.pause.Unlock()
	if !s.going() || s.e.Err() != nil {
		return nil // a commit may have ended without an answer
	}
	if err := s.history.Check(store, p, snap.LSN()); err != nil {
		return fmt.Errorf("snapshot %d: %w", snap.LSN(), err)
	}
	s.count("compared with history", 1)
	return nil
}

// dawdle scans snapshots so slowly that flushes, the snapshot's own end and Close
// come in between.
func (s *snapshots) dawdle(rnd *rand.Rand) error {
	for s.going() {
		snap, err := s.e.Snapshot()
		if err != nil {
			return s.excuse(err)
		}
		seen, err := takePicture(snap)
		closeAt := -1
		if err == nil {
			if rnd.IntN(3) == 0 {
				closeAt = rnd.IntN(len(seen) + 1)
			}
			err = seen.walk(snap, rnd.IntN(2) == 0, func(i int) {
				if i == closeAt {
					snap.Close()
				}
				if rnd.IntN(8) == 0 {
					time.Sleep(time.Duration(rnd.IntN(500)) * time.Microsecond)
				}
			})
		}
		snap.Close()
		s.count("slow scans", 1)
		time.Sleep(time.Duration(rnd.IntN(300)) * time.Microsecond)
		switch {
		case err == nil, errors.Is(err, engine.ErrSnapshotTooOld):
		case closeAt >= 0 && errors.Is(err, engine.ErrClosed):
		case s.excuse(err) == nil:
			s.count("scans over close", 1)
			return nil
		default:
			return err
		}
	}
	return nil
}

// picture is everything a snapshot showed at first, in order.
type picture []shown

type shown struct {
	key, value []byte
	revision   uint64
}

func takePicture(snap *engine.Snapshot) (picture, error) {
	var p picture
	for item, err := range snap.Scan(engine.Range{}) {
		var v []byte
		if err == nil {
			v, err = item.Value()
		}
		if err != nil {
			return nil, err
		}
		p = append(p, shown{bytes.Clone(item.Key()), bytes.Clone(v), item.Revision()})
	}
	return p, nil
}

// walk scans the snapshot again and compares it, item by item: a scan that ends with
// an error was right until then. slowly runs before each item.
func (p picture) walk(snap *engine.Snapshot, reverse bool, slowly func(i int)) error {
	i := 0
	for item, err := range snap.Scan(engine.Range{Reverse: reverse}) {
		if err != nil {
			return err
		}
		if i == len(p) {
			return oracle.Broken(oracle.Moved, string(item.Key()), snap.LSN(), "is new in the snapshot")
		}
		want := p[i]
		if reverse {
			want = p[len(p)-1-i]
		}
		if !bytes.Equal(item.Key(), want.key) || item.Revision() != want.revision {
			return oracle.Broken(oracle.Moved, string(want.key), snap.LSN(), "was at revision %d, now there is %.40q at revision %d",
				want.revision, item.Key(), item.Revision())
		}
		if slowly != nil {
			slowly(i)
		}
		v, err := item.Value()
		if err != nil {
			return err
		}
		if err := want.same(v, snap); err != nil {
			return err
		}
		i++
	}
	if i < len(p) {
		return oracle.Broken(oracle.Moved, "", snap.LSN(), "a scan ended without an error after %d of %d keys", i, len(p))
	}
	return nil
}

func (w shown) same(v []byte, snap *engine.Snapshot) error {
	if bytes.Equal(v, w.value) {
		return nil
	}
	return oracle.Broken(oracle.Moved, string(w.key), snap.LSN(), "is %.40q (%d bytes), was %.40q (%d bytes)",
		v, len(v), w.value, len(w.value))
}

// gets reads some keys one by one, those beside them too.
func (p picture) gets(snap *engine.Snapshot, rnd *rand.Rand) error {
	for range min(len(p), 10) {
		want := p[rnd.IntN(len(p))]
		var v []byte
		var err error
		if rnd.IntN(2) == 0 {
			v, err = snap.Get(want.key)
		} else {
			err = snap.View(want.key, func(b []byte) error {
				v = bytes.Clone(b)
				return nil
			})
		}
		if errors.Is(err, engine.ErrNotFound) {
			return oracle.Broken(oracle.Moved, string(want.key), snap.LSN(), "is gone, a scan of the snapshot showed it")
		}
		if err == nil {
			err = want.same(v, snap)
		}
		if err != nil {
			return err
		}
	}
	return p.absences(snap, rnd)
}

// absences asks for keys that writers use and the snapshot does not have.
func (p picture) absences(snap *engine.Snapshot, rnd *rand.Rand) error {
	have := map[string]bool{}
	for _, s := range p {
		have[string(s.key)] = true
	}
	for range 5 {
		key := fmt.Sprintf("w%d/k%02d", rnd.IntN(snapshotWriters), rnd.IntN(30))
		if has, err := snap.Has([]byte(key)); err != nil {
			return err
		} else if has != have[key] {
			return oracle.Broken(oracle.Moved, key, snap.LSN(), "has says %v, a scan of the snapshot %v", has, have[key])
		}
	}
	return nil
}
