package mmap

import (
	"encoding/binary"
	"io"
	"math"
	"os"
	"path/filepath"
	"syscall"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal (M3): when the sync of the folder fails under a rewrite, the name of a pack that was
// begun before may be lost with it: nothing is called durable any more.
func TestStore_Rewrite_folderSyncFails(t *testing.T) {
	fs := simfs.New(nil)
	s, err := Open(simOptions(fs))
	require.NoError(t, err)
	defer s.Close()
	root, err := fs.OpenDir("")
	require.NoError(t, err)
	require.NoError(t, root.Sync())
	all := sealed(t, s)
	put(t, s, value("random", 5000)) // begins a pack whose name is not durable yet
	fs.Inject(simfs.FailOnce(simfs.OpSyncDir, "", 1, syscall.EIO))
	require.ErrorIs(t, s.Rewrite(1, extents(t, all[:3])), ErrPoisoned)
	require.ErrorIs(t, s.Sync(), ErrPoisoned)
	_, err = s.Write(value("random", 5000))
	require.ErrorIs(t, err, ErrPoisoned)
}

// Goal (M1): a name with a number near the end of them is refused before new packs could
// wrap over old ones.
func TestOpen_highestNumber(t *testing.T) {
	for _, num := range []uint64{maxPack + 1, math.MaxUint64 - 1, math.MaxUint64} {
		dir := t.TempDir()
		require.NoError(t, os.WriteFile(filepath.Join(dir, packName(num)), nil, 0o644))
		_, err := Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID})
		require.ErrorIs(t, err, ErrCorrupt)
		_, err = Open(Options{FS: vfs.Default, Dir: t.TempDir(), UUID: testUUID, NextPack: num})
		require.Error(t, err)
	}
	dir := t.TempDir()
	require.NoError(t, os.WriteFile(filepath.Join(dir, packName(maxPack)), nil, 0o644))
	s, err := Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID})
	require.NoError(t, err)
	put(t, s, []byte("v"))
	require.EqualValues(t, maxPack+1, s.High())
	require.NoError(t, s.Close())
}

// Goal (M6): a writer that hands what it gets to another goroutine gets no mapped memory:
// when the file is cut meanwhile, that goroutine reads on, and WriteTo returns ErrCorrupt.
func TestBlob_WriteTo_pipe(t *testing.T) {
	s, _ := disk(t, func(o *Options) { o.Compression = None })
	v := value("random", 1<<20)
	ref := put(t, s, v)
	require.NoError(t, s.Sync())
	b, err := s.Open(ref)
	require.NoError(t, err)
	defer b.Close()
	pr, pw := io.Pipe()
	done := make(chan error)
	go func() {
		_, err := b.WriteTo(pw)
		pw.CloseWithError(err)
		done <- err
	}()
	p := make([]byte, 100)
	_, err = io.ReadFull(pr, p) // WriteTo waits inside Write
	require.NoError(t, err)
	require.NoError(t, os.Truncate(s.path(1), 4096))
	_, err = io.Copy(io.Discard, pr)
	require.ErrorIs(t, err, ErrCorrupt)
	require.ErrorIs(t, <-done, ErrCorrupt)
}

type unwrapping struct{ io.Writer }

func (u unwrapping) Unwrap() io.Writer { return u.Writer }

// Goal: only writers that look at the bytes themselves, before they return, get the
// mapping; one that says whom it is for is judged by that.
func TestDirect(t *testing.T) {
	pr, pw := io.Pipe()
	defer pr.Close()
	require.True(t, direct(os.Stdout))
	require.True(t, direct(io.Discard))
	require.True(t, direct(unwrapping{os.Stdout}))
	require.False(t, direct(pw))
	require.False(t, direct(unwrapping{pw}))
	require.False(t, direct(struct{ io.Writer }{os.Stdout}))
}

