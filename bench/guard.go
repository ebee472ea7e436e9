package main

import (
	"errors"
	"fmt"
	"os"
	"text/tabwriter"
)

// guarded are the rows that every change is held to, and how far below its floor a row
// may come: a machine that does other work, too, moves a ratio by a third, and both stores
// in one process have one collector.
var guarded = []struct {
	id     string
	margin float64
}{
	{"hot-get", 0.6}, {"absent-get", 0.7}, {"scan-all", 0.7}, {"async-put", 0.7}, {"durable-put-8", 0.7},
}

const guardRounds = 3 // of A-B-B-A; their median counts

// guard measures the rows beside Pebble in this one process, some seconds each, and fails
// where one is below its floor by more than its margin. It finds what made a row some
// times slower; what a row is worth the table says, from processes of their own.
func guard() error {
	*seconds, tune = 0.3, false
	out := tabwriter.NewWriter(os.Stdout, 0, 8, 2, ' ', 0)
	fmt.Fprintln(out, "row\tof Pebble\tat least\t")
	var failed error
	for _, g := range guarded {
		r, err := rowOf(g.id)
		if err != nil {
			return err
		}
		ratio, err := guardRow(r)
		if err != nil {
			return fmt.Errorf("%s: %w", r.id, err)
		}
		verdict := ""
		if least := r.floor * g.margin; ratio < least {
			verdict = "TOO SLOW"
			failed = errors.Join(failed, fmt.Errorf("%s is %.2f of Pebble, and must not be below %.2f", r.id, ratio, least))
		}
		fmt.Fprintf(out, "%s\t%.2f\t%.2f\t%s\n", r.id, ratio, r.floor*g.margin, verdict)
	}
	return errors.Join(out.Flush(), failed)
}

// guardRow is the median of some rounds over the same two stores.
func guardRow(r *row) (ratio float64, err error) {
	d := r.data(r.memory())
	z := newZipfian(d.n, 0.99)
	var arms [2]*arm
	for i, name := range []string{"holdfast", "pebble"} {
		var dir string
		if dir, err = os.MkdirTemp("", "holdfast-bench-"); err != nil {
			return 0, err
		}
		defer os.RemoveAll(dir)
		a := &arm{row: r, name: name, dir: dir, budget: r.memory(), seconds: *seconds, data: d, zipf: z}
		if a.store, err = open(name, dir, a.budget, r.durable); err != nil {
			return 0, err
		}
		defer func() { err = errors.Join(err, a.close()) }()
		if _, err = a.measure(); err != nil { // prepares it, and warms it
			return 0, err
		}
		arms[i] = a
	}
	var ratios []float64
	for range guardRounds {
		var x [2]float64
		for _, who := range []int{0, 1, 1, 0} {
			v, err := arms[who].clocked()
			if err != nil {
				return 0, err
			}
			x[who] += v
		}
		ratios = append(ratios, x[0]/x[1])
	}
	return median(ratios), nil
}
