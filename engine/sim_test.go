package engine

import (
	"context"
	"errors"
	"fmt"
	"os"
	"strings"
	"syscall"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// simOptions are those of a store on a disk that fails on demand.
func simOptions(fs *simfs.FS) *Options {
	return small(Options{FS: fs, LargeValue: 4 << 10, SegmentBytes: 16 << 10, StallLimit: time.Second, Compression: CompressFast})
}

// sweepStep is the distance between two faults of a sweep.
func sweepStep(dense, sparse int) int {
	if testing.Short() || raceEnabled {
		return sparse
	}
	return dense
}

// soon fails the test, with every goroutine's place, if f hangs.
func soon(what string, f func()) {
	done := make(chan struct{})
	go func() {
		defer close(done)
		f()
	}()
	select {
	case <-done:
	case <-time.After(60 * time.Second):
		panic("hang: " + what)
	}
}

// simValue is what key i of a simulated life has: every seventh is large.
func simValue(i int) []byte {
	if i%7 == 3 {
		return []byte(strings.Repeat(fmt.Sprintf("large %d ", i), 900))
	}
	return fmt.Appendf(nil, "value %d", i)
}

func simKey(i int) []byte { return fmt.Appendf(nil, "k%03d", i) }

// simImage is a store that was killed: half of its keys in L3, half in the log.
func simImage(t *testing.T) *simfs.Cut {
	t.Helper()
	fs := simfs.New(nil)
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	for i := range 20 {
		require.NoError(t, e.Put(simKey(i), simValue(i)))
		if i == 9 {
			flush(t, e)
		}
	}
	image := fs.Cut()
	require.NoError(t, e.Close())
	return image
}

// simVerify demands, on a healthy disk, every key below acked, keys below tried right
// or absent, and a store that is whole and writes.
func simVerify(t *testing.T, fs *simfs.FS, acked, tried int, at string) {
	t.Helper()
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err, at)
	for i := range tried {
		v, err := e.Get(simKey(i))
		if i >= acked && errors.Is(err, ErrNotFound) {
			continue
		}
		require.NoError(t, err, "%s: key %d", at, i)
		require.Equal(t, simValue(i), v, "%s: key %d", at, i)
	}
	require.NoError(t, e.Put([]byte("z"), []byte("again")), at)
	require.NoError(t, e.Flush(context.Background()), at)
	require.NoError(t, e.Check(context.Background()), at)
	require.NoError(t, e.Close(), at)
}

// Goal (I2, I3, I9, I12): whichever call of a life fails, reads included, each error of
// the door is typed and has its cause in it, none calls a healthy byte corrupt, no read
// is wrong, nothing hangs, and a reopen after a power cut has all that was acknowledged.
func TestEngine_anyCallFails(t *testing.T) {
	image := simImage(t)
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		calls := 0
		for nth, fired := 1, true; fired; nth += sweepStep(11, 61) {
			fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
			at := fmt.Sprintf("%v at call %d", cause, nth)
			fault := fs.Inject(simfs.FailOnce(0, "", nth, cause))
			var acked, tried int
			soon(at, func() { acked, tried = simLife(t, fs, fault, cause, at) })
			fired = fault.Fired() > 0
			fault.Remove()
			if t.Failed() {
				t.Fatal(fs.Trace())
			}
			simVerify(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), acked, tried, at+", power cut")
			calls = nth
		}
		t.Logf("%v: %d calls", cause, calls)
	}
}

