package seeded

import (
	"bytes"
	"encoding/json"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// run asks for the real thing: each bug costs a build of a test binary.
const run = "HOLDFAST_SEEDED"

// Goal: every edit still applies, once, and no two bugs share a name.
func TestBugs_apply(t *testing.T) {
	var names []string
	for _, b := range Bugs {
		require.NotContains(t, names, b.Name)
		names = append(names, b.Name)
		src, err := os.ReadFile(filepath.Join("..", "..", b.File))
		require.NoError(t, err)
		require.Equal(t, 1, strings.Count(string(src), b.From), "%s: %s has changed; make the bug anew", b.Name, b.File)
	}
	require.GreaterOrEqual(t, len(Bugs), 20)
}

// Goal: the suites catch every bug within a minute.
func TestBugs_areCaught(t *testing.T) {
	only := os.Getenv(run)
	if only == "" {
		t.Skipf("builds a test binary for each of %d bugs: make seeded (or %s=all)", len(Bugs), run)
	}
	var table bytes.Buffer
	fmt.Fprintf(&table, "\n%-28s %-14s %8s  %s\n", "bug", "suite", "seconds", "like")
	for _, b := range Bugs {
		if only != "all" && !slices.Contains(strings.Split(only, ","), b.Name) {
			continue
		}
		t.Run(b.Name, func(t *testing.T) {
			took := catch(t, b)
			fmt.Fprintf(&table, "%-28s %-14s %8.1f  %s\n", b.Name, b.Pkg, took.Seconds(), b.Like)
		})
	}
	t.Log(table.String())
}

// catch runs the suite with the bug and returns how long it took to fail.
func catch(t *testing.T, b Bug) time.Duration {
	root, binary := build(t, b)
	began := time.Now()
	suite := exec.Command(binary, "-test.run", b.Run, "-test.failfast", "-test.timeout", "60s")
	suite.Dir = filepath.Join(root, b.Pkg)
	out, err := suite.CombinedOutput()
	took := time.Since(began)
	require.Error(t, err, "%s was not caught by %s", b.Name, b.Pkg)
	require.NotContains(t, string(out), "no tests to run")
	if !b.Hang { // a suite that is merely slow has caught nothing
		require.NotContains(t, string(out), "test timed out", b.Name)
	}
	return took
}

// build makes the suite with the bug in it. root is the module's.
func build(t *testing.T, b Bug) (root, binary string) {
	root, err := filepath.Abs(filepath.Join("..", ".."))
	require.NoError(t, err)
	src, err := os.ReadFile(filepath.Join(root, b.File))
	require.NoError(t, err)
	dir := t.TempDir()
	edited := filepath.Join(dir, "edited.go")
	require.NoError(t, os.WriteFile(edited, []byte(strings.Replace(string(src), b.From, b.To, 1)), 0o644))
	overlay, err := json.Marshal(map[string]any{"Replace": map[string]string{filepath.Join(root, b.File): edited}})
	require.NoError(t, err)
	overlayFile := filepath.Join(dir, "overlay.json")
	require.NoError(t, os.WriteFile(overlayFile, overlay, 0o644))
	binary = filepath.Join(dir, "suite")
	build := exec.Command("go", "test", "-c", "-vet=off", "-tags", b.Tags, "-overlay", overlayFile, "-o", binary, b.Pkg)
	build.Dir = root
	out, err := build.CombinedOutput()
	require.NoError(t, err, "the bug must compile:\n%s", out)
	return root, binary
}
