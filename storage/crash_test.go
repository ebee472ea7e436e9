package storage

import (
	"context"
	"errors"
	"fmt"
	"math/rand"
	randv2 "math/rand/v2"
	"strings"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

// hook runs before every change of the file system while armed.
type hook struct {
	mu sync.Mutex
	on func(op errorfs.Op) error
}

func (h *hook) set(on func(op errorfs.Op) error) {
	h.mu.Lock()
	defer h.mu.Unlock()
	h.on = on
}

func (h *hook) wrap(fs vfs.FS) vfs.FS {
	return errorfs.Wrap(fs, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() != errorfs.OpIsWrite {
			return nil
		}
		h.mu.Lock()
		defer h.mu.Unlock()
		if h.on == nil {
			return nil
		}
		return h.on(op)
	}))
}

type image struct {
	fs      *vfs.MemFS
	at      string
	atLeast uint64 // highest lsn acknowledged when the image was taken
}

// history is what each watermark must show.
type history struct {
	gens   [][]op
	states []model // states[lsn]
}

func newHistory(seed int64, n int) history {
	r := rand.New(rand.NewSource(seed))
	h := history{states: []model{{}}}
	for range n {
		ops := randomOps(r, 300, 60, func() string { return fmt.Sprint(r.Int()) + strings.Repeat("x", r.Intn(200)) })
		m := h.states[len(h.states)-1].clone()
		m.apply(ops)
		h.gens = append(h.gens, ops)
		h.states = append(h.states, m)
	}
	return h
}

// verify opens fs and demands one of the known states, not below atLeast.
func (h history) verify(t *testing.T, fs vfs.FS, atLeast uint64, at string) {
	t.Helper()
	s, err := Open(testOptions(fs))
	require.NoError(t, err, at)
	defer func() { require.NoError(t, s.Close(), at) }()
	w, ok, err := s.Watermark()
	require.NoError(t, err, at)
	require.Equal(t, w.LSN > 0, ok, at)
	require.GreaterOrEqual(t, w.LSN, atLeast, at)
	require.Equal(t, h.states[w.LSN], dumpStore(t, s), at)
	require.NoError(t, s.Check(context.Background()), at)
	// And it goes on from there.
	require.NoError(t, ingest(s, w.LSN+1, sets(3, "after%d", "x")), at)
}

// Goal: a crash before any change of the file system, from the first open on,
// leaves the state before or after an ingest, watermark included; and never
// less than what Commit acknowledged.
func TestIngest_Commit_crashSweep(t *testing.T) {
	for _, percent := range []int{0, 50, 100} {
		t.Run(fmt.Sprintf("unsynced=%d", percent), func(t *testing.T) {
			mem := newCrashable()
			var h hook
			var images []image
			var acked uint64
			rng := randv2.New(randv2.NewPCG(1, uint64(percent)))
			clone := func(at string) {
				images = append(images, image{mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rng}), at, acked})
			}
			h.set(func(op errorfs.Op) error {
				clone(fmt.Sprintf("image %d before kind %d %s", len(images), op.Kind, op.Path))
				return nil
			})
			hist := newHistory(2, 5)
			s := mustOpen(t, testOptions(h.wrap(mem)))
			for i, ops := range hist.gens {
				lsn := uint64(i + 1)
				mustIngest(t, s, lsn, ops)
				h.mu.Lock()
				acked = lsn
				clone(fmt.Sprintf("after commit %d", lsn))
				h.mu.Unlock()
			}
			require.NoError(t, s.Compact(context.Background()))
			require.NoError(t, s.Close())
			h.mu.Lock()
			clone("after close")
			h.mu.Unlock()
			h.set(nil)
			step := 1
			if testing.Short() || raceEnabled {
				step = 3
			}
			for i := 0; i < len(images); i += step {
				hist.verify(t, images[i].fs, images[i].atLeast, images[i].at)
			}
			t.Logf("%d images", len(images))
		})
	}
}

