package live

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: every history has an order that explains all answers, and a search for one
// ends.
func TestLinear_histories(t *testing.T) {
	c := runCases(t, Linear(), 50, 100) // make gate: 500
	require.NotZero(t, c["flushes"])
	require.LessOrEqual(t, c["undecided"], c["histories"]/50, "most histories are judged")
}
