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
	Problems []problem `json:"problems"`
	Seconds  float64   `json:"seconds"`
}

type problem struct {
	File   string `json:"file,omitempty"`
	Offset *int64 `json:"offset,omitempty"`
	What   string `json:"what"`
}

func (p problem) String() string {
	s := p.What
	if p.Offset != nil {
		s = fmt.Sprintf("offset %d: %s", *p.Offset, s)
	}
	if p.File != "" {
		s = p.File + ": " + s
	}
	return s
}

func newCheck(a *app) *cobra.Command {
	cmd := &cobra.Command{
		Use:   "check",
		Short: "Read everything and verify every checksum",
		Long: `Opens the store, which replays and verifies its log, then reads everything it has:
tables, the watermark, each key and each large value with its hash. Prints what was
verified, or each problem on a line of its own with file and offset. Exit code 5
means that something is corrupt.`,
		Example: `  holdfast check -d ./state
  holdfast check -d ./state --json`,
		Args: between(0, 0, ""),
	}
	how := readOnlyFlag(cmd)
	cmd.RunE = func(cmd *cobra.Command, args []string) error {
		began := time.Now()
		var r checkReport
		err := a.withStore(cmd, how(), func(e *engine.Engine) error {
			found := e.Recovered()
			r.LSN, r.Clean, r.CutBytes = found.LSN, found.Clean, found.CutBytes
			if err := e.Check(cmd.Context()); err != nil {
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
		if err != nil && !errors.Is(err, engine.ErrCorrupt) {
			return err
		}
		r.OK, r.Problems = err == nil, problems(err)
		if printErr := a.printCheck(&r); printErr != nil {
			return errors.Join(err, printErr)
		}
		if err != nil {
			return said(err, "the store is corrupt: %s", count(len(r.Problems), "problem"))
		}
		return nil
	}
	return cmd
}

func count(n int, what string) string {
	switch {
	case n == 1:
	case strings.HasSuffix(what, "ch"):
		what += "es"
	default:
		what += "s"
	}
	return humanize.Comma(int64(n)) + " " + what
}

func (a *app) printCheck(r *checkReport) error {
	if a.json {
		return a.printJSON(r)
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
		state = fmt.Sprintf("not closed, %s of a torn tail that nothing acknowledged", humanize.IBytes(uint64(r.CutBytes)))
	}
	return a.printf("ok: %s keys, %s, through lsn %d (%s), every checksum verified in %.2f s\n",
		humanize.Comma(r.Keys), humanize.IBytes(uint64(r.Bytes)), r.LSN, state, r.Seconds)
}

// problems takes apart what Check joined.
func problems(err error) []problem {
	out := []problem{}
	if err == nil {
		return out
	}
	if list := joined(err); list != nil {
		for _, e := range list {
			out = append(out, problems(e)...)
		}
		return out
	}
	var c *engine.CorruptError
	if !errors.As(err, &c) {
		return append(out, problem{What: plain(err)})
	}
	if list := joined(c.Err); len(list) > 1 { // a room's own list, given one name at the door
		for _, e := range list {
			what := plain(e)
			if room, rest, ok := strings.Cut(what, ": corrupt: "); ok && !strings.Contains(room, " ") {
				what = rest
			}
			out = append(out, problem{What: what})
		}
		return out
	}
	p := problem{File: c.File, What: c.What + cause(c)}
	if c.Offset >= 0 {
		p.Offset = &c.Offset
	}
	if c.File == "" {
		p.What = plain(err) // with the key that led there
	}
	return append(out, p)
}

// cause is what c says on top of its own text: the first error below it that says
// something else.
func cause(c *engine.CorruptError) string {
	for e := c.Err; e != nil; {
		if !strings.Contains(e.Error(), c.What) {
			return ": " + plain(e)
		}
		if list := joined(e); len(list) == 1 {
			e = list[0]
			continue
		}
		e = errors.Unwrap(e)
	}
	return ""
}

// joined is the list in an error made by errors.Join. One made with several %w has
// a list, too, but that is of causes of one problem.
func joined(err error) []error {
	list, ok := err.(interface{ Unwrap() []error })
	if !ok || fmt.Sprintf("%T", err) != fmt.Sprintf("%T", errors.Join(errNoStore)) {
		return nil
	}
	return list.Unwrap()
}
