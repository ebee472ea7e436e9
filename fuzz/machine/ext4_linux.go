package machine

import (
	"context"
	"errors"
	"fmt"
	"math/rand/v2"
	"path/filepath"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// cutsPerCase is how often a case cuts the power.
const cutsPerCase = 8

// PowerCuts cuts the power of a real ext4, on an image of its own, under children
// that write, flush and recover. One image and one store go through all cuts of a
// case.
func PowerCuts(h Host) runner.Runner {
	return runner.Runner{
		Name:  "power cuts on ext4",
		About: "EXT4_IOC_SHUTDOWN under a writing process, journal replay, reopen",
		Ready: mountReady,
		Case: h.onExt4(64, func(ctx context.Context, d *disk, l *ledger, seed uint64) error {
			return cutAgain(ctx, &h, d, l, rand.New(rand.NewPCG(seed, 0x65787434)))
		}),
	}
}

// onExt4 makes a case of what is played on a store on an ext4 of its own, of so many
// MiB.
func (h Host) onExt4(mib int64, play func(context.Context, *disk, *ledger, uint64) error) func(context.Context, uint64) (runner.Counts, error) {
	return func(ctx context.Context, seed uint64) (runner.Counts, error) {
		dir, remove, err := h.memory()
		if err != nil {
			return nil, err
		}
		defer remove()
		d, err := newExt4(ctx, dir, mib)
		if err != nil {
			return nil, canceled(ctx, err)
		}
		l := newLedger(newJob(filepath.Join(d.dir, "store"), seed))
		err = canceled(ctx, play(ctx, d, l, seed))
		return l.counts, oracle.WithSeed(errors.Join(err, d.close()), seed)
	}
}

func cutAgain(ctx context.Context, h *Host, d *disk, l *ledger, rnd *rand.Rand) error {
	nested := false
	for round := range cutsPerCase {
		l.begin()
		at := anyMoment(rnd, nested)
		how := []int{goingNoLogFlush, goingNoLogFlush, goingLogFlush, goingDefault}[rnd.IntN(4)]
		linger := rnd.IntN(2) == 0 // the child sees its disk fail, and may say so
		// A kill, and what it leaves to the page cache, is met by the next child, or
		// by the cut in its recovery.
		if nested = rnd.IntN(4) == 0 && round < cutsPerCase-1; nested {
			e, err := l.live(ctx, h.command(ctx, &l.job), at, func(kill func()) { kill() })
			if err == nil {
				err = e.killed(l)
			}
			if err != nil {
				return fmt.Errorf("round %d: kill %v: %w", round, at, err)
			}
			l.counts["kills"]++
			l.dead(false)
			continue
		}
		var cutErr error
		e, err := l.live(ctx, h.command(ctx, &l.job), at, func(kill func()) {
			if cutErr = d.cut(how); !linger || cutErr != nil {
				kill()
			}
		})
		switch {
		case err != nil || cutErr != nil:
		case !e.acted:
			err = fmt.Errorf("a child ended before: %w", e.killed(l))
		case linger:
			err = e.peaceful(l)
			l.counts["children that met a dead disk"]++
		default:
			err = e.killed(l)
		}
		if err = errors.Join(err, cutErr); err != nil {
			return fmt.Errorf("round %d: cut %d %v: %w", round, how, at, err)
		}
		l.counts["cuts"]++
		if !l.opened {
			l.counts["cuts before the store was open"]++
		}
		l.dead(true)
		if err := errors.Join(d.unmount(), d.mount(ctx)); err != nil {
			return err
		}
		if nested = rnd.IntN(3) == 0 && round < cutsPerCase-1; nested {
			continue
		}
		if err := l.examine(); err != nil {
			return fmt.Errorf("round %d: cut %d %v: %w", round, how, at, err)
		}
	}
	return nil
}
