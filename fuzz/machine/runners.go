package machine

import "github.com/holdfastdb/holdfast/fuzz/runner"

// Runners are all runners of this package.
func Runners(h Host) []runner.Runner {
	return []runner.Runner{
		Kills(h), SyscallKills(h), PowerCuts(h), SyscallFaults(h), ReadOnlyCalls(h),
		ReadOnlyDisks(h), FullDisks(h), Limits(h), OutOfMemory(h), Copies(h),
	}
}
