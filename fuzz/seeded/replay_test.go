package seeded

import (
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"slices"
	"strconv"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
)

var (
	replayLine = regexp.MustCompile(`-run TestCase_replay -case (\S+)`)
	sizeLine   = regexp.MustCompile(`was: (\d+) commits of \d+ writers, \d+ rounds; now (\d+) commits`)
	// verdictLine is the rule and the detail, as far as the seed.
	verdictLine = regexp.MustCompile(`(?m)(O\d+[^\n]*)`)
)

// Goal: a planted bug is found by power cuts in a chosen order, the case that is
// printed is smaller than the one that failed, and fails in the same words each time
// it is played.
func TestBugs_replay(t *testing.T) {
	if os.Getenv(run) == "" {
		t.Skipf("builds a test binary: make seeded (or %s=all)", run)
	}
	i := slices.IndexFunc(Bugs, func(b Bug) bool { return b.Name == "ack-before-sync" })
	bug := Bugs[i]
	bug.Pkg, bug.Tags = "./fuzz/schedule", "schedule"
	root, binary := build(t, bug)
	suite := func(args ...string) string {
		began := time.Now()
		c := exec.Command(binary, append(args, "-test.failfast", "-test.timeout", "60s")...)
		c.Dir = filepath.Join(root, bug.Pkg)
		out, err := c.CombinedOutput()
		require.Error(t, err, "must fail")
		require.NotContains(t, string(out), "test timed out")
		t.Logf("%v: %.1f s", args, time.Since(began).Seconds())
		return string(out)
	}
	found := suite("-test.run", "TestCase_orders")
	again := replayLine.FindStringSubmatch(found)
	require.NotNil(t, again, found)
	size := sizeLine.FindStringSubmatch(found)
	require.NotNil(t, size, found)
	was, err := strconv.Atoi(size[1])
	require.NoError(t, err)
	now, err := strconv.Atoi(size[2])
	require.NoError(t, err)
	require.Less(t, now, was)
	verdict := verdictLine.FindString(found)
	require.NotEmpty(t, verdict, found)
	t.Logf("%d commits became %d: %s", was, now, verdict)
	for range 2 {
		out := suite("-test.run", "TestCase_replay", "-case", again[1])
		require.Equal(t, verdict, verdictLine.FindString(out), out)
	}
}
