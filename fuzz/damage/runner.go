package damage

import (
	"context"
	"math/rand/v2"
	"os"
	"sync"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// perCase is about how many damages one case of a runner does.
const perCase = 64

// Runners are all of this package, for a loop: zero options are [Settings].
func Runners(o engine.Options) []runner.Runner {
	return []runner.Runner{AtRest(o), WhileOpen(o), InModes(o), Mapped(o)}
}

// AtRest damages stores that nobody has open, that were closed or killed.
func AtRest(o engine.Options) runner.Runner {
	get := lazy(o)
	return runner.Runner{
		Name:  "damage at rest",
		About: "bits, sectors, lengths, misplaced, stale and foreign files of a closed or killed store; open, read, write, open again",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			rnd := rand.New(rand.NewPCG(seed, 1))
			f, err := get(Ending(rnd.IntN(len(endings))))
			if err != nil {
				return nil, err
			}
			return some(ctx, rnd, f, f.kinds(), f.AtRest)
		},
	}
}

// WhileOpen damages files under an open store, before they are read.
func WhileOpen(o engine.Options) runner.Runner {
	get := lazy(o)
	var mu sync.Mutex
	var opened *Fixture
	return runner.Runner{
		Name:  "damage while open",
		About: "bytes and lengths change, and files go, under an open store; its keys are right or reported, the others right",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			f, err := get(Closed)
			if err != nil {
				return nil, err
			}
			mu.Lock()
			if opened == nil {
				opened, err = f.Opened()
			}
			mu.Unlock()
			if err != nil {
				return nil, err
			}
			return some(ctx, rand.New(rand.NewPCG(seed, 2)), opened, KindsOpen(), f.WhileOpen)
		},
	}
}

// InModes opens damaged stores read-only, in absolute mode, at a point in time and for
// salvage.
func InModes(o engine.Options) runner.Runner {
	get := lazy(o)
	return runner.Runner{
		Name:  "damage by mode",
		About: "each way to open a damaged store keeps its own contract",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			rnd := rand.New(rand.NewPCG(seed, 3))
			f, err := get(Closed)
			if err != nil {
				return nil, err
			}
			m := Modes()
			return some(ctx, rnd, f, f.kinds(), f.In(m[rnd.IntN(len(m))]))
		},
	}
}

// Mapped cuts packs under mappings, on the operating system's file system.
func Mapped(o engine.Options) runner.Runner {
	get := lazy(o)
	return runner.Runner{
		Name:  "damage under mappings",
		About: "packs on a real disk are cut before, beside and under their readers; the process lives",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			f, err := get(Closed)
			if err != nil {
				return nil, err
			}
			table := Table{}
			for _, n := range Lengths {
				if ctx.Err() != nil {
					break
				}
				if err := f.mappedOnce(int(seed), n, table); err != nil {
					return table.Counts(), err
				}
			}
			return table.Counts(), nil
		},
	}
}

func (f *Fixture) mappedOnce(i int, n int64, table Table) error {
	root, err := os.MkdirTemp("", "holdfast-damage-")
	if err != nil {
		return err
	}
	defer os.RemoveAll(root)
	packs := f.packs()
	when := When(i % 3)
	out, err := f.Mapped(root, packs[i/3%len(packs)], n, when)
	if err == nil {
		table.Add("pack", "cut "+when.String(), out)
	}
	return err
}

// kinds that a fixture can be asked to bear: a log that was not closed has no witness
// against files that were put back.
func (f *Fixture) kinds() []Kind {
	if f.Loose {
		return Kinds()[:bytesOnly]
	}
	return Kinds()
}

// some does about perCase damages of one kind, spread over its places.
func some(ctx context.Context, rnd *rand.Rand, f *Fixture, kinds []Kind, try func(Case) (Outcome, error)) (runner.Counts, error) {
	k := kinds[rnd.IntN(len(kinds))]
	n := 0
	for range k.Cases(f) {
		n++
	}
	step := max(1, n/perCase)
	k.Every = 1
	table := Table{}
	err := Sweep(ctx, f, []Kind{k}, step, rnd.IntN(step), try, table)
	return table.Counts(), err
}

// lazy makes each fixture once, when it is first wanted.
func lazy(o engine.Options) func(Ending) (*Fixture, error) {
	if o == (engine.Options{}) {
		o = Settings
	}
	var mu sync.Mutex
	made := map[Ending]*Fixture{}
	return func(end Ending) (*Fixture, error) {
		mu.Lock()
		defer mu.Unlock()
		if made[end] != nil {
			return made[end], nil
		}
		f, err := NewFixture(o, end)
		if err == nil {
			made[end] = f
		}
		return f, err
	}
}
