package storage

import (
	"errors"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2"
	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
)

// Goal (I4): the index of blobs changes with the cells and the watermark, is walked in the
// order of packs and offsets, whole or for one pack, and says whether it is exact, now and
// after a reopen.
func TestIngest_blobs(t *testing.T) {
	fs := vfs.NewMem()
	s := mustOpen(t, testOptions(fs))
	require.False(t, s.Indexed())
	list := func(walk func(fn func(pack, offset, stored uint64, key []byte) error) error) (out []string) {
		require.NoError(t, walk(func(pack, offset, stored uint64, key []byte) error {
			out = append(out, fmt.Sprintf("%d:%d %d %s", pack, offset, stored, key))
			return nil
		}))
		return out
	}
	const last = ^uint64(0)
	in, err := s.NewIngest()
	require.NoError(t, err)
	require.NoError(t, feed(in, sets(2, "k%d", "v")))
	in.SetBlob(7, 300, 1, []byte("c"))
	in.SetBlob(7, 20, 1000, []byte("b"))
	in.SetBlob(1, 0, 5, []byte("a"))
	in.SetBlob(last, 9, 2, []byte("z"))
	in.SetBlob(3, 3, 3, []byte("gone"))
	in.DropBlob(3, 3) // the last one counts
	in.DropBlob(4, 4) // none to drop
	in.SetIndexed()
	_, err = in.Commit(mark(1, nil))
	require.NoError(t, err)
	require.True(t, s.Indexed())
	sn := s.Current()
	require.Equal(t, []string{"1:0 5 a", "7:20 1000 b", "7:300 1 c", fmt.Sprint(last, ":9 2 z")}, list(sn.EachBlob))
	of := func(pack uint64) func(func(_, _, _ uint64, _ []byte) error) error {
		return func(fn func(_, _, _ uint64, _ []byte) error) error { return sn.EachBlobOf(pack, fn) }
	}
	require.Equal(t, []string{"7:20 1000 b", "7:300 1 c"}, list(of(7)))
	require.Equal(t, []string{fmt.Sprint(last, ":9 2 z")}, list(of(last)))
	require.Empty(t, list(of(2)))
	enough := errors.New("enough")
	require.ErrorIs(t, sn.EachBlob(func(_, _, _ uint64, _ []byte) error { return enough }), enough)
	got, err := dump(sn)
	require.NoError(t, err)
	require.Len(t, got, 2, "its entries are no keys of the user")

	in, err = s.NewIngest()
	require.NoError(t, err)
	in.DropBlob(7, 20)
	in.SetBlob(7, 300, 8, []byte("d"))
	in.SetIndexed() // the note is there
	_, err = in.Commit(mark(2, nil))
	require.NoError(t, err)
	require.Len(t, list(sn.EachBlob), 4, "a snapshot keeps what it saw")
	sn.Release()
	sn = s.Current()
	require.Equal(t, []string{"7:300 8 d"}, list(of(7)))
	sn.Release()
	require.NoError(t, s.Close())
	s = mustOpen(t, testOptions(fs))
	require.True(t, s.Indexed())
}

// allows is a store that would let three compactions run.
type allows struct{ pebble.DBForCompaction }

func (allows) GetAllowedWithoutPermission() int { return 3 }

// Goal: fewer compactions may run than Pebble would let, as many again, and never more.
func TestScheduler_limit(t *testing.T) {
	c := newScheduler(func() {}, func() {})
	c.db, c.opened = allows{}, true
	for _, step := range []struct{ most, free int }{{1, 1}, {2, 2}, {5, 3}, {0, 3}} {
		c.limit(step.most)
		c.mu.Lock()
		require.Equal(t, step.free, c.freeLocked(), "%+v", step)
		c.running = 1
		require.Equal(t, step.free-1, c.freeLocked(), "%+v", step)
		c.running = 0
		c.mu.Unlock()
	}
	s := mustOpen(t, testOptions(vfs.NewMem()))
	s.SetCompactions(1)
	require.Equal(t, 1, s.sched.most)
	require.NoError(t, s.Fault())
}
