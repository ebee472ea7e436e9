package component

import (
	"context"
	"iter"
	"math/rand/v2"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/simfs"
	"github.com/holdfastdb/holdfast/yield"
)

// Log cuts the power under the write-ahead log. One case is a history of some lives,
// each of them cut at every call.
func Log() runner.Runner {
	return runner.Runner{
		Name:  "power cuts, log alone",
		About: "an exact prefix with everything promised, and no number twice, at every call and three cuts deep",
		Case:  func(ctx context.Context, seed uint64) (runner.Counts, error) { return runCase(ctx, seed, newLog) },
	}
}

// Packs cuts the power under the packs of large values.
func Packs() runner.Runner {
	return runner.Runner{
		Name:  "power cuts, packs alone",
		About: "what a sync covered is there, byte by byte; the rest is right or a known error; no number is used again",
		Case:  func(ctx context.Context, seed uint64) (runner.Counts, error) { return runCase(ctx, seed, newPacks) },
	}
}

const (
	maxDepth = 3 // cuts on top of each other
	branches = 3 // images of a life that live on, at most
)

// life is a room on a disk, from its recovery to its close.
type life interface {
	// run lives on disk and notes the disk at every call that changes something. It
	// returns how many it noted.
	run(disk *simfs.FS) (moments int, err error)
	// cut is the disk at moment i.
	cut(i int) *simfs.Cut
	// recover checks an image of moment i. The life that may go on from there is nil
	// unless it is asked for.
	recover(i int, image simfs.Image, disk *simfs.FS, goOn bool) (life, error)
}

// history is the lives of a case.
type history struct {
	ctx    context.Context
	seed   uint64
	rnd    *rand.Rand
	random int // random images of a moment
	counts runner.Counts
}

func runCase(ctx context.Context, seed uint64, first func(seed uint64) life) (runner.Counts, error) {
	h := &history{ctx: ctx, seed: seed, rnd: rand.New(rand.NewPCG(seed, 0x636f6d70)), random: 3, counts: runner.Counts{}}
	disk := simfs.New(&simfs.Options{Seed: seed, Ext4Like: seed%3 == 2, PessimisticRename: seed%2 == 0, TraceLen: 64, Sleep: yield.Sleep})
	err := h.live(first(seed), disk, 1)
	return h.counts, oracle.WithSeed(err, seed)
}

// live lets a life go by, then looks at every image of its every moment, and lets
// some of them live on.
func (h *history) live(l life, disk *simfs.FS, depth int) error {
	moments, err := l.run(disk)
	if err != nil {
		return err
	}
	h.counts["lives"]++
	on := map[int]bool{}
	if depth < maxDepth {
		for range branches - depth + 1 {
			on[h.rnd.IntN(moments)] = true
		}
	}
	for i := range moments {
		if h.ctx.Err() != nil {
			return nil
		}
		cut := l.cut(i)
		chosen := -1
		if on[i] {
			chosen = h.rnd.IntN(len(simfs.Corners()) + h.random)
			if h.rnd.IntN(2) == 0 { // a random one, with tears of its own
				chosen = len(simfs.Corners()) + h.rnd.IntN(h.random)
			}
		}
		n := 0
		for cfg, image := range h.images(cut) {
			h.counts["cuts"]++
			next, err := l.recover(i, cfg.Image, image, n == chosen)
			if err != nil {
				return &cutError{moment: i, of: moments, depth: depth, cfg: cfg, err: err}
			}
			n++
			if next != nil {
				if err := h.live(next, image, depth+1); err != nil {
					return err
				}
			}
		}
	}
	return nil
}

// images are the corners and some random ones; where nothing is unsynced there is
// only one.
func (h *history) images(cut *simfs.Cut) iter.Seq2[simfs.CrashConfig, *simfs.FS] {
	if cut.Unsynced() > 0 {
		return cut.Images(h.rnd.Uint64(), h.random)
	}
	return func(yield func(simfs.CrashConfig, *simfs.FS) bool) {
		cfg := simfs.CrashConfig{Image: simfs.Everything}
		yield(cfg, cut.Image(cfg))
	}
}
