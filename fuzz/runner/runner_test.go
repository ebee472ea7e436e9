package runner

import (
	"context"
	"errors"
	"testing"
	"time"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
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

// Goal: a proof that shrank is told.
func TestCounts_AtLeast(t *testing.T) {
	c := Counts{"power cuts": 300, "kills": 199}
	require.NoError(t, c.AtLeast(""))
	require.NoError(t, c.AtLeast("300 power cuts"))
	require.EqualError(t, c.AtLeast("300 power cuts, 200 kills"), "199 kills, not 200")
	require.ErrorContains(t, c.AtLeast("many cuts"), "many cuts")
}

// Goal (O11): a case that hangs is told, with its seed and what everybody was doing, and
// keeps no other runner.
func TestRunner_hangs(t *testing.T) {
	defer func(d time.Duration) { caseBound = d }(caseBound)
	caseBound = 50 * time.Millisecond
	free := make(chan struct{})
	defer close(free)
	hanging := Runner{Name: "hanging", Case: func(context.Context, uint64) (Counts, error) {
		<-free
		return Counts{"cuts": 1}, nil
	}}
	var stuck *oracle.Verdict
	_, err := Seeds(t.Context(), hanging, 5, 10)
	require.ErrorAs(t, err, &stuck)
	require.Equal(t, oracle.Stuck, stuck.Rule)
	require.ErrorContains(t, err, "seed 5")
	require.ErrorContains(t, err, "TestRunner_hangs", "the stacks")

	ctx, cancel := context.WithTimeout(t.Context(), 300*time.Millisecond)
	defer cancel()
	rows := Loop(ctx, []Runner{hanging, sleeper("quick", time.Millisecond, never)}, 1, func([]Row, string) {})
	require.EqualValues(t, 1, rows[0].Cases)
	require.Len(t, rows[0].Broken, 1)
	require.Greater(t, rows[1].Cases, int64(1))
}
