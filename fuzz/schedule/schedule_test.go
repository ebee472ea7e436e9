//go:build schedule

package schedule

import (
	"context"
	"flag"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed")
	cases     = flag.Int("cases", 0, "how many cases; 0: a short run")
	script    = flag.String("script", "", "play this script only, as a failure printed it")
)

// Goal: no order of the goroutines breaks a promise.
func TestSchedule_orders(t *testing.T) {
	if *script != "" {
		s, err := ParseScript(*script)
		require.NoError(t, err)
		_, trace, err := Play(s)
		require.NoError(t, err, "%v", trace)
		return
	}
	n := 1000
	if testing.Short() {
		n = 100
	}
	if *cases > 0 {
		n = *cases
	}
	c, err := runner.Seeds(context.Background(), Runner(), *firstSeed, n)
	require.NoError(t, err)
	t.Log(c)
	for _, what := range []string{"commits", "flushes", "reads", "scans", "snapshots", "packs rewritten", "packs removed"} {
		require.NotZero(t, c[what], what)
	}
}

// Goal (P3): a failing script loses every step that the failure does not need, and
// its text plays it again.
func TestScript_shrink(t *testing.T) {
	s := NewScript(7)
	needs := map[int]bool{1: true, len(s.Steps) - 1: true}
	short := shrink(s, func(less Script) bool {
		n := 0
		for _, st := range less.Steps {
			if needs[st.N] {
				n++
			}
		}
		return n == len(needs)
	})
	require.Len(t, short.Steps, 2)
	again, err := ParseScript(short.String())
	require.NoError(t, err)
	require.Equal(t, short, again)
}
