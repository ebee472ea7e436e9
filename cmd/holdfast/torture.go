package main

import (
	"context"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"os"
	"os/signal"
	"path/filepath"
	"slices"
	"strings"
	"syscall"
	"text/tabwriter"
	"time"

	"github.com/dustin/go-humanize"
	"github.com/spf13/cobra"

	"github.com/holdfastdb/holdfast/fuzz/machine"
	"github.com/holdfastdb/holdfast/fuzz/runner"
	"github.com/holdfastdb/holdfast/fuzz/torture"
)

// errBroken says that a promise was broken.
var errBroken = errors.New("a promise was broken")

func newTorture(a *app) *cobra.Command {
	var minutes float64
	var seed uint64
	var only []string
	var list bool
	var binary string
	cmd := &cobra.Command{
		Use:   "torture",
		Short: "Hurt stores in every way there is, and check what they promised",
		Long: `Hurt stores in every way there is, and check what they promised.

Each runner gets the same share of the time: simulated power cuts, real ones on ext4,
kills, flipped bytes, failing calls, full disks, chosen orders of goroutines, concurrent
readers and writers. Everything happens in memory and in temporary directories. What
cannot run on this machine is named, with the reason.

A broken promise is printed as one line with the rule, the key, the commit and the seed;
the same --seed makes the same cases again, --only picks the runner. The command then
ends with exit code 5.`,
		Example: `  holdfast torture --minutes 30
  holdfast torture --minutes 1 --seed 7 --only "power cuts"
  holdfast torture --list`,
		Args: between(0, 0, ""),
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !(minutes > 0 && minutes < 1e6) {
				return usagef(cmd, "--minutes must be above zero, and below a million")
			}
			if !cmd.Flags().Changed("seed") {
				seed = rand.Uint64() >> 16
			}
			h, err := tortureHost(binary)
			if err != nil {
				return err
			}
			runners, err := pick(cmd, torture.Runners(h), only)
			if err != nil {
				return err
			}
			if list {
				return a.listRunners(runners)
			}
			return a.torture(cmd.Context(), runners, time.Duration(minutes*float64(time.Minute)), seed)
		},
	}
	f := cmd.Flags()
	f.Float64Var(&minutes, "minutes", 5, "how long; fractions are fine")
	f.Uint64Var(&seed, "seed", 0, "first seed of every runner (default: a fresh one)")
	f.StringArrayVar(&only, "only", nil, "only this runner, or those whose names contain one of these words, between commas")
	f.StringVar(&binary, "binary", "", "the holdfast that is killed and traced (default: this one)")
	f.BoolVar(&list, "list", false, "list the runners, and what stops them here")
	return cmd
}

// pick returns the runners that are meant by one of the wishes; all without any. A wish is
// a name, as it is or with hyphens, or words of which a name contains one.
func pick(cmd *cobra.Command, all []runner.Runner, wishes []string) ([]runner.Runner, error) {
	if len(wishes) == 0 {
		return all, nil
	}
	some := slices.DeleteFunc(slices.Clone(all), func(r runner.Runner) bool {
		return !slices.ContainsFunc(wishes, func(wish string) bool {
			if i := slices.IndexFunc(all, func(r runner.Runner) bool { return isCalled(r, wish) }); i >= 0 {
				return isCalled(r, wish)
			}
			return slices.ContainsFunc(strings.Split(wish, ","), func(w string) bool { return strings.Contains(r.Name, w) })
		})
	})
	if len(some) == 0 {
		return nil, usagef(cmd, "no runner is called %s; --list lists them", strings.Join(wishes, " or "))
	}
	return some, nil
}

func isCalled(r runner.Runner, name string) bool {
	return r.Name == name || strings.NewReplacer(", ", "-", " ", "-").Replace(r.Name) == name
}

func (a *app) listRunners(runners []runner.Runner) error {
	w := tabwriter.NewWriter(a.out, 0, 4, 2, ' ', 0)
	for _, r := range runners {
		why := ""
		if r.Ready != nil {
			if err := r.Ready(); err != nil {
				why = "not here: " + err.Error()
			}
		}
		fmt.Fprintf(w, "%s\t%s\t%s\n", r.Name, r.About, why)
	}
	return w.Flush()
}

