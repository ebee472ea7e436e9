package live

import (
	"context"
	"flag"
	"os"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed")
	floors    = flag.String("floors", "", "what must be counted at least: \"200 kills\"")
	cases     = flag.Int("cases", 0, "how many cases; 0: the test's own number")
)

func TestMain(m *testing.M) {
	undo := Unsettle()
	goleak.VerifyTestMain(m, goleak.Cleanup(func(code int) {
		undo()
		os.Exit(code)
	}))
}

// runCases runs long cases, or short ones of them under -short, and returns what was
// done.
func runCases(t *testing.T, r runner.Runner, short, long int) runner.Counts {
	t.Helper()
	n := long
	if testing.Short() {
		n = short
	}
	if *cases > 0 {
		n = *cases
	}
	began := time.Now()
	counts, err := runner.Seeds(context.Background(), r, *firstSeed, n)
	t.Logf("%d cases in %.1f s: %v", n, time.Since(began).Seconds(), counts)
	require.NoError(t, err, "run again with: go test ./fuzz/live -run %s -seed N -cases 20", t.Name())
	require.NoError(t, counts.AtLeast(*floors))
	return counts
}
