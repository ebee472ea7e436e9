package fault

import (
	"context"
	"flag"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed")
	caseCount = flag.Int("cases", 0, "how many seeds; 0: a short run")
	stride    = flag.Int("stride", 0, "TestSweep: fail at every nth call; 0: a short run; 1: at each")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func cases(t *testing.T, r runner.Runner, short, long int) {
	t.Helper()
	n := long
	if testing.Short() {
		n = short
	}
	if *caseCount > 0 {
		n = *caseCount
	}
	began := time.Now()
	total, err := runner.Seeds(context.Background(), r, *firstSeed, n)
	t.Logf("%d cases in %v: %v", n, time.Since(began).Round(time.Millisecond), total)
	require.NoError(t, err)
}

func TestWorkloads(t *testing.T) {
	all := prepared()
	require.NoError(t, all.err)
	for i, wl := range all.loads {
		t.Logf("%-20s %d calls, %d commits at its start", wl.name, all.calls[i], all.starts[i].commits)
	}
}

// Goal (I2, I3, I9, I12): one call of the file system fails, chosen by the seed.
func TestErrors(t *testing.T) { cases(t, Errors(), 8, 54) }

// Goal: the same at every stride-th call of every workload, with every kind.
func TestSweep(t *testing.T) {
	if testing.Short() {
		t.Skip("TestErrors does it by chance")
	}
	all := prepared()
	require.NoError(t, all.err)
	total := runner.Counts{}
	table := coverage{}
	for load := range all.loads {
		for _, k := range Kinds() {
			for _, sticky := range []bool{false, true} {
				s := Sweep{Load: load, Kind: k, Sticky: sticky, First: 1, Stride: *stride, Seed: *firstSeed}
				if s.Stride == 0 {
					// About one run for each of the workloads, kinds and durations.
					s.First, s.Stride = 1+load*7, 1<<20
				}
				c, err := s.Run(t.Context(), table.add)
				total.Add(c)
				require.NoError(t, err)
			}
		}
	}
	t.Log(total)
	t.Logf("%d sites\n%s", len(table), simfs.CoverageTable(table.rows()))
}

// Goal (O11): calls that are late or hang stop nobody who gave a context, no reader,
// and nobody at all once they are let go.
func TestSlow(t *testing.T) { cases(t, Slow(), 8, 40) }

// Goal: no place is left out. Every kind of call on every class of files that occurs
// in the workloads fails at least once, by the first such call of a workload.
func TestEverySite(t *testing.T) {
	table, left, total, err := Sites(t.Context(), *firstSeed)
	t.Log(total)
	t.Logf("%d sites\n%s", len(table), simfs.CoverageTable(table))
	require.NoError(t, err)
	require.Empty(t, left, "called in peace, and never failed")
}
