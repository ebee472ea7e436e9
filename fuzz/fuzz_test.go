package fuzz

import (
	"flag"
	"fmt"
	"testing"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed of the random tests")
	floors    = flag.String("floors", "", "what must be counted at least: \"200 kills\"")
	seeds     = flag.Int("seeds", 0, "how many seeds; 0: a short run")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

// play runs so many cases of r, from the first seed on, and logs what they did.
func play(t *testing.T, r runner.Runner, short, long int) {
	t.Helper()
	n := long
	if testing.Short() {
		n = short
	}
	if *seeds > 0 {
		n = *seeds
	}
	c, err := runner.Seeds(t.Context(), r, *firstSeed, n)
	require.NoError(t, err, "replay with: go test ./fuzz -run %s -seeds 1 -seed N", t.Name())
	t.Log(c)
	require.NoError(t, c.AtLeast(*floors))
}

// Goal: whatever is done in whatever order, every answer is the model's.
func TestRun_model(t *testing.T) {
	play(t, ModelRunner(), 6, 30)
}

// Goal: the same on a real disk, with mappings.
func TestRun_modelOnDisk(t *testing.T) {
	n := uint64(4)
	if testing.Short() {
		n = 1
	}
	for seed := *firstSeed; seed < *firstSeed+n; seed++ {
		err := Run(Config{Dir: t.TempDir(), Options: Settings(seed), Source: Seeded(seed), Steps: 1000, Keys: 100})
		require.NoError(t, err, "seed %d", seed)
	}
}

// Goal: a power cut at any call takes back nothing that was promised, leaves no
// half of a batch and no hole, under every policy, also inside recovery.
func TestCrash_powerCuts(t *testing.T) {
	play(t, CrashRunner(), 20, 200)
}

// Goal (F-03): the power is cut at every call of a history, under every policy, and
// each of the corner images and four random ones comes back right.
func TestCrash_everyCall(t *testing.T) {
	stride := 1
	if testing.Short() {
		stride = 20
	}
	play(t, EveryCutRunner(stride), 3, 2) // make gate: 9, all of them whole
}

// Goal: no sequence of operations that a fuzzer finds makes a wrong answer.
func FuzzRun(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03 put, delete, flush, scan"), byte(0))
	f.Add([]byte(fmt.Sprint(make([]int, 100))), byte(1))
	f.Fuzz(func(t *testing.T, ops []byte, setting byte) {
		o := Settings(uint64(setting))
		o.FS = vfs.NewMem()
		if err := Run(Config{Dir: "/store", Options: o, Source: NewBytes(ops), Steps: 200, Keys: 16}); err != nil {
			t.Fatal(err)
		}
	})
}