// simLife opens the killed store and uses it in every way, and returns how many keys
// are acknowledged and how many were tried.
func simLife(t *testing.T, fs *simfs.FS, fault *simfs.Fault, cause error, at string) (acked, tried int) {
	ctx, cancel := context.WithTimeout(context.Background(), 20*time.Second)
	defer cancel()
	right := func(what string, err error) bool {
		if err == nil {
			return true
		}
		typed := errors.Is(err, cause) || errors.Is(err, ErrReadOnly)
		if !typed || fault.Fired() == 0 || errors.Is(err, ErrCorrupt) || errors.Is(err, context.DeadlineExceeded) {
			t.Errorf("%s: %s: %v", at, what, err)
		}
		if cause == syscall.ENOSPC && errors.Is(err, cause) && !errors.Is(err, ErrDiskFull) && !errors.Is(err, ErrReadOnly) && !errors.Is(err, ErrInDoubt) && what != "open" {
			t.Errorf("%s: %s: not typed: %v", at, what, err)
		}
		return false
	}
	acked, tried = 20, 20
	e, err := Open("/store", simOptions(fs))
	if !right("open", err) {
		return acked, tried
	}
	read := func(what string) {
		for i := range acked {
			if i%3 == 0 || i >= 18 {
				v, err := e.Get(simKey(i))
				if right(what, err) && string(v) != string(simValue(i)) {
					t.Errorf("%s: %s: key %d is %.30q", at, what, i, v)
				}
			}
		}
	}
	put := func() {
		if acked != tried {
			return // the one before failed: the next would leave a hole
		}
		tried++
		if right("put", e.Put(simKey(acked), simValue(acked))) {
			acked++
		}
	}
	read("get")
	for range 6 {
		put()
	}
	right("flush", e.Flush(ctx))
	read("get from L3")
	s, err := e.Snapshot()
	require.NoError(t, err)
	put()
	n := 0
	for item, err := range s.Scan(Range{}) {
		if !right("scan", err) {
			n = -1000
			break
		}
		if _, err := item.Value(); right("value", err) {
			n++
		} else {
			n = -1000
		}
	}
	if n >= 0 && n < acked-1 {
		t.Errorf("%s: a scan of %d keys, %d acknowledged", at, n, acked)
	}
	_, err = s.Get(simKey(3))
	right("snapshot get", err)
	require.NoError(t, s.Close())
	right("checkpoint", e.Checkpoint(ctx, "/copy"))
	right("sync", e.Sync(ctx))
	right("check", e.Check(ctx))
	right("compact", e.Compact(ctx))
	put()
	if err := e.Err(); err != nil && !errors.Is(err, ErrReadOnly) {
		t.Errorf("%s: Err: %v", at, err)
	}
	if e.Err() != nil && e.Put([]byte("y"), nil) == nil && e.store.Err() == nil {
		t.Errorf("%s: a write after %v", at, e.Err())
	}
	read("get at the end")
	_ = e.Close() // it may say that the log was not sealed
	return acked, tried
}

// Goal: whichever call of a checkpoint fails, the caller is told, the store goes on,
// nothing lies where the copy should, and a copy that was vouched for is whole after a
// power cut; the next try succeeds.
func TestEngine_Checkpoint_anyCallFails(t *testing.T) {
	image := simImage(t)
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		calls := 0
		for nth, fired := 1, true; fired; nth += sweepStep(2, 11) {
			fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
			at := fmt.Sprintf("%v at call %d", cause, nth)
			e, err := Open("/store", simOptions(fs))
			require.NoError(t, err)
			require.NoError(t, e.Put(simKey(20), simValue(20)))
			fault := fs.Inject(simfs.FailOnce(0, "", nth, cause))
			err = e.Checkpoint(context.Background(), "/copies/one")
			fired = fault.Fired() > 0
			fault.Remove()
			dst := "/copies/one"
			if err != nil {
				require.True(t, fired, at)
				require.ErrorIs(t, err, cause, at)
				require.NotErrorIs(t, err, ErrCorrupt, at)
				require.NotErrorIs(t, err, os.ErrExist, at)
				require.Equal(t, cause == syscall.ENOSPC, errors.Is(err, ErrDiskFull), "%s: %v", at, err)
				names, _ := fs.List("/copies")
				require.Empty(t, names, "%s: %v", at, err)
				if e.Err() == nil {
					require.NoError(t, e.Checkpoint(context.Background(), dst), at)
				} else {
					dst = ""
				}
			}
			if dst != "" {
				cut := fs.Crash(simfs.CrashConfig{Seed: uint64(nth)})
				c, err := Open(dst, simOptions(cut))
				require.NoError(t, err, at)
				for i := range 21 {
					v, err := c.Get(simKey(i))
					require.NoError(t, err, "%s: key %d", at, i)
					require.Equal(t, simValue(i), v, at)
				}
				require.NoError(t, c.Check(context.Background()), at)
				require.NoError(t, c.Close(), at)
			}
			// A table that Pebble opened in the background, for its statistics, may have
			// met the fault, and one read that waited for the same opening shares it.
			if _, err := e.Get(simKey(5)); err != nil {
				require.True(t, fired, at)
				require.ErrorIs(t, err, cause, at)
			}
			require.Equal(t, string(simValue(5)), get(t, e, "k005"))
			_ = e.Close()
			if nth%5 == 1 {
				simVerify(t, fs, 21, 21, at)
			}
			calls = nth
		}
		t.Logf("%v: %d calls", cause, calls)
	}
}

