//go:build schedule

package schedule

import (
	"context"
	"fmt"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Runner plays one script under one schedule per case. A script that fails is made
// shorter before it is reported.
func Runner() runner.Runner {
	return runner.Runner{
		Name:  "schedules",
		About: "flush, commit, recycle, fill, snapshot and close in orders made from the seed",
		Case: func(_ context.Context, seed uint64) (runner.Counts, error) {
			s := NewScript(seed)
			counts, trace, err := Play(s)
			if err == nil {
				return counts, nil
			}
			s = shrink(s, func(less Script) bool {
				_, t, e := Play(less)
				if e != nil {
					trace, err = t, e
				}
				return e != nil
			})
			return counts, fmt.Errorf("%w\n  script, %d steps: %s\n  last points: %v", err, len(s.Steps), s, trace)
		},
	}
}
