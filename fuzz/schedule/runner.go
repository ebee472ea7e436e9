//go:build schedule

package schedule

import (
	"context"
	"fmt"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Runner plays one script under one schedule per case. A script that fails is made
// shorter before it is reported.
func Runner() runner.Runner {
	return runner.Runner{
		Name:  "schedules",
		About: "flush, commit, recycle, fill, collection, snapshot and close in orders made from the seed",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			s := NewScript(seed)
			counts, _, err := Play(s)
			if err == nil {
				return counts, nil
			}
			return counts, reported(ctx, s, err)
		},
	}
}

// shrinkFor bounds the search for a shorter script.
const shrinkFor = 10 * time.Second

// reported is the failure of the shortest script that fails in the same way.
func reported(ctx context.Context, s Script, err error) error {
	ctx, cancel := context.WithTimeout(ctx, shrinkFor)
	defer cancel()
	s = shrink(s, func(less Script) bool {
		if ctx.Err() != nil {
			return false
		}
		_, _, e := Play(less)
		return e != nil && rule(e) == rule(err)
	})
	_, trace, err := Play(s)
	return fmt.Errorf("%w\n  replay: script %s\n  %d steps: %s\n  last points: %v", err, s, len(s.Steps), s.Describe(), trace)
}
