//go:build schedule

package schedule

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strconv"
	"strings"

	"github.com/holdfastdb/holdfast/fuzz"
	"github.com/holdfastdb/holdfast/fuzz/oracle"
	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Case is a history of power cuts and an order of its goroutines: [fuzz.Crash], or
// [fuzz.EveryCut] if Every.
type Case struct {
	Every  bool
	Seed   uint64 // of options, contents, cuts and images
	Order  uint64 // of the goroutines, the time and what the rooms draw
	Each   []int  // commits of each writer
	Rounds int
	Depth  int
	CutAt  int // the call of the first, or only, cut; 0: by Seed
}

// everyStride is at which calls a whole case of every cut looks: all of them would
// take minutes.
const everyStride = 67

// NewCase is the case of a seed.
func NewCase(every bool, seed uint64) Case {
	cfg := fuzz.CrashCase(seed)
	if every {
		cfg = fuzz.EveryCutCase(seed)
	}
	c := Case{Every: every, Seed: seed, Order: seed, Rounds: cfg.Rounds, Depth: cfg.Depth}
	for range cfg.Writers {
		c.Each = append(c.Each, cfg.Commits)
	}
	return c
}

// String is what [ParseCase] reads.
func (c Case) String() string {
	kind := "crash"
	if c.Every {
		kind = "every"
	}
	each := make([]string, len(c.Each))
	for i, n := range c.Each {
		each[i] = strconv.Itoa(n)
	}
	return fmt.Sprintf("%s:%d@%d:%d:%d:%d:%s", kind, c.Seed, c.Order, c.Rounds, c.Depth, c.CutAt, strings.Join(each, "."))
}

// ParseCase reads what String wrote.
func ParseCase(text string) (c Case, err error) {
	kind, rest, _ := strings.Cut(text, ":")
	c.Every = kind == "every"
	var each string
	if _, err = fmt.Sscanf(rest, "%d@%d:%d:%d:%d:%s", &c.Seed, &c.Order, &c.Rounds, &c.Depth, &c.CutAt, &each); err != nil || !c.Every && kind != "crash" {
		return c, fmt.Errorf("case %q: %v", text, err)
	}
	for f := range strings.SplitSeq(each, ".") {
		n, err := strconv.Atoi(f)
		if err != nil {
			return c, fmt.Errorf("case %q: %w", text, err)
		}
		c.Each = append(c.Each, n)
	}
	if len(c.Each) != len(NewCase(c.Every, c.Seed).Each) {
		return c, fmt.Errorf("case %q: the seed has another number of writers", text)
	}
	return c, nil
}

// Size is how many commits the case asks for.
func (c Case) Size() int {
	n := 0
	for _, m := range c.Each {
		n += m
	}
	return n * max(1, c.Rounds)
}

// Writers is how many of the writers commit anything.
func (c Case) Writers() int {
	return len(c.Each) - len(slices.DeleteFunc(slices.Clone(c.Each), func(n int) bool { return n > 0 }))
}

// play runs the case once.
func (c Case) play(ctx context.Context) (rep fuzz.CrashReport, t *tape, err error) {
	cfg := fuzz.CrashCase(c.Seed)
	if c.Every {
		cfg = fuzz.EveryCutCase(c.Seed)
	}
	cfg.Each, cfg.Rounds, cfg.Depth, cfg.CutAt = c.Each, c.Rounds, c.Depth, c.CutAt
	t, err = under(c.Order, func() (err error) {
		if c.Every {
			rep, err = fuzz.EveryCut(ctx, cfg, everyStride, 4)
		} else {
			rep, err = fuzz.Crash(ctx, cfg)
		}
		return err
	})
	return rep, t, err
}

// Play runs the case once, and returns the newest points and the first broken promise.
func (c Case) Play(ctx context.Context) (runner.Counts, []string, error) {
	rep, t, err := c.play(ctx)
	return counted(rep, t), t.trace, err
}

