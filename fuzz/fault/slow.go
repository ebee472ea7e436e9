package fault

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Slow makes calls late, or lets them hang until they are let go.
func Slow() runner.Runner {
	return runner.Runner{
		Name:  "slow and hanging disks",
		About: "calls that are late or hang: contexts are honoured, reads go on, and nothing is lost when it moves again",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			c := slowCase{rnd: rand.New(rand.NewPCG(seed, 0x736c6f77)), counts: runner.Counts{}}
			var err error
			if seed%4 == 0 {
				err = c.late()
			} else {
				err = c.stalled(seed)
			}
			return c.counts, oracle.WithSeed(err, seed)
		},
	}
}

// slowCase is one store on a disk that takes its time. Lane 0 is what is always
// acknowledged, lane 1 makes the commit that nobody waits for.
type slowCase struct {
	rnd     *rand.Rand
	counts  runner.Counts
	disk    *simfs.FS
	opt     engine.Options
	e       *engine.Engine
	history *oracle.History
}

const (
	shortWait = 20 * time.Millisecond
	// grace is how much later than its context a call may return, on a machine that
	// has much else to do.
	grace = 10 * time.Second
)

// stalls are the calls that hang, one per case.
var stalls = []simfs.Rule{
	{Ops: simfs.OpSyncData, Path: "/store/log/*"},
	{Ops: simfs.OpWrites, Path: "/store/log/*"},
	{Ops: simfs.OpSyncs | simfs.OpWrites, Path: "/store/log/*"},
	{Ops: simfs.OpSyncData, Path: "/store/STATE"},
	{Ops: simfs.OpSyncs, Path: "/store/packs/*"},
	{Ops: simfs.OpSyncs, Path: "MANIFEST-*"},
	{Ops: simfs.OpWrites | simfs.OpSyncs, Path: "*.sst"},
	{Ops: simfs.OpMutations &^ (simfs.OpWrites | simfs.OpCreate)},
}

func (c *slowCase) open() (err error) {
	wl := workload{sync: engine.SyncPolicy(c.rnd.IntN(3))}
	c.opt = wl.options()
	c.disk = simfs.New(nil)
	c.opt.FS = c.disk
	c.history = oracle.NewHistory(2)
	c.e, err = engine.Open(storeDir, &c.opt)
	return err
}

// commit makes the next commit of a lane. A commit in doubt ends its lane.
func (c *slowCase) commit(ctx context.Context, lane int, big bool) error {
	l := c.history.Lanes()[lane]
	n, m := l.Next()
	b := c.e.NewBatch()
	size := 1 + c.rnd.IntN(600)
	if big {
		size = 5000
	}
	v := fmt.Sprintf("%*d", size, n)
	k := l.Key(fmt.Sprint("k", c.rnd.IntN(9)))
	m.Put(k, v)
	if err := errors.Join(b.Put([]byte(l.Counter()), fmt.Append(nil, n)), b.Put([]byte(k), []byte(v))); err != nil {
		return err
	}
	l.Begin(m)
	lsn, err := c.e.ApplyContext(ctx, b)
	switch {
	case err == nil:
		l.Acked(lsn)
		b.Close()
	case errors.Is(err, engine.ErrBusy):
		l.Refused()
	}
	return err
}

func (c *slowCase) commits(n int) error {
	for i := range n {
		if err := c.commit(context.Background(), 0, i%5 == 4); err != nil {
			return fmt.Errorf("commit: %w", err)
		}
	}
	return nil
}

// soon makes a call whose context ends soon: it returns soon after, at most.
func soon(name string, f func(ctx context.Context) error) (err error, broken error) {
	ctx, cancel := context.WithTimeout(context.Background(), shortWait)
	defer cancel()
	err, _ = oracle.Within(grace, name, func() error { return f(ctx) })
	if v := (*oracle.Verdict)(nil); errors.As(err, &v) {
		return nil, err
	}
	return err, nil
}

// late: syncs take 50 ms and more. Everything is slow, and nothing is wrong.
func (c *slowCase) late() error {
	if err := c.open(); err != nil {
		return err
	}
	fault := c.disk.Inject(simfs.Delay(simfs.OpSyncs, "/store/log/*", 50*time.Millisecond))
	err := c.commits(3)
	if err == nil {
		_, err = c.impatient(true)
	}
	if err == nil {
		err = c.commits(3)
	}
	c.counts["delays"] += int64(fault.Fired())
	fault.Remove()
	return c.end(err, c.e.Close)
}

