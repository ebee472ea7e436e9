package runner

import (
	"context"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/holdfastdb/holdfast/fuzz/oracle"
)

// Counts is what was done, by name: "cuts", "reopens", "acknowledged".
type Counts map[string]int64

// Add adds other to c.
func (c Counts) Add(other Counts) {
	for k, v := range other {
		c[k] += v
	}
}

// String lists the counts by name.
func (c Counts) String() string {
	var out []string
	for _, k := range slices.Sorted(maps.Keys(c)) {
		out = append(out, fmt.Sprintf("%d %s", c[k], k))
	}
	return strings.Join(out, ", ")
}

// AtLeast says which counts stayed below their floors, written "200 kills, 300 power
// cuts"; an empty text has none.
func (c Counts) AtLeast(floors string) error {
	var short []error
	for f := range strings.SplitSeq(floors, ", ") {
		if f == "" {
			continue
		}
		number, name, _ := strings.Cut(f, " ")
		n, err := strconv.ParseInt(number, 10, 64)
		switch {
		case err != nil:
			short = append(short, fmt.Errorf("floor %q: %w", f, err))
		case c[name] < n:
			short = append(short, fmt.Errorf("%d %s, not %d", c[name], name, n))
		}
	}
	return errors.Join(short...)
}

// Runner is one way to hurt a store.
type Runner struct {
	Name  string // "power cuts": a row of the table
	About string // one line
	// Ready returns why the runner cannot run here; nil, or a nil Ready: it can.
	Ready func() error
	// Case runs one case: the same seed does the same. It takes from milliseconds to
	// some seconds, and stops early, without an error, when ctx ends. Its error is a
	// broken promise of the store; in Counts is what was done until then.
	Case func(ctx context.Context, seed uint64) (Counts, error)
}

// caseBound is how long a case may take, a hundred times what it does: one that takes
// longer hangs (O11).
var caseBound = 5 * time.Minute

// run runs a case within caseBound. One that hangs goes on behind it, and its runner must
// not be asked again.
func (r Runner) run(ctx context.Context, seed uint64) (c Counts, hangs bool, err error) {
	var counts Counts
	err, stacks := oracle.Within(caseBound, "the case", func() (err error) {
		counts, err = r.Case(ctx, seed)
		return err
	})
	if stacks != "" {
		return nil, true, fmt.Errorf("%w\n%s", err, stacks) // counts are still the case's
	}
	return counts, false, err
}

// Seeds runs the cases of n seeds from first on, and stops at the first error.
func Seeds(ctx context.Context, r Runner, first uint64, n int) (Counts, error) {
	total := Counts{}
	for seed := first; seed < first+uint64(n) && ctx.Err() == nil; seed++ {
		c, _, err := r.run(ctx, seed)
		total.Add(c)
		if err != nil {
			return total, fmt.Errorf("%s: seed %d: %w", r.Name, seed, err)
		}
	}
	return total, nil
}

// Row is what a runner did in a loop.
type Row struct {
	Name    string
	About   string
	Cases   int64
	Counts  Counts
	Took    time.Duration
	Skipped string  // why it did not run
	Broken  []error // promises, at most maxBroken of them
}

const maxBroken = 3

// Loop runs all runners in turn until ctx ends: always the one that had the least
// time so far. A runner that has found maxBroken broken promises stops, as does one
// whose case hangs. Loop calls
// progress after each case, with rows that must only be read, in the call.
func Loop(ctx context.Context, runners []Runner, first uint64, progress func(rows []Row, now string)) []Row {
	rows := make([]Row, len(runners))
	hung := make([]bool, len(runners))
	for i, r := range runners {
		rows[i] = Row{Name: r.Name, About: r.About, Counts: Counts{}}
		if r.Ready != nil {
			if err := r.Ready(); err != nil {
				rows[i].Skipped = err.Error()
			}
		}
	}
	for ctx.Err() == nil {
		next := -1
		for i := range rows {
			if rows[i].Skipped == "" && !hung[i] && len(rows[i].Broken) < maxBroken && (next < 0 || rows[i].Took < rows[next].Took) {
				next = i
			}
		}
		if next < 0 {
			break
		}
		row := &rows[next]
		progress(rows, row.Name)
		seed := first + uint64(row.Cases)
		began := time.Now()
		c, hangs, err := runners[next].run(ctx, seed)
		row.Took += time.Since(began)
		row.Cases++
		hung[next] = hangs
		row.Counts.Add(c)
		if err != nil && !errors.Is(err, context.Canceled) && !errors.Is(err, context.DeadlineExceeded) {
			row.Broken = append(row.Broken, fmt.Errorf("seed %d: %w", seed, err))
		}
		progress(rows, row.Name)
	}
	return rows
}
