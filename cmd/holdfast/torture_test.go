package main

import (
	"encoding/json"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/runner"
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

// Goal: a runner is chosen by its whole name, with commas or hyphens, without those whose
// names contain it; a word chooses all that contain it.
func TestPick(t *testing.T) {
	var all []runner.Runner
	for _, name := range []string{"kills", "kills at system calls", "power cuts, every call", "power cuts, every call, in order", "bank"} {
		all = append(all, runner.Runner{Name: name})
	}
	for wish, want := range map[string][]string{
		"kills":                  {"kills"},
		"kill":                   {"kills", "kills at system calls"},
		"kills-at-system-calls":  {"kills at system calls"},
		"power cuts, every call": {"power cuts, every call"},
		"power-cuts-every-call":  {"power cuts, every call"},
		"order,bank":             {"power cuts, every call, in order", "bank"},
	} {
		some, err := pick(nil, all, []string{wish})
		require.NoError(t, err)
		var got []string
		for _, r := range some {
			got = append(got, r.Name)
		}
		require.Equal(t, want, got, wish)
	}
}
