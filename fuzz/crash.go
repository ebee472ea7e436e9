package fuzz

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// CrashConfig of one simulated history of power cuts.
type CrashConfig struct {
	Seed    uint64
	Options engine.Options // FS is set by the runner
	Writers int
	Commits int // per writer, until the next cut
	Depth   int // cuts inside recovery before the store may open in peace
	Rounds  int // write, cut, recover; again on what is left
	Damage  simfs.Damage
}

// CrashReport adds up what a history did.
type CrashReport struct {
	Cuts, Opens, Commits, Survived int
}

const crashDir = "/store"

// cutter ends a life at the nth call that changes something: by a power cut, which
// leaves a clone of the file system without some of what was not synced, or by a
// kill, which leaves the file system as it is, page cache and all.
type cutter struct {
	calls atomic.Int64
	at    int64
	kill  bool
	over  atomic.Bool // the end has come
	dead  atomic.Bool // by a kill: nothing changes any more
	once  sync.Once
	note  func() // before the end: what was promised
	left  *simfs.FS
	rnd   *rand.Rand
}

func newCutter(fs *simfs.FS, rnd *rand.Rand, within int, note func()) (*cutter, vfs.FS) {
	c := &cutter{at: 1 + int64(rnd.IntN(within)), kill: rnd.IntN(3) == 0, note: note, left: fs, rnd: rnd}
	return c, errorfs.Wrap(fs, c)
}

func (c *cutter) String() string { return "cutter" }

func (c *cutter) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
		return nil
	}
	if c.calls.Add(1) == c.at {
		c.end()
	}
	if c.dead.Load() && op.Kind != errorfs.OpFileClose {
		return errKilled
	}
	return nil
}

var errKilled = errors.New("fuzz: the process was killed")

// end is the cut; later calls do nothing.
func (c *cutter) end() {
	c.once.Do(func() {
		c.note()
		if c.kill {
			c.dead.Store(true)
		} else {
			c.left = clone(c.left, c.rnd)
		}
		c.over.Store(true)
	})
}

// excuse forgives what a killed process says.
func (c *cutter) excuse(err error) error {
	if c.dead.Load() {
		return nil
	}
	return err
}

// writer owns a part of the key space and remembers what it held after each of its
// commits.
type writer struct {
	id     int
	rnd    *rand.Rand
	models []Model  // models[i] is the state after i commits
	lsns   []uint64 // of the acknowledged ones; lsns[i] belongs to models[i+1]
	issued int      // commits that were begun; guarded by history.mu
}

// unknown is the number of a commit that was never acknowledged.
const unknown = 0

// history is everything that was promised, at one moment.
type history struct {
	mu      sync.Mutex
	writers []*writer
	e       *engine.Engine // nil while it opens
	sync    engine.SyncPolicy
}

func (h *history) setEngine(e *engine.Engine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.e = e
}

// promise is what must come back: for each writer how many commits at least, after
// kills alone and after a power cut among them, and how many at most.
type promise struct{ least, durable, most []int }

// promised loads the lower bound before the cut is made, and the upper bound after.
func (h *history) least(kill bool) []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var durable uint64
	if h.e != nil {
		durable = h.e.DurableLSN()
	}
	// What was written survives a kill, synced or not.
	survives := h.sync == engine.SyncAlways || kill && h.sync == engine.SyncInterval
	out := make([]int, len(h.writers))
	for i, w := range h.writers {
		for n, lsn := range w.lsns {
			// What a reopen has shown is durable, whatever the policy.
			if h.e == nil || lsn <= durable || survives {
				out[i] = n + 1
			}
		}
	}
	return out
}

func (h *history) most() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	out := make([]int, len(h.writers))
	for i, w := range h.writers {
		out[i] = w.issued
	}
	return out
}

// Crash runs one history and returns the first broken promise.
func Crash(cfg CrashConfig) (rep CrashReport, err error) {
	rnd := rand.New(rand.NewPCG(cfg.Seed, 0x63757473))
	h := &history{sync: cfg.Options.Sync}
	for i := range cfg.Writers {
		h.writers = append(h.writers, &writer{id: i, rnd: rand.New(rand.NewPCG(cfg.Seed, uint64(i))), models: []Model{NewModel()}})
	}
	fs := simfs.New(&simfs.Options{Seed: cfg.Seed, Damage: cfg.Damage, PessimisticRename: cfg.Seed%2 == 0})
	for round := range cfg.Rounds {
		if fs, err = h.writeAndCut(cfg, rnd, fs, &rep); err != nil {
			return rep, fmt.Errorf("seed %d, round %d: %w", cfg.Seed, round, err)
		}
	}
	return rep, nil
}

