package mmap

import (
	"context"
	"errors"
	"fmt"
	"io"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// early is the plan of a store whose values get packs of their own from 24 KiB on, so
// that a simulated disk need not hold megabytes.
func early(s *Store) plan {
	s.hint = 64 << 10
	return plan{compression: s.o.Compression, frameBytes: s.o.FrameBytes, maxValue: MaxValue, sample: 1, soloValue: 24 << 10}
}

func streamedEarly(s *Store, v []byte) ([]byte, error) {
	w, err := s.newWriter(context.Background(), early(s))
	if err != nil {
		return nil, err
	}
	_, err = w.Write(v)
	if err == nil {
		var ref []byte
		if ref, err = w.Finish(); err == nil {
			return ref, nil
		}
	}
	return nil, errors.Join(err, w.Abort())
}

// onlyPacks demands that no file is there but the packs of the table.
func onlyPacks(t *testing.T, s *Store, at string) {
	t.Helper()
	names := files(t, s)
	want := []string{}
	for _, num := range s.Packs() {
		want = append(want, packName(num))
	}
	require.ElementsMatch(t, want, names, at)
}

// Goal (M2, M3, M4): whichever call of a streamed write fails, with a broken or a full
// disk, the error is typed and has its cause in it, nothing is left of the value, and a
// full disk costs that value alone; what Sync vouched for is there after a power cut.
func TestWriter_anyCallFails(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for nth, fired := 1, true; fired; nth++ {
			at := fmt.Sprintf("%v at call %d", cause, nth)
			fs := simfs.New(nil)
			s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, FrameBytes: minFrameBytes})
			require.NoError(t, err)
			root, err := fs.OpenDir("/")
			require.NoError(t, err)
			require.NoError(t, root.Sync())
			require.NoError(t, root.Close())
			fault := fs.Inject(simfs.FailOnce(simfs.OpMutations, "", nth, cause))
			var done []blobEntry
			var durable []blobEntry
			poisoned := false
			step := func(v []byte, write func() ([]byte, error)) {
				was := fault.Fired()
				ref, err := write()
				if err == nil {
					require.False(t, poisoned, at)
					done = append(done, blobEntry{v, ref})
					return
				}
				require.ErrorIs(t, err, cause, at)
				switch {
				case poisoned:
					require.ErrorIs(t, err, ErrPoisoned, at)
				case cause == syscall.ENOSPC && !s.Metrics().Poisoned:
					require.ErrorIs(t, err, ErrDiskFull, at)
					require.NotErrorIs(t, err, ErrPoisoned, at)
				default:
					require.ErrorIs(t, err, ErrPoisoned, at)
					poisoned = true
				}
				require.Equal(t, poisoned, s.Metrics().Poisoned, at)
				require.True(t, was == 1 || fault.Fired() == 1)
			}
			sync := func() {
				if err := s.Sync(); err != nil {
					require.ErrorIs(t, err, cause, at)
					require.ErrorIs(t, err, ErrPoisoned, at)
					poisoned = true
					return
				}
				require.False(t, poisoned, at)
				durable = slices.Clone(done)
			}
			values := [][]byte{value("random", 20_000), value("random", 300_000), value("text", 400_000), value("random", 90_000)}
			for i, v := range values {
				step(v, func() ([]byte, error) { return streamedEarly(s, v) })
				if i == 1 {
					sync()
				}
			}
			sync()
			for _, e := range done {
				everyWay(t, s, e.ref, e.v)
			}
			require.Equal(t, len(done), pending(t, s), at)
			onlyPacks(t, s, at)
			fired = fault.Fired() > 0
			fault.Remove()
			require.NoError(t, s.Close())
			if len(durable) > 0 {
				allThere(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), durable, at+", power cut")
			}
		}
	}
}

