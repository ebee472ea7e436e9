package live

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: every history has an order that explains all answers, and a search for one
// ends.
func TestLinear_histories(t *testing.T) {
	c := runCases(t, Linear(), 50, 500)
	require.NotZero(t, c["flushes"])
	// A pause of the machine leaves many calls in doubt, and the histories it falls into
	// have too many orders to search: of a short run that may be a few.
	require.LessOrEqual(t, c["undecided"], max(5, c["histories"]/50), "most histories are judged")
}
