package wal

import (
	"errors"
	"fmt"
	"io/fs"
	"runtime/debug"
	"slices"
	"syscall"
	"testing"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/stretchr/testify/require"
)

// injury is a way in which calls of some kinds go wrong.
type injury struct {
	name string
	ops  simfs.Op
	rule simfs.Rule
}

// anyCall is every kind of call that the log makes and that can fail.
const anyCall = simfs.OpAll &^ (simfs.OpPrefetch | simfs.OpDiskUsage | simfs.OpLock)

var injuries = []injury{
	// A sync that fails with EIO has lost what it should have kept.
	{"EIO", anyCall, simfs.Rule{Err: syscall.EIO}},
	{"ENOSPC", simfs.OpNames | simfs.OpWrites | simfs.OpSyncs, simfs.Rule{Err: syscall.ENOSPC}},
	{"EMFILE", simfs.OpOpens | simfs.OpList, simfs.Rule{Err: syscall.EMFILE}},
	{"short", simfs.OpReads | simfs.OpWrites, simfs.Rule{Short: true}},
	{"torn", simfs.OpWrites, simfs.Rule{Short: true, Err: syscall.EIO}},
	{"done", simfs.OpNames | simfs.OpWrites | simfs.OpSyncs, simfs.Rule{Err: syscall.EIO, Effect: simfs.EffectDone}},
	{"kept", simfs.OpSyncs, simfs.Rule{Err: syscall.EIO, Effect: simfs.EffectKept}},
}

// workload is something that a log's owner does.
type workload struct {
	name string
	tune func(*Options)
	// prepare works on a healthy disk, and what it leaves is there for good.
	prepare func(*trial)
	// run works while the disk fails, and returns the first error it is told.
	run func(*trial) error
	// ops are the kinds of calls that fail. Zero is all.
	ops simfs.Op
	// live leaves the background running: the calls have no fixed order.
	live bool
	// unfit says that the disk may be left in a state that strict refuses.
	unfit bool
}

// whole runs the workload and ends it, in bounded time and without a panic.
func (tr *trial) whole() error {
	type outcome struct {
		err   error
		panic string
	}
	done := make(chan outcome, 1)
	go func() {
		var out outcome
		defer func() { done <- out }()
		defer func() {
			if p := recover(); p != nil {
				out.panic = fmt.Sprintf("%v\n%s", p, debug.Stack())
			}
		}()
		out.err = tr.w.run(tr)
		if tr.log != nil {
			out.err = errors.Join(out.err, tr.end())
		}
	}()
	select {
	case out := <-done:
		if out.panic != "" {
			tr.fatalf("panic: %s", out.panic)
		}
		if tr.t.Failed() {
			tr.t.FailNow() // by a goroutine that is not the test's
		}
		return out.err
	case <-time.After(time.Minute):
		tr.fatalf("hangs")
		return nil
	}
}

// noHandles fails the test if a file is still open.
func (tr *trial) noHandles() {
	tr.t.Helper()
	open := map[string]int{}
	for _, e := range tr.fs.Events() {
		switch {
		case e.Op == simfs.OpClose && !errors.Is(e.Err, fs.ErrClosed):
			open[e.Path]--
		case e.Op&(simfs.OpOpens|simfs.OpReuse) != 0 && e.Err == nil:
			open[e.Path]++
		}
	}
	for name, n := range open {
		if n != 0 {
			tr.fatalf("%d handles of %s are still open", n, name)
		}
	}
}

// aftermath looks at every disk that the trial may have left: as it is, and
// after a power cut, now and after a second life.
func (tr *trial) aftermath(lost bool) {
	cut := tr.fs.Cut()
	for _, cfg := range []simfs.CrashConfig{{Image: simfs.Nothing}, {Image: simfs.Garbled}, {Seed: tr.seed}} {
		next := tr.again(cut.Image(cfg), tr.name+", then a crash: "+cfg.Image.String())
		next.check()
	}
	tr.name += ", then another life"
	if err := tr.open(); err != nil {
		tr.fatalf("reopen: %v", err)
	}
	require.NoError(tr.t, tr.puts(10, 300), tr.name)
	require.NoError(tr.t, tr.sync(), tr.name)
	cut = tr.fs.Cut()
	require.NoError(tr.t, tr.end(), tr.name)
	tr.noHandles()
	if lost {
		return
	}
	next := tr.again(cut.Image(simfs.CrashConfig{Image: simfs.Nothing}), tr.name+", then a crash")
	next.check()
}

// check recovers strictly, and reads only.
func (tr *trial) check() {
	st, err := ReadState(tr.fs, "db")
	if errors.Is(err, fs.ErrNotExist) && len(tr.acked) == 0 {
		return // never born
	}
	require.NoError(tr.t, err, tr.name)
	o := tr.o
	o.ReadOnly = true
	if _, _, err := tr.recover(o, st, true); err != nil {
		tr.fatalf("%v", err)
	}
}

// sweep lets each call that the workload makes fail, one after the other, in
// each way, once and from then on.
func (w *workload) sweep(t *testing.T, once, sticking int) (runs int) {
	base := newTrial(t, w, simfs.New(&simfs.Options{TraceLen: 1 << 12}))
	base.name = "prepare"
	if w.prepare != nil {
		w.prepare(base)
	}
	healthy := base.again(base.fs.Crash(simfs.CrashConfig{Image: simfs.Everything}), "healthy")
	require.NoError(t, healthy.whole())
	healthy.noHandles()
	for _, in := range injuries {
		if w.ops != 0 {
			in.ops &= w.ops
		}
		if in.ops == 0 {
			continue
		}
		for _, sticky := range []bool{false, true} {
			stride := once
			if sticky {
				stride = sticking
			}
			for nth, fired := 1, true; fired; nth += stride {
				require.Less(t, nth, 2000, "no end in sight")
				tr := base.again(base.fs.Crash(simfs.CrashConfig{Image: simfs.Everything}), "")
				tr.name = fmt.Sprintf("%s at call %d of %v", in.name, nth, in.ops)
				rule := in.rule
				rule.Ops, rule.Nth = in.ops, nth
				if sticky {
					rule.Every = 1
					tr.name += " and after"
				}
				fault := tr.fs.Inject(rule)
				err := tr.whole()
				fired = fault.Fired() > 0
				fault.Remove()
				if !fired {
					require.NoError(t, err, tr.name)
				}
				tr.noHandles()
				// A directory whose sync failed for good never has the names that
				// nobody gives again: those of a store that is being made.
				lost := w.prepare == nil && slices.ContainsFunc(tr.fs.Events(), func(e simfs.Event) bool {
					return e.Injected && e.Op == simfs.OpSyncDir && in.rule.Effect == simfs.EffectDefault
				})
				if !w.unfit {
					tr.aftermath(lost)
				}
				runs++
			}
		}
	}
	return runs
}

// Goal: whatever call fails, in whatever way, nothing acknowledged is lost,
// nothing hangs or panics, no handle leaks, and a healthy disk opens again.
func TestLog_anyCall_fails(t *testing.T) {
	for _, w := range workloads {
		t.Run(w.name, func(t *testing.T) {
			t.Parallel()
			once, sticking := 1, 3
			switch {
			case *everyByte:
				sticking = 1
			case testing.Short() && !w.unfit: // those are quick
				once, sticking = 7, 13
			}
			t.Logf("%d runs", w.sweep(t, once, sticking))
		})
	}
}
