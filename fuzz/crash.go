package fuzz

import (
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"sync"
	"sync/atomic"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"

	"github.com/holdfastdb/holdfast/engine"
)

// CrashConfig of one simulated history of power cuts.
type CrashConfig struct {
	Seed    uint64
	Options engine.Options // FS is set by the runner
	Writers int
	Commits int // per writer, until the next cut
	Depth   int // cuts inside recovery before the store may open in peace
	Rounds  int // write, cut, recover; again on what is left
}

// CrashReport adds up what a history did.
type CrashReport struct {
	Cuts, Opens, Commits, Survived int
}

const crashDir = "/store"

// cutter clones the file system as a power cut would leave it, at the nth call
// that changes something.
type cutter struct {
	fs    *vfs.MemFS
	calls atomic.Int64
	at    int64
	once  sync.Once
	cut   func()
}

func (c *cutter) String() string { return "cutter" }

func (c *cutter) MaybeError(op errorfs.Op) error {
	if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && c.calls.Add(1) == c.at {
		c.once.Do(c.cut)
	}
	return nil
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

// history is everything that was promised, at one moment.
type history struct {
	mu      sync.Mutex
	writers []*writer
	e       *engine.Engine // nil while it opens
	always  bool
}

func (h *history) setEngine(e *engine.Engine) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.e = e
}

// promise is what must come back: for each writer how many commits at least, and
// how many at most.
type promise struct{ least, most []int }

// promised loads the lower bound before the cut is made, and the upper bound after.
func (h *history) least() []int {
	h.mu.Lock()
	defer h.mu.Unlock()
	var durable uint64
	if h.e != nil {
		durable = h.e.DurableLSN()
	}
	out := make([]int, len(h.writers))
	for i, w := range h.writers {
		for n, lsn := range w.lsns {
			// What a reopen has shown is durable, whatever the policy.
			if h.always || h.e == nil || lsn <= durable {
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
	h := &history{always: cfg.Options.Sync == engine.SyncAlways}
	for i := range cfg.Writers {
		h.writers = append(h.writers, &writer{id: i, rnd: rand.New(rand.NewPCG(cfg.Seed, uint64(i))), models: []Model{NewModel()}})
	}
	fs := vfs.NewCrashableMem()
	for round := range cfg.Rounds {
		if fs, err = h.writeAndCut(cfg, rnd, fs, &rep); err != nil {
			return rep, fmt.Errorf("seed %d, round %d: %w", cfg.Seed, round, err)
		}
	}
	return rep, nil
}

func clone(fs *vfs.MemFS, rnd *rand.Rand) *vfs.MemFS {
	percent := []int{0, 0, 30, 50, 80, 100}[rnd.IntN(6)]
	return fs.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rnd})
}

// writeAndCut lets the writers loose, cuts the power under them, recovers with
// further cuts, and checks what is left.
func (h *history) writeAndCut(cfg CrashConfig, rnd *rand.Rand, fs *vfs.MemFS, rep *CrashReport) (*vfs.MemFS, error) {
	var left *vfs.MemFS
	var p promise
	stop := make(chan struct{})
	c := &cutter{fs: fs, at: 1 + int64(rnd.IntN(40*cfg.Commits))}
	c.cut = func() {
		p.least = h.least()
		left = clone(fs, rnd)
		p.most = h.most()
		close(stop)
	}
	o := cfg.Options
	o.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(c.MaybeError))
	e, err := engine.Open(crashDir, &o)
	if err != nil {
		return nil, fmt.Errorf("open: %w", err)
	}
	h.setEngine(e)
	var wg sync.WaitGroup
	errs := make([]error, len(h.writers))
	for i, w := range h.writers {
		wg.Add(1)
		go func() {
			defer wg.Done()
			errs[i] = h.write(e, w, cfg, stop)
		}()
	}
	wg.Wait()
	c.once.Do(c.cut) // the writers came to their end first
	for _, err := range errs {
		if err != nil {
			return nil, err
		}
	}
	h.setEngine(nil)
	if err := e.Close(); err != nil {
		return nil, fmt.Errorf("close: %w", err)
	}
	rep.Cuts++
	return h.recover(cfg, rnd, left, p, rep)
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
func (h *history) recover(cfg CrashConfig, rnd *rand.Rand, fs *vfs.MemFS, p promise, rep *CrashReport) (*vfs.MemFS, error) {
	for range cfg.Depth {
		var left *vfs.MemFS
		c := &cutter{fs: fs, at: 1 + int64(rnd.IntN(60))}
		c.cut = func() { left = clone(fs, rnd) }
		o := cfg.Options
		o.FS = errorfs.Wrap(fs, errorfs.InjectorFunc(c.MaybeError))
		e, err := engine.Open(crashDir, &o)
		if err != nil {
			return nil, fmt.Errorf("open after a cut: %w", err)
		}
		rep.Opens++
		if err := h.check(e, p); err != nil {
			return nil, fmt.Errorf("after a cut: %w", err)
		}
		c.once.Do(c.cut)
		if err := e.Close(); err != nil {
			return nil, fmt.Errorf("close after a cut: %w", err)
		}
		rep.Cuts++
		fs = left
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
			if (j < n) != (lsn <= recovered) {
				return fmt.Errorf("writer %d: commit %d has number %d, store is at %d, but %d commits came back (O2)", i, j+1, lsn, recovered, n)
			}
		}
	}
	return nil
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
		w.lsns = w.lsns[:min(n, len(w.lsns))]
		w.issued = n
	}
}
