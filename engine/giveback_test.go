package engine

import (
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

// Goal: memory is given back above the budget only, the heap's only where it is ours, and
// within a part of the time that gets smaller where nothing is to be had.
func TestGiver(t *testing.T) {
	const budget = 64 << 20
	at, resident, idle, live := time.Unix(0, 0), int64(budget), 0.0, 0.0
	var took time.Duration
	gain, trims, frees := int64(8<<20), 0, 0
	g := giver{
		now:      func() time.Time { return at },
		resident: func() int64 { return resident },
		idle:     func() float64 { return idle },
		live:     func() float64 { return live },
		trim:     func() { trims++; at = at.Add(took); resident -= gain },
		free:     func() { frees++ },
	}
	turns := func(d time.Duration) int {
		was := trims
		for end := at.Add(d); at.Before(end); at = at.Add(100 * time.Millisecond) {
			level := resident
			g.give(budget)
			resident = level // it grows again
		}
		return trims - was
	}
	resident = budget - 1
	require.Zero(t, turns(time.Minute))
	resident = budget
	require.InDelta(t, 60, turns(time.Minute), 7, "once a second")
	require.Zero(t, frees, "nothing is idle")
	idle = budget
	turns(2 * time.Second)
	require.Positive(t, frees)
	was := frees
	live = 3 * budget // somebody else's
	turns(10 * time.Second)
	require.Equal(t, was, frees)

	took = 100 * time.Millisecond
	require.InDelta(t, 60/5.1, turns(time.Minute), 2, "a fiftieth of the time")
	resident = 2 * budget
	require.InDelta(t, 60/1.1, turns(time.Minute), 8, "a tenth")
	gain = 0
	require.LessOrEqual(t, turns(time.Minute), 6)
	require.InDelta(t, 10, turns(10*time.Minute), 2, "once a minute")
	gain = 8 << 20
	turns(2 * time.Minute)
	require.Greater(t, turns(time.Minute), 40, "there is something to be had again")
	g.mu.Lock()
	require.Zero(t, turns(time.Minute), "another store does")
}
