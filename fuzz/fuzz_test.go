package fuzz

import (
	"flag"
	"fmt"
	"testing"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"
	"github.com/stretchr/testify/require"
	"go.uber.org/goleak"

	"github.com/holdfastdb/holdfast/engine"
)

var (
	firstSeed = flag.Uint64("seed", 1, "first seed of the random tests")
	seeds     = flag.Int("seeds", 0, "how many seeds; 0: a short run")
)

func TestMain(m *testing.M) { goleak.VerifyTestMain(m) }

func eachSeed(t *testing.T, short, long int, f func(t *testing.T, seed uint64)) {
	n := long
	if testing.Short() {
		n = short
	}
	if *seeds > 0 {
		n = *seeds
	}
	for seed := *firstSeed; seed < *firstSeed+uint64(n); seed++ {
		f(t, seed)
		if t.Failed() {
			t.Fatalf("replay with: go test ./fuzz -run %s -seed %d -seeds 1", t.Name(), seed)
		}
	}
}

// settings of one seed: what changes no result changes with the seed.
func settings(seed uint64) engine.Options {
	return engine.Options{
		MemoryBudget: 16 << 20,
		DiskReserve:  -1,
		Sync:         engine.SyncPolicy(seed % 3),
		SyncEvery:    3 * time.Millisecond,
		LargeValue:   4 << 10,
		SegmentBytes: []int64{0, 16 << 10, 64 << 10}[seed/3%3],
		Compression:  engine.Compression(seed / 2 % 4),
	}
}

// Goal: whatever is done in whatever order, every answer is the model's.
func TestRun_model(t *testing.T) {
	eachSeed(t, 6, 30, func(t *testing.T, seed uint64) {
		o := settings(seed)
		o.FS = vfs.NewMem()
		err := Run(Config{Dir: "/store", Options: o, Source: Seeded(seed), Steps: 1500, Keys: 10 + int(seed*37%300)})
		require.NoError(t, err, "seed %d", seed)
	})
}

// Goal: the same on a real disk, with mappings.
func TestRun_modelOnDisk(t *testing.T) {
	eachSeed(t, 1, 4, func(t *testing.T, seed uint64) {
		err := Run(Config{Dir: t.TempDir(), Options: settings(seed), Source: Seeded(seed), Steps: 1000, Keys: 100})
		require.NoError(t, err, "seed %d", seed)
	})
}

// Goal: a power cut at any call takes back nothing that was promised, leaves no
// half of a batch and no hole, under every policy, also inside recovery.
func TestCrash_powerCuts(t *testing.T) {
	var total CrashReport
	eachSeed(t, 20, 200, func(t *testing.T, seed uint64) {
		rep, err := Crash(CrashConfig{
			Seed: seed, Options: settings(seed), Writers: 1 + int(seed%4), Commits: 10 + int(seed%60),
			Depth: int(seed % 4), Rounds: 3,
		})
		require.NoError(t, err)
		total.Cuts += rep.Cuts
		total.Opens += rep.Opens
		total.Commits += rep.Commits
		total.Survived += rep.Survived
	})
	t.Logf("%d power cuts, %d recoveries, %d of %d commits survived", total.Cuts, total.Opens, total.Survived, total.Commits)
}

// Goal (F-03): the power is cut at every call of a history, under every policy, and
// each of the corner images and four random ones comes back right.
func TestCrash_everyCall(t *testing.T) {
	var total CrashReport
	stride := 1
	if testing.Short() {
		stride = 20
	}
	eachSeed(t, 3, 6, func(t *testing.T, seed uint64) {
		rep, err := EveryCut(t.Context(), CrashConfig{
			Seed: seed, Options: settings(seed), Writers: 1 + int(seed%3), Commits: 15 + int(seed%20),
		}, stride, 4)
		require.NoError(t, err)
		total.Cuts += rep.Cuts
	})
	t.Logf("%d power cuts", total.Cuts)
}

// Goal: no sequence of operations that a fuzzer finds makes a wrong answer.
func FuzzRun(f *testing.F) {
	f.Add([]byte("\x00\x01\x02\x03 put, delete, flush, scan"), byte(0))
	f.Add([]byte(fmt.Sprint(make([]int, 100))), byte(1))
	f.Fuzz(func(t *testing.T, ops []byte, setting byte) {
		o := settings(uint64(setting))
		o.FS = vfs.NewMem()
		if err := Run(Config{Dir: "/store", Options: o, Source: NewBytes(ops), Steps: 200, Keys: 16}); err != nil {
			t.Fatal(err)
		}
	})
}
