package mmap

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// fdFS lets a test into the moment before a mapping is made, and choose what is
// mapped.
type fdFS struct {
	vfs.FS
	fd func(f vfs.File) uintptr
}

func (fs *fdFS) Open(name string, o ...vfs.OpenOption) (vfs.File, error) {
	f, err := fs.FS.Open(name, o...)
	if err != nil {
		return nil, err
	}
	return fdFile{f, fs}, nil
}

type fdFile struct {
	vfs.File
	fs *fdFS
}

func (f fdFile) Fd() uintptr { return f.fs.fd(f.File) }

// onFd is a store with one raw, synced blob, and fd as the hook.
func onFd(t *testing.T, fd func(f vfs.File) uintptr) (s *Store, v, ref []byte) {
	t.Helper()
	fs := &fdFS{FS: vfs.Default, fd: vfs.File.Fd}
	s, _ = disk(t, func(o *Options) { o.FS, o.Compression = fs, None })
	v = value("random", 200_000)
	ref = put(t, s, v)
	require.NoError(t, s.Sync())
	fs.fd = fd
	return s, v, ref
}

// Goal: a file that cannot be mapped is read instead, and nothing stays counted.
func TestBlob_View_cannotMap(t *testing.T) {
	s, v, ref := onFd(t, func(vfs.File) uintptr { return 1 << 20 }) // nobody's
	for range 3 {
		got, err := view(s, ref)
		require.NoError(t, err)
		same(t, v, got)
	}
	m := s.Metrics()
	require.Zero(t, m.Mappings)
	require.Zero(t, m.MappedBytes)
	require.Zero(t, m.MappingsMade)
	require.Zero(t, m.Pins)
}

// Goal (M7): two readers that map one blob in the same moment share one mapping, and
// both are counted right.
func TestBlob_View_bothMap(t *testing.T) {
	var s *Store
	var v, ref, inner []byte
	began := false
	s, v, ref = onFd(t, func(f vfs.File) uintptr {
		if !began {
			began = true
			var err error
			inner, err = view(s, ref)
			require.NoError(t, err)
		}
		return f.Fd()
	})
	b, err := s.Open(ref)
	require.NoError(t, err)
	require.NoError(t, b.View(func(got []byte) error {
		same(t, v, got)
		m := s.Metrics()
		require.Equal(t, 1, m.Mappings)
		require.EqualValues(t, 2, m.MappingsMade)
		require.EqualValues(t, 1, m.MappingsGone)
		require.Equal(t, 1, m.Pins)
		return nil
	}))
	same(t, v, inner)
	require.NoError(t, b.Close())
	s.DropMappings()
	require.Zero(t, s.Metrics().MappedBytes)
	require.Zero(t, maps(t))
}

// Goal (M7): a mapping that is made while the store closes lives as long as its pin and
// no longer; after the close nothing is reserved.
func TestWindows_closedMeanwhile(t *testing.T) {
	s, v, ref := onFd(t, vfs.File.Fd)
	b, err := s.Open(ref)
	require.NoError(t, err)
	require.NoError(t, b.load())
	ws := &s.windows
	n := pages(blobHeaderLen + len(v) + 4096)
	require.True(t, ws.reserve(n, false))
	region, err := mapFile(b.p.file.Fd(), packHeaderLen, int(n))
	require.NoError(t, err)
	ws.drop(true)
	w := ws.add(&window{key: windowKey{1, packHeaderLen}, ref: b.ref, region: region, blob: region, layout: b.layout.Load()})
	require.True(t, w.gone)
	require.Equal(t, 1, maps(t))
	ws.put(w)
	require.Zero(t, maps(t))
	require.Zero(t, s.Metrics().MappedBytes)
	require.False(t, ws.reserve(n, true))
	require.NoError(t, b.Close())
}

// Goal: a pack that is removed takes its unpinned mappings along, and leaves those of
// other packs.
func TestStore_Remove_unpinnedMapping(t *testing.T) {
	s, v, ref := onFd(t, vfs.File.Fd)
	require.NoError(t, s.Seal())
	other := put(t, s, v)
	require.NoError(t, s.Seal())
	for _, r := range [][]byte{ref, other} {
		_, err := view(s, r)
		require.NoError(t, err)
	}
	require.Equal(t, 2, s.Metrics().Mappings)
	s.Settle(ref)
	require.NoError(t, s.Remove(1))
	require.Equal(t, 1, s.Metrics().Mappings)
	got, err := view(s, other)
	require.NoError(t, err)
	same(t, v, got)
}

// Goal: a reference that lies about a blob that is mapped for another is refused, and
// the honest one goes on.
func TestStore_Open_lyingReference(t *testing.T) {
	s, v, ref := onFd(t, vfs.File.Fd)
	lie, err := DecodeRef(ref)
	require.NoError(t, err)
	lie.Hash++
	early, err := s.Open(lie.append(nil)) // before there is a mapping
	require.NoError(t, err)
	b, err := s.Open(ref)
	require.NoError(t, err)
	require.NoError(t, b.View(func([]byte) error { return nil }))
	require.True(t, b.Mapped())
	for _, read := range []func() error{
		func() error { _, err := early.AppendTo(nil); return err },
		func() error { _, err := get(s, lie.append(nil)); return err },
		func() error { _, err := view(s, lie.append(nil)); return err },
		func() error { return s.Verify(lie.append(nil)) },
	} {
		require.ErrorIs(t, read(), ErrCorrupt)
	}
	require.Nil(t, early.mapped(false), "a mapping of another")
	require.NoError(t, early.Close())
	require.NoError(t, b.Close())
	got, err := view(s, ref)
	require.NoError(t, err)
	same(t, v, got)
	require.Zero(t, s.Metrics().Pins)
}

// Goal (M6): where the kernel cannot populate a mapping, each page is touched, and one
// that is gone is an error and no signal.
func TestPopulate_byTouch(t *testing.T) {
	name := filepath.Join(t.TempDir(), "file")
	n := 8 * pageSize
	require.NoError(t, os.WriteFile(name, bytes.Repeat([]byte{1}, n), 0o644))
	f, err := os.OpenFile(name, os.O_RDWR, 0)
	require.NoError(t, err)
	defer f.Close()
	region, err := mapFile(f.Fd(), 0, n)
	if err != nil {
		t.Skip("no mappings here")
	}
	defer func() { require.NoError(t, unmap(region)) }()
	// An address that is not a page's is refused like a call that is not known.
	require.NoError(t, populate(region))
	require.NoError(t, populate(region[1:]))
	require.NoError(t, f.Truncate(int64(pageSize)))
	require.Error(t, populate(region))
	err = populate(region[1:])
	var gone *fault
	require.ErrorAs(t, err, &gone)
	require.ErrorContains(t, err, "page is gone: ")
	require.Error(t, gone.Unwrap())
	require.False(t, contains(nil, 0))
	require.PanicsWithValue(t, "mine", func() { _ = guard(region, func() error { panic("mine") }) })
}