// Goal: a copy whose name could not be made durable is told, and does not lie there for
// a whole one; the store goes on and the next try succeeds.
func TestEngine_Checkpoint_nameIsNotDurable(t *testing.T) {
	fs := simImage(t).Image(simfs.CrashConfig{Image: simfs.Everything})
	require.NoError(t, fs.MkdirAll("/copies", 0o755))
	e, err := Open("/store", simOptions(fs))
	require.NoError(t, err)
	// The first sync is that of the copy's temporary name.
	fault := fs.Inject(simfs.FailOnce(simfs.OpSyncDir, "/copies", 2, syscall.EIO))
	require.ErrorIs(t, e.Checkpoint(context.Background(), "/copies/one"), syscall.EIO)
	require.Equal(t, 1, fault.Fired())
	names, err := fs.List("/copies")
	require.NoError(t, err)
	require.Empty(t, names)
	require.NoError(t, e.Checkpoint(context.Background(), "/copies/one"))
	require.ErrorIs(t, e.Checkpoint(context.Background(), "/copies/one"), os.ErrExist)
	require.NoError(t, e.Close())
}

// Goal: a folder whose name one attempt made and could not make durable is made durable
// by the next, a store's and a copy's, at each depth.
func TestEngine_makeDir_nameIsNotDurable(t *testing.T) {
	// The first sync of the root is that of its own name.
	for parent, nth := range map[string]int{"/": 2, "/deep": 1, "/deep/er": 1} {
		for _, what := range []string{"store", "copy"} {
			fs := simfs.New(nil)
			var source *Engine
			try := func() (err error) {
				if what == "copy" {
					return source.Checkpoint(context.Background(), "/deep/er/one")
				}
				e, err := Open("/deep/er/one", simOptions(fs))
				if err == nil {
					require.NoError(t, errors.Join(e.Put(simKey(0), simValue(0)), e.Close()))
				}
				return err
			}
			if what == "copy" {
				var err error
				source, err = Open("/store", simOptions(fs))
				require.NoError(t, err)
				require.NoError(t, source.Put(simKey(0), simValue(0)))
			}
			fault := fs.Inject(simfs.FailOnce(simfs.OpSyncDir, parent, nth, syscall.EIO))
			require.ErrorIs(t, try(), syscall.EIO, "%s in %s", what, parent)
			require.Equal(t, 1, fault.Fired())
			require.NoError(t, try(), "%s in %s", what, parent)
			cut := fs.Crash(simfs.CrashConfig{Image: simfs.Nothing})
			if source != nil {
				require.NoError(t, source.Close())
			}
			c, err := Open("/deep/er/one", simOptions(cut))
			require.NoError(t, err)
			require.Equal(t, string(simValue(0)), get(t, c, string(simKey(0))), "%s in %s", what, parent)
			require.NoError(t, c.Close())
		}
	}
}

