package mmap

import (
	"math/rand/v2"
	"sync/atomic"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"
)

func TestStore_Sync_crashSweep(t *testing.T) {
	// The goal: M2. Whatever the moment of the crash and whatever was lost of
	// what was not synced, all that Sync vouched for is there; the rest is
	// right or a typed error; and the next store never touches an old pack.
	mem := vfs.NewCrashableMem()
	type entry struct{ v, ref []byte }
	var durable, written []entry
	var clones int
	check := func(percent int, seed uint64) {
		clones++
		img := mem.CrashClone(vfs.CrashCloneCfg{UnsyncedDataPercent: percent, RNG: rand.New(rand.NewPCG(seed, 2))})
		if _, err := img.Stat("packs"); err != nil {
			require.Empty(t, durable)
			return
		}
		s, err := Open(Options{FS: img, Dir: "packs", UUID: testUUID, NextPack: 1})
		require.NoError(t, err)
		for _, e := range durable {
			require.NoError(t, s.Verify(e.ref))
			got, err := get(s, e.ref)
			require.NoError(t, err)
			same(t, e.v, got)
		}
		for _, e := range written {
			if err := s.Verify(e.ref); err != nil {
				require.True(t, typed(err), "%v", err)
			}
		}
		r, err := DecodeRef(put(t, s, []byte("after")))
		require.NoError(t, err)
		for _, num := range s.Packs() {
			require.LessOrEqual(t, num, r.Pack)
		}
		require.NoError(t, s.Close())
	}
	var busy bool
	var ops uint64
	fs := errorfs.Wrap(mem, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if !busy && op.Kind.ReadOrWrite() == errorfs.OpIsWrite {
			busy = true
			ops++
			for i, percent := range []int{0, 50, 50, 100} {
				check(percent, ops*8+uint64(i))
			}
			busy = false
		}
		return nil
	}))
	require.NoError(t, mem.MkdirAll("", 0o755))
	s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, PackBytes: 40 << 10, FrameBytes: minFrameBytes})
	require.NoError(t, err)
	root, err := mem.OpenDir("")
	require.NoError(t, err)
	require.NoError(t, root.Sync()) // the folder itself is the engine's to sync
	require.NoError(t, root.Close())
	for i := range 16 {
		v := value(kinds[i%3], 5000+i*2500)
		written = append(written, entry{v, put(t, s, v)})
		if i%3 == 2 {
			require.NoError(t, s.Sync())
			durable = append(durable, written...)
			written = nil
			check(0, 1)
		}
		if i == 9 {
			require.NoError(t, s.Seal())
			durable = append(durable, written...)
			written = nil
		}
	}
	check(0, 1)
	require.NoError(t, s.Close())
	t.Logf("%d operations, %d images", ops, clones)
	require.Greater(t, s.Metrics().Packs, 2)
}

func TestStore_Write_diskFull(t *testing.T) {
	// The goal: F-17 and M4. Want of space at any write costs that value alone.
	for k := range int32(12) {
		mem := vfs.NewMem()
		var left atomic.Int32
		left.Store(k)
		fs := &halfFS{FS: mem, fail: func() error {
			if left.Add(-1) == -1 {
				return syscall.ENOSPC
			}
			return nil
		}}
		s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, PackBytes: 700 << 10})
		require.NoError(t, err)
		var refs, values [][]byte
		var full int
		for i := range 5 {
			v := value("random", 300_000+i)
			ref, err := s.Write(v)
			if err != nil {
				require.ErrorIs(t, err, ErrDiskFull)
				require.NotErrorIs(t, err, ErrPoisoned)
				full++
				continue
			}
			refs, values = append(refs, ref), append(values, v)
		}
		require.Equal(t, 1, full, "k=%d", k)
		require.NoError(t, s.Sync())
		require.NoError(t, s.Close())
		s, err = Open(Options{FS: mem, Dir: "packs", UUID: testUUID})
		require.NoError(t, err)
		for i, ref := range refs {
			got, err := get(s, ref)
			require.NoError(t, err)
			same(t, values[i], got)
		}
		require.NoError(t, s.Close())
	}
}

