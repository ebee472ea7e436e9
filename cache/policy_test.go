package cache

import (
	"fmt"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"
)

func TestPolicy_String(t *testing.T) {
	require.Equal(t, "third second victim probation policy(9)", fmt.Sprint(PolicyThird, PolicySecond, PolicyVictim, PolicyProbation, Policy(9)))
	_, err := New(Options{Policy: 9})
	require.ErrorContains(t, err, "policy")
	_, err = New(Options{Codec: 9})
	require.ErrorContains(t, err, "codec")
}

func TestPolicy_fill(t *testing.T) {
	// The goal: where a load goes once L1 is full.
	for _, p := range []Policy{PolicyThird, PolicySecond, PolicyVictim, PolicyProbation} {
		t.Run(p.String(), func(t *testing.T) {
			c := open(t, Options{L1Bytes: 1 << 20, L2Bytes: 8 << 20, Policy: p, Codec: CodecOff})
			pour(t, c, 0, 1000, 500)
			require.True(t, c.l1.Load().room() || c.Metrics().L1Bytes > 900<<10, "the first ones filled L1")
			pour(t, c, 1000, 1000, 500)
			before := c.Metrics()
			for i := 0; i < 1000; i += 20 { // nothing is refused for want of room on the way
				pour(t, c, 5000+i, 20, 500)
			}
			m := c.Metrics()
			passedL1 := m.Rejects + m.Evictions - before.Rejects - before.Evictions
			require.Greater(t, m.Victims-before.Victims, uint64(950), "nearly all of them are in L2")
			if p == PolicyVictim {
				require.Greater(t, passedL1, uint64(950))
			} else {
				require.Less(t, passedL1, uint64(50))
			}
		})
	}
}

func TestPolicy_second_round(t *testing.T) {
	// The goal: an entry that is hit, and that L1 does not take up, outlives the
	// ring's turn under PolicySecond and under no other; the marks are spent.
	for _, p := range []Policy{PolicyThird, PolicySecond, PolicyProbation} {
		t.Run(p.String(), func(t *testing.T) {
			l, err := newL2(2<<20, nil, &codec{mode: CodecOff}, p)
			require.NoError(t, err)
			defer l.close()
			c := &Cache{policy: p}
			set := func(i int) {
				_, k := key(i)
				require.True(t, l.set(newItem(1, 0, string(k), make([]byte, 500))))
			}
			has := func(i int) bool {
				_, k := key(i)
				_, _, ok := l.find(string(k))
				return ok
			}
			for i := range 200 {
				set(i)
				_, k := key(i)
				it := newItem(1, 0, string(k), nil)
				it.low = true
				require.False(t, c.down(l, it, true))
			}
			kept := func() (n int) {
				for i := range 200 {
					if has(i) {
						n++
					}
				}
				return n
			}
			next := 1000
			turn := func() { // a little more than the ring holds
				for range 2300 {
					set(next)
					next++
				}
			}
			turn()
			if p == PolicyProbation {
				require.Zero(t, kept())
				return
			}
			// One in maxAgain+1 of them is lost where all neighbours are marked.
			require.Greater(t, kept(), 120)
			require.Greater(t, l.rounds.Load(), uint64(120))
			turn()
			require.Less(t, kept(), 10, "one mark, one round")
		})
	}
}

func TestPolicy_third(t *testing.T) {
	// The goal: what is read once pushes nothing out of a full ring, what is read three
	// times has its place there; without the rule the ring is the newcomers'.
	kept := func(p Policy) (n int) {
		c := open(t, Options{L2Bytes: 4 << 20, Codec: CodecOff, Policy: p})
		pour(t, c, 0, 5500, 500)
		pour(t, c, 100_000, 20_000, 500)
		h := NewHorizon(1)
		for i := range 5500 {
			hash, k := key(i)
			if _, ok := c.Peek(h, hash, k); ok {
				n++
			}
		}
		m := c.Metrics()
		if p == PolicyThird {
			require.Greater(t, m.Barred, uint64(18_000))
			before := m.Victims
			for range 3 {
				pour(t, c, 200_000, 500, 500)
			}
			require.Greater(t, c.Metrics().Victims-before, uint64(450), "the third use admits")
			require.Less(t, c.Metrics().Victims-before, uint64(650), "and no use before")
		} else {
			require.Zero(t, m.Barred)
		}
		return n
	}
	require.Greater(t, kept(PolicyThird), 4800)
	require.Zero(t, kept(PolicySecond))
}

func TestPolicy_loop(t *testing.T) {
	// The goal: a loop larger than both tiers still finds what L1 keeps.
	for _, p := range []Policy{PolicyThird, PolicySecond, PolicyVictim, PolicyProbation} {
		c := open(t, Options{L1Bytes: 2 << 20, L2Bytes: 2 << 20, Policy: p, Codec: CodecOff})
		for range 4 {
			pour(t, c, 0, 6000, 500)
		}
		m := c.Metrics()
		ratio := float64(m.L1Hits+m.L2Hits) / float64(m.L1Hits+m.L2Hits+m.Misses)
		require.Greater(t, ratio, 0.15, p)
	}
}

func TestMarks(t *testing.T) {
	m := newMarks(1 << 20)
	require.EqualValues(t, 2048, m.bytes())
	m.set(5)
	require.True(t, m.take(5))
	require.False(t, m.take(5))
	require.False(t, m.take(6))
	for i := range uint64(1e5) { // however many are set, no more memory
		m.set(i)
	}
	require.EqualValues(t, 2048, m.bytes())
	require.True(t, slices.ContainsFunc([]uint64{1, 2, 3}, m.take))
}
