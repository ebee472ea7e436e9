package live

import (
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: every snapshot and scan shows all the money, where the logs say it is.
func TestBank_live(t *testing.T) {
	c := runCases(t, Bank(), 5, 60)
	require.NotZero(t, c["transfers"])
	require.NotZero(t, c["snapshots"])
	require.NotZero(t, c["scans"])
	require.NotZero(t, c["flushes"])
}

// Goal: no end of a life, in recovery neither, loses money or a transfer that was
// promised.
func TestBank_cuts(t *testing.T) {
	c := runCases(t, BankCuts(), 4, 45)
	require.NotZero(t, c["cuts"])
	require.NotZero(t, c["kills"])
	require.NotZero(t, c["transfers"])
}