// stalled: calls hang for ever. Whoever gave a context comes back, readers see
// nothing of it, and when the calls are let go everything goes on.
func (c *slowCase) stalled(seed uint64) error {
	if err := c.open(); err != nil {
		return err
	}
	if err := c.commits(8); err != nil {
		return c.end(err, c.e.Close)
	}
	rule := stalls[int(seed)%len(stalls)]
	rule.Name, rule.Every, rule.Stall = "stall", 1, true
	fault := c.disk.Inject(rule)
	closing, err := c.hurry(rule.Path == "" || strings.HasPrefix(rule.Path, "/store/log") || rule.Path == "/store/STATE")
	c.counts["stalls"] += int64(fault.Fired())
	fault.Remove()
	if err == nil && !closing {
		if _, stacks := oracle.Within(grace, "commits after a stall", func() error { err = c.commits(4); return nil }); stacks != "" {
			return oracle.Broken(oracle.Stuck, "", 0, "commits after a stall that has ended:\n%s", stacks)
		}
	}
	return c.end(err, func() error {
		err, _ := oracle.Within(grace, "close after a stall", c.e.Close)
		return err
	})
}

// hurry makes calls with contexts while the disk hangs.
func (c *slowCase) hurry(log bool) (closing bool, err error) {
	if _, err := c.impatient(false); err != nil {
		return false, err
	}
	calls := map[string]func(ctx context.Context) error{"sync": c.e.Sync}
	if !log { // a flush begins behind the group that is being written
		calls["flush"] = c.e.Flush
	}
	for name, f := range calls {
		if err, broken := soon(name, f); broken != nil {
			return false, broken
		} else if err != nil && !errors.Is(err, context.DeadlineExceeded) {
			return false, oracle.Broken(oracle.Lied, "", 0, "%s on a hanging disk: %w", name, err)
		}
	}
	if err := c.read(); err != nil {
		return false, err
	}
	if c.rnd.IntN(2) == 0 {
		return false, nil
	}
	err, broken := soon("close", c.e.CloseContext)
	if broken == nil && err != nil && !errors.Is(err, context.DeadlineExceeded) {
		broken = oracle.Broken(oracle.Lied, "", 0, "close on a hanging disk: %w", err)
	}
	return true, broken
}

// impatient makes a commit and does not wait for it: it is there, in doubt, or
// refused because the engine is busy.
func (c *slowCase) impatient(healthy bool) (done bool, err error) {
	err, broken := soon("commit with a context", func(ctx context.Context) error { return c.commit(ctx, 1, false) })
	switch {
	case broken != nil:
		return false, broken
	case err == nil:
		return true, nil
	case !errors.Is(err, context.DeadlineExceeded) || !errors.Is(err, engine.ErrInDoubt) && !errors.Is(err, engine.ErrBusy):
		if c.opt.Sync == engine.SyncNever && errors.Is(err, context.DeadlineExceeded) {
			c.history.Lanes()[1].Refused() // it waited for the buffer, and was not handed over
			return false, nil
		}
		return false, oracle.Broken(oracle.Lied, "", 0, "commit with a context: %w", err)
	}
	if err := c.e.Err(); err != nil {
		return false, oracle.Broken(oracle.Lied, "", 0, "a slow disk made it read-only (healthy %v): %w", healthy, err)
	}
	return false, nil
}

// read reads what lane 0 has, while the disk hangs.
func (c *slowCase) read() error {
	l := c.history.Lanes()[0]
	err, stacks := oracle.Within(grace, "reads on a hanging disk", func() error {
		_, err := l.Whole(fuzz.Store{R: c.e})
		return err
	})
	if stacks != "" {
		return fmt.Errorf("%w\n%s", err, stacks)
	}
	return err
}

// end closes, opens what is left, and checks it.
func (c *slowCase) end(err error, closeEngine func() error) error {
	err = errors.Join(err, closeEngine())
	if err != nil {
		return fmt.Errorf("%w\n%s", err, struck(c.disk))
	}
	p := c.history.Promised(nil)
	o := c.opt
	o.FS = c.disk.Crash(simfs.CrashConfig{Image: simfs.Nothing}) // a close that went well is durable
	e, err := engine.Open(storeDir, &o)
	if err != nil {
		return oracle.Broken(oracle.Lost, "", 0, "open: %w", err)
	}
	c.counts["recoveries"]++
	err = c.history.Check(fuzz.Store{R: e}, p, 0)
	return errors.Join(err, e.Check(context.Background()), e.Close())
}
