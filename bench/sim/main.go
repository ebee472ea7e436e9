package main

import (
	"flag"
	"fmt"
	"math"
	"os"
	"strings"
)

// What a read costs in microseconds, by where it ends. Misses: L3 with the page
// cache warm, and from a device, both measured at the engine. L2: measured at
// the cache; a compressed cell is decoded. What goes into L2 costs, too: processors
// that are busy have none to spare for it.
const (
	costL1         = 0.2
	costL2         = 1.0
	costL2Packed   = 2.3
	costFill       = 1.0
	costFillPacked = 2.5
	missWarm       = 8.0
	missDevice     = 109.0
)

func (o outcome) cost(miss float64) float64 {
	l2, fill := costL2, costFill
	if o.packed {
		l2, fill = costL2Packed, costFillPacked
	}
	missed := o.reads - o.l1 - o.l2
	return (float64(o.l1)*costL1 + float64(o.l2)*l2 + float64(missed)*miss + float64(o.filled)*fill) / float64(o.reads)
}

func main() {
	suite := flag.String("suite", "quick", "quick (32 MiB, under two minutes) or full (128 MiB)")
	only := flag.String("designs", "", "those whose name contains this, and L1 only")
	count := flag.Int("reads", 0, "of each trace; 0: by suite")
	values := flag.String("values", "json", "json, or noise: values that do not compress")
	flag.Parse()
	if err := run(*suite, *only, *values, *count); err != nil {
		fmt.Fprintln(os.Stderr, "sim:", err)
		os.Exit(1)
	}
}

func run(suite, only, values string, count int) error {
	newValue := map[string]func(uint32) []byte{"json": value, "noise": noise}[values]
	if newValue == nil {
		return fmt.Errorf("no such values: %q", values)
	}
	memory, reads := int64(32<<20), 250_000
	switch suite {
	case "quick":
	case "full":
		memory, reads = 128<<20, 4_000_000
	default:
		return fmt.Errorf("no such suite: %q", suite)
	}
	if count > 0 {
		reads = count
	}
	mean := meanValue()
	p := params{
		reads: reads,
		keys:  int(memory * 8 / int64(mean)),
		fits:  int(memory / int64(mean+mean/16+overhead)),
	}
	fmt.Printf("%d MiB, %d reads, %d keys, values (%s) of %d B on average; L1 alone holds about %d.\n\n", memory>>20, reads, p.keys, values, mean, p.fits)

	results := map[string][]outcome{}
	var kept []design
	for i, d := range designs {
		if i == 0 || strings.Contains(d.name, only) {
			kept = append(kept, d)
		}
	}
	for _, t := range traces {
		keys := t.make(p)
		for _, d := range kept {
			o, err := d.run(keys, memory, newValue)
			if err != nil {
				return fmt.Errorf("%s: %s: %w", t.name, d.name, err)
			}
			results[d.name] = append(results[d.name], o)
		}
	}
	base := results[designs[0].name]
	table("Hit ratio, all tiers (of which L2)", kept, func(d design, i int) string {
		o := results[d.name][i]
		n := float64(o.reads)
		if d.l1 == 1 || d.otter {
			return fmt.Sprintf("%.3f", float64(o.l1)/n)
		}
		return fmt.Sprintf("%.3f (%.3f)", float64(o.l1+o.l2)/n, float64(o.l2)/n)
	}, nil)
	for _, m := range []struct {
		name string
		cost float64
	}{{"the page cache warm", missWarm}, {"misses from a device", missDevice}} {
		speed := func(d design, i int) float64 { return base[i].cost(m.cost) / results[d.name][i].cost(m.cost) }
		table("Speed of a read beside L1 only, "+m.name, kept, func(d design, i int) string {
			return fmt.Sprintf("%.2f", speed(d, i))
		}, func(d design) string {
			log, least := 0.0, math.Inf(1)
			for i := range traces {
				log += math.Log(speed(d, i))
				least = min(least, speed(d, i))
			}
			return fmt.Sprintf("%.2f | %.2f", math.Exp(log/float64(len(traces))), least)
		})
	}
	table("Part of the memory that L2 has in the end", kept, func(d design, i int) string {
		return fmt.Sprintf("%.2f", results[d.name][i].part)
	}, nil)
	table("Nanoseconds of a call of Get, measured (victims and promotions dropped)", kept, func(d design, i int) string {
		return fmt.Sprintf("%.0f (%d)", results[d.name][i].nanos, results[d.name][i].dropped)
	}, nil)
	return nil
}

// table prints designs by traces.
func table(title string, kept []design, cell func(d design, trace int) string, last func(d design) string) {
	fmt.Printf("%s:\n\n| design |", title)
	for _, t := range traces {
		fmt.Printf(" %s |", t.name)
	}
	extra := 0
	if last != nil {
		fmt.Print(" mean | least |")
		extra = 2
	}
	fmt.Printf("\n|%s\n", strings.Repeat("---|", 1+len(traces)+extra))
	for _, d := range kept {
		fmt.Printf("| %s |", d.name)
		for i := range traces {
			fmt.Printf(" %s |", cell(d, i))
		}
		if last != nil {
			fmt.Printf(" %s |", last(d))
		}
		fmt.Println()
	}
	fmt.Println()
}
