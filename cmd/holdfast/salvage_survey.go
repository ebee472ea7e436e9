package main

import (
	"errors"
	"fmt"
	"path/filepath"
	"slices"

	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// foretold is what a salvage of the store would come to.
type foretold struct {
	Keys          int64 `json:"keys"`
	Bytes         int64 `json:"bytes"`
	LostCount     int64 `json:"lost_count"`
	DoubtfulCount int64 `json:"doubtful_count"`
	Exact         bool  `json:"exact"`
}

// survey reads a corrupt store file by file, and puts what that tells in the place of
// what the check met first.
func (a *app) survey(cmd *cobra.Command, r *checkReport) error {
	dir, err := a.storeDir(cmd)
	if err != nil {
		return err
	}
	o, err := a.options(cmd)
	if err != nil {
		return err
	}
	bar := a.newPhases()
	found, err := engine.Survey(cmd.Context(), dir, o, bar.show)
	bar.done()
	if ended := cmd.Context().Err(); ended != nil {
		return ended
	}
	if err != nil { // the check has said what is wrong
		if errors.Is(err, engine.ErrNothingLeft) {
			a.rescue = "give it up: nothing in it can be rescued"
		}
		return nil
	}
	// Of one file the survey knows more: offsets, keys and ranges.
	r.Problems = slices.DeleteFunc(r.Problems, func(p problem) bool {
		return p.File != "" && slices.ContainsFunc(found.Lost, func(l engine.SalvageLoss) bool {
			return l.File != "" && filepath.Base(l.File) == filepath.Base(p.File)
		})
	})
	for _, l := range found.Lost {
		costs := newLossJSON(l)
		p := problem{File: l.File, What: meaning(l), Costs: &costs, corrupt: true}
		if l.Offset >= 0 {
			p.Offset = &l.Offset
		}
		r.Problems = append(r.Problems, p)
	}
	if more := found.LostCount - int64(len(found.Lost)); more > 0 {
		r.Problems = append(r.Problems, problem{What: "and " + count(int(more), "problem") + " more", corrupt: true})
	}
	if n := found.DoubtfulCount; n > 0 {
		r.Problems = append(r.Problems, problem{corrupt: true, What: fmt.Sprintf(
			"%s can be read, but something newer may have been lost: %s and so on", count(int(n), "key"), escape(found.Doubtful[0].Key))})
	}
	r.Salvage = &foretold{found.Keys, found.Bytes, found.LostCount, found.DoubtfulCount, found.Exact}
	a.rescue = fmt.Sprintf("'holdfast salvage %s NEWDIR' rescues the rest: %s", dir, count(int(found.Keys), "key"))
	return nil
}

// meaning is a loss without its place, which a problem has fields for.
func meaning(l engine.SalvageLoss) string {
	l.File, l.Offset = "", -1
	return l.String()
}
