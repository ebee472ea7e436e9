//go:build schedule

package schedule

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"sync"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

const dir = "/store"

// play is one history under way.
type play struct {
	script  Script
	rnd     *rand.Rand
	opts    engine.Options
	mix     fuzz.Mix
	history *oracle.History
	seen    *oracle.Versions // of the lanes' counters
	counts  runner.Counts
	stop    chan struct{}                         // the end has come
	promise struct{ now, durable oracle.Promise } // after kills alone; after a power cut among them

	mu     sync.Mutex
	e      *engine.Engine
	closed bool // the script closed it
}

// Play runs the script once under the scheduler of its seed, ends it by a power cut,
// a kill or a close, opens what is left, and returns the first broken promise.
func Play(script Script) (counts runner.Counts, trace []string, err error) {
	counts, t, err := playScript(script)
	return counts, t.trace, err
}

func playScript(script Script) (runner.Counts, *tape, error) {
	p := &play{
		script: script, counts: runner.Counts{"schedules": 1},
		rnd:     rand.New(rand.NewPCG(script.Seed, 0x706c6179)),
		history: oracle.NewHistory(writers), seen: oracle.NewVersions(writers), stop: make(chan struct{}),
	}
	p.opts = engine.Options{
		MemoryBudget: 16 << 20, DiskReserve: -1, LargeValue: 4 << 10,
		SpaceAmp:     1.05,
		SegmentBytes: []int64{16 << 10, 0}[script.Seed%2],
		Sync:         []engine.SyncPolicy{engine.SyncAlways, engine.SyncAlways, engine.SyncInterval, engine.SyncNever}[script.Seed/2%4],
	}
	p.mix = fuzz.Mix{Keys: 30, Large: p.opts.LargeValue}
	if script.collects() { // values that do not shrink, overwritten at once
		p.opts.Compression = engine.CompressNone
		p.mix.Keys, p.mix.Share = 4, 7
	}
	t, err := under(script.Seed, p.whole)
	p.counts["steps"] += int64(t.steps)
	return p.counts, t, oracle.WithSeed(err, script.Seed)
}

// whole is the history from the first open to the last check.
func (p *play) whole() error {
	fs := simfs.New(&simfs.Options{Seed: p.script.Seed})
	var cut *fuzz.Cutter
	o := p.opts
	cut, o.FS = fuzz.NewCutter(fs, p.rnd, 600, func() {
		p.promise.now, p.promise.durable = p.promised(cut.Kills()), p.promised(false)
		close(p.stop)
	})
	e, err := engine.Open(dir, &o)
	if err != nil {
		if err = cut.Excuse(err); err != nil {
			return fmt.Errorf("open: %w", err)
		}
	} else {
		p.setEngine(e)
		err = cut.Excuse(p.act(e))
		p.countPacks(e)
		if cerr := e.Close(); cerr != nil && err == nil {
			err = cut.Excuse(fmt.Errorf("close: %w", cerr))
		}
		if err != nil {
			return err
		}
		if !cut.Over() {
			// A clean close: everything acknowledged is there, whatever the policy.
			cut.End()
			p.promise.now = p.history.Promised(nil)
			p.promise.durable = p.promise.now
		}
	}
	p.history.Raise(&p.promise.now)
	p.history.Raise(&p.promise.durable)
	p.counts["ends"]++
	return p.recover(cut, p.promise.now)
}

func (p *play) setEngine(e *engine.Engine) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.e = e
}

func (p *play) promised(kill bool) oracle.Promise {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.e == nil || p.opts.Sync == engine.SyncAlways || kill && p.opts.Sync == engine.SyncInterval {
		return p.history.Promised(nil)
	}
	durable := p.e.DurableLSN()
	return p.history.Promised(func(lsn uint64) bool { return lsn <= durable })
}

// recover opens what is left, is ended itself up to three times, opens it twice in
// peace, and checks that it is what was promised, and stays (O5).
func (p *play) recover(cut *fuzz.Cutter, now oracle.Promise) error {
	durable := now
	if cut.Kills() && p.opts.Sync != engine.SyncAlways {
		durable = p.promise.durable
	}
	for range p.script.Seed % 4 {
		var fs vfs.FS
		last := cut
		cut, fs = fuzz.NewCutter(last.Left(), p.rnd, 60, func() {})
		err := p.open(fs, now, func(e *engine.Engine) error {
			if cut.Over() {
				return nil
			}
			err := p.history.Shown(fuzz.Store{R: e}, &now)
			durable = now // what is shown must stay
			cut.End()
			return err
		})
		if err = cut.Excuse(err); err != nil {
			return fmt.Errorf("after an end: %w", err)
		}
		cut.End()
		p.counts["ends"]++
		if !cut.Kills() {
			now = durable
		}
	}
	var digests [2]uint64
	for i := range digests {
		err := p.open(cut.Left(), now, func(e *engine.Engine) (err error) {
			if digests[i], err = oracle.Digest(fuzz.Store{R: e}, oracle.Bounds{}); err != nil {
				return err
			}
			return e.Check(context.Background())
		})
		if err != nil {
			return fmt.Errorf("in peace: %w", err)
		}
	}
	return oracle.Same(digests[0], digests[1])
}

// open opens the store, checks it, lets then have it, and closes it.
func (p *play) open(fs vfs.FS, promise oracle.Promise, then func(*engine.Engine) error) error {
	o := p.opts
	o.FS = fs
	e, err := engine.Open(dir, &o)
	if err != nil {
		return oracle.Broken(oracle.Lost, "", 0, "open: %w", err)
	}
	if err = p.history.Check(fuzz.Store{R: e}, promise, e.Recovered().LSN); err == nil {
		err = then(e)
	}
	p.countPacks(e)
	return errors.Join(err, e.Close())
}

func (p *play) countPacks(e *engine.Engine) {
	m := e.Metrics().Collect
	p.counts["packs removed"] += int64(m.Removed)
	p.counts["packs rewritten"] += int64(m.Rewritten)
}