func (a *app) torture(ctx context.Context, runners []runner.Runner, d time.Duration, seed uint64) error {
	parent, stop := signal.NotifyContext(ctx, os.Interrupt, syscall.SIGTERM)
	defer stop()
	ctx, cancel := context.WithTimeout(parent, d)
	defer cancel()
	live := &liveLine{w: a.err, on: !a.json && isTerminal(a.err), began: time.Now(), all: d}
	if !a.json {
		fmt.Fprintf(a.err, "seed %d, %s\n", seed, d.Round(time.Second))
	}
	rows := runner.Loop(ctx, runners, seed, live.show)
	live.clear()
	broken, cases := 0, int64(0)
	for _, r := range rows {
		broken += len(r.Broken)
		cases += r.Cases
	}
	if a.json {
		if err := writeJSON(a.out, tortureReport(rows, seed, time.Since(live.began))); err != nil {
			return err
		}
	} else if err := printTorture(a.out, rows); err != nil {
		return err
	}
	if broken > 0 {
		return fmt.Errorf("%w: %s, seed %d", errBroken, count(broken, "time"), seed)
	}
	if cases == 0 {
		return errors.New("nothing was tried")
	}
	return parent.Err() // an interrupted run proves less than was asked for
}

func printTorture(out io.Writer, rows []runner.Row) error {
	w := tabwriter.NewWriter(out, 0, 4, 2, ' ', 0)
	fmt.Fprintln(w, "RUNNER\tCASES\tSECONDS\tBROKEN\tDONE")
	for _, r := range rows {
		if r.Skipped != "" {
			fmt.Fprintf(w, "%s\t-\t-\t-\tskipped: %s\n", r.Name, r.Skipped)
			continue
		}
		fmt.Fprintf(w, "%s\t%s\t%.0f\t%d\t%s\n", r.Name, humanize.Comma(r.Cases), r.Took.Seconds(), len(r.Broken), r.Counts)
	}
	if err := w.Flush(); err != nil {
		return err
	}
	for _, r := range rows {
		for _, err := range r.Broken {
			fmt.Fprintf(out, "\nBROKEN: %s: %v\n", r.Name, err)
		}
	}
	return nil
}

// liveLine is the line that says what is going on: on a terminal each moment, elsewhere
// twice a minute.
type liveLine struct {
	told  int // broken promises
	w     io.Writer
	on    bool
	began time.Time
	all   time.Duration
	last  time.Time
}

func (l *liveLine) show(rows []runner.Row, now string) {
	broken := 0
	for _, r := range rows {
		broken += len(r.Broken)
	}
	if broken > l.told {
		l.clear()
		for _, r := range rows {
			if n := len(r.Broken); n > 0 && r.Name == now {
				fmt.Fprintf(l.w, "BROKEN: %s: %v\n", r.Name, r.Broken[n-1])
			}
		}
		l.told = broken
	}
	every := 30 * time.Second
	if l.on {
		every = 200 * time.Millisecond
	}
	if time.Since(l.last) < every {
		return
	}
	l.last = time.Now()
	var cases int64
	for _, r := range rows {
		cases += r.Cases
	}
	line := fmt.Sprintf("%s of %s, %s cases, %d broken, now: %s", time.Since(l.began).Round(time.Second),
		l.all.Round(time.Second), humanize.Comma(cases), broken, now)
	if l.on {
		fmt.Fprintf(l.w, "\r\x1b[K%s", line)
	} else {
		fmt.Fprintln(l.w, line)
	}
}

func (l *liveLine) clear() {
	if l.on {
		fmt.Fprint(l.w, "\r\x1b[K")
	}
}

type tortureRow struct {
	Runner  string           `json:"runner"`
	Cases   int64            `json:"cases"`
	Seconds float64          `json:"seconds"`
	Done    map[string]int64 `json:"done,omitempty"`
	Skipped string           `json:"skipped,omitempty"`
	Broken  []string         `json:"broken,omitempty"`
}

func tortureReport(rows []runner.Row, seed uint64, took time.Duration) any {
	out := struct {
		Seed    uint64       `json:"seed"`
		Seconds float64      `json:"seconds"`
		Runners []tortureRow `json:"runners"`
	}{Seed: seed, Seconds: took.Seconds()}
	for _, r := range rows {
		row := tortureRow{Runner: r.Name, Cases: r.Cases, Seconds: r.Took.Seconds(), Done: r.Counts, Skipped: r.Skipped}
		for _, err := range r.Broken {
			row.Broken = append(row.Broken, err.Error())
		}
		out.Runners = append(out.Runners, row)
	}
	return out
}

// tortureHost says how to start the process that is hurt.
func tortureHost(binary string) (machine.Host, error) {
	if binary == "" {
		self, err := os.Executable()
		if err != nil {
			return machine.Host{}, err
		}
		binary = self
	}
	path, err := filepath.Abs(binary)
	if err == nil {
		_, err = os.Stat(path)
	}
	return machine.Host{Path: path, Args: []string{tortureChildName}}, err
}
