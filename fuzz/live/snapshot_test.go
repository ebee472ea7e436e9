package live

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: no snapshot changes under any of what goes on, and each shows what was
// committed at or below its number.
func TestSnapshot_neverMoves(t *testing.T) {
	c := runCases(t, Snapshots(), 6, 45)
	require.NotZero(t, c["snapshots"])
	if !testing.Short() && *cases == 0 {
		for _, kind := range []string{"compared with history", "slow scans", "scans over close"} {
			require.NotZero(t, c[kind], kind)
		}
	}
}
