package live

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync/atomic"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// BankCuts is [Bank] with power cuts and kills, in recovery too (O1 to O3): after
// each, all the money is there, each account holds what the logs say, and no transfer
// is missing from the logs that was acknowledged as durable.
func BankCuts() runner.Runner {
	return runner.Runner{
		Name:  "bank under power cuts",
		About: "money moves in batches; a crash takes none, and none of what was acknowledged",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			c := &bankCuts{ctx: ctx, rnd: chance(seed, 0), seed: seed, total: runner.Counts{}}
			err := c.run()
			return c.total, oracle.WithSeed(err, seed)
		},
	}
}

// bankCuts is a case: the same books through one life after the other.
type bankCuts struct {
	ctx   context.Context
	rnd   *rand.Rand
	seed  uint64
	o     engine.Options
	books *bank
	e     atomic.Pointer[engine.Engine] // nil while it opens
	total runner.Counts
}

func (c *bankCuts) run() error {
	c.books = newBank(c.ctx, c.seed, c.rnd)
	c.books.cancel()
	c.o = settings(c.rnd, c.seed)
	fs := simfs.New(&simfs.Options{Seed: c.seed, PessimisticRename: c.rnd.IntN(2) == 0, Ext4Like: c.rnd.IntN(4) == 0})
	if err := c.found(fs); err != nil {
		return err
	}
	for round := range 2 + c.rnd.IntN(4) {
		if c.ctx.Err() != nil {
			return nil
		}
		var err error
		if fs, err = c.round(fs, round); err != nil {
			return fmt.Errorf("round %d: %w", round, err)
		}
	}
	return nil
}

func (c *bankCuts) open(fs *simfs.FS) (*engine.Engine, error) {
	o := c.o
	o.FS = fs
	e, err := engine.Open(storeDir, &o)
	if err != nil {
		return nil, fmt.Errorf("open in peace: %w", err)
	}
	return e, nil
}

// found opens the accounts before anything can go wrong.
func (c *bankCuts) found(fs *simfs.FS) (err error) {
	if c.books.e, err = c.open(fs); err != nil {
		return err
	}
	return errors.Join(c.books.found(), c.books.e.Close())
}

// promised is what must come back after an end that comes now, by a kill or by a
// power cut.
func (c *bankCuts) promised(kill bool) oracle.Promise {
	e := c.e.Load()
	if e == nil || c.o.Sync == engine.SyncAlways || kill && c.o.Sync == engine.SyncInterval {
		return c.books.history.Promised(nil)
	}
	durable := e.DurableLSN()
	return c.books.history.Promised(func(lsn uint64) bool { return lsn <= durable })
}

// promise holds what must come back after kills alone, and after a power cut among
// them.
type promise struct{ now, durable oracle.Promise }

// round lets tellers and auditors work until their life ends under them, and recovers.
func (c *bankCuts) round(fs *simfs.FS, round int) (*simfs.FS, error) {
	var p promise
	var cut *fuzz.Cutter
	life := *c.books
	life.hands = newHands(c.ctx)
	defer life.cancel()
	o := c.o
	cut, o.FS = fuzz.NewCutter(fs, c.rnd, 20*len(c.books.made)*c.books.transfers/4, func() {
		p.durable = c.promised(false)
		p.now = c.promised(cut.Kills())
		life.cancel()
	})
	e, err := engine.Open(storeDir, &o)
	if err != nil {
		if err = cut.Excuse(err); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	} else {
		c.e.Store(e)
		life.e = e
		life.excuse = func(err error) error { return cut.Excuse(excuseCanceled(err)) }
		life.staff(c.rnd, 1+round)
		err := life.join()
		c.total.Add(life.counts)
		cut.End() // the tellers came to their end first
		c.e.Store(nil)
		if err = errors.Join(err, cut.Excuse(e.Close())); err != nil {
			return nil, err
		}
	}
	c.books.history.Raise(&p.now)
	c.books.history.Raise(&p.durable)
	c.ended(cut)
	return c.recover(cut.Left(), p)
}

func (c *bankCuts) ended(cut *fuzz.Cutter) {
	if cut.Kills() {
		c.total["kills"]++
	} else {
		c.total["cuts"]++
	}
}

func excuseCanceled(err error) error {
	if errors.Is(err, context.Canceled) {
		return nil
	}
	return err
}

// recover opens what an end left, with up to two further ends on the way, and audits
// what comes up in peace against the first promise.
func (c *bankCuts) recover(fs *simfs.FS, p promise) (*simfs.FS, error) {
	for range c.rnd.IntN(3) {
		o := c.o
		var cut *fuzz.Cutter
		cut, o.FS = fuzz.NewCutter(fs, c.rnd, 60, func() {})
		e, err := engine.Open(storeDir, &o)
		if err = cut.Excuse(err); err != nil {
			return nil, fmt.Errorf("open after an end: %w", err)
		}
		if e != nil {
			if err := c.shown(e, cut, &p); err != nil {
				return nil, err
			}
		}
		if !cut.Kills() {
			p.now = p.durable
		}
		c.ended(cut)
		fs = cut.Left()
	}
	e, err := c.open(fs)
	if err != nil {
		return nil, err
	}
	c.total["recoveries"]++
	err = c.books.came(fuzz.Store{R: e}, p.now, e.Recovered().LSN)
	if err == nil {
		var begun, survived int
		begun, survived, err = c.books.rewind(fuzz.Store{R: e})
		c.total["lost unacknowledged"] += int64(begun - survived)
	}
	return fs, errors.Join(err, e.Close())
}

// shown audits a store that opened before its next end. What it shows must stay, if
// the end comes after (O5).
func (c *bankCuts) shown(e *engine.Engine, cut *fuzz.Cutter, p *promise) error {
	before := !cut.Over()
	if err := c.books.came(fuzz.Store{R: e}, p.now, e.Recovered().LSN); err != nil {
		return errors.Join(fmt.Errorf("after an end: %w", err), cut.Excuse(e.Close()))
	}
	if before {
		if err := c.books.history.Shown(fuzz.Store{R: e}, &p.now); err != nil {
			return err
		}
		p.durable = p.now
	}
	c.total["recoveries"]++
	cut.End()
	if err := cut.Excuse(e.Close()); err != nil {
		return fmt.Errorf("close after an end: %w", err)
	}
	return nil
}
