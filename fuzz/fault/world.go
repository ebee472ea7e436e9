package fault

import (
	"context"
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/mmap"
	"github.com/holdfastdb/holdfast/wal"
)

const (
	storeDir = "/store"
	// patience is what a call may take, on a machine that has much else to do.
	patience = 30 * time.Second
)

// errOver ends a workload whose store does not open.
var errOver = errors.New("the workload ends here")

// world is a store under a workload, and what it was seen to do.
type world struct {
	kind   Kind
	sticky bool
	disk   *simfs.FS
	fault  *simfs.Fault // nil: peace
	opt    engine.Options

	e        *engine.Engine
	history  *oracle.History
	lane     *oracle.Lane
	model    oracle.Model // after the last acknowledged commit
	durable  uint64       // seen when the engine was about to close
	whole    bool         // the last close went well
	doubt    bool
	nameless bool  // see namelost
	reported error // the first error, or why it is read-only
}

func (w *world) context() (context.Context, context.CancelFunc) {
	return context.WithTimeout(context.Background(), patience/2)
}

// fired is how often the fault struck so far.
func (w *world) fired() int {
	if w.fault == nil {
		return 0
	}
	return w.fault.Fired()
}

// call makes one call of the engine (F1, F2): it returns in time, and its error is
// typed. broken is a verdict, err what the engine said.
func (w *world) call(name string, f func() error) (err, broken error) {
	err, stacks := oracle.Within(patience, name, func() (err error) {
		defer func() {
			if p := recover(); p != nil {
				err = oracle.Broken(oracle.Lied, "", 0, "%s: panic: %v", name, p)
			}
		}()
		return f()
	})
	if v := (*oracle.Verdict)(nil); errors.As(err, &v) {
		if stacks != "" {
			err = fmt.Errorf("%w\n%s", err, stacks)
		}
		return nil, err
	}
	switch {
	case err == nil:
		return nil, nil
	case errors.Is(err, context.DeadlineExceeded):
		return nil, oracle.Broken(oracle.Stuck, "", 0, "%s: %w", name, err)
	case w.fired() == 0:
		return nil, oracle.Broken(oracle.Lied, "", 0, "%s, without a failure: %w", name, err)
	case !w.kind.typed(err):
		return nil, oracle.Broken(oracle.Lied, "", 0, "%s: an error of no known type: %w", name, err)
	}
	w.note(err)
	return err, nil
}

func (w *world) note(err error) {
	if w.reported == nil {
		w.reported = err
	}
}

// open opens the store. Where a failure passed, the second try succeeds.
func (w *world) open() error {
	o := w.opt
	o.FS = w.disk
	for try := 0; ; try++ {
		before := w.fired()
		w.nameless = w.nameless || try > 0 && w.namelost()
		err, broken := w.call("open", func() (err error) { w.e, err = engine.Open(storeDir, &o); return err })
		switch {
		case broken == nil && err == nil:
			return w.resolve()
		case broken != nil:
			return broken
		case w.sticky:
			w.nameless = w.namelost()
			return errOver
		case w.fired() == before && before > 0 && try > 0:
			return oracle.Broken(oracle.Lied, "", 0, "open, after the failure: %w", err)
		}
	}
}

// resolve ends the doubt that the open before left: all acknowledged is there, and the
// lane goes on from what is.
func (w *world) resolve() error {
	if !w.doubt {
		return nil
	}
	s := fuzz.Store{R: w.e}
	return w.again("read after a commit in doubt", readOps, func() error {
		n, err := w.lane.Survived(s)
		if v := (*oracle.Verdict)(nil); errors.As(err, &v) && v.Err != nil {
			return v.Err
		}
		if err != nil {
			return err
		}
		if least := w.history.Promised(nil).Least[0]; n < least {
			return oracle.Broken(oracle.Lost, w.lane.Counter(), 0, "%d commits came back, %d were acknowledged", n, least)
		}
		if _, _, err := w.history.Rewind(counter{n: n}); err != nil {
			return err
		}
		if _, w.model = w.lane.Next(); n > 0 {
			w.model.Put(w.lane.Counter(), fmt.Sprint(n))
		} else {
			w.model.Delete(w.lane.Counter())
		}
		w.doubt = false
		return nil
	})
}