// clone is the disk after a power cut: half of the time a random one, else a corner
// of what is legal.
func clone(fs *simfs.FS, rnd *rand.Rand) *simfs.FS {
	image := simfs.Random
	if rnd.IntN(2) == 0 {
		image = simfs.Corners()[rnd.IntN(len(simfs.Corners()))]
	}
	return fs.Crash(simfs.CrashConfig{Seed: rnd.Uint64(), Image: image})
}

// writeAndCut lets the writers loose, ends their life under them, recovers with
// further ends, and checks what is left.
func (h *history) writeAndCut(cfg CrashConfig, rnd *rand.Rand, fs *simfs.FS, rep *CrashReport) (*simfs.FS, error) {
	var p promise
	stop := make(chan struct{})
	var c *cutter
	o := cfg.Options
	c, o.FS = newCutter(fs, rnd, 40*cfg.Commits, func() {
		p.durable = h.least(false)
		if p.least = p.durable; c.kill {
			p.least = h.least(true)
		}
		close(stop)
	})
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		if err = c.excuse(err); err != nil {
			return nil, fmt.Errorf("open: %w", err)
		}
	} else {
		h.setEngine(e)
		if err := h.runWriters(e, cfg, c, stop); err != nil {
			return nil, err
		}
	}
	p.most = h.most()
	rep.Cuts++
	return h.recover(cfg, rnd, c.left, p, rep)
}

func (h *history) runWriters(e *engine.Engine, cfg CrashConfig, c *cutter, stop chan struct{}) error {
	var wg sync.WaitGroup
	errs := make([]error, len(h.writers))
	for i, w := range h.writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = c.excuse(h.write(e, w, cfg, stop))
		}()
	}
	wg.Wait()
	c.end() // the writers came to their end first
	h.setEngine(nil)
	if err := e.Close(); err != nil {
		errs = append(errs, c.excuse(fmt.Errorf("close: %w", err)))
	}
	return errors.Join(errs...)
}

// write commits until stop, or until the writer has done its share.
func (h *history) write(e *engine.Engine, w *writer, cfg CrashConfig, stop chan struct{}) error {
	for range cfg.Commits {
		select {
		case <-stop:
			return nil
		default:
		}
		b := e.NewBatch()
		next := w.models[len(w.models)-1].Copy()
		if err := w.fill(b, next, cfg.Options.LargeValue); err != nil {
			return err
		}
		h.mu.Lock()
		w.models = append(w.models, next)
		w.issued++
		h.mu.Unlock()
		lsn, err := e.Apply(b)
		b.Close()
		if err != nil {
			return fmt.Errorf("writer %d, commit %d: %w", w.id, w.issued, err)
		}
		h.mu.Lock()
		w.lsns = append(w.lsns, lsn)
		h.mu.Unlock()
		if w.rnd.IntN(15) == 0 {
			if err := e.Flush(context.Background()); err != nil {
				return fmt.Errorf("flush: %w", err)
			}
		}
	}
	return nil
}