// Goal: the bytes of a write that broke off for want of room are counted, so that the
// collector finds them.
func TestStore_PackInfos_brokenOff(t *testing.T) {
	fs := simfs.New(nil)
	o := simOptions(fs)
	o.Compression, o.PackBytes = None, 64<<20
	s, err := Open(o)
	require.NoError(t, err)
	defer s.Close()
	s.Settle(put(t, s, value("random", 5000)))
	f := fs.Inject(simfs.FailOnce(simfs.OpWrite, "", 30, syscall.ENOSPC))
	_, err = s.Write(value("random", 16<<20))
	require.ErrorIs(t, err, ErrDiskFull)
	f.Remove()
	s.Settle(put(t, s, value("random", 4000)))
	require.NoError(t, s.Seal())
	infos := s.PackInfos()
	require.Len(t, infos, 2)
	for _, i := range infos {
		st, err := fs.Stat(s.path(i.Num))
		require.NoError(t, err)
		require.Equal(t, st.Size(), i.Bytes)
	}
	require.Greater(t, infos[0].Bytes, int64(1<<20))
}

// Goal (M5): a table of a rewritten pack that leads out of the file, into its head or to
// two places is ErrCorrupt, whatever its checksums say.
func TestOpen_hostileTable(t *testing.T) {
	for name, change := range map[string]func(table []byte){
		"far":      func(b []byte) { binary.LittleEndian.PutUint64(b[8:], math.MaxUint64-99) },
		"past":     func(b []byte) { binary.LittleEndian.PutUint64(b[8:], 1<<20) },
		"head":     func(b []byte) { binary.LittleEndian.PutUint64(b[8:], 8) },
		"odd":      func(b []byte) { binary.LittleEndian.PutUint64(b[8:], packHeaderLen+1) },
		"order":    func(b []byte) { binary.LittleEndian.PutUint64(b[16:], 1) },
		"repeated": func(b []byte) { copy(b[16:24], b[:8]) },
	} {
		t.Run(name, func(t *testing.T) {
			dir := t.TempDir()
			o := Options{FS: vfs.Default, Dir: dir, UUID: testUUID, FrameBytes: minFrameBytes}
			s, err := Open(o)
			require.NoError(t, err)
			all := sealed(t, s)
			require.NoError(t, s.Rewrite(1, extents(t, all[:2])))
			path := s.path(1)
			require.NoError(t, s.Close())
			b, err := os.ReadFile(path)
			require.NoError(t, err)
			at := binary.LittleEndian.Uint64(b[48:])
			change(b[at:])
			binary.LittleEndian.PutUint32(b[60:], checksum(b[at:]))
			binary.LittleEndian.PutUint32(b[packHeaderLen-4:], checksum(b[:packHeaderLen-4]))
			require.NoError(t, os.WriteFile(path, b, 0o644))
			s, err = Open(o)
			require.NoError(t, err)
			defer s.Close()
			_, err = get(s, all[0].ref)
			require.ErrorIs(t, err, ErrCorrupt)
		})
	}
}

// Goal (I10): where nobody asks for a sync, streamed values do not keep a file open each.
func TestStore_boundUnsynced(t *testing.T) {
	s, _ := disk(t, func(o *Options) { o.Compression, o.PackBytes = None, 1 })
	for range 3 * maxUnsynced {
		s.Settle(put(t, s, []byte("a pack of its own")))
		require.LessOrEqual(t, s.Metrics().UnsyncedPacks, maxUnsynced+1)
	}
	require.Greater(t, s.Metrics().Packs, 2*maxUnsynced)
}

// Goal: want of descriptors fails the write that needed one and no other.
func TestStore_Write_noDescriptor(t *testing.T) {
	fs := simfs.New(nil)
	s, err := Open(simOptions(fs))
	require.NoError(t, err)
	defer s.Close()
	for range 2 {
		f := fs.Inject(simfs.FailOnce(simfs.OpCreate, "", 1, syscall.EMFILE))
		_, err = s.Write(value("random", 5000))
		require.ErrorIs(t, err, syscall.EMFILE)
		require.Positive(t, f.Fired())
		f.Remove()
	}
	ref := put(t, s, value("random", 5000))
	require.NoError(t, s.Sync())
	_, err = get(s, ref)
	require.NoError(t, err)
}
