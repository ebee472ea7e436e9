package engine

import (
	"bytes"
	"context"
	"fmt"
	"math/rand"
	"slices"
	"strings"
	"sync"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs/errorfs"
	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

// Goal (I3, I7): wherever the power is cut in the life of large values that are streamed
// in, overwritten, deleted and collected, beside a reader and a snapshot, the store
// comes up with a prefix of what was done that has all that was acknowledged: no dangling
// reference, nothing back from the dead, no pack that nothing names, no leftover file.
func TestCreate_powerCut(t *testing.T) {
	disk := simfs.New(nil)
	rnd := rand.New(rand.NewSource(1))
	one, two := blobValue(rnd, 9<<20), bytes.Repeat([]byte("compressible state "), 500_000)
	states := []map[string][]byte{{}} // after each step
	step := func(k string, v []byte) {
		next := map[string][]byte{}
		for key, val := range states[len(states)-1] {
			next[key] = val
		}
		if next[k] = v; v == nil {
			delete(next, k)
		}
		states = append(states, next)
	}
	type moment struct {
		cut          *simfs.Cut
		acked, begun int
	}
	var mu sync.Mutex
	var moments []moment
	acked, begun, over := 0, 0, false
	fs := errorfs.Wrap(disk, errorfs.InjectorFunc(func(op errorfs.Op) error {
		mu.Lock()
		defer mu.Unlock()
		// Of the writes in the middle of a stream every sixteenth is looked at, because
		// the streams are as large as they are in life; TestCreate_everyCut looks at each.
		if over || op.Kind.ReadOrWrite() != errorfs.OpIsWrite ||
			op.Kind == errorfs.OpFileWrite && strings.Contains(op.Path, packsName) && rnd.Intn(16) > 0 {
			return nil
		}
		moments = append(moments, moment{disk.Cut(), acked, begun})
		return nil
	}))
	o := streamOptions()
	o.FS = fs
	e, err := Open("/store", &o)
	require.NoError(t, err)
	do := func(k string, v []byte, f func() error) {
		mu.Lock()
		step(k, v)
		begun++
		mu.Unlock()
		require.NoError(t, f())
		mu.Lock()
		acked++
		mu.Unlock()
	}
	stream := func(k string, v []byte) func() error {
		return func() error {
			w, err := e.Create(context.Background(), []byte(k))
			if err != nil {
				return err
			}
			if _, err := w.ReadFrom(bytes.NewReader(v)); err != nil {
				return err
			}
			return w.Close()
		}
	}
	do("a", []byte("1"), func() error { return e.Put([]byte("a"), []byte("1")) })
	do("big", one, stream("big", one))
	do("mid", two[:100_000], stream("mid", two[:100_000]))
	s, err := e.Snapshot()
	require.NoError(t, err)
	do("big", two, stream("big", two))
	dropped, err := e.Create(context.Background(), []byte("big"))
	require.NoError(t, err)
	_, err = dropped.Write(one)
	require.NoError(t, err)
	require.NoError(t, dropped.Abort())
	require.NoError(t, e.Flush(context.Background()))
	got, err := s.Get([]byte("big"))
	require.NoError(t, err)
	require.True(t, bytes.Equal(one, got), "a snapshot keeps what it sees")
	require.NoError(t, s.Close())
	v, err := e.OpenValue([]byte("big"))
	require.NoError(t, err)
	do("big", nil, func() error { return e.Delete([]byte("big")) })
	do("mid", nil, func() error { return e.DeleteRange([]byte("m"), []byte("n")) })
	require.NoError(t, e.Flush(context.Background()))
	eventually(t, 10e9, "the packs are not given back", func() bool {
		m := e.Metrics().Collect
		return m.Disk < slackValues*int64(o.LargeValue) && m.Removed >= 2
	})
	b, err := v.Bytes()
	require.NoError(t, err)
	require.True(t, bytes.Equal(two, b), "a reader keeps what it has")
	require.NoError(t, v.Close())
	require.NoError(t, e.Close())
	mu.Lock()
	over = true
	mu.Unlock()

	images := 0
	var buf []byte
	for i, m := range moments {
		if testing.Short() && i%4 > 0 { // megabytes an image, slow under the race detector
			continue
		}
		for image, img := range m.cut.Images(uint64(i), 1) {
			images++
			at := fmt.Sprintf("cut at call %d of %d, image %v", i+1, len(moments), image)
			o := streamOptions()
			o.FS = img
			e, err := Open("/store", &o)
			require.NoError(t, err, at)
			require.True(t, isState(t, e, states[m.acked:m.begun+1], &buf), at)
			// What had died in the log only is flushed and given back now.
			eventually(t, 10*time.Second, at, func() bool { return e.Metrics().Collect.Empty == 0 })
			names, err := img.List("/store/packs")
			require.NoError(t, err)
			for _, name := range names {
				require.True(t, strings.HasSuffix(name, ".pack"), "%s: %s", at, name)
			}
			require.NoError(t, e.Close(), at)
		}
	}
	t.Logf("%d moments, %d images", len(moments), images)
}

// isState says whether the store holds exactly one of the states. It reads into buf:
// megabytes in fresh memory for each image took most of the test.
func isState(t *testing.T, e *Engine, states []map[string][]byte, buf *[]byte) bool {
	t.Helper()
	states = slices.Clone(states)
	n := 0
	for item, err := range e.Scan(Range{}) {
		require.NoError(t, err)
		*buf, err = e.appendValue((*buf)[:0], item.cell)
		require.NoError(t, err, "key %s", item.Key())
		n++
		states = slices.DeleteFunc(states, func(state map[string][]byte) bool {
			want, ok := state[string(item.Key())]
			return !ok || !bytes.Equal(want, *buf)
		})
	}
	return slices.ContainsFunc(states, func(state map[string][]byte) bool { return len(state) == n })
}
