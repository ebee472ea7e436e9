package main

import (
	"encoding/base64"
	"errors"
	"fmt"
	"os"
	"strings"
	"unicode/utf8"

	"github.com/dustin/go-humanize"
	"github.com/schollz/progressbar/v3"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/engine"
)

// maxShown bounds each list of a report for people; --json prints all that is listed.
const maxShown = 20

func newSalvage(a *app) *cobra.Command {
	return &cobra.Command{
		Use:   "salvage DIR NEWDIR",
		Short: "Rescue what is left of a damaged store into a new one",
		Long: `Reads the damaged store in DIR, which it never changes, and writes everything that
still verifies into a new store in NEWDIR, which must not exist or be empty. Nothing
of DIR has to be whole: not its log, its tables, its MANIFEST, its packs or its STATE.

A value that does not match its checksum is never copied. What could not be read is
listed, with the file, the offset, and the key or the range of keys it held, as far
as anything still knows it. Keys are doubtful that were rescued although something
newer about them, a delete or a value, may be among what a table lost. Commits that the
log lost may have touched any key: a key with a lower revision may be out of date.

When it ends with code 0, NEWDIR holds all that DIR did. Code 5 means that something
was lost or is doubtful: NEWDIR holds the rest, and is durable. With any other code
nothing is left in NEWDIR, unless only the report could not be printed.

  holdfast salvage ./state ./rescued      rescue, and read the report
  holdfast check -d ./rescued             prove that the new store is sound
  mv ./state ./state.damaged && mv ./rescued ./state`,
		Example: `  holdfast salvage ./state ./rescued
  holdfast salvage ./state ./rescued --json > report.json`,
		Args: between(2, 2, "DIR and NEWDIR"),
		RunE: func(cmd *cobra.Command, args []string) error { return a.salvage(cmd, args[0], args[1]) },
	}
}

func (a *app) salvage(cmd *cobra.Command, dir, dst string) error {
	if cmd.Flags().Changed("dir") {
		return usagef(cmd, "salvage takes DIR and NEWDIR as arguments, not --dir")
	}
	o, err := a.options(cmd)
	if err != nil {
		return err
	}
	if i, err := os.Stat(dir); err == nil && !i.IsDir() {
		return said(errNoStore, "%s is not a directory", dir)
	}
	bar := a.newPhases()
	r, err := engine.Salvage(cmd.Context(), dir, dst, o, bar.show)
	bar.done()
	switch {
	case errors.Is(err, os.ErrExist):
		return said(err, "%s is there already and holds something; name a new directory", dst)
	case errors.Is(err, engine.ErrNothingLeft):
		return said(err, "nothing in %s can be rescued: %s", dir, strings.TrimPrefix(plain(err), plain(engine.ErrNothingLeft)+": "))
	case err != nil:
		return storeError(dir, err)
	}
	if err := a.printSalvage(&r, dst); err != nil {
		return err
	}
	if r.LostCount > 0 || r.DoubtfulCount > 0 {
		return said(errLost, "rescued %s to %s; %s, %s", count(int(r.Keys), "key"), dst,
			count(int(r.LostCount), "loss"), count(int(r.DoubtfulCount), "doubtful key"))
	}
	return nil
}

// phases shows how far a salvage is: a bar for each of its phases.
type phases struct {
	app   *app
	bar   *progressbar.ProgressBar
	phase string
}

func (a *app) newPhases() *phases { return &phases{app: a} }

func (p *phases) show(s engine.SalvageProgress) {
	if p.app.json || !isTerminal(p.app.err) {
		return
	}
	if p.bar == nil || p.phase != s.Phase {
		p.done()
		p.phase, p.bar = s.Phase, newBar(p.app.err, s.Phase, max(s.Total, 1))
	}
	// A screen that cannot be written to is no reason to stop.
	p.bar.ChangeMax64(max(s.Total, 1))
	_ = p.bar.Set64(s.Done)
}

func (p *phases) done() {
	if p.bar != nil {
		_ = p.bar.Finish()
	}
}

// salvageJSON is a report as --json prints it.
type salvageJSON struct {
	OK            bool           `json:"ok"` // nothing is lost, nothing doubtful
	Dir           string         `json:"dir,omitempty"`
	LSN           uint64         `json:"lsn"`
	Keys          int64          `json:"keys"`
	Bytes         int64          `json:"bytes"`
	Large         int64          `json:"large"`
	Tombstones    int64          `json:"tombstones"`
	Exact         bool           `json:"exact"` // the order of deletes is known
	Lost          []lossJSON     `json:"lost"`
	LostCount     int64          `json:"lost_count"`
	Doubtful      []doubtfulJSON `json:"doubtful"`
	DoubtfulCount int64          `json:"doubtful_count"`
	Seconds       float64        `json:"seconds"`
}

