package main

import (
	"path/filepath"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

func newCompact(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "compact",
		Short: "Give back the space of what was overwritten or deleted",
		Long: `Flushes, lets the tables rewrite themselves into as few as they can be, and rewrites
or removes packs of large values that died. A store that stays open does so by itself
in time; one that only single commands open never has the time.`,
		Example: `  holdfast compact -d ./state`,
		Args:    between(0, 0, ""),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.withStore(cmd, changes, func(e *engine.Engine) error {
				dir, err := a.storeDir(cmd)
				if err != nil {
					return err
				}
				before, err := diskBytes(dir)
				if err != nil {
					return err
				}
				p := a.newProgress("compact", -1)
				err = e.Compact(cmd.Context())
				p.done()
				if err != nil {
					return err
				}
				after, err := diskBytes(dir)
				if err != nil {
					return err
				}
				if a.json {
					return a.printJSON(map[string]int64{"before": before, "after": after})
				}
				return a.printf("%s: %s on disk, %s before\n", filepath.Base(dir), humanize.IBytes(uint64(after)), humanize.IBytes(uint64(before)))
			})
		},
	}
}