// namelost says that a folder's sync has lost a name for good while the store opened.
// Open has said so; a second try sees the name, syncs the folder with success, and has
// no way to know. A file system with a journal does not do that, so what a power cut
// then leaves is not held against the store.
func (w *world) namelost() bool {
	if w.kind.Rule.Effect != simfs.EffectDefault && w.kind.Rule.Effect != simfs.EffectLost {
		return false
	}
	for _, e := range w.disk.Events() {
		if e.Injected && e.Op == simfs.OpSyncDir {
			return true
		}
	}
	return false
}

// change is one write of a commit.
type change struct {
	key, value string
	upper      string // of a range delete
	del        bool
}

func put(k, v string) change      { return change{key: k, value: v} }
func del(k string) change         { return change{key: k, del: true} }
func delRange(k, u string) change { return change{key: k, upper: u} }
func large(k string, n int) change {
	return change{key: k, value: strings.Repeat(fmt.Sprintf("%s %d ", k, n), 4200/(len(k)+3)+n)}
}

// fill puts a commit together.
func (w *world) fill(b *engine.Batch, n int, m oracle.Model, changes []change) error {
	if err := b.Put([]byte(w.lane.Counter()), fmt.Append(nil, n)); err != nil {
		return err
	}
	for _, c := range changes {
		k, u := w.lane.Key(c.key), w.lane.Key(c.upper)
		var err error
		switch {
		case c.del:
			m.Delete(k)
			err = b.Delete([]byte(k))
		case c.upper != "":
			m.DeleteRange(oracle.Bounds{Lower: k, Upper: u})
			err = b.DeleteRange([]byte(k), []byte(u))
		default:
			m.Put(k, c.value)
			err = b.Put([]byte(k), []byte(c.value))
		}
		if err != nil {
			return err
		}
	}
	return nil
}

// commit makes one commit. An error but ErrInDoubt means that nothing was written.
func (w *world) commit(changes ...change) error {
	b := w.e.NewBatch()
	defer b.Close()
	n, m := w.lane.Next()
	err, broken := w.call("batch", func() error { return w.fill(b, n, m, changes) })
	if broken != nil || err != nil {
		return broken
	}
	if w.doubt { // the lane has ended: the counter would tell nothing
		return w.refuses()
	}
	was := w.e.Err()
	w.lane.Begin(m)
	var lsn uint64
	err, broken = w.call("apply", func() (err error) { lsn, err = w.e.Apply(b); return err })
	switch {
	case broken != nil:
		return broken
	case err == nil && (errors.Is(was, wal.ErrPoisoned) || errors.Is(was, mmap.ErrPoisoned)):
		return oracle.Broken(oracle.Hushed, "", lsn, "acknowledged, and read-only before: %w", was)
	case err == nil:
		w.lane.Acked(lsn)
		w.model = m
	case errors.Is(err, engine.ErrInDoubt):
		w.doubt = true
		return w.refuses()
	default:
		w.lane.Refused()
	}
	return nil
}

// refuses checks a store that must not acknowledge (F4): it says that it is
// read-only, and why.
func (w *world) refuses() error {
	err, broken := w.call("put to a read-only store", func() error { return w.e.Put([]byte("x"), []byte("y")) })
	switch {
	case broken != nil:
		return broken
	case err == nil:
		return oracle.Broken(oracle.Hushed, "", 0, "a put was acknowledged after a commit in doubt")
	case !errors.Is(err, engine.ErrReadOnly) || !w.kind.cause(err):
		return oracle.Broken(oracle.Hushed, "", 0, "no cause, or not read-only: %w", err)
	}
	return nil
}

