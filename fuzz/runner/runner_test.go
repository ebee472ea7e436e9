package runner

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

func sleeper(name string, d time.Duration, fails func(seed uint64) bool) Runner {
	return Runner{Name: name, Case: func(_ context.Context, seed uint64) (Counts, error) {
		time.Sleep(d)
		if fails(seed) {
			return Counts{"cuts": 1}, errors.New("broken")
		}
		return Counts{"cuts": 1}, nil
	}}
}

func never(uint64) bool { return false }

// Goal: each runner gets its share of the time, one that cannot run is named, one
// that fails is reported with its seed and stops after some failures.
func TestLoop(t *testing.T) {
	ctx, cancel := context.WithTimeout(t.Context(), 600*time.Millisecond)
	defer cancel()
	absent := Runner{Name: "absent", Ready: func() error { return errors.New("no such disk") }}
	told := 0
	rows := Loop(ctx, []Runner{
		sleeper("quick", time.Millisecond, never), sleeper("slow", 20*time.Millisecond, never),
		sleeper("broken", time.Millisecond, func(seed uint64) bool { return seed > 101 }), absent,
	}, 100, func([]Row, string) { told++ })
	require.Greater(t, rows[0].Cases, rows[1].Cases)
	require.InDelta(t, rows[0].Took.Seconds(), rows[1].Took.Seconds(), 0.15)
	require.Equal(t, rows[0].Cases, rows[0].Counts["cuts"])
	require.EqualValues(t, 2+maxBroken, rows[2].Cases)
	require.Len(t, rows[2].Broken, maxBroken)
	require.ErrorContains(t, rows[2].Broken[0], "seed 102")
	require.Equal(t, "no such disk", rows[3].Skipped)
	require.Positive(t, told)
}

// Goal: seeds stop at the first failure and name it.
func TestSeeds(t *testing.T) {
	c, err := Seeds(t.Context(), sleeper("r", 0, func(seed uint64) bool { return seed == 7 }), 5, 10)
	require.ErrorContains(t, err, "r: seed 7")
	require.Equal(t, "3 cuts", c.String())
}
