package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/yield"
)

// CrashConfig of one simulated history of power cuts.
type CrashConfig struct {
	Seed    uint64
	Options engine.Options // FS is set by the runner
	Large   int            // how many of ten puts are large; zero is one
	Writers int
	Commits int // per writer, until the next cut
	Depth   int // cuts inside recovery before the store may open in peace
	Rounds  int // write, cut, recover; again on what is left
	Damage  simfs.Damage

	// For a failure that is made smaller. Zero leaves both to the seed.

	Each  []int // commits of each writer, until the next cut; Commits still bounds where it comes
	CutAt int   // the call of the first cut; of EveryCut: the only one
}

// CrashReport adds up what a history did.
type CrashReport struct {
	Cuts, Opens, Commits, Survived int

	// CutAt is the call of the first cut, or the one that [EveryCut] failed at.
	CutAt int
}

const crashDir = "/store"

// crash is a history under way.
type crash struct {
	cfg     CrashConfig
	rnd     *rand.Rand
	history *oracle.History
	writers []*rand.Rand // the choices of each lane
	rep     CrashReport

	mu sync.Mutex
	e  *engine.Engine // nil while it opens
}

func newCrash(cfg CrashConfig) *crash {
	c := &crash{cfg: cfg, rnd: rand.New(rand.NewPCG(cfg.Seed, 0x63757473)), history: oracle.NewHistory(cfg.Writers)}
	for i := range cfg.Writers {
		c.writers = append(c.writers, rand.New(rand.NewPCG(cfg.Seed, uint64(i))))
	}
	return c
}

// Crash runs one history and returns the first broken promise.
func Crash(ctx context.Context, cfg CrashConfig) (CrashReport, error) {
	c := newCrash(cfg)
	fs := simfs.New(&simfs.Options{Seed: cfg.Seed, Damage: cfg.Damage, PessimisticRename: cfg.Seed%2 == 0})
	for round := range cfg.Rounds {
		if ctx.Err() != nil {
			break
		}
		var err error
		if fs, err = c.writeAndCut(fs); err != nil {
			return c.rep, oracle.WithSeed(fmt.Errorf("round %d: %w", round, err), cfg.Seed)
		}
	}
	return c.rep, nil
}

func (c *crash) setEngine(e *engine.Engine) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.e = e
}

// promised is what must come back after an end that comes now.
func (c *crash) promised(kill bool) oracle.Promise {
	c.mu.Lock()
	defer c.mu.Unlock()
	policy := c.cfg.Options.Sync
	if c.e == nil || policy == engine.SyncAlways || kill && policy == engine.SyncInterval {
		// What a reopen has shown is durable, whatever the policy; what was written
		// survives a kill, synced or not.
		return c.history.Promised(nil)
	}
	durable := c.e.DurableLSN()
	return c.history.Promised(func(lsn uint64) bool { return lsn <= durable })
}

// promise holds what must come back after kills alone, and after a power cut among
// them.
type promise struct{ now, durable oracle.Promise }

// writeAndCut lets the writers loose, ends their life under them, recovers with
// further ends, and checks what is left.
func (c *crash) writeAndCut(fs *simfs.FS) (*simfs.FS, error) {
	var p promise
	var cut *Cutter
	stop := make(chan struct{})
	o := c.cfg.Options
	cut, o.FS = NewCutter(fs, c.rnd, 40*c.cfg.Commits, func() {
		p.durable = c.promised(false)
		p.now = c.promised(cut.Kills())
		close(stop)
	})
	if c.rep.CutAt == 0 {
		if c.cfg.CutAt > 0 {
			cut.at = int64(c.cfg.CutAt)
		}
		c.rep.CutAt = int(cut.at)
	}
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		if err = cut.Excuse(err); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	} else {
		c.setEngine(e)
		if err := c.runWriters(e, cut, stop); err != nil {
			return nil, err
		}
	}
	c.history.Raise(&p.now)
	c.history.Raise(&p.durable)
	c.rep.Cuts++
	return c.recover(cut.Left(), p)
}

func (c *crash) runWriters(e *engine.Engine, cut *Cutter, stop chan struct{}) error {
	var wg sync.WaitGroup
	errs := make([]error, len(c.writers))
	for i, rnd := range c.writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = cut.Excuse(c.write(e, c.history.Lanes()[i], rnd, stop))
		}()
	}
	wg.Wait()
	cut.End() // the writers came to their end first
	c.setEngine(nil)
	if err := e.Close(); err != nil {
		errs = append(errs, cut.Excuse(fmt.Errorf("close: %w", err)))
	}
	return errors.Join(errs...)
}