// healthy looks whether the store degraded, and that it then says so.
func (w *world) healthy() error {
	err := w.e.Err()
	if err == nil {
		return nil
	}
	w.note(err)
	if w.fired() == 0 || !errors.Is(err, engine.ErrReadOnly) || !w.kind.cause(err) {
		return oracle.Broken(oracle.Lied, "", 0, "state of the store: %w", err)
	}
	return nil
}

// again makes a call that may meet the failure; if the failure passed, its
// repetition succeeds (F3).
func (w *world) again(name string, reads simfs.Op, f func() error) error {
	for try := 0; ; try++ {
		before := w.fired()
		err, broken := w.call(name, f)
		switch {
		case broken != nil || err == nil:
			return broken
		case w.sticky && w.kind.Rule.Ops&reads != 0:
			return nil
		case w.fired() == before && try > 0 || !w.sticky && try > 1:
			return oracle.Broken(oracle.Lied, "", 0, "%s, after the failure: %w", name, err)
		}
	}
}

const readOps = simfs.OpReads | simfs.OpOpen | simfs.OpFileStat | simfs.OpStat

// read reads all there is, by Get and by Scan.
func (w *world) read() error {
	return w.again("read", readOps, func() error { return readAll(fuzz.Store{R: w.e}, w.model, w.lane) })
}

// readAll compares the lane with a model. What the store says is returned as it is.
func readAll(s oracle.Store, m oracle.Model, l *oracle.Lane) (err error) {
	bare := func(err error) error {
		if v := (*oracle.Verdict)(nil); errors.Is(err, oracle.ErrUnreadable) && errors.As(err, &v) {
			return v.Err
		}
		return err
	}
	m.Scan(func(k, _ string) bool {
		err = bare(m.CheckGet(s, k))
		return err == nil
	})
	if err != nil {
		return err
	}
	return bare(m.Check(s, l.Bounds(), len(l.Key("x"))%2 == 0))
}

func (w *world) flush() error {
	ctx, cancel := w.context()
	defer cancel()
	err, broken := w.call("flush", func() error { return w.e.Flush(ctx) })
	if broken == nil && err != nil && w.e.Err() != nil {
		return w.degraded()
	}
	return errors.Join(broken, w.healthy())
}

// degraded: after a flush that closed the store, puts are soon refused. Until then
// they go to the log, and are kept.
func (w *world) degraded() error {
	if err := w.healthy(); err != nil {
		return err
	}
	for end := time.Now().Add(patience); time.Now().Before(end); time.Sleep(time.Millisecond) {
		err, broken := w.call("put to a failing store", func() error { return w.e.Put([]byte("x"), []byte("y")) })
		switch {
		case broken != nil:
			return broken
		case err != nil:
			return w.refuses()
		}
	}
	return oracle.Broken(oracle.Hushed, "", 0, "puts go on, and the store says: %w", w.e.Err())
}

func (w *world) compact() error {
	ctx, cancel := w.context()
	defer cancel()
	_, broken := w.call("compact", func() error { return w.e.Compact(ctx) })
	return errors.Join(broken, w.healthy())
}

// sync makes all durable, or says why not.
func (w *world) sync() error {
	ctx, cancel := w.context()
	defer cancel()
	last := w.e.Metrics().LSN
	err, broken := w.call("sync", func() error { return w.e.Sync(ctx) })
	if err == nil && broken == nil && w.e.DurableLSN() < last {
		return oracle.Broken(oracle.Hushed, "", last, "synced, but only %d is durable", w.e.DurableLSN())
	}
	return errors.Join(broken, w.healthy())
}

// close ends the engine's life. What it held is let go whatever it says.
func (w *world) close() error {
	broken := errors.Join(w.healthy(), w.read())
	w.durable = w.e.DurableLSN()
	e := w.e
	w.e = nil
	err, b := w.call("close", e.Close)
	w.whole = err == nil
	return errors.Join(broken, b)
}