// Goal: whatever change of the file system fails, once or from then on, nothing
// panics or hangs, reads go on, Close returns, and a reopen shows a known state
// with everything acknowledged.
func TestStore_faultSweep(t *testing.T) {
	faults := []struct {
		name    string
		err     error
		forever bool
	}{
		{"EIO once", syscall.EIO, false},
		{"EIO for ever", syscall.EIO, true},
		{"ENOSPC once", syscall.ENOSPC, false},
	}
	for i, f := range faults {
		t.Run(f.name, func(t *testing.T) {
			hist := newHistory(int64(3+i), 4)
			step := 1
			if testing.Short() || raceEnabled {
				step = 4
			} else if f.forever {
				step = 2
			}
			for k := 0; ; k += step {
				if !faultAt(t, hist, k, f.err, f.forever) {
					t.Logf("%d operations", k)
					return
				}
			}
		})
	}
}

// faultAt fails the k-th change; false when there were fewer.
func faultAt(t *testing.T, hist history, k int, fault error, forever bool) (hit bool) {
	t.Helper()
	mem := newCrashable()
	var h hook
	var where string
	n := 0
	h.set(func(op errorfs.Op) error {
		n++
		if n-1 == k || (forever && n-1 > k) {
			if where == "" {
				where = fmt.Sprintf("op %d: kind %d %s", k, op.Kind, op.Path)
			}
			return &faultError{op, fault}
		}
		return nil
	})
	var acked uint64
	done := make(chan struct{})
	go func() {
		defer close(done)
		acked = faultRun(t, hist, h.wrap(mem), fault)
	}()
	select {
	case <-done:
	case <-time.After(20 * time.Second):
		panic("hang: " + where)
	}
	h.set(nil)
	hist.verify(t, mem.CrashClone(vfs.CrashCloneCfg{}), acked, "crash, "+where)
	hist.verify(t, mem, acked, where)
	return where != ""
}

type faultError struct {
	op  errorfs.Op
	err error
}

func (e *faultError) Error() string { return "injected: " + e.err.Error() }
func (e *faultError) Unwrap() error { return e.err }

func faultRun(t *testing.T, hist history, fs vfs.FS, fault error) (acked uint64) {
	s, err := Open(testOptions(fs))
	if err != nil {
		if !errors.Is(err, fault) && !errors.Is(err, ErrDegraded) {
			t.Errorf("open hides the cause: %v", err)
		}
		return 0
	}
	for i, ops := range hist.gens {
		lsn := uint64(i + 1)
		err := ingest(s, lsn, ops)
		if err == nil {
			acked = lsn
		} else if !errors.Is(err, fault) {
			t.Errorf("ingest hides the cause: %v", err)
		} else if errors.Is(fault, syscall.ENOSPC) && !errors.Is(err, ErrDiskFull) {
			t.Errorf("not ErrDiskFull: %v", err)
		}
		sn := s.Current()
		got, derr := dump(sn)
		if derr != nil {
			t.Errorf("read after fault: %v", derr)
		} else if len(got) != len(hist.states[acked]) {
			t.Errorf("lsn %d: %d keys, want %d", acked, len(got), len(hist.states[acked]))
		}
		sn.Release()
		if err != nil {
			if gerr := s.Err(); gerr != nil {
				if !errors.Is(gerr, ErrDegraded) || !errors.Is(gerr, fault) {
					t.Errorf("gate hides the cause: %v", gerr)
				}
				if err2 := ingest(s, lsn, ops); !errors.Is(err2, ErrDegraded) {
					t.Errorf("ingest behind a closed gate: %v", err2)
				}
				break
			}
			// Gate open: the same flush may be tried again.
			if err = ingest(s, lsn, ops); err != nil {
				break
			}
			acked = lsn
		}
	}
	ctx, cancel := context.WithTimeout(context.Background(), 100*time.Millisecond)
	_ = s.Compact(ctx)
	cancel()
	_ = s.Metrics()
	_ = s.Sublevels()
	sn := s.Current()
	if got, err := dump(sn); err != nil || len(got) != len(hist.states[acked]) {
		t.Errorf("reads at the end: %v", err)
	}
	sn.Release()
	_ = s.Close()
	return acked
}

