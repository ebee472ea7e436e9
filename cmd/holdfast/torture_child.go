package main

import (
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/fuzz/machine"
)

const tortureChildName = "torture-child"

// newTortureChild is the process that runners of fuzz/machine kill, trace and starve.
func newTortureChild(a *app) *cobra.Command {
	cmd := &cobra.Command{Use: tortureChildName + " JOB", Hidden: true, Args: between(1, 1, "JOB")}
	cmd.RunE = func(_ *cobra.Command, args []string) error {
		job, err := machine.ParseJob(args[0])
		if err != nil {
			return err
		}
		return machine.Child(job, a.in, a.out)
	}
	return cmd
}
