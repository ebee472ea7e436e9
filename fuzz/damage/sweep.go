package damage

import (
	"context"
	"errors"
	"fmt"
	"iter"
)

// Sweep runs every stride-th place of each kind, from phase on, and fills the table.
// It stops after maxBroken broken promises, or when ctx ends.
func Sweep(ctx context.Context, f *Fixture, kinds []Kind, stride, phase int, try func(Case) (Outcome, error), table Table) error {
	var broken []error
	for _, k := range kinds {
		step := max(1, stride/k.Every)
		n := 0
		for c := range every(k.Cases(f), step, phase%step) {
			c.Brief = k.Every == 1 && n%briefly != 0
			c.Reading = c.Brief && (c.Dull || n%briefly > 1 && c.Class != "MANIFEST")
			n++
			if ctx.Err() != nil {
				return errors.Join(broken...)
			}
			o, err := try(c)
			if err != nil {
				if broken = append(broken, fmt.Errorf("%s: %w", k.Name, err)); len(broken) >= maxBroken {
					return errors.Join(broken...)
				}
				continue
			}
			table.Add(c.Class, k.Name, o)
		}
	}
	return errors.Join(broken...)
}

const (
	maxBroken = 400
	// briefly: of the flips, one in so many gets the second open, the next one a plain
	// open, the others an open for reading. It has no factor in common with the bits of
	// a byte.
	briefly = 7
)

func every(cases iter.Seq[Case], step, phase int) iter.Seq[Case] {
	return func(yield func(Case) bool) {
		i := 0
		for c := range cases {
			if i++; (i-1)%step == phase && !yield(c) {
				return
			}
		}
	}
}
