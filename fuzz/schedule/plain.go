//go:build !schedule

package schedule

import (
	"errors"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Runner cannot run in this build.
func Runner() runner.Runner {
	return runner.Runner{
		Name:  "schedules",
		About: "flush, commit, recycle, fill, snapshot and close in orders made from the seed",
		Ready: func() error { return errors.New("needs a build with -tags schedule (make torture has it)") },
	}
}

// Runners is the one of them that says why none can.
func Runners() []runner.Runner { return []runner.Runner{Runner()} }
