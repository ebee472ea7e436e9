package engine

import (
	"bytes"
	"context"
	"fmt"
	"math/rand/v2"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/cow"
)

// layers inspects key and returns what each layer knows, and the one that answers.
func layers(t *testing.T, e *Engine, key string) (all map[string]Layer, answers string, i Inspection) {
	t.Helper()
	i, err := e.Inspect([]byte(key))
	require.NoError(t, err)
	all = map[string]Layer{}
	for _, l := range i.Layers {
		require.NotContains(t, all, l.Name)
		all[l.Name] = l
		if l.Answers {
			require.Empty(t, answers, "two layers answer")
			answers = l.Name
		}
	}
	require.NotEmpty(t, answers, "L3 at least has an answer")
	return all, answers, i
}

// freezeOnly freezes the active generation and tells no flusher.
func freezeOnly(t *testing.T, e *Engine) {
	t.Helper()
	require.NoError(t, e.log.Barrier(func(last uint64) {
		e.viewMu.Lock()
		defer e.viewMu.Unlock()
		v := e.view.Load()
		e.view.Store(v.rotated(cow.NewGeneration(&e.clock, v.active.Next()), last))
	}))
}

// Goal: a key is followed through every layer, and each says what it has of it.
func TestEngine_Inspect_layers(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})

	all, answers, i := layers(t, e, "k")
	require.Equal(t, "L3", answers)
	require.False(t, i.Found)
	require.Zero(t, i.LSN)
	require.Equal(t, Layer{Name: "L3", Tier: TierL3, Knows: KnowsAbsent, Answers: true}, all["L3"])
	require.Equal(t, Layer{Name: "active", Tier: TierMap}, all["active"])
	require.Equal(t, []string{"active", "L1", "L2", "L3"}, names(i))

	require.NoError(t, e.Put([]byte("other"), nil))
	require.NoError(t, e.Put([]byte("k"), []byte("old")))
	all, answers, i = layers(t, e, "k")
	require.Equal(t, "active", answers)
	require.True(t, i.Found)
	require.EqualValues(t, 2, i.LSN)
	require.Equal(t, Layer{Name: "active", Tier: TierMap, Knows: KnowsValue, Answers: true, Revision: 2, Size: 3, Stored: 3}, all["active"])
	require.Equal(t, KnowsAbsent, all["L3"].Knows)

	flush(t, e)
	all, answers, _ = layers(t, e, "k")
	require.Equal(t, "L3", answers)
	require.Equal(t, KnowsNothing, all["active"].Knows)
	require.Equal(t, Layer{Name: "L3", Tier: TierL3, Knows: KnowsValue, Answers: true, Revision: 2, Size: 3, Stored: 3}, all["L3"])

	fillL1(t, e, "k")
	all, answers, i = layers(t, e, "k")
	require.Equal(t, "L1", answers)
	require.Equal(t, Layer{
		Name: "L1", Tier: TierL1, Knows: KnowsValue, Answers: true,
		Revision: 2, Size: 3, Stored: 3, Stamp: i.Seq, Fresh: true,
	}, all["L1"])
	require.Equal(t, KnowsValue, all["L3"].Knows)
	require.False(t, all["L3"].Answers)

	// Frozen, with a newer one above it.
	require.NoError(t, e.Put([]byte("k"), []byte("newer")))
	freezeOnly(t, e)
	all, answers, i = layers(t, e, "k")
	require.Equal(t, "frozen", answers)
	require.Equal(t, []string{"active", "frozen", "L1", "L2", "L3"}, names(i))
	require.EqualValues(t, 3, all["frozen"].Revision)
	require.True(t, all["L1"].Fresh, "no flush came since")
	require.NoError(t, e.Delete([]byte("k")))
	all, answers, i = layers(t, e, "k")
	require.Equal(t, "active", answers)
	require.False(t, i.Found)
	require.Equal(t, Layer{Name: "active", Tier: TierMap, Knows: KnowsTombstone, Answers: true, Revision: 4}, all["active"])
	require.Equal(t, KnowsValue, all["frozen"].Knows)
	require.EqualValues(t, 2, all["L3"].Revision)

	flush(t, e)
	flush(t, e)
	all, _, i = layers(t, e, "k")
	require.False(t, i.Found)
	require.Equal(t, KnowsAbsent, all["L3"].Knows)
}

