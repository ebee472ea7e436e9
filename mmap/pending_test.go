package mmap

import (
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal (M8): a pack is removed when it is sealed and each of its blobs was settled, and
// not before; settling what is not there does nothing.
func TestStore_Settle(t *testing.T) {
	s, dir := disk(t, func(o *Options) { o.Compression = None })
	a, b := put(t, s, []byte("a")), put(t, s, []byte("b"))
	c, err := streamed(s, value("random", soloBytes), 0)
	require.NoError(t, err)
	r, err := DecodeRef(c)
	require.NoError(t, err)
	require.ErrorIs(t, s.Remove(r.Pack), ErrNotSealed, "not durable yet")
	require.NoError(t, s.Seal())
	require.ErrorIs(t, s.Remove(r.Pack), ErrPending)
	s.Settle(c)
	s.Settle(c)
	s.Settle(nil)
	s.Settle(Ref{Pack: 99, Offset: packHeaderLen, Stored: 200}.append(nil))
	s.Settle(a)
	require.ErrorIs(t, s.Remove(1), ErrPending)
	infos := s.PackInfos()
	require.ElementsMatch(t, []PackInfo{
		{Num: 1, Bytes: packHeaderLen + 2*80, Sealed: true, Pending: 1},
		{Num: 2, Bytes: int64(packHeaderLen + r.Stored), Sealed: true},
	}, infos)
	s.Settle(b)
	require.NoError(t, s.Remove(1))
	require.NoError(t, s.Close())

	// An earlier open's packs have no pins; their length is asked for once.
	s, err = Open(Options{FS: vfs.Default, Dir: dir, UUID: testUUID})
	require.NoError(t, err)
	for range 2 {
		infos = s.PackInfos()
		require.Equal(t, []PackInfo{{Num: 2, Bytes: int64(packHeaderLen + r.Stored), Sealed: true}}, infos)
	}
	require.NoError(t, s.Remove(2))
	infos = s.PackInfos()
	require.Empty(t, infos)
	require.NoError(t, s.Close())
}
