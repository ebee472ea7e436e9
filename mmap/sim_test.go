package mmap

import (
	"errors"
	"fmt"
	"io"
	"os"
	"strings"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// simOptions are those of a store on a disk that fails on demand: small packs, so that
// every write may begin one.
func simOptions(fs vfs.FS) Options {
	return Options{FS: fs, Dir: "packs", UUID: testUUID, PackBytes: 20 << 10, FrameBytes: minFrameBytes}
}

// blobEntry is a value and where it lies.
type blobEntry struct{ v, ref []byte }

// allThere demands every value from a fresh store on a healthy disk, and that it
// writes.
func allThere(t *testing.T, fs vfs.FS, want []blobEntry, at string) {
	t.Helper()
	s, err := Open(simOptions(fs))
	require.NoError(t, err, at)
	for _, e := range want {
		require.NoError(t, s.Verify(e.ref), at)
		got, err := get(s, e.ref)
		require.NoError(t, err, at)
		same(t, e.v, got)
	}
	ref := put(t, s, []byte("after"))
	require.NoError(t, s.Sync(), at)
	require.NoError(t, s.Verify(ref), at)
	require.NoError(t, s.Close(), at)
}

// Goal (M2, M3, M4): whichever call of a life fails, with a broken or a full disk, the
// error is typed and has its cause in it; a read gives the right bytes or that error,
// and never corruption; after a failed sync nothing is written until reopen; and what
// Sync vouched for is there after a power cut.
func TestStore_anyCallFails(t *testing.T) {
	step := 1
	if testing.Short() || raceEnabled {
		step = 5
	}
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for nth, fired := 1, true; fired; nth += step {
			fs := simfs.New(nil)
			at := fmt.Sprintf("%v at call %d", cause, nth)
			fault := fs.Inject(simfs.FailOnce(0, "", nth, cause))
			durable := simLife(t, fs, fault, cause, at)
			fired = fault.Fired() > 0
			fault.Remove()
			if t.Failed() {
				t.Fatal(fs.Trace())
			}
			if len(durable) > 0 {
				allThere(t, fs.Crash(simfs.CrashConfig{Seed: uint64(nth)}), durable, at+", power cut")
				allThere(t, fs, durable, at)
			}
		}
	}
}

// simLife uses a store in every way there is, and returns what Sync vouched for.
func simLife(t *testing.T, fs *simfs.FS, fault *simfs.Fault, cause error, at string) (durable []blobEntry) {
	right := func(what string, err error) bool {
		if err == nil {
			return true
		}
		if errors.Is(err, ErrCorrupt) || fault.Fired() == 0 || !errors.Is(err, cause) && !errors.Is(err, ErrMissing) {
			t.Errorf("%s: %s: %v", at, what, err)
		}
		return false
	}
	s, err := Open(simOptions(fs))
	if !right("open", err) {
		return nil
	}
	root, err := fs.OpenDir("/") // the folder's own name is the engine's to sync
	if !right("root", err) || !right("root", root.Sync()) {
		return nil
	}
	_ = root.Close()
	var written []blobEntry
	poisoned := false
	write := func(v []byte) {
		ref, err := s.Write(v)
		if right("write", err) {
			require.False(t, poisoned, at)
			written = append(written, blobEntry{v, ref})
			return
		}
		poisoned = poisoned || errors.Is(err, ErrPoisoned)
		require.True(t, errors.Is(err, ErrPoisoned) || errors.Is(err, ErrDiskFull), at)
		require.Equal(t, poisoned, s.Metrics().Poisoned, at)
	}
	sync := func(what string, f func() error) {
		if right(what, f()) {
			require.False(t, poisoned, at)
			durable = append(durable[:0:0], written...)
			return
		}
		poisoned = true
		require.ErrorIs(t, s.Sync(), ErrPoisoned, at)
		require.ErrorIs(t, s.Seal(), ErrPoisoned, at)
		_, err := s.Write([]byte("more"))
		require.ErrorIs(t, err, ErrPoisoned, at)
	}
	for i := range 4 {
		write(value(kinds[i%3], 6000+i*5000))
		if i == 1 {
			sync("sync", s.Sync)
		}
	}
	sync("seal", s.Seal)
	write(value("random", 300_000))
	for _, e := range written {
		for how, read := range map[string]func() ([]byte, error){
			"get":    func() ([]byte, error) { return get(s, e.ref) },
			"view":   func() ([]byte, error) { return view(s, e.ref) },
			"exists": func() ([]byte, error) { return e.v, s.Exists(e.ref) },
			"verify": func() ([]byte, error) { return e.v, s.Verify(e.ref) },
		} {
			if got, err := read(); right(how, err) {
				same(t, e.v, got)
			}
		}
		require.NoError(t, s.Has(e.ref), at)
	}
	right("link", s.LinkTo(fs, "copy", nil))
	for _, e := range written {
		s.Settle(e.ref)
	}
	switch err := s.Remove(1); {
	case poisoned && errors.Is(err, ErrNotSealed): // and never will be
	case right("remove", err):
		require.ErrorIs(t, s.Remove(1), ErrMissing, at)
	}
	sync("last sync", s.Sync)
	right("close", s.Close())
	var left []blobEntry
	for _, e := range durable {
		if r, _ := DecodeRef(e.ref); r.Pack != 1 {
			left = append(left, e)
		}
	}
	return left
}