// Goal: whichever call of a first open fails, the next one makes the store or opens
// what was made, and a store that was made has its identity for good.
func TestOpen_firstTime_anyCallFails(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for nth, fired := 1, true; fired; nth += sweepStep(2, 5) {
			fs := simfs.New(nil)
			at := fmt.Sprintf("%v at call %d", cause, nth)
			// A sync of a folder that loses names for good is beyond what a reopen can mend.
			fault := fs.Inject(simfs.Rule{Nth: nth, Err: cause, Effect: simfs.EffectNone})
			e, err := Open("/deep/store", simOptions(fs))
			fired = fault.Fired() > 0
			fault.Remove()
			if err != nil {
				require.ErrorIs(t, err, cause, at)
				require.NotErrorIs(t, err, ErrCorrupt, at)
			} else {
				if e.Put([]byte("k"), []byte("v")) == nil {
					fs = fs.Crash(simfs.CrashConfig{Seed: uint64(nth), Image: simfs.Nothing})
					again, err := Open("/deep/store", simOptions(fs))
					require.NoError(t, err, at)
					require.Equal(t, "v", get(t, again, "k"), at)
					require.NoError(t, again.Close())
				}
				_ = e.Close()
			}
			e, err = Open("/deep/store", simOptions(fs))
			require.NoError(t, err, at)
			require.NoError(t, e.Put([]byte("k"), []byte("w")), at)
			require.NoError(t, e.Close(), at)
			e, err = Open("/deep/store", simOptions(fs.Crash(simfs.CrashConfig{Seed: uint64(nth)})))
			require.NoError(t, err, at)
			require.Equal(t, "w", get(t, e, "k"), at)
			require.NoError(t, e.Close(), at)
		}
	}
}

// Goal: a log that cannot be listed is not taken for none: a STATE made beside it would
// end what it holds.
func TestOpen_logCannotBeListed(t *testing.T) {
	fs := simfs.New(nil)
	require.NoError(t, fs.MkdirAll("/store/log", 0o755))
	require.NoError(t, fs.Put("/store/log/00000000000000000001.wal", []byte("a segment")))
	fault := fs.Inject(simfs.FailFrom(simfs.OpList, "/store/log", 1, syscall.EIO))
	before := fs.Tree()
	_, err := Open("/store", simOptions(fs))
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, ErrCorrupt)
	require.True(t, before.Equal(fs.Tree()))
	fault.Remove()
	_, err = Open("/store", simOptions(fs))
	require.ErrorIs(t, err, ErrCorrupt, "a log and no STATE")
	require.True(t, before.Equal(fs.Tree()))
}

// Goal: a kill leaves records that nothing promised, with large values that only the
// page cache has: whichever call of the recovery fails, the next one has them all, and
// promises them.
func TestOpen_afterKill_anyCallFails(t *testing.T) {
	killed := func() *simfs.FS {
		fs := simfs.New(nil)
		o := simOptions(fs)
		o.Sync, o.SyncEvery = SyncInterval, time.Hour
		e, err := Open("/store", o)
		require.NoError(t, err)
		for i := range 12 {
			require.NoError(t, e.Put(simKey(i), simValue(i)))
		}
		// The process dies here; what it does after is not on the image.
		image := fs.Cut().Image(simfs.CrashConfig{Image: simfs.Everything})
		require.NoError(t, e.Close())
		return image
	}
	for nth, fired := 1, true; fired; nth += sweepStep(2, 15) {
		fs := killed()
		at := fmt.Sprintf("call %d", nth)
		fault := fs.Inject(simfs.FailOnce(0, "", nth, syscall.EIO))
		e, err := Open("/store", simOptions(fs))
		fired = fault.Fired() > 0
		fault.Remove()
		if err == nil {
			require.NotNil(t, e.log, "%s: opened, and cannot be written", at)
			for i := range 12 {
				require.Equal(t, string(simValue(i)), get(t, e, string(simKey(i))), at)
			}
			_ = e.Close()
		} else {
			require.ErrorIs(t, err, syscall.EIO, at)
			require.NotErrorIs(t, err, ErrCorrupt, at)
		}
		simVerify(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), 12, 12, at)
	}
}

// Goal: a device that refuses everything from some moment on is reported once and for
// all, Close returns, and nothing acknowledged is lost.
func TestEngine_deviceDies(t *testing.T) {
	image := simImage(t)
	for nth, fired := 1, true; fired; nth += sweepStep(23, 97) {
		fs := image.Image(simfs.CrashConfig{Image: simfs.Everything})
		at := fmt.Sprintf("dead from call %d", nth)
		gone := &os.PathError{Op: "io", Err: syscall.ENXIO}
		fault := fs.Inject(simfs.FailFrom(0, "", nth, gone))
		var acked, tried int
		soon(at, func() { acked, tried = simLife(t, fs, fault, syscall.ENXIO, at) })
		fired = fault.Fired() > 0
		fault.Remove()
		if t.Failed() {
			t.Fatal(fs.Trace())
		}
		simVerify(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), acked, tried, at+", power cut")
	}
}
