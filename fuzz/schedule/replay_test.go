//go:build schedule

package schedule

import (
	"context"
	"flag"
	"reflect"
	"slices"
	"testing"

	"github.com/stretchr/testify/require"

	"github.com/holdfastdb/holdfast/fuzz/component"
	"github.com/holdfastdb/holdfast/fuzz/live"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

var oneCase = flag.String("case", "", "play this case only, as a failure printed it")

// Goal: a printed case fails again.
func TestCase_replay(t *testing.T) {
	if *oneCase == "" {
		t.Skip("needs -case")
	}
	c, err := ParseCase(*oneCase)
	require.NoError(t, err)
	_, trace, err := c.Play(t.Context())
	require.NoError(t, err, "%v", trace)
}

// Goal: power cuts under chosen orders break no promise.
func TestCase_orders(t *testing.T) {
	for _, r := range []runner.Runner{CrashRunner(), EveryCutRunner()} {
		n := 60
		if testing.Short() {
			n = 6
		}
		if *cases > 0 {
			n = *cases
		}
		if r.Name == EveryCutRunner().Name {
			n = max(1, n/10)
		}
		c, err := runner.Seeds(t.Context(), r, *firstSeed, n)
		require.NoError(t, err)
		t.Log(r.Name, c)
	}
}

// Goal (P3): a failing case loses the rounds, cuts, writers and commits that it does
// not need, its cut comes early, and its text plays it again.
func TestCase_shrink(t *testing.T) {
	c := NewCase(false, 7) // four writers, three cuts inside recovery
	small := shrinkCase(c, 900, func(less Case) (int, bool) {
		at := less.CutAt
		if at == 0 {
			at = 900
		}
		return at, less.Each[2] >= 5 && at >= 31 && less.Rounds >= 2
	})
	require.Equal(t, []int{0, 0, 5, 0}, small.Each)
	require.Equal(t, 2, small.Rounds)
	require.Zero(t, small.Depth)
	require.Equal(t, 31, small.CutAt)
	require.Less(t, small.Size(), c.Size())
	again, err := ParseCase(small.String())
	require.NoError(t, err)
	require.Equal(t, small, again)
}

// Goal (P1): a seed makes the same calls on the disk with the same bytes, and the
// same images, under every runner.
func TestUnder_bitForBit(t *testing.T) {
	for name, play := range map[string]func(ctx context.Context, seed uint64) (*tape, error){
		"schedules": func(_ context.Context, seed uint64) (*tape, error) {
			_, tape, err := playScript(NewScript(seed))
			return tape, err
		},
		"crash":     ofCase(false),
		"every cut": ofCase(true),
		"bank":      ofRunner(live.BankCuts()),
		"log":       ofRunner(component.Log()),
		"packs":     ofRunner(component.Packs()),
	} {
		t.Run(name, func(t *testing.T) {
			n := uint64(10)
			if name == "schedules" {
				n *= 2
			}
			if testing.Short() {
				n = 3
			}
			if *cases > 0 {
				n = uint64(*cases)
			}
			calls := int64(0)
			for seed := *firstSeed; seed < *firstSeed+n; seed++ {
				// A long pause of the machine may change one play (see the package
				// page), never play after play.
				var plays []*tape
				for range maxPlays {
					a, err := play(t.Context(), seed)
					require.NoError(t, err, "seed %d", seed)
					if slices.ContainsFunc(plays, a.same) {
						plays = append(plays, a)
						break
					}
					plays = append(plays, a)
				}
				a, b := plays[len(plays)-1], plays[0]
				if len(plays) > 2 {
					t.Logf("seed %d: %d plays until two were the same", seed, len(plays))
				}
				if !slices.ContainsFunc(plays[:len(plays)-1], a.same) {
					require.Equal(t, b.trace, a.trace, "seed %d: no two of %d plays", seed, maxPlays)
					t.Fatalf("seed %d: no two of %d plays made the same calls", seed, maxPlays)
				}
				calls += a.n
			}
			t.Logf("%d seeds, %d calls", n, calls)
		})
	}
}

// maxPlays is how often a seed may be played until two plays are the same.
const maxPlays = 4

func (t *tape) same(o *tape) bool {
	return slices.Equal(t.trace, o.trace) && t.n == o.n && reflect.DeepEqual(t.calls, o.calls) && reflect.DeepEqual(t.image, o.image)
}

func ofCase(every bool) func(ctx context.Context, seed uint64) (*tape, error) {
	return func(ctx context.Context, seed uint64) (*tape, error) {
		_, tape, err := NewCase(every, seed).play(ctx)
		return tape, err
	}
}

func ofRunner(r runner.Runner) func(ctx context.Context, seed uint64) (*tape, error) {
	return func(ctx context.Context, seed uint64) (*tape, error) {
		_, tape, err := host(ctx, r, seed)
		return tape, err
	}
}
