package main

import (
	"errors"
	"fmt"
	"strings"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// checkReport is what a check found. Its JSON is what --json prints.
type checkReport struct {
	OK       bool      `json:"ok"`
	LSN      uint64    `json:"lsn"`
	Keys     int64     `json:"keys"`
	Bytes    int64     `json:"bytes"`
	Clean    bool      `json:"clean"`
	CutBytes int64     `json:"cut_bytes"`
	Problems []problem `json:"problems"` // what is corrupt
	Errors   []problem `json:"errors"`   // what kept the check from reading something
	Salvage  *foretold `json:"salvage,omitempty"`
	Seconds  float64   `json:"seconds"`
}

func newCheck(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read everything and verify every checksum",
		Long: `Opens the store, which replays and verifies its log, then reads everything it has:
tables, the watermark, each key and each large value with its hash. Prints what was
verified, or each problem on a line of its own: the file, the offset, what is wrong,
and which key, range of keys or commits it costs, as far as anything still knows. A
store that does not open is read file by file for that. The last line says what to
do. Exit code 5 means that something is corrupt; a file that cannot be read, for lack
of permission for example, is an error, but no corruption.`,
		Example: `  holdfast check -d ./state
  holdfast check -d ./state --json
  holdfast check -d ./state --recover absolute`,
		Args: between(0, 0, ""),
	}
	how := a.readFlags(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		began := time.Now()
		var r checkReport
		err := a.withStore(cmd, how(), func(e *engine.Engine) error {
			found := e.Recovered()
			r.LSN, r.Clean, r.CutBytes = found.LSN, found.Clean, found.CutBytes
			if err := errors.Join(e.Check(cmd.Context()), lostError(found.Lost)); err != nil {
				return err
			}
			for item, err := range e.Scan(engine.Range{}) {
				if err != nil {
					return err
				}
				r.Keys++
				r.Bytes += item.Size()
			}
			return nil
		})
		r.Seconds = time.Since(began).Seconds()
		r.OK = err == nil
		r.Problems, r.Errors = judge(err)
		if a.opened && isCorrupt(err) && a.recover == strict {
			if err := a.survey(cmd, &r); err != nil {
				return err
			}
		}
		if len(r.Problems) == 0 && len(r.Errors) == 1 {
			return err // the store is locked or not there, or the one file is named
		}
		if printErr := a.printCheck(&r); printErr != nil {
			return errors.Join(err, printErr)
		}
		return r.headline(err)
	}
	return cmd
}

// headline is the error that sums the report up: the problems are on lines of their
// own already.
func (r *checkReport) headline(err error) error {
	switch {
	case err == nil:
		return nil
	case len(r.Problems) == 0:
		return said(err, "the check is not complete: %s", count(len(r.Errors), "error"))
	case len(r.Errors) > 0:
		return said(err, "the store is corrupt: %s, and %s", count(len(r.Problems), "problem"), count(len(r.Errors), "other error"))
	}
	return said(err, "the store is corrupt: %s", count(len(r.Problems), "problem"))
}

// lostError makes corruption of what a forgiving mode gave up: a check that knows of
// a loss must not say that all is well.
func lostError(lost []string) error {
	errs := make([]error, len(lost))
	for i, l := range lost {
		errs[i] = &engine.CorruptError{Offset: -1, What: "lost: " + l}
	}
	return errors.Join(errs...)
}

func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "ch"):
		what += "es"
	case strings.HasSuffix(what, "ry"):
		what = strings.TrimSuffix(what, "y") + "ies"
	default:
		what += "s"
	}
	return humanize.Comma(int64(n)) + " " + what
}

func (a *app) printCheck(r *checkReport) error {
	if a.json {
		return a.printJSON(r)
	}
	for _, p := range r.Errors {
		fmt.Fprintf(a.err, "holdfast: %s\n", p)
	}
	for _, p := range r.Problems {
		if err := a.printf("%s\n", p); err != nil {
			return err
		}
	}
	if !r.OK {
		return nil
	}
	state := "closed"
	if !r.Clean {
		state = "not closed"
	}
	if r.CutBytes > 0 {
		state += fmt.Sprintf(", %s of a torn tail that nothing acknowledged", humanize.IBytes(uint64(r.CutBytes)))
	}
	return a.printf("ok: %s, %s, through lsn %d (%s), every checksum verified in %.2f s\n",
		count(int(r.Keys), "key"), humanize.IBytes(uint64(r.Bytes)), r.LSN, state, r.Seconds)
}
