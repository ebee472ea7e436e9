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
)

// Goal: no order of the goroutines breaks a promise.
func TestSchedule_orders(t *testing.T) {
	n := 300
	if *cases > 0 {
		n = *cases
	}
	c, err := runner.Seeds(context.Background(), Runner(), *firstSeed, n)
	require.NoError(t, err)
	t.Log(c)
}

// Goal (P1): a seed plays the same steps again.
func TestSchedule_repeats(t *testing.T) {
	for seed := *firstSeed; seed < *firstSeed+20; seed++ {
		a, x, err := Play(NewScript(seed))
		require.NoError(t, err)
		b, y, err := Play(NewScript(seed))
		require.NoError(t, err)
		require.Equal(t, x, y, "seed %d", seed)
		require.Equal(t, a, b, "seed %d", seed)
	}
}