// killed is a store whose process died: written and not synced, on a disk that still
// runs.
func killed(t *testing.T) (fs *simfs.FS, all []blobEntry, refs [][]byte) {
	t.Helper()
	fs = simfs.New(nil)
	require.NoError(t, fs.MkdirAll("packs", 0o755))
	root, err := fs.OpenDir("/")
	require.NoError(t, err)
	require.NoError(t, root.Sync())
	s, err := Open(simOptions(fs))
	require.NoError(t, err)
	for i := range 5 {
		v := value(kinds[i%3], 3000+i*4000)
		ref := put(t, s, v)
		all, refs = append(all, blobEntry{v, ref}), append(refs, ref)
	}
	return fs, all, refs
}

// Goal: what Renew vouched for survives a power cut, though the process before had
// synced nothing of it; without Renew it would not.
func TestStore_Renew(t *testing.T) {
	fs, all, refs := killed(t)
	lost := fs.Crash(simfs.CrashConfig{Image: simfs.Nothing})
	_, err := lost.Stat("packs/" + packName(1))
	require.ErrorIs(t, err, os.ErrNotExist, "the disk does not have them yet")

	s, err := Open(simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, s.Verify(refs[0]), "open, and to be forgotten")
	b, err := s.Open(refs[1])
	require.NoError(t, err, "pinned, and to be kept")
	require.NoError(t, s.Renew(refs))
	require.NoError(t, s.Renew(nil))
	got, err := b.AppendTo(nil)
	require.NoError(t, err)
	same(t, all[1].v, got)
	require.NoError(t, b.Close())
	for _, e := range all {
		require.NoError(t, s.Verify(e.ref))
	}
	for seed := range uint64(8) {
		allThere(t, fs.Crash(simfs.CrashConfig{Seed: seed}), all, fmt.Sprint("seed ", seed))
	}
	allThere(t, fs.Crash(simfs.CrashConfig{Image: simfs.Nothing}), all, "nothing unsynced")
	require.NoError(t, s.Close())

	ro, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, ReadOnly: true})
	require.NoError(t, err)
	require.ErrorIs(t, ro.Renew(refs), ErrReadOnly)
	require.NoError(t, ro.Close())
	s, err = Open(simOptions(fs))
	require.NoError(t, err)
	require.ErrorIs(t, s.Renew([][]byte{refs[0][1:]}), ErrCorrupt)
	r, _ := DecodeRef(refs[0])
	r.Pack = 99
	require.ErrorIs(t, s.Renew([][]byte{r.append(nil)}), os.ErrNotExist)
	require.NoError(t, s.Close())
}

// Goal: whichever call of a Renew fails, what was readable before stays so, the number
// of no pack comes back, and the next open's Renew does the work and clears away what
// the broken one left.
func TestStore_Renew_anyCallFails(t *testing.T) {
	for _, cause := range []error{syscall.EIO, syscall.ENOSPC} {
		for nth, fired := 1, true; fired; nth++ {
			at := fmt.Sprintf("%v at call %d", cause, nth)
			fs, all, refs := killed(t)
			s, err := Open(simOptions(fs))
			require.NoError(t, err)
			for _, e := range all {
				require.NoError(t, s.Verify(e.ref))
			}
			high := s.High()
			fault := fs.Inject(simfs.FailFrom(0, "", nth, cause))
			err = s.Renew(refs)
			fired = fault.Fired() > 0
			fault.Remove()
			if err != nil {
				require.ErrorIs(t, err, cause, at)
			} else {
				allThere(t, fs.Crash(simfs.CrashConfig{Image: simfs.Nothing}), all, at+", vouched for")
			}
			_ = s.Close()
			s, err = Open(simOptions(fs))
			require.NoError(t, err)
			require.GreaterOrEqual(t, s.High(), high, at)
			require.NoError(t, s.Renew(refs), at)
			require.NoError(t, s.Close())
			names, err := fs.List("packs")
			require.NoError(t, err)
			for _, n := range names {
				require.True(t, strings.HasSuffix(n, packSuffix), "%s: %s stays", at, n)
			}
			allThere(t, fs.Crash(simfs.CrashConfig{Image: simfs.Nothing}), all, at)
		}
	}
}