// write commits until stop, or until the writer has done its share.
func (c *crash) write(e *engine.Engine, l *oracle.Lane, rnd *rand.Rand, stop chan struct{}) error {
	var held heldSnapshot
	defer held.close()
	commits := c.cfg.Commits
	if c.cfg.Each != nil {
		commits = c.cfg.Each[l.ID]
	}
	for range commits {
		select {
		case <-stop:
			return nil
		default:
		}
		b := e.NewBatch()
		n, next := l.Next()
		if err := FillBatch(b, l, n, next, rnd, Mix{Keys: 30, Large: c.cfg.Options.LargeValue, Share: c.cfg.Large}); err != nil {
			return err
		}
		l.Begin(next)
		lsn, err := e.Apply(b)
		b.Close()
		if err != nil {
			return fmt.Errorf("writer %d, commit %d: %w", l.ID, n, err)
		}
		l.Acked(lsn)
		if err := held.turn(e, l, next, rnd); err != nil {
			return fmt.Errorf("writer %d, commit %d: %w", l.ID, n, err)
		}
		if rnd.IntN(15) == 0 {
			if err := e.Flush(context.Background()); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
	}
	return nil
}

// heldSnapshot is what a writer keeps looking at while it goes on, so that flushes and
// collections happen under it.
type heldSnapshot struct {
	s     *engine.Snapshot // nil: none
	model oracle.Model
}

// turn takes a snapshot now and then, and compares it some commits later.
func (h *heldSnapshot) turn(e *engine.Engine, l *oracle.Lane, now oracle.Model, rnd *rand.Rand) (err error) {
	switch {
	case rnd.IntN(4) > 0:
		return nil
	case h.s == nil:
		h.model = now
		h.s, err = e.Snapshot()
		return err
	}
	defer h.close()
	if err := h.model.Check(Store{h.s}, l.Bounds(), false); err != nil && !errors.Is(err, engine.ErrSnapshotTooOld) {
		return fmt.Errorf("snapshot at %d: %w", h.s.LSN(), err)
	}
	return nil
}

func (h *heldSnapshot) close() {
	if h.s != nil {
		_ = h.s.Close() // never fails
		h.s = nil
	}
}

// Mix is what commits are made of.
type Mix struct {
	Keys  int // of a lane, less than 100; fewer means more garbage
	Large int // bytes of a value that goes to a pack
	Share int // of ten writes, how many put such a value; zero is one
}

// FillBatch makes commit n of a lane: its counter and some writes, in the batch and in
// the model alike.
func FillBatch(b *engine.Batch, l *oracle.Lane, n int, m oracle.Model, rnd *rand.Rand, mix Mix) error {
	err := b.Put([]byte(l.Counter()), fmt.Append(nil, n))
	put := func(k, v string) error {
		m.Put(k, v)
		return b.Put([]byte(k), []byte(v))
	}
	for range rnd.IntN(5) {
		if err != nil {
			return err
		}
		pick := rnd.IntN(10)
		if pick > 2 && pick < 2+mix.Share {
			pick = 2
		}
		switch k := l.Key(fmt.Sprintf("k%02d", rnd.IntN(mix.Keys))); pick {
		case 0:
			m.Delete(k)
			err = b.Delete([]byte(k))
		case 1:
			r := oracle.Bounds{Lower: k, Upper: k + "\x00"}
			if u := l.Key(fmt.Sprintf("k%02d", rnd.IntN(mix.Keys))); u > k {
				r.Upper = u
			}
			m.DeleteRange(r)
			err = b.DeleteRange([]byte(r.Lower), []byte(r.Upper))
		case 2:
			unit := fmt.Sprintf("%d large ", n)
			err = put(k, strings.Repeat(unit, mix.Large/len(unit)+1))
		default:
			err = put(k, strings.Repeat(fmt.Sprintf("%d.", n), 1+rnd.IntN(200)))
		}
	}
	return err
}

// peace checks what the last recovery shows, and goes on from there.
func (c *crash) peace(e *engine.Engine, p promise) error {
	if err := c.history.Check(Store{e}, p.now, e.Recovered().LSN); err != nil {
		return err
	}
	if err := e.Check(context.Background()); err != nil {
		return fmt.Errorf("check: %w", err)
	}
	if err := noOrphans(e); err != nil {
		return err
	}
	begun, survived, err := c.history.Rewind(Store{e})
	c.rep.Commits += begun
	c.rep.Survived += survived
	return err
}

// noOrphans says, after an open, whether a pack stays that nothing names. The collector
// may just be about to remove one that died since.
func noOrphans(e *engine.Engine) error {
	for range 200 {
		if e.Metrics().Collect.Empty == 0 {
			return nil
		}
		yield.Sleep(10 * time.Millisecond)
	}
	return oracle.Broken(oracle.Leaked, "", 0, "%d packs that nothing names stay after an open", e.Metrics().Collect.Empty)
}

// recover opens what a cut left, is cut itself up to Depth times, and checks the
// state that comes up in the end against the first promise: recovery may lose
// nothing that a cut inside it did not have to.
func (c *crash) recover(fs *simfs.FS, p promise) (*simfs.FS, error) {
	fs, p, err := c.again(fs, p, c.cfg.Depth)
	if err != nil {
		return nil, err
	}
	o := c.cfg.Options
	o.FS = fs
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		return nil, fmt.Errorf("open in peace: %w", err)
	}
	c.rep.Opens++
	return fs, errors.Join(c.peace(e, p), e.Close())
}

// again opens what a cut left depth times, and is cut each time. It returns the disk that
// is left, and what is promised now that something was shown.
func (c *crash) again(fs *simfs.FS, p promise, depth int) (*simfs.FS, promise, error) {
	for range depth {
		o := c.cfg.Options
		var cut *Cutter
		cut, o.FS = NewCutter(fs, c.rnd, 60, func() {})
		e, err := engine.Open(crashDir, &o)
		if err = cut.Excuse(err); err != nil {
			return nil, p, fmt.Errorf("open after a cut: %w", err)
		}
		c.rep.Opens++
		if e != nil {
			// What is shown now must stay, if the end comes after it (O5).
			before := !cut.Over()
			if err := c.history.Check(Store{e}, p.now, e.Recovered().LSN); err != nil {
				return nil, p, errors.Join(fmt.Errorf("after a cut: %w", err), e.Close())
			}
			if before {
				if err := c.history.Shown(Store{e}, &p.now); err != nil {
					return nil, p, err
				}
				p.durable = p.now
			}
			cut.End()
			if err := cut.Excuse(e.Close()); err != nil {
				return nil, p, fmt.Errorf("close after a cut: %w", err)
			}
		}
		if !cut.Kills() {
			p.now = p.durable
		}
		c.rep.Cuts++
		fs = cut.Left()
	}
	return fs, p, nil
}