// halfFS breaks a write off in the middle.
type halfFS struct {
	vfs.FS
	fail func() error
}

type halfFile struct {
	vfs.File
	fail func() error
}

func (fs *halfFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return &halfFile{f, fs.fail}, err
}

func (f *halfFile) Write(b []byte) (int, error) {
	if err := f.fail(); err != nil {
		n, _ := f.File.Write(b[:len(b)/2])
		return n, err
	}
	return f.File.Write(b)
}

func TestStore_poison(t *testing.T) {
	// The goal: M3. After a failed sync or write nothing is written, nothing
	// synced and nothing promised until reopen; reads go on.
	for _, kind := range []errorfs.OpKind{errorfs.OpFileSyncData, errorfs.OpFileSync, errorfs.OpFileWrite} {
		var armed atomic.Bool
		var after atomic.Int32
		fs := errorfs.Wrap(vfs.NewMem(), errorfs.InjectorFunc(func(op errorfs.Op) error {
			if after.Load() > 0 && op.Kind.ReadOrWrite() == errorfs.OpIsWrite && op.Kind != errorfs.OpFileClose {
				after.Add(1)
			}
			if op.Kind == kind && armed.CompareAndSwap(true, false) {
				after.Store(1)
				return syscall.EIO
			}
			return nil
		}))
		s, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID})
		require.NoError(t, err)
		v := value("text", 100_000)
		ref := put(t, s, v)
		if kind != errorfs.OpFileSync { // the folder's, which happens once
			require.NoError(t, s.Sync())
			put(t, s, v)
		}
		armed.Store(true)
		if kind == errorfs.OpFileWrite {
			_, err = s.Write(v)
		} else {
			err = s.Sync()
		}
		require.ErrorIs(t, err, ErrPoisoned)
		require.ErrorIs(t, err, syscall.EIO)
		for range 2 {
			require.ErrorIs(t, s.Sync(), ErrPoisoned)
			require.ErrorIs(t, s.Seal(), ErrPoisoned)
			_, err = s.Write(v)
			require.ErrorIs(t, err, ErrPoisoned)
		}
		require.EqualValues(t, 1, after.Load(), "the file was touched again")
		got, err := get(s, ref)
		require.NoError(t, err)
		same(t, v, got)
		require.True(t, s.Metrics().Poisoned)
		require.NoError(t, s.Close())
	}
}

func TestStore_Sync_shared(t *testing.T) {
	// The goal: one sync vouches for all that were written before it began.
	s, _ := disk(t)
	ref := put(t, s, []byte("v"))
	s.syncMu.Lock()
	done := make(chan error, 8)
	for range 8 {
		go func() { done <- s.Sync() }()
	}
	s.syncMu.Unlock()
	for range 8 {
		require.NoError(t, <-done)
	}
	require.EqualValues(t, 1, s.Metrics().Syncs)
	require.NoError(t, s.Verify(ref))
}

func TestStore_read_errors(t *testing.T) {
	// The goal: F-10. A read that fails is that read's error, not corruption,
	// and the next one may succeed.
	im := makeImage(t)
	s := memStore(t, im.pack, 1)
	var fail atomic.Bool
	s.o.FS = errorfs.Wrap(s.o.FS, errorfs.InjectorFunc(func(op errorfs.Op) error {
		if fail.Load() && op.Kind == errorfs.OpFileReadAt {
			return syscall.EIO
		}
		return nil
	}))
	fail.Store(true)
	_, err := get(s, im.refs[0])
	require.ErrorIs(t, err, syscall.EIO)
	require.NotErrorIs(t, err, ErrCorrupt)
	fail.Store(false)
	require.Zero(t, im.harmless(t, s, "after the error"))
}
