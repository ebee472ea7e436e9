package machine

import (
	"context"
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// killsPerCase is how often a case kills.
const killsPerCase = 6

// Kills kills children with SIGKILL, at any time: while they write, flush, recover
// from the last kill. One store goes through all kills of a case.
func Kills(h Host) runner.Runner {
	return runner.Runner{
		Name:  "kills",
		About: "SIGKILL at any time, recovery included",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			dir, remove, err := h.scratch()
			if err != nil {
				return nil, err
			}
			defer remove()
			l := newLedger(newJob(filepath.Join(dir, "store"), seed))
			err = canceled(ctx, killAgain(ctx, &h, l, rand.New(rand.NewPCG(seed, 0x6b696c6c))))
			return l.counts, oracle.WithSeed(err, seed)
		},
	}
}

func killAgain(ctx context.Context, h *Host, l *ledger, rnd *rand.Rand) error {
	nested := false
	for round := range killsPerCase {
		l.begin()
		at := anyMoment(rnd, nested)
		e, err := l.live(ctx, h.command(ctx, &l.job), at, func(kill func()) { kill() })
		if err == nil && !e.acted {
			err = fmt.Errorf("a child ended before: %w", e.killed(l))
		}
		if err != nil {
			return fmt.Errorf("round %d: %v: %w", round, at, err)
		}
		l.counts["kills"]++
		if !l.opened {
			l.counts["kills before the store was open"]++
		}
		l.dead(false)
		// Some wrecks are met by the next child, and killed again while it recovers.
		if nested = rnd.IntN(3) == 0 && round < killsPerCase-1; nested {
			continue
		}
		if err := l.examine(); err != nil {
			return fmt.Errorf("round %d: %v: %w", round, at, err)
		}
	}
	return nil
}
