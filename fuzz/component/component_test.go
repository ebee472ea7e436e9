package component

import (
	"context"
	"flag"
	"runtime/debug"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed")
	cuts      = flag.Int64("cuts", 0, "how many power cuts; 0: a short run")
	caseCount = flag.Int("cases", 0, "how many seeds, whatever they cut; 0: as many as -cuts needs")
)

func TestMain(m *testing.M) {
	debug.SetGCPercent(400) // a case keeps little, and makes much
	goleak.VerifyTestMain(m)
}

// run runs cases until there were enough cuts.
func run(t *testing.T, r runner.Runner) {
	t.Helper()
	want := int64(20_000)
	if testing.Short() {
		want = 4_000
	}
	if *cuts > 0 {
		want = *cuts
	}
	began := time.Now()
	total := runner.Counts{}
	n := 0
	for seed := *firstSeed; *caseCount > 0 && n < *caseCount || *caseCount == 0 && total["cuts"] < want; seed++ {
		c, err := r.Case(context.Background(), seed)
		total.Add(c)
		require.NoError(t, err, "replay with: go test ./fuzz/component -run %s -seed %d -cases 1", t.Name(), seed)
		n++
	}
	took := time.Since(began)
	t.Logf("%d cases: %v, %v each", n, total, (took / time.Duration(max(1, total["cuts"]))).Round(time.Microsecond/10))
}

// Goal (W1 to W9): wherever the power is cut, the log has an exact prefix of what was
// committed with everything promised in it, and gives no number twice.
func TestLog(t *testing.T) { run(t, Log()) }

// Goal (M1, M2, M5): wherever the power is cut, what a sync covered is there byte by
// byte, the rest is right or a typed error, and no number of a pack is used again.
func TestPacks(t *testing.T) { run(t, Packs()) }
