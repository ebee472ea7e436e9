package machine

import (
	"flag"
	"fmt"
	"os"
	"testing"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed")
	cases     = flag.Int("cases", 0, "how many cases of each test; 0: a short run")
	floors    = flag.String("floors", "", "what must be counted at least: \"200 kills\"")
	shipped   = flag.String("binary", "", "a holdfast command, whose children are used instead of this test's own")
)

const childEnv = "HOLDFAST_MACHINE_CHILD"

func TestMain(m *testing.M) {
	if os.Getenv(childEnv) != "" {
		job, err := ParseJob(os.Args[len(os.Args)-1])
		if err == nil {
			err = Child(job, os.Stdin, os.Stdout)
		}
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		os.Exit(0)
	}
	goleak.VerifyTestMain(m)
}

// host starts this test's own binary, or the one of a flag.
func host(t *testing.T) Host {
	if *shipped != "" {
		return Host{Path: *shipped, Args: []string{"torture-child"}}
	}
	self, err := os.Executable()
	require.NoError(t, err)
	return Host{Path: self, Env: []string{childEnv + "=1"}}
}

// play runs the cases of a runner, or skips if it cannot run here.
func play(t *testing.T, r runner.Runner, short, long int) runner.Counts {
	if r.Ready != nil {
		if err := r.Ready(); err != nil {
			t.Skipf("%s: %v", r.Name, err)
		}
	}
	n := long
	if testing.Short() {
		n = short
	}
	if *cases > 0 {
		n = *cases
	}
	c, err := runner.Seeds(t.Context(), r, *firstSeed, n)
	t.Logf("%s: %d cases: %v", r.Name, n, c)
	require.NoError(t, err)
	require.NoError(t, c.AtLeast(*floors))
	return c
}