func names(i Inspection) (n []string) {
	for _, l := range i.Layers {
		n = append(n, l.Name)
	}
	return n
}

// Goal: a range delete is seen with its number, and what it makes stale in L1 is not
// used, nor said to be.
func TestEngine_Inspect_rangeDelete(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	require.NoError(t, e.Put([]byte("k"), []byte("v")))
	flush(t, e)
	fillL1(t, e, "k")
	require.NoError(t, e.DeleteRange([]byte("a"), []byte("z")))
	all, answers, i := layers(t, e, "k")
	require.Equal(t, "active", answers)
	require.False(t, i.Found)
	require.Equal(t, Layer{Name: "active", Tier: TierMap, Knows: KnowsRange, Answers: true, Revision: 2}, all["active"])
	require.Equal(t, KnowsValue, all["L1"].Knows)
	require.Equal(t, KnowsValue, all["L3"].Knows)

	flush(t, e)
	all, answers, i = layers(t, e, "k")
	require.Equal(t, "L3", answers)
	require.Equal(t, KnowsValue, all["L1"].Knows, "nobody took it away")
	require.False(t, all["L1"].Fresh)
	require.Less(t, all["L1"].Stamp, i.Seq)
	require.Equal(t, KnowsAbsent, all["L3"].Knows)

	// A read learns the absence.
	require.Eventually(t, func() bool {
		get(t, e, "k")
		all, answers, _ = layers(t, e, "k")
		return answers == "L1"
	}, 10*time.Second, time.Millisecond)
	require.Equal(t, KnowsAbsent, all["L1"].Knows)
	require.True(t, all["L1"].Fresh)
}

// Goal: a large value shows where its bytes are, as Stat does.
func TestEngine_Inspect_large(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	value := []byte(strings.Repeat("large state ", 100_000))
	require.NoError(t, e.Put([]byte("k"), value))
	for _, where := range []string{"active", "L3"} {
		all, answers, i := layers(t, e, "k")
		if answers != "L1" { // where a read of the map touched it, the flush brings it
			require.Equal(t, where, answers)
		}
		require.True(t, i.Found)
		s, err := e.Stat([]byte("k"))
		require.NoError(t, err)
		l := all[where]
		require.Equal(t, KnowsBlob, l.Knows)
		require.EqualValues(t, len(value), l.Size)
		require.Less(t, l.Stored, l.Size)
		require.Zero(t, l.Frames)
		require.Equal(t, Layer{
			Name: "pack", Knows: KnowsBlob, Revision: 1, Size: s.Size, Stored: s.Stored,
			Codec: s.Codec, Pack: s.Pack, Offset: s.Offset, Frames: s.Frames,
		}, all["pack"])
		require.Positive(t, s.Frames)
		flush(t, e)
	}
}

// Goal: what L1 let go is seen in L2.
func TestEngine_Inspect_L2(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	e.governor.still.Store(true)
	const n = 8000
	for i := range n {
		require.NoError(t, e.Put(fmt.Appendf(nil, "k%05d", i), make([]byte, 300)))
	}
	flush(t, e)
	for i := range n {
		require.Len(t, get(t, e, fmt.Sprintf("k%05d", i)), 300)
	}
	require.Eventually(t, func() bool {
		for i := n - 1; i >= 0; i-- { // what was read last found L1 full
			all, answers, in := layers(t, e, fmt.Sprintf("k%05d", i))
			if answers != "L2" {
				continue
			}
			require.Equal(t, KnowsNothing, all["L1"].Knows)
			l := all["L2"]
			require.Equal(t, KnowsValue, l.Knows)
			require.EqualValues(t, i+1, l.Revision)
			require.EqualValues(t, 300, l.Size)
			require.True(t, l.Fresh)
			require.Equal(t, in.Seq, l.Stamp)
			return true
		}
		return false
	}, 20*time.Second, 10*time.Millisecond)
}

