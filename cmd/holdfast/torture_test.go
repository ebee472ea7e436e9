package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"
)

// Goal: torture runs the runners that were picked, for as long as was asked, and says
// what they did; a wrong command line and a run that tried nothing are errors.
func TestTorture(t *testing.T) {
	r := run(t, "torture", "--minutes", "0.01", "--seed", "7", "--only", "operations", "--json")
	require.Equal(t, exitOK, r.code, r.err)
	var report struct {
		Seed    uint64
		Runners []struct {
			Runner string
			Cases  int64
			Done   map[string]int64
		}
	}
	require.NoError(t, json.Unmarshal([]byte(r.out), &report))
	require.EqualValues(t, 7, report.Seed)
	require.Len(t, report.Runners, 1)
	require.Positive(t, report.Runners[0].Cases)
	require.Positive(t, report.Runners[0].Done["operations"])

	for _, args := range [][]string{
		{"torture", "--minutes", "0"}, {"torture", "--minutes", "NaN"}, {"torture", "--only", "nobody"}, {"torture", "x"},
	} {
		require.Equal(t, exitUsage, run(t, args...).code, "%v", args)
	}
	r = run(t, "torture", "--list")
	require.Equal(t, exitOK, r.code)
	require.Contains(t, r.out, "cache coherence")
}
