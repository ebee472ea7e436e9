//go:build schedule

package schedule

import (
	"context"

	"github.com/holdfastdb/holdfast/fuzz/component"
	"github.com/holdfastdb/holdfast/fuzz/live"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// inOrder ends the names of runners that exist without a scheduler, too.
const inOrder = ", in order"

// Runners are all that run under the scheduler.
func Runners() []runner.Runner {
	return []runner.Runner{
		Runner(), CrashRunner(), EveryCutRunner(),
		Hosted(live.BankCuts()), Hosted(component.Log()), Hosted(component.Packs()),
	}
}

// Hosted is r under the scheduler: a seed chooses the order of goroutines, the time
// and all that the rooms draw, too.
func Hosted(r runner.Runner) runner.Runner {
	return runner.Runner{
		Name:  r.Name + inOrder,
		About: r.About + "; the order made from the seed",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			c, _, err := host(ctx, r, seed)
			return c, err
		},
	}
}

func host(ctx context.Context, r runner.Runner, seed uint64) (runner.Counts, *tape, error) {
	did := make(chan runner.Counts, 1) // empty if it hangs
	t, err := under(seed, func() error {
		c, err := r.Case(ctx, seed)
		did <- c
		return err
	})
	c := runner.Counts{}
	select {
	case c = <-did:
	default:
	}
	c["steps"] += int64(t.steps)
	return c, t, err
}