// Goal: a look leaves no trace: no tier is filled, no counter of reads rises, and what
// lies below is not moved up.
func TestEngine_Inspect_changesNothing(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever})
	require.NoError(t, e.Put([]byte("below"), []byte("v")))
	flush(t, e)
	require.NoError(t, e.Put([]byte("above"), []byte("v")))
	before := e.Metrics()
	for range 1000 {
		for _, k := range []string{"below", "above", "nowhere"} {
			_, err := e.Inspect([]byte(k))
			require.NoError(t, err)
		}
	}
	after := e.Metrics()
	require.Equal(t, before.Cache, after.Cache)
	require.Equal(t, before.Latency, after.Latency)
	require.Equal(t, before.MapHits, after.MapHits)
	all, answers, _ := layers(t, e, "below")
	require.Equal(t, "L3", answers)
	require.Equal(t, KnowsNothing, all["L1"].Knows)
}

// Goal: whatever was written, the layer that answers has what a read gets.
func TestEngine_Inspect_agreesWithReads(t *testing.T) {
	e := open(t, t.TempDir(), Options{Sync: SyncNever, LargeValue: minLargeValue})
	r := rand.New(rand.NewPCG(1, 2))
	key := func() []byte { return fmt.Appendf(nil, "k%02d", r.IntN(40)) }
	for range 3000 {
		var err error
		switch k := key(); r.IntN(20) {
		case 0:
			err = e.DeleteRange(k, append(bytes.Clone(k[:2]), '9'+1))
		case 1, 2:
			err = e.Delete(k)
		case 3:
			err = e.Put(k, make([]byte, minLargeValue+r.IntN(1000)))
		case 4:
			if r.IntN(10) == 0 {
				err = e.Flush(context.Background())
			}
		case 5, 6, 7:
			err = e.Put(k, make([]byte, r.IntN(100)))
		}
		require.NoError(t, err)
		k := key()
		i, err := e.Inspect(k)
		require.NoError(t, err)
		s, err := e.Stat(k)
		if err != nil {
			require.ErrorIs(t, err, ErrNotFound)
			require.False(t, i.Found)
			continue
		}
		require.True(t, i.Found)
		for _, l := range i.Layers {
			if l.Answers {
				require.Equal(t, []any{s.Revision, s.Size, s.Stored}, []any{l.Revision, l.Size, l.Stored})
			}
		}
	}
}

// Goal: what no key can be is refused, a closed engine says so, and a pack that is gone
// is told together with what the layers above it know.
func TestEngine_Inspect_errors(t *testing.T) {
	dir := t.TempDir()
	e, err := Open(dir, small(Options{Sync: SyncNever}))
	require.NoError(t, err)
	_, err = e.Inspect(nil)
	require.ErrorIs(t, err, ErrEmptyKey)
	_, err = e.Inspect(make([]byte, MaxKey+1))
	require.ErrorIs(t, err, ErrTooLarge)
	_, err = e.Inspect(make([]byte, MaxKey))
	require.NoError(t, err)

	require.NoError(t, e.Put([]byte("k"), make([]byte, 1<<20)))
	require.NoError(t, e.Close()) // which seals the pack
	e, err = Open(dir, small(Options{Sync: SyncNever}))
	require.NoError(t, err)
	s, err := e.Stat([]byte("k"))
	require.NoError(t, err)
	require.NoError(t, e.packs.Remove(s.Pack))
	i, err := e.Inspect([]byte("k"))
	require.ErrorIs(t, err, ErrCorrupt)
	require.True(t, i.Found)
	require.Equal(t, s.Pack, i.Layers[0].Pack)

	require.NoError(t, e.Close())
	_, err = e.Inspect([]byte("k"))
	require.ErrorIs(t, err, ErrClosed)
}