// Goal: what Pebble calls fatal returns, closes the gate, and leaves reads.
func TestPebbleLog_Fatalf_returns(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs))
	mustIngest(t, s, 1, sets(100, "k%03d", "v"))
	pebbleLog{s.log, s.fs}.Fatalf("MANIFEST write failed: %v", fmt.Errorf("x: %w", syscall.ENOSPC))
	require.ErrorIs(t, s.Err(), ErrDegraded)
	require.ErrorIs(t, s.Err(), ErrDiskFull)
	require.Len(t, dumpStore(t, s), 100)
	_, err := s.NewIngest()
	require.ErrorIs(t, err, ErrDegraded)
	require.ErrorIs(t, s.Compact(context.Background()), ErrDegraded)
	_, err = s.Checkpoint("c")
	require.ErrorIs(t, err, ErrDegraded)
	_, err = s.fs.Create("store/l3/x", vfs.WriteCategoryUnspecified)
	require.ErrorIs(t, err, ErrDegraded)
	for _, err := range []error{
		s.fs.Remove("store/l3/x"), s.fs.Link("a", "b"), s.fs.Rename("a", "b"), s.fs.RemoveAll("store"), s.fs.MkdirAll("q", 0o755),
	} {
		require.ErrorIs(t, err, ErrDegraded)
	}
	_ = s.Close()
	s = mustOpen(t, testOptions(fs))
	require.Len(t, dumpStore(t, s), 100)
	require.NoError(t, s.Err())
}

// Goal: an ingest that was under way when the gate closed is not acknowledged.
func TestIngest_Commit_gateClosedBefore(t *testing.T) {
	s := mustOpen(t, testOptions(vfs.NewMem()))
	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, in.Set([]byte("a"), []byte("b")))
	s.fs.close(errors.New("test"))
	_, err = in.Commit(mark(1, nil))
	require.ErrorIs(t, err, ErrDegraded)
}

// Goal: a failing checkpoint says so, leaves the store whole and the gate open.
func TestStore_Checkpoint_faultSweep(t *testing.T) {
	mem := newCrashable()
	var h hook
	s := mustOpen(t, testOptions(h.wrap(mem)))
	mustIngest(t, s, 1, sets(100, "k%03d", "v"))
	time.Sleep(20 * time.Millisecond) // let statistics and cleaning settle
	for k := 0; ; k++ {
		n, hit := 0, false
		h.set(func(op errorfs.Op) error {
			n++
			if n-1 == k {
				hit = true
				return syscall.EIO
			}
			return nil
		})
		dst := fmt.Sprintf("copy%d", k)
		_, err := s.Checkpoint(dst)
		h.set(nil)
		require.NoError(t, s.Err())
		if !hit {
			require.NoError(t, err)
			break
		}
		if err == nil { // only what does not matter may fail unseen
			c := mustOpen(t, Options{FS: mem.CrashClone(vfs.CrashCloneCfg{}), Dir: dst})
			require.Len(t, dumpStore(t, c), 100)
			require.NoError(t, c.Close())
		}
	}
	mustIngest(t, s, 2, sets(100, "k%03d", "w"))
}

// Goal: a gate that closes while a checkpoint is made, for a fault of L3's own, lets no
// copy pass that lacks a sync.
func TestStore_Checkpoint_gateCloses(t *testing.T) {
	for k, hit := 0, true; hit; k++ {
		mem := newCrashable()
		var h hook
		s := mustOpen(t, testOptions(h.wrap(mem)))
		mustIngest(t, s, 1, sets(10, "k%03d", "v"))
		n := 0
		hit = false
		h.set(func(op errorfs.Op) error {
			if n++; n-1 == k {
				hit = true
				s.fs.close(syscall.EIO)
			}
			return nil
		})
		_, err := s.Checkpoint("copy")
		h.set(nil)
		if hit {
			require.ErrorIs(t, err, ErrDegraded, "closed at call %d", k)
		} else {
			require.NoError(t, err)
		}
		_ = s.Close()
	}
}