// fill makes one commit: its own number, and some writes that go with it.
func (w *writer) fill(b *engine.Batch, m Model, large int) error {
	p := fmt.Sprintf("w%d/", w.id)
	n := fmt.Sprint(len(w.models))
	m.Put(p+"!n", n)
	if err := b.Put([]byte(p+"!n"), []byte(n)); err != nil {
		return err
	}
	for range w.rnd.IntN(5) {
		k := fmt.Sprintf("%sk%02d", p, w.rnd.IntN(30))
		var err error
		switch w.rnd.IntN(10) {
		case 0:
			m.Delete(k)
			err = b.Delete([]byte(k))
		case 1:
			r := Bounds{k, k + "\x00"}
			if u := fmt.Sprintf("%sk%02d", p, w.rnd.IntN(30)); u > k {
				r.Upper = u
			}
			m.DeleteRange(r)
			err = b.DeleteRange([]byte(r.Lower), []byte(r.Upper))
		case 2:
			v := strings.Repeat(n+" large ", large/len(n+" large ")+1)
			m.Put(k, v)
			err = b.Put([]byte(k), []byte(v))
		default:
			v := strings.Repeat(n+".", 1+w.rnd.IntN(200))
			m.Put(k, v)
			err = b.Put([]byte(k), []byte(v))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// recover opens what a cut left, is cut itself up to Depth times, and checks the
// state that comes up in the end against the first promise: recovery may lose
// nothing that a cut inside it did not have to.
func (h *history) recover(cfg CrashConfig, rnd *rand.Rand, fs *simfs.FS, p promise, rep *CrashReport) (*simfs.FS, error) {
	for range cfg.Depth {
		var c *cutter
		o := cfg.Options
		c, o.FS = newCutter(fs, rnd, 60, func() {})
		e, err := engine.Open(crashDir, &o)
		if err = c.excuse(err); err != nil {
			return nil, fmt.Errorf("open after a cut: %w", err)
		}
		rep.Opens++
		if e != nil {
			// What is shown now must stay, if the end comes after it (O5).
			before := !c.over.Load()
			if err := h.check(e, p); err != nil {
				return nil, fmt.Errorf("after a cut: %w", err)
			}
			if before {
				p.least = h.shown(e)
				p.durable = p.least
			}
			c.end()
			if err := c.excuse(e.Close()); err != nil {
				return nil, fmt.Errorf("close after a cut: %w", err)
			}
		}
		if !c.kill {
			p.least = p.durable
		}
		rep.Cuts++
		fs = c.left
	}
	o := cfg.Options
	o.FS = fs
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		return nil, fmt.Errorf("open in peace: %w", err)
	}
	rep.Opens++
	if err := h.check(e, p); err != nil {
		return nil, err
	}
	if err := e.Check(context.Background()); err != nil {
		return nil, fmt.Errorf("check: %w", err)
	}
	h.rewind(e, rep)
	return fs, e.Close()
}

// check applies the oracles O1 to O4.
func (h *history) check(e *engine.Engine, p promise) error {
	recovered := e.Recovered().LSN
	for i, w := range h.writers {
		n, err := survived(e, w)
		if err != nil {
			return err
		}
		if n < p.least[i] {
			return fmt.Errorf("writer %d: %d commits came back, %d were promised (O1)", i, n, p.least[i])
		}
		if n > p.most[i] {
			return fmt.Errorf("writer %d: %d commits came back, %d were made (O2)", i, n, p.most[i])
		}
		prefix := Bounds{fmt.Sprintf("w%d/", i), fmt.Sprintf("w%d0", i)}
		if err := w.models[n].Differs(e.Scan, prefix, false); err != nil {
			return fmt.Errorf("writer %d at commit %d: %w (O2, O3, O4)", i, n, err)
		}
		// No hole: with one order of commits, either all below a number came back.
		for j, lsn := range w.lsns {
			if lsn != unknown && (j < n) != (lsn <= recovered) {
				return fmt.Errorf("writer %d: commit %d has number %d, store is at %d, but %d commits came back (O2)", i, j+1, lsn, recovered, n)
			}
		}
	}
	return nil
}

// shown is how many commits of each writer a reader finds.
func (h *history) shown(e *engine.Engine) []int {
	out := make([]int, len(h.writers))
	for i, w := range h.writers {
		out[i], _ = survived(e, w) // check has read it
	}
	return out
}

func survived(e *engine.Engine, w *writer) (n int, err error) {
	ok, err := e.Has(fmt.Appendf(nil, "w%d/!n", w.id))
	if err != nil || !ok {
		return 0, err
	}
	v, err := e.Get(fmt.Appendf(nil, "w%d/!n", w.id))
	if err != nil {
		return 0, err
	}
	_, err = fmt.Sscan(string(v), &n)
	return n, err
}

// rewind makes what came back the beginning of the next round.
func (h *history) rewind(e *engine.Engine, rep *CrashReport) {
	for _, w := range h.writers {
		n, _ := survived(e, w) // check has read it
		rep.Commits += w.issued
		rep.Survived += n
		w.models = w.models[:n+1]
		for len(w.lsns) < n {
			w.lsns = append(w.lsns, unknown) // in doubt when its process ended, and there
		}
		w.lsns = w.lsns[:n]
		w.issued = n
	}
}
