package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// moment is the disk at one call, and what was promised then.
type moment struct {
	cut      *simfs.Cut
	call     int
	promised oracle.Promise
}

// EveryCut runs one history in peace and cuts the power at every stride'th call that
// changes something (the seed says with which it begins), from the first call of the first Open to the last of Close. Of
// each cut it opens the corner images and random more, and checks them; one image of
// each is cut again, inside its recovery, once to three times. It is [Crash] without
// chance: no call is left out.
func EveryCut(ctx context.Context, cfg CrashConfig, stride, random int) (CrashReport, error) {
	c := newCrash(cfg)
	fs := simfs.New(&simfs.Options{Seed: cfg.Seed, Damage: cfg.Damage, PessimisticRename: cfg.Seed%2 == 0})
	var mu sync.Mutex
	var moments []moment
	calls := 0
	over := false
	look := errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite || over {
			return nil
		}
		calls++
		if cfg.CutAt > 0 && calls != cfg.CutAt || cfg.CutAt == 0 && calls%stride != int(cfg.Seed)%stride {
			return nil
		}
		// Order: what is promised, then the disk, then what may be there at most.
		m := moment{promised: c.promised(false), call: calls}
		m.cut = fs.Cut()
		c.history.Raise(&m.promised)
		moments = append(moments, m)
		return nil
	})
	o := cfg.Options
	o.FS = errorfs.Wrap(fs, look)
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		return c.rep, err
	}
	c.setEngine(e)
	errs := make([]error, len(c.writers))
	var wg sync.WaitGroup
	for i, rnd := range c.writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = c.write(e, c.history.Lanes()[i], rnd, nil)
		}()
	}
	wg.Wait()
	if err := errors.Join(append(errs, e.Close())...); err != nil {
		return c.rep, err
	}
	mu.Lock()
	over = true
	mu.Unlock()
	for _, n := range c.history.Promised(nil).Most {
		c.rep.Commits += n
	}
	for _, m := range moments {
		c.rnd = rand.New(rand.NewPCG(cfg.Seed, uint64(m.call))) // the same if this is the only one
		deep, n := c.rnd.IntN(len(simfs.Corners())+random), 0
		for image, disk := range m.cut.Images(cfg.Seed, random) {
			if ctx.Err() != nil {
				return c.rep, nil
			}
			c.rep.Cuts++
			depth := 0
			if n++; n == deep+1 {
				depth = 1 + m.call%3
			}
			if err := c.openAndCheck(disk, m.promised, depth); err != nil {
				c.rep.CutAt = m.call
				return c.rep, oracle.WithSeed(fmt.Errorf("cut at call %d of %d, image %v: %w", m.call, calls, image, err), cfg.Seed)
			}
		}
	}
	return c.rep, nil
}

// openAndCheck opens what a cut left, after depth more cuts inside its recovery, in peace.
func (c *crash) openAndCheck(fs *simfs.FS, least oracle.Promise, depth int) error {
	fs, p, err := c.again(fs, promise{now: least, durable: least}, depth)
	if err != nil {
		return err
	}
	o := c.cfg.Options
	o.FS = fs
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		return oracle.Broken(oracle.Lost, "", 0, "open: %w", err)
	}
	c.rep.Opens++
	err = c.history.Check(Store{e}, p.now, e.Recovered().LSN)
	if err == nil {
		err = errors.Join(e.Check(context.Background()), noOrphans(e))
	}
	return errors.Join(err, e.Close())
}