func counted(rep fuzz.CrashReport, t *tape) runner.Counts {
	n := rep.Counts()
	n["steps"] = int64(t.steps)
	return n
}

// CrashRunner is [fuzz.CrashRunner] in an order made from the seed. A case that fails
// is made smaller before it is reported.
func CrashRunner() runner.Runner { return caseRunner(fuzz.CrashRunner(), false) }

// EveryCutRunner is [fuzz.EveryCutRunner] likewise.
func EveryCutRunner() runner.Runner { return caseRunner(fuzz.EveryCutRunner(everyStride), true) }

func caseRunner(r runner.Runner, every bool) runner.Runner {
	return runner.Runner{
		Name:  r.Name + inOrder,
		About: r.About + "; the order made from the seed",
		Case: func(ctx context.Context, seed uint64) (runner.Counts, error) {
			c := NewCase(every, seed)
			rep, t, err := c.play(ctx)
			if err == nil {
				return counted(rep, t), nil
			}
			return counted(rep, t), reportedCase(ctx, c, rep, err)
		},
	}
}

// reportedCase is the failure of the smallest case found that fails in the same way.
func reportedCase(ctx context.Context, c Case, rep fuzz.CrashReport, err error) error {
	whole := c
	limit, cancel := context.WithTimeout(ctx, shrinkFor)
	defer cancel()
	trace, last := []string(nil), err
	small := shrinkCase(c, rep.CutAt, func(less Case) (int, bool) {
		if limit.Err() != nil {
			return 0, false
		}
		rep, t, e := less.play(limit)
		if e == nil || rule(e) != rule(err) {
			return 0, false
		}
		trace, last = t.trace, e
		return rep.CutAt, true
	})
	return fmt.Errorf("%w\n  was: %d commits of %d writers, %d rounds; now %d commits of %d writers, %d rounds, %d further cuts, first cut at call %d"+
		"\n  replay: go test -tags schedule ./fuzz/schedule -run TestCase_replay -case %s\n  last points: %v",
		last, whole.Size(), whole.Writers(), max(1, whole.Rounds), small.Size(), small.Writers(), max(1, small.Rounds), small.Depth, small.CutAt, small, trace)
}

// shrinkCase makes a failing case smaller: fewer rounds, cuts inside recovery, writers
// and commits, then an earlier cut. fails says at which call the cut came.
func shrinkCase(c Case, cutAt int, fails func(Case) (cutAt int, failed bool)) Case {
	const orders = 6 // with commits gone, the same order is another one
	try := func(less Case) bool {
		for i := range uint64(orders) {
			less.Order = c.Order + i
			if at, ok := fails(less); ok {
				c, cutAt = less, at
				return true
			}
		}
		return false
	}
	with := func(change func(*Case)) Case {
		less := c
		less.Each = slices.Clone(c.Each)
		change(&less)
		return less
	}
	for c.Rounds > 1 && try(with(func(l *Case) { l.Rounds-- })) {
	}
	for c.Depth > 0 && try(with(func(l *Case) { l.Depth-- })) {
	}
	for again := true; again; {
		again = false
		for i := range c.Each {
			for step := c.Each[i]; step > 0; step /= 2 {
				for c.Each[i] >= step && c.Size() > step*max(1, c.Rounds) && try(with(func(l *Case) { l.Each[i] -= step })) {
					again = true
				}
			}
		}
	}
	for step := cutAt / 2; step > 0; step /= 2 {
		for cutAt > step && try(with(func(l *Case) { l.CutAt = cutAt - step })) {
		}
	}
	if c.CutAt == 0 { // it is named, so that a replay of every cut is one cut
		try(with(func(l *Case) { l.CutAt = cutAt }))
	}
	return c
}

func rule(err error) oracle.Rule {
	if v := (*oracle.Verdict)(nil); errors.As(err, &v) {
		return v.Rule
	}
	return 0
}