// Goal (M2): wherever the power is cut in a streamed write and its sync, what Sync vouched
// for is whole, and what it did not is right or a typed error.
func TestWriter_powerCut(t *testing.T) {
	disk := simfs.New(nil)
	type moment struct {
		cut     *simfs.Cut
		durable int
	}
	var mu sync.Mutex
	var moments []moment
	durable := 0
	fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
			mu.Lock()
			moments = append(moments, moment{disk.Cut(), durable})
			mu.Unlock()
		}
		return nil
	}))
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, FrameBytes: minFrameBytes})
	require.NoError(t, err)
	root, err := disk.OpenDir("/")
	require.NoError(t, err)
	require.NoError(t, root.Sync())
	require.NoError(t, root.Close())
	var all []blobEntry
	for i, v := range [][]byte{value("random", 1_500_000), value("text", 300_000), value("random", 10_000), value("zeros", 500_000)} {
		ref, err := streamedEarly(s, v)
		require.NoError(t, err)
		all = append(all, blobEntry{v, ref})
		if i != 0 {
			require.NoError(t, s.Sync())
			mu.Lock()
			durable = len(all)
			mu.Unlock()
		}
	}
	require.NoError(t, s.Close())
	moments = append(moments, moment{disk.Cut(), durable})
	random := 3
	if testing.Short() || raceEnabled {
		random = 1
	}
	images := 0
	for i, m := range moments {
		for cfg, img := range m.cut.Images(uint64(i), random) {
			images++
			at := fmt.Sprintf("cut at call %d of %d, image %v", i+1, len(moments), cfg.Image)
			s, err := Open(Options{FS: img, Dir: "packs", UUID: testUUID})
			require.NoError(t, err, at)
			for n, e := range all {
				got, err := get(s, e.ref)
				verr := s.Verify(e.ref)
				switch {
				case err == nil:
					same(t, e.v, got)
					require.NoError(t, verr, at)
				case n < m.durable:
					t.Fatalf("%s: %v", at, err)
				default:
					require.True(t, typed(err), "%s: %v", at, err)
					require.Error(t, verr, at)
				}
			}
			require.NotNil(t, s.PackInfos())
			require.NoError(t, s.Close())
		}
	}
	t.Logf("%d calls, %d images", len(moments), images)
	require.Greater(t, len(moments), 20)
}

// Goal (M3): a hint to write out that fails is a failed sync: nothing more is written or
// promised until reopen, and the value is gone.
func TestWriter_hintFails(t *testing.T) {
	fail := false
	var mu sync.Mutex
	fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		if op.Kind == errorfs.OpFileSyncTo && fail {
			return syscall.EIO
		}
		return nil
	}))
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID})
	require.NoError(t, err)
	v := value("random", 20<<20)
	ref, err := streamed(s, v, 0)
	require.NoError(t, err)
	require.NoError(t, s.Sync())
	mu.Lock()
	fail = true
	mu.Unlock()
	_, err = streamed(s, v, 0)
	require.ErrorIs(t, err, ErrPoisoned)
	require.ErrorIs(t, err, syscall.EIO)
	require.ErrorIs(t, s.Sync(), ErrPoisoned)
	_, err = s.NewWriter(context.Background())
	require.ErrorIs(t, err, ErrPoisoned)
	require.NoError(t, s.Verify(ref))
	onlyPacks(t, s, "")
	require.NoError(t, s.Close())
}

// Goal: the end of a context frees a Write and a Finish that wait for a disk that hangs;
// when the disk goes on, nothing is left of the value.
func TestWriter_cancelWhileBlocked(t *testing.T) {
	for _, finish := range []bool{false, true} {
		began, release := make(chan struct{}), make(chan struct{})
		var once sync.Once
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if op.Kind == errorfs.OpFileWrite {
				once.Do(func() { close(began); <-release })
			}
			return nil
		}))
		s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, Compression: None})
		require.NoError(t, err)
		ctx, cancel := context.WithCancel(context.Background())
		w, err := s.NewWriter(ctx)
		require.NoError(t, err)
		done := make(chan error)
		go func() {
			if finish {
				_, err := w.Write(make([]byte, soloBytes+10))
				if err == nil {
					_, err = w.Finish()
				}
				done <- err
				return
			}
			_, err := w.ReadFrom(endless{})
			done <- err
		}()
		<-began
		select {
		case err := <-done:
			t.Fatal("it did not wait: ", err)
		case <-time.After(20 * time.Millisecond):
		}
		cancel()
		require.ErrorIs(t, <-done, context.Canceled)
		aborted := make(chan error)
		go func() { aborted <- w.Abort() }()
		close(release)
		require.NoError(t, <-aborted)
		require.Empty(t, files(t, s))
		require.NoError(t, s.Close())
	}
}

type endless struct{}

func (endless) Read(p []byte) (int, error) { return len(p), nil }

var _ io.Reader = endless{}
