package damage

import (
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/holdfastdb/holdfast/fuzz/runner"
)

// Outcome of one damaged store. Anything else is a broken promise, and an error.
type Outcome uint8

const (
	Harmless Outcome = iota // every answer is right
	Reported                // some answers are errors of a known type, none is wrong
	Refused                 // the store does not open, with an error of a known type
	Cut                     // the last commit is missing, which no promise covered
	Rewound                 // STATE and the newest segment were put back together: a state that was
	outcomes
)

var outcomeNames = [outcomes]string{"harmless", "reported", "refused", "last group cut", "rewound"}

func (o Outcome) String() string { return outcomeNames[o] }

// Table counts outcomes by class of file and kind of damage.
type Table map[[2]string]*[outcomes]int64

// Add counts one outcome.
func (t Table) Add(class, kind string, o Outcome) {
	k := [2]string{class, kind}
	if t[k] == nil {
		t[k] = new([outcomes]int64)
	}
	t[k][o]++
}

// Merge adds the counts of another table.
func (t Table) Merge(other Table) {
	for k, n := range other {
		for o := range n {
			for range n[o] {
				t.Add(k[0], k[1], Outcome(o))
			}
		}
	}
}

// Total is how many cases the table has, and how many of them ended so.
func (t Table) Total() (all int64, by [outcomes]int64) {
	for _, n := range t {
		for o := range n {
			by[o] += n[o]
			all += n[o]
		}
	}
	return all, by
}

// Counts of the table for a runner.
func (t Table) Counts() runner.Counts {
	all, by := t.Total()
	c := runner.Counts{"damages": all}
	for o, n := range by {
		if n > 0 {
			c[Outcome(o).String()] = n
		}
	}
	return c
}

// String is the table in Markdown.
func (t Table) String() string {
	var b strings.Builder
	b.WriteString("| class | kind |")
	for _, n := range outcomeNames {
		b.WriteString(" " + n + " |")
	}
	b.WriteString("\n|---|---|" + strings.Repeat("---:|", int(outcomes)) + "\n")
	keys := slices.SortedFunc(maps.Keys(t), func(x, y [2]string) int {
		return strings.Compare(x[0]+"\x00"+x[1], y[0]+"\x00"+y[1])
	})
	for _, k := range keys {
		fmt.Fprintf(&b, "| %s | %s |", k[0], k[1])
		for _, n := range t[k] {
			fmt.Fprintf(&b, " %d |", n)
		}
		b.WriteString("\n")
	}
	all, by := t.Total()
	fmt.Fprintf(&b, "| all | %d cases |", all)
	for _, n := range by {
		fmt.Fprintf(&b, " %d |", n)
	}
	b.WriteString("\n")
	return b.String()
}
