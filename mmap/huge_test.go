package mmap

import (
	"context"
	"io"
	"math/rand/v2"
	"os"
	"runtime"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal (M9): the largest value there may be goes through with little more memory than a
// small one, and is read at any place.
func TestWriter_largestValue(t *testing.T) {
	if os.Getenv("HOLDFAST_HUGE") != "1" {
		t.Skip("HOLDFAST_HUGE=1 streams 64 GiB of zeros")
	}
	s, _ := disk(t)
	heap := func() uint64 {
		runtime.GC()
		var m runtime.MemStats
		runtime.ReadMemStats(&m)
		return m.HeapAlloc
	}
	before := heap()
	w, err := s.NewWriter(context.Background())
	require.NoError(t, err)
	var high uint64
	for range 64 {
		n, err := w.ReadFrom(io.LimitReader(zeros{}, MaxValue/64))
		require.NoError(t, err)
		require.EqualValues(t, MaxValue/64, n)
		high = max(high, heap())
	}
	require.Less(t, high, before+32<<20)
	ref, err := w.Finish()
	require.NoError(t, err)
	require.NoError(t, s.Sync())
	b, err := s.Open(ref)
	require.NoError(t, err)
	defer b.Close()
	require.EqualValues(t, int64(MaxValue), b.Size())
	r := rand.New(rand.NewPCG(1, 1))
	p := make([]byte, 10_000)
	for range 200 {
		p[0], p[5000] = 1, 1
		_, err := b.ReadAt(p, r.Int64N(MaxValue-int64(len(p))))
		require.NoError(t, err)
		require.NotContains(t, p, byte(1))
	}
	last := heap()
	require.Less(t, last, before+32<<20)
	t.Logf("heap %d before, %d at most while it came, %d with it open; %d stored", before, high, last, b.ref.Stored)

	// One byte more is too large.
	w, err = s.NewWriter(context.Background())
	require.NoError(t, err)
	w.size = MaxValue
	_, err = w.Write([]byte{0})
	require.ErrorIs(t, err, ErrTooLarge)
}

// zeros never ends.
type zeros struct{}

func (zeros) Read(p []byte) (int, error) {
	clear(p)
	return len(p), nil
}
