package live

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: a million reads in make gate, and every tier answers many of them; none is older
// than what was known before it.
func TestCoherence_engine(t *testing.T) {
	c := runCases(t, Coherence(0), 1, 2)
	if c["reads"] < 1_000_000 {
		return // too few, on a slow machine, to ask for each kind
	}
	for _, kind := range []string{"map hits", "l1 hits", "l2 hits", "l3 loads", "snapshot reads", "stale entries refused"} {
		require.NotZero(t, c[kind], kind)
	}
}

// Goal: the same of the cache room alone, where hashes collide and tiers are missing.
func TestCoherence_room(t *testing.T) {
	c := runCases(t, Room(0), 2, 20)
	if testing.Short() || *cases > 0 {
		return
	}
	for _, kind := range []string{"map hits", "l1 hits", "l2 hits", "collisions", "stale entries refused", "joined loads"} {
		require.NotZero(t, c[kind], kind)
	}
}
