package fuzz

import (
	"context"
	"time"

	"github.com/cockroachdb/pebble/v2/vfs"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Settings are the options of one seed: every sync policy, size of segment and
// compression, and a budget so small that everything happens soon.
func Settings(seed uint64) engine.Options {
	return engine.Options{
		MemoryBudget: 16 << 20,
		DiskReserve:  -1,
		Sync:         engine.SyncPolicy(seed % 3),
		SyncEvery:    3 * time.Millisecond,
		LargeValue:   4 << 10,
		SegmentBytes: []int64{0, 16 << 10, 64 << 10}[seed/3%3],
		Compression:  engine.Compression(seed / 2 % 4),
		SpaceAmp:     1.05,
	}
}

// ModelRunner does random operations and compares every answer with a map.
func ModelRunner() runner.Runner {
	const steps = 1500
	return runner.Runner{
		Name:  "operations",
		About: "random operations, every answer compared with a map",
		Case: func(_ context.Context, seed uint64) (runner.Counts, error) {
			o := Settings(seed)
			o.FS = vfs.NewMem()
			err := Run(Config{Dir: crashDir, Options: o, Source: Seeded(seed), Steps: steps, Keys: 10 + int(seed*37%300)})
			return runner.Counts{"operations": steps}, oracle.WithSeed(err, seed)
		},
	}
}

// CrashCase is what a seed means to [CrashRunner].
func CrashCase(seed uint64) CrashConfig {
	return CrashConfig{
		Seed: seed, Options: Settings(seed), Large: int(seed%3) * 3, Writers: 1 + int(seed%4), Commits: 10 + int(seed%60),
		Depth: int(seed % 4), Rounds: 3,
	}
}

// EveryCutCase is what a seed means to [EveryCutRunner].
func EveryCutCase(seed uint64) CrashConfig {
	return CrashConfig{Seed: seed, Options: Settings(seed), Large: int(seed%3) * 3, Writers: 1 + int(seed%3), Commits: 15 + int(seed%20)}
}

// CrashRunner ends lives at any call by power cuts and kills, in recovery too.
func CrashRunner() runner.Runner {
	return runner.Runner{
		Name:  "power cuts, at random",
		About: "concurrent writers, cut or killed at any call, again inside recovery to depth 3",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			rep, err := Crash(ctx, CrashCase(seed))
			return rep.Counts(), err
		},
	}
}

// EveryCutRunner cuts the power at every nth call of one history.
func EveryCutRunner(stride int) runner.Runner {
	return runner.Runner{
		Name:  "power cuts, every call",
		About: "one history, cut at each call that changes the disk: corner images and random ones",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			rep, err := EveryCut(ctx, EveryCutCase(seed), stride, 4)
			return rep.Counts(), err
		},
	}
}

// Counts of the report.
func (r CrashReport) Counts() runner.Counts {
	return runner.Counts{"cuts": int64(r.Cuts), "recoveries": int64(r.Opens), "commits": int64(r.Commits)}
}