// Goal: whichever call of a copy to another disk fails, LinkTo says so, nothing that
// looks like a whole pack and is not lies there, and the store is untouched.
func TestStore_LinkTo_anyCallFails(t *testing.T) {
	from, all, _ := killed(t)
	s, err := Open(simOptions(from))
	require.NoError(t, err)
	defer s.Close()
	for nth, fired := 1, true; fired; nth++ {
		to := simfs.New(nil)
		faults := []*simfs.Fault{
			to.Inject(simfs.FailFrom(simfs.OpAll&^simfs.OpLink, "", nth, syscall.ENOSPC)),
			from.Inject(simfs.FailOnce(simfs.OpAll&^simfs.OpLink, "", nth, syscall.EIO)),
		}
		err := s.LinkTo(to, "copy", nil)
		fired = false
		for _, f := range faults {
			fired = fired || f.Fired() > 0
			f.Remove()
		}
		if !fired {
			require.NoError(t, err)
		}
		if err != nil {
			require.ErrorIs(t, err, simfs.ErrInjected)
		}
		names, _ := to.List("copy")
		c, cerr := Open(Options{FS: to, Dir: "copy", UUID: testUUID, ReadOnly: true})
		require.NoError(t, cerr)
		for _, e := range all {
			switch verr := c.Verify(e.ref); {
			case verr == nil:
			case err != nil:
				require.ErrorIs(t, verr, ErrMissing, "call %d: %v", nth, names)
			default:
				t.Fatalf("call %d: %v", nth, verr)
			}
		}
		require.NoError(t, c.Close())
	}
	for _, e := range all {
		require.NoError(t, s.Verify(e.ref))
	}
}

// shortFS has files whose writes or reads make no progress.
type shortFS struct{ vfs.FS }

func (fs shortFS) Create(name string, c vfs.DiskWriteCategory) (vfs.File, error) {
	f, err := fs.FS.Create(name, c)
	return shortFile{f}, err
}

func (fs shortFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, o...)
	return shortFile{f}, err
}

type shortFile struct{ vfs.File }

func (shortFile) Write([]byte) (int, error)         { return 0, nil }
func (shortFile) ReadAt([]byte, int64) (int, error) { return 0, nil }

// Goal: a file system that makes no progress and says nothing is an error, not a loop
// without an end.
func TestStore_noProgress(t *testing.T) {
	fs, _, refs := killed(t)
	s, err := Open(simOptions(shortFS{fs}))
	require.NoError(t, err)
	_, err = s.Write([]byte("v"))
	require.ErrorIs(t, err, io.ErrShortWrite)
	_, err = get(s, refs[0])
	require.ErrorIs(t, err, io.ErrNoProgress)
	require.NoError(t, s.Close())
}

// Goal: a closed store refuses every call, a read-only one every change, and both do so
// by name.
func TestStore_refusals(t *testing.T) {
	fs, _, refs := killed(t)
	ro, err := Open(Options{FS: fs, Dir: "packs", UUID: testUUID, ReadOnly: true})
	require.NoError(t, err)
	_, err = ro.Write([]byte("v"))
	require.ErrorIs(t, err, ErrReadOnly)
	require.ErrorIs(t, ro.Remove(1), ErrReadOnly)
	require.NoError(t, ro.Seal(), "nothing is open for writing")
	require.NoError(t, ro.Has(refs[0]))
	require.ErrorIs(t, ro.Has(refs[0][1:]), ErrCorrupt)
	r, err := DecodeRef(refs[0])
	require.NoError(t, err)
	r.Pack = 99
	require.ErrorIs(t, ro.Has(r.append(nil)), ErrMissing)
	b, err := ro.Open(refs[0])
	require.NoError(t, err)
	require.Equal(t, r.Codec, b.Codec())
	require.NoError(t, b.Close())
	_, err = b.ReadAt(make([]byte, 1), 0)
	require.ErrorIs(t, err, ErrClosed)
	require.ErrorIs(t, b.View(func([]byte) error { return nil }), ErrClosed)
	require.NoError(t, ro.Close())
	require.NoError(t, ro.Close())

	s, err := Open(simOptions(fs))
	require.NoError(t, err)
	require.NoError(t, s.Close())
	_, err = s.Write([]byte("v"))
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.Open(refs[0])
	require.ErrorIs(t, err, ErrClosed)
	_, err = s.acquire(1) // an Open that began before
	require.ErrorIs(t, err, ErrClosed)
	for _, f := range []func() error{s.Sync, s.Seal, func() error { return s.Remove(1) }, func() error { return s.Has(refs[0]) }} {
		require.ErrorIs(t, f(), ErrClosed)
	}
}