// bytesJSON is a key: text, or base64 if it is not UTF-8.
type bytesJSON struct {
	Text     string `json:"text"`
	Encoding string `json:"encoding,omitempty"`
}

func newBytesJSON(b []byte) *bytesJSON {
	if b == nil {
		return nil
	}
	if utf8.Valid(b) {
		return &bytesJSON{Text: string(b)}
	}
	return &bytesJSON{base64.StdEncoding.EncodeToString(b), inBase64}
}

type lossJSON struct {
	File     string     `json:"file,omitempty"`
	Offset   *int64     `json:"offset,omitempty"`
	Bytes    int64      `json:"bytes,omitempty"`
	What     string     `json:"what"`
	Key      *bytesJSON `json:"key,omitempty"`
	Ranged   bool       `json:"ranged,omitempty"` // it held keys from lower to upper
	Lower    *bytesJSON `json:"lower,omitempty"`
	Upper    *bytesJSON `json:"upper,omitempty"` // missing: to the end of all keys
	FirstLSN uint64     `json:"first_lsn,omitempty"`
	LastLSN  uint64     `json:"last_lsn,omitempty"`
}

func newLossJSON(l engine.SalvageLoss) lossJSON {
	j := lossJSON{
		File: l.File, Bytes: l.Bytes, What: l.What, Key: newBytesJSON(l.Key),
		Ranged: l.Ranged, FirstLSN: l.FirstLSN, LastLSN: l.LastLSN,
	}
	if l.Ranged {
		j.Lower, j.Upper = newBytesJSON(l.Lower), newBytesJSON(l.Upper)
	}
	if l.Offset >= 0 {
		j.Offset = &l.Offset
	}
	return j
}

type doubtfulJSON struct {
	Key      *bytesJSON `json:"key"`
	Revision uint64     `json:"revision"`
	Why      string     `json:"why"`
}

func newSalvageJSON(r *engine.SalvageReport, dst string) salvageJSON {
	j := salvageJSON{
		OK: r.LostCount == 0 && r.DoubtfulCount == 0, Dir: dst, LSN: r.LSN, Keys: r.Keys, Bytes: r.Bytes,
		Large: r.Large, Tombstones: r.Tombstones, Exact: r.Exact,
		LostCount: r.LostCount, DoubtfulCount: r.DoubtfulCount, Seconds: r.Took.Seconds(),
		Lost: []lossJSON{}, Doubtful: []doubtfulJSON{},
	}
	for _, l := range r.Lost {
		j.Lost = append(j.Lost, newLossJSON(l))
	}
	for _, d := range r.Doubtful {
		j.Doubtful = append(j.Doubtful, doubtfulJSON{newBytesJSON(d.Key), d.Revision, d.Why})
	}
	return j
}

func (a *app) printSalvage(r *engine.SalvageReport, dst string) error {
	if a.json {
		return a.printJSON(newSalvageJSON(r, dst))
	}
	for i, l := range r.Lost {
		if i == maxShown {
			break
		}
		if err := a.printf("lost: %s\n", l); err != nil {
			return err
		}
	}
	if more := r.LostCount - maxShown; more > 0 {
		if err := a.printf("lost: %s more; --json lists them\n", count(int(more), "thing")); err != nil {
			return err
		}
	}
	for i, d := range r.Doubtful {
		if i == maxShown {
			break
		}
		if err := a.printf("doubtful: key %s: %s\n", escape(d.Key), d.Why); err != nil {
			return err
		}
	}
	if more := r.DoubtfulCount - maxShown; more > 0 {
		if err := a.printf("doubtful: %s more; --json lists them\n", count(int(more), "key")); err != nil {
			return err
		}
	}
	if !r.Exact {
		if err := a.printf("note: no manifest told which tables were the newest, so a key that was deleted long ago may be back\n"); err != nil {
			return err
		}
	}
	line := fmt.Sprintf("rescued %s, %s", count(int(r.Keys), "key"), humanize.IBytes(uint64(r.Bytes)))
	if r.Large > 0 {
		line += fmt.Sprintf(" (%s)", count(int(r.Large), "large value"))
	}
	line += fmt.Sprintf(", through lsn %d, to %s in %.2f s", r.LSN, dst, r.Took.Seconds())
	if r.Tombstones > 0 {
		line += fmt.Sprintf("; %s stay deleted", count(int(r.Tombstones), "key"))
	}
	return a.printf("%s\n", line)
}
