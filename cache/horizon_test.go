package cache

import (
	"fmt"
	"math/rand/v2"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func hashes(seed, n uint64) []uint64 {
	r := rand.New(rand.NewPCG(seed, 1))
	out := make([]uint64, n)
	for i := range out {
		out[i] = r.Uint64()
	}
	return out
}

func TestRecord_Covers_falseClaims(t *testing.T) {
	// The goal: never a key lost, and few claimed for nothing.
	for _, n := range []uint64{1, 10, 1000, 200_000} {
		in := hashes(1, n)
		r := NewRecord(slices.Values(in), int(n), nil)
		for _, h := range in {
			require.True(t, r.Covers(h, nil))
		}
		var claims int
		const tries = 200_000
		for _, h := range hashes(2, tries) {
			if r.Covers(h, nil) {
				claims++
			}
		}
		rate := float64(claims) / tries
		require.Less(t, rate, 0.02, "n=%d", n)
		require.LessOrEqual(t, r.Bytes(), int64(n)*10/8+128)
		t.Logf("n=%d: %.3f %% claimed for nothing, %d bytes", n, 100*rate, r.Bytes())
	}
}

func TestRecord_Covers_poorHash(t *testing.T) {
	// The goal: small consecutive hashes spread as well as random ones.
	var in []uint64
	for i := range uint64(10_000) {
		in = append(in, i)
	}
	r := NewRecord(slices.Values(in), len(in), nil)
	var claims int
	for h := uint64(10_000); h < 110_000; h++ {
		if r.Covers(h, nil) {
			claims++
		}
	}
	require.Less(t, claims, 2000)
}

func TestRecord_Covers_wrongCount(t *testing.T) {
	in := hashes(3, 500)
	for _, n := range []int{0, 1, -5} {
		r := NewRecord(slices.Values(in), n, nil)
		for _, h := range in {
			require.True(t, r.Covers(h, nil))
		}
	}
	require.False(t, NewRecord(nil, 0, nil).Covers(1, []byte("k")))
}

func TestRecord_Covers_ranges(t *testing.T) {
	// The goal: the merged ranges say the same as the plain list.
	r := rand.New(rand.NewPCG(4, 4))
	key := func() []byte { return fmt.Appendf(nil, "%02d", r.IntN(60)) }
	for range 2000 {
		var in []KeyRange
		for range r.IntN(6) {
			kr := KeyRange{Lower: key(), Upper: key()}
			if r.IntN(12) == 0 {
				kr.Upper = nil
			}
			in = append(in, kr)
		}
		rec := NewRecord(nil, 0, in)
		for i := range 60 {
			k := fmt.Appendf(nil, "%02d", i)
			want := slices.ContainsFunc(in, func(kr KeyRange) bool {
				return string(k) >= string(kr.Lower) && (len(kr.Upper) == 0 || string(k) < string(kr.Upper))
			})
			require.Equal(t, want, rec.Covers(1, k), "%q in %q", k, in)
		}
	}
	lower := []byte("a")
	rec := NewRecord(nil, 0, []KeyRange{{Lower: lower, Upper: []byte("c")}})
	lower[0] = 'z' // C6: the record owns its bytes
	require.True(t, rec.Covers(1, []byte("b")))
}

func TestHorizon_Fresh_floor(t *testing.T) {
	one := func(h uint64) *Record { return NewRecord(slices.Values([]uint64{h}), 1, nil) }
	size := one(1).Bytes()
	k := []byte("k")

	h := NewHorizon(10)
	require.True(t, h.Fresh(10, 1, k))
	require.True(t, h.Fresh(11, 1, k), "newer than the view")
	require.False(t, h.Fresh(9, 1, k), "below the floor nothing is known")

	h = h.Push(one(1), 2*size) // 11 covers hash 1
	require.Equal(t, uint64(11), h.Seq())
	require.False(t, h.Fresh(10, 1, k))
	require.True(t, h.Fresh(11, 1, k))
	require.True(t, h.Fresh(10, 2, k))

	before := h
	h = h.Push(one(2), 2*size) // 12 covers hash 2
	h = h.Push(one(3), 2*size) // 13 covers hash 3; the record of 11 goes
	require.Equal(t, uint64(11), h.Floor())
	require.LessOrEqual(t, h.Bytes(), 2*size)
	require.False(t, h.Fresh(10, 9, k), "10 is below the floor now")
	require.True(t, h.Fresh(11, 9, k))
	require.False(t, h.Fresh(11, 2, k))
	require.True(t, h.Fresh(12, 2, k))
	require.False(t, h.Fresh(12, 3, k))
	require.True(t, before.Fresh(10, 2, k), "a horizon is immutable")

	h = h.Push(one(4), size-1) // larger than all that is allowed
	require.Equal(t, h.Seq(), h.Floor())
	require.Zero(t, h.Bytes())
	h = h.Push(nil, 100*size) // nothing known about it
	require.False(t, h.Fresh(h.Seq()-1, 9, k))

	for range 3 * maxRecords {
		h = h.Push(one(5), 1<<40)
	}
	require.Len(t, h.records, maxRecords)
	require.Equal(t, h.Seq()-maxRecords, h.Floor())
}

func TestHorizon_Fresh_model(t *testing.T) {
	// The goal: Fresh says what the rule says, for every stamp.
	r := rand.New(rand.NewPCG(5, 5))
	size := NewRecord(slices.Values([]uint64{1}), 1, nil).Bytes()
	h := NewHorizon(0)
	var covered []int // covered[i]: the generation that made seq i+1 covers key
	for range 500 {
		which := r.IntN(3)
		covered = append(covered, which)
		h = h.Push(NewRecord(slices.Values([]uint64{uint64(which)}), 1, nil), 20*size)
		for stamp := range h.Seq() + 2 {
			want := stamp >= h.Floor() && (stamp >= h.Seq() || !slices.Contains(covered[stamp:], 1))
			require.Equal(t, want, h.Fresh(stamp, 1, nil))
		}
	}
	require.Equal(t, h.Seq()-20, h.Floor())
}
