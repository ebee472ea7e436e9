//go:build schedule

package schedule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/yield"
)

// act lets all actors do their steps, and returns the first error of each.
func (p *play) act(e *engine.Engine) error {
	byActor := make(map[int][]Step)
	for _, st := range p.script.Steps {
		byActor[st.Actor] = append(byActor[st.Actor], st)
	}
	const actors = writers + 5
	var wg sync.WaitGroup
	var errs [actors]error
	for a := range actors {
		if len(byActor[a]) == 0 {
			continue
		}
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[a] = p.actor(e, byActor[a])
		}()
	}
	wg.Wait()
	return errors.Join(errs[:]...)
}

// actor does its steps until the end comes, or the engine is closed under it.
func (p *play) actor(e *engine.Engine, steps []Step) error {
	snaps := &snaps{}
	defer snaps.close()
	for _, st := range steps {
		yield.Point(st.Kind.String())
		select {
		case <-p.stop:
			return nil
		default:
		}
		err := p.step(e, snaps, st)
		if p.ended() && errors.Is(err, engine.ErrClosed) {
			return nil
		}
		if err != nil {
			return fmt.Errorf("actor %d, %s: %w", st.Actor, st.Kind, err)
		}
	}
	return nil
}

func (p *play) ended() bool {
	p.mu.Lock()
	defer p.mu.Unlock()
	return p.closed
}

func (p *play) step(e *engine.Engine, snaps *snaps, st Step) error {
	ctx := context.Background()
	rnd := rand.New(rand.NewPCG(st.Seed, 1))
	switch st.Kind {
	case Commit:
		return p.commit(e, p.history.Lanes()[st.Actor], rnd)
	case Read:
		return p.read(e, rnd.IntN(writers))
	case Scan:
		_, err := p.wholeLane(fuzz.Store{R: e}, rnd.IntN(writers))
		return err
	case Snap:
		return snaps.look(p, e)
	case Flush:
		p.counts["flushes"]++ // one goroutine runs at a time
		return e.Flush(ctx)
	case Sync:
		return e.Sync(ctx)
	case Compact:
		return e.Compact(ctx)
	}
	p.mu.Lock()
	p.closed = true
	p.mu.Unlock()
	return e.Close()
}

func (p *play) commit(e *engine.Engine, l *oracle.Lane, rnd *rand.Rand) error {
	b := e.NewBatch()
	defer b.Close()
	n, next := l.Next()
	if err := fuzz.FillBatch(b, l, n, next, rnd, p.mix); err != nil {
		return err
	}
	l.Begin(next)
	lsn, err := e.Apply(b)
	if errors.Is(err, engine.ErrClosed) {
		l.Refused()
	}
	if err != nil {
		return err
	}
	l.Acked(lsn)
	p.seen.Acked(l.ID, uint64(n))
	p.counts["commits"]++
	return nil
}

// read reads a lane's counter, which is its version (O9).
func (p *play) read(e *engine.Engine, lane int) error {
	l := p.history.Lanes()[lane]
	floor := p.seen.Begin(lane)
	n, err := l.Survived(fuzz.Store{R: e})
	if err != nil {
		return err
	}
	p.counts["reads"]++
	return p.seen.End(lane, l.Counter(), floor, uint64(n))
}

// wholeLane scans a lane and checks that it is the state after some whole commit,
// not older than what was acknowledged or read before (O3, O9).
func (p *play) wholeLane(s oracle.Store, lane int) (n int, err error) {
	l := p.history.Lanes()[lane]
	floor := p.seen.Begin(lane)
	n, err = l.Whole(s)
	if err != nil {
		return n, err
	}
	p.counts["scans"]++
	return n, p.seen.End(lane, l.Counter(), floor, uint64(n))
}

// snaps are the snapshots of one actor.
type snaps struct {
	snap   *engine.Snapshot
	frozen *oracle.Frozen
	looks  int
}

// look takes a snapshot, or compares the one that is held with what it was (O8).
func (s *snaps) look(p *play, e *engine.Engine) (err error) {
	if s.snap == nil {
		lane := s.looks % writers
		l := p.history.Lanes()[lane]
		floor := p.seen.Begin(lane)
		if s.snap, err = e.Snapshot(); err != nil {
			return err
		}
		n, err := l.Whole(fuzz.Store{R: s.snap})
		if err != nil {
			return err
		}
		if err := p.seen.End(lane, l.Counter(), floor, uint64(n)); err != nil {
			return err
		}
		p.counts["snapshots"]++
		if err := p.history.At(fuzz.Store{R: s.snap}, s.snap.LSN()); err != nil {
			return err
		}
		s.frozen, err = oracle.Freeze(fuzz.Store{R: s.snap}, s.snap.LSN())
		return err
	}
	if err = s.frozen.Check(); err == nil {
		err = p.history.At(fuzz.Store{R: s.snap}, s.snap.LSN())
	}
	if s.looks++; s.looks%3 == 0 {
		s.close()
	}
	return err
}

func (s *snaps) close() {
	if s.snap != nil {
		_ = s.snap.Close()
		s.snap = nil
	}
}
