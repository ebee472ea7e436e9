package torture

import (
	"slices"

	"github.com/holdfastdb/holdfast/engine"
	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/component"
	"github.com/holdfastdb/holdfast/fuzz/damage"
	"github.com/holdfastdb/holdfast/fuzz/fault"
	"github.com/holdfastdb/holdfast/fuzz/live"
	"github.com/holdfastdb/holdfast/fuzz/machine"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/schedule"
)

// cutStride leaves a case of the cuts at every call at about a second; the seed says
// which calls it takes.
const cutStride = 11

// Runners are all runners, in the order of the table. h is the process that those on
// the real machine kill.
func Runners(h machine.Host) []runner.Runner {
	return slices.Concat(
		[]runner.Runner{
			fuzz.ModelRunner(),
			fuzz.EveryCutRunner(cutStride), fuzz.CrashRunner(), live.BankCuts(),
			component.Log(), component.Packs(),
		},
		machine.Runners(h),
		[]runner.Runner{fault.Errors(), fault.Slow()},
		damage.Runners(engine.Options{}),
		schedule.Runners(),
		[]runner.Runner{
			live.Linear(), live.Snapshots(), live.Coherence(0), live.Room(0), live.Bank(),
		},
	)
}
