//go:build schedule

package engine

import (
	"bytes"
	"context"
	"crypto/rand"
	mrand "math/rand"
	"sync/atomic"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/yield"
)

// at runs do once, at the first point of a name; all else is as without a hook.
type at struct {
	name string
	did  atomic.Bool
	do   func()
}

func (h *at) Point(name string) {
	if name == h.name && h.did.CompareAndSwap(false, true) {
		h.do()
	}
}

func (h *at) Start(c chan<- time.Time, d time.Duration) func() bool {
	return time.AfterFunc(d, func() { c <- time.Now() }).Stop
}
func (h *at) Now() time.Time  { return time.Now() }
func (h *at) Random(b []byte) { _, _ = rand.Read(b) } // never fails

// Goal (I7): a snapshot that begins while the collector weighs keeps the large value it
// reads, though a commit replaces it and a flush takes that down before the collector is
// through.
func TestChosen_snapshotWhileWeighing(t *testing.T) {
	e, err := Open(t.TempDir(), collectOptions())
	require.NoError(t, err)
	defer e.Close()
	key, want := []byte("k"), blobValue(mrand.New(mrand.NewSource(1)), 64<<10)
	require.NoError(t, e.Put(key, want))
	require.NoError(t, e.Flush(context.Background()))
	require.NoError(t, e.packs.Seal())
	e.collecting.Lock() // keeps the collector itself out
	var s *Snapshot
	h := &at{name: "collect.weigh", do: func() {
		var err error
		s, err = e.Snapshot()
		require.NoError(t, err)
		require.NoError(t, e.Put(key, []byte("small")))
		require.NoError(t, e.Flush(context.Background()))
	}}
	yield.Set(h)
	defer yield.Set(nil)
	for did := removed; did != nothing; {
		did, err = e.collectOne()
		require.NoError(t, err)
	}
	e.collecting.Unlock()
	require.True(t, h.did.Load())
	defer s.Close()
	got, err := s.Get(key)
	require.NoError(t, err)
	require.True(t, bytes.Equal(want, got))
}
